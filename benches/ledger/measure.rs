//! Many questions at once, each one timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use capconduit::capacity::{Candidate, HoldId, Ledger, Request, Stage, Standing, Turn};
use capconduit::ids::CallId;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::scene::Scene;

/// How long calls are reserved in one scene, and how many at most.
const TIME: Duration = Duration::from_millis(800);
const CALLS: usize = 50_000;

/// How long one kind of question took.
pub struct Asked {
    pub time: Duration,
    /// In nanoseconds.
    latency: Histogram<u64>,
}

/// A call that is held, and the place of its ledger.
pub struct Held {
    standing: Standing,
    ledger: usize,
}

impl Asked {
    fn nothing() -> Self {
        Self { time: Duration::ZERO, latency: Histogram::new(3).unwrap() }
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn asked(&self) -> f64 {
        self.latency.len() as f64
    }

    pub fn per_second(&self) -> f64 {
        self.asked() / self.time.as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn microseconds(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    pub fn note(&mut self, asked: Instant) {
        self.latency.record(u64::try_from(asked.elapsed().as_nanos()).unwrap()).unwrap();
    }

    /// What tasks that ran side by side found.
    pub async fn gather<T: Send + 'static>(
        mut tasks: JoinSet<(Self, Vec<T>)>,
        started: Instant,
    ) -> (Self, Vec<T>) {
        let (mut all, mut found) = (Self::nothing(), Vec::new());
        while let Some(task) = tasks.join_next().await {
            let (asked, some) = task.unwrap();
            all.latency.add(&asked.latency).unwrap();
            found.extend(some);
        }
        all.time = started.elapsed();
        (all, found)
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self::nothing()
    }
}

/// Reserves calls, as many at once as are to be in flight.
pub async fn reserve(
    ledgers: &[Arc<dyn Ledger>],
    in_flight: usize,
    scene: &Scene,
) -> (Asked, Vec<Held>) {
    scene.prepare(&*ledgers[0]).await;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..in_flight {
        let (place, candidates) = (task % ledgers.len(), scene.candidates.clone());
        let ledger = ledgers[place].clone();
        tasks.spawn(async move {
            let (mut asked, mut held) = (Asked::default(), Vec::new());
            while started.elapsed() < TIME && held.len() < CALLS / in_flight {
                let hold = next_hold();
                let request = Request { hold, candidates: candidates.clone(), turn: Turn::None };
                let at = Instant::now();
                let verdict = ledger.reserve(&request).await.unwrap();
                asked.note(at);
                let standing = Standing::held(hold, granted(&candidates, verdict.granted.unwrap()));
                held.push(Held { standing: standing.unwrap(), ledger: place });
            }
            (asked, held)
        });
    }
    Asked::gather(tasks, started).await
}

/// Says of each call that it is at `stage` now.
pub async fn tell(
    ledgers: &[Arc<dyn Ledger>],
    in_flight: usize,
    held: Vec<Held>,
    stage: Stage,
) -> (Asked, Vec<Held>) {
    let mut shares: Vec<Vec<Held>> = (0..in_flight).map(|_| Vec::new()).collect();
    for (place, one) in held.into_iter().enumerate() {
        shares[place % in_flight].push(one);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut share in shares {
        let ledgers = ledgers.to_vec();
        tasks.spawn(async move {
            let mut asked = Asked::default();
            for one in &mut share {
                one.standing.stage = stage;
                let at = Instant::now();
                ledgers[one.ledger].advance(std::slice::from_ref(&one.standing)).await.unwrap();
                asked.note(at);
            }
            (asked, share)
        });
    }
    Asked::gather(tasks, started).await
}

fn granted(candidates: &[Candidate], link: capconduit::ids::LinkId) -> &Candidate {
    candidates.iter().rfind(|candidate| candidate.link == link).unwrap()
}

/// A call of its own.
pub fn next_hold() -> HoldId {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    // As spread as ids of real calls are.
    let spread = u128::from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    HoldId { call: CallId(uuid::Uuid::from_u128(spread << 64 | u128::from(number))), attempt: 1 }
}
