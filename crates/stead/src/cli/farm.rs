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
    /// From a script: this node is ready for its share of the clients (a module with scriptcontrol="on")
    #[command(after_help = "Example:\n  stead farm open -m web\nNext:\n  stead farm show -m web")]
    Open,
    /// From a script: no new clients to this node; connections that stand may finish (scriptcontrol="on")
    #[command(after_help = "Example:\n  stead farm close -m web\nNext:\n  stead farm open -m web")]
    Close,
}
