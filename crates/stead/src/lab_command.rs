//! `stead lab`: the command line of the lab. Words in, sentences and JSON out; the work is in crate `lab`.

use clap::{Args, Subcommand};
use lab::{Agents, Lab, LabError, Options, Status};
use std::ffi::OsString;
use std::process::ExitCode;

/// Exit code of `exec` when the lab, not the program, failed.
const EXEC_FAILED: u8 = 125;

/// A whole cluster on this machine: every node in namespaces of its own, with its own disk and networks.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stead lab up --witness\n  stead lab exec node1 -- stead cluster state\n  \
    stead lab power cut node1\n  stead lab down\nNext:\n  stead lab status")]
pub struct LabArgs {
    /// Name of the lab: several can stand side by side
    #[arg(id = "lab_name", long = "name", value_name = "L", default_value = "lab", global = true)]
    name: String,
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Raise a lab: returns when the agents run and the nodes are paired
    #[command(after_help = "Example:\n  stead lab up --nodes 2 --networks 2 --witness\nNext:\n  stead lab status")]
    Up {
        /// Number of nodes (node1, node2, …)
        // Text, because `--nodes` of all other verbs is a list of names and clap wants one type for one option.
        #[arg(long, value_name = "N", default_value = "2")]
        nodes: String,
        /// Number of networks (net1: 10.0.1.0/24, net2: 10.0.2.0/24)
        #[arg(long, default_value_t = 1)]
        networks: u8,
        /// Add a witness host
        #[arg(long)]
        witness: bool,
        /// Hosts that run nothing: no agents, no pairing
        #[arg(long)]
        no_agents: bool,
        /// Agents that are in no cluster yet: to play `stead cluster init` and `join` by hand
        #[arg(long, conflicts_with = "no_agents")]
        no_pairing: bool,
        /// Size of each host's disk in MiB (sparse: it takes what is written)
        #[arg(long, value_name = "MIB", default_value_t = 4096)]
        disk: u64,
        /// Print the status as JSON when the lab stands
        #[arg(long)]
        json: bool,
    },
    /// Take a lab away with everything in it
    #[command(after_help = "Example:\n  stead lab down\nNext:\n  stead lab up")]
    Down,
    /// Show hosts, addresses and what is wrong with them
    #[command(after_help = "Example:\n  stead lab status --json\nNext:\n  stead lab exec node1 -- stead state")]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program inside a host; its exit code is passed on
    #[command(
        after_help = "Example:\n  stead lab exec node1 -- stead state\nThe exit code is the program's; 125: the lab failed, \
            126: not executable, 127: not found.\nNext:\n  stead lab status"
    )]
    Exec {
        /// node1, node2, …, client, witness
        node: String,
        /// Program and arguments
        #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Cut a host from power, or switch it on
    #[command(
        subcommand,
        after_help = "Example: stead lab power cut node1\nNext:    stead lab exec node2 -- stead state"
    )]
    Power(PowerCommand),
    /// Stop a host like a paused virtual machine
    #[command(after_help = "Example:\n  stead lab freeze node1 --userspace\nNext:\n  stead lab thaw node1")]
    Freeze {
        /// node1, node2, …, client, witness
        node: String,
        /// Only the processes stop: the host's kernel still answers (ARP, ping, TCP)
        #[arg(long)]
        userspace: bool,
    },
    /// Let a frozen host go on
    #[command(after_help = "Example:\n  stead lab thaw node1\nNext:\n  stead lab status")]
    Thaw {
        /// node1, node2, …, client, witness
        node: String,
    },
    /// Break and heal links
    #[command(subcommand, after_help = "Example: stead lab link cut node1 net1\nNext:    stead lab link heal node1")]
    Link(LinkCommand),
    #[command(name = lab::roles::SUPERVISOR, hide = true)]
    Supervisor,
    #[command(name = lab::roles::INIT, hide = true)]
    Init,
}

#[derive(Debug, Subcommand)]
enum PowerCommand {
    /// The power goes: links silent, what was not flushed lost, processes dead
    #[command(after_help = "Example:\n  stead lab power cut node1\nNext:\n  stead lab power on node1")]
    Cut {
        /// node1, node2, …, client, witness
        node: String,
    },
    /// Boot a host from its disk
    #[command(after_help = "Example:\n  stead lab power on node1\nNext:\n  stead lab status")]
    On {
        /// node1, node2, …, client, witness
        node: String,
    },
}

#[derive(Debug, Subcommand)]
enum LinkCommand {
    /// Drop every frame, both ways
    #[command(after_help = "Example:\n  stead lab link cut node1 net1\nNext:\n  stead lab link heal node1")]
    Cut {
        /// node1, node2, …, client, witness
        node: String,
        /// net1 or net2; without: all
        net: Option<String>,
        /// The host sees the link go down (otherwise the carrier stays)
        #[arg(long)]
        carrier: bool,
    },
    /// End everything that is wrong with a host's link
    #[command(after_help = "Example:\n  stead lab link heal node1\nNext:\n  stead lab status")]
    Heal {
        /// node1, node2, …, client, witness
        node: String,
        /// net1 or net2; without: all
        net: Option<String>,
    },
    /// NODE no longer hears PEER; PEER still hears NODE
    #[command(after_help = "Example:\n  stead lab link oneway node1 node2\nNext:\n  stead lab link heal node1")]
    Oneway {
        /// Who becomes deaf
        node: String,
        /// Whom it no longer hears
        peer: String,
        /// net1 or net2; without: all
        net: Option<String>,
    },
}

/// Runs `stead lab …`.
///
/// # Errors
/// What the lab refused, as a sentence for a person.
pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    let name = args.name;
    let open = || Lab::open(&name);
    let note = match args.command {
        LabCommand::Supervisor => return Ok(lab::roles::supervisor()),
        LabCommand::Init => return Ok(lab::roles::init()),
        LabCommand::Exec { node, command } => return Ok(exec(&name, &node, &command)),
        LabCommand::Up { nodes, networks, witness, no_agents, no_pairing, disk, json } => {
            let nodes = nodes.parse().map_err(|_| anyhow::anyhow!("--nodes {nodes}: how many nodes, as a number"))?;
            let agents = match (no_agents, no_pairing) {
                (true, _) => Agents::None,
                (false, true) => Agents::Unpaired,
                (false, false) => Agents::Paired,
            };
            let options = Options {
                name: name.clone(),
                nodes,
                networks,
                witness,
                agents,
                program: std::env::current_exe()?,
                disk_mib: disk,
            };
            let lab = lab::interrupt::up(&options)?;
            show(&lab.status()?, json)?;
            None
        }
        LabCommand::Down => (!Lab::down(&name)?).then(|| format!("there is no lab '{name}': nothing to do")),
        LabCommand::Status { json } => {
            show(&open()?.status()?, json)?;
            None
        }
        LabCommand::Power(PowerCommand::Cut { node }) => open()?.power_cut(&node)?,
        LabCommand::Power(PowerCommand::On { node }) => open()?.power_on(&node)?,
        LabCommand::Freeze { node, userspace } => open()?.freeze(&node, userspace)?,
        LabCommand::Thaw { node } => open()?.thaw(&node)?,
        LabCommand::Link(LinkCommand::Cut { node, net, carrier }) => {
            open()?.link_cut(&node, net.as_deref(), carrier)?
        }
        LabCommand::Link(LinkCommand::Heal { node, net }) => open()?.link_heal(&node, net.as_deref())?,
        LabCommand::Link(LinkCommand::Oneway { node, peer, net }) => {
            open()?.link_oneway(&node, &peer, net.as_deref())?
        }
    };
    if let Some(note) = note {
        eprintln!("{note}");
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(name: &str, node: &str, command: &[OsString]) -> ExitCode {
    match Lab::open(name).and_then(|lab| lab.foreground(node, command)) {
        Ok(exit) => ExitCode::from(u8::try_from(exit.code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("stead lab exec: {error}");
            ExitCode::from(match &error {
                LabError::Exec { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
                LabError::Exec { .. } => 126,
                _ => EXEC_FAILED,
            })
        }
    }
}

fn show(status: &Status, json: bool) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(status)?)?;
        return Ok(());
    }
    writeln!(out, "{:<10}{:<9}{:<9}{:<26}FAULTS", "HOST", "STATE", "PID", "ADDRESSES")?;
    for host in status.hosts() {
        let addrs = host.addrs.values().map(String::as_str).collect::<Vec<_>>().join(" ");
        let pid = host.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        writeln!(out, "{:<10}{:<9}{:<9}{:<26}{}", host.name, host.state, pid, addrs, host.faults.join(", "))?;
    }
    if let (Some(first), Some(last)) = (status.vip_pool.first(), status.vip_pool.last()) {
        writeln!(out, "free addresses for virtual IPs: {first} to {last}")?;
    }
    Ok(())
}
