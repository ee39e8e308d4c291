//! The change map: it may say too much, never too little, whatever happened to its bytes.

use model::ids::{Epoch, NodeId};
use proptest::prelude::*;
use replica::map::*;

const EPOCH: Epoch = Epoch { counter: 7, node: NodeId(2), random: 99 };
const KEY: FileKey = FileKey { dev: 1, ino: 10 };
const DIR: FileKey = FileKey { dev: 1, ino: 2 };

fn log(records: &[Record]) -> Vec<u8> {
    let mut bytes = encode_header(EPOCH, false, crc32c::crc32c).to_vec();
    for r in records {
        bytes.extend_from_slice(&encode_record(*r, crc32c::crc32c));
    }
    bytes
}

fn recover(bytes: &[u8]) -> Result<ChangeMap, MapError> {
    let (epoch, map) = ChangeMap::recover(bytes, crc32c::crc32c)?;
    assert_eq!(epoch, EPOCH);
    Ok(map)
}

const LINES: [Record; 3] = [
    Record::Entries { key: DIR, since_ms: 0 },
    Record::Zones { key: KEY, first: 3, end: 5 },
    Record::Attributes { key: KEY },
];

#[test]
fn a_zone_is_logged_once_and_a_growing_file_ever_more_rarely() {
    let mut map = ChangeMap::default();
    let (first, end) = zones(130_000, 10);
    assert_eq!((first, end), (1, 2));
    assert!(map.mark(Record::Zones { key: KEY, first, end }).is_some());
    assert!(map.mark(Record::Zones { key: KEY, first, end }).is_none());
    let flushes =
        (2..2000u64).filter(|z| map.mark(Record::Zones { key: KEY, first: *z, end: z + 1 }).is_some()).count();
    assert!(flushes < 50, "{flushes} flushes for 2000 zones in a row");
    assert_eq!(zones(100_000, u64::MAX - 100_000), (1, u64::MAX), "a truncation");
    assert_eq!(zones(65_536, 65_536), (1, 2));
}

#[test]
fn a_torn_end_is_nothing_and_a_damaged_middle_means_everything() {
    let whole = log(&LINES);
    let map = recover(&whole).unwrap();
    assert!(map.is_changed(KEY) && map.since(DIR) == Some(0), "from before there was a time: all files in it are new");
    for cut in 1..RECORD_BYTES {
        let map = recover(&whole[..whole.len() - cut]).unwrap();
        assert!(map.is_changed(KEY));
    }
    for at in HEADER_BYTES..HEADER_BYTES + 2 * RECORD_BYTES {
        let mut bad = whole.clone();
        bad[at] ^= 0x40;
        assert!(matches!(recover(&bad), Err(MapError::Record(_))), "byte {at}");
    }
    for at in 0..HEADER_BYTES {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        assert!(ChangeMap::recover(&bad, crc32c::crc32c).is_err(), "byte {at}");
    }
    assert!(ChangeMap::recover(b"", crc32c::crc32c).is_err());
}

#[test]
fn the_earliest_time_of_a_directory_counts_and_a_moved_thing_is_compared_whole() {
    let mut map = ChangeMap::default();
    assert!(map.mark(Record::Entries { key: DIR, since_ms: 9 }).is_some());
    assert!(map.mark(Record::Entries { key: DIR, since_ms: 12 }).is_none());
    assert!(map.mark(Record::Entries { key: DIR, since_ms: 7 }).is_some(), "the clock was set back");
    assert!(map.mark(Record::Tree { key: KEY }).is_some());
    let again = recover(&log(&map.records().collect::<Vec<_>>())).unwrap();
    assert_eq!(again, map);
    assert!(again.since(DIR) == Some(7) && again.is_moved(KEY) && again.is_changed(KEY));
    let mut lines = LINES.to_vec();
    lines.push(Record::Clean);
    assert!(recover(&log(&lines)).unwrap().is_changed(KEY), "what an older version ended with");
}

#[test]
fn where_a_moved_thing_was_at_first_is_remembered_and_read_back() {
    let mut map = ChangeMap::default();
    let mut logged = Vec::new();
    let long = [b'n'; 255];
    let other = FileKey { dev: 1, ino: 77 };
    let moves: [(FileKey, u64, &[u8]); 4] =
        [(KEY, 5, b"sixteen bytes...and more"), (other, 6, &long), (KEY, 9, b"its second place"), (DIR, 8, b"")];
    for (key, dir, name) in moves {
        let records = [Record::Tree { key }].into_iter().chain(replica::moves::records(key, dir, name));
        logged.extend(records.filter_map(|record| map.mark(record)));
    }
    let expected: [(FileKey, u64, &[u8]); 2] = [(KEY, 5, b"sixteen bytes...and more"), (other, 6, &long)];
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(map.origins().collect::<Vec<_>>(), expected);
    assert_eq!(recover(&log(&logged)).unwrap(), map);
    assert_eq!(recover(&log(&map.records().collect::<Vec<_>>())).unwrap(), map);
    // Cut off in the middle of a name: it moved, and nobody knows from where.
    let torn = recover(&log(&logged[..3])).unwrap();
    assert!(torn.is_moved(KEY) && torn.origins().count() == 0, "{logged:?}");
    let alone = recover(&log(&logged[1..4])).unwrap();
    assert!(alone.origins().count() == 0, "without the move itself it means nothing");
}

/// Version 1, byte for byte: never edit.
#[test]
fn the_log_of_version_1_is_read_for_ever() {
    let stored = include_bytes!("golden/map-v1.bin");
    assert_eq!(&log(&LINES)[..], &stored[..]);
    assert_eq!(recover(stored).unwrap().zones_of(KEY).collect::<Vec<_>>(), [(3, 5)]);
}

/// The records of moves, which came later, byte for byte: never edit.
#[test]
fn where_things_were_is_read_for_ever() {
    let stored = include_bytes!("golden/map-v1-moves.bin");
    let moved = replica::moves::records(KEY, 5, b"sixteen bytes...and more");
    let lines: Vec<Record> = [Record::Tree { key: KEY }].into_iter().chain(moved).collect();
    assert_eq!(&log(&lines)[..], &stored[..]);
    assert_eq!(recover(stored).unwrap().origins().next(), Some((KEY, 5, &b"sixteen bytes...and more"[..])));
}

proptest! {
    #[test]
    fn nothing_marked_is_ever_forgotten(writes in proptest::collection::vec((0u64..3, 0u64..200, 1u64..20), 1..200)) {
        let mut map = ChangeMap::default();
        let mut logged = Vec::new();
        for (ino, first, n) in &writes {
            let r = Record::Zones { key: FileKey { dev: 0, ino: *ino }, first: *first, end: first + n };
            logged.extend(map.mark(r));
        }
        let recovered = recover(&log(&logged)).unwrap();
        let compact = recover(&log(&map.records().collect::<Vec<_>>())).unwrap();
        for (ino, first, n) in writes {
            for zone in first..first + n {
                for m in [&map, &recovered, &compact] {
                    let key = FileKey { dev: 0, ino };
                    prop_assert!(m.zones_of(key).any(|(s, e)| s <= zone && zone < e));
                }
            }
        }
        prop_assert_eq!(&recovered, &compact);
    }
}

const BLOCK: u64 = model::limits::BLOCK_BYTES;
const EXTENT: u64 = model::limits::EXTENT_BYTES;

proptest! {
    /// By blocks and by zones, in a map that begins with something or nothing: every byte is in a stretch, nothing that was
    /// not written is called sure, and nobody who reads the log or the refined map knows less.
    #[test]
    fn changed_blocks_are_known_exactly_or_too_widely(
        old in proptest::collection::vec((0u64..400, 1u64..70), 0..3),
        writes in proptest::collection::vec((0u64..6 * 1_024, 1u64..40, 0u64..4_096, any::<bool>()), 1..60),
    ) {
        let before: Vec<_> = old.iter().map(|(first, n)| Record::Zones { key: KEY, first: *first, end: first + n }).collect();
        let mut map = recover(&log(&before)).unwrap();
        let mut logged = before.clone();
        let mut blocks = std::collections::BTreeSet::new();
        let mut zones_written = std::collections::BTreeSet::new();
        for (block, n, into, by_zone) in &writes {
            let (offset, len) = (block * BLOCK + into, n * BLOCK - into);
            if *by_zone {
                let (first, end) = zones(offset, len);
                logged.extend(map.mark(Record::Zones { key: KEY, first, end }));
                zones_written.extend(first..end);
            } else {
                logged.extend(map.mark_data(KEY, offset, len));
                blocks.extend(offset / BLOCK..(offset + len).div_ceil(BLOCK));
            }
        }
        let recovered = recover(&log(&logged)).unwrap();
        let compact = recover(&log(&map.records().collect::<Vec<_>>())).unwrap();
        let refined = recover(&log(&map.refined().records().collect::<Vec<_>>())).unwrap();
        let all = blocks.iter().map(|block| block * BLOCK)
            .chain(zones_written.iter().map(|zone| zone * 65_536))
            .chain(old.iter().flat_map(|(first, n)| (*first..first + n).map(|zone| zone * 65_536)));
        for byte in all {
            for m in [&map, &recovered, &compact, &refined] {
                prop_assert!(m.stretches_of(KEY).iter().any(|s| s.start <= byte && byte < s.end), "{byte}");
            }
        }
        let stretches = map.stretches_of(KEY);
        prop_assert!(stretches.windows(2).all(|two| two[0].end <= two[1].start && two[0].start < two[0].end));
        for sure in stretches.iter().filter(|s| s.is_sure) {
            prop_assert!((sure.start / BLOCK..sure.end / BLOCK).all(|b| {
                blocks.contains(&b) || zones_written.contains(&(b / 16))
            }), "{sure:?}");
            prop_assert!(sure.end - sure.start < 2 * 65_536);
        }
        prop_assert!(refined.count() == map.count());
        if old.is_empty() && zones_written.is_empty() {
            let zones: std::collections::BTreeSet<_> = blocks.iter().map(|b| b / 16).collect();
            prop_assert_eq!(map.count(), zones.len() as u64, "of a new map every zone is known");
            prop_assert!(logged.len() as u64 <= 1 + 6 * 1_024 * BLOCK / EXTENT + 1, "one flush an extent: {}", logged.len());
        }
    }
}

/// Any file at all, and every cut of a good one with changes in it: an error, a map, never a panic nor much memory.
#[test]
fn spoilt_maps_are_refused_or_read() {
    let mut random = 3u64;
    let mut next = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % end.max(1)
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut records = vec![];
        for _ in 0..next(5) {
            let edge = [0, 1, 4_096, u64::MAX - 1, u64::MAX][next(5)];
            let key = FileKey { dev: edge, ino: edge };
            let record = [Record::Zones { key, first: edge, end: edge }, Record::Zones { key, first: 0, end: edge }];
            records.push(record[next(2)]);
        }
        let mut bytes = log(&records);
        for _ in 0..next(3) {
            let at = next(bytes.len());
            bytes[at] ^= 1 << next(8);
        }
        bytes.truncate(bytes.len() - next(3) * next(bytes.len()) / 2);
        match ChangeMap::recover(&bytes, crc32c::crc32c) {
            Err(_) => refused += 1,
            Ok((_, map)) => assert!(map.entries() <= records.len() as u64 || map.is_everything()),
        }
    }
    assert!(refused > 1_000, "{refused}");
}
