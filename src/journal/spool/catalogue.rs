//! What the journal's files hold, where, and what of it is still needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Limits;
use crate::call::CallRecord;
use crate::ids::CallId;
use crate::journal::folder::Folder;
use crate::journal::frame::{Next, Reader};

#[derive(Default)]
pub(super) struct Catalogue {
    pub(super) files: BTreeMap<u64, Segment>,
    /// The file that is appended to; none when one couldn't be begun.
    pub(super) newest: Option<u64>,
    pub(super) last_number: u64,
    pub(super) has_new_names: bool,
    /// Records that the database doesn't have yet.
    pub(super) needed: BTreeMap<CallId, Entry>,
    /// Those whose newest state is on no disk.
    pub(super) unwritten: BTreeSet<CallId>,
    /// Final ones among them that are in memory.
    pub(super) kept: usize,
    pub(super) is_failing: bool,
    /// Since when something that was appended waits for a sync.
    unsynced_since: Option<Instant>,
    /// The same, of what the sync that runs now or failed last is to bring to the disk.
    syncing_since: Option<Instant>,
    /// Whether this run had something to say of a call.
    pub(super) has_heard: bool,
}

pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) needed_bytes: u64,
    pub(super) synced_bytes: u64,
    /// Open while it is appended to, and until that is synced.
    pub(super) file: Option<Arc<File>>,
    pub(super) care: Care,
    /// What is read of it isn't given at the moment.
    is_unreadable: bool,
}

/// How a file is dealt with once nothing is appended to it any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    Ordinary,
    /// What is needed of it is soon taken elsewhere.
    Damaged,
    /// The same, and nothing is deleted before: a sync of it failed.
    Doubtful,
    /// It couldn't be read or set aside: it is left for the next start.
    Untouched,
}

#[derive(Default)]
pub(super) struct Entry {
    pub(super) record: Option<Arc<CallRecord>>,
    /// Where the newest state is on disk.
    pub(super) place: Option<Place>,
    pub(super) is_final: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) at: u64,
    pub(super) bytes: u32,
}

impl Catalogue {
    // --- what an earlier run left ---

    /// Reads a file of an earlier run.
    pub(super) fn read(
        &mut self,
        folder: &Folder,
        number: u64,
        limits: &Limits,
    ) -> io::Result<Segment> {
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
        Ok(Segment {
            bytes,
            needed_bytes: 0,
            synced_bytes: bytes,
            file: None,
            care,
            is_unreadable: false,
        })
    }

    pub(super) fn count_needed_bytes(&mut self) {
        for place in self.needed.values().filter_map(|entry| entry.place) {
            if let Some(segment) = self.files.get_mut(&place.number) {
                segment.needed_bytes += u64::from(place.bytes);
            }
        }
    }

    // --- records ---

    /// Holds a record in memory that is on no disk yet.
    pub(super) fn take_in(&mut self, record: &Arc<CallRecord>) {
        let entry = self.needed.entry(record.call).or_default();
        let was_kept = entry.is_final && entry.record.is_some();
        entry.record = Some(record.clone());
        entry.is_final = record.end.is_some();
        self.kept = self.kept - usize::from(was_kept) + usize::from(entry.is_final);
        self.unwritten.insert(record.call);
    }

    /// The newest state of a call is on disk.
    pub(super) fn is_at(&mut self, call: CallId, place: Place, limits: &Limits) {
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

    pub(super) fn forget(&mut self, call: CallId) {
        let Some(entry) = self.needed.remove(&call) else { return };
        self.unwritten.remove(&call);
        self.kept -= usize::from(entry.is_final && entry.record.is_some());
        self.needs_less(entry.place);
    }

    pub(super) fn needs_less(&mut self, place: Option<Place>) {
        let segment = place.and_then(|place| Some((self.files.get_mut(&place.number)?, place)));
        if let Some((segment, place)) = segment {
            segment.needed_bytes = segment.needed_bytes.saturating_sub(place.bytes.into());
        }
    }

    pub(super) fn place_in(&self, call: CallId, number: u64) -> Option<Place> {
        let place = self.needed.get(&call)?.place?;
        (place.number == number).then_some(place)
    }

    pub(super) fn calls_in(&self, number: u64) -> Vec<CallId> {
        let calls = self.needed.keys();
        calls.filter(|call| self.place_in(**call, number).is_some()).copied().collect()
    }

    // --- files ---

    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|segment| segment.bytes).sum()
    }

    pub(super) fn newest(&self) -> Option<&Arc<File>> {
        self.files.get(&self.newest?)?.file.as_ref()
    }

    /// Begins a new file.
    pub(super) fn begin(&mut self, folder: &Folder) -> io::Result<()> {
        self.last_number += 1;
        let file = Some(Arc::new(folder.create(self.last_number)?));
        let segment = Segment {
            bytes: 0,
            needed_bytes: 0,
            synced_bytes: 0,
            file,
            care: Care::Ordinary,
            is_unreadable: false,
        };
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
    pub(super) fn put(
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
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(place)
    }

    /// Files in which nothing is needed any more.
    pub(super) fn done_with(&self) -> Vec<u64> {
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
    pub(super) fn hardly_needed(&self, limits: &Limits) -> Option<u64> {
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

    /// Whether a file could be read just now. That it can't is told once, until it can.
    pub(super) fn note_reading(&mut self, folder: &Folder, number: u64, cause: Option<&io::Error>) {
        let Some(segment) = self.files.get_mut(&number) else { return };
        let was_unreadable = std::mem::replace(&mut segment.is_unreadable, cause.is_some());
        let file = folder.file_path(number);
        match cause {
            Some(cause) if !was_unreadable => {
                error!(error = %cause, file = %file.display(), "a file of the journal can't be read now; its records wait, and are tried again and again");
            }
            None if was_unreadable => {
                info!(file = %file.display(), "the file of the journal can be read again");
            }
            _ => {}
        }
    }

    /// What was appended so far is about to be brought to the disk.
    pub(super) fn sync_begins(&mut self) {
        let appended = self.unsynced_since.take();
        self.syncing_since = self.syncing_since.or(appended);
    }

    pub(super) fn sync_is_done(&mut self) {
        self.syncing_since = None;
    }

    /// Since when the oldest of what isn't on the disk for certain waits for it.
    pub(super) fn unsynced_since(&self) -> Option<Instant> {
        self.syncing_since.or(self.unsynced_since)
    }

    /// Files with something that isn't on the disk for certain.
    pub(super) fn unsynced(&self) -> Vec<(u64, Arc<File>, u64)> {
        let unsynced = |(number, segment): (&u64, &Segment)| {
            let file = segment.file.clone()?;
            (segment.synced_bytes < segment.bytes).then_some((*number, file, segment.bytes))
        };
        self.files.iter().filter_map(unsynced).collect()
    }

    pub(super) fn is_synced(&mut self, number: u64, bytes: u64) {
        let is_newest = self.newest == Some(number);
        if let Some(segment) = self.files.get_mut(&number) {
            segment.synced_bytes = segment.synced_bytes.max(bytes);
            if !is_newest && segment.synced_bytes >= segment.bytes {
                segment.file = None;
            }
        }
    }

    /// What of this file wasn't synced is to be appended to another.
    pub(super) fn is_doubtful(&mut self, number: u64) {
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

    pub(super) fn fails(&mut self, cause: &io::Error) {
        if !self.is_failing {
            self.is_failing = true;
            error!(error = %cause, "the journal can't be written; calls go on, and their records are kept in memory until it can");
        }
    }

    /// Ends the alarm if there is nothing left of what raised it.
    pub(super) fn may_recover(&mut self, folder: &Folder, limits: &Limits) {
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
