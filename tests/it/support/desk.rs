//! A client's phone that does exactly what the test says, message by message,
//! where SIPp's scenarios would need a file each.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capconduit::clock;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::sip::{Message, Trace};
use super::wait::seconds;

/// One phone, which takes one call.
pub struct Desk {
    socket: UdpSocket,
    /// Whom to answer.
    switch: Option<SocketAddr>,
    invite: Option<Message>,
    cseq: u32,
    pub heard: Trace,
}

const PATIENCE: Duration = seconds(20);

/// A description of audio at this port, in this direction.
pub fn audio(port: u16, codec: &str, direction: &str) -> String {
    let (payload, name) = if codec == "alaw" { (8, "PCMA") } else { (0, "PCMU") };
    format!(
        "v=0\r\no=desk 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {payload}\r\na=rtpmap:{payload} {name}/8000\r\na={direction}\r\n"
    )
}

// === impl Desk ===

impl Desk {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { socket, switch: None, invite: None, cseq: 0, heard: Trace::default() }
    }

    pub fn contact(&self) -> String {
        format!("sip:client@{}", self.socket.local_addr().unwrap())
    }

    /// Waits for the call.
    pub async fn invited(&mut self) -> Message {
        let invite = self.wait_for("an INVITE", |message| message.is_request("INVITE")).await;
        self.invite = Some(invite.clone());
        invite
    }

    /// Waits for the first message that passes the test.
    pub async fn wait_for(&mut self, what: &str, test: impl Fn(&Message) -> bool) -> Message {
        if let Some(message) = self.heard.find(&test) {
            return message.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 65_536];
        while let Ok(read) = timeout_at(deadline.into(), self.socket.recv_from(&mut buffer)).await {
            let (length, from) = read.unwrap();
            self.switch = Some(from);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let message = Message { at: clock::now(), sent: false, text };
            self.heard.0.push(message.clone());
            self.react(&message).await;
            if test(&message) {
                return message;
            }
        }
        panic!("{what}: not in {:#?}", self.heard.0)
    }

    /// What everybody would say to this.
    async fn react(&mut self, message: &Message) {
        if message.is_request("BYE") || message.is_request("OPTIONS") {
            self.answer_to(message, "200 OK", "", "").await;
        }
        if message.is_request("CANCEL") {
            self.answer_to(message, "200 OK", "", "").await;
            self.answer("487 Request Terminated", "", "").await;
        }
    }

    /// Answers the INVITE, provisionally or at last. Further headers end with a line break.
    pub async fn answer(&self, status: &str, headers: &str, body: &str) {
        let invite = self.invite.as_ref().expect("it was invited");
        self.answer_to(invite, status, headers, body).await;
    }

    async fn answer_to(&self, request: &Message, status: &str, headers: &str, body: &str) {
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let value = request.header(name).unwrap_or_default();
            let tag = if name == "To" && !value.contains("tag=") { ";tag=desk" } else { "" };
            write!(answer, "{name}: {value}{tag}\r\n").unwrap();
        }
        if !headers.contains("Contact:") {
            write!(answer, "Contact: <{}>\r\n", self.contact()).unwrap();
        }
        self.send(answer, headers, body).await;
    }

    /// Asks the switch for something within the call.
    pub async fn request(&mut self, method: &str, headers: &str, body: &str) {
        self.cseq += 1;
        let invite = self.invite.as_ref().expect("it was invited");
        let header = |name| invite.header(name).unwrap_or_default();
        let target = header("Contact").trim_start_matches('<').split('>').next().unwrap();
        let request = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bK-desk-{method}-{cseq}\r\n\
             From: {us};tag=desk\r\nTo: {them}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <{contact}>\r\nMax-Forwards: 70\r\n",
            here = self.socket.local_addr().unwrap(),
            cseq = self.cseq,
            us = header("To"),
            them = header("From"),
            call_id = header("Call-ID"),
            contact = self.contact(),
        );
        self.send(request, headers, body).await;
    }

    /// The final answer to what was asked for.
    pub async fn answered(&mut self, method: &str) -> u16 {
        let what = format!("an answer to the {method}");
        let answer = self.wait_for(&what, |message| {
            message.answers() == Some(method) && message.status().is_some_and(|code| code >= 200)
        });
        answer.await.status().unwrap()
    }

    async fn send(&self, mut text: String, headers: &str, body: &str) {
        text.push_str(headers);
        if !body.is_empty() {
            text.push_str("Content-Type: application/sdp\r\n");
        }
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let switch = self.switch.expect("it was called");
        self.socket.send_to(text.as_bytes(), switch).await.unwrap();
    }
}
