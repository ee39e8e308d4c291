//! When a replicated directory was without its cover: since when what is in it may have been changed by anybody.
//!
//! The time is the last sign of life of whoever guarded it: the newest of the files in which a module's state is kept.
//! **Invariant:** the note is on disk before the cover is, and stays until whoever looks for such changes removes it.

use super::{MountError, is_covered};
use crate::store::write_atomic;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The note of one module.
#[derive(Clone, Debug)]
pub struct Bare {
    note: PathBuf,
    signs: [PathBuf; 4],
}

impl Bare {
    /// Of the module whose data plane keeps its state in this directory (`…/AM/data`).
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let module = data_dir.parent().unwrap_or(data_dir);
        let signs = [data_dir.join("hot"), data_dir.join("changes"), module.join("state.a"), module.join("state.b")];
        Self { note: data_dir.join("bare"), signs }
    }

    /// Call before covering `path`: notes that it is bare, and since when. A module that never guarded anything has
    /// nothing to note.
    ///
    /// # Errors
    /// The mount table could not be read, or the note not be written: do not cover.
    pub fn note(&self, path: &Path) -> Result<(), MountError> {
        let failed = |source| MountError::Os { action: "note that there is no cover on", path: path.into(), source };
        if is_covered(path)? || self.note.exists() {
            return Ok(());
        }
        // Without the directory of its data plane, nothing was ever served or followed here.
        if self.note.parent().is_none_or(|data| !data.is_dir()) {
            return Ok(());
        }
        let Some(since_ms) = self.signs.iter().filter_map(|sign| changed_ms(sign)).max() else { return Ok(()) };
        write_atomic(&self.note, since_ms.to_string().as_bytes(), 0o600).map_err(|e| failed(io::Error::other(e)))
    }

    /// A cover of a module that runs was taken off, after `seen_ms` (milliseconds since 1970; 0: nobody knows when): its signs of
    /// life are younger than that, and say nothing. A note from before stays.
    ///
    /// # Errors
    /// The note could not be written.
    pub fn note_since(&self, path: &Path, seen_ms: u64) -> Result<(), MountError> {
        if self.since_ms().is_some_and(|noted| noted <= seen_ms) {
            return Ok(());
        }
        let failed = |source| MountError::Os { action: "note that there is no cover on", path: path.into(), source };
        write_atomic(&self.note, seen_ms.to_string().as_bytes(), 0o600).map_err(|e| failed(io::Error::other(e)))
    }

    /// Since when (milliseconds since 1970), if it was noted; 0 for a note that cannot be read.
    #[must_use]
    pub fn since_ms(&self) -> Option<u64> {
        match std::fs::read_to_string(&self.note) {
            Ok(text) => Some(text.trim().parse().unwrap_or(0)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(0),
        }
    }

    /// What was changed since is recorded elsewhere, durably.
    ///
    /// # Errors
    /// The note could not be removed: it is looked again the next time.
    pub fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.note) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn changed_ms(path: &Path) -> Option<u64> {
    let time = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_guarded_something_notes_it_once_and_the_newest_sign_of_life_counts() {
        let home = tempfile::tempdir().expect("temporary directory");
        let (data, tree) = (home.path().join("data"), home.path().join("tree"));
        let bare = Bare::of(&data);
        bare.note(&tree).expect("never started");
        std::fs::create_dir(&data).expect("mkdir");
        std::fs::create_dir(&tree).expect("mkdir");
        bare.note(&tree).expect("never served");
        assert_eq!(bare.since_ms(), None);
        for (name, seconds) in [("data/hot", 1_000), ("state.a", 3_000), ("state.b", 2_000)] {
            let file = std::fs::File::create(home.path().join(name)).expect("create");
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).expect("set");
        }
        bare.note(&tree).expect("noted");
        assert_eq!(bare.since_ms(), Some(3_000_000));
        std::fs::write(home.path().join("state.b"), "now").expect("write");
        bare.note(&tree).expect("noted already");
        assert_eq!(bare.since_ms(), Some(3_000_000), "the first note counts until it was looked");
        bare.note_since(&tree, 4_000_000).expect("noted already");
        assert_eq!(bare.since_ms(), Some(3_000_000));
        bare.note_since(&tree, 2_500_000).expect("bare for longer than was known");
        assert_eq!(bare.since_ms(), Some(2_500_000));
        std::fs::write(data.join("bare"), "damaged").expect("write");
        assert_eq!(bare.since_ms(), Some(0), "everything");
        bare.clear().and_then(|()| bare.clear()).expect("removed");
        assert_eq!(bare.since_ms(), None);
    }
}
