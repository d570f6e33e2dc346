use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::capacity::{Candidate, ScopeKind};
use crate::ids::CallId;

fn windows(moment: &str) -> Windows {
    Windows::at(moment.parse().unwrap(), chrono_tz::UTC)
}

fn noon() -> Windows {
    windows("2026-11-22T12:00:00Z")
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

/// The ledger, asked as if it answered at once: it does.
struct Asked(MemoryLedger);

impl Asked {
    fn new() -> Self {
        Self(MemoryLedger::default())
    }

    fn reserve(&self, hold: HoldId, candidates: &[Candidate], turn: Turn) -> Verdict {
        let request = Request { hold, candidates: candidates.to_vec(), turn };
        self.0.reserve(&request).now_or_never().unwrap().unwrap()
    }

    fn first(&self, hold: HoldId, candidates: &[Candidate]) -> Option<i64> {
        self.reserve(hold, candidates, Turn::None).granted.map(|link| link.0)
    }

    fn settle(&self, hold: HoldId) {
        self.0.settle(hold).now_or_never().unwrap().unwrap();
    }

    fn release(&self, hold: HoldId) {
        self.0.release(hold).now_or_never().unwrap().unwrap();
    }

    fn usage_in(&self, scope: Scope, windows: Windows) -> Usage {
        let usages = self.0.usages(&[(scope, windows)]).now_or_never().unwrap().unwrap();
        usages.into_iter().next().unwrap()
    }

    fn usage(&self, scope: Scope) -> Usage {
        self.usage_in(scope, noon())
    }
}

#[test]
fn the_first_candidate_with_room_is_held_and_the_others_say_why_not() {
    let ledger = Asked::new();
    let candidates = [link(1, 1, None), link(2, 5, Some(0)), link(3, 1, None)];
    assert_eq!(ledger.first(hold(1, 1), &candidates), Some(1));
    let verdict = ledger.reserve(hold(2, 1), &candidates, Turn::None);
    assert_eq!(verdict.granted, Some(LinkId(3)));
    let reasons: Vec<_> = verdict.refusals.iter().map(Refusal::reason).collect();
    assert_eq!(reasons, ["concurrency_cap", "total_cap"]);
    assert_eq!((verdict.refusals[0].used, verdict.refusals[0].limit), (1, 1));
}

#[test]
fn doing_it_twice_is_harmless() {
    let ledger = Asked::new();
    let (candidates, id) = ([link(1, 1, Some(1))], hold(1, 1));
    assert_eq!(ledger.first(id, &candidates), Some(1));
    assert_eq!(ledger.first(id, &candidates), Some(1));
    ledger.settle(id);
    ledger.settle(id);
    let usage = ledger.usage(Scope::link(LinkId(1)));
    assert_eq!((usage.live, usage.used[0], usage.held[0]), (1, 1, 0));
    ledger.release(id);
    ledger.release(id);
    ledger.settle(id);
    let usage = ledger.usage(Scope::link(LinkId(1)));
    assert_eq!((usage.live, usage.used[0], usage.held[0]), (0, 1, 0));
}

#[test]
fn all_scopes_are_taken_or_none() {
    let ledger = Asked::new();
    let shared = |id| Candidate {
        link: LinkId(id),
        claims: vec![
            claim(ScopeKind::Link, id, Some(9), None),
            claim(ScopeKind::Client, 7, Some(1), None),
        ],
    };
    assert_eq!(ledger.first(hold(1, 1), &[shared(1)]), Some(1));
    let refused = ledger.reserve(hold(2, 1), &[shared(2)], Turn::None);
    assert_eq!(refused.refusals[0].reason(), "client_concurrency_cap");
    assert_eq!(ledger.usage(Scope::link(LinkId(2))), Usage::default());
}

#[test]
fn a_call_held_before_midnight_counts_in_the_day_of_its_hold() {
    let ledger = Asked::new();
    let mut candidate = link(1, 9, None);
    candidate.claims[0].windows = windows("2026-11-22T23:59:59Z");
    ledger.first(hold(1, 1), &[candidate]);
    let tomorrow = windows("2026-11-23T00:00:03Z");
    let mut next = link(1, 9, None);
    next.claims[0].windows = tomorrow;
    next.claims[0].volume[WindowKind::Day.index()] = Some(1);
    assert_eq!(ledger.first(hold(2, 1), &[next]), Some(1));
    ledger.settle(hold(1, 1));
    let day = WindowKind::Day.index();
    let usage = ledger.usage_in(Scope::link(LinkId(1)), tomorrow);
    assert_eq!((usage.used[day], usage.held[day]), (0, 1));
    assert_eq!(ledger.usage(Scope::link(LinkId(1))).used[day], 1);
}

#[test]
fn a_change_of_time_zone_forgets_no_call() {
    let ledger = Asked::new();
    let moment = "2026-11-22T12:00:00Z".parse().unwrap();
    let in_zone = |zone| {
        let mut candidate = link(1, 9, None);
        candidate.claims[0].windows = Windows::at(moment, zone);
        candidate.claims[0].volume[WindowKind::Day.index()] = Some(2);
        candidate
    };
    assert_eq!(ledger.first(hold(1, 1), &[in_zone(chrono_tz::UTC)]), Some(1));
    ledger.settle(hold(1, 1));
    assert_eq!(ledger.first(hold(2, 1), &[in_zone(chrono_tz::Europe::Paris)]), Some(1));
    let refused = ledger.reserve(hold(3, 1), &[in_zone(chrono_tz::Asia::Tokyo)], Turn::None);
    assert_eq!((refused.refusals[0].used, refused.refusals[0].held), (1, 1));
}

#[test]
fn a_rotation_goes_on_after_the_link_that_was_offered_a_call_last() {
    let ledger = Asked::new();
    let candidates = [link(1, 99, None), link(2, 99, None), link(3, 99, None)];
    let campaign = CampaignId(4);
    let mut offered = Vec::new();
    for call in 0..7 {
        let verdict = ledger.reserve(hold(call, 1), &candidates, Turn::Rotate(campaign));
        offered.push(verdict.granted.unwrap().0);
    }
    assert_eq!(offered, [1, 2, 3, 1, 2, 3, 1]);
    // A second attempt of a call is an offer too.
    ledger.reserve(hold(6, 2), &candidates[1..], Turn::Advance(campaign));
    let verdict = ledger.reserve(hold(8, 1), &candidates, Turn::Rotate(campaign));
    assert_eq!((verdict.cursor, verdict.granted), (Some(LinkId(2)), Some(LinkId(3))));
}

#[test]
fn a_call_that_is_up_keeps_its_slot_over_the_limit_and_new_calls_wait() {
    let ledger = Asked::new();
    let candidate = link(1, 1, None);
    for call in [1, 2] {
        let standing =
            Standing { hold: hold(call, 1), claims: candidate.claims.clone(), settled: true };
        ledger.0.renew(&[standing]).now_or_never().unwrap().unwrap();
    }
    assert_eq!(ledger.usage(Scope::link(LinkId(1))).live, 2);
    assert_eq!(ledger.first(hold(3, 1), &[candidate]), None);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u128, usize),
    Settle(u128),
    Release(u128),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Nested caps under any sequence: `used + held <= limit`, always, and nothing is left over.
    #[test]
    fn no_sequence_exceeds_a_cap(
        steps in proptest::collection::vec(
            prop_oneof![
                3 => (0_u128..12, 0_usize..3).prop_map(|(call, from)| Step::Reserve(call, from)),
                1 => (0_u128..12).prop_map(Step::Settle),
                1 => (0_u128..12).prop_map(Step::Release),
            ],
            0..80,
        )
    ) {
        let ledger = Asked::new();
        let candidates: Vec<_> = [(1, 2, Some(3)), (2, 1, None), (3, 3, Some(2))]
            .into_iter()
            .map(|(id, concurrency, total)| Candidate {
                link: LinkId(id),
                claims: vec![
                    claim(ScopeKind::Link, id, Some(concurrency), total),
                    claim(ScopeKind::Client, 1, Some(4), Some(6)),
                ],
            })
            .collect();
        for step in steps {
            match step {
                Step::Reserve(call, from) => {
                    ledger.reserve(hold(call, 1), &candidates[from..], Turn::None);
                }
                Step::Settle(call) => ledger.settle(hold(call, 1)),
                Step::Release(call) => ledger.release(hold(call, 1)),
            }
            for claim in candidates.iter().flat_map(|candidate| &candidate.claims) {
                let usage = ledger.usage(claim.scope);
                prop_assert!(usage.live <= claim.concurrency.unwrap());
                for kind in WindowKind::ALL.map(WindowKind::index) {
                    let limit = claim.volume[kind].unwrap_or(u32::MAX);
                    prop_assert!(usage.used[kind] + usage.held[kind] <= limit);
                }
            }
        }
        for call in 0..12 {
            ledger.release(hold(call, 1));
        }
        for claim in candidates.iter().flat_map(|candidate| &candidate.claims) {
            let usage = ledger.usage(claim.scope);
            prop_assert_eq!((usage.live, usage.held), (0, [0; WindowKind::COUNT]));
        }
    }
}
