//! The change map on disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((_, map)) = replica::map::ChangeMap::recover(bytes, crc32c::crc32c) {
        assert!(map.is_everything() || map.records().count() < bytes.len());
    }
});
