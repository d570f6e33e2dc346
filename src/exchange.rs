//! The exchange: journal, ledger and calls, wired together.
//!
//! It is all of the service that decides about calls, and knows neither HTTP
//! nor SQL: what it stands on is handed in. So the same exchange runs on a real
//! switch with a real database, and on simulated ones, where it is killed and
//! started again a hundred thousand calls long.

#[cfg(test)]
mod simulation;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::ari::{Signal, Switch};
use crate::call::adopt;
use crate::call::driver::Parts;
use crate::call::registry::{CallSettings, Registry, Request};
use crate::call::setup::InSetup;
use crate::capacity::recount::{Recount, RecountSettings, Truth};
use crate::capacity::{Keeper, Ledger, Status};
use crate::clock;
use crate::ids::{CallId, Mark};
use crate::journal::{Archive, Journal, JournalSettings, JournalTasks, OpenError};
use crate::live::Live;
use crate::routing::Current;
use crate::telemetry::Metrics;
use crate::vital::Vital;

/// What an exchange stands on.
pub struct Ground {
    pub switch: Arc<dyn Switch>,
    /// What the switch tells.
    pub signals: mpsc::Receiver<Signal>,
    /// Speaks for this instance's holds to the ledger.
    pub keeper: Keeper,
    pub truth: Arc<dyn Truth>,
    /// Where records come to rest.
    pub archive: Arc<dyn Archive>,
    /// With the configuration in it that is in force.
    pub routing: Arc<Current>,
    pub metrics: Arc<Metrics>,
}

pub struct Settings {
    pub calls: CallSettings,
    pub journal: JournalSettings,
    pub recount: RecountSettings,
    /// Where everything random comes from.
    pub seed: u64,
    /// By which this instance knows its calls.
    pub mark: Mark,
}

/// An exchange that runs. To drop it is to cut it off, as a crash would.
pub struct Exchange {
    pub keeper: Arc<Keeper>,
    pub journal: Arc<Journal>,
    pub live: Arc<Live>,
    pub requests: mpsc::Sender<Request>,
    /// Whether events flow from the switch.
    pub connected: Arc<AtomicBool>,
    /// Whether what leads calls and keeps records of them is sound.
    pub vital: Vital,
    opened: CancellationToken,
    journal_tasks: JournalTasks,
    registry: JoinHandle<()>,
    tracker: TaskTracker,
    ledger_tasks: TaskTracker,
    stop_ledger: CancellationToken,
}

const REQUESTS: usize = 64;
const LEDGER_PATIENCE: Duration = Duration::from_secs(5);
/// The last of a call that is over: what it asked of the switch is answered.
const CALLS_PATIENCE: Duration = Duration::from_secs(2);
const JOURNAL_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is said how many calls are waited for.
const PROGRESS: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

impl Exchange {
    /// Takes up what an earlier run left, and takes calls from then on.
    ///
    /// # Errors
    /// When the journal can't be opened.
    pub async fn start(settings: Settings, ground: Ground) -> Result<Self, OpenError> {
        let Ground { switch, signals, keeper, truth, archive, routing, metrics } = ground;
        let keeper = Arc::new(keeper);
        let written = {
            let keeper = keeper.clone();
            Box::new(move |calls: &HashSet<CallId>| keeper.recorded(calls))
        };
        let (journal, journal_tasks, mut left) =
            Journal::open(&settings.journal, archive.clone(), written, metrics.clone())?;
        journal.leave_out_recorded(&mut left, &*archive).await;
        // Before anything is held anew, and before the records tell of them.
        keeper.adopt(left.unfinished.iter().filter_map(adopt::standing));
        keeper.adopt(journal.read(&left.finished).filter_map(|record| adopt::standing(&record)));
        journal.hand_on(left.finished);

        let vital = journal_tasks.vital.clone();
        let stop_ledger = CancellationToken::new();
        let ledger_tasks = TaskTracker::new();
        let recount = Recount::new(keeper.clone(), truth, settings.recount);
        ledger_tasks.spawn(vital.part("the ledger's keeper", {
            let (keeper, stop) = (keeper.clone(), stop_ledger.clone());
            async move { keeper.run(stop).await }
        }));
        ledger_tasks.spawn(vital.part("the ledger's recount", {
            let stop = stop_ledger.clone();
            async move { recount.run(stop).await }
        }));
        // Calls that are up are taken up meanwhile.
        let opened = CancellationToken::new();
        ledger_tasks.spawn({
            let (keeper, stop, opened) = (keeper.clone(), stop_ledger.clone(), opened.clone());
            async move {
                stop.run_until_cancelled(wait_for_ledger(&**keeper.ledger())).await;
                opened.cancel();
            }
        });

        let live = Arc::new(Live::new(settings.seed));
        let journal = Arc::new(journal);
        let tracker = TaskTracker::new();
        let connected = Arc::new(AtomicBool::new(false));
        let (requests, requests_out) = mpsc::channel(REQUESTS);
        let parts = Arc::new(Parts {
            switch,
            keeper: keeper.clone(),
            journal: journal.clone(),
            live: live.clone(),
            metrics,
            in_setup: InSetup::default(),
            opened: opened.clone(),
        });
        let snapshot = routing.get();
        let mut registry = Registry::new(
            parts,
            routing,
            connected.clone(),
            tracker.clone(),
            settings.calls,
            settings.seed,
            settings.mark,
        );
        let last_alive = left.last_alive.unwrap_or_else(clock::now);
        for record in left.unfinished {
            registry.adopt(adopt::machine(record, &snapshot, last_alive));
        }
        let registry = registry.run(signals, requests_out);
        let registry = tokio::spawn(vital.part("the registry of calls", registry));
        Ok(Self {
            keeper,
            journal,
            live,
            requests,
            connected,
            vital,
            opened,
            journal_tasks,
            registry,
            tracker,
            ledger_tasks,
            stop_ledger,
        })
    }

    /// Takes no calls any more, hangs up those that are up and waits for their
    /// ends, but no longer than `patience`.
    pub async fn hang_up_all(&self, patience: Duration) {
        info!(calls = self.live.len(), "no calls are taken any more");
        if self.requests.send(Request::HangUpAll).await.is_err() {
            return;
        }
        let gone = async {
            while !self.live.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(patience, gone).await.is_err() {
            warn!(calls = self.live.len(), "calls did not end in time");
        }
    }

    /// Sends new callers back to the dialplan and waits for the end of the calls that
    /// are up, but no longer than `patience`, and says how it goes.
    pub async fn wait_for_calls(&self, patience: Duration) {
        if self.requests.send(Request::SendBack).await.is_err() {
            return;
        }
        let deadline = Instant::now() + patience;
        let mut told = None;
        while !self.live.is_empty() && Instant::now() < deadline {
            if told.is_none_or(|at: Instant| at.elapsed() >= PROGRESS) {
                told = Some(Instant::now());
                let seconds_left = (deadline - Instant::now()).as_secs();
                info!(calls = self.live.len(), seconds_left, "waiting for calls to end");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until capacity can be held, but not for ever.
    pub async fn opened(&self) {
        self.opened.cancelled().await;
    }

    /// Whether events flow from the switch.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Stops every part, once nothing more comes from the switch. Calls that
    /// are up stay up there; their records wait in the journal for the next start.
    pub async fn stop(self) {
        drop(self.requests);
        self.tracker.close();
        if self.live.is_empty() {
            let over = async { (self.registry.await, self.tracker.wait().await) };
            if tokio::time::timeout(CALLS_PATIENCE, over).await.is_err() {
                warn!("the last calls were cut off");
            }
        } else {
            warn!(calls = self.live.len(), "calls are left to the next start");
            self.registry.abort();
        }
        self.stop_ledger.cancel();
        self.ledger_tasks.close();
        if tokio::time::timeout(CALLS_PATIENCE, self.ledger_tasks.wait()).await.is_err() {
            warn!("the ledger's last news were cut off");
        }
        match Arc::try_unwrap(self.journal) {
            Ok(journal) => self.journal_tasks.close(journal, JOURNAL_PATIENCE).await,
            // A call is still being led: what it saved is in the spool.
            Err(_) => warn!("the journal was still in use"),
        }
    }
}

/// Gives the ledger time to be filled. Where it takes longer, calls are refused until then.
async fn wait_for_ledger(ledger: &dyn Ledger) {
    let mut status = ledger.status();
    let open = status.wait_for(|status| matches!(status, Status::Open(_)));
    if tokio::time::timeout(LEDGER_PATIENCE, open).await.is_err() {
        warn!("the capacity ledger isn't there yet; calls are refused until it is");
    }
}
