//! Two thousand live calls, two hundred who follow them, of whom some read nothing, and
//! somebody at the console: calls don't notice, and everybody sees what they came for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::faults::scene::{NORMAL, NUMBER, Scene};
use crate::support::browser::Browser;
use crate::support::events::Stalled;
use crate::support::seller::PASSWORD;
use crate::support::wait::{eventually, seconds};
use crate::support::web::Web;

const STREAM: &str = "/api/admin/live/events";
const LIVE: usize = 2_000;
const READERS: usize = 180;
const STALLED: usize = 20;
/// As many streams as one user may have open.
const PER_USER: usize = 20;
/// Calls that are measured, with readers and without.
const MEASURED: usize = 100;
/// Calls that come and go meanwhile, some five changes each, so that more happens than is
/// remembered (8,192 changes) and fits into a socket's buffers (4 MB by Linux's defaults).
const PASSING: usize = 3_000;
/// Fewer than may be on their way to a client at once.
const AT_ONCE: usize = 25;
/// For whatever the page is told to do.
const USABLE: Duration = seconds(5);
/// What 200 readers may cost, in bytes.
const MEMORY: f64 = 800e6;

/// Calls that are up, and how to have more.
struct Crowd {
    scene: Scene,
    callers: Vec<String>,
    /// The ids of all calls that there ever were.
    calls: Vec<String>,
}

/// How long calls took, on average.
#[derive(Debug)]
struct Pace {
    /// From their arrival in the service to their first client.
    decision: Duration,
    /// From the caller's hang-up to the end of the client's leg.
    end: Duration,
}

/// Those who read what they are sent.
struct Readers {
    tasks: JoinSet<()>,
    heard: Vec<Arc<Heard>>,
}

#[derive(Default)]
struct Heard {
    gone: Mutex<HashSet<String>>,
    count: AtomicUsize,
    resyncs: AtomicUsize,
}

// === impl Crowd ===

impl Crowd {
    async fn gather() -> Self {
        let scene = Scene::set(1, 600).await;
        let link = scene.campaign.links().await[0].0["id"].as_i64().unwrap();
        scene.campaign.change_link(link, json!({"maxConcurrency": 2 * LIVE})).await;
        let mut crowd = Self { scene, callers: Vec::new(), calls: Vec::new() };
        while crowd.callers.len() < LIVE {
            let callers = crowd.talk(AT_ONCE).await;
            crowd.callers.extend(callers);
        }
        crowd
    }

    /// More calls, until they talk; the callers.
    async fn talk(&mut self, count: usize) -> Vec<String> {
        let switch = &self.scene.switch;
        let before = switch.dialled_so_far();
        let callers: Vec<_> = (0..count).map(|_| switch.call(NUMBER)).collect();
        for number in before + 1..=before + count {
            let leg = switch.dialled(number).await;
            switch.answer(&leg);
            self.calls.push(leg.rsplit_once("-b").unwrap().0.to_owned());
        }
        callers
    }

    fn hang_up(&self, callers: &[String]) {
        for caller in callers {
            self.scene.switch.hang_up(caller, NORMAL, None);
        }
    }

    /// One call after the other, each from its beginning to its end.
    async fn pace(&mut self) -> Pace {
        let decisions = async |crowd: &Self| {
            let metrics = crowd.scene.service.metrics().await;
            let known = |what: &str| metrics.known(&format!("capconduit_decision_seconds_{what}"));
            (known("sum"), known("count"))
        };
        let (sum, count) = decisions(self).await;
        let mut ends = Duration::ZERO;
        for _ in 0..MEASURED {
            let caller = self.talk(1).await.remove(0);
            let leg = format!("{}-b1", self.calls.last().unwrap());
            let ended = Instant::now();
            self.hang_up(&[caller]);
            self.scene.switch.gone(&leg).await;
            ends += ended.elapsed();
        }
        let after = decisions(self).await;
        let mean = (after.0 - sum) / (after.1 - count);
        let measured = u32::try_from(MEASURED).unwrap();
        Pace { decision: Duration::from_secs_f64(mean), end: ends / measured }
    }

    async fn memory(&self) -> f64 {
        self.scene.service.metrics().await.known("process_resident_memory_bytes")
    }
}

// === impl Readers ===

impl Readers {
    /// All at once, as after a restart; each has its snapshot.
    async fn open(webs: &[Web], live: usize) -> Self {
        let mut readers = Self { tasks: JoinSet::new(), heard: Vec::new() };
        let ready = Arc::new(AtomicUsize::new(0));
        for number in 0..READERS {
            let (web, heard) = (webs[number / PER_USER].clone(), Arc::new(Heard::default()));
            readers.heard.push(heard.clone());
            let ready = ready.clone();
            readers.tasks.spawn(async move { heard.listen(&web, live, &ready).await });
        }
        eventually("each has a snapshot", seconds(60), async || {
            (ready.load(Ordering::Relaxed) == READERS).then_some(())
        })
        .await;
        readers
    }

    /// Waits until each of them has seen so many calls end.
    async fn have_seen_end(&mut self, count: usize) {
        let slowest = || self.heard.iter().map(|h| h.count.load(Ordering::Relaxed)).min().unwrap();
        eventually(&format!("every reader has seen {count} ends"), seconds(60), async || {
            (slowest() >= count).then_some(())
        })
        .await;
        assert!(self.tasks.try_join_next().is_none(), "none of their streams has ended");
    }
}

impl Heard {
    async fn listen(&self, web: &Web, live: usize, ready: &AtomicUsize) {
        let mut answer = web.open(STREAM).await;
        let mut text = String::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            let whole = text.rfind("\n\n").map_or(0, |end| end + 2);
            for event in text[..whole].split("\n\n") {
                self.take(event, live, ready);
            }
            text.drain(..whole);
        }
    }

    fn take(&self, event: &str, live: usize, ready: &AtomicUsize) {
        let ids = || event.split("\"callId\":\"").skip(1).map(|rest| &rest[..36]);
        if event.contains("event: gone") {
            self.gone.lock().extend(ids().map(str::to_owned));
            self.count.store(self.gone.lock().len(), Ordering::Relaxed);
        } else if event.contains("event: snapshot") {
            assert_eq!(ids().count(), live, "all live calls");
            ready.fetch_add(1, Ordering::Relaxed);
        } else if event.contains("event: resync") {
            self.resyncs.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Accounts, each for as many streams as one may have.
async fn operators(crowd: &Crowd) -> Vec<Web> {
    let service = &crowd.scene.service;
    let mut webs = Vec::new();
    for _ in 0..(READERS + STALLED) / PER_USER {
        let name = service.name("operator");
        let account = json!({
            "username": name, "email": format!("{name}@example.com"), "password": PASSWORD,
            "role": "staff",
        });
        service.admin().post("/api/admin/users", account).await;
        webs.push(Web::sign_in(service.http_port, &name, PASSWORD).await);
    }
    webs
}

/// Does what an operator does, and says how long each step took.
async fn use_console(browser: &mut Browser, number: &str) -> Vec<(&'static str, Duration)> {
    let mut took = Vec::new();
    let mut began = Instant::now();
    let mut lap = |what| {
        took.push((what, began.elapsed()));
        began = Instant::now();
    };
    browser.click(".live-panel >> role=button[name=/Talking/]").await;
    browser.see(".live-panel >> text=/more: narrow them down/").await;
    lap("those who talk");
    browser.fill(".live-panel input[type=search]", number).await;
    browser.see(&format!(".live-panel tbody tr:only-child:has-text('{number}')")).await;
    lap("one of them found");
    browser.click(".live-panel tbody >> role=button[name=/Hang up the call from/]").await;
    browser.see("role=dialog[name='Hang up this call?']").await;
    lap("a question asked");
    browser.press("Escape").await;
    browser.miss("dialog[open]").await;
    browser.fill(".live-panel input[type=search]", "").await;
    browser.click(".live-panel >> role=button[name=/Talking/]").await;
    browser.see(".live-panel tbody tr >> nth=100").await;
    lap("all of them again");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_calls_and_two_hundred_readers_leave_each_other_in_peace() {
    let mut crowd = Crowd::gather().await;
    let service_port = crowd.scene.service.http_port;
    let alone = crowd.pace().await;
    let memory_alone = crowd.memory().await;

    let webs = operators(&crowd).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let (address, token) = (format!("127.0.0.1:{service_port}"), webs.last().unwrap().token());
        stalled.push(Stalled::open(&address, STREAM, token, 65_536).await);
    }
    let mut readers = Readers::open(&webs, LIVE).await;
    let watched = crowd.pace().await;
    eprintln!("alone {alone:?}, watched {watched:?}");
    assert!(
        watched.decision < alone.decision * 5 + Duration::from_millis(20)
            && watched.end < alone.end * 5 + Duration::from_millis(100),
        "calls wait for those who watch: alone {alone:?}, watched {watched:?}"
    );

    let mut memory = crowd.memory().await;
    for _ in 0..PASSING / AT_ONCE {
        let callers = crowd.talk(AT_ONCE).await;
        crowd.hang_up(&callers);
        readers.have_seen_end(crowd.calls.len() - MEASURED - LIVE).await;
        memory = memory.max(crowd.memory().await);
    }

    let mut browser = Browser::start(&crowd.scene.service).await;
    browser.sign_in("admin", &crowd.scene.service.secret("admin-password")).await;
    browser.see(".connection.open").await;
    browser.see(".live-panel >> text=/more: narrow them down/").await;
    let took = use_console(&mut browser, "+15558000042").await;
    browser.picture("crowd").await;
    eprintln!("the page: {took:?}");
    assert!(took.iter().all(|(_, took)| *took < USABLE), "{took:?}");

    let callers = std::mem::take(&mut crowd.callers);
    for some in callers.chunks(AT_ONCE) {
        crowd.hang_up(some);
    }
    let ended = Instant::now();
    readers.have_seen_end(crowd.calls.len() - MEASURED).await;
    browser.see("text=No call is up.").await;
    eprintln!("readers and the page have seen all calls end after {:?}", ended.elapsed());
    browser.assert_no_complaints().await;
    memory = memory.max(crowd.memory().await);
    eprintln!("memory: {memory_alone} bytes, with readers {memory} at most");
    assert!(memory < memory_alone + MEMORY, "{memory_alone} bytes alone, {memory} with readers");

    // Those that were measured alone had ended before anybody watched.
    let (live, later) = (&crowd.calls[..LIVE], &crowd.calls[LIVE + MEASURED..]);
    let watched: HashSet<_> = live.iter().chain(later).cloned().collect();
    for heard in &readers.heard {
        assert_eq!(heard.resyncs.load(Ordering::Relaxed), 0, "whoever reads misses nothing");
    }
    let seen = readers.heard.iter().filter(|heard| *heard.gone.lock() == watched).count();
    assert_eq!(seen, READERS, "each has seen the end of each");
    let mut resyncs = 0;
    for reader in &mut stalled {
        // The end of a call it is, not its id alone: the snapshot that waits to be read has
        // that too.
        let last = &crowd.calls[LIVE - 1];
        let told = reader.read_event("a resync, or the end of the last call", |event| {
            event.contains("event: resync")
                || event.contains("event: gone") && event.contains(last.as_str())
        });
        // Whoever takes nothing for a minute is given up, and may come back.
        let told = told.await;
        let event = told.as_deref().unwrap_or("event: resync");
        assert!(event.contains("event: resync"), "this was kept for who stalled: {event}");
        resyncs += usize::from(told.is_some());
    }
    eprintln!("{resyncs} of {STALLED} who stalled begin anew, the others were given up");
    eventually("all is taken down", seconds(60), async || {
        let left = crowd.scene.service.ari("bridges").await;
        left.as_array()?.is_empty().then_some(())
    })
    .await;
    crowd.scene.service.assert_no_calls().await;
    let total = u64::try_from(crowd.calls.len()).unwrap();
    eventually("a record for each call", seconds(60), async || {
        (crowd.scene.service.logs_total().await == total).then_some(())
    })
    .await;
}
