//! Resources: what checkers, heartbeats and the data plane say, under names that failover rules use.
//!
//! `class.name`: `tcp.http`, `proc.postgres`, `heartbeat.net1`, `rfs.uptodate`, `state.local`.

use alloc::string::{String, ToString};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest word a resource may hold.
pub const WORD_MAX: usize = 64;

/// What a resource is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Value {
    /// Looked at, and not known yet.
    #[default]
    Init,
    /// Well.
    Up,
    /// Not well.
    Down,
    /// Nobody can say: the other node is silent, the checker is off.
    Unknown,
    /// One of the words of resources that are neither up nor down: `PRIM`, `3`.
    Word(String),
}

impl Value {
    /// Of what a person writes; `None`: no value is written like that.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        Some(match text {
            "init" => Self::Init,
            "up" => Self::Up,
            "down" => Self::Down,
            "unknown" => Self::Unknown,
            _ => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                if text.is_empty() || text.len() > WORD_MAX || !text.bytes().all(plain) {
                    return None;
                }
                Self::Word(text.to_string())
            }
        })
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Init => "init",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Word(word) => word,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("no value of a resource"))
    }
}

/// Is it `class.name`, as a person may write one?
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    let Some((class, name)) = text.split_once('.') else { return false };
    !class.is_empty() && !name.is_empty() && text.len() <= 160 && text.bytes().all(plain)
}
