//! Some dozens of calls, and the lives of the service that leads them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::asterisk::{Asterisk, Shared, Simulated};
use super::checks::Checks;
use super::panics;
use super::people::{self, Caller};
use super::report::Report;
use super::town::Town;
use super::vault::Vault;
use crate::call::registry::{CallSettings, Request};
use crate::capacity::recount::{Recount, RecountSettings};
use crate::capacity::{Keeper, Leases, MemoryLedger};
use crate::clock::{self, Timestamp};
use crate::exchange::{Exchange, Ground, Settings};
use crate::ids::Mark;
use crate::journal::JournalSettings;
use crate::live::LiveCall;
use crate::routing::Current;
use crate::telemetry::{Metrics, Moment};

pub struct Episode {
    seed: u64,
    is_told: bool,
}

/// What an episode plays in.
struct World {
    town: Arc<Town>,
    switch: Arc<Shared>,
    vault: Arc<Vault>,
    luck: SmallRng,
    began: Timestamp,
    /// Nothing goes wrong in it.
    is_calm: bool,
    folder: TempDir,
}

/// How a life of the service ends.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// After so many steps, and there.
    Killed { steps: u64 },
    /// After so many steps it is told to, and may wait so long for its calls.
    Asked { steps: u64, patience: Option<Duration> },
    /// When everybody has left.
    Rest,
}

/// In which callers arrive.
const ARRIVALS_MS: u64 = 30_000;
/// After which nothing breaks any more.
const TROUBLE_MS: u64 = 45_000;
/// Two audits, and what they find.
const REST: Duration = Duration::from_secs(40);
const LONGEST: Duration = Duration::from_secs(600);
const SIGNALS: usize = 65_536;

impl Episode {
    pub const fn new(seed: u64) -> Self {
        Self { seed, is_told: false }
    }

    /// The same, with everything that happens on standard output where it goes wrong.
    pub const fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    pub fn run(&self) -> Report {
        clock::simulated::forget_calls();
        drop(clock::simulated::defects());
        panics::watch();
        let mut world = World::build(self.seed);
        if self.is_told {
            world.switch.lock().tell();
        }
        let deaths = if world.is_calm { 0 } else { [0, 1, 1, 2, 3][world.luck.random_range(0..5)] };
        for _ in 0..deaths {
            let until = world.invent_death();
            world.live(until);
            if world.is_broken() {
                break;
            }
            world.die(until);
        }
        if !world.is_broken() {
            world.live(Until::Rest);
        }
        world.end(deaths, self.is_told)
    }
}

impl World {
    fn build(seed: u64) -> Self {
        let mut luck = SmallRng::seed_from_u64(seed);
        let town = Arc::new(Town::build(&mut luck));
        let began = "2026-03-02T10:05:00Z".parse().unwrap();
        let switch = Asterisk::shared(luck.random(), began, Checks::new(town.clone(), began));
        let callers = luck.random_range(20..60);
        let callers: Vec<_> =
            (0..callers).map(|_| Caller::invent(&mut luck, ARRIVALS_MS)).collect();
        let is_calm = luck.random_ratio(1, 8);
        let trouble = if is_calm { 0 } else { luck.random_range(0..4) };
        {
            let mut asterisk = switch.lock();
            asterisk.expect(callers);
            asterisk.expect_trouble(TROUBLE_MS, trouble);
            (asterisk.is_calm, asterisk.is_unreliable) = (is_calm, !is_calm);
            asterisk.checks.report.calm = u64::from(is_calm);
        }
        let vault = Arc::new(Vault::new(luck.random(), began, &mut luck));
        let folder = folder_in_memory();
        Self { town, switch, vault, luck, began, is_calm, folder }
    }

    fn is_broken(&self) -> bool {
        self.switch.lock().checks.broken.is_some()
    }

    fn invent_death(&mut self) -> Until {
        let steps = self.luck.random_range(1..1_500);
        if self.luck.random_ratio(2, 3) {
            return Until::Killed { steps };
        }
        let waits = self.luck.random_ratio(2, 3);
        let patience = waits.then(|| Duration::from_millis(self.luck.random_range(0..15_000)));
        Until::Asked { steps, patience }
    }

    /// The service runs.
    fn live(&mut self, until: Until) {
        // A runtime for each life: to drop it is to kill the service, at this very point.
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seed = self.luck.random();
        // One call in some lives meets with a defect, and perhaps with another.
        let has_defect = !self.is_calm && self.luck.random_ratio(1, 4);
        let defect = has_defect.then(|| self.luck.random_range(0..600));
        let again = self.luck.random_ratio(1, 3).then(|| self.luck.random_range(0..8));
        runtime.block_on(async {
            let (began, since) = {
                let asterisk = self.switch.lock();
                clock::simulated::begin(asterisk.time());
                (asterisk.now, Instant::now())
            };
            clock::simulated::plan_defect(defect, again);
            let stop_at = until.steps().map_or(u64::MAX, |steps| self.switch.lock().steps + steps);
            let happenings = async {
                let_happen(&self.switch, since, began, stop_at).await;
                if matches!(until, Until::Asked { .. }) && !self.is_broken() {
                    self.switch.asked_to_end.notify_one();
                    let_happen(&self.switch, since, began, u64::MAX).await;
                }
            };
            tokio::select! {
                biased;
                () = happenings => {}
                () = self.serve(seed, until) => {}
            }
        });
    }

    async fn serve(&self, seed: u64, until: Until) {
        let (signals_in, signals) = mpsc::channel(SIGNALS);
        let routing = Arc::new(Current::default());
        routing.set(self.town.snapshot());
        let leases = Leases::default();
        let ledger = Arc::new(MemoryLedger::unfilled(leases));
        let metrics = Arc::<Metrics>::default();
        let recount = RecountSettings { grace: Duration::ZERO, ..RecountSettings::default() };
        let ground = Ground {
            switch: Arc::new(Simulated(self.switch.clone())),
            signals,
            keeper: Keeper::new(ledger, "simulated", &leases),
            truth: self.vault.clone(),
            archive: self.vault.clone(),
            routing,
            metrics: metrics.clone(),
        };
        let journal = JournalSettings {
            directory: self.folder.path().to_owned(),
            sync_interval_ms: 1_000,
            most_mb: 64,
        };
        let calls = CallSettings { most_in_setup: 8, audit_seconds: 15 };
        let mark = Mark::of_instance("the only one");
        let exchange = Exchange::start(Settings { calls, journal, recount, seed, mark }, ground)
            .await
            .unwrap();
        self.switch.lock().attach(signals_in);
        self.switch.agenda_changed.notify_one();
        let requests = exchange.requests.clone();
        let life = async {
            match until {
                Until::Killed { .. } => std::future::pending().await,
                Until::Asked { patience, .. } => self.end_as_asked(exchange, patience).await,
                Until::Rest => self.come_to_rest(exchange, &metrics).await,
            }
        };
        tokio::select! {
            biased;
            () = self.operate(requests) => {}
            () = life => {}
        }
    }

    /// An operator hangs up calls, until the service ends.
    async fn operate(&self, requests: mpsc::Sender<Request>) {
        loop {
            self.switch.operator_hangs_up.notified().await;
            let calls = std::mem::take(&mut self.switch.lock().hung_up);
            for call in calls {
                let told = "simulated".to_owned();
                if requests.send(Request::HangUp { call, told }).await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// As a deploy ends it.
    async fn end_as_asked(&self, exchange: Exchange, patience: Option<Duration>) {
        self.switch.asked_to_end.notified().await;
        self.switch.lock().checks.report.asked_to_end += 1;
        if let Some(patience) = patience {
            // The model's callers have the numbers of their stories.
            let served: Vec<_> =
                exchange.live.list().iter().filter_map(|call| story(call)).collect();
            self.switch.lock().takes_no_calls(&served);
            exchange.wait_for_calls(patience).await;
            self.switch.lock().must_have_sent_back();
        }
        self.switch.lock().detach();
        exchange.stop().await;
    }

    /// Everybody leaves in the end, and nothing of them is left.
    async fn come_to_rest(&self, exchange: Exchange, metrics: &Metrics) {
        let began = Instant::now();
        loop {
            sleep(Duration::from_secs(1)).await;
            let mut asterisk = self.switch.lock();
            if self.is_calm {
                asterisk.must_not("holds have no call", holds_without_call(&exchange));
            }
            if asterisk.now > TROUBLE_MS {
                asterisk.is_unreliable = false;
                if asterisk.is_quiet() && exchange.live.is_empty() {
                    break;
                }
            }
            if began.elapsed() > LONGEST {
                let calls = exchange.live.len();
                asterisk.must_not("it didn't come to rest", calls);
                return;
            }
        }
        sleep(REST).await;
        let holders = exchange.keeper.ledger().holders().await.unwrap();
        let held = holders.iter().filter(|holder| holder.live).count();
        let truth =
            Recount::new(exchange.keeper.clone(), self.vault.clone(), RecountSettings::default());
        let differences = truth.verify(false).await.unwrap().differences;
        let bridges = usize::from(self.switch.lock().has_bridges());
        for (what, count) in [
            ("calls are left", exchange.live.len()),
            ("holds are left", held),
            ("the ledger and the records differ", differences.len()),
            ("bridges are left", bridges),
            ("records are left in the journal", exchange.journal.figures().records),
        ] {
            self.switch.lock().must_not(what, count);
        }
        let figures = metrics.text(&Moment::default());
        self.figures_must_be_right(&figures);
        exchange.stop().await;
    }

    fn figures_must_be_right(&self, figures: &str) {
        let checks = &mut self.switch.lock().checks;
        checks.figures_must_be_right(figures, &self.vault.records());
        checks.drift_must_be_explained(figures);
    }

    /// It is no more; the world goes on without it for a while.
    fn die(&mut self, how: Until) {
        let down_ms = self.luck.random_range(20..5_000);
        let mut asterisk = self.switch.lock();
        asterisk.checks.report.kills += u64::from(matches!(how, Until::Killed { .. }));
        // As the last write would have left them.
        let seen = asterisk.now.saturating_sub(self.luck.random_range(0..1_000));
        touch(self.folder.path(), self.began + Duration::from_millis(seen));
        asterisk.detach();
        asterisk.hung_up.clear();
        let back: people::Moment = asterisk.now + down_ms;
        asterisk.advance(back, u64::MAX);
        asterisk.now = back;
    }

    fn end(self, deaths: u32, is_told: bool) -> Report {
        let mut asterisk = self.switch.lock();
        asterisk.must_not("panics", panics::seen());
        if asterisk.checks.broken.is_none() {
            asterisk.checks.broken = self.vault.broken();
            asterisk.checks.records_must_be_right(&self.vault.records());
        }
        if is_told && asterisk.checks.broken.is_some() {
            println!("{}", asterisk.told());
        }
        let Report { kills, asked_to_end, .. } = asterisk.checks.report;
        assert!(u64::from(deaths) >= kills + asked_to_end);
        Report {
            broken: asterisk.checks.broken.clone(),
            calls: asterisk.checks.stories.len() as u64,
            digest: asterisk.digest,
            steps: asterisk.steps,
            ..asterisk.checks.report.clone()
        }
    }
}

impl Until {
    const fn steps(self) -> Option<u64> {
        match self {
            Self::Killed { steps } | Self::Asked { steps, .. } => Some(steps),
            Self::Rest => None,
        }
    }
}

/// Whose call it is, by its caller's number.
fn story(call: &LiveCall) -> Option<usize> {
    call.caller_number.as_ref()?.strip_prefix("+1555")?.parse().ok()
}

fn holds_without_call(exchange: &Exchange) -> usize {
    let held = exchange.keeper.live_calls();
    held.into_iter().filter(|call| exchange.live.get(*call).is_none()).count()
}

/// Lets the agenda happen, in simulated time.
async fn let_happen(switch: &Shared, since: Instant, began: people::Moment, stop_at: u64) {
    loop {
        let next = switch.next().expect("somebody always looks around");
        let due = since + Duration::from_millis(next.saturating_sub(began));
        tokio::select! {
            biased;
            () = switch.agenda_changed.notified() => {}
            () = sleep_until(due) => {}
        }
        let passed = u64::try_from(since.elapsed().as_millis()).unwrap();
        let mut asterisk = switch.lock();
        asterisk.advance(began + passed, stop_at);
        if !asterisk.hung_up.is_empty() {
            switch.operator_hangs_up.notify_one();
        }
        if asterisk.checks.broken.is_some() || asterisk.steps >= stop_at {
            return;
        }
    }
}

/// A folder on a disk that syncs at once, where there is one.
fn folder_in_memory() -> TempDir {
    let shm = Path::new("/dev/shm");
    let place: PathBuf = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("cc-simulated-").tempdir_in(place).unwrap()
}

fn touch(folder: &Path, at: Timestamp) {
    for entry in fs::read_dir(folder).unwrap() {
        let file = File::options().append(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(at.into()).unwrap();
    }
}
