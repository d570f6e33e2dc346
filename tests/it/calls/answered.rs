//! 1. An answered call.

use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::callers::call;
use crate::support::clients::{FOREVER_MS, Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::service::Service;
use crate::support::sip::Message;
use crate::support::wait::{ms, seconds};

const NUMBER: &str = "+15550100101";

/// A service with one campaign and one client.
async fn with_client(manner: Manner) -> (Service, Phones) {
    let service = Service::start().await;
    let client = Phones::start(&service, manner).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

fn rings(message: &Message) -> bool {
    message.is_answer(180, "INVITE")
}

fn answers(message: &Message) -> bool {
    message.is_answer(200, "INVITE")
}

#[tokio::test]
async fn the_caller_hears_ringing_and_is_answered_only_when_the_client_answers() {
    let (service, client) = with_client(Manner::answers_after(400)).await;

    let caller = call(NUMBER, 2_400).start(&service).finish(seconds(20)).await;

    service.assert_clean().await;
    let client = client.trace();
    assert!(caller.when("180", rings) < caller.when("200", answers));
    assert!(caller.when("180", rings) < client.when("the client's 200", answers));
    assert!(client.when("the client's 200", answers) < caller.when("200", answers));
    assert_eq!(caller.count(answers), 1);
    // The caller's BYE ended both.
    assert!(caller.find(|message| message.sent && message.is_request("BYE")).is_some());
    assert!(client.find(|message| !message.sent && message.is_request("BYE")).is_some());

    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    assert_eq!((&log["billsecSeconds"], &log["durationSeconds"]), (&json!(2), &json!(2)));
    assert_eq!(log["hangupCauseCode"], 16);
    assert_eq!(log["incomingDidNumber"], NUMBER);
    assert_eq!(log["callerIdNum"], "+155591");
    assert_eq!(log["callerIdName"], "Caller 1");
    assert_eq!(log["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(log["attempts"][0]["result"], "answered");
}

/// Nobody pays for silence, and nobody's first words get lost.
#[tokio::test]
async fn the_caller_is_answered_within_a_tenth_of_a_second_of_the_client() {
    let (service, client) = with_client(Manner::answers_after(100)).await;
    let mut gaps = Vec::new();
    for call_number in 0..5 {
        let caller = call(NUMBER, 100).start(&service).finish(seconds(20)).await;
        let trace = client.trace();
        let answer = trace.0.iter().filter(|message| answers(message)).nth(call_number);
        gaps.push(caller.when("200", answers) - answer.expect("the client's 200").at);
    }
    gaps.sort_unstable();
    eprintln!("from the client's answer to the caller's: {gaps:?}");
    // The third of five: this machine may have stood still in one of them.
    assert!(gaps[2].num_milliseconds() < 100, "{gaps:?}");
    service.assert_clean().await;
}

#[tokio::test]
async fn the_client_hangs_up_and_the_caller_is_told() {
    let (service, client) = with_client(Manner::answers_after(100).hangs_up_after(1_500)).await;

    let caller = call(NUMBER, FOREVER_MS).start(&service).finish(seconds(20)).await;

    service.assert_clean().await;
    assert!(caller.find(|message| !message.sent && message.is_request("BYE")).is_some());
    assert!(client.trace().find(|message| message.is_answer(200, "BYE")).is_some());
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    assert_eq!((&log["billsecSeconds"], &log["hangupCauseCode"]), (&json!(1), &json!(16)));
}

#[tokio::test]
async fn sound_flows_both_ways() {
    let client_audio = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let caller_audio = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let audio_port = client_audio.local_addr().unwrap().port();
    let manner = Manner { audio_port: Some(audio_port), ..Manner::answers_after(50) };
    let (service, _client) = with_client(manner).await;
    let audio_port = caller_audio.local_addr().unwrap().port();

    let invite = Invite { audio_port, ..Invite::to(&service, NUMBER) };
    let mut caller = Phone::invite(&service, invite).await;
    assert_eq!(caller.answer().await, 200);
    let switch = caller.heard.find(answers).and_then(Message::audio_port).unwrap();

    let (mut client_hears, mut caller_hears) = (false, false);
    let mut switch_for_client = None;
    let (mut at_client, mut at_caller) = ([0; 2_048], [0; 2_048]);
    for sequence in 0..150 {
        if client_hears && caller_hears {
            break;
        }
        caller_audio.send_to(&rtp(sequence, OF_CALLER), ("127.0.0.1", switch)).await.unwrap();
        if let Some(switch) = switch_for_client {
            client_audio.send_to(&rtp(sequence, OF_CLIENT), switch).await.unwrap();
        }
        let packet_time = tokio::time::sleep(ms(20));
        tokio::pin!(packet_time);
        loop {
            tokio::select! {
                () = &mut packet_time => break,
                received = client_audio.recv_from(&mut at_client) => {
                    let (length, from) = received.unwrap();
                    switch_for_client = Some(from);
                    client_hears |= at_client[..length].ends_with(&[OF_CALLER; 160]);
                }
                received = caller_audio.recv_from(&mut at_caller) => {
                    let (length, _) = received.unwrap();
                    caller_hears |= at_caller[..length].ends_with(&[OF_CLIENT; 160]);
                }
            }
        }
    }
    assert!(client_hears, "the client hears the caller");
    assert!(caller_hears, "the caller hears the client");

    caller.hang_up().await;
    service.assert_clean().await;
}

/// Samples, which double as names of the sender.
const OF_CALLER: u8 = 0x11;
const OF_CLIENT: u8 = 0x22;

/// 20 ms of PCMU (RFC 3550, RFC 3551).
fn rtp(sequence: u16, sample: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(u32::from(sample).to_be_bytes());
    packet.extend([sample; 160]);
    packet
}
