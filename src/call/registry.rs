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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capconduit_entity::CallReason;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, warn};

use super::driver::{MAILBOX, Parts, Stamped};
use super::life::Life;
use super::machine::{Input, Machine};
use super::outcome::cause;
use super::record::{CallRecord, clean, limits};
use super::setup::Place;
use super::watchdog::{Finding, Listing, Watchdog};
use crate::ari::{Channel, ChannelId, ChannelState, Event, EventKind, LegId, Signal};
use crate::clock::{self, Timestamp};
use crate::ids::{CallId, Mark};
use crate::routing::{self, Current, Decision, Plan, Snapshot, Trace};
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
    /// By what it is decided who should get a call.
    route: fn(&Snapshot, &str, u32) -> Plan,
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
    waiting: VecDeque<Waiting>,
    /// Asterisk has said that it ends, and takes its calls with it.
    switch_ends: bool,
    /// Events go to another instance for good: when calls were last looked at instead.
    looked_at: Option<Timestamp>,
    /// Set by [`Request::SendBack`], and never taken back.
    ending: bool,
    /// Set by [`Request::HangUpAll`], and never taken back.
    closing: bool,
    closed: (mpsc::UnboundedSender<CallId>, mpsc::UnboundedReceiver<CallId>),
    /// What an audit found, if it got an answer; it runs beside the registry.
    audits: (mpsc::Sender<Option<Listing>>, mpsc::Receiver<Option<Listing>>),
}

/// A caller whose call isn't begun yet.
struct Waiting {
    channel: Channel,
    /// When it came, by Asterisk's clock.
    at: Timestamp,
    /// The same by ours.
    since: Instant,
}

/// How a caller comes to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// Straight from its carrier.
    New,
    /// It has waited for us: many come at once then, and none of them came too much.
    Waited,
}

/// With which argument the dialplan hands a caller over who has waited in it.
const WAITED: &str = "waited";

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
/// The longest that they wait because too many calls are in setup.
const MOST_WAIT: Duration = Duration::from_secs(10);
/// Asterisk's flag for a hang-up because it ends (`AST_SOFTHANGUP_SHUTDOWN`).
const SHUTDOWN: i32 = 4;
/// An audit repeated soon after a connection confirms what the first one saw; one without
/// an answer, or too early, has seen nothing.
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
            route: routing::plan,
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
            switch_ends: false,
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
        for interval in [&mut audit, &mut look, &mut serve] {
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut open = true;
        while open || !self.calls.is_empty() {
            // The rare ones first: of signals there may always be more.
            tokio::select! {
                biased;
                Some(request) = requests.recv() => self.on_request(request),
                Some(call) = self.closed.1.recv() => self.on_closed(call),
                Some(listing) = self.audits.1.recv() => {
                    if !listing.is_some_and(|listing| self.on_listing(&listing)) {
                        audit.reset_after(AUDIT_AGAIN);
                    }
                }
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
                self.watchdog.connected();
                self.tell_all(&Input::Recheck);
                self.audit();
            }
            Signal::Down { heard } => {
                self.connected.store(false, Ordering::Release);
                self.switch_ends = false;
                self.tell_all(&Input::Unseen { since: heard });
            }
            Signal::Restarted => {
                // Who waited had a call too, and it ended as the others did.
                for Waiting { at, channel, .. } in std::mem::take(&mut self.waiting) {
                    self.begin(at, &channel, false);
                }
                self.switch_ends = false;
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
            EventKind::StasisStart { channel, args } => match LegId::parse(channel.id.as_str()) {
                Some(leg) => self.on_leg_entered(at, leg),
                None => {
                    self.unheard.remove(&channel.id);
                    let has_waited = args.first().is_some_and(|word| word == WAITED);
                    let arrival = if has_waited { Arrival::Waited } else { Arrival::New };
                    self.on_caller(at, &channel, arrival);
                }
            },
            EventKind::StasisEnd { channel } => {
                self.waits_no_more(&channel.id);
                self.tell_if_answered(at, &channel);
                self.tell(at, &channel.id, |leg| match leg {
                    Some(LegId { attempt, .. }) => Some(Input::LegLeft { attempt }),
                    None => Some(Input::CallerGone),
                });
            }
            EventKind::ChannelStateChange { channel } => {
                self.tell_if_answered(at, &channel);
                self.tell(at, &channel.id, |leg| match (leg, channel.state) {
                    (Some(leg), ChannelState::Ringing) => {
                        Some(Input::LegRinging { attempt: leg.attempt })
                    }
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
                self.tell_if_answered(at, &channel);
                self.tell(at, &channel.id, |leg| match leg {
                    Some(LegId { attempt, .. }) => {
                        Some(Input::LegGone { attempt, cause: Some(cause), sip: tech_cause })
                    }
                    None => Some(Input::CallerGone),
                });
            }
            EventKind::ChannelHangupRequest { cause: Some(SHUTDOWN), soft: true, .. } => {
                self.on_switch_ends(at);
            }
            EventKind::ChannelHangupRequest { .. }
            | EventKind::ChannelUserevent { .. }
            | EventKind::ApplicationReplaced {}
            | EventKind::Other => {}
        }
    }

    /// Asterisk is ended in order: it hangs up one channel after the other, which says
    /// nothing of who would have hung up when, and is gone in a moment.
    fn on_switch_ends(&mut self, at: Timestamp) {
        if std::mem::replace(&mut self.switch_ends, true) {
            return;
        }
        warn!(calls = self.calls.len(), "Asterisk ends, and its calls with it");
        for call in self.calls.keys() {
            self.deliver(*call, at, Input::SwitchRestarted);
        }
    }

    /// A channel that isn't a leg of ours is a caller.
    fn on_caller(&mut self, at: Timestamp, channel: &Channel, arrival: Arrival) {
        if self.callers.contains_key(&channel.id) || self.recent.contains(&channel.id) {
            return;
        }
        if self.ending {
            self.send_back(channel.id.clone());
            return;
        }
        let has_place = arrival == Arrival::New || self.closing || !self.is_overloaded();
        if self.may_serve() && has_place {
            self.serve(at, channel);
        } else {
            self.waiting.retain(|known| known.channel.id != channel.id);
            let since = Instant::now();
            self.waiting.push_back(Waiting { channel: channel.clone(), at, since });
        }
    }

    /// Callers of an Asterisk that has started anew find free what its calls held before,
    /// and nobody is refused only because the ledger is just being filled. In the end all are.
    fn may_serve(&self) -> bool {
        self.closing || self.lost.is_empty() && self.parts.opened.is_cancelled()
    }

    /// No more at once than may be in setup, however many wait; who has waited for long is
    /// refused rather than let wait on.
    fn serve_waiting(&mut self) {
        while self.may_serve() {
            let is_overloaded = self.is_overloaded();
            let is_next = |first: &mut Waiting| !is_overloaded || first.since.elapsed() > MOST_WAIT;
            let Some(Waiting { at, channel, .. }) = self.waiting.pop_front_if(is_next) else {
                return;
            };
            self.serve(at, &channel);
        }
    }

    fn is_overloaded(&self) -> bool {
        self.parts.in_setup.count() >= self.settings.most_in_setup
    }

    /// One who leaves before being served had a call all the same, and a record of it.
    fn waits_no_more(&mut self, caller: &ChannelId) {
        let place = self.waiting.iter().position(|waiting| waiting.channel.id == *caller);
        let waiting = place.and_then(|place| self.waiting.remove(place));
        if let Some(Waiting { at, channel, .. }) = waiting {
            self.begin(at, &channel, false);
        }
    }

    fn serve(&mut self, at: Timestamp, channel: &Channel) {
        self.begin(at, channel, self.is_overloaded());
    }

    /// Who should get it. A defect in that is this call's alone: its caller is refused.
    fn plan(&mut self, dialled: &str) -> Plan {
        let (snapshot, seed, route) = (self.routing.get(), self.luck.random(), self.route);
        catch_unwind(AssertUnwindSafe(|| route(&snapshot, dialled, seed))).unwrap_or_else(|_| {
            error!("a call could not be routed because of a defect: its caller is refused");
            let decision = Decision::Refuse(CallReason::SystemError);
            Plan { did: None, decision, trace: Trace::default() }
        })
    }

    fn begin(&mut self, at: Timestamp, channel: &Channel, is_overloaded: bool) {
        let call = clock::new_call_id().led_by(self.mark);
        let dialled =
            clean(&channel.dialplan.exten, limits::DIALLED).unwrap_or_else(|| "unknown".to_owned());
        let plan = self.plan(&dialled);
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
        let CallRecord { call, channel, .. } = machine.record();
        let (call, caller) = (*call, ChannelId(channel.clone()));
        let (mailbox_in, mailbox) = mpsc::channel(MAILBOX);
        self.calls.insert(call, mailbox_in);
        self.callers.insert(caller, call);
        let closed = self.closed.0.clone();
        let life = Life {
            parts: self.parts.clone(),
            routing: self.routing.clone(),
            connected: self.connected.clone(),
        };
        let life = async move {
            life.lead(machine, mailbox, place).await;
            if closed.send(call).is_err() {
                warn!("a call outlived the registry");
            }
        };
        self.tracker.spawn(life.instrument(call_span(call)));
    }

    fn on_leg_entered(&self, at: Timestamp, leg: LegId) {
        let input = Input::LegEntered { attempt: leg.attempt };
        if !self.deliver(leg.call, at, input) && leg.call.mark() == self.mark {
            self.mend(Finding::ChannelWithoutCall(ChannelId(leg.to_string())));
        }
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::HangUp { call, told } => {
                self.deliver(call, clock::now(), Input::HangUp { told: Some(told) });
            }
            Request::SendBack => {
                self.ending = true;
                for waiting in std::mem::take(&mut self.waiting) {
                    self.send_back(waiting.channel.id);
                }
            }
            Request::HangUpAll => {
                self.closing = true;
                for Waiting { at, channel, .. } in std::mem::take(&mut self.waiting) {
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

    /// A channel that is up was answered, and its end says so to whoever hasn't heard of it.
    fn tell_if_answered(&self, at: Timestamp, channel: &Channel) {
        if channel.state == ChannelState::Up {
            self.tell(at, &channel.id, |leg| {
                Some(match leg {
                    Some(LegId { attempt, .. }) => Input::LegAnswered { attempt },
                    None => Input::CallerAnswered,
                })
            });
        }
    }

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
