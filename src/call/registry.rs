//! Finds the call that an event belongs to, and begins new ones.
//!
//! One task owns the maps. It hands events on and never waits for a call, so
//! the event socket never waits for one either. After every (re)connection and
//! once in a while it also looks for what can't be: channels and bridges of
//! ours that no call knows are taken down.

mod audit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capconduit_entity::CallReason;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, warn};

use super::cut_off::cut_off;
use super::driver::{self, MAILBOX, Parts, Stamped};
use super::machine::{Input, Machine};
use super::outcome::cause;
use super::record::{CallRecord, clean, limits};
use super::setup::Place;
use super::watchdog::{Found, Watchdog};
use crate::ari::{Channel, ChannelId, ChannelState, Event, EventKind, LegId, Signal};
use crate::clock::{self, Timestamp};
use crate::ids::{CallId, Mark};
use crate::routing::{self, Current, Decision};
use crate::telemetry::call_span;

/// What others ask of the registry.
#[derive(Debug)]
pub enum Request {
    /// An operator ends a call.
    HangUp {
        call: CallId,
        /// For its record.
        told: String,
    },
    /// Callers who come after it wait in the dialplan: the service is about to end.
    SendBack,
    /// Every call is to end, and callers who come after it are refused.
    HangUpAll,
}

/// Owns the map of live calls.
pub struct Registry {
    parts: Arc<Parts>,
    routing: Arc<Current>,
    /// Whether events flow from the switch.
    connected: Arc<AtomicBool>,
    tracker: TaskTracker,
    settings: CallSettings,
    /// Where weighted orders come from.
    luck: SmallRng,
    /// By which the calls of this instance are known.
    mark: Mark,
    calls: BTreeMap<CallId, mpsc::Sender<Stamped>>,
    callers: BTreeMap<ChannelId, CallId>,
    /// Callers of calls that are over: their late events are old news.
    recent: VecDeque<ChannelId>,
    watchdog: Watchdog,
    /// Callers whom the last audit found, and whose event hasn't come yet.
    unheard: BTreeSet<ChannelId>,
    /// Calls that were lost with their Asterisk and still hold what they held.
    lost: HashSet<CallId>,
    /// Callers who wait until that is free, and until capacity can be held.
    waiting: VecDeque<(Timestamp, Channel)>,
    /// Events go to another instance for good: when calls were last looked at instead.
    looked_at: Option<Timestamp>,
    /// Set by [`Request::SendBack`], and never taken back.
    ending: bool,
    /// Set by [`Request::HangUpAll`], and never taken back.
    closing: bool,
    closed: (mpsc::UnboundedSender<CallId>, mpsc::UnboundedReceiver<CallId>),
    /// What an audit found, if it got an answer; it runs beside the registry.
    audits: (mpsc::Sender<Option<Found>>, mpsc::Receiver<Option<Found>>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallSettings {
    /// Calls that may be on their way to their client at once: over it, callers get 503.
    pub most_in_setup: usize,
    /// How often the switch is compared with the calls, in seconds.
    pub audit_seconds: u64,
}

const RECENT: usize = 4_096;
/// How often calls are looked at of which no event tells any more.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is seen whether callers who wait can be served.
const SERVE_INTERVAL: Duration = Duration::from_millis(20);
/// An audit repeated soon after a connection confirms what the first one saw; one without
/// an answer has seen nothing.
const AUDIT_AGAIN: Duration = Duration::from_secs(1);

impl Registry {
    pub fn new(
        parts: Arc<Parts>,
        routing: Arc<Current>,
        connected: Arc<AtomicBool>,
        tracker: TaskTracker,
        settings: CallSettings,
        seed: u64,
        mark: Mark,
    ) -> Self {
        Self {
            parts,
            routing,
            connected,
            tracker,
            settings,
            luck: SmallRng::seed_from_u64(seed),
            mark,
            calls: BTreeMap::new(),
            callers: BTreeMap::new(),
            recent: VecDeque::new(),
            watchdog: Watchdog::default(),
            unheard: BTreeSet::new(),
            lost: HashSet::new(),
            waiting: VecDeque::new(),
            looked_at: None,
            ending: false,
            closing: false,
            closed: mpsc::unbounded_channel(),
            audits: mpsc::channel(1),
        }
    }

    /// Runs until the event socket is closed for good and every call is over.
    pub async fn run(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        mut requests: mpsc::Receiver<Request>,
    ) {
        let mut audit = tokio::time::interval(Duration::from_secs(self.settings.audit_seconds));
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut serve = tokio::time::interval(SERVE_INTERVAL);
        serve.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !self.calls.is_empty() {
            // The rare ones first: of signals there may always be more.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => self.on_request(request),
                Some(call) = self.closed.1.recv() => self.on_closed(call),
                Some(found) = self.audits.1.recv() => match found {
                    Some(found) => self.on_found(&found),
                    None => audit.reset_after(AUDIT_AGAIN),
                },
                _ = audit.tick() => {
                    // None waits for long, whatever keeps a lost call from its end.
                    self.lost.clear();
                    self.audit();
                }
                _ = look.tick(), if self.looked_at.is_some() => self.look(),
                _ = serve.tick(), if !self.waiting.is_empty() => self.serve_waiting(),
                signal = signals.recv(), if open => match signal {
                    Some(signal) => {
                        if matches!(signal, Signal::Up) {
                            audit.reset_after(AUDIT_AGAIN);
                        }
                        self.on_signal(signal);
                    }
                    None => open = false,
                },
            }
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Up => {
                self.connected.store(true, Ordering::Release);
                self.parts.metrics.ari_connected();
                self.tell_all(&Input::Recheck);
                self.audit();
            }
            Signal::Down { heard } => {
                self.connected.store(false, Ordering::Release);
                self.tell_all(&Input::Unseen { since: heard });
            }
            Signal::Restarted => {
                // Who waited had a call too, and it ended as the others did.
                for (at, channel) in std::mem::take(&mut self.waiting) {
                    self.begin(at, &channel, false);
                }
                warn!(calls = self.calls.len(), "Asterisk has started anew, without its calls");
                self.lost = self.calls.keys().copied().collect();
                // One that starts within the same second gives its channels the same names.
                self.recent.clear();
                self.callers.clear();
                self.tell_all(&Input::SwitchRestarted);
            }
            Signal::Replaced => {
                self.connected.store(false, Ordering::Release);
                self.parts.metrics.ari_replaced();
                self.looked_at = Some(clock::now());
            }
            Signal::Event(event) => self.on_event(event),
        }
    }

    /// Another instance gets the events of our calls, and they still are ours:
    /// they ask the switch, time and again, until they are over.
    fn look(&mut self) {
        let now = clock::now();
        if let Some(since) = self.looked_at.replace(now) {
            self.tell_all(&Input::Unseen { since });
            self.tell_all(&Input::Recheck);
        }
    }

    fn on_event(&mut self, Event { at, kind }: Event) {
        self.parts.metrics.ari_event(clock::now() - at);
        match kind {
            EventKind::StasisStart { channel } => match LegId::parse(channel.id.as_str()) {
                Some(leg) => self.on_leg_entered(at, leg),
                None => {
                    self.unheard.remove(&channel.id);
                    self.on_caller(at, &channel);
                }
            },
            EventKind::StasisEnd { channel } => {
                self.waits_no_more(&channel.id);
                self.tell(at, &channel.id, |leg| match leg {
                    Some(LegId { attempt, .. }) => Some(Input::LegLeft { attempt }),
                    None => Some(Input::CallerGone),
                });
            }
            EventKind::ChannelStateChange { channel } => {
                self.tell(at, &channel.id, |leg| match (leg, channel.state) {
                    (Some(leg), ChannelState::Up) => {
                        Some(Input::LegAnswered { attempt: leg.attempt })
                    }
                    (Some(leg), ChannelState::Ringing) => {
                        Some(Input::LegRinging { attempt: leg.attempt })
                    }
                    (None, ChannelState::Up) => Some(Input::CallerAnswered),
                    _ => None,
                });
            }
            EventKind::Dial { peer, dialstatus } => {
                self.tell(at, &peer.id, |leg| {
                    let attempt = leg?.attempt;
                    match dialstatus.as_str() {
                        "RINGING" | "PROGRESS" => Some(Input::LegRinging { attempt }),
                        "ANSWER" => Some(Input::LegAnswered { attempt }),
                        _ => None,
                    }
                });
            }
            EventKind::ChannelHangupRequest { channel, cause, soft: false, tech_cause } => {
                self.waits_no_more(&channel.id);
                self.tell(at, &channel.id, |leg| match leg {
                    Some(_) => None,
                    // A BYE without a Reason header comes without a cause.
                    None => Some(Input::CallerCause {
                        cause: cause.unwrap_or(cause::NORMAL),
                        sip: tech_cause,
                    }),
                });
            }
            EventKind::ChannelDestroyed { channel, cause, tech_cause } => {
                self.waits_no_more(&channel.id);
                self.tell(at, &channel.id, |leg| match leg {
                    Some(LegId { attempt, .. }) => {
                        Some(Input::LegGone { attempt, cause: Some(cause), sip: tech_cause })
                    }
                    None => Some(Input::CallerGone),
                });
            }
            EventKind::ChannelHangupRequest { .. }
            | EventKind::ChannelUserevent { .. }
            | EventKind::ApplicationReplaced {}
            | EventKind::Other => {}
        }
    }

    /// A channel that isn't a leg of ours is a caller.
    fn on_caller(&mut self, at: Timestamp, channel: &Channel) {
        if self.callers.contains_key(&channel.id) || self.recent.contains(&channel.id) {
            return;
        }
        if self.ending {
            self.send_back(channel.id.clone());
            return;
        }
        if self.may_serve() {
            self.serve(at, channel);
        } else {
            self.waiting.retain(|(_, known)| known.id != channel.id);
            self.waiting.push_back((at, channel.clone()));
        }
    }

    /// Callers of an Asterisk that has started anew find free what its calls held before,
    /// and nobody is refused only because the ledger is just being filled. In the end all are.
    fn may_serve(&self) -> bool {
        self.closing || self.lost.is_empty() && self.parts.opened.is_cancelled()
    }

    /// No more at once than may be in setup, however many wait.
    fn serve_waiting(&mut self) {
        while self.may_serve() && !self.is_overloaded() {
            let Some((at, channel)) = self.waiting.pop_front() else { return };
            self.serve(at, &channel);
        }
    }

    fn is_overloaded(&self) -> bool {
        self.parts.in_setup.count() >= self.settings.most_in_setup
    }

    /// One who leaves before being served had a call all the same, and a record of it.
    fn waits_no_more(&mut self, caller: &ChannelId) {
        let place = self.waiting.iter().position(|(_, waiting)| waiting.id == *caller);
        if let Some((at, channel)) = place.and_then(|place| self.waiting.remove(place)) {
            self.begin(at, &channel, false);
        }
    }

    fn serve(&mut self, at: Timestamp, channel: &Channel) {
        self.begin(at, channel, self.is_overloaded());
    }

    fn begin(&mut self, at: Timestamp, channel: &Channel, is_overloaded: bool) {
        let call = clock::new_call_id().led_by(self.mark);
        let dialled =
            clean(&channel.dialplan.exten, limits::DIALLED).unwrap_or_else(|| "unknown".to_owned());
        let plan = routing::plan(&self.routing.get(), &dialled, self.luck.random());
        let record = CallRecord {
            call,
            channel: channel.id.0.clone(),
            linked_channel: Some(channel.id.0.clone()),
            dialled: plan.did.as_ref().map_or(dialled, |did| did.number.to_string()),
            caller_number: clean(&channel.caller.number, limits::CALLER_NUMBER),
            caller_name: clean(&channel.caller.name, limits::CALLER_NAME),
            seller: plan.did.as_ref().map(|did| did.seller),
            did: plan.did.as_ref().map(|did| did.id),
            campaign: plan.trace.campaign_id.zip(plan.trace.campaign_name.clone()),
            started_at: at,
            answered_at: None,
            attempts: Vec::new(),
            trace: plan.trace,
            unseen_since: None,
            ending: None,
            hung_up: None,
            end: None,
        };
        call_span(call).in_scope(|| info!(channel.id = %channel.id, "a call arrived"));
        // A call of which no record could be kept isn't sold.
        if !self.parts.journal.has_room() {
            call_span(call).in_scope(|| warn!("the caller is sent away: no record could be kept"));
            self.parts.metrics.sent_away_without_record();
            return self.take_down(channel.id.0.clone(), cause::CONGESTION);
        }
        if is_overloaded {
            self.parts.metrics.overloaded();
        }
        let decision = if self.closing || is_overloaded {
            Decision::Refuse(CallReason::CapacityUnavailable)
        } else {
            plan.decision
        };
        let is_sold = matches!(decision, Decision::Offer(_));
        let place = is_sold.then(|| self.parts.in_setup.enter());
        self.lead(Machine::new(record, decision), place);
    }

    /// Takes up a call that an earlier run left behind.
    pub fn adopt(&mut self, machine: Machine) {
        call_span(machine.record().call).in_scope(|| info!("a call of an earlier run is taken up"));
        // The next run has to know, if this one ends before it hears anything.
        if machine.record().unseen_since.is_some() {
            self.parts.journal.save(machine.record().clone());
        }
        self.lead(machine, None);
    }

    fn lead(&mut self, machine: Machine, place: Option<Place>) {
        let call = machine.record().call;
        let arrived = machine.record().clone();
        let (mailbox_in, mailbox) = mpsc::channel(MAILBOX);
        self.calls.insert(call, mailbox_in);
        self.callers.insert(ChannelId(arrived.channel.clone()), call);
        let (parts, closed) = (self.parts.clone(), self.closed.0.clone());
        let life = async move {
            // A task of its own, so that a defect in one call ends that call alone.
            let led = driver::lead(parts.clone(), machine, mailbox, place).in_current_span();
            if let Err(defect) = tokio::spawn(led).await {
                error!(error = %defect, "a call was cut off by a defect");
                cut_off(&parts, arrived).await;
            }
            if closed.send(call).is_err() {
                warn!("a call outlived the registry");
            }
        };
        self.tracker.spawn(life.instrument(call_span(call)));
    }

    fn on_leg_entered(&self, at: Timestamp, leg: LegId) {
        let input = Input::LegEntered { attempt: leg.attempt };
        if !self.deliver(leg.call, at, input) && leg.call.mark() == self.mark {
            self.take_down_channel(leg.to_string());
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::HangUp { call, told } => {
                self.deliver(call, clock::now(), Input::HangUp { told: Some(told) });
            }
            Request::SendBack => {
                self.ending = true;
                for (_, channel) in std::mem::take(&mut self.waiting) {
                    self.send_back(channel.id);
                }
            }
            Request::HangUpAll => {
                self.closing = true;
                for (at, channel) in std::mem::take(&mut self.waiting) {
                    self.serve(at, &channel);
                }
                self.tell_all(&Input::HangUp { told: None });
            }
        }
    }

    fn on_closed(&mut self, call: CallId) {
        self.calls.remove(&call);
        let over: Vec<_> =
            self.callers.extract_if(.., |_, known| *known == call).map(|(id, _)| id).collect();
        for channel in over {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(channel);
        }
        self.lost.remove(&call);
    }

    // --- handing on ---

    fn tell(
        &self,
        at: Timestamp,
        channel: &ChannelId,
        input: impl FnOnce(Option<LegId>) -> Option<Input>,
    ) {
        let leg = LegId::parse(channel.as_str());
        let call = match leg {
            Some(leg) => Some(leg.call),
            None => self.callers.get(channel).copied(),
        };
        if let (Some(call), Some(input)) = (call, input(leg)) {
            self.deliver(call, at, input);
        }
    }

    fn tell_all(&self, input: &Input) {
        for call in self.calls.keys() {
            self.deliver(*call, clock::now(), input.clone());
        }
    }

    /// Whether the call is live. An input that finds its mailbox full is lost
    /// like an event on the wire: the machine's timers make up for it.
    fn deliver(&self, call: CallId, at: Timestamp, input: Input) -> bool {
        let Some(mailbox) = self.calls.get(&call) else { return false };
        match mailbox.try_send((at, input)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                call_span(call).in_scope(|| warn!("a call's mailbox is full"))
            }
            Err(TrySendError::Closed(_)) => {
                call_span(call).in_scope(|| debug!("the call has just ended"))
            }
        }
        true
    }
}
