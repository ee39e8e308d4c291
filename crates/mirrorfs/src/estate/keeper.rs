//! The keeper: a second process with the same table of descriptors, which does nothing but wait.
//!
//! When the process dies — `kill -9`, a crash — everything it had open is still open in the keeper's table: mounts,
//! nodes, files without a name. The keeper then becomes the next `mirrorfs`, by executing whatever program is at the
//! path of the dead one's: so a handover to a newer program is nothing else than a death. When nothing is mounted it
//! just ends. **Invariant:** after it is cloned it allocates nothing and takes no lock.

use super::{DEATHS_MAX, Estate, VARIABLE};
use rustix::fd::AsRawFd;
use rustix::process::PidfdFlags;
use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Name in lists of processes: whoever ends every `stead mirrorfs` shall not end what makes that harmless.
const NAME: &[u8] = b"keeper\0";

/// Starts the keeper and sees to it that there always is one. Its pid is in the process group of this process.
///
/// # Errors
/// No process or no thread could be started.
pub fn start(estate: Arc<Estate>) -> io::Result<()> {
    let program = Program::own(&estate)?;
    let keeper = clone(&program, &estate)?;
    std::thread::Builder::new().name("keeper".into()).spawn(move || {
        let mut keeper = keeper;
        loop {
            let mut status = 0;
            // SAFETY: the pointer is to a local that lives across the call.
            let ended = unsafe { libc::waitpid(keeper, &raw mut status, 0) };
            if ended < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
            if ended == keeper {
                tracing::warn!("the keeper ended; another one takes its place");
                match clone(&program, &estate) {
                    Ok(pid) => keeper = pid,
                    Err(e) => return tracing::error!("no keeper: a death of this process will be noticed: {e}"),
                }
            }
        }
    })?;
    Ok(())
}

/// Everything needed to execute the next one, made before the clone.
struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Where this process's arguments are shown from.
    shown: (usize, usize),
}

// SAFETY: plain data; the addresses are only used in the cloned process.
unsafe impl Send for Program {}

impl Program {
    fn own(estate: &Estate) -> io::Result<Self> {
        let c = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
        // A program that was replaced on disk is shown as deleted; its successor has the same path.
        let path = std::env::current_exe()?.into_os_string().into_vec();
        let path = path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec();
        let arguments = std::env::args_os().map(|a| c(a.into_vec())).collect::<io::Result<_>>()?;
        let others = std::env::vars_os().filter(|(key, _)| key != VARIABLE);
        let mut environment = others.map(|(k, v)| pair(k, &v)).map(c).collect::<io::Result<Vec<_>>>()?;
        environment.push(c(format!("{VARIABLE}={}", estate.raw()).into_bytes())?);
        Ok(Self { path: c(path)?, arguments, environment, shown: shown().unwrap_or_default() })
    }
}

fn pair(key: OsString, value: &std::ffi::OsStr) -> Vec<u8> {
    let mut bytes = key.into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// `arg_start` and `arg_end` of `/proc/self/stat` (fields 48 and 49).
fn shown() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn clone(program: &Program, estate: &Estate) -> io::Result<libc::pid_t> {
    // Noticed by the keeper whatever thread started it; closed by the execution.
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut arguments: Vec<*const c_char> = program.arguments.iter().map(|a| a.as_ptr()).collect();
    let mut environment: Vec<*const c_char> = program.environment.iter().map(|a| a.as_ptr()).collect();
    arguments.push(std::ptr::null());
    environment.push(std::ptr::null());
    // SAFETY: without CLONE_VM this is a fork whose table of descriptors is shared; the child runs on a copy of this
    // stack and calls nothing that allocates or locks.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES | libc::SIGCHLD, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => keep(own.as_raw_fd(), program, &arguments, &environment, estate),
        pid => {
            // The table is shared: as long as the keeper lives it needs this number.
            std::mem::forget(own);
            libc::pid_t::try_from(pid).map_err(io::Error::other)
        }
    }
}

/// The keeper's whole life.
fn keep(
    process: i32,
    program: &Program,
    arguments: &[*const c_char],
    environment: &[*const c_char],
    estate: &Estate,
) -> ! {
    // SAFETY: system calls with pointers to locals or to what was made before the clone; the bytes overwritten are
    // this process's own copy of its arguments, which nothing reads any more but the kernel.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
        let (from, to) = program.shown;
        if from != 0 && to > from + NAME.len() {
            std::ptr::write_bytes(from as *mut u8, 0, to - from);
            std::ptr::copy_nonoverlapping(NAME.as_ptr(), from as *mut u8, NAME.len());
        }
        let mut ended = libc::pollfd { fd: process, events: libc::POLLIN, revents: 0 };
        while libc::poll(&raw mut ended, 1, -1) < 1 {}
        let deaths = estate.head().deaths.fetch_add(1, Ordering::AcqRel);
        if estate.mounts() == 0 || deaths >= DEATHS_MAX {
            libc::_exit(0);
        }
        estate.for_each_descriptor(|fd| {
            libc::fcntl(fd, libc::F_SETFD, 0);
        });
        libc::sigprocmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        libc::execve(program.path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        libc::_exit(127)
    }
}
