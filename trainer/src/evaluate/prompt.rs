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
    /// Solved tasks before the prompt of MBPP.
    examples: String,
}

impl Prompts {
    /// `suite` is the whole file: examples are taken from it.
    ///
    /// # Errors
    /// If the examples that this way of asking needs are not in it, or the benchmark is not asked so.
    pub fn new(suite: &Suite, style: Style) -> Result<Self, EvaluateError> {
        let benchmark = suite.benchmark;
        if benchmark == Benchmark::Infilling && style == Style::Chat {
            return Err(EvaluateError::Misfit("holes are filled without --chat".to_owned()));
        }
        let mut examples = String::new();
        if benchmark == Benchmark::Mbpp && style == Style::Completion {
            for task in EXAMPLES {
                let found = suite.problems.iter().find(|problem| problem.task_id == task);
                let example = found.ok_or_else(|| {
                    EvaluateError::Misfit(format!(
                        "the prompts of MBPP begin with the tasks 2, 3 and 4, and {task} is not in the \
                         file; give mbpp.jsonl whole and choose with --tasks, or ask with --chat"
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
    use crate::evaluate::{Benchmark, Problem, Suite};

    fn problem(task_id: &str) -> Problem {
        Problem {
            task_id: task_id.to_owned(),
            entry_point: Some("f".to_owned()),
            prompt: "def f():\n    \"\"\"One.\"\"\"\n".to_owned(),
            suffix: None,
            canonical: "    return 1\n".to_owned(),
            test: String::new(),
            shown: ["assert f() == 1".to_owned(), "assert f()".to_owned()].into(),
            record: String::new(),
        }
    }

    fn prompts(benchmark: Benchmark, style: Style) -> Prompts {
        let problems = ["2", "3", "4"].map(problem).into();
        Prompts::new(&Suite { benchmark, problems, hash: String::new() }, style).expect("prompts")
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
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let suite = |benchmark| Suite { benchmark, problems: vec![], hash: String::new() };
        assert!(Prompts::new(&suite(Benchmark::Mbpp), Style::Completion).is_err());
        assert!(Prompts::new(&suite(Benchmark::Infilling), Style::Chat).is_err());
    }
}
