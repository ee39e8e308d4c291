//! Arguments of the verbs that scripts and service managers call: printi, printe, shutdown, kill, boot.

use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;

/// printi, printe.
#[derive(Args, Clone, Debug)]
pub struct PrintArgs {
    /// The line
    #[arg(value_name = "TEXT", required = true, num_args = 1..)]
    pub text: Vec<String>,
}

/// shutdown.
#[derive(Args, Clone, Debug)]
pub struct ShutdownArgs {
    /// Longest wait for all modules together, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// kill.
#[derive(Args, Clone, Debug)]
pub struct KillArgs {
    /// Name of the processes, 15 characters at most (also: -name=NAME)
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Only those whose command line matches (POSIX extended)
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub argregex: Option<String>,
    /// test: only list them; terminate or 15: ask them to end; 9: kill them
    #[arg(long, value_enum, default_value_t = Level::Test)]
    pub level: Level,
}

/// How hard.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Listed
    Test,
    /// SIGTERM
    Terminate,
    /// SIGKILL
    #[value(name = "9")]
    Kill,
    /// SIGTERM
    #[value(name = "15")]
    Term,
}

/// boot.
#[derive(Subcommand, Clone, Debug)]
pub enum BootVerb {
    /// Start the module with this node
    #[command(after_help = "Example:\n  stead boot on -m postgresql\nNext:\n  stead boot status -m postgresql")]
    On,
    /// Do not start it with this node
    #[command(after_help = "Example:\n  stead boot off -m postgresql\nNext:\n  stead boot status -m postgresql")]
    Off,
    /// Show what happens to it when this node boots
    #[command(after_help = "Example:\n  stead boot status -m postgresql\nNext:\n  stead boot on -m postgresql")]
    Status,
    /// SafeKit's other services: refused with a sentence.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// SafeKit writes `kill -name=X -argregex=Y -level=9`: options of one dash.
pub fn dashes(args: Vec<OsString>) -> Vec<OsString> {
    let mut words = args.iter().skip(1);
    let verb = loop {
        match words.next().map(|word| word.to_string_lossy()) {
            // Before the verb stand options of every verb, and what these take.
            Some(word) if ["-m", "--module", "-H", "--on", "--socket", "--deadline"].contains(&&*word) => {
                words.next();
            }
            Some(word) if word.starts_with('-') => {}
            other => break other,
        }
    };
    if verb.is_none_or(|verb| verb != "kill") {
        return args;
    }
    let spelt = |word: OsString| match word.to_str() {
        Some(text) if ["-name", "-argregex", "-level"].iter().any(|option| text.starts_with(option)) => {
            format!("-{text}").into()
        }
        _ => word,
    };
    args.into_iter().map(spelt).collect()
}
