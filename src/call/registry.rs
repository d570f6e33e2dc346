//! Finds the call that an event belongs to, and begins new ones.
//!
//! One task owns the maps. It hands events on and never waits for a call, so
//! the event socket never waits for one either. After every (re)connection and
//! once in a while it also looks for what can't be: channels and bridges of
//! ours that no call knows are taken down.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capconduit_entity::CallReason;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::driver::{self, MAILBOX, Parts, Stamped};
use super::machine::{Input, Machine};
use super::outcome::cause;
use super::record::{CallRecord, clean, limits};
use crate::ari::{Channel, ChannelId, ChannelState, Event, EventKind, LegId, Signal};
use crate::clock::{self, Timestamp};
use crate::ids::CallId;
use crate::routing::{self, Current, Decision};
use crate::telemetry::Drift;

/// What others ask of the registry.
#[derive(Debug)]
pub enum Request {
    /// An operator ends a call.
    HangUp {
        call: CallId,
        /// For its record.
        told: String,
    },
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
    /// Where weighted orders come from.
    luck: SmallRng,
    calls: BTreeMap<CallId, mpsc::Sender<Stamped>>,
    callers: BTreeMap<ChannelId, CallId>,
    /// Callers of calls that are over: their late events are old news.
    recent: VecDeque<ChannelId>,
    /// Strangers found by the last audit: they are taken down if found again.
    suspects: HashSet<String>,
    /// Set by [`Request::HangUpAll`], and never taken back.
    closing: bool,
    closed: (mpsc::UnboundedSender<CallId>, mpsc::UnboundedReceiver<CallId>),
    /// What an audit found; it runs beside the registry.
    audits: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
}

/// What there is of ours on the switch.
struct Found {
    channels: Vec<Channel>,
    bridges: Vec<String>,
}

const RECENT: usize = 4_096;
const AUDIT_INTERVAL: Duration = Duration::from_secs(15);
/// An audit repeated soon after a connection confirms what the first one saw.
const AUDIT_AGAIN: Duration = Duration::from_secs(1);

impl Registry {
    pub fn new(
        parts: Arc<Parts>,
        routing: Arc<Current>,
        connected: Arc<AtomicBool>,
        tracker: TaskTracker,
        seed: u64,
    ) -> Self {
        Self {
            parts,
            routing,
            connected,
            tracker,
            luck: SmallRng::seed_from_u64(seed),
            calls: BTreeMap::new(),
            callers: BTreeMap::new(),
            recent: VecDeque::new(),
            suspects: HashSet::new(),
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
        let mut audit = tokio::time::interval(AUDIT_INTERVAL);
        let mut open = true;
        while open || !self.calls.is_empty() {
            // The rare ones first: of signals there may always be more.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => self.on_request(request),
                Some(call) = self.closed.1.recv() => self.on_closed(call),
                Some(found) = self.audits.1.recv() => self.on_found(found),
                _ = audit.tick() => self.audit(),
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
            Signal::Replaced => self.connected.store(false, Ordering::Release),
            Signal::Event(event) => self.on_event(event),
        }
    }

    fn on_event(&mut self, Event { at, kind }: Event) {
        self.parts.metrics.ari_event(clock::now() - at);
        match kind {
            EventKind::StasisStart { channel } => match LegId::parse(channel.id.as_str()) {
                Some(leg) => self.on_leg_entered(at, leg),
                None => self.on_caller(at, &channel),
            },
            EventKind::StasisEnd { channel } => {
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
        let call = clock::new_call_id();
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
            hung_up: None,
            end: None,
        };
        info!(call.id = %call, channel.id = %channel.id, "a call arrived");
        let decision = if self.closing {
            Decision::Refuse(CallReason::CapacityUnavailable)
        } else {
            plan.decision
        };
        self.lead(Machine::new(record, decision));
    }

    /// Takes up a call that an earlier run left behind.
    pub fn adopt(&mut self, machine: Machine) {
        info!(call.id = %machine.record().call, "a call of an earlier run is taken up");
        self.lead(machine);
    }

    fn lead(&mut self, machine: Machine) {
        let call = machine.record().call;
        let caller = ChannelId(machine.record().channel.clone());
        let (mailbox_in, mailbox) = mpsc::channel(MAILBOX);
        self.calls.insert(call, mailbox_in);
        self.callers.insert(caller.clone(), call);
        let (parts, closed) = (self.parts.clone(), self.closed.0.clone());
        self.tracker.spawn(async move {
            // A task of its own, so that a defect in one call ends that call alone.
            if let Err(defect) = tokio::spawn(driver::lead(parts.clone(), machine, mailbox)).await {
                error!(call.id = %call, error = %defect, "a call was cut off by a defect");
                parts.live.remove(call);
                parts.keeper.abandon(call);
                if let Err(error) = parts.switch.hang_up(caller.as_str(), cause::FAILURE).await {
                    warn!(call.id = %call, %error, "could not hang up the caller");
                }
            }
            if closed.send(call).is_err() {
                warn!(call.id = %call, "a call outlived the registry");
            }
        });
    }

    fn on_leg_entered(&self, at: Timestamp, leg: LegId) {
        let input = Input::LegEntered { attempt: leg.attempt };
        if !self.deliver(leg.call, at, input) {
            self.take_down_channel(leg.to_string());
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::HangUp { call, told } => {
                self.deliver(call, clock::now(), Input::HangUp { told: Some(told) });
            }
            Request::HangUpAll => {
                self.closing = true;
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
        if mailbox.try_send((at, input)).is_err() {
            warn!(call.id = %call, "a call's mailbox is full or closed");
        }
        true
    }

    // --- audit ---

    /// Lists what is on the switch, beside the registry.
    fn audit(&self) {
        if !self.connected.load(Ordering::Acquire) {
            return;
        }
        let (switch, found) = (self.parts.switch.clone(), self.audits.0.clone());
        self.tracker.spawn(async move {
            let listed = tokio::try_join!(switch.channels(), switch.bridges());
            match listed {
                Ok((channels, bridges)) => {
                    let bridges = bridges.into_iter().map(|bridge| bridge.id).collect();
                    // Full means that an earlier audit still waits to be looked at.
                    drop(found.try_send(Found { channels, bridges }));
                }
                Err(error) => warn!(%error, "the switch could not be audited"),
            }
        });
    }

    fn on_found(&mut self, Found { channels, bridges }: Found) {
        let application = self.parts.switch.application().to_owned();
        let ours = channels.iter().filter(|channel| {
            let app_data = &channel.dialplan.app_data;
            LegId::parse(channel.id.as_str()).is_some()
                || (channel.dialplan.app_name == "Stasis"
                    && app_data.split(',').next() == Some(&application))
        });
        self.recheck_missing(&channels);
        let (mut suspects, mut strangers) = (HashSet::new(), Vec::new());
        for channel in ours {
            let known = match LegId::parse(channel.id.as_str()) {
                Some(leg) => self.calls.contains_key(&leg.call),
                None => self.callers.contains_key(&channel.id),
            };
            if known {
                continue;
            }
            // A caller who arrived while nobody listened waits to be served.
            if channel.state == ChannelState::Ring && LegId::parse(channel.id.as_str()).is_none() {
                strangers.push(channel.clone());
                continue;
            }
            if self.suspects.contains(channel.id.as_str()) {
                warn!(channel.id = %channel.id, "a channel without a call is taken down");
                self.parts.metrics.drifted(Drift::ChannelWithoutCall);
                self.take_down_channel(channel.id.0.clone());
            }
            suspects.insert(channel.id.0.clone());
        }
        for bridge in bridges {
            let Some(call) = CallId::parse(&bridge) else { continue };
            if self.calls.contains_key(&call) {
                continue;
            }
            if self.suspects.contains(&bridge) {
                warn!(bridge.id = bridge, "a bridge without a call is taken down");
                self.parts.metrics.drifted(Drift::BridgeWithoutCall);
                self.take_down_bridge(bridge.clone());
            }
            suspects.insert(bridge);
        }
        self.suspects = suspects;
        for caller in strangers {
            self.parts.metrics.drifted(Drift::CallerWithoutCall);
            self.on_caller(clock::now(), &caller);
        }
    }

    /// Calls of which a leg wasn't listed look for it themselves: an event may have been missed.
    fn recheck_missing(&self, channels: &[Channel]) {
        let listed: HashSet<&ChannelId> = channels.iter().map(|channel| &channel.id).collect();
        let with_leg: HashSet<CallId> =
            listed.iter().filter_map(|id| LegId::parse(id.as_str())).map(|leg| leg.call).collect();
        for (caller, call) in &self.callers {
            if !listed.contains(caller) || !with_leg.contains(call) {
                self.deliver(*call, clock::now(), Input::Recheck);
            }
        }
    }

    fn take_down_channel(&self, channel: String) {
        let switch = self.parts.switch.clone();
        self.tracker.spawn(async move {
            if let Err(error) = switch.hang_up(&channel, cause::TEMPORARY_FAILURE).await {
                warn!(channel.id = channel, %error, "could not take a channel down");
            }
        });
    }

    fn take_down_bridge(&self, bridge: String) {
        let switch = self.parts.switch.clone();
        self.tracker.spawn(async move {
            if let Err(error) = switch.destroy_bridge(&bridge).await {
                warn!(bridge.id = bridge, %error, "could not take a bridge down");
            }
        });
    }
}
