//! Names that stay local to each node: `<notreplicated regexpath="…"/>`.
//!
//! Extended regular expressions, looked for anywhere in the name of one entry (its bytes), never in its path.
//! **Invariant:** both nodes have the same expressions, so they agree about every name.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use regex::bytes::{Regex, RegexBuilder};

/// Room of one compiled expression, in bytes.
const SIZE_MAX: usize = 1 << 20;

/// All expressions of one replicated directory.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    /// What matches stays local.
    hidden: Vec<Regex>,
    /// If there are any: only what matches one of them is replicated.
    only: Vec<Regex>,
}

impl Patterns {
    /// From the texts of the configuration; one that does not compile (the schema refuses it) hides nothing.
    #[must_use]
    pub fn new(texts: &[String]) -> Self {
        let mut patterns = Self::default();
        for text in texts {
            match (text.strip_prefix('!'), compile(text)) {
                (Some(_), Ok(regex)) => patterns.only.push(regex),
                (None, Ok(regex)) => patterns.hidden.push(regex),
                (_, Err(_)) => {}
            }
        }
        patterns
    }

    /// Does an entry of this name stay local?
    #[must_use]
    pub fn hide(&self, name: &[u8]) -> bool {
        self.hidden.iter().any(|regex| regex.is_match(name))
            || (!self.only.is_empty() && !self.only.iter().any(|regex| regex.is_match(name)))
    }

    /// No name stays local.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hidden.is_empty() && self.only.is_empty()
    }
}

/// One expression, looked for anywhere in a text.
#[derive(Clone, Debug)]
pub struct Expression(Regex);

impl Expression {
    /// Of the configuration, which the schema has checked; `None`: it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        compile(text).ok().map(Self)
    }

    /// Is it in there?
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// Is it an expression?
///
/// # Errors
/// Why not.
pub fn check(text: &str) -> Result<(), String> {
    if text.trim_start_matches('!').is_empty() {
        return Err("it is empty".into());
    }
    compile(text).map(drop)
}

fn compile(text: &str) -> Result<Regex, String> {
    let text = text.strip_prefix('!').unwrap_or(text);
    // Names are bytes, and a newline is an ordinary one.
    let built = RegexBuilder::new(text).unicode(false).dot_matches_new_line(true).size_limit(SIZE_MAX).build();
    // The last line of the error says what is wrong; those before it draw where.
    built.map_err(|e| e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        Patterns::new(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_matches_stays_local_and_with_a_bang_what_does_not() {
        let tmp = patterns(&[r".*\.tmp$", "^cache"]);
        assert!(tmp.hide(b"a.tmp") && tmp.hide(b"caches") && tmp.hide(b"\xff\n.tmp"));
        assert!(!tmp.hide(b"a.tmp2") && !tmp.hide(b"my-cache"));
        let only = patterns(&[r"!\.(mdf|ldf)$", "!^x", "^xy"]);
        assert!(!only.hide(b"a.mdf") && !only.hide(b"x") && only.hide(b"xy") && only.hide(b"other"));
        assert!(!patterns(&[]).hide(b"a") && patterns(&[]).is_empty());
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_reason() {
        assert_eq!(check("[[:alnum:]_]+|a{2,3}"), Ok(()));
        for bad in ["(", "[a", "", "!", "a{99999999}"] {
            assert!(check(bad).is_err_and(|why| !why.is_empty()), "{bad}");
        }
    }
}
