//! Arguments of the verbs that move a module.

use clap::{Args, Subcommand, ValueEnum};
use model::ModuleState;

/// start, forcestop, release; and what waits like them.
#[derive(Args, Clone, Debug, Default)]
pub struct ControlArgs {
    /// Return as soon as the command is accepted
    #[arg(long)]
    pub no_wait: bool,
    /// Give up waiting when nothing has changed for so many seconds (a resynchronisation that advances is a change)
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

impl ControlArgs {
    /// As nobody said otherwise.
    #[must_use]
    pub const fn waiting() -> Self {
        Self { no_wait: false, timeout: 300 }
    }
}

/// stop, restart, stopstart: what a script or a checker of the module may ask for as well.
#[derive(Args, Clone, Debug, Default)]
pub struct MoveArgs {
    /// The script or checker that asks, for the log; automatic actions so far are not forgotten (see incloop)
    #[arg(short, long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// swap.
#[derive(Args, Clone, Debug, Default)]
pub struct SwapArgs {
    /// SafeKit's word; nothing is lost to be faster here: both copies are equal already
    pub nosync: Option<NoSync>,
    /// The script or checker that asks, for the log; automatic actions so far are not forgotten (see incloop)
    #[arg(short, long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// The word that skips SafeKit's synchronisation.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSync {
    /// Accepted
    Nosync,
}

/// secondforce.
#[derive(Args, Clone, Debug)]
pub struct SecondForceArgs {
    /// SafeKit's date of a restored backup; everything is compared here, so it decides nothing
    #[arg(short = 'd', value_name = "DATE")]
    pub date: Option<String>,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// failover.
#[derive(Subcommand, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailoverVerb {
    /// A secondary takes over when its primary is lost
    #[command(
        after_help = "Example:\n  stead failover on -m postgresql\nNext:\n  stead get -r usersetting.failover -m postgresql"
    )]
    On,
    /// It waits for `stead prim` instead; until it is switched on, or failover= of the configuration changes
    #[command(after_help = "Example:\n  stead failover off -m postgresql\nNext:\n  stead failover on -m postgresql")]
    Off,
}

/// incloop.
#[derive(Args, Clone, Debug)]
pub struct IncloopArgs {
    /// Who acts
    #[arg(short, long, value_name = "NAME", default_value = "an operator")]
    pub identity: String,
}

/// The word that asks for a full comparison.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FullSync {
    /// Compare everything
    Fullsync,
}

/// second.
#[derive(Args, Clone, Debug)]
pub struct FullVerbArgs {
    /// 'fullsync': compare everything instead of what is known to have changed
    pub full: Option<FullSync>,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// prim.
#[derive(Args, Clone, Debug)]
pub struct PrimArgs {
    /// 'fullsync': the other node's copy will be compared as a whole
    pub full: Option<FullSync>,
    /// Serve although this copy may be old or incomplete: what only the other node has is lost
    #[arg(long)]
    pub force: bool,
    /// Waiting.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// waitstart, waitstop.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// waitstate.
#[derive(Args, Clone, Debug)]
pub struct WaitStateArgs {
    /// STOP, WAIT, ALONE, PRIM, SECOND or UP
    #[arg(value_parser = state, value_name = "STATE")]
    pub state: ModuleState,
    /// How long.
    #[command(flatten)]
    pub wait: WaitArgs,
}

fn state(text: &str) -> Result<ModuleState, String> {
    use ModuleState::{Alone, Prim, Second, Stop, Up, Wait};
    [Stop, Wait, Alone, Prim, Second, Up]
        .into_iter()
        .find(|state| state.to_string().eq_ignore_ascii_case(text))
        .ok_or_else(|| "use one of STOP, WAIT, ALONE, PRIM, SECOND, UP".to_string())
}
