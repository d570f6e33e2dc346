//! The service: its parts built in order, run, and drained.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use rand::RngExt;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::api::{self, Backend, Figures, SessionSettings, StreamSettings, Streams, TryLimits};
use crate::ari::{AriClient, ClientCache, Socket};
use crate::call::registry::Request;
use crate::capacity::measured::MeasuredLedger;
use crate::capacity::recount::Truth;
use crate::capacity::{Keeper, Ledger, MemoryLedger, RedisLedger, Share};
use crate::config::{CapacitySettings, Config, LedgerStore, WhenAway};
use crate::exchange::{self, Exchange, Ground};
use crate::ids::{CallId, Mark};
use crate::live::Live;
use crate::routing::Current;
use crate::store;
use crate::telemetry::Metrics;

/// The running service.
pub struct App {
    exchange: Exchange,
    socket: JoinHandle<()>,
    http: JoinHandle<()>,
    metrics_http: Option<JoinHandle<()>>,
    tracker: TaskTracker,
    stop_ledger: CancellationToken,
    stop_socket: CancellationToken,
    stop_http: CancellationToken,
}

/// Why the service didn't start: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database {url} can't be used: {source}")]
    Database { url: String, source: sea_orm::DbErr },
    #[error("the port {address} of {setting} can't be had: {source}")]
    Listen { setting: &'static str, address: String, source: std::io::Error },
    #[error("{0}: {source}", source = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Journal(#[from] crate::journal::OpenError),
    #[error("the name of this instance can't be kept in {directory}: {source}")]
    Instance { directory: PathBuf, source: std::io::Error },
    #[error("capacity.redis_url can't be used: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("the HTTP client for ARI can't be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// Events that may wait for the registry. Asterisk sends some 20 per call.
const SIGNALS: usize = 65_536;
const HTTP_PATIENCE: Duration = Duration::from_secs(5);
const TASKS_PATIENCE: Duration = Duration::from_secs(2);
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

impl App {
    /// Builds every part, in the order in which they need each other, and lets them run.
    ///
    /// # Errors
    /// One sentence that says what is missing. Nothing keeps running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let in_database =
            |source| StartError::Database { url: without_password(&config.database.url), source };
        debug!("opening the database");
        let mut db = crate::db::connect(&config.database.url).await.map_err(in_database)?;
        crate::db::migrate(&db).await.map_err(in_database)?;
        let metrics = Arc::new(Metrics::default());
        db.set_metric_callback({
            let metrics = metrics.clone();
            move |asked| metrics.database_asked(&asked.statement.sql, asked.elapsed)
        });

        debug!("binding the HTTP ports");
        let listener = listen("http.address", &config.http.address).await?;
        let metrics_listener = match config.metrics.listens_at() {
            Some(address) => Some(listen("metrics.address", address).await?),
            None => None,
        };

        debug!("opening the journal and the ledger");
        let stop_ledger = CancellationToken::new();
        let instance = instance_name(&config.journal.directory)?;
        let ledger = open_ledger(&config.capacity, &instance, &stop_ledger)?;
        let ledger: Arc<dyn Ledger> = Arc::new(MeasuredLedger::new(ledger, metrics.clone()));
        let records = Arc::new(store::truth::Records(db.clone()));
        let truth: Arc<dyn Truth> = records.clone();
        let mut keeper = Keeper::new(ledger.clone(), &instance, &config.capacity.leases())
            .counted_in(metrics.clone());
        if config.capacity.when_away == WhenAway::Share {
            keeper = keeper.with_share(Share::new(config.capacity.instances, truth.clone()));
        }

        debug!("loading the configuration");
        let routing = Arc::new(Current::default());
        routing.set(store::routing::load_snapshot(&db).await.map_err(in_database)?);

        debug!("taking up what an earlier run left, and connecting to Asterisk");
        let ari = Arc::new(AriClient::new(config.ari.clone(), metrics.clone())?);
        let (signals_in, signals) = mpsc::channel(SIGNALS);
        let settings = exchange::Settings {
            calls: config.calls,
            journal: config.journal.clone(),
            recount: config.capacity.recount(),
            seed: rand::rng().random(),
            mark: Mark::of_instance(&instance),
        };
        let ground = Ground {
            switch: ari.clone(),
            signals,
            keeper,
            truth,
            archive: records,
            routing: routing.clone(),
            metrics: metrics.clone(),
        };
        let exchange = Exchange::start(settings, ground).await?;
        let stop_socket = CancellationToken::new();
        let socket =
            Socket { client: ari.clone(), signals: signals_in, cancel: stop_socket.clone() };
        let vital = exchange.vital.clone();
        let socket = tokio::spawn(vital.part("the event socket", socket.run()));
        let tracker = TaskTracker::new();
        // Calls that an earlier run left are led already.
        exchange.opened().await;

        debug!("opening the API");
        let stop_http = CancellationToken::new();
        let figures = Figures {
            metrics,
            live: exchange.live.clone(),
            ledger,
            journal: Arc::downgrade(&exchange.journal),
            connected: exchange.connected.clone(),
        };
        let metrics_http = metrics_listener.map(|listener| {
            let routes = api::metrics_routes(figures);
            tokio::spawn(vital.part("the metrics", api::serve(listener, routes, stop_http.clone())))
        });
        let (clients, renewal) = ClientCache::new();
        let is_database_there = {
            let db = db.clone();
            move || {
                let db = db.clone();
                async move { db.ping().await.is_ok() }
            }
        };
        let renewal = renewal.run(ari, is_database_there);
        tracker.spawn(vital.part("the look after clients", until(&stop_http, renewal)));
        let switch = Arc::new(Switch {
            connected: exchange.connected.clone(),
            requests: exchange.requests.clone(),
            live: exchange.live.clone(),
            clients: clients.clone(),
        });
        let session = SessionSettings {
            lifetime: TimeDelta::hours(i64::from(config.http.session_hours)),
            secure_cookie: config.http.secure_cookies,
            tries: TryLimits {
                per_account: config.http.failed_sign_ins_per_account,
                per_address: config.http.failed_sign_ins_per_address,
            },
        };
        let backend = Backend::new(
            db,
            routing,
            exchange.keeper.clone(),
            exchange.live.clone(),
            switch,
            session,
        )
        .with_internal_token(config.internal.token.expose_secret())
        .with_streams(Streams::new(StreamSettings::default(), stop_http.clone()));
        let backend = Arc::new(backend);
        let follow = follow_changes(backend.clone(), clients);
        tracker.spawn(vital.part("the look after changes", until(&stop_http, follow)));
        let routes = api::routes(backend);
        let http = vital.part("the API", api::serve(listener, routes, stop_http.clone()));
        let http = tokio::spawn(http);
        Ok(Self {
            exchange,
            socket,
            http,
            metrics_http,
            tracker,
            stop_ledger,
            stop_socket,
            stop_http,
        })
    }

    /// Whether events flow from the switch.
    pub fn is_connected(&self) -> bool {
        self.exchange.is_connected()
    }

    /// Resolves when a part of it has broken down by a defect: then it leads no calls any
    /// more, and is to be started anew.
    pub async fn broken(&self) {
        self.exchange.vital.broken().await;
    }

    /// Takes no calls any more, hangs up those that are up and waits for their
    /// ends, but no longer than `patience`.
    pub async fn hang_up_all(&self, patience: Duration) {
        self.exchange.hang_up_all(patience).await;
    }

    /// Sends new callers back to the dialplan and waits for the end of the calls that
    /// are up, but no longer than `patience`.
    pub async fn wait_for_calls(&self, patience: Duration) {
        self.exchange.wait_for_calls(patience).await;
    }

    /// Stops every part. Calls that are up stay up on the switch; their
    /// records wait in the journal for the next start.
    pub async fn stop(self) {
        self.stop_http.cancel();
        let served = async {
            let _ = self.http.await;
            if let Some(metrics) = self.metrics_http {
                let _ = metrics.await;
            }
        };
        if tokio::time::timeout(HTTP_PATIENCE, served).await.is_err() {
            warn!("requests were cut off");
        }
        self.stop_socket.cancel();
        if self.socket.await.is_err() {
            warn!("the event socket ended badly");
        }
        self.tracker.close();
        if tokio::time::timeout(TASKS_PATIENCE, self.tracker.wait()).await.is_err() {
            warn!("what was under way with the switch was cut off");
        }
        self.exchange.stop().await;
        self.stop_ledger.cancel();
    }
}

/// A task that goes on until then.
fn until(
    stop: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let task = stop.clone().run_until_cancelled_owned(task);
    async move { task.await.unwrap_or_default() }
}

/// Takes the port that a setting names.
async fn listen(setting: &'static str, address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen {
        setting,
        address: address.to_owned(),
        source,
    })
}

/// The ledger that is configured.
fn open_ledger(
    settings: &CapacitySettings,
    instance: &str,
    stop: &CancellationToken,
) -> Result<Arc<dyn Ledger>, StartError> {
    Ok(match settings.store {
        LedgerStore::Memory => Arc::new(MemoryLedger::unfilled(settings.leases())),
        LedgerStore::Redis => Arc::new(RedisLedger::start(settings.redis(instance), stop.clone())?),
    })
}

/// Puts in force what others change: within a second, however it was changed.
async fn follow_changes(backend: Arc<Backend>, cache: ClientCache) {
    let mut is_away = false;
    let mut seen = (None, None);
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let followed = backend.follow_configuration().await;
        if let Err(error) = &followed
            && !is_away
        {
            warn!(%error, "changes of the configuration can't be seen; calls go on with the last one");
        }
        is_away = followed.is_err();
        let revision = followed.ok();
        if revision.is_none() || revision == seen.0 {
            continue;
        }
        if let Ok(clients) = store::clients::versions(&backend.db).await {
            if seen.1.as_ref() != Some(&clients) {
                cache.renew_soon();
            }
            seen = (revision, Some(clients));
        }
    }
}

/// The name of this instance: the same after every start from the same folder.
fn instance_name(directory: &Path) -> Result<String, StartError> {
    let read_or_make = || {
        let file = directory.join("instance");
        match std::fs::read_to_string(&file) {
            Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => {
                std::fs::create_dir_all(directory)?;
                let name = format!("{:016x}", rand::rng().random::<u64>());
                std::fs::write(&file, format!("{name}\n"))?;
                Ok(name)
            }
        }
    };
    read_or_make().map_err(|source| StartError::Instance { directory: directory.into(), source })
}

/// What the API may ask of the switch.
struct Switch {
    connected: Arc<AtomicBool>,
    requests: mpsc::Sender<Request>,
    live: Arc<Live>,
    clients: ClientCache,
}

#[async_trait::async_trait]
impl api::Switch for Switch {
    fn is_ready(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    fn probing_changed(&self) {
        self.clients.renew_soon();
    }

    async fn client_changed(&self) {
        self.clients.renew().await;
    }

    fn hang_up(&self, call: CallId, told: String) -> Result<(), api::NotHungUp> {
        if self.live.get(call).is_none() {
            return Err(api::NotHungUp::Absent);
        }
        let request = Request::HangUp { call, told };
        self.requests.try_send(request).map_err(|_| api::NotHungUp::Busy)
    }
}

/// The database's URL as it may be shown.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let user = url[scheme + 3..at].split(':').next().unwrap_or_default();
            format!("{}{user}{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{NotHungUp, Switch as _};
    use crate::clock;
    use crate::live::{LiveCall, LiveState};

    fn live_call() -> LiveCall {
        LiveCall {
            call: clock::new_call_id(),
            state: LiveState::Talking,
            since: clock::now(),
            started_at: clock::now(),
            dialled: "+15550101101".to_owned(),
            caller_number: None,
            seller: None,
            did: None,
            campaign: None,
            client: None,
            attempts: 1,
        }
    }

    #[tokio::test]
    async fn a_call_that_can_wait_to_be_hung_up_is_told_from_one_that_is_not_there() {
        let (requests, _waiting) = mpsc::channel(1);
        let (clients, _renewal) = ClientCache::new();
        let (live, connected) = (Arc::new(Live::new(1)), Arc::default());
        let switch = Switch { connected, requests, live: live.clone(), clients };
        let call = live_call();
        let id = call.call;
        assert_eq!(switch.hang_up(id, String::new()), Err(NotHungUp::Absent));
        live.put(call);
        assert_eq!(switch.hang_up(id, String::new()), Ok(()));
        assert_eq!(switch.hang_up(id, String::new()), Err(NotHungUp::Busy));
    }
}
