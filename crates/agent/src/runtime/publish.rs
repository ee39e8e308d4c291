//! What everybody may know of a module: gathered by its loop, read by the API, the health URL and the heartbeats.

use super::addresses::Addresses;
use cluster::mirror::{Command, Mirror};
use model::DataState;
use model::api::{ReplicationView, VipView};
use model::orders::{Counters, Progress, Report, Situation};

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
    /// Since when state and status are what they are.
    pub since_unix_ms: u64,
}

/// What the loop gathers besides the automaton's view.
#[derive(Default)]
pub struct View {
    situation: Option<Situation>,
    counters: Counters,
    progress: Option<Progress>,
    refused: String,
    /// Since when.
    pub since_unix_ms: u64,
}

/// The command as an operator types it.
#[must_use]
pub const fn command_name(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Stop => "stop",
        Command::ForceStop => "forcestop",
        Command::Restart => "restart",
        Command::StopStart => "stopstart",
        Command::Swap => "swap",
        Command::Prim { force: false } => "prim",
        Command::Prim { force: true } => "prim --force",
        Command::Second { full: false } => "second",
        Command::Second { full: true } => "second fullsync",
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
            Report::Progress { progress, .. } | Report::Committed { progress, .. } => self.progress = Some(*progress),
            _ => {}
        }
    }

    /// The process is gone.
    pub const fn forget_plane(&mut self) {
        self.situation = None;
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
                sentence: self.refused.clone(),
                counters: self.counters,
                progress: self.progress,
                ..ReplicationView::default()
            },
            vips: addresses.views(),
            since_unix_ms: self.since_unix_ms,
            mirror: view,
        }
    }
}
