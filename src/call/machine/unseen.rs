//! What the switch doesn't tell: it isn't heard, or has started anew.

use super::{Caller, Effect, Leg, Machine};
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
