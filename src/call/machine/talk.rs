//! The conversation: when it is one, when it is sold, and when it ended.

use capconduit_entity::AttemptResult;

use super::waiting::SETTLE;
use super::{Caller, Effect, Gone, Leg, Machine, State, Timer};
use crate::call::outcome::{Outcome, cause};
use crate::capacity::HoldId;
use crate::clock::Timestamp;
use crate::live::LiveState;

impl Machine {
    /// The caller was answered, so the client was too, though nobody said so yet.
    pub(super) fn note_unseen_answer(&mut self, at: Timestamp) {
        let rings = self.may_be_answered() || self.state == State::Detaching;
        if rings && self.caller == Caller::Answered {
            self.talk_to_leg(at);
        }
    }

    /// The talk was one: a leg that is gone by now ended it.
    pub(super) fn leg_had_gone(&mut self) {
        let Some(Leg { attempt, gone, .. }) = self.leg else { return };
        self.settle(attempt);
        if let Some(Gone { at, cause, sip }) = gone {
            self.on_leg_gone(at, cause, sip);
        }
    }

    /// Both are answered, so they were in the bridge: what the detaching finds, which may
    /// take long, doesn't change that.
    pub(super) fn talk_while_detaching(&mut self, at: Timestamp) {
        let (State::Detaching, Caller::Answered, Some(leg)) = (self.state, self.caller, self.leg)
        else {
            return;
        };
        if self.attempt_mut(leg.attempt).answered_at.is_some() {
            self.effects.push(Effect::JoinLeg { attempt: leg.attempt });
            self.talk(at, leg.attempt);
        }
    }

    pub(super) fn talk_to_leg(&mut self, at: Timestamp) {
        if let Some(leg) = self.leg {
            self.talk(at, leg.attempt);
        }
    }

    /// Both are connected: from here on the call is sold.
    pub(super) fn talk(&mut self, at: Timestamp, attempt: u32) {
        self.state = State::Talking;
        let since = self.heard_at.unwrap_or(at);
        self.record.answered_at = Some(since);
        let attempt = self.attempt_mut(attempt);
        attempt.result = Some(AttemptResult::Answered);
        let position = attempt.position;
        self.save();
        self.effects.push(Effect::Show(LiveState::Talking, since));
        self.effects.push(Effect::Arm(Timer::Settle(position), SETTLE));
    }

    /// The unit of volume is used from here on, for good.
    pub(super) fn settle(&mut self, attempt: u32) {
        if !std::mem::replace(&mut self.settled, true) {
            self.effects.push(Effect::Settle(HoldId { call: self.record.call, attempt }));
        }
    }

    /// The caller's hang-up met Asterisk's answer, and won: Asterisk shows the
    /// caller as answered, but the 200 was never sent (Asterisk 22.10).
    pub(super) fn take_answer_back(&mut self, at: Timestamp) {
        self.record.answered_at = None;
        if let Some(attempt) = self.record.attempts.last_mut() {
            attempt.result = Some(AttemptResult::Canceled);
        }
        self.outcome = Some(Outcome::ABANDONED);
        self.ended = Some((at, cause::NORMAL));
        self.end(at, cause::NORMAL);
    }

    pub(super) fn on_apart(&mut self) {
        if let (State::Talking, Some(Leg { attempt, gone: None, .. })) = (self.state, self.leg) {
            self.effects.push(Effect::CreateBridge);
            self.effects.push(Effect::JoinLeg { attempt });
        }
    }

    /// What ended while nobody watched ended when it was last known to be up.
    pub(super) fn end_of_talk(&self, at: Timestamp) -> (Timestamp, Outcome) {
        match self.unseen_since {
            Some(seen) => (seen.min(at), Outcome::INTERRUPTED_TALK),
            None => (at, Outcome::ANSWERED),
        }
    }
}
