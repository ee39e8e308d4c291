//! Ctrl-C while a lab is being raised: what stands already is taken away before this process ends.

use crate::{Lab, LabError, Options};
use std::sync::Mutex;

/// Held by whoever ends the lab's beginning: `up` that succeeded, or the interruption.
static ENDING: Mutex<()> = Mutex::new(());

/// [`Lab::up`] for a command line: SIGINT, SIGTERM and SIGHUP remove the lab and end the process with 130.
///
/// # Errors
/// As [`Lab::up`].
pub fn up(options: &Options) -> Result<Lab, LabError> {
    // A lab that is up already is none of ours to remove.
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
    let lab = Lab::up(options);
    // An interruption that began first ends the process; one that comes now finds the lab finished and ends it too.
    let _ending = ENDING.lock();
    lab
}
