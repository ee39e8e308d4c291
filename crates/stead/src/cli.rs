//! What may be typed: verbs, options, and the help of each with an example and the next command.
//!
//! Only the shape; nothing here acts. **Invariant:** every `--help` ends with `Example:` and `Next:` (a test walks them).

mod checkers;
mod cluster;
mod control;
mod farm;
mod journal;
mod later;
mod module;
mod quarantine;
mod rfssync;
mod roles;
mod scripts;
mod verify;

pub use checkers::{CheckerVerb, ErrdVerb, GetArgs, OffArgs, RulesTestArgs, RulesVerb, SetArgs};
pub use cluster::ClusterVerb;
pub use control::{
    ControlArgs, FailoverVerb, FullSync, FullVerbArgs, IncloopArgs, MoveArgs, PrimArgs, SecondForceArgs, SwapArgs,
    WaitArgs, WaitStateArgs,
};
pub use farm::FarmVerb;
pub use journal::{JournalVerb, ReplayArgs, WhatIfArgs};
pub use later::Later;
pub use module::{
    ConfcheckArgs, ConfigArgs, ExportArgs, InstallArgs, ModuleVerb, NewArgs, PackageArgs, SchemaArgs, SchemaOf,
    UninstallArgs,
};
pub use quarantine::QuarantineVerb;
pub use rfssync::{ExternalArgs, RfssyncArgs, RfssyncHow, Seeding};
pub use roles::{AgentArgs, CompletionsArgs, ManArgs, MirrorfsArgs, WitnessArgs};
pub use scripts::{BootVerb, KillArgs, Level, PrintArgs, ShutdownArgs};
pub use verify::VerifyArgs;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use model::ModuleName;
use std::path::PathBuf;

/// High availability for ordinary applications on two ordinary servers.
///
/// An application's directories are replicated in real time between two nodes, its virtual IP address and its processes
/// follow the primary, and a failover needs no hand. Every command below talks to the agent of this machine.
#[derive(Parser)]
#[command(
    name = "stead",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 100 no agent answers on this machine.
  `stead state -lq` exits with the state instead: 0 STOP, 1 WAIT, 2 ALONE or UP, 3 PRIM, 4 SECOND,
  100 no agent, 101 anything else.
The module: -m, else the variable STEAD_MODULE or SAFEMODULE, else the only module there is.

Example:
  stead state
Next:
  stead why -m MODULE          why it is there and what would move it"
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The module; may be omitted when there is only one (or set STEAD_MODULE or SAFEMODULE)
    #[arg(short = 'm', long = "module", global = true, help_heading = "Everywhere", value_name = "MODULE")]
    pub module: Option<ModuleName>,
    /// Run on these nodes instead of this one: names separated by commas, or '*' for all
    #[arg(short = 'H', long = "on", global = true, help_heading = "Everywhere", value_name = "NODES")]
    pub on: Option<String>,
    /// Print one JSON document on stdout
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// The agent's socket (default: /run/stead/agent.sock)
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Longest wait for one answer of the agent, in seconds (default: 5 for a look, more for a change)
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: Option<u64>,
}

/// Everything `stead` can be asked.
#[derive(Subcommand)]
pub enum Verb {
    /// Show where the modules are: state, status, and why
    ///
    /// One row per module and node. STOP, WAIT, ALONE (serves without a copy), PRIM (serves with a copy), SECOND (complete
    /// copy); NotReady, Transient, Ready.
    #[command(
        after_help = "Example:\n  stead state -v -m postgresql\n  stead state -m postgresql -lq; echo $?    (0 STOP, 1 WAIT, 2 ALONE or UP, 3 PRIM, 4 SECOND, 100 no agent, 101 failed)\nNext:\n  stead why -m postgresql"
    )]
    State(StateArgs),
    /// Show the versions, this node, its networks and the nodes it hears
    #[command(after_help = "Example:\n  stead level\nNext:\n  stead cluster state")]
    Level,
    /// Print the module's log
    ///
    /// One line per event: | date time.us | component | level | text. Levels: U user, E event, C critical, S script; with -v
    /// also I information and D debug.
    #[command(after_help = "Example:\n  stead log -m postgresql -s 50 -f\nNext:\n  stead why -m postgresql")]
    Log(LogArgs),
    /// SafeKit's word for `stead log -f`
    #[command(after_help = "Example:\n  stead logview -m postgresql -s 50\nNext:\n  stead why -m postgresql")]
    Logview(LogArgs),
    /// Write the module's log to a file, as `stead log` prints it
    #[command(
        after_help = "Example:\n  stead logsave -A -m postgresql /tmp/postgresql.log\nNext:\n  stead log -m postgresql"
    )]
    Logsave(LogsaveArgs),
    /// Tell why the module is where it is, what it waits for, and what would move it
    #[command(after_help = "Example:\n  stead why -m postgresql\nNext:\n  stead log -v -m postgresql")]
    Why,
    /// Start the module; the two nodes decide who serves
    ///
    /// A node whose copy is not known to be complete waits for the other one instead of serving.
    #[command(
        after_help = "Example:\n  stead start -m postgresql\nNext:\n  stead state -m postgresql\n  stead prim -m postgresql      (first start ever: this node has the good copy)"
    )]
    Start(ControlArgs),
    /// Stop the module on this node; the others take over (a farm's connections may finish first)
    #[command(
        after_help = "Example:\n  stead stop -m postgresql\nNext:\n  stead start -m postgresql\n  stead release -m postgresql   (open its directories while it is stopped)"
    )]
    Stop(MoveArgs),
    /// Stop and start the application without moving it
    #[command(after_help = "Example:\n  stead restart -m postgresql\nNext:\n  stead state -m postgresql")]
    Restart(MoveArgs),
    /// Stop the module and start it again: moves the application when this node serves it
    #[command(after_help = "Example:\n  stead stopstart -m postgresql\nNext:\n  stead state -m postgresql")]
    Stopstart(MoveArgs),
    /// Exchange the roles of primary and secondary
    #[command(after_help = "Example:\n  stead swap -m postgresql\nNext:\n  stead state -m postgresql")]
    Swap(SwapArgs),
    /// Start as primary: this node has the good copy
    ///
    /// Needed once, at the first start ever, on the node whose data counts. Refused when the other node serves, or when this
    /// copy is known to be incomplete; --force overrides, and the other node's copy is then compared as a whole.
    #[command(
        after_help = "Example:\n  stead prim -m postgresql\nNext:\n  stead start -m postgresql -H node2    (the other node follows)"
    )]
    Prim(PrimArgs),
    /// Start as secondary: follow the node that serves
    #[command(after_help = "Example:\n  stead second fullsync -m postgresql\nNext:\n  stead state -m postgresql")]
    Second(FullVerbArgs),
    /// Stop now: kill what does not stop by itself
    #[command(after_help = "Example:\n  stead forcestop -m postgresql\nNext:\n  stead log -m postgresql")]
    Forcestop(ControlArgs),
    /// Open the directories of a stopped module for writing
    ///
    /// A stopped module's directories stay covered read-only, so that nothing changes behind its back. What is changed after
    /// a release is found by comparing before the next resynchronisation.
    #[command(after_help = "Example:\n  stead release -m postgresql\nNext:\n  stead start -m postgresql")]
    Release(ControlArgs),
    /// Wait until the module serves or follows: ALONE, PRIM, SECOND or UP, Ready
    #[command(
        after_help = "Example:\n  stead waitstart -m postgresql --timeout 60\nNext:\n  stead why -m postgresql       (when it does not come)"
    )]
    Waitstart(WaitArgs),
    /// Wait until the module is stopped
    #[command(after_help = "Example:\n  stead waitstop -m postgresql\nNext:\n  stead start -m postgresql")]
    Waitstop(WaitArgs),
    /// Wait until the module is in a state, and settled there
    #[command(after_help = "Example:\n  stead waitstate SECOND -m postgresql\nNext:\n  stead swap -m postgresql")]
    Waitstate(WaitStateArgs),
    /// Check the module's configuration and apply it on all nodes, or on none
    ///
    /// Reads /etc/stead/modules/MODULE on this node, checks it on every node, then makes it the active one everywhere.
    /// --dry-run shows what would change and what needs a stop; a module that runs takes the rest while it runs.
    #[command(
        after_help = "Example:\n  stead config -m postgresql --set VIP=10.0.1.100 --dry-run\n  stead config -m postgresql --set VIP=10.0.1.100\n  stead config -m postgresql --restore\nNext:\n  stead confinfo -m postgresql\n  stead start -m postgresql"
    )]
    Config(ConfigArgs),
    /// Check a configuration and tell everything there is to say about it
    ///
    /// Errors, and notes on what has no effect here or is not acted on yet, each with its file, line and column. Exit code 1
    /// when there is an error.
    #[command(
        after_help = "Example:\n  stead confcheck -m postgresql\n  stead confcheck ./myapp\n  stead confcheck myapp.safe\nNext:\n  stead config -m postgresql"
    )]
    Confcheck(ConfcheckArgs),
    /// Show the macros of the module and which configuration each node has
    #[command(after_help = "Example:\n  stead confinfo -m postgresql\nNext:\n  stead config -m postgresql")]
    Confinfo,
    /// Install, list, pack and remove modules
    #[command(
        subcommand,
        after_help = "Example:\n  stead module install postgresql\nNext:\n  stead config -m postgresql"
    )]
    Module(ModuleVerb),
    /// Compare the secondary's copy with the primary's, while the application goes on
    ///
    /// Exact: every file, attribute and byte is compared at one position of the replication, so that what the application writes
    /// meanwhile is never taken for a difference. Exit code 1 when something differs (and was not repaired).
    #[command(
        after_help = "Example:\n  stead rfsverify -m postgresql\n  stead rfsverify --repair -m postgresql\nNext:\n  stead state -v -m postgresql    (the resync that follows when entries were missing or extra on the secondary)"
    )]
    Rfsverify(VerifyArgs),
    /// Estimate what the next resync would cost: entries, bytes, time
    ///
    /// Asked on the node that serves alone: once for a node that left in order, once for one that lost power.
    #[command(
        after_help = "Example:\n  stead rfsdiff -m postgresql\nNext:\n  stead start -m postgresql -H node2    (the other node is brought up to date)"
    )]
    Rfsdiff,
    /// Bring this node's copy up to date in a way that is not the usual one: seeded from a backup, or as a whole
    ///
    /// A copy that was seeded is compared by hashes of its blocks: what the backup brought is read on both nodes and not sent.
    #[command(
        after_help = "Example:\n  stead stop -m postgresql\n  stead release -m postgresql    (then restore the backup)\n  stead rfssync external second monday -m postgresql\nNext:\n  stead state -v -m postgresql"
    )]
    Rfssync(RfssyncArgs),
    /// A farm: all nodes serve behind one address, each its share of the clients
    #[command(
        subcommand,
        after_help = "Example:\n  stead farm show -m web\nNext:\n  stead state -m web\n  stead log -m web"
    )]
    Farm(FarmVerb),
    /// Files that a losing copy had: kept by a resync before they were overwritten
    ///
    /// After a split brain, and when a released or foreign copy is overwritten, what only that copy had stays on its node until
    /// somebody drops it.
    #[command(
        subcommand,
        after_help = "Example:\n  stead quarantine list -m postgresql\nNext:\n  stead quarantine show FOLDER -m postgresql"
    )]
    Quarantine(QuarantineVerb),
    /// Switch the module's checkers off for maintenance, and on again
    #[command(
        subcommand,
        after_help = "Example:\n  stead checker off -m postgresql --for 2h --reason disks\nNext:\n  stead get -m postgresql"
    )]
    Checker(CheckerVerb),
    /// Whether a secondary takes over by itself (on all nodes, unless -H names some)
    ///
    /// The configuration's failover= says it first; this says otherwise until it changes.
    #[command(
        subcommand,
        after_help = "Example:\n  stead failover off -m postgresql\nNext:\n  stead failover on -m postgresql"
    )]
    Failover(FailoverVerb),
    /// Count an automatic action of your own script: exit code 1 when there are too many in a row
    #[command(
        after_help = "Example:\n  stead incloop -i mychecker -m postgresql\nNext:\n  stead restart -m postgresql\n  stead checkloop -m postgresql"
    )]
    Incloop(IncloopArgs),
    /// Forget the automatic actions
    #[command(after_help = "Example:\n  stead resetloop -m postgresql\nNext:\n  stead checkloop -m postgresql")]
    Resetloop,
    /// Show how many automatic actions there were in a row
    #[command(after_help = "Example:\n  stead checkloop -m postgresql\nNext:\n  stead log -m postgresql")]
    Checkloop,
    /// Write a line into the module's log, level I (seen with `stead log -v`)
    #[command(
        after_help = "Example:\n  stead printi -m postgresql \"backup done\"\nNext:\n  stead log -v -m postgresql"
    )]
    Printi(PrintArgs),
    /// Write a line into the module's log, level E
    #[command(after_help = "Example:\n  stead printe -m postgresql \"disk is full\"\nNext:\n  stead log -m postgresql")]
    Printe(PrintArgs),
    /// Stop every module of this node, because it goes down: what ran comes back with it
    #[command(after_help = "Example:\n  stead shutdown --timeout 120\nNext:\n  stead state")]
    Shutdown(ShutdownArgs),
    /// Run the module's script `update`, in the state the module is in
    #[command(after_help = "Example:\n  stead update -m postgresql\nNext:\n  stead log -m postgresql")]
    Update,
    /// Take the configuration of a stopped module out of force on this node; files and data stay
    #[command(after_help = "Example:\n  stead deconfig -m postgresql\nNext:\n  stead config -m postgresql")]
    Deconfig,
    /// List or end processes of this machine by name, as scripts need it
    #[command(
        after_help = "Example:\n  stead kill --name postgres --argregex /srv/pg --level test\n  stead kill -name=postgres -level=9\nNext:\n  stead restart -m postgresql"
    )]
    Kill(KillArgs),
    /// Whether the module starts with this node, when its configuration leaves that open (boot="ignore")
    #[command(
        subcommand,
        after_help = "Example:\n  stead boot on -m postgresql\nNext:\n  stead boot status -m postgresql"
    )]
    Boot(BootVerb),
    /// SafeKit's word for `stead prim --force`
    #[command(after_help = "Example:\n  stead primforce -m postgresql\nNext:\n  stead quarantine list -m postgresql")]
    Primforce(ControlArgs),
    /// SafeKit's word for `stead second fullsync`
    #[command(
        after_help = "Example:\n  stead secondforce -d 2026-11-27 -m postgresql\nNext:\n  stead state -v -m postgresql"
    )]
    Secondforce(SecondForceArgs),
    /// Switch the watching of processes off and on, list them
    #[command(subcommand, after_help = "Example:\n  stead errd list -m postgresql\nNext:\n  stead get -m postgresql")]
    Errd(ErrdVerb),
    /// Show the module's resources: value, since when, what they were
    #[command(
        after_help = "Example:\n  stead get -m postgresql\n  stead get -r tcp.db -m postgresql\nNext:\n  stead rules test -m postgresql tcp.db=down"
    )]
    Get(GetArgs),
    /// Set a resource of one's own, which rules look at
    #[command(
        after_help = "Example:\n  stead set -r custom.disk -v down -i diskcheck -m postgresql\nNext:\n  stead get -r custom.disk -m postgresql"
    )]
    Set(SetArgs),
    /// Replay what the automaton decided, from a module's journal
    #[command(
        subcommand,
        after_help = "Example:\n  stead journal replay /var/lib/stead/modules/postgresql/journal\nNext:\n  stead why -m postgresql"
    )]
    Journal(JournalVerb),
    /// Tell what would follow on this node, without touching anything
    ///
    /// The automaton itself, from where the module's journal ends, in a world where scripts succeed at once. Where something
    /// outside would be asked (the witness, the split-brain checker), both answers are lived through; so is, of a farm, whether
    /// connections that stand finish or stay. Times are those of the
    /// module's patience, and do not count what scripts and disks take.
    #[command(
        name = "what-if",
        after_help = "Example:\n  stead what-if \"node1 loses power\" -m postgresql\n  stead what-if swap -m postgresql\nNext:\n  stead why -m postgresql"
    )]
    WhatIf(WhatIfArgs),
    /// Try failover rules out
    #[command(
        subcommand,
        after_help = "Example:\n  stead rules test -m postgresql tcp.db=down\nNext:\n  stead get -m postgresql"
    )]
    Rules(RulesVerb),
    /// Make, enter, configure and show the cluster
    #[command(
        subcommand,
        after_help = "Example:\n  stead cluster init --name node1 --addr 10.0.1.1\nNext:\n  stead cluster join 10.0.1.1 --token TOKEN --name node2    (on the second machine)"
    )]
    Cluster(ClusterVerb),
    /// Raise a whole cluster on this machine, break it, and look
    ///
    /// Every node lives in namespaces of its own, with its own disk and networks: for evaluating, for demonstrations, for tests.
    Lab(crate::lab_command::LabArgs),
    /// Run the agent of this node (started by the service manager)
    #[command(
        after_help = "Example:\n  stead agent\nNext:\n  stead cluster init --name node1 --addr 10.0.1.1\n  stead level"
    )]
    Agent(AgentArgs),
    /// Run the data plane of one module (started by the agent)
    #[command(after_help = "Example:\n  stead mirrorfs -m postgresql\nNext:\n  stead state -v -m postgresql")]
    Mirrorfs(MirrorfsArgs),
    /// Run the witness (on a third machine)
    #[command(
        after_help = "Example:\n  stead witness\nNext:\n  stead cluster token           (on a node; then, on the witness: stead cluster join ADDR --token T --witness)"
    )]
    Witness(WitnessArgs),
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  stead completions bash > /etc/bash_completion.d/stead\nNext:\n  stead man --dir /usr/local/share/man/man1"
    )]
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    #[command(
        after_help = "Example:\n  stead man | man -l -\n  stead man --dir /usr/local/share/man/man1\nNext:\n  stead completions bash"
    )]
    Man(ManArgs),
}

/// `stead state`.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// Everything known: epoch, data, addresses, replication, application, peer
    #[arg(short, long)]
    pub verbose: bool,
    /// Only this node
    #[arg(short, long)]
    pub local: bool,
    /// Print only the state of this node and exit with its number
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stead logsave`.
#[derive(Args, Debug)]
pub struct LogsaveArgs {
    /// Which lines; all that are kept, unless -s says otherwise.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where to; what is there is replaced
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// SafeKit's languages of a log.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// English
    En,
    /// SafeKit has it in French
    Fr,
    /// SafeKit has it in Japanese
    Ja,
}

/// `stead log`.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How many lines
    #[arg(short = 's', long = "lines", value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=i64::from(model::api::LOG_LINES_MAX)))]
    pub lines: u32,
    /// Levels I and D too (SafeKit writes -A)
    #[arg(short, long, short_alias = 'A')]
    pub verbose: bool,
    /// SafeKit's language of the texts: they are in English whatever it says
    #[arg(short = 'l', value_name = "LANGUAGE", num_args = 0..=1)]
    pub language: Option<Option<Language>>,
    /// Go on with what comes, until interrupted (with --json: one line per object)
    #[arg(short, long)]
    pub follow: bool,
}

/// The whole command, with the verbs of a later stage hidden in it.
pub fn command() -> clap::Command {
    later::add(Cli::command())
}

/// What a command line asks.
pub enum Asked {
    /// A verb of today.
    Now(Box<Cli>),
    /// A verb of SafeKit's that Stead does not have (yet).
    Later {
        /// Which.
        verb: &'static Later,
        /// `--json` was given.
        json: bool,
    },
}

/// Reads a command line.
///
/// # Errors
/// clap's: wrong usage, or a help text to print.
pub fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Asked, clap::Error> {
    let args: Vec<std::ffi::OsString> = args.into_iter().collect();
    if let Some(asked) = later::alone(&args) {
        return Ok(asked);
    }
    // Behind a verb that takes any words, it is one of them.
    let wants_json = args.iter().any(|word| word == "--json");
    let mut command = command();
    let matches = command.try_get_matches_from_mut(scripts::dashes(module::exporting(args)))?;
    if let Some(verb) = matches.subcommand_name().and_then(later::find) {
        return Ok(Asked::Later { verb, json: matches.get_flag("json") || wants_json });
    }
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if matches!(cli.verb, Verb::Boot(BootVerb::Other(_))) {
        cli.global.json |= wants_json;
    }
    Ok(Asked::Now(Box::new(cli)))
}

#[cfg(test)]
#[path = "cli/tests.rs"]
mod tests;
