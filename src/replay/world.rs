//! Past calls led once more, in a time of their own.
//!
//! Each call is led by its machine and by the routing and the ledger of live calls. What
//! the switch, the clients and the callers do is played here, in order of time, from what
//! is known of them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use capconduit_entity::{AttemptResult, CallStatus};
use chrono::TimeDelta;

use super::again::how_it_ends;
use super::in_use::{InUse, millis};
use super::people::{Manner, People};
use super::seed_of;
use crate::call::CallRecord;
use crate::call::machine::{Effect, Input, Machine, Timer};
use crate::call::outcome::cause;
use crate::call::record::Attempt;
use crate::call::rehearsal::{Arrival, record as arrived};
use crate::capacity::memory::State;
use crate::capacity::{HoldId, Stage, Standing};
use crate::clock::Timestamp;
use crate::routing::{self, Snapshot};

/// How much of it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    pub dialled: u32,
    /// Clients dialled of which it had to be drawn how they behave.
    pub drawn: u32,
}

/// Leads the calls of `records`, in order of their start, by `snapshot`.
///
/// `in_use` is what was in use when the first of them came. As soon as a call is over, `over`
/// gets its place among the records and its new record.
pub fn play(
    records: &[CallRecord],
    snapshot: &Snapshot,
    in_use: &InUse,
    people: &People,
    over: &mut dyn FnMut(usize, &CallRecord),
) -> Played {
    let begin = records.first().map(|first| first.started_at).unwrap_or_default();
    let mut world = World {
        records,
        snapshot,
        people,
        in_use,
        ledger: in_use.ledger(begin),
        due: BinaryHeap::new(),
        happenings: Vec::new(),
        live: HashMap::new(),
        played: Played::default(),
        over,
    };
    world.expect_all();
    while let Some(Reverse(due)) = world.due.pop() {
        world.happen(due.at, world.happenings[due.number]);
    }
    world.played
}

struct World<'a> {
    records: &'a [CallRecord],
    snapshot: &'a Snapshot,
    people: &'a People,
    in_use: &'a InUse,
    ledger: State,
    due: BinaryHeap<Reverse<Due>>,
    happenings: Vec<Happening>,
    live: HashMap<usize, Machine>,
    played: Played,
    over: &'a mut dyn FnMut(usize, &CallRecord),
}

/// When something happens: what frees room first, then what came to be known first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Timestamp,
    is_arrival: bool,
    number: usize,
}

/// Calls are named by their places.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Arrives(usize),
    Leaves(usize),
    Acts(usize, u32, Manner),
    /// The client's leg of a talk ends.
    HangsUp(usize, u32),
    /// An attempt is over that was under way at the start.
    Frees(usize),
}

impl World<'_> {
    fn expect_all(&mut self) {
        for (place, open) in self.in_use.open.iter().enumerate() {
            self.expect(open.ended_at, Happening::Frees(place));
        }
        for (place, record) in self.records.iter().enumerate() {
            // Its first decision is made when it was.
            let at = record.attempts.first().map_or(record.started_at, |first| first.held_at);
            self.expect(at, Happening::Arrives(place));
        }
    }

    fn expect(&mut self, at: Timestamp, happening: Happening) {
        let is_arrival = matches!(happening, Happening::Arrives(_));
        self.due.push(Reverse(Due { at, is_arrival, number: self.happenings.len() }));
        self.happenings.push(happening);
    }

    fn happen(&mut self, at: Timestamp, happening: Happening) {
        match happening {
            Happening::Arrives(place) => self.arrives(at, place),
            Happening::Leaves(place) => {
                if self.live.get(&place).is_some_and(|call| call.record().answered_at.is_none()) {
                    self.tell(at, place, Input::CallerGone);
                }
            }
            Happening::Acts(place, attempt, Manner::Answers { talk, .. }) => {
                self.tell(at, place, Input::LegAnswered { attempt });
                self.tell(at, place, Input::CallerAnswered);
                self.expect(at + talk, Happening::HangsUp(place, attempt));
            }
            Happening::Acts(place, attempt, Manner::Ends { result, .. }) => {
                let (cause, sip) = how_it_ends(result);
                self.tell(at, place, Input::LegGone { attempt, cause: Some(cause), sip });
            }
            Happening::HangsUp(place, attempt) => {
                let cause = Some(cause::NORMAL);
                self.tell(at, place, Input::LegGone { attempt, cause, sip: None });
            }
            Happening::Frees(place) => {
                let open = &self.in_use.open[place];
                let stage =
                    if open.answered_at.is_some() { Stage::Counted } else { Stage::Returned };
                self.ledger.advance(&open.standing.clone().with(stage), millis(at));
            }
        }
    }

    fn arrives(&mut self, at: Timestamp, place: usize) {
        let record = &self.records[place];
        if record.is_led_elsewhere() {
            return self.takes_note(at, place);
        }
        let seed = record.trace.seed.unwrap_or_else(|| seed_of(record.call));
        let plan = routing::plan(self.snapshot, &record.dialled, seed);
        let arrival =
            Arrival { dialled: record.dialled.clone(), caller_number: None, at: record.started_at };
        let new = CallRecord { call: record.call, ..arrived(arrival, &plan) };
        self.live.insert(place, Machine::new(new, plan.decision));
        if let Some(left_at) = patience(record) {
            self.expect(left_at, Happening::Leaves(place));
        }
        self.tell(at, place, Input::Started);
    }

    /// Of a call that the dialplan led, no decision is made; it counts all the same.
    fn takes_note(&mut self, at: Timestamp, place: usize) {
        let record = &self.records[place];
        if let Some(attempt) = record.answered_attempt() {
            let standing = standing(record, attempt, Stage::Counted);
            self.ledger.advance(&standing, millis(at));
        }
        (self.over)(place, record);
    }

    /// Gives a call's machine an input, and does what it says.
    fn tell(&mut self, at: Timestamp, place: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(machine) = self.live.get_mut(&place) else { return };
            for effect in machine.handle(at, input) {
                inputs.extend(self.perform(at, place, effect));
            }
        }
    }

    /// What comes of an effect at once.
    fn perform(&mut self, at: Timestamp, place: usize, effect: Effect) -> Option<Input> {
        Some(match effect {
            Effect::Reserve(request) => {
                let verdict = Some(self.ledger.reserve(&request, millis(at)));
                Input::Verdict { attempt: request.hold.attempt, verdict }
            }
            Effect::Settle(hold) => {
                self.advance(at, place, hold, Stage::Used);
                return None;
            }
            Effect::Release(hold) => {
                self.advance(at, place, hold, Stage::Returned);
                return None;
            }
            Effect::CreateLeg { attempt, .. } => Input::LegEntered { attempt },
            Effect::DialLeg { attempt, ring } => {
                self.is_dialled(at, place, attempt, TimeDelta::from_std(ring).unwrap_or_default());
                return None;
            }
            // Nobody's hang-up meets an answer here.
            Effect::Arm(timer @ Timer::Settle(_), _) => Input::Timer(timer),
            Effect::HangUpLeg { attempt, cause } => {
                Input::LegGone { attempt, cause: Some(cause), sip: None }
            }
            Effect::HangUpCaller { .. } => Input::CallerGone,
            Effect::Close => {
                if let Some(machine) = self.live.remove(&place) {
                    (self.over)(place, machine.record());
                }
                return None;
            }
            _ => return None,
        })
    }

    fn is_dialled(&mut self, at: Timestamp, place: usize, attempt: u32, ring: TimeDelta) {
        let dialled = self.live[&place].record().attempts.last();
        let Some(client) = dialled.map(|attempt| attempt.client) else { return };
        let (manner, is_known) = self.people.manner(&self.records[place], client, ring);
        self.played.dialled += 1;
        self.played.drawn += u32::from(!is_known);
        let (Manner::Answers { after, .. } | Manner::Ends { after, .. }) = manner;
        self.expect(at + after, Happening::Acts(place, attempt, manner));
    }

    fn advance(&mut self, at: Timestamp, place: usize, hold: HoldId, stage: Stage) {
        let Some(machine) = self.live.get(&place) else { return };
        let record = machine.record();
        let Some(attempt) = record.attempts.get(hold.attempt as usize - 1) else { return };
        let stage = match (stage, attempt.result) {
            (Stage::Returned, Some(AttemptResult::Answered)) => Stage::Counted,
            (stage, _) => stage,
        };
        self.ledger.advance(&standing(record, attempt, stage), millis(at));
    }
}

fn standing(record: &CallRecord, attempt: &Attempt, stage: Stage) -> Standing {
    Standing {
        hold: attempt.hold(record.call),
        stage,
        moment: attempt.held_at,
        scopes: record.scopes(attempt),
    }
}

/// When the caller leaves who isn't answered by then; none = waits for as long as it takes.
fn patience(record: &CallRecord) -> Option<Timestamp> {
    use capconduit_entity::CallReason::{CallerAbandoned, Interrupted, SystemError};
    let end = record.end?;
    let left = matches!(end.outcome.reason, CallerAbandoned | Interrupted | SystemError)
        && end.outcome.status != CallStatus::Answered;
    left.then_some(end.at)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capconduit_entity::{CampaignStatus, E164, Status, Strategy};
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::call::outcome::Outcome;
    use crate::call::record::End;
    use crate::capacity::{Caps, WindowKind};
    use crate::ids::{CallId, CampaignId, DidId, LinkId, SellerId};
    use crate::routing::snapshot::tests::link;
    use crate::routing::{Campaign, Did, Link};

    const NUMBER: &str = "+442071838750";
    const CALLS: i64 = 60;

    fn begin() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn caps(concurrency: u32, per_day: Option<u32>) -> Caps {
        let mut caps = Caps { concurrency: Some(concurrency), ..Caps::NONE };
        caps.volume[WindowKind::Day.index()] = per_day;
        caps
    }

    /// Four links, all with little room; one has had all its calls of the day soon.
    fn snapshot(strategy: Strategy, ring_seconds: u32) -> Snapshot {
        let links: Vec<Arc<Link>> = (1..=4)
            .map(|id| {
                let bare = link(id, i32::try_from(id % 2).unwrap(), 3);
                let caps = caps(2, (id == 3).then_some(4));
                Arc::new(Link { caps, ..(*bare).clone() })
            })
            .collect();
        let campaign = Campaign {
            id: CampaignId(1),
            name: "Solar".to_owned(),
            status: CampaignStatus::Active,
            strategy,
            dial_timeout_seconds: ring_seconds,
            links: links.clone(),
        };
        let did = Did {
            id: DidId(1),
            number: E164::parse(NUMBER).unwrap(),
            status: Status::Active,
            seller: SellerId(1),
            seller_active: true,
            campaign: Some(Arc::new(campaign)),
        };
        Snapshot::new(vec![did], links)
    }

    /// The calls of two minutes of which nothing is known yet but when they come, and of
    /// some when their callers lose patience.
    fn callers(lot: &mut Xoshiro256PlusPlus) -> Vec<CallRecord> {
        let mut starts: Vec<i64> = (0..CALLS).map(|_| lot.random_range(0..120_000)).collect();
        starts.sort_unstable();
        let mut bytes = [0; 16];
        let mut caller = |start| {
            lot.fill(&mut bytes);
            let started_at = begin() + TimeDelta::milliseconds(start);
            let leaves = lot.random_bool(0.3);
            let end = End {
                at: started_at + TimeDelta::milliseconds(lot.random_range(100..15_000)),
                outcome: Outcome::ABANDONED,
                cause: 16,
            };
            CallRecord {
                call: CallId(uuid::Builder::from_random_bytes(bytes).into_uuid()),
                dialled: NUMBER.to_owned(),
                started_at,
                end: leaves.then_some(end),
                ..crate::call::record::tests::record()
            }
        };
        starts.into_iter().map(&mut caller).collect()
    }

    /// Clients who answer, refuse and ring out.
    fn people(lot: &mut Xoshiro256PlusPlus) -> People {
        use AttemptResult::{Answered, Busy, NoAnswer, Rejected};
        let mut met = callers(lot);
        for record in &mut met {
            let after = TimeDelta::milliseconds(lot.random_range(50..9_000));
            let talk = TimeDelta::milliseconds(lot.random_range(500..20_000));
            let result = [Answered, Answered, NoAnswer, Busy, Rejected][lot.random_range(0..5)];
            let answered_at = (result == Answered).then(|| record.started_at + after);
            let id = lot.random_range(1..5);
            let bare = link(id, 1, 1);
            record.attempts.push(Attempt {
                position: 1,
                link: LinkId(id),
                client: bare.client.id,
                client_name: bare.client.name.clone(),
                client_identifier: bare.client.identifier.clone(),
                held_at: record.started_at,
                dialled_at: None,
                ringing_at: None,
                answered_at,
                ended_at: Some(
                    record.started_at + after + answered_at.map_or(TimeDelta::zero(), |_| talk),
                ),
                result: Some(result),
                cause: None,
                sip: None,
            });
            record.trace.dial_timeout_seconds = Some(7);
        }
        People::met_in(&met)
    }

    fn played(
        records: &[CallRecord],
        snapshot: &Snapshot,
        people: &People,
    ) -> (Played, Vec<CallRecord>) {
        let mut over: Vec<Option<CallRecord>> = vec![None; records.len()];
        let mut note = |place: usize, record: &CallRecord| over[place] = Some(record.clone());
        let played = play(records, snapshot, &InUse::default(), people, &mut note);
        let all = over.into_iter().map(|record| record.expect("every call comes to its end"));
        (played, all.collect())
    }

    #[test]
    fn calls_of_which_all_is_known_come_out_as_they_did() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..40 {
            for strategy in Strategy::ALL {
                let mut lot = Xoshiro256PlusPlus::seed_from_u64(seed);
                let (callers, people) = (callers(&mut lot), people(&mut lot));
                let snapshot = snapshot(*strategy, 7);
                let (_, then) = played(&callers, &snapshot, &people);
                let (how, again) = played(&then, &snapshot, &People::met_in(&then));
                assert_eq!(how.drawn, 0, "all is known");
                for (then, again) in then.iter().zip(&again) {
                    assert_eq!(then.attempts, again.attempts, "{strategy} {seed}");
                    assert_eq!((&then.trace, then.end), (&again.trace, again.end));
                }
                ends.extend(then.iter().map(|record| record.end.unwrap().outcome.reason.as_str()));
                let verdicts = then.iter().flat_map(|record| &record.trace.links);
                ends.extend(verdicts.map(|link| match &*link.verdict {
                    "daily_cap" => "daily_cap",
                    "concurrency_cap" => "concurrency_cap",
                    _ => "other",
                }));
            }
        }
        for end in [
            "answered",
            "caller_abandoned",
            "all_no_answer",
            "no_eligible_clients_available",
            "daily_cap",
            "concurrency_cap",
        ] {
            assert!(ends.contains(end), "{end} has never come: {ends:?}");
        }
    }

    #[test]
    fn the_same_change_makes_the_same_of_the_same_calls() {
        let mut lot = Xoshiro256PlusPlus::seed_from_u64(9);
        let (callers, people) = (callers(&mut lot), people(&mut lot));
        let (_, then) = played(&callers, &snapshot(Strategy::Priority, 7), &people);
        let changed = snapshot(Strategy::Weighted, 4);
        let people = People::met_in(&then);
        let (how, first) = played(&then, &changed, &people);
        assert_eq!((how, first), played(&then, &changed, &people));
        assert!(how.drawn > 0, "clients were dialled who weren't at the time");
    }
}
