//! Decoders of what comes from outside, fed with altered copies of what is right: each ends at once with a value or with a
//! finding, and none of them panics, hangs or takes memory without bound.
//!
//! `STEAD_HOSTILE_ROUNDS=n`: altered copies per sample (default 1000). The seed is fixed: a failure repeats.

use agent::hostile::DOORS;
use agent::modules::Package;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One copy that takes longer than this would be a way to stop an agent.
const AT_ONCE: Duration = Duration::from_secs(2);

fn rounds() -> usize {
    std::env::var("STEAD_HOSTILE_ROUNDS").map_or(1_000, |n| n.parse().expect("a number"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// One to three changes: a bit, a byte that means something, a piece gone, repeated, or moved, an end too early.
    fn altered(&mut self, bytes: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"<>&;\"'=/!?-[](){}%\\0123456789 \n\r\t\0\xff\xc3\x80PK";
        let mut copy = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(copy.len());
            let until = (at + 1 + self.below(40)).min(copy.len());
            match self.below(12) {
                0 if at < copy.len() => copy[at] ^= 1 << self.below(8),
                1 => copy.insert(at, TELLING[self.below(TELLING.len())]),
                2 => drop(copy.drain(at..until)),
                3 => {
                    let piece = copy[at..until].to_vec();
                    let times = 1 + self.below(20);
                    copy.splice(at..at, piece.repeat(times));
                }
                4 => {
                    let piece: Vec<u8> = copy.drain(at..until).collect();
                    let to = self.below(copy.len());
                    copy.splice(to..to, piece);
                }
                5 => copy.truncate(at.max(1)),
                // What stays well-formed gets further: a letter or digit for another.
                _ => {
                    if let Some(byte) = copy.get_mut(at).filter(|byte| byte.is_ascii_alphanumeric()) {
                        *byte = b"0123456789aeinorstxyz"[self.below(21)];
                    }
                }
            }
        }
        copy
    }
}

/// Plays every sample altered; how many were accepted and how many refused.
fn play<T>(samples: &[Vec<u8>], decode: impl Fn(&[u8]) -> Option<T>) -> (usize, usize) {
    let (mut random, mut accepted, mut refused) = (Random(7), 0, 0);
    for sample in samples {
        for round in 0..rounds() {
            let copy = random.altered(sample);
            let began = Instant::now();
            if decode(&copy).is_some() {
                accepted += 1
            } else {
                refused += 1
            }
            let took = began.elapsed();
            assert!(took < AT_ONCE, "round {round}: {took:?} for {:?}", String::from_utf8_lossy(&copy));
        }
    }
    println!("{} samples: {accepted} copies accepted, {refused} refused", samples.len());
    (accepted, refused)
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn corpus(is_chosen: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(home().join("tests/configuration"))
        .expect("the corpus")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "xml"))
        .filter(|path| is_chosen(&path.file_stem().unwrap_or_default().to_string_lossy()))
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("read")).collect()
}

/// Samples of a door that its own crate has none of: those that stand in files.
fn in_files(door: &str) -> Vec<Vec<u8>> {
    let package =
        |name: &str| Package::from_folder(&home().join("../../modules").join(name)).expect("a module of ours");
    match door {
        "userconfig" => corpus(|name| !name.starts_with("cluster")),
        "cluster" => corpus(|name| name.starts_with("cluster")),
        "safe" => ["mirror", "postgresql"].iter().map(|name| package(name).to_archive(name).expect("packed")).collect(),
        other => panic!("nothing right is known for the door {other}"),
    }
}

#[test]
fn no_altered_copy_of_what_is_right_does_harm() {
    for door in DOORS {
        let own = (door.samples)();
        for sample in &own {
            assert!((door.open)(sample), "{} refuses {:?}", door.name, String::from_utf8_lossy(sample));
        }
        let samples = if own.is_empty() { in_files(door.name) } else { own };
        print!("{}: ", door.name);
        let (accepted, refused) = play(&samples, |bytes| (door.open)(bytes).then_some(()));
        assert!(refused > 0, "{} accepts everything", door.name);
        // What carries a check sum is accepted only where it was not altered.
        assert!(accepted > 0 || matches!(door.name, "token" | "safe"), "{} accepts nothing", door.name);
    }
}
