//! The service is away, and Asterisk is alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::apart::silent;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::service::{PATIENCE, Service};
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550101001";
/// Where calls go that nobody takes.
const ELSEWHERE: &str = "+15550199001";

/// Takes the service away. A call that comes in the very moment is in the hands of the
/// one who died.
pub(super) async fn leave_asterisk_alone(service: &mut Service) {
    service.kill();
    eventually("Asterisk knows that it is alone", seconds(5), async || {
        let applications = service.ari("applications").await;
        applications.as_array()?.is_empty().then_some(())
    })
    .await;
}

/// One whose callers get this after a second.
async fn with_fallback(service: &mut Service, fallback: String) {
    service.patience = seconds(1);
    service.fallback = Some(fallback);
    service.start_first().await;
    leave_asterisk_alone(service).await;
}

#[tokio::test]
async fn a_caller_hears_ringing_while_the_service_is_away_and_then_gets_503() {
    let mut service = Service::start().await;
    leave_asterisk_alone(&mut service).await;

    let called = Instant::now();
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;
    assert!(called.elapsed() < seconds(1), "it rings at once");
    assert_eq!(caller.answer().await, 503);
    let waited = called.elapsed();
    assert!((PATIENCE..PATIENCE + seconds(2)).contains(&waited), "{waited:?}");

    // It finds its data again, and takes up the Asterisk that was left alone.
    service.start_again().await;
    service.assert_clean().await;
}

/// One whose callers wait for so long, and get a client.
async fn with_client(patience: Duration) -> (Service, Phones) {
    let mut service = Service::prepare();
    service.patience = patience;
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(30)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

#[tokio::test]
async fn a_caller_who_waited_three_seconds_for_the_service_gets_a_client() {
    let (mut service, _client) = with_client(seconds(8)).await;
    leave_asterisk_alone(&mut service).await;

    let called = Instant::now();
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;
    // What is waited for is that nothing happens.
    let early = caller.try_wait_for(seconds(3), |message| message.final_status().is_some()).await;
    assert!(early.is_none(), "{early:?}");
    service.start_again().await;
    assert_eq!(caller.answer().await, 200);
    assert!(called.elapsed() < seconds(8), "{:?}", called.elapsed());
    let ringing = caller.heard.count(|message| message.is_answer(180, "INVITE"));
    assert!(ringing <= 2, "told once by Asterisk, once by the client: {ringing}");

    caller.hang_up().await;
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
}

/// Longer than callers enter an application that says nothing.
#[tokio::test]
async fn a_service_that_was_away_for_long_has_its_callers_as_soon_as_it_is_back() {
    let (mut service, _client) = with_client(seconds(30)).await;
    leave_asterisk_alone(&mut service).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;
    silent(&service).await;
    service.start_again().await;
    let back = Instant::now();
    assert_eq!(caller.answer().await, 200);
    assert!(back.elapsed() < seconds(2), "{:?}", back.elapsed());
    caller.hang_up().await;
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
}

/// Asterisk forgets then when it was last heard.
#[tokio::test]
async fn callers_enter_at_once_after_a_reload_of_the_dialplan() {
    let (service, _client) = with_client(seconds(8)).await;
    for _ in 0..3 {
        service.asterisk("dialplan reload");
        let mut caller = Phone::call(&service, NUMBER).await;
        assert_eq!(caller.answer().await, 200);
        let ringing = caller.heard.count(|message| message.is_answer(180, "INVITE"));
        assert!(ringing <= 1, "told by the client alone: {ringing}");
        caller.hang_up().await;
    }
    service.logs(3).await;
    service.assert_clean().await;
}

/// A second of a tone, in the one kind of WAV that Asterisk plays.
fn write_tone(file: &Path) {
    const RATE: u32 = 8_000;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + 2 * RATE).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(RATE.to_le_bytes());
    wav.extend((2 * RATE).to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend((2 * RATE).to_le_bytes());
    for sample in 0..RATE {
        let loud: i16 = if sample % 20 < 10 { 8_000 } else { -8_000 };
        wav.extend(loud.to_le_bytes());
    }
    fs::write(file, wav).unwrap();
}

/// Packets of audio that aren't silence.
async fn loud_packets(socket: &UdpSocket) -> u32 {
    let (mut packet, mut loud) = ([0; 512], 0);
    while let Ok(Ok(read)) = tokio::time::timeout(ms(100), socket.recv(&mut packet)).await {
        let audio = packet.get(12..read).unwrap_or_default();
        loud += u32::from(audio.iter().any(|sample| *sample & 0x7f < 0x60));
    }
    loud
}

#[tokio::test]
async fn an_announcement_is_heard_unanswered_and_then_the_caller_gets_503() {
    let mut service = Service::prepare();
    let tone = service.file("sorry.wav");
    write_tone(&tone);
    with_fallback(&mut service, format!("announce:{}", tone.display())).await;

    let ear = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let audio_port = ear.local_addr().unwrap().port();
    let invite = Invite { audio_port, ..Invite::to(&service, NUMBER) };
    let mut caller = Phone::invite(&service, invite).await;
    caller.wait_for("early media", |message| message.is_answer(183, "INVITE")).await;
    let heard = loud_packets(&ear).await;
    assert!((40..=60).contains(&heard), "a second of 20 ms each: {heard}");
    assert_eq!(caller.answer().await, 503);
    service.start_again().await;
    service.assert_clean().await;
}

/// A backup that is to be found at this port.
fn write_backup(service: &Service, port: u16) {
    fs::create_dir_all(service.data()).unwrap();
    let backup = format!(
        "[backup](trunk)\naors = backup\n[backup](trunk-address)\ncontact = sip:127.0.0.1:{port}\n"
    );
    fs::write(service.data().join("carriers.conf"), backup).unwrap();
}

#[tokio::test]
async fn a_fallback_number_is_dialled_and_talks_on_when_the_service_is_back() {
    let mut service = Service::prepare();
    let backup = Phones::start(&service, Manner::answers_after(30)).await;
    write_backup(&service, backup.port);
    with_fallback(&mut service, format!("dial:{ELSEWHERE}@backup")).await;

    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    let trace = backup.trace();
    let invite = trace.find(|message| message.is_request("INVITE")).unwrap();
    assert!(invite.text.starts_with(&format!("INVITE sip:{ELSEWHERE}@")), "{}", invite.text);

    service.start_again().await;
    assert!(!caller.hung_up(Duration::from_secs(2)).await, "it is none of the service's calls");
    caller.hang_up().await;
    service.assert_clean().await;
    assert_eq!(service.logs_so_far().await.len(), 0, "nor is it sold");
}

#[tokio::test]
async fn a_fallback_number_that_is_busy_is_busy_and_one_that_is_dead_is_503() {
    let mut service = Service::prepare();
    let backup = Phones::refusing(&service, 486).await;
    write_backup(&service, backup.port);
    with_fallback(&mut service, format!("dial:{ELSEWHERE}@backup")).await;
    assert_eq!(Phone::call(&service, NUMBER).await.answer().await, 486);
    drop(backup);
    assert_eq!(Phone::call(&service, NUMBER).await.answer().await, 503);
    service.start_again().await;
    service.assert_clean().await;
}
