//! Arguments of `stead farm`.

use clap::Subcommand;

/// farm …
#[derive(Subcommand)]
pub enum FarmVerb {
    /// Show who is in the farm, who owns which share, the rules, and what became of the packets
    #[command(
        after_help = "Example:\n  stead farm show -m web\n  stead farm show -m web -H '*'\nNext:\n  stead stop -m web    (its share goes to the other nodes; connections that stand may finish)"
    )]
    Show,
}
