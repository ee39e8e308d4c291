//! One host: switched on, cut from power, frozen and thawed. Only the supervisor has hosts.

use crate::error::Context;
use crate::init::{Boot, make_cgroups};
use crate::loopdev::{self, LoopDevice};
use crate::options::Agents;
use crate::place::Place;
use crate::plan::{HostPlan, Kind, Plan};
use crate::spawn::{Child, Namespaces, Spawn, spawn};
use crate::status::{HostState, HostStatus};
use crate::switch::{self, LinkFaults};
use crate::{LabError, cgroup, disk, fuse, roles, tools, wait};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// A boot: mounts, journal replay, network.
const BOOT_LIMIT: Duration = Duration::from_secs(20);
/// How long the dead may wait for a FUSE answer before the connection is aborted.
const DEATH_PATIENCE: Duration = Duration::from_millis(150);
/// How long all of a host may take to die.
const DEATH_LIMIT: Duration = Duration::from_secs(5);
/// Until every process that runs is interrupted, before a power cut goes on.
const STOP_LIMIT: Duration = Duration::from_millis(30);
/// Until the kernel says that all is stopped; past it, something waits for a FUSE answer and stops when it returns.
const FREEZE_LIMIT: Duration = Duration::from_millis(300);

/// Power of a host.
enum Power {
    Off,
    On(Running),
}

/// A host that is switched on.
struct Running {
    child: Child,
    start_time: u64,
    control: UnixStream,
    loop_number: u32,
    frozen: Option<Frozen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frozen {
    WholeMachine,
    UserspaceOnly,
}

/// One host of the lab.
pub struct Host {
    pub plan: HostPlan,
    pub cgroup: PathBuf,
    pub faults: Vec<LinkFaults>,
    image: PathBuf,
    log: PathBuf,
    power: Power,
}

impl Host {
    pub fn new(plan: &HostPlan, place: &Place, lab_cgroup: &std::path::Path) -> Self {
        Self {
            cgroup: lab_cgroup.join(&plan.name),
            faults: vec![LinkFaults::default(); plan.links.len()],
            image: place.image(&plan.name),
            log: place.log(&plan.name),
            power: Power::Off,
            plan: plan.clone(),
        }
    }

    pub fn is_off(&self) -> bool {
        matches!(self.power, Power::Off)
    }

    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.power {
            Power::Off => None,
            Power::On(running) => Some(&running.child.pidfd),
        }
    }

    /// PID 1 and its start time.
    pub fn init(&self) -> Result<(i32, u64), LabError> {
        match &self.power {
            Power::Off => Err(LabError::Off { host: self.plan.name.clone() }),
            Power::On(running) => Ok((running.child.pid, running.start_time)),
        }
    }

    /// Makes the disk image (the first time only).
    pub fn make_disk(&self, mib: u64) -> Result<(), LabError> {
        disk::make(&self.image, mib)
    }

    /// First half of a boot: PID 1 runs, is plugged in, and builds the host; its answer is awaited by
    /// [`Self::finish_boot`], so that several hosts boot at the same time.
    pub fn begin_boot(&mut self, plan: &Plan, place: &Place) -> Result<Booting, LabError> {
        make_cgroups(&self.cgroup)?;
        cgroup::set_frozen(&self.cgroup, false)?;
        let device = loopdev::attach(&self.image, place.dir())?;
        let (ours, theirs) = UnixStream::pair().what(|| "cannot make a control socket".into())?;
        let log = || File::options().create(true).append(true).open(&self.log);
        let child = spawn(Spawn {
            argv: &[plan.program.clone().into(), "lab".into(), roles::INIT.into()],
            env: service_environment(plan),
            cwd: vec!["/".as_ref()],
            stdio: [
                File::open("/dev/null").what(|| "cannot open /dev/null".into())?.into(),
                log().what(|| format!("cannot open {}", self.log.display()))?.into(),
                log().what(|| format!("cannot open {}", self.log.display()))?.into(),
            ],
            control: Some(theirs.into()),
            cgroup: &self.cgroup.join(cgroup::HOST),
            namespaces: Namespaces::New,
            own_session: true,
            die_with_thread: true,
        })
        .what(|| format!("cannot start PID 1 of {}", self.plan.name))?;
        let start_time = start_time(child.pid).unwrap_or_default();
        let boot = self.boot(plan, &device)?;
        let pid = child.pid;
        // From here on the host exists and is ended by `end` whatever goes wrong.
        self.power = Power::On(Running { child, start_time, control: ours, loop_number: device.number, frozen: None });
        switch::plug(&self.plan, pid)?;
        // Always: kernels since 6.16 bind the drops of the last power cut to a new plug of the same name.
        switch::drop_frames(&self.plan, &self.faults, false)?;
        switch::raise(&self.plan, &self.faults)?;
        let mut text = serde_json::to_string(&boot).expect("plain data");
        text.push('\n');
        self.say(&text)?;
        Ok(Booting { _device: device })
    }

    /// Second half of a boot: waits until the host is built.
    pub fn finish_boot(&mut self, booting: Booting) -> Result<(), LabError> {
        let Power::On(running) = &self.power else { return Err(LabError::Off { host: self.plan.name.clone() }) };
        let what = || format!("no word from PID 1 of {} (see {})", self.plan.name, self.log.display());
        running.control.set_read_timeout(Some(BOOT_LIMIT)).what(what)?;
        let mut line = String::new();
        let read = BufReader::new(&running.control).read_line(&mut line);
        // Now the mount holds the device, or nobody does and it goes.
        drop(booting);
        read.what(what)?;
        if let Some(error) = running.child.exec_error() {
            return Err(error).what(|| "cannot start PID 1: the program does not run".into());
        }
        let answer: Result<(), String> = serde_json::from_str(&line).map_err(|_| {
            LabError::Refused(format!(
                "{}: PID 1 ended before it was ready (see {})",
                self.plan.name,
                self.log.display()
            ))
        })?;
        answer.map_err(|reason| LabError::Refused(format!("{} does not boot: {reason}", self.plan.name)))
    }

    /// Starts the service.
    pub fn start_service(&mut self) -> Result<(), LabError> {
        self.say("start\n")
    }

    fn say(&self, text: &str) -> Result<(), LabError> {
        let Power::On(running) = &self.power else { return Err(LabError::Off { host: self.plan.name.clone() }) };
        (&running.control).write_all(text.as_bytes()).what(|| format!("PID 1 of {} does not listen", self.plan.name))
    }

    /// The power goes: silence first, then the disk, then the processes. Nothing leaves the host once this began.
    ///
    /// Between silence and death every process is stopped, so that none acts on what no machine without power sees:
    /// its interfaces vanish, and a file system that is shut down under an fsync may answer it with success (jbd2
    /// forgets the transaction it aborts).
    pub fn cut_power(&mut self) -> Result<(), LabError> {
        let stopped = self.stop_everything();
        // Also when something went wrong: half a power cut would be worse.
        self.end().and(stopped)
    }

    fn stop_everything(&self) -> Result<(), LabError> {
        let Power::On(running) = &self.power else { return Ok(()) };
        switch::drop_frames(&self.plan, &self.faults, true)?;
        cgroup::set_frozen(&self.cgroup, true)?;
        // Who is not stopped then waits in the kernel, and stops before it returns to its program.
        cgroup::wait_frozen(&self.cgroup, STOP_LIMIT);
        switch::unplug(&self.plan)?;
        disk::cut_power(running.child.pid, &self.image, running.loop_number)
    }

    /// Ends all of the host and waits until the kernel has let go of its disk.
    pub fn end(&mut self) -> Result<(), LabError> {
        let Power::On(running) = std::mem::replace(&mut self.power, Power::Off) else { return Ok(()) };
        let connections = fuse::connections(running.child.pid);
        cgroup::kill(&self.cgroup);
        let _ = pidfd_send_signal(&running.child.pidfd, Signal::KILL);
        if !wait::readable(running.child.pidfd.as_fd(), DEATH_PATIENCE) {
            fuse::abort(&connections);
            // Not an error yet: PID 1 also waits for children of `exec` that their parent outside has not reaped.
            wait::readable(running.child.pidfd.as_fd(), DEATH_LIMIT);
        }
        reap(running.child.pid);
        // The plugs go with the host's network, but later than a quick next boot may come.
        let _ = switch::unplug(&self.plan);
        if !loopdev::wait_detached(running.loop_number, &self.image, DEATH_LIMIT) {
            return Err(LabError::Deadline {
                what: format!(
                    "{}: the kernel does not let go of its disk (loop{})",
                    self.plan.name, running.loop_number
                ),
                limit: DEATH_LIMIT,
            });
        }
        cgroup::set_frozen(&self.cgroup, false)?;
        cgroup::remove(&self.cgroup, Duration::from_millis(500))
    }

    /// Its PID 1 is gone: what is left is taken away. True if that was so.
    pub fn notice_death(&mut self) -> bool {
        let dead = self.pidfd().is_some_and(|pidfd| wait::readable(pidfd.as_fd(), Duration::ZERO));
        if dead && let Err(error) = self.end() {
            eprintln!("{} died and cannot be cleared: {error}", self.plan.name);
        }
        dead
    }

    /// Stops everything; unless only userspace is meant, the interfaces fall silent with it.
    pub fn freeze(&mut self, userspace: bool) -> Result<(), LabError> {
        let Power::On(running) = &mut self.power else { return Err(LabError::Off { host: self.plan.name.clone() }) };
        cgroup::set_frozen(&self.cgroup, true)?;
        running.frozen = Some(if userspace { Frozen::UserspaceOnly } else { Frozen::WholeMachine });
        self.apply_faults()?;
        cgroup::wait_frozen(&self.cgroup, FREEZE_LIMIT);
        Ok(())
    }

    /// Processes go on, interfaces right after.
    pub fn thaw(&mut self) -> Result<(), LabError> {
        let Power::On(running) = &mut self.power else { return Err(LabError::Off { host: self.plan.name.clone() }) };
        cgroup::set_frozen(&self.cgroup, false)?;
        running.frozen = None;
        self.apply_faults()
    }

    /// Makes the switch drop what `faults` and a freeze ask for.
    pub fn apply_faults(&self) -> Result<(), LabError> {
        let Power::On(running) = &self.power else { return Ok(()) };
        switch::drop_frames(&self.plan, &self.faults, running.frozen == Some(Frozen::WholeMachine))
    }

    /// Makes the carriers what `faults` asks for.
    pub fn apply_carriers(&self) -> Result<(), LabError> {
        if self.is_off() { Ok(()) } else { switch::raise(&self.plan, &self.faults) }
    }

    pub fn is_frozen(&self) -> bool {
        matches!(&self.power, Power::On(running) if running.frozen.is_some())
    }

    pub fn status(&self) -> HostStatus {
        let (pid, state) = match &self.power {
            Power::Off => (None, HostState::Off),
            Power::On(running) if running.frozen.is_some() => (Some(running.child.pid), HostState::Frozen),
            Power::On(running) => (Some(running.child.pid), HostState::Up),
        };
        let links = self.plan.links.iter();
        HostStatus {
            name: self.plan.name.clone(),
            addrs: links.clone().map(|link| (link.net.clone(), link.addr.clone())).collect(),
            pid,
            state,
            faults: links.zip(&self.faults).flat_map(|(link, fault)| fault.describe(&link.net)).collect(),
            cgroup: self.cgroup.display().to_string(),
            log: self.log.display().to_string(),
        }
    }

    fn boot(&self, plan: &Plan, device: &LoopDevice) -> Result<Boot, LabError> {
        let program = plan.program.display().to_string();
        let service = match self.plan.kind {
            _ if plan.agents == Agents::None => Vec::new(),
            Kind::Node => vec![program, "agent".to_owned()],
            Kind::Witness => vec![program, "witness".to_owned()],
            Kind::Client => Vec::new(),
        };
        Ok(Boot {
            hostname: self.plan.name.clone(),
            device: device.path.clone(),
            boot_id: boot_id()?,
            links: self.plan.links.clone(),
            gateway: plan.nets[0].gateway.clone(),
            names: plan.hosts.iter().map(|host| (host.links[0].addr.clone(), host.name.clone())).collect(),
            service,
            service_cgroup: self.cgroup.join(cgroup::SERVICE),
            path: tools::path_for(&plan.program),
            log: self.log.clone(),
        })
    }
}

/// Holds the loop device until the host has mounted it.
pub struct Booting {
    _device: LoopDevice,
}

/// A service manager's environment: nothing of the person who raised the lab but what is meant for the program.
fn service_environment(plan: &Plan) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let given = std::env::vars_os()
        .filter(|(key, _)| key.to_str().is_some_and(|key| key.starts_with("STEAD_") || key.starts_with("RUST_")));
    [("PATH", tools::path_for(&plan.program).as_str()), ("HOME", "/root"), ("LANG", "C.UTF-8")]
        .map(|(key, value)| (key.into(), value.into()))
        .into_iter()
        .chain(given)
        .collect()
}

/// A random UUID, as the kernel writes its own.
fn boot_id() -> Result<String, LabError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    Ok(text.what(|| "cannot read /proc/sys/kernel/random/uuid".into())?.trim().to_owned())
}

/// Field 22 of /proc/PID/stat: with the number it names a process for ever.
pub fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A pidfd of the process that had this number at that time.
pub fn open_process(pid: i32, start: u64) -> Option<OwnedFd> {
    let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (start_time(pid) == Some(start)).then_some(fd)
}

fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
