//! One who follows live calls, from the first event to the last.
//!
//! What is waiting to be sent is one batch of changes at most: a reader that
//! takes nothing is not asked for more, and its place in the ring of changes
//! gets old.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use poem::web::sse::Event;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use tokio::time::Instant;
use tracing::debug;

use super::Wanted;
use super::events::{LiveEvent, LiveEvents, changed};
use super::streams::Place;
use crate::api::access::{Caller, Kind};
use crate::api::callers::Callers;
use crate::api::input::Asked;
use crate::api::input::query::Parameter;
use crate::api::problem::{FieldErrors, Problem};
use crate::clock;
use crate::live::{Change, LiveCall, Position, Reader};

/// Where a reader stopped; none if what was sent isn't an id of ours.
pub struct LastEventId(Option<Position>);

struct Follower<K> {
    caller: Caller<K>,
    wanted: Wanted,
    reader: Reader,
    /// A snapshot comes next.
    starts_anew: bool,
    /// To be sent, in order.
    waiting: VecDeque<Event>,
    /// When the reader's right to read is looked at again.
    next_check: Instant,
    _place: Place,
}

/// Changes that are taken at once.
const BATCH: usize = 64;
/// After how many milliseconds a browser comes back that lost the connection.
const RETRY_MS: u64 = 1_000;

/// Begins to follow.
///
/// # Errors
/// When too many streams are open.
pub fn open<K: Kind>(
    caller: Caller<K>,
    wanted: Wanted,
    last_event_id: Asked<LastEventId>,
) -> Result<LiveEvents, Problem> {
    let place = Place::take(&caller.backend, caller.user.id)?;
    let live = &caller.backend.live;
    let position = last_event_id.or_complain("Last-Event-ID", &mut FieldErrors::default());
    let resumed = position
        .and_then(|LastEventId(position)| position)
        .and_then(|position| Reader::from_position(live, position));
    let starts_anew = resumed.is_none();
    let reader = resumed.unwrap_or_else(|| Reader::new(live.clone()));
    let next_check = Instant::now() + caller.backend.streams.settings.heartbeat;
    let waiting = VecDeque::from([Event::retry(RETRY_MS)]);
    let follower =
        Follower { caller, wanted, reader, starts_anew, waiting, next_check, _place: place };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((event, follower))
    });
    Ok(LiveEvents::new(Box::pin(events)))
}

impl<K: Kind> Follower<K> {
    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        let stop = self.caller.backend.streams.stop.clone();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            // First of all: who may not read any more gets nothing more.
            if Instant::now() >= self.next_check {
                self.check().await?;
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.starts_anew {
                tokio::select! {
                    told = self.tell_all() => told?,
                    () = stop.cancelled() => return None,
                }
                continue;
            }
            match self.reader.take(BATCH) {
                Err(_) => self.resync(),
                Ok(changes) if changes.is_empty() => tokio::select! {
                    () = self.reader.changed() => {}
                    () = tokio::time::sleep_until(self.next_check) => {}
                    () = stop.cancelled() => {}
                },
                Ok(changes) => {
                    for change in changes {
                        self.waiting.extend(self.told(&change));
                    }
                }
            }
        }
    }

    /// Whether the reader may still read, and a sign of life; none if it may not.
    async fn check(&mut self) -> Option<()> {
        match self.caller.is_still_admitted().await {
            Ok(true) => {}
            Ok(false) => return None,
            // Whoever was let in stays as long as nobody can say otherwise:
            // calls go on without the database, and so does looking at them.
            Err(error) => debug!(%error, "who follows live calls could not be checked"),
        }
        self.next_check = Instant::now() + self.caller.backend.streams.settings.heartbeat;
        let event = LiveEvent::heartbeat(clock::now()).event();
        self.waiting.push_back(event.id(self.reader.position().to_string()));
        Some(())
    }

    fn callers(&self) -> Callers {
        Callers::shown_to(self.caller.user.role)
    }

    fn resync(&mut self) {
        self.waiting.push_back(LiveEvent::resync(clock::now()).event());
        self.starts_anew = true;
    }

    /// Tells of every call; none where that failed, and the reader has to come back.
    async fn tell_all(&mut self) -> Option<()> {
        let backend = self.caller.backend.clone();
        // It is never closed.
        let _turn = backend.streams.snapshots.acquire().await;
        let (wanted, callers) = (self.wanted, self.callers());
        let mut calls = self.reader.start_anew();
        let written = tokio::task::spawn_blocking(move || {
            calls.retain(|call| wanted.admits(call));
            LiveEvent::snapshot(&calls, callers).event()
        });
        let event = written.await.ok()?;
        self.waiting.push_back(event.id(self.reader.position().to_string()));
        self.starts_anew = false;
        Some(())
    }

    /// What this reader is told of a change.
    fn told(&self, change: &Change) -> Option<Event> {
        let admitted = |call: &&Arc<LiveCall>| self.wanted.admits(call);
        let event = match change.after.as_ref().filter(admitted) {
            Some(call) => changed(change, call, self.callers()),
            None => {
                change.before.as_ref().filter(admitted)?;
                LiveEvent::gone(change.call).event()
            }
        };
        Some(event.id(self.reader.position_of(change.number).to_string()))
    }
}

impl Parameter for LastEventId {
    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("The id of the last event that was read, to go on after it."),
            ..MetaSchema::new("string")
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // Whatever isn't an id of ours is one of another service's run: begin anew.
        Ok(Self(Position::parse(text)))
    }
}
