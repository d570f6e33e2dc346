//! Redis is away, and instances hold calls against their own part of every cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use capconduit::capacity::measured::MeasuredLedger;
use capconduit::capacity::recount::{Known, Recount, RecountSettings, Truth};
use capconduit::capacity::{
    Book, Candidate, HoldId, Keeper, Leases, RedisSettings, Refusal, Request, Scope, ScopeKind,
    Share, Status, Turn, Unavailable, Verdict,
};
use capconduit::clock::{self, Timestamp};
use capconduit::ids::{CallId, CampaignId, LinkId};
use capconduit::telemetry::{Metrics, Moment};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{claim, connect, hold, settings};
use crate::support::metrics;
use crate::support::redis::Redis;
use crate::support::wait::{eventually, seconds};

/// Call logs that can be away.
#[derive(Default)]
struct Logs {
    calls: Mutex<Vec<(CallId, Vec<Scope>, Timestamp)>>,
    are_away: AtomicBool,
}

#[async_trait::async_trait]
impl Truth for Logs {
    async fn known(&self, calls: &[CallId]) -> anyhow::Result<Known> {
        anyhow::ensure!(!self.are_away.load(Ordering::SeqCst), "the database is away");
        let logs = self.calls.lock();
        let answered =
            logs.iter().flat_map(|(_, scopes, at)| scopes.iter().map(|scope| (*scope, *at)));
        let recorded = logs.iter().filter(|(call, ..)| calls.contains(call));
        let recorded = recorded.map(|(call, scopes, _)| (*call, Some(LinkId(scopes[0].id))));
        Ok(Known { answered: Book::of(answered), recorded: recorded.collect() })
    }

    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>> {
        Ok(Vec::new())
    }
}

/// One instance of the service, as far as capacity goes.
struct Instance {
    keeper: Arc<Keeper>,
    recount: Arc<Recount>,
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _link: DropGuard,
}

/// Instances that share calls.
const INSTANCES: u32 = 2;
const SOON: Duration = seconds(10);

impl Instance {
    async fn start(redis: &Redis, node: &str, logs: &Arc<Logs>, share: bool) -> Self {
        let patience = Duration::from_millis(300);
        let settings = RedisSettings { patience, ..settings(redis, "share", node) };
        let (ledger, link) = connect(settings);
        let metrics = Arc::<Metrics>::default();
        let ledger = Arc::new(MeasuredLedger::new(ledger, metrics.clone()));
        let mut keeper = Keeper::new(ledger, node, &Leases::default()).counted_in(metrics.clone());
        if share {
            keeper = keeper.with_share(Share::new(INSTANCES, logs.clone()));
        }
        let keeper = Arc::new(keeper);
        let recount =
            Arc::new(Recount::new(keeper.clone(), logs.clone(), RecountSettings::default()));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn({
            let (keeper, stop) = (keeper.clone(), stop.clone());
            async move { keeper.run(stop).await }
        });
        tasks.spawn({
            let (recount, stop) = (recount.clone(), stop.clone());
            async move { recount.run(stop).await }
        });
        let logs = logs.clone();
        let instance = Self { keeper, recount, logs, metrics, stop, tasks, _link: link };
        instance.wait_for(|status| matches!(status, Status::Open(_))).await;
        instance
    }

    async fn wait_for(&self, wanted: impl FnMut(&Status) -> bool) {
        let mut status = self.keeper.ledger().status();
        let waited = tokio::time::timeout(SOON, status.wait_for(wanted)).await;
        waited.expect("the ledger's status in time").unwrap();
    }

    /// Waits until it stands alone, and knows what is used.
    async fn wait_until_alone(&self) {
        self.wait_for(|status| *status == Status::Away).await;
        let asked = async || self.probe().await.filter(|granted| !granted);
        eventually("a share", SOON, asked).await;
    }

    /// Waits until the shared ledger says yes again.
    async fn wait_until_shared(&self) {
        self.wait_for(|status| matches!(status, Status::Open(_))).await;
        let asked = async || self.probe().await.filter(|granted| *granted);
        eventually("the shared ledger", SOON, asked).await;
    }

    /// Asks for the only call of a link, of which no instance has a part.
    async fn probe(&self) -> Option<bool> {
        static PROBES: AtomicU64 = AtomicU64::new(1_000);
        let only = link(i64::try_from(PROBES.fetch_add(1, Ordering::SeqCst)).unwrap(), 1, None);
        let hold = fresh();
        let verdict = self.ask(hold, std::slice::from_ref(&only)).await.ok()?;
        self.keeper.release(hold).await;
        Some(verdict.granted.is_some())
    }

    async fn ask(&self, hold: HoldId, candidates: &[Candidate]) -> Result<Verdict, Unavailable> {
        let request = Request { hold, candidates: candidates.to_vec(), turn: Turn::None };
        self.keeper.reserve(&request).await
    }

    /// What it would answer to [`Self::ask`].
    async fn preview(&self, candidate: &Candidate) -> Verdict {
        let candidates = vec![candidate.clone()];
        let request = Request { hold: fresh(), candidates, turn: Turn::None };
        self.keeper.preview(&request).await.unwrap()
    }

    /// Links that were refused for want of a place among live calls, as it is counted.
    fn counted(&self) -> f64 {
        let figures = metrics::Metrics::parse(&self.metrics.text(&Moment::default()));
        let refusal = "capconduit_cap_refusals_total{scope=\"link\",cap=\"concurrency\"}";
        figures.sum(refusal)
    }

    /// As many calls as there is room for, and why there are no more.
    async fn fill(&self, candidate: &Candidate) -> (Vec<HoldId>, Refusal) {
        let mut held = Vec::new();
        loop {
            let hold = fresh();
            let verdict = self.ask(hold, std::slice::from_ref(candidate)).await.unwrap();
            if verdict.granted.is_none() {
                return (held, verdict.refusals[0].clone());
            }
            held.push(hold);
        }
    }

    /// A call that the client answers.
    async fn talk(&self, candidate: &Candidate) -> HoldId {
        let hold = fresh();
        let verdict = self.ask(hold, std::slice::from_ref(candidate)).await.unwrap();
        assert_eq!(verdict.granted, Some(candidate.link));
        self.keeper.settle(hold).await;
        hold
    }

    /// The call is over, and the records tell of it.
    async fn record(&self, hold: HoldId, candidate: &Candidate) {
        self.keeper.release(hold).await;
        let scopes = candidate.claims.iter().map(|claim| claim.scope).collect();
        let moment = candidate.claims[0].windows.moment();
        self.logs.calls.lock().push((hold.call, scopes, moment));
        self.keeper.recorded(&[hold.call].into());
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn fresh() -> HoldId {
    static CALLS: AtomicU64 = AtomicU64::new(1);
    hold(u128::from(CALLS.fetch_add(1, Ordering::SeqCst)), 1)
}

/// A link of client 7, whose caps are wide.
fn link(id: i64, concurrency: u32, total: Option<u32>) -> Candidate {
    let mut candidate = super::link(id, concurrency, total);
    candidate.claims.push(claim(ScopeKind::Client, 7, Some(100), None));
    for claim in &mut candidate.claims {
        claim.windows = capconduit::capacity::Windows::at(clock::now(), chrono_tz::UTC);
    }
    candidate
}

async fn live(instance: &Instance, candidate: &Candidate) -> u32 {
    let claim = &candidate.claims[0];
    let asked = [(claim.scope, claim.windows)];
    instance.keeper.ledger().usages(&asked).await.unwrap()[0].live
}

#[tokio::test]
async fn without_a_share_new_calls_are_refused() {
    let (mut redis, logs) = (Redis::start(), Arc::new(Logs::default()));
    let one = Instance::start(&redis, "one", &logs, false).await;
    let candidate = link(1, 9, None);
    let up = one.talk(&candidate).await;
    redis.stop();
    one.wait_for(|status| *status == Status::Away).await;
    assert!(one.ask(fresh(), std::slice::from_ref(&candidate)).await.is_err());
    redis.start_again();
    one.wait_for(|status| matches!(status, Status::Open(_))).await;
    assert_eq!(live(&one, &candidate).await, 1);
    one.record(up, &candidate).await;
    assert_eq!(live(&one, &candidate).await, 0);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_that_stand_alone_stay_within_each_cap() {
    let (mut redis, logs) = (Redis::start(), Arc::new(Logs::default()));
    let one = Instance::start(&redis, "one", &logs, true).await;
    let two = Instance::start(&redis, "two", &logs, true).await;
    // Three calls are over and recorded, and each instance has one that is not.
    let (volume, concurrency) = (link(1, 50, Some(10)), link(2, 7, None));
    for _ in 0..3 {
        one.record(one.talk(&volume).await, &volume).await;
    }
    let mut up = Vec::new();
    for instance in [&one, &two] {
        up.push((instance, instance.talk(&volume).await, volume.clone()));
        up.push((instance, instance.talk(&concurrency).await, concurrency.clone()));
    }
    redis.stop();
    for instance in [&one, &two] {
        instance.wait_until_alone().await;
        let (held, full) = instance.fill(&concurrency).await;
        assert_eq!((held.len(), full.used, full.limit), (2, 3, 3));
        assert_eq!(full.reason(), "concurrency_cap");
        up.extend(held.into_iter().map(|hold| (instance, hold, concurrency.clone())));
    }
    let mut granted = Vec::new();
    for instance in [&one, &two] {
        let (held, full) = instance.fill(&volume).await;
        assert_eq!(full.reason(), "total_cap");
        assert_eq!(u32::try_from(held.len()).unwrap(), full.held);
        granted.push((full.used, full.held, full.limit));
        up.extend(held.into_iter().map(|hold| (instance, hold, volume.clone())));
    }
    // The one knows its three calls itself: they count in its own share of 5.
    assert_eq!(granted, [(4, 1, 5), (1, 2, 3)]);

    redis.start_again();
    for instance in [&one, &two] {
        instance.wait_until_shared().await;
        assert!(instance.keeper.tell_untold().await);
    }
    for candidate in [&volume, &concurrency] {
        let known = up.iter().filter(|(.., of)| of.link == candidate.link).count();
        assert_eq!(live(&two, candidate).await, u32::try_from(known).unwrap());
    }
    assert!(one.fill(&concurrency).await.0.len() <= 1, "one more than twice three fits");
    for (instance, hold, candidate) in &up {
        instance.keeper.settle(*hold).await;
        instance.record(*hold, candidate).await;
    }
    assert_eq!(live(&one, &volume).await, 0);
    assert_eq!(one.recount.verify(false).await.unwrap().differences, []);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_held_before_all_have_said_what_they_held_alone() {
    const LIMIT: u32 = 10;
    let (redis, logs) = (Redis::start(), Arc::new(Logs::default()));
    let one = Instance::start(&redis, "one", &logs, true).await;
    let two = Instance::start(&redis, "two", &logs, true).await;
    for outage in 0..4 {
        let candidate = link(10 + outage, LIMIT, None);
        redis.hang();
        one.wait_until_alone().await;
        two.wait_until_alone().await;
        let (alone, full) = two.fill(&candidate).await;
        assert_eq!((alone.len(), full.limit), (5, 5));
        // Whichever finds the same Redis again first: it doesn't know of the other's calls.
        redis.resume();
        one.wait_until_shared().await;
        let (shared, full) = one.fill(&candidate).await;
        let all = u32::try_from(alone.len() + shared.len()).unwrap();
        assert!(all <= LIMIT, "{all} calls are up; {full:?}");
        let [of_two, of_one] = [(&two, alone), (&one, shared)];
        for (instance, held) in [of_two, of_one] {
            for hold in held {
                instance.keeper.release(hold).await;
            }
        }
        two.wait_until_shared().await;
        two.keeper.tell_untold().await;
        assert_eq!(live(&one, &candidate).await, 0);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_waits_for_the_records_and_counts_no_call_twice() {
    let (mut redis, logs) = (Redis::start(), Arc::new(Logs::default()));
    let one = Instance::start(&redis, "one", &logs, true).await;
    let candidate = link(1, 50, Some(10));
    let up = [one.talk(&candidate).await, one.talk(&candidate).await];
    logs.are_away.store(true, Ordering::SeqCst);
    redis.stop();
    one.wait_for(|status| *status == Status::Away).await;
    assert!(one.ask(fresh(), std::slice::from_ref(&candidate)).await.is_err());
    // The records tell of both before they are read.
    for hold in up {
        one.record(hold, &candidate).await;
    }
    logs.are_away.store(false, Ordering::SeqCst);
    one.wait_until_alone().await;
    let (held, full) = one.fill(&candidate).await;
    assert_eq!((held.len(), full.used, full.held, full.limit), (3, 2, 3, 5));
    // What was held and not answered is free again, here too.
    one.keeper.release(held[0]).await;
    assert_eq!(one.fill(&candidate).await.0.len(), 1);
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_share_decides_says_so_is_counted_and_can_be_looked_at() {
    let (mut redis, logs) = (Redis::start(), Arc::new(Logs::default()));
    let one = Instance::start(&redis, "one", &logs, true).await;
    let candidate = link(1, 4, None);
    one.wait_until_shared().await;
    let shared = one.preview(&candidate).await;
    assert_eq!((shared.granted, shared.within_share), (Some(candidate.link), false));
    redis.stop();
    one.wait_until_alone().await;
    let ask = async || one.ask(fresh(), std::slice::from_ref(&candidate)).await.unwrap();
    for _ in 0..2 {
        // However often somebody looks, nothing is taken.
        let looked_at = [one.preview(&candidate).await, one.preview(&candidate).await];
        let held = ask().await;
        assert_eq!(looked_at, [held.clone(), held.clone()]);
        assert!(held.granted.is_some() && held.within_share, "{held:?}");
    }
    let before = one.counted();
    let full = one.preview(&candidate).await;
    assert_eq!(one.counted(), before, "nobody was refused");
    assert_eq!((full.refusals[0].limit, full.granted, full.within_share), (2, None, true));
    assert_eq!(ask().await, full);
    assert_eq!(one.counted(), before + 1.0);

    redis.start_again();
    one.wait_until_shared().await;
    let before = one.counted();
    let (held, full) = one.fill(&candidate).await;
    assert_eq!((held.len(), full.limit), (2, 4));
    assert_eq!(one.counted(), before + 1.0, "once, whoever refuses");
    assert!(!one.preview(&candidate).await.within_share);
    one.stop().await;
}
