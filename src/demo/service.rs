//! The service that the demo plays on: a running one, or one of its own.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{Options, session};
use crate::embedded::Profile;

/// The service, there or being started.
pub struct Service {
    /// `http://127.0.0.1:8080`
    pub address: String,
    own: Option<Own>,
}

/// A service that the demo started, and ends.
struct Own {
    child: Child,
    /// Read until it is ready, and then drained, so that it never writes into nothing.
    words: Option<ChildStdout>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(
        "something else than CapConduit answers on port {port}: stop it, or choose another port with --http-port (make demo HTTP_PORT=...)"
    )]
    PortTaken { port: u16 },
    #[error(
        "the service on port {port} can't take calls now (its Asterisk or database is away); its log is in {log}"
    )]
    NotReady { port: u16, log: PathBuf },
    #[error("the service can't be started: {0}")]
    Spawn(io::Error),
    #[error("the service ended before it was ready ({0}); its own words are above")]
    Ended(ExitStatus),
    #[error("the service wasn't ready within {} s", READY_WITHIN.as_secs())]
    TooSlow,
    #[error("the service can't be asked whether it is there: {0}")]
    Probe(reqwest::Error),
}

/// Holds the admin's password where it isn't the first one any more.
pub const PASSWORD_VARIABLE: &str = "CAPCONDUIT_DEMO_PASSWORD";
const READY_LINE: &str = "CapConduit is ready";
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// The admin's password, from the environment or from the file that `run` wrote.
pub fn admin_password(file: &Path) -> Option<String> {
    let given = std::env::var(PASSWORD_VARIABLE).ok();
    let kept = || fs::read_to_string(file).ok();
    given.or_else(kept).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

// === impl Service ===

impl Service {
    /// Finds the service that runs on these ports, or begins to start it.
    ///
    /// # Errors
    /// When something else is there, or the one that is there can't take calls.
    pub async fn find_or_start(options: &Options) -> Result<Self, ServiceError> {
        let port = options.http_port;
        let address = format!("http://127.0.0.1:{port}");
        let http = session::client().map_err(ServiceError::Probe)?;
        let probe = async |path: &str| http.get(format!("{address}{path}")).send().await;
        match probe("/health").await {
            Err(error) if error.is_connect() => {
                println!("Nothing runs on port {port} yet: starting the service for this demo ...");
                let own = Own::start(options).map_err(ServiceError::Spawn)?;
                return Ok(Self { address, own: Some(own) });
            }
            Ok(answer) if answer.status().is_success() => {}
            _ => return Err(ServiceError::PortTaken { port }),
        }
        match probe("/ready").await {
            Ok(answer) if answer.status().is_success() => {}
            _ => return Err(ServiceError::NotReady { port, log: options.data.join("log") }),
        }
        println!("Using the service that runs on port {port}.");
        Ok(Self { address, own: None })
    }

    /// Resolves when calls can be placed.
    ///
    /// # Errors
    /// When an own service ends first, or takes too long.
    pub async fn ready(&mut self) -> Result<(), ServiceError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        match timeout(READY_WITHIN, own.ready()).await {
            Ok(ready) => ready,
            Err(_) => Err(ServiceError::TooSlow),
        }
    }

    /// Whether it goes on after the demo.
    pub const fn stays(&self) -> bool {
        self.own.is_none()
    }

    /// Ends a service of our own; one that was there stays.
    pub async fn end(self) {
        if let Some(own) = self.own {
            own.end().await;
        }
    }
}

// === impl Own ===

impl Own {
    fn start(options: &Options) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("--profile")
            .arg(match options.profile {
                Profile::Embedded => "embedded",
                Profile::Production => "production",
            })
            .args(options.config.iter().flat_map(|file| ["--config".as_ref(), file.as_os_str()]))
            .args(["--database-port", &options.database_port.to_string()])
            .args(["--redis-port", &options.redis_port.to_string()])
            .arg("--data")
            .arg(&options.data)
            .args(["--http-port", &options.http_port.to_string()])
            .args(["--sip-port", &options.sip_port.to_string()])
            .args(["--ari-port", &options.ari_port.to_string()])
            .arg("--rtp-ports")
            .arg(format!("{}-{}", options.rtp_ports.from, options.rtp_ports.to))
            .args(["--patience-seconds", &options.patience_seconds.to_string()])
            .args(["--fallback", &options.fallback.to_string()])
            .arg("--tools")
            .arg(&options.tools)
            .arg("--asterisk-conf")
            .arg(&options.asterisk_conf)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C in the terminal reaches the demo alone, which ends it in order.
            .process_group(0)
            .spawn()?;
        let words = child.stdout.take();
        Ok(Self { child, words })
    }

    async fn ready(&mut self) -> Result<(), ServiceError> {
        if let Some(words) = self.words.take() {
            let mut lines = BufReader::new(words).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(READY_LINE) {
                    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                    return Ok(());
                }
            }
        }
        Err(ServiceError::Ended(self.child.wait().await.map_err(ServiceError::Spawn)?))
    }

    /// Asks it to end, and waits; it hangs its calls up and ends its Asterisk.
    async fn end(mut self) {
        if self.child.id().is_none() {
            return;
        }
        println!("Ending the service that was started for this demo ...");
        self.ask_to_end();
        if timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    fn ask_to_end(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::TERM);
        }
    }
}

/// It ends its Asterisk itself, also when the demo doesn't wait for it.
impl Drop for Own {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}
