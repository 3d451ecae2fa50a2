//! The function that is filled in: from a crate that is never ingested.

use super::{
    files,
    unpacked::{HELD_BACK, Unpacked},
};
use coda_cli::Failure;

/// Its line before the body, the body and the line after it, without indentation.
const SIGNATURE: &str = "pub fn is_empty(&self) -> bool {";

/// A function with its body cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The crate it is from.
    pub(crate) from: String,
    /// Everything before the body.
    pub(crate) prefix: String,
    /// The body.
    pub(crate) body: String,
    /// Everything after it.
    pub(crate) suffix: String,
}

/// Cuts the function out of the held-back crate's source.
pub(crate) fn find(crates: &[Unpacked]) -> Result<Question, Failure> {
    let held_back = crates
        .iter()
        .find(|unpacked| HELD_BACK.contains(&unpacked.name.as_str()))
        .ok_or_else(|| {
            Failure::io(format!("the crate {} is not unpacked", HELD_BACK.join(", ")))
                .hint("`cargo fetch --locked` downloads and unpacks the crates of Cargo.lock")
        })?;
    let path = held_back.directory.join("src").join("lib.rs");
    cut(&files::read(&path)?, &held_back.id)
        .ok_or_else(|| Failure::incompatible(format!("{} has no `{SIGNATURE}`", path.display())))
}

/// The function with up to three lines of documentation and attributes before it.
fn cut(source: &str, from: &str) -> Option<Question> {
    let lines: Vec<&str> = source.lines().collect();
    let at = lines.iter().position(|line| line.trim() == SIGNATURE)?;
    let indent = lines[at].len() - lines[at].trim_start().len();
    let close = at + 1 + lines[at + 1..].iter().position(|line| line.trim() == "}")?;
    let about = |line: &&str| line.trim_start().starts_with("///") || line.trim().starts_with("#[");
    let first = at - lines[..at].iter().rev().take_while(|l| about(l)).count();
    let flush = |lines: &[&str]| {
        lines.iter().map(|line| line.get(indent..).unwrap_or("")).collect::<Vec<_>>().join("\n")
    };
    let body = flush(&lines[at + 1..close]);
    Some(Question {
        from: from.to_owned(),
        prefix: flush(&lines[first..=at]) + "\n    ",
        body: body.trim_start().to_owned(),
        suffix: "\n}\n".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn the_body_is_cut_out_and_the_parts_make_the_function() {
        let source = "impl V {\n    fn a() {}\n\n    /// Whether it is empty.\n    #[inline]\n    \
                      pub fn is_empty(&self) -> bool {\n        self.len() == 0\n    }\n}\n";
        let question = cut(source, "v-1").expect("a function");
        assert_eq!(
            question.prefix,
            "/// Whether it is empty.\n#[inline]\npub fn is_empty(&self) -> bool {\n    "
        );
        assert_eq!(
            (question.body.as_str(), question.suffix.as_str()),
            ("self.len() == 0", "\n}\n")
        );
        assert_eq!(cut("fn f() {}\n", "v-1"), None);
    }
}
