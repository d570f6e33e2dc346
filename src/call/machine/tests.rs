//! Calls invented by the thousand: whatever happens, in whatever order, twice
//! or not at all, a call ends once, with one record, and leaves nothing behind.

use std::collections::{BTreeMap, HashSet, VecDeque};

use capconduit_entity::{CallStatus, CampaignStatus, Strategy};
use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::strategy::{Strategy as _, ValueTree as _};

use super::waiting::LEFT;
use super::*;
use crate::call::adopt;
use crate::call::record::tests::record;
use crate::capacity::{Keeper, Leases, MemoryLedger, Request, Scope, Verdict, WindowKind, Windows};
use crate::ids::{CampaignId, LinkId};
use crate::live::LiveState;
use crate::routing::snapshot::tests::link;
use crate::routing::{Campaign, LinkTrace, Snapshot};

fn ledger() -> Keeper {
    Keeper::new(Arc::new(MemoryLedger::default()), "", &Leases::default())
}

/// A caller, clients' legs and a ledger, and everything that is under way between them and the machine.
struct World {
    machine: Machine,
    ledger: Keeper,
    now: Timestamp,
    /// Decides what happens next, one number at a time.
    choices: Vec<u16>,
    effects: VecDeque<Effect>,
    events: Vec<Input>,
    timers: Vec<(Timestamp, Timer)>,
    caller_up: bool,
    caller_gone: bool,
    bridged: bool,
    bridge_destroyed: bool,
    legs: BTreeMap<u32, SimLeg>,
    told_caller_gone: bool,
    /// What the journal holds of the call.
    saved: Option<CallRecord>,
    /// Whose clients the journal has said to be dialled.
    known_as_dialled: HashSet<LinkId>,
    snapshot: Snapshot,
    finals: Vec<CallRecord>,
    closed: u32,
}

#[derive(Clone, Copy, Default)]
struct SimLeg {
    dialled: bool,
    up: bool,
    gone: bool,
    /// Out of the bridge.
    detached: bool,
}

fn offer(links: i64, strategy: Strategy) -> Decision {
    let links: Vec<_> = (1..=links).map(|id| link(id, 1, 1)).collect();
    let campaign = Campaign {
        id: CampaignId(1),
        name: "campaign".to_owned(),
        status: CampaignStatus::Active,
        strategy,
        dial_timeout_seconds: 5,
        links: links.clone(),
    };
    Decision::Offer(Offer { campaign: Arc::new(campaign), links })
}

impl World {
    fn new(choices: Vec<u16>, decision: Decision) -> Self {
        let mut record = record();
        let now = record.started_at;
        let snapshot = match &decision {
            Decision::Offer(offer) => {
                record.trace.links =
                    offer.links.iter().map(|l| LinkTrace::new(l, "not_reached")).collect();
                record.trace.dial_timeout_seconds = Some(5);
                Snapshot::new(Vec::new(), offer.links.clone())
            }
            Decision::Refuse(_) => Snapshot::default(),
        };
        Self {
            machine: Machine::new(record, decision),
            ledger: ledger(),
            now,
            choices,
            effects: VecDeque::new(),
            events: Vec::new(),
            timers: Vec::new(),
            caller_up: false,
            caller_gone: false,
            bridged: false,
            bridge_destroyed: false,
            legs: BTreeMap::new(),
            told_caller_gone: false,
            saved: None,
            known_as_dialled: HashSet::new(),
            snapshot,
            finals: Vec::new(),
            closed: 0,
        }
    }

    /// A choice below `bound`; 0, the tamest, when the choices have run out.
    fn choose(&mut self, bound: u16) -> u16 {
        self.choices.pop().map_or(0, |choice| choice % bound)
    }

    fn run(mut self) -> Self {
        self.give(Input::Started);
        while !self.choices.is_empty() && !self.machine.is_closed() {
            let passed = self.choose(40);
            self.now += chrono::TimeDelta::milliseconds(i64::from(passed));
            match self.choose(12) {
                0..=3 => self.perform_next(),
                4..=6 => self.deliver_some(),
                7 => self.fire_next_timer(),
                8 => self.leg_does_something(),
                9 => self.leg_answers(),
                10 => {
                    if self.choose(4) == 0 {
                        self.caller_leaves();
                    }
                }
                _ => self.something_odd(),
            }
        }
        self.settle_down();
        self
    }

    /// From here on nothing is lost any more, and the caller has left.
    fn settle_down(&mut self) {
        self.caller_leaves();
        for _ in 0..400 {
            if self.machine.is_closed() {
                break;
            }
            while !self.effects.is_empty() {
                self.perform_next();
            }
            while let Some(event) = self.events.pop() {
                self.tell(event);
            }
            self.fire_next_timer();
            self.give(Input::Recheck);
        }
        while !self.effects.is_empty() {
            self.perform_next();
        }
    }

    fn give(&mut self, input: Input) {
        self.told_caller_gone |= matches!(input, Input::CallerGone);
        for effect in self.machine.handle(self.now, input) {
            match effect {
                Effect::Arm(timer, after) => {
                    let after = chrono::TimeDelta::from_std(after).unwrap();
                    self.timers.push((self.now + after, timer));
                }
                Effect::Save(record) => {
                    self.saved = Some((*record).clone());
                    let dialled = record.attempts.iter().filter(|a| a.dialled_at.is_some());
                    self.known_as_dialled.extend(dialled.map(|attempt| attempt.link));
                    if record.end.is_some() {
                        self.finals.push(*record);
                    }
                }
                Effect::Close => self.closed += 1,
                Effect::Show(..) => {}
                other => {
                    if let Effect::CreateLeg { .. } | Effect::DialLeg { .. } = other {
                        assert!(
                            !self.told_caller_gone,
                            "a client was dialled for a caller who left"
                        );
                        assert!(
                            self.machine.caller != Caller::Answered,
                            "a client was dialled for a caller who had been answered"
                        );
                    }
                    self.effects.push_back(other);
                }
            }
        }
    }

    // --- the ledger and the switch carry out effects ---

    fn perform_next(&mut self) {
        let Some(effect) = self.effects.pop_front() else { return };
        match effect {
            Effect::Reserve(request) => self.reserve(&request),
            Effect::Settle(hold) => self.ledger.settle(hold).now_or_never().unwrap(),
            Effect::Release(hold) => {
                let leg = self.legs.get(&hold.attempt);
                assert!(leg.is_none_or(|leg| leg.gone), "a hold was freed under a leg that is up");
                self.ledger.release(hold).now_or_never().unwrap();
            }
            Effect::CreateBridge if self.caller_gone => self.give(Input::CallerGone),
            Effect::CreateBridge if self.choose(30) == 29 => self.give(Input::BridgeFailed),
            Effect::CreateBridge => self.bridged = true,
            Effect::CreateLeg { attempt, .. } => match self.choose(8) {
                7 => self.give(Input::LegNotCreated { attempt }),
                // The answer was lost, and the command too.
                6 => {}
                _ => {
                    assert!(self.legs.insert(attempt, SimLeg::default()).is_none());
                    self.happen(Input::LegEntered { attempt });
                }
            },
            Effect::DialLeg { attempt, .. } => self.dial(attempt),
            Effect::HangUpLeg { attempt, .. } => self.end_leg(attempt, None),
            // The answer was lost, and perhaps the command.
            Effect::DetachLeg { .. } if self.choose(8) == 7 => {}
            Effect::DetachLeg { attempt } => match self.leg_that_is_there(attempt) {
                Some(leg) => {
                    leg.detached = true;
                    let answered = leg.up;
                    self.give(Input::LegDetached { attempt, answered });
                }
                None => self.give(Input::LegGone { attempt, cause: None, sip: None }),
            },
            Effect::JoinLeg { attempt } => {
                if let Some(leg) = self.legs.get_mut(&attempt) {
                    leg.detached = false;
                }
            }
            Effect::HangUpCaller { .. } => self.caller_leaves(),
            Effect::AnswerCaller { attempt } => self.answer_caller(attempt),
            Effect::CheckCaller => self.give(match (self.caller_gone, self.caller_up) {
                (true, _) => Input::CallerMissing,
                (_, true) => Input::CallerAnswered,
                _ => Input::CallerWaiting,
            }),
            Effect::CheckLeg { attempt } => match self.legs.get(&attempt).copied() {
                Some(SimLeg { gone: false, up: true, .. }) => {
                    self.give(Input::LegAnswered { attempt });
                }
                // Early media leaves it as it was before.
                Some(SimLeg { gone: false, dialled: true, .. }) if self.choose(2) == 0 => {
                    self.give(Input::LegRinging { attempt });
                }
                Some(SimLeg { gone: false, .. }) => self.give(Input::LegIdle { attempt }),
                _ => self.give(Input::LegMissing { attempt }),
            },
            Effect::DestroyBridge => self.bridge_destroyed = true,
            Effect::Arm(..) | Effect::Save(_) | Effect::Show(..) | Effect::Close => unreachable!(),
        }
    }

    fn leg_that_is_there(&mut self, attempt: u32) -> Option<&mut SimLeg> {
        self.legs.get_mut(&attempt).filter(|leg| !leg.gone)
    }

    /// As the hands do: to a client who is there, and to nobody else.
    fn answer_caller(&mut self, attempt: u32) {
        match self.leg_that_is_there(attempt).copied() {
            None => self.give(Input::LegGone { attempt, cause: None, sip: None }),
            Some(SimLeg { up: true, detached: false, .. })
                if !self.caller_gone && !self.caller_up =>
            {
                self.caller_up = true;
                self.happen(Input::CallerAnswered);
            }
            Some(_) => {}
        }
    }

    fn reserve(&mut self, request: &Request) {
        let attempt = request.hold.attempt;
        let verdict = match self.choose(16) {
            // Never asked; asked, but the answer was lost.
            15 => None,
            14 => {
                self.ledger.reserve(request).now_or_never().unwrap().unwrap();
                None
            }
            _ => Some(self.ledger.reserve(request).now_or_never().unwrap().unwrap()),
        };
        self.give(Input::Verdict { attempt, verdict: verdict.clone() });
        if self.choose(8) == 7 {
            self.give(Input::Verdict { attempt, verdict });
        }
    }

    /// Sends the call to the client, to whom it isn't known to have been sent before.
    fn dial(&mut self, attempt: u32) {
        let Some(leg) = self.legs.get_mut(&attempt).filter(|leg| !leg.gone) else {
            return self.give(Input::LegNotDialled { attempt });
        };
        leg.dialled = true;
        let link = self.machine.record().attempts[attempt as usize - 1].link;
        assert!(!self.known_as_dialled.contains(&link), "{link} was dialled twice");
        // The answer may be lost.
        if self.choose(8) != 7 {
            self.give(Input::LegDialled { attempt });
        }
    }

    // --- events, which may be lost, doubled and late ---

    fn happen(&mut self, input: Input) {
        match self.choose(10) {
            9 => {}
            8 => self.events.extend([input.clone(), input]),
            _ => self.events.push(input),
        }
    }

    fn deliver_some(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let place = usize::from(self.choose(4)).min(self.events.len() - 1);
        let event = self.events.remove(place);
        self.tell(event);
    }

    /// As the registry does: the end of a leg that is up says first that it was answered.
    fn tell(&mut self, event: Input) {
        if let Input::LegGone { attempt, cause: Some(_), .. } = event
            && self.legs.get(&attempt).is_some_and(|leg| leg.up)
        {
            self.give(Input::LegAnswered { attempt });
        }
        self.give(event);
    }

    fn fire_next_timer(&mut self) {
        let next = self.timers.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, _)| i);
        let Some(next) = next else { return };
        let (at, timer) = self.timers.swap_remove(next);
        self.now = self.now.max(at);
        self.give(Input::Timer(timer));
    }

    fn leg_does_something(&mut self) {
        let dialled = self.legs.iter().find(|(_, leg)| leg.dialled && !leg.gone);
        let Some((&attempt, _)) = dialled else { return };
        match self.choose(3) {
            0 => self.happen(Input::LegRinging { attempt }),
            1 => self.end_leg(attempt, Some(486)),
            _ => self.end_leg(attempt, None),
        }
    }

    /// Asterisk answers the caller by itself, as the two share a bridge.
    fn leg_answers(&mut self) {
        let ringing = self.legs.iter_mut().find(|(_, leg)| leg.dialled && !leg.up && !leg.gone);
        let Some((&attempt, leg)) = ringing else { return };
        leg.up = true;
        let detached = leg.detached;
        self.happen(Input::LegAnswered { attempt });
        if !detached && !self.caller_gone && !self.caller_up && self.bridged && self.choose(8) != 7
        {
            self.caller_up = true;
            self.happen(Input::CallerAnswered);
        }
    }

    fn end_leg(&mut self, attempt: u32, sip: Option<i32>) {
        let Some(leg) = self.legs.get_mut(&attempt).filter(|leg| !leg.gone) else { return };
        leg.gone = true;
        self.happen(Input::LegLeft { attempt });
        self.happen(Input::LegGone { attempt, cause: Some(16), sip });
    }

    fn caller_leaves(&mut self) {
        if !std::mem::replace(&mut self.caller_gone, true) {
            self.happen(Input::CallerGone);
        }
    }

    /// Asterisk announces the caller's hang-up, and keeps the channel up.
    fn cancel_meets_answer(&mut self) {
        if !self.caller_gone {
            self.give(Input::CallerCause { cause: 127, sip: Some(487) });
        }
    }

    /// The service is killed and started again: it knows what the journal and the switch know.
    fn crash(&mut self) {
        let Some(record) = self.saved.clone() else { return };
        self.effects.clear();
        self.events.clear();
        self.timers.clear();
        self.ledger = ledger();
        self.ledger.adopt(adopt::standing(&record));
        assert!(self.ledger.tell_untold().now_or_never().unwrap());
        self.machine = adopt::machine(record, &self.snapshot, self.now);
        self.told_caller_gone = false;
        self.give(Input::Started);
    }

    /// Two talk, and their driver is no more: what it had still to do is lost, and no event.
    fn meet_defect(&mut self) {
        let Some(record) = self.saved.clone().filter(CallRecord::is_talk) else { return };
        self.effects.clear();
        self.timers.clear();
        let sold = record.answered_attempt().unwrap().hold(record.call);
        self.ledger.settle(sold).now_or_never().unwrap();
        self.machine = adopt::machine(record, &self.snapshot, self.now).hearing();
        self.give(Input::Started);
    }

    /// Everything on the switch is gone, and what was asked of it too.
    fn switch_restarts(&mut self) {
        self.events.clear();
        self.effects.retain(|effect| {
            matches!(effect, Effect::Reserve(_) | Effect::Settle(_) | Effect::Release(_))
        });
        self.legs.values_mut().for_each(|leg| leg.gone = true);
        (self.caller_gone, self.bridge_destroyed) = (true, true);
        let heard = self.now;
        self.now += chrono::TimeDelta::seconds(1);
        self.give(Input::Unseen { since: heard });
        self.give(Input::SwitchRestarted);
        let asked_of_switch = |effect: &&Effect| {
            !matches!(effect, Effect::Reserve(_) | Effect::Settle(_) | Effect::Release(_))
        };
        assert_eq!(self.effects.iter().find(asked_of_switch).map(drop), None, "{:?}", self.effects);
        assert!(
            self.machine.is_closed() || self.machine.asked_at.is_some(),
            "it ends there and then"
        );
    }

    fn something_odd(&mut self) {
        let attempt = u32::from(self.choose(4)) + 1;
        match self.choose(12) {
            0 => self.give(Input::HangUp { told: None }),
            1 => self.give(Input::Recheck),
            2 => self.cancel_meets_answer(),
            5 => self.crash(),
            6 => self.give(Input::Unseen { since: self.now }),
            7 => self.switch_restarts(),
            8 => self.meet_defect(),
            // Old news of legs that are gone or never were.
            3 if self.legs.get(&attempt).is_some_and(|leg| leg.gone) => {
                self.give(Input::LegGone { attempt, cause: Some(16), sip: None });
            }
            4 if self.legs.get(&attempt).is_some_and(|leg| leg.gone) => {
                self.give(Input::LegEntered { attempt });
            }
            _ => {}
        }
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert!(self.machine.is_closed(), "never closed: {:?}", self.machine.state);
        assert_eq!(self.closed, 1);
        assert_eq!(self.finals.len(), 1, "one call, one record");
        assert!(self.caller_gone && self.legs.values().all(|leg| leg.gone), "a leg is left over");
        assert!(!self.bridged || self.bridge_destroyed, "a bridge is left over");
        let holders = self.ledger.ledger().holders().now_or_never().unwrap().unwrap();
        let live: Vec<_> = holders.into_iter().filter(|holder| holder.live).collect();
        assert_eq!(live, [], "a hold is left over");
        let record = &self.finals[0];
        assert!(record.attempts.iter().all(|attempt| attempt.result.is_some()));
        let answered = u32::from(record.end.unwrap().outcome.status == CallStatus::Answered);
        assert_eq!(u32::from(record.answered_attempt().is_some()), answered);
        assert_eq!(u32::from(record.answered_at.is_some()), answered);
        assert_eq!(self.used(), answered, "as many units are used as calls were answered");
    }

    fn used(&self) -> u32 {
        let windows = Windows::at(self.now, chrono_tz::UTC);
        (1..=4)
            .map(|id| {
                let scope = Scope::link(LinkId(id));
                let usage = self
                    .ledger
                    .ledger()
                    .usages(&[(scope, windows)])
                    .now_or_never()
                    .unwrap()
                    .unwrap()[0]
                    .clone();
                assert_eq!((usage.live, usage.held), (0, [0; WindowKind::COUNT]));
                usage.used[WindowKind::Total.index()]
            })
            .sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_call_ends_once_and_leaves_nothing_behind(
        choices in proptest::collection::vec(any::<u16>(), 0..400),
        links in 1_i64..=4,
        strategy in prop_oneof![
            Just(Strategy::Priority), Just(Strategy::RoundRobin), Just(Strategy::Weighted)
        ],
    ) {
        World::new(choices, offer(links, strategy)).run().assert_clean();
    }
}

#[test]
fn the_invented_calls_come_to_every_end() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = HashSet::new();
    for _ in 0..3_000 {
        let choices = proptest::collection::vec(any::<u16>(), 100..400)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let world = World::new(choices, offer(3, Strategy::RoundRobin)).run();
        let outcome = world.finals[0].end.unwrap().outcome;
        seen.insert(outcome.reason.as_str());
    }
    for reason in
        ["answered", "caller_abandoned", "all_no_answer", "capacity_unavailable", "system_error"]
    {
        assert!(seen.contains(reason), "{reason} never happened: {seen:?}");
    }
}

#[test]
fn a_refused_call_needs_no_ledger_and_no_bridge() {
    let reason = capconduit_entity::CallReason::DidNotFound;
    let mut machine = Machine::new(record(), Decision::Refuse(reason));
    let at = machine.record().started_at;
    let effects = machine.handle(at, Input::Started);
    assert!(
        effects.iter().any(|e| matches!(e, Effect::HangUpCaller { cause: cause::UNALLOCATED }))
    );
    assert!(!effects.iter().any(|e| matches!(e, Effect::Reserve(_) | Effect::CreateBridge)));
    machine.handle(at, Input::CallerGone);
    assert_eq!(machine.record().end.unwrap().outcome.status, CallStatus::RejectedDid);
}

/// A call for whose first client there is room, and the links that it knows.
fn held() -> (Machine, Snapshot) {
    let Decision::Offer(offer) = offer(2, Strategy::Priority) else { panic!("it is one") };
    let snapshot = Snapshot::new(Vec::new(), offer.links.clone());
    let granted = Some(offer.links[0].id);
    let mut record = record();
    record.trace.links = offer.links.iter().map(|l| LinkTrace::new(l, "not_reached")).collect();
    record.trace.dial_timeout_seconds = Some(5);
    let at = record.started_at;
    let mut machine = Machine::new(record, Decision::Offer(offer));
    machine.handle(at, Input::Started);
    let refusals = Vec::new();
    let verdict = Verdict { rotated_by: 0, cursor: None, refusals, granted, within_share: false };
    machine.handle(at, Input::Verdict { attempt: 1, verdict: Some(verdict) });
    (machine, snapshot)
}

/// A call whose first client is being rung.
fn ringing() -> Machine {
    let (mut machine, _) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegEntered { attempt: 1 });
    machine
}

#[test]
fn an_answer_that_reaches_the_caller_after_the_client_has_left_counts() {
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    for reaches_the_caller in [true, false] {
        let mut machine = ringing();
        let at = machine.record().started_at;
        machine.handle(at, Input::LegAnswered { attempt: 1 });
        let effects = machine.handle(at, gone.clone());
        assert!(matches!(effects[..], [Effect::CheckCaller]));
        let effects = machine.handle(at, Input::CallerWaiting);
        assert!(matches!(effects[..], [Effect::Arm(Timer::Answer(1), _)]), "asked once more");
        if reaches_the_caller {
            machine.handle(at, Input::CallerAnswered);
            assert!(machine.record().answered_at.is_some(), "sold, if for a moment");
            assert_eq!(machine.outcome, None, "the caller may have taken it back");
            machine.handle(at, Input::Timer(Timer::Settle(1)));
            assert_eq!(machine.outcome, Some(Outcome::ANSWERED));
        } else {
            let effects = machine.handle(at, Input::CallerWaiting);
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Reserve(_))), "the next");
        }
    }
}

#[test]
fn a_client_who_answers_as_the_ring_time_ends_has_the_call_whole() {
    for answered_first in [true, false] {
        let mut machine = ringing();
        let at = machine.record().started_at;
        let effects = machine.handle(at, Input::Timer(Timer::Ring(1)));
        let [Effect::DetachLeg { attempt: 1 }, Effect::Arm(again, _)] = effects[..] else {
            panic!("not hung up yet: {effects:?}")
        };
        // Nobody said what became of it.
        let effects = machine.handle(at, Input::Timer(again));
        assert!(matches!(effects[..], [Effect::DetachLeg { attempt: 1 }, Effect::Arm(..)]));
        let mut effects = Vec::new();
        if answered_first {
            machine.handle(at, Input::LegAnswered { attempt: 1 });
            effects = machine.handle(at, Input::CallerAnswered);
            let is_saved = |effect: &Effect| matches!(effect, Effect::Save(_));
            assert!(effects.iter().any(is_saved), "whatever becomes of the detaching");
        }
        effects.extend(machine.handle(at, Input::LegDetached { attempt: 1, answered: true }));
        let joins = effects.iter().filter(|effect| matches!(effect, Effect::JoinLeg { .. }));
        assert_eq!(joins.count(), 1);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::HangUpLeg { .. })));
        machine.handle(at, Input::CallerAnswered);
        assert!(machine.record().answered_at.is_some());
    }
}

#[test]
fn a_client_who_answers_after_the_ring_time_has_not() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::Timer(Timer::Ring(1)));
    let effects = machine.handle(at, Input::LegDetached { attempt: 1, answered: false });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HangUpLeg { attempt: 1, .. })));
    machine.handle(at, Input::LegAnswered { attempt: 1 });
    machine.handle(at, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    assert_eq!(machine.record().attempts[0].result, Some(AttemptResult::NoAnswer));
    assert_eq!(machine.record().answered_at, None);
}

#[test]
fn a_conversation_that_ended_unheard_is_not_billed_for_the_silence() {
    let (mut machine, heard, later) = unheard();
    machine.handle(later, Input::CallerGone);
    machine.handle(later, Input::LegGone { attempt: 1, cause: None, sip: None });
    let end = machine.record().end.unwrap();
    assert_eq!((end.at, end.outcome), (heard, Outcome::INTERRUPTED_TALK));
}

/// A call that talks, five seconds before nothing is heard of it for an hour.
fn unheard() -> (Machine, Timestamp, Timestamp) {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegAnswered { attempt: 1 });
    machine.handle(at, Input::CallerAnswered);
    let heard = at + chrono::TimeDelta::seconds(5);
    machine.handle(heard, Input::Unseen { since: heard });
    (machine, heard, heard + chrono::TimeDelta::hours(1))
}

#[test]
fn a_client_who_left_unheard_is_not_billed_because_the_caller_stayed() {
    let (mut machine, heard, later) = unheard();
    machine.handle(later, Input::Recheck);
    machine.handle(later, Input::CallerAnswered);
    machine.handle(later, Input::LegGone { attempt: 1, cause: None, sip: None });
    machine.handle(later, Input::CallerGone);
    let end = machine.record().end.unwrap();
    assert_eq!((end.at, end.outcome), (heard, Outcome::INTERRUPTED_TALK));
}

#[test]
fn a_hang_up_while_nothing_is_heard_bills_the_silence_only_if_both_talked_on() {
    let left = Input::CallerMissing;
    let leg_left = Input::LegGone { attempt: 1, cause: None, sip: None };
    let (caller_is_up, leg_is_up) = (Input::CallerAnswered, Input::LegAnswered { attempt: 1 });
    let findings = [
        ([caller_is_up.clone(), leg_is_up.clone()], true),
        ([left.clone(), leg_is_up], false),
        ([caller_is_up, leg_left.clone()], false),
    ];
    for (found, talked_on) in findings {
        let (mut machine, heard, later) = unheard();
        let effects = machine.handle(later, Input::HangUp { told: None });
        let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
        let looks = place(|effect| matches!(effect, Effect::CheckCaller))
            .max(place(|effect| matches!(effect, Effect::CheckLeg { .. })));
        assert!(looks < place(|effect| matches!(effect, Effect::HangUpLeg { .. })));
        for input in found.into_iter().chain([leg_left.clone(), left.clone()]) {
            machine.handle(later, input);
        }
        let end = machine.record().end.unwrap();
        let due =
            if talked_on { (later, Outcome::ANSWERED) } else { (heard, Outcome::INTERRUPTED_TALK) };
        assert_eq!((end.at, end.outcome), due);
    }
}

#[test]
fn an_adopted_call_whose_legs_were_being_taken_down_is_looked_at_before_they_are_gone() {
    let (mut machine, snapshot) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegEntered { attempt: 1 });
    let effects = machine.handle(at, Input::HangUp { told: None });
    let saved = effects.iter().find_map(|effect| match effect {
        Effect::Save(record) => Some((**record).clone()),
        _ => None,
    });
    let mut machine = adopt::machine(saved.unwrap(), &snapshot, at);
    let effects = machine.handle(at, Input::Started);
    let looked = effects.iter().position(|effect| matches!(effect, Effect::CheckCaller));
    let hung_up = effects.iter().position(|effect| matches!(effect, Effect::HangUpLeg { .. }));
    assert!(looked.unwrap() < hung_up.unwrap(), "{effects:?}");
    machine.handle(at, Input::CallerAnswered);
    assert!(machine.record().answered_at.is_some(), "it was answered just before");
}

#[test]
fn what_was_found_before_events_flow_again_is_looked_at_once_more() {
    let (mut machine, heard, later) = unheard();
    machine.handle(later, Input::CallerAnswered);
    machine.handle(later, Input::Recheck);
    // The caller may have left in between; of its look came no answer.
    machine.handle(later, Input::LegAnswered { attempt: 1 });
    machine.handle(later, Input::CallerGone);
    machine.handle(later, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    assert_eq!(machine.record().end.unwrap().at, heard);
}

#[test]
fn a_talk_of_which_both_legs_are_found_goes_on_and_its_end_is_exact() {
    let (mut machine, _, later) = unheard();
    machine.handle(later, Input::Recheck);
    machine.handle(later, Input::CallerAnswered);
    machine.handle(later, Input::LegAnswered { attempt: 1 });
    let over = later + chrono::TimeDelta::seconds(7);
    machine.handle(over, Input::CallerGone);
    machine.handle(over, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    let end = machine.record().end.unwrap();
    assert_eq!((end.at, end.outcome), (over, Outcome::ANSWERED));
}

/// What an earlier run had noted before it died, and how long before.
fn adopted(died_after: chrono::TimeDelta) -> (Machine, Timestamp) {
    let (machine, snapshot) = held();
    let now = machine.record().started_at + died_after;
    let mut machine = adopt::machine(machine.record().clone(), &snapshot, now);
    machine.handle(now, Input::Started);
    (machine, now)
}

#[test]
fn an_adopted_call_is_in_its_state_since_it_came_to_it() {
    let seconds = chrono::TimeDelta::seconds;
    let shown = |machine: &Machine, snapshot: &Snapshot| {
        let again = machine.record().started_at + seconds(2_400);
        let mut adopted = adopt::machine(machine.record().clone(), snapshot, again);
        let effects = adopted.handle(again, Input::Started);
        effects.iter().find_map(|effect| match effect {
            Effect::Show(state, since) => Some((*state, *since)),
            _ => None,
        })
    };
    let (mut machine, snapshot) = held();
    let dialled = machine.record().started_at;
    machine.handle(dialled, Input::LegEntered { attempt: 1 });
    assert_eq!(shown(&machine, &snapshot), Some((LiveState::Ringing, dialled)));
    let (mut refused, _) = held();
    let busy = dialled + seconds(2);
    refused.handle(busy, Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) });
    assert_eq!(shown(&refused, &snapshot), Some((LiveState::Routing, busy)));
    let answered = dialled + seconds(3);
    machine.handle(answered, Input::LegAnswered { attempt: 1 });
    machine.handle(answered, Input::CallerAnswered);
    assert_eq!(shown(&machine, &snapshot), Some((LiveState::Talking, answered)));
    let over = dialled + seconds(9);
    machine.handle(over, Input::HangUp { told: None });
    assert_eq!(shown(&machine, &snapshot), Some((LiveState::Ending, over)));
}

#[test]
fn a_call_that_an_earlier_run_left_between_two_clients_goes_on_with_the_next() {
    let (mut machine, snapshot) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) });
    let effects = machine.handle(at, Input::Unseen { since: at });
    let [Effect::Save(saved)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(adopt::standing(saved), None);
    let mut machine = adopt::machine((**saved).clone(), &snapshot, at);
    let effects = machine.handle(at, Input::Started);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CheckCaller)));
    assert_eq!(asked_for(&effects), None, "nobody would hear of its leg");
    assert_eq!(asked_for(&machine.handle(at, Input::CallerWaiting)), None, "nor yet now");
    assert_eq!(asked_for(&machine.handle(at, Input::Recheck)), None, "the caller may have left");
    assert_eq!(asked_for(&machine.handle(at, Input::CallerWaiting)), Some(2));
}

#[test]
fn a_leg_whose_entry_nobody_heard_of_is_dialled_when_it_is_found() {
    let (mut machine, _) = held();
    let at = machine.record().started_at;
    let effects = machine.handle(at, Input::LegIdle { attempt: 1 });
    assert!(effects.is_empty(), "it may be about to enter: {effects:?}");
    let effects = machine.handle(at, Input::Timer(Timer::Setup(1)));
    assert!(matches!(effects[..], [Effect::DialLeg { attempt: 1, .. }, ..]), "{effects:?}");
    let effects = machine.handle(at, Input::LegEntered { attempt: 1 });
    assert!(effects.is_empty(), "once: {effects:?}");
}

#[test]
fn while_nothing_is_heard_no_other_client_is_asked() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::Unseen { since: at });
    machine.handle(at, Input::Timer(Timer::Ring(1)));
    machine.handle(at, Input::LegDetached { attempt: 1, answered: false });
    let gone = Input::LegGone { attempt: 1, cause: Some(19), sip: None };
    let effects = machine.handle(at, gone);
    assert_eq!(asked_for(&effects), None);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Arm(Timer::Next, _))));
    machine.handle(at, Input::Recheck);
    // The answer to the first look may be lost.
    let effects = machine.handle(at, Input::Timer(Timer::Next));
    assert!(matches!(effects[..], [Effect::CheckCaller, Effect::Arm(Timer::Next, _)]));
    assert_eq!(asked_for(&machine.handle(at, Input::CallerWaiting)), Some(2));
    machine.handle(at, Input::Recheck);
    assert_eq!(asked_for(&machine.handle(at, Input::CallerWaiting)), None, "once");
    assert!(machine.handle(at, Input::Timer(Timer::Next)).is_empty());
}

#[test]
fn no_other_client_is_asked_for_a_caller_who_has_been_answered() {
    let refused = Input::LegGone { attempt: 1, cause: Some(21), sip: Some(603) };
    let granted = |machine: &Machine| {
        let granted = machine.left.first().map(|link| link.id);
        let refusals = Vec::new();
        let verdict =
            Verdict { rotated_by: 0, cursor: None, refusals, granted, within_share: false };
        Input::Verdict { attempt: 2, verdict: Some(verdict) }
    };
    // While room is asked for.
    let mut machine = ringing();
    let at = machine.record().started_at;
    assert_eq!(asked_for(&machine.handle(at, refused.clone())), Some(2));
    let effects = machine.handle(at, Input::CallerAnswered);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HangUpCaller { .. })));
    let verdict = granted(&machine);
    let effects = machine.handle(at, verdict);
    assert!(matches!(effects[..], [Effect::Release(_)]), "{effects:?}");
    // While its leg is made.
    let mut machine = ringing();
    machine.handle(at, refused.clone());
    let verdict = granted(&machine);
    machine.handle(at, verdict);
    machine.handle(at, Input::CallerAnswered);
    let effects = machine.handle(at, Input::LegEntered { attempt: 2 });
    assert!(matches!(effects[..], [Effect::HangUpLeg { attempt: 2, .. }]), "{effects:?}");
    // As the first refuses, however the caller came to be answered.
    let mut machine = ringing();
    machine.handle(at, Input::CallerAnswered);
    let effects = machine.handle(at, refused);
    assert_eq!(asked_for(&effects), None);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HangUpCaller { .. })));
    assert_eq!(machine.record().answered_at, None, "who refuses has no call");
}

#[test]
fn a_talk_that_began_unheard_is_sold_whoever_is_first_heard_to_end_it() {
    let gone = Input::LegGone { attempt: 1, cause: Some(16), sip: None };
    let leg_ends = [Input::LegAnswered { attempt: 1 }, gone];
    let caller_ends = [Input::CallerAnswered, Input::CallerGone];
    let orders = [
        (leg_ends.to_vec(), vec![Input::CallerAnswered]),
        (leg_ends.to_vec(), caller_ends.to_vec()),
        (caller_ends.to_vec(), leg_ends.to_vec()),
    ];
    for (heard, then) in orders {
        let mut machine = ringing();
        let at = machine.record().started_at;
        machine.handle(at, Input::Unseen { since: at });
        let mut effects = machine.handle(at, Input::Recheck);
        for input in heard.into_iter().chain(then) {
            effects.extend(machine.handle(at, input));
        }
        effects.extend(machine.handle(at, Input::Timer(Timer::Settle(1))));
        assert_eq!(asked_for(&effects), None);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
        assert!(machine.record().answered_attempt().is_some());
    }
}

#[test]
fn whether_a_caller_who_left_unseen_was_answered_is_not_known_from_an_answered_client() {
    let mut machine = ringing();
    let heard = machine.record().started_at;
    let later = heard + chrono::TimeDelta::seconds(60);
    machine.handle(heard, Input::Unseen { since: heard });
    machine.handle(later, Input::Recheck);
    machine.handle(later, Input::LegAnswered { attempt: 1 });
    machine.handle(later, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    machine.handle(later, Input::CallerMissing);
    let end = machine.record().end.unwrap();
    assert_eq!((end.outcome, end.at), (Outcome::INTERRUPTED, heard));
}

#[test]
fn an_adopted_leg_that_answers_as_it_is_hung_up_to_be_made_anew_has_the_call() {
    let (mut machine, now) = adopted_and_heard(chrono::TimeDelta::milliseconds(100));
    machine.handle(now, Input::LegIdle { attempt: 1 });
    machine.handle(now, Input::CallerAnswered);
    machine.handle(now, Input::LegAnswered { attempt: 1 });
    let gone = Input::LegGone { attempt: 1, cause: Some(16), sip: None };
    assert_eq!(asked_for(&machine.handle(now, gone)), None);
    machine.handle(now, Input::Timer(Timer::Settle(1)));
    machine.handle(now, Input::CallerGone);
    assert_eq!(machine.record().end.unwrap().outcome, Outcome::ANSWERED);
}

#[test]
fn a_client_who_was_rung_for_a_caller_who_is_up_already_has_not_answered() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::CallerAnswered);
    machine.handle(at, Input::Timer(Timer::Ring(1)));
    let effects = machine.handle(at, Input::LegDetached { attempt: 1, answered: false });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HangUpLeg { attempt: 1, .. })));
    assert_eq!(machine.record().answered_at, None);
}

#[test]
fn a_call_counts_in_the_windows_that_it_was_asked_for() {
    let Decision::Offer(offer) = offer(1, Strategy::Priority) else { panic!("it is one") };
    let first = offer.links[0].clone();
    let mut machine = Machine::new(record(), Decision::Offer(offer));
    let asked: Timestamp = "2026-11-22T23:59:59.900Z".parse().unwrap();
    let effects = machine.handle(asked, Input::Started);
    assert_eq!(asked_for(&effects), Some(first.id.0));
    let granted = Some(first.id);
    let verdict =
        Verdict { rotated_by: 0, cursor: None, refusals: Vec::new(), granted, within_share: false };
    let answered = asked + chrono::TimeDelta::milliseconds(200);
    machine.handle(answered, Input::Verdict { attempt: 1, verdict: Some(verdict) });
    assert_eq!(machine.record().attempts[0].held_at, asked, "the day before");
}

#[test]
fn a_run_that_ends_before_it_hears_anything_leaves_to_the_next_since_when_nobody_has() {
    let (mut machine, snapshot) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegEntered { attempt: 1 });
    machine.handle(at, Input::LegAnswered { attempt: 1 });
    machine.handle(at, Input::CallerAnswered);
    let seconds = chrono::TimeDelta::seconds;
    let (killed, again) = (at + seconds(5), at + seconds(60));
    let mut second = adopt::machine(machine.record().clone(), &snapshot, killed);
    let taken_up = second.record().clone();
    second.handle(again, Input::Started);
    let mut third = adopt::machine(taken_up, &snapshot, again + seconds(30));
    third.handle(again + seconds(60), Input::Started);
    third.handle(again + seconds(60), Input::CallerMissing);
    third.handle(again + seconds(60), Input::LegGone { attempt: 1, cause: None, sip: None });
    assert_eq!(third.record().end.unwrap().at, killed);
}

/// The same, and events flow.
fn adopted_and_heard(died_after: chrono::TimeDelta) -> (Machine, Timestamp) {
    let (mut machine, now) = adopted(died_after);
    machine.handle(now, Input::Recheck);
    (machine, now)
}

/// The link that is to be held next.
fn asked_for(effects: &[Effect]) -> Option<i64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reserve(request) => Some(request.candidates[0].link.0),
        _ => None,
    })
}

#[test]
fn a_client_whom_an_earlier_run_died_before_dialling_is_dialled_after_all() {
    let soon = chrono::TimeDelta::milliseconds(100);
    let (mut machine, now) = adopted_and_heard(soon);
    let effects = machine.handle(now, Input::LegGone { attempt: 1, cause: None, sip: None });
    assert_eq!(asked_for(&effects), Some(1));

    let (mut machine, now) = adopted_and_heard(soon);
    let effects = machine.handle(now, Input::LegIdle { attempt: 1 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::HangUpLeg { attempt: 1, .. })));
    let effects = machine.handle(now, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    assert_eq!(asked_for(&effects), Some(1));
}

/// A call of which an earlier run died after it had noted that its client was dialled, and
/// what taking it up wants done.
fn adopted_and_dialled(died_after: chrono::TimeDelta) -> (Machine, Timestamp, Vec<Effect>) {
    let (mut machine, snapshot) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegEntered { attempt: 1 });
    let effects = machine.handle(at, Input::LegDialled { attempt: 1 });
    let [Effect::Save(saved)] = &effects[..] else { panic!("{effects:?}") };
    let now = at + died_after;
    let mut machine = adopt::machine((**saved).clone(), &snapshot, now);
    let mut effects = machine.handle(now, Input::Started);
    effects.extend(machine.handle(now, Input::Recheck));
    (machine, now, effects)
}

#[test]
fn a_client_known_to_be_dialled_is_rung_on_for_the_rest_of_its_time_whatever_its_leg_shows() {
    let soon = chrono::TimeDelta::milliseconds(100);
    let (mut machine, now, effects) = adopted_and_dialled(soon);
    let rest = effects.iter().find_map(|effect| match effect {
        Effect::Arm(Timer::Ring(1), rest) => Some(*rest),
        _ => None,
    });
    assert_eq!(rest, Some(Duration::from_millis(4_900)));
    // It sends early media, or has answered nothing yet.
    let effects = machine.handle(now, Input::LegIdle { attempt: 1 });
    assert!(effects.is_empty(), "{effects:?}");
    machine.handle(now, Input::LegAnswered { attempt: 1 });
    machine.handle(now, Input::CallerAnswered);
    let record = machine.record();
    assert_eq!((record.attempts.len(), record.answered_at), (1, Some(now)));
}

#[test]
fn one_that_was_dialled_and_left_while_nobody_looked_is_not_dialled_again() {
    let (mut machine, now, _) = adopted_and_dialled(chrono::TimeDelta::milliseconds(100));
    let effects = found_gone(&mut machine, now);
    assert_eq!(asked_for(&effects), Some(2), "the next one");
    assert_eq!(machine.record().attempts[0].result, Some(AttemptResult::Unreachable));
}

#[test]
fn one_that_refused_is_not_asked_again_where_a_run_dies_before_the_next_is_held() {
    let (mut machine, snapshot) = held();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegEntered { attempt: 1 });
    // The switch hasn't said yet that it has dialled.
    let gone = Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) };
    let effects = machine.handle(at, gone);
    let saved = effects.iter().find_map(|effect| match effect {
        Effect::Save(record) => Some((**record).clone()),
        _ => None,
    });
    let mut machine = adopt::machine(saved.unwrap(), &snapshot, at);
    machine.handle(at, Input::Started);
    machine.handle(at, Input::Recheck);
    assert_eq!(asked_for(&machine.handle(at, Input::CallerWaiting)), Some(2));
    assert_eq!(machine.record().attempts[0].result, Some(AttemptResult::Busy));
}

#[test]
fn that_a_client_was_dialled_is_noted_once_and_only_until_the_attempt_is_over() {
    for rings_first in [true, false] {
        let mut machine = ringing();
        let at = machine.record().started_at;
        let (dialled, rings) = (Input::LegDialled { attempt: 1 }, Input::LegRinging { attempt: 1 });
        let (one, other) = if rings_first { (rings, dialled) } else { (dialled, rings) };
        let effects = machine.handle(at, one);
        assert!(matches!(effects[..], [Effect::Save(_)]), "{effects:?}");
        let effects = machine.handle(at, other);
        assert!(effects.is_empty(), "{effects:?}");
        machine.handle(at, Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) });
        assert_eq!(machine.record().attempts[0].dialled_at, None);
    }
}

/// A check finds no leg, and the caller unanswered, for good.
fn found_gone(machine: &mut Machine, now: Timestamp) -> Vec<Effect> {
    let effects = machine.handle(now, Input::LegGone { attempt: 1, cause: None, sip: None });
    assert!(matches!(effects[..], [Effect::CheckCaller, Effect::Arm(Timer::Answer(1), _)]));
    machine.handle(now, Input::CallerWaiting);
    machine.handle(now, Input::CallerWaiting)
}

#[test]
fn one_whose_end_nobody_saw_may_have_been_answered() {
    let (mut machine, now) = adopted(chrono::TimeDelta::seconds(4));
    machine.handle(now, Input::LegGone { attempt: 1, cause: None, sip: None });
    machine.handle(now, Input::CallerAnswered);
    assert!(machine.record().answered_at.is_some(), "the caller is no one else's any more");
}

#[test]
fn one_who_had_been_dialled_is_not_dialled_twice() {
    let (mut machine, now) = adopted_and_heard(chrono::TimeDelta::seconds(4));
    let effects = found_gone(&mut machine, now);
    assert_eq!(asked_for(&effects), Some(2), "it had its time");

    let (mut machine, now) = adopted_and_heard(chrono::TimeDelta::milliseconds(100));
    machine.handle(now, Input::LegRinging { attempt: 1 });
    let effects = found_gone(&mut machine, now);
    assert_eq!(asked_for(&effects), Some(2), "it rang");

    let (mut machine, now) = adopted_and_heard(chrono::TimeDelta::milliseconds(100));
    let effects =
        machine.handle(now, Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) });
    assert_eq!(asked_for(&effects), Some(2), "it was busy");
}

#[test]
fn what_a_check_finds_before_events_flow_may_change_unheard() {
    let soon = chrono::TimeDelta::milliseconds(100);
    for events_flow in [false, true] {
        let (mut machine, now) = adopted(soon);
        if events_flow {
            machine.handle(now, Input::Recheck);
        }
        machine.handle(now, Input::LegRinging { attempt: 1 });
        machine.handle(now, Input::CallerWaiting);
        machine.handle(now + soon, Input::CallerGone);
        machine.handle(now + soon, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
        let told = machine.record().end.unwrap().outcome;
        let due = if events_flow { Outcome::ABANDONED } else { Outcome::INTERRUPTED };
        assert_eq!(told, due, "it may have been answered in between");
    }
}

#[test]
fn a_client_who_was_gone_unseen_after_the_ring_time_did_not_answer() {
    for (after, result) in [(1, AttemptResult::Unreachable), (6, AttemptResult::NoAnswer)] {
        let mut machine = ringing();
        let at = machine.record().started_at + chrono::TimeDelta::seconds(after);
        machine.handle(at, Input::LegGone { attempt: 1, cause: None, sip: None });
        machine.handle(at, Input::CallerWaiting);
        machine.handle(at, Input::CallerWaiting);
        assert_eq!(machine.record().attempts[0].result, Some(result));
    }
}

#[test]
fn a_leg_of_an_earlier_client_is_taken_down_when_it_is_seen_again() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegGone { attempt: 1, cause: Some(17), sip: Some(486) });
    let effects = machine.handle(at, Input::LegSeen { attempt: 1 });
    assert_eq!(effects.len(), 0, "the list may be older than its end");
    let effects = machine.handle(at, Input::LegSeen { attempt: 1 });
    assert!(matches!(effects[..], [Effect::HangUpLeg { attempt: 1, .. }]));
}

#[test]
fn a_hang_up_that_overtakes_the_news_of_an_answer_leaves_the_call_sold() {
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    let settles = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Settle(_)));
    for leg_is_gone_first in [true, false] {
        let mut machine = ringing();
        let at = machine.record().started_at;
        let hung_up = at + chrono::TimeDelta::milliseconds(30);
        machine.handle(hung_up, Input::HangUp { told: None });
        let mut effects = Vec::new();
        if leg_is_gone_first {
            effects.extend(machine.handle(at, gone.clone()));
        }
        effects.extend(machine.handle(at, Input::CallerAnswered));
        effects.extend(machine.handle(at, gone.clone()));
        assert!(!settles(&effects), "it may have been taken back: {effects:?}");
        let effects = machine.handle(at, Input::CallerGone);
        assert!(settles(&effects), "{effects:?}");
        let record = machine.record();
        let end = record.end.unwrap();
        assert_eq!((end.outcome, end.cause, end.at), (Outcome::ANSWERED, cause::NORMAL, hung_up));
        assert_eq!(record.answered_at, Some(at));
        assert!(record.answered_attempt().is_some());
    }
}

#[test]
fn a_hang_up_before_the_clients_answer_is_heard_leaves_an_answered_caller_sold() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::CallerAnswered);
    machine.handle(at, Input::HangUp { told: None });
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    machine.handle(at, gone);
    let effects = machine.handle(at, Input::CallerGone);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
    assert_eq!(machine.record().end.unwrap().outcome, Outcome::ANSWERED);
}

#[test]
fn a_hang_up_before_any_answer_sells_nothing() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::HangUp { told: None });
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    machine.handle(at, gone);
    let effects = machine.handle(at, Input::CallerGone);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Release(_))), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
    assert_eq!(machine.record().end.unwrap().outcome, Outcome::SYSTEM_ERROR);
}

#[test]
fn a_caller_who_took_the_call_back_as_we_hung_up_has_heard_nothing() {
    let gone = Input::LegGone { attempt: 1, cause: Some(cause::NORMAL), sip: None };
    let taken_back = Input::CallerCause { cause: 127, sip: Some(487) };
    let orders = [
        [Input::CallerAnswered, taken_back.clone(), gone.clone()],
        [Input::CallerAnswered, gone.clone(), taken_back.clone()],
        [gone, Input::CallerAnswered, taken_back],
    ];
    for order in orders {
        let mut machine = ringing();
        let at = machine.record().started_at;
        machine.handle(at, Input::HangUp { told: None });
        let mut effects = Vec::new();
        for input in order.into_iter().chain([Input::CallerGone]) {
            effects.extend(machine.handle(at, input));
        }
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Settle(_))), "{effects:?}");
        let record = machine.record();
        assert_eq!(record.end.unwrap().outcome, Outcome::ABANDONED);
        assert_eq!(
            (record.answered_at, machine.last_result()),
            (None, Some(AttemptResult::Canceled))
        );
    }
}

#[test]
fn a_call_that_its_caller_took_back_ended_then_however_late_its_leg_is_gone() {
    let mut machine = ringing();
    let taken_back = machine.record().started_at;
    machine.handle(taken_back, Input::CallerCause { cause: 127, sip: Some(487) });
    let late = taken_back + chrono::TimeDelta::seconds(4);
    machine.handle(late, Input::CallerGone);
    machine.handle(late, Input::LegGone { attempt: 1, cause: Some(16), sip: None });
    let end = machine.record().end.unwrap();
    assert_eq!((end.outcome, end.at), (Outcome::ABANDONED, taken_back));
}

#[test]
fn whether_a_leg_that_left_is_gone_is_asked_until_somebody_says_so() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegAnswered { attempt: 1 });
    machine.handle(at, Input::CallerAnswered);
    let effects = machine.handle(at, Input::LegLeft { attempt: 1 });
    assert!(matches!(effects[..], [Effect::Arm(Timer::Gone(1), LEFT)]), "{effects:?}");
    for _ in 0..2 {
        let effects = machine.handle(at, Input::Timer(Timer::Gone(1)));
        let [Effect::CheckLeg { attempt: 1 }, Effect::Arm(Timer::Gone(1), _)] = effects[..] else {
            panic!("{effects:?}")
        };
    }
    machine.handle(at, Input::LegGone { attempt: 1, cause: None, sip: None });
    assert!(machine.handle(at, Input::Timer(Timer::Gone(1))).is_empty());
}

/// A call that talks.
fn talking() -> Machine {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::LegAnswered { attempt: 1 });
    machine.handle(at, Input::CallerAnswered);
    machine.handle(at, Input::Timer(Timer::Settle(1)));
    machine
}

#[test]
fn a_leg_that_a_check_misses_is_gone_unless_an_event_is_on_its_way() {
    for is_told in [false, true] {
        let mut machine = talking();
        let at = machine.record().started_at;
        let effects = machine.handle(at, Input::LegMissing { attempt: 1 });
        assert!(matches!(effects[..], [Effect::Arm(Timer::LegMissing(1), _)]), "{effects:?}");
        assert!(machine.expects_leg(1), "nobody has told of its end yet");
        if is_told {
            let gone = Input::LegGone { attempt: 1, cause: Some(cause::NO_ANSWER), sip: None };
            machine.handle(at, gone);
            assert!(!machine.expects_leg(1));
        }
        machine.handle(at, Input::Timer(Timer::LegMissing(1)));
        assert!(machine.is_ending());
        let attempt = &machine.record().attempts[0];
        assert_eq!(attempt.cause, is_told.then_some(cause::NO_ANSWER));
    }
}

#[test]
fn of_a_leg_that_ended_while_nobody_listened_no_event_is_waited_for() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    machine.handle(at, Input::Unseen { since: at });
    machine.handle(at, Input::Recheck);
    machine.handle(at, Input::CallerWaiting);
    assert!(!machine.expects_leg(1), "it may be gone");
    let mut found = machine.clone();
    let effects = machine.handle(at, Input::LegMissing { attempt: 1 });
    assert!(matches!(effects[..], [Effect::CheckCaller, ..]), "{effects:?}");
    found.handle(at, Input::LegRinging { attempt: 1 });
    assert!(found.expects_leg(1));
}

#[test]
fn a_leg_that_left_or_is_being_hung_up_is_not_missed() {
    let mut left = talking();
    let at = left.record().started_at;
    left.handle(at, Input::LegLeft { attempt: 1 });
    assert!(!left.expects_leg(1));
    left.handle(at, Input::LegMissing { attempt: 1 });
    assert!(left.is_ending());
    let mut given_up = ringing();
    given_up.handle(at, Input::Timer(Timer::Ring(1)));
    given_up.handle(at, Input::LegDetached { attempt: 1, answered: false });
    assert!(!given_up.expects_leg(1));
    let effects = given_up.handle(at, Input::LegMissing { attempt: 1 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Release(_))), "{effects:?}");
}

#[test]
fn a_leg_that_has_entered_was_made_whatever_the_answer_to_another_try_says() {
    let mut machine = ringing();
    let at = machine.record().started_at;
    let effects = machine.handle(at, Input::LegNotCreated { attempt: 1 });
    assert!(effects.is_empty(), "its hold is kept while it rings: {effects:?}");
    let (mut machine, _) = held();
    let effects = machine.handle(at, Input::LegNotCreated { attempt: 1 });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Release(_))), "{effects:?}");
    let effects = machine.handle(at, Input::LegEntered { attempt: 1 });
    assert!(matches!(effects[..], [Effect::HangUpLeg { attempt: 1, .. }]), "{effects:?}");
}
