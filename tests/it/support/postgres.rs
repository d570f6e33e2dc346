//! A PostgreSQL server of the test's own, on a free port, gone when the test is.

use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::ports::Ports;

pub struct Postgres {
    /// None while it is stopped.
    child: Option<Child>,
    port: u16,
    /// Kept, so that nobody else has the port while it is stopped.
    _ports: Ports,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server with an empty database.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn start_in(folder: TempDir) -> Self {
        let data = folder.path().join("data");
        let initialised = as_ordinary_user("initdb")
            .args(["--username=capconduit", "--auth=trust", "--no-sync", "--encoding=UTF8", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("initdb: run scripts/fetch-tools postgres");
        assert!(initialised.success(), "initdb failed");
        let ports = Ports::claim();
        let port = ports.single();
        let mut server = Self { child: None, port, _ports: ports, folder };
        server.start_again();
        server
    }

    /// Starts it on the same port, with the data that it had.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let port = self.port;
        let child = as_ordinary_user("postgres")
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .args(["-c", "unix_socket_directories=", "-c", "max_connections=500"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL did not come up");
            std::thread::yield_now();
        }
    }

    /// As after a crash: it cuts everybody off.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = child.wait();
    }

    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// The same, by way of another port.
    pub fn url_at(port: u16) -> String {
        format!("postgres://capconduit@127.0.0.1:{port}/postgres")
    }

    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that ends with this process, however this process ends.
///
/// PostgreSQL refuses to run as root: then it gets a user of its own namespace.
fn as_ordinary_user(program: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(program);
    let root = std::fs::metadata("/proc/self").expect("/proc").uid() == 0;
    let mut command;
    if root {
        command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--map-group=1000", "setpriv"]);
    } else {
        command = Command::new("setpriv");
    }
    command.args(["--pdeathsig", "QUIT"]).arg(path);
    command
}
