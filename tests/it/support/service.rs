//! The whole product, running: the real binary with an Asterisk of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use capconduit::api::create_first_admin;
use capconduit::clock;
use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::disk::SmallDisk;
use super::metrics::Metrics;
use super::ports::Ports;
use super::process::{Process, print_tail};
use super::production::{self, Production};
use super::scripted::ScriptedSwitch;
use super::seller::{Campaign, Seller, count};
use super::wait::{eventually, seconds};
use super::web::Web;

pub struct Service {
    /// Dropped before the folder that it works in.
    process: Option<Process>,
    admin: Option<Web>,
    campaigns: Mutex<Vec<Campaign>>,
    names: AtomicU32,
    pub ports: Ports,
    pub http_port: u16,
    pub sip_port: u16,
    pub ari_port: u16,
    ground: Ground,
    pub metrics_port: u16,
    /// What of its data is on a small disk.
    small_disk: Option<SmallDisk>,
    /// Templates of Asterisk's configuration.
    pub asterisk_conf: PathBuf,
    /// How long a caller hears ringing while the service is away.
    pub patience: Duration,
    /// What comes after that, if it isn't a 503.
    pub fallback: Option<String>,
    /// Settings by their names in the environment.
    pub settings: Vec<(&'static str, String)>,
    folder: TempDir,
}

/// What a service stands on.
enum Ground {
    Embedded,
    /// A database and a Redis that the settings name, made at the first start.
    Production(Option<Arc<Production>>),
    /// An SQLite file, and a switch that speaks ARI as a test says.
    Scripted,
    /// Servers that it starts itself.
    Private {
        database_port: u16,
        redis_port: u16,
    },
}

/// The same, where a test says nothing of it.
pub const PATIENCE: Duration = seconds(2);
const READY: &str = "CapConduit is ready";

impl Service {
    /// Starts with an empty data folder, and waits until calls are taken.
    pub async fn start() -> Self {
        let mut service = Self::prepare();
        service.start_first().await;
        service
    }

    /// A service that isn't started yet.
    pub fn prepare() -> Self {
        Self::prepare_at(Ports::claim())
    }

    /// The same, at these ports.
    pub fn prepare_at(ports: Ports) -> Self {
        Self {
            process: None,
            admin: None,
            campaigns: Mutex::default(),
            names: AtomicU32::new(0),
            http_port: ports.single(),
            sip_port: ports.single(),
            ari_port: ports.single(),
            ground: Ground::wanted(),
            metrics_port: ports.single(),
            small_disk: None,
            ports,
            asterisk_conf: Path::new(env!("CARGO_MANIFEST_DIR")).join("asterisk-conf"),
            patience: PATIENCE,
            fallback: None,
            settings: Vec::new(),
            folder: tempfile::Builder::new().prefix("cc-").tempdir().unwrap(),
        }
    }

    /// Gives its Asterisk another configuration: `old` becomes `new` in this file.
    pub fn change_asterisk_conf(&mut self, file: &str, old: &str, new: &str) {
        let conf = self.file("changed-asterisk-conf");
        if self.asterisk_conf != conf {
            fs::create_dir_all(&conf).unwrap();
            for entry in fs::read_dir(&self.asterisk_conf).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::copy(&path, conf.join(path.file_name().unwrap())).unwrap();
                }
            }
            self.asterisk_conf.clone_from(&conf);
        }
        let text = fs::read_to_string(conf.join(file)).unwrap();
        assert!(text.contains(old), "{old} isn't in {file}");
        fs::write(conf.join(file), text.replace(old, new)).unwrap();
    }

    /// One that isn't started yet, of the production profile, with servers of its own.
    pub fn prepare_with_private_servers() -> Self {
        let mut service = Self::prepare();
        let (database_port, redis_port) = (service.ports.single(), service.ports.single());
        service.ground = Ground::Private { database_port, redis_port };
        service
    }

    /// One of the embedded profile, whatever the others are.
    pub fn prepare_embedded() -> Self {
        let mut service = Self::prepare();
        service.ground = Ground::Embedded;
        service
    }

    /// The same, with a part of its data on a disk of its own, which the test can fill.
    pub fn prepare_with_small_disk(small_disk: SmallDisk) -> Self {
        let mut service = Self::prepare_embedded();
        service.small_disk = Some(small_disk);
        service
    }

    /// One of the production profile, whatever the others are.
    pub async fn start_production() -> Self {
        let mut service = Self::prepare();
        service.ground = Ground::Production(None);
        service.start_first().await;
        service
    }

    /// `capconduit serve` beside a switch that a test scripts.
    pub async fn start_on(switch: &ScriptedSwitch) -> Self {
        let mut service = Self::prepare();
        service.ground = Ground::Scripted;
        service.ari_port = switch.port;
        fs::create_dir_all(service.data()).unwrap();
        let db = capconduit::db::connect(&service.database_url()).await.unwrap();
        capconduit::db::migrate(&db).await.unwrap();
        let password = create_first_admin(&db, clock::now()).await.unwrap().unwrap();
        db.close().await.unwrap();
        fs::write(service.data().join("admin-password"), password).unwrap();
        fs::write(service.data().join("ari-password"), "of the scripted switch").unwrap();
        service.start_first().await;
        service
    }

    /// Another instance on the same database and Redis, with an Asterisk of its own.
    pub async fn start_beside(other: &Self) -> Self {
        let Ground::Production(Some(shared)) = &other.ground else { panic!("it shares nothing") };
        let mut service = Self::prepare();
        service.ground = Ground::Production(Some(shared.clone()));
        service.start_again().await;
        let password = other.secret("admin-password");
        service.admin = Some(Web::sign_in(service.http_port, "admin", &password).await);
        service
    }

    /// One that isn't started yet, on the PostgreSQL at `server`.
    pub async fn prepare_on(server: &str) -> Self {
        let mut service = Self::prepare();
        service.ground = Ground::Production(Some(Arc::new(Production::prepare_on(server).await)));
        service
    }

    /// Starts what was prepared, and waits until calls are taken.
    pub async fn start_first(&mut self) {
        self.start_again().await;
        let password = self.secret("admin-password");
        self.admin = Some(Web::sign_in(self.http_port, "admin", &password).await);
    }

    /// Starts with the data that is there.
    pub async fn start_again(&mut self) {
        if matches!(self.ground, Ground::Scripted) {
            self.serve(self.ari_port, &[("CAPCONDUIT__LOG__FORMAT", "human")]);
            return eventually("the API listens", seconds(30), async || {
                self.said().contains("the API listens").then_some(())
            })
            .await;
        }
        let mut process = self.launch().await;
        eventually("the service is ready", seconds(30), async || {
            let ended = process.exited();
            assert!(ended.is_none(), "the service ended at its start: {}", process.output());
            process.output().contains(READY).then_some(())
        })
        .await;
        self.process = Some(process);
    }

    /// Starts what can't start, and says what it says then.
    pub async fn fails_to_start(&mut self) -> String {
        let mut process = self.launch().await;
        let status = process.finished("it gives up", seconds(30)).await;
        assert_eq!(status.code(), Some(1), "{}", process.output());
        process.output()
    }

    async fn launch(&mut self) -> Process {
        let (rtp_from, rtp_to) = self.ports.media();
        let program = Path::new(env!("CARGO_BIN_EXE_capconduit"));
        let mut command = match &self.small_disk {
            Some(disk) => disk.command(program, &self.data()),
            None => Command::new(program),
        };
        command
            .arg("run")
            .arg("--data")
            .arg(self.data())
            .args(["--http-port", &self.http_port.to_string()])
            .args(["--sip-port", &self.sip_port.to_string()])
            .args(["--ari-port", &self.ari_port.to_string()])
            .args(["--rtp-ports", &format!("{rtp_from}-{rtp_to}")])
            .args(["--patience-seconds", &self.patience.as_secs().to_string()])
            .args(self.fallback.iter().flat_map(|fallback| ["--fallback", fallback]))
            .arg("--tools")
            .arg(tools())
            .arg("--asterisk-conf")
            .arg(&self.asterisk_conf)
            .env("CAPCONDUIT__METRICS__ADDRESS", format!("127.0.0.1:{}", self.metrics_port));
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        self.ground.configure(&mut command).await;
        self.begin(&mut command)
    }

    /// Starts the service alone, beside the Asterisk that answers at `ari_port`, and
    /// doesn't wait for anything.
    pub fn serve(&mut self, ari_port: u16, settings: &[(&str, &str)]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command
            .arg("serve")
            .env("CAPCONDUIT__DATABASE__URL", self.database_url())
            .env("CAPCONDUIT__HTTP__ADDRESS", format!("127.0.0.1:{}", self.http_port))
            .env("CAPCONDUIT__METRICS__ADDRESS", format!("127.0.0.1:{}", self.metrics_port))
            .env("CAPCONDUIT__ARI__ADDRESS", format!("127.0.0.1:{ari_port}"))
            .env("CAPCONDUIT__ARI__PASSWORD", self.secret("ari-password"))
            .env("CAPCONDUIT__JOURNAL__DIRECTORY", self.data().join("journal"))
            .envs(settings.iter().copied());
        if let Ground::Production(Some(production)) = &self.ground {
            production.configure_service(&mut command);
        }
        self.process = Some(self.begin(&mut command));
    }

    fn begin(&self, command: &mut Command) -> Process {
        let output = self.file("stdout");
        drop(fs::remove_file(&output));
        Process::start(command, &output)
    }

    /// Waits until it takes calls.
    pub async fn ready(&self) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/ready", self.http_port);
        eventually("it takes calls", seconds(20), async || {
            let answer = http.get(&url).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// The process that serves, for what else is to be done to it.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// The process of its Asterisk.
    pub fn asterisk_process(&self) -> Pid {
        self.noted_process("asterisk/run/asterisk.pid")
    }

    /// The live calls, as an operator sees them.
    pub async fn live(&self) -> Vec<Value> {
        items(&self.admin().get("/api/admin/live?per_page=200").await).to_vec()
    }

    /// How many live calls are in this state.
    pub async fn live_in(&self, state: &str) -> usize {
        self.live().await.iter().filter(|call| call["state"] == state).count()
    }

    /// What it said on its terminal.
    pub fn said(&self) -> String {
        fs::read_to_string(self.file("stdout")).unwrap_or_default()
    }

    /// Tells the service's process something.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.process.as_mut().expect("it runs").signal(signal), "it runs");
    }

    /// Ends it as an operator does, and checks that it ends well.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let status = process.end();
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", process.output());
    }

    /// The process that a private server noted in its folder.
    pub fn noted_process(&self, pid_file: &str) -> Pid {
        let noted = fs::read_to_string(self.data().join(pid_file)).unwrap();
        Pid::from_raw(noted.lines().next().unwrap().trim().parse().unwrap()).unwrap()
    }

    /// Takes the service away from its Asterisk, which goes on alone.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Where this process finds the small disk, which nobody else sees.
    pub fn small_disk(&self) -> PathBuf {
        let process = self.process.as_ref().expect("it runs");
        let seen_by = PathBuf::from(format!("/proc/{}/root", process.id()));
        seen_by.join(self.data().strip_prefix("/").unwrap()).join(SmallDisk::FOLDER)
    }

    /// What one of the production profile stands on.
    #[track_caller]
    pub fn production(&self) -> Arc<Production> {
        let Ground::Production(Some(production)) = &self.ground else { panic!("it has none") };
        production.clone()
    }

    pub fn admin(&self) -> &Web {
        self.admin.as_ref().expect("the admin is signed in at the start")
    }

    /// A new seller, signed in.
    pub async fn seller(&self) -> Seller {
        Seller::create(self, &self.name("seller")).await
    }

    /// A name, or part of one, that is used once.
    pub fn name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.names.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A path for a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.file("data")
    }

    /// For what no edge of the product can do.
    pub fn database_url(&self) -> String {
        match &self.ground {
            Ground::Production(Some(production)) => production.database_url.clone(),
            Ground::Private { .. } => {
                let settings = fs::read_to_string(self.data().join("capconduit.toml")).unwrap();
                let url = settings.lines().find_map(|line| line.strip_prefix("database.url = "));
                url.unwrap().trim_matches('"').to_owned()
            }
            _ => format!("sqlite://{}", self.data().join("capconduit.db").display()),
        }
    }

    pub fn watch_over(&self, campaign: Campaign) {
        self.campaigns.lock().unwrap().push(campaign);
    }

    /// What Asterisk answers to a question over ARI.
    pub async fn ari(&self, path: &str) -> Value {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/ari/{path}", self.ari_port);
        let password = self.secret("ari-password");
        let answer = http.get(url).basic_auth("capconduit", Some(password)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Asks Asterisk to do something over ARI.
    pub async fn tell_ari(&self, path: &str) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/ari/{path}", self.ari_port);
        let password = self.secret("ari-password");
        let answer = http.post(url).basic_auth("capconduit", Some(password)).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    /// What Asterisk answers to a command on its console.
    pub fn asterisk(&self, command: &str) -> String {
        let output = Command::new(tools().join("bin/asterisk"))
            .arg("-C")
            .arg(self.data().join("asterisk/etc/asterisk.conf"))
            .args(["-rx", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What Prometheus would read.
    pub async fn metrics(&self) -> Metrics {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let answer = http.get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        Metrics::parse(&answer.text().await.unwrap())
    }

    /// How many calls are live, as an operator sees it.
    pub async fn live_calls(&self) -> u64 {
        count(&self.admin().get("/api/admin/live").await["total"])
    }

    /// The logs of all calls, oldest first, once there are `count`; never more.
    pub async fn logs(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} call logs");
        let logs = eventually(&what, seconds(10), async || {
            Some(self.logs_so_far().await).filter(|logs| logs.len() >= count)
        })
        .await;
        assert_eq!(logs.len(), count, "one log for each call: {logs:#?}");
        logs
    }

    /// How many logs there are by now.
    pub async fn logs_total(&self) -> u64 {
        count(&self.admin().get("/api/admin/logs?per_page=1").await["total"])
    }

    /// The logs that are there by now, oldest first.
    pub async fn logs_so_far(&self) -> Vec<Value> {
        // One that comes between two pages moves another to the next, which has it again.
        let mut logs = BTreeMap::new();
        for page in 1.. {
            let path = format!("/api/admin/logs?page={page}&per_page=200");
            let found = self.admin().get(&path).await;
            let logs_of_page = items(&found).iter().map(|log| (log["id"].as_i64(), log.clone()));
            logs.extend(logs_of_page);
            if items(&found).len() < 200 {
                break;
            }
        }
        let mut logs: Vec<_> = logs.into_values().collect();
        logs.sort_by_key(|log| log["timestampStart"].to_string());
        logs
    }

    /// One log with its attempts and its decision trace.
    pub async fn log_in_full(&self, log: &Value) -> Value {
        self.admin().get(&format!("/api/admin/logs/{}", log["id"])).await
    }

    /// The log of the only call so far, in full.
    pub async fn only_log(&self) -> Value {
        self.log_in_full(&self.logs(1).await[0]).await
    }

    /// What `capconduit caps verify` exits with, and what it says.
    pub fn verify_caps(&self) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_capconduit"))
            .args(["caps", "verify", "--http-port", &self.http_port.to_string(), "--data"])
            .arg(self.data())
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(told).unwrap())
    }

    /// No channel, no bridge, no live call, and nothing held under any cap; and every log
    /// says the same of its call in all its parts.
    pub async fn assert_clean(&self) {
        self.assert_no_calls().await;
        let campaigns = self.campaigns.lock().unwrap().clone();
        for campaign in campaigns {
            let mut last = Vec::new();
            eventually("nothing is held under a cap", seconds(5), async || {
                last = campaign.links().await;
                last.iter().all(|link| link.is_idle()).then_some(())
            })
            .await;
        }
        self.assert_decisions_agree().await;
    }

    /// No channel, no bridge and no live call.
    pub async fn assert_no_calls(&self) {
        for what in ["channels", "bridges"] {
            let path = what.to_owned();
            eventually(&format!("no {what} in Asterisk"), seconds(8), async || {
                let left = self.ari(&path).await;
                (left.as_array()?.is_empty()).then_some(())
            })
            .await;
        }
        eventually("no live call", seconds(5), async || {
            (self.live_calls().await == 0).then_some(())
        })
        .await;
    }

    /// What a file of the data folder keeps secret.
    pub fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.data().join(name)).unwrap().trim().to_owned()
    }
}

// === impl Ground ===

impl Ground {
    fn wanted() -> Self {
        if production::is_wanted() { Self::Production(None) } else { Self::Embedded }
    }

    async fn configure(&mut self, command: &mut Command) {
        match self {
            Self::Embedded | Self::Scripted => {}
            Self::Production(production) => {
                if production.is_none() {
                    *production = Some(Arc::new(Production::prepare().await));
                }
                production.as_ref().unwrap().configure(command);
            }
            Self::Private { database_port, redis_port } => {
                command
                    .args(["--profile", "production"])
                    .args(["--database-port", &database_port.to_string()])
                    .args(["--redis-port", &redis_port.to_string()]);
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.take());
        if std::thread::panicking() {
            let data = self.data();
            print_tail(&self.file("stdout"), 80);
            print_tail(&data.join("log/capconduit.log"), 80);
            print_tail(&data.join("asterisk/log/messages.log"), 20);
        }
        end_asterisk(&self.data().join("asterisk"));
        end_server(&self.data().join("postgres"), "postmaster.pid");
        end_server(&self.data().join("redis"), "redis.pid");
    }
}

/// Where Asterisk and SIPp are.
pub fn tools() -> PathBuf {
    std::env::var_os("CAPCONDUIT_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools"), PathBuf::from)
}

/// Where programs are looked for: first that of scripts/fetch-node, which may have had to
/// get a Node.js.
pub fn path_with_node() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path);
    std::env::join_paths([tools().join("nodejs/bin")].into_iter().chain(installed)).unwrap()
}

/// The items of a list, paged or not.
pub fn items(list: &Value) -> &[Value] {
    list["items"].as_array().or_else(|| list.as_array()).expect("a list")
}

/// A time that the API gave.
pub fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_else(|| panic!("no time: {value}")).parse().unwrap()
}

/// Ends the Asterisk that a killed service left behind, if it did.
fn end_asterisk(home: &Path) {
    let noted = fs::read_to_string(home.join("run/asterisk.pid")).unwrap_or_default();
    let Some(pid) = noted.trim().parse().ok().and_then(Pid::from_raw) else { return };
    let command = fs::read_to_string(format!("/proc/{}/cmdline", noted.trim())).unwrap_or_default();
    if command.contains(&home.display().to_string()) {
        // It may have ended in this moment.
        let _: Result<(), _> = kill_process(pid, Signal::KILL);
    }
}

/// The same for a private server, which works in its own folder.
fn end_server(home: &Path, pid_file: &str) {
    let noted = fs::read_to_string(home.join(pid_file)).unwrap_or_default();
    let first = noted.lines().next().unwrap_or_default().trim();
    let Some(pid) = first.parse().ok().and_then(Pid::from_raw) else { return };
    if fs::read_link(format!("/proc/{first}/cwd")).is_ok_and(|folder| folder == home) {
        let _: Result<(), _> = kill_process(pid, Signal::QUIT);
    }
}
