//! Panics that nobody planned.
//!
//! A defect in one call ends that call alone, and its record looks like any other. So that
//! no real one passes for one of those that an episode plans, every panic of the thread
//! that plays it is counted; a planned one unwinds without being told to anybody
//! ([`perhaps_a_defect`](crate::clock::simulated::perhaps_a_defect)).

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local! {
    static SEEN: Cell<usize> = const { Cell::new(0) };
}

static WATCHED: Once = Once::new();

/// Counts those of this thread from here on.
pub fn watch() {
    WATCHED.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            SEEN.set(SEEN.get() + 1);
            told(panic);
        }));
    });
    SEEN.set(0);
}

/// How many there were since.
pub fn seen() -> usize {
    SEEN.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::record::tests::record;
    use crate::clock::{self, simulated};

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_a_task_is_seen_and_a_planned_defect_is_not() {
        watch();
        simulated::begin("2026-03-02T10:05:00Z".parse().unwrap());
        simulated::plan_defect(Some(0), None);
        let meets_defect = async { simulated::perhaps_a_defect(&record(), clock::now()) };
        assert!(tokio::spawn(meets_defect).await.is_err());
        assert_eq!(seen(), 0);
        assert!(tokio::spawn(async { assert_eq!(seen(), 1, "on purpose") }).await.is_err());
        assert_eq!(seen(), 1);
        drop(simulated::defects());
    }
}
