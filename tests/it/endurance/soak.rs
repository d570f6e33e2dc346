//! Hours of traffic, or a minute of it: what the service and Asterisk use stays as it
//! is, and at the end nothing is left. `make soak` does it for an hour, at half the
//! highest rate that is clean; `make test` for a minute, at a low one.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::support::clients::{Manner, Phones};
use crate::support::load::{Figures, Load, SLOW_MS};
use crate::support::ports::Ports;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550102501";
const RING_MS: u32 = 100;
const TALK_MS: u32 = 1_000;
/// Calls per second in `make test`, where nobody looks for the highest.
const LOW_RATE: u32 = 6;
/// Rates that are tried, and for how long each: up to the one at which a dialplan alone,
/// with no application, is known to collapse.
const RATES: [u32; 15] = [10, 20, 30, 40, 50, 60, 70, 80, 100, 120, 140, 170, 200, 300, 400];
const TRIED_FOR: Duration = seconds(15);
/// In the first of so many parts of the time, caches and pools fill.
const WARM_UP: usize = 4;

/// What is used at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at_seconds: u64,
    /// Calls since the traffic began.
    calls: u64,
    service_kb: u64,
    service_files: u64,
    service_threads: u64,
    service_tasks: u64,
    asterisk_kb: u64,
    asterisk_files: u64,
    asterisk_threads: u64,
    channels: u64,
    bridges: u64,
}

/// How much more of a thing may be used at the end than after the warm-up: a share of
/// it, and a number besides.
struct Tolerance {
    name: &'static str,
    of: fn(&Sample) -> u64,
    percent: u64,
    more: u64,
}

const TOLERANCES: [Tolerance; 9] = [
    Tolerance { name: "service: memory, kB", of: |s| s.service_kb, percent: 10, more: 8_192 },
    Tolerance { name: "service: files", of: |s| s.service_files, percent: 10, more: 16 },
    Tolerance { name: "service: threads", of: |s| s.service_threads, percent: 0, more: 4 },
    Tolerance { name: "service: tasks", of: |s| s.service_tasks, percent: 25, more: 16 },
    Tolerance { name: "Asterisk: memory, kB", of: |s| s.asterisk_kb, percent: 10, more: 16_384 },
    Tolerance { name: "Asterisk: files", of: |s| s.asterisk_files, percent: 25, more: 32 },
    Tolerance { name: "Asterisk: threads", of: |s| s.asterisk_threads, percent: 25, more: 16 },
    Tolerance { name: "channels", of: |s| s.channels, percent: 25, more: 16 },
    Tolerance { name: "bridges", of: |s| s.bridges, percent: 25, more: 8 },
];

/// What the service may keep of each call, in bytes, and what it may take besides, in kB, as
/// memory comes in pieces: over the hour, by the line that fits all samples best.
const KEPT_OF_A_CALL: f64 = 200.0;
const TAKEN_BESIDES: f64 = 8_192.0;

/// A line of `/proc/PID/status`, its number.
fn status(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
async fn sample(service: &Service, since: Instant) -> Sample {
    let metrics = service.metrics().await;
    let asterisk = service.asterisk_process().as_raw_nonzero().get();
    let count = async |what| service.ari(what).await.as_array().map_or(0, Vec::len) as u64;
    Sample {
        at_seconds: since.elapsed().as_secs(),
        calls: 0,
        service_kb: metrics.known("process_resident_memory_bytes") as u64 / 1_024,
        service_files: metrics.known("process_open_fds") as u64,
        service_threads: metrics.known("process_threads") as u64,
        service_tasks: metrics.known("capconduit_tasks") as u64,
        asterisk_kb: status(asterisk, "VmRSS:"),
        asterisk_files: fs::read_dir(format!("/proc/{asterisk}/fd")).unwrap().count() as u64,
        asterisk_threads: status(asterisk, "Threads:"),
        channels: count("channels").await,
        bridges: count("bridges").await,
    }
}

/// The middle value of a thing over these samples.
fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// By how many kB the service grew with these calls: not from the first sample to the last,
/// but along the line that fits all best (least squares).
fn grown_kb(samples: &[Sample]) -> f64 {
    let points = || samples.iter().map(|sample| (sample.calls as f64, sample.service_kb as f64));
    let count = samples.len() as f64;
    let mean_calls = points().map(|(calls, _)| calls).sum::<f64>() / count;
    let mean_kb = points().map(|(_, kb)| kb).sum::<f64>() / count;
    let together = points().map(|(calls, kb)| (calls - mean_calls) * (kb - mean_kb)).sum::<f64>();
    let spread = points().map(|(calls, _)| (calls - mean_calls).powi(2)).sum::<f64>();
    together / spread * (samples[samples.len() - 1].calls - samples[0].calls) as f64
}

/// By how many kB it may grow meanwhile.
fn may_grow_kb(samples: &[Sample]) -> f64 {
    let calls = samples[samples.len() - 1].calls - samples[0].calls;
    TAKEN_BESIDES + KEPT_OF_A_CALL * calls as f64 / 1_024.0
}

/// The highest of the rates at which nothing is repeated, refused or late. A rate isn't
/// clean when it is found so twice: a moment in which the machine stood still is no limit.
async fn highest_clean_rate(service: &Service) -> u32 {
    let mut highest = 0;
    for rate in RATES {
        if !is_clean(service, rate).await && !is_clean(service, rate).await {
            return highest;
        }
        highest = rate;
    }
    eprintln!("the highest rate that is tried is clean; there may be higher ones");
    highest
}

async fn is_clean(service: &Service, rate: u32) -> bool {
    let load = Load::start(service, NUMBER, rate, TALK_MS);
    sleep(TRIED_FOR).await;
    let figures = load.stop().await;
    let verdict = if figures.is_clean() { "clean" } else { "not clean" };
    eprintln!("{rate:>4} calls/s: {verdict}: {figures:?}");
    service.assert_clean().await;
    figures.is_clean()
}

/// Traffic for this long, looked at now and then.
async fn traffic(service: &Service, rate: u32, length: Duration) -> (Vec<Sample>, Figures) {
    let every = (length / 40).clamp(seconds(1), seconds(30));
    let since = Instant::now();
    let load = Load::start(service, NUMBER, rate, TALK_MS);
    let mut samples = Vec::new();
    eprintln!(
        "    time    calls | service: kB  files threads tasks | Asterisk: kB  files threads | channels bridges"
    );
    while since.elapsed() < length {
        sleep(every).await;
        let s = Sample { calls: load.figures().calls, ..sample(service, since).await };
        eprintln!(
            "{:>6} s {:>8} | {:>11} {:>6} {:>7} {:>5} | {:>12} {:>6} {:>7} | {:>8} {:>7}",
            s.at_seconds,
            s.calls,
            s.service_kb,
            s.service_files,
            s.service_threads,
            s.service_tasks,
            s.asterisk_kb,
            s.asterisk_files,
            s.asterisk_threads,
            s.channels,
            s.bridges,
        );
        samples.push(s);
    }
    assert_eq!(load.rate(), rate);
    (samples, load.stop().await)
}

/// The logs of the service and of its Asterisk, and how their complaints look.
const LOGS: [(&str, [&str; 2]); 2] = [
    ("log/capconduit.log", [" WARN ", " ERROR "]),
    ("asterisk/log/messages.log", ["WARNING[", "ERROR["]),
];

/// A log, which says something: one that isn't there would complain of nothing.
fn log(service: &Service, name: &str) -> String {
    let text = fs::read_to_string(service.data().join(name)).unwrap();
    assert!(!text.is_empty(), "{name} is empty");
    text
}

/// How many lines each log has by now.
fn log_lines(service: &Service) -> [usize; 2] {
    LOGS.map(|(name, _)| log(service, name).lines().count())
}

/// What the logs say since then that something isn't right.
fn complaints(service: &Service, since: [usize; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for ((name, words), since) in LOGS.into_iter().zip(since) {
        let text = log(service, name);
        let is_one = |line: &&str| words.iter().any(|word| line.contains(word));
        found.extend(text.lines().skip(since).filter(is_one).map(str::to_owned));
    }
    found
}

#[tokio::test]
async fn under_steady_traffic_nothing_grows_and_at_its_end_nothing_is_left() {
    let asked = std::env::var("SOAK_MINUTES").ok();
    let mut service = Service::prepare_at(Ports::claim_for_many_calls());
    service.start_first().await;
    let manner = Manner::answers_after(RING_MS);
    let client = Phones::start_silent(&service, manner).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let wide = json!({"maxConcurrency": 2_000});
    campaign.link(service.client(&client.contact()).await, wide).await;

    let (rate, length) = match &asked {
        None => (LOW_RATE, seconds(60)),
        Some(minutes) => {
            let minutes: f64 = minutes.parse().expect("SOAK_MINUTES is a number of minutes");
            let highest = highest_clean_rate(&service).await;
            assert!(highest >= 2, "no rate is clean: is this machine busy with something else?");
            eprintln!("the highest clean rate is {highest} calls/s; half of it from here on");
            (highest / 2, Duration::from_secs_f64(minutes * 60.0))
        }
    };
    // Where the highest rate was looked for, one was too high.
    let logged = if asked.is_some() { log_lines(&service) } else { [0; 2] };
    let before = service.metrics().await;
    let earlier = service.logs_total().await;
    let idle = sample(&service, Instant::now()).await;
    let (samples, figures) = traffic(&service, rate, length).await;

    eprintln!("{figures:?}; slow is more than {SLOW_MS} ms");
    assert!(figures.is_clean(), "{figures:?}");
    service.assert_clean().await;
    eventually("a record for each call", seconds(20), async || {
        (service.logs_total().await - earlier == figures.calls).then_some(())
    })
    .await;
    let answered = "capconduit_calls_total{status=\"ANSWERED\",reason=\"answered\"}";
    let counted = service.metrics().await.known(answered) - before.sum(answered);
    assert_eq!(format!("{counted}"), figures.calls.to_string(), "each counts as answered");

    let warm = &samples[samples.len() / WARM_UP..];
    let (early, late) = (&warm[..warm.len() / 3], &warm[warm.len() * 2 / 3..]);
    let mut grown = Vec::new();
    for Tolerance { name, of, percent, more } in &TOLERANCES {
        let (first, last) = (median(early, *of), median(late, *of));
        let most = first + first * percent / 100 + more;
        eprintln!("{name:<22} {first:>9} -> {last:>9}   (at most {most})");
        if last > most {
            grown.push(*name);
        }
    }
    assert!(grown.is_empty(), "more and more is used of {grown:?}");
    let (grown, most) = (grown_kb(warm), may_grow_kb(warm));
    eprintln!("service: memory grew by {grown:.0} kB along its line   (at most {most:.0})");
    assert!(grown <= most, "the service keeps too much of each call");

    eventually("what calls needed is given back", seconds(60), async || {
        let after = sample(&service, Instant::now()).await;
        let is_back = after.channels == 0
            && after.bridges == 0
            && after.service_tasks <= idle.service_tasks + 8
            && after.service_files <= idle.service_files + 16
            && after.asterisk_files <= idle.asterisk_files + 80;
        is_back.then_some(())
    })
    .await;
    assert_eq!(complaints(&service, logged), Vec::<String>::new());
}

/// A leak of a kilobyte a call would double the service's memory in a day.
#[test]
fn what_is_kept_of_each_call_is_seen_in_the_samples_of_an_hour() {
    let samples = |kept: u64| -> Vec<Sample> {
        let kb = |calls: u64| 140_000 + calls * kept / 1_024;
        let at = |calls| Sample { calls, service_kb: kb(calls), ..Sample::default() };
        (20_000..80_000).step_by(600).map(at).collect()
    };
    let (healthy, leaking) = (samples(150), samples(1_024));
    assert!(grown_kb(&healthy) <= may_grow_kb(&healthy));
    assert!(grown_kb(&leaking) > may_grow_kb(&leaking));
}
