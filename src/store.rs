//! Queries, one file per thing that is asked for.

pub mod records;
pub mod routing;
