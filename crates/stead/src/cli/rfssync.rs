//! Arguments of `stead rfssync`.

use super::ControlArgs;
use clap::{Args, Subcommand, ValueEnum};

/// rfssync.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RfssyncArgs {
    /// SafeKit's way by date: the same as `external`, dates decide nothing here
    #[arg(short = 'd', num_args = 2, value_names = ["prim|second", "UID"])]
    pub date: Option<Vec<String>>,
    /// How.
    #[command(subcommand)]
    pub how: Option<RfssyncHow>,
}

/// The ways to bring a copy up to date.
#[derive(Subcommand, Clone, Debug)]
pub enum RfssyncHow {
    /// Seed the secondary from a backup of the primary: what the backup brought is compared by hashes and not sent
    #[command(
        after_help = "On the node that serves, before the backup is taken; on the other one, after it was restored into the released directories.\n\nExample:\n  stead rfssync external prim monday -m postgresql\n  stead rfssync external second monday -m postgresql\nNext:\n  stead state -v -m postgresql"
    )]
    External(ExternalArgs),
    /// The same as `stead second fullsync`
    #[command(after_help = "Example:\n  stead rfssync full -m postgresql\nNext:\n  stead state -v -m postgresql")]
    Full(ControlArgs),
}

/// rfssync external.
#[derive(Args, Clone, Debug)]
pub struct ExternalArgs {
    /// What this node is: the one the backup is taken from, or the one it was restored on
    pub role: Seeding,
    /// Name of the backup, for the log: 1 to 24 characters
    #[arg(value_parser = uid)]
    pub uid: String,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Which end of a seeding.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seeding {
    /// The backup is taken from here
    Prim,
    /// The backup was restored here
    Second,
}

fn uid(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if (1..=24).contains(&length) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("a backup's name has 1 to 24 characters, this one has {length}"))
    }
}

impl RfssyncArgs {
    /// What is asked for, whichever way it was written.
    ///
    /// # Errors
    /// The sentence what is wrong with `-d`.
    pub fn asked(&self) -> Result<RfssyncHow, String> {
        if let Some(how) = &self.how {
            return Ok(how.clone());
        }
        let words: Vec<&str> = self.date.iter().flatten().map(String::as_str).collect();
        let [role, name] = words[..] else { return Err("use external, full or -d".into()) };
        let role = Seeding::from_str(role, false).map_err(|_| format!("'{role}' is neither prim nor second"))?;
        Ok(RfssyncHow::External(ExternalArgs { role, uid: uid(name)?, control: ControlArgs::waiting() }))
    }
}
