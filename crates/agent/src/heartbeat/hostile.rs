//! See [`crate::hostile`]: a datagram whose tag is right, and the words behind its body.

use super::wire::{self, Body, Digest};
use cluster::mirror::Advert;
use model::{ModuleId, ModuleState, Status};

const KEY: [u8; 32] = [7; 32];

/// `bytes`: what is between version and tag.
pub fn open(bytes: &[u8]) -> bool {
    let datagram = wire::sealed(bytes, &KEY);
    let Ok((body, behind)) = wire::decode_with(&datagram, &KEY) else { return false };
    let known = body.digests.iter().filter(|digest| digest.advert().is_some()).count();
    known <= body.digests.len() && super::words::decode(behind).of.len() <= datagram.len()
}

/// Bodies of one to thirty modules, with words behind some.
pub fn samples() -> Vec<Vec<u8>> {
    let advert = Advert { epoch: None, state: ModuleState::Prim, status: Status::Ready };
    (0..20u16)
        .map(|n| {
            let body = Body {
                cluster: u64::from(n),
                from: 1,
                to: 2,
                network: n.into(),
                incarnation: 3,
                sequence: u64::MAX - u64::from(n),
                instance: 5,
                sent_ms: 6,
                echo: (n % 2 == 0).then_some((7, 8)),
                hears: n % 3 == 0,
                is_whole: true,
                digests: (0..n).map(|m| Digest::new(ModuleId(m), &advert)).collect(),
            };
            let datagram = wire::encode_with(&body, &KEY, |_| vec![n as u8; usize::from(n)]);
            datagram[1..datagram.len() - wire::TAG_BYTES].to_vec()
        })
        .collect()
}
