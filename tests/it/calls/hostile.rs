//! 9. What no honest caller sends.

use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::service::Service;
use crate::support::wait::ms;

const NUMBER: &str = "+15550100901";

async fn with_client() -> (Service, Phones) {
    let service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(1)).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

/// A call that is up while odd things happen.
async fn witness(service: &Service) -> Phone {
    let mut phone = Phone::call(service, NUMBER).await;
    assert_eq!(phone.answer().await, 200);
    phone
}

/// The final answer, if one comes.
async fn answer(phone: &mut Phone) -> Option<u16> {
    phone.try_wait_for(ms(1_500), |message| message.final_status().is_some()).await?.final_status()
}

/// Every log can be read, holds no control character, and no more than fits.
async fn assert_logs_are_sound(service: &Service) {
    for log in service.logs_so_far().await {
        let log = service.log_in_full(&log).await;
        for (field, most) in [("incomingDidNumber", 64), ("callerIdNum", 64), ("callerIdName", 128)]
        {
            let text = log[field].as_str().unwrap_or_default();
            assert!(!text.chars().any(char::is_control), "{field}: {log:#}");
            assert!(text.chars().count() <= most, "{field}: {log:#}");
        }
        assert!(log["trace"].is_object(), "{log:#}");
    }
}

#[tokio::test]
async fn hostile_numbers_are_refused_and_disturb_nothing() {
    let (service, _client) = with_client().await;
    let mut witness = witness(&service).await;
    let long = "1".repeat(300);
    let after_number = [
        "/b",
        "%2Fn",
        ";npdi=yes;rn=/../",
        "%3Bx=y",
        "%00",
        "%0D%0AVia:%20evil",
        "%C3%A9",
        "%FF%FE",
    ];
    let others = [
        "/",
        "PJSIP/evil",
        "%00",
        "%26Local%2Fs@from-carrier",
        "$%7BEXTEN%7D",
        "%7B%22a%22:1%7D",
        "'%20OR%201=1",
        "h",
        "i",
        "t",
        "T",
        "e",
        "s",
        "_X.",
        &long,
    ];
    let after_number = after_number.iter().map(|end| format!("{NUMBER}{end}"));
    let hostile: Vec<String> =
        after_number.chain(others.map(str::to_owned)).chain([format!("+{long}")]).collect();

    let mut cleaned = 0;
    for user in &hostile {
        let mut phone = Phone::call(&service, user).await;
        match answer(&mut phone).await {
            // What follows the number was cut off: the log below tells.
            Some(200) => {
                phone.hang_up().await;
                cleaned += 1;
            }
            Some(code) => assert!((400..500).contains(&code), "{user}: {code}"),
            // PJSIP drops what it can't read as SIP.
            None => assert!(user.contains('@'), "{user}: no answer"),
        }
    }

    assert!(!witness.was_hung_up);
    witness.hang_up().await;
    service.assert_clean().await;
    assert_logs_are_sound(&service).await;
    let logs = service.logs_so_far().await;
    let (answered, refused): (Vec<_>, Vec<_>) =
        logs.iter().partition(|log| log["callStatus"] == "ANSWERED");
    assert_eq!(answered.len(), cleaned + 1, "{answered:#?}");
    assert!(answered.iter().all(|log| log["incomingDidNumber"] == NUMBER), "{answered:#?}");
    assert!(refused.iter().all(|log| log["callStatus"] == "REJECTED_DID"), "{refused:#?}");
    let known = format!("{NUMBER}/b");
    assert!(refused.iter().any(|log| log["incomingDidNumber"] == *known), "{refused:#?}");
    eprintln!("{cleaned} of {} were cleaned, {} got a log", hostile.len(), refused.len());
}

#[tokio::test]
async fn hostile_callers_are_cleaned_or_refused_and_disturb_nothing() {
    let (service, _client) = with_client().await;
    let mut witness = witness(&service).await;
    let long = format!("\"{}\" <sip:{}@127.0.0.1>", "N".repeat(300), "9".repeat(300));
    let hostile = [
        "\"Élodie ☎ 日本\" <sip:+15550001@127.0.0.1>",
        "\"Eve\r\n Via: SIP/2.0/UDP evil\" <sip:+15550002@127.0.0.1>",
        "\"Eve\r\n\t\\\"quoted\\\"\" <sip:+15550003@127.0.0.1>",
        "\"a%0D%0Ab%00c\" <sip:+15550004@127.0.0.1>",
        "\"\u{1}\u{1b}[31m\u{7f}\" <sip:+15550005@127.0.0.1>",
        "\"x\" <sip:%00%0D%0A@127.0.0.1>",
        "\"x\" <sip:%FF%FE@127.0.0.1>",
        "\"x\" <sip:%C3%A9%2F%3B@127.0.0.1>",
        "\"'; DROP TABLE call_logs; --\" <sip:'%3B--@127.0.0.1>",
        "\"{\\\"a\\\": 1}\" <sip:%7B%22@127.0.0.1>",
        "<sip:127.0.0.1>",
        &long,
    ];

    let mut served = 0;
    for from in hostile {
        let invite = Invite { from: from.to_owned(), ..Invite::to(&service, NUMBER) };
        let mut phone = Phone::invite(&service, invite).await;
        match answer(&mut phone).await {
            Some(200) => {
                phone.hang_up().await;
                served += 1;
            }
            Some(status) => assert!((400..500).contains(&status), "{from:?}: {status}"),
            // PJSIP drops what it can't read as SIP.
            None => assert!(from.contains("\r\n") || from.contains('\u{1}'), "{from:?}: no answer"),
        }
    }

    assert!(!witness.was_hung_up);
    witness.hang_up().await;
    eprintln!("{served} of {} hostile callers were served", hostile.len());
    let logs = service.logs(served + 1).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:#?}");
    let has_name = |name: &str| logs.iter().any(|log| log["callerIdName"] == name);
    assert!(has_name("'; DROP TABLE call_logs; --"), "{logs:#?}");
    assert_logs_are_sound(&service).await;
    service.assert_clean().await;
}

#[tokio::test]
async fn packets_that_are_no_calls_disturb_nothing() {
    let (service, _client) = with_client().await;
    let mut witness = witness(&service).await;
    let uri = format!("sip:{NUMBER}@127.0.0.1:{}", service.sip_port);

    let broken: [Vec<u8>; 8] = [
        Vec::new(),
        b"\r\n\r\n".to_vec(),
        vec![0; 1_000],
        vec![0xFF; 60_000],
        format!("INVITE {uri} SIP/2.0\r\n\r\n").into(),
        format!("INVITE {uri} SIP/2.0\r\nContent-Length: 99999999\r\n\r\nx").into(),
        b"INVITE sip:a/../b;;@ SIP/2.0\r\nVia: \r\nFrom: <\r\nTo: >\r\n\r\n".to_vec(),
        format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {uri}\r\nCSeq: 1 INVITE\r\n\r\n").into(),
    ];
    for packet in broken {
        witness.send_raw(&packet).await;
    }
    // What a carrier has no business with.
    for method in ["REFER", "REGISTER", "SUBSCRIBE", "MESSAGE", "PUBLISH"] {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK-{method}\r\n\
             From: <sip:a@127.0.0.1>;tag=a\r\nTo: <{uri}>\r\nCall-ID: {method}@evil\r\n\
             CSeq: 1 {method}\r\nMax-Forwards: 70\r\nRefer-To: <sip:evil@127.0.0.1>\r\n\
             Contact: <sip:evil@127.0.0.1>\r\nContent-Length: 0\r\n\r\n"
        );
        witness.send_raw(text.as_bytes()).await;
    }
    let mut next = Phone::call(&service, NUMBER).await;
    assert_eq!(next.answer().await, 200);
    next.hang_up().await;

    assert!(!witness.was_hung_up);
    witness.hang_up().await;
    service.logs(2).await;
    assert_logs_are_sound(&service).await;
    service.assert_clean().await;
}
