//! Server-sent events, as somebody reads them.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wait::seconds;

/// A stream that is read.
pub struct Events {
    answer: Response,
    /// What has come of an event that isn't whole yet.
    text: String,
    whole: VecDeque<Event>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

const PATIENCE: Duration = seconds(20);

impl Events {
    pub async fn open(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new(), whole: VecDeque::new() }
    }

    /// The next event; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.read()).await.expect("an event, or the end")
    }

    /// The next event but heartbeats.
    pub async fn news(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("another event");
            if event.name != "heartbeat" {
                return event;
            }
        }
    }

    /// Whether nothing but heartbeats has come by the next heartbeat.
    pub async fn is_quiet(&mut self) -> bool {
        self.next().await.is_some_and(|event| event.name == "heartbeat")
    }

    /// Reads until the stream ends.
    pub async fn end(&mut self) {
        let end = async { while self.read().await.is_some() {} };
        timeout(PATIENCE, end).await.expect("the end of the stream");
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.whole.pop_front() {
                return Some(event);
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                self.whole.extend(Event::parse(block));
                self.text = rest.to_owned();
            }
        }
    }
}

impl Event {
    /// Of a block of lines; none if there is nothing to tell in it.
    pub fn parse(block: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let data = field("data");
        let event = || Self {
            name: field("event"),
            id: field("id"),
            data: serde_json::from_str(&data).unwrap(),
        };
        (!data.is_empty()).then(event)
    }

    /// What it tells of one call: its state, or that it is gone.
    pub fn told(&self) -> String {
        let state = self.data["call"]["state"].as_str();
        format!("{} {}", self.name, state.unwrap_or_default()).trim().to_owned()
    }

    /// The calls of a snapshot.
    #[track_caller]
    pub fn calls(&self) -> &[Value] {
        assert_eq!(self.name, "snapshot", "{self:?}");
        self.data["calls"].as_array().unwrap()
    }
}

/// A reader who may take nothing of what it is sent.
pub struct Stalled {
    socket: TcpStream,
    text: String,
}

impl Stalled {
    /// Reads until the snapshot begins. Its host takes so many bytes for it, and no more.
    pub async fn open(address: &str, path: &str, token: &str, taken: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(taken).unwrap();
        let mut socket = socket.connect(address.parse().unwrap()).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Self { socket, text: String::new() };
        reader.read_until("event: snapshot").await;
        reader
    }

    /// Reads until this has come; what came after what was looked for last.
    pub async fn read_until(&mut self, what: &str) {
        let found = async {
            while !self.text.contains(what) {
                // What was cut off from the text may have been its beginning.
                let keep = self.text.len().saturating_sub(200);
                self.text.drain(..keep);
                assert!(self.read_on().await, "the stream ended before {what}");
            }
        };
        timeout(PATIENCE, found).await.expect(what);
    }

    /// Reads to the end of the first event of which this is true; none where the stream ended
    /// before. `what` names it.
    pub async fn read_event(
        &mut self,
        what: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let found = async {
            loop {
                let whole = self.text.rfind("\n\n").map_or(0, |end| end + 2);
                let mut taken = 0;
                let event = self.text[..whole].split_inclusive("\n\n").find(|event| {
                    taken += event.len();
                    is_wanted(event)
                });
                let event = event.map(str::to_owned);
                self.text.drain(..taken);
                if event.is_some() || !self.read_on().await {
                    return event;
                }
            }
        };
        timeout(PATIENCE, found).await.expect(what)
    }

    /// False at the end of the stream.
    async fn read_on(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let read = self.socket.read(&mut buffer).await.unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }
}
