//! Arguments of the long-running roles and of the documents `stead` prints about itself.

use clap::Args;
use std::path::PathBuf;

/// agent.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Keep everything of the node below this directory (etc, var, run) instead of /etc/stead, /var/lib/stead, /run/stead
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// mirrorfs.
#[derive(Args, Debug)]
pub struct MirrorfsArgs {}

/// witness.
#[derive(Args, Debug)]
pub struct WitnessArgs {
    /// Keep everything of the witness below this directory (etc, var, run)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// completions.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// man.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write one page per verb into this directory instead
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
