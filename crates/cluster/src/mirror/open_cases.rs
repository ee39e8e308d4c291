//! L1, L2, L3: what no protocol can close (protocol.md §1, docs/GUARANTEES.md). Named while a module is in one, or one failure away.
//!
//! Reads the automaton and changes nothing.

use super::reason::Reason;
use super::state::{Mirror, Peer, State};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use model::date::utc;
use model::{DataState, Epoch};
use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenCase {
    /// L1, L2 or L3.
    pub label: String,
    /// The module is in it; otherwise one more failure leads there.
    pub now: bool,
    /// What that means here.
    pub sentence: String,
}

impl Mirror {
    /// The witness granted the other node an epoch that this copy does not contain, and said so last.
    #[must_use]
    pub fn waits_for_holder(&self) -> bool {
        self.why == Reason::WaitsWitnessHeld
    }

    /// That epoch, as far as it is known.
    #[must_use]
    pub const fn granted(&self) -> Option<Epoch> {
        self.told.granted
    }

    pub(super) fn open_cases(&self) -> Vec<OpenCase> {
        let one = |label: &str, found: Option<(bool, String)>| {
            found.map(|(now, sentence)| OpenCase { label: label.into(), now, sentence })
        };
        [one("L1", self.unheard_opening()), one("L2", self.crashed_alone()), one("L3", self.forgotten())]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The right went to a node that nobody heard use it.
    fn unheard_opening(&self) -> Option<(bool, String)> {
        let (node, peer) = (&self.settings.node_name, &self.settings.peer_name);
        let gone = !matches!(self.peer, Peer::Heard(_));
        match &self.state {
            State::Claim(_) | State::Opening => Some((
                false,
                format!(
                    "{node} is taking over: should it fail before {peer} hears it serve, {peer} waits for it or for stead prim --force"
                ),
            )),
            State::Wait if gone && self.waits_for_holder() => {
                let granted = self.told.granted.map_or_else(|| "an epoch".into(), |epoch| format!("epoch {epoch}"));
                let when = self.told.granted_unix_ms.map_or_else(String::new, |at| format!(" at {}", utc(at / 1_000)));
                Some((
                    true,
                    format!(
                        "the witness granted {peer} {granted}{when}, and {peer} was never heard to serve under it: {node}, complete or not, waits for {peer} or for stead prim --force"
                    ),
                ))
            }
            // After an orderly end the peer was serving already.
            State::Wait if gone && self.record.yielded && !self.left_clean => Some((
                true,
                format!(
                    "{node} yielded to {peer}, and {peer} is not heard: {node} waits for {peer} or for stead prim --force"
                ),
            )),
            State::Wait if self.record.yielded && !self.left_clean && !self.peer_serves() => Some((
                false,
                format!(
                    "{node} yielded to {peer}, which does not serve yet: should {peer} fail first, {node} waits for it or for stead prim --force"
                ),
            )),
            _ => None,
        }
    }

    /// A copy that lost power serves because the other is not heard.
    fn crashed_alone(&self) -> Option<(bool, String)> {
        let (node, peer) = (&self.settings.node_name, &self.settings.peer_name);
        match &self.state {
            State::Claim(_) | State::Opening | State::Alone { .. } | State::Commit { .. } if self.told.crashed => {
                Some((
                    true,
                    format!(
                        "{node} lost power while mirrored and serves without {peer}: writes of that instant that no application had synced may be missing; synced ones are here"
                    ),
                ))
            }
            State::Wait
                if self.by_witness()
                    && self.record.data == DataState::Crashed
                    && !self.record.yielded
                    && !matches!(self.peer, Peer::Heard(_)) =>
            {
                Some((
                    false,
                    format!(
                        "{node} lost power while mirrored, {peer} is not heard: {node} serves when the witness does not hear {peer} either, without what no application had synced at that instant"
                    ),
                ))
            }
            _ => None,
        }
    }

    /// The witness has no memory, and who could give it one is missing.
    fn forgotten(&self) -> Option<(bool, String)> {
        let (node, peer) = (&self.settings.node_name, &self.settings.peer_name);
        if !self.by_witness() || self.voter().is_none() {
            return None;
        }
        let gone = !matches!(self.peer, Peer::Heard(_));
        match &self.state {
            State::Wait if gone && self.why == Reason::WaitsWitnessEmpty => Some((
                true,
                format!(
                    "the witness has no memory of this module, and {peer} is not there to register: {node} waits for {peer} or for stead prim"
                ),
            )),
            State::Wait | State::Hold | State::Prim { .. } | State::Second { .. } if !self.told.noted => Some((
                false,
                format!(
                    "the witness has not noted {node} yet: should it have lost its memory and a node fail now, the other waits for it or for stead prim"
                ),
            )),
            _ => None,
        }
    }
}
