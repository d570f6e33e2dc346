//! The ledger: one set of promises, kept by both stores. Redis is a real one.

mod conformance;
mod keeper;
mod model;
mod naive;
mod outage;
mod racing;
mod share;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use capconduit::capacity::{
    Candidate, Claim, HoldId, LeaseClock, Leases, Ledger, MemoryLedger, RedisLedger, RedisSettings,
    Request, Scope, ScopeKind, Stage, Standing, Status, Turn, Usage, Verdict, WindowKind, Windows,
};
use capconduit::clock::Timestamp;
use capconduit::ids::{CallId, LinkId};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::redis::Redis;

/// A ledger, and what is needed to ask it in a test.
struct Tried {
    ledger: Arc<dyn Ledger>,
    /// What leases are measured by, in milliseconds.
    clock: Arc<AtomicI64>,
    _stop: Option<DropGuard>,
}

const OPEN_WITHIN: Duration = Duration::from_secs(10);

impl Tried {
    fn memory() -> Self {
        let clock = Arc::new(AtomicI64::new(0));
        let ledger = MemoryLedger::new(Leases::default(), LeaseClock::Manual(clock.clone()));
        Self { ledger: Arc::new(ledger), clock, _stop: None }
    }

    /// A ledger of its own in a Redis that others may use too.
    async fn redis(redis: &Redis, prefix: &str) -> Self {
        let clock = Arc::new(AtomicI64::new(0));
        let settings = RedisSettings {
            clock: LeaseClock::Manual(clock.clone()),
            ..settings(redis, prefix, "one")
        };
        let (ledger, stop) = connect(settings);
        wait_for(&*ledger, |status| *status != Status::Away).await;
        ledger.open().await.unwrap();
        wait_for(&*ledger, |status| matches!(status, Status::Open(_))).await;
        Self { ledger, clock, _stop: Some(stop) }
    }

    fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.clock.fetch_add(millis, Ordering::SeqCst);
    }

    async fn reserve(&self, hold: HoldId, candidates: &[Candidate], turn: Turn) -> Verdict {
        let request = Request { hold, candidates: candidates.to_vec(), turn };
        self.ledger.reserve(&request).await.unwrap()
    }

    async fn first(&self, hold: HoldId, candidates: &[Candidate]) -> Option<i64> {
        self.reserve(hold, candidates, Turn::None).await.granted.map(|link| link.0)
    }

    async fn advance(&self, hold: HoldId, candidate: &Candidate, stage: Stage) {
        let standing = Standing::held(hold, candidate).unwrap().with(stage);
        self.ledger.advance(&[standing]).await.unwrap();
    }

    async fn usage(&self, scope: Scope, windows: Windows) -> Usage {
        self.ledger.usages(&[(scope, windows)]).await.unwrap().remove(0)
    }
}

fn settings(redis: &Redis, prefix: &str, node: &str) -> RedisSettings {
    RedisSettings {
        url: redis.url(),
        prefix: prefix.to_owned(),
        node: node.to_owned(),
        leases: Leases::default(),
        clock: LeaseClock::Own,
        patience: Duration::from_secs(5),
    }
}

fn connect(settings: RedisSettings) -> (Arc<dyn Ledger>, DropGuard) {
    let stop = CancellationToken::new();
    let ledger = RedisLedger::start(settings, stop.clone()).unwrap();
    (Arc::new(ledger), stop.drop_guard())
}

async fn wait_for(ledger: &dyn Ledger, wanted: impl FnMut(&Status) -> bool) {
    let mut status = ledger.status();
    let waited = tokio::time::timeout(OPEN_WITHIN, status.wait_for(wanted)).await;
    waited.expect("the ledger's status in time").unwrap();
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn utc(text: &str) -> Windows {
    Windows::at(at(text), chrono_tz::UTC)
}

fn noon() -> Windows {
    utc("2026-11-22T12:00:00Z")
}

fn hold(number: u128, attempt: u32) -> HoldId {
    HoldId { call: CallId(uuid::Uuid::from_u128(number)), attempt }
}

fn claim(kind: ScopeKind, id: i64, concurrency: Option<u32>, total: Option<u32>) -> Claim {
    let mut volume = [None; WindowKind::COUNT];
    volume[WindowKind::Total.index()] = total;
    Claim { scope: Scope { kind, id }, concurrency, volume, windows: noon() }
}

fn link(id: i64, concurrency: u32, total: Option<u32>) -> Candidate {
    let claims = vec![claim(ScopeKind::Link, id, Some(concurrency), total)];
    Candidate { link: LinkId(id), claims }
}
