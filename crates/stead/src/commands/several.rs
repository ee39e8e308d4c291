//! Several nodes at once: what `-H` is not for (verbs that change all nodes from one, write one file, or read files of this machine), and
//! which node goes first.

use super::Context;
use crate::cli::{ClusterVerb, JournalVerb, ModuleVerb, RulesVerb, Verb};
use model::ModuleState;
use model::api::{Code, ModuleView, Problem};
use std::time::Duration;

/// Where the module serves, before a stop.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

fn refused(what: &str, why: &str, help: &str) -> Option<Problem> {
    Some(Problem::new(Code::Invalid, what, why).with_help(help))
}

/// Why this is not done on several nodes at once.
pub fn on_several(verb: &Verb) -> Option<Problem> {
    // Two at once would each bring its own copy to all: what was edited on one of them is gone.
    let from_one = |what: &str, verb: &str| {
        let why = "it changes all nodes, from the one that it is asked on: ask one";
        refused(what, why, &format!("stead {verb}, or -H with one node; --local for each node by itself"))
    };
    let one_file = |what: &str, verb: &str| {
        refused(what, "what each node has would go into the same file", &format!("stead {verb} FILE -H NODE"))
    };
    match verb {
        Verb::Config(args) if !args.local => from_one("no configuration is applied", "config"),
        Verb::Module(ModuleVerb::Install(args)) if !args.local => from_one("nothing is installed", "module install"),
        Verb::Module(ModuleVerb::Uninstall(args)) if !args.local => {
            from_one("nothing is uninstalled", "module uninstall")
        }
        Verb::Module(ModuleVerb::Export(_)) => refused(
            "nothing is exported",
            "what is in force on one node is brought to the others: ask that one",
            "stead module export --to NODES",
        ),
        Verb::Cluster(ClusterVerb::Config(args)) if args.file.is_some() => refused(
            "the cluster stays as it is",
            "its configuration is changed on all nodes, from the one that it is asked on: ask one",
            "stead cluster config FILE",
        ),
        Verb::Cluster(ClusterVerb::Confcheck(_)) => {
            refused("nothing is checked", "one node checks it against all: ask one", "stead cluster confcheck FILE")
        }
        Verb::Logsave(_) => one_file("no log is saved", "logsave"),
        Verb::Module(ModuleVerb::Package(_)) => one_file("nothing is packed", "module package"),
        Verb::Logview(_) => several_logs(),
        Verb::Log(args) if args.follow => several_logs(),
        _ => None,
    }
}

fn several_logs() -> Option<Problem> {
    refused("cannot follow several logs at once", "their lines would mix", "stead log -f -H NODE")
}

/// Whose turn is when.
pub struct Turns {
    /// By place.
    pub of: Vec<usize>,
    /// Where one fails, the later ones do not follow.
    pub is_chain: bool,
}

/// A mirror is stopped where it serves first: its application may have much to write in the end, and each write is acknowledged by the other
/// node, or waits for it. A farm is restarted node by node: all at once, nobody would serve.
pub async fn turns(verb: &Verb, contexts: &[Context]) -> Turns {
    let (is_stop, is_restart) = match verb {
        Verb::Stop(args) => (!args.control.no_wait, false),
        Verb::Restart(args) | Verb::Stopstart(args) => (false, !args.control.no_wait),
        _ => (false, false),
    };
    let at_once = Turns { of: vec![0; contexts.len()], is_chain: false };
    if !(is_stop || is_restart) || contexts.len() < 2 {
        return at_once;
    }
    let asked: Vec<_> = contexts.iter().cloned().map(|context| tokio::spawn(asked(context))).collect();
    let mut views = Vec::new();
    for answer in asked {
        views.push(answer.await.unwrap_or_default());
    }
    if is_restart {
        let is_farm = views.iter().flatten().any(|view| view.mode == "farm");
        return if is_farm { Turns { of: (0..contexts.len()).collect(), is_chain: true } } else { at_once };
    }
    let serves = |view: &Option<ModuleView>| view.as_ref().is_some_and(|view| view.state == ModuleState::Prim);
    // Nobody to wait for: all at once.
    if !views.iter().any(serves) {
        return at_once;
    }
    Turns { of: views.iter().map(|view| usize::from(!serves(view))).collect(), is_chain: false }
}

/// One before it failed.
pub fn not_followed(verb: &Verb, node: &model::NodeName, failed: &model::NodeName) -> Problem {
    let what = format!(
        "{} of the module on {node} is not begun",
        if matches!(verb, Verb::Restart(_)) { "restart" } else { "stopstart" }
    );
    Problem::new(Code::Refused, what, format!("one node after the other, and {failed} has not come back"))
        .with_help(format!("stead state -H {failed}"))
}

/// Who does not answer soon is told of by the stop itself: the others need not wait for that.
async fn asked(context: Context) -> Option<ModuleView> {
    let state = async {
        let module = context.module().await?;
        context.client.get::<ModuleView>(&format!("modules/{module}/state")).await
    };
    tokio::time::timeout(ASKED_WITHIN, state).await.ok()?.ok()
}

/// Why this is not done for another node: it looks at files of this machine.
pub fn elsewhere(verb: &Verb) -> Option<Problem> {
    let here = |what: &str, verb: &str| {
        refused(what, "it reads files of this machine only", &format!("stead {verb}, on that machine"))
    };
    match verb {
        Verb::Journal(JournalVerb::Replay(_)) => here("nothing is replayed", "journal replay"),
        Verb::WhatIf(_) => here("nothing is imagined", "what-if"),
        Verb::Rules(RulesVerb::Test(_)) => here("no rule is tried", "rules test"),
        _ => None,
    }
}
