//! Processors kept from sleeping while this process is busy.
//!
//! Every request goes to a thread of ours and back to the application. In a virtual machine that gives a processor back as soon as
//! it has nothing to do, waking it again costs more than most requests do; so while many of our threads are woken the kernel is asked
//! to let idle processors wait awake (PM QoS, `/dev/cpu_dma_latency`). The wish ends with its descriptor: a process that is
//! killed leaves nothing behind. Machines that sleep by other means are left alone: there nothing was measured.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

/// Between two looks while nothing happens.
pub(super) const CALM: Duration = Duration::from_millis(50);
/// And while processors are kept awake.
const BUSY: Duration = Duration::from_millis(10);
/// So many of our threads woken per second are worth it.
const WAKES_PER_S: u64 = 2_000;
/// So many looks in a row must find less before processors may sleep again.
const PATIENCE: u32 = 5;
/// Idle processors of a larger machine cost its host more than we can gain.
const PROCESSORS_MAX: usize = 16;

/// Whether processors should be awake.
#[derive(Debug, Default)]
struct Pace {
    is_busy: bool,
    /// Looks in a row that found too little.
    calm: u32,
}

impl Pace {
    /// So many wakes in so long; `true`: awake.
    fn look(&mut self, wakes: u64, over: Duration) -> bool {
        let needed = WAKES_PER_S.saturating_mul(u64::try_from(over.as_micros()).unwrap_or(u64::MAX)) / 1_000_000;
        if wakes >= needed.max(1) {
            (self.is_busy, self.calm) = (true, 0);
        } else if self.is_busy {
            self.calm += 1;
            self.is_busy = self.calm < PATIENCE;
        }
        self.is_busy
    }
}

/// Watches how busy this process is.
pub(super) struct Idle {
    pace: Pace,
    /// What keeps them awake.
    wish: Option<File>,
    before: u64,
    /// It helps here, and it is allowed to.
    is_of_use: bool,
}

impl Idle {
    /// Nothing is asked for yet.
    pub fn new() -> Self {
        Self { pace: Pace::default(), wish: None, before: wakes(), is_of_use: sleeps_dearly() }
    }

    /// Sleeps as long as [`CALM`], looking more often while processors are kept awake. `wanted`: they may be.
    pub fn rest(&mut self, wanted: impl Fn() -> bool) {
        let mut left = CALM;
        while !left.is_zero() {
            let over = if self.wish.is_some() { BUSY } else { CALM }.min(left);
            std::thread::sleep(over);
            left = left.saturating_sub(over);
            if self.is_of_use {
                self.look(over, &wanted);
            }
        }
    }

    fn look(&mut self, over: Duration, wanted: impl Fn() -> bool) {
        let now = wakes();
        let is_busy = self.pace.look(now.saturating_sub(self.before), over) && wanted();
        self.before = now;
        if !is_busy {
            self.wish = None;
        } else if self.wish.is_none() {
            match awake() {
                Ok(file) => self.wish = Some(file),
                Err(e) => {
                    tracing::info!("processors may sleep between requests: /dev/cpu_dma_latency: {e}");
                    self.is_of_use = false;
                }
            }
        }
    }
}

/// Idle processors wait awake until this is dropped.
fn awake() -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency")?;
    file.write_all(&0_i32.to_ne_bytes())?;
    Ok(file)
}

/// How often threads of this process went to sleep so far.
fn wakes() -> u64 {
    // SAFETY: all bytes zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a local.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    u64::try_from(usage.ru_nvcsw).unwrap_or(0)
}

/// A guest whose idle processors are given back to the host at once.
fn sleeps_dearly() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let few = std::thread::available_parallelism().is_ok_and(|n| n.get() <= PROCESSORS_MAX);
    few && read("/sys/devices/system/cpu/cpuidle/current_driver") == "haltpoll"
        && read("/sys/module/haltpoll/parameters/guest_halt_poll_ns") == "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_kept_awake_while_there_is_much_to_do_and_not_for_long_after() {
        let mut pace = Pace::default();
        assert!(!pace.look(99, CALM), "1980 in a second are too few");
        assert!(pace.look(100, CALM));
        assert!(pace.look(20, BUSY));
        for _ in 1..PATIENCE {
            assert!(pace.look(19, BUSY), "a short pause");
        }
        assert!(!pace.look(19, BUSY));
        assert!(!pace.look(19, BUSY));
        assert!(pace.look(5_000, CALM), "and again");
    }

    #[test]
    fn a_thread_that_sleeps_is_counted() {
        let before = wakes();
        std::thread::sleep(Duration::from_millis(1));
        assert!(wakes() > before);
    }
}
