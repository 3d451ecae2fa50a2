//! The quickstart's report: one page that needs nothing but itself.

mod chart;
pub(crate) mod data;
mod evaluation;
mod infill;
mod page;

pub(crate) use page::render;
