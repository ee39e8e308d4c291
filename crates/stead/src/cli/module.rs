//! Arguments of `stead config` and `stead module`.

use clap::{Args, Subcommand};
use model::{ModuleId, ModuleName, NodeName};
use std::ffi::OsString;
use std::path::PathBuf;

/// config.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Change a macro first; may be repeated
    #[arg(long, value_name = "MACRO=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// Check everywhere, apply nowhere
    #[arg(long)]
    pub dry_run: bool,
    /// Only this node (the nodes then differ until it is applied on all)
    #[arg(long)]
    pub local: bool,
    /// Bring back what was in force before (1: the last one), or was edited and overwritten, as `stead confinfo` numbers them
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, default_missing_value = "1", conflicts_with = "set", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub restore: Option<u32>,
}

/// confcheck.
#[derive(Args, Debug)]
pub struct ConfcheckArgs {
    /// A module's folder, a .safe archive or a userconfig.xml, checked here without an agent (default: the module's
    /// editable copy on the node)
    #[arg(value_name = "DIR|X.safe|FILE.xml")]
    pub path: Option<PathBuf>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("write MACRO=VALUE, as in VIP=10.0.1.100".to_string()),
    }
}

/// module …
#[derive(Subcommand)]
pub enum ModuleVerb {
    /// Install a module on all nodes, or on none
    ///
    /// From a delivered module's name, a .safe archive or a folder holding conf/ and bin/. Its editable copy is then
    /// /etc/stead/modules/MODULE on every node; nothing starts before `stead config`.
    #[command(
        after_help = "Example:\n  stead module install postgresql\n  stead module install ./myapp -m myapp2\nNext:\n  stead config -m postgresql --set VIP=10.0.1.100"
    )]
    Install(InstallArgs),
    /// Make a module's folder to begin with, from a delivered one
    ///
    /// NAME/conf/userconfig.xml and NAME/bin, right as they are: to be edited, checked and installed.
    #[command(
        after_help = "Example:\n  stead module new myapp --services myapp --vip 10.0.1.100\nNext:\n  stead confcheck ./myapp\n  stead module install ./myapp"
    )]
    New(NewArgs),
    /// List the modules of this node with their numbers
    #[command(after_help = "Example:\n  stead module listid\nNext:\n  stead module getports")]
    Listid,
    /// SafeKit's word for encrypting a module's replication: it always is
    #[command(after_help = "Example:\n  stead module genkey -m postgresql\nNext:\n  stead cluster state")]
    Genkey,
    /// SafeKit's word for not encrypting it: refused
    #[command(after_help = "Example:\n  stead module delkey -m postgresql\nNext:\n  stead cluster state")]
    Delkey,
    /// List the modules of this node
    #[command(after_help = "Example:\n  stead module list\nNext:\n  stead state")]
    List,
    /// Remove a stopped module from all nodes, or from none; its replicated directories stay
    #[command(after_help = "Example:\n  stead module uninstall -m postgresql\nNext:\n  stead module list")]
    Uninstall(UninstallArgs),
    /// Pack the module's editable copy into a .safe archive
    #[command(
        after_help = "Example:\n  stead module package -m postgresql postgresql.safe\nNext:\n  stead module install postgresql.safe    (on another cluster)"
    )]
    Package(PackageArgs),
    /// Bring what is in force here to other nodes, on all of them or on none (also: stead -H NODES -E MODULE)
    ///
    /// For a node that was away, or that was reinstalled: it gets the module's files, number and configuration.
    #[command(
        after_help = "Example:\n  stead module export -m postgresql\n  stead module export -m postgresql --to node2\nNext:\n  stead confinfo -m postgresql"
    )]
    Export(ExportArgs),
    /// List the ports a firewall must let through
    #[command(
        after_help = "Example:\n  stead module getports\nNext:\n  stead level                   (which networks and nodes are heard)"
    )]
    Getports(PortsArgs),
    /// Print what may be written in userconfig.xml (or cluster.xml): every element, attribute, unit and default
    ///
    /// As a page of the manual; with --json as data for a form; with --xsd as XML Schema for an editor. Needs no agent.
    #[command(
        after_help = "Example:\n  stead module schema --xsd > userconfig.xsd\n  stead module schema cluster\nNext:\n  stead config -m postgresql --dry-run"
    )]
    Schema(SchemaArgs),
}

/// module getports.
#[derive(Args, Debug)]
pub struct PortsArgs {
    /// Only those of the module with this number
    #[arg(short, long, value_name = "NUMBER", value_parser = id)]
    pub id: Option<ModuleId>,
}

/// module new.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The module
    #[arg(value_name = "NAME")]
    pub name: ModuleName,
    /// Which delivered module to begin with
    #[arg(long, value_name = "MODULE", default_value = "mirror")]
    pub template: String,
    /// Folder that gets the new one (default: the current one)
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// The address its clients use; without it that part is a comment
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<String>,
    /// The replicated directory (default: /srv/stead/NAME)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<String>,
    /// The systemd services it starts, separated by commas
    #[arg(long, value_name = "SERVICES")]
    pub services: Option<String>,
}

/// module export.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The nodes, separated by commas (default: all others)
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub to: Vec<NodeName>,
    /// Check everywhere, apply nowhere
    #[arg(long)]
    pub dry_run: bool,
}

/// module schema.
#[derive(Args, Clone, Copy, Debug)]
pub struct SchemaArgs {
    /// Which file is described
    #[arg(value_name = "FILE", value_enum, default_value_t = SchemaOf::Userconfig)]
    pub of: SchemaOf,
    /// As XML Schema
    #[arg(long)]
    pub xsd: bool,
}

/// The files that have a schema.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaOf {
    /// A module's userconfig.xml.
    Userconfig,
    /// The cluster's cluster.xml.
    Cluster,
}

/// module install.
#[derive(Args, Debug)]
pub struct InstallArgs {
    /// A delivered module's name, a .safe archive, or a folder; its name becomes the module's unless -m names it. Without it: the
    /// editable copy of the module that -m names
    #[arg(value_name = "NAME|X.safe|DIR")]
    pub source: Option<String>,
    /// Only this node
    #[arg(long)]
    pub local: bool,
    /// The module's number, 1 to 256: decides its replication port (default: the first free one)
    #[arg(short = 'M', long, value_name = "NUMBER", value_parser = id)]
    pub id: Option<ModuleId>,
    /// Installed already: replace its files (what they were is kept in /var/lib/stead/modules/.removed); what is in force stays until `stead config`
    #[arg(short = 'r')]
    pub replace: bool,
}

fn id(text: &str) -> Result<ModuleId, String> {
    match text.parse::<u16>() {
        Ok(number @ 1..=256) => Ok(ModuleId(number)),
        _ => Err("use a number from 1 to 256".to_string()),
    }
}

/// module uninstall.
#[derive(Args, Debug)]
pub struct UninstallArgs {
    /// The module (or -m)
    #[arg(value_name = "MODULE")]
    pub name: Option<ModuleName>,
    /// Only this node
    #[arg(long)]
    pub local: bool,
}

/// module package.
#[derive(Args, Debug)]
pub struct PackageArgs {
    /// Where to write it (default: MODULE.safe; '-' for stdout)
    #[arg(value_name = "FILE.safe")]
    pub file: Option<PathBuf>,
}

/// SafeKit's `-H NODES -E MODULE`, spelt as `module export`. Command lines with a verb stay as they are: `-E` may be an
/// option of a program that `stead lab exec` starts.
pub fn exporting(args: Vec<OsString>) -> Vec<OsString> {
    let (mut nodes, mut module, mut rest) = (None, None, Vec::new());
    let mut words = args.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-H") => nodes = words.next().cloned(),
            Some("-E") => module = words.next().cloned(),
            Some("--socket" | "--deadline") => rest.extend([Some(word), words.next()].into_iter().flatten().cloned()),
            Some(option) if option.starts_with('-') => rest.push(word.clone()),
            _ => return args,
        }
    }
    let (Some(program), Some(module)) = (args.first(), module) else { return args };
    let mut spelt: Vec<OsString> = vec![program.clone(), "module".into(), "export".into(), "-m".into(), module];
    if let Some(nodes) = nodes.filter(|nodes| nodes != "*") {
        spelt.extend(["--to".into(), nodes]);
    }
    spelt.extend(rest);
    spelt
}
