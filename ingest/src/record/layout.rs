//! Which values of a record the extraction wants, for the decoders.

use super::path::FieldPath;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Text; anything else is a fault.
    Text,
    /// Anything: text as it is, all else as JSON. A value that is not there counts as null.
    Any,
}

/// A value that is wanted of each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Where it is.
    pub path: FieldPath,
    /// What it may be.
    pub role: Role,
}

/// The list inside a record whose elements are taken one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListLayout {
    /// Where it is: keys from the record down.
    pub path: Vec<String>,
    /// Whether the elements stay together, for one document.
    pub together: bool,
}

/// All values that are wanted of a record, in the order in which the extraction wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The values. With a list, those whose path begins with the list's are the elements', the
    /// others the record's.
    pub columns: Vec<Column>,
    /// The list, if any.
    pub list: Option<ListLayout>,
    /// Whether rows of columns are wanted whole, each as a JSON object; then nothing else here counts.
    pub whole: bool,
}
