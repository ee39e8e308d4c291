//! The activity log on disk.
#![no_main]

use replica::hot::{ActivityLog, BLOCK_BYTES, LOG_BYTES};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Every block begins as one does and has the right check sum, so that what is in it is reached.
    let mut log = vec![0; LOG_BYTES];
    for (block, part) in log.chunks_exact_mut(BLOCK_BYTES).zip(bytes.chunks(512)) {
        block[8..8 + part.len()].copy_from_slice(part);
        block[4..8].copy_from_slice(b"SHot");
        block[8..10].copy_from_slice(&1u16.to_le_bytes());
        let sum = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(log) = ActivityLog::recover(&log, crc32c::crc32c) {
        assert!(log.len() <= model::limits::HOT_TABLE);
        assert!(log.records().count() <= 2 * model::limits::HOT_TABLE);
    }
});
