//! How many streams are open, and how they are led.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::api::Backend;
use crate::api::problem::{Problem, busy, too_many_streams};

/// How streams are led.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// After this long, and again and again, a reader hears something, and is
    /// asked about whether it may still read.
    pub heartbeat: Duration,
    /// How many streams one user may have open.
    pub per_user: usize,
    pub in_all: usize,
}

/// Those who follow live calls.
#[derive(Debug)]
pub struct Streams {
    pub settings: StreamSettings,
    /// Ends them all.
    pub stop: CancellationToken,
    /// How many each user has open.
    open: Mutex<HashMap<i64, usize>>,
    /// The right to write a snapshot. Hundreds may come back at the same moment, and each
    /// needs one of thousands of calls: written one after the other, they take no time from
    /// calls.
    pub snapshots: Semaphore,
}

/// A stream's place among those that may be open.
pub struct Place {
    backend: Arc<Backend>,
    user: i64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), per_user: 20, in_all: 500 }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self::new(StreamSettings::default(), CancellationToken::new())
    }
}

impl Streams {
    pub fn new(settings: StreamSettings, stop: CancellationToken) -> Self {
        Self { settings, stop, open: Mutex::default(), snapshots: Semaphore::new(1) }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().values().sum()
    }
}

impl Place {
    /// # Errors
    /// A 429 if the user has too many, a 503 if there are too many in all.
    pub fn take(backend: &Arc<Backend>, user: i64) -> Result<Self, Problem> {
        let Streams { settings, open, .. } = &backend.streams;
        let retry_after = settings.heartbeat.as_secs().max(1);
        let mut open = open.lock();
        if open.get(&user).is_some_and(|count| *count >= settings.per_user) {
            return Err(too_many_streams(settings.per_user, retry_after));
        }
        if open.values().sum::<usize>() >= settings.in_all {
            let detail = "All streams that the service has are open: try again later.";
            return Err(busy(detail, retry_after));
        }
        *open.entry(user).or_default() += 1;
        Ok(Self { backend: backend.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.backend.streams.open.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}
