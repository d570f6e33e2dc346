//! What becomes of the client's leg.

use capconduit_entity::AttemptResult;

use super::waiting::{ANSWER, GONE, LEFT};
use super::{Caller, Effect, Gone, Machine, State, Timer};
use crate::call::outcome::{attempt_result, cause};
use crate::clock::Timestamp;
use crate::live::LiveState;

impl Machine {
    pub(super) fn on_leg_entered(&mut self, at: Timestamp, attempt: u32) {
        if let Some(leg) = &mut self.leg {
            leg.entered = true;
        }
        match self.state {
            State::Creating => {
                let ring = self.ring_time();
                self.state = State::Dialling;
                self.effects.push(Effect::DialLeg { attempt, ring });
                self.effects.push(Effect::Arm(Timer::Ring(attempt), ring));
                self.effects.push(Effect::Show(LiveState::Ringing, at));
            }
            // It was hung up before it existed.
            State::GivingUp(_) | State::Ending => self.hang_up_leg(attempt, cause::NORMAL),
            _ => {}
        }
    }

    /// Its client has the call: a run that goes on with it must not send it once more.
    pub(super) fn note_dialled(&mut self, at: Timestamp, attempt: u32) {
        let attempt = self.attempt_mut(attempt);
        if attempt.dialled_at.is_none() {
            attempt.dialled_at = Some(at);
            self.save();
        }
    }

    pub(super) fn on_leg_answered(&mut self, at: Timestamp, attempt: u32) {
        if self.state == State::Detaching {
            self.attempt_mut(attempt).answered_at.get_or_insert(at);
            return self.talk_while_detaching(at);
        }
        // In any other state it is a repetition, or an answer that came too late.
        if !self.may_be_answered() {
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

    /// Whether the client is rung in the caller's bridge; so it may be, too, where an
    /// adopted leg is made anew because nobody knew that it had been dialled.
    pub(super) const fn may_be_answered(&self) -> bool {
        matches!(self.state, State::Dialling | State::GivingUp(AttemptResult::Canceled))
    }

    /// The ring time is over. Whoever answered before the leg was out of the
    /// bridge has the call, whoever answers later has not.
    pub(super) fn on_leg_detached(&mut self, at: Timestamp, attempt: u32, answered: bool) {
        if self.state != State::Detaching {
            return;
        }
        let caller_answered = self.caller == Caller::Answered;
        let known = self.attempt_mut(attempt).answered_at;
        if !answered && known.is_none() {
            self.give_up(attempt, AttemptResult::NoAnswer, cause::NO_ANSWER);
            return;
        }
        self.attempt_mut(attempt).answered_at = Some(known.unwrap_or(at));
        self.effects.push(Effect::JoinLeg { attempt });
        if caller_answered {
            self.talk(at, attempt);
        } else {
            self.state = State::Answering;
            self.effects.push(Effect::AnswerCaller { attempt });
            self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
        }
    }

    pub(super) fn on_leg_left(&mut self, attempt: u32) {
        if let Some(leg) = &mut self.leg {
            leg.left = true;
        }
        self.effects.push(Effect::Arm(Timer::Gone(attempt), LEFT));
    }

    pub(super) fn on_leg_gone(&mut self, at: Timestamp, cause: Option<i32>, sip: Option<i32>) {
        let was_answered =
            self.leg.is_some_and(|leg| self.attempt_mut(leg.attempt).answered_at.is_some());
        // An end that is told says before whether it was one of an answered leg.
        if cause.is_none() || was_answered {
            self.note_unseen_answer(at);
        }
        let is_undecided = self.is_undecided();
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
                leg.note_gone(Gone { at, cause, sip });
                self.effects.push(Effect::CheckCaller);
            }
            // Did the caller hear the answer at all? That is known in a moment.
            State::Talking if !self.settled && self.unseen_since.is_none() => {
                leg.note_gone(Gone { at, cause, sip });
            }
            State::Talking => {
                let (ended_at, outcome) = self.end_of_talk(at);
                self.outcome = Some(outcome);
                self.ended = Some((ended_at, cause.unwrap_or(cause::NORMAL)));
                self.leg_over(ended_at, AttemptResult::Answered, cause, sip);
                self.end(at, cause::NORMAL);
            }
            State::Ending if is_undecided => {
                leg.note_gone(Gone { at, cause, sip });
            }
            State::Ending => {
                let result = self.last_result().unwrap_or(AttemptResult::Canceled);
                self.leg_over(at, result, cause, sip);
            }
            State::Routing | State::Closed => {}
        }
    }

    /// The attempt is over, and its hold is free.
    pub(super) fn leg_over(
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
        attempt.dialled_at = None;
        attempt.result = Some(result);
        attempt.cause = cause;
        attempt.sip = sip;
        let hold = attempt.hold(call);
        if result == AttemptResult::Answered {
            self.settle(leg.attempt);
        }
        self.effects.push(Effect::Release(hold));
    }

    pub(super) fn give_up(&mut self, attempt: u32, result: AttemptResult, cause: i32) {
        self.state = State::GivingUp(result);
        self.hang_up_leg(attempt, cause);
        self.effects.push(Effect::Arm(Timer::Gone(attempt), GONE));
    }

    pub(super) fn hang_up_leg(&mut self, attempt: u32, cause: i32) {
        self.effects.push(Effect::HangUpLeg { attempt, cause });
    }
}
