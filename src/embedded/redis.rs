//! A Redis of our own: on loopback, with a password, its data on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::asterisk::write_private;
use super::server::{Kind, ServerError, program, unwritten};

pub struct Redis {
    program: PathBuf,
    home: PathBuf,
    log: PathBuf,
    port: u16,
    password: String,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(1);

// === impl Redis ===

impl Redis {
    /// In the folder `redis` of `data`.
    ///
    /// # Errors
    /// When its program isn't there.
    pub fn new(
        tools: &Path,
        data: &Path,
        port: u16,
        password: String,
    ) -> Result<Self, ServerError> {
        Ok(Self {
            program: program::<Self>(tools, "redis-server")?,
            home: data.join("redis"),
            log: data.join("log/redis.log"),
            port,
            password,
        })
    }

    pub fn url(&self) -> String {
        format!("redis://default:{}@127.0.0.1:{}/0", self.password, self.port)
    }

    /// Writes its configuration.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn prepare(&self) -> Result<(), ServerError> {
        let file = self.configuration();
        fs::create_dir_all(&self.home).map_err(unwritten::<Self>(&self.home))?;
        let text = format!(
            "# Written at each start.\n\
             bind 127.0.0.1\n\
             port {}\n\
             requirepass {}\n\
             daemonize no\n\
             dir \"{}\"\n\
             pidfile \"{}\"\n\
             # What was held is known again after a restart; a power cut may cost the last second.\n\
             appendonly yes\n\
             appendfsync everysec\n\
             save \"\"\n\
             # What doesn't fit is refused, nothing is forgotten.\n\
             maxmemory-policy noeviction\n",
            self.port,
            self.password,
            self.home.display(),
            self.pid_file().display(),
        );
        write_private(&file, &text).map_err(unwritten::<Self>(&file))
    }

    fn configuration(&self) -> PathBuf {
        self.home.join("redis.conf")
    }
}

impl Kind for Redis {
    const WHAT: &'static str = "Redis";
    const TOOL: &'static str = "redis";
    const SETTING: &'static str = "CAPCONDUIT__CAPACITY__REDIS_URL";
    const END: Signal = Signal::TERM;
    /// What it has answered it has given to the kernel.
    const CUT_OFF: Signal = Signal::KILL;

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.configuration());
        command
    }

    fn home(&self) -> &Path {
        &self.home
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("redis.pid")
    }

    fn log(&self) -> &Path {
        &self.log
    }

    async fn answers(&self) -> bool {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let question = format!("AUTH {}\r\nPING\r\n", self.password);
            stream.write_all(question.as_bytes()).await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            // Not while it still loads its data.
            Ok::<_, std::io::Error>(&answer == b"+OK\r\n+PONG\r\n")
        };
        matches!(timeout(ANSWER_WITHIN, asked).await, Ok(Ok(true)))
    }
}
