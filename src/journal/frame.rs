//! How a record lies in a file: `magic, length, checksum, header's checksum, JSON`.
//!
//! The magic has bytes that are in no UTF-8 text, and so in no record: wherever
//! a file is damaged, the next frame behind the damage is found by it. A length
//! is believed only if the header's own checksum is right, and nothing is
//! allocated by it: memory grows with what was read, up to one frame.

use std::io::{self, Read};

use crate::call::CallRecord;

const MAGIC: [u8; 4] = [0xFF, b'C', b'C', 0xFE];
const HEADER_BYTES: usize = 16;
/// No record comes near this; a length beyond it is damage.
pub const PAYLOAD_MOST_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;

/// What comes next in a file.
#[derive(Debug)]
pub enum Next {
    Record { record: Box<CallRecord>, at: u64, bytes: u32 },
    Damage(Damage),
}

/// Bytes that are no sound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub at: u64,
    pub bytes: u64,
    /// The file's end, as a power cut or a full disk leaves it: the last frame cut short.
    pub is_torn_tail: bool,
}

/// The frame of a record.
///
/// # Errors
/// When the record is too large.
pub fn encode(record: &CallRecord) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, record)?;
    let payload = &frame[HEADER_BYTES..];
    if payload.len() > PAYLOAD_MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too large"));
    }
    let header = Header::of(payload);
    frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    Ok(frame)
}

/// The record of a frame; none if anything is wrong with it.
pub fn decode(frame: &[u8]) -> Option<CallRecord> {
    let payload = Header::read(frame)?.payload(frame)?;
    serde_json::from_slice(payload).ok()
}

/// Finds records in a file, whatever else is in it.
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer was read already.
    consumed: usize,
    /// Where in the file the rest of the buffer begins.
    place: u64,
    has_ended: bool,
}

#[derive(Clone, Copy)]
struct Header {
    length: usize,
    checksum: u32,
}

// === impl Header ===

impl Header {
    fn of(payload: &[u8]) -> Self {
        Self { length: payload.len(), checksum: crc32fast::hash(payload) }
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.checksum.to_le_bytes());
        let own = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// None if it isn't a header.
    fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let word = |at: usize| header[at..].first_chunk().map(|word| u32::from_le_bytes(*word));
        let length = usize::try_from(word(4)?).ok()?;
        let is_sound = header[..4] == MAGIC
            && word(12)? == crc32fast::hash(&header[..12])
            && length <= PAYLOAD_MOST_BYTES;
        is_sound.then_some(Self { length, checksum: word(8)? })
    }

    const fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.length
    }

    /// What the header speaks of; none if it is cut short or damaged.
    fn payload(self, frame: &[u8]) -> Option<&[u8]> {
        let payload = frame.get(HEADER_BYTES..self.frame_bytes())?;
        (crc32fast::hash(payload) == self.checksum).then_some(payload)
    }
}

// === impl Reader ===

impl<R: Read> Reader<R> {
    pub const fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), consumed: 0, place: 0, has_ended: false }
    }

    /// The next record, or what lies between it and the last; none at the end.
    ///
    /// # Errors
    /// When the source can't be read.
    pub fn next(&mut self) -> io::Result<Option<Next>> {
        let at = self.place;
        self.fill(HEADER_BYTES)?;
        if self.rest().is_empty() {
            return Ok(None);
        }
        if let Some(header) = self.sound_frame()? {
            let frame = &self.rest()[..header.frame_bytes()];
            let (record, bytes) = (decode(frame), frame.len());
            self.consume(bytes);
            return Ok(Some(match record {
                Some(record) => {
                    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                    Next::Record { record: Box::new(record), at, bytes }
                }
                // As whoever wrote it meant it, but not as we understand it.
                None => Next::Damage(Damage { at, bytes: bytes as u64, is_torn_tail: false }),
            }));
        }
        let is_cut_short = self.is_cut_short()?;
        self.skip()?;
        let is_torn_tail = is_cut_short && self.rest().is_empty();
        Ok(Some(Next::Damage(Damage { at, bytes: self.place - at, is_torn_tail })))
    }

    /// Whether what comes next is the beginning of a frame without its end, or
    /// room that was never written to.
    fn is_cut_short(&mut self) -> io::Result<bool> {
        let rest = self.rest();
        if rest.len() < HEADER_BYTES {
            let known = rest.len().min(MAGIC.len());
            return Ok(rest[..known] == MAGIC[..known] || rest.iter().all(|byte| *byte == 0));
        }
        if let Some(header) = Header::read(rest) {
            return Ok(rest.len() < header.frame_bytes());
        }
        if rest[..HEADER_BYTES] != [0; HEADER_BYTES] {
            return Ok(false);
        }
        // Longer than a frame can be, it isn't the tail of one.
        self.fill(PAYLOAD_MOST_BYTES)?;
        Ok(self.rest().iter().all(|byte| *byte == 0))
    }

    /// Goes on to the next sound frame, or to the end.
    fn skip(&mut self) -> io::Result<()> {
        self.consume(1);
        while !self.rest().is_empty() || self.fill(MAGIC.len())? {
            let magic = self.rest().windows(MAGIC.len()).position(|window| *window == MAGIC);
            match magic {
                Some(before) => {
                    self.consume(before);
                    if self.sound_frame()?.is_some() {
                        return Ok(());
                    }
                    self.consume(1);
                }
                // The magic may lie across the end of what was read.
                None => {
                    let kept = if self.has_ended { 0 } else { MAGIC.len() - 1 };
                    self.consume(self.rest().len().saturating_sub(kept));
                    let more = self.rest().len() + 1;
                    self.fill(more)?;
                }
            }
        }
        Ok(())
    }

    /// The header of the frame that comes next, if the whole of it is sound.
    fn sound_frame(&mut self) -> io::Result<Option<Header>> {
        self.fill(HEADER_BYTES)?;
        let Some(header) = Header::read(self.rest()) else { return Ok(None) };
        self.fill(header.frame_bytes())?;
        Ok(header.payload(self.rest()).map(|_| header))
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.consumed..]
    }

    fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
        self.place += bytes as u64;
    }

    /// Reads until there are `wanted` bytes, or no more; whether there are any.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.rest().len() < wanted && self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        while self.rest().len() < wanted && !self.has_ended {
            let read = (&mut self.source).take(READ_BYTES as u64).read_to_end(&mut self.buffer)?;
            self.has_ended = read < READ_BYTES;
        }
        Ok(!self.rest().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::record::tests::record;

    /// Everything that is found in a file of these bytes, and the most memory that took.
    fn read(bytes: &[u8]) -> (Vec<CallRecord>, Vec<Damage>, usize) {
        let mut reader = Reader::new(bytes);
        let (mut records, mut damages, mut most, mut place) = (Vec::new(), Vec::new(), 0, 0);
        while let Some(next) = reader.next().unwrap() {
            most = most.max(reader.buffer.capacity());
            match next {
                Next::Record { record, at, bytes: length } => {
                    assert_eq!(at, place);
                    place += u64::from(length);
                    records.push(*record);
                }
                Next::Damage(damage) => {
                    assert_eq!(damage.at, place);
                    assert!(damage.bytes > 0);
                    place += damage.bytes;
                    damages.push(damage);
                }
            }
        }
        assert_eq!(place, bytes.len() as u64, "every byte is accounted for");
        (records, damages, most)
    }

    fn file_of(records: &[CallRecord]) -> Vec<u8> {
        records.iter().flat_map(|record| encode(record).unwrap()).collect()
    }

    /// Records of different lengths.
    fn some_records(lengths: &[usize]) -> Vec<CallRecord> {
        let with_name = |length: &usize| {
            let caller_name = Some("é".repeat(*length));
            CallRecord { caller_name, ..record() }
        };
        lengths.iter().map(with_name).collect()
    }

    #[test]
    fn a_tail_that_was_cut_off_is_told_from_damage() {
        let records = some_records(&[3, 4]);
        let file = file_of(&records);
        let second = encode(&records[0]).unwrap().len();
        for length in second + 1..file.len() {
            let (found, damages, _) = read(&file[..length]);
            assert_eq!(found, records[..1]);
            assert!(damages.len() == 1 && damages[0].is_torn_tail, "{length}: {damages:?}");
        }
        let with_zeros = [&file[..], &[0; 4096]].concat();
        let (found, damages, _) = read(&with_zeros);
        assert_eq!(found, records);
        assert!(damages[0].is_torn_tail);
        // A last frame that is whole but wrong isn't one.
        let mut wrong = file.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(!read(&wrong).1[0].is_torn_tail);
    }

    #[test]
    fn a_length_is_not_believed() {
        let boasts = Header { length: PAYLOAD_MOST_BYTES, checksum: 7 }.to_bytes();
        let lies = [&MAGIC[..], &u32::MAX.to_le_bytes(), &[0; 8]].concat();
        for header in [boasts.to_vec(), lies] {
            let (_, damages, most) = read(&header);
            assert_eq!(damages.len(), 1);
            assert!(most <= 2 * READ_BYTES, "{most} bytes for {}", header.len());
        }
    }

    #[test]
    fn a_frame_of_another_version_hides_none_behind_it() {
        let payload = br#"{"call": 7}"#;
        let strange = [&Header::of(payload).to_bytes()[..], payload].concat();
        let known = record();
        let (found, damages, _) = read(&[strange, encode(&known).unwrap()].concat());
        assert_eq!(found, [known]);
        assert!(damages.len() == 1 && !damages[0].is_torn_tail);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_bytes_make_the_reader_panic_or_take_memory(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            magics in proptest::collection::vec((any::<prop::sample::Index>(), any::<u32>(), any::<bool>()), 0..6),
        ) {
            let mut bytes = bytes;
            for (place, length, is_sound) in magics {
                let header = Header { length: length as usize % (2 * PAYLOAD_MOST_BYTES), checksum: length };
                let mut header = header.to_bytes();
                if !is_sound {
                    header[4..8].copy_from_slice(&length.to_le_bytes());
                }
                let place = place.index(bytes.len() + 1);
                bytes.splice(place..place, header);
            }
            let (_, _, most) = read(&bytes);
            prop_assert!(most <= 2 * READ_BYTES, "{} bytes", most);
        }

        #[test]
        fn whatever_is_damaged_the_sound_frames_are_found(
            lengths in proptest::collection::vec(0_usize..400, 1..8),
            damage in (any::<prop::sample::Index>(), 1_usize..300, any::<[u8; 8]>()),
            flips in any::<bool>(),
        ) {
            let records = some_records(&lengths);
            let mut file = file_of(&records);
            let (place, length, noise) = damage;
            let begin = place.index(file.len());
            let end = if flips { begin + 1 } else { (begin + length).min(file.len()) };
            for (at, byte) in file[begin..end].iter_mut().enumerate() {
                *byte = if flips { *byte ^ (1 << (noise[0] % 8)) } else { noise[at % 8] };
            }
            let mut place = 0;
            let mut untouched = Vec::new();
            for record in &records {
                let next = place + encode(record).unwrap().len();
                if next <= begin || place >= end {
                    untouched.push(record.clone());
                }
                place = next;
            }
            let (found, _, _) = read(&file);
            for record in &untouched {
                prop_assert!(found.contains(record));
            }
            // What was overwritten with what was there is untouched too; nothing is invented.
            prop_assert!(found.iter().all(|record| records.contains(record)));
        }

        #[test]
        fn bytes_between_frames_hide_none(
            lengths in proptest::collection::vec(0_usize..200, 1..6),
            place in any::<prop::sample::Index>(),
            noise in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let records = some_records(&lengths);
            let after = place.index(records.len() + 1);
            let file = [file_of(&records[..after]), noise, file_of(&records[after..])].concat();
            prop_assert_eq!(read(&file).0, records);
        }
    }

    #[test]
    fn a_file_without_a_record_takes_no_more_memory_however_long_it_is() {
        const FILE_BYTES: u64 = 64 << 20;
        for byte in [0xFF, 0] {
            let mut reader = Reader::new(io::repeat(byte).take(FILE_BYTES));
            let mut place = 0;
            while let Some(next) = reader.next().unwrap() {
                let Next::Damage(damage) = next else { panic!("{next:?} of {byte}") };
                place += damage.bytes;
            }
            assert_eq!(place, FILE_BYTES);
            let most = reader.buffer.capacity();
            assert!(most <= 3 * PAYLOAD_MOST_BYTES, "{most} bytes for {byte}");
        }
    }

    #[test]
    fn a_frame_across_many_reads_is_found_behind_damage_as_long() {
        let large = some_records(&[3 * READ_BYTES]).remove(0);
        let noise = vec![0xFF; 5 * READ_BYTES + 3];
        let file = [noise, file_of(std::slice::from_ref(&large))].concat();
        let (found, damages, most) = read(&file);
        assert_eq!(found, [large]);
        assert_eq!(damages.len(), 1);
        assert!(most < 16 * READ_BYTES, "{most}");
    }
}
