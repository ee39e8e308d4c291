//! What the API says of a module on one node: state, story, log, configuration.

use super::problem::{Diagnostic, Problem};
use super::watch::ResourceView;
use crate::ids::{Epoch, ModuleId, ModuleName, NodeName};
use crate::orders::{Counters, Progress, Situation, VerifyProgress};
use crate::record::Role;
use crate::state::{ModuleState, Status};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// `GET /v1/modules`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ModuleList {
    /// Every module of this node, by name.
    pub modules: Vec<ModuleView>,
}

/// A module on one node, as `stead state` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModuleView {
    /// The module.
    pub module: ModuleName,
    /// The node that speaks.
    pub node: NodeName,
    /// Where it is.
    pub state: ModuleState,
    /// How settled.
    pub status: Status,
    /// One sentence: why it is there.
    #[serde(default)]
    pub reason: String,
    /// The command that moves it on; empty when nothing is to be done.
    #[serde(default)]
    pub remedy: String,
    /// Epoch of the stored record.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// State of the data in the user's words: "uptodate", "not uptodate (…)"; empty for a module without data.
    #[serde(default)]
    pub data: String,
    /// Role of the stored record.
    #[serde(default = "no_role")]
    pub role: Role,
    /// What decides who may serve alone: "witness", "proof"
    #[serde(default)]
    pub arbiter: String,
    /// Name of the witness that votes; absent without one, and while the pair goes over from one to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voter: Option<NodeName>,
    /// The same in a sentence: what is asked before a node serves alone. Empty for a farm.
    #[serde(default)]
    pub protection: String,
    /// Situations that no protocol can close (L1 to L3), when the module is in one or next to one.
    #[serde(default)]
    pub open_cases: Vec<OpenCaseView>,
    /// Promises that do not hold now, one sentence each.
    #[serde(default)]
    pub not_promised: Vec<String>,
    /// The other node, as this one last heard it.
    #[serde(default)]
    pub peer: Option<PeerView>,
    /// Virtual addresses.
    #[serde(default)]
    pub vips: Vec<VipView>,
    /// mirror, farm, light; empty when it has no loop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The farm; `None` for a module of another mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<super::farm::FarmView>,
    /// The data plane; `None` for a module without replicated directories.
    #[serde(default)]
    pub replication: Option<ReplicationView>,
    /// The application's processes; `None` before the first start.
    #[serde(default)]
    pub application: Option<ApplicationView>,
    /// Resources of checkers, heartbeats and data; rules look at them.
    #[serde(default)]
    pub resources: Vec<ResourceView>,
    /// When it entered state and status.
    #[serde(default)]
    pub since_unix_ms: u64,
    /// Short signature of the active configuration; empty when not configured.
    #[serde(default)]
    pub signature: String,
    /// There was a configuration in force on this node, and its files are lost or cannot be read.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub is_lost: bool,
    /// What a person should know and nobody asked.
    #[serde(default)]
    pub warnings: Vec<String>,
}

const fn no_role() -> Role {
    Role::None
}

impl ModuleView {
    /// A mirror, or one that has no loop and says nothing of its mode.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        !matches!(self.mode.as_str(), "farm" | "light")
    }

    /// A view that holds nothing but who and where: the rest is empty.
    #[must_use]
    pub fn new(module: ModuleName, node: NodeName, state: ModuleState, status: Status) -> Self {
        Self {
            module,
            node,
            state,
            status,
            reason: String::new(),
            remedy: String::new(),
            epoch: None,
            data: String::new(),
            role: Role::None,
            arbiter: String::new(),
            voter: None,
            protection: String::new(),
            open_cases: Vec::new(),
            not_promised: Vec::new(),
            peer: None,
            vips: Vec::new(),
            mode: String::new(),
            farm: None,
            replication: None,
            application: None,
            resources: Vec::new(),
            since_unix_ms: 0,
            signature: String::new(),
            is_lost: false,
            warnings: Vec::new(),
        }
    }
}

/// L1, L2 or L3 of docs/GUARANTEES.md.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenCaseView {
    /// Its name.
    pub label: String,
    /// The module is in it; otherwise one more failure leads there.
    #[serde(default)]
    pub now: bool,
    /// What that means here.
    #[serde(default)]
    pub sentence: String,
}

/// The other node of a pair, as last heard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub node: NodeName,
    /// What it said; `None`: never heard, or lost.
    #[serde(default)]
    pub state: Option<ModuleState>,
    /// What it said.
    #[serde(default)]
    pub status: Option<Status>,
    /// Age of its last heartbeat; `None`: never since this agent started.
    #[serde(default)]
    pub seen_ms_ago: Option<u64>,
}

/// One virtual address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VipView {
    /// The address.
    pub addr: String,
    /// Is it on this node now?
    #[serde(default)]
    pub held: bool,
    /// Interface that has or would have it.
    #[serde(default)]
    pub interface: String,
    /// What is wrong with it: another machine speaks as it too, or it cannot be announced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// The data plane of a module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReplicationView {
    /// What `mirrorfs` does; `None`: it does not run.
    #[serde(default)]
    pub situation: Option<Situation>,
    /// The same as a sentence.
    #[serde(default)]
    pub sentence: String,
    /// Last numbers heard.
    #[serde(default)]
    pub counters: Counters,
    /// A resync that runs.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Replicated directories.
    #[serde(default)]
    pub dirs: Vec<String>,
    /// Quarantine folders that hold a losing side's files.
    #[serde(default)]
    pub quarantines: Vec<String>,
    /// The comparison of both copies that runs, or the last one.
    #[serde(default)]
    pub verify: Option<VerifyProgress>,
}

/// The application's processes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApplicationView {
    /// Has the start script returned with success and not been followed by a stop?
    #[serde(default)]
    pub running: bool,
    /// Process ids in the module's cgroup (at most 64 are listed).
    #[serde(default)]
    pub pids: Vec<u32>,
}

/// `GET /v1/modules/{m}/why`: the story in sentences.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyView {
    /// The module now.
    pub module: ModuleView,
    /// What it waits for; empty: for nothing.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// What would move it.
    #[serde(default)]
    pub moves: Vec<MoveView>,
    /// Last transitions from the journal, oldest first.
    #[serde(default)]
    pub transitions: Vec<TransitionView>,
}

/// Something that would move a module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MoveView {
    /// "the peer starts", "an operator decides that this copy is the good one".
    pub what: String,
    /// The command, if a person can do it.
    #[serde(default)]
    pub command: String,
}

/// One transition of the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransitionView {
    /// When.
    pub at_unix_ms: u64,
    /// From; `None`: the journal's first line.
    #[serde(default)]
    pub from: Option<(ModuleState, Status)>,
    /// To.
    pub to: (ModuleState, Status),
    /// The sentence.
    pub reason: String,
    /// Epoch after it.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

/// `GET /v1/modules/{m}/diff`: what the next resync would cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiffView {
    /// The module.
    pub module: ModuleName,
    /// The node that speaks, which serves.
    pub node: NodeName,
    /// The node that would be brought up to date.
    pub peer: NodeName,
    /// It has everything: there is nothing to bring over.
    #[serde(default)]
    pub complete: bool,
    /// When it left in order: what changed since. `None`: that is not known, everything is compared.
    #[serde(default)]
    pub changed: Option<DiffCost>,
    /// When it lost power: at most this, what was hot there included. `None`: as [`Self::changed`].
    #[serde(default)]
    pub crashed: Option<DiffCost>,
    /// When it is new, or asked for everything (`second fullsync`).
    #[serde(default)]
    pub whole: DiffCost,
    /// Rate the times are reckoned with.
    #[serde(default)]
    pub bytes_per_s: u64,
    /// It is that of the last resync; else it is assumed.
    #[serde(default)]
    pub is_measured: bool,
}

/// What `stead mirrorfs --reckon` finds: costs without times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reckoned {
    /// As [`DiffView::changed`], with whole extents where something was overwritten.
    pub changed: Option<DiffCost>,
    /// Bytes of these extents.
    pub written: u64,
    /// As [`DiffView::whole`].
    pub whole: DiffCost,
}

/// Cost of one resync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiffCost {
    /// Files and directories to compare.
    pub entries: u64,
    /// Bytes to compare; at most as many are sent.
    pub bytes: u64,
    /// Counting was given up: there is more.
    #[serde(default)]
    pub at_least: bool,
    /// How long it takes.
    pub eta_ms: u64,
}

/// Level of a log line, SafeKit's letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LogLevel {
    /// A person's action.
    U,
    /// Event.
    E,
    /// Critical.
    C,
    /// Script.
    S,
    /// Information (verbose).
    I,
    /// Debug (verbose).
    D,
}

/// One line of a module's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// When, in microseconds since 1970.
    pub at_unix_us: u64,
    /// heart, rfsplug, userplug, vipplug, …
    pub component: String,
    /// Level.
    pub level: LogLevel,
    /// Text, one line.
    pub text: String,
}

/// `GET /v1/modules/{m}/log`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// Opaque: `after=next` gives what came since.
    #[serde(default)]
    pub next: u64,
}

/// `GET /v1/modules/{m}/config`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigView {
    /// The module.
    pub module: ModuleName,
    /// Its number.
    #[serde(default)]
    pub id: Option<ModuleId>,
    /// mirror, farm, light.
    #[serde(default)]
    pub mode: String,
    /// Macros of the editable copy, in its order.
    #[serde(default)]
    pub macros: Vec<MacroView>,
    /// Per node.
    #[serde(default)]
    pub nodes: Vec<ConfigSignature>,
    /// What was in force on this node before, the last one first.
    #[serde(default)]
    pub history: Vec<PastConfiguration>,
    /// Findings in the editable copy.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
}

/// A configuration that was in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PastConfiguration {
    /// 1: the last one.
    pub number: u32,
    /// Its signature.
    #[serde(default)]
    pub signature: String,
    /// When it was applied; of an edited copy, when it was overwritten.
    #[serde(default)]
    pub applied_unix_ms: u64,
    /// It never was in force: it was edited here, and overwritten by what another node applied.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub edited: bool,
}

/// One macro.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MacroView {
    /// Name, without the percent signs.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Which configuration a node has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigSignature {
    /// The node.
    pub node: NodeName,
    /// Signature of what is active; empty: never applied.
    #[serde(default)]
    pub active: String,
    /// Signature of the editable copy; differs when edited since.
    #[serde(default)]
    pub editable: String,
    /// When the active one was applied.
    #[serde(default)]
    pub applied_unix_ms: Option<u64>,
    /// The node did not answer, or has no such module.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// `GET /v1/modules/{m}/hook/{name}`: what the module's own script of that name says on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HookView {
    /// The module.
    pub module: ModuleName,
    /// The node.
    pub node: NodeName,
    /// confcheck, state, level.
    pub hook: String,
    /// What it printed; `None`: the module has no such script.
    #[serde(default)]
    pub output: Option<String>,
}
