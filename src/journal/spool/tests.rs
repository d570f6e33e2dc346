//! Records survive a killed process, a power cut, damage, and a disk that takes
//! nothing, at whatever step it happens.

use std::collections::BTreeMap;
use std::fs::{self, File};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::call::outcome::Outcome;
use crate::call::record::{End, tests::record};

/// Small enough for a few records to fill a file.
const SMALL: Limits =
    Limits { most_bytes: 1 << 30, file_bytes: 2_000, kept_records: 3, unwritten_records: 1_000 };

fn open(folder: &TempDir) -> (Spool, Found) {
    Spool::open(folder.path(), SMALL).unwrap()
}

fn put(spool: &Spool, record: &CallRecord) {
    spool.append(&Arc::new(record.clone()));
}

fn finished(mut record: CallRecord) -> CallRecord {
    let at = record.started_at;
    record.end = Some(End { at, outcome: Outcome::ABANDONED, cause: 16 });
    record
}

/// What is at hand of this call.
fn read(spool: &Spool, call: CallId) -> Option<Arc<CallRecord>> {
    spool.read(call).unwrap()
}

/// What a start finds there, whole.
fn found_in(folder: &TempDir) -> Vec<CallRecord> {
    let (spool, found) = open(folder);
    let finished = found.finished.iter().map(|call| (*read(&spool, *call).unwrap()).clone());
    let mut records: Vec<_> = found.unfinished.into_iter().chain(finished).collect();
    records.sort_by_key(|record| record.call);
    records
}

fn files(folder: &TempDir, beginning: &str) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    let begins = files.filter(|file| file.file_name().to_str().unwrap().starts_with(beginning));
    let mut paths: Vec<_> = begins.map(|file| file.path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_newest_frame_of_a_call_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, found) = open(&folder);
    assert!(found.unfinished.is_empty() && found.finished.is_empty());
    let mut call = record();
    put(&spool, &call);
    call.dialled = "+442071838750".to_owned();
    put(&spool, &call);
    let over = finished(record());
    put(&spool, &over);
    drop(spool);
    assert_eq!(found_in(&folder), [call, over]);
}

#[test]
fn two_instances_never_share_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder);
    let Err(refused) = Spool::open(folder.path(), SMALL) else { panic!("both have it") };
    assert!(refused.to_string().contains("another instance"), "{refused}");
    drop(first);
    assert!(Spool::open(folder.path(), SMALL).is_ok());
}

/// It hasn't heard of the calls that it took up: they were last heard of before it.
#[test]
fn a_run_that_wrote_nothing_does_not_count_as_one_that_was_alive() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    put(&spool, &record());
    drop(spool);
    let (spool, found) = open(&folder);
    let alive = found.last_alive.unwrap();
    spool.note_alive().unwrap();
    drop(spool);
    assert_eq!(open(&folder).1.last_alive, Some(alive));
}

#[test]
fn a_run_that_could_write_nothing_was_alive_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    put(&spool, &record());
    drop(spool);
    let (spool, found) = open(&folder);
    spool.folder.faults.fail(0, 1);
    spool.append(&Arc::new(record()));
    assert!(spool.figures().is_failing);
    spool.note_alive().unwrap();
    drop(spool);
    assert!(open(&folder).1.last_alive > found.last_alive);
}

#[test]
fn a_torn_tail_loses_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let (first, second) = (record(), record());
    put(&spool, &first);
    put(&spool, &second);
    drop(spool);
    let path = files(&folder, "calls-").pop().unwrap();
    let length = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
    let (_, found) = open(&folder);
    assert_eq!(found.unfinished, [first]);
    assert_eq!(found.damaged_files, 0);
    assert!(files(&folder, "damaged-").is_empty());
}

#[test]
fn a_damaged_file_is_kept_and_its_sound_frames_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let calls: Vec<_> = (0..3).map(|_| record()).collect();
    calls.iter().for_each(|call| put(&spool, call));
    drop(spool);
    let path = files(&folder, "calls-").pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).unwrap();

    let (spool, found) = open(&folder);
    assert_eq!(found.unfinished, [calls[0].clone(), calls[2].clone()]);
    assert_eq!(found.damaged_files, 1);
    let [kept] = &files(&folder, "damaged-")[..] else { panic!("it isn't kept") };
    assert_eq!(fs::read(kept).unwrap(), bytes, "as it was");

    // What was sound is taken elsewhere, and the next start finds no damage.
    spool.sync().unwrap();
    spool.sync().unwrap();
    drop(spool);
    let (_, found) = open(&folder);
    assert_eq!((found.unfinished.len(), found.damaged_files), (2, 0));
    assert_eq!(files(&folder, "damaged-").len(), 1);
}

#[test]
fn files_stay_few_however_many_calls_there_were() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let long = record();
    put(&spool, &long);
    let mut most = 0;
    for _ in 0..500 {
        let call = finished(record());
        put(&spool, &call);
        spool.forget(call.call);
        spool.sync().unwrap();
        most = most.max(spool.figures().bytes);
    }
    assert!(most < 4 * SMALL.file_bytes, "{most} bytes");
    assert!(files(&folder, "calls-").len() <= 3);
    drop(spool);
    let (_, found) = open(&folder);
    assert!(found.unfinished.contains(&long), "the call that lasts is still there");
}

#[test]
fn what_waits_for_the_database_is_on_disk_and_not_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let calls: Vec<_> = (0..200).map(|_| finished(record())).collect();
    calls.iter().for_each(|call| put(&spool, call));
    spool.sync().unwrap();
    let in_memory = |spool: &Spool| {
        let catalogue = spool.catalogue.lock();
        let entries = catalogue.needed.values().filter(|entry| entry.record.is_some()).count();
        assert_eq!(entries, catalogue.kept);
        (entries, catalogue.files.values().filter(|segment| segment.file.is_some()).count())
    };
    assert_eq!(in_memory(&spool), (SMALL.kept_records, 1), "records, open files");
    for call in &calls {
        assert_eq!(*read(&spool, call.call).unwrap(), *call);
    }
    drop(spool);
    let (spool, found) = open(&folder);
    assert_eq!(found.finished.len(), calls.len());
    assert_eq!(in_memory(&spool).0, SMALL.kept_records);
    calls.iter().for_each(|call| spool.forget(call.call));
    assert_eq!(in_memory(&spool).0, 0);
}

#[test]
fn a_full_journal_goes_on_in_memory_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { most_bytes: 6_000, unwritten_records: 5, ..SMALL };
    let (spool, _) = Spool::open(folder.path(), limits).unwrap();
    let calls: Vec<_> = (0..40).map(|_| finished(record())).collect();
    let mut calls = calls.iter();
    while !spool.figures().is_failing {
        put(&spool, calls.next().unwrap());
    }
    assert!(spool.figures().bytes <= limits.most_bytes);
    assert!(spool.has_room(), "for a few more, in memory");
    calls.by_ref().take(4).for_each(|call| put(&spool, call));
    assert!(!spool.has_room());
    assert!(spool.sync().is_err());
    let waiting: Vec<CallId> = spool.catalogue.lock().needed.keys().copied().collect();
    assert!(waiting.iter().all(|call| read(&spool, *call).is_some()), "none is lost");

    let (written, rest) = waiting.split_at(waiting.len() - 6);
    written.iter().for_each(|call| spool.forget(*call));
    spool.sync().ok();
    spool.sync().unwrap();
    assert!(!spool.figures().is_failing && spool.has_room());
    drop(spool);
    let (_, found) = Spool::open(folder.path(), limits).unwrap();
    assert!(rest.iter().all(|call| found.finished.contains(call)));
}

/// Final records that are in files alone, and the first of these.
fn on_disk_alone(folder: &TempDir) -> (Spool, CallRecord) {
    let limits = Limits { kept_records: 0, ..SMALL };
    let (spool, _) = Spool::open(folder.path(), limits).unwrap();
    let calls: Vec<_> = (0..20).map(|_| finished(record())).collect();
    calls.iter().for_each(|call| put(&spool, call));
    spool.sync().unwrap();
    (spool, calls[0].clone())
}

#[test]
fn a_record_whose_file_cannot_be_read_now_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, call) = on_disk_alone(&folder);
    let [file, ..] = &files(&folder, "calls-")[..] else { panic!("it isn't in a file") };
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(file, &elsewhere).unwrap();
    assert!(spool.read(call.call).is_err());
    fs::rename(&elsewhere, file).unwrap();
    assert_eq!(*read(&spool, call.call).unwrap(), call);
    // It wasn't taken for damaged: it goes as others do.
    let waiting: Vec<CallId> = spool.catalogue.lock().needed.keys().copied().collect();
    waiting.iter().for_each(|call| spool.forget(*call));
    spool.sync().unwrap();
    assert!(!file.exists());
}

#[test]
fn a_record_that_is_damaged_since_the_start_is_not_waited_for_and_its_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, call) = on_disk_alone(&folder);
    let [file, ..] = &files(&folder, "calls-")[..] else { panic!("it isn't in a file") };
    let mut bytes = fs::read(file).unwrap();
    bytes[40] ^= 4;
    fs::write(file, &bytes).unwrap();
    assert_eq!(read(&spool, call.call), None);
    let waiting: Vec<CallId> = spool.catalogue.lock().needed.keys().copied().collect();
    waiting.iter().for_each(|call| spool.forget(*call));
    spool.sync().unwrap();
    assert_eq!(fs::read(file).unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn how_long_a_record_waits_for_the_disk_is_known_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let second = Duration::from_secs(1);
    assert_eq!(spool.unsynced_for(), Duration::ZERO, "nothing waits");
    put(&spool, &record());
    tokio::time::advance(second).await;
    put(&spool, &record());
    tokio::time::advance(second).await;
    assert_eq!(spool.unsynced_for(), 2 * second);
    spool.folder.faults.fail(0, 1);
    assert!(spool.sync().is_err());
    tokio::time::advance(second).await;
    assert_eq!(spool.unsynced_for(), 3 * second, "it waits after a sync that failed");
    spool.sync().unwrap();
    assert_eq!(spool.unsynced_for(), Duration::ZERO);
}

/// A record that a power cut may not take, but that nobody can read from the disk now.
#[test]
fn what_a_failed_sync_leaves_in_doubt_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(&folder);
    let call = record();
    put(&spool, &call);
    spool.sync().unwrap();
    let before = files(&folder, "calls-");
    put(&spool, &finished(call.clone()));
    spool.folder.faults.fail(0, 1);
    assert!(spool.sync().is_err());
    assert!(spool.figures().is_failing);
    spool.sync().unwrap();
    assert!(!spool.figures().is_failing);
    // The doubtful file is gone, or holds nothing that counts.
    before.iter().for_each(|path| drop(fs::remove_file(path)));
    drop(spool);
    assert_eq!(found_in(&folder), [finished(call)]);
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        call: usize,
        is_last: bool,
    },
    /// The database has the oldest final record.
    Written,
    Sync,
}

/// Versions of calls that must be found again, or newer ones.
type Promise = BTreeMap<CallId, u32>;

/// What the steps led to.
#[derive(Default)]
struct Course {
    /// What a killed process leaves.
    appended: Promise,
    /// What a power cut leaves.
    synced: Promise,
    /// What there is to know.
    newest: Promise,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0_usize..4, prop::bool::weighted(0.3))
            .prop_map(|(call, is_last)| Step::Append { call, is_last }),
        2 => Just(Step::Written),
        3 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..60)
}

fn version(record: &CallRecord) -> u32 {
    record.dialled.parse().unwrap()
}

/// Runs the steps, and holds after each that the newest state of every call is at hand.
fn run(spool: &Spool, steps: &[Step]) -> Course {
    let mut live: Vec<CallRecord> = (0..4).map(|_| record()).collect();
    let mut over = std::collections::VecDeque::new();
    let mut course = Course::default();
    for (step, version_now) in steps.iter().zip(1..) {
        match step {
            Step::Append { call, is_last } => {
                let place = *call;
                let mut call = live[place].clone();
                call.dialled = version_now.to_string();
                if *is_last {
                    over.push_back(call.call);
                    live[place] = record();
                    call = finished(call);
                }
                put(spool, &call);
                course.newest.insert(call.call, version_now);
                if !spool.catalogue.lock().unwritten.contains(&call.call) {
                    course.appended.insert(call.call, version_now);
                }
            }
            Step::Written => {
                let Some(call) = over.pop_front() else { continue };
                spool.forget(call);
                course.newest.remove(&call);
                course.appended.remove(&call);
                course.synced.remove(&call);
            }
            Step::Sync => {
                if spool.sync().is_ok() {
                    assert!(spool.catalogue.lock().unwritten.is_empty());
                    course.appended = course.newest.clone();
                    course.synced = course.newest.clone();
                }
            }
        }
        for (call, newest) in &course.newest {
            assert_eq!(read(spool, *call).map(|record| version(&record)), Some(*newest));
        }
    }
    course
}

fn assert_kept(folder: &TempDir, promise: &Promise) {
    let found: Promise =
        found_in(folder).iter().map(|record| (record.call, version(record))).collect();
    for (call, version) in promise {
        assert!(found.get(call) >= Some(version), "{call}: {version} of {promise:?} in {found:?}");
    }
}

/// Cuts from every file what wasn't synced, or leaves a part of it.
fn cut_power(folder: &TempDir, spool: Spool, part: u64) {
    for path in files(folder, "calls-") {
        let file = File::options().write(true).open(path).unwrap();
        let (synced, length) =
            (spool.folder.faults.synced_bytes(&file), file.metadata().unwrap().len());
        file.set_len(synced + (length - synced) * part / 4).unwrap();
    }
    drop(spool);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn nothing_is_lost_whatever_step_on_the_disk_fails(
        steps in steps(),
        after in 0_u64..120,
        count in prop_oneof![1_u64..4, 4_u64..40, Just(u64::MAX)],
        part in 0_u64..5,
        ending in 0..3,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = open(&folder);
        spool.folder.faults.fail(after, count);
        let course = run(&spool, &steps);
        match ending {
            0 => {
                drop(spool);
                assert_kept(&folder, &course.appended);
            }
            1 => {
                cut_power(&folder, spool, part);
                assert_kept(&folder, &course.synced);
            }
            _ => {
                spool.folder.faults.mend();
                for _ in 0..4 {
                    prop_assert!(spool.sync().is_ok());
                }
                prop_assert!(!spool.figures().is_failing);
                cut_power(&folder, spool, part);
                assert_kept(&folder, &course.newest);
            }
        }
    }
}
