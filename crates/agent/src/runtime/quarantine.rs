//! Quarantine folders as operators see them: listed, looked into, dropped. The data plane fills them.
//!
//! Never follows a symbolic link, never leaves the module's quarantine. **Invariant:** a folder that may still be
//! filled (a resync into this copy runs) is not dropped.

use crate::api::Answer;
use model::api::{
    Code, Problem, QUARANTINE_ATTRIBUTES, QUARANTINE_ENTRIES_MAX, QUARANTINE_NOTE, QuarantineEntry, QuarantineFolder,
    QuarantineNote, QuarantineView,
};
use std::io::BufRead as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Entries counted before the count is given up: a look must end.
const COUNTED_MAX: u64 = 500_000;
/// Folders listed.
const FOLDERS_MAX: usize = 1_000;

/// Every folder, newest first.
///
/// # Errors
/// The directory is there and cannot be read.
pub fn list(base: &Path) -> Answer<Vec<QuarantineView>> {
    let entries = match std::fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(base, &error)),
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
    paths.sort();
    Ok(paths.iter().rev().take(FOLDERS_MAX).map(|path| view(path, &mut |_| {})).collect())
}

/// Where the copy that was overwritten under this epoch is kept, if anything of it was.
#[must_use]
pub fn of(base: &Path, won: model::ids::Epoch) -> Option<PathBuf> {
    let folders = std::fs::read_dir(base).ok()?.flatten().map(|entry| entry.path());
    let newest = folders.take(FOLDERS_MAX).max()?;
    note(&newest).is_some_and(|note| note.won == won).then_some(newest)
}

/// One folder with what is in it.
///
/// # Errors
/// There is none of this name.
pub fn show(base: &Path, name: &str) -> Answer<QuarantineFolder> {
    let path = existing(base, name)?;
    let dirs = note(&path).map(|note| note.dirs).unwrap_or_default();
    let mut entries = Vec::new();
    let folder = view(&path, &mut |found| {
        if entries.len() < QUARANTINE_ENTRIES_MAX {
            entries.push(entry(&path, found, &dirs));
        }
    });
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(QuarantineFolder { folder, entries })
}

/// Removes one folder for good.
///
/// # Errors
/// There is none of this name, or something in it cannot be removed.
pub fn remove(base: &Path, name: &str) -> Answer<()> {
    let path = existing(base, name)?;
    std::fs::remove_dir_all(&path).map_err(|error| {
        Problem::new(Code::Internal, format!("{} is not removed as a whole", path.display()), error.to_string())
            .with_help(format!("ls -l {}", path.display()))
    })
}

/// The directory of this name, which comes from outside.
fn existing(base: &Path, name: &str) -> Answer<PathBuf> {
    let path = base.join(name);
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if is_name && path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(path);
    }
    Err(Problem::new(Code::NotFound, format!("there is no quarantine folder '{name}' on this node"), String::new())
        .with_help("stead quarantine list"))
}

fn note(path: &Path) -> Option<QuarantineNote> {
    serde_json::from_slice(&std::fs::read(path.join(QUARANTINE_NOTE)).ok()?).ok()
}

fn view(path: &Path, each: &mut dyn FnMut(&Path)) -> QuarantineView {
    let about = note(path);
    let mut view = QuarantineView {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_string_lossy().into_owned(),
        changed_unix_ms: path.symlink_metadata().map(|m| modified_ms(&m)).unwrap_or(0),
        lost: about.as_ref().and_then(|note| note.lost),
        won: about.map(|note| note.won),
        attributes: lines(&path.join(QUARANTINE_ATTRIBUTES)),
        ..QuarantineView::default()
    };
    let own = [QUARANTINE_NOTE, QUARANTINE_ATTRIBUTES].map(|name| path.join(name));
    let mut seen = 0;
    let mut todo = vec![path.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            seen += 1;
            if seen > COUNTED_MAX {
                view.at_least = true;
                return view;
            }
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                todo.push(entry.path());
            } else if !own.contains(&entry.path()) {
                view.files += 1;
                view.bytes += found.len();
                each(&entry.path());
            }
        }
    }
    view
}

/// How many there are, as far as is counted.
fn lines(list: &Path) -> u64 {
    let Ok(file) = std::fs::File::open(list) else { return 0 };
    let read = std::io::BufReader::new(file).split(b'\n').take(COUNTED_MAX as usize);
    read.map_while(Result::ok).count() as u64
}

fn entry(folder: &Path, path: &Path, dirs: &[String]) -> QuarantineEntry {
    let within = path.strip_prefix(folder).unwrap_or(path);
    let mut parts = within.components();
    let index = parts.next().and_then(|first| first.as_os_str().to_str()?.parse::<usize>().ok());
    let was = index.and_then(|index| dirs.get(index)).map(|dir| Path::new(dir).join(parts.as_path()));
    let found = path.symlink_metadata().ok();
    QuarantineEntry {
        path: within.to_string_lossy().into_owned(),
        was: was.map(|was| was.to_string_lossy().into_owned()).unwrap_or_default(),
        bytes: found.as_ref().map_or(0, std::fs::Metadata::len),
        modified_unix_ms: found.as_ref().map_or(0, modified_ms),
    }
}

fn modified_ms(found: &std::fs::Metadata) -> u64 {
    u64::try_from(found.mtime()).unwrap_or(0).saturating_mul(1_000)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Code::Internal, format!("{} cannot be read", path.display()), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Epoch, NodeId};

    fn folder(base: &Path) -> PathBuf {
        let path = base.join("2026-11-22T07-30-00Z");
        std::fs::create_dir_all(path.join("0/sub")).expect("a directory");
        std::fs::write(path.join("0/sub/file"), b"12345").expect("a file");
        std::os::unix::fs::symlink("/etc", path.join("0/link")).expect("a link");
        path
    }

    #[test]
    fn folders_are_counted_named_and_dropped_and_links_are_not_followed() {
        let base = tempfile::tempdir().expect("a directory");
        assert_eq!(list(&base.path().join("none")), Ok(Vec::new()));
        let path = folder(base.path());
        let old = &list(base.path()).expect("it can be read")[0];
        assert_eq!((old.files, old.lost, old.won), (2, None, None), "a folder of the first release has no note");
        let epoch = Epoch { counter: 3, node: NodeId(2), random: 1 };
        let about = QuarantineNote { version: 1, lost: Some(epoch), won: epoch, dirs: vec!["/srv/data".into()] };
        std::fs::write(path.join(QUARANTINE_NOTE), serde_json::to_vec(&about).expect("JSON")).expect("a file");
        let shown = show(base.path(), "2026-11-22T07-30-00Z").expect("it is there");
        assert_eq!((shown.folder.files, shown.folder.lost), (2, Some(epoch)), "the note is not counted");
        std::fs::write(path.join(QUARANTINE_ATTRIBUTES), "{}\n{}\n{}\n").expect("a file");
        let listed = &list(base.path()).expect("it can be read")[0];
        assert_eq!((listed.files, listed.attributes), (2, 3), "nor is the list of attributes");
        assert_eq!(shown.entries[1].was, "/srv/data/sub/file");
        assert_eq!(shown.entries[1].bytes, 5);
        for wrong in ["", ".", "..", "a/b", "nix", "../quarantine"] {
            assert!(show(base.path(), wrong).is_err() && remove(base.path(), wrong).is_err(), "{wrong}");
        }
        remove(base.path(), "2026-11-22T07-30-00Z").expect("it goes");
        assert!(!path.exists() && Path::new("/etc/passwd").exists());
    }
}
