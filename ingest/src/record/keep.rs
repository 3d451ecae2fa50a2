//! Filters on columns: which records a rule of the manifest leaves out, and under which name.

use super::path::FieldPath;
use coda_manifests::{Keep, Scalar};
use serde_json::Value;

/// A filter on one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// The column.
    pub column: FieldPath,
    rule: Keep,
}

impl Filter {
    /// A filter of the manifest.
    #[must_use]
    pub fn new(column: &str, rule: Keep) -> Self {
        Self { column: FieldPath::new(column), rule }
    }

    /// What its drops are counted as: by what its column is about.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.column.last_part().to_ascii_lowercase().as_str() {
            "lang" | "language" | "program_lang" | "programming_language" => "language",
            "license" | "licenses" | "license_type" | "detected_licenses" => "license",
            "is_vendor" => "vendor",
            "is_generated" => "generated",
            _ => "filter",
        }
    }

    /// Whether a record with this value is kept. A list is kept when it has values and all of them
    /// would be.
    #[must_use]
    pub fn keeps(&self, value: Option<&str>) -> bool {
        let Some(text) = value else {
            return matches!(&self.rule, Keep::OneOf(values) if values.contains(&Scalar::Null));
        };
        if self.keeps_one(text) {
            return true;
        }
        let list = text.starts_with('[').then(|| serde_json::from_str::<Vec<Value>>(text).ok());
        list.flatten().is_some_and(|values| {
            !values.is_empty()
                && values.iter().all(|value| {
                    super::path::rendered(value).is_some_and(|text| self.keeps_one(&text))
                })
        })
    }

    fn keeps_one(&self, text: &str) -> bool {
        match &self.rule {
            Keep::OneOf(values) => values.iter().any(|value| match value {
                Scalar::Null => false,
                Scalar::Bool(wanted) => text == if *wanted { "true" } else { "false" },
                #[allow(clippy::float_cmp, reason = "the user asks for this very number")]
                Scalar::Number(wanted) => text.parse::<f64>().is_ok_and(|n| n == *wanted),
                Scalar::Text(wanted) => text == wanted,
            }),
            Keep::Range { min, max } => text
                .parse::<f64>()
                .is_ok_and(|n| min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use coda_manifests::{Keep, Scalar};

    #[test]
    fn values_lists_numbers_and_nothing() {
        let text = |s: &str| Scalar::Text(s.to_owned());
        let values =
            vec![text("MIT"), text("Apache-2.0"), Scalar::Bool(false), Scalar::Number(3.0)];
        let filter = Filter::new("x", Keep::OneOf(values.clone()));
        for kept in ["MIT", "false", "3", "3.0", r#"["MIT"]"#, r#"["MIT","Apache-2.0"]"#, "[3]"] {
            assert!(filter.keeps(Some(kept)), "{kept}");
        }
        for dropped in ["mit", "true", "4", "", "[]", r#"["MIT","GPL-3.0"]"#, "[MIT", "[null]"] {
            assert!(!filter.keeps(Some(dropped)), "{dropped}");
        }
        assert!(!filter.keeps(None));
        let with_null = Filter::new("x", Keep::OneOf([values, vec![Scalar::Null]].concat()));
        assert!(with_null.keeps(None));

        let range = Filter::new("x", Keep::Range { min: Some(3.0), max: Some(4.5) });
        for (value, kept) in
            [("3", true), ("4.5", true), ("2.9", false), ("5", false), ("a", false)]
        {
            assert_eq!(range.keeps(Some(value)), kept, "{value}");
        }
        assert!(!range.keeps(None));
    }

    #[test]
    fn drops_are_named_after_what_the_column_is_about() {
        for (column, reason) in [
            ("language", "language"),
            ("lang|program_lang", "language"),
            ("files.license_type", "license"),
            ("files.is_vendor", "vendor"),
            ("is_generated", "generated"),
            ("score", "filter"),
        ] {
            assert_eq!(Filter::new(column, Keep::OneOf(Vec::new())).reason(), reason);
        }
    }
}
