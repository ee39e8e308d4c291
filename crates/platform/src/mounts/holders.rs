//! Who holds a directory tree: open files, working and root directories, programs, mapped files, loop devices.
//!
//! Best effort by nature (the world moves while `/proc` is read): it names names, it does not lock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Processes named at most; more would not help a reader.
const HOLDERS_MAX: usize = 64;

/// Looking at one process takes microseconds; one that takes this long hangs.
const PROCESS_TIME: Duration = Duration::from_secs(2);
/// After this many hanging processes the search ends.
const HANGING_MAX: usize = 4;

/// A process (or loop device) that uses something below a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Process id; 0 for the kernel (a loop device).
    pub pid: u32,
    /// Command line, or the name in brackets.
    pub command: String,
    /// How: `open`, `cwd`, `root`, `program`, `mapped`, `loop device`.
    pub how: &'static str,
    /// One example of what is held.
    pub path: PathBuf,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => write!(f, "{} ({} {})", self.command, self.how, self.path.display()),
            pid => write!(f, "process {pid} '{}' ({} {})", self.command, self.how, self.path.display()),
        }
    }
}

/// Everyone but this process who holds something at or below `path`, one line per process, by pid.
/// Empty if `/proc` cannot be read. Cost: one pass over `/proc`. A process that hangs in the kernel can make whoever
/// reads about it hang as well: such a one is left out, and the search ends all the same.
#[must_use]
pub fn holders(path: &Path) -> Vec<Holder> {
    let me = std::process::id();
    let pids = numbers("/proc").into_iter().filter(|pid| *pid != me).collect();
    let below = path.to_owned();
    let look = move |pid| held_by(pid, &below).map(|(how, path)| Holder { pid, command: command_of(pid), how, path });
    let mut holders = search(pids, Arc::new(look), PROCESS_TIME);
    holders.extend(loop_devices(path));
    holders
}

/// Looks at one process after the other, in a thread of its own that is left behind when it hangs.
fn search(pids: Vec<u32>, look: Arc<dyn Fn(u32) -> Option<Holder> + Send + Sync>, each: Duration) -> Vec<Holder> {
    let mut found = BTreeMap::new();
    let pids: Arc<[u32]> = pids.into();
    let mut begin = 0;
    for _ in 0..HANGING_MAX {
        let (tell, told) = mpsc::sync_channel(1);
        let (these, look) = (Arc::clone(&pids), Arc::clone(&look));
        let looking = std::thread::Builder::new().name("holders".into()).spawn(move || {
            for pid in these.iter().skip(begin) {
                if tell.send(look(*pid)).is_err() {
                    return;
                }
            }
        });
        if looking.is_err() {
            break;
        }
        loop {
            match told.recv_timeout(each) {
                Ok(holder) => {
                    begin += 1;
                    found.extend(holder.map(|holder| (holder.pid, holder)));
                    if found.len() >= HOLDERS_MAX {
                        return found.into_values().collect();
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return found.into_values().collect(),
                // This one hangs: go on after it.
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    begin += 1;
                    break;
                }
            }
        }
    }
    found.into_values().collect()
}

fn held_by(pid: u32, path: &Path) -> Option<(&'static str, PathBuf)> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let link = |name: &str| std::fs::read_link(process.join(name)).ok().filter(|held| held.starts_with(path));
    for (name, how) in [("cwd", "cwd"), ("root", "root"), ("exe", "program")] {
        // Everyone's root is `/`: it says nothing, unless `/` itself is asked for.
        if let Some(held) = link(name) {
            return Some((how, held));
        }
    }
    for entry in std::fs::read_dir(process.join("fd")).ok()?.flatten() {
        if let Ok(held) = std::fs::read_link(entry.path())
            && held.starts_with(path)
        {
            return Some(("open", held));
        }
    }
    let maps = std::fs::read(process.join("maps")).ok()?;
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        // Address, rights, offset, device, inode, then blanks and the path.
        let at = line.iter().position(|&byte| byte == b'/')?;
        let held = PathBuf::from(String::from_utf8_lossy(line.get(at..)?).into_owned());
        held.starts_with(path).then_some(("mapped", held))
    })
}

fn command_of(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> =
        line.split(|&byte| byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    if words.is_empty() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim());
    }
    let mut text = words.join(" ");
    if text.len() > 200 {
        let cut = text.char_indices().map(|(at, _)| at).take_while(|&at| at <= 197).last().unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

fn loop_devices(path: &Path) -> Vec<Holder> {
    let Ok(devices) = std::fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    devices
        .flatten()
        .filter_map(|device| {
            let backing = std::fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            let file = PathBuf::from(backing.trim_end());
            file.starts_with(path).then(|| Holder {
                pid: 0,
                command: format!("/dev/{}", device.file_name().to_string_lossy()),
                how: "loop device",
                path: file,
            })
        })
        .collect()
}

/// Numeric names in a directory of `/proc`.
fn numbers(directory: &str) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sentence for a refusal: the first three holders by name, then how many more.
#[must_use]
pub fn describe(holders: &[Holder]) -> String {
    let mut text = holders.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if holders.len() > 3 {
        text.push_str(&format!(" and {} more", holders.len() - 3));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn holder(pid: u32) -> Holder {
        Holder { pid, command: format!("p{pid}"), how: "open", path: PathBuf::from("/x") }
    }

    #[test]
    fn a_process_that_hangs_is_left_out_and_the_others_are_found() {
        let (release, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let look = move |pid| {
            if pid == 3 {
                // Until the test is over.
                let _ = wait.lock().map(|wait| wait.recv());
            }
            (pid % 2 == 1).then(|| holder(pid))
        };
        let found = search(vec![1, 2, 3, 4, 5], Arc::new(look), PROCESS_TIME);
        assert_eq!(found, [holder(1), holder(5)]);
        drop(release);
    }

    #[test]
    fn many_that_hang_end_the_search() {
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let look = move |_| {
            let _ = wait.lock().map(|wait| wait.recv());
            None
        };
        assert_eq!(search((0..100).collect(), Arc::new(look), Duration::from_millis(10)), []);
        drop(release);
    }
}
