//! What becomes of channels, and what Asterisk tells of it: in the order in which a
//! real one does (`traces`).

use rand::RngExt;

use super::super::legs::LegEnd;
use super::super::people::Client;
use super::{ASK_AGAIN_MS, Asterisk, Happening, Leg, Live, PATIENCE_MS};
use crate::ari::{ChannelState, EventKind, LegId};
use crate::exchange::simulation::people::SILENT_MS;

/// What Asterisk calls a hang-up that was asked for over ARI.
const ASKED_FOR: i32 = 32;
const NORMAL: i32 = 16;
/// With which channels are taken down that belong to no call.
const NO_CALL: i32 = 41;
const DEFECT: i32 = 38;
/// A CANCEL.
const TAKEN_BACK: (Option<i32>, Option<i32>) = (Some(127), Some(487));

impl Asterisk {
    // --- callers ---

    pub(super) fn arrive(&mut self, story: usize) {
        if !self.is_running() {
            self.checks.cut_off(story, self.now);
            return;
        }
        let channel = Live {
            state: ChannelState::Ring,
            in_application: false,
            patience_left: PATIENCE_MS,
            has_waited: false,
            bridge: None,
            story,
            leg: None,
            is_ghost: false,
            told_at: self.now,
            alone_for: 0,
        };
        let id = self.checks.stories[story].channel.clone();
        let patience = self.checks.stories[story].caller.patience_ms;
        self.channels.insert(id.clone(), channel);
        self.plan(patience, Happening::CallerLeaves(id.clone()));
        self.ask_again(id);
    }

    /// The dialplan hands the call to the application, or waits for it.
    pub(super) fn ask_again(&mut self, id: String) {
        let is_there = self.line.is_registered();
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if is_there {
            channel.in_application = true;
            let args = if channel.has_waited { vec!["waited".to_owned()] } else { Vec::new() };
            self.checks.entered(channel.story, self.now);
            self.emit(&id, |channel| EventKind::StasisStart { channel, args });
        } else {
            self.keep(id);
        }
    }

    /// The dialplan keeps the caller for a moment, or sends it away.
    fn keep(&mut self, id: String) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.has_waited = true;
        if channel.patience_left == 0 {
            let story = channel.story;
            self.channels.remove(&id);
            self.checks.left(story, self.now);
        } else {
            channel.patience_left = channel.patience_left.saturating_sub(ASK_AGAIN_MS);
            self.plan(ASK_AGAIN_MS, Happening::AsksAgain(id));
        }
    }

    /// The application gives the caller back to the dialplan.
    pub(super) fn send_back(&mut self, id: &str) {
        self.emit(id, |channel| EventKind::StasisEnd { channel });
        self.leave_bridge(id);
        let channel = self.channels.get_mut(id).expect("it was looked for");
        channel.in_application = false;
        let story = channel.story;
        self.checks.sent_back(story);
        self.keep(id.to_owned());
    }

    pub(super) fn caller_leaves(&mut self, id: &str) {
        let Some(channel) = self.channels.get(id) else { return };
        let (story, state) = (channel.story, channel.state);
        if channel.is_ghost {
            return;
        }
        if self.checks.stories[story].heard.is_some() {
            // Its patience doesn't count any more: it hangs up after the talk.
            if self.now < self.checks.stories[story].talks_until {
                return;
            }
        } else if state == ChannelState::Ring && self.is_being_answered(id) && self.luck.random() {
            return self.becomes_ghost(id);
        }
        self.checks.left(story, self.now);
        let (cause, sip) = if state == ChannelState::Up { (None, None) } else { TAKEN_BACK };
        self.end(id, cause, sip, false);
    }

    /// Its client answered, and the answer hasn't passed through yet.
    fn is_being_answered(&self, id: &str) -> bool {
        let passes = |happening: &Happening| matches!(happening, Happening::AnswerPasses { caller, .. } if caller == id);
        self.agenda.values().any(passes)
    }

    /// The CANCEL meets the answer: Asterisk shows the caller as answered, never sends
    /// the 200, and keeps the channel.
    fn becomes_ghost(&mut self, id: &str) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.state = ChannelState::Up;
        channel.is_ghost = true;
        let story = channel.story;
        self.checks.report.ghosts += 1;
        self.checks.taken_back(story, self.now);
        let (cause, tech_cause) = TAKEN_BACK;
        let answered_first = self.luck.random();
        if answered_first {
            self.emit(id, |channel| EventKind::ChannelStateChange { channel });
        }
        self.emit(id, |channel| EventKind::ChannelHangupRequest {
            channel,
            cause,
            soft: false,
            tech_cause,
        });
        if !answered_first {
            self.emit(id, |channel| EventKind::ChannelStateChange { channel });
        }
    }

    /// The caller hears the 200.
    pub(super) fn answer_caller(&mut self, id: &str) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.state == ChannelState::Up {
            return;
        }
        channel.state = ChannelState::Up;
        let story = channel.story;
        let talks_until = self.now + self.checks.stories[story].caller.talk_ms;
        let with = self.client_beside(id);
        self.checks.heard(story, self.now, talks_until, with);
        self.plan_at(talks_until, Happening::CallerLeaves(id.to_owned()));
        self.emit(id, |channel| EventKind::ChannelStateChange { channel });
    }

    // --- clients' legs ---

    pub(super) fn create_leg(&mut self, id: &str, story: usize, endpoint: &str) {
        let leg = Leg { endpoint: endpoint.to_owned(), dialled: false };
        let channel = Live {
            state: ChannelState::Down,
            in_application: true,
            patience_left: 0,
            has_waited: false,
            bridge: None,
            story,
            leg: Some(leg),
            is_ghost: false,
            told_at: self.now,
            alone_for: 0,
        };
        self.channels.insert(id.to_owned(), channel);
        self.checks.leg_made(story, id, self.now);
        self.emit(id, |channel| EventKind::StasisStart { channel, args: Vec::new() });
    }

    /// The INVITE is sent: from here on the client is being rung.
    pub(super) fn dial_leg(&mut self, id: &str, timeout_seconds: u32) {
        let channel = self.channels.get_mut(id).expect("its caller looked");
        let leg = channel.leg.as_mut().expect("only legs are dialled");
        leg.dialled = true;
        let (story, endpoint) = (channel.story, leg.endpoint.clone());
        self.emit_dial(id, "");
        let given_up = u64::from(timeout_seconds) * 1_000;
        let ends = |cause, sip, soft| Happening::LegEnds {
            leg: id.to_owned(),
            cause,
            sip: Some(sip),
            soft,
        };
        self.plan(given_up, ends(19, 480, true));
        let client = self.clients.pop_front().unwrap_or_else(|| Client::invent(&mut self.luck));
        match client {
            Client::Answers { rings_ms, answers_ms, talk_ms } => {
                self.plan(rings_ms, Happening::Rings(id.to_owned()));
                self.plan(answers_ms, Happening::Answers { leg: id.to_owned(), talk_ms });
                self.tempt_caller(story, answers_ms);
            }
            Client::Refuses { after_ms, cause, sip } => {
                self.plan(after_ms, ends(cause, sip, false));
            }
            Client::Rings => self.plan(3, Happening::Rings(id.to_owned())),
            Client::EarlyMedia { answers_ms, talk_ms } => {
                self.plan(2, Happening::SendsEarlyMedia(id.to_owned()));
                self.plan(answers_ms, Happening::Answers { leg: id.to_owned(), talk_ms });
            }
            // It was made a leg all the same.
            Client::Unreachable | Client::Silent => self.plan(SILENT_MS, ends(18, 408, false)),
        }
        if self.is_unreliable && self.luck.random_ratio(1, 60) {
            let after = self.luck.random_range(0..10_000);
            self.plan(after, Happening::OperatorHangsUp(id.to_owned()));
        }
        let dialled = self.dialled_legs();
        self.checks.dialled(story, id, &endpoint, &dialled);
    }

    /// Some callers give up just as they are answered.
    fn tempt_caller(&mut self, story: usize, answers_ms: u64) {
        if self.luck.random_ratio(1, 4) {
            let at = (answers_ms + self.luck.random_range(0..40)).saturating_sub(20);
            let id = self.checks.stories[story].channel.clone();
            self.plan(at, Happening::CallerLeaves(id));
        }
    }

    /// The legs that count, as story and endpoint.
    fn dialled_legs(&self) -> Vec<(usize, String)> {
        let legs = self.channels.values().filter_map(|channel| {
            let leg = channel.leg.as_ref().filter(|leg| leg.dialled)?;
            Some((channel.story, leg.endpoint.clone()))
        });
        legs.collect()
    }

    pub(super) fn rings(&mut self, id: &str) {
        let Some(channel) = self.channels.get(id) else { return };
        if channel.state != ChannelState::Down {
            return;
        }
        let dial_first = self.luck.random();
        if dial_first {
            self.emit_dial(id, "RINGING");
        }
        self.channels.get_mut(id).expect("it is there").state = ChannelState::Ringing;
        self.emit(id, |channel| EventKind::ChannelStateChange { channel });
        if !dial_first {
            self.emit_dial(id, "RINGING");
        }
    }

    pub(super) fn answers(&mut self, id: &str, talk_ms: u64) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.state = ChannelState::Up;
        self.emit(id, |channel| EventKind::ChannelStateChange { channel });
        self.emit_dial(id, "ANSWER");
        let caller = self.caller_beside(id);
        if let Some(caller) = caller {
            let after = self.luck.random_range(0..6);
            self.plan(after, Happening::AnswerPasses { caller, leg: id.to_owned() });
        }
        // Just now, when nobody knows of the answer yet.
        if self.is_unreliable && self.luck.random_ratio(1, 30) {
            let after = self.luck.random_range(0..12);
            self.plan(after, Happening::OperatorHangsUp(id.to_owned()));
        }
        let leg = id.to_owned();
        self.plan(talk_ms, Happening::LegEnds { leg, cause: NORMAL, sip: None, soft: false });
    }

    pub(super) fn answer_passes(&mut self, caller: &str, leg: &str) {
        if self.caller_beside(leg).as_deref() == Some(caller) {
            self.answer_caller(caller);
        }
    }

    pub(super) fn operator_hangs_up(&mut self, leg: &str) {
        let Some(channel) = self.channels.get(leg) else { return };
        let Some(LegId { call, .. }) = LegId::parse(leg) else { return };
        if self.is_attached() {
            self.checks.operator_hangs_up(channel.story, self.now);
            self.hung_up.push(call);
        }
    }

    /// The unanswered caller in the same bridge.
    fn caller_beside(&self, leg: &str) -> Option<String> {
        let bridge = self.channels.get(leg)?.bridge.as_ref()?;
        let waits = |id: &&String| {
            let channel = &self.channels[*id];
            channel.leg.is_none() && channel.state == ChannelState::Ring
        };
        self.bridges.get(bridge)?.iter().find(waits).cloned()
    }

    /// The answered client in the same bridge.
    pub(super) fn client_beside(&self, caller: &str) -> Option<String> {
        let bridge = self.channels.get(caller)?.bridge.as_ref()?;
        let is_answered = |id: &&String| {
            let channel = &self.channels[*id];
            channel.leg.is_some() && channel.state == ChannelState::Up
        };
        self.bridges.get(bridge)?.iter().find(is_answered).cloned()
    }

    /// The service looks at a leg, and knows whether its client is there to talk to.
    pub(super) fn note_client_seen(&mut self, leg: &str) {
        let Some(channel) = self.channels.get(leg) else { return };
        if channel.leg.is_some() && channel.bridge.is_some() && channel.state == ChannelState::Up {
            self.checks.stories[channel.story].client_seen = true;
        }
    }

    pub(super) fn emit_dial(&mut self, id: &str, dialstatus: &str) {
        if !self.channels.contains_key(id) {
            return;
        }
        let dialstatus = dialstatus.to_owned();
        self.emit(id, |peer| EventKind::Dial { peer, dialstatus });
    }

    // --- ends ---

    pub(super) fn leg_ends(&mut self, id: &str, cause: i32, sip: Option<i32>, soft: bool) {
        let Some(channel) = self.channels.get(id) else { return };
        // What ends the ringing doesn't end a talk.
        if (channel.state == ChannelState::Up) == (cause == NORMAL) {
            self.end(id, Some(cause), sip, soft);
        }
    }

    /// Asked for over ARI.
    pub(super) fn hang_up(&mut self, id: &str, cause: i32) {
        let Some(channel) = self.channels.get(id) else { return };
        if cause == DEFECT {
            self.checks.must_not_be_cut_off(channel.story, self.now);
        }
        if channel.leg.is_none() && !channel.is_ghost {
            match cause {
                NO_CALL => {}
                // Perhaps its call was cut off.
                DEFECT => {}
                _ => self.checks.released(channel.story),
            }
            if channel.state == ChannelState::Ring && cause != NO_CALL {
                self.checks.told(channel.story, cause);
            }
            self.checks.left(channel.story, self.now);
        }
        let (cause, sip) = match (channel.state, cause) {
            (ChannelState::Up, _) | (_, NORMAL) => (NORMAL, None),
            (_, cause) => (cause, sip_of(cause)),
        };
        self.end(id, Some(cause), sip, true);
    }

    /// The channel is no more, and its application hears of it.
    pub(super) fn end(&mut self, id: &str, cause: Option<i32>, sip: Option<i32>, soft: bool) {
        let Some(channel) = self.channels.get(id) else { return };
        let is_leg = channel.leg.is_some();
        if is_leg {
            let was_answered = channel.state == ChannelState::Up;
            let by_client = cause.filter(|_| !soft).map(|cause| (cause, sip));
            let end = LegEnd { at: self.now, was_answered, by_client };
            self.checks.leg_gone(channel.story, id, end);
        }
        if !channel.in_application {
            self.channels.remove(id);
            return;
        }
        let requested = if soft { Some(ASKED_FOR) } else { cause };
        let tech_cause = sip.filter(|_| !soft);
        // A BYE has no cause, and a leg's talk ends with one.
        let requested = requested.filter(|cause| soft || *cause != NORMAL);
        self.emit(id, |channel| EventKind::ChannelHangupRequest {
            channel,
            cause: requested,
            soft,
            tech_cause,
        });
        self.emit(id, |channel| EventKind::StasisEnd { channel });
        // Of a caller it isn't always told: our application may be let go of before.
        if is_leg || self.luck.random_ratio(3, 4) {
            if !is_leg {
                let tech_cause = sip.filter(|_| !soft);
                self.emit(id, |channel| EventKind::ChannelHangupRequest {
                    channel,
                    cause: Some(NORMAL),
                    soft: true,
                    tech_cause,
                });
            }
            let cause = cause.unwrap_or(NORMAL);
            self.emit(id, |channel| EventKind::ChannelDestroyed {
                channel,
                cause,
                tech_cause: sip,
            });
        }
        self.leave_bridge(id);
        self.channels.remove(id);
    }

    pub(super) fn leave_bridge(&mut self, id: &str) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(bridge) = channel.bridge.take() else { return };
        if let Some(others) = self.bridges.get_mut(&bridge) {
            others.remove(id);
        }
    }
}

/// The final SIP status for a cause, as Asterisk has it.
const fn sip_of(cause: i32) -> Option<i32> {
    match cause {
        1 => Some(404),
        17 => Some(486),
        19 | 20 => Some(480),
        34 => Some(503),
        38 => Some(500),
        _ => None,
    }
}
