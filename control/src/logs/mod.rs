//! The machine's log: what a reader wants of it, and reading it while it is written and rotated.

pub mod query;
pub mod reader;

pub use query::Query;
pub use reader::Reader;
