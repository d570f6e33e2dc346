//! Parts that must run for as long as the service does.
//!
//! A defect in the task of one call is that call's alone. One in the registry, in the
//! ledger's upkeep, behind the journal or in the event socket would leave a service that
//! looks alive and leads no call any more: Asterisk would hold its callers for it, and no
//! supervisor would start it again. So a vital part that breaks down takes the service
//! with it. Calls are left to the next start, as after a crash, which is the way back that
//! is tried most.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Knows whether one of the vital parts has broken down. Cheap to share.
#[derive(Clone, Debug, Default)]
pub struct Vital(CancellationToken);

/// What the service exits with when one of them did (sysexits' `EX_SOFTWARE`).
pub const BROKEN_DOWN: u8 = 70;

impl Vital {
    /// A part that is to be spawned: should it panic, that is noted.
    pub fn part(
        &self,
        what: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let broken = self.0.clone();
        async move {
            if AssertUnwindSafe(part).catch_unwind().await.is_err() {
                error!(part = what, "a vital part broke down by a defect: the service ends");
                broken.cancel();
            }
        }
    }

    /// Resolves when a part has broken down.
    pub async fn broken(&self) {
        self.0.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_noted_and_one_that_ends_is_not() {
        let vital = Vital::default();
        tokio::spawn(vital.part("one that ends", async {})).await.unwrap();
        assert!(vital.broken().now_or_never().is_none());
        let broken = vital.part("one that panics", async {
            // As a panic, but without its words on standard error.
            std::panic::resume_unwind(Box::new("a defect"));
        });
        tokio::spawn(broken).await.unwrap();
        assert!(vital.broken().now_or_never().is_some());
    }
}
