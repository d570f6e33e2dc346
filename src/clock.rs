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
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Utc::now().trunc_subsecs(3)
}

/// A name for a call that begins now.
#[expect(clippy::disallowed_methods, reason = "a UUIDv7 holds the time")]
pub fn new_call_id() -> CallId {
    #[cfg(test)]
    if let Some(call) = simulated::new_call_id() {
        return call;
    }
    CallId(Uuid::now_v7())
}

/// Now, as file systems tell the time.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads time")]
pub fn system_now() -> std::time::SystemTime {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now.into();
    }
    std::time::SystemTime::now()
}

/// Time that a test makes, for the thread that makes it.
#[cfg(test)]
pub mod simulated {
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    use tokio::time::Instant;
    use uuid::Builder;

    use super::{CallId, SubsecRound, Timestamp};
    use crate::call::CallRecord;

    thread_local! {
        /// The time when a runtime's clock stood there.
        static SINCE: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static CALLS: Cell<u64> = const { Cell::new(0) };
    }

    /// From here on, this thread's time passes as its runtime's clock does.
    pub fn begin(at: Timestamp) {
        SINCE.set(Some((at, Instant::now())));
    }

    /// A driver that can't bear what it is told.
    #[derive(Clone, Copy, Debug)]
    pub struct Defect {
        pub call: CallId,
        /// When what it was told had happened.
        pub at: Timestamp,
        /// Caller and client talked.
        pub in_a_talk: bool,
    }

    /// After so many inputs there is one: in whichever call gets it, or in this one.
    #[derive(Clone, Copy, Debug)]
    struct Planned {
        after: u32,
        again_after: Option<u32>,
        of: Option<CallId>,
    }

    thread_local! {
        static PLANNED: Cell<Option<Planned>> = const { Cell::new(None) };
        static DEFECTS: RefCell<Vec<Defect>> = const { RefCell::new(Vec::new()) };
    }

    /// The call that gets the input after so many others meets with a defect, and perhaps
    /// with another one after so many inputs of its own.
    pub fn plan_defect(after: Option<u32>, again_after: Option<u32>) {
        PLANNED.set(after.map(|after| Planned { after, again_after, of: None }));
    }

    /// Those that were met with since this was asked last.
    pub fn defects() -> Vec<Defect> {
        DEFECTS.take()
    }

    pub fn perhaps_a_defect(record: &CallRecord, at: Timestamp) {
        let call = record.call;
        let planned = PLANNED.get().filter(|planned| planned.of.is_none_or(|of| of == call));
        let Some(Planned { after, again_after, .. }) = planned else { return };
        if after > 0 {
            return PLANNED.set(planned.map(|planned| Planned { after: after - 1, ..planned }));
        }
        let again = again_after.map(|after| Planned { after, again_after: None, of: Some(call) });
        PLANNED.set(again);
        let defect = Defect { call, at, in_a_talk: record.is_talk() };
        DEFECTS.with_borrow_mut(|defects| defects.push(defect));
        // As a panic, but without its words on standard error.
        std::panic::resume_unwind(Box::new("a defect"));
    }

    /// The next call id is the first one again.
    pub fn forget_calls() {
        CALLS.set(0);
    }

    pub fn elapsed() -> Duration {
        SINCE.get().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    pub(super) fn now() -> Option<Timestamp> {
        let (at, since) = SINCE.get()?;
        Some((at + since.elapsed()).trunc_subsecs(3))
    }

    pub(super) fn new_call_id() -> Option<CallId> {
        let now = now()?;
        let number = CALLS.get() + 1;
        CALLS.set(number);
        let mut rest = [0; 10];
        // The last two bytes are the instance's.
        rest[2..].copy_from_slice(&(number << 16).to_be_bytes());
        let millis = u64::try_from(now.timestamp_millis()).expect("after 1970");
        Some(CallId(Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()))
    }
}
