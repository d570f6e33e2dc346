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

mod caller_leg;
mod client_leg;
mod end;
mod routing;
mod taken_up;
mod talk;
#[cfg(test)]
mod tests;
mod unseen;
mod waiting;
mod words;

use std::sync::Arc;
use std::time::Duration;

use capconduit_entity::AttemptResult;

use self::waiting::EVENTS_LAG;
use super::outcome::{Outcome, cause};
use super::record::{Attempt, CallRecord};
use crate::capacity::Refusal;
use crate::clock::Timestamp;
use crate::routing::{Decision, Link, Offer};

pub use words::{Effect, Input, Timer};

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
    /// It was made, whatever the answer to an attempt to make it says.
    entered: bool,
    /// It left our application: its end is on its way.
    left: bool,
    /// It may have ended while nobody listened.
    unseen: bool,
    /// It is gone, but what that means for the caller isn't known yet.
    gone: Option<Gone>,
    /// The caller was found unanswered after it.
    unheard: bool,
    /// It was found to wait for being dialled, though nobody said that it has entered.
    idle: bool,
}

impl Leg {
    /// One that is about to be made.
    const fn new(attempt: u32) -> Self {
        Self {
            attempt,
            entered: false,
            left: false,
            unseen: false,
            gone: None,
            unheard: false,
            idle: false,
        }
    }

    /// An event knows when and why; a look, which may come after it, only that it is so.
    fn note_gone(&mut self, gone: Gone) {
        if self.gone.is_none_or(|known| known.cause.is_none()) {
            self.gone = Some(gone);
        }
    }
}

/// When the legs of an answered call were found to be up.
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
    /// When the ledger was asked, as long as its answer is outstanding.
    asked_at: Option<Timestamp>,
    /// The next client is to be asked as soon as events flow and the caller is found waiting.
    awaits_caller: bool,
    /// The answered attempt's unit of volume is used.
    settled: bool,
    /// One that an audit found last, and that the call has given up on.
    stray: Option<u32>,
    bridge: bool,
    /// It may be that an earlier run didn't come as far as making it.
    rebridge: bool,
    /// Links still to be tried, in the frozen order.
    left: Vec<Arc<Link>>,
    /// The link of an adopted attempt whose client isn't known to have been dialled.
    again: Option<Arc<Link>>,
    refusals: Vec<Refusal>,
    /// Why the caller's leg ends, as the switch says.
    caller_cause: Option<i32>,
    /// When the caller was seen to be answered.
    heard_at: Option<Timestamp>,
    /// When the caller got a 487: whatever the switch shows, it was never answered.
    taken_back: Option<Timestamp>,
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
    /// When we hung up a talk of which it wasn't known whether it still was one.
    hung_up_unseen: Option<Timestamp>,
    effects: Vec<Effect>,
}

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
            asked_at: None,
            awaits_caller: false,
            settled: false,
            stray: None,
            bridge: false,
            rebridge: false,
            left,
            again: None,
            refusals: Vec::new(),
            caller_cause: None,
            heard_at: None,
            taken_back: None,
            outcome: None,
            ended: None,
            unseen_since: None,
            found: Found::default(),
            blind: false,
            hung_up_unseen: None,
            effects: Vec::new(),
        }
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
        self.note_found(at, &input);
        self.note_leg(&input);
        self.step(at, input);
        self.close_if_over(at);
        std::mem::take(&mut self.effects)
    }

    fn step(&mut self, at: Timestamp, input: Input) {
        match input {
            Input::Started => self.on_started(at),
            Input::Verdict { attempt, verdict } => self.on_verdict(at, attempt, verdict),
            Input::BridgeFailed => self.abort(at, Outcome::SYSTEM_ERROR),
            // A command that was given up for lost may have made it before the next failed.
            Input::LegNotCreated { attempt }
                if self.leg.is_some_and(|leg| leg.attempt == attempt && !leg.entered) =>
            {
                self.on_leg_gone(at, Some(cause::SUBSCRIBER_ABSENT), None);
            }
            Input::LegEntered { attempt } if self.is_leg(attempt) => {
                self.on_leg_entered(at, attempt);
            }
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
            Input::LegDialled { attempt } if self.is_leg(attempt) && !self.is_ending() => {
                self.note_dialled(at, attempt);
            }
            Input::LegRinging { attempt } if self.is_leg(attempt) => {
                if self.state == State::Dialling {
                    self.attempt_mut(attempt).ringing_at.get_or_insert(at);
                    self.note_dialled(at, attempt);
                }
            }
            Input::LegIdle { attempt } if self.is_leg(attempt) => match self.state {
                // It is about to enter, or another instance was told that it did.
                State::Creating => {
                    if let Some(leg) = &mut self.leg {
                        leg.idle = true;
                    }
                }
                // Whether it was dialled can't be seen: it is made anew.
                State::Dialling if self.again.is_some() => {
                    self.give_up(attempt, AttemptResult::Canceled, cause::NORMAL);
                }
                _ => {}
            },
            Input::LegAnswered { attempt } if self.is_leg(attempt) => {
                self.on_leg_answered(at, attempt);
            }
            Input::LegDetached { attempt, answered } if self.is_leg(attempt) => {
                self.on_leg_detached(at, attempt, answered);
            }
            Input::LegLeft { attempt } if self.is_leg(attempt) => self.on_leg_left(attempt),
            Input::LegMissing { attempt } if self.expects_leg(attempt) => {
                self.effects.push(Effect::Arm(Timer::LegMissing(attempt), EVENTS_LAG));
            }
            // It was to end, or did so while nobody listened: no event is on its way.
            Input::LegMissing { attempt } if self.is_leg(attempt) => {
                self.on_leg_gone(at, None, None);
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
            Input::Timer(timer) => self.on_timer(at, timer),
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
                if let Some(leg) = &mut self.leg {
                    leg.unseen = true;
                }
                self.note_unseen(Some(since));
            }
            // About a leg of an earlier attempt: old news.
            Input::LegNotCreated { .. }
            | Input::LegNotDialled { .. }
            | Input::LegDialled { .. }
            | Input::LegRinging { .. }
            | Input::LegIdle { .. }
            | Input::LegAnswered { .. }
            | Input::LegDetached { .. }
            | Input::LegLeft { .. }
            | Input::LegMissing { .. }
            | Input::LegGone { .. } => {}
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

    fn is_leg(&self, attempt: u32) -> bool {
        self.leg.is_some_and(|leg| leg.attempt == attempt)
    }

    /// Whether the leg should be there, for all that has been told.
    pub fn expects_leg(&self, attempt: u32) -> bool {
        let rings_or_talks = matches!(
            self.state,
            State::Dialling | State::Detaching | State::Answering | State::Talking
        );
        let is_there =
            |leg: Leg| leg.attempt == attempt && leg.gone.is_none() && !leg.left && !leg.unseen;
        rings_or_talks && self.unseen_since.is_none() && self.leg.is_some_and(is_there)
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
