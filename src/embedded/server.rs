//! A server of our own beside the service: started, watched, stopped.
//!
//! What is particular to PostgreSQL or Redis is behind [`Kind`]. One that a
//! killed run left behind is ended in order and started anew: its data is on
//! disk, and nobody but us uses it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// What a server is, and how to treat it.
pub trait Kind {
    /// As a person calls it.
    const WHAT: &'static str;
    /// What it is fetched with, as `scripts/fetch-tools` knows it.
    const TOOL: &'static str;
    /// The setting that names one of the operator's own.
    const SETTING: &'static str;
    /// Ends it in order.
    const END: Signal;
    /// Ends it at once, without harm to its data.
    const CUT_OFF: Signal;

    fn command(&self) -> Command;
    /// The folder that it works in.
    fn home(&self) -> &Path;
    /// Where it writes its process id.
    fn pid_file(&self) -> PathBuf;
    /// Where it says what is wrong.
    fn log(&self) -> &Path;
    /// Whether it does what it is there for.
    fn answers(&self) -> impl Future<Output = bool>;
}

/// A running server. It ends with this value.
pub struct Server<K: Kind> {
    kind: K,
    child: Child,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "there is no {what} in {tools}: run `scripts/fetch-tools {tool}` (`make run PROFILE=production` does), or name a server of your own with {setting}"
    )]
    NotFetched { what: &'static str, tool: &'static str, setting: &'static str, tools: PathBuf },
    #[error("{what} can't be started: {source}")]
    Spawn { what: &'static str, source: io::Error },
    #[error(
        "root may not run PostgreSQL, and this machine doesn't let it act as another user ({0}): run this as an ordinary user, or name a server of your own with CAPCONDUIT__DATABASE__URL"
    )]
    Root(String),
    #[error("{what} ended at once ({status}); its last words:\n{tail}")]
    Ended { what: &'static str, status: ExitStatus, tail: String },
    #[error("{what} wasn't ready within {} s; see {log}", READY_WITHIN.as_secs())]
    NotReady { what: &'static str, log: PathBuf },
    #[error("the {what} of an earlier run (process {pid}) doesn't end: end it by hand")]
    Leftover { what: &'static str, pid: i32 },
    #[error("{what} ended {count} times within a minute; see {log}")]
    KeepsEnding { what: &'static str, count: usize, log: PathBuf },
    #[error("{what}'s files can't be written to {path}: {source}")]
    Files { what: &'static str, path: PathBuf, source: io::Error },
}

/// After a power cut it first repairs what was being written.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);
const RESTARTS_PER_MINUTE: usize = 5;

// === impl Server ===

impl<K: Kind> Server<K> {
    /// Starts it; whether it is of use tells [`Self::ready`].
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(kind: K) -> Result<Self, ServerError> {
        let child = spawn(&kind)?;
        Ok(Self { kind, child })
    }

    pub const fn kind(&self) -> &K {
        &self.kind
    }

    /// Resolves when it answers.
    ///
    /// # Errors
    /// When it ends first, with what it said last; when it takes too long.
    pub async fn ready(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(failed::<K>)? {
                let tail = last_words(self.kind.log());
                return Err(ServerError::Ended { what: K::WHAT, status, tail });
            }
            if self.kind.answers().await {
                info!("{} is up", K::WHAT);
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ServerError::NotReady { what: K::WHAT, log: self.kind.log().to_owned() })
    }

    /// Starts it again whenever it ends; why that is no use any more.
    pub async fn watch(&mut self) -> ServerError {
        let mut restarts: Vec<Instant> = Vec::new();
        loop {
            if let Err(error) = self.child.wait().await {
                return failed::<K>(error);
            }
            warn!("{} ended by itself; it is started again", K::WHAT);
            restarts.retain(|at| at.elapsed() < Duration::from_mins(1));
            restarts.push(Instant::now());
            if restarts.len() > RESTARTS_PER_MINUTE {
                let log = self.kind.log().to_owned();
                return ServerError::KeepsEnding { what: K::WHAT, count: restarts.len(), log };
            }
            let again = async {
                self.child = spawn(&self.kind)?;
                self.ready().await
            };
            if let Err(error) = again.await {
                return error;
            }
        }
    }

    /// Ends it in order.
    pub async fn stop(mut self) {
        self.signal(K::END);
        if timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            warn!("{} didn't end in time and is cut off", K::WHAT);
            self.signal(K::CUT_OFF);
            if timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
                warn!("{} doesn't end", K::WHAT);
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id
            && let Err(error) = kill_process(id, signal)
        {
            warn!(%error, "{} could not be told to end", K::WHAT);
        }
    }
}

/// Not awaited: it ends within moments, and needs nobody for it.
impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        self.signal(K::CUT_OFF);
    }
}

/// Ends the one that an earlier run left behind in this folder, if there is one.
///
/// # Errors
/// When it doesn't end.
pub async fn end_leftover<K: Kind>(kind: &K) -> Result<(), ServerError> {
    let noted = fs::read_to_string(kind.pid_file()).unwrap_or_default();
    let first = noted.lines().next().unwrap_or_default();
    let Some(pid) = first.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
    // The id may be another's by now.
    let runs = || {
        let folder = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        folder.is_ok_and(|folder| folder == kind.home())
    };
    if !runs() {
        return Ok(());
    }
    eprintln!("Ending the {} that an earlier run left behind ...", K::WHAT);
    let started = Instant::now();
    while runs() {
        let signal = if started.elapsed() < STOP_WITHIN { K::END } else { K::CUT_OFF };
        if started.elapsed() > 2 * STOP_WITHIN || kill_process(pid, signal).is_err() {
            break;
        }
        tokio::time::sleep(4 * POLL).await;
    }
    if runs() {
        return Err(ServerError::Leftover { what: K::WHAT, pid: pid.as_raw_nonzero().get() });
    }
    Ok(())
}

/// The launcher that `scripts/fetch-tools` made.
///
/// # Errors
/// When it isn't there.
pub fn program<K: Kind>(tools: &Path, name: &str) -> Result<PathBuf, ServerError> {
    tools.join("bin").join(name).canonicalize().map_err(|_| ServerError::NotFetched {
        what: K::WHAT,
        tool: K::TOOL,
        setting: K::SETTING,
        tools: tools.to_owned(),
    })
}

pub fn failed<K: Kind>(source: io::Error) -> ServerError {
    ServerError::Spawn { what: K::WHAT, source }
}

pub fn unwritten<K: Kind>(path: &Path) -> impl FnOnce(io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::Files { what: K::WHAT, path, source }
}

fn spawn<K: Kind>(kind: &K) -> Result<Child, ServerError> {
    let log = File::options().create(true).append(true).open(kind.log());
    let log = log.map_err(unwritten::<K>(kind.log()))?;
    let errors = log.try_clone().map_err(failed::<K>)?;
    kind.command()
        .current_dir(kind.home())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A group of its own: Ctrl-C in the terminal reaches us alone, and it
        // ends after those who use it.
        .process_group(0)
        .spawn()
        .map_err(failed::<K>)
}

pub fn last_words(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
