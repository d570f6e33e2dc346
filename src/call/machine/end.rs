//! How a call ends: known first, then taken down, then closed.

use capconduit_entity::AttemptResult;

use super::waiting::END;
use super::{Caller, Effect, Leg, Machine, State, Timer};
use crate::call::outcome::{Outcome, cause};
use crate::call::record::End;
use crate::clock::Timestamp;
use crate::live::LiveState;

impl Machine {
    pub(super) fn on_hang_up(&mut self, at: Timestamp, told: Option<String>) {
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
    pub(super) fn abort(&mut self, at: Timestamp, outcome: Outcome) {
        if !matches!(self.state, State::Talking | State::Ending) {
            self.release_caller(at, outcome);
        }
    }

    /// Nobody gets the call: the caller is told why by the SIP answer.
    pub(super) fn release_caller(&mut self, at: Timestamp, outcome: Outcome) {
        self.outcome = Some(outcome);
        self.ended = Some((at, outcome.release_cause()));
        self.end(at, outcome.release_cause());
    }

    /// Takes down whatever is still up.
    pub(super) fn end(&mut self, at: Timestamp, caller_cause: i32) {
        self.state = State::Ending;
        if let Some(Leg { gone: Some(gone), .. }) = self.leg {
            let result = self.last_result().unwrap_or(AttemptResult::Canceled);
            self.leg_over(gone.at, result, gone.cause, gone.sip);
        }
        // How it ended is known from here on, whoever takes the legs down.
        self.record.ending = Some(self.end_as_known(at));
        self.save();
        self.effects.push(Effect::Show(LiveState::Ending, at));
        self.take_down(caller_cause);
        self.effects.push(Effect::Arm(Timer::End, END));
    }

    pub(super) fn end_as_known(&self, at: Timestamp) -> End {
        let (ended_at, cause) = self.ended.unwrap_or((at, cause::NORMAL));
        End {
            at: ended_at.max(self.record.answered_at.unwrap_or(self.record.started_at)),
            outcome: self.outcome.unwrap_or(Outcome::SYSTEM_ERROR),
            cause,
        }
    }

    pub(super) fn take_down(&mut self, caller_cause: i32) {
        if let Some(leg) = self.leg {
            self.hang_up_leg(leg.attempt, cause::NORMAL);
        }
        if self.caller != Caller::Gone {
            self.effects.push(Effect::HangUpCaller { cause: caller_cause });
        }
    }

    pub(super) fn close_if_over(&mut self, at: Timestamp) {
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
}
