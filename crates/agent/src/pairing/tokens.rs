//! Tokens given out by this node: how long each is good, how often it may be missed, who used it.
//!
//! On disk as hashes, so that a restarted agent knows them. **Invariants:** at most [`OPEN_MAX`] are open; a used,
//! expired or missed-out token never opens again; wrong attempts are counted before their answer leaves.

use super::token::Token;
use crate::identity::{from_hex, to_hex, write_atomic};
use crate::places::Places;
use model::NodeName;
use platform::clock;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a token is good.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Wrong attempts that close the open tokens.
pub const WRONG_MAX: u8 = 5;
/// Tokens open at a time; the oldest is closed when another is made.
const OPEN_MAX: usize = 4;
/// Tokens remembered, the closed ones included, so that they can be told from wrong ones.
const KEPT_MAX: usize = 16;
/// Window of the rate limit.
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong attempts of one source in the window; further ones are not even looked at.
const PER_SOURCE: usize = 5;
/// And of all sources.
const IN_TOTAL: usize = 20;

/// Why a token opens nothing any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Closed {
    Used { by: NodeName },
    Missed,
    Replaced,
}

#[derive(Clone, Serialize, Deserialize)]
struct Given {
    id: String,
    key: String,
    made_unix_ms: u64,
    made_boot_ms: u64,
    boot: String,
    wrong: u8,
    #[serde(default)]
    closed: Option<Closed>,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    version: u32,
    given: Vec<Given>,
}

/// What an attempt comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Proven and open.
    Open,
    /// Proven, and too old.
    Expired,
    /// Proven, and closed.
    Closed(Closed),
    /// Not proven.
    Wrong,
    /// Not looked at.
    TooOften,
}

/// The clocks, so that tests can turn them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Now {
    pub unix_ms: u64,
    pub boot_ms: u64,
    pub boot: String,
    pub instant: Instant,
}

impl Now {
    pub fn read() -> Self {
        Self {
            unix_ms: clock::wall_ms(),
            boot_ms: clock::boot_ms(),
            // A kernel that does not say which boot this is: every token is from another one.
            boot: clock::boot_id().map_or_else(|_| String::new(), |id| format!("{id:032x}")),
            instant: Instant::now(),
        }
    }
}

impl Given {
    fn is_expired(&self, now: &Now) -> bool {
        let life = TOKEN_LIFE.as_millis() as u64;
        // A wall clock set back would make a token live for ever: in the same boot the boot clock decides as well, and
        // in another boot a token from the future is not believed.
        let by_wall = now.unix_ms.saturating_sub(self.made_unix_ms) > life;
        let by_boot = if now.boot == self.boot && !now.boot.is_empty() {
            now.boot_ms.saturating_sub(self.made_boot_ms) > life
        } else {
            now.unix_ms < self.made_unix_ms
        };
        by_wall || by_boot
    }

    fn is_open(&self, now: &Now) -> bool {
        self.closed.is_none() && !self.is_expired(now)
    }
}

struct State {
    given: Vec<Given>,
    wrong: VecDeque<(Instant, IpAddr)>,
}

/// All of them.
pub(super) struct Tokens {
    path: PathBuf,
    state: Mutex<State>,
}

impl Tokens {
    /// Reads what is kept; an unreadable file means no token is open, which is safe.
    pub fn open(places: &Places) -> Self {
        let path = places.var.join("tokens.json");
        let given = match std::fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str::<File>(&text) {
                Ok(file) if file.version <= 1 => file.given.into_iter().take(KEPT_MAX).collect(),
                _ => {
                    tracing::warn!(path = %path.display(), "the join tokens given out cannot be read: none is open");
                    Vec::new()
                }
            },
            Err(_) => Vec::new(),
        };
        Self { path, state: Mutex::new(State { given, wrong: VecDeque::new() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let json =
            serde_json::to_vec(&File { version: 1, given: state.given.clone() }).expect("plain data becomes JSON");
        write_atomic(&self.path, &json, 0o600)
    }

    /// Is a machine that shows no certificate to be listened to at all?
    pub fn any_open(&self) -> bool {
        let now = Now::read();
        self.state().given.iter().any(|given| given.is_open(&now))
    }

    /// Remembers a new token.
    pub fn give(&self, token: &Token, now: &Now) -> io::Result<()> {
        let mut state = self.state();
        let open: Vec<usize> = (0..state.given.len()).filter(|i| state.given[*i].is_open(now)).collect();
        if open.len() >= OPEN_MAX {
            state.given[open[0]].closed = Some(Closed::Replaced);
        }
        state.given.push(Given {
            id: to_hex(&token.id()),
            key: to_hex(&token.key()),
            made_unix_ms: now.unix_ms,
            made_boot_ms: now.boot_ms,
            boot: now.boot.clone(),
            wrong: 0,
            closed: None,
        });
        let surplus = state.given.len().saturating_sub(KEPT_MAX);
        state.given.drain(..surplus);
        self.write(&state)
    }

    /// The key of a token, if it was ever given; `check` then says whether the other side has it.
    pub fn attempt(
        &self,
        id: &str,
        source: IpAddr,
        now: &Now,
        check: impl FnOnce(&[u8; 32]) -> bool,
    ) -> (Attempt, Option<[u8; 32]>) {
        let mut state = self.state();
        while state.wrong.front().is_some_and(|(at, _)| now.instant.saturating_duration_since(*at) > WINDOW) {
            state.wrong.pop_front();
        }
        if state.wrong.len() >= IN_TOTAL || state.wrong.iter().filter(|(_, from)| *from == source).count() >= PER_SOURCE
        {
            return (Attempt::TooOften, None);
        }
        let given = state.given.iter().find(|given| given.id == id);
        if let Some((given, key)) = given.and_then(|given| Some((given, from_hex::<32>(&given.key)?)))
            && check(&key)
        {
            let attempt = match &given.closed {
                Some(closed) => Attempt::Closed(closed.clone()),
                None if given.is_expired(now) => Attempt::Expired,
                None => Attempt::Open,
            };
            return (attempt, Some(key));
        }
        state.wrong.push_back((now.instant, source));
        for given in state.given.iter_mut().filter(|given| given.is_open(now)) {
            given.wrong = given.wrong.saturating_add(1);
            if given.wrong >= WRONG_MAX {
                given.closed = Some(Closed::Missed);
                tracing::warn!(%source, "a join token was closed after {WRONG_MAX} wrong attempts");
            }
        }
        if let Err(error) = self.write(&state) {
            tracing::warn!(%error, path = %self.path.display(), "cannot note a wrong join attempt");
        }
        (Attempt::Wrong, None)
    }

    /// Closes a token for good.
    pub fn used(&self, id: &str, by: &NodeName) -> io::Result<()> {
        let mut state = self.state();
        for given in state.given.iter_mut().filter(|given| given.id == id) {
            given.closed = Some(Closed::Used { by: by.clone() });
        }
        self.write(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(minutes: u64) -> Now {
        let ms = minutes * 60_000;
        Now { unix_ms: 1_000_000_000 + ms, boot_ms: 1_000 + ms, boot: "boot".into(), instant: Instant::now() }
    }
    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }
    fn given() -> (tempfile::TempDir, Tokens, Token) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&Places::below(dir.path()));
        let token = Token::create(b"ca");
        tokens.give(&token, &now(0)).unwrap();
        (dir, tokens, token)
    }
    fn right(tokens: &Tokens, token: &Token, now: &Now) -> Attempt {
        tokens.attempt(&to_hex(&token.id()), source(1), now, |key| *key == token.key()).0
    }

    #[test]
    fn it_ends_after_an_hour_on_either_clock_and_after_a_restart_of_the_agent() {
        let (dir, tokens, token) = given();
        assert_eq!(right(&tokens, &token, &now(59)), Attempt::Open);
        assert_eq!(right(&tokens, &token, &now(61)), Attempt::Expired);
        let set_back = Now { unix_ms: 1_000_000_000 - 5_000_000, ..now(61) };
        assert_eq!(right(&tokens, &token, &set_back), Attempt::Expired, "the wall clock was set back");
        let other_boot = Now { boot: "other".into(), unix_ms: 999_000_000, boot_ms: 0, ..now(0) };
        assert_eq!(right(&tokens, &token, &other_boot), Attempt::Expired, "from the future, after a boot");
        let again = Tokens::open(&Places::below(dir.path()));
        assert_eq!(right(&again, &token, &now(59)), Attempt::Open);
        let kept = std::fs::read_to_string(dir.path().join("var/tokens.json")).unwrap();
        assert!(!kept.contains(&token.to_string()), "only hashes are kept");
    }

    #[test]
    fn it_is_used_once() {
        let (dir, tokens, token) = given();
        let by = NodeName::new("node2").unwrap();
        tokens.used(&to_hex(&token.id()), &by).unwrap();
        assert_eq!(right(&tokens, &token, &now(1)), Attempt::Closed(Closed::Used { by: by.clone() }));
        assert_eq!(
            right(&Tokens::open(&Places::below(dir.path())), &token, &now(1)),
            Attempt::Closed(Closed::Used { by })
        );
    }

    #[test]
    fn five_wrong_attempts_close_it_and_a_noisy_source_is_not_heard() {
        let (_dir, tokens, token) = given();
        for i in 0..5 {
            assert_eq!(tokens.attempt("00", source(10 + i), &now(1), |_| true).0, Attempt::Wrong);
        }
        assert_eq!(right(&tokens, &token, &now(1)), Attempt::Closed(Closed::Missed));

        let (_dir, tokens, token) = given();
        for _ in 0..4 {
            let wrong_proof = tokens.attempt(&to_hex(&token.id()), source(9), &now(1), |_| false).0;
            assert_eq!(wrong_proof, Attempt::Wrong);
        }
        let other = Token::create(b"ca");
        tokens.give(&other, &now(1)).unwrap();
        assert_eq!(tokens.attempt("00", source(9), &now(1), |_| true).0, Attempt::Wrong);
        assert_eq!(tokens.attempt("00", source(9), &now(1), |_| true).0, Attempt::TooOften);
        assert_eq!(
            right(&tokens, &other, &now(1)),
            Attempt::Open,
            "others are heard, and attempts not looked at do not count"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (_dir, tokens, _) = given();
        for _ in 0..100 {
            tokens.give(&Token::create(b"ca"), &now(1)).unwrap();
        }
        let state = tokens.state();
        assert_eq!(state.given.len(), KEPT_MAX);
        assert_eq!(state.given.iter().filter(|given| given.is_open(&now(1))).count(), OPEN_MAX);
    }
}
