//! The embedded profile: everything on one machine, in one folder, with one command.
//!
//! `capconduit run` keeps a database, an Asterisk of its own and the service
//! together under one data folder, and ends what it started when it is ended.
//! Whatever stands in the way (a port in use, a full disk, a second run on the
//! same folder) is said in one sentence before anything is started.

pub mod asterisk;
mod summary;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rand::RngExt;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::{App, StartError};
use crate::config::{Config, ConfigError};
use crate::telemetry::{self, Destination};
use crate::{api, clock, db};
use asterisk::{Asterisk, Leftover};

/// Run everything on this machine: Asterisk, SQLite and the service.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Folder that holds everything: database, records, passwords, logs.
    #[arg(long, default_value = ".run")]
    pub data: PathBuf,
    /// Port of the API and its documentation, on 127.0.0.1.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// Address on which carriers call; 0.0.0.0 for all of this machine's.
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST)]
    pub sip_address: Ipv4Addr,
    /// UDP port on which carriers call.
    #[arg(long, default_value_t = 5060)]
    pub sip_port: u16,
    /// Port of Asterisk's own HTTP server, on 127.0.0.1.
    #[arg(long, default_value_t = 8088)]
    pub ari_port: u16,
    /// UDP ports for media, four for each call.
    #[arg(long, default_value = "10000-12000", value_name = "FROM-TO")]
    pub rtp_ports: RtpPorts,
    /// Seconds that a caller hears ringing while the service is away.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=120))]
    pub patience_seconds: u32,
    /// Folder with Asterisk, as `scripts/fetch-tools` makes it.
    #[arg(long, default_value = ".tools")]
    pub tools: PathBuf,
    /// Folder with the templates of Asterisk's configuration.
    #[arg(long, default_value = "asterisk-conf")]
    pub asterisk_conf: PathBuf,
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
    PortInUse { what: &'static str, port: u16, option: &'static str },
    #[error("port {port} is meant for two things: choose different ports")]
    SamePort { port: u16 },
    #[error(
        "{0} is in use by another `capconduit run`: stop that one, or choose another folder with --data"
    )]
    FolderInUse(PathBuf),
    #[error("only {free_mb} MB are free for {folder}: make room for at least {NEEDED_MB} MB")]
    NoSpace { folder: PathBuf, free_mb: u64 },
    #[error("{operation} {path}: {source}")]
    Folder { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the database can't be prepared: {0}")]
    Database(#[from] sea_orm::DbErr),
    #[error("the first admin can't be created: {0}")]
    FirstAdmin(#[from] api::FirstAdminError),
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
    let mut folder = Folder::prepare(&options).await?;
    let config = folder.config(&options)?;
    telemetry::start(&config.log, Destination::File(folder.log_file()?));
    // Not given up midway: the first password would be lost.
    let first_password = prepare_database(&config, &folder).await?;
    let secret = folder.secret("ari-password")?;
    let leftover = folder.leftover.take();
    let mut asterisk = Asterisk::start(&options, &folder.root, &secret, leftover)?;
    let served = serve(&mut asterisk, config, &folder, &ended, || {
        summary::print(&options, &folder.root, first_password.as_deref());
    })
    .await;
    asterisk.stop().await;
    if served.is_ok() {
        println!("Stopped.");
    }
    served
}

/// Starts the service beside Asterisk, calls `ready`, and runs both until `ended`.
async fn serve(
    asterisk: &mut Asterisk,
    config: Config,
    folder: &Folder,
    ended: &CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), RunError> {
    let Some(up) = ended.run_until_cancelled(asterisk.ready()).await else { return Ok(()) };
    up?;
    let Some(app) = ended.run_until_cancelled(App::start(config)).await else { return Ok(()) };
    let app = app?;
    let watched = ended
        .run_until_cancelled(async {
            connected(&app, folder).await?;
            ready();
            Err(asterisk.watch().await.into())
        })
        .await;
    println!("\nStopping: calls are hung up, records are written ...");
    app.hang_up_all(GOODBYE).await;
    app.stop().await;
    watched.unwrap_or(Ok(()))
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
    /// An Asterisk that still runs, with the calls of an earlier run.
    leftover: Option<Leftover>,
    _lock: File,
}

// === impl Folder ===

impl Folder {
    async fn prepare(options: &Options) -> Result<Self, RunError> {
        let path = &options.data;
        let failed =
            |operation| move |source| RunError::Folder { operation, path: path.clone(), source };
        fs::create_dir_all(path.join("log")).map_err(failed("can't make the folder"))?;
        let root = path.canonicalize().map_err(failed("can't open the folder"))?;
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
        let mut folder = Self { root, leftover: None, _lock: lock };
        folder.secret("internal-token")?;
        let password = folder.secret("ari-password")?;
        match Leftover::find(&folder.root) {
            Some(leftover) if leftover.fits(options, &folder.root, &password) => {
                folder.leftover = Some(leftover);
            }
            Some(leftover) => leftover.end().await?,
            None => {}
        }
        check_ports(options, folder.leftover.is_none())?;
        Ok(folder)
    }

    fn config(&self, options: &Options) -> Result<Config, RunError> {
        let path = |name: &str| self.root.join(name).display().to_string();
        Ok(Config::with(&[
            ("http.address", format!("127.0.0.1:{}", options.http_port)),
            ("database.url", format!("sqlite://{}", path("capconduit.db"))),
            ("ari.address", format!("127.0.0.1:{}", options.ari_port)),
            ("ari.password", self.secret("ari-password")?),
            ("internal.token", self.secret("internal-token")?),
            ("journal.directory", path("journal")),
            ("log.format", "human".to_owned()),
        ])?)
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

fn check_space(folder: &Path) -> Result<(), u64> {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free_mb = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mb < NEEDED_MB { Err(free_mb) } else { Ok(()) }
}

/// `all`: the ports of Asterisk too, which are in use where one is taken up.
fn check_ports(options: &Options, all: bool) -> Result<(), RunError> {
    let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    if options.http_port == options.ari_port {
        return Err(RunError::SamePort { port: options.http_port });
    }
    for (what, port, option) in [
        ("HTTP", options.http_port, "--http-port (make run HTTP_PORT=...)"),
        ("ARI", options.ari_port, "--ari-port (make run ARI_PORT=...)"),
    ] {
        let ours = port == options.http_port;
        if (ours || all) && TcpListener::bind(at(port)).is_err() {
            return Err(RunError::PortInUse { what, port, option });
        }
    }
    if all && UdpSocket::bind((options.sip_address, options.sip_port)).is_err() {
        let option = "--sip-port (make run SIP_PORT=...)";
        return Err(RunError::PortInUse { what: "SIP", port: options.sip_port, option });
    }
    Ok(())
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
