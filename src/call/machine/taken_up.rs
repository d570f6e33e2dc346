//! Taking up a call that an earlier run of the service left on the switch.

use std::sync::Arc;

use super::waiting::{END, SETUP};
use super::{Caller, Effect, Leg, Machine, State, Timer};
use crate::call::record::{CallRecord, End};
use crate::clock::Timestamp;
use crate::live::LiveState;
use crate::routing::{Decision, Link, Offer};

impl Machine {
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
        machine.record.unseen_since = machine.unseen_since;
        if attempt.ended_at.is_some() {
            // It was asking for the next.
            (machine.bridge, machine.rebridge) = (true, true);
            return machine;
        }
        // Later than this its client had been dialled, or given up.
        let age = (last_alive - attempt.held_at).to_std().unwrap_or_default();
        if age < SETUP && !attempt.is_dialled() {
            machine.again = last;
        }
        machine.leg = Some(Leg { unseen: true, ..Leg::new(attempt.position) });
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

    /// The same where events flow: what a check finds is true until one says otherwise.
    pub fn hearing(mut self) -> Self {
        self.blind = false;
        self
    }

    /// The same for a call whose legs were already being taken down.
    pub(super) fn adopt_ending(mut self, ending: End) -> Self {
        self.state = State::Ending;
        self.outcome = Some(ending.outcome);
        self.ended = Some((ending.at, ending.cause));
        self.bridge = !self.record.attempts.is_empty();
        self.settled = self.record.answered_at.is_some();
        let last = self.record.attempts.last().filter(|attempt| attempt.ended_at.is_none());
        self.leg = last.map(|last| Leg::new(last.position));
        self
    }

    /// Takes up an adopted call.
    pub(super) fn go_on(&mut self, at: Timestamp) {
        if let (State::Ending, Some((ended_at, cause))) = (self.state, self.ended) {
            self.effects.push(Effect::Show(LiveState::Ending, ended_at));
            // Whoever isn't told of an answer has to look, before nothing is there.
            self.recheck();
            self.take_down(cause);
            return self.effects.push(Effect::Arm(Timer::End, END));
        }
        let Some(leg) = self.leg else {
            self.recheck();
            return self.next(at);
        };
        if self.state == State::Talking {
            let answered_at = self.record.answered_at.unwrap_or(at);
            self.effects.push(Effect::Show(LiveState::Talking, answered_at));
        } else {
            // Its client was dialled within moments.
            let held_at = self.attempt_mut(leg.attempt).held_at;
            let rung = (at - held_at).to_std().unwrap_or_default();
            let left = self.ring_time().saturating_sub(rung);
            self.effects.push(Effect::Show(LiveState::Ringing, held_at));
            self.effects.push(Effect::Arm(Timer::Ring(leg.attempt), left));
        }
        self.recheck();
    }
}
