//! The journal's file: frames of `length, checksum, JSON`, appended.
//!
//! The newest frame of a call counts. A tail that was torn by a power cut
//! fails its checksum and is left out. When the file has grown, appends go on in
//! a new one at once; what is still needed of the old one is copied beside them,
//! into a file whose number lies between the two, and the old one is deleted.
//! No append waits for that, nor for a disk.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use crate::call::CallRecord;
use crate::clock::{self, Timestamp};
use crate::ids::CallId;

pub struct Spool {
    directory: PathBuf,
    inner: Mutex<Inner>,
    /// Held until the process ends, however it ends.
    _lock: File,
}

struct Inner {
    log: Log,
    /// Records that the database doesn't have yet.
    needed: BTreeMap<CallId, Arc<CallRecord>>,
}

/// Two instances with one journal would take each other's calls for their own.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another instance uses it; each needs a journal.directory of its own",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file that is appended to.
struct Log {
    file: File,
    /// Part of the file's name; higher is newer.
    number: u64,
    length: u64,
    /// Something was appended since the last sync.
    dirty: bool,
}

/// What an earlier run left.
pub struct Found {
    /// In the order in which their calls began.
    pub records: Vec<CallRecord>,
    /// When that run last noted that it runs.
    pub last_alive: Option<Timestamp>,
}

/// A file larger than this is replaced by one with what is still needed.
const ROTATE_AT_BYTES: u64 = 16 << 20;
/// No record comes near this; a length beyond it is damage.
const FRAME_MOST_BYTES: u32 = 4 << 20;
const HEADER_BYTES: usize = 8;

impl Spool {
    /// Opens the folder, and says what was found there.
    pub fn open(directory: &Path) -> io::Result<(Self, Found)> {
        fs::create_dir_all(directory)?;
        let lock = lock(directory)?;
        let mut numbers = file_numbers(directory)?;
        numbers.sort_unstable();
        let mut found: BTreeMap<CallId, CallRecord> = BTreeMap::new();
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
        let needed: BTreeMap<_, _> =
            found.values().map(|r| (r.call, Arc::new(r.clone()))).collect();
        let last = numbers.last().copied().unwrap_or(0);
        let last_alive = match fs::metadata(file_path(directory, last)) {
            Ok(file) => Some(file.modified()?.into()),
            Err(_) => None,
        };
        let log = Log::create(directory, last + 2)?;
        write_copy(directory, last + 1, &needed.values().cloned().collect::<Vec<_>>())?;
        remove_up_to(directory, last)?;
        let inner = Inner { log, needed };
        let records = found.into_values().collect();
        let spool = Self { directory: directory.to_owned(), inner: Mutex::new(inner), _lock: lock };
        Ok((spool, Found { records, last_alive }))
    }

    /// Puts the record into the page cache: it survives the process from here on.
    pub fn append(&self, record: &Arc<CallRecord>) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.needed.insert(record.call, record.clone());
        inner.log.write(record)
    }

    /// The database has this call's record.
    pub fn forget(&self, call: CallId) {
        self.inner.lock().needed.remove(&call);
    }

    /// Final records that the database doesn't have yet.
    pub fn unwritten(&self) -> Vec<Arc<CallRecord>> {
        let inner = self.inner.lock();
        inner.needed.values().filter(|record| record.end.is_some()).cloned().collect()
    }

    pub fn depth(&self) -> usize {
        self.inner.lock().needed.len()
    }

    /// Whether something was appended since the last sync.
    pub fn has_news(&self) -> bool {
        self.inner.lock().log.dirty
    }

    /// Brings what was appended to the disk, and begins a new file when this one has grown.
    pub fn sync(&self) -> io::Result<()> {
        let file = {
            let mut inner = self.inner.lock();
            let dirty = std::mem::take(&mut inner.log.dirty);
            dirty.then(|| inner.log.file.try_clone()).transpose()?
        };
        if let Some(file) = file {
            file.sync_data()?;
        }
        if self.inner.lock().log.length > ROTATE_AT_BYTES {
            self.rotate()?;
        }
        Ok(())
    }

    /// Notes that the service runs, as long as calls depend on it.
    pub fn note_alive(&self) -> io::Result<()> {
        let inner = self.inner.lock();
        if inner.needed.is_empty() {
            return Ok(());
        }
        inner.log.file.set_modified(clock::system_now())
    }

    fn rotate(&self) -> io::Result<()> {
        let (old, needed) = {
            let mut inner = self.inner.lock();
            let old = inner.log.number;
            // From here on, appends go behind the copy that is about to be made.
            inner.log = Log::create(&self.directory, old + 2)?;
            (old, inner.needed.values().cloned().collect::<Vec<_>>())
        };
        write_copy(&self.directory, old + 1, &needed)?;
        remove_up_to(&self.directory, old)
    }
}

// === impl Log ===

impl Log {
    fn create(directory: &Path, number: u64) -> io::Result<Self> {
        let file = File::create(file_path(directory, number))?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, number, length: 0, dirty: false })
    }

    fn write(&mut self, record: &CallRecord) -> io::Result<()> {
        let frame = frame(record)?;
        if let Err(cause) = self.file.write_all(&frame) {
            // Half a frame would hide those after it.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(cause);
        }
        self.length += frame.len() as u64;
        self.dirty = true;
        Ok(())
    }
}

/// A file with these records, whole and on disk before it has its name.
fn write_copy(directory: &Path, number: u64, records: &[Arc<CallRecord>]) -> io::Result<()> {
    let unfinished = directory.join("copy.unfinished");
    let mut file = io::BufWriter::new(File::create(&unfinished)?);
    for record in records {
        file.write_all(&frame(record)?)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&unfinished, file_path(directory, number))?;
    File::open(directory)?.sync_all()
}

fn remove_up_to(directory: &Path, number: u64) -> io::Result<()> {
    for old in file_numbers(directory)?.into_iter().filter(|old| *old <= number) {
        fs::remove_file(file_path(directory, old))?;
    }
    Ok(())
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
        assert!(found.records.is_empty());
        let mut call = record();
        spool.append(&Arc::new(call.clone())).unwrap();
        call.dialled = "+442071838750".to_owned();
        spool.append(&Arc::new(call.clone())).unwrap();
        drop(spool);
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found.records, [call]);
    }

    #[test]
    fn two_instances_never_share_a_journal() {
        let folder = tempfile::tempdir().unwrap();
        let first = Spool::open(folder.path()).unwrap();
        let Err(refused) = Spool::open(folder.path()) else { panic!("both have it") };
        assert!(refused.to_string().contains("another instance"), "{refused}");
        drop(first);
        assert!(Spool::open(folder.path()).is_ok());
    }

    #[test]
    fn a_torn_tail_loses_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (first, second) = (record(), record());
        spool.append(&Arc::new(first.clone())).unwrap();
        spool.append(&Arc::new(second)).unwrap();
        drop(spool);
        let number = file_numbers(folder.path()).unwrap().into_iter().max().unwrap();
        let path = file_path(folder.path(), number);
        let length = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found.records, [first]);
    }

    #[test]
    fn a_record_that_the_database_has_is_gone_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(folder.path()).unwrap();
        let (kept, written) = (Arc::new(record()), Arc::new(record()));
        spool.append(&written).unwrap();
        spool.append(&kept).unwrap();
        spool.forget(written.call);
        spool.rotate().unwrap();
        // What comes after the copy counts more than the copy.
        let mut changed = (*kept).clone();
        changed.dialled = "+15550002".to_owned();
        spool.append(&Arc::new(changed.clone())).unwrap();
        drop(spool);
        let (_, found) = Spool::open(folder.path()).unwrap();
        assert_eq!(found.records, [changed]);
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let (_, sound) = read_frames(&bytes);
            proptest::prop_assert!(sound <= bytes.len());
        }
    }
}
