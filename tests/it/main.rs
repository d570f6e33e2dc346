//! Tests through the edges: HTTP, SIP, the command line, real databases.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod database;
mod support {
    pub mod postgres;
}
