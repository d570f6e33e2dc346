//! What the switch doesn't tell: it isn't heard, or has started anew.

use super::{Caller, Effect, Found, Input, Leg, Machine, State};
use crate::clock::Timestamp;

impl Machine {
    /// A run that goes on with the call has to know how long nobody has heard of it.
    pub(super) fn note_unseen(&mut self, since: Option<Timestamp>) {
        if self.record.unseen_since != since
            && !self.record.attempts.is_empty()
            && !self.is_ending()
        {
            self.record.unseen_since = since;
            self.save();
        }
    }

    /// What was not heard of for a while is found to be up.
    pub(super) fn note_found(&mut self, at: Timestamp, input: &Input) {
        if self.unseen_since.is_none() {
            return;
        }
        if let Some(found) = self.found_up(at, input) {
            let both = self.found.caller.is_some() && self.found.leg.is_some();
            self.found = Found::default();
            self.unseen_since = self.blind.then_some(found);
            self.note_unseen(self.unseen_since);
            if both {
                self.talked_on();
            }
        }
    }

    /// A leg that was found, or told of, since events flow is there until an event says
    /// something else.
    pub(super) fn note_leg(&mut self, input: &Input) {
        let (Input::LegEntered { attempt }
        | Input::LegSeen { attempt }
        | Input::LegRinging { attempt }
        | Input::LegIdle { attempt }
        | Input::LegAnswered { attempt }
        | Input::LegDetached { attempt, .. }) = *input
        else {
            return;
        };
        if let Some(leg) = self.leg.as_mut().filter(|leg| leg.attempt == attempt) {
            leg.unseen &= self.blind;
        }
    }

    /// When the call was found to be up, if this says so. Once somebody is answered it is
    /// up only while both legs are; an event that tells of a leg's end says that it was
    /// there until then.
    fn found_up(&mut self, at: Timestamp, input: &Input) -> Option<Timestamp> {
        let talks = self.state == State::Talking || self.caller == Caller::Answered;
        match *input {
            Input::LegRinging { .. } | Input::CallerWaiting => return Some(at),
            Input::LegDetached { answered: false, .. } if !talks => return Some(at),
            Input::LegAnswered { attempt }
            | Input::LegDetached { attempt, .. }
            | Input::LegGone { attempt, cause: Some(_), .. }
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

    /// Everything ended when the old switch did, which is when it was last heard.
    pub(super) fn on_switch_restarted(&mut self, at: Timestamp) {
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

    pub(super) fn recheck(&mut self) {
        if self.caller != Caller::Gone {
            self.effects.push(Effect::CheckCaller);
        }
        if let Some(Leg { attempt, gone: None, .. }) = self.leg {
            self.effects.push(Effect::CheckLeg { attempt });
        }
    }
}
