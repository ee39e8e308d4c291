//! What heartbeats say of farms: each farm module's whole word, behind the body.
//!
//! ```text
//! kind 1 (1 byte) | length (2 bytes, little endian) | is it all? (1 byte) | lines: module, hardware addresses, word (postcard)
//! kind 2          | length                          | milliseconds (2 bytes, little endian): the agent ends, its filters go on for so long
//! ```
//! A reader skips kinds that it does not know, and what it cannot read: a heartbeat counts all the same. Nothing is sent while there is
//! no farm.

use model::ModuleId;
use model::farm::{PAST_MAX, VIPS_MAX, Word};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const FARMS: u8 = 1;
const FAREWELL: u8 = 2;
const HEAD_BYTES: usize = 3;

/// What one node says of one farm.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Said {
    /// Hardware address of the interface that carries each virtual address, in the configuration's order.
    pub macs: Vec<[u8; 6]>,
    /// Digest of what its configuration says of addresses, groups and rules: two that differ are in no view together.
    pub traffic: u64,
    /// Of the membership.
    pub word: Word,
}

/// What a datagram says of farms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words {
    /// These are all farms of the sender, not a part.
    pub is_whole: bool,
    /// By module.
    pub of: BTreeMap<ModuleId, Said>,
    /// The sender's agent ends now, as planned, and what its filters do goes on for so long: its silence means nothing until then. 0: the agent
    /// that followed knows its farms. `None`: nothing new of that.
    pub away_ms: Option<u16>,
}

/// The last word of an agent that ends: what it said of its farms goes on.
pub fn farewell(away_ms: u16) -> Vec<u8> {
    let mut bytes = vec![FAREWELL, 2, 0];
    bytes.extend(away_ms.to_le_bytes());
    bytes.extend(UNKNOWN);
    bytes
}

/// "I do not know my farms": what was said before goes on.
const UNKNOWN: [u8; 4] = [FARMS, 1, 0, 0];

/// As many as fit into `room` bytes, beginning with number `turn`; and how many these were. `None`: the agent has just started and
/// does not know its modules yet: what it said before goes on.
pub fn encode(all: Option<&[(ModuleId, Said)]>, turn: usize, room: usize) -> (Vec<u8>, usize) {
    let Some(all) = all else {
        return (if UNKNOWN.len() <= room { UNKNOWN.to_vec() } else { Vec::new() }, 0);
    };
    if all.is_empty() {
        return (Vec::new(), 0);
    }
    let mut lines = vec![0];
    let mut count = 0;
    for line in all.iter().cycle().skip(turn % all.len()).take(all.len()) {
        let Ok(bytes) = postcard::to_allocvec(&(line.0.0, &line.1)) else { continue };
        if HEAD_BYTES + lines.len() + bytes.len() > room {
            break;
        }
        lines.extend(bytes);
        count += 1;
    }
    lines[0] = u8::from(count == all.len());
    let Ok(length) = u16::try_from(lines.len()) else { return (Vec::new(), 0) };
    if HEAD_BYTES + lines.len() > room {
        return (Vec::new(), 0);
    }
    let mut bytes = vec![FARMS];
    bytes.extend(length.to_le_bytes());
    bytes.extend(lines);
    (bytes, count)
}

/// What follows a body. Without a word of farms the sender has none.
pub fn decode(mut rest: &[u8]) -> Words {
    let (mut words, mut away_ms) = (None, None);
    while let [kind, low, high, after @ ..] = rest {
        let Some((told, next)) = after.split_at_checked(usize::from(u16::from_le_bytes([*low, *high]))) else { break };
        match *kind {
            FARMS if words.is_none() => words = Some(read(told)),
            FAREWELL => away_ms = told.try_into().ok().map(u16::from_le_bytes),
            _ => {}
        }
        rest = next;
    }
    Words { away_ms, ..words.unwrap_or(Words { is_whole: true, of: BTreeMap::new(), away_ms }) }
}

fn read(lines: &[u8]) -> Words {
    let Some((is_whole, mut lines)) = lines.split_first() else {
        return Words { is_whole: false, of: BTreeMap::new(), away_ms: None };
    };
    let mut words = Words { is_whole: *is_whole == 1, of: BTreeMap::new(), away_ms: None };
    while !lines.is_empty() {
        let Ok(((module, said), next)) = postcard::take_from_bytes::<(u16, Said)>(lines) else {
            words.is_whole = false;
            break;
        };
        lines = next;
        if said.macs.len() <= VIPS_MAX && said.word.view.as_ref().is_none_or(|view| view.past.len() <= PAST_MAX) {
            words.of.insert(ModuleId(module), said);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::NodeId;
    use model::farm::{NodeSet, View, Wish};

    fn said(counter: u64) -> Said {
        let set: NodeSet = (1..=8).map(NodeId).collect();
        let view = View { counter, director: NodeId(1), instance: 7, present: set, past: vec![set; PAST_MAX] };
        Said {
            macs: vec![[2, 0, 0, 0, 0, 1]],
            traffic: u64::MAX - counter,
            word: Word { wish: Wish::In, view: Some(view), highest: counter, hears: set },
        }
    }

    #[test]
    fn words_come_back_as_they_were_and_nothing_is_sent_without_farms() {
        let all = vec![(ModuleId(3), said(1)), (ModuleId(200), Said::default())];
        let (bytes, count) = encode(Some(&all), 0, 1_000);
        assert_eq!(count, 2);
        assert_eq!(decode(&bytes), Words { is_whole: true, of: all.into_iter().collect(), away_ms: None });
        assert_eq!(encode(Some(&[]), 0, 1_000), (Vec::new(), 0));
        assert_eq!(decode(&[]), Words { is_whole: true, of: BTreeMap::new(), away_ms: None });
        assert!(
            !decode(&encode(None, 0, 1_000).0).is_whole,
            "who does not know its modules yet does not say that it has none"
        );
    }

    #[test]
    fn a_farewell_says_for_how_long_and_takes_back_nothing() {
        let words = decode(&farewell(3_000));
        assert_eq!(words, Words { is_whole: false, of: BTreeMap::new(), away_ms: Some(3_000) });
        // In the bytes of the first version that has it: an older reader skips what it does not know, and reads the rest.
        assert_eq!(farewell(3_000), [2, 2, 0, 0xb8, 0x0b, 1, 1, 0, 0]);
        let (farms, _) = encode(Some(&[(ModuleId(3), said(1))]), 0, 1_000);
        assert_eq!(decode(&[&[FAREWELL, 1, 0, 7], &farms[..]].concat()), decode(&farms), "no number");
    }

    #[test]
    fn what_does_not_fit_takes_turns() {
        let all: Vec<_> = (1..=40).map(|module| (ModuleId(module), said(module.into()))).collect();
        let (mut turn, mut seen) = (0, BTreeMap::new());
        for _ in 0..20 {
            let (bytes, count) = encode(Some(&all), turn, 400);
            assert!(bytes.len() <= 400 && (1..40).contains(&count), "{count}");
            let words = decode(&bytes);
            assert!(!words.is_whole);
            seen.extend(words.of);
            turn = (turn + count) % all.len();
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn unknown_kinds_are_skipped_and_nonsense_is_no_word() {
        let (bytes, _) = encode(Some(&[(ModuleId(3), said(1))]), 0, 1_000);
        let mut after = vec![9, 2, 0, 1, 1];
        after.extend(&bytes);
        assert_eq!(decode(&after), decode(&bytes));
        for cut in 1..bytes.len() {
            let words = decode(&bytes[..cut]);
            assert!(words.of.is_empty(), "cut at {cut}");
        }
        assert!(decode(b"fields of a later version").of.is_empty());
    }
}
