//! Cleaning: what is changed in a document's text, and which documents are left out because of how
//! their text looks. `docs/cleaning.md` tells the rules to users.

mod counts;
mod measure;
mod rules;
mod text;

pub use measure::Lines;
pub use rules::{Cleaner, Finding};
