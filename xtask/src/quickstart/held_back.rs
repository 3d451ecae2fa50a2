//! The function that is filled in: from a crate that is never ingested.

use super::{
    files, pairs,
    unpacked::{HELD_BACK, Unpacked},
};
use coda_cli::Failure;

/// The line before the body that is cut out.
const SIGNATURE: &str = "pub fn is_empty(&self) -> bool {";

/// A function with its body cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The crate it is from.
    pub(crate) from: String,
    /// What the model is asked: doc comment and signature, as in the pairs of post-training.
    pub(crate) instruction: String,
    /// The function up to the body. The last blank of the indentation belongs to the body, as the
    /// tokenizer puts a blank before a word into the word's token.
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
    let path = held_back.directory.join("src").join("map.rs");
    cut(&files::read(&path)?, &held_back.id).ok_or_else(|| {
        Failure::incompatible(format!("{} has no documented `{SIGNATURE}`", path.display()))
    })
}

fn cut(source: &str, from: &str) -> Option<Question> {
    let pair = pairs::extract(source).into_iter().find(|p| p.function.starts_with(SIGNATURE))?;
    let (body, suffix) = pair.function.strip_prefix(SIGNATURE)?.rsplit_once('\n')?;
    let blanks = body.len() - body.trim_start().len();
    let (indent, body) = body.split_at(blanks.checked_sub(1)?);
    Some(Question {
        from: from.to_owned(),
        instruction: pair.instruction(),
        prefix: format!("{SIGNATURE}{indent}"),
        body: body.to_owned(),
        suffix: format!("\n{suffix}"),
    })
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn the_body_is_cut_out_and_the_parts_make_the_function() {
        let source = "impl V {\n    fn a() {}\n\n    /// Whether there is nothing in it.\n    \
                      #[inline]\n    pub fn is_empty(&self) -> bool {\n        self.len() == 0\n    \
                      }\n}\n";
        let question = cut(source, "v-1").expect("a function");
        assert_eq!(
            question.instruction,
            "Whether there is nothing in it.\n\npub fn is_empty(&self) -> bool"
        );
        assert_eq!(question.prefix, "pub fn is_empty(&self) -> bool {\n   ");
        assert_eq!((question.body.as_str(), question.suffix.as_str()), (" self.len() == 0", "\n}"));
        assert_eq!(cut("fn f() {}\n", "v-1"), None);
    }
}
