//! What the monitoring is told: counted and timed here, read at `/metrics`.
//!
//! Whoever has something to tell calls a plain method. No label ever holds a
//! number, a name or an id: each has a fixed list of words, so the figures stay
//! few however much is sold. `docs/OPERATIONS.md` says what each means.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use capconduit_entity::AttemptResult;
use chrono::TimeDelta;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::process::ProcessFigures;
use crate::call::CallRecord;
use crate::call::outcome::Outcome;
use crate::call::record::Attempt;
use crate::capacity::{Cap, Refusal, ScopeKind};
use crate::journal;
use crate::live::LiveState;

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Timings = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// A difference between what we believed and what the switch or the records show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// A client's leg that belongs to no call of ours: it is taken down.
    ChannelWithoutCall,
    /// A bridge that belongs to no call of ours: it is taken down.
    BridgeWithoutCall,
    /// A caller who waits and whom nobody serves: it is served now.
    CallerWithoutCall,
    /// A call whose caller isn't on the switch: it looks, and ends.
    CallWithoutChannel,
    /// A call whose client's leg isn't on the switch, and no event told so: it goes on as
    /// after any other end of the leg.
    CallWithoutLeg,
    /// A caller and a client who talk, and aren't in one bridge: they are put there.
    CallApart,
    /// Capacity that no call stands for: it is given back.
    HoldWithoutCall,
    /// The records tell of more calls under a cap than the ledger counted.
    UsedTooLow,
    /// The ledger counted more calls under a cap than the records tell of.
    UsedTooHigh,
}

/// Why Asterisk didn't carry a command out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AriFailure {
    /// It said no: nothing was done.
    Refused,
    /// It can't be reached: nothing was done.
    NotSent,
    /// Its answer was lost: it may have been done.
    NoAnswer,
}

/// All figures but those that are looked up when they are read.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Counters<2>,
    attempts: Counters<1>,
    decision: Histogram,
    post_dial_delay: Histogram,
    ring: Histogram,
    cap_refusals: Counters<2>,
    ledger: Timings,
    ledger_failures: Counters<1>,
    drift: Counters<1>,
    ari_commands: Timings,
    ari_failures: Counters<2>,
    ari_event_lag: Histogram,
    ari_unreadable: Counter,
    ari_connections: Counter,
    ari_replaced: Gauge,
    overloads: Counter,
    without_record: Counter,
    journal_writes: Histogram,
    journal_failures: Counter,
    database: Timings,
    live_calls: Family<Labels<1>, Gauge>,
    holds: Gauge,
    journal_depth: Gauge<u64, AtomicU64>,
    journal_bytes: Gauge<u64, AtomicU64>,
    journal_failing: Gauge,
    journal_damaged: Counter,
    ari_connected: Gauge,
}

/// Figures of the moment, set before each reading.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    pub live: Vec<LiveState>,
    /// None = the ledger can't be asked; the figure stays what it was.
    pub holds: Option<usize>,
    pub journal: journal::Figures,
    pub is_connected: bool,
}

/// Upper ends of buckets, in seconds: what the service and its neighbours need for a step.
const STEPS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// The same for what people wait for.
const WAITS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessFigures));
        let ours = registry.sub_registry_with_prefix("capconduit");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "Which CapConduit this is", version);

        let mut counters = Register(ours);
        let calls = counters.plain("calls", "Calls that ended, by how the call log has them");
        let attempts = counters.plain("attempts", "Clients dialled, by what became of it");
        let cap_refusals =
            counters.plain("cap_refusals", "Links passed over because a cap had no room");
        let ledger_failures =
            counters.plain("ledger_failures", "Questions that the capacity ledger didn't answer");
        let drift = counters
            .plain("drift", "Differences found to what the switch or the records show, and mended");
        let ari_failures =
            counters.plain("ari_command_failures", "Commands that Asterisk didn't carry out");
        let ari_unreadable = counters
            .plain("ari_unreadable_events", "Events that could not be read, and were skipped");
        let ari_connections =
            counters.plain("ari_connections", "How often events began to flow from Asterisk");
        let ari_replaced = counters.plain(
            "ari_replaced",
            "Whether another instance has taken the application's name: 1 until a restart, or 0",
        );
        let overloads = counters.plain(
            "calls_over_limit",
            "Callers refused because too many were on their way to a client",
        );
        let without_record = counters.plain(
            "calls_without_record",
            "Callers sent away because no record of their call could be kept",
        );
        let journal_failures = counters
            .plain("journal_write_failures", "Batches of records that the database didn't take");
        let live_calls = counters.plain("live_calls", "Calls that are up, by what they are doing");
        let holds = counters.plain("holds", "Attempts that hold capacity");
        let journal_depth =
            counters.plain("journal_depth", "Records that the database doesn't have yet");
        let journal_bytes = counters.plain("journal_bytes", "What the journal's files hold");
        let journal_failing = counters
            .plain("journal_failing", "Whether records can't be written to the journal: 1 or 0");
        let journal_damaged = counters
            .plain("journal_damaged_files", "Files of the journal in which damage was found");
        let ari_connected =
            counters.plain("ari_connected", "Whether events flow from Asterisk: 1 or 0");

        let mut timings = Register(ours);
        let decision = timings.timing(
            "decision",
            "From a call's arrival to its first client or refusal",
            steps(),
        );
        let post_dial_delay = timings.timing(
            "post_dial_delay",
            "From capacity taken to the client's ringing",
            waits(),
        );
        let ring = timings.timing(
            "ring",
            "From a client's ringing to its answer or the attempt's end",
            waits(),
        );
        let ledger = timings.timing(
            "ledger",
            "What the capacity ledger needs for an answer",
            Timings::new_with_constructor(steps),
        );
        let ari_commands = timings.timing(
            "ari_command",
            "What Asterisk needs for a command, waiting for a free lane included",
            Timings::new_with_constructor(steps),
        );
        let ari_event_lag = timings.timing(
            "ari_event_lag",
            "How old an event is, by Asterisk's clock, when we act",
            steps(),
        );
        let journal_writes = timings.timing(
            "journal_write",
            "What the database needs for a batch of records",
            steps(),
        );
        let database = timings.timing(
            "database",
            "What the database needs for a statement",
            Timings::new_with_constructor(steps),
        );

        let metrics = Self {
            registry,
            calls,
            attempts,
            decision,
            post_dial_delay,
            ring,
            cap_refusals,
            ledger,
            ledger_failures,
            drift,
            ari_commands,
            ari_failures,
            ari_event_lag,
            ari_unreadable,
            ari_connections,
            ari_replaced,
            overloads,
            without_record,
            journal_writes,
            journal_failures,
            database,
            live_calls,
            holds,
            journal_depth,
            journal_bytes,
            journal_failing,
            journal_damaged,
            ari_connected,
        };
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// What may never have happened is 0 and not missing, so that an alert sees the first time.
    fn begin_at_zero(&self) {
        for outcome in [Outcome::SYSTEM_ERROR, Outcome::NO_LEDGER] {
            drop(self.calls.get_or_create(&outcome_labels(outcome)));
        }
        for result in AttemptResult::ALL {
            drop(self.attempts.get_or_create(&[("result", result.as_str())]));
        }
        for kind in Drift::ALL {
            drop(self.drift.get_or_create(&[("kind", kind.as_str())]));
        }
        for state in LiveState::ALL {
            drop(self.live_calls.get_or_create(&[("state", state.as_str())]));
        }
    }

    /// The figures in the text format of OpenMetrics, which Prometheus reads.
    pub fn text(&self, moment: &Moment) -> String {
        for state in LiveState::ALL {
            let count = moment.live.iter().filter(|live| **live == state).count();
            self.live_calls.get_or_create(&[("state", state.as_str())]).set(number(count));
        }
        if let Some(holds) = moment.holds {
            self.holds.set(number(holds));
        }
        self.journal_depth.set(moment.journal.records as u64);
        self.journal_bytes.set(moment.journal.bytes);
        self.journal_failing.set(moment.journal.is_failing.into());
        self.ari_connected.set(moment.is_connected.into());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }

    // --- calls ---

    /// A call's fate is decided: its first client is about to be dialled, or it is released.
    pub fn decided(&self, after: Duration) {
        self.decision.observe(after.as_secs_f64());
    }

    /// A client rings, so long after its capacity was taken.
    pub fn rang(&self, after: TimeDelta) {
        self.post_dial_delay.observe(seconds(after));
    }

    /// A call has its final record. It is counted as its log has it.
    pub fn call_ended(&self, record: &CallRecord) {
        let Some(end) = &record.end else { return };
        self.calls.get_or_create(&outcome_labels(end.outcome)).inc();
        for Attempt { result, ringing_at, answered_at, ended_at, .. } in &record.attempts {
            let result = result.unwrap_or(AttemptResult::Canceled);
            self.attempts.get_or_create(&[("result", result.as_str())]).inc();
            if let Some(rang) = ringing_at {
                let over = answered_at.or(*ended_at).unwrap_or(end.at);
                self.ring.observe(seconds(over - rang));
            }
        }
    }

    // --- capacity ---

    pub fn refused(&self, refusal: &Refusal) {
        let scope = match refusal.scope.kind {
            ScopeKind::Link => "link",
            ScopeKind::Client => "client",
            ScopeKind::Campaign => "campaign",
            ScopeKind::Seller => "seller",
        };
        let cap = match refusal.cap {
            Cap::Concurrency => "concurrency",
            Cap::Volume(window) => window.as_str(),
        };
        self.cap_refusals.get_or_create(&[("scope", scope), ("cap", cap)]).inc();
    }

    pub fn ledger_asked(&self, operation: &'static str, took: Duration, has_answered: bool) {
        self.ledger.get_or_create(&[("operation", operation)]).observe(took.as_secs_f64());
        let failures = self.ledger_failures.get_or_create(&[("operation", operation)]);
        failures.inc_by(u64::from(!has_answered));
    }

    pub fn drifted(&self, kind: Drift) {
        self.drift.get_or_create(&[("kind", kind.as_str())]).inc();
    }

    // --- switch ---

    pub fn ari_asked(&self, command: &'static str, took: Duration, failed: Option<AriFailure>) {
        self.ari_commands.get_or_create(&[("command", command)]).observe(took.as_secs_f64());
        for failure in AriFailure::ALL {
            let labels = [("command", command), ("failure", failure.as_str())];
            let failures = self.ari_failures.get_or_create(&labels);
            failures.inc_by(u64::from(failed == Some(failure)));
        }
    }

    pub fn ari_event(&self, lag: TimeDelta) {
        self.ari_event_lag.observe(seconds(lag));
    }

    pub fn ari_event_unreadable(&self) {
        self.ari_unreadable.inc();
    }

    pub fn ari_connected(&self) {
        self.ari_connections.inc();
    }

    pub fn overloaded(&self) {
        self.overloads.inc();
    }

    pub fn sent_away_without_record(&self) {
        self.without_record.inc();
    }

    pub fn ari_replaced(&self) {
        self.ari_replaced.set(1);
    }

    // --- journal ---

    pub fn journal_wrote(&self, took: Duration, has_worked: bool) {
        self.journal_writes.observe(took.as_secs_f64());
        self.journal_failures.inc_by(u64::from(!has_worked));
    }

    pub fn journal_damaged(&self, files: u64) {
        self.journal_damaged.inc_by(files);
    }

    // --- database ---

    pub fn database_asked(&self, sql: &str, took: Duration) {
        self.database.get_or_create(&[("operation", operation(sql))]).observe(took.as_secs_f64());
    }
}

impl Drift {
    const ALL: [Self; 9] = [
        Self::ChannelWithoutCall,
        Self::BridgeWithoutCall,
        Self::CallerWithoutCall,
        Self::CallWithoutChannel,
        Self::CallWithoutLeg,
        Self::CallApart,
        Self::UsedTooLow,
        Self::UsedTooHigh,
        Self::HoldWithoutCall,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelWithoutCall => "channel_without_call",
            Self::BridgeWithoutCall => "bridge_without_call",
            Self::CallerWithoutCall => "caller_without_call",
            Self::CallWithoutChannel => "call_without_channel",
            Self::CallWithoutLeg => "call_without_leg",
            Self::CallApart => "call_apart",
            Self::UsedTooLow => "used_too_low",
            Self::UsedTooHigh => "used_too_high",
            Self::HoldWithoutCall => "hold_without_call",
        }
    }
}

impl AriFailure {
    const ALL: [Self; 3] = [Self::Refused, Self::NotSent, Self::NoAnswer];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotSent => "not_sent",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// Puts metrics into the registry, and gives them back.
struct Register<'a>(&'a mut Registry);

impl Register<'_> {
    fn plain<M>(&mut self, name: &str, help: &str) -> M
    where
        M: prometheus_client::registry::Metric + Clone + Default,
    {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn timing<M>(&mut self, name: &str, help: &str, metric: M) -> M
    where
        M: prometheus_client::registry::Metric + Clone,
    {
        self.0.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

fn outcome_labels(outcome: Outcome) -> Labels<2> {
    [("status", outcome.status.as_str()), ("reason", outcome.reason.as_str())]
}

/// What a statement does, by its first word.
fn operation(sql: &str) -> &'static str {
    let first = sql.split_whitespace().next().unwrap_or_default();
    let known = ["select", "insert", "update", "delete"];
    known.into_iter().find(|word| word.eq_ignore_ascii_case(first)).unwrap_or("other")
}

fn steps() -> Histogram {
    Histogram::new(STEPS)
}

fn waits() -> Histogram {
    Histogram::new(WAITS)
}

/// Clocks of two machines may differ: what seems to lie in the future is now.
fn seconds(span: TimeDelta) -> f64 {
    span.to_std().unwrap_or_default().as_secs_f64()
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
