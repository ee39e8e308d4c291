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
pub struct MirrorfsArgs {
    /// Only say what the next resync would compare, by the change map in this directory (for `stead rfsdiff`)
    #[arg(long, value_name = "DIR", hide = true, requires = "trees")]
    pub reckon: Option<PathBuf>,
    /// A replicated directory, in the order of the configuration
    #[arg(long = "tree", value_name = "DIR", hide = true, requires = "reckon")]
    pub trees: Vec<PathBuf>,
}

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
