//! A ledger whose answers are timed and counted, whatever store is behind it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{
    Book, Correction, Holder, Ledger, Request, Scope, Standing, Status, Unavailable, Usage,
    Verdict, Windows,
};
use crate::ids::{CampaignId, LinkId};
use crate::telemetry::{Drift, Metrics};

pub struct MeasuredLedger {
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
}

impl MeasuredLedger {
    pub fn new(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Self {
        Self { ledger, metrics }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let asked = Instant::now();
        let answer = answer.await;
        self.metrics.ledger_asked(operation, asked.elapsed(), answer.is_ok());
        answer
    }
}

#[async_trait::async_trait]
impl Ledger for MeasuredLedger {
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.timed("reserve", self.ledger.reserve(request)).await
    }

    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.timed("preview", self.ledger.preview(request)).await
    }

    async fn advance(&self, standing: &[Standing]) -> Result<(), Unavailable> {
        self.timed("advance", self.ledger.advance(standing)).await
    }

    async fn usages(&self, asked: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable> {
        self.timed("usages", self.ledger.usages(asked)).await
    }

    async fn set_cursor(&self, campaign: CampaignId, link: LinkId) -> Result<(), Unavailable> {
        self.timed("set_cursor", self.ledger.set_cursor(campaign, link)).await
    }

    async fn holders(&self) -> Result<Vec<Holder>, Unavailable> {
        self.timed("holders", self.ledger.holders()).await
    }

    async fn books(&self) -> Result<Vec<Book>, Unavailable> {
        self.timed("books", self.ledger.books()).await
    }

    async fn correct(&self, corrections: &[Correction]) -> Result<(), Unavailable> {
        // One that is being filled knows nothing yet: what it is told is no difference.
        if !matches!(*self.ledger.status().borrow(), Status::Filling(_)) {
            for correction in corrections {
                let calls = correction.slots.iter().map(|(_, calls)| *calls);
                let is_too_low = calls.chain([correction.total]).any(|calls| calls > 0);
                let drift = if is_too_low { Drift::UsedTooLow } else { Drift::UsedTooHigh };
                self.metrics.drifted(drift);
            }
        }
        self.timed("correct", self.ledger.correct(corrections)).await
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.ledger.status()
    }

    async fn may_fill(&self) -> Result<bool, Unavailable> {
        self.timed("may_fill", self.ledger.may_fill()).await
    }

    async fn open(&self) -> Result<(), Unavailable> {
        self.timed("open", self.ledger.open()).await
    }
}
