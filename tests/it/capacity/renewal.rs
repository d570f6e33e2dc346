//! An instance says again and again what it holds, a few holds at a time.

use std::sync::Arc;
use std::time::Duration;

use capconduit::capacity::keeper::AT_ONCE;
use capconduit::capacity::{
    Book, Correction, HoldId, Holder, Keeper, LeaseClock, Leases, Ledger, MemoryLedger, Request,
    Scope, Stage, Standing, Status, Turn, Unavailable, Usage, Verdict, Windows,
};
use capconduit::ids::{CampaignId, LinkId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{hold, link, noon};
use crate::support::wait::seconds;

/// A ledger that grants everything, and notes what it hears.
struct Listener {
    heard: Mutex<Vec<Heard>>,
    /// Of how many holds it was told, each as often as that was.
    told: watch::Sender<usize>,
    status: watch::Sender<Status>,
}

enum Heard {
    Asked,
    Told(Instant, Vec<HoldId>),
}

impl Listener {
    fn new() -> Arc<Self> {
        let (told, status) = (watch::channel(0).0, watch::channel(open("the first")).0);
        Arc::new(Self { heard: Mutex::default(), told, status })
    }

    async fn is_told_of(&self, holds: usize) {
        let mut told = self.told.subscribe();
        let waited = timeout(seconds(60), told.wait_for(|told| *told >= holds)).await;
        waited.expect("it is told in time").unwrap();
    }

    fn forget_everything(&self) {
        self.status.send_replace(open("the second"));
    }

    /// When it was told of a hold.
    fn times(&self, wanted: HoldId) -> Vec<Instant> {
        let heard = self.heard.lock();
        let of_wanted = heard.iter().filter_map(|heard| match heard {
            Heard::Told(at, holds) if holds.contains(&wanted) => Some(*at),
            Heard::Told(..) | Heard::Asked => None,
        });
        of_wanted.collect()
    }

    /// For how long it heard nothing of a hold, at most.
    fn longest_silence(&self, wanted: HoldId) -> Duration {
        let mut times = self.times(wanted);
        times.push(Instant::now());
        times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("it was told of it")
    }
}

#[async_trait::async_trait]
impl Ledger for Listener {
    async fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.heard.lock().push(Heard::Asked);
        self.preview(request).await
    }

    async fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        let granted = request.candidates.first().map(|candidate| candidate.link);
        let refusals = Vec::new();
        Ok(Verdict { rotated_by: 0, cursor: None, refusals, granted, within_share: false })
    }

    async fn advance(&self, standing: &[Standing]) -> Result<(), Unavailable> {
        let holds = standing.iter().map(|standing| standing.hold).collect();
        self.heard.lock().push(Heard::Told(Instant::now(), holds));
        self.told.send_modify(|told| *told += standing.len());
        Ok(())
    }

    async fn usages(&self, _: &[(Scope, Windows)]) -> Result<Vec<Usage>, Unavailable> {
        Ok(Vec::new())
    }

    async fn set_cursor(&self, _: CampaignId, _: LinkId) -> Result<(), Unavailable> {
        Ok(())
    }

    async fn holders(&self) -> Result<Vec<Holder>, Unavailable> {
        Ok(Vec::new())
    }

    async fn books(&self) -> Result<Vec<Book>, Unavailable> {
        Ok(Vec::new())
    }

    async fn correct(&self, _: &[Correction]) -> Result<(), Unavailable> {
        Ok(())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    async fn may_fill(&self) -> Result<bool, Unavailable> {
        Ok(true)
    }

    async fn open(&self) -> Result<(), Unavailable> {
        Ok(())
    }
}

fn open(epoch: &str) -> Status {
    Status::Open(epoch.into())
}

fn standing(call: u128, stage: Stage) -> Standing {
    Standing::held(hold(call, 1), &link(1, 99, None)).unwrap().with(stage)
}

/// Lets the keeper do its work until the guard is dropped.
fn run(keeper: &Arc<Keeper>) -> DropGuard {
    let (keeper, stop) = (keeper.clone(), CancellationToken::new());
    let stopped = stop.clone();
    tokio::spawn(async move { keeper.run(stopped).await });
    stop.drop_guard()
}

async fn reserve(keeper: &Keeper, call: u128) -> bool {
    let candidates = vec![link(1, 99, None)];
    let request = Request { hold: hold(call, 1), candidates, turn: Turn::None };
    keeper.reserve(&request).await.unwrap().granted.is_some()
}

#[tokio::test(start_paused = true)]
async fn the_ledger_believes_in_what_is_held_for_as_long_as_its_instance_lives() {
    let leases = Leases::default();
    let ledger = Arc::new(MemoryLedger::new(leases, LeaseClock::Own));
    let keeper = Arc::new(Keeper::new(ledger.clone(), "one", &leases));
    // Calls that an earlier run left, and calls of this one.
    keeper.adopt([standing(1, Stage::Held), standing(2, Stage::Used), standing(3, Stage::Counted)]);
    for call in 4..=6 {
        assert!(reserve(&keeper, call).await);
    }
    for call in [5, 6] {
        keeper.settle(hold(call, 1)).await;
    }
    keeper.release(hold(6, 1)).await;
    let in_use = async || {
        let usages = ledger.usages(&[(Scope::link(LinkId(1)), noon())]).await.unwrap();
        (usages[0].live, usages[0].used[0], usages[0].held[0])
    };
    let instance = run(&keeper);
    for _ in 0..2 {
        sleep(leases.used).await;
        assert_eq!(in_use().await, (4, 4, 2));
    }
    drop(instance);
    sleep(leases.used + seconds(1)).await;
    assert_eq!(in_use().await, (0, 4, 0), "and no longer");
}

#[tokio::test(start_paused = true)]
async fn what_is_only_counted_is_said_again_seldom_but_long_before_its_lease_ends() {
    let (leases, listener) = (Leases::default(), Listener::new());
    let keeper = Arc::new(Keeper::new(listener.clone(), "one", &leases));
    keeper.adopt([standing(1, Stage::Used), standing(2, Stage::Counted)]);
    let _instance = run(&keeper);
    sleep(leases.used).await;
    assert!(listener.longest_silence(hold(1, 1)) <= seconds(22));
    assert!(listener.longest_silence(hold(2, 1)) <= leases.used / 2);
    assert!(listener.times(hold(2, 1)).len() < 10);
}

#[tokio::test(start_paused = true)]
async fn whoever_wants_room_while_a_hundred_thousand_holds_are_said_again_waits_for_a_few() {
    const MANY: usize = 100_000;
    let listener = Listener::new();
    let keeper = Arc::new(Keeper::new(listener.clone(), "one", &Leases::default()));
    keeper.adopt((1..=MANY as u128).map(|call| standing(call, Stage::Used)));
    let _instance = run(&keeper);
    // Of each once, and now they are being said again.
    listener.is_told_of(MANY + 1).await;
    assert!(reserve(&keeper, 0).await);
    listener.is_told_of(2 * MANY).await;

    let heard = listener.heard.lock();
    let asked = heard.iter().position(|heard| matches!(heard, Heard::Asked)).unwrap();
    let told = |heard: &Heard| match heard {
        Heard::Told(_, holds) => holds.len(),
        Heard::Asked => 0,
    };
    let told_before: usize = heard[..asked].iter().map(told).sum();
    assert!(told_before <= MANY + 2 * AT_ONCE, "it waited until {told_before} were told");
    assert_eq!(heard.iter().map(told).max(), Some(AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_forgot_what_it_was_just_told_does_not_count_as_told() {
    let listener = Listener::new();
    let keeper = Keeper::new(listener.clone(), "one", &Leases::default());
    keeper.adopt((1..=2 * AT_ONCE as u128).map(|call| standing(call, Stage::Used)));
    let forgets = async {
        listener.is_told_of(AT_ONCE).await;
        listener.forget_everything();
    };
    let (is_told, ()) = tokio::join!(keeper.tell_untold(), forgets);
    assert!(!is_told);
    assert!(keeper.tell_untold().await);
}
