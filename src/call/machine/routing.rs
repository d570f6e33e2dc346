//! Who is asked next, and holding capacity for it.

use super::waiting::{ANSWER, SETUP};
use super::{Caller, Effect, Leg, Machine, State, Timer};
use crate::call::outcome::Outcome;
use crate::call::record::Attempt;
use crate::capacity::{HoldId, Request, Turn, Verdict};
use crate::clock::Timestamp;
use crate::live::LiveState;
use crate::routing::{Decision, Offer};

impl Machine {
    pub(super) fn on_started(&mut self, at: Timestamp) {
        if self.unseen_since.is_some() {
            self.go_on(at);
            return;
        }
        match &self.decision {
            Decision::Refuse(reason) => {
                let outcome = Outcome::refused(*reason);
                self.effects.push(Effect::Show(LiveState::Routing, at));
                self.release_caller(at, outcome);
            }
            Decision::Offer(offer) => {
                let turn = offer.first_turn();
                self.reserve(at, turn);
            }
        }
    }

    pub(super) fn reserve(&mut self, at: Timestamp, turn: Turn) {
        let attempt = self.record.attempts.len() + 1;
        let hold = HoldId {
            call: self.record.call,
            attempt: u32::try_from(attempt).expect("a campaign has fewer links than that"),
        };
        let candidates = self.left.iter().map(|link| link.candidate(at)).collect();
        self.state = State::Routing;
        self.asked_at = Some(at);
        self.effects.push(Effect::Show(LiveState::Routing, self.routed_since(at)));
        self.effects.push(Effect::Reserve(Request { hold, candidates, turn }));
    }

    pub(super) fn on_verdict(&mut self, at: Timestamp, attempt: u32, verdict: Option<Verdict>) {
        let expected = self.record.attempts.len() + 1;
        if attempt as usize != expected {
            return;
        }
        let Some(asked_at) = self.asked_at.take() else { return };
        let hold = HoldId { call: self.record.call, attempt };
        let Some(verdict) = verdict else {
            // It may have been held all the same.
            self.effects.push(Effect::Release(hold));
            if self.state == State::Routing {
                self.release_caller(at, Outcome::NO_LEDGER);
            }
            return;
        };
        if self.state != State::Routing {
            self.effects.push(Effect::Release(hold));
            return;
        }
        let candidates = self.record.trace.links.len().min(self.left.len());
        self.record.trace.note_verdict(&verdict, candidates, attempt);
        self.left.rotate_left(verdict.rotated_by);
        self.refusals.extend(verdict.refusals);
        let place = verdict.granted.and_then(|id| self.left.iter().position(|l| l.id == id));
        match place {
            // It counts in the windows of the moment for which it was asked.
            Some(place) => self.create_leg(asked_at, attempt, place),
            None => self.nobody_left(at),
        }
    }

    pub(super) fn create_leg(&mut self, held_at: Timestamp, attempt: u32, place: usize) {
        let link = self.left[place].clone();
        self.left.drain(..=place);
        self.record.attempts.push(Attempt {
            position: attempt,
            link: link.id,
            client: link.client.id,
            client_name: link.client.name.clone(),
            client_identifier: link.client.identifier.clone(),
            held_at,
            dialled_at: None,
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            result: None,
            cause: None,
            sip: None,
        });
        self.leg = Some(Leg::new(attempt));
        self.state = State::Creating;
        self.save();
        let rebridge = std::mem::take(&mut self.rebridge);
        if !std::mem::replace(&mut self.bridge, true) || rebridge {
            self.effects.push(Effect::CreateBridge);
        }
        self.effects.push(Effect::CreateLeg { attempt, endpoint: link.client.endpoint.clone() });
        self.effects.push(Effect::Arm(Timer::Setup(attempt), SETUP));
    }

    pub(super) fn next(&mut self, at: Timestamp) {
        match self.again.take() {
            Some(again) => {
                self.left.insert(0, again);
                self.rebridge = true;
            }
            // Whoever goes on with the call must not ask a client again that has refused.
            None => self.save(),
        }
        match self.offer().map(Offer::later_turn) {
            // Who has heard one client's answer is not offered to another.
            _ if self.caller == Caller::Answered => self.nobody_left(at),
            // A leg that is made while nobody hears of it ends at once.
            Some(_) if !self.left.is_empty() && self.blind => {
                self.state = State::Routing;
                self.awaits_caller = true;
                self.effects.push(Effect::Show(LiveState::Routing, self.routed_since(at)));
                self.effects.push(Effect::Arm(Timer::Next, ANSWER));
            }
            Some(turn) if !self.left.is_empty() => self.reserve(at, turn),
            _ => self.nobody_left(at),
        }
    }

    /// Since when nobody has been rung: an earlier run may have begun to ask for the next.
    fn routed_since(&self, at: Timestamp) -> Timestamp {
        let last = self.record.attempts.last();
        last.map_or(self.record.started_at, |last| last.ended_at.unwrap_or(at))
    }

    pub(super) fn nobody_left(&mut self, at: Timestamp) {
        let results: Vec<_> = self.record.attempts.iter().filter_map(|a| a.result).collect();
        let outcome = if results.is_empty() {
            Outcome::no_room(&self.refusals)
        } else {
            Outcome::unanswered(&results)
        };
        self.release_caller(at, outcome);
    }
}
