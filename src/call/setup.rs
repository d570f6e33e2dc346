//! How many calls are on their way to their first client.
//!
//! Each of them costs the switch a dozen commands and events within milliseconds, and
//! talking costs it next to none: so this is what is limited. A switch that has more to
//! do than it can answers late, callers' phones repeat themselves, and it has yet more to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts calls that are being set up. Cheap to share.
#[derive(Clone, Debug, Default)]
pub struct InSetup(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place(InSetup);

impl InSetup {
    pub fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::AcqRel);
        Place(self.clone())
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.0).0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let calls = InSetup::default();
        let (first, _second) = (calls.enter(), calls.enter());
        assert_eq!(calls.count(), 2);
        drop(first);
        assert_eq!(calls.count(), 1);
    }
}
