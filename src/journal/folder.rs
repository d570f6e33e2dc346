//! The journal's folder: numbered files, of which the newest is appended to.
//!
//! Every step that can fail on a disk goes through here, so that tests let each
//! of them fail, and know what a power cut would have left.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tracing::warn;

use crate::clock::Timestamp;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held until the process ends, however it ends.
    _lock: File,
    #[cfg(test)]
    pub faults: faults::Faults,
}

/// Room that a disk must have before it counts as having room again.
const ROOM_BYTES: u64 = 256 << 10;

impl Folder {
    /// Makes the folder if it isn't there, and keeps everybody else out of it.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = lock(path)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
            #[cfg(test)]
            faults: faults::Faults::default(),
        };
        if let Err(cause) = folder.sync_own_name() {
            warn!(error = %cause, "whether the journal's folder outlives a power cut isn't certain, if it is new");
        }
        Ok(folder)
    }

    /// The files that are there, oldest first.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number: Option<u64> = name
                .to_str()
                .and_then(|name| name.strip_prefix("calls-")?.strip_suffix(".journal"))
                .and_then(|number| number.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub fn open_file(&self, number: u64) -> io::Result<File> {
        File::open(self.file_path(number))
    }

    /// A new file, which has its name for certain only after [`Folder::sync_names`].
    pub fn create(&self, number: u64) -> io::Result<File> {
        self.step()?;
        let path = self.file_path(number);
        let file = File::options().create_new(true).append(true).read(true).open(path)?;
        #[cfg(test)]
        self.faults.created(&file)?;
        Ok(file)
    }

    /// Appends all of these bytes, or an unknown part of them.
    pub fn append(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Err(fault) = self.step() {
            file.write_all(self.faults.part_of(bytes))?;
            return Err(fault);
        }
        file.write_all(bytes)
    }

    pub fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)
    }

    /// Whether there is room behind what was written.
    pub fn has_room(&self, file: &File, length: u64) -> bool {
        match fallocate(file, FallocateFlags::KEEP_SIZE, length, ROOM_BYTES) {
            // Not every file system can say.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.step().is_ok(),
            Err(_) => false,
        }
    }

    pub fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.hang_while_wanted();
        self.step()?;
        file.sync_data()?;
        #[cfg(test)]
        self.faults.synced(file)?;
        Ok(())
    }

    pub fn sync_names(&self) -> io::Result<()> {
        self.step()?;
        self.sync_whole(&File::open(&self.path)?)
    }

    /// It may have been made a moment ago: without its name, a power cut takes all that
    /// is in it.
    fn sync_own_name(&self) -> io::Result<()> {
        let path = self.path.canonicalize()?;
        path.parent().map_or(Ok(()), |above| self.sync_whole(&File::open(above)?))
    }

    fn sync_whole(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        #[cfg(test)]
        self.faults.synced(file)?;
        Ok(())
    }

    pub fn read(&self, number: u64, at: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let mut file = self.open_file(number)?;
        file.seek(SeekFrom::Start(at))?;
        let mut frame = Vec::new();
        file.take(bytes.into()).read_to_end(&mut frame)?;
        Ok(frame)
    }

    pub fn remove(&self, number: u64) -> io::Result<()> {
        self.step()?;
        fs::remove_file(self.file_path(number))
    }

    /// Gives the file a second name, under which it stays when the journal is done with it.
    pub fn set_aside(&self, number: u64) -> io::Result<PathBuf> {
        let kept = self.path.join(format!("damaged-{number:012}.journal"));
        let file = self.file_path(number);
        match fs::hard_link(&file, &kept) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                self.copy_aside(&file, &kept)?;
            }
            _ => {}
        }
        self.sync_names()?;
        Ok(kept)
    }

    /// The same, where no file has two names. The copy has its name once it is whole.
    fn copy_aside(&self, file: &Path, kept: &Path) -> io::Result<()> {
        let part = kept.with_extension("part");
        fs::copy(file, &part)?;
        self.sync_whole(&File::open(&part)?)?;
        fs::rename(part, kept)
    }

    pub fn modified_at(&self, number: u64) -> Option<Timestamp> {
        Some(fs::metadata(self.file_path(number)).ok()?.modified().ok()?.into())
    }

    pub fn file_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("calls-{number:012}.journal"))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests let it fail")]
    const fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.faults.step()
    }
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

/// A disk that fails when a test wants it to.
#[cfg(test)]
pub mod faults {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use parking_lot::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub struct Faults {
        inner: Mutex<Inner>,
        /// Rung when the disk doesn't hang any more.
        answers: Condvar,
    }

    #[derive(Debug, Default)]
    struct Inner {
        steps: u64,
        /// Steps from the first to before the second fail.
        failing: Option<(u64, u64)>,
        /// What of each file, by inode, survives a power cut.
        synced: BTreeMap<u64, u64>,
        is_hanging: bool,
    }

    /// No test waits for a disk longer than that.
    const LONGEST_HANG: Duration = Duration::from_secs(30);

    impl Faults {
        /// The step after `after` further ones, and `count` in all, fail.
        pub fn fail(&self, after: u64, count: u64) {
            let mut inner = self.inner.lock();
            let first = inner.steps + after;
            inner.failing = Some((first, first.saturating_add(count)));
        }

        pub fn mend(&self) {
            self.inner.lock().failing = None;
        }

        /// From here on a sync isn't answered, or is again.
        pub fn hang(&self, is_hanging: bool) {
            self.inner.lock().is_hanging = is_hanging;
            self.answers.notify_all();
        }

        pub(super) fn hang_while_wanted(&self) {
            let mut inner = self.inner.lock();
            self.answers.wait_while_for(&mut inner, |inner| inner.is_hanging, LONGEST_HANG);
        }

        /// What of the file was synced.
        pub fn synced_bytes(&self, file: &File) -> u64 {
            let inode = file.metadata().unwrap().ino();
            self.inner.lock().synced.get(&inode).copied().unwrap_or(0)
        }

        pub(super) fn step(&self) -> io::Result<()> {
            let mut inner = self.inner.lock();
            inner.steps += 1;
            let now = inner.steps - 1;
            match inner.failing {
                Some((from, until)) if (from..until).contains(&now) => {
                    Err(io::Error::from(io::ErrorKind::StorageFull))
                }
                _ => Ok(()),
            }
        }

        /// What a disk that becomes full takes of these.
        pub(super) fn part_of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
            let steps = usize::try_from(self.inner.lock().steps).unwrap();
            &bytes[..bytes.len() * (steps % 5) / 5]
        }

        /// Inodes are used again.
        pub(super) fn created(&self, file: &File) -> io::Result<()> {
            self.inner.lock().synced.remove(&file.metadata()?.ino());
            Ok(())
        }

        pub(super) fn synced(&self, file: &File) -> io::Result<()> {
            let file = file.metadata()?;
            self.inner.lock().synced.insert(file.ino(), file.len());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_keeps_its_name_when_the_power_is_cut() {
        let above = tempfile::tempdir().unwrap();
        let folder = Folder::open(&above.path().join("journal")).unwrap();
        let above = File::open(above.path()).unwrap();
        assert!(folder.faults.synced_bytes(&above) > 0);
    }

    #[test]
    fn a_damaged_file_that_was_copied_is_on_the_disk_before_it_may_be_deleted() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        fs::write(folder.file_path(7), b"what is left of it").unwrap();
        let kept = place.path().join("damaged-7.journal");
        folder.copy_aside(&folder.file_path(7), &kept).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"what is left of it");
        assert_eq!(folder.faults.synced_bytes(&File::open(&kept).unwrap()), 18);
        assert_eq!(folder.numbers().unwrap(), [7], "no other file is taken for one of records");
    }

    #[test]
    fn a_damaged_file_that_is_set_aside_keeps_its_new_name() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        fs::write(folder.file_path(7), b"what is left of it").unwrap();
        folder.set_aside(7).unwrap();
        let names = File::open(place.path()).unwrap();
        assert!(folder.faults.synced_bytes(&names) > 0);
    }
}
