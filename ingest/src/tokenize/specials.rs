//! The three ids that every stage needs.

/// Names of the control tokens, as the manifest gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialNames {
    /// Ends a document.
    pub eos: String,
    /// Fills a row.
    pub pad: String,
    /// Stands for a masked token.
    pub mask: String,
}

/// Ids of the control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specials {
    /// Ends a document.
    pub eos: u32,
    /// Fills a row.
    pub pad: u32,
    /// Stands for a masked token.
    pub mask: u32,
}
