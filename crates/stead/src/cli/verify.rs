//! Arguments of `stead rfsverify`.

use clap::Args;

/// rfsverify.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Repair content and attributes that differ on the secondary
    #[arg(long)]
    pub repair: bool,
    /// Compare no faster than so many KB per second
    #[arg(long, value_name = "KB/S", default_value_t = 0)]
    pub bandwidth: u64,
    /// Return as soon as it runs; `stead state -v` shows how far it is
    #[arg(long)]
    pub no_wait: bool,
}
