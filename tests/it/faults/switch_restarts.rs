//! Asterisk crashes under a hundred calls, or is ended as an operator does it: they are
//! over, and the next ones come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use capconduit::clock;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use futures_util::future::join_all;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::connect_async;

use super::trouble::event_socket;
use crate::support::apart::{Apart, booted, crash_asterisk};
use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::ports::Ports;
use crate::support::seller::Campaign;
use crate::support::service::{Service, instant};
use crate::support::wait::{eventually, seconds};

const ANSWERS: &str = "+15550102101";
const RINGS: &str = "+15550102102";
const TALKING: usize = 70;
const RINGING: usize = 30;
/// From Asterisk's word that it has booted to the first call that has its client.
const BACK_WITHIN: Duration = seconds(2);

/// How an Asterisk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Crash,
    /// As an init system ends it.
    Term,
    /// As an operator ends it at its console, or starts it anew.
    StopNow,
}

impl End {
    fn begin(self, service: &Service) {
        match self {
            Self::Crash => crash_asterisk(service),
            Self::Term => kill_process(service.asterisk_process(), Signal::TERM).unwrap(),
            Self::StopNow => drop(service.asterisk("core stop now")),
        }
    }
}

/// Calls that talk and calls that ring, with no room left for one more of the former.
struct Scene {
    answers: Phones,
    _rings: Phones,
    campaign: Campaign,
    talking: Vec<String>,
    ringing: Vec<String>,
    /// Their ends of the line.
    phones: Vec<Phone>,
}

impl Scene {
    async fn set(service: &Service) -> Self {
        let answers = Phones::start(service, Manner::answers_after(30)).await;
        let rings = Phones::start(service, Manner::rings_forever()).await;
        let seller = service.seller().await;
        let campaign = seller.campaign(service, ANSWERS, "priority", 20).await;
        let full = json!({"maxConcurrency": TALKING});
        campaign.link(service.client(&answers.contact()).await, full).await;
        let ringing = seller.campaign(service, RINGS, "priority", 60).await;
        ringing.link(service.client(&rings.contact()).await, json!({})).await;
        let mut scene = Self {
            answers,
            _rings: rings,
            campaign,
            talking: Vec::new(),
            ringing: Vec::new(),
            phones: Vec::new(),
        };
        for _ in 0..TALKING {
            let caller = scene.call(service, ANSWERS).await;
            scene.talking.push(caller);
        }
        for _ in 0..RINGING {
            let caller = scene.call(service, RINGS).await;
            scene.ringing.push(caller);
        }
        eventually("all talk or ring", seconds(10), async || {
            let states = (service.live_in("talking").await, service.live_in("ringing").await);
            (states == (TALKING, RINGING)).then_some(())
        })
        .await;
        scene
    }

    async fn call(&mut self, service: &Service, number: &str) -> String {
        let invite = Invite::to(service, number);
        let caller = invite.number().to_owned();
        let mut phone = Phone::invite(service, invite).await;
        if number == ANSWERS {
            assert_eq!(phone.answer().await, 200);
        } else {
            phone.ringing().await;
        }
        self.phones.push(phone);
        caller
    }

    /// As many callers as there is room for, if what was lost holds none: how long until
    /// the first had its client, and until the last.
    async fn fill_again(&self, service: &Service) -> [Duration; 2] {
        let since = Instant::now();
        let calls = (0..TALKING).map(async |_| {
            let mut phone = Phone::call(service, ANSWERS).await;
            assert_eq!(phone.answer().await, 200, "there is room for it");
            (since.elapsed(), phone)
        });
        let mut done = join_all(calls).await;
        let times = done.iter().map(|(time, _)| *time);
        let found = [times.clone().min().unwrap(), times.max().unwrap()];
        for (_, phone) in &mut done {
            phone.hang_up().await;
        }
        found
    }

    /// One record for each call that was lost, which ended when Asterisk did, as far as
    /// that was heard.
    async fn assert_closed(&self, service: &Service, lost_at: DateTime<Utc>) {
        let logs = service.logs(2 * TALKING + RINGING).await;
        let of = |caller: &str| {
            let own: Vec<&Value> =
                logs.iter().filter(|log| log["callerIdNum"] == *caller).collect();
            let [log] = own[..] else { panic!("one log for {caller}: {own:#?}") };
            log
        };
        for caller in self.talking.iter().chain(&self.ringing) {
            let log = of(caller);
            let status = if self.talking.contains(caller) { "ANSWERED" } else { "FAILED" };
            let told = (&log["callStatus"], &log["reason"]);
            assert_eq!(told, (&json!(status), &json!("interrupted")), "{log:#}");
            let late = instant(&log["timestampEnd"]) - lost_at;
            let known = TimeDelta::milliseconds(-1_500)..TimeDelta::milliseconds(500);
            assert!(known.contains(&late), "{late} after its Asterisk was lost: {log:#}");
        }
        let link = &self.campaign.links().await[0];
        assert_eq!(link.total(), 2 * TALKING as u64, "each answered call counts, once");
        assert!(self.answers.trace().most_at_once() >= TALKING);
    }
}

/// With ports for a hundred calls, and for as many again before all of the first are let go.
fn prepare() -> Service {
    let mut service = Service::prepare_at(Ports::claim_for_many_calls());
    service.patience = seconds(8);
    service
}

/// Waits until Asterisk has ended.
async fn is_gone(service: &Service) {
    eventually("it is gone", seconds(20), async || {
        service.asterisk("core show uptime").is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_asterisk_that_crashed_is_back_with_room_for_as_many_calls_as_it_lost() {
    let mut service = prepare();
    service.start_first().await;
    let scene = Scene::set(&service).await;

    crash_asterisk(&service);
    let lost_at = clock::now();
    is_gone(&service).await;
    booted(&service).await;
    let [first, last] = scene.fill_again(&service).await;

    eprintln!(
        "after Asterisk had booted: the first call was answered in {first:?}, the last in {last:?}"
    );
    assert!(first < BACK_WITHIN, "{first:?}");
    scene.assert_closed(&service, lost_at).await;
    service.assert_clean().await;
}

/// Ends an Asterisk under calls in this way, and starts it again.
async fn restart(end: End) {
    let mut apart = Apart::start(prepare(), &[]).await;
    let scene = Scene::set(&apart.service).await;
    let told = hang_up_requests(&apart.service).await;

    let lost_at = clock::now();
    end.begin(&apart.service);
    is_gone(&apart.service).await;
    let live = apart.service.live().await.len();
    assert!(end != End::Crash || live == TALKING + RINGING, "nobody knows better yet");
    // It has ended already.
    apart.end_asterisk(Signal::KILL);
    assert_told(end, &told.await.unwrap());
    apart.start_asterisk().await;
    let [first, last] = scene.fill_again(&apart.service).await;

    eprintln!("{end:?}: the first call was answered in {first:?}, the last in {last:?}");
    assert!(first < BACK_WITHIN, "{first:?}");
    scene.assert_closed(&apart.service, lost_at).await;
    apart.service.assert_clean().await;
}

/// What Asterisk tells somebody else, until its end, of the hang-ups that it wishes for.
async fn hang_up_requests(service: &Service) -> JoinHandle<Vec<Value>> {
    let request = event_socket(service, "app=listener&subscribeAll=true");
    let (mut socket, _) = connect_async(request).await.unwrap();
    tokio::spawn(async move {
        let mut requests = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let Ok(event) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default())
            else {
                continue;
            };
            if event["type"] == "ChannelHangupRequest" {
                requests.push(event);
            }
        }
        requests
    })
}

/// An Asterisk that is ended in order wishes for the end of each channel, with its own
/// flag (`AST_SOFTHANGUP_SHUTDOWN`, 4) in the place of a cause; one that crashes says nothing.
fn assert_told(end: End, requests: &[Value]) {
    let mut told = BTreeMap::new();
    for request in requests {
        let kind = format!("soft {}, cause {}", request["soft"], request["cause"]);
        *told.entry(kind).or_insert(0) += 1;
    }
    eprintln!("{end:?}: Asterisk told of hang-up requests: {told:?}");
}

#[tokio::test]
async fn an_asterisk_that_somebody_else_restarts_is_found_again() {
    restart(End::Crash).await;
}

#[tokio::test]
async fn calls_of_an_asterisk_that_is_ended_in_order_are_closed_as_those_of_one_that_crashed() {
    restart(End::Term).await;
    restart(End::StopNow).await;
}
