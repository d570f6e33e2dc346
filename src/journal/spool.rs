//! Records on disk until the database has them.
//!
//! The spool is a row of files. Each frame is appended to the newest; the newest
//! frame of a call counts. When a file has its size, the next one is begun. A file
//! in which nothing is needed any more is deleted, and what little is still needed
//! of one is appended once more first. A frame that takes the place of another is
//! on disk before that other is deleted, so that no step can lose a record,
//! wherever it fails. No append waits for any of this, nor for a disk.
//!
//! Memory holds where each record is, the records of live calls, and the first
//! few that wait for the database; the others are read again when it is their turn.
//! A record that can't be written to disk stays in memory and is tried again.
//!
//! What the database has is needed no more, but an older frame of its call may
//! stay behind: where the disk was full, the last one was never written, and a
//! file can be deleted before an older one, of which something else is needed.
//! So a call that is found unfinished may be over: the database is asked.

mod catalogue;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::error;

use self::catalogue::{Care, Catalogue, Place};
use super::folder::Folder;
use super::frame;
use crate::call::CallRecord;
use crate::clock::{self, Timestamp};
use crate::ids::CallId;
use crate::telemetry::call_span;

pub struct Spool {
    folder: Folder,
    limits: Limits,
    catalogue: Mutex<Catalogue>,
}

/// How much of everything there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All files together; what is being put in order may go a file beyond it.
    pub most_bytes: u64,
    /// One file, after which the next is begun.
    pub file_bytes: u64,
    /// Final records that stay in memory while they wait for the database.
    pub kept_records: usize,
    /// Records that are in memory alone, because they can't be written to disk.
    pub unwritten_records: usize,
}

/// What an earlier run left.
pub struct Found {
    /// Calls of which no end is there, in the order in which they began.
    pub unfinished: Vec<CallRecord>,
    /// Calls with one, in the same order.
    pub finished: Vec<CallId>,
    /// When that run last noted that it runs.
    pub last_alive: Option<Timestamp>,
    /// Files in which more was wrong than a torn tail.
    pub damaged_files: u64,
}

/// What the monitoring is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Records that the database doesn't have yet.
    pub records: usize,
    pub bytes: u64,
    /// Records can't be written to disk at the moment, or don't get there in time.
    pub is_failing: bool,
}

impl Limits {
    pub const fn most_mb(most_mb: u64) -> Self {
        Self {
            most_bytes: most_mb << 20,
            file_bytes: 16 << 20,
            kept_records: 10_000,
            unwritten_records: 50_000,
        }
    }
}

// === impl Spool ===

impl Spool {
    /// Opens the folder, and says what was found there.
    ///
    /// # Errors
    /// When it can't be used. That it is full is no error: see [`Figures::is_failing`].
    pub fn open(directory: &Path, limits: Limits) -> io::Result<(Self, Found)> {
        let folder = Folder::open(directory)?;
        let mut catalogue = Catalogue::default();
        let mut damaged_files = 0;
        let numbers = folder.numbers()?;
        for number in &numbers {
            let segment = catalogue.read(&folder, *number, &limits)?;
            damaged_files += u64::from(segment.care != Care::Ordinary);
            catalogue.files.insert(*number, segment);
        }
        catalogue.last_number = numbers.last().copied().unwrap_or(0);
        // Each was counted where it was found: only now it is known where the newest are.
        catalogue.count_needed_bytes();
        let mut found = Found {
            unfinished: Vec::new(),
            finished: Vec::new(),
            last_alive: numbers.last().and_then(|number| folder.modified_at(*number)),
            damaged_files,
        };
        for (call, entry) in &catalogue.needed {
            match &entry.record {
                Some(record) if !entry.is_final => found.unfinished.push((**record).clone()),
                _ => found.finished.push(*call),
            }
        }
        if let Err(cause) = catalogue.begin(&folder) {
            let is_full =
                matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if !is_full {
                return Err(cause);
            }
            catalogue.fails(&cause);
        }
        // Until it has something to write, this run has heard of no call.
        if let (Some(file), Some(alive)) = (catalogue.newest(), found.last_alive) {
            file.set_modified(alive.into())?;
        }
        Ok((Self { folder, limits, catalogue: Mutex::new(catalogue) }, found))
    }

    /// Puts the record into the page cache: it survives the process from here on.
    /// Where that can't be done, it stays in memory, and is tried again by [`Spool::sync`].
    pub fn append(&self, record: &Arc<CallRecord>) {
        let frame = frame::encode(record);
        let mut catalogue = self.catalogue.lock();
        catalogue.take_in(record);
        catalogue.has_heard = true;
        let most = self.limits.most_bytes;
        match frame.and_then(|frame| catalogue.put(&self.folder, &self.limits, &frame, most)) {
            Ok(place) => catalogue.is_at(record.call, place, &self.limits),
            Err(cause) => catalogue.fails(&cause),
        }
    }

    /// The database has this call's record.
    pub fn forget(&self, call: CallId) {
        self.catalogue.lock().forget(call);
    }

    /// The newest state of a call that the database doesn't have yet; none if it has
    /// it, or the record is damaged.
    ///
    /// # Errors
    /// When its file can't be read now: the record waits there.
    pub fn read(&self, call: CallId) -> io::Result<Option<Arc<CallRecord>>> {
        let (record, place) = self.look_up(call);
        let (None, Some(mut place)) = (&record, place) else { return Ok(record) };
        let mut found = self.read_frame(call, place);
        // It may just have been taken to another file.
        if !matches!(found, Ok(Some(_)))
            && let (_, Some(now)) = self.look_up(call)
            && now.number != place.number
        {
            place = now;
            found = self.read_frame(call, place);
        }
        self.catalogue.lock().note_reading(&self.folder, place.number, found.as_ref().err());
        let found = found?;
        if found.is_none() {
            self.leave(call, place.number);
        }
        Ok(found.map(|(_, record)| Arc::new(record)))
    }

    /// What is in memory of a call's newest state, and where it is on disk.
    fn look_up(&self, call: CallId) -> (Option<Arc<CallRecord>>, Option<Place>) {
        let catalogue = self.catalogue.lock();
        let entry = catalogue.needed.get(&call);
        entry.map_or((None, None), |entry| (entry.record.clone(), entry.place))
    }

    /// The frame at this place, with what is in it; none if it isn't sound and this call's.
    fn read_frame(&self, call: CallId, place: Place) -> io::Result<Option<(Vec<u8>, CallRecord)>> {
        let frame = self.folder.read(place.number, place.at, place.bytes)?;
        let record = frame::decode(&frame).filter(|record| record.call == call);
        Ok(record.map(|record| (frame, record)))
    }

    /// A record of this file can't be read: nothing of the file is deleted.
    fn leave(&self, call: CallId, number: u64) {
        let file = self.folder.file_path(number);
        call_span(call).in_scope(|| {
            error!(file = %file.display(), "a record can't be read from the journal; its file is kept");
        });
        if let Some(segment) = self.catalogue.lock().files.get_mut(&number) {
            segment.care = Care::Untouched;
        }
    }

    pub fn figures(&self) -> Figures {
        let catalogue = self.catalogue.lock();
        Figures {
            records: catalogue.needed.len(),
            bytes: catalogue.bytes(),
            is_failing: catalogue.is_failing,
        }
    }

    /// How long the oldest of what was appended has been on its way to the disk.
    pub fn unsynced_for(&self) -> Duration {
        let since = self.catalogue.lock().unsynced_since();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    #[cfg(test)]
    pub const fn faults(&self) -> &super::folder::faults::Faults {
        &self.folder.faults
    }

    /// Whether a further call's record would have a place, on disk or in memory.
    pub fn has_room(&self) -> bool {
        self.catalogue.lock().unwritten.len() < self.limits.unwritten_records
    }

    /// Whether there is something for [`Spool::sync`] to do.
    pub fn has_work(&self) -> bool {
        let catalogue = self.catalogue.lock();
        catalogue.is_failing
            || !catalogue.unwritten.is_empty()
            || catalogue.has_new_names
            || catalogue.files.values().any(|segment| segment.synced_bytes < segment.bytes)
            || !catalogue.done_with().is_empty()
            || catalogue.hardly_needed(&self.limits).is_some()
    }

    /// Brings what was appended to the disk, and puts the files in order.
    ///
    /// # Errors
    /// When the disk doesn't take it; what it didn't take is appended again.
    pub fn sync(&self) -> io::Result<()> {
        // Each of these is done whatever becomes of the others: the last makes room for the first.
        let written = self.write_again();
        let tidied = self.tidy();
        let done_with = self.catalogue.lock().done_with();
        let removed = self.sync_files().and_then(|()| self.remove(&done_with));
        let result = written.and(tidied).and(removed);
        let mut catalogue = self.catalogue.lock();
        match &result {
            Ok(()) => catalogue.may_recover(&self.folder, &self.limits),
            Err(cause) => catalogue.fails(cause),
        }
        result
    }

    /// Notes that the service runs, as long as calls depend on it.
    pub fn note_alive(&self) -> io::Result<()> {
        let catalogue = self.catalogue.lock();
        match catalogue.newest() {
            Some(file) if catalogue.has_heard && !catalogue.needed.is_empty() => {
                file.set_modified(clock::system_now())
            }
            _ => Ok(()),
        }
    }

    /// Appends what couldn't be appended before.
    fn write_again(&self) -> io::Result<()> {
        let waiting: Vec<CallId> = self.catalogue.lock().unwritten.iter().copied().collect();
        for call in waiting {
            let mut catalogue = self.catalogue.lock();
            let Some(record) = catalogue.needed.get(&call).and_then(|entry| entry.record.clone())
            else {
                continue;
            };
            // One that can't be expressed holds no other up.
            let Ok(frame) = frame::encode(&record) else { continue };
            let place =
                catalogue.put(&self.folder, &self.limits, &frame, self.limits.most_bytes)?;
            catalogue.is_at(call, place, &self.limits);
        }
        Ok(())
    }

    /// Takes what is needed of a file that is hardly needed elsewhere.
    fn tidy(&self) -> io::Result<()> {
        let (number, calls) = {
            let catalogue = self.catalogue.lock();
            let Some(number) = catalogue.hardly_needed(&self.limits) else { return Ok(()) };
            (number, catalogue.calls_in(number))
        };
        for call in calls {
            let Some(place) = self.catalogue.lock().place_in(call, number) else { continue };
            // Whatever is wrong with the file: nothing is lost by leaving it as it is.
            let Ok(Some((frame, _))) = self.read_frame(call, place) else {
                self.leave(call, number);
                return Ok(());
            };
            let mut catalogue = self.catalogue.lock();
            // The database may have it by now, and there may be something newer.
            let is_newest = !catalogue.unwritten.contains(&call);
            if is_newest && catalogue.place_in(call, number).is_some_and(|now| now.at == place.at) {
                let place = catalogue.put(&self.folder, &self.limits, &frame, u64::MAX)?;
                catalogue.is_at(call, place, &self.limits);
            }
        }
        Ok(())
    }

    fn sync_files(&self) -> io::Result<()> {
        let (files, has_new_names) = {
            let mut catalogue = self.catalogue.lock();
            catalogue.sync_begins();
            (catalogue.unsynced(), std::mem::take(&mut catalogue.has_new_names))
        };
        if has_new_names && let Err(cause) = self.folder.sync_names() {
            self.catalogue.lock().has_new_names = true;
            return Err(cause);
        }
        for (number, file, bytes) in files {
            let synced = self.folder.sync(&file);
            let mut catalogue = self.catalogue.lock();
            match synced {
                Ok(()) => catalogue.is_synced(number, bytes),
                Err(cause) => {
                    // Nobody knows what became of the pages: they may count as written now.
                    catalogue.is_doubtful(number);
                    return Err(cause);
                }
            }
        }
        self.catalogue.lock().sync_is_done();
        Ok(())
    }

    fn remove(&self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            match self.folder.remove(*number) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.catalogue.lock().files.remove(number);
        }
        Ok(())
    }
}
