//! Arguments of `stead journal`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// journal …
#[derive(Subcommand)]
pub enum JournalVerb {
    /// Put a recorded night through the automaton of this program, and compare; nothing is touched
    ///
    /// Exit code 1 when something is decided otherwise today. Needs no agent: the file may come from another machine, from
    /// the same version of Stead.
    #[command(
        after_help = "Example:\n  stead journal replay -m postgresql\n  stead journal replay journal.1 --sentences\nNext:\n  stead why -m postgresql"
    )]
    Replay(ReplayArgs),
}

/// what-if.
#[derive(Args, Debug)]
pub struct WhatIfArgs {
    /// "NODE loses power", or one of start, stop, restart, stopstart, forcestop, of a mirror also swap, prim, second
    #[arg(value_name = "WHAT", required = true, num_args = 1..)]
    pub what: Vec<String>,
    /// The journal that tells where the module is (default: the module's, in /var/lib/stead/modules)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// journal replay.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The journal (default: the module's, in /var/lib/stead/modules)
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Tell the story too
    #[arg(long)]
    pub sentences: bool,
}
