//! What a process must be before it may stand between an application and its disk.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors: one per inode the kernel remembers.
const NOFILE: u64 = 1 << 20;

/// Descriptors raised, never chosen by the OOM killer, our own umask out of the way. Best effort: what is
/// refused (in a container) is logged, and costs robustness only.
pub fn prepare_process() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(NOFILE, |maximum| maximum.max(NOFILE));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(NOFILE), maximum: Some(most) });
    if let Err(e) = raised {
        tracing::warn!("descriptors stay limited to {:?}: {e}", limit.current);
    }
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::warn!("the OOM killer may choose this process: {e}");
    }
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// Calls `on_term` on SIGTERM, from a thread of its own. Call it before any other thread is started.
///
/// # Errors
/// No thread could be started.
pub fn on_sigterm(on_term: impl Fn() + Send + 'static) -> std::io::Result<()> {
    // SAFETY: the set is a plain local; every thread started later inherits the blocked signal.
    let set = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    std::thread::Builder::new().name("sigterm".into()).spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to locals that live across the call.
            if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
                on_term();
            }
        }
    })?;
    Ok(())
}
