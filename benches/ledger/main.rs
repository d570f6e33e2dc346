//! How fast the ledger is, in memory and in a Redis of its own: `make bench`.
//!
//! Calls are reserved, settled, released and recorded, with 100,000 others up. Redis
//! stands beside `redis-benchmark`, which asks the same server for a script that does
//! nothing, over as many connections and with as many questions in flight.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on says so by panicking")]

mod measure;
mod scene;
mod server;

use std::sync::Arc;
use std::time::Duration;

use capconduit::capacity::{
    LeaseClock, Leases, Ledger, MemoryLedger, RedisLedger, RedisSettings, Stage, Status,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use measure::{Asked, reserve, tell};
use scene::{OTHERS, Scene};
use server::Server;

/// Connections, and questions in flight over all of them.
const LOADS: [(usize, usize); 3] = [(1, 1), (1, 64), (8, 64)];
const OPEN_WITHIN: Duration = Duration::from_secs(10);
const HEADING: &str = "candidates  room  reserve+settle+release/s | reserve/s    p50    p99   p999 us \
     | settle/s    p99 us | release/s    p99 us";

#[tokio::main]
async fn main() {
    in_memory().await;
    in_redis().await;
}

async fn in_memory() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(Leases::default(), LeaseClock::Own));
    scene::crowd(&*ledger).await;
    println!("Memory, {OTHERS} other holders, one task\n\n{HEADING}");
    for scene in Scene::all() {
        let ledgers = std::slice::from_ref(&ledger);
        let (reserved, held) = reserve(ledgers, 1, &scene).await;
        print_row(&scene, &reserved, &rest(ledgers, 1, held).await);
        println!();
    }
}

async fn in_redis() {
    let server = Server::start().await;
    println!("\nRedis {}, {OTHERS} other holders", server.version().await);
    let most = LOADS.map(|(connections, _)| connections).into_iter().max().unwrap_or(1);
    let mut ledgers = Vec::new();
    let mut stops = Vec::new();
    for node in 0..most {
        let (ledger, stop) = connect(&server, node).await;
        ledgers.push(ledger);
        stops.push(stop);
    }
    scene::crowd(&*ledgers[0]).await;
    for (connections, in_flight) in LOADS {
        println!("\n{connections} connection(s), {in_flight} in flight");
        let empty = server.benchmark_empty(connections, in_flight).await;
        println!("empty script, redis-benchmark: {empty}");
        println!("empty script, this client: {}", server.ask_empty(connections, in_flight).await);
        println!("\n{HEADING} | reserve of empty  in server us  commands");
        for scene in Scene::all() {
            let ledgers = &ledgers[..connections];
            server.forget_statistics().await;
            let (reserved, held) = reserve(ledgers, in_flight, &scene).await;
            let scripts = server.scripts().await;
            print_row(&scene, &reserved, &rest(ledgers, in_flight, held).await);
            println!(
                " | {:>15.2} {:>13.1} {:>9.3}",
                reserved.per_second() / empty.per_second,
                scripts.microseconds_each,
                scripts.asked / reserved.asked(),
            );
        }
    }
}

/// Everything after the reservation: settled, then released and recorded.
async fn rest(
    ledgers: &[Arc<dyn Ledger>],
    in_flight: usize,
    held: Vec<measure::Held>,
) -> [Asked; 3] {
    let (settled, held) = tell(ledgers, in_flight, held, Stage::Used).await;
    let (released, held) = tell(ledgers, in_flight, held, Stage::Counted).await;
    let (recorded, _) = tell(ledgers, in_flight, held, Stage::Recorded).await;
    [settled, released, recorded]
}

fn print_row(scene: &Scene, reserved: &Asked, [settled, released, recorded]: &[Asked; 3]) {
    let seconds = [reserved, settled, released, recorded].map(|asked| asked.time.as_secs_f64());
    print!(
        "{scene} {:>25.0} | {:>9.0} {:>6.1} {:>6.1} {:>9.1} | {:>8.0} {:>9.1} | {:>9.0} {:>9.1}",
        reserved.asked() / seconds.iter().sum::<f64>(),
        reserved.per_second(),
        reserved.microseconds(0.5),
        reserved.microseconds(0.99),
        reserved.microseconds(0.999),
        settled.per_second(),
        settled.microseconds(0.99),
        released.per_second(),
        released.microseconds(0.99),
    );
}

async fn connect(server: &Server, node: usize) -> (Arc<dyn Ledger>, DropGuard) {
    let stop = CancellationToken::new();
    let settings = RedisSettings {
        url: server.url(),
        prefix: "bench".to_owned(),
        node: format!("node-{node}"),
        leases: Leases::default(),
        clock: LeaseClock::Own,
        patience: Duration::from_secs(5),
    };
    let ledger = RedisLedger::start(settings, stop.clone()).unwrap();
    let mut status = ledger.status();
    let opening = async {
        status.wait_for(|status| *status != Status::Away).await.unwrap();
        ledger.open().await.unwrap();
        status.wait_for(|status| matches!(status, Status::Open(_))).await.unwrap();
    };
    tokio::time::timeout(OPEN_WITHIN, opening).await.expect("an open ledger in time");
    (Arc::new(ledger), stop.drop_guard())
}
