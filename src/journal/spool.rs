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

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::folder::Folder;
use super::frame::{self, Next, Reader};
use crate::call::CallRecord;
use crate::clock::{self, Timestamp};
use crate::ids::CallId;
use crate::telemetry::call_span;

pub struct Spool {
    folder: Folder,
    limits: Limits,
    inner: Mutex<Inner>,
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
    /// Calls without an end, in the order in which they began.
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
    /// Records can't be written to disk at the moment.
    pub is_failing: bool,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, Segment>,
    /// The file that is appended to; none when one couldn't be begun.
    newest: Option<u64>,
    last_number: u64,
    has_new_names: bool,
    /// Records that the database doesn't have yet.
    needed: BTreeMap<CallId, Entry>,
    /// Those whose newest state is on no disk.
    unwritten: BTreeSet<CallId>,
    /// Final ones among them that are in memory.
    kept: usize,
    is_failing: bool,
}

struct Segment {
    bytes: u64,
    needed_bytes: u64,
    synced_bytes: u64,
    /// Open while it is appended to, and until that is synced.
    file: Option<Arc<File>>,
    care: Care,
}

/// How a file is dealt with once nothing is appended to it any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    Ordinary,
    /// What is needed of it is soon taken elsewhere.
    Damaged,
    /// The same, and nothing is deleted before: a sync of it failed.
    Doubtful,
    /// It couldn't be read or set aside: it is left for the next start.
    Untouched,
}

#[derive(Default)]
struct Entry {
    record: Option<Arc<CallRecord>>,
    /// Where the newest state is on disk.
    place: Option<Place>,
    is_final: bool,
}

#[derive(Clone, Copy)]
struct Place {
    number: u64,
    at: u64,
    bytes: u32,
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
        let mut inner = Inner::default();
        let mut damaged_files = 0;
        let numbers = folder.numbers()?;
        for number in &numbers {
            let segment = inner.read(&folder, *number, &limits)?;
            damaged_files += u64::from(segment.care != Care::Ordinary);
            inner.files.insert(*number, segment);
        }
        let last = numbers.last().copied();
        inner.last_number = last.unwrap_or(0);
        // Each was counted where it was found: only now it is known where the newest are.
        inner.count_needed_bytes();
        let mut found = Found {
            unfinished: Vec::new(),
            finished: Vec::new(),
            last_alive: last.and_then(|last| folder.modified_at(last)),
            damaged_files,
        };
        for (call, entry) in &inner.needed {
            match &entry.record {
                Some(record) if !entry.is_final => found.unfinished.push((**record).clone()),
                _ => found.finished.push(*call),
            }
        }
        if let Err(cause) = inner.begin(&folder) {
            let is_full =
                matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if !is_full {
                return Err(cause);
            }
            inner.fails(&cause);
        }
        Ok((Self { folder, limits, inner: Mutex::new(inner) }, found))
    }

    /// Puts the record into the page cache: it survives the process from here on.
    /// Where that can't be done, it stays in memory, and is tried again by [`Spool::sync`].
    pub fn append(&self, record: &Arc<CallRecord>) {
        let frame = frame::encode(record);
        let mut inner = self.inner.lock();
        inner.take_in(record);
        let most = self.limits.most_bytes;
        match frame.and_then(|frame| inner.put(&self.folder, &self.limits, &frame, most)) {
            Ok(place) => inner.is_at(record.call, place, &self.limits),
            Err(cause) => inner.fails(&cause),
        }
    }

    /// The database has this call's record.
    pub fn forget(&self, call: CallId) {
        self.inner.lock().forget(call);
    }

    /// The newest state of a call that the database doesn't have yet.
    pub fn read(&self, call: CallId) -> Option<Arc<CallRecord>> {
        let place = {
            let inner = self.inner.lock();
            let entry = inner.needed.get(&call)?;
            if let Some(record) = &entry.record {
                return Some(record.clone());
            }
            entry.place?
        };
        let found = self.read_frame(call, place).or_else(|| {
            // It may just have been taken to another file.
            let now = self.inner.lock().needed.get(&call)?.place?;
            (now.number != place.number).then(|| self.read_frame(call, now))?
        });
        if found.is_none() {
            self.leave(call, place.number);
        }
        found.map(|(_, record)| Arc::new(record))
    }

    /// The frame at this place, if it is sound and this call's, with what is in it.
    fn read_frame(&self, call: CallId, place: Place) -> Option<(Vec<u8>, CallRecord)> {
        let frame = self.folder.read(place.number, place.at, place.bytes).ok()?;
        let record = frame::decode(&frame).filter(|record| record.call == call)?;
        Some((frame, record))
    }

    /// A record of this file can't be read: nothing of the file is deleted.
    fn leave(&self, call: CallId, number: u64) {
        let file = self.folder.file_path(number);
        call_span(call).in_scope(|| {
            error!(file = %file.display(), "a record can't be read from the journal; its file is kept");
        });
        if let Some(segment) = self.inner.lock().files.get_mut(&number) {
            segment.care = Care::Untouched;
        }
    }

    pub fn figures(&self) -> Figures {
        let inner = self.inner.lock();
        Figures { records: inner.needed.len(), bytes: inner.bytes(), is_failing: inner.is_failing }
    }

    /// Whether a further call's record would have a place, on disk or in memory.
    pub fn has_room(&self) -> bool {
        self.inner.lock().unwritten.len() < self.limits.unwritten_records
    }

    /// Whether there is something for [`Spool::sync`] to do.
    pub fn has_work(&self) -> bool {
        let inner = self.inner.lock();
        inner.is_failing
            || !inner.unwritten.is_empty()
            || inner.has_new_names
            || inner.files.values().any(|segment| segment.synced_bytes < segment.bytes)
            || !inner.done_with().is_empty()
            || inner.hardly_needed(&self.limits).is_some()
    }

    /// Brings what was appended to the disk, and puts the files in order.
    ///
    /// # Errors
    /// When the disk doesn't take it; what it didn't take is appended again.
    pub fn sync(&self) -> io::Result<()> {
        // Each of these is done whatever becomes of the others: the last makes room for the first.
        let written = self.write_again();
        let tidied = self.tidy();
        let done_with = self.inner.lock().done_with();
        let removed = self.sync_files().and_then(|()| self.remove(&done_with));
        let result = written.and(tidied).and(removed);
        let mut inner = self.inner.lock();
        match &result {
            Ok(()) => inner.may_recover(&self.folder, &self.limits),
            Err(cause) => inner.fails(cause),
        }
        result
    }

    /// Notes that the service runs, as long as calls depend on it.
    pub fn note_alive(&self) -> io::Result<()> {
        let inner = self.inner.lock();
        match inner.newest() {
            Some(file) if !inner.needed.is_empty() => file.set_modified(clock::system_now()),
            _ => Ok(()),
        }
    }

    /// Appends what couldn't be appended before.
    fn write_again(&self) -> io::Result<()> {
        let waiting: Vec<CallId> = self.inner.lock().unwritten.iter().copied().collect();
        for call in waiting {
            let mut inner = self.inner.lock();
            let Some(record) = inner.needed.get(&call).and_then(|entry| entry.record.clone())
            else {
                continue;
            };
            // One that can't be expressed holds no other up.
            let Ok(frame) = frame::encode(&record) else { continue };
            let place = inner.put(&self.folder, &self.limits, &frame, self.limits.most_bytes)?;
            inner.is_at(call, place, &self.limits);
        }
        Ok(())
    }

    /// Takes what is needed of a file that is hardly needed elsewhere.
    fn tidy(&self) -> io::Result<()> {
        let (number, calls) = {
            let inner = self.inner.lock();
            let Some(number) = inner.hardly_needed(&self.limits) else { return Ok(()) };
            (number, inner.calls_in(number))
        };
        for call in calls {
            let Some(place) = self.inner.lock().place_in(call, number) else { continue };
            let Some((frame, _)) = self.read_frame(call, place) else {
                self.leave(call, number);
                return Ok(());
            };
            let mut inner = self.inner.lock();
            // The database may have it by now, and there may be something newer.
            let is_newest = !inner.unwritten.contains(&call);
            if is_newest && inner.place_in(call, number).is_some_and(|now| now.at == place.at) {
                let place = inner.put(&self.folder, &self.limits, &frame, u64::MAX)?;
                inner.is_at(call, place, &self.limits);
            }
        }
        Ok(())
    }

    fn sync_files(&self) -> io::Result<()> {
        let (files, has_new_names) = {
            let mut inner = self.inner.lock();
            (inner.unsynced(), std::mem::take(&mut inner.has_new_names))
        };
        if has_new_names && let Err(cause) = self.folder.sync_names() {
            self.inner.lock().has_new_names = true;
            return Err(cause);
        }
        for (number, file, bytes) in files {
            let synced = self.folder.sync(&file);
            let mut inner = self.inner.lock();
            match synced {
                Ok(()) => inner.is_synced(number, bytes),
                Err(cause) => {
                    // Nobody knows what became of the pages: they may count as written now.
                    inner.is_doubtful(number);
                    return Err(cause);
                }
            }
        }
        Ok(())
    }

    fn remove(&self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            match self.folder.remove(*number) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.inner.lock().files.remove(number);
        }
        Ok(())
    }
}

// === impl Inner ===

impl Inner {
    // --- what an earlier run left ---

    /// Reads a file of an earlier run.
    fn read(&mut self, folder: &Folder, number: u64, limits: &Limits) -> io::Result<Segment> {
        let file = folder.open_file(number)?;
        let bytes = file.metadata()?.len();
        let mut reader = Reader::new(file);
        let mut care = Care::Ordinary;
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(Next::Record { record, at, bytes })) => {
                    let call = record.call;
                    self.take_in(&Arc::new(*record));
                    self.is_at(call, Place { number, at, bytes }, limits);
                }
                Ok(Some(Next::Damage(damage))) if damage.is_torn_tail => {
                    warn!(
                        bytes = damage.bytes,
                        "the end of a file of the journal was cut short, as by a power cut; it is left out"
                    );
                }
                Ok(Some(Next::Damage(damage))) => {
                    care = Care::Damaged;
                    error!(at = damage.at, bytes = damage.bytes, file = %folder.file_path(number).display(), "a file of the journal is damaged; what is sound in it is used");
                }
                Err(cause) => {
                    care = Care::Untouched;
                    error!(error = %cause, file = %folder.file_path(number).display(), "a file of the journal can't be read to its end; it is kept");
                    break;
                }
            }
        }
        if care == Care::Damaged {
            match folder.set_aside(number) {
                Ok(kept) => {
                    error!(file = %kept.display(), "the damaged file is kept under this name")
                }
                Err(cause) => {
                    care = Care::Untouched;
                    error!(error = %cause, "the damaged file can't be set aside; it is left as it is");
                }
            }
        }
        Ok(Segment { bytes, needed_bytes: 0, synced_bytes: bytes, file: None, care })
    }

    fn count_needed_bytes(&mut self) {
        for place in self.needed.values().filter_map(|entry| entry.place) {
            if let Some(segment) = self.files.get_mut(&place.number) {
                segment.needed_bytes += u64::from(place.bytes);
            }
        }
    }

    // --- records ---

    /// Holds a record in memory that is on no disk yet.
    fn take_in(&mut self, record: &Arc<CallRecord>) {
        let entry = self.needed.entry(record.call).or_default();
        let was_kept = entry.is_final && entry.record.is_some();
        entry.record = Some(record.clone());
        entry.is_final = record.end.is_some();
        self.kept = self.kept - usize::from(was_kept) + usize::from(entry.is_final);
        self.unwritten.insert(record.call);
    }

    /// The newest state of a call is on disk.
    fn is_at(&mut self, call: CallId, place: Place, limits: &Limits) {
        self.unwritten.remove(&call);
        let Some(entry) = self.needed.get_mut(&call) else { return };
        let before = entry.place.replace(place);
        if entry.is_final && entry.record.is_some() && self.kept > limits.kept_records {
            entry.record = None;
            self.kept -= 1;
        }
        self.needs_less(before);
        if let Some(segment) = self.files.get_mut(&place.number) {
            segment.needed_bytes += u64::from(place.bytes);
        }
    }

    fn forget(&mut self, call: CallId) {
        let Some(entry) = self.needed.remove(&call) else { return };
        self.unwritten.remove(&call);
        self.kept -= usize::from(entry.is_final && entry.record.is_some());
        self.needs_less(entry.place);
    }

    fn needs_less(&mut self, place: Option<Place>) {
        let segment = place.and_then(|place| Some((self.files.get_mut(&place.number)?, place)));
        if let Some((segment, place)) = segment {
            segment.needed_bytes = segment.needed_bytes.saturating_sub(place.bytes.into());
        }
    }

    fn place_in(&self, call: CallId, number: u64) -> Option<Place> {
        let place = self.needed.get(&call)?.place?;
        (place.number == number).then_some(place)
    }

    fn calls_in(&self, number: u64) -> Vec<CallId> {
        let calls = self.needed.keys();
        calls.filter(|call| self.place_in(**call, number).is_some()).copied().collect()
    }

    // --- files ---

    fn bytes(&self) -> u64 {
        self.files.values().map(|segment| segment.bytes).sum()
    }

    fn newest(&self) -> Option<&Arc<File>> {
        self.files.get(&self.newest?)?.file.as_ref()
    }

    /// Begins a new file.
    fn begin(&mut self, folder: &Folder) -> io::Result<()> {
        self.last_number += 1;
        let file = Some(Arc::new(folder.create(self.last_number)?));
        let segment =
            Segment { bytes: 0, needed_bytes: 0, synced_bytes: 0, file, care: Care::Ordinary };
        self.files.insert(self.last_number, segment);
        let before = self.newest.and_then(|number| self.files.get_mut(&number));
        if let Some(before) = before.filter(|before| before.synced_bytes >= before.bytes) {
            before.file = None;
        }
        self.newest = Some(self.last_number);
        self.has_new_names = true;
        Ok(())
    }

    /// Appends a frame.
    fn put(
        &mut self,
        folder: &Folder,
        limits: &Limits,
        frame: &[u8],
        most_bytes: u64,
    ) -> io::Result<Place> {
        let length = frame.len() as u64;
        if self.bytes() + length > most_bytes {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "it has the size that journal.most_mb allows",
            ));
        }
        let is_long = |segment: &Segment| segment.bytes >= limits.file_bytes;
        let newest = self.newest.and_then(|number| self.files.get(&number));
        match newest {
            None => self.begin(folder)?,
            // Where none can be begun, a long one is better than none.
            Some(segment) if is_long(segment) => self.begin(folder).unwrap_or_default(),
            Some(_) => {}
        }
        let number = self.newest.unwrap_or_default();
        let Some(Segment { bytes: at, file: Some(file), .. }) = self.files.get_mut(&number) else {
            return Err(io::Error::other("there is no file to append to"));
        };
        if let Err(cause) = folder.append(file, frame) {
            if folder.cut(file, *at).is_err() {
                // A part of the frame stays: what comes after it belongs into another file.
                *at = file.metadata().map_or(*at, |file| file.len());
                self.newest = None;
            }
            return Err(cause);
        }
        let place = Place { number, at: *at, bytes: u32::try_from(length).unwrap_or(u32::MAX) };
        *at += length;
        Ok(place)
    }

    /// Files in which nothing is needed any more.
    fn done_with(&self) -> Vec<u64> {
        let is_in_doubt =
            |segment: &Segment| segment.care == Care::Doubtful && segment.needed_bytes > 0;
        if self.files.values().any(is_in_doubt) {
            return Vec::new();
        }
        let is_done = |(number, segment): &(&u64, &Segment)| {
            self.newest != Some(**number)
                && segment.needed_bytes == 0
                && segment.care != Care::Untouched
        };
        self.files.iter().filter(is_done).map(|(number, _)| *number).collect()
    }

    /// A file of which little is needed.
    fn hardly_needed(&self, limits: &Limits) -> Option<u64> {
        let is_hardly_needed = |(number, segment): &(&u64, &Segment)| {
            let is_little = matches!(segment.care, Care::Damaged | Care::Doubtful)
                || segment.needed_bytes < segment.bytes / 2
                || segment.bytes < limits.file_bytes / 2;
            self.newest != Some(**number)
                && segment.needed_bytes > 0
                && segment.care != Care::Untouched
                && is_little
        };
        self.files.iter().find(is_hardly_needed).map(|(number, _)| *number)
    }

    /// Files with something that isn't on the disk for certain.
    fn unsynced(&self) -> Vec<(u64, Arc<File>, u64)> {
        let unsynced = |(number, segment): (&u64, &Segment)| {
            let file = segment.file.clone()?;
            (segment.synced_bytes < segment.bytes).then_some((*number, file, segment.bytes))
        };
        self.files.iter().filter_map(unsynced).collect()
    }

    fn is_synced(&mut self, number: u64, bytes: u64) {
        let is_newest = self.newest == Some(number);
        if let Some(segment) = self.files.get_mut(&number) {
            segment.synced_bytes = segment.synced_bytes.max(bytes);
            if !is_newest && segment.synced_bytes >= segment.bytes {
                segment.file = None;
            }
        }
    }

    /// What of this file wasn't synced is to be appended to another.
    fn is_doubtful(&mut self, number: u64) {
        let Some(segment) = self.files.get_mut(&number) else { return };
        let certain = segment.synced_bytes;
        segment.synced_bytes = segment.bytes;
        segment.file = None;
        segment.care = Care::Doubtful;
        if self.newest == Some(number) {
            self.newest = None;
        }
        let doubtful: Vec<CallId> = (self.needed.iter())
            .filter(|(_, entry)| entry.record.is_some())
            .filter(|(_, entry)| {
                entry.place.is_some_and(|place| place.number == number && place.at >= certain)
            })
            .map(|(call, _)| *call)
            .collect();
        self.unwritten.extend(doubtful);
    }

    // --- alarm ---

    fn fails(&mut self, cause: &io::Error) {
        if !self.is_failing {
            self.is_failing = true;
            error!(error = %cause, "the journal can't be written; calls go on, and their records are kept in memory until it can");
        }
    }

    /// Ends the alarm if there is nothing left of what raised it.
    fn may_recover(&mut self, folder: &Folder, limits: &Limits) {
        if !self.is_failing || !self.unwritten.is_empty() {
            return;
        }
        if self.newest.is_none() && self.begin(folder).is_err() {
            return;
        }
        let bytes = self.newest.and_then(|number| Some(self.files.get(&number)?.bytes));
        let has_room =
            self.newest().zip(bytes).is_some_and(|(file, bytes)| folder.has_room(file, bytes));
        if has_room && self.bytes() + limits.file_bytes / 16 <= limits.most_bytes {
            self.is_failing = false;
            info!("the journal is written again, and has every record");
        }
    }
}

#[cfg(test)]
mod tests;
