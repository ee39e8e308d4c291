//! The sentences: why a module is where it is, and the command that helps.

use super::action::Settings;
use super::election::Nobody;
use alloc::format;
use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};

/// Of a module that ran when its agent ended: the one in its place does not know yet.
pub const LOOKING: &str = "the agent was restarted: looking at what still runs";

/// Why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Reason {
    Stopped,
    StoppedBecause(String),
    StopAsked,
    ForceStopAsked,
    StartAsked,
    AgentRestarted,
    WaitsForPeer,
    WaitsForPeerCrashed,
    WaitsForPeerYielded,
    WaitsForPeerInconsistent,
    WaitsForPeerUnknown,
    WaitsSecondOnly,
    FailoverOff,
    GoesHome,
    WaitsWindow,
    WaitsWitness,
    WaitsWitnessEmpty,
    WaitsWitnessExchanged,
    WitnessExchanged,
    ExchangeWaits,
    WaitsWitnessHeld,
    WaitsWitnessPeerFirst,
    WaitsWitnessPrimaryFirst,
    VipAnsweredByPeer,
    PeerDoesNotHear,
    ProofIsolated,
    ProofNoCarrier,
    ProofStranger,
    Talking,
    Gathering,
    Nobody(Nobody),
    /// [`Nobody::NewerMayNotLead`]: which node, and why not.
    NewerMayNotLead {
        here: bool,
        promised: bool,
    },
    Blocked(String),
    Granted,
    PeerYielded,
    ProofHolds,
    OperatorPrim,
    OperatorForce,
    Reopens,
    EpochStored,
    Open,
    TargetJoined {
        full: bool,
    },
    Committing,
    Mirrored,
    Resuming,
    LinkLost,
    PeerSilent,
    PeerSilentLinkUp,
    PeerLacks,
    LeftOut,
    PeerLeftSession,
    PeerLetGo(String),
    CannotResume,
    PlaneDied,
    PlaneReplaced,
    PlaneStuck,
    Froze,
    PeerIsNewer,
    RemoteStop,
    SplitBrainStay,
    SplitBrainExit,
    WitnessRefused,
    Resynchronising {
        full: bool,
        quarantine: bool,
    },
    Complete,
    SessionLost,
    SwapAsked,
    SteppedAside,
    SwapExpired,
    GivesBack,
    ClaimTooLate,
    PeerCameBack,
    StoreFailed(String),
    AppDied(String),
    AppFailed(String),
    PrepareFailed(String),
    TooManyRestarts(String),
    MaxLoop(String),
    Automatic(String),
    RestartAsked,
    Revalidated,
    /// What this node's own files lack.
    Unfit(String),
    Fit,
    /// The same of the peer, as far as its heartbeats tell.
    PeerUnfit,
}

/// The kind of a sentence takes part in decisions (what was judged already is not judged again); what it names does not.
impl core::hash::Hash for Reason {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        core::mem::discriminant(self).hash(state);
        if let Self::Nobody(why) = self {
            core::mem::discriminant(why).hash(state);
        }
    }
}

impl Reason {
    /// One sentence.
    pub(super) fn sentence(&self, s: &Settings) -> String {
        let (peer, module, node) = (&s.peer_name, &s.module, &s.node_name);
        match self {
            Self::Stopped => "stopped".to_string(),
            Self::StoppedBecause(why) => format!("stopped: {why}"),
            Self::StopAsked => "an operator asked to stop".to_string(),
            Self::ForceStopAsked => "an operator asked to stop by force: nothing is drained".to_string(),
            Self::StartAsked => "starting".to_string(),
            Self::AgentRestarted => LOOKING.to_string(),
            Self::WaitsForPeer => format!(
                "data may be not up to date: {node} was mirrored when it was last seen, {peer} may have gone on alone; waiting for {peer}"
            ),
            Self::WaitsForPeerCrashed => format!(
                "{node} lost power while mirrored: its copy is complete only as far as fsync goes; waiting for {peer}"
            ),
            Self::WaitsForPeerYielded => {
                format!("data may be not up to date: {node} left, and {peer} may have gone on alone; waiting for {peer}")
            }
            Self::WaitsForPeerInconsistent => {
                format!("the copy of {node} is inconsistent: a resync into it was interrupted; waiting for {peer}")
            }
            Self::WaitsForPeerUnknown => {
                format!("nothing is known of the data of {node}: it never was primary or resynchronised; waiting for {peer}")
            }
            Self::WaitsSecondOnly => format!("told to be secondary only; waiting for {peer} to be primary"),
            Self::FailoverOff => format!("Failover-off configured: {node} does not take over; waiting for {peer}, or for stead prim"),
            Self::GoesHome => format!("Transition SWAP from defaultprim: {peer} is whole again and serves by configuration"),
            Self::WaitsWindow => format!(
                "{peer} is silent, but it last confirmed hearing {node} too long ago: it may have gone on alone since; waiting for {peer}"
            ),
            Self::WaitsWitness => "the witness does not answer".to_string(),
            Self::WaitsWitnessEmpty => {
                format!("the witness has no memory of module {module}: it grants nothing before both nodes spoke to it")
            }
            Self::WaitsWitnessExchanged => format!(
                "the witness was being exchanged when {peer} was lost: neither the old nor the new one votes alone; waiting for {peer}"
            ),
            Self::WitnessExchanged => "another witness votes from now on: stead state -v names it".to_string(),
            Self::ExchangeWaits => format!(
                "the configuration names another witness: the former one votes until {peer} knows the exchange, too (its program is older)"
            ),
            Self::WaitsWitnessHeld => format!(
                "the witness granted {peer} an epoch that this copy does not contain: {peer} may have worked alone since; waiting for {peer}"
            ),
            Self::WaitsWitnessPeerFirst => {
                format!("{node} lost power while mirrored: {peer}, which may be complete, comes first")
            }
            Self::WaitsWitnessPrimaryFirst => {
                format!("the witness hears {peer}, the primary: it comes first, {node} serves if it does not ask")
            }
            Self::VipAnsweredByPeer => format!(
                "{peer} is silent on the heartbeat networks but still answers for the virtual IP: it is alive, no takeover"
            ),
            Self::PeerDoesNotHear => {
                format!("{peer} does not hear {node}, and is heard: it is alive, no takeover")
            }
            Self::ProofIsolated => {
                format!("{peer} is silent, and the isolation test does not answer: it may be {node} that is cut off")
            }
            Self::ProofNoCarrier => format!("{peer} is silent, and the interface of {node} has no carrier: it is cut off"),
            Self::ProofStranger => "a stranger answers for the virtual IP".to_string(),
            Self::Talking => format!("comparing with {peer}"),
            Self::Gathering => format!("{peer} is silent: gathering the takeover proof"),
            Self::NewerMayNotLead { here, promised } => {
                let (one, other) = if *here { (node, peer) } else { (peer, node) };
                let why = match promised {
                    true => format!("it has promised {other} not to serve by itself"),
                    false => "it was told to be secondary only, or not to take over".to_string(),
                };
                format!("{one} has the newer, or the only complete, copy, and does not serve: {why}")
            }
            Self::Nobody(why) => match why {
                Nobody::FirstStart => {
                    "first start: neither node has data yet, an operator must say which node's directories are the good ones"
                        .to_string()
                }
                Nobody::EmptyTree => format!(
                    "the replicated directories of {node} are empty and those of {peer} are not"
                ),
                Nobody::NoCompleteCopy => "neither node has a complete copy".to_string(),
                Nobody::StoppedHasNewer => format!("the newer or only complete copy is on {peer}, where the module is stopped"),
                Nobody::NewerMayNotLead => {
                    format!("of {node} and {peer}, the node with the newer copy was told, or has promised, not to be primary")
                }
                Nobody::Foreign => format!("the data of {node} and {peer} never were one: they carry different stamps"),
                Nobody::Stopped => format!("{peer} is stopped"),
                Nobody::OtherConfiguration => format!(
                    "{node} and {peer} have different configurations of the module: they are no pair before they have the same"
                ),
            },
            Self::Blocked(why) | Self::StoreFailed(why) => why.clone(),
            Self::Granted => "the witness granted a new epoch: copying it to disk before serving".to_string(),
            Self::PeerYielded => format!("{peer} yielded: copying the new epoch to disk before serving"),
            Self::ProofHolds => format!("takeover proof complete: {peer} is silent, {node} is not isolated, nobody answers for the virtual IP"),
            Self::OperatorPrim => "an operator said that this copy is the good one".to_string(),
            Self::OperatorForce => format!(
                "an operator forced this copy to be the good one: what differs on {peer} goes to quarantine when it returns"
            ),
            Self::Reopens => format!("last primary, without secondary: nobody can be newer, {node} serves again"),
            Self::EpochStored => "the epoch is on disk: older primaries are fenced; opening".to_string(),
            Self::Open => "serving without a secondary".to_string(),
            Self::TargetJoined { full: true } => format!("serving; {peer} is being resynchronised: everything is compared"),
            Self::TargetJoined { full: false } => {
                format!("serving; {peer} is being resynchronised: only what changed while it was away")
            }
            Self::Committing => format!("the resync of {peer} is through: committing"),
            Self::Mirrored => format!("serving, every change is on {peer} too"),
            Self::Resuming => format!("{peer} is complete: resuming"),
            Self::LinkLost => format!("the data link to {peer} is lost: writes are held"),
            Self::PeerSilent => format!("no heartbeat from {peer}: writes are held"),
            Self::PeerSilentLinkUp => {
                format!("no heartbeat from {peer}, but its data link is alive: its agent does not answer, no takeover")
            }
            Self::PeerLacks => format!("{peer} lives, and does not run this module: it counts as silent"),
            Self::LeftOut => format!(
                "{node} is no longer a member of the cluster, as another member says: it was left out, or another machine has its place; it does not serve"
            ),
            Self::PeerLeftSession => format!("{peer} left the session: writes are held"),
            Self::PeerLetGo(why) => format!("{peer} is let go: {why}"),
            Self::CannotResume => format!("what was on its way to {peer} died with a process: {peer} will be resynchronised"),
            Self::PlaneDied => {
                "the replication process died: what the application sees of its directories is broken, it is restarted"
                    .to_string()
            }
            Self::PlaneReplaced => {
                "the replication process was replaced: the application waits a moment and goes on".to_string()
            }
            Self::PlaneStuck => "the replication process does not answer: it is killed".to_string(),
            Self::Froze => format!("{node} did not run for a while: address down and writes held until {peer} or the witness confirms"),
            Self::PeerIsNewer => format!("{peer} holds a newer epoch: {node} is fenced, its application is stopped by force"),
            Self::RemoteStop => format!("remote stop: {peer} was stopped in order and yielded"),
            Self::SplitBrainStay => format!(
                "Split brain recovery: staying alone: {peer} was serving under another epoch: what only {peer} has goes to its quarantine"
            ),
            Self::SplitBrainExit => format!(
                "Split brain recovery: exiting alone: {peer} stays, what only {node} has goes to its quarantine"
            ),
            Self::WitnessRefused => format!(
                "the witness granted {peer} a newer epoch: {node} stops serving, nothing changes on its disk"
            ),
            Self::Resynchronising { quarantine: true, .. } => format!(
                "being resynchronised from {peer}, what only {node} has goes to its quarantine: not usable until it is through"
            ),
            Self::Resynchronising { full: true, .. } => {
                format!("being resynchronised from {peer}, everything is compared: not usable until it is through")
            }
            Self::Resynchronising { full: false, .. } => {
                format!("being resynchronised from {peer}, only what changed: not usable until it is through")
            }
            Self::Complete => format!("complete copy behind {peer}"),
            Self::SessionLost => format!("the session with {peer} is lost"),
            Self::SwapAsked => "an operator asked to exchange roles".to_string(),
            Self::SteppedAside => format!("stepped aside for {peer}"),
            Self::SwapExpired => format!("{peer} did not take over: it is not waited for any longer"),
            Self::GivesBack => format!("nothing was opened under this epoch, so the one before counts again: {peer} may serve"),
            Self::ClaimTooLate => "the claim was not on disk in time: it is dropped".to_string(),
            Self::PeerCameBack => format!("{peer} is heard again before the claim was stored: it is dropped"),
            Self::AppDied(why) => format!("the application died: {why}; it is restarted"),
            Self::AppFailed(why) => format!("the application could not be started: {why}"),
            Self::PrepareFailed(why) => format!("the module does not start, its preparation failed: {why}"),
            Self::TooManyRestarts(why) => format!("stop called by maxloop: the application died again: {why}"),
            Self::MaxLoop(why) => format!("stop called by maxloop: {why}"),
            Self::Automatic(why) => why.clone(),
            Self::RestartAsked => "an operator asked to restart the application".to_string(),
            Self::Revalidated => "nobody contradicts after the freeze".to_string(),
            Self::Unfit(why) => format!("{node} could not start module {module}: {why}"),
            Self::Fit => format!("{node} could start module {module} again: nothing of it is missing"),
            Self::PeerUnfit => format!("{peer} has a complete copy, and could not start module {module} on it"),
        }
    }

    /// The command that ends the wait, when a person is needed.
    pub(super) fn remedy(&self, s: &Settings) -> Option<String> {
        let (peer, module, node) = (&s.peer_name, &s.module, &s.node_name);
        let prim = |force: &str| {
            format!(
                "start {peer}; or, if you are sure that the data here is the good one: stead prim -m {module}{force}"
            )
        };
        match self {
            Self::Stopped | Self::StoppedBecause(_) => Some(format!("stead start -m {module}")),
            Self::WaitsForPeer | Self::WaitsForPeerCrashed | Self::WaitsWindow | Self::WaitsForPeerUnknown => {
                Some(prim(""))
            }
            Self::WaitsForPeerYielded | Self::WaitsForPeerInconsistent => Some(prim(" --force")),
            Self::WaitsWitnessHeld => Some(prim(" --force")),
            Self::WaitsWitness | Self::WaitsWitnessEmpty | Self::WaitsWitnessExchanged => Some(prim("")),
            Self::PeerDoesNotHear => {
                Some(format!("look at the network between {node} and {peer}: one direction is cut (stead level)"))
            }
            Self::VipAnsweredByPeer => Some(format!(
                "look at {peer}: restart its agent or the machine; when it is off for certain: stead prim -m {module}"
            )),
            Self::LeftOut => Some(format!(
                "stead cluster confinfo on {peer} shows who is a member; when {node} is none, end its agent"
            )),
            Self::Froze => Some(format!("start {peer}; or, if {peer} is known to be off: stead prim -m {module}")),
            Self::WaitsSecondOnly => Some(format!("stead start -m {module} -H {peer}")),
            Self::Unfit(_) => Some(format!(
                "look at the disk of {node}; or, when files are lost: stead module export -m {module} --to {node}, on {peer}"
            )),
            Self::PeerUnfit => Some(format!("what it lacks: stead state -m {module} -H {peer}")),
            Self::FailoverOff => Some(format!(
                "stead start -m {module} -H {peer}, if it is stopped there; or, to let this node take over: stead failover on -m {module}; or, to serve here once: stead prim -m {module}"
            )),
            Self::Nobody(Nobody::FirstStart) => Some(format!(
                "stead prim -m {module} on the node with the good data, stead start -m {module} on the other"
            )),
            Self::Nobody(Nobody::EmptyTree) => Some(format!(
                "stead prim -m {module} on {peer}; or, to give its files up: stead prim -m {module} --force"
            )),
            Self::Nobody(Nobody::StoppedHasNewer) => Some(format!(
                "stead start -m {module} -H {peer}; or, to go on with the older copy: stead prim -m {module} --force"
            )),
            Self::Nobody(Nobody::OtherConfiguration) => Some(format!(
                "stead stop -m {module}; then, on the node whose configuration is the right one: stead config -m {module} (stead confinfo -m {module} compares them)"
            )),
            Self::NewerMayNotLead { here, promised } => {
                let (one, other) = if *here { (node, peer) } else { (peer, node) };
                let force = if *promised { " --force" } else { "" };
                Some(format!(
                    "stead prim -m {module}{force} -H {one}; or, to give that copy up: stead prim -m {module} --force -H {other}"
                ))
            }
            Self::Nobody(Nobody::NewerMayNotLead) => Some(format!(
                "stead prim -m {module} on the node with the newer copy (the other one refuses); or, to give that copy up: stead prim -m {module} --force"
            )),
            Self::Nobody(_) => Some(format!("stead prim -m {module} --force on the node with the good data")),
            _ => None,
        }
    }

    /// Blocked until something outside changes.
    pub(super) const fn is_blocking(&self) -> bool {
        matches!(
            self,
            Self::WaitsForPeer
                | Self::WaitsForPeerCrashed
                | Self::WaitsForPeerYielded
                | Self::WaitsForPeerInconsistent
                | Self::WaitsForPeerUnknown
                | Self::WaitsSecondOnly
                | Self::FailoverOff
                | Self::WaitsWindow
                | Self::WaitsWitness
                | Self::WaitsWitnessEmpty
                | Self::WaitsWitnessExchanged
                | Self::WaitsWitnessHeld
                | Self::WaitsWitnessPeerFirst
                | Self::WaitsWitnessPrimaryFirst
                | Self::LeftOut
                | Self::VipAnsweredByPeer
                | Self::PeerDoesNotHear
                | Self::ProofIsolated
                | Self::ProofNoCarrier
                | Self::ProofStranger
                | Self::Nobody(_)
                | Self::NewerMayNotLead { .. }
                | Self::Blocked(_)
                | Self::StoreFailed(_)
        )
    }
}
