//! Answers to questions for a virtual IP's hardware address, made of the question: `filter.c` writes the same bytes.

use super::be16;

/// The answer that names a hardware address no frame comes from: the kernel would name its own.
pub(super) fn four(frame: &mut [u8], eth: &[u8; 14], question: &[u8; 28], mac: [u8; 6], vmac: [u8; 6]) {
    frame[..6].copy_from_slice(&eth[6..12]);
    frame[6..12].copy_from_slice(&mac);
    frame[20..22].copy_from_slice(&[0, 2]);
    frame[22..28].copy_from_slice(&vmac);
    frame[28..32].copy_from_slice(&question[24..28]);
    frame[32..42].copy_from_slice(&question[8..18]);
}

/// The same for IPv6. A question without room for an option gets none: who asks so knows the address, or only whether somebody has it.
pub(super) fn six(frame: &mut [u8], eth: &[u8; 14], head: &[u8; 40], nd: &[u8; 24], mac: [u8; 6], vmac: [u8; 6]) {
    let is_nobody = head[8..24] == [0; 16];
    let has_option = be16(head, 4) >= 32 && frame.len() >= 86;
    let bytes = if has_option { 32 } else { 24 };
    let (mut to, mut to_mac) = ([0; 16], [0x33, 0x33, 0, 0, 0, 1]);
    if is_nobody {
        (to[0], to[1], to[15]) = (0xff, 2, 1);
    } else {
        to.copy_from_slice(&head[8..24]);
        to_mac.copy_from_slice(&eth[6..12]);
    }
    // "In place of what you have"; and, to somebody, "as you asked".
    let flags = if is_nobody { 0x20 } else { 0x60 };
    let it = [
        &to_mac[..],
        &mac,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, bytes, 58, 255],
        &nd[8..],
        &to,
        &[136, 0, 0, 0, flags, 0, 0, 0],
        &nd[8..],
        &[2, 1],
        &vmac,
    ]
    .concat();
    let length = 54 + usize::from(bytes);
    let it = &it[..length];
    let words = it[22..].chunks_exact(2).map(|word| u32::from(be16(word, 0)));
    let mut sum = words.sum::<u32>() + 58 + u32::from(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[..length].copy_from_slice(it);
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
