//! The heartbeat datagram.
//!
//! ```text
//! version (1 byte) | body (postcard) | keyed BLAKE3 tag of everything before it (16 bytes)
//! ```
//! The tag is checked before a byte of the body is read. The body of a version only grows at its end: a reader ignores
//! what follows the fields it knows, so a newer minor version is understood. **Version 1 is frozen** by stored bytes.

use cluster::detector::Pulse;
use cluster::mirror::Advert;
use model::{Epoch, ModuleId, ModuleState, NodeId, Status};
use serde::{Deserialize, Serialize};

/// Major version: another one is not understood.
const VERSION: u8 = 1;
pub(super) const TAG_BYTES: usize = 16;
/// No datagram is longer: fits every Ethernet without fragments.
pub const DATAGRAM_MAX: usize = 1_200;
/// Modules told per datagram (about 12 bytes each); with more, they take turns.
pub(super) const DIGESTS_MAX: usize = 30;
/// The same, where a farm has something to say: its longest word must have room beside them.
pub(super) const DIGESTS_BESIDE_WORDS_MAX: usize = 20;

/// What a heartbeat says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Body {
    /// Identity of the cluster.
    pub cluster: u64,
    /// Sending node.
    pub from: u16,
    /// Node it is meant for.
    pub to: u16,
    /// Network it is meant for: [`network_id`].
    pub network: u32,
    /// Starts of the sender's agent.
    pub incarnation: u64,
    /// Unique among all datagrams of this instance, growing.
    pub sequence: u64,
    /// Random number of the sender's start.
    pub instance: u64,
    /// Sender's boot-time clock.
    pub sent_ms: u64,
    /// Newest pulse the sender heard of the receiver: its instance and its `sent_ms`.
    pub echo: Option<(u64, u64)>,
    /// The sender hears the receiver on this network.
    pub hears: bool,
    /// `digests` are all the sender's modules, not a part.
    pub is_whole: bool,
    /// The sender's modules.
    pub digests: Vec<Digest>,
}

/// One module on the sender. States are numbers here, so that an unknown one costs one digest, not the heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Digest {
    module: u16,
    epoch: Option<(u64, u16, u32)>,
    state: u8,
    status: u8,
}

impl Body {
    pub(super) const fn pulse(&self) -> Pulse {
        Pulse { instance: self.instance, sent_ms: self.sent_ms, echo: self.echo, hears: self.hears }
    }
}

impl Digest {
    pub(super) fn new(module: ModuleId, advert: &Advert) -> Self {
        let state = match advert.state {
            ModuleState::Stop => 0,
            ModuleState::Wait => 1,
            ModuleState::Alone => 2,
            ModuleState::Prim => 3,
            ModuleState::Second => 4,
            ModuleState::Up => 5,
        };
        let status = match advert.status {
            Status::NotReady => 0,
            Status::Transient => 1,
            Status::Ready => 2,
        };
        let epoch = advert.epoch.map(|epoch| (epoch.counter, epoch.node.0, epoch.random));
        Self { module: module.0, epoch, state, status }
    }

    /// `None`: a state this version does not know.
    pub(super) fn advert(&self) -> Option<(ModuleId, Advert)> {
        let state = match self.state {
            0 => ModuleState::Stop,
            1 => ModuleState::Wait,
            2 => ModuleState::Alone,
            3 => ModuleState::Prim,
            4 => ModuleState::Second,
            5 => ModuleState::Up,
            _ => return None,
        };
        let status = match self.status {
            0 => Status::NotReady,
            1 => Status::Transient,
            2 => Status::Ready,
            _ => return None,
        };
        let epoch = self.epoch.map(|(counter, node, random)| Epoch { counter, node: NodeId(node), random });
        Some((ModuleId(self.module), Advert { epoch, state, status }))
    }
}

/// Why bytes are not a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Length or version.
    Garbage,
    /// Tag.
    Forged,
    /// Authentic, and not readable.
    Unreadable,
}

/// Tells networks apart in datagrams: what was said on one must not be repeated on another.
pub(super) fn network_id(name: &str) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("a hash has 32 bytes"))
}

/// The datagram of this body, and nothing behind it.
#[cfg(test)]
pub(super) fn encode(body: &Body, key: &[u8; 32]) -> Vec<u8> {
    encode_with(body, key, |_| Vec::new())
}

/// The datagram of this body; what is `behind` it may have so many bytes.
pub(super) fn encode_with(body: &Body, key: &[u8; 32], behind: impl FnOnce(usize) -> Vec<u8>) -> Vec<u8> {
    let mut datagram = postcard::to_extend(body, vec![VERSION]).expect("plain integers always fit into memory");
    let more = behind(DATAGRAM_MAX.saturating_sub(datagram.len() + TAG_BYTES));
    datagram.extend_from_slice(&more);
    let tag = tag(&datagram, key);
    datagram.extend_from_slice(&tag);
    datagram
}

/// A datagram with a right tag, whatever is in it.
pub(super) fn sealed(body: &[u8], key: &[u8; 32]) -> Vec<u8> {
    let mut datagram = [&[VERSION], body].concat();
    let tag = tag(&datagram, key);
    datagram.extend_from_slice(&tag);
    datagram
}

/// The body of an authentic datagram. Cost: one hash of at most [`DATAGRAM_MAX`] bytes, whatever comes.
#[cfg(test)]
pub(super) fn decode(datagram: &[u8], key: &[u8; 32]) -> Result<Body, Refusal> {
    decode_with(datagram, key).map(|(body, _)| body)
}

/// The same, and what is behind it.
pub(super) fn decode_with<'a>(datagram: &'a [u8], key: &[u8; 32]) -> Result<(Body, &'a [u8]), Refusal> {
    if datagram.len() > DATAGRAM_MAX || datagram.len() <= TAG_BYTES || datagram[0] != VERSION {
        return Err(Refusal::Garbage);
    }
    let (signed, claimed) = datagram.split_at(datagram.len() - TAG_BYTES);
    if !is_equal(&tag(signed, key), claimed) {
        return Err(Refusal::Forged);
    }
    // What follows the fields known here: words of farms, and what belongs to a newer minor version.
    postcard::take_from_bytes(&signed[1..]).map_err(|_| Refusal::Unreadable)
}

fn tag(bytes: &[u8], key: &[u8; 32]) -> [u8; TAG_BYTES] {
    let hash = blake3::keyed_hash(key, bytes);
    hash.as_bytes()[..TAG_BYTES].try_into().expect("a hash has 32 bytes")
}

/// In constant time: where two tags differ must not be measurable.
fn is_equal(tag: &[u8; TAG_BYTES], claimed: &[u8]) -> bool {
    claimed.len() == TAG_BYTES && tag.iter().zip(claimed).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::super::words::{self, Said};
    use super::*;
    use model::farm::{NODE_MAX, NodeSet, PAST_MAX, VIPS_MAX, View, Wish, Word};

    const KEY: [u8; 32] = [7; 32];

    fn body() -> Body {
        let epoch = Some(Epoch { counter: 3, node: NodeId(1), random: 0xdead_beef });
        Body {
            cluster: 0x0123_4567_89ab_cdef,
            from: 1,
            to: 2,
            network: network_id("net1"),
            incarnation: 12,
            sequence: 345,
            instance: 0xfeed_face_cafe_beef,
            sent_ms: 1_234_567,
            echo: Some((0x1111_2222_3333_4444, 7_654_321)),
            hears: true,
            is_whole: true,
            digests: vec![
                Digest::new(ModuleId(1), &Advert { epoch, state: ModuleState::Prim, status: Status::Ready }),
                Digest::new(ModuleId(200), &Advert { epoch: None, state: ModuleState::Wait, status: Status::NotReady }),
            ],
        }
    }

    /// What a node of version 1 sent: every later version must understand it, byte for byte.
    #[test]
    fn stored_bytes_of_version_1_are_understood() {
        let stored = include_bytes!("stored/heartbeat-v1.bin");
        assert_eq!(decode(stored, &KEY), Ok(body()));
        assert_eq!(encode(&body(), &KEY), stored, "what we send is what version 1 understands");
    }

    #[test]
    fn a_newer_minor_version_is_understood() {
        let mut datagram = encode(&body(), &KEY);
        datagram.truncate(datagram.len() - TAG_BYTES);
        datagram.extend_from_slice(b"fields of a later version");
        let tag = tag(&datagram, &KEY);
        datagram.extend_from_slice(&tag);
        assert_eq!(decode(&datagram, &KEY), Ok(body()));
    }

    #[test]
    fn a_state_of_the_future_costs_one_digest() {
        let mut newer = body();
        newer.digests[0].state = 99;
        let read = decode(&encode(&newer, &KEY), &KEY).unwrap();
        assert_eq!(read.digests.iter().filter_map(Digest::advert).count(), 1);
    }

    #[test]
    fn no_altered_cut_or_lengthened_datagram_passes() {
        let datagram = encode(&body(), &KEY);
        for at in 0..datagram.len() {
            for bit in 0..8 {
                let mut altered = datagram.clone();
                altered[at] ^= 1 << bit;
                assert!(decode(&altered, &KEY).is_err(), "byte {at} bit {bit}");
            }
            assert!(decode(&datagram[..at], &KEY).is_err(), "cut at {at}");
        }
        let mut longer = datagram.clone();
        longer.push(0);
        assert_eq!(decode(&longer, &KEY), Err(Refusal::Forged));
        assert_eq!(decode(&datagram, &[8; 32]), Err(Refusal::Forged));
        assert_eq!(decode(&[VERSION; 9_000], &KEY), Err(Refusal::Garbage));
        assert_eq!(decode(&[], &KEY), Err(Refusal::Garbage));
    }

    /// Somebody who has the key, and sends nonsense: an error, never a panic, never much memory.
    #[test]
    fn authentic_nonsense_is_refused() {
        let mut random = 1u64;
        let mut refused = 0;
        for round in 0..20_000 {
            let mut datagram = vec![VERSION];
            for _ in 0..round % 90 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Large and small bytes alike, so that lengths and options are met in every form.
                datagram.push(if random >> 63 == 0 { (random >> 40) as u8 } else { (random >> 40) as u8 & 3 });
            }
            let tag = tag(&datagram, &KEY);
            datagram.extend_from_slice(&tag);
            refused += u32::from(decode(&datagram, &KEY).is_err());
        }
        assert!(refused > 10_000, "{refused}");
        let whole = encode(&body(), &KEY);
        for cut in 1..whole.len() - TAG_BYTES {
            let mut datagram = whole[..cut].to_vec();
            let tag = tag(&datagram, &KEY);
            datagram.extend_from_slice(&tag);
            assert_eq!(decode(&datagram, &KEY), Err(Refusal::Unreadable), "cut at {cut}");
        }
    }

    #[test]
    fn the_largest_datagram_fits() {
        let epoch = Some(Epoch { counter: u64::MAX, node: NodeId(u16::MAX), random: u32::MAX });
        let digest = Digest::new(ModuleId(u16::MAX), &Advert { epoch, state: ModuleState::Up, status: Status::Ready });
        let largest = Body {
            cluster: u64::MAX,
            from: u16::MAX,
            to: u16::MAX,
            network: u32::MAX,
            incarnation: u64::MAX,
            sequence: u64::MAX,
            instance: u64::MAX,
            sent_ms: u64::MAX,
            echo: Some((u64::MAX, u64::MAX)),
            hears: true,
            is_whole: false,
            digests: vec![digest; DIGESTS_MAX],
        };
        let length = encode(&largest, &KEY).len();
        assert!(length <= DATAGRAM_MAX, "{length}");
        // The longest word of a farm: 64 nodes with the highest numbers, every address, the longest past.
        let beside = Body { digests: vec![digest; DIGESTS_BESIDE_WORDS_MAX], ..largest };
        let set: NodeSet = (65..=NODE_MAX).map(NodeId).collect();
        let (counter, past) = (u64::MAX, vec![set; PAST_MAX]);
        let view = View { counter, director: NodeId(NODE_MAX), instance: u32::MAX, present: set, past };
        let word = Word { wish: Wish::Drain, view: Some(view), highest: u64::MAX, hears: set };
        let said = Said { macs: vec![[0xff; 6]; VIPS_MAX], traffic: u64::MAX, word };
        let mut told = 0;
        let datagram = encode_with(&beside, &KEY, |room| {
            let (bytes, count) = words::encode(Some(&[(ModuleId(u16::MAX), said)]), 0, room);
            told = count;
            bytes
        });
        assert!(told == 1 && datagram.len() <= DATAGRAM_MAX, "{} bytes", datagram.len());
        let usual = Body { digests: vec![body().digests[0]; DIGESTS_MAX], ..body() };
        let length = encode(&usual, &KEY).len();
        assert!(length < 500, "{length}");
    }
}
