//! Where a benchmark happens: namespaces of its own, disks, and two nodes' networks joined by a cable.
//!
//! Everything goes away with it, also after a failure: processes with their namespace, mounts with theirs, networks
//! with the processes that hold them. Only the directory remains, and dropping removes it.

use crate::shell::{must, wait_for};
use anyhow::{Context, bail};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SETUP: Duration = Duration::from_secs(120);

/// What the disks are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// ext4 on a loop device on tmpfs: what software costs is all that is left.
    Ram,
    /// The disk below `/var/tmp`.
    Disk,
}

/// See the module's page.
pub struct Stage {
    base: PathBuf,
    storage: Storage,
    holders: Vec<Child>,
}

/// A program that ends with its guard, or with this process.
pub struct Running(pub Child);

impl Running {
    /// With whoever it keeps beside it: a data plane has a keeper.
    pub fn end(&mut self) {
        // Not every program leads a group.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
        // The keeper has what the process had open, its socket too, until it is gone as well.
        let _ = wait_for("the end of the group", Duration::from_secs(5), || {
            let alive = Command::new("kill").args(["-0", "--", &group]).stderr(Stdio::null()).status();
            Ok((!alive?.success()).then_some(()))
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A disk of one candidate.
#[derive(Clone)]
pub struct Disk {
    /// Mounted here.
    pub root: PathBuf,
    /// The directory that is measured.
    pub data: PathBuf,
    /// The same directory without what will be mounted over it.
    pub lower: PathBuf,
}

impl Stage {
    /// `megabytes`: for all RAM disks together.
    pub fn new(storage: Storage, megabytes: u32) -> anyhow::Result<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        let base = PathBuf::from(format!("/var/tmp/stead-bench-{now}"));
        std::fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        if storage == Storage::Ram {
            sh(&format!("mount -t tmpfs -o size={megabytes}m,mode=755 bench {}", base.display()))?;
        }
        Ok(Self { base, storage, holders: Vec::new() })
    }

    /// The directory of everything.
    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// A disk; `megabytes` is a promise of a RAM disk only.
    pub fn disk(&self, name: &str, megabytes: u32) -> anyhow::Result<Disk> {
        self.formatted(name, megabytes, "")
    }

    /// A disk for many files of at most one KiB.
    pub fn small_files(&self, name: &str, megabytes: u32, inodes: u32) -> anyhow::Result<Disk> {
        self.formatted(name, megabytes, &format!("-b 1024 -N {inodes}"))
    }

    fn formatted(&self, name: &str, megabytes: u32, options: &str) -> anyhow::Result<Disk> {
        let (root, lower) = (self.path(name), self.path(&format!("{name}.lower")));
        let (r, l, image) = (root.display(), lower.display(), self.path(&format!("{name}.image")));
        sh(&format!("mkdir -p {r} {l}"))?;
        if self.storage == Storage::Ram {
            let i = image.display();
            sh(&format!(
                "truncate -s {megabytes}M {i}; mkfs.ext4 -q {options} -E lazy_itable_init=0,lazy_journal_init=0 {i}; mount -o loop {i} {r}"
            ))?;
        }
        sh(&format!("mkdir -p {r}/data {r}/state; mount --bind {r} {l}"))?;
        Ok(Disk { data: root.join("data"), lower: lower.join("data"), root })
    }

    /// Two networks with a cable: 10.99.0.1 and 10.99.0.2.
    pub fn networks(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            let mut holder = Command::new("unshare");
            holder.args(["--net", "sh", "-c", "ip link set lo up && exec sleep infinity"]);
            self.holders.push(start(&mut holder, None)?);
        }
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for holder in &self.holders {
            wait_for("a network namespace", Duration::from_secs(10), || {
                let theirs = std::fs::read_link(format!("/proc/{}/ns/net", holder.id()));
                Ok(theirs.is_ok_and(|t| t != own).then_some(()))
            })?;
        }
        let [a, b] = [self.holders[0].id(), self.holders[1].id()];
        let id = std::process::id();
        sh(&format!(
            "ip link add sb{id} netns {a} type veth peer name sb{id} netns {b}
             nsenter --net=/proc/{a}/ns/net sh -ec 'ip addr add 10.99.0.1/24 dev sb{id}; ip link set sb{id} up'
             nsenter --net=/proc/{b}/ns/net sh -ec 'ip addr add 10.99.0.2/24 dev sb{id}; ip link set sb{id} up'"
        ))
    }

    /// A command on node 0 or 1.
    pub fn on(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holders[node].id())).arg(program);
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        // Everything mounted below, innermost first, whoever is still in it.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let base = self.base.display().to_string();
        for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&base)) {
            let _ = sh(&format!("umount -l {mount}"));
        }
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// Runs `work` in mount and process namespaces of its own: in this very program, started again. Other processes of
/// the machine are not seen there, so they cannot be in the way, and nothing outlives the benchmark.
pub fn apart(programs: &Path, work: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if let Some(programs) = std::env::var_os(INSIDE) {
        return work(Path::new(&programs));
    }
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    again.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, programs);
    end_with_us(&mut again);
    match again.status().context("starting unshare")? {
        status if status.success() => Ok(()),
        status => bail!("the benchmark failed: {status}"),
    }
}

/// Set for the program inside the namespaces: where the programs are.
pub const INSIDE: &str = "STEAD_BENCH_PROGRAMS";

/// A shell command that must succeed.
pub fn sh(command: &str) -> anyhow::Result<()> {
    must(Command::new("sh").arg("-ec").arg(command), SETUP).map(drop)
}

/// Starts a program that ends with this process.
pub fn start(command: &mut Command, log: Option<&Path>) -> anyhow::Result<Child> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(log) = log {
        command.stderr(std::fs::File::create(log)?);
    }
    end_with_us(command);
    command.spawn().with_context(|| format!("starting {name}"))
}

fn end_with_us(command: &mut Command) {
    // SAFETY: one async-signal-safe call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}
