//! PID 1 of a host: builds its file tree and its network, then does what a service manager would: reaps, starts the
//! service and starts it again at once when it dies.
//!
//! Ends when the supervisor's end of the control socket closes; the kernel then ends the whole host.

use crate::error::Context;
use crate::plan::LinkPlan;
use crate::spawn::CONTROL_FD;
use crate::{LabError, cgroup, mounts, tools, wait};
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A service that dies this often within [`BACKOFF_SPAN`] waits [`BACKOFF`] before it starts again.
const BACKOFF_DEATHS: usize = 8;
const BACKOFF_SPAN: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_secs(1);
/// A log larger than this is moved aside (one generation) when the service starts.
const LOG_MAX: u64 = 16 << 20;

/// What the supervisor tells a host when it is switched on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// Hostname.
    pub hostname: String,
    /// Block device of the disk.
    pub device: PathBuf,
    /// Different at every boot.
    pub boot_id: String,
    /// Interfaces, already moved in.
    pub links: Vec<LinkPlan>,
    /// Default gateway.
    pub gateway: String,
    /// Names for /etc/hosts: (address, name).
    pub names: Vec<(String, String)>,
    /// Program and arguments of the service; empty: none.
    pub service: Vec<String>,
    /// Cgroup of the service.
    pub service_cgroup: PathBuf,
    /// PATH of the service.
    pub path: String,
    /// Where the service's output goes.
    pub log: PathBuf,
}

/// Runs as PID 1; returns when the supervisor is gone.
pub fn run() -> Result<(), LabError> {
    // SAFETY: the supervisor gives the control socket under this number; nothing else owns it.
    let control = UnixStream::from(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) });
    rustix::io::fcntl_setfd(&control, rustix::io::FdFlags::CLOEXEC)
        .what(|| "cannot protect the control socket".into())?;
    let mut lines = BufReader::new(control.try_clone().what(|| "cannot use the control socket".into())?);
    let mut line = String::new();
    lines.read_line(&mut line).what(|| "no word from the supervisor".into())?;
    let boot: Boot = serde_json::from_str(&line)
        .map_err(|error| LabError::Machine(format!("the supervisor's word is not understood: {error}")))?;

    let built = build(&boot);
    let answer = built.as_ref().map_err(ToString::to_string);
    let mut text = serde_json::to_string(&answer).expect("a result of strings");
    text.push('\n');
    (&control).write_all(text.as_bytes()).what(|| "cannot answer the supervisor".into())?;
    built?;
    serve(&boot, &control)
}

fn build(boot: &Boot) -> Result<(), LabError> {
    mounts::build(&boot.device, &boot.boot_id)?;
    rustix::system::sethostname(boot.hostname.as_bytes()).what(|| "cannot set the hostname".into())?;
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (addr, name) in &boot.names {
        let _ = writeln!(hosts, "{addr} {name}");
    }
    replace("/etc/hosts", &hosts)?;
    replace("/etc/hostname", &format!("{}\n", boot.hostname))?;
    network(boot)
}

/// Through rename: the machine's file may be a link or a mount of its own. A host whose disk is full boots all the same: it has had them since
/// it was first up.
fn replace(path: &str, text: &str) -> Result<(), LabError> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let new = format!("{path}.lab");
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).what(|| format!("cannot write {path}"))
}

fn network(boot: &Boot) -> Result<(), LabError> {
    // As an ordinary server: the kernel's own ARP behaviour, whatever the machine has set for itself. Only the
    // noise of IPv6 is off: addresses are there at once and nobody looks for routers.
    for (key, value) in [
        ("ipv4/conf/all/arp_ignore", "0"),
        ("ipv4/conf/all/arp_announce", "0"),
        ("ipv4/conf/all/arp_accept", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/ip_forward", "0"),
        ("ipv4/ip_nonlocal_bind", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ] {
        // A machine without IPv6 has none of the last three.
        let _ = fs::write(format!("/proc/sys/net/{key}"), value);
    }
    let mut script = "link set lo up\n".to_owned();
    for link in &boot.links {
        let _ = writeln!(script, "addr add {}/24 broadcast + dev {}\nlink set {} up", link.addr, link.net, link.net);
        let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{}/rp_filter", link.net), "0");
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_dad", link.net), "0");
    }
    let _ = writeln!(script, "route add default via {}", boot.gateway);
    tools::feed("ip", &["-batch", "-"], &script)
}

/// The service, and when it may start again.
struct Service<'a> {
    boot: &'a Boot,
    pid: Option<i32>,
    deaths: VecDeque<Instant>,
    start_at: Option<Instant>,
}

fn serve(boot: &Boot, control: &UnixStream) -> Result<(), LabError> {
    let signals = child_signals()?;
    let mut service = Service { boot, pid: None, deaths: VecDeque::new(), start_at: None };
    loop {
        let timeout = service.start_at.map(|at| wait::timespec(at.saturating_duration_since(Instant::now())));
        let mut fds = [
            PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).what(|| "cannot poll".into()),
        }
        if !fds[0].revents().is_empty() {
            // One word is ever sent here: start. The end of the stream is the end of this host.
            let mut word = [0; 16];
            match rustix::io::read(control, &mut word) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) if !boot.service.is_empty() => service.start_at = Some(Instant::now()),
                Ok(_) => {}
            }
        }
        let mut drain = [0; 1024];
        let _ = rustix::io::read(&signals, &mut drain);
        reap(&mut service);
        if service.start_at.is_some_and(|at| at <= Instant::now()) {
            service.start();
        }
    }
}

fn reap(service: &mut Service<'_>) {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        if service.pid == Some(pid) {
            service.died(pid, ExitStatus::from_raw(status));
        }
    }
}

impl Service<'_> {
    fn start(&mut self) {
        self.start_at = None;
        match self.spawn() {
            Ok(pid) => self.pid = Some(pid),
            Err(error) => {
                self.note(&format!("cannot start {}: {error}", self.boot.service.join(" ")));
                self.start_at = Some(Instant::now() + BACKOFF);
            }
        }
    }

    fn spawn(&self) -> Result<i32, LabError> {
        if fs::metadata(&self.boot.log).is_ok_and(|meta| meta.len() > LOG_MAX) {
            let _ = fs::rename(&self.boot.log, self.boot.log.with_extension("log.1"));
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.boot.log);
        let log = log.what(|| format!("cannot open {}", self.boot.log.display()))?;
        let errors = log.try_clone().what(|| "cannot share the log".into())?;
        let procs = self.boot.service_cgroup.join("cgroup.procs");
        let procs = fs::OpenOptions::new().write(true).open(&procs);
        let procs = procs.what(|| format!("cannot open {}", self.boot.service_cgroup.display()))?;
        let mut command = Command::new(&self.boot.service[0]);
        command.args(&self.boot.service[1..]).env("PATH", &self.boot.path).current_dir("/");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // SAFETY: only system calls on values made before the fork.
        unsafe {
            command.pre_exec(move || {
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                rustix::process::setsid()?;
                rustix::io::write(&procs, b"0")?;
                Ok(())
            });
        }
        let child = command.spawn().what(|| "spawn".into())?;
        Ok(i32::try_from(child.id()).expect("a pid"))
    }

    fn died(&mut self, pid: i32, status: ExitStatus) {
        self.pid = None;
        let now = Instant::now();
        self.deaths.push_back(now);
        if self.deaths.len() > BACKOFF_DEATHS {
            self.deaths.pop_front();
        }
        let often = self.deaths.len() == BACKOFF_DEATHS
            && self.deaths.front().is_some_and(|first| now.duration_since(*first) < BACKOFF_SPAN);
        let pause = if often { BACKOFF } else { Duration::ZERO };
        self.note(&format!("{} (pid {pid}) ended with {status}: started again", self.boot.service.join(" ")));
        self.start_at = Some(now + pause);
    }

    fn note(&self, text: &str) {
        if let Ok(mut log) = fs::OpenOptions::new().create(true).append(true).open(&self.boot.log) {
            let _ = writeln!(log, "stead lab: {text}");
        }
    }
}

/// SIGCHLD as a descriptor to poll.
fn child_signals() -> Result<OwnedFd, LabError> {
    // SAFETY: the set is made here and outlives the calls; the descriptor is new and owned by nobody else.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    };
    fd.what(|| "cannot watch for dead processes".into())
}

/// Makes sure the cgroups of a host exist (the supervisor's part of a boot).
pub fn make_cgroups(host: &std::path::Path) -> Result<(), LabError> {
    cgroup::make(&host.join(cgroup::HOST))?;
    cgroup::make(&host.join(cgroup::SERVICE))
}
