//! What the log says of a step beside its sentence, in the words that SafeKit's operators and their monitoring look for.
//!
//! Read off the automaton before and after; it is not part of it: no decision, no state, nothing to explore.
//! docs/book/safekit.md lists them; the story `tests/scenarios/log.txt` tells them.

use super::action::Level;
use super::reason::Reason;
use super::state::{End, Leaving, Mirror, Peer, State};
use crate::scripts::Why;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::{ModuleState, Right, Status};

/// One line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// How loud.
    pub level: Level,
    /// SafeKit's name of who says it: `heart`, `rfsplug`, `reintegre`.
    pub component: &'static str,
    /// What.
    pub text: String,
}

/// The lines of the step from one to the other, in order.
#[must_use]
pub fn lines(before: &Mirror, after: &Mirror) -> Vec<Line> {
    let mut said = lines_of_step(before, after);
    let (then, now) = (before.shown(), after.shown());
    if then != now {
        said.push(local_state(now.0, now.1));
    }
    said
}

/// Where the module is now.
#[must_use]
pub fn local_state(state: ModuleState, status: Status) -> Line {
    Line { level: Level::State, component: "heart", text: format!("Local state {state} {status}") }
}

/// The same without the last one: whoever has a better view of where the module is (a rule makes it wait) says that itself.
#[must_use]
pub fn lines_of_step(before: &Mirror, after: &Mirror) -> Vec<Line> {
    let mut said = Vec::new();
    let mut say = |component, text: String| said.push(Line { level: Level::State, component, text });
    let peer = remote(after);
    if peer != remote(before) {
        say("heart", format!("Remote state {peer}"));
    }
    if let Some(text) = action(before, after) {
        say("heart", text.to_string());
    }
    if before.why != after.why {
        of_the_copy(&before.why, after, &mut say);
    }
    said
}

/// What the other node says that it is.
fn remote(mirror: &Mirror) -> String {
    match &mirror.peer {
        Peer::Unknown | Peer::Silent => "UNKNOWN Unknown".to_string(),
        Peer::Heard(advert) => format!("{} {}", advert.state, advert.status),
    }
}

/// What moves by itself, and whose doing that is.
fn action(before: &Mirror, after: &Mirror) -> Option<&'static str> {
    let entered = |is: fn(&State) -> bool| is(&after.state) && !is(&before.state);
    if let (State::Leaving(Leaving::Release(goal)), State::Booting) = (&before.state, &after.state)
        && goal.why == Why::StopStart
    {
        return Some("Action start called automatically");
    }
    if entered(|state| matches!(state, State::Leaving(Leaving::Application(goal)) if goal.end == End::Aside)) {
        return Some("Begin of Swap");
    }
    let State::Claim(claim) = &after.state else { return None };
    if matches!(before.state, State::Claim(_)) {
        return None;
    }
    match claim.right {
        Right::Witness | Right::Proof => Some("Action alone called by heart: no heartbeat"),
        Right::Consent => Some("Action alone called by heart: remote stop"),
        // An operator's word stands in the log already; and who reopens takes nothing over.
        Right::Operator | Right::Force | Right::None => None,
    }
}

/// Its own copy: may it serve, is it being brought up to date, is it complete.
fn of_the_copy(then: &Reason, after: &Mirror, say: &mut impl FnMut(&'static str, String)) {
    let settings = &after.settings;
    let is_copied = |why: &Reason| matches!(why, Reason::Resynchronising { .. });
    if let Some(rule) = rule(&after.why).filter(|rule| self::rule(then) != Some(rule)) {
        say("heart", format!("Action wait from failover rule {rule}"));
    }
    // Nothing is replicated: there is no copy to speak of.
    if !settings.replicated {
        return;
    }
    match &after.why {
        Reason::WaitsForPeerInconsistent => say(
            "rfsplug",
            "Data may be inconsistent for replicated directories (stopped during reintegration)".to_string(),
        ),
        Reason::WaitsForPeer
        | Reason::WaitsForPeerCrashed
        | Reason::WaitsForPeerYielded
        | Reason::WaitsForPeerUnknown
        | Reason::WaitsWindow => {
            say(
                "rfsplug",
                "Data may be not uptodate for replicated directories (wait for the start of the remote server)"
                    .to_string(),
            );
            say(
                "rfsplug",
                format!(
                    "If you are sure that this server has valid data, run stead prim -m {} to force start as primary",
                    settings.module
                ),
            );
        }
        why if is_copied(why) && !is_copied(then) => {
            say("reintegre", format!("Updating directory tree from {}", settings.peer_name));
        }
        Reason::Complete if is_copied(then) => {
            say("reintegre", "Reintegration ended (synchronize)".to_string());
            say("rfsplug", "Uptodate replicated file system".to_string());
        }
        _ => {}
    }
}

/// SafeKit's name for what makes a node wait here by the protocol: no rule of the module can switch it off.
const fn rule(why: &Reason) -> Option<&'static str> {
    match why {
        Reason::WaitsForPeer
        | Reason::WaitsForPeerCrashed
        | Reason::WaitsForPeerYielded
        | Reason::WaitsForPeerInconsistent
        | Reason::WaitsForPeerUnknown
        | Reason::WaitsWindow => Some("notuptodate_server"),
        Reason::ProofIsolated => Some("splitbrain_failure"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_by_the_protocol_has_its_name() {
        let said = |why: Reason| rule(&why).map(|rule| format!("Action wait from failover rule {rule}"));
        assert_eq!(said(Reason::ProofIsolated).as_deref(), Some("Action wait from failover rule splitbrain_failure"));
        assert_eq!(said(Reason::WaitsForPeer).as_deref(), Some("Action wait from failover rule notuptodate_server"));
        assert_eq!(said(Reason::WaitsWitness), None);
    }
}
