//! SIP messages, as SIPp traces them and as a phone of ours reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};

/// A SIP message that was seen.
#[derive(Clone, Debug)]
pub struct Message {
    pub at: DateTime<Utc>,
    /// By the one whose trace this is.
    pub sent: bool,
    pub text: String,
}

/// What one SIPp process sent and received, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace(pub Vec<Message>);

impl Message {
    /// The code of a response.
    pub fn status(&self) -> Option<u16> {
        self.text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        let word = self.text.split(' ').next()?;
        (word != "SIP/2.0").then_some(word)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The method that a response answers.
    pub fn answers(&self) -> Option<&str> {
        self.status()?;
        self.header("CSeq")?.split_whitespace().nth(1)
    }

    pub fn is_answer(&self, status: u16, method: &str) -> bool {
        self.status() == Some(status) && self.answers() == Some(method)
    }

    pub fn is_request(&self, method: &str) -> bool {
        self.method() == Some(method)
    }

    /// The final answer to an INVITE.
    pub fn final_status(&self) -> Option<u16> {
        self.status().filter(|status| *status >= 200 && self.answers() == Some("INVITE"))
    }

    /// The port that the sender wants its audio at.
    pub fn audio_port(&self) -> Option<u16> {
        let media = self.text.lines().find_map(|line| line.strip_prefix("m=audio "))?;
        media.split(' ').next()?.parse().ok()
    }
}

impl Trace {
    /// Reads what `sipp -trace_msg` wrote.
    pub fn read(path: &Path) -> Self {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let messages =
            text.split("\n-----------------------------------------------").filter_map(|block| {
                let block = block.trim_start_matches('-');
                let (at, rest) = block.split_once('\n')?;
                let (direction, rest) = rest.split_once('\n')?;
                Some(Message {
                    at: at.trim().parse().ok()?,
                    sent: direction.contains("sent"),
                    text: rest.trim_start().to_owned(),
                })
            });
        Self(messages.collect())
    }

    /// Each call's messages, by Call-ID.
    pub fn calls(&self) -> BTreeMap<String, Self> {
        let mut calls: BTreeMap<String, Self> = BTreeMap::new();
        for message in &self.0 {
            let call = message.header("Call-ID").unwrap_or_default();
            calls.entry(call.to_owned()).or_default().0.push(message.clone());
        }
        calls
    }

    pub fn find(&self, test: impl Fn(&Message) -> bool) -> Option<&Message> {
        self.0.iter().find(|message| test(message))
    }

    /// When the first message came that passes the test.
    #[track_caller]
    pub fn when(&self, what: &str, test: impl Fn(&Message) -> bool) -> DateTime<Utc> {
        self.find(test).unwrap_or_else(|| panic!("{what}: not in {:#?}", self.0)).at
    }

    pub fn count(&self, test: impl Fn(&Message) -> bool) -> usize {
        self.0.iter().filter(|message| test(message)).count()
    }

    /// How many calls were under way at once at most, as this callee saw it:
    /// from the INVITE until it is refused, cancelled or hung up.
    pub fn most_at_once(&self) -> usize {
        let mut under_way = std::collections::BTreeSet::new();
        let mut most = 0;
        for message in &self.0 {
            let call = message.header("Call-ID").unwrap_or_default();
            let refused = message.final_status().is_some_and(|status| status >= 300);
            if message.is_request("CANCEL") || message.is_request("BYE") || refused {
                under_way.remove(call);
            } else if message.is_request("INVITE") {
                under_way.insert(call);
                most = most.max(under_way.len());
            }
        }
        most
    }
}
