//! What happens to the calls, read from the API: the live calls several times a
//! second, and the record of each call once it is over.
//!
//! What lasts less than a look is not seen live; the record tells it.

use std::collections::HashMap;

use super::answers::{CallLog, ListedLog, LiveCall, Page};
use super::sample::is_ours;
use super::session::{ApiError, Session};
use super::sipp::call_of;
use crate::clock::Timestamp;
use crate::ids::{CallId, LinkId};
use crate::live::LiveState;

/// Something that happened to a call.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Timestamp,
    /// The call's number in this demo; none for somebody else's call.
    pub call: Option<u32>,
    pub dialled: String,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A client rings; `before` is the one that was seen ringing before it.
    Rings {
        client: String,
        before: Option<String>,
    },
    Talks {
        client: String,
    },
    Ended(Box<CallLog>),
}

/// The most calls seen at once, per link.
pub type Peaks = HashMap<LinkId, u32>;

/// Turns what the API answers into events.
pub struct Watcher {
    /// What was last seen of each live call.
    seen: HashMap<CallId, LiveCall>,
    /// The newest record that is known.
    newest: i64,
    logs: Vec<CallLog>,
    talking: Peaks,
    looks: u32,
}

// === impl Watcher ===

impl Watcher {
    /// Begins after the seller's newest record.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn begin(seller: &Session) -> Result<Self, ApiError> {
        let page: Page<ListedLog> = seller.get("/api/seller/logs?per_page=1").await?;
        let newest = page.items.first().map_or(0, |log| log.id);
        Ok(Self { seen: HashMap::new(), newest, logs: Vec::new(), talking: Peaks::new(), looks: 0 })
    }

    /// Looks once; what happened since the last look.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn look(
        &mut self,
        admin: &Session,
        seller: &Session,
    ) -> Result<Vec<Event>, ApiError> {
        let live: Page<LiveCall> = admin.get("/api/admin/live?per_page=200").await?;
        let mut events = self.note_live(live.items);
        let listed: Page<ListedLog> = seller.get("/api/seller/logs?per_page=100").await?;
        let new = listed.items.iter().map(|log| log.id).filter(|id| *id > self.newest);
        let mut new: Vec<i64> = new.collect();
        new.sort_unstable();
        for id in new {
            let log: CallLog = seller.get(&format!("/api/seller/logs/{id}")).await?;
            self.newest = id;
            events.push(Event {
                at: log.timestamp_end,
                call: log.caller_id_num.as_deref().and_then(call_of),
                dialled: log.incoming_did_number.clone(),
                what: What::Ended(Box::new(log.clone())),
            });
            self.logs.push(log);
        }
        Ok(events)
    }

    /// Whether nothing was seen of any call.
    pub fn is_silent(&self) -> bool {
        self.seen.is_empty() && self.logs.is_empty()
    }

    /// How many records there are of the demo's own calls.
    pub fn recorded(&self) -> u32 {
        let callers = self.logs.iter().filter_map(|log| log.caller_id_num.as_deref());
        u32::try_from(callers.filter_map(call_of).count()).unwrap_or(u32::MAX)
    }

    /// The records, the most calls seen talking per link, and how often it looked.
    pub fn into_seen(self) -> (Vec<CallLog>, Peaks, u32) {
        (self.logs, self.talking, self.looks)
    }

    fn note_live(&mut self, calls: Vec<LiveCall>) -> Vec<Event> {
        self.looks += 1;
        self.note_peaks(&calls);
        let ours = calls.into_iter().filter(|call| is_ours(&call.incoming_did_number));
        ours.filter_map(|call| self.note_call(call)).collect()
    }

    fn note_peaks(&mut self, calls: &[LiveCall]) {
        let mut talking = Peaks::new();
        for call in calls.iter().filter(|call| call.state == LiveState::Talking) {
            if let Some(client) = &call.client {
                *talking.entry(client.campaign_client_setting_id).or_default() += 1;
            }
        }
        for (link, count) in talking {
            let peak = self.talking.entry(link).or_default();
            *peak = count.max(*peak);
        }
    }

    fn note_call(&mut self, call: LiveCall) -> Option<Event> {
        let client = call.client.as_ref()?.name.clone();
        let before = self.seen.insert(call.call_id, call.clone());
        let seen = before.as_ref().map(|seen| (seen.state, seen.attempts));
        if seen == Some((call.state, call.attempts)) {
            return None;
        }
        let what = match call.state {
            LiveState::Ringing => {
                What::Rings { client, before: before.and_then(|seen| Some(seen.client?.name)) }
            }
            LiveState::Talking => What::Talks { client },
            LiveState::Routing | LiveState::Ending => return None,
        };
        Some(Event {
            at: call.since,
            call: call.caller_id_num.as_deref().and_then(call_of),
            dialled: call.incoming_did_number,
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(state: &str, client: &str, attempts: u32) -> Vec<LiveCall> {
        let call = json!({
            "callId": "019ab000-0000-7000-8000-000000000001", "state": state,
            "since": "2026-11-22T18:42:32.246Z", "incomingDidNumber": "+15550100101",
            "callerIdNum": "+15550200007", "attempts": attempts,
            "client": { "name": client, "campaignClientSettingId": 4 },
        });
        vec![serde_json::from_value(call).unwrap()]
    }

    #[test]
    fn each_step_of_a_call_is_told_once() {
        let mut watcher = Watcher {
            seen: HashMap::new(),
            newest: 0,
            logs: Vec::new(),
            talking: Peaks::new(),
            looks: 0,
        };
        let mut told = Vec::new();
        for (state, client, attempts) in [
            ("ringing", "Delta", 1),
            ("ringing", "Delta", 1),
            ("ringing", "Alpha", 2),
            ("talking", "Alpha", 2),
            ("talking", "Alpha", 2),
            ("ending", "Alpha", 2),
        ] {
            told.extend(watcher.note_live(call(state, client, attempts)));
        }
        assert!(matches!(&told[0].what, What::Rings { client, before: None } if client == "Delta"));
        assert!(
            matches!(&told[1].what, What::Rings { before: Some(before), .. } if before == "Delta")
        );
        assert!(matches!(&told[2].what, What::Talks { client } if client == "Alpha"));
        assert_eq!((told.len(), told[0].call), (3, Some(7)));
        assert_eq!(watcher.talking[&LinkId(4)], 1);
    }
}
