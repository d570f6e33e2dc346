//! The only place that reads time and makes ids from it.
//!
//! Everything else takes instants as arguments, so a test decides what time it is.

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use crate::ids::CallId;

/// An instant in UTC, in whole milliseconds: what both databases store alike.
pub type Timestamp = DateTime<Utc>;

/// Now.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
pub fn now() -> Timestamp {
    Utc::now().trunc_subsecs(3)
}

/// A name for a call that begins now.
#[expect(clippy::disallowed_methods, reason = "a UUIDv7 holds the time")]
pub fn new_call_id() -> CallId {
    CallId(Uuid::now_v7())
}

/// Now, as file systems tell the time.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
pub fn system_now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
