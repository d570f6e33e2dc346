//! What becomes of the caller's leg.

use capconduit_entity::AttemptResult;

use super::waiting::{ANSWER, LEFT, REQUEST_TERMINATED};
use super::{Caller, Effect, Leg, Machine, State, Timer};
use crate::call::outcome::{Outcome, attempt_result, cause};
use crate::clock::Timestamp;

impl Machine {
    pub(super) fn on_caller_answered(&mut self, at: Timestamp) {
        if self.caller != Caller::Waiting || self.taken_back.is_some() {
            return;
        }
        let may_have_talked = self.state == State::Ending && self.may_have_talked();
        self.caller = Caller::Answered;
        self.heard_at = Some(at);
        if may_have_talked {
            self.had_talked(at);
        }
        if let (State::Answering, Some(leg)) = (self.state, self.leg) {
            self.talk(at, leg.attempt);
        }
        self.talk_while_detaching(at);
        // It was a client whom the call has given up on, and nobody else is asked.
        let between = matches!(self.state, State::Routing | State::Creating);
        if between && self.record.attempts.iter().any(|attempt| attempt.ended_at.is_some()) {
            self.nobody_left(at);
        }
    }

    /// A check found the caller unanswered.
    pub(super) fn on_caller_waiting(&mut self, at: Timestamp) {
        if self.state == State::Routing && !self.blind && std::mem::take(&mut self.awaits_caller) {
            return self.next(at);
        }
        let (State::Answering, Some(leg)) = (self.state, self.leg) else { return };
        let Leg { attempt, gone: Some(gone), unheard, .. } = leg else { return };
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
    pub(super) fn on_caller_ending(&mut self, at: Timestamp, cause: i32, sip: Option<i32>) {
        let is_answered = self.record.answered_at.is_some();
        if is_answered && !self.settled && sip == Some(REQUEST_TERMINATED) {
            return self.take_answer_back(at);
        }
        if sip == Some(REQUEST_TERMINATED) && self.state != State::Talking {
            self.taken_back.get_or_insert(at);
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

    pub(super) fn on_caller_gone(&mut self, at: Timestamp) {
        if self.caller == Caller::Gone {
            return;
        }
        if self.state == State::Talking {
            self.leg_had_gone();
        }
        self.note_unseen_answer(at);
        self.caller = Caller::Gone;
        match self.state {
            State::Ending => self.known_leg_over(),
            State::Closed => {}
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
                self.ended = Some((self.taken_back.unwrap_or(at), cause::NORMAL));
                self.end(at, cause::NORMAL);
            }
        }
    }
}
