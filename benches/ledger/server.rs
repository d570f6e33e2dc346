//! A Redis of the benchmark's own, and what a script that does nothing costs there.

use std::fmt::{self, Display};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, InfoDict, Script};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::measure::Asked;

pub struct Server {
    child: Child,
    port: u16,
    connection: MultiplexedConnection,
    _folder: TempDir,
}

/// What `redis-benchmark` measured.
pub struct Benchmark {
    pub per_second: f64,
    /// In milliseconds.
    p50: f64,
    p99: f64,
}

/// What the server counted of scripts.
pub struct Scripts {
    pub asked: f64,
    pub microseconds_each: f64,
}

const EMPTY: &str = "return 1";
const READY_WITHIN: Duration = Duration::from_secs(10);
const TIME: Duration = Duration::from_millis(800);

impl Server {
    /// Starts an empty one, set up as in production.
    pub async fn start() -> Self {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("cc-bench-").tempdir().unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(tools().join("redis-server"))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--auto-aof-rewrite-percentage", "0", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: run scripts/fetch-tools redis");
        let client = Client::open(format!("redis://127.0.0.1:{port}/0")).unwrap();
        let started = Instant::now();
        let connection = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < READY_WITHIN, "Redis: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Self { child, port, connection, _folder: folder }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub async fn version(&self) -> String {
        self.info("server").await.get("redis_version").unwrap()
    }

    pub async fn forget_statistics(&self) {
        let mut connection = self.connection.clone();
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut connection).await.unwrap();
    }

    /// Since they were forgotten. A script is one command, whatever it does in there.
    pub async fn scripts(&self) -> Scripts {
        let statistics = self.info("commandstats").await;
        let of_evalsha: String = statistics.get("cmdstat_evalsha").unwrap();
        let number = |name: &str| {
            let mut fields = of_evalsha.split(',');
            fields.find_map(|field| field.strip_prefix(name)?.parse::<f64>().ok()).unwrap()
        };
        Scripts { asked: number("calls="), microseconds_each: number("usec_per_call=") }
    }

    async fn info(&self, section: &str) -> InfoDict {
        let mut connection = self.connection.clone();
        redis::cmd("INFO").arg(section).query_async(&mut connection).await.unwrap()
    }

    /// `redis-benchmark` with the script that does nothing.
    pub async fn benchmark_empty(&self, connections: usize, in_flight: usize) -> Benchmark {
        let mut connection = self.connection.clone();
        let hash = Script::new(EMPTY).prepare_invoke().load_async(&mut connection).await.unwrap();
        // About as long as the ledger is asked.
        let asked = if in_flight == 1 { 20_000 } else { 200_000 };
        let output = tokio::process::Command::new(tools().join("redis-benchmark"))
            .args(["-p", &self.port.to_string(), "-n", &asked.to_string(), "--csv"])
            .args(["-c", &connections.to_string()])
            .args(["-P", &(in_flight / connections).to_string()])
            .args(["EVALSHA", &hash, "0"])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // "test","rps","avg_latency_ms","min","p50","p95","p99","max"
        let last = text.lines().last().unwrap_or_default();
        let mut numbers = last.split("\",\"").skip(1).map(|word| word.trim_end_matches('"'));
        let numbers: Option<Vec<f64>> =
            numbers.by_ref().map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some([per_second, _, _, p50, _, p99, _]) => {
                Benchmark { per_second: *per_second, p50: *p50, p99: *p99 }
            }
            _ => panic!("redis-benchmark said {text}"),
        }
    }

    /// The same with the client that the ledger has.
    pub async fn ask_empty(&self, connections: usize, in_flight: usize) -> String {
        let client = Client::open(self.url()).unwrap();
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..in_flight {
            let mut connection = open[task % connections].clone();
            tasks.spawn(async move {
                let (script, mut asked) = (Script::new(EMPTY), Asked::default());
                while started.elapsed() < TIME {
                    let at = Instant::now();
                    let _: i64 = script.invoke_async(&mut connection).await.unwrap();
                    asked.note(at);
                }
                (asked, Vec::<()>::new())
            });
        }
        let (asked, _) = Asked::gather(tasks, started).await;
        let [p50, p99] = [0.5, 0.99].map(|quantile| asked.microseconds(quantile));
        format!("{:.0}/s, p50 {p50:.1} us, p99 {p99:.1} us", asked.per_second())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [self.p50, self.p99].map(|milliseconds| milliseconds * 1_000.0);
        write!(f, "{:.0}/s, p50 {p50:.0} us, p99 {p99:.0} us", self.per_second)
    }
}

fn tools() -> PathBuf {
    std::env::var_os("CAPCONDUIT_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools"), PathBuf::from)
        .join("bin")
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
