//! How a call ends: known first, then taken down, then closed.

use capconduit_entity::AttemptResult;

use super::waiting::END;
use super::{Caller, Effect, Found, Leg, Machine, State, Timer};
use crate::call::outcome::{Outcome, cause};
use crate::call::record::End;
use crate::clock::Timestamp;
use crate::live::LiveState;

impl Machine {
    pub(super) fn on_hang_up(&mut self, at: Timestamp, told: Option<String>) {
        if !matches!(self.state, State::Ending | State::Closed) {
            self.record.hung_up = told;
        }
        self.note_unseen_answer(at);
        match self.state {
            State::Ending | State::Closed => {}
            State::Talking => self.hang_up_talk(at),
            _ => {
                // Whoever isn't told of an answer has to look, before nothing is there.
                if self.unseen_since.is_some() {
                    self.recheck();
                }
                self.abort(at, Outcome::SYSTEM_ERROR);
            }
        }
    }

    /// A talk of which nothing is heard counts until then, unless both are found to be there.
    fn hang_up_talk(&mut self, at: Timestamp) {
        let (ended_at, outcome) = self.end_of_talk(at);
        if self.unseen_since.is_some() {
            self.hung_up_unseen = Some(at);
            // While events flow, what was found would have been said to have changed.
            if self.blind {
                self.found = Found::default();
            }
            self.recheck();
        }
        self.outcome = Some(outcome);
        self.ended = Some((ended_at, cause::NORMAL));
        self.end(at, cause::NORMAL);
    }

    /// Both were still up when we hung up, and nobody has said since that it was no talk.
    pub(super) fn talked_on(&mut self) {
        let Some(at) = self.hung_up_unseen.take() else { return };
        if self.outcome != Some(Outcome::INTERRUPTED_TALK) {
            return;
        }
        self.outcome = Some(Outcome::ANSWERED);
        self.ended = Some((at, cause::NORMAL));
        self.record.ending = Some(self.end_as_known(at));
        self.save();
    }

    /// We hung up, and the client may have answered just before: nobody has said so yet.
    pub(super) fn may_have_talked(&self) -> bool {
        let is_ours = self.outcome == Some(Outcome::SYSTEM_ERROR);
        let is_open = self.caller == Caller::Waiting && self.taken_back.is_none();
        is_ours && is_open && self.leg.is_some()
    }

    /// They were connected before we hung up: the call is sold.
    pub(super) fn had_talked(&mut self, at: Timestamp) {
        let Some(last) = self.record.attempts.last_mut() else { return };
        last.answered_at.get_or_insert(at);
        last.result = Some(AttemptResult::Answered);
        self.record.answered_at = Some(at);
        self.outcome = Some(Outcome::ANSWERED);
        self.ended = self.ended.map(|(ended_at, _)| (ended_at, cause::NORMAL));
        self.record.ending = Some(self.end_as_known(at));
        self.save();
    }

    /// We hung up, and whether the call is sold is known when the caller is gone: the
    /// news of an answer, or that it was taken back, may be on its way.
    pub(super) fn is_undecided(&self) -> bool {
        let may_be_sold = matches!(
            self.outcome,
            Some(Outcome::SYSTEM_ERROR | Outcome::ANSWERED | Outcome::INTERRUPTED_TALK)
        );
        may_be_sold && !self.settled && self.caller != Caller::Gone
    }

    /// The leg was found gone before; now it is known what that means.
    pub(super) fn known_leg_over(&mut self) {
        if let Some(Leg { gone: Some(gone), .. }) = self.leg {
            let result = self.last_result().unwrap_or(AttemptResult::Canceled);
            self.leg_over(gone.at, result, gone.cause, gone.sip);
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
        if !self.is_undecided() {
            self.known_leg_over();
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
            && self.asked_at.is_none();
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
