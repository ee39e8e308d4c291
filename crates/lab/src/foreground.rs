//! A program of a host in the foreground of the caller's terminal.
//!
//! It shares the terminal, so the keyboard's signals reach it directly; signals that another process sends to us are
//! passed on to it.

use crate::exec::{Start, start};
use crate::protocol::Entry;
use crate::{Exit, LabError, Stdio};
use std::ffi::OsString;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

static PROGRAM: AtomicI32 = AtomicI32::new(0);
const PASSED_ON: [i32; 6] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

pub fn run(host: &str, entry: &Entry, argv: &[OsString]) -> Result<Exit, LabError> {
    // Signals wait until there is a program to pass them on to.
    // SAFETY: the set outlives the calls; the handler makes one system call on an atomic number.
    let held = unsafe {
        let mut held: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut held);
        for signal in PASSED_ON {
            libc::sigaddset(&raw mut held, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const held, std::ptr::null_mut());
        for signal in PASSED_ON {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = pass_on as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        held
    };
    let running = start(Start { host, entry, argv, stdio: [Stdio::Inherit; 3], die_with_thread: true })?;
    PROGRAM.store(running.pid, Ordering::SeqCst);
    // SAFETY: the set outlives the call.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const held, std::ptr::null_mut()) };
    loop {
        // However long: the person at the terminal decides.
        if let Some(exit) = running.wait(Duration::from_secs(3600))? {
            return Ok(exit);
        }
    }
}

extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let pid = PROGRAM.load(Ordering::SeqCst);
    // SAFETY: the kernel gives a valid siginfo; kill is async-signal-safe. What the terminal sent (SI_KERNEL), the
    // program has got itself.
    unsafe {
        if pid > 0 && (*info).si_code != libc::SI_KERNEL {
            libc::kill(pid, signal);
        }
    }
}
