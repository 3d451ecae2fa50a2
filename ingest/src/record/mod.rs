//! Raw records to documents: which fields make the text, what is left out, and what is not usable.

mod extract;
mod json;
mod keep;
mod layout;
mod mend;
mod path;
mod python;
mod template;

pub(crate) use extract::kind_of;
pub use extract::{Document, Extracted, Extractor, RecordShape};
pub use keep::Filter;
pub use layout::{Column, Layout, ListLayout, Role};
pub use path::FieldPath;
pub(crate) use path::{parse_text, rendered, walk};
pub use template::{Template, TemplateError};
