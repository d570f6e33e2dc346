//! A Redis server of the test's own, which can be lost in every way that a real one can.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::Ports;
use super::process::print_tail;
use super::service::tools;

pub struct Redis {
    /// None while it is stopped.
    child: Option<Child>,
    port: u16,
    /// Kept, so that nobody else has the port while it is stopped.
    _ports: Ports,
    folder: TempDir,
    /// Settings beyond those of every other.
    more: &'static [&'static str],
}

const READY_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

// === impl Redis ===

impl Redis {
    /// Starts an empty one, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&["--databases", "64"])
    }

    /// A cluster of one node, which refuses keys of several slots in one step.
    pub fn start_cluster() -> Self {
        let redis = Self::start_with(&["--cluster-enabled", "yes"]);
        // In parts: a line has a limit.
        for from in (0..16_384).step_by(4_096) {
            let slots: Vec<_> = (from..from + 4_096).map(|slot: u32| slot.to_string()).collect();
            redis.command(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
        }
        let started = Instant::now();
        while !redis.ask("CLUSTER INFO").contains("cluster_state:ok") {
            assert!(started.elapsed() < READY_WITHIN, "the cluster isn't formed");
            std::thread::sleep(Duration::from_millis(5));
        }
        redis
    }

    fn start_with(more: &'static [&'static str]) -> Self {
        let ports = Ports::claim();
        let port = ports.single();
        let folder = tempfile::Builder::new().prefix("cc-redis-").tempdir().unwrap();
        let mut redis = Self { child: None, port, _ports: ports, folder, more };
        redis.start_again();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// As by `kill -9`. What it answered is on disk, for [`Self::start_again`].
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        // SIGKILL ends a hanging one too.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal().is_some(), "it ended before it was stopped: {status}");
    }

    /// Starts it on the same port, with the data that it had.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let child = Command::new("setpriv")
            // Not TERM: a hanging one would not hear it.
            .args(["--pdeathsig", "KILL"])
            .arg(tools().join("bin/redis-server"))
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--logfile", "redis.log"])
            .args(self.more)
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: run scripts/fetch-tools redis");
        self.child = Some(child);
        let started = Instant::now();
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "Redis ended at its start: {ended:?}");
            assert!(started.elapsed() < READY_WITHIN, "Redis doesn't answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it on the same port without its data, as a failover to an empty replica does.
    pub fn start_empty(&mut self) {
        assert!(self.child.is_none(), "it runs");
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            // The append-only file: a folder since Redis 7.
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.extension().is_some_and(|extension| extension != "log") {
                fs::remove_file(path).unwrap();
            }
        }
        self.start_again();
    }

    /// What a replica has that gets no further.
    pub fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(self.folder.path().join("appendonlydir"))
            .arg(copy.path())
            .status()
            .unwrap();
        assert!(copied.success(), "{copied}");
        copy
    }

    /// Starts it on the same port with the data of a replica that was behind.
    pub fn start_from(&mut self, copy: &TempDir) {
        let data = self.folder.path().join("appendonlydir");
        fs::remove_dir_all(&data).unwrap();
        fs::rename(copy.path().join("appendonlydir"), &data).unwrap();
        self.start_again();
    }

    /// Everything in it is deleted, while it runs.
    pub fn flush(&self) {
        self.command("FLUSHALL");
    }

    fn command(&self, command: &str) {
        assert_eq!(self.ask(command), "+OK\r\n", "{command}");
    }

    /// The first of what it answers.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    /// Connections stay, and nothing is answered.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Self::hang`], with what was asked meanwhile.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it answers PING within a second, and not that it is still loading.
    pub fn answers(&self) -> bool {
        let ping = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ping().is_ok_and(|answer| &answer == b"+PONG\r\n")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it runs")), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&self.folder.path().join("redis.log"), 10);
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[test]
fn what_redis_kept_is_lost_only_where_a_test_asks_for_it() {
    let mut redis = Redis::start();
    let ask = |redis: &Redis, words: &[&str]| {
        let mut cli = Command::new(tools().join("bin/redis-cli"));
        let output = cli.args(["-u", &redis.url()]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask(&redis, &["SET", "held", "2"]), "OK");
    redis.stop();
    assert!(!redis.answers());
    redis.start_again();
    assert_eq!(ask(&redis, &["GET", "held"]), "2");
    redis.hang();
    assert!(!redis.answers());
    redis.resume();
    assert!(redis.answers());
    redis.stop();
    redis.start_empty();
    assert_eq!(ask(&redis, &["GET", "held"]), "");
}
