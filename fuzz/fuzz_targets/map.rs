//! The change map on disk.
#![no_main]

use model::ids::{Epoch, NodeId};
use replica::map::{ChangeMap, RECORD_BYTES, encode_header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Header and check sums are made right, so that the records are reached; and once as it is.
    let _ = ChangeMap::recover(bytes, crc32c::crc32c);
    let mut log = encode_header(Epoch { counter: 1, node: NodeId(1), random: 1 }, true, crc32c::crc32c).to_vec();
    for record in bytes.chunks_exact(RECORD_BYTES - 4) {
        log.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        log.extend_from_slice(record);
    }
    if let Ok((_, map)) = ChangeMap::recover(&log, crc32c::crc32c) {
        assert!(map.is_everything() || map.records().count() < log.len());
        let _ = map.refined();
    }
});
