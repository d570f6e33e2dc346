//! Redis is lost in every way, under load: no cap is exceeded, nothing leaks,
//! and calls are taken again soon after it is back. What is in use is counted
//! where it happens, at the callees, and not by anything that is tried here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use capconduit::capacity::recount::{GRACE, Known, Recount, RecountSettings, Truth};
use capconduit::capacity::{
    Book, Candidate, HoldId, Keeper, Leases, RedisSettings, Request, Scope, ScopeKind, Status, Turn,
};
use capconduit::clock::{self, Timestamp};
use capconduit::ids::{CallId, CampaignId, LinkId};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{claim, connect, settings};
use crate::support::redis::Redis;
use crate::support::wait::{eventually, seconds};

/// Callees and call logs: what really happens.
#[derive(Default)]
pub(super) struct World {
    live: Mutex<HashMap<Scope, u32>>,
    answered: Mutex<HashMap<Scope, u32>>,
    logs: Mutex<Vec<(CallId, Vec<Scope>, Timestamp)>>,
    excess: Mutex<Vec<String>>,
    calls: AtomicU64,
}

const LINKS: [i64; 3] = [1, 2, 3];

/// Live calls at once, and calls in all.
const fn limits(scope: Scope) -> (u32, Option<u32>) {
    match (scope.kind, scope.id) {
        (ScopeKind::Link, 1) => (4, None),
        (ScopeKind::Link, 2) => (3, Some(120)),
        (ScopeKind::Link, _) => (9, None),
        (ScopeKind::Client, _) => (6, None),
        (ScopeKind::Campaign, _) => (9, None),
        (ScopeKind::Seller, _) => (8, Some(1_000_000)),
    }
}

fn candidate(link: i64) -> Candidate {
    let scopes = [
        (ScopeKind::Link, link),
        (ScopeKind::Client, if link == 3 { 2 } else { 1 }),
        (ScopeKind::Campaign, 1),
        (ScopeKind::Seller, 1),
    ];
    let now = capconduit::capacity::Windows::at(clock::now(), chrono_tz::UTC);
    let claims = scopes.map(|(kind, id)| {
        let (live, total) = limits(Scope { kind, id });
        let mut claim = claim(kind, id, Some(live), total);
        claim.windows = now;
        claim
    });
    Candidate { link: LinkId(link), claims: claims.to_vec() }
}

impl World {
    /// Waits until so many calls have come to their end.
    async fn ends_calls(&self, count: u64) {
        let before = self.calls.load(Ordering::SeqCst);
        eventually("calls come to their end", seconds(10), async || {
            (self.calls.load(Ordering::SeqCst) >= before + count).then_some(())
        })
        .await;
    }

    /// Writes the log of an answered call.
    pub(super) fn record(&self, call: CallId, scopes: Vec<Scope>, moment: Timestamp) {
        self.logs.lock().push((call, scopes, moment));
    }

    fn enter(&self, scopes: &[Scope]) {
        let mut live = self.live.lock();
        for scope in scopes {
            let now = live.entry(*scope).or_default();
            *now += 1;
            if *now > limits(*scope).0 {
                self.excess.lock().push(format!("{now} live calls of {scope:?}"));
            }
        }
    }

    fn leave(&self, scopes: &[Scope]) {
        let mut live = self.live.lock();
        for scope in scopes {
            *live.get_mut(scope).unwrap() -= 1;
        }
    }

    fn answer(&self, scopes: &[Scope]) {
        let mut answered = self.answered.lock();
        for scope in scopes {
            let now = answered.entry(*scope).or_default();
            *now += 1;
            if limits(*scope).1.is_some_and(|limit| *now > limit) {
                self.excess.lock().push(format!("{now} answered calls of {scope:?}"));
            }
        }
    }
}

#[async_trait::async_trait]
impl Truth for World {
    async fn known(&self, calls: &[CallId]) -> anyhow::Result<Known> {
        let logs = self.logs.lock();
        let asked: HashSet<_> = calls.iter().collect();
        let recorded = logs.iter().filter(|(call, ..)| asked.contains(call));
        let recorded = recorded.map(|(call, scopes, _)| (*call, Some(LinkId(scopes[0].id))));
        let answered =
            logs.iter().flat_map(|(_, scopes, at)| scopes.iter().map(|scope| (*scope, *at)));
        Ok(Known { recorded: recorded.collect(), answered: Book::of(answered) })
    }

    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>> {
        Ok(Vec::new())
    }
}

/// One instance of the service, as far as capacity goes.
struct Instance {
    keeper: Arc<Keeper>,
    recount: Arc<Recount>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    world: Arc<World>,
    _link: tokio_util::sync::DropGuard,
}

impl Instance {
    fn start(redis: &Redis, node: &str, world: &Arc<World>) -> Self {
        let patience = Duration::from_millis(300);
        let settings = RedisSettings { patience, ..settings(redis, "outage", node) };
        let (ledger, link) = connect(settings);
        let keeper = Arc::new(Keeper::new(ledger, node, &Leases::default()));
        let settings = RecountSettings { grace: GRACE, interval: Duration::from_secs(3_600) };
        let recount = Arc::new(Recount::new(keeper.clone(), world.clone(), settings));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn({
            let (keeper, stop) = (keeper.clone(), stop.clone());
            async move { keeper.run(stop).await }
        });
        tasks.spawn({
            let (recount, stop) = (recount.clone(), stop.clone());
            async move { recount.run(stop).await }
        });
        Self { keeper, recount, stop, tasks, world: world.clone(), _link: link }
    }

    async fn wait_until_open(&self) {
        self.wait_until(|status| matches!(status, Status::Open(_))).await;
    }

    async fn wait_until(&self, is_so: impl Fn(&Status) -> bool) {
        let mut status = self.keeper.ledger().status();
        let changed = status.wait_for(|status| is_so(status));
        timeout(Duration::from_secs(20), changed).await.expect("it changes").unwrap();
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Callers without end, until they are stopped; then every call is over.
struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

/// Callers at once per instance.
const CALLERS: usize = 25;

impl Load {
    fn start(instances: &[&Instance], world: &Arc<World>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for instance in instances {
            for _ in 0..CALLERS {
                let (keeper, world) = (instance.keeper.clone(), world.clone());
                let stop = stop.clone();
                callers.spawn(async move {
                    while !stop.load(Ordering::SeqCst) {
                        call(&keeper, &world).await;
                    }
                });
            }
        }
        Self { stop, callers }
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
    }
}

/// One call, as the call machine leads it.
async fn call(keeper: &Keeper, world: &World) {
    let (from, rings, answers, talks) = {
        let mut random = rand::rng();
        // Some talk for longer than it takes to fill the ledger anew.
        let talks = if random.random_bool(0.02) { 2_500 } else { random.random_range(0..25) };
        (random.random_range(0..3), random.random_range(0..15), random.random_bool(0.5), talks)
    };
    let hold = HoldId { call: clock::new_call_id(), attempt: 1 };
    let candidates: Vec<_> = (0..3).map(|place| candidate(LINKS[(from + place) % 3])).collect();
    let request = Request { hold, candidates: candidates.clone(), turn: Turn::None };
    let granted = match timeout(Duration::from_millis(500), keeper.reserve(&request)).await {
        Ok(Ok(verdict)) => verdict.granted,
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(link) = granted else {
        sleep(Duration::from_millis(5)).await;
        return;
    };
    let chosen = candidates.iter().find(|candidate| candidate.link == link).unwrap();
    let scopes: Vec<_> = chosen.claims.iter().map(|claim| claim.scope).collect();
    world.enter(&scopes);
    sleep(Duration::from_millis(rings)).await;
    if answers {
        world.answer(&scopes);
        keeper.settle(hold).await;
        sleep(Duration::from_millis(talks)).await;
    }
    world.leave(&scopes);
    keeper.release(hold).await;
    if answers {
        let moment = chosen.claims[0].windows.moment();
        world.record(hold.call, scopes, moment);
        keeper.recorded(&[hold.call].into());
    }
    world.calls.fetch_add(1, Ordering::SeqCst);
}

/// How soon calls are taken again once Redis is back.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// So many calls that there are others at every step of theirs.
const UNDER_LOAD: u64 = 30;

/// Loses Redis under load, by `lose`, and looks at what is left afterwards.
async fn lose_redis(lose: impl AsyncFnOnce(&mut Redis, &Instance)) {
    let mut redis = Redis::start();
    let world = Arc::new(World::default());
    let (one, two) =
        (Instance::start(&redis, "one", &world), Instance::start(&redis, "two", &world));
    one.wait_until_open().await;
    two.wait_until_open().await;
    let load = Load::start(&[&one, &two], &world);
    world.ends_calls(UNDER_LOAD).await;

    lose(&mut redis, &one).await;
    let back = Instant::now();
    let taken = async {
        // A call that got through after Redis was back, and through a ledger that is open.
        one.wait_until_open().await;
        two.wait_until_open().await;
        world.ends_calls(10).await;
    };
    timeout(BACK_WITHIN, taken).await.expect("calls are taken again");
    println!("calls were taken again after {:?}", back.elapsed());
    world.ends_calls(UNDER_LOAD).await;
    load.stop().await;
    for instance in [&one, &two] {
        let told = async {
            while !instance.keeper.tell_untold().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(5), told).await.expect("the ledger learns the rest");
    }
    let excess = world.excess.lock().clone();
    assert!(excess.is_empty(), "{} times, first: {}", excess.len(), excess[0]);
    let holders = one.keeper.ledger().holders().await.unwrap();
    let live: Vec<_> = holders.iter().filter(|holder| holder.live).collect();
    assert!(live.is_empty(), "holds are left over: {live:?}");
    let findings = one.recount.verify(false).await.unwrap();
    assert_eq!(findings.differences, [], "what is used differs from the call logs");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_flushed() {
    lose_redis(async |redis, _| redis.flush()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_restarted_from_what_it_wrote() {
    lose_redis(async |redis, one| {
        redis.stop();
        one.wait_until(|status| !matches!(status, Status::Open(_))).await;
        redis.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_replica_takes_over() {
    lose_redis(async |redis, _| {
        redis.stop();
        redis.start_empty();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_behind_takes_over() {
    lose_redis(async |redis, one| {
        let replica = redis.copy();
        one.world.ends_calls(UNDER_LOAD).await;
        redis.stop();
        redis.start_from(&replica);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs_for_five_seconds() {
    lose_redis(async |redis, _| {
        redis.hang();
        sleep(Duration::from_secs(5)).await;
        redis.resume();
    })
    .await;
}
