//! What scripts and operators said of resources of their own (`stead set`): it outlives the agent, not the machine, because nobody says it
//! again to an agent that is replaced.

use model::resource::Value;
use platform::store::write_atomic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Resources remembered; what is said of others is forgotten with the agent.
const SAID_MAX: usize = 256;

/// The last word on each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    words: BTreeMap<String, Word>,
    path: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Word {
    value: Value,
    why: String,
}

impl Said {
    /// As it was left in the module's directory below `/run`. What cannot be read is as if nothing had been said.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("said.json");
        let read = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { words: read.unwrap_or_default(), path }
    }

    /// Somebody says it.
    pub fn note(&mut self, name: &str, value: &Value, why: &str) {
        if self.words.len() >= SAID_MAX && !self.words.contains_key(name) {
            return;
        }
        self.words.insert(name.to_string(), Word { value: value.clone(), why: why.to_string() });
        let written = serde_json::to_vec(&self.words).map(|text| write_atomic(&self.path, &text, 0o600));
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what was said of a resource is forgotten when the agent is replaced");
        }
    }

    /// Name, value, and who said it.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Value, &str)> {
        self.words.iter().map(|(name, word)| (&**name, &word.value, &*word.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_there_for_the_next_agent() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Said::open(dir.path());
        said.note("custom.disk", &Value::Up, "set by an operator");
        said.note("custom.disk", &Value::Down, "set by diskcheck");
        (0..SAID_MAX + 5).for_each(|n| said.note(&format!("user.{n}"), &Value::Up, ""));
        let next = Said::open(dir.path());
        assert_eq!(next, said);
        assert!(next.all().any(|word| word == ("custom.disk", &Value::Down, "set by diskcheck")));
        assert_eq!(next.all().count(), SAID_MAX, "bounded");
        std::fs::write(dir.path().join("said.json"), "{").unwrap();
        assert_eq!(Said::open(dir.path()).all().count(), 0);
    }
}
