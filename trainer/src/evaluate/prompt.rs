//! What a model is asked, and which part of its answer is the program.
//!
//! Wording and ends are those of the harness that CoDA's figures were made with (the `evaluation` folder of
//! its repository, a fork of lm-evaluation-harness); `docs/evaluation.md` has them in a table.

use super::{Benchmark, EvaluateError, Problem, Suite};
use serde::Serialize;

/// How a problem is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// The prompt is continued: for models without post-training.
    #[default]
    Completion,
    /// A user's turn, and the head of the answer.
    Chat,
}

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, in which no control token is matched.
    Text(String),
    /// A control token by its name.
    Control(&'static str),
}

/// What is put to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What stands before the masks.
    pub before: Vec<Piece>,
    /// What stands after them; empty when the answer ends by itself.
    pub after: String,
    /// The answer is over where the first of these begins.
    pub ends: &'static [&'static str],
}

/// Ends of a function's body.
const BODY_ENDS: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];
/// The same in an answer of a chat, whose code stands in a fence.
const FENCED_BODY_ENDS: [&str; 6] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint", "```"];
const FENCE_ENDS: [&str; 1] = ["```"];
const DONE_ENDS: [&str; 1] = ["[DONE]"];

/// The tasks of MBPP that stand as examples before a prompt.
const EXAMPLES: [&str; 3] = ["2", "3", "4"];

/// Prompts for the problems of a file.
#[derive(Clone, Debug)]
pub struct Prompts {
    benchmark: Benchmark,
    style: Style,
    /// Solved tasks before the prompt.
    examples: String,
}

impl Prompts {
    /// `suite` is the whole file. `solved` is the file of MBPP that the prompts of MBPP and MBPP+ begin with
    /// three tasks of; without it MBPP itself is, and MBPP+ is asked without examples, having none.
    ///
    /// # Errors
    /// If the examples are not in the file, or the benchmark is not asked so.
    pub fn new(suite: &Suite, style: Style, solved: Option<&Suite>) -> Result<Self, EvaluateError> {
        let benchmark = suite.benchmark;
        let misfit = |problem: &str| Err(EvaluateError::Misfit(problem.to_owned()));
        if benchmark == Benchmark::Infilling && style == Style::Chat {
            return misfit("holes are filled without --chat");
        }
        let with_examples = matches!(benchmark, Benchmark::Mbpp | Benchmark::MbppPlus)
            && style == Style::Completion;
        if solved.is_some() && !with_examples {
            return misfit("only the prompts of MBPP and MBPP+ without --chat begin with examples");
        }
        if solved.is_some_and(|solved| solved.benchmark != Benchmark::Mbpp) {
            return misfit("the examples are tasks of MBPP: give --examples mbpp.jsonl");
        }
        let own = (benchmark == Benchmark::Mbpp).then_some(suite);
        let mut examples = String::new();
        if let Some(solved) = solved.or(own).filter(|_| with_examples) {
            for task in EXAMPLES {
                let found = solved.problems.iter().find(|problem| problem.task_id == task);
                let example = found.ok_or_else(|| {
                    EvaluateError::Misfit(format!(
                        "the prompts of MBPP begin with the tasks 2, 3 and 4, and {task} is not in the \
                         file; give mbpp.jsonl whole and choose with --tasks, or as --examples, or ask \
                         with --chat"
                    ))
                })?;
                let solved = [&begun(example), example.canonical.as_str(), "\n[DONE]\n\n"];
                examples.extend(solved);
            }
        }
        Ok(Self { benchmark, style, examples })
    }

    /// What is put to the model.
    #[must_use]
    pub fn question(&self, problem: &Problem) -> Question {
        let text = |text: String| vec![Piece::Text(text)];
        let prompt = &problem.prompt;
        let (before, ends): (_, &'static [_]) = match (self.benchmark, self.style) {
            (Benchmark::Infilling, _) => (text(prompt.clone()), &[]),
            (Benchmark::HumanEval | Benchmark::HumanEvalPlus, Style::Completion) => {
                (text(prompt.clone()), &BODY_ENDS)
            }
            (Benchmark::HumanEval | Benchmark::HumanEvalPlus, Style::Chat) => {
                let user = format!(
                    "Write a solution to the following problem and make sure that it passes the \
                     tests:\n```{prompt}"
                );
                let head = format!("Here is the completed function:\n```python\n{prompt}\n");
                (turns(&user, &head), &FENCED_BODY_ENDS)
            }
            (Benchmark::Mbpp | Benchmark::MbppPlus, Style::Completion) => {
                (text(format!("{}{}", self.examples, begun(problem))), &DONE_ENDS)
            }
            (Benchmark::Mbpp | Benchmark::MbppPlus, Style::Chat) => {
                let head = "Here is the completed function:\n```python\n";
                (turns(&described(problem), head), &FENCE_ENDS)
            }
        };
        Question { before, after: problem.suffix.clone().unwrap_or_default(), ends }
    }

    /// The program of an answer.
    #[must_use]
    pub fn program(&self, problem: &Problem, answer: &str) -> String {
        let ends = self.question(problem).ends;
        let end = ends.iter().filter_map(|end| answer.find(end)).min();
        let kept = &answer[..end.unwrap_or(answer.len())];
        match (self.benchmark, self.style) {
            (Benchmark::Mbpp | Benchmark::MbppPlus, _) => kept.to_owned(),
            (Benchmark::Infilling, _) | (_, Style::Completion) => {
                problem.complete(self.benchmark, kept)
            }
            (_, Style::Chat) => format!("{}\n{kept}", problem.prompt),
        }
    }
}

/// The Qwen3 chat template with thinking off, with the head of the answer.
fn turns(user: &str, head: &str) -> Vec<Piece> {
    vec![
        Piece::Control("<|im_start|>"),
        Piece::Text(format!("user\n{user}")),
        Piece::Control("<|im_end|>"),
        Piece::Text("\n".to_owned()),
        Piece::Control("<|im_start|>"),
        Piece::Text(format!("assistant\n<think>\n\n</think>\n\n{head}")),
    ]
}

/// A task of MBPP in words, with its first three tests.
fn described(problem: &Problem) -> String {
    // MBPP+ puts the description into a docstring, with a test in it.
    let lines = problem.prompt.trim().trim_matches('"').trim().lines();
    let text: Vec<&str> = lines.filter(|line| !line.starts_with("assert ")).collect();
    let tests = problem.shown.iter().take(3).map(String::as_str).collect::<Vec<_>>();
    format!(
        "You are an expert Python programmer, and here is your task: {} Your code should pass these \
         tests:\n\n{}",
        text.join("\n").trim(),
        tests.join("\n")
    )
}

/// The same as the beginning of a text that the solution continues.
fn begun(problem: &Problem) -> String {
    format!("{}\n[BEGIN]\n", described(problem))
}

#[cfg(test)]
mod tests {
    use super::{Piece, Prompts, Style};
    use crate::evaluate::{Benchmark, Checks, Problem, Suite};

    fn problem(task_id: &str) -> Problem {
        Problem {
            task_id: task_id.to_owned(),
            entry_point: Some("f".to_owned()),
            prompt: "def f():\n    \"\"\"One.\"\"\"\n".to_owned(),
            suffix: None,
            canonical: "    return 1\n".to_owned(),
            checks: Checks::Inputs,
            shown: ["assert f() == 1".to_owned(), "assert f()".to_owned()].into(),
            record: String::new(),
        }
    }

    fn prompts(benchmark: Benchmark, style: Style) -> Prompts {
        let problems = ["2", "3", "4"].map(problem).into();
        let suite = Suite { benchmark, problems, hash: String::new() };
        Prompts::new(&suite, style, None).expect("prompts")
    }

    #[test]
    fn a_body_ends_where_other_code_begins() {
        let answer = "    return 1\n\ndef g():\n    pass\n```";
        for (style, expected) in [
            (Style::Completion, "def f():\n    \"\"\"One.\"\"\"\n    return 1\n"),
            (Style::Chat, "def f():\n    \"\"\"One.\"\"\"\n\n    return 1\n"),
        ] {
            for benchmark in [Benchmark::HumanEval, Benchmark::HumanEvalPlus] {
                let program = prompts(benchmark, style).program(&problem("x"), answer);
                assert_eq!(program, expected);
            }
        }
        let chat = prompts(Benchmark::HumanEval, Style::Chat);
        let program = chat.program(&problem("x"), "    return 1```\nThat is it.");
        assert!(program.ends_with("return 1"), "{program}");
    }

    #[test]
    fn mbpp_is_asked_with_tests_and_solved_examples() {
        let mut task = problem("11");
        task.prompt = "Write one.".to_owned();
        let completion = prompts(Benchmark::Mbpp, Style::Completion);
        let question = completion.question(&task);
        let [Piece::Text(text)] = question.before.as_slice() else { panic!("one text") };
        assert_eq!(text.matches("[BEGIN]").count(), 4);
        assert_eq!(text.matches("[DONE]").count(), 3);
        assert!(text.ends_with(
            "here is your task: Write one. Your code should pass these tests:\n\nassert f() == 1\n\
             assert f()\n[BEGIN]\n"
        ));
        assert_eq!(
            completion.program(&task, "def f(): return 1\n[DONE]\nmore"),
            "def f(): return 1\n"
        );
        // The docstring of MBPP+ gives the same description.
        let mut plus = task.clone();
        plus.prompt = "\"\"\"\nWrite one.\nassert f() == 1\n\"\"\"\n".to_owned();
        let chat =
            |benchmark, task: &Problem| prompts(benchmark, Style::Chat).question(task).before;
        assert_eq!(chat(Benchmark::MbppPlus, &plus), chat(Benchmark::Mbpp, &task));
        // MBPP+ has no examples, and takes those of MBPP.
        let suite = |benchmark| {
            let problems = ["2", "3", "4"].map(problem).into();
            Suite { benchmark, problems, hash: String::new() }
        };
        let (plus, solved) = (suite(Benchmark::MbppPlus), suite(Benchmark::Mbpp));
        let prompts = |solved| Prompts::new(&plus, Style::Completion, solved).expect("prompts");
        let alone = prompts(None).question(&task).before;
        assert_eq!(alone, [Piece::Text(super::begun(&task))]);
        assert_eq!(prompts(Some(&solved)).question(&task).before, question.before);
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let suite = |benchmark| Suite { benchmark, problems: vec![], hash: String::new() };
        let refused = |benchmark, style, solved: Option<Benchmark>| {
            Prompts::new(&suite(benchmark), style, solved.map(suite).as_ref()).is_err()
        };
        assert!(refused(Benchmark::Mbpp, Style::Completion, None));
        assert!(refused(Benchmark::Infilling, Style::Chat, None));
        let mbpp = Some(Benchmark::Mbpp);
        assert!(refused(Benchmark::HumanEval, Style::Completion, mbpp));
        assert!(refused(Benchmark::MbppPlus, Style::Chat, mbpp));
        assert!(refused(Benchmark::MbppPlus, Style::Completion, Some(Benchmark::HumanEval)));
        assert!(!refused(Benchmark::MbppPlus, Style::Completion, None));
    }
}
