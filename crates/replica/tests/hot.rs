//! The activity log: what was touched is in it, whatever a power cut does to its file; what both disks have leaves it.

use model::limits::{EXTENT_BYTES, HOT_MAX};
use proptest::prelude::*;
use replica::hot::*;
use replica::map::{FileKey, Record};

const FILE: FileKey = FileKey { dev: 1, ino: 10 };
const DIR: FileKey = FileKey { dev: 1, ino: 2 };

fn crc(b: &[u8]) -> u32 {
    crc32c::crc32c(b)
}

fn extent(ino: u64, n: u64) -> Hot {
    extents(FileKey { dev: 1, ino }, n * EXTENT_BYTES, 1)
}

/// What the caller does: writes the blocks, flushes.
struct Disk(Vec<u8>);

impl Disk {
    fn new(log: &mut ActivityLog) -> Self {
        Self(log.whole(crc))
    }
    fn flush(&mut self, log: &mut ActivityLog) {
        self.write(log);
        log.written();
    }
    fn write(&mut self, log: &mut ActivityLog) -> usize {
        let blocks = log.blocks(crc);
        for (at, block) in &blocks {
            self.0[*at as usize..][..BLOCK_BYTES].copy_from_slice(block);
        }
        blocks.len()
    }
    fn items(&self) -> Vec<Hot> {
        let mut items: Vec<_> = ActivityLog::recover(&self.0, crc).unwrap().items().map(|(hot, _)| hot).collect();
        items.sort_unstable();
        items
    }
}

#[test]
fn a_thing_is_written_once_and_what_says_more_covers_it() {
    let mut log = ActivityLog::default();
    let mut disk = Disk::new(&mut log);
    assert_eq!(log.touch(extent(10, 3), 2, HOT_MAX), Touch::Cold);
    disk.flush(&mut log);
    assert_eq!(log.touch(extent(10, 3), 2, HOT_MAX), Touch::Hot);
    assert_eq!(log.touch(extents(FILE, 0, 0), 2, HOT_MAX), Touch::Hot, "its attributes are compared with it");
    assert_eq!(log.touch(extent(10, 4), 2, HOT_MAX), Touch::Cold);
    assert_eq!(log.touch(extents(FILE, 3 * EXTENT_BYTES, u64::MAX - 3 * EXTENT_BYTES), 2, HOT_MAX), Touch::Cold);
    assert_eq!(log.touch(extent(10, 900), 2, HOT_MAX), Touch::Cold, "slots are told apart by where they begin");
    assert_eq!(log.touch(Hot::Whole { key: FILE }, 2, HOT_MAX), Touch::Cold);
    assert_eq!(log.touch(extent(10, 7_000), 2, HOT_MAX), Touch::Hot);
    assert_eq!(disk.write(&mut log), 1, "one block for all of them");
    assert!(disk.items().contains(&Hot::Whole { key: FILE }));
}

#[test]
fn a_directory_covers_what_is_made_in_it_until_a_round_ends() {
    let mut log = ActivityLog::default();
    assert_eq!(log.touch(Hot::Entries { key: DIR, since_ms: 100 }, 0, HOT_MAX), Touch::Cold);
    assert!(log.is_covered(DIR, 100) && log.is_covered(DIR, 150) && !log.is_covered(DIR, 99));
    assert_eq!(log.touch(Hot::Entries { key: DIR, since_ms: 120 }, 0, HOT_MAX), Touch::Hot);
    let round = log.begin_round(130);
    assert!(log.is_covered(DIR, 125), "still, and it is used after the round began");
    log.end_round(round);
    assert!(!log.is_covered(DIR, 130) && log.is_covered(DIR, 131), "what is older is on both disks");
    assert_eq!(log.touch(Hot::Entries { key: DIR, since_ms: 90 }, 0, HOT_MAX), Touch::Cold, "the clock was set back");
    let round = log.begin_round(140);
    log.end_round(round);
    assert!(log.is_empty());
}

#[test]
fn the_set_is_bounded_and_a_round_makes_room() {
    let mut log = ActivityLog::default();
    for n in 0..HOT_MAX as u64 {
        assert_eq!(log.touch(extent(n, 0), 2, HOT_MAX), Touch::Cold);
    }
    assert_eq!(log.touch(extent(9_999, 0), 2, HOT_MAX), Touch::Full);
    let round = log.begin_round(1);
    assert_eq!(log.touch(extent(5, 0), 2, HOT_MAX), Touch::Hot);
    log.end_round(round);
    assert_eq!(log.items().map(|(hot, _)| hot).collect::<Vec<_>>(), [extent(5, 0)], "it was touched after it began");
    assert_eq!(log.touch(extent(9_999, 0), 2, HOT_MAX), Touch::Cold);
}

#[test]
fn a_torn_block_is_nothing_and_a_damaged_one_means_everything() {
    let mut log = ActivityLog::default();
    let mut disk = Disk::new(&mut log);
    for n in 0..40 {
        assert_eq!(log.touch(extent(n, 0), 2, HOT_MAX), Touch::Cold);
        disk.flush(&mut log);
    }
    let before = disk.0.clone();
    let relied = disk.items();
    assert_eq!(relied.len(), 40);
    assert_eq!(log.touch(extent(99, 0), 2, HOT_MAX), Touch::Cold);
    let (at, block) = log.blocks(crc)[0];
    for sectors in 0..=255u32 {
        let mut torn = before.clone();
        for s in (0..8).filter(|s| sectors >> s & 1 == 1) {
            let range = s * 512..(s + 1) * 512;
            torn[at as usize + range.start..at as usize + range.end].copy_from_slice(&block[range]);
        }
        let items: Vec<_> = ActivityLog::recover(&torn, crc).unwrap().items().map(|(hot, _)| hot).collect();
        assert!(relied.iter().all(|hot| items.contains(hot)), "torn as {sectors:b}");
    }
    let last = at as usize - BLOCK_BYTES;
    let mut bad = before.clone();
    bad[last - BLOCK_BYTES + 100] ^= 1;
    assert!(matches!(ActivityLog::recover(&bad, crc), Err(LogError::Damaged(_))));
    assert_eq!(ActivityLog::recover(&before[1..], crc).unwrap_err(), LogError::Size);
    assert!(matches!(ActivityLog::recover(&vec![0; LOG_BYTES], crc), Err(LogError::Damaged(_))));
    // Numbers that nobody counts up to, under a right check sum (found by fuzzing).
    for field in [16, 24] {
        let mut bad = Disk::new(&mut ActivityLog::default()).0;
        // The first block has number 1.
        let block = &mut bad[BLOCK_BYTES..2 * BLOCK_BYTES];
        block[field..field + 8].fill(0xff);
        let sum = crc(&block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(ActivityLog::recover(&bad, crc), Err(LogError::Damaged(_))), "field {field}");
    }
}

#[test]
fn everything_is_remembered_until_the_log_begins_anew() {
    let mut log = ActivityLog::everything();
    let disk = Disk::new(&mut log);
    assert!(ActivityLog::recover(&disk.0, crc).unwrap().is_everything());
    assert_eq!(log.touch(extent(1, 0), 2, HOT_MAX), Touch::Hot, "said already");
    assert!(log.records().eq([Record::Everything]));
}

#[test]
fn what_becomes_of_it_in_a_change_map() {
    let mut log = ActivityLog::default();
    let _ = log.touch(extent(10, 2), 2, HOT_MAX);
    let _ = log.touch(extents(FileKey { dev: 1, ino: 11 }, 0, 0), 2, HOT_MAX);
    let _ = log.touch(Hot::Entries { key: DIR, since_ms: 5 }, 0, HOT_MAX);
    let _ = log.touch(Hot::Whole { key: FileKey { dev: 1, ino: 21 } }, 2, HOT_MAX);
    let records: Vec<_> = log.records().collect();
    assert!(records.contains(&Record::Zones { key: FILE, first: 128, end: 192 }));
    assert!(records.contains(&Record::Attributes { key: FileKey { dev: 1, ino: 11 } }));
    assert!(records.contains(&Record::Tree { key: FileKey { dev: 1, ino: 21 } }));
    assert!(records.contains(&Record::Entries { key: DIR, since_ms: 5 }));
}

/// Nearly all of it is zero: position and value of every other byte.
fn pack(log: &[u8]) -> Vec<u8> {
    let bytes = log.iter().zip(0u32..).filter(|(b, _)| **b != 0);
    bytes.flat_map(|(b, at)| at.to_le_bytes().into_iter().chain([*b])).collect()
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut log = vec![0; LOG_BYTES];
    for byte in packed.chunks(5) {
        log[u32::from_le_bytes(byte[..4].try_into().unwrap()) as usize] = byte[4];
    }
    log
}

/// Version 1, byte for byte: never edit.
#[test]
fn the_log_of_version_1_is_read_for_ever() {
    let mut log = ActivityLog::default();
    let _ = log.touch(extent(10, 3), 2, HOT_MAX);
    let _ = log.touch(Hot::Entries { key: DIR, since_ms: 1_795_332_600_000 }, 1, HOT_MAX);
    let _ = log.touch(Hot::Whole { key: FileKey { dev: 1, ino: 12 } }, 2, HOT_MAX);
    let mut disk = Disk::new(&mut log);
    let _ = log.touch(extents(FILE, 0, u64::MAX), 2, HOT_MAX);
    disk.flush(&mut log);
    if std::env::var_os("STEAD_GOLDEN").is_some() {
        std::fs::write("tests/golden/hot-v1.bin", pack(&disk.0)).unwrap();
    }
    let stored = include_bytes!("golden/hot-v1.bin");
    assert!(pack(&disk.0) == stored, "the bytes of version 1 have changed");
    let stored = unpack(stored);
    let log = ActivityLog::recover(&stored, crc).unwrap();
    assert_eq!(log.len(), 4);
    assert!(log.items().any(|(hot, dir)| hot == Hot::Entries { key: DIR, since_ms: 1_795_332_600_000 } && dir == 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Touches, flushes, lazily written rounds and power cuts that keep any subset of the sectors not flushed.
    #[test]
    fn whatever_was_relied_on_is_recovered(
        steps in proptest::collection::vec((0u8..8, 0u64..1500), 1..400),
        keep in proptest::collection::vec(any::<u8>(), 64),
    ) {
        let mut log = ActivityLog::default();
        let mut disk = log.whole(crc);
        let mut unflushed: Vec<(u64, [u8; BLOCK_BYTES])> = Vec::new();
        let mut relied = std::collections::BTreeSet::new();
        let mut round = None;
        for (what, n) in steps {
            match what {
                0..=4 => {
                    let hot = extent(n, 0);
                    if log.touch(hot, 2, HOT_MAX) == Touch::Full {
                        continue;
                    }
                    unflushed.extend(log.blocks(crc));
                    for (at, block) in unflushed.drain(..) {
                        disk[at as usize..][..BLOCK_BYTES].copy_from_slice(&block);
                    }
                    log.written();
                    relied.insert(hot);
                }
                5 => round = Some((log.begin_round(0), relied.clone())),
                6 => if let Some((began, before)) = round.take() {
                    log.end_round(began);
                    let now: std::collections::BTreeSet<_> = log.items().map(|(hot, _)| hot).collect();
                    relied.retain(|hot| now.contains(hot) || !before.contains(hot));
                    unflushed.extend(log.blocks(crc));
                    prop_assert!(!log.must_flush() || unflushed.len() as u64 <= UNFLUSHED_MAX);
                },
                _ => {
                    let mut after = disk.clone();
                    for (i, (at, block)) in unflushed.iter().enumerate() {
                        for s in (0..8).filter(|s| keep[i % keep.len()] >> s & 1 == 1) {
                            let from = *at as usize + s * 512;
                            after[from..from + 512].copy_from_slice(&block[s * 512..(s + 1) * 512]);
                        }
                    }
                    let found: std::collections::BTreeSet<_> =
                        ActivityLog::recover(&after, crc).unwrap().items().map(|(hot, _)| hot).collect();
                    prop_assert!(relied.is_subset(&found), "lost {:?}", relied.difference(&found).collect::<Vec<_>>());
                }
            }
        }
    }
}

/// A log with anything in it: an error ("compare everything"), or no more than a log can hold, never a panic.
#[test]
fn spoilt_logs_are_refused_or_bounded() {
    let mut random = 5u64;
    let mut next = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % end.max(1)
    };
    let mut log = ActivityLog::default();
    let mut disk = Disk::new(&mut log);
    for n in 0..40 {
        let _ = log.touch(extent(10 + n % 7, n), 0, HOT_MAX);
        disk.flush(&mut log);
    }
    let (mut refused, mut read) = (0, 0);
    for round in 0..600 {
        let mut bytes = disk.0.clone();
        for _ in 0..=next(4) {
            let block = next(48) * BLOCK_BYTES;
            let at = block + next(BLOCK_BYTES);
            bytes[at] = [0, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80][next(4)];
            // Now and then under a right checksum, wherever in the block that is.
            if round % 3 == 0 {
                let from = next(48) * BLOCK_BYTES;
                bytes.copy_within(from..from + BLOCK_BYTES, block);
            }
        }
        if round % 5 == 0 {
            bytes.truncate(next(bytes.len()));
        }
        match ActivityLog::recover(&bytes, crc) {
            Err(_) => refused += 1,
            Ok(log) => {
                read += 1;
                assert!(log.is_everything() || log.items().count() <= model::limits::HOT_TABLE);
            }
        }
    }
    assert!(refused > 0 && read > 0, "{refused} refused, {read} read");
}
