//! The call centres and callers of the demo: SIPp processes.
//!
//! Each call centre is one SIPp that listens for the whole demo; each wave of
//! calls is one that ends with its last call. Scenarios are compiled in and
//! written to a folder of their own, which goes when the demo ends. A SIPp that
//! the demo can't end any more (because it was killed) ends by itself.

use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::plan::{Caller, Wave};
use super::sample::{Behaviour, CLIENTS};

/// Where SIPp plays: its processes and their folder.
pub struct Stage {
    program: PathBuf,
    sip_port: u16,
    // Processes are ended before the folder that they write to is removed.
    processes: Vec<Child>,
    folder: Folder,
}

#[derive(Debug, thiserror::Error)]
pub enum SippError {
    #[error("there is no SIPp in {0}: run `scripts/fetch-tools sipp` (`make demo` does)")]
    NotFetched(PathBuf),
    #[error("the demo's folder {path} can't be written: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("no UDP port is free for a call centre: {0}")]
    NoPort(io::Error),
    #[error("SIPp can't be started: {0}")]
    Spawn(io::Error),
    #[error("the SIPp that plays {name} doesn't listen; its last words: {words}")]
    Silent { name: &'static str, words: String },
}

const SCENARIOS: [(&str, &str); 5] = [
    ("answers.xml", include_str!("answers.xml")),
    ("busy.xml", include_str!("busy.xml")),
    ("never.xml", include_str!("never.xml")),
    ("caller.xml", include_str!("caller.xml")),
    ("gives_up.xml", include_str!("gives_up.xml")),
];
const SEATED_WITHIN: Duration = Duration::from_secs(10);
/// After this, a SIPp ends by itself.
const LONGEST: &str = "120s";
/// The callers' numbers: this and the number of the call in four digits.
const CALLERS: &str = "+1555020";

/// The program, where `scripts/fetch-tools` puts it.
///
/// # Errors
/// When it isn't there.
pub fn find(tools: &Path) -> Result<PathBuf, SippError> {
    let program = tools.join("bin/sipp");
    program.canonicalize().map_err(|_| SippError::NotFetched(tools.to_owned()))
}

/// Which call of the demo comes from this number.
pub fn call_of(caller: &str) -> Option<u32> {
    caller.strip_prefix(CALLERS)?.parse().ok()
}

// === impl Stage ===

impl Stage {
    /// Writes the scenarios. Calls will go to the service's SIP port.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn set(program: PathBuf, sip_port: u16) -> Result<Self, SippError> {
        let folder = Folder::create()?;
        for (name, text) in SCENARIOS {
            folder.write(name, text)?;
        }
        Ok(Self { program, sip_port, processes: Vec::new(), folder })
    }

    pub const fn sip_port(&self) -> u16 {
        self.sip_port
    }

    /// Starts the call centres, and returns the ports at which they listen.
    ///
    /// # Errors
    /// When one doesn't listen soon.
    pub async fn seat_callees(&mut self) -> Result<[u16; CLIENTS.len()], SippError> {
        let ports = free_ports().map_err(SippError::NoPort)?;
        for (client, port) in CLIENTS.iter().zip(ports) {
            let scenario = match client.behaviour {
                Behaviour::Answers => "answers.xml",
                Behaviour::IsBusy => "busy.xml",
                Behaviour::NeverAnswers => "never.xml",
            };
            let arguments = ["-p", &port.to_string()].map(str::to_owned);
            self.start(client.name, scenario, &arguments)?;
        }
        let deadline = Instant::now() + SEATED_WITHIN;
        for (place, (client, port)) in CLIENTS.iter().zip(ports).enumerate() {
            // Its port can't be had any more: it listens.
            while UdpSocket::bind(("127.0.0.1", port)).is_ok() {
                let ended = !matches!(self.processes[place].try_wait(), Ok(None));
                if ended || Instant::now() > deadline {
                    let words = self.folder.last_words(client.name);
                    return Err(SippError::Silent { name: client.name, words });
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(ports)
    }

    /// Places a wave's calls, whose numbers begin at `first`.
    ///
    /// # Errors
    /// When SIPp can't be started.
    pub fn call(&mut self, wave: &Wave, first: u32, dialled: &str) -> Result<(), SippError> {
        self.processes.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        let name = format!("caller-{first}");
        let lines: String = (first..first + wave.calls)
            .map(|call| format!("{CALLERS}{call:04};{dialled}\n"))
            .collect();
        let list = self.folder.write(&format!("{name}.csv"), &format!("SEQUENTIAL\n{lines}"))?;
        let calls = wave.calls.to_string();
        let mut arguments = vec![format!("127.0.0.1:{}", self.sip_port)];
        arguments
            .extend(["-m", &calls, "-l", &calls, "-r", &calls, "-rp", "50"].map(str::to_owned));
        arguments.extend(["-inf".to_owned(), list.display().to_string()]);
        let scenario = match wave.caller {
            Caller::Talks { ms } => {
                arguments.extend(["-d".to_owned(), ms.to_string()]);
                "caller.xml"
            }
            Caller::GivesUp => "gives_up.xml",
        };
        self.start(&name, scenario, &arguments)
    }

    /// Ends every process.
    pub async fn end(mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill().await;
        }
    }

    fn start(&mut self, name: &str, scenario: &str, more: &[String]) -> Result<(), SippError> {
        let words = File::create(self.folder.path.join(format!("{name}.log")))
            .map_err(self.folder.failed())?;
        let mut command = Command::new(&self.program);
        command
            .args(["-sf", scenario, "-i", "127.0.0.1", "-t", "u1", "-nostdin"])
            .args(["-timeout", LONGEST])
            .args(more)
            .current_dir(&self.folder.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            // Ctrl-C in the terminal reaches the demo alone, which ends this.
            .process_group(0)
            .kill_on_drop(true);
        if std::env::var_os("TERM").is_none() {
            command.env("TERM", "dumb");
        }
        self.processes.push(command.spawn().map_err(SippError::Spawn)?);
        Ok(())
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> io::Result<[u16; CLIENTS.len()]> {
    // All are held until all are found, so that none is found twice.
    let mut sockets = Vec::new();
    let mut ports = [0; CLIENTS.len()];
    for port in &mut ports {
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        *port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(ports)
}

/// A folder that is removed with everything in it.
struct Folder {
    path: PathBuf,
}

// === impl Folder ===

impl Folder {
    fn create() -> Result<Self, SippError> {
        let name = format!("capconduit-demo-{:016x}", rand::random::<u64>());
        let folder = Self { path: std::env::temp_dir().join(name) };
        fs::create_dir(&folder.path).map_err(folder.failed())?;
        Ok(folder)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, SippError> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(self.failed())?;
        Ok(path)
    }

    fn last_words(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path.join(format!("{name}.log"))).unwrap_or_default();
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("none").trim().to_owned()
    }

    fn failed(&self) -> impl Fn(io::Error) -> SippError + use<> {
        let path = self.path.clone();
        move |source| SippError::Folder { path: path.clone(), source }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
