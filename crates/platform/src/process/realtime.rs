//! Making the calling thread punctual: SCHED_FIFO and locked memory; failing that, nice −20.
//!
//! Never fails: it says what was reached, for the status.

use std::io;

/// Low among the real-time priorities: above everything ordinary, below the kernel's own threads.
const FIFO_PRIORITY: i32 = 10;

/// How the thread is scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduling {
    /// SCHED_FIFO with this priority.
    Fifo(i32),
    /// Ordinary, with this nice value.
    Nice(i32),
}

/// What [`become_realtime`] reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Realtime {
    /// How the thread is scheduled now.
    pub scheduling: Scheduling,
    /// Its memory cannot be swapped out.
    pub is_memory_locked: bool,
    /// What could not be had, and why.
    pub problems: Vec<String>,
}

impl std::fmt::Display for Realtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scheduling {
            Scheduling::Fifo(priority) => write!(f, "real time (SCHED_FIFO {priority})")?,
            Scheduling::Nice(nice) => write!(f, "ordinary (nice {nice})")?,
        }
        f.write_str(if self.is_memory_locked { ", memory locked" } else { ", memory not locked" })
    }
}

/// Gives the calling thread real-time scheduling and locks the memory of the process as it is touched. What
/// the thread starts does not inherit it.
#[must_use]
pub fn become_realtime() -> Realtime {
    let mut problems = Vec::new();
    let scheduling = match set_fifo() {
        Ok(()) => Scheduling::Fifo(FIFO_PRIORITY),
        Err(error) => {
            problems.push(format!("no real-time scheduling: {error}"));
            Scheduling::Nice(set_nice(&mut problems))
        }
    };
    // Only what is touched: locking every thread's untouched stack would cost gigabytes for nothing.
    // SAFETY: changes only whether our own pages may be swapped.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if locked != 0 {
        problems.push(format!("memory is not locked: {}", io::Error::last_os_error()));
    }
    Realtime { scheduling, is_memory_locked: locked == 0, problems }
}

fn set_fifo() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: FIFO_PRIORITY };
    // SAFETY: 0 is the calling thread; the pointer is to a live, initialised structure.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_nice(problems: &mut Vec<String>) -> i32 {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), -20) {
        problems.push(format!("no higher priority: {error}"));
    }
    rustix::process::getpriority_process(Some(thread)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_what_the_kernel_says() {
        let (reached, policy, nice) = std::thread::spawn(|| {
            let reached = become_realtime();
            // SAFETY: a question about the calling thread.
            let policy = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
            let nice = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
            // SAFETY: undoes what `become_realtime` did to this test process.
            unsafe { libc::munlockall() };
            (reached, policy, nice)
        })
        .join()
        .unwrap();
        match reached.scheduling {
            Scheduling::Fifo(_) => assert_eq!(policy, libc::SCHED_FIFO),
            Scheduling::Nice(reported) => {
                assert_eq!((policy, reported), (libc::SCHED_OTHER, nice));
                assert!(!reached.problems.is_empty(), "less than asked for must be explained");
            }
        }
        assert_eq!(reached.is_memory_locked, !reached.problems.iter().any(|problem| problem.contains("memory")));
    }
}
