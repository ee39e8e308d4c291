//! A frame of the link between two nodes.
#![no_main]

use replica::wire::{Envelope, HEADER_BYTES, Header, decode, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The header's beginning, length and check sum are made right, so that what is behind them is reached.
    let Some((head, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let mut head = *head;
    head[..4].copy_from_slice(&replica::wire::MAGIC.to_le_bytes());
    head[4] = replica::wire::VERSION;
    head[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[20..24].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let Ok(header) = Header::decode(&head) else { return };
    let Ok(message) = decode(&header, payload, crc32c::crc32c) else { return };
    let envelope = Envelope { session: header.session, epoch: header.epoch, lsn: header.lsn };
    let mut again = Vec::new();
    encode(&message, &envelope, crc32c::crc32c, &mut again);
    assert!(again.len() >= HEADER_BYTES);
});
