//! What everybody may know of a module: gathered by its loop, read by the API, the health URL and the heartbeats.

use super::addresses::Addresses;
use cluster::mirror::{Command, Mirror};
use model::DataState;
use model::api::{LogLevel, ReplicationView, ResourceView, VipView};
use model::orders::{Counters, Progress, Report, Situation, VerifyProgress};
use std::sync::Arc;

/// A snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct Published {
    /// The automaton's own view.
    pub mirror: cluster::mirror::View,
    /// Sentence on the data.
    pub data: String,
    /// The data plane.
    pub replication: ReplicationView,
    /// The virtual IPs.
    pub vips: Vec<VipView>,
    /// Resources of checkers and of Stead itself.
    pub resources: Arc<Vec<ResourceView>>,
    /// Since when state and status are what they are.
    pub since_unix_ms: u64,
    /// The farm; `None`: it is none.
    pub farm: Option<Arc<model::api::FarmView>>,
    /// How often its application was started since the agent was.
    pub starts: u32,
    /// What operators have switched off, and what keeps the record from its disk: a sentence each.
    pub warnings: Vec<String>,
}

/// Counts the starts of an application, from what is seen of it.
#[derive(Default)]
pub struct Starts {
    is_up: bool,
    count: u32,
}

impl Starts {
    /// It is up, or not: how often it came up so far.
    pub fn see(&mut self, is_up: bool) -> u32 {
        if is_up && !self.is_up {
            self.count = self.count.wrapping_add(1);
        }
        self.is_up = is_up;
        self.count
    }
}

/// What the loop gathers besides the automaton's view.
#[derive(Default)]
pub struct View {
    situation: Option<Situation>,
    counters: Counters,
    progress: Option<Progress>,
    refused: String,
    verify: Option<VerifyProgress>,
    /// Since when.
    pub since_unix_ms: u64,
    /// How often the application was started.
    pub starts: u32,
}

/// The command as an operator types it.
#[must_use]
pub const fn command_name(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Stop => "stop",
        Command::Wait => "wait",
        Command::ForceStop => "forcestop",
        Command::Restart => "restart",
        Command::StopStart => "stopstart",
        Command::Swap => "swap",
        Command::Prim { force: false, full: false } => "prim",
        Command::Prim { force: false, full: true } => "prim fullsync",
        Command::Prim { force: true, full: false } => "prim --force",
        Command::Prim { force: true, full: true } => "prim --force fullsync",
        Command::Second { full: false } => "second",
        Command::Second { full: true } => "second fullsync",
    }
}

/// What a comparison came to, and how loud that is.
#[must_use]
pub fn verify_sentence(verify: &VerifyProgress) -> (LogLevel, String) {
    let what = if verify.scrub { "Scrub" } else { "Verification" };
    if !verify.failed.is_empty() {
        return (LogLevel::E, format!("{what} of the secondary's copy ended early: {}", verify.failed));
    }
    let entries = verify.progress.entries;
    if verify.differences == 0 {
        return (LogLevel::I, format!("{what} of the secondary's copy: {entries} entries are equal"));
    }
    let outcome = match (verify.repair, verify.stubborn, verify.resync) {
        (false, ..) => "nothing was repaired: stead rfsverify --repair".to_string(),
        (true, 0, 0) => "repaired".to_string(),
        // What differs still may do so for the lack of an entry.
        (true, _, n) if n > 0 => format!("{n} need a resync of just them; it follows"),
        (true, n, _) => format!("{n} could not be repaired: stead second fullsync, on the secondary"),
    };
    let places = verify.examples.join(", ");
    (
        LogLevel::C,
        format!("{what}: the secondary's copy differed in {} places ({places}); {outcome}", verify.differences),
    )
}

/// What the data plane is doing, in words.
const fn said(situation: Option<Situation>) -> &'static str {
    match situation {
        None | Some(Situation::Idle) => "",
        Some(Situation::Holding { .. }) => {
            "nothing is answered: it waits for the link, or for the right to go on alone"
        }
        Some(Situation::Alone { resync: None, .. }) => "what changes is remembered for the other node",
        Some(Situation::Alone { resync: Some(_), .. }) => "the other copy is brought up to date",
        Some(Situation::Committing { .. }) => "the resync is through: both copies are made durable",
        Some(Situation::Mirrored { .. }) => "every change goes to the other node",
        Some(Situation::Following { complete: true, .. }) => "it follows, complete",
        Some(Situation::Following { complete: false, .. }) => "it is being brought up to date",
    }
}

impl View {
    /// A report of the data plane.
    pub fn heard(&mut self, report: &Report) {
        match report {
            Report::Adopted { situation, .. } | Report::Reached { situation } => {
                self.situation = Some(*situation);
                self.refused.clear();
            }
            Report::Refused { reason, .. } => self.refused.clone_from(reason),
            Report::Counters { counters } => self.counters = *counters,
            Report::Verified { verify } => self.verify = Some(verify.clone()),
            Report::Progress { progress, .. } | Report::Committed { progress, .. } => self.progress = Some(*progress),
            _ => {}
        }
    }

    /// A comparison was ordered.
    pub fn verify_begins(&mut self, repair: bool, scrub: bool) {
        self.verify = Some(VerifyProgress { running: true, repair, scrub, ..VerifyProgress::default() });
    }

    /// Was it the comparison that cannot be made?
    pub fn refuses_verify(&mut self, order: &str, reason: &str) -> bool {
        let asked = self.verify.as_mut().filter(|verify| verify.running);
        match asked {
            Some(verify) if matches!(order, "verify" | "?") => {
                verify.running = false;
                verify.failed = reason.into();
                true
            }
            _ => order == "verify",
        }
    }

    /// Is a comparison of both copies under way?
    #[must_use]
    pub fn is_verifying(&self) -> bool {
        self.verify.as_ref().is_some_and(|verify| verify.running)
    }

    /// The process is gone.
    pub fn forget_plane(&mut self) {
        self.situation = None;
        if let Some(verify) = self.verify.as_mut().filter(|verify| verify.running) {
            verify.running = false;
            verify.failed = "the replication process ended".into();
        }
    }

    /// Puts the snapshot together.
    #[must_use]
    pub fn publish(&self, mirror: &Mirror, addresses: &Addresses) -> Published {
        let view = mirror.view();
        let data = match (view.data, view.uptodate) {
            (DataState::Full, true) => "uptodate".to_string(),
            (DataState::Full, false) => "not uptodate: complete, but the other node may have a newer copy".into(),
            (DataState::Crashed, _) => {
                "not uptodate: this node lost power while mirrored; what was fsynced is here".into()
            }
            (DataState::Inconsistent, _) => "not uptodate: a resync into this copy has not finished".into(),
            (DataState::Unknown, _) => "not uptodate: nothing is known of this copy".into(),
        };
        Published {
            data,
            replication: ReplicationView {
                situation: self.situation,
                sentence: if self.refused.is_empty() { said(self.situation).into() } else { self.refused.clone() },
                counters: self.counters,
                progress: self.progress,
                verify: self.verify.clone(),
                ..ReplicationView::default()
            },
            vips: addresses.views(),
            resources: Arc::default(),
            starts: self.starts,
            warnings: Vec::new(),
            since_unix_ms: self.since_unix_ms,
            farm: None,
            mirror: view,
        }
    }
}
