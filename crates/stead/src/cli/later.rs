//! SafeKit's verbs that Stead does not have, or not under that name: refused with a sentence, never "unknown".

use super::Asked;
use clap::{Arg, Command};
use model::api::{Code, Problem};

/// A verb that is not here.
pub struct Later {
    /// As SafeKit's users type it.
    pub name: &'static str,
    /// What it is about, and where that stands.
    pub why: &'static str,
    /// What to do today.
    pub help: &'static str,
}

impl Later {
    /// The refusal.
    pub fn problem(&self) -> Problem {
        Problem::new(
            Code::NotYet,
            if self.name.starts_with('-') {
                format!("there is no option '{}' alone", self.name)
            } else {
                format!("there is no verb '{}'", self.name)
            },
            self.why,
        )
        .with_help(self.help)
    }
}

const fn later(name: &'static str, why: &'static str, help: &'static str) -> Later {
    Later { name, why, help }
}

const SUPPORT: &str = "snapshots and dumps come with a later version";

/// All of them.
pub const LATER: &[Later] = &[
    later("cmdlog", "commands are in the module's log, level U", "stead log"),
    later("webserver", "there is no web server to manage: the agent serves its own API", "stead level"),
    later(
        "webservercfg",
        "there is no web server to manage: nodes prove themselves with certificates",
        "stead cluster token",
    ),
    later("notification", "notifications come with a later version", "stead state --json, from your monitoring"),
    later("safeagent", "the agent is one service", "systemctl restart stead"),
    later(
        "uninstall",
        "the package manager that installed Stead removes it",
        "stead module uninstall removes one module",
    ),
    later("snapshot", SUPPORT, "stead log -v -s 10000, stead why, stead state -v --json"),
    later("dump", SUPPORT, "stead log -v -s 10000, stead why, stead state -v --json"),
    later("clean", SUPPORT, "logs are bounded by themselves"),
];

/// Options of SafeKit's that stand without a verb.
const ALONE: &[Later] = &[
    later("-G", "cluster.xml is in force on all nodes or on none: there is nothing to send", "stead cluster confinfo"),
    later(
        "-p",
        "the variables of scripts are SAFE, SAFEBIN, SAFEVAR, SAFEMODULE, SAFEUSERBIN and so on",
        "env, in a script of the module",
    ),
];

/// A command line with one of these: `-H NODES -G`, `-p`, and no verb.
pub fn alone(args: &[std::ffi::OsString]) -> Option<Asked> {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let words: Vec<&str> = match words.as_slice() {
        ["-H" | "-m", _, rest @ ..] => rest.to_vec(),
        all => all.to_vec(),
    };
    let verb = ALONE.iter().find(|later| words.first() == Some(&later.name))?;
    Some(Asked::Later { verb, json: words.contains(&"--json") })
}

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Later> {
    LATER.iter().find(|later| later.name == name)
}

/// Adds them, hidden, taking any argument.
pub fn add(command: Command) -> Command {
    command.subcommands(LATER.iter().map(|later| {
        Command::new(later.name)
            .hide(true)
            .disable_help_flag(true)
            .arg(Arg::new("arguments").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true))
    }))
}
