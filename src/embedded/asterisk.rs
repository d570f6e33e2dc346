//! The Asterisk of `capconduit run`: configured, started, watched, stopped.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Options;
use super::realtime::Realtime;

/// A running Asterisk.
pub struct Asterisk {
    process: Process,
    launch: Launch,
    /// Whether it took calls: one that didn't has nothing to say goodbye to.
    ready: bool,
}

enum Process {
    Started(Child),
    /// Left by an earlier run that was killed: its calls are still up.
    Adopted(Leftover),
}

/// Where an Asterisk is to live, and what it is to know.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    pub options: &'a Options,
    pub data: &'a Path,
    pub password: &'a str,
    pub realtime: &'a Realtime,
}

/// An Asterisk that an earlier run left behind in this data folder.
#[derive(Clone, Debug)]
pub struct Leftover {
    pid: Pid,
    home: PathBuf,
}

/// How to start it, and to start it again.
struct Launch {
    program: PathBuf,
    home: PathBuf,
    console: PathBuf,
    ari_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum AsteriskError {
    #[error("there is no Asterisk in {0}: run `scripts/fetch-tools asterisk` (`make run` does)")]
    NotFetched(PathBuf),
    #[error(
        "the folder {0} has too long a path for Asterisk's control socket: choose one whose full path has {most} bytes at most with --data", most = HOME_MOST_BYTES - "/asterisk".len()
    )]
    LongPath(PathBuf),
    #[error("Asterisk's configuration can't be written to {path}: {source}")]
    Configuration { path: PathBuf, source: io::Error },
    #[error(
        "no Asterisk configuration in {0}: start in the checkout, or name the folder with --asterisk-conf"
    )]
    NoTemplates(PathBuf),
    #[error("Asterisk can't be started: {0}")]
    Spawn(io::Error),
    #[error("Asterisk ended at once ({status}); its last words:\n{tail}")]
    Ended { status: ExitStatus, tail: String },
    #[error("Asterisk wasn't ready within {} s; see {console}", READY_WITHIN.as_secs())]
    NotReady { console: PathBuf },
    #[error("an Asterisk of an earlier run (process {0}) doesn't end: end it by hand")]
    Leftover(i32),
    #[error("Asterisk ended {0} times within a minute; see {1}")]
    KeepsEnding(usize, PathBuf),
}

/// The Stasis application that calls are handed to.
pub const APPLICATION: &str = "capconduit";
/// The user in `asterisk-conf/ari.conf`.
pub const ARI_USER: &str = "capconduit";
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(8);
const ADOPTED_POLL: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(25);
/// The control socket's path has to fit into 107 bytes.
const HOME_MOST_BYTES: usize = 90;
const RESTARTS_PER_MINUTE: usize = 5;

// === impl Asterisk ===

impl Asterisk {
    /// Writes its configuration and starts it; or takes up the one that is
    /// running already.
    ///
    /// # Errors
    /// One sentence that says what is missing.
    pub fn start(site: &Site<'_>, leftover: Option<Leftover>) -> Result<Self, AsteriskError> {
        let Site { options, data, .. } = *site;
        let program = options.tools.join("bin/asterisk");
        let not_fetched = |_| AsteriskError::NotFetched(options.tools.clone());
        let program = program.canonicalize().map_err(not_fetched)?;
        let launch = Launch {
            program,
            home: home(data)?,
            console: data.join("log/asterisk-console.log"),
            ari_port: options.ari_port,
        };
        if let Some(leftover) = leftover {
            info!("the Asterisk of an earlier run is taken up");
            return Ok(Self { process: Process::Adopted(leftover), launch, ready: true });
        }
        write_configuration(&configuration(site)?, data, &launch.home)?;
        let process = Process::Started(launch.start()?);
        Ok(Self { process, launch, ready: false })
    }

    /// Resolves when it takes calls.
    ///
    /// # Errors
    /// When it ends first, with what it said last; when it takes too long.
    pub async fn ready(&mut self) -> Result<(), AsteriskError> {
        let Process::Started(child) = &mut self.process else { return Ok(()) };
        self.launch.ready(child).await?;
        self.ready = true;
        Ok(())
    }

    /// Starts it again whenever it ends; why that is no use any more.
    pub async fn watch(&mut self) -> AsteriskError {
        let mut restarts: Vec<Instant> = Vec::new();
        loop {
            self.process.gone().await;
            warn!("Asterisk ended by itself; it is started again");
            restarts.retain(|at| at.elapsed() < Duration::from_mins(1));
            restarts.push(Instant::now());
            if restarts.len() > RESTARTS_PER_MINUTE {
                return AsteriskError::KeepsEnding(restarts.len(), self.launch.console.clone());
            }
            if let Err(error) = self.start_again().await {
                return error;
            }
        }
    }

    async fn start_again(&mut self) -> Result<(), AsteriskError> {
        self.ready = false;
        self.process = Process::Started(self.launch.start()?);
        self.ready().await
    }

    /// Ends it; calls that are still up end with it.
    pub async fn stop(mut self) {
        self.process.signal(if self.ready { Signal::TERM } else { Signal::KILL });
        if timeout(STOP_WITHIN, self.process.gone()).await.is_err() {
            warn!("Asterisk didn't end in time and is killed");
            self.process.signal(Signal::KILL);
            self.process.gone().await;
        }
    }
}

// === impl Process ===

impl Process {
    async fn gone(&mut self) {
        match self {
            Self::Started(child) => {
                if let Err(error) = child.wait().await {
                    warn!(%error, "Asterisk can't be waited for");
                }
            }
            Self::Adopted(leftover) => {
                while leftover.is_running() {
                    tokio::time::sleep(ADOPTED_POLL).await;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = match self {
            Self::Started(child) => {
                child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
            }
            Self::Adopted(leftover) => leftover.is_running().then_some(leftover.pid),
        };
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            warn!(%error, "Asterisk could not be told to end");
        }
    }
}

/// One that was adopted ends with us like one that we started (`kill_on_drop`).
impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self, Self::Adopted(_)) {
            self.signal(Signal::KILL);
        }
    }
}

// === impl Leftover ===

impl Leftover {
    /// Looks for one.
    pub fn find(data: &Path) -> Option<Self> {
        let home = data.join("asterisk");
        let noted = fs::read_to_string(home.join("run/asterisk.pid")).ok()?;
        let leftover = Self { pid: Pid::from_raw(noted.trim().parse().ok()?)?, home };
        leftover.is_running().then_some(leftover)
    }

    /// Whether it runs as these options would have it run.
    pub fn fits(&self, site: &Site<'_>) -> bool {
        let Ok(files) = configuration(site) else { return false };
        let etc = self.home.join("etc");
        files.iter().all(|(name, text)| {
            fs::read_to_string(etc.join(name)).is_ok_and(|present| present == *text)
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it doesn't end.
    pub async fn end(self) -> Result<(), AsteriskError> {
        eprintln!("Ending the Asterisk that an earlier run left behind ...");
        let started = Instant::now();
        while self.is_running() {
            let signal = if started.elapsed() < STOP_WITHIN { Signal::TERM } else { Signal::KILL };
            if kill_process(self.pid, signal).is_err() || started.elapsed() > 2 * STOP_WITHIN {
                break;
            }
            tokio::time::sleep(ADOPTED_POLL).await;
        }
        if self.is_running() {
            return Err(AsteriskError::Leftover(self.pid.as_raw_nonzero().get()));
        }
        Ok(())
    }

    /// Whether the process runs on this home folder: its id may be another's by now.
    fn is_running(&self) -> bool {
        let path = format!("/proc/{}/cmdline", self.pid.as_raw_nonzero());
        let command = fs::read(path).unwrap_or_default();
        let wanted = self.home.join("etc/asterisk.conf");
        command.split(|byte| *byte == 0).any(|word| word == wanted.as_os_str().as_encoded_bytes())
    }
}

// === impl Launch ===

impl Launch {
    fn start(&self) -> Result<Child, AsteriskError> {
        let console = File::create(&self.console).map_err(AsteriskError::Spawn)?;
        let errors = console.try_clone().map_err(AsteriskError::Spawn)?;
        Command::new(&self.program)
            .arg("-C")
            .arg(self.home.join("etc/asterisk.conf"))
            .arg("-f")
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors)
            // A group of its own: Ctrl-C in the terminal reaches us alone, and
            // Asterisk ends after the calls' records are written.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(AsteriskError::Spawn)
    }

    async fn ready(&self, child: &mut Child) -> Result<(), AsteriskError> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().map_err(AsteriskError::Spawn)? {
                return Err(AsteriskError::Ended { status, tail: self.last_words() });
            }
            if TcpStream::connect(("127.0.0.1", self.ari_port)).await.is_ok() {
                info!("Asterisk is up");
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(AsteriskError::NotReady { console: self.console.clone() })
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.console).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// The folder that Asterisk lives in.
pub fn home(data: &Path) -> Result<PathBuf, AsteriskError> {
    let home = data.join("asterisk");
    if home.as_os_str().len() > HOME_MOST_BYTES {
        return Err(AsteriskError::LongPath(data.to_owned()));
    }
    Ok(home)
}

/// The templates, filled in: file names and what is in them.
fn configuration(site: &Site<'_>) -> Result<Vec<(OsString, String)>, AsteriskError> {
    let Site { options, data, password, realtime } = *site;
    let (modules, library) = folders(&options.tools)?;
    let mut values = vec![
        ("@HOME_DIR@", home(data)?.display().to_string()),
        ("@MODULE_DIR@", modules.display().to_string()),
        ("@LIBRARY_DIR@", library.display().to_string()),
        ("@ARI_PORT@", options.ari_port.to_string()),
        ("@ARI_PASSWORD@", password.to_owned()),
        ("@SIP_BIND@", format!("{}:{}", options.sip_address, options.sip_port)),
        ("@CARRIER_MATCH@", "127.0.0.0/8".to_owned()),
        ("@CARRIERS_FILE@", data.join("carriers.conf").display().to_string()),
        ("@STASIS_APP@", APPLICATION.to_owned()),
        ("@PATIENCE_SECONDS@", options.patience_seconds.to_string()),
        ("@RTP_START@", options.rtp_ports.from.to_string()),
        ("@RTP_END@", options.rtp_ports.to.to_string()),
    ];
    values.extend(options.fallback.values());
    values.extend(realtime.values());
    let folder = &options.asterisk_conf;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|_| AsteriskError::NoTemplates(folder.clone()))? {
        let path = entry.map_err(failed(folder))?.path();
        let is_ours = path.file_name().is_none_or(|name| name != realtime.file_of_other());
        if path.extension().is_none_or(|extension| extension != "conf") || !is_ours {
            continue;
        }
        let mut text = fs::read_to_string(&path).map_err(failed(&path))?;
        for (placeholder, value) in &values {
            text = text.replace(placeholder, value);
        }
        files.push((path.file_name().unwrap_or_default().to_owned(), text));
    }
    if files.is_empty() {
        return Err(AsteriskError::NoTemplates(folder.clone()));
    }
    Ok(files)
}

fn write_configuration(
    files: &[(OsString, String)],
    data: &Path,
    home: &Path,
) -> Result<(), AsteriskError> {
    for folder in ["etc", "lib", "spool", "run", "log"] {
        fs::create_dir_all(home.join(folder)).map_err(failed(home))?;
    }
    let carriers = data.join("carriers.conf");
    if !carriers.exists() {
        fs::write(&carriers, CARRIERS_HINT).map_err(failed(&carriers))?;
    }
    for (name, text) in files {
        let target = home.join("etc").join(name);
        write_private(&target, text).map_err(failed(&target))?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> AsteriskError {
    let path = path.to_owned();
    move |source| AsteriskError::Configuration { path, source }
}

const CARRIERS_HINT: &str = "\
; Carriers that may call, besides those on this machine (127.0.0.0/8).
; One section each, known by its address and by nothing else; then start again:
;
; [acme](carrier-address)
; match = 203.0.113.0/24
;
; Where calls go while the service is away (--fallback dial:NUMBER@backup): an endpoint
; and its address.
;
; [backup](trunk)
; aors = backup
; [backup](trunk-address)
; contact = sip:203.0.113.7:5060
";

/// Where this Asterisk's modules and documentation are, as `scripts/fetch-tools` noted.
fn folders(tools: &Path) -> Result<(PathBuf, PathBuf), AsteriskError> {
    let not_fetched = || AsteriskError::NotFetched(tools.to_owned());
    let tools = tools.canonicalize().map_err(|_| not_fetched())?;
    let noted = fs::read_to_string(tools.join("asterisk.env")).map_err(|_| not_fetched())?;
    let folder = |name: &str| {
        let line = noted.lines().find_map(|line| line.strip_prefix(name));
        // An absolute path stays as it is.
        line.map(|folder| tools.join(folder)).ok_or_else(not_fetched)
    };
    Ok((folder("ASTMODDIR=")?, folder("ASTDATADIR=")?))
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
