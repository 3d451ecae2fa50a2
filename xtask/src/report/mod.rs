//! The quickstart's report: one page that needs nothing but itself.

mod chart;
pub(crate) mod data;
mod infill;
mod page;

pub(crate) use page::render;
