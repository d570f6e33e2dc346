//! The journal's file: frames of `length, checksum, JSON`, appended.
//!
//! The newest frame of a call counts. A tail that was torn by a power cut
//! fails its checksum and is left out. When the file has grown, the records
//! that are still needed are written to a new one and the old one is deleted.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use crate::call::CallRecord;
use crate::ids::CallId;

pub struct Spool {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    /// Part of the file's name; higher is newer.
    number: u64,
    length: u64,
    dirty: bool,
    /// Records that the database doesn't have yet.
    needed: HashMap<CallId, Arc<CallRecord>>,
}

/// A file larger than this is replaced by one with what is still needed.
const ROTATE_AT_BYTES: u64 = 16 << 20;
/// No record comes near this; a length beyond it is damage.
const FRAME_MOST_BYTES: u32 = 4 << 20;
const HEADER_BYTES: usize = 8;

impl Spool {
    /// Opens the folder and returns the records found there.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<CallRecord>)> {
        fs::create_dir_all(directory)?;
        let mut numbers = file_numbers(directory)?;
        numbers.sort_unstable();
        let mut found: HashMap<CallId, CallRecord> = HashMap::new();
        for number in &numbers {
            let mut bytes = Vec::new();
            File::open(file_path(directory, *number))?.read_to_end(&mut bytes)?;
            let (records, sound) = read_frames(&bytes);
            if sound < bytes.len() {
                warn!(
                    bytes = bytes.len() - sound,
                    "the journal's tail was torn, as after a power cut; it is left out"
                );
            }
            found.extend(records.into_iter().map(|record| (record.call, record)));
        }
        let needed = found.values().map(|r| (r.call, Arc::new(r.clone()))).collect();
        let number = numbers.last().map_or(1, |last| last + 1);
        let inner = Inner::start(directory, number, needed)?;
        for old in numbers {
            fs::remove_file(file_path(directory, old))?;
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_by_key(|record| record.call);
        Ok((Self { directory: directory.to_owned(), inner: Mutex::new(inner) }, found))
    }

    pub fn append(&self, record: &Arc<CallRecord>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.needed.insert(record.call, record.clone());
        inner.write(record)?;
        if inner.length > ROTATE_AT_BYTES {
            self.rotate(&mut inner)?;
        }
        Ok(())
    }

    /// The database has this call's record.
    pub fn forget(&self, call: CallId) {
        self.inner.lock().needed.remove(&call);
    }

    pub fn depth(&self) -> usize {
        self.inner.lock().needed.len()
    }

    /// Brings what was appended to the disk.
    pub fn sync(&self) -> io::Result<()> {
        let file = {
            let mut inner = self.inner.lock();
            if !std::mem::take(&mut inner.dirty) {
                return Ok(());
            }
            inner.file.try_clone()?
        };
        file.sync_data()
    }

    fn rotate(&self, inner: &mut Inner) -> io::Result<()> {
        let old = inner.number;
        let needed = std::mem::take(&mut inner.needed);
        match Inner::start(&self.directory, old + 1, needed.clone()) {
            Ok(fresh) => *inner = fresh,
            Err(cause) => {
                inner.needed = needed;
                return Err(cause);
            }
        }
        fs::remove_file(file_path(&self.directory, old))
    }
}

// === impl Inner ===

impl Inner {
    /// A new file that holds what is needed, safely on disk.
    fn start(
        directory: &Path,
        number: u64,
        needed: HashMap<CallId, Arc<CallRecord>>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(file_path(directory, number))?;
        let records: Vec<_> = needed.values().cloned().collect();
        let mut inner = Self { file, number, length: 0, dirty: false, needed };
        for record in records {
            inner.write(&record)?;
        }
        inner.file.sync_data()?;
        File::open(directory)?.sync_all()?;
        inner.dirty = false;
        Ok(inner)
    }

    fn write(&mut self, record: &CallRecord) -> io::Result<()> {
        let frame = frame(record)?;
        if let Err(cause) = self.file.write_all(&frame) {
            // Half a frame would hide those after it.
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            return Err(cause);
        }
        self.length += frame.len() as u64;
        self.dirty = true;
        Ok(())
    }
}

fn frame(record: &CallRecord) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, record)?;
    let length = u32::try_from(frame.len() - HEADER_BYTES)
        .ok()
        .filter(|length| *length <= FRAME_MOST_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is too large"))?;
    let checksum = crc32fast::hash(&frame[HEADER_BYTES..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

/// The records up to the first damage, and how many bytes were sound.
fn read_frames(bytes: &[u8]) -> (Vec<CallRecord>, usize) {
    let mut records = Vec::new();
    let mut place = 0;
    while let Some(record) = read_frame(&bytes[place..]) {
        let (record, length) = record;
        records.push(record);
        place += length;
    }
    (records, place)
}

fn read_frame(bytes: &[u8]) -> Option<(CallRecord, usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let checksum = u32::from_le_bytes(bytes.get(4..HEADER_BYTES)?.try_into().ok()?);
    if length > FRAME_MOST_BYTES {
        return None;
    }
    let end = HEADER_BYTES + length as usize;
    let payload = bytes.get(HEADER_BYTES..end)?;
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, end))
}

fn file_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("calls-{number:012}.journal"))
}

fn file_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix("calls-")?.strip_suffix(".journal"))
            .and_then(|number| number.parse().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::record::tests::record;

    #[test]
    fn the_newest_frame_of_a_call_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, found) = Spool::open(folder.path()).unwrap();
        assert!(found.is_empty());
        let mut call = record();
        spool.append(&Arc::new(call.clone())).unwrap();
        call.dialled = "+442071838750".to_owned();
        spool.append(&Arc::new(call.clone())).unwrap();
        drop(spool);
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found, [call]);
    }

    #[test]
    fn a_torn_tail_loses_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (first, second) = (record(), record());
        spool.append(&Arc::new(first.clone())).unwrap();
        spool.append(&Arc::new(second)).unwrap();
        drop(spool);
        let number = file_numbers(folder.path()).unwrap()[0];
        let path = file_path(folder.path(), number);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found, [first]);
    }

    #[test]
    fn a_record_that_the_database_has_is_gone_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (kept, written) = (Arc::new(record()), Arc::new(record()));
        spool.append(&written).unwrap();
        spool.append(&kept).unwrap();
        spool.forget(written.call);
        spool.rotate(&mut spool.inner.lock()).unwrap();
        drop(spool);
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found, [(*kept).clone()]);
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let (_, sound) = read_frames(&bytes);
            proptest::prop_assert!(sound <= bytes.len());
        }
    }
}
