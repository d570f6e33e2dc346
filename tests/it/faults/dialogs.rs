//! What phones do within a call that isn't a plain call: on a real Asterisk.

use std::time::Instant;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::scene::{outcome, results};
use crate::support::clients::{Manner, Phones};
use crate::support::desk::{Desk, audio};
use crate::support::phone::{Invite, Phone};
use crate::support::seller::Campaign;
use crate::support::service::{Service, instant};
use crate::support::sip::Message;
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550109201";
/// A description that Asterisk doesn't want.
const FAX: &str = "v=0\r\no=desk 1 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=image 4000 udptl t38\r\na=T38FaxVersion:0\r\n";

/// A service, and a client whom the test plays.
async fn with_desk() -> (Service, Desk) {
    let (service, desk, _) = with_campaign().await;
    (service, desk)
}

async fn with_campaign() -> (Service, Desk, Campaign) {
    let service = Service::start().await;
    let desk = Desk::start().await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let first = json!({"forwardingPriority": 1});
    campaign.link(service.client(&desk.contact()).await, first).await;
    (service, desk, campaign)
}

/// The two talk.
async fn talking() -> (Service, Desk, Phone) {
    let (service, mut desk) = with_desk().await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    desk.answer("180 Ringing", "", "").await;
    desk.answer("200 OK", "", &audio(service.ports.single(), "ulaw", "sendrecv")).await;
    assert_eq!(caller.answer().await, 200);
    desk.wait_for("an ACK", |message| message.is_request("ACK")).await;
    is_talking(&service).await;
    (service, desk, caller)
}

async fn is_talking(service: &Service) {
    eventually("the call is up", seconds(5), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;
}

/// The caller hangs up, and the record says that the two talked.
async fn end_well(service: &Service, caller: &mut Phone) {
    assert!(!caller.was_hung_up);
    is_talking(service).await;
    caller.hang_up().await;
    service.assert_clean().await;
    assert_eq!(outcome(&service.only_log().await), ("ANSWERED", "answered"));
}

/// A packet of RTP with this payload type, of 20 ms.
fn rtp(payload: u8, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, payload];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.resize(12 + 160, 0x55);
    packet
}

/// Sends sound from the client until some of it, of this payload type, is heard by the caller.
async fn is_heard(invite: &Message, caller: &UdpSocket, sent: u8, heard: u8) {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = ("127.0.0.1", invite.audio_port().unwrap());
    let mut packet = [0; 1_500];
    for sequence in 0..250 {
        client.send_to(&rtp(sent, sequence), target).await.unwrap();
        if let Ok(read) = timeout(ms(20), caller.recv(&mut packet)).await
            && read.unwrap() > 12
            && packet[1] & 0x7F == heard
        {
            return;
        }
    }
    panic!("nothing was heard");
}

#[tokio::test]
async fn early_media_reaches_the_caller_and_is_not_billed() {
    let (service, mut desk) = with_desk().await;
    let ear = UdpSocket::bind(("127.0.0.1", service.ports.single())).await.unwrap();
    let audio_port = ear.local_addr().unwrap().port();
    let invite = Invite { audio_port, ..Invite::to(&service, NUMBER) };
    let mut caller = Phone::invite(&service, invite).await;
    let invite = desk.invited().await;
    let sdp = audio(service.ports.single(), "ulaw", "sendrecv");
    desk.answer("183 Session Progress", "", &sdp).await;
    let progress = caller.wait_for("183", |message| message.is_answer(183, "INVITE")).await;
    assert!(progress.audio_port().is_some(), "{progress:?}");
    is_heard(&invite, &ear, 0, 0).await;
    tokio::time::sleep(ms(1_200)).await;
    let answered = Instant::now();
    desk.answer("200 OK", "", &sdp).await;
    assert_eq!(caller.answer().await, 200);
    is_talking(&service).await;
    caller.hang_up().await;
    let talked = answered.elapsed();
    service.assert_clean().await;
    let log = service.only_log().await;
    let billed = log["billsecSeconds"].as_u64().unwrap();
    assert!(billed <= talked.as_secs(), "{talked:?}: {log:#}");
    let rang = instant(&log["timestampAnswered"]) - instant(&log["timestampStart"]);
    assert!(rang.num_milliseconds() >= 1_200, "{rang}");
}

#[tokio::test]
async fn a_caller_who_leaves_during_early_media_frees_the_client() {
    let (service, mut desk) = with_desk().await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    let sdp = audio(service.ports.single(), "ulaw", "sendrecv");
    desk.answer("183 Session Progress", "", &sdp).await;
    caller.wait_for("183", |message| message.is_answer(183, "INVITE")).await;
    assert_eq!(caller.cancel().await, 487);
    desk.wait_for("a CANCEL", |message| message.is_request("CANCEL")).await;
    service.assert_clean().await;
    assert_eq!(outcome(&service.only_log().await), ("CANCELED", "caller_abandoned"));
}

/// Nobody may take an INVITE back before its first answer: RFC 3261, section 9.1.
#[tokio::test]
async fn a_caller_who_leaves_before_the_client_has_said_anything_leaves_nobody_ringing() {
    let (service, mut desk) = with_desk().await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    assert_eq!(caller.cancel().await, 487);
    service.assert_clean().await;
    let log = service.only_log().await;
    assert_eq!(outcome(&log), ("CANCELED", "caller_abandoned"));
    assert_eq!(results(&log), ["canceled"]);
    desk.answer("180 Ringing", "", "").await;
    desk.wait_for("a CANCEL", |message| message.is_request("CANCEL")).await;
}

#[tokio::test]
async fn a_client_whose_ring_time_is_over_is_told_that_nobody_answered() {
    let (service, mut desk, campaign) = with_campaign().await;
    campaign.change(json!({"dialTimeoutSeconds": 1})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    desk.answer("180 Ringing", "", "").await;
    let cancel = desk.wait_for("a CANCEL", |message| message.is_request("CANCEL")).await;
    let reason = cancel.header("Reason").unwrap_or_default();
    assert!(reason.starts_with("Q.850") && reason.contains("cause=19"), "{cancel:#?}");
    assert_eq!(caller.answer().await, 480);
    service.assert_clean().await;
    assert_eq!(outcome(&service.only_log().await), ("NOANSWER", "all_no_answer"));
}

#[tokio::test]
async fn a_client_who_answers_and_hangs_up_at_once_has_had_the_call() {
    let (service, mut desk) = with_desk().await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    desk.answer("200 OK", "", &audio(service.ports.single(), "ulaw", "sendrecv")).await;
    // Nobody may hang up before that: RFC 3261, section 15.
    desk.wait_for("the ACK", |message| message.is_request("ACK")).await;
    desk.request("BYE", "", "").await;
    let answer = caller.answer().await;
    service.assert_clean().await;
    let log = service.only_log().await;
    // Both or neither: what the caller saw is what is recorded.
    match answer {
        200 => {
            caller.wait_for("a BYE", |message| message.is_request("BYE")).await;
            assert_eq!(outcome(&log), ("ANSWERED", "answered"));
            assert_eq!(log["billsecSeconds"], 0);
        }
        other => assert_eq!(log["callStatus"], "FAILED", "{other}: {log:#}"),
    }
}

/// A redirection to a place of the client's choice is a refusal: the next one is tried.
#[tokio::test]
async fn a_redirection_is_not_followed() {
    let (service, mut desk, campaign) = with_campaign().await;
    let second = Phones::start(&service, Manner::answers_after(1)).await;
    let next = json!({"forwardingPriority": 2});
    campaign.link(service.client(&second.contact()).await, next).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    desk.invited().await;
    let contact = format!("Contact: <sip:Local/{NUMBER}@from-carrier>\r\n");
    desk.answer("302 Moved Temporarily", &contact, "").await;
    assert_eq!(caller.answer().await, 200);
    is_talking(&service).await;
    let channels = service.ari("channels").await;
    assert_eq!(channels.as_array().unwrap().len(), 2, "{channels:#}");
    caller.hang_up().await;
    service.assert_clean().await;
    let log = service.only_log().await;
    assert_eq!(results(&log), ["rejected", "answered"]);
    assert_eq!(log["attempts"][0]["sipCode"], 302);
}

#[tokio::test]
async fn nobody_may_transfer_a_call() {
    let (service, mut desk, mut caller) = talking().await;
    desk.request("REFER", "Refer-To: <sip:evil@127.0.0.1>\r\n", "").await;
    // Asterisk has no module for it loaded: it is refused, or not even answered.
    let asked = timeout(ms(1_500), caller.ask("REFER", "")).await;
    assert!(asked.is_err() || asked.is_ok_and(|answer| answer.status() >= Some(400)));
    // A later request is answered: the other was seen by then.
    desk.request("INVITE", "", FAX).await;
    desk.answered("INVITE").await;
    let accepted = |message: &Message| {
        message.answers() == Some("REFER") && message.status().is_some_and(|code| code < 300)
    };
    assert!(desk.heard.find(accepted).is_none() && caller.heard.find(accepted).is_none());
    assert_eq!(service.ari("channels").await.as_array().unwrap().len(), 2);
    end_well(&service, &mut caller).await;
}

#[tokio::test]
async fn a_call_stays_up_while_one_side_holds_it_or_wants_a_fax() {
    let (service, mut desk, mut caller) = talking().await;
    let port = service.ports.single();
    for direction in ["sendonly", "inactive", "sendrecv"] {
        let answer = caller.ask("INVITE", &audio(port, "ulaw", direction)).await;
        assert_eq!(answer.status(), Some(200), "{direction}");
    }
    desk.request("INVITE", "", FAX).await;
    let refused = desk.answered("INVITE").await;
    assert!((400..500).contains(&refused), "{refused}");
    end_well(&service, &mut caller).await;
}

/// The caller speaks PCMU and the client PCMA: Asterisk translates.
#[tokio::test]
async fn two_who_speak_different_codecs_hear_each_other() {
    let (service, mut desk) = with_desk().await;
    let ear = UdpSocket::bind(("127.0.0.1", service.ports.single())).await.unwrap();
    let audio_port = ear.local_addr().unwrap().port();
    let invite = Invite { audio_port, ..Invite::to(&service, NUMBER) };
    let mut caller = Phone::invite(&service, invite).await;
    let invite = desk.invited().await;
    desk.answer("200 OK", "", &audio(service.ports.single(), "alaw", "sendrecv")).await;
    assert_eq!(caller.answer().await, 200);
    is_heard(&invite, &ear, 8, 0).await;
    end_well(&service, &mut caller).await;
}
