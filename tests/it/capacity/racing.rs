//! Many at once: whoever comes first, exactly as many are let in as there is room for.

use std::sync::Arc;

use capconduit::capacity::memory::State;
use capconduit::capacity::{
    Candidate, Claim, HoldId, Leases, Ledger, Request, ScopeKind, Stage, Standing, Status, Turn,
    Usage, WindowKind,
};
use capconduit::ids::LinkId;
use tokio::task::JoinSet;

use super::{Tried, claim, connect, hold, settings, wait_for};
use crate::support::redis::Redis;

/// The cap of one scope: live calls, and calls of all time and of the day.
type Room = (u32, u32, u32);

/// A seller with one campaign, whose links belong to two clients in turn.
struct Nest {
    links: Vec<Room>,
    clients: [Room; 2],
    campaign: Room,
    seller: Room,
    /// Keeps the scopes of nests in one ledger apart.
    number: i64,
}

impl Nest {
    fn candidates(&self) -> Vec<Candidate> {
        let of = |kind, id, (concurrency, total, day): Room| {
            let mut claim = claim(kind, id, Some(concurrency), Some(total));
            claim.volume[WindowKind::Day.index()] = Some(day);
            claim
        };
        let candidate = |(place, room): (usize, &Room)| {
            let id = 100 * self.number + i64::try_from(place).unwrap();
            let client = place % 2;
            let client_id = 100 * self.number + i64::try_from(client).unwrap();
            let claims = vec![
                of(ScopeKind::Link, id, *room),
                of(ScopeKind::Client, client_id, self.clients[client]),
                of(ScopeKind::Campaign, self.number, self.campaign),
                of(ScopeKind::Seller, self.number, self.seller),
            ];
            Candidate { link: LinkId(id), claims }
        };
        self.links.iter().enumerate().map(candidate).collect()
    }

    /// How many calls fit: caps that lie within each other let in the same number, whatever
    /// the order.
    fn fits(&self) -> usize {
        let least = |(concurrency, total, day): Room| concurrency.min(total).min(day);
        let of_client = |client: usize| {
            let links = self.links.iter().skip(client).step_by(2).map(|room| least(*room));
            links.sum::<u32>().min(least(self.clients[client]))
        };
        let all = (of_client(0) + of_client(1)).min(least(self.campaign)).min(least(self.seller));
        usize::try_from(all).unwrap()
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for claim in self.candidates().into_iter().flat_map(|candidate| candidate.claims) {
            if !claims.iter().any(|known| known.scope == claim.scope) {
                claims.push(claim);
            }
        }
        claims
    }
}

#[track_caller]
fn assert_within(claim: &Claim, usage: &Usage) {
    assert!(usage.live <= claim.concurrency.unwrap_or(u32::MAX), "{:?} {usage:?}", claim.scope);
    for kind in WindowKind::ALL.map(WindowKind::index) {
        let (taken, limit) = (usage.used[kind] + usage.held[kind], claim.volume[kind]);
        assert!(taken <= limit.unwrap_or(u32::MAX), "{:?} {usage:?}", claim.scope);
    }
}

/// All calls are over, and every answered one counts.
#[track_caller]
fn assert_nothing_left(claim: &Claim, usage: &Usage, answered: u32) {
    assert_eq!((usage.live, usage.held), (0, [0; WindowKind::COUNT]), "{:?}", claim.scope);
    if claim.scope.kind == ScopeKind::Seller {
        assert_eq!(usage.used, [answered; WindowKind::COUNT]);
    }
}

/// What the memory store keeps, where a scheduler decides who gets at it.
mod scheduled {
    use std::sync::LazyLock;

    use shuttle::sync::{Arc, Mutex};
    use shuttle::thread;

    use super::*;

    const RANDOM: usize = 3_000;
    const PRIORITIES: usize = 1_500;
    /// Changes of priority in one schedule.
    const DEPTH: usize = 4;
    const CALLS: u128 = 4;

    /// What callers share: the ledger, its caps, and who was answered.
    struct Scene {
        state: Mutex<State>,
        nest: &'static Laid,
        answered: Mutex<Vec<HoldId>>,
    }

    /// A nest, laid out once for all schedules.
    struct Laid {
        candidates: Vec<Candidate>,
        claims: Vec<Claim>,
    }

    static NEST: LazyLock<Laid> = LazyLock::new(|| {
        let nest = Nest {
            links: vec![(1, 9, 9), (2, 2, 9), (9, 9, 9)],
            clients: [(2, 9, 9), (1, 9, 9)],
            campaign: (9, 9, 4),
            seller: (2, 5, 9),
            number: 1,
        };
        Laid { candidates: nest.candidates(), claims: nest.claims() }
    });

    impl Scene {
        fn reserve(&self, id: HoldId, first: usize) -> Option<LinkId> {
            let mut candidates = self.nest.candidates.clone();
            candidates.rotate_left(first % self.nest.candidates.len());
            let request = Request { hold: id, candidates, turn: Turn::None };
            let granted = self.state.lock().unwrap().reserve(&request, 0).granted;
            self.check();
            granted
        }

        fn advance(&self, id: HoldId, link: LinkId, stage: Stage) {
            let candidate = self.nest.candidates.iter().find(|c| c.link == link).unwrap();
            let standing = Standing::held(id, candidate).unwrap().with(stage);
            self.state.lock().unwrap().advance(&standing, 0);
            self.check();
        }

        /// Every cap, at one instant between any two steps.
        fn check(&self) {
            let state = self.state.lock().unwrap();
            for claim in &self.nest.claims {
                assert_within(claim, &state.usage(claim.scope, &claim.windows));
            }
        }

        /// One attempt of a call, asked for twice at once: the first answer is late.
        fn attempt(scene: &Arc<Self>, number: u128, attempt: u32) {
            let id = hold(number, attempt);
            let first = usize::try_from(number).unwrap();
            let again = {
                let scene = scene.clone();
                thread::spawn(move || {
                    let granted = scene.reserve(id, first);
                    if let Some(link) = granted {
                        scene.advance(id, link, Stage::Held);
                    }
                    granted
                })
            };
            match scene.reserve(id, first) {
                Some(link) => {
                    scene.lead(id, link);
                    // The repeat may come after the end of it all.
                    assert!(again.join().unwrap().is_none_or(|other| other == link));
                }
                // Room may have come between the two.
                None => {
                    if let Some(link) = again.join().unwrap() {
                        scene.lead(id, link);
                    }
                }
            }
        }

        /// From the grant to the end; every second one is answered.
        fn lead(&self, id: HoldId, link: LinkId) {
            if (id.call.0.as_u128() + u128::from(id.attempt)).is_multiple_of(2) {
                for stage in [Stage::Returned, Stage::Held, Stage::Returned] {
                    self.advance(id, link, stage);
                }
                return;
            }
            self.answered.lock().unwrap().push(id);
            for stage in [Stage::Used, Stage::Counted, Stage::Used, Stage::Recorded] {
                self.advance(id, link, stage);
            }
        }
    }

    fn scene() {
        let state = Mutex::new(State::new(Leases::default()));
        let scene = Arc::new(Scene { state, nest: &NEST, answered: Mutex::new(Vec::new()) });
        let calls = (0..CALLS).map(|number| {
            let scene = scene.clone();
            thread::spawn(move || {
                for attempt in 1..=2 {
                    Scene::attempt(&scene, number, attempt);
                }
            })
        });
        let calls: Vec<_> = calls.collect();
        for call in calls {
            call.join().unwrap();
        }
        let answered = u32::try_from(scene.answered.lock().unwrap().len()).unwrap();
        let state = scene.state.lock().unwrap();
        for claim in &scene.nest.claims {
            let usage = state.usage(claim.scope, &claim.windows);
            assert_nothing_left(claim, &usage, answered);
        }
    }

    #[test]
    fn no_schedule_lets_the_memory_store_exceed_a_cap() {
        shuttle::check_random(scene, RANDOM);
        shuttle::check_pct(scene, PRIORITIES, DEPTH);
    }
}

const CONNECTIONS: usize = 8;
const CALLERS: u128 = 2_000;
const ROUNDS: i64 = 10;

/// Another cap is the one that is full first in each round.
fn nest(round: i64) -> Nest {
    let links = (10..20).map(|room| (room, 200, 300)).collect();
    let mut nest = Nest {
        links,
        clients: [(100, 500, 500); 2],
        campaign: (1_000, 1_000, 1_000),
        seller: (1_000, 1_000, 1_000),
        number: round + 1,
    };
    match round % 5 {
        0 => {}
        1 => nest.clients = [(33, 500, 500), (100, 500, 41)],
        2 => nest.campaign = (1_000, 1_000, 97),
        3 => nest.seller = (89, 1_000, 1_000),
        _ => {
            (nest.links[3], nest.clients[1], nest.seller) =
                ((99, 7, 9), (60, 70, 80), (500, 101, 500))
        }
    }
    nest
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_callers_on_one_redis_get_exactly_the_room_there_is() {
    let redis = Redis::start();
    let mut ledgers = Vec::new();
    for node in 0..CONNECTIONS {
        let (ledger, stop) = connect(settings(&redis, "racing", &format!("node-{node}")));
        wait_for(&*ledger, |status| *status != Status::Away).await;
        if node == 0 {
            ledger.open().await.unwrap();
        }
        wait_for(&*ledger, |status| matches!(status, Status::Open(_))).await;
        ledgers.push((ledger, stop));
    }
    let ledgers: Vec<Arc<dyn Ledger>> = ledgers.iter().map(|(ledger, _)| ledger.clone()).collect();
    for round in 0..ROUNDS {
        let nest = nest(round);
        let admitted = race(&ledgers, &nest).await;
        assert_eq!(admitted.len(), nest.fits(), "round {round}");
        let usages = usages(&*ledgers[0], &nest).await;
        for (claim, usage) in nest.claims().iter().zip(&usages) {
            assert_within(claim, usage);
        }
        let answered = let_go(&ledgers, admitted).await;
        let usages = self::usages(&*ledgers[1], &nest).await;
        for (claim, usage) in nest.claims().iter().zip(&usages) {
            assert_nothing_left(claim, usage, answered);
        }
    }
    assert_eq!(ledgers[0].holders().await.unwrap(), []);
}

/// All ask at once, each for all links in an order of its own. Those who were let in.
async fn race(ledgers: &[Arc<dyn Ledger>], nest: &Nest) -> Vec<Standing> {
    let candidates = nest.candidates();
    let mut asking = JoinSet::new();
    for caller in 0..CALLERS {
        let place = usize::try_from(caller).unwrap();
        let mut candidates = candidates.clone();
        // Another step through the links for each, from another link on.
        let count = candidates.len();
        let step = [1, 3, 7, 9][place % 4];
        candidates = (0..count).map(|n| candidates[(place + n * step) % count].clone()).collect();
        let id = hold(u128::try_from(nest.number).unwrap() << 32 | caller, 1);
        let request = Request { hold: id, candidates, turn: Turn::None };
        let ledger = ledgers[place % ledgers.len()].clone();
        asking.spawn(async move {
            let granted = ledger.reserve(&request).await.unwrap().granted?;
            let candidate = request.candidates.iter().find(|c| c.link == granted)?;
            Standing::held(id, candidate)
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}

/// Every second one was answered; another connection than the one that asked tells of some.
async fn let_go(ledgers: &[Arc<dyn Ledger>], admitted: Vec<Standing>) -> u32 {
    let mut answered = 0;
    let mut telling = JoinSet::new();
    for (place, standing) in admitted.into_iter().enumerate() {
        let stages = if place % 2 == 0 {
            answered += 1;
            vec![Stage::Used, Stage::Counted, Stage::Recorded]
        } else {
            vec![Stage::Returned]
        };
        let ledger = ledgers[place % ledgers.len()].clone();
        telling.spawn(async move {
            for stage in stages {
                ledger.advance(&[standing.clone().with(stage)]).await.unwrap();
            }
        });
    }
    telling.join_all().await;
    answered
}

async fn usages(ledger: &dyn Ledger, nest: &Nest) -> Vec<Usage> {
    let asked: Vec<_> =
        nest.claims().into_iter().map(|claim| (claim.scope, claim.windows)).collect();
    ledger.usages(&asked).await.unwrap()
}

#[tokio::test]
async fn a_reservation_is_one_command_to_redis() {
    const CALLS: u128 = 100;
    let redis = Redis::start();
    let tried = Tried::redis(&redis, "one").await;
    let candidates = nest(0).candidates();
    let reserve = async |call| tried.reserve(hold(call, 1), &candidates, Turn::None).await;
    // The first one brings the script along.
    reserve(0).await;
    let before = scripts(&redis).await;
    for call in 1..=CALLS {
        reserve(call).await;
    }
    assert_eq!(scripts(&redis).await - before, CALLS);
}

/// How many commands that run or load a script the server has had.
async fn scripts(redis: &Redis) -> u128 {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let asked = redis::cmd("INFO").arg("commandstats").to_owned();
    let said: String = asked.query_async(&mut connection).await.unwrap();
    let of_scripts = said.lines().filter(|line| {
        ["cmdstat_eval:", "cmdstat_evalsha:", "cmdstat_script"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let calls = of_scripts.map(|line| {
        let (_, statistics) = line.split_once("calls=").unwrap();
        statistics.split(',').next().unwrap().parse::<u128>().unwrap()
    });
    calls.sum()
}
