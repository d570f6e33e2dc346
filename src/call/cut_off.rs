//! What is left of a call whose leader is no more, because of a defect of ours.

use std::time::Duration;

use tracing::warn;

use super::driver::Parts;
use super::outcome::{Outcome, cause};
use super::record::{CallRecord, End};
use crate::ari::{ChannelId, LegId};
use crate::clock::{self, Timestamp};
use crate::ids::CallId;

/// Longer than Asterisk may hang.
const TRIES: u32 = 240;
const PAUSE: Duration = Duration::from_millis(500);

/// Ends a call that nobody leads any more. What it holds is free once its legs are gone.
pub async fn cut_off(parts: &Parts, arrived: CallRecord) {
    let (call, caller) = (arrived.call, ChannelId(arrived.channel.clone()));
    let (cut_at, mut last_up) = (clock::now(), None);
    let record = parts.journal.read(&[call]).next().map_or(arrived, |known| (*known).clone());
    // Whoever goes on with it, should this run end meanwhile, has to know.
    if record.end.is_none() {
        let ending = Some(
            record.ending.unwrap_or_else(|| cut(&record, record.unseen_since.unwrap_or(cut_at))),
        );
        parts.journal.save(CallRecord { ending, ..record.clone() });
    }
    for _ in 0..TRIES {
        let asked = clock::now();
        match take_down_legs(parts, call, &caller).await {
            Some(0) => break,
            // A talk has two.
            Some(2..) => last_up = Some(asked),
            Some(1) | None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    if let Some(sold) = record.answered_attempt() {
        parts.keeper.settle(sold.hold(call)).await;
    }
    parts.keeper.abandon(call);
    parts.live.remove(call);
    let at = last_up.or(record.unseen_since).unwrap_or(cut_at);
    let end = Some(record.end.or(record.ending).unwrap_or_else(|| cut(&record, at)));
    let over = CallRecord { unseen_since: None, ending: None, end, ..record };
    // Whoever led it would have counted it at its very end.
    parts.metrics.call_ended(&over);
    parts.journal.save(over);
}

/// The end of a call that was cut off then.
fn cut(record: &CallRecord, at: Timestamp) -> End {
    let outcome = match record.answered_at {
        Some(_) => Outcome::INTERRUPTED_TALK,
        None => Outcome::SYSTEM_ERROR,
    };
    End { at: at.max(record.last_seen()), outcome, cause: cause::FAILURE }
}

/// Hangs up what is left of the call on the switch, and tells how many legs that were,
/// if that is known.
async fn take_down_legs(parts: &Parts, call: CallId, caller: &ChannelId) -> Option<usize> {
    let channels = parts.switch.channels().await.ok()?;
    let is_its = |id: &ChannelId| {
        id == caller || LegId::parse(id.as_str()).is_some_and(|leg| leg.call == call)
    };
    let mut legs = 0;
    for channel in channels.into_iter().filter(|channel| is_its(&channel.id)) {
        legs += 1;
        if let Err(error) = parts.switch.hang_up(channel.id.as_str(), cause::FAILURE).await {
            warn!(channel.id = %channel.id, %error, "could not hang up");
        }
    }
    Some(legs)
}
