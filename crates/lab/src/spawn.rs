//! Starting a process in namespaces: new ones (a host's PID 1) or those of a host (`exec`).
//!
//! clone3, because it alone puts the child into its cgroup from its first instruction, and because the caller must
//! not wait for the exec: in a frozen host the child stops before it. Between clone and exec the child only makes
//! system calls on memory prepared before: the caller may have threads.

use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Descriptor of the child's control socket.
pub const CONTROL_FD: RawFd = 3;
/// Descriptors are moved here first, so that none sits where another must go.
const HIGH: RawFd = 10;

/// Which namespaces the child lives in.
pub enum Namespaces<'a> {
    /// New network, mount, PID, UTS and IPC namespaces.
    New,
    /// Those of the process behind this pidfd, PID 1 of a host.
    Of(BorrowedFd<'a>),
}

/// What to start.
pub struct Spawn<'a> {
    /// Program (searched in the PATH of `env` unless it has a slash) and arguments.
    pub argv: &'a [OsString],
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Directories to try as working directory, seen from inside.
    pub cwd: Vec<&'a Path>,
    /// Standard input, output, error.
    pub stdio: [OwnedFd; 3],
    /// Given to the child as descriptor 3.
    pub control: Option<OwnedFd>,
    /// Where the child begins its life.
    pub cgroup: &'a Path,
    /// Where it lives.
    pub namespaces: Namespaces<'a>,
    /// Away from the caller's terminal and signals.
    pub own_session: bool,
    /// SIGKILL to the child when the calling *thread* ends.
    pub die_with_thread: bool,
}

/// A started process.
#[derive(Debug)]
pub struct Child {
    /// As the caller sees it.
    pub pid: i32,
    /// Stays valid when the number is reused.
    pub pidfd: OwnedFd,
    /// Readable once the exec succeeded (end of file) or failed (an errno).
    pub refusal: OwnedFd,
}

impl Child {
    /// Why the program could not be started; None if it was, or if that is not known yet.
    pub fn exec_error(&self) -> Option<io::Error> {
        let mut bytes = [0; 4];
        match rustix::io::read(&self.refusal, &mut bytes) {
            Ok(4) => Some(io::Error::from_raw_os_error(i32::from_ne_bytes(bytes))),
            _ => None,
        }
    }
}

/// Everything the child needs, as addresses.
struct Prepared {
    programs: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    cwd: Vec<CString>,
    fds: Vec<RawFd>,
    join: Option<RawFd>,
    refusal: RawFd,
    own_session: bool,
    die_with_thread: bool,
}

/// Starts it.
pub fn spawn(spawn: Spawn<'_>) -> io::Result<Child> {
    let path = spawn.env.iter().find(|(key, _)| key == "PATH").map_or(OsStr::new(""), |(_, value)| value);
    let programs = candidates(spawn.argv.first().map_or(OsStr::new(""), OsString::as_os_str), path)?;
    let argv = spawn.argv.iter().map(cstring).collect::<io::Result<Vec<_>>>()?;
    let env = spawn
        .env
        .iter()
        .map(|(key, value)| cstring(OsStr::from_bytes(&[key.as_bytes(), b"=", value.as_bytes()].concat())))
        .collect::<io::Result<Vec<_>>>()?;
    let moved =
        spawn.stdio.iter().chain(&spawn.control).map(|fd| high(fd.as_fd())).collect::<io::Result<Vec<OwnedFd>>>()?;
    let (refusal, refusal_child) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let refusal_child = high(refusal_child.as_fd())?;
    rustix::io::ioctl_fionbio(&refusal, true)?;
    let cgroup = std::fs::File::open(spawn.cgroup)?;

    let prepared = Prepared {
        programs,
        argv: pointers(&argv),
        envp: pointers(&env),
        cwd: spawn.cwd.iter().map(|dir| cstring(dir.as_os_str())).collect::<io::Result<_>>()?,
        fds: moved.iter().map(AsRawFd::as_raw_fd).collect(),
        join: match &spawn.namespaces {
            Namespaces::New => None,
            Namespaces::Of(pidfd) => Some(pidfd.as_raw_fd()),
        },
        refusal: refusal_child.as_raw_fd(),
        own_session: spawn.own_session,
        die_with_thread: spawn.die_with_thread,
    };

    // Entering a PID namespace concerns only children: do it, clone, come back.
    let home = match &spawn.namespaces {
        Namespaces::New => None,
        Namespaces::Of(pidfd) => {
            let home = std::fs::File::open("/proc/thread-self/ns/pid")?;
            enter_pid_namespace(*pidfd)?;
            Some(home)
        }
    };
    let cloned = clone(&prepared, cgroup.as_raw_fd());
    if let Some(home) = home {
        enter_pid_namespace(home.as_fd())?;
    }
    let (pid, pidfd) = cloned?;
    Ok(Child { pid, pidfd, refusal })
}

fn enter_pid_namespace(of: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_thread_name_spaces(of, ThreadNameSpaceType::PROCESS_ID)?)
}

const INSIDE: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

fn clone(prepared: &Prepared, cgroup: RawFd) -> io::Result<(i32, OwnedFd)> {
    // clone3 alone knows this one; it lies beyond 32 bits.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut flags = INTO_CGROUP | u64::try_from(libc::CLONE_PIDFD).expect("a flag");
    if prepared.join.is_none() {
        flags |= u64::try_from(INSIDE | libc::CLONE_NEWPID).expect("flags");
    }
    let args = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::try_from(cgroup).expect("descriptors are positive"),
    };
    // SAFETY: the arguments are valid; without CLONE_VM and without a stack this is a fork. The child runs only
    // `in_child`, which makes system calls on memory prepared before and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            // SAFETY: this is the child.
            unsafe { in_child(prepared) }
        }
        1.. => {
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((i32::try_from(pid).expect("a pid"), pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// SAFETY: only in the child of a fork; `prepared` must be intact. Allocates nothing, takes no lock.
unsafe fn in_child(prepared: &Prepared) -> ! {
    // SAFETY: plain system calls on prepared memory, as the whole function promises.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let fine = 'prepare: {
            if prepared.die_with_thread && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                break 'prepare false;
            }
            if prepared.own_session && libc::setsid() < 0 {
                break 'prepare false;
            }
            if let Some(join) = prepared.join
                && libc::setns(join, INSIDE) != 0
            {
                break 'prepare false;
            }
            for (target, fd) in (0..).zip(&prepared.fds) {
                if libc::dup2(*fd, target) < 0 {
                    break 'prepare false;
                }
            }
            true
        };
        if fine {
            let _ = prepared.cwd.iter().any(|dir| libc::chdir(dir.as_ptr()) == 0);
            let mut kept = libc::ENOENT;
            for program in &prepared.programs {
                libc::execve(program.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
                let error = *libc::__errno_location();
                // As a shell: a program that may not be executed is reported before one that is not there.
                if error != libc::ENOENT && error != libc::ENOTDIR {
                    kept = error;
                }
            }
            *libc::__errno_location() = kept;
        }
        let error = *libc::__errno_location();
        libc::write(prepared.refusal, (&raw const error).cast(), size_of::<libc::c_int>());
        libc::_exit(if error == libc::ENOENT { 127 } else { 126 })
    }
}

fn high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, HIGH)?)
}

fn cstring(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in an argument"))
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

fn candidates(program: &OsStr, path: &OsStr) -> io::Result<Vec<CString>> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![cstring(program)?]);
    }
    path.as_bytes()
        .split(|byte| *byte == b':')
        .filter(|dir| !dir.is_empty() && !program.is_empty())
        .map(|dir| cstring(OsStr::from_bytes(&[dir, b"/", program.as_bytes()].concat())))
        .collect()
}
