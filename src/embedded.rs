//! Everything on one machine, in one folder, with one command.
//!
//! `capconduit run` keeps a database, an Asterisk of its own and the service
//! together under one data folder, and ends what it started when it is ended.
//! In the embedded profile the database is a file and capacity is held in memory;
//! in the production profile they are PostgreSQL and Redis, private ones where the
//! settings name none ([`backing`]). Whatever stands in the way (a port in use, a
//! full disk, a second run on the same folder) is said in one sentence before
//! anything is started.

pub mod asterisk;
mod backing;
mod fallback;
mod postgres;
mod realtime;
mod redis;
mod server;
mod summary;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::RngExt;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::{App, StartError};
use crate::config::{CallsAtShutdown, Config, ConfigError};
use crate::telemetry::{self, Destination};
use crate::vital::BROKEN_DOWN;
use crate::{api, clock, db};
use asterisk::{Asterisk, Leftover};
pub use backing::settings_file;
use backing::{Backing, Servers};
pub use fallback::Fallback;
use realtime::Realtime;

/// Run everything on this machine: Asterisk, the database and the service.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What the service stands on.
    #[arg(long, value_enum, default_value_t = Profile::Embedded)]
    pub profile: Profile,
    /// Settings that differ from the defaults (TOML); the environment comes after
    /// it. What they say of servers counts in the production profile.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that holds everything: database, records, passwords, logs.
    #[arg(long, default_value = ".run")]
    pub data: PathBuf,
    /// Port of the API and its documentation, on 127.0.0.1.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: u16,
    /// Address on which carriers call; 0.0.0.0 for all of this machine's.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub sip_address: Ipv4Addr,
    /// UDP port on which carriers call.
    #[arg(long, default_value_t = 5060, value_parser = clap::value_parser!(u16).range(1..))]
    pub sip_port: u16,
    /// Port of Asterisk's own HTTP server, on 127.0.0.1.
    #[arg(long, default_value_t = 8088, value_parser = clap::value_parser!(u16).range(1..))]
    pub ari_port: u16,
    /// Port of a private PostgreSQL, on 127.0.0.1.
    #[arg(long, default_value_t = 15432, value_parser = clap::value_parser!(u16).range(1..))]
    pub database_port: u16,
    /// Port of a private Redis, on 127.0.0.1.
    #[arg(long, default_value_t = 16379, value_parser = clap::value_parser!(u16).range(1..))]
    pub redis_port: u16,
    /// UDP ports for media, four for each call.
    #[arg(long, default_value = "10000-12000", value_name = "FROM-TO")]
    pub rtp_ports: RtpPorts,
    /// Seconds that a caller hears ringing while the service is away.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=120))]
    pub patience_seconds: u32,
    /// What such a caller gets then: refuse (503), announce:FILE (a sound, then 503) or
    /// dial:NUMBER@ENDPOINT (an endpoint of DATA/carriers.conf).
    #[arg(long, default_value_t = Fallback::Refuse)]
    pub fallback: Fallback,
    /// Folder with Asterisk, as `scripts/fetch-tools` makes it.
    #[arg(long, default_value = ".tools")]
    pub tools: PathBuf,
    /// Folder with the templates of Asterisk's configuration.
    #[arg(long, default_value = "asterisk-conf")]
    pub asterisk_conf: PathBuf,
}

/// What the service stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// An SQLite file; capacity is held in memory.
    Embedded,
    /// PostgreSQL and Redis: those of the settings, or private ones.
    Production,
}

/// A range of UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPorts {
    pub from: u16,
    pub to: u16,
}

/// Why it doesn't run: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{what} port {port} is in use: stop what uses it, or choose another with {option}")]
    PortInUse { what: &'static str, port: u16, option: String },
    #[error("you may not listen on {what} port {port}: choose one from 1024 on with {option}")]
    PortForbidden { what: &'static str, port: u16, option: String },
    #[error(
        "this machine doesn't have the address {0}: choose one that it has with --sip-address (make run SIP_ADDRESS=...)"
    )]
    NoSuchAddress(Ipv4Addr),
    #[error("{what} can't listen on {address}: {source}")]
    Port { what: &'static str, address: SocketAddrV4, source: io::Error },
    #[error("port {port} is meant for two things: choose different ports")]
    SamePort { port: u16 },
    #[error(
        "{0} is in use by another `capconduit run`: stop that one, or choose another folder with --data"
    )]
    FolderInUse(PathBuf),
    #[error(
        "the folder {0:?} can't be used: its full path may have no quotes, no line breaks and none of ; % ? \\"
    )]
    Characters(PathBuf),
    #[error(
        "{folder} holds the data of the {profile} profile: choose another folder with --data (make run DATA=...)"
    )]
    OtherProfile { folder: PathBuf, profile: String },
    #[error("only {free_mb} MB are free for {folder}: make room for at least {NEEDED_MB} MB")]
    NoSpace { folder: PathBuf, free_mb: u64 },
    #[error("{operation} {path}: {source}")]
    Folder { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Fallback(#[from] fallback::NoEndpoint),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the database can't be prepared: {0}")]
    Database(#[from] sea_orm::DbErr),
    #[error("the first admin can't be created: {0}")]
    FirstAdmin(#[from] api::FirstAdminError),
    #[error(transparent)]
    Server(#[from] server::ServerError),
    #[error(transparent)]
    Realtime(#[from] realtime::RealtimeError),
    #[error(transparent)]
    Asterisk(#[from] asterisk::AsteriskError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("Asterisk answers, but sends no events; see {0}")]
    NoEvents(PathBuf),
}

const NEEDED_MB: u64 = 100;
/// How long calls have to end when the service is ended.
const GOODBYE: Duration = Duration::from_secs(3);
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// Runs until `ended` is cancelled. Asterisk never outlives this, also when it is dropped.
///
/// # Errors
/// One sentence for the person in front of the terminal.
pub async fn run(options: Options, ended: CancellationToken) -> Result<(), RunError> {
    // Callers' numbers and passwords are in what this and Asterisk write.
    umask(Mode::RWXG | Mode::RWXO);
    let folder = Folder::claim(&options)?;
    options.fallback.check(&folder.root)?;
    let mut backing = Backing::of(&options, &folder)?;
    let config = folder.config(&options, &backing)?;
    let leftover = folder.clear(&options, &backing).await?;
    telemetry::start(&config.log, Destination::File(folder.log_file()?));
    let mut servers = Servers::default();
    let ran = match ended.run_until_cancelled(backing.start(&mut servers)).await {
        Some(Ok(())) => {
            let run = Run { options: &options, folder: &folder, config, ended: &ended };
            run.on(&mut servers, backing.realtime, leftover).await
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    servers.stop().await;
    if ran.is_ok() {
        say("Stopped.");
    }
    ran
}

/// To the terminal, if there still is one: it may be what was closed.
fn say(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}

/// A run whose servers are up.
struct Run<'a> {
    options: &'a Options,
    folder: &'a Folder,
    config: Config,
    ended: &'a CancellationToken,
}

impl Run<'_> {
    async fn on(
        self,
        servers: &mut Servers,
        realtime: Option<Realtime>,
        leftover: Option<Leftover>,
    ) -> Result<(), RunError> {
        let Self { options, folder, config, ended } = self;
        // Not given up midway: the first password would be lost.
        let first_password = prepare_database(&config, folder).await?;
        servers.grant().await?;
        let password = folder.secret("ari-password")?;
        let mut asterisk = match &realtime {
            Some(realtime) => {
                let site =
                    asterisk::Site { options, data: &folder.root, password: &password, realtime };
                Some(Asterisk::start(&site, leftover)?)
            }
            None => None,
        };
        let served = serve(&mut asterisk, servers, config, folder, ended, || {
            summary::print(options, &folder.root, first_password.as_deref());
        })
        .await;
        if let Some(asterisk) = asterisk {
            asterisk.stop().await;
        }
        served
    }
}

/// Starts the service beside Asterisk, calls `ready`, and runs all until `ended`.
async fn serve(
    asterisk: &mut Option<Asterisk>,
    servers: &mut Servers,
    config: Config,
    folder: &Folder,
    ended: &CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), RunError> {
    if let Some(asterisk) = asterisk {
        let Some(up) = ended.run_until_cancelled(asterisk.ready()).await else { return Ok(()) };
        up?;
    }
    let shutdown = config.shutdown.clone();
    let Some(app) = ended.run_until_cancelled(App::start(config)).await else { return Ok(()) };
    let app = app?;
    let watched = ended
        .run_until_cancelled(async {
            connected(&app, folder).await?;
            ready();
            tokio::select! {
                error = watch(asterisk) => Err(error.into()),
                error = servers.watch() => Err(error.into()),
                () = app.broken() => leave_all(),
            }
        })
        .await;
    if watched.is_none() && shutdown.calls == CallsAtShutdown::Wait {
        say("\nWaiting for calls to end; Ctrl-C once more ends them ...");
        // What they need is kept going meanwhile.
        tokio::select! {
            () = app.wait_for_calls(Duration::from_secs(shutdown.wait_seconds)) => {}
            error = watch(asterisk) => error!(%error, "calls can't be waited for"),
            error = servers.watch() => error!(%error, "calls can't be waited for"),
        }
    }
    say("\nStopping: calls are hung up, records are written ...");
    app.hang_up_all(GOODBYE).await;
    app.stop().await;
    watched.unwrap_or(Ok(()))
}

/// Ends as a crash would: Asterisk goes on with its calls, and the next start takes both up.
fn leave_all() -> ! {
    eprintln!(
        "capconduit: a part of the service broke down by a defect (see log/capconduit.log in the \
         data folder); calls go on, and are taken up by the next start"
    );
    std::process::exit(i32::from(BROKEN_DOWN))
}

async fn watch(asterisk: &mut Option<Asterisk>) -> asterisk::AsteriskError {
    match asterisk {
        Some(asterisk) => asterisk.watch().await,
        None => std::future::pending().await,
    }
}

/// Waits until events flow from Asterisk.
async fn connected(app: &App, folder: &Folder) -> Result<(), RunError> {
    let connected = async {
        while !app.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(CONNECT_WAIT, connected)
        .await
        .map_err(|_| RunError::NoEvents(folder.root.join("log")))
}

/// Brings the schema up to date; the first admin's password, if one was made.
async fn prepare_database(config: &Config, folder: &Folder) -> Result<Option<String>, RunError> {
    let db = db::connect(&config.database.url).await?;
    db::migrate(&db).await?;
    let password = api::create_first_admin(&db, clock::now()).await?;
    if let Some(password) = &password {
        folder.write_secret("admin-password", password)?;
        info!("the first admin was created");
    }
    db.close().await?;
    Ok(password)
}

/// The data folder, ours alone while this lives.
struct Folder {
    /// Absolute.
    root: PathBuf,
    _lock: File,
}

// === impl Folder ===

impl Folder {
    /// Makes it, and keeps others out.
    fn claim(options: &Options) -> Result<Self, RunError> {
        let path = &options.data;
        let failed =
            |operation| move |source| RunError::Folder { operation, path: path.clone(), source };
        for folder in [path, &options.tools] {
            check_characters(folder)?;
        }
        let is_ours = is_ours_alone(path);
        fs::create_dir_all(path.join("log")).map_err(failed("can't make the folder"))?;
        let root = path.canonicalize().map_err(failed("can't open the folder"))?;
        asterisk::home(&root)?;
        if is_ours {
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
                .map_err(failed("can't keep others out of the folder"))?;
        }
        let lock = File::create(root.join("lock")).map_err(failed("can't write to the folder"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(RunError::FolderInUse(root)),
            Err(fs::TryLockError::Error(source)) => {
                return Err(failed("can't lock the folder")(source));
            }
        }
        check_space(&root)
            .map_err(|free_mb| RunError::NoSpace { folder: root.clone(), free_mb })?;
        let folder = Self { root, _lock: lock };
        folder.keep_profile(options.profile)?;
        Ok(folder)
    }

    /// Records and passwords of one database are no good beside another.
    fn keep_profile(&self, profile: Profile) -> Result<(), RunError> {
        let path = self.root.join("profile");
        let name = match profile {
            Profile::Embedded => "embedded",
            Profile::Production => "production",
        };
        let noted = fs::read_to_string(&path).unwrap_or_default();
        let is_embedded = noted.is_empty() && self.root.join("capconduit.db").exists();
        let present = if is_embedded { "embedded" } else { noted.trim() };
        if !present.is_empty() && present != name {
            return Err(RunError::OtherProfile {
                folder: self.root.clone(),
                profile: present.to_owned(),
            });
        }
        fs::write(&path, format!("{name}\n")).map_err(|source| RunError::Folder {
            operation: "can't write",
            path,
            source,
        })
    }

    /// Ends what a killed run left behind and checks that the ports are free; an
    /// Asterisk that still runs, with the calls of that run, if it is of use.
    async fn clear(
        &self,
        options: &Options,
        backing: &Backing,
    ) -> Result<Option<Leftover>, RunError> {
        let password = self.secret("ari-password")?;
        let fits = |leftover: &Leftover| {
            backing.realtime.as_ref().is_some_and(|realtime| {
                let data = &self.root;
                leftover.fits(&asterisk::Site { options, data, password: &password, realtime })
            })
        };
        let leftover = match Leftover::find(&self.root) {
            Some(leftover) if fits(&leftover) => Some(leftover),
            Some(leftover) => {
                leftover.end().await?;
                None
            }
            None => None,
        };
        backing.end_leftovers().await?;
        check_ports(options, backing, leftover.is_none())?;
        Ok(leftover)
    }

    fn config(&self, options: &Options, backing: &Backing) -> Result<Config, RunError> {
        let mut settings = backing.settings.clone();
        settings.push(("http.address", format!("127.0.0.1:{}", options.http_port)));
        let with_log = [&settings[..], &[("log.format", "human".to_owned())]].concat();
        let config = Config::with(options.config.as_deref(), &with_log)?;
        if options.profile == Profile::Production {
            settings.retain(|(name, _)| !["database.url", "capacity.redis_url"].contains(name));
            settings.push(("database.url", config.database.url.clone()));
            settings.push(("capacity.redis_url", config.capacity.redis_url.clone()));
            self.write_settings(&settings)?;
        }
        for warning in config.warnings() {
            eprintln!("capconduit: warning: {warning}");
        }
        Ok(config)
    }

    /// For other commands on the same service: `capconduit user --data`.
    fn write_settings(&self, settings: &[(&str, String)]) -> Result<(), RunError> {
        let mut text =
            "# Written at each start: where other commands find this service.\n".to_owned();
        for (name, value) in settings {
            // A string of JSON is one of TOML.
            text += &format!("{name} = {}\n", serde_json::Value::from(value.as_str()));
        }
        let path = settings_file(&self.root);
        asterisk::write_private(&path, &text).map_err(|source| RunError::Folder {
            operation: "can't write",
            path,
            source,
        })
    }

    fn log_file(&self) -> Result<File, RunError> {
        let path = self.root.join("log/capconduit.log");
        File::options().create(true).append(true).open(&path).map_err(|source| RunError::Folder {
            operation: "can't write to",
            path,
            source,
        })
    }

    /// A random secret kept in a file that only its owner can read.
    fn secret(&self, name: &str) -> Result<String, RunError> {
        let path = self.root.join(name);
        match fs::read_to_string(&path) {
            Ok(secret) if !secret.trim().is_empty() => Ok(secret.trim().to_owned()),
            _ => {
                let mut rng = rand::rng();
                let secret: String =
                    (0..40).map(|_| char::from(rng.sample(rand::distr::Alphanumeric))).collect();
                self.write_secret(name, &secret)?;
                Ok(secret)
            }
        }
    }

    fn write_secret(&self, name: &str, secret: &str) -> Result<(), RunError> {
        let path = self.root.join(name);
        asterisk::write_private(&path, &format!("{secret}\n")).map_err(|source| RunError::Folder {
            operation: "can't write",
            path,
            source,
        })
    }
}

/// Settings files and URLs give these a meaning of their own.
fn check_characters(folder: &Path) -> Result<(), RunError> {
    let is_plain = |c: char| !c.is_control() && !";%?'\"\\".contains(c);
    match std::path::absolute(folder) {
        Ok(path) if path.to_str().is_some_and(|path| path.chars().all(is_plain)) => Ok(()),
        _ => Err(RunError::Characters(folder.to_owned())),
    }
}

/// Whether nobody else has anything in there: the folder isn't there yet, is
/// empty, or was made by an earlier run.
fn is_ours_alone(folder: &Path) -> bool {
    folder.join("lock").exists()
        || fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn check_space(folder: &Path) -> Result<(), u64> {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free_mb = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mb < NEEDED_MB { Err(free_mb) } else { Ok(()) }
}

/// `all`: the ports of Asterisk too, which are in use where one is taken up.
fn check_ports(options: &Options, backing: &Backing, all: bool) -> Result<(), RunError> {
    let has_asterisk = backing.realtime.is_some();
    let all = all && has_asterisk;
    let mut taken = vec![options.http_port];
    taken.extend(has_asterisk.then_some(options.ari_port));
    for port in backing.ports(options) {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.number);
        let refused = |source| unusable(port.what, address, port.option, source);
        TcpListener::bind(address).map_err(refused)?;
        taken.push(port.number);
    }
    for (index, port) in taken.iter().enumerate() {
        if taken[..index].contains(port) {
            return Err(RunError::SamePort { port: *port });
        }
    }
    let http = SocketAddrV4::new(Ipv4Addr::LOCALHOST, options.http_port);
    let ari = SocketAddrV4::new(Ipv4Addr::LOCALHOST, options.ari_port);
    let sip = SocketAddrV4::new(options.sip_address, options.sip_port);
    let refused = |what, address, option| move |source| unusable(what, address, option, source);
    TcpListener::bind(http).map_err(refused("HTTP", http, "http"))?;
    if all {
        TcpListener::bind(ari).map_err(refused("ARI", ari, "ari"))?;
        UdpSocket::bind(sip).map_err(refused("SIP", sip, "sip"))?;
    }
    Ok(())
}

fn unusable(
    what: &'static str,
    address: SocketAddrV4,
    option: &'static str,
    source: io::Error,
) -> RunError {
    let port = address.port();
    let option = format!("--{option}-port (make run {}_PORT=...)", option.to_ascii_uppercase());
    match source.kind() {
        io::ErrorKind::AddrInUse => RunError::PortInUse { what, port, option },
        io::ErrorKind::AddrNotAvailable => RunError::NoSuchAddress(*address.ip()),
        io::ErrorKind::PermissionDenied => RunError::PortForbidden { what, port, option },
        _ => RunError::Port { what, address, source },
    }
}

impl std::str::FromStr for RtpPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refusal = || "must be FROM-TO, such as 10000-12000, of 4 ports or more".to_owned();
        let (from, to) = text.split_once('-').ok_or_else(refusal)?;
        let from: u16 = from.trim().parse().map_err(|_| refusal())?;
        let to: u16 = to.trim().parse().map_err(|_| refusal())?;
        if from < 1024 || to < from.saturating_add(3) {
            Err(refusal())
        } else {
            Ok(Self { from, to })
        }
    }
}

/// Says why it ended, in the log too.
pub fn report(error: &RunError) {
    error!(%error, "the run ended");
}
