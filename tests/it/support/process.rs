//! Processes that end with their test, whatever happens in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::eventually;

pub struct Process {
    child: Child,
    output: PathBuf,
}

const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(10);

impl Process {
    /// Starts it, with everything that it says in `output`.
    pub fn start(command: &mut Command, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output).unwrap();
        let child = bound_to_us(command)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        Self { child, output: output.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub async fn says(&self, text: &str, bound: Duration) {
        let what = format!("it says {text:?}");
        eventually(&what, bound, async || self.output().contains(text).then_some(())).await;
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub async fn finished(&mut self, what: &str, bound: Duration) -> ExitStatus {
        eventually(what, bound, async || self.exited()).await
    }

    /// Asks it to end, waits, and in the end insists. Whether it ended as asked.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.end_with(Signal::TERM)
    }

    /// The same, as Ctrl-C does it.
    pub fn interrupt(&mut self) -> Option<ExitStatus> {
        self.end_with(Signal::INT)
    }

    /// Tells it something, if it still runs.
    pub fn signal(&mut self, signal: Signal) -> bool {
        self.exited().is_none() && kill_process(Pid::from_child(&self.child), signal).is_ok()
    }

    pub fn end_with(&mut self, signal: Signal) -> Option<ExitStatus> {
        if let Some(status) = self.exited() {
            return Some(status);
        }
        if self.signal(signal) {
            let started = Instant::now();
            while started.elapsed() < GRACE {
                if let Some(status) = self.exited() {
                    return Some(status);
                }
                std::thread::sleep(POLL);
            }
        }
        self.kill();
        None
    }

    pub fn kill(&mut self) {
        // It may have ended in this moment.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The same command, ended by the kernel when the thread that starts it is gone, so that
/// a run of tests that is killed leaves nothing behind.
fn bound_to_us(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound
}

/// Shows the end of a log, for a test that fails.
pub fn print_tail(path: &Path, lines: usize) {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let name = path.file_name().unwrap_or_default().display();
    eprintln!("--- {name}, last {lines} of {} lines", all.len());
    for line in &all[all.len().saturating_sub(lines)..] {
        eprintln!("{line}");
    }
}
