//! What every store of the ledger does.

use std::collections::BTreeMap;
use std::time::Duration;

use capconduit::capacity::{
    Book, Candidate, Correction, Refusal, Request, Scope, ScopeKind, Slot, Stage, Turn, Usage,
    WindowKind, Windows,
};
use capconduit::ids::{CampaignId, LinkId};

use super::{Tried, at, claim, hold, link, noon, utc};
use crate::support::redis::Redis;

/// Runs each promise against both stores.
macro_rules! for_both_stores {
    ($($promise:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::Tried::memory()).await;
            })+
        }

        #[tokio::test]
        async fn redis() {
            let redis = Redis::start();
            $($promise(&Tried::redis(&redis, stringify!($promise)).await).await;)+
        }

        #[tokio::test]
        async fn redis_as_a_cluster() {
            let redis = Redis::start_cluster();
            $($promise(&Tried::redis(&redis, stringify!($promise)).await).await;)+
        }
    };
}

for_both_stores! {
    the_first_candidate_with_room_is_held_and_the_others_say_why_not,
    saying_it_twice_is_harmless,
    a_look_takes_nothing,
    a_look_at_another_month_forgets_nothing_of_this_one,
    what_is_in_no_window_any_more_is_forgotten,
    a_call_of_a_clock_that_was_far_ahead_hides_no_other,
    all_scopes_are_taken_or_none,
    a_limit_of_none_lets_nobody_in,
    what_comes_late_finds_the_hold_closed,
    a_call_held_before_midnight_counts_in_the_day_of_its_hold,
    a_change_of_time_zone_forgets_no_call,
    a_rotation_goes_on_after_the_link_that_was_offered_a_call_last,
    a_call_that_is_up_keeps_its_slot_over_the_limit_and_new_calls_wait,
    a_lowered_cap_drops_nobody_and_a_raised_one_is_in_force_at_once,
    a_hold_of_which_nobody_speaks_is_let_go_in_the_end,
    a_call_that_comes_back_after_its_lease_counts_once,
    holders_and_books_say_what_is_in_use,
    a_correction_reaches_every_window,
    a_batch_larger_than_one_script_is_told_whole,
}

async fn the_first_candidate_with_room_is_held_and_the_others_say_why_not(tried: &Tried) {
    let candidates = [link(1, 1, None), link(2, 5, Some(0)), link(3, 1, None)];
    assert_eq!(tried.first(hold(1, 1), &candidates).await, Some(1));
    let verdict = tried.reserve(hold(2, 1), &candidates, Turn::None).await;
    assert_eq!(verdict.granted, Some(LinkId(3)));
    let reasons: Vec<_> = verdict.refusals.iter().map(Refusal::reason).collect();
    assert_eq!(reasons, ["concurrency_cap", "total_cap"]);
    assert_eq!((verdict.refusals[0].used, verdict.refusals[0].limit), (1, 1));
}

async fn saying_it_twice_is_harmless(tried: &Tried) {
    let (candidate, id) = (link(1, 1, Some(1)), hold(1, 1));
    let first = tried.reserve(id, std::slice::from_ref(&candidate), Turn::None).await;
    assert_eq!(first.granted, Some(LinkId(1)));
    assert_eq!(tried.reserve(id, std::slice::from_ref(&candidate), Turn::None).await, first);
    for (stage, live, used, held) in [
        (Stage::Held, 1, 0, 1),
        (Stage::Used, 1, 1, 0),
        (Stage::Counted, 0, 1, 0),
        (Stage::Recorded, 0, 1, 0),
    ] {
        for _ in 0..2 {
            tried.advance(id, &candidate, stage).await;
            let usage = tried.usage(Scope::link(LinkId(1)), noon()).await;
            assert_eq!((usage.live, usage.used[0], usage.held[0]), (live, used, held), "{stage:?}");
        }
    }
}

async fn a_look_takes_nothing(tried: &Tried) {
    let request = Request {
        hold: hold(1, 1),
        candidates: vec![link(1, 1, Some(1)), link(2, 1, None)],
        turn: Turn::Rotate(CampaignId(1)),
    };
    let seen = tried.ledger.preview(&request).await.unwrap();
    assert_eq!(tried.ledger.preview(&request).await.unwrap(), seen);
    assert_eq!(tried.usage(Scope::link(LinkId(1)), noon()).await, Usage::default());
    assert!(tried.ledger.holders().await.unwrap().is_empty());
    assert_eq!(tried.ledger.reserve(&request).await.unwrap(), seen);
}

async fn a_look_at_another_month_forgets_nothing_of_this_one(tried: &Tried) {
    let in_month = |windows| {
        let mut candidate = link(1, 9, None);
        candidate.claims[0].windows = windows;
        candidate.claims[0].volume[WindowKind::Month.index()] = Some(2);
        candidate
    };
    let scope = Scope::link(LinkId(1));
    for number in 1..=2 {
        let candidate = in_month(noon());
        assert_eq!(tried.first(hold(number, 1), std::slice::from_ref(&candidate)).await, Some(1));
        tried.advance(hold(number, 1), &candidate, Stage::Counted).await;
    }
    let usage = tried.usage(scope, noon()).await;
    let books = tried.ledger.books().await.unwrap();
    for (other, granted) in [
        ("2027-02-22T12:00:00Z", Some(LinkId(1))),
        ("2099-01-01T00:00:00Z", Some(LinkId(1))),
        ("2026-10-22T12:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
    ] {
        let candidates = vec![in_month(utc(other))];
        let request = Request { hold: hold(9, 1), candidates, turn: Turn::None };
        assert_eq!(tried.ledger.preview(&request).await.unwrap().granted, granted, "{other}");
        assert_eq!(tried.ledger.books().await.unwrap(), books, "{other}");
        assert_eq!(tried.usage(scope, noon()).await, usage, "{other}");
    }
    assert_eq!(tried.first(hold(3, 1), &[in_month(noon())]).await, None);
}

async fn what_is_in_no_window_any_more_is_forgotten(tried: &Tried) {
    for (number, moment) in
        [(1, "2026-09-01T12:00:00Z"), (2, "2026-11-22T11:59:00Z"), (3, "2026-11-22T12:00:00Z")]
    {
        let mut candidate = link(1, 1, None);
        candidate.claims[0].windows = utc(moment);
        assert_eq!(tried.first(hold(number, 1), std::slice::from_ref(&candidate)).await, Some(1));
        tried.advance(hold(number, 1), &candidate, Stage::Counted).await;
    }
    let book = tried.ledger.books().await.unwrap().remove(0);
    assert_eq!(book.total, 3);
    let slots = book.slots.iter().map(|(slot, calls)| (slot.start(), *calls));
    let slots: BTreeMap<_, _> = slots.collect();
    let kept = [(at("2026-11-22T11:45:00Z"), 1), (at("2026-11-22T12:00:00Z"), 1)];
    assert_eq!(slots, BTreeMap::from(kept));
}

async fn a_call_of_a_clock_that_was_far_ahead_hides_no_other(tried: &Tried) {
    let scope = Scope::link(LinkId(1));
    let (now, ahead) = (at("2026-11-22T12:00:00Z"), at("2027-06-01T12:00:00Z"));
    let slots = vec![(Slot::of(now), 2), (Slot::of(ahead), 1)];
    tried.ledger.correct(&[Correction { scope, total: 3, slots }]).await.unwrap();
    let mut candidate = link(1, 9, None);
    candidate.claims[0].volume[WindowKind::Day.index()] = Some(2);
    assert_eq!(tried.first(hold(1, 1), std::slice::from_ref(&candidate)).await, None);
    assert!(tried.usage(scope, noon()).await.used[WindowKind::Day.index()] >= 2);
}

async fn all_scopes_are_taken_or_none(tried: &Tried) {
    let shared = |id| Candidate {
        link: LinkId(id),
        claims: vec![
            claim(ScopeKind::Link, id, Some(9), None),
            claim(ScopeKind::Client, 7, Some(1), None),
            claim(ScopeKind::Campaign, 5, None, None),
            claim(ScopeKind::Seller, 3, None, Some(9)),
        ],
    };
    assert_eq!(tried.first(hold(1, 1), &[shared(1)]).await, Some(1));
    let refused = tried.reserve(hold(2, 1), &[shared(2)], Turn::None).await;
    assert_eq!(refused.refusals[0].reason(), "client_concurrency_cap");
    assert_eq!(tried.usage(Scope::link(LinkId(2)), noon()).await, Usage::default());
    let seller = tried.usage(Scope { kind: ScopeKind::Seller, id: 3 }, noon()).await;
    assert_eq!((seller.live, seller.held[0]), (1, 1));
}

async fn a_limit_of_none_lets_nobody_in(tried: &Tried) {
    for kind in WindowKind::ALL {
        let mut candidate = link(1, 1, None);
        candidate.claims[0].volume[kind.index()] = Some(0);
        let verdict = tried.reserve(hold(1, 1), &[candidate], Turn::None).await;
        let refusal = &verdict.refusals[0];
        assert_eq!((refusal.used, refusal.held, refusal.limit), (0, 0, 0), "{kind:?}");
    }
}

async fn what_comes_late_finds_the_hold_closed(tried: &Tried) {
    let (candidate, id) = (link(1, 1, Some(1)), hold(1, 1));
    // The release of a question whose answer never came, ahead of the question.
    tried.advance(id, &candidate, Stage::Returned).await;
    assert_eq!(tried.first(id, std::slice::from_ref(&candidate)).await, None);
    for stage in [Stage::Held, Stage::Used, Stage::Counted] {
        tried.advance(id, &candidate, stage).await;
    }
    assert_eq!(tried.usage(Scope::link(LinkId(1)), noon()).await, Usage::default());
    assert_eq!(tried.first(hold(2, 1), &[candidate]).await, Some(1));
}

async fn a_call_held_before_midnight_counts_in_the_day_of_its_hold(tried: &Tried) {
    let mut candidate = link(1, 9, None);
    candidate.claims[0].windows = utc("2026-12-31T23:59:59Z");
    tried.first(hold(1, 1), std::slice::from_ref(&candidate)).await;
    let next_day = utc("2027-01-01T00:00:03Z");
    let mut next = link(1, 9, None);
    next.claims[0].windows = next_day;
    for kind in [WindowKind::Hour, WindowKind::Day, WindowKind::Month] {
        next.claims[0].volume[kind.index()] = Some(1);
    }
    assert_eq!(tried.first(hold(2, 1), std::slice::from_ref(&next)).await, Some(1));
    tried.advance(hold(1, 1), &candidate, Stage::Used).await;
    let usage = tried.usage(Scope::link(LinkId(1)), next_day).await;
    // Of all time, hour, day, week, month: the week goes on over the year's end.
    assert_eq!((usage.used, usage.held), ([1, 0, 0, 1, 0], [1, 1, 1, 1, 1]));
    let before = tried.usage(Scope::link(LinkId(1)), utc("2026-12-31T23:59:59Z")).await;
    assert_eq!(before.used[WindowKind::Day.index()], 1);
}

async fn a_change_of_time_zone_forgets_no_call(tried: &Tried) {
    let moment = at("2026-11-22T12:00:00Z");
    let in_zone = |zone| {
        let mut candidate = link(1, 9, None);
        candidate.claims[0].windows = Windows::at(moment, zone);
        candidate.claims[0].volume[WindowKind::Day.index()] = Some(2);
        candidate
    };
    let utc = in_zone(chrono_tz::UTC);
    assert_eq!(tried.first(hold(1, 1), std::slice::from_ref(&utc)).await, Some(1));
    tried.advance(hold(1, 1), &utc, Stage::Used).await;
    assert_eq!(tried.first(hold(2, 1), &[in_zone(chrono_tz::Europe::Paris)]).await, Some(1));
    let tokyo = [in_zone(chrono_tz::Asia::Tokyo)];
    let refused = tried.reserve(hold(3, 1), &tokyo, Turn::None).await;
    assert_eq!((refused.refusals[0].used, refused.refusals[0].held), (1, 1));
}

async fn a_rotation_goes_on_after_the_link_that_was_offered_a_call_last(tried: &Tried) {
    let candidates = [link(1, 99, None), link(2, 99, None), link(3, 99, None)];
    let campaign = CampaignId(4);
    let mut offered = Vec::new();
    for call in 0..7 {
        let verdict = tried.reserve(hold(call, 1), &candidates, Turn::Rotate(campaign)).await;
        offered.push(verdict.granted.unwrap().0);
    }
    assert_eq!(offered, [1, 2, 3, 1, 2, 3, 1]);
    // A second attempt of a call is an offer too.
    tried.reserve(hold(6, 2), &candidates[1..], Turn::Advance(campaign)).await;
    let verdict = tried.reserve(hold(8, 1), &candidates, Turn::Rotate(campaign)).await;
    assert_eq!((verdict.cursor, verdict.granted), (Some(LinkId(2)), Some(LinkId(3))));
    assert_eq!(verdict.rotated_by, 2);
    tried.ledger.set_cursor(campaign, LinkId(1)).await.unwrap();
    let verdict = tried.reserve(hold(9, 1), &candidates, Turn::Rotate(campaign)).await;
    assert_eq!(verdict.granted, Some(LinkId(2)));
}

async fn a_call_that_is_up_keeps_its_slot_over_the_limit_and_new_calls_wait(tried: &Tried) {
    let candidate = link(1, 1, None);
    for call in [1, 2] {
        tried.advance(hold(call, 1), &candidate, Stage::Used).await;
    }
    assert_eq!(tried.usage(Scope::link(LinkId(1)), noon()).await.live, 2);
    assert_eq!(tried.first(hold(3, 1), std::slice::from_ref(&candidate)).await, None);
    tried.advance(hold(1, 1), &candidate, Stage::Counted).await;
    assert_eq!(tried.first(hold(3, 1), std::slice::from_ref(&candidate)).await, None);
    tried.advance(hold(2, 1), &candidate, Stage::Counted).await;
    assert_eq!(tried.first(hold(3, 1), &[candidate]).await, Some(1));
}

async fn a_lowered_cap_drops_nobody_and_a_raised_one_is_in_force_at_once(tried: &Tried) {
    for call in 0..3 {
        assert_eq!(tried.first(hold(call, 1), &[link(1, 3, Some(3))]).await, Some(1));
    }
    let refused = tried.reserve(hold(3, 1), &[link(1, 1, None)], Turn::None).await;
    assert_eq!((refused.refusals[0].used, refused.refusals[0].limit), (3, 1));
    assert_eq!(tried.usage(Scope::link(LinkId(1)), noon()).await.live, 3);
    assert_eq!(tried.first(hold(3, 1), &[link(1, 4, Some(4))]).await, Some(1));
}

async fn a_hold_of_which_nobody_speaks_is_let_go_in_the_end(tried: &Tried) {
    let candidate = link(1, 1, Some(5));
    tried.first(hold(1, 1), std::slice::from_ref(&candidate)).await;
    tried.pass(Duration::from_secs(14 * 60));
    assert_eq!(tried.first(hold(2, 1), std::slice::from_ref(&candidate)).await, None);
    tried.advance(hold(1, 1), &candidate, Stage::Held).await;
    tried.pass(Duration::from_secs(14 * 60));
    assert_eq!(tried.first(hold(2, 1), std::slice::from_ref(&candidate)).await, None);
    tried.pass(Duration::from_secs(2 * 60));
    assert_eq!(tried.first(hold(2, 1), std::slice::from_ref(&candidate)).await, Some(1));
    // One that talks is believed in for hours.
    tried.advance(hold(2, 1), &candidate, Stage::Used).await;
    tried.pass(Duration::from_secs(3 * 60 * 60));
    assert_eq!(tried.first(hold(3, 1), std::slice::from_ref(&candidate)).await, None);
    tried.pass(Duration::from_secs(2 * 60 * 60));
    assert_eq!(tried.first(hold(3, 1), &[candidate]).await, Some(1));
}

async fn a_call_that_comes_back_after_its_lease_counts_once(tried: &Tried) {
    let candidate = link(1, 1, Some(5));
    tried.advance(hold(1, 1), &candidate, Stage::Used).await;
    tried.pass(Duration::from_secs(5 * 60 * 60));
    let usage = tried.usage(Scope::link(LinkId(1)), noon()).await;
    assert_eq!((usage.live, usage.used[0]), (0, 1));
    tried.advance(hold(1, 1), &candidate, Stage::Used).await;
    let usage = tried.usage(Scope::link(LinkId(1)), noon()).await;
    assert_eq!((usage.live, usage.used[0]), (1, 1));
}

async fn holders_and_books_say_what_is_in_use(tried: &Tried) {
    let candidate = link(1, 9, None);
    for (call, stage) in
        [(1, Stage::Held), (2, Stage::Used), (3, Stage::Counted), (4, Stage::Returned)]
    {
        tried.advance(hold(call, 1), &candidate, stage).await;
    }
    let mut holders = tried.ledger.holders().await.unwrap();
    holders.sort_by_key(|holder| holder.hold);
    let said: Vec<_> = holders.iter().map(|h| (h.hold, h.live, h.settled)).collect();
    let expected = [(hold(1, 1), true, false), (hold(2, 1), true, true), (hold(3, 1), false, true)];
    assert_eq!(said, expected);
    let slot = Slot::of(noon().moment());
    assert!(holders.iter().all(|h| h.scopes == [Scope::link(LinkId(1))]));
    assert!(holders.iter().all(|h| h.held_at == slot.start()));
    let book = Book { scope: Scope::link(LinkId(1)), total: 2, slots: vec![(slot, 2)] };
    assert_eq!(tried.ledger.books().await.unwrap(), [book]);
}

async fn a_correction_reaches_every_window(tried: &Tried) {
    let scope = Scope::link(LinkId(1));
    let slot = |text| Slot::of(at(text));
    let correct = |total, slots| [Correction { scope, total, slots }];
    let slots = vec![(slot("2026-11-22T11:50:00Z"), 2), (slot("2026-11-22T12:00:00Z"), 3)];
    tried.ledger.correct(&correct(7, slots)).await.unwrap();
    let usage = tried.usage(scope, noon()).await;
    assert_eq!(usage.used, [7, 3, 5, 5, 5]);
    let slots = vec![(slot("2026-11-22T12:00:00Z"), -1), (slot("2026-11-22T11:50:00Z"), -9)];
    tried.ledger.correct(&correct(-1, slots)).await.unwrap();
    assert_eq!(tried.usage(scope, noon()).await.used[..2], [6, 2]);
    assert_eq!(tried.ledger.books().await.unwrap()[0].slots, [(slot("2026-11-22T12:00:00Z"), 2)]);
}

async fn a_batch_larger_than_one_script_is_told_whole(tried: &Tried) {
    let candidate = link(1, 9, None);
    let standing: Vec<_> = (0..250)
        .map(|call| capconduit::capacity::Standing::held(hold(call, 1), &candidate).unwrap())
        .collect();
    tried.ledger.advance(&standing).await.unwrap();
    assert_eq!(tried.usage(Scope::link(LinkId(1)), noon()).await.live, 250);
    assert_eq!(tried.ledger.holders().await.unwrap().len(), 250);
    let asked: Vec<_> = (0..250).map(|id| (Scope::link(LinkId(id)), noon())).collect();
    let usages = tried.ledger.usages(&asked).await.unwrap();
    assert_eq!((usages.len(), usages[1].live), (250, 250));
}
