//! What was changed behind a stopped module's back: found by one look at every inode, when the directories were bare.
//!
//! Only the times of change decide (`ctime`, which no application can set). It runs beside whatever the module does at
//! its start; a resync waits for it. **Invariant:** what it finds is in the change map or the activity log, durably,
//! before a resync of changes is planned; if that is impossible, everything is compared.

use crate::leader::{Leader, lock};
use crate::map::{Devices, millis};
use crate::sys;
use crate::tree::Roots;
use platform::mounts::Bare;
use replica::hot::Hot;
use rustix::fs::Stat;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// More changes than this: everything is compared.
const FOUND_MAX: usize = 10_000;
/// Directories that wait to be looked at hold no descriptor, but a path.
type Names = Vec<Vec<u8>>;

/// Whether it is still looked for.
pub(crate) struct Behind {
    looking: Mutex<bool>,
    over: Condvar,
}

impl Behind {
    /// Begins to look, if the directories were bare since the last sign of life.
    pub fn begin(leader: &Arc<Leader>) -> Arc<Self> {
        let bare = Bare::of(Path::new(&leader.configuration().state_dir));
        let since_ms = bare.since_ms();
        let behind = Arc::new(Self { looking: Mutex::new(since_ms.is_some()), over: Condvar::new() });
        if let Some(since_ms) = since_ms {
            let (of, this) = (leader.clone(), behind.clone());
            let look = move || {
                let found = find(of.roots(), of.devices(), since_ms);
                match of.changed_behind(found.as_deref()).and_then(|()| bare.clear()) {
                    Ok(()) => {}
                    // The note is still there: it is looked again at the next start, and now everything is compared.
                    Err(e) => tracing::warn!("what was changed while the module was stopped cannot be recorded: {e}"),
                }
                this.end();
            };
            if std::thread::Builder::new().name("behind".into()).spawn(look).is_err() {
                // No thread to look: as if everything were changed.
                let _ = leader.changed_behind(None);
                behind.end();
            }
        }
        behind
    }

    fn end(&self) {
        *lock(&self.looking) = false;
        self.over.notify_all();
    }

    /// Waits for the end of it, for so long. `true`: it is over.
    pub fn wait(&self, pause: Duration) -> bool {
        let looking = lock(&self.looking);
        let waited = self.over.wait_timeout_while(looking, pause, |looking| *looking);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Everything whose time of change is not before that. `None`: more than can be said one by one, or it cannot be known.
fn find(roots: &Roots, devices: &Devices, since_ms: u64) -> Option<Vec<Hot>> {
    let begun = Instant::now();
    let mut looked = 0u64;
    let mut found = Vec::new();
    for root in roots.iter() {
        let own = sys::stat(root).ok()?;
        // (names from the root, may this directory have been moved)
        let mut todo: Vec<(Names, bool)> = vec![(Names::new(), false)];
        while let Some((names, may_be_moved)) = todo.pop() {
            // Something of another file system is not ours.
            let Some(dir) = open(root, &names)? else { continue };
            let st = sys::stat(&dir).ok()?;
            if st.st_dev != own.st_dev {
                continue;
            }
            let key = devices.key(st.st_dev, st.st_ino);
            if is_since(&st, since_ms) {
                found.push(Hot::Entries { key, since_ms });
                if may_be_moved {
                    found.push(Hot::Whole { key });
                }
            }
            // Whoever moved something into a directory changed the directory.
            let moved_in = millis(st.st_mtime, st.st_mtime_nsec as i64) >= since_ms;
            for name in there(sys::names(&dir))?.unwrap_or_default() {
                looked += 1;
                let Some(st) = sys::stat_entry(&dir, &name).ok()? else { continue };
                if sys::kind(&st) == sys::S_IFDIR {
                    let mut below = names.clone();
                    below.push(name);
                    todo.push((below, moved_in));
                } else if st.st_dev == own.st_dev && is_since(&st, since_ms) {
                    found.push(Hot::Whole { key: devices.key(st.st_dev, st.st_ino) });
                }
            }
            if found.len() > FOUND_MAX {
                return None;
            }
        }
    }
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(
        "the directories were without cover: {} of {looked} entries looked at changed ({took_ms} ms)",
        found.len()
    );
    Some(found)
}

/// `Some(None)`: it is not there any more. `None`: it cannot be known.
fn open(root: &OwnedFd, names: &Names) -> Option<Option<OwnedFd>> {
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3).ok()?;
    for name in names {
        match there(sys::open_entry(at.as_fd(), name))? {
            Some(next) => at = next,
            None => return Some(None),
        }
    }
    Some(Some(at))
}

fn there<T>(result: Result<T, rustix::io::Errno>) -> Option<Option<T>> {
    match result {
        Ok(it) => Some(Some(it)),
        Err(e) => sys::is_absent(e).then_some(None),
    }
}

fn is_since(st: &Stat, since_ms: u64) -> bool {
    millis(st.st_ctime, st.st_ctime_nsec as i64) >= since_ms
}
