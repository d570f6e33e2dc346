//! A caller's phone that does exactly what the test says, to the millisecond,
//! where SIPp's scenarios are too polite or too slow.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use capconduit::clock;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::service::Service;
use super::sip::{Message, Trace};
use super::wait::seconds;

/// One call, from the caller's side.
pub struct Phone {
    socket: UdpSocket,
    switch: SocketAddr,
    invite: Invite,
    /// The `To` of the answer that made the call.
    answered_by: Option<String>,
    /// Of the newest request within the call.
    cseq: u32,
    pub heard: Trace,
    /// Whether the other side hung up.
    pub was_hung_up: bool,
}

/// What a call begins with, written as it goes over the wire.
#[derive(Clone)]
pub struct Invite {
    pub uri: String,
    /// `"Name" <sip:number@host>`, without the tag.
    pub from: String,
    pub call_id: String,
    pub audio_port: u16,
}

static CALLS: AtomicU32 = AtomicU32::new(1);
const PATIENCE: Duration = seconds(20);

impl Invite {
    /// The number in `From`.
    pub fn number(&self) -> &str {
        let number = self.from.split("sip:").nth(1).and_then(|rest| rest.split('@').next());
        number.expect("a SIP URI")
    }

    pub fn to(service: &Service, number: &str) -> Self {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        Self {
            uri: format!("sip:{number}@127.0.0.1:{}", service.sip_port),
            from: format!("\"Caller {call}\" <sip:+1555800{call:04}@127.0.0.1>"),
            call_id: format!("{call}-{}@phone", std::process::id()),
            audio_port: service.ports.media().0 - 1,
        }
    }
}

impl Phone {
    pub async fn call(service: &Service, number: &str) -> Self {
        Self::invite(service, Invite::to(service, number)).await
    }

    pub async fn invite(service: &Service, invite: Invite) -> Self {
        Self::invite_at(service.sip_port, invite).await
    }

    /// The same, of whoever listens on this port of loopback.
    pub async fn invite_at(sip_port: u16, invite: Invite) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let switch = SocketAddr::from(([127, 0, 0, 1], sip_port));
        let heard = Trace::default();
        let phone =
            Self { socket, switch, invite, answered_by: None, cseq: 1, heard, was_hung_up: false };
        let audio = phone.invite.audio_port;
        let body = format!(
            "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {audio} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
        );
        phone.request("INVITE", 1, "invite", None, &body).await;
        phone
    }

    /// Waits for the first message that passes the test.
    pub async fn wait_for(&mut self, what: &str, test: impl Fn(&Message) -> bool) -> Message {
        self.try_wait_for(PATIENCE, test)
            .await
            .unwrap_or_else(|| panic!("{what}: not in {:#?}", self.heard.0))
    }

    /// The same, if it comes within `bound`.
    pub async fn try_wait_for(
        &mut self,
        bound: Duration,
        test: impl Fn(&Message) -> bool,
    ) -> Option<Message> {
        if let Some(message) = self.heard.find(&test) {
            return Some(message.clone());
        }
        let deadline = Instant::now() + bound;
        let mut buffer = vec![0; 65_536];
        while let Ok(read) = timeout_at(deadline.into(), self.socket.recv(&mut buffer)).await {
            let text = String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned();
            let message = Message { at: clock::now(), sent: false, text };
            self.heard.0.push(message.clone());
            self.react(&message).await;
            if test(&message) {
                return Some(message);
            }
        }
        None
    }

    pub async fn ringing(&mut self) {
        self.wait_for("ringing", |message| message.is_answer(180, "INVITE")).await;
    }

    /// The final answer, which is confirmed.
    pub async fn answer(&mut self) -> u16 {
        let answer = self.wait_for("an answer", |message| message.final_status().is_some()).await;
        answer.final_status().unwrap()
    }

    /// Takes the call back. What became of it: 487, or 200 if it was answered
    /// in the same moment, and then it is hung up.
    pub async fn cancel(&mut self) -> u16 {
        self.request("CANCEL", 1, "invite", None, "").await;
        let answer = self.answer().await;
        if answer == 200 {
            self.hang_up().await;
        }
        answer
    }

    /// Where the other side wants its audio, once it has answered.
    pub fn audio_port(&self) -> Option<u16> {
        self.heard.find(|message| message.final_status() == Some(200))?.audio_port()
    }

    /// Waits for the other side to hang up, which it does after this time at most.
    pub async fn hung_up(&mut self, bound: Duration) -> bool {
        self.try_wait_for(bound, |message| message.is_request("BYE")).await.is_some()
    }

    pub async fn hang_up(&mut self) {
        self.ask("BYE", "").await;
    }

    /// Asks for something within the call; the final answer to it.
    pub async fn ask(&mut self, method: &str, body: &str) -> Message {
        let to = self.answered_by.clone().expect("the call was answered");
        self.cseq += 1;
        let wanted = format!("{} {method}", self.cseq);
        self.request(method, self.cseq, &wanted.replace(' ', "-"), Some(&to), body).await;
        self.wait_for("an answer", |message| {
            let is_final = message.status().is_some_and(|status| status >= 200);
            is_final && message.header("CSeq") == Some(&wanted)
        })
        .await
    }

    /// Sends something that is no part of the call.
    pub async fn send_raw(&self, text: &[u8]) {
        self.socket.send_to(text, self.switch).await.unwrap();
    }

    async fn react(&mut self, message: &Message) {
        if let Some(status) = message.final_status() {
            let to = message.header("To").unwrap_or_default().to_owned();
            let cseq = message.header("CSeq").and_then(|cseq| cseq.split(' ').next()?.parse().ok());
            let cseq: u32 = cseq.unwrap_or(1);
            if status == 200 {
                self.request("ACK", cseq, &format!("ack-{cseq}"), Some(&to), "").await;
                self.answered_by = Some(to);
            } else {
                let branch = if cseq == 1 { "invite".to_owned() } else { format!("{cseq}-INVITE") };
                self.request("ACK", cseq, &branch, Some(&to), "").await;
            }
        }
        if message.is_request("BYE") {
            self.was_hung_up = true;
            let mut answer = "SIP/2.0 200 OK\r\n".to_owned();
            for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
                let value = message.header(name).unwrap_or_default();
                write!(answer, "{name}: {value}\r\n").unwrap();
            }
            answer.push_str("Content-Length: 0\r\n\r\n");
            self.send_raw(answer.as_bytes()).await;
        }
    }

    async fn request(&self, method: &str, cseq: u32, branch: &str, to: Option<&str>, body: &str) {
        let Invite { uri, from, call_id, .. } = &self.invite;
        let here = self.socket.local_addr().unwrap();
        let to = to.map_or_else(|| format!("<{uri}>"), str::to_owned);
        let token = call_id.replace('@', "-");
        let length = body.len();
        let mut request = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK-{token}-{branch}\r\n\
             From: {from};tag=phone\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:phone@{here}>\r\nMax-Forwards: 70\r\n"
        );
        if !body.is_empty() {
            request.push_str("Content-Type: application/sdp\r\n");
        }
        if method == "REFER" {
            write!(request, "Refer-To: <{uri}>\r\n").unwrap();
        }
        write!(request, "Content-Length: {length}\r\n\r\n{body}").unwrap();
        self.socket.send_to(request.as_bytes(), self.switch).await.unwrap();
    }
}
