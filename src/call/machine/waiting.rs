//! Every wait has an end, at which the switch is asked what is true.

use std::time::Duration;

use super::{Caller, Effect, Machine, State, Timer};
use crate::call::outcome::cause;
use crate::clock::Timestamp;
use capconduit_entity::AttemptResult;

pub(super) const SETUP: Duration = Duration::from_secs(3);
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// A hang-up that met the answer is announced within a few milliseconds, as fast as
/// events are.
pub(super) const SETTLE: Duration = EVENTS_LAG;
/// The SIP status of a call that its caller took back.
pub(super) const REQUEST_TERMINATED: i32 = 487;
/// Answers to commands overtake events by no more than this.
pub(super) const EVENTS_LAG: Duration = Duration::from_millis(200);
pub(super) const GONE: Duration = Duration::from_secs(2);
/// After a leg left our application its end is announced at once.
pub(super) const LEFT: Duration = Duration::from_millis(300);
pub(super) const END: Duration = Duration::from_secs(3);

impl Machine {
    /// Whether the leg isn't known to be gone.
    fn awaits_end_of(&self, attempt: u32) -> bool {
        self.leg.is_some_and(|leg| leg.attempt == attempt && leg.gone.is_none())
    }

    pub(super) fn on_timer(&mut self, at: Timestamp, timer: Timer) {
        match (timer, self.state) {
            (Timer::Setup(attempt), State::Creating) if self.is_leg(attempt) => {
                if self.leg.is_some_and(|leg| leg.idle) {
                    self.on_leg_entered(at, attempt);
                } else {
                    self.give_up(attempt, AttemptResult::Unreachable, cause::NORMAL);
                }
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
                let answer = Effect::AnswerCaller { attempt };
                self.effects.push(if gone { Effect::CheckCaller } else { answer });
                self.effects.push(Effect::Arm(Timer::Answer(attempt), ANSWER));
            }
            (Timer::Settle(attempt), State::Talking) if self.is_leg(attempt) => {
                self.leg_had_gone();
            }
            (Timer::Next, State::Routing) if self.awaits_caller => {
                if !self.blind {
                    self.effects.push(Effect::CheckCaller);
                }
                self.effects.push(Effect::Arm(timer, ANSWER));
            }
            // The answer may be lost.
            (Timer::Gone(attempt), _) if self.awaits_end_of(attempt) => {
                self.effects.push(Effect::CheckLeg { attempt });
                if matches!(self.state, State::GivingUp(_)) {
                    self.hang_up_leg(attempt, cause::NORMAL);
                }
                self.effects.push(Effect::Arm(timer, GONE));
            }
            (Timer::LegMissing(attempt), _) if self.awaits_end_of(attempt) => {
                self.on_leg_gone(at, None, None);
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
}
