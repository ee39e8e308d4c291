//! Arguments of `stead cluster`.

use clap::{Args, Subcommand};
use model::NodeName;
use std::path::PathBuf;

/// cluster …
#[derive(Subcommand)]
pub enum ClusterVerb {
    /// Make a new cluster with this machine as its first node, and print a token for the second
    #[command(
        after_help = "Example:\n  stead cluster init --name node1 --addr 10.0.1.1 --addr 10.0.2.1\nNext:\n  stead cluster join 10.0.1.1 --token TOKEN --name node2 --addr 10.0.1.2 --addr 10.0.2.2    (on the second machine)"
    )]
    Init(InitArgs),
    /// Enter the cluster of another machine
    #[command(
        after_help = "Example:\n  stead cluster join 10.0.1.1 --token TOKEN --name node2 --addr 10.0.1.2\nNext:\n  stead cluster state"
    )]
    Join(JoinArgs),
    /// Print a token with which one machine can join within an hour
    #[command(
        after_help = "Example:\n  stead cluster token\nNext:\n  stead cluster join ADDR --token TOKEN    (on the other machine)"
    )]
    Token,
    /// Show the cluster's configuration (cluster.xml), or check FILE and apply it on all nodes or none
    #[command(
        after_help = "Example:\n  stead cluster config > cluster.xml\n  stead cluster config cluster.xml --dry-run\n  stead cluster config cluster.xml\nNext:\n  stead cluster confinfo"
    )]
    Config(ConfigArgs),
    /// Show which cluster configuration each node has
    #[command(after_help = "Example:\n  stead cluster confinfo\nNext:\n  stead cluster config          (show it)")]
    Confinfo,
    /// Check a cluster.xml against every node, and change nothing: `stead cluster config FILE --dry-run`
    #[command(
        after_help = "Example:\n  stead cluster confcheck cluster.xml\nNext:\n  stead cluster config cluster.xml"
    )]
    Confcheck(ConfcheckArgs),
    /// SafeKit's word for taking a node out of its cluster's configuration: refused, a cluster ends with its last module
    #[command(hide = true, after_help = "Example:\n  stead cluster deconfig\nNext:\n  stead cluster state")]
    Deconfig,
    /// SafeKit's word for encrypting the cluster's traffic: it always is
    #[command(hide = true, after_help = "Example:\n  stead cluster genkey\nNext:\n  stead cluster state")]
    Genkey,
    /// SafeKit's word for not encrypting it: refused
    #[command(hide = true, after_help = "Example:\n  stead cluster delkey\nNext:\n  stead cluster state")]
    Delkey,
    /// Show every module on every node
    #[command(after_help = "Example:\n  stead cluster state\nNext:\n  stead state -v -m MODULE")]
    State,
}

/// cluster init.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Name of this node
    #[arg(long, value_name = "NODE")]
    pub name: NodeName,
    /// Address of this node on a network (IP or NETWORK=IP); once per network
    #[arg(long = "addr", value_name = "ADDR", required = true)]
    pub addrs: Vec<String>,
}

/// cluster join.
#[derive(Args, Debug)]
pub struct JoinArgs {
    /// Address of a node of the cluster
    #[arg(value_name = "ADDR")]
    pub member: String,
    /// The token that `stead cluster init` or `stead cluster token` printed
    #[arg(long)]
    pub token: String,
    /// Name of this node (default: the host's name)
    #[arg(long, value_name = "NODE")]
    pub name: Option<NodeName>,
    /// Address of this node on a network (IP or NETWORK=IP); once per network
    #[arg(long = "addr", value_name = "ADDR")]
    pub addrs: Vec<String>,
    /// Join as the witness: it serves no module, and decides who may serve when the nodes lose each other
    #[arg(long)]
    pub witness: bool,
    /// Take the place of the member with this name, which is gone for good (a reinstalled machine)
    #[arg(long)]
    pub replace: bool,
}

/// cluster confcheck.
#[derive(Args, Debug)]
pub struct ConfcheckArgs {
    /// The cluster.xml to check ('-' for stdin)
    pub file: PathBuf,
}

/// SafeKit's word behind the file.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// Nobody changes it from a console
    Lock,
    /// Anybody may
    Unlock,
}

/// cluster config.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The new cluster.xml ('-' for stdin), or a .zip that holds one; without it the present one is printed
    pub file: Option<PathBuf>,
    /// SafeKit's word; accepted: a configuration is signed, and changed on all nodes or on none
    #[arg(requires = "file")]
    pub lock: Option<Lock>,
    /// Check everywhere, apply nowhere
    #[arg(long, requires = "file")]
    pub dry_run: bool,
    /// A member that has left for good, and has no line in FILE: it is let in nowhere any more
    #[arg(long, value_name = "NODE", requires = "file")]
    pub forget: Vec<NodeName>,
}
