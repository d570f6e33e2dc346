//! Waiting for what must happen, with a bound.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Asks until there is an answer; panics if there is none within `bound`.
pub async fn eventually<T>(
    what: &str,
    bound: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Asks until the time is over; panics at once when it doesn't hold any more.
pub async fn holds_for(what: &str, time: Duration, mut probe: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while started.elapsed() < time {
        assert!(probe().await, "{what}: only for {:?}", started.elapsed());
        tokio::time::sleep(POLL).await;
    }
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
