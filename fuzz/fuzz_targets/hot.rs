//! The activity log on disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = replica::hot::ActivityLog::recover(bytes, crc32c::crc32c) {
        assert!(log.len() <= model::limits::HOT_TABLE);
    }
});
