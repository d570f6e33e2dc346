//! A real Asterisk under trouble: too few connections, reloads, limits, a service
//! that pauses, a second one with the same name.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::process::Signal;
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use super::scene::{outcome, results};
use crate::support::callers::{Plan, call};
use crate::support::clients::{Manner, Phones};
use crate::support::desk::Desk;
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, holds_for, ms, seconds};

const NUMBER: &str = "+15550109301";

async fn with_client(service: &Service, manner: Manner) -> Phones {
    let client = Phones::start(service, manner).await;
    let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    client
}

/// How often Asterisk's log says this.
fn asterisk_says(service: &Service, what: &str) -> usize {
    let log = service.data().join("asterisk/log/messages.log");
    std::fs::read_to_string(log).unwrap().matches(what).count()
}

/// How many logs have this status.
async fn ended(service: &Service, calls: usize, status: &str) -> usize {
    let logs = service.logs(calls).await;
    logs.iter().filter(|log| log["callStatus"] == status).count()
}

/// Asterisk closes connections over the limit unheard: commands fail without
/// having been carried out, or nobody knows. Nobody hangs, and it recovers.
#[tokio::test]
async fn a_switch_with_too_few_connections_fails_calls_whole_and_recovers() {
    let mut service = Service::prepare();
    service.change_asterisk_conf("http.conf", "sessionlimit = 256", "sessionlimit = 6");
    service.start_first().await;
    let _client = with_client(&service, Manner::answers_after(20)).await;
    // Others who are connected, and say nothing.
    let others = [(); 5].map(|()| TcpStream::connect(("127.0.0.1", service.ari_port)).unwrap());
    // A service that has connections to spare already needs no more for a slow burst.
    let (mut calls, mut answered, mut closed_unheard) = (0, 0, 0);
    while closed_unheard <= others.len() && calls < 150 {
        let burst = Plan { number: NUMBER, calls: 30, rate: 60, talk_ms: 1_500 };
        answered += burst.start(&service).finish(seconds(60)).await.answered_with(200);
        calls += 30;
        closed_unheard = asterisk_says(&service, "session count exceeded");
    }
    let others = others.map(drop).len();
    service.assert_clean().await;
    eprintln!("{answered} of {calls} were answered with six connections, {closed_unheard} closed");
    assert!(closed_unheard > others, "connections of the service were closed unheard");
    assert_eq!(ended(&service, calls, "ANSWERED").await, answered);
    let after = call(NUMBER, 200).start(&service).finish(seconds(30)).await;
    assert_eq!(after.answered_with(200), 1, "it has recovered");
    service.assert_clean().await;
}

#[tokio::test]
async fn reloading_asterisks_modules_under_load_loses_no_call() {
    let service = Service::start().await;
    let _client = with_client(&service, Manner::answers_after(100)).await;
    // Calls enough for all the time that it takes; the rest of them is let go.
    let load = Plan { number: NUMBER, calls: 3_000, rate: 12, talk_ms: 1_000 }.start(&service);
    for _ in 0..4 {
        for module in ["res_ari.so", "res_pjsip.so", "res_http_websocket.so", "app_stasis.so"] {
            service.asterisk(&format!("module reload {module}"));
            let heard =
                async || service.metrics().await.known("capconduit_ari_event_lag_seconds_count");
            let before = heard().await;
            eventually("calls go on", seconds(10), async || {
                (heard().await > before + 40.0).then_some(())
            })
            .await;
        }
    }
    let trace = load.stop(seconds(60)).await;
    let calls = trace.calls().len();
    assert!(calls > 30, "{calls} calls");
    assert_eq!(trace.answered_with(200), calls);
    assert_eq!(ended(&service, calls, "ANSWERED").await, calls);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_call_that_lasts_too_long_is_ended_on_both_sides() {
    let mut service = Service::prepare();
    let (usual, short) = ("LONGEST_CALL_SECONDS = 14400", "LONGEST_CALL_SECONDS = 3");
    service.change_asterisk_conf("extensions.conf", usual, short);
    service.start_first().await;
    let client = with_client(&service, Manner::answers_after(50)).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    caller.wait_for("a BYE", |message| message.is_request("BYE")).await;
    eventually("the client is told", seconds(3), async || {
        client.trace().find(|message| !message.sent && message.is_request("BYE")).map(drop)
    })
    .await;
    service.assert_clean().await;
    let log = service.only_log().await;
    assert_eq!(outcome(&log), ("ANSWERED", "answered"));
    assert!((2..=4).contains(&log["billsecSeconds"].as_i64().unwrap()), "{log:#}");
    // Not the flag that says who asked for the end.
    assert_eq!(log["hangupCauseCode"], 16, "{log:#}");
}

/// Both ends have lost their network: no BYE will ever come.
#[tokio::test]
async fn a_call_without_sound_is_ended() {
    let mut service = Service::prepare();
    service.change_asterisk_conf("pjsip.conf", "rtp_timeout = 60", "rtp_timeout = 2");
    service.start_first().await;
    let _client = with_client(&service, Manner::answers_after(50)).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    caller.wait_for("a BYE", |message| message.is_request("BYE")).await;
    service.assert_clean().await;
    let log = service.only_log().await;
    assert_eq!(log["callStatus"], "ANSWERED");
    assert!(log["billsecSeconds"].as_i64().unwrap() < 15, "{log:#}");
}

#[tokio::test]
async fn who_calls_from_an_address_of_no_carrier_is_refused_whatever_its_name() {
    let mut service = Service::prepare();
    service.change_asterisk_conf("pjsip.conf", "@CARRIER_MATCH@", "127.0.0.99/32");
    service.start_first().await;
    let client = with_client(&service, Manner::answers_after(50)).await;
    let invite = crate::support::phone::Invite {
        from: "\"carrier\" <sip:carrier@127.0.0.99>".to_owned(),
        ..crate::support::phone::Invite::to(&service, NUMBER)
    };
    let mut caller = Phone::invite(&service, invite).await;
    // Asterisk asks for a password that there isn't, lest names be guessed by their answers.
    assert_eq!(caller.answer().await, 401);
    eventually("Asterisk says why", seconds(3), async || {
        (asterisk_says(&service, "No matching endpoint found") > 0).then_some(())
    })
    .await;
    assert!(client.trace().find(|message| message.is_request("INVITE")).is_none());
    service.assert_clean().await;
    assert!(service.logs_so_far().await.is_empty());
}

/// Should nobody be there to time it, Asterisk gives the ringing client up by itself.
#[tokio::test]
async fn a_client_does_not_ring_on_for_a_service_that_is_gone() {
    let mut service = Service::start().await;
    let mut desk = Desk::start().await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 1).await;
    campaign.link(service.client(&desk.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    desk.answer("180 Ringing", "", "").await;
    caller.ringing().await;
    let rung = Instant::now();
    service.kill();
    desk.wait_for("a CANCEL", |message| message.is_request("CANCEL")).await;
    // The ring time of one second, and the three that Asterisk is given more.
    let rang = rung.elapsed();
    assert!((seconds(2)..seconds(7)).contains(&rang), "{rang:?}");
    service.start_again().await;
    assert_eq!(caller.answer().await, 480);
    service.assert_clean().await;
    service.only_log().await;
}

/// The same where the service is stopped for longer than that, and goes on.
#[tokio::test]
async fn asterisk_gives_a_client_up_that_a_paused_service_does_not_and_it_has_not_answered() {
    let mut service = Service::start().await;
    let mut desk = Desk::start().await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 1).await;
    campaign.link(service.client(&desk.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    desk.answer("180 Ringing", "", "").await;
    caller.ringing().await;
    service.signal(Signal::STOP);
    let paused = Instant::now();
    desk.wait_for("a CANCEL", |message| message.is_request("CANCEL")).await;
    let rang = paused.elapsed();
    service.signal(Signal::CONT);
    assert!((seconds(2)..seconds(7)).contains(&rang), "{rang:?}");
    assert_eq!(caller.answer().await, 480);
    service.assert_clean().await;
    let log = service.only_log().await;
    assert_eq!(outcome(&log), ("NOANSWER", "all_no_answer"));
    assert_eq!(results(&log), ["no_answer"]);
}

/// A machine that pauses the service for longer than Asterisk waits for it.
#[tokio::test]
async fn calls_outlive_a_service_that_pauses() {
    let mut service = Service::start().await;
    let _client = with_client(&service, Manner::answers_after(300)).await;
    let before = Plan { number: NUMBER, calls: 20, rate: 20, talk_ms: 9_000 }.start(&service);
    eventually("all talk", seconds(10), async || {
        (service.live_in("talking").await == 20).then_some(())
    })
    .await;
    for pause in [ms(200), seconds(5)] {
        service.signal(Signal::STOP);
        let paused = Instant::now();
        // SIP goes on without us.
        assert!(options(&service).await < seconds(1), "Asterisk answers");
        tokio::time::sleep(pause.saturating_sub(paused.elapsed())).await;
        service.signal(Signal::CONT);
        eventually("all are there", seconds(10), async || {
            (service.live_in("talking").await == 20).then_some(())
        })
        .await;
    }
    let trace = before.finish(seconds(60)).await;
    assert_eq!(trace.answered_with(200), 20);
    assert_eq!(ended(&service, 20, "ANSWERED").await, 20);
    let next = call(NUMBER, 100).start(&service).finish(seconds(30)).await;
    assert_eq!(next.answered_with(200), 1);
    service.assert_clean().await;
}

/// How long Asterisk takes for an answer to OPTIONS.
async fn options(service: &Service) -> Duration {
    let asked = Instant::now();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (here, switch) = (socket.local_addr().unwrap(), ("127.0.0.1", service.sip_port));
    let request = format!(
        "OPTIONS sip:{NUMBER}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK-{n}\r\n\
         From: <sip:carrier@127.0.0.1>;tag=a\r\nTo: <sip:{NUMBER}@127.0.0.1>\r\nCall-ID: {n}@options\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        n = here.port(),
    );
    socket.send_to(request.as_bytes(), switch).await.unwrap();
    let mut answer = [0; 2_000];
    tokio::time::timeout(seconds(5), socket.recv(&mut answer)).await.unwrap().unwrap();
    asked.elapsed()
}

/// How Asterisk is asked for the events of an application.
pub fn event_socket(service: &Service, query: &str) -> Request {
    let url = format!("ws://127.0.0.1:{}/ari/events?{query}", service.ari_port);
    let mut request = url.into_client_request().unwrap();
    let credentials = format!("capconduit:{}", service.secret("ari-password"));
    let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
    let credentials = format!("Basic {credentials}").parse().unwrap();
    request.headers_mut().insert("authorization", credentials);
    request
}

/// As a second instance with the same settings would.
#[tokio::test]
async fn a_second_instance_with_the_same_name_makes_the_first_step_down() {
    let service = Service::start().await;
    let _client = with_client(&service, Manner::answers_after(50)).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    eventually("the call is up", seconds(5), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;
    let (_second, _) = connect_async(event_socket(&service, "app=capconduit")).await.unwrap();

    eventually("an alarm is raised", seconds(5), async || {
        (service.metrics().await.known("capconduit_ari_replaced") == 1.0).then_some(())
    })
    .await;
    let connections = service.metrics().await.known("capconduit_ari_connections_total");
    holds_for("it doesn't fight for the name", seconds(2), async || {
        service.metrics().await.known("capconduit_ari_connections_total") == connections
    })
    .await;
    assert!(!caller.was_hung_up, "the talk goes on");
    caller.hang_up().await;
    service.assert_clean().await;
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
}
