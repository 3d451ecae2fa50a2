//! Several fields in one text: `{question}\n{answer}`.

use std::fmt::Write as _;

/// A text with fields to be filled in. `{{` and `}}` stand for braces, `{field?}` for a field that
/// may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    fields: Vec<TemplateField>,
}

/// A field of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateField {
    pub(super) name: String,
    /// Missing or null counts as empty.
    pub(super) optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(usize),
}

/// A template that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at byte {at} of the template {text:?}")]
pub struct TemplateError {
    message: &'static str,
    at: usize,
    text: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If braces do not fit together, or it names no field.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |message, at| TemplateError { message, at, text: text.to_owned() };
        let mut template = Self { pieces: Vec::new(), fields: Vec::new() };
        let mut literal = String::new();
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
            literal.push_str(&text[at..brace]);
            let rest = &text[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                at = brace + 2;
                continue;
            }
            if rest.starts_with('}') {
                return Err(error(
                    "a closing brace without its opening one; }} means a brace",
                    brace,
                ));
            }
            let end = rest.find('}').ok_or_else(|| error("a brace is not closed", brace))?;
            let name = &rest[1..end];
            let (name, optional) = name.strip_suffix('?').map_or((name, false), |n| (n, true));
            if name.is_empty() || name.contains('{') {
                return Err(error("a field without a name; {{ means a brace", brace));
            }
            if !literal.is_empty() {
                template.pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            let known = template.fields.iter().position(|field| field.name == name);
            let place = known.unwrap_or_else(|| {
                template.fields.push(TemplateField { name: name.to_owned(), optional });
                template.fields.len() - 1
            });
            template.fields[place].optional &= optional;
            template.pieces.push(Piece::Field(place));
            at = brace + end + 1;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            template.pieces.push(Piece::Literal(literal));
        }
        if template.fields.is_empty() {
            return Err(error("it names no field, such as {question}", text.len()));
        }
        Ok(template)
    }

    pub(super) fn fields(&self) -> &[TemplateField] {
        &self.fields
    }

    /// The text with these values, one for each of [`Template::fields`].
    pub(super) fn fill(&self, values: &[impl AsRef<str>]) -> String {
        self.pieces.iter().fold(String::new(), |mut out, piece| {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Field(place) => values[*place].as_ref(),
            };
            let _ = out.write_str(text);
            out
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Template;
    use proptest::prelude::*;

    #[test]
    fn fields_and_braces() {
        let template = Template::parse("Q: {q}\n{{{a}}} {q}{note?}").expect("fine");
        let names: Vec<_> = template.fields().iter().map(|f| (&*f.name, f.optional)).collect();
        assert_eq!(names, [("q", false), ("a", false), ("note", true)]);
        assert_eq!(template.fill(&["1+1", "2", "!"]), "Q: 1+1\n{2} 1+1!");
        for (text, place) in [("{q", 0), ("x}", 1), ("{}", 0), ("{?}", 0), ("{a{b}", 0), ("x", 1)] {
            let error = Template::parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("at byte {place}")), "{error}");
        }
    }

    proptest! {
        /// A literal, its braces doubled, comes back as it was.
        #[test]
        fn literals_come_back(literal in ".*", value in ".*") {
            let doubled = literal.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&format!("{doubled}{{x}}")).expect("well formed");
            prop_assert_eq!(template.fill(&[&value]), format!("{literal}{value}"));
        }
    }
}
