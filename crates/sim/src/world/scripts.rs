//! The module's scripts of one node, as the agent runs them: one after the other, each within its timeout.
//!
//! In a search they succeed and take no time. A scenario may let one fail or hang; what is wanted meanwhile waits its turn,
//! a forced stop ends what runs, and what was wanted before it is not begun any more.

use super::Node;
use cluster::mirror::{App, AppReport, Event};
use std::collections::VecDeque;

/// What the scripts of one node do.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Scripts {
    /// These end with an exit code.
    pub failing: Vec<&'static str>,
    /// These do not end before their timeout.
    pub hanging: Vec<&'static str>,
    /// The first one hangs; the others wait for its end.
    wanted: VecDeque<App>,
}

impl Scripts {
    /// From its next run on, this script `fails`, `hangs` or works.
    pub(crate) fn shall(&mut self, name: &str, how: &str) {
        let Some(name) = NAMES.into_iter().find(|known| *known == name) else { return };
        self.failing.retain(|failing| *failing != name);
        self.hanging.retain(|hanging| *hanging != name);
        match how {
            "fails" => self.failing.push(name),
            "hangs" => self.hanging.push(name),
            _ => {}
        }
    }

    /// One hangs.
    pub(super) fn hangs(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Whoever wanted them is gone.
    pub(super) fn forget(&mut self) {
        self.wanted.clear();
    }
}

/// The script of a wish.
const fn name(wanted: App) -> &'static str {
    match wanted {
        App::Prepare => "prestart",
        App::Start => "start_prim",
        App::Stop { .. } => "stop_prim",
        App::Role { .. } => "transition",
        App::Release { .. } => "poststop",
    }
}

/// The scripts a scenario may name.
pub const NAMES: [&str; 4] = ["prestart", "start_prim", "stop_prim", "poststop"];

/// The agent is told what the automaton wants.
pub(super) fn run(node: &mut Node, wanted: App) {
    // What runs beside the application has no outcome.
    if matches!(wanted, App::Role { .. }) {
        return;
    }
    if matches!(wanted, App::Stop { force: true, .. }) {
        for aborted in std::mem::take(&mut node.scripts.wanted) {
            end(node, aborted, Some("was ended by force"));
        }
    }
    node.scripts.wanted.push_back(wanted);
    if node.scripts.wanted.len() == 1 {
        go_on(node);
    }
}

/// The script that hangs has reached its timeout and is killed.
pub(super) fn time_out(node: &mut Node) {
    if let Some(hung) = node.scripts.wanted.pop_front() {
        end(node, hung, Some("took longer than 300 s and was killed"));
        go_on(node);
    }
}

/// Runs what is wanted up to the first script that hangs.
fn go_on(node: &mut Node) {
    while let Some(wanted) = node.scripts.wanted.front().copied() {
        let script = name(wanted);
        let is_run = !matches!(wanted, App::Stop { force: true, .. });
        if is_run && node.scripts.hanging.contains(&script) {
            return;
        }
        node.scripts.wanted.pop_front();
        end(node, wanted, node.scripts.failing.contains(&script).then_some("ended with exit code 1"));
    }
}

fn end(node: &mut Node, wanted: App, wrong: Option<&str>) {
    let failed = |how| AppReport::StartFailed { reason: format!("script {} {how}", name(wanted)) };
    let report = match (wanted, wrong) {
        (App::Prepare | App::Start, Some(how)) => failed(how),
        (App::Prepare, None) => AppReport::Prepared,
        (App::Start, None) => {
            node.app = true;
            AppReport::Started
        }
        // However the stop script ended: what is left is killed.
        (App::Stop { .. }, _) => {
            node.app = false;
            AppReport::Stopped
        }
        (App::Release { .. }, _) => AppReport::Released,
        (App::Role { .. }, _) => return,
    };
    node.inbox.push(Event::App(report));
}
