//! Are the programs in force the ones that were applied? A script that a bad disk or somebody's hand altered since is not run: nobody
//! has checked it, and the other node has another one.
//!
//! **Invariant:** whatever is asked before a run reads the file itself; only looks that repeat themselves trust that a file whose
//! inode, size and times are what they were is what it was.

use super::store::Active;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files named in a sentence.
const NAMED: usize = 2;

/// By what a file is known to be the one that was looked at.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// Looks at the same files again and again.
#[derive(Debug, Default)]
pub struct Looks(Mutex<BTreeMap<PathBuf, (Stamp, String)>>);

impl Looks {
    /// Digest of the file; the one of before when it has not been touched since.
    fn digest(&self, path: &Path) -> io::Result<String> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let about = fs::symlink_metadata(path)?;
        let stamp = (
            about.dev(),
            about.ino(),
            about.size(),
            about.mtime(),
            about.mtime_nsec(),
            about.ctime(),
            about.ctime_nsec(),
        );
        if let Some((_, digest)) = known().get(path).filter(|(at, _)| *at == stamp) {
            return Ok(digest.clone());
        }
        // Without the lock: a disk may hang.
        let digest = digest_of(path)?;
        known().insert(path.into(), (stamp, digest.clone()));
        Ok(digest)
    }

    /// Which programs are not what was applied, as a sentence. One that is missing, or cannot be read now, is not told of here.
    #[must_use]
    pub fn altered(&self, active: &Active) -> Option<String> {
        sentence(active, |path| self.digest(path))
    }
}

impl Active {
    /// The same, of files that are read now.
    #[must_use]
    pub fn altered(&self) -> Option<String> {
        sentence(self, digest_of)
    }

    /// Is this program another one than was applied? Of those that an older version applied nothing is known.
    #[must_use]
    pub fn is_altered(&self, name: &str) -> bool {
        // Before each script, on the way of a takeover: the others are not read for it.
        !altered_now(self, digest_of, |of| of == name).is_empty()
    }

    /// What was applied last: by the file that lies beside the programs, because both change in one step. A change that begins here learns
    /// of it a moment later.
    fn applied(&self) -> BTreeMap<String, String> {
        #[derive(serde::Deserialize)]
        struct Applied {
            #[serde(default)]
            digests: BTreeMap<String, String>,
        }
        let read = fs::read(self.dir.join("module.json")).ok();
        let read = read.and_then(|bytes| serde_json::from_slice::<Applied>(&bytes).ok());
        read.map_or_else(|| self.digests.clone(), |applied| applied.digests)
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    Ok(blake3::hash(&fs::read(path)?).to_hex().to_string())
}

/// Names of those of the programs that are others than was applied.
fn altered_now(
    active: &Active,
    digest: impl Fn(&Path) -> io::Result<String>,
    asked: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut applied = active.applied();
    loop {
        let differs = |(name, digest_then): (&String, &String)| {
            let now = digest(&active.bin_dir().join(name));
            now.is_ok_and(|now| now != *digest_then).then(|| name.clone())
        };
        let altered: Vec<String> = applied.iter().filter(|(name, _)| asked(name)).filter_map(differs).collect();
        let again = if altered.is_empty() { return altered } else { active.applied() };
        if again == applied {
            return altered;
        }
        // Another configuration came between the two readings.
        applied = again;
    }
}

fn sentence(active: &Active, digest: impl Fn(&Path) -> io::Result<String>) -> Option<String> {
    let bin = active.bin_dir();
    let altered = altered_now(active, digest, |_| true);
    let named: Vec<String> = altered.iter().take(NAMED).map(|name| bin.join(name).display().to_string()).collect();
    let (them, are) = match (altered.len(), altered.len().saturating_sub(NAMED)) {
        (0, _) => return None,
        (1, _) => (named[0].clone(), "is"),
        (_, 0) => (named.join(" and "), "are"),
        (_, more) => (format!("{} and {more} more", named.join(", ")), "are"),
    };
    Some(format!("{them} {are} not what was applied: `stead config -m {}` writes it anew", active.name))
}
