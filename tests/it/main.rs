//! The product's promises, tried through its public edges.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

mod api;
mod support;
