//! Arguments of `stead checker`, `errd`, `get`, `set`, `rules`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// checker …, errd on|off
#[derive(Subcommand)]
pub enum CheckerVerb {
    /// Watch again
    #[command(after_help = "Example:\n  stead checker on -m postgresql\nNext:\n  stead get -m postgresql")]
    On,
    /// Watch nothing, for maintenance; survives stop and start
    #[command(
        after_help = "Example:\n  stead checker off -m postgresql --for 2h --reason disks\nNext:\n  stead checker on -m postgresql"
    )]
    Off(OffArgs),
}

/// errd …
#[derive(Subcommand)]
pub enum ErrdVerb {
    /// Watch processes again
    #[command(after_help = "Example:\n  stead errd on -m postgresql\nNext:\n  stead errd list -m postgresql")]
    On,
    /// Watch no process, for maintenance; survives stop and start
    #[command(after_help = "Example:\n  stead errd off -m postgresql --for 30m\nNext:\n  stead errd on -m postgresql")]
    Off(OffArgs),
    /// Show the processes that are watched
    #[command(after_help = "Example:\n  stead errd list -m postgresql\nNext:\n  stead get -m postgresql")]
    List,
    /// Watch the processes of a class of one's own
    #[command(after_help = "Example:\n  stead errd enable night -m postgresql\nNext:\n  stead errd list -m postgresql")]
    Enable(ClassArgs),
    /// Do not watch them any more
    #[command(
        after_help = "Example:\n  stead errd disable night -m postgresql\nNext:\n  stead errd list -m postgresql"
    )]
    Disable(ClassArgs),
}

/// off.
#[derive(Args, Debug)]
pub struct OffArgs {
    /// On again by itself after this time (90s, 30m, 2h, 1d); without it, when you say so
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub time: Option<u64>,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// enable, disable.
#[derive(Args, Debug)]
pub struct ClassArgs {
    /// The class, as <proc class="…"> says it
    #[arg(value_name = "CLASS")]
    pub class: String,
}

/// get.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Only this one
    #[arg(short, long, value_name = "RESOURCE")]
    pub resource: Option<String>,
}

/// set.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// custom.NAME or user.NAME
    #[arg(short, long, value_name = "RESOURCE")]
    pub resource: String,
    /// up, down, init or unknown
    #[arg(short, long, value_name = "VALUE")]
    pub value: String,
    /// SafeKit's -n and -l: accepted; every change of a resource is in the log and nowhere twice
    #[arg(short = 'n')]
    pub quiet: bool,
    /// See -n
    #[arg(short = 'l', conflicts_with = "quiet")]
    pub logged: bool,
    /// Who says so
    #[arg(short, long, value_name = "NAME", default_value = "")]
    pub identity: String,
}

/// rules …
#[derive(Subcommand)]
pub enum RulesVerb {
    /// Play values of resources against the module's rules; nothing is touched
    ///
    /// Steps: class.name=value (up, down, init, unknown), remote.class.name=value, "wait 15s". Without a step, the rules in
    /// force are listed.
    #[command(
        after_help = "Example:\n  stead rules test -m postgresql tcp.db=up tcp.db=down\n  stead rules test --file userconfig.xml heartbeat.net1=down \"wait 15s\"\nNext:\n  stead config -m postgresql"
    )]
    Test(RulesTestArgs),
}

/// rules test.
#[derive(Args, Debug)]
pub struct RulesTestArgs {
    /// The configuration (default: the module's, in /etc/stead/modules)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What happens, one after the other
    #[arg(value_name = "STEP")]
    pub steps: Vec<String>,
}

fn time(text: &str) -> Result<u64, String> {
    match model::schema::units::milliseconds(text, model::schema::units::Unit::Second)? {
        0 => Err("no time at all: leave --for out to switch it off until you say so".into()),
        ms => Ok(ms),
    }
}
