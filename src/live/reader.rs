//! Following the changes of live calls.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Change, Live, LiveCall};

/// Someone who follows: a place in the ring of recent changes.
#[derive(Debug)]
pub struct Reader {
    live: Arc<Live>,
    /// The number of the newest change that was taken.
    seen: u64,
    bell: watch::Receiver<u64>,
}

/// How far someone has followed, in words that outlive the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    run: u64,
    seen: u64,
}

/// Changes were missed that aren't remembered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten;

impl Reader {
    /// Somebody who has to [start anew](Self::start_anew) first.
    pub fn new(live: Arc<Live>) -> Self {
        Self { seen: 0, bell: live.newest.subscribe(), live }
    }

    /// Goes on where someone stopped; none if what was missed is forgotten, or
    /// the position is one of another run.
    pub fn from_position(live: &Arc<Live>, position: Position) -> Option<Self> {
        let reader =
            Self { live: live.clone(), seen: position.seen, bell: live.newest.subscribe() };
        let newest = live.state.read().newest;
        let is_known = position.run == live.run && position.seen <= newest;
        (is_known && reader.look(1).is_ok()).then_some(reader)
    }

    /// Every live call, oldest first; what follows is what comes after.
    pub fn start_anew(&mut self) -> Vec<Arc<LiveCall>> {
        let state = self.live.state.read();
        self.seen = state.newest;
        let mut calls: Vec<_> = state.calls.values().cloned().collect();
        drop(state);
        calls.sort_by_key(|call| call.call);
        calls
    }

    /// The next changes in order, `most` at most; none if there are none yet.
    ///
    /// # Errors
    /// When the next change is forgotten: start anew.
    pub fn take(&mut self, most: usize) -> Result<Vec<Arc<Change>>, Forgotten> {
        let changes = self.look(most)?;
        if let Some(last) = changes.last() {
            self.seen = last.number;
        }
        Ok(changes)
    }

    /// Waits until there is something to take.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        // It can't be closed: this holds what it belongs to.
        let _ = self.bell.wait_for(|newest| *newest > seen).await;
    }

    /// How far this has come.
    pub fn position(&self) -> Position {
        self.position_of(self.seen)
    }

    /// Where one stands who has seen the change of this number.
    pub fn position_of(&self, number: u64) -> Position {
        Position { run: self.live.run, seen: number }
    }

    fn look(&self, most: usize) -> Result<Vec<Arc<Change>>, Forgotten> {
        let state = self.live.state.read();
        // Numbers have no gaps, so the oldest says where each of them is.
        let oldest = state.newest + 1 - state.recent.len() as u64;
        let skipped = (self.seen + 1).checked_sub(oldest).ok_or(Forgotten)?;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        Ok(state.recent.iter().skip(skipped).take(most).cloned().collect())
    }
}

impl Position {
    pub fn parse(text: &str) -> Option<Self> {
        let (run, seen) = text.split_once('-')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, seen: seen.parse().ok()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_now(live: Arc<Live>) -> (Vec<Arc<LiveCall>>, Reader) {
        let mut reader = Reader::new(live);
        (reader.start_anew(), reader)
    }
    use crate::clock;
    use crate::ids::CallId;
    use crate::live::{LiveState, REMEMBERED};

    fn call(id: CallId, state: LiveState) -> LiveCall {
        LiveCall {
            call: id,
            state,
            since: clock::now(),
            started_at: clock::now(),
            dialled: "+442071838750".to_owned(),
            caller_number: None,
            seller: None,
            did: None,
            campaign: None,
            client: None,
            attempts: 0,
        }
    }

    fn numbers(changes: &[Arc<Change>]) -> Vec<u64> {
        changes.iter().map(|change| change.number).collect()
    }

    #[test]
    fn a_reader_sees_each_change_once_and_in_order() {
        let live = Arc::new(Live::new(7));
        let id = clock::new_call_id();
        live.put(call(id, LiveState::Routing));
        let (snapshot, mut reader) = from_now(live.clone());
        assert_eq!(snapshot.len(), 1);
        live.put(call(id, LiveState::Ringing));
        live.remove(id);
        live.remove(id);
        let changes = reader.take(10).unwrap();
        assert_eq!(numbers(&changes), [2, 3]);
        assert_eq!(changes[0].before.as_ref().unwrap().state, LiveState::Routing);
        assert!(changes[1].after.is_none());
        assert_eq!(reader.take(10).unwrap().len(), 0);
    }

    #[test]
    fn who_comes_back_goes_on_where_they_stopped() {
        let live = Arc::new(Live::new(7));
        let (_, mut reader) = from_now(live.clone());
        for _ in 0..5 {
            live.put(call(clock::new_call_id(), LiveState::Routing));
        }
        reader.take(2).unwrap();
        let words = reader.position().to_string();
        let position = Position::parse(&words).unwrap();
        let mut again = Reader::from_position(&live, position).unwrap();
        assert_eq!(numbers(&again.take(10).unwrap()), [3, 4, 5]);
        assert_eq!(again.take(10).unwrap().len(), 0);
    }

    #[test]
    fn positions_of_another_run_and_of_the_future_are_refused() {
        let live = Arc::new(Live::new(7));
        live.put(call(clock::new_call_id(), LiveState::Routing));
        for (run, seen, is_known) in [(7, 0, true), (7, 1, true), (7, 2, false), (8, 1, false)] {
            let found = Reader::from_position(&live, Position { run, seen });
            assert_eq!(found.is_some(), is_known, "{run}-{seen}");
        }
        let most = Position { run: 7, seen: u64::MAX };
        assert!(Reader::from_position(&live, most).is_none());
        for nonsense in ["", "-", "7", "7-x", "g-1", "7-1-2"] {
            assert_eq!(Position::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_too_old_is_forgotten_and_memory_stays_bounded() {
        let live = Arc::new(Live::new(7));
        let (_, mut slow) = from_now(live.clone());
        let id = clock::new_call_id();
        for _ in 0..REMEMBERED {
            live.put(call(id, LiveState::Routing));
        }
        let position = slow.position();
        assert!(Reader::from_position(&live, position).is_some(), "all of it is remembered");
        live.put(call(id, LiveState::Ringing));
        assert_eq!(slow.take(1).unwrap_err(), Forgotten);
        assert!(Reader::from_position(&live, position).is_none());
        assert_eq!(live.state.read().recent.len(), REMEMBERED);
        assert_eq!(slow.start_anew().len(), 1);
        assert_eq!(slow.take(1).unwrap().len(), 0);
    }
}
