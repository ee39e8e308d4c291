//! A lab from outside: raise it, break it, look at it, take it away. What the command line, the demo and the tests use.

use crate::error::Context;
use crate::exec::{self, Exit, Output, Running, Start, Stdio};
use crate::options::{Agents, check_name};
use crate::place::{BASE, Place};
use crate::plan::Plan;
use crate::protocol::{Answer, Entry, Request};
use crate::status::{HostState, Status};
use crate::{LabError, Options, pairing, roles, sweep, tools, wait};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// The hosts are built within this, agents not counted.
const BUILD_LIMIT: Duration = Duration::from_secs(30);
/// Longest single request: a power cut with a stuck mount.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long `down` waits for the supervisor before it uses force.
const DOWN_LIMIT: Duration = Duration::from_secs(15);

/// A lab that is up. A handle only: dropping it changes nothing (see [`LabGuard`]).
#[derive(Clone, Debug)]
pub struct Lab {
    name: String,
    place: Place,
}

impl Lab {
    /// Raises a lab: hosts, networks, and (unless `agents` is off) paired agents. On error nothing remains.
    ///
    /// # Errors
    /// Not root, missing programs, bad options, already up, or what failed while building.
    pub fn up(options: &Options) -> Result<Self, LabError> {
        let raised = Self::raise(options);
        if raised.as_ref().is_err_and(Unfinished::has_remains) {
            // The first error is the one to tell.
            let _ = Self::down(&options.name);
        }
        raised.map_err(Unfinished::into_error)
    }

    /// As [`Self::up`], but leaves to the caller what remains of a lab that could not be finished.
    pub(crate) fn raise(options: &Options) -> Result<Self, Unfinished> {
        let place = Place::new(&options.name);
        let lock = Self::make_room(options, &place).map_err(Unfinished::NothingMade)?;
        let lab = Self { name: options.name.clone(), place };
        match lab.build(&Plan::new(options), lock) {
            Ok(()) => Ok(lab),
            Err(error) => Err(Unfinished::Remains(error)),
        }
    }

    /// Checks, takes the lock, and sweeps what a crash left.
    fn make_room(options: &Options, place: &Place) -> Result<OwnedFd, LabError> {
        options.check()?;
        tools::require()?;
        let name = &options.name;
        let already = || LabError::AlreadyUp(name.clone());
        let held = lock(name, place)?.ok_or_else(already)?;
        if fs::read_dir(place.dir()).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(held);
        }
        sweep::sweep(name)?;
        lock(name, place)?.ok_or_else(already)
    }

    fn build(&self, plan: &Plan, lock: OwnedFd) -> Result<(), LabError> {
        let (ours, theirs) = UnixStream::pair().what(|| "cannot make a socket".into())?;
        let log = File::create(self.place.supervisor_log()).what(|| "cannot make the supervisor's log".into())?;
        let errors = log.try_clone().what(|| "cannot share the log".into())?;
        let keep = lock.as_raw_fd();
        let mut command = Command::new(&plan.program);
        command.args(["lab", roles::SUPERVISOR]).current_dir("/");
        command.stdin(OwnedFd::from(theirs)).stdout(log).stderr(errors);
        // SAFETY: only system calls. The lock goes along, everything else the caller has open stays behind: a pipe
        // of a test harness held by a supervisor would never end.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
                libc::fcntl(keep, libc::F_SETFD, 0);
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                Ok(())
            });
        }
        let mut supervisor = command.spawn().what(|| format!("cannot start {}", plan.program.display()))?;
        // The command holds the other end of the socket.
        drop(command);
        // Its end is awaited by a thread, so that it is no zombie while this process lives.
        std::thread::spawn(move || supervisor.wait());

        let mut text = serde_json::to_string(plan).expect("plain data");
        text.push('\n');
        (&ours).write_all(text.as_bytes()).what(|| "the supervisor does not listen".into())?;
        ours.set_read_timeout(Some(BUILD_LIMIT)).what(|| "timeout".into())?;
        let mut line = String::new();
        BufReader::new(&ours).read_line(&mut line).what(|| "no word from the supervisor".into())?;
        match serde_json::from_str(&line) {
            Ok(Answer::Done { .. }) => {}
            Ok(Answer::Refused { reason }) => return Err(LabError::Refused(reason)),
            _ => {
                let log = fs::read_to_string(self.place.supervisor_log()).unwrap_or_default();
                return Err(LabError::Refused(format!("the supervisor ended before the lab stood: {}", log.trim())));
            }
        }
        // The supervisor alone holds it now: it is free as soon as the supervisor is gone.
        drop(lock);
        match plan.agents {
            Agents::None => {}
            Agents::Unpaired => pairing::services_answer(self, plan)?,
            Agents::Paired => pairing::pair(self, plan)?,
        }
        // Until this word the supervisor ends the lab when this process goes.
        (&ours).write_all(b"keep\n").what(|| "the supervisor is gone".into())
    }

    /// A lab that is up already.
    ///
    /// # Errors
    /// Not root, bad name, not up.
    pub fn open(name: &str) -> Result<Self, LabError> {
        check_name(name)?;
        tools::require()?;
        let place = Place::new(name);
        if UnixStream::connect(place.socket()).is_err() {
            return Err(LabError::NotUp(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), place })
    }

    /// Ends a lab in whatever state it is. False: there was none.
    ///
    /// # Errors
    /// Something does not let go; what is named.
    pub fn down(name: &str) -> Result<bool, LabError> {
        check_name(name)?;
        tools::require()?;
        let place = Place::new(name);
        if !place.dir().exists() && !crate::cgroup::lab(name)?.exists() {
            return Ok(false);
        }
        let lab = Self { name: name.to_owned(), place };
        let mut held = None;
        wait::until(DOWN_LIMIT, || {
            held = lock(name, &lab.place).unwrap_or_default();
            // Asked again and again: a lab that is just being raised listens when it stands.
            held.is_some() || {
                let _ = lab.ask(&Request::Down);
                false
            }
        });
        // Without the lock: a supervisor that does not answer. The sweep kills it.
        sweep::sweep(name)?;
        Ok(true)
    }

    /// Name of the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state of everything.
    ///
    /// # Errors
    /// The lab is not up any more.
    pub fn status(&self) -> Result<Status, LabError> {
        match self.ask(&Request::Status)? {
            Answer::Status { status } => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a program inside a host and collects what it prints; standard input is empty.
    ///
    /// # Errors
    /// The host is unknown or off, the program cannot be started, or it ran past the limit (it is killed then).
    pub fn exec(&self, host: &str, argv: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.spawn(host, argv, [Stdio::Null, Stdio::Piped, Stdio::Piped])?.output(limit)
    }

    /// Starts a program inside a host: standard input, output, error as asked.
    ///
    /// # Errors
    /// The host is unknown or off. That the program cannot be started is told by [`Running::wait`].
    pub fn spawn(&self, host: &str, argv: &[&str], stdio: [Stdio; 3]) -> Result<Running, LabError> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let entry = self.enter(host)?;
        exec::start(Start { host, entry: &entry, argv: &argv, stdio, die_with_thread: false })
    }

    /// Runs a program in the foreground of the caller's terminal and waits for it, however long; signals sent to
    /// this process go to the program. Only for a command line: it changes the process's signal handlers.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn foreground(&self, host: &str, argv: &[OsString]) -> Result<Exit, LabError> {
        let entry = self.enter(host)?;
        crate::foreground::run(host, &entry, argv)
    }

    /// PID 1 of a host and how to enter it.
    fn enter(&self, host: &str) -> Result<Entry, LabError> {
        match self.ask(&Request::Enter { host: host.to_owned() })? {
            Answer::Entry { entry } => Ok(entry),
            other => Err(unexpected(&other)),
        }
    }

    /// Cuts a host from power. The note says when it was off already.
    ///
    /// # Errors
    /// Unknown host; a disk the kernel does not let go of.
    pub fn power_cut(&self, host: &str) -> Result<Option<String>, LabError> {
        self.order(&Request::PowerCut { host: host.to_owned() })
    }

    /// Boots a host from its disk.
    ///
    /// # Errors
    /// Unknown host; it does not boot.
    pub fn power_on(&self, host: &str) -> Result<Option<String>, LabError> {
        self.order(&Request::PowerOn { host: host.to_owned() })
    }

    /// Stops a host like a paused virtual machine; `userspace`: only its processes, its kernel still answers.
    ///
    /// # Errors
    /// Unknown host, or off.
    pub fn freeze(&self, host: &str, userspace: bool) -> Result<Option<String>, LabError> {
        self.order(&Request::Freeze { host: host.to_owned(), userspace })
    }

    /// Lets a frozen host go on.
    ///
    /// # Errors
    /// Unknown host, or off.
    pub fn thaw(&self, host: &str) -> Result<Option<String>, LabError> {
        self.order(&Request::Thaw { host: host.to_owned() })
    }

    /// Drops every frame of a host's link, both ways (all networks without `net`); `carrier`: it sees the link down.
    ///
    /// # Errors
    /// Unknown host or network.
    pub fn link_cut(&self, host: &str, net: Option<&str>, carrier: bool) -> Result<Option<String>, LabError> {
        self.order(&Request::LinkCut { host: host.to_owned(), net: net.map(str::to_owned), carrier })
    }

    /// Ends everything wrong with a host's link, what others do not hear from it included.
    ///
    /// # Errors
    /// Unknown host or network.
    pub fn link_heal(&self, host: &str, net: Option<&str>) -> Result<Option<String>, LabError> {
        self.order(&Request::LinkHeal { host: host.to_owned(), net: net.map(str::to_owned) })
    }

    /// `host` no longer hears `peer`; `peer` still hears `host`.
    ///
    /// # Errors
    /// Unknown host or network.
    pub fn link_oneway(&self, host: &str, peer: &str, net: Option<&str>) -> Result<Option<String>, LabError> {
        let net = net.map(str::to_owned);
        self.order(&Request::LinkOneway { host: host.to_owned(), peer: peer.to_owned(), net })
    }

    /// Ends every fault: all hosts on, none frozen, all links whole. For tests that share a lab.
    ///
    /// # Errors
    /// A host does not boot.
    pub fn restore(&self) -> Result<(), LabError> {
        for host in self.status()?.hosts() {
            self.link_heal(&host.name, None)?;
            match host.state {
                HostState::Up => {}
                HostState::Off => drop(self.power_on(&host.name)?),
                HostState::Frozen => drop(self.thaw(&host.name)?),
            }
        }
        Ok(())
    }

    fn order(&self, request: &Request) -> Result<Option<String>, LabError> {
        match self.ask(request)? {
            Answer::Done { note } => Ok(note),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, LabError> {
        let gone = |_| LabError::NotUp(self.name.clone());
        let stream = UnixStream::connect(self.place.socket()).map_err(gone)?;
        stream.set_read_timeout(Some(REQUEST_LIMIT)).what(|| "timeout".into())?;
        let mut text = serde_json::to_string(request).expect("plain data");
        text.push('\n');
        (&stream).write_all(text.as_bytes()).map_err(gone)?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).what(|| "the lab's supervisor does not answer".into())?;
        match serde_json::from_str(&line) {
            Ok(Answer::Refused { reason }) => Err(LabError::Refused(reason)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(LabError::NotUp(self.name.clone())),
        }
    }
}

/// Why a lab was not raised, and whether something of it stands.
pub(crate) enum Unfinished {
    /// Refused before anything was made (or another lab of this name stands).
    NothingMade(LabError),
    /// `down` is needed.
    Remains(LabError),
}

impl Unfinished {
    pub(crate) fn has_remains(&self) -> bool {
        matches!(self, Self::Remains(_))
    }
    pub(crate) fn into_error(self) -> LabError {
        let (Self::NothingMade(error) | Self::Remains(error)) = self;
        error
    }
}

/// Takes its lab down when dropped: for tests, so that a failing one leaves nothing.
#[derive(Debug)]
pub struct LabGuard(pub Lab);

impl LabGuard {
    /// Raises a lab that goes with the guard.
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn up(options: &Options) -> Result<Self, LabError> {
        Lab::up(options).map(Self)
    }
}

impl std::ops::Deref for LabGuard {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for LabGuard {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(&self.0.name) {
            eprintln!("the lab '{}' could not be removed: {error}", self.0.name);
        }
    }
}

fn unexpected(answer: &Answer) -> LabError {
    LabError::Refused(format!("the supervisor answered something else: {answer:?}"))
}

/// The lab's lock is its directory: held by whoever builds or removes the lab, and by the supervisor as long as it
/// lives. None: held by somebody else.
fn lock(name: &str, place: &Place) -> Result<Option<OwnedFd>, LabError> {
    let what = || format!("cannot make {}", place.dir().display());
    for _ in 0..8 {
        make_dir(BASE.as_ref()).what(what)?;
        if make_dir(place.dir()).is_err() {
            // Removed between the two: again.
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(dir) = rustix::fs::open(place.dir(), flags, Mode::empty()) else { continue };
        match flock(dir.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).what(what),
        }
        // Locked, but perhaps a directory that was just removed.
        let same = rustix::fs::fstat(&dir)
            .is_ok_and(|held| fs::metadata(place.dir()).is_ok_and(|now| now.ino() == held.st_ino));
        if same {
            return Ok(Some(dir));
        }
    }
    Err(LabError::Busy(name.to_owned()))
}

fn make_dir(dir: &std::path::Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
