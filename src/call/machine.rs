//! The life of one call as a pure state machine.
//!
//! [`Machine::handle`] takes one input and returns what is to be done. It may
//! be given inputs twice, late, in any order, or not at all: an input that
//! doesn't fit the state is ignored, and every wait has a timer behind it that
//! asks the switch what is true. So that, whatever happens,
//!
//! * a hold is released only when its leg is known to be gone, and always then;
//! * no client is dialled after the caller has left;
//! * the call closes once, with one final record, when both legs are gone.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use capconduit_entity::AttemptResult;

use super::outcome::{Outcome, attempt_result, cause};
use super::record::{Attempt, CallRecord, End};
use crate::capacity::{HoldId, Refusal, Request, Turn, Verdict};
use crate::clock::Timestamp;
use crate::live::LiveState;
use crate::routing::{Decision, Link, Offer};

/// Something that happened. Legs are named by their attempt.
#[derive(Clone, Debug)]
pub enum Input {
    /// The call begins, or goes on after a restart of the service. Given once, first.
    Started,
    /// The ledger's answer; none = it can't be reached.
    Verdict {
        attempt: u32,
        verdict: Option<Verdict>,
    },
    /// The caller could not be put into a bridge.
    BridgeFailed,
    /// The switch would not make the leg: nothing was sent to the client.
    LegNotCreated {
        attempt: u32,
    },
    /// The leg is on the switch: what an audit found.
    LegSeen {
        attempt: u32,
    },
    /// The leg exists and may be dialled.
    LegEntered {
        attempt: u32,
    },
    /// The leg exists, but could not be dialled.
    LegNotDialled {
        attempt: u32,
    },
    LegRinging {
        attempt: u32,
    },
    /// The leg exists and does nothing: what a check found.
    LegIdle {
        attempt: u32,
    },
    LegAnswered {
        attempt: u32,
    },
    /// The leg is out of the bridge, where its answer can't reach the caller any more.
    LegDetached {
        attempt: u32,
        /// It had been answered before.
        answered: bool,
    },
    /// The leg left our application; most likely it is gone.
    LegLeft {
        attempt: u32,
    },
    /// The leg is no more.
    LegGone {
        attempt: u32,
        cause: Option<i32>,
        sip: Option<i32>,
    },
    CallerAnswered,
    /// The caller is there and not answered: what a check found.
    CallerWaiting,
    /// Why the caller's leg is about to end.
    CallerCause {
        cause: i32,
        sip: Option<i32>,
    },
    /// A check found no leg of the caller: the events that say why may be on their way.
    CallerMissing,
    /// The caller's leg is no more.
    CallerGone,
    Timer(Timer),
    /// An operator ends the call, or the service stops; then nothing is told of it.
    HangUp {
        told: Option<String>,
    },
    /// Events flow, and some may have been missed: ask the switch.
    Recheck,
    /// Caller and client are both up, and not in one bridge.
    Apart,
    /// The switch has started anew: what was on it is no more.
    SwitchRestarted,
    /// Nothing is heard from the switch; the call was last known to be up then.
    Unseen {
        since: Timestamp,
    },
}

/// Something to be done. Effects on the switch are carried out in order.
#[derive(Clone, Debug)]
pub enum Effect {
    Reserve(Request),
    Settle(HoldId),
    Release(HoldId),
    /// Makes the bridge and puts the caller into it.
    CreateBridge,
    CreateLeg {
        attempt: u32,
        endpoint: String,
    },
    /// Puts the leg into the bridge and sends the INVITE.
    DialLeg {
        attempt: u32,
        ring: Duration,
    },
    HangUpLeg {
        attempt: u32,
        cause: i32,
    },
    /// Takes the leg out of the bridge, and looks whether it was answered.
    DetachLeg {
        attempt: u32,
    },
    /// Puts the leg back into the bridge.
    JoinLeg {
        attempt: u32,
    },
    HangUpCaller {
        cause: i32,
    },
    AnswerCaller,
    CheckCaller,
    CheckLeg {
        attempt: u32,
    },
    DestroyBridge,
    Arm(Timer, Duration),
    /// The record must survive a crash from here on. Final if it has an end.
    Save(Box<CallRecord>),
    Show(LiveState),
    /// The call is over; nothing follows.
    Close,
}

/// A wait that has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The leg was asked for and should be in our application by now.
    Setup(u32),
    /// The client has been rung for as long as the campaign allows.
    Ring(u32),
    /// The client answered, and the caller should be answered by now.
    Answer(u32),
    /// Had the caller's hang-up met the answer, it would be known by now.
    Settle(u32),
    /// The leg should be gone by now.
    Gone(u32),
    /// The caller hung up, and its leg should be gone by now.
    CallerGone,
    /// No leg of the caller is there, and no event will say more.
    CallerMissing,
    /// Both legs should be gone by now.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The ledger is being asked.
    Routing,
    Creating,
    Dialling,
    /// The ring time is over: the leg is being taken out of the bridge, so that
    /// an answer at this very moment can't be half of one.
    Detaching,
    /// The leg is being taken down; this will be the attempt's result.
    GivingUp(AttemptResult),
    Answering,
    Talking,
    Ending,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Waiting,
    Answered,
    Gone,
}

/// The client's leg that exists or may exist.
#[derive(Clone, Copy, Debug)]
struct Leg {
    attempt: u32,
    /// It is gone, but what that means for the caller isn't known yet.
    gone: Option<Gone>,
    /// The caller was found unanswered after it.
    unheard: bool,
}

/// When the legs of a talk were found to be up.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    caller: Option<Timestamp>,
    leg: Option<Timestamp>,
}

/// How a leg ended.
#[derive(Clone, Copy, Debug)]
struct Gone {
    at: Timestamp,
    cause: Option<i32>,
    sip: Option<i32>,
}

/// A call. See the module's description.
#[derive(Clone, Debug)]
pub struct Machine {
    record: CallRecord,
    decision: Decision,
    state: State,
    caller: Caller,
    leg: Option<Leg>,
    /// The ledger's answer is outstanding.
    reserving: bool,
    /// The answered attempt's unit of volume is used.
    settled: bool,
    /// One that an audit found last, and that the call has given up on.
    stray: Option<u32>,
    bridge: bool,
    /// It may be that an earlier run didn't come as far as making it.
    rebridge: bool,
    /// Links still to be tried, in the frozen order.
    left: Vec<Arc<Link>>,
    /// The link of an adopted attempt whose client perhaps was never dialled.
    again: Option<Arc<Link>>,
    refusals: Vec<Refusal>,
    /// Why the caller's leg ends, as the switch says.
    caller_cause: Option<i32>,
    /// When the caller was seen to be answered.
    heard_at: Option<Timestamp>,
    /// The caller got a 487: whatever the switch shows, it was never answered.
    is_taken_back: bool,
    outcome: Option<Outcome>,
    /// When the conversation ended, or the caller was released.
    ended: Option<(Timestamp, i32)>,
    /// The switch isn't heard, or not yet since the call was adopted from an
    /// earlier run: until when the call is known to have been up.
    unseen_since: Option<Timestamp>,
    /// When the legs were found to be up after that.
    found: Found,
    /// Events don't flow: what a check finds is true now, and may change unheard.
    blind: bool,
    effects: Vec<Effect>,
}

const SETUP: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(1);
/// A hang-up that met the answer is announced within a few milliseconds, as fast as
/// events are.
const SETTLE: Duration = EVENTS_LAG;
/// The SIP status of a call that its caller took back.
const REQUEST_TERMINATED: i32 = 487;
/// Answers to commands overtake events by no more than this.
const EVENTS_LAG: Duration = Duration::from_millis(200);
const GONE: Duration = Duration::from_secs(2);
/// After a leg left our application its end is announced at once.
const LEFT: Duration = Duration::from_millis(300);
const END: Duration = Duration::from_secs(3);

impl Machine {
    /// A call that has just arrived, with what routing decided about it.
    pub fn new(record: CallRecord, decision: Decision) -> Self {
        let left = match &decision {
            Decision::Offer(offer) => offer.links.clone(),
            Decision::Refuse(_) => Vec::new(),
        };
        Self {
            record,
            decision,
            state: State::Routing,
            caller: Caller::Waiting,
            leg: None,
            reserving: false,
            settled: false,
            stray: None,
            bridge: false,
            rebridge: false,
            left,
            again: None,
            refusals: Vec::new(),
            caller_cause: None,
            heard_at: None,
            is_taken_back: false,
            outcome: None,
            ended: None,
            unseen_since: None,
            found: Found::default(),
            blind: false,
            effects: Vec::new(),
        }
    }

    /// A call that an earlier run of the service left on the switch.
    ///
    /// It goes on where its record says that it was, by the same rules as any
    /// other: what has happened meanwhile is found by asking the switch.
    /// `offer` holds the links that were still to be tried, `last` that of the
    /// last attempt; `last_alive` is when the earlier run is last known to have run.
    pub fn adopt(
        record: CallRecord,
        offer: Offer,
        last: Option<Arc<Link>>,
        last_alive: Timestamp,
    ) -> Self {
        let mut machine = Self::new(record, Decision::Offer(offer));
        // The earlier run may have been deaf before it ended.
        let seen = machine.record.unseen_since.unwrap_or(last_alive);
        machine.unseen_since = Some(seen.max(machine.record.last_seen()));
        machine.blind = true;
        if let Some(ending) = machine.record.ending {
            return machine.adopt_ending(ending);
        }
        let Some(attempt) = machine.record.attempts.last() else { return machine };
        if attempt.ended_at.is_some() {
            // It was asking for the next.
            (machine.bridge, machine.rebridge) = (true, true);
            return machine;
        }
        // Later than this its client had been dialled, or given up.
        if (last_alive - attempt.held_at).to_std().unwrap_or_default() < SETUP {
            machine.again = last;
        }
        machine.leg = Some(Leg { attempt: attempt.position, gone: None, unheard: false });
        machine.bridge = true;
        if machine.record.answered_at.is_some() {
            machine.state = State::Talking;
            machine.settled = true;
            machine.caller = Caller::Answered;
        } else {
            machine.state = State::Dialling;
        }
        machine
    }

    /// The same for a call whose legs were already being taken down.
    fn adopt_ending(mut self, ending: End) -> Self {
        self.state = State::Ending;
        self.outcome = Some(ending.outcome);
        self.ended = Some((ending.at, ending.cause));
        self.bridge = !self.record.attempts.is_empty();
        self.settled = self.record.answered_at.is_some();
        let last = self.record.attempts.last().filter(|attempt| attempt.ended_at.is_none());
        self.leg = last.map(|last| Leg { attempt: last.position, gone: None, unheard: false });
        self
    }

    pub const fn record(&self) -> &CallRecord {
        &self.record
    }

    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether nobody is to be dialled any more.
    pub const fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending | State::Closed)
    }

    /// Takes one input, and returns what is to be done, in order.
    pub fn handle(&mut self, at: Timestamp, input: Input) -> Vec<Effect> {
        if self.is_closed() {
            return Vec::new();
        }
        if matches!(input, Input::LegRinging { .. } | Input::LegAnswered { .. }) {
            self.again = None;
        }
        if self.unseen_since.is_some()
            && let Some(found) = self.found_up(at, &input)
        {
            self.found = Found::default();
            self.unseen_since = self.blind.then_some(found);
            self.note_unseen(self.unseen_since);
        }
        self.step(at, input);
        self.close_if_over(at);
        std::mem::take(&mut self.effects)
    }

    /// When the call was found to be up, if this says so. Once the caller is answered it is
    /// up only while both legs are; an event that tells of a leg's end says that it was
    /// there until then.
    fn found_up(&mut self, at: Timestamp, input: &Input) -> Option<Timestamp> {
        let talks = self.state == State::Talking || self.caller == Caller::Answered;
        match *input {
            Input::LegRinging { .. } | Input::CallerWaiting => return Some(at),
            Input::LegAnswered { .. } if !talks => return Some(at),
            Input::LegAnswered { attempt } | Input::LegGone { attempt, cause: Some(_), .. }
                if self.is_leg(attempt) =>
            {
                self.found.leg = Some(at);
            }
            Input::CallerAnswered => self.found.caller = Some(at),
            Input::CallerCause { .. } if talks => self.found.caller = Some(at),
            _ => return None,
        }
        Some(self.found.caller?.min(self.found.leg?))
    }

    fn step(&mut self, at: Timestamp, input: Input) {
        match input {
            Input::Started => self.on_started(at),
            Input::Verdict { attempt, verdict } => self.on_verdict(at, attempt, verdict),
            Input::BridgeFailed => self.abort(at, Outcome::SYSTEM_ERROR),
            Input::LegNotCreated { attempt } if self.is_leg(attempt) => {
                self.on_leg_gone(at, Some(cause::SUBSCRIBER_ABSENT), None);
            }
            Input::LegEntered { attempt } if self.is_leg(attempt) => self.on_leg_entered(attempt),
            // What was asked when events came back may have got no answer.
            Input::LegSeen { attempt } if self.is_leg(attempt) => {
                if self.unseen_since.is_some() && !self.blind {
                    self.recheck();
                }
            }
            Input::LegEntered { attempt } => self.hang_up_leg(attempt, cause::NORMAL),
            // Its end may be on its way: what is seen again is none of ours any more.
            Input::LegSeen { attempt } => {
                if self.stray.replace(attempt) == Some(attempt) {
                    self.hang_up_leg(attempt, cause::NORMAL);
                }
            }
            Input::LegNotDialled { attempt } if self.is_leg(attempt) => {
                if self.state == State::Dialling {
                    self.give_up(attempt, AttemptResult::Unreachable, cause::NORMAL);
                }
            }
            Input::LegRinging { attempt } if self.is_leg(attempt) => {
                if self.state == State::Dialling {
                    self.attempt_mut(attempt).ringing_at.get_or_insert(at);
                }
            }
            Input::LegIdle { attempt } if self.is_leg(attempt) => {
                // Whether it was dialled can't be seen: it is made anew.
                if self.state == State::Dialling && self.again.is_some() {
                    self.give_up(attempt, AttemptResult::Canceled, cause::NORMAL);
                }
            }
            Input::LegAnswered { attempt } if self.is_leg(attempt) => {
                self.on_leg_answered(at, attempt);
            }
            Input::LegDetached { attempt, answered } if self.is_leg(attempt) => {
                self.on_leg_detached(at, attempt, answered);
            }
            Input::LegLeft { attempt } if self.is_leg(attempt) => {
                self.effects.push(Effect::Arm(Timer::Gone(attempt), LEFT));
            }
            Input::LegGone { attempt, cause, sip } if self.is_leg(attempt) => {
                self.on_leg_gone(at, cause, sip);
            }
            Input::CallerAnswered => self.on_caller_answered(at),
            Input::CallerWaiting => self.on_caller_waiting(at),
            Input::CallerCause { cause, sip } => self.on_caller_ending(at, cause, sip),
            // No event is on its way of what happened while nobody listened.
            Input::CallerMissing if self.unseen_since.is_some() => self.on_caller_gone(at),
            Input::CallerMissing => {
                self.effects.push(Effect::Arm(Timer::CallerMissing, EVENTS_LAG));
            }
            Input::CallerGone | Input::Timer(Timer::CallerMissing) => self.on_caller_gone(at),
            Input::Timer(timer) => self.on_timer(timer),
            Input::HangUp { told } => self.on_hang_up(at, told),
            Input::Apart => self.on_apart(),
            Input::Recheck => {
                // What was found before may have changed unheard.
                self.found = Found::default();
                self.blind = false;
                self.recheck();
            }
            Input::SwitchRestarted => self.on_switch_restarted(at),
            Input::Unseen { since } => {
                let since = since.max(self.record.last_seen());
                let since = *self.unseen_since.get_or_insert(since);
                self.found = Found::default();
                self.blind = true;
                self.note_unseen(Some(since));
            }
            // About a leg of an earlier attempt: old news.
            Input::LegNotCreated { .. }
            | Input::LegNotDialled { .. }
            | Input::LegRinging { .. }
            | Input::LegIdle { .. }
            | Input::LegAnswered { .. }
            | Input::LegDetached { .. }
            | Input::LegLeft { .. }
            | Input::LegGone { .. } => {}
        }
    }

    // --- routing ---

    fn on_started(&mut self, at: Timestamp) {
        if self.unseen_since.is_some() {
            self.go_on(at);
            return;
        }
        match &self.decision {
            Decision::Refuse(reason) => {
                let outcome = Outcome::refused(*reason);
                self.effects.push(Effect::Show(LiveState::Routing));
                self.release_caller(at, outcome);
            }
            Decision::Offer(offer) => {
                let turn = offer.first_turn();
                self.reserve(at, turn);
            }
        }
    }

    /// Takes up an adopted call.
    fn go_on(&mut self, at: Timestamp) {
        if let (State::Ending, Some((_, cause))) = (self.state, self.ended) {
            self.effects.push(Effect::Show(LiveState::Ending));
            self.take_down(cause);
            self.effects.push(Effect::Arm(Timer::End, END));
            return self.recheck();
        }
        let Some(leg) = self.leg else {
            self.recheck();
            return self.next(at);
        };
        if self.state == State::Talking {
            self.effects.push(Effect::Show(LiveState::Talking));
        } else {
            let rung = (at - self.attempt_mut(leg.attempt).held_at).to_std().unwrap_or_default();
            let left = self.ring_time().saturating_sub(rung);
            self.effects.push(Effect::Show(LiveState::Ringing));
            self.effects.push(Effect::Arm(Timer::Ring(leg.attempt), left));
        }
        self.recheck();
    }

    fn reserve(&mut self, at: Timestamp, turn: Turn) {
        let attempt = self.record.attempts.len() + 1;
        let hold = HoldId {
            call: self.record.call,
            attempt: u32::try_from(attempt).expect("a campaign has fewer links than that"),
        };
        let candidates = self.left.iter().map(|link| link.candidate(at)).collect();
        self.state = State::Routing;
        self.reserving = true;
        self.effects.push(Effect::Show(LiveState::Routing));
        self.effects.push(Effect::Reserve(Request { hold, candidates, turn }));
    }

    fn on_verdict(&mut self, at: Timestamp, attempt: u32, verdict: Option<Verdict>) {
        let expected = self.record.attempts.len() + 1;
        if !self.reserving || attempt as usize != expected {
            return;
        }
        self.reserving = false;
        let hold = HoldId { call: self.record.call, attempt };
        let Some(verdict) = verdict else {
            // It may have been held all the same.
            self.effects.push(Effect::Release(hold));
            if self.state == State::Routing {
                self.release_caller(at, Outcome::NO_LEDGER);
            }
            return;
        };
        if self.state != State::Routing {
            self.effects.push(Effect::Release(hold));
            return;
        }
        let candidates = self.record.trace.links.len().min(self.left.len());
        self.record.trace.note_verdict(&verdict, candidates, attempt);
        self.left.rotate_left(verdict.rotated_by);
        self.refusals.extend(verdict.refusals);
        let place = verdict.granted.and_then(|id| self.left.iter().position(|l| l.id == id));
        match place {
            Some(place) => self.create_leg(at, attempt, place),
            None => self.nobody_left(at),
        }
    }

    fn create_leg(&mut self, at: Timestamp, attempt: u32, place: usize) {
        let link = self.left[place].clone();
        self.left.drain(..=place);
        self.record.attempts.push(Attempt {
            position: attempt,
            link: link.id,
            client: link.client.id,
            client_name: link.client.name.clone(),
            client_identifier: link.client.identifier.clone(),
            held_at: at,
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            result: None,
            cause: None,
            sip: None,
        });
        self.leg = Some(Leg { attempt, gone: None, unheard: false });
        self.state = State::Creating;
        self.save();
        let rebridge = std::mem::take(&mut self.rebridge);
        if !std::mem::replace(&mut self.bridge, true) || rebridge {
            self.effects.push(Effect::CreateBridge);
        }
        self.effects.push(Effect::CreateLeg { attempt, endpoint: link.client.endpoint.clone() });
        self.effects.push(Effect::Arm(Timer::Setup(attempt), SETUP));
    }

    fn next(&mut self, at: Timestamp) {
        if let Some(again) = self.again.take() {
            self.left.insert(0, again);
            self.rebridge = true;
        }
        match self.offer().map(Offer::later_turn) {
            Some(turn) if !self.left.is_empty() => self.reserve(at, turn),
            _ => self.nobody_left(at),
        }
    }

    fn nobody_left(&mut self, at: Timestamp) {
        let results: Vec<_> = self.record.attempts.iter().filter_map(|a| a.result).collect();
        let outcome = if results.is_empty() {
            Outcome::no_room(&self.refusals)
        } else {
            Outcome::unanswered(&results)
        };
        self.release_caller(at, outcome);
    }

    // --- the client's leg ---

    fn on_leg_entered(&mut self, attempt: u32) {
        match self.state {
            State::Creating => {
                let ring = self.ring_time();
                self.state = State::Dialling;
                self.effects.push(Effect::DialLeg { attempt, ring });
                self.effects.push(Effect::Arm(Timer::Ring(attempt), ring));
                self.effects.push(Effect::Show(LiveState::Ringing));
            }
            // It was hung up before it existed.
            State::GivingUp(_) | State::Ending => self.hang_up_leg(attempt, cause::NORMAL),
            _ => {}
        }
    }

    fn on_leg_answered(&mut self, at: Timestamp, attempt: u32) {
        if self.state == State::Detaching {
            self.attempt_mut(attempt).answered_at.get_or_insert(at);
            return self.talk_while_detaching(at);
        }
        // In any other state it is a repetition, or an answer that came too late.
        if self.state != State::Dialling {
            return;
        }
        self.attempt_mut(attempt).answered_at = Some(at);
        if self.caller == Caller::Answered {
            self.talk(at, attempt);
        } else {
            self.state = State::Answering;
            self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
        }
    }

    /// The ring time is over. Whoever answered before the leg was out of the
    /// bridge has the call, whoever answers later has not.
    fn on_leg_detached(&mut self, at: Timestamp, attempt: u32, answered: bool) {
        if self.state != State::Detaching {
            return;
        }
        let caller_answered = self.caller == Caller::Answered;
        let known = self.attempt_mut(attempt).answered_at;
        if !answered && !caller_answered && known.is_none() {
            self.give_up(attempt, AttemptResult::NoAnswer, cause::NO_ANSWER);
            return;
        }
        self.attempt_mut(attempt).answered_at = Some(known.unwrap_or(at));
        self.effects.push(Effect::JoinLeg { attempt });
        if caller_answered {
            self.talk(at, attempt);
        } else {
            self.state = State::Answering;
            self.effects.push(Effect::AnswerCaller);
            self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
        }
    }

    fn on_leg_gone(&mut self, at: Timestamp, cause: Option<i32>, sip: Option<i32>) {
        self.note_unseen_answer(at);
        let was_answered =
            self.leg.is_some_and(|leg| self.attempt_mut(leg.attempt).answered_at.is_some());
        let Some(leg) = &mut self.leg else { return };
        match self.state {
            // An earlier run died before it had made the leg, or just then.
            State::Dialling if cause.is_none() && self.again.is_some() => {
                self.leg_over(at, AttemptResult::Canceled, None, None);
                self.next(at);
            }
            // It was answered, or may have been since nobody saw its end, and the caller with it.
            State::Dialling | State::Detaching if cause.is_none() || was_answered => {
                leg.gone = Some(Gone { at, cause, sip });
                let attempt = leg.attempt;
                self.state = State::Answering;
                self.effects.push(Effect::CheckCaller);
                self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
            }
            State::Creating | State::Dialling | State::Detaching => {
                self.again = None;
                let result = attempt_result(cause.unwrap_or(cause::SUBSCRIBER_ABSENT), sip);
                self.leg_over(at, result, cause, sip);
                self.next(at);
            }
            State::GivingUp(result) => {
                self.leg_over(at, result, cause, sip);
                self.next(at);
            }
            // The client answered and hung up: was the caller answered in between?
            State::Answering => {
                leg.gone = Some(Gone { at, cause, sip });
                self.effects.push(Effect::CheckCaller);
            }
            // Did the caller hear the answer at all? That is known in a moment.
            State::Talking if !self.settled && self.unseen_since.is_none() => {
                leg.gone = Some(Gone { at, cause, sip });
            }
            State::Talking => {
                let (ended_at, outcome) = self.end_of_talk(at);
                self.outcome = Some(outcome);
                self.ended = Some((ended_at, cause.unwrap_or(cause::NORMAL)));
                self.leg_over(ended_at, AttemptResult::Answered, cause, sip);
                self.end(at, cause::NORMAL);
            }
            State::Ending => {
                let result = self.last_result().unwrap_or(AttemptResult::Canceled);
                self.leg_over(at, result, cause, sip);
            }
            State::Routing | State::Closed => {}
        }
    }

    /// The attempt is over, and its hold is free.
    fn leg_over(
        &mut self,
        at: Timestamp,
        result: AttemptResult,
        cause: Option<i32>,
        sip: Option<i32>,
    ) {
        let Some(leg) = self.leg.take() else { return };
        let call = self.record.call;
        let attempt = self.attempt_mut(leg.attempt);
        let seen = attempt.answered_at.or(attempt.ringing_at).unwrap_or(attempt.held_at);
        attempt.ended_at = Some(at.max(seen));
        attempt.result = Some(result);
        attempt.cause = cause;
        attempt.sip = sip;
        let hold = attempt.hold(call);
        if result == AttemptResult::Answered {
            self.settle(leg.attempt);
        }
        self.effects.push(Effect::Release(hold));
    }

    fn give_up(&mut self, attempt: u32, result: AttemptResult, cause: i32) {
        self.state = State::GivingUp(result);
        self.hang_up_leg(attempt, cause);
        self.effects.push(Effect::Arm(Timer::Gone(attempt), GONE));
    }

    fn hang_up_leg(&mut self, attempt: u32, cause: i32) {
        self.effects.push(Effect::HangUpLeg { attempt, cause });
    }

    // --- the caller's leg ---

    fn on_caller_answered(&mut self, at: Timestamp) {
        if self.caller != Caller::Waiting || self.is_taken_back {
            return;
        }
        self.caller = Caller::Answered;
        self.heard_at = Some(at);
        if let (State::Answering, Some(leg)) = (self.state, self.leg) {
            self.talk(at, leg.attempt);
        }
        self.talk_while_detaching(at);
    }

    /// Both are answered, so they were in the bridge: what the detaching finds, which may
    /// take long, doesn't change that.
    fn talk_while_detaching(&mut self, at: Timestamp) {
        let (State::Detaching, Caller::Answered, Some(leg)) = (self.state, self.caller, self.leg)
        else {
            return;
        };
        if self.attempt_mut(leg.attempt).answered_at.is_some() {
            self.effects.push(Effect::JoinLeg { attempt: leg.attempt });
            self.talk(at, leg.attempt);
        }
    }

    /// A check found the caller unanswered.
    fn on_caller_waiting(&mut self, at: Timestamp) {
        let (State::Answering, Some(leg)) = (self.state, self.leg) else { return };
        let Leg { attempt, gone: Some(gone), unheard } = leg else { return };
        // The answer may still be on its way through a busy switch to the caller.
        if !unheard {
            self.leg = Some(Leg { unheard: true, ..leg });
            self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
            return;
        }
        // The client was gone before the caller was answered: on to the next.
        let result = match self.attempt_mut(attempt).answered_at.take() {
            Some(_) => AttemptResult::Rejected,
            // It ended unseen, and late enough: Asterisk's own timer, or ours unheard.
            None if gone.cause.is_none() && self.had_its_time(attempt, gone.at) => {
                AttemptResult::NoAnswer
            }
            None => attempt_result(gone.cause.unwrap_or(cause::SUBSCRIBER_ABSENT), gone.sip),
        };
        self.leg_over(at, result, gone.cause, gone.sip);
        self.next(at);
    }

    /// The caller hung up, so the leg's end should follow at once. It doesn't
    /// where the hang-up met Asterisk's own answer: then the channel stays in
    /// the bridge, up and without a caller, until it is hung up (Asterisk 22.10).
    fn on_caller_ending(&mut self, at: Timestamp, cause: i32, sip: Option<i32>) {
        if self.state == State::Talking && !self.settled && sip == Some(REQUEST_TERMINATED) {
            return self.take_answer_back(at);
        }
        if sip == Some(REQUEST_TERMINATED) && self.state != State::Talking {
            self.is_taken_back = true;
            if self.caller == Caller::Answered {
                self.caller = Caller::Waiting;
                self.heard_at = None;
            }
        }
        self.caller_cause = Some(cause);
        if self.caller != Caller::Gone {
            self.effects.push(Effect::Arm(Timer::CallerGone, LEFT));
        }
    }

    fn on_caller_gone(&mut self, at: Timestamp) {
        if self.caller == Caller::Gone {
            return;
        }
        if self.state == State::Talking {
            self.leg_had_gone();
        }
        self.note_unseen_answer(at);
        self.caller = Caller::Gone;
        match self.state {
            State::Ending | State::Closed => {}
            State::Talking => {
                let (ended_at, outcome) = self.end_of_talk(at);
                self.outcome = Some(outcome);
                self.ended = Some((ended_at, self.caller_cause.unwrap_or(cause::NORMAL)));
                self.end(at, cause::NORMAL);
            }
            _ if self.unseen_since.is_some() => {
                self.outcome = Some(Outcome::INTERRUPTED);
                self.ended =
                    Some((self.unseen_since.map_or(at, |seen| seen.min(at)), cause::NORMAL));
                self.end(at, cause::NORMAL);
            }
            _ => {
                self.outcome = Some(Outcome::ABANDONED);
                self.ended = Some((at, cause::NORMAL));
                self.end(at, cause::NORMAL);
            }
        }
    }

    /// A run that goes on with the call has to know how long nobody has heard of it.
    fn note_unseen(&mut self, since: Option<Timestamp>) {
        if self.record.unseen_since != since
            && !self.record.attempts.is_empty()
            && !self.is_ending()
        {
            self.record.unseen_since = since;
            self.save();
        }
    }

    fn on_apart(&mut self) {
        if let (State::Talking, Some(Leg { attempt, gone: None, .. })) = (self.state, self.leg) {
            self.effects.push(Effect::CreateBridge);
            self.effects.push(Effect::JoinLeg { attempt });
        }
    }

    /// Everything ended when the old switch did, which is when it was last heard.
    fn on_switch_restarted(&mut self, at: Timestamp) {
        let seen = *self.unseen_since.get_or_insert(at.max(self.record.last_seen()));
        let lost = seen.min(at);
        self.bridge = false;
        self.on_caller_gone(lost);
        if self.leg.is_some() {
            self.on_leg_gone(lost, None, None);
        }
        self.effects.retain(|effect| {
            !matches!(effect, Effect::HangUpLeg { .. } | Effect::HangUpCaller { .. })
        });
    }

    /// The caller was answered, so the client was too, though nobody said so yet.
    fn note_unseen_answer(&mut self, at: Timestamp) {
        let rings = matches!(self.state, State::Dialling | State::Detaching);
        if rings && self.caller == Caller::Answered {
            self.talk_to_leg(at);
        }
    }

    /// The talk was one: a leg that is gone by now ended it.
    fn leg_had_gone(&mut self) {
        let Some(Leg { attempt, gone, .. }) = self.leg else { return };
        self.settle(attempt);
        if let Some(Gone { at, cause, sip }) = gone {
            self.on_leg_gone(at, cause, sip);
        }
    }

    fn talk_to_leg(&mut self, at: Timestamp) {
        if let Some(leg) = self.leg {
            self.talk(at, leg.attempt);
        }
    }

    /// Both are connected: from here on the call is sold.
    fn talk(&mut self, at: Timestamp, attempt: u32) {
        self.state = State::Talking;
        self.record.answered_at = Some(self.heard_at.unwrap_or(at));
        let attempt = self.attempt_mut(attempt);
        attempt.result = Some(AttemptResult::Answered);
        let position = attempt.position;
        self.save();
        self.effects.push(Effect::Show(LiveState::Talking));
        self.effects.push(Effect::Arm(Timer::Settle(position), SETTLE));
    }

    /// The unit of volume is used from here on, for good.
    fn settle(&mut self, attempt: u32) {
        if !std::mem::replace(&mut self.settled, true) {
            self.effects.push(Effect::Settle(HoldId { call: self.record.call, attempt }));
        }
    }

    /// The caller's hang-up met Asterisk's answer, and won: Asterisk shows the
    /// caller as answered, but the 200 was never sent (Asterisk 22.10).
    fn take_answer_back(&mut self, at: Timestamp) {
        self.record.answered_at = None;
        if let Some(attempt) = self.record.attempts.last_mut() {
            attempt.result = Some(AttemptResult::Canceled);
        }
        self.outcome = Some(Outcome::ABANDONED);
        self.ended = Some((at, cause::NORMAL));
        self.end(at, cause::NORMAL);
    }

    // --- the end ---

    fn on_hang_up(&mut self, at: Timestamp, told: Option<String>) {
        if !matches!(self.state, State::Ending | State::Closed) {
            self.record.hung_up = told;
        }
        match self.state {
            State::Ending | State::Closed => {}
            State::Talking => {
                self.outcome = Some(Outcome::ANSWERED);
                self.ended = Some((at, cause::NORMAL));
                self.end(at, cause::NORMAL);
            }
            _ => self.abort(at, Outcome::SYSTEM_ERROR),
        }
    }

    /// Ends a call that isn't answered, for a reason of ours.
    fn abort(&mut self, at: Timestamp, outcome: Outcome) {
        if !matches!(self.state, State::Talking | State::Ending) {
            self.release_caller(at, outcome);
        }
    }

    /// Nobody gets the call: the caller is told why by the SIP answer.
    fn release_caller(&mut self, at: Timestamp, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.ended = Some((at, outcome.release_cause()));
        self.end(at, outcome.release_cause());
    }

    /// Takes down whatever is still up.
    fn end(&mut self, at: Timestamp, caller_cause: i32) {
        self.state = State::Ending;
        if let Some(Leg { gone: Some(gone), .. }) = self.leg {
            let result = self.last_result().unwrap_or(AttemptResult::Canceled);
            self.leg_over(gone.at, result, gone.cause, gone.sip);
        }
        // How it ended is known from here on, whoever takes the legs down.
        self.record.ending = Some(self.end_as_known(at));
        self.save();
        self.effects.push(Effect::Show(LiveState::Ending));
        self.take_down(caller_cause);
        self.effects.push(Effect::Arm(Timer::End, END));
    }

    fn end_as_known(&self, at: Timestamp) -> End {
        let (ended_at, cause) = self.ended.unwrap_or((at, cause::NORMAL));
        End {
            at: ended_at.max(self.record.answered_at.unwrap_or(self.record.started_at)),
            outcome: self.outcome.unwrap_or(Outcome::SYSTEM_ERROR),
            cause,
        }
    }

    fn take_down(&mut self, caller_cause: i32) {
        if let Some(leg) = self.leg {
            self.hang_up_leg(leg.attempt, cause::NORMAL);
        }
        if self.caller != Caller::Gone {
            self.effects.push(Effect::HangUpCaller { cause: caller_cause });
        }
    }

    fn close_if_over(&mut self, at: Timestamp) {
        let over = self.state == State::Ending
            && self.caller == Caller::Gone
            && self.leg.is_none()
            && !self.reserving;
        if !over {
            return;
        }
        self.record.unseen_since = None;
        self.record.ending = None;
        self.record.end = Some(self.end_as_known(at));
        if self.bridge {
            self.effects.push(Effect::DestroyBridge);
        }
        self.save();
        self.state = State::Closed;
        self.effects.push(Effect::Close);
    }

    // --- waiting ---

    fn on_timer(&mut self, timer: Timer) {
        match (timer, self.state) {
            (Timer::Setup(attempt), State::Creating) if self.is_leg(attempt) => {
                self.give_up(attempt, AttemptResult::Unreachable, cause::NORMAL);
            }
            // Again and again, until the switch has said what became of it.
            (Timer::Ring(attempt), State::Dialling | State::Detaching) if self.is_leg(attempt) => {
                self.state = State::Detaching;
                self.again = None;
                self.effects.push(Effect::DetachLeg { attempt });
                self.effects.push(Effect::Arm(timer, GONE));
            }
            (Timer::Answer(attempt), State::Answering) if self.is_leg(attempt) => {
                let gone = self.leg.is_some_and(|leg| leg.gone.is_some());
                let remedy = if gone { Effect::CheckCaller } else { Effect::AnswerCaller };
                self.effects.push(remedy);
                self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
            }
            (Timer::Settle(attempt), State::Talking) if self.is_leg(attempt) => {
                self.leg_had_gone();
            }
            (Timer::Gone(attempt), _) if self.is_leg(attempt) => {
                self.effects.push(Effect::CheckLeg { attempt });
                if matches!(self.state, State::GivingUp(_)) {
                    self.hang_up_leg(attempt, cause::NORMAL);
                    self.effects.push(Effect::Arm(timer, GONE));
                }
            }
            (Timer::CallerGone, _) if self.caller != Caller::Gone => {
                self.effects.push(Effect::CheckCaller);
                self.effects.push(Effect::HangUpCaller { cause: cause::NORMAL });
                self.effects.push(Effect::Arm(timer, GONE));
            }
            (Timer::End, State::Ending) => {
                let cause = self.ended.map_or(cause::NORMAL, |(_, cause)| cause);
                self.take_down(cause);
                self.recheck();
                self.effects.push(Effect::Arm(Timer::End, END));
            }
            // The wait was over before its end.
            _ => {}
        }
    }

    fn recheck(&mut self) {
        if self.caller != Caller::Gone {
            self.effects.push(Effect::CheckCaller);
        }
        if let Some(Leg { attempt, gone: None, .. }) = self.leg {
            self.effects.push(Effect::CheckLeg { attempt });
        }
    }

    // --- small things ---

    const fn offer(&self) -> Option<&Offer> {
        match &self.decision {
            Decision::Offer(offer) => Some(offer),
            Decision::Refuse(_) => None,
        }
    }

    fn ring_time(&self) -> Duration {
        let seconds = self.offer().map_or(1, |offer| offer.campaign.dial_timeout_seconds);
        Duration::from_secs(u64::from(seconds))
    }

    /// Whether the client had been rung for as long as the campaign allows.
    fn had_its_time(&mut self, attempt: u32, at: Timestamp) -> bool {
        let rung = at - self.attempt_mut(attempt).held_at;
        rung.to_std().is_ok_and(|rung| rung >= self.ring_time())
    }

    /// What ended while nobody watched ended when it was last known to be up.
    fn end_of_talk(&self, at: Timestamp) -> (Timestamp, Outcome) {
        match self.unseen_since {
            Some(seen) => (seen.min(at), Outcome::INTERRUPTED_TALK),
            None => (at, Outcome::ANSWERED),
        }
    }

    fn is_leg(&self, attempt: u32) -> bool {
        self.leg.is_some_and(|leg| leg.attempt == attempt)
    }

    fn attempt_mut(&mut self, attempt: u32) -> &mut Attempt {
        let place = attempt as usize - 1;
        self.record.attempts.get_mut(place).expect("a leg's attempt was noted before the leg")
    }

    fn last_result(&self) -> Option<AttemptResult> {
        self.record.attempts.last().and_then(|attempt| attempt.result)
    }

    fn save(&mut self) {
        self.effects.push(Effect::Save(Box::new(self.record.clone())));
    }
}
