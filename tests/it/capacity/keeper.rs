//! An instance that sleeps, is cut off, or comes back: what it holds is what is true.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capconduit::capacity::recount::{Known, Recount, RecountSettings, Truth};
use capconduit::capacity::{
    Candidate, HoldId, Keeper, Leases, Ledger, Request, Scope, Stage, Standing, Turn, Usage,
};
use capconduit::ids::{CallId, CampaignId, LinkId};

use tokio_util::sync::CancellationToken;

use super::outage::World;
use super::{Tried, connect, hold, link, noon, settings, wait_for};
use crate::support::redis::Redis;

fn asked(hold: HoldId, candidate: &Candidate) -> Request {
    Request { hold, candidates: vec![candidate.clone()], turn: Turn::None }
}

async fn granted(keeper: &Keeper, hold: HoldId, candidate: &Candidate) -> bool {
    keeper.reserve(&asked(hold, candidate)).await.unwrap().granted.is_some()
}

async fn usage(ledger: &dyn Ledger) -> Usage {
    ledger.usages(&[(Scope::link(LinkId(1)), noon())]).await.unwrap().remove(0)
}

#[tokio::test]
async fn whoever_slept_through_the_lease_asks_again_before_dialling() {
    let tried = Tried::memory();
    // By the keeper's own clock a hold gets old at once; by the ledger's, after minutes.
    let leases = Leases { held: Duration::from_millis(2), ..Leases::default() };
    let sleeper = Keeper::new(tried.ledger.clone(), "one", &leases);
    let awake = Keeper::new(tried.ledger.clone(), "two", &Leases::default());
    let candidate = link(1, 1, None);
    assert!(granted(&sleeper, hold(1, 1), &candidate).await);
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    assert!(sleeper.reaffirm(hold(1, 1)).await.unwrap(), "nobody else wanted it");

    tried.pass(Duration::from_secs(16 * 60));
    assert!(granted(&awake, hold(2, 1), &candidate).await, "the sleeper's lease is over");
    assert!(awake.reaffirm(hold(2, 1)).await.unwrap());
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    assert!(!sleeper.reaffirm(hold(1, 1)).await.unwrap(), "it is somebody else's now");
    assert_eq!(usage(&*tried.ledger).await.live, 1);
}

#[tokio::test]
async fn a_call_that_nobody_leads_any_more_gives_back_what_it_held() {
    let tried = Tried::memory();
    let keeper = Keeper::new(tried.ledger.clone(), "one", &Leases::default());
    let candidate = link(1, 2, Some(9));
    assert!(granted(&keeper, hold(1, 1), &candidate).await);
    assert!(granted(&keeper, hold(2, 1), &candidate).await);
    keeper.settle(hold(2, 1)).await;
    keeper.abandon(hold(1, 1).call);
    keeper.abandon(hold(2, 1).call);
    assert!(keeper.tell_untold().await);
    let usage = usage(&*tried.ledger).await;
    assert_eq!((usage.live, usage.used[0], usage.held[0]), (0, 1, 0));
}

#[tokio::test]
async fn what_a_run_that_was_cut_off_held_is_given_back_and_what_was_answered_counts_once() {
    let redis = Redis::start();
    let world = Arc::new(World::default());
    let (ledger, stop) = connect(settings(&redis, "cut-off", "one"));
    wait_for(&*ledger, |status| *status != capconduit::capacity::Status::Away).await;
    ledger.open().await.unwrap();
    wait_for(&*ledger, |status| matches!(status, capconduit::capacity::Status::Open(_))).await;
    let candidate = link(1, 9, Some(9));
    let standing = |call, stage| {
        let standing = Standing::held(hold(call, 1), &candidate).unwrap().with(stage);
        [standing]
    };
    // One that rang; one that talks on, and the next run knows; one whose record
    // was written before the ledger heard of its answer; one that was counted.
    for (call, stage) in [(1, Stage::Held), (2, Stage::Used), (3, Stage::Held), (4, Stage::Used)] {
        ledger.advance(&standing(call, stage)).await.unwrap();
    }
    for call in [3, 4] {
        world.record(hold(call, 1).call, vec![Scope::link(LinkId(1))], noon().moment());
    }
    // And one of another instance.
    let (other, _stop_other) = connect(settings(&redis, "cut-off", "two"));
    wait_for(&*other, |status| matches!(status, capconduit::capacity::Status::Open(_))).await;
    other.advance(&standing(5, Stage::Held)).await.unwrap();
    drop(stop);

    let (ledger, _stop) = connect(settings(&redis, "cut-off", "one"));
    wait_for(&*ledger, |status| matches!(status, capconduit::capacity::Status::Open(_))).await;
    let keeper = Arc::new(Keeper::new(ledger.clone(), "one", &Leases::default()));
    keeper.adopt(standing(2, Stage::Used));
    let recount = Recount::new(keeper, world, RecountSettings::default());
    assert_eq!(recount.reclaim().await.unwrap(), 3);
    let now = usage(&*ledger).await;
    assert_eq!((now.live, now.used[0], now.held[0]), (2, 3, 1), "calls 2 and 5 are up");
    assert_eq!(recount.verify(true).await.unwrap().differences, []);
    assert_eq!(recount.reclaim().await.unwrap(), 0, "and once is enough");
}

/// Records so many that it takes half a minute to read them; none is of a call that came since.
struct Many;

#[async_trait::async_trait]
impl Truth for Many {
    async fn known(&self, _: &[CallId]) -> anyhow::Result<Known> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Ok(Known::default())
    }

    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>> {
        Ok(Vec::new())
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_comes_and_is_recorded_while_the_records_are_read_is_no_difference() {
    let tried = Tried::memory();
    let keeper = Arc::new(Keeper::new(tried.ledger.clone(), "one", &Leases::default()));
    let stop = CancellationToken::new();
    let run = tokio::spawn({
        let (keeper, stop) = (keeper.clone(), stop.clone());
        async move { keeper.run(stop).await }
    });
    let recount = Recount::new(keeper.clone(), Arc::new(Many), RecountSettings::default());
    let calls = async {
        for call in 1..=3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(granted(&keeper, hold(call, 1), &link(1, 9, Some(9))).await);
            keeper.settle(hold(call, 1)).await;
            keeper.release(hold(call, 1)).await;
            keeper.recorded(&HashSet::from([hold(call, 1).call]));
        }
    };
    let (found, ()) = tokio::join!(recount.verify(true), calls);
    assert_eq!(found.unwrap().differences, []);
    assert_eq!(usage(&*tried.ledger).await.used[0], 3, "none is taken off");
    assert_eq!(tried.ledger.holders().await.unwrap(), [], "the records tell of them");
    stop.cancel();
    run.await.unwrap();
}
