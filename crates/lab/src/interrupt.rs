//! Ctrl-C while a lab is being raised: what stands already is taken away before this process ends.

use crate::lab::Unfinished;
use crate::{Lab, LabError, Options};
use std::sync::Mutex;

/// Held by whoever concludes: `up` with its result, or the interruption.
static ENDING: Mutex<()> = Mutex::new(());

/// [`Lab::up`] for a command line: SIGINT, SIGTERM and SIGHUP remove the lab and end the process with 130.
///
/// # Errors
/// As [`Lab::up`].
pub fn up(options: &Options) -> Result<Lab, LabError> {
    // A lab that is up already is none of an interruption's to remove.
    if Lab::open(&options.name).is_ok() {
        return Err(LabError::AlreadyUp(options.name.clone()));
    }
    // SAFETY: the set is made here and outlives the calls. Threads started later inherit the mask, so that the
    // signals wait for the watcher.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    let name = options.name.clone();
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both outlive the call.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            let _ending = ENDING.lock();
            eprintln!("interrupted: the lab '{name}' is removed");
            if let Err(error) = Lab::down(&name) {
                eprintln!("{error}");
            }
            std::process::exit(130);
        }
    });
    let raised = Lab::raise(options);
    // An interruption that began first ends this process; one that comes now waits until we are done.
    let _ending = ENDING.lock();
    if raised.as_ref().is_err_and(Unfinished::has_remains) {
        // The first error is the one to tell.
        let _ = Lab::down(&options.name);
    }
    raised.map_err(Unfinished::into_error)
}
