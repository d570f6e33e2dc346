//! Any sequence of questions, repeats, lost answers, crashes and clock steps:
//! the ledger says what counting it out by hand says, and no cap is exceeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use capconduit::capacity::{
    Candidate, Claim, HoldId, Request, Scope, ScopeKind, Stage, Standing, Turn, WindowKind, Windows,
};
use capconduit::clock::Timestamp;
use capconduit::ids::{CampaignId, LinkId};
use chrono::TimeDelta;
use chrono_tz::Tz;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use super::naive::Naive;
use super::{Tried, at, hold};
use crate::support::redis::Redis;

/// Caps and zones as they stand for a while.
#[derive(Clone, Debug)]
struct Settings {
    /// Per scope: links 1 to 3, then client, campaign and seller.
    caps: [Caps; 6],
}

#[derive(Clone, Debug)]
struct Caps {
    concurrency: Option<u32>,
    volume: [Option<u32>; WindowKind::COUNT],
    zone: Tz,
}

#[derive(Clone, Debug)]
enum Step {
    Configure(Box<Settings>),
    Reserve {
        call: u128,
        attempt: u32,
        links: Vec<i64>,
        turn: u8,
    },
    Advance {
        call: u128,
        attempt: u32,
        stage: Stage,
    },
    /// The same again: its answer was lost.
    Repeat,
    /// Time goes on, or the clock is set.
    Clock {
        seconds: i64,
    },
    /// An instance is gone, and its holds aren't renewed.
    Silence {
        minutes: u64,
    },
}

/// Moments around which something ends or begins.
const MOMENTS: [&str; 8] = [
    "2026-11-01T05:59:30Z", // summer time ends in New York
    "2026-03-08T06:59:40Z", // and begins
    "2026-10-25T00:59:40Z", // ends in London
    "2026-03-29T00:59:50Z",
    "2026-04-04T14:59:40Z", // ends on Lord Howe Island, by half an hour
    "2026-10-03T15:29:40Z",
    "2026-12-31T23:59:40Z", // a year, month and week's day
    "2026-02-28T18:14:40Z", // midnight in Kathmandu, at a month's end
];

const ZONES: [Tz; 5] = [
    Tz::UTC,
    chrono_tz::America::New_York,
    chrono_tz::Europe::London,
    chrono_tz::Australia::Lord_Howe,
    chrono_tz::Asia::Kathmandu,
];

fn caps() -> impl Strategy<Value = Caps> {
    let limit = || prop_oneof![3 => Just(None), 2 => (0_u32..6).prop_map(Some)];
    let zone = proptest::sample::select(ZONES.to_vec());
    (
        prop_oneof![Just(None), (1_u32..5).prop_map(Some)],
        [limit(), limit(), limit(), limit(), limit()],
        zone,
    )
        .prop_map(|(concurrency, volume, zone)| Caps { concurrency, volume, zone })
}

fn configuration() -> impl Strategy<Value = Settings> {
    [caps(), caps(), caps(), caps(), caps(), caps()].prop_map(|caps| Settings { caps })
}

fn step() -> impl Strategy<Value = Step> {
    let links = proptest::sample::subsequence(vec![1_i64, 2, 3], 1..=3);
    let stage = proptest::sample::select(vec![
        Stage::Held,
        Stage::Used,
        Stage::Used,
        Stage::Counted,
        Stage::Counted,
        Stage::Returned,
        Stage::Returned,
        Stage::Recorded,
    ]);
    let seconds =
        prop_oneof![6 => 0_i64..40, 2 => -60_i64..0, 1 => 600_i64..7_200, 1 => 80_000_i64..90_000];
    prop_oneof![
        8 => (0_u128..8, 1_u32..3, links, 0_u8..3)
            .prop_map(|(call, attempt, links, turn)| Step::Reserve { call, attempt, links, turn }),
        8 => (0_u128..8, 1_u32..3, stage)
            .prop_map(|(call, attempt, stage)| Step::Advance { call, attempt, stage }),
        2 => Just(Step::Repeat),
        3 => seconds.prop_map(|seconds| Step::Clock { seconds }),
        1 => prop_oneof![3 => 1_u64..20, 1 => 200_u64..300].prop_map(|minutes| Step::Silence { minutes }),
        1 => configuration().prop_map(|settings| Step::Configure(Box::new(settings))),
    ]
}

fn sequence() -> impl Strategy<Value = (Settings, &'static str, Vec<Step>)> {
    let moment = proptest::sample::select(MOMENTS.to_vec());
    (configuration(), moment, proptest::collection::vec(step(), 1..24))
}

impl Settings {
    /// `run` keeps sequences that share a store apart.
    fn candidate(&self, run: i64, link: i64, moment: Timestamp) -> Candidate {
        let place = usize::try_from(link - 1).unwrap();
        let link = link + 3 * run;
        let claims = [
            (ScopeKind::Link, link, place),
            (ScopeKind::Client, run, 3),
            (ScopeKind::Campaign, run, 4),
            (ScopeKind::Seller, run, 5),
        ];
        let claim = |(kind, id, place): (_, _, usize)| {
            let Caps { concurrency, volume, zone } = self.caps[place];
            let windows = Windows::at(moment, zone);
            Claim { scope: Scope { kind, id }, concurrency, volume, windows }
        };
        Candidate { link: LinkId(link), claims: claims.into_iter().map(claim).collect() }
    }
}

/// What is done with the model and the ledger alike.
enum Said {
    Reserve(Request),
    Advance(Standing),
}

/// One sequence.
struct Trial<'a> {
    tried: &'a Tried,
    naive: Naive,
    settings: Settings,
    moment: Timestamp,
    last: Option<Said>,
    run: i64,
}

impl Trial<'_> {
    async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Configure(settings) => self.settings = *settings,
            Step::Clock { seconds } => self.moment += TimeDelta::seconds(seconds),
            Step::Silence { minutes } => {
                self.naive.now += i64::try_from(minutes * 60_000).unwrap();
                self.tried.pass(Duration::from_secs(minutes * 60));
                self.naive.let_go();
            }
            Step::Reserve { call, attempt, links, turn } => {
                let candidates = links.iter().map(|link| self.candidate(*link)).collect();
                let hold = self.hold(call, attempt);
                let campaign = CampaignId(self.run);
                let turn = match turn {
                    0 => Turn::None,
                    1 => Turn::Rotate(campaign),
                    _ => Turn::Advance(campaign),
                };
                self.say(Said::Reserve(Request { hold, candidates, turn })).await?;
            }
            Step::Advance { call, attempt, stage } => {
                let hold = self.hold(call, attempt);
                let candidate = self.candidate(1);
                let standing = Standing::held(hold, &candidate).unwrap().with(stage);
                self.say(Said::Advance(standing)).await?;
            }
            Step::Repeat => {
                if let Some(said) = self.last.take() {
                    self.say(said).await?;
                }
            }
        }
        Ok(())
    }

    fn hold(&self, call: u128, attempt: u32) -> HoldId {
        hold(u128::try_from(self.run).unwrap() << 8 | call, attempt)
    }

    fn candidate(&self, link: i64) -> Candidate {
        self.settings.candidate(self.run, link, self.moment)
    }

    async fn say(&mut self, said: Said) -> Result<(), TestCaseError> {
        match &said {
            Said::Reserve(request) => {
                let known = self.naive.knows(request.hold);
                let expected = self.naive.reserve(request);
                let answer = self.tried.ledger.reserve(request).await.unwrap();
                prop_assert_eq!(&answer, &expected);
                if !known {
                    self.check_promise(request, answer.granted)?;
                }
            }
            Said::Advance(standing) => {
                self.naive.advance(standing);
                self.tried.ledger.advance(std::slice::from_ref(standing)).await.unwrap();
            }
        }
        self.last = Some(said);
        Ok(())
    }

    /// What was granted anew is within every cap that it counts in.
    fn check_promise(
        &self,
        request: &Request,
        granted: Option<LinkId>,
    ) -> Result<(), TestCaseError> {
        let candidate = request.candidates.iter().find(|c| Some(c.link) == granted);
        for claim in candidate.into_iter().flat_map(|candidate| &candidate.claims) {
            let usage = self.naive.usage(claim.scope, &claim.windows);
            prop_assert!(usage.live <= claim.concurrency.unwrap_or(u32::MAX));
            for kind in WindowKind::ALL.map(WindowKind::index) {
                let limit = claim.volume[kind].unwrap_or(u32::MAX);
                prop_assert!(usage.used[kind] + usage.held[kind] <= limit);
            }
        }
        Ok(())
    }

    async fn check_usages(&self) -> Result<(), TestCaseError> {
        let asked: Vec<_> = (1..=3)
            .flat_map(|link| self.candidate(link).claims)
            .map(|claim| (claim.scope, claim.windows))
            .collect();
        let usages = self.tried.ledger.usages(&asked).await.unwrap();
        for ((scope, windows), usage) in asked.iter().zip(usages) {
            prop_assert_eq!(usage, self.naive.usage(*scope, windows), "{:?}", scope);
        }
        Ok(())
    }
}

async fn run(
    tried: &Tried,
    run: i64,
    (settings, moment, steps): (Settings, &str, Vec<Step>),
) -> Result<(), TestCaseError> {
    let naive = Naive::new(tried.clock.load(Ordering::SeqCst));
    let mut trial = Trial { tried, naive, settings, moment: at(moment), last: None, run };
    let mut result = Ok(());
    for step in steps {
        result = trial.take(step).await;
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = trial.check_usages().await;
    }
    // The next sequence finds nothing of this one that its leases could end.
    for hours in [5, 8 * 24] {
        tried.pass(Duration::from_secs(hours * 60 * 60));
        tried.ledger.usages(&[]).await.unwrap();
    }
    result
}

/// Sequences per store; `CAPCONDUIT_SOAK` multiplies them.
fn sequences(of_all: u32) -> u32 {
    let times = std::env::var("CAPCONDUIT_SOAK").ok().and_then(|times| times.parse().ok());
    of_all * times.unwrap_or(1)
}

fn try_sequences(cases: u32, first_run: i64, tried: impl Fn() -> Arc<Tried>, runtime: &Runtime) {
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let next = AtomicI64::new(first_run);
    let result = runner.run(&sequence(), |sequence| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        runtime.block_on(run(&tried(), number, sequence))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn the_memory_store_says_what_counting_by_hand_says() {
    let runtime = Runtime::new().unwrap();
    try_sequences(sequences(20_000), 1, || Arc::new(Tried::memory()), &runtime);
}

#[test]
fn the_redis_store_says_what_counting_by_hand_says() {
    const THREADS: u32 = 4;
    let redis = Redis::start();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let redis = &redis;
            scope.spawn(move || {
                let runtime = Runtime::new().unwrap();
                let prefix = format!("model-{thread}");
                let tried = Arc::new(runtime.block_on(Tried::redis(redis, &prefix)));
                try_sequences(sequences(20_000) / THREADS, 1, || tried.clone(), &runtime);
            });
        }
    });
}
