//! `/metrics`, on an address of its own: what the monitoring reads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use poem::web::Data;
use poem::{Endpoint, EndpointExt, IntoResponse, Route, get, handler};
use tokio::time::timeout;

use crate::capacity::Ledger;
use crate::journal::Journal;
use crate::live::Live;
use crate::telemetry::{Metrics, Moment};

/// Where figures of the moment are looked up.
pub struct Figures {
    pub metrics: Arc<Metrics>,
    pub live: Arc<Live>,
    pub ledger: Arc<dyn Ledger>,
    /// Looking at the journal doesn't keep it open.
    pub journal: Weak<Journal>,
    pub connected: Arc<AtomicBool>,
}

const LEDGER_TIMEOUT: Duration = Duration::from_millis(500);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served on the address of `metrics.address`.
pub fn metrics_routes(figures: Figures) -> impl Endpoint {
    Route::new().at("/metrics", get(read)).data(Arc::new(figures))
}

#[handler]
async fn read(Data(figures): Data<&Arc<Figures>>) -> impl IntoResponse {
    figures.text().await.with_content_type(OPEN_METRICS)
}

impl Figures {
    async fn text(&self) -> String {
        let holders = timeout(LEDGER_TIMEOUT, self.ledger.holders()).await;
        let holders = holders.ok().and_then(Result::ok);
        let moment = Moment {
            live: self.live.list().iter().map(|call| call.state).collect(),
            holds: holders.map(|holders| holders.iter().filter(|holder| holder.live).count()),
            journal: self.journal.upgrade().map(|journal| journal.figures()).unwrap_or_default(),
            is_connected: self.connected.load(Ordering::Acquire),
        };
        self.metrics.text(&moment)
    }
}
