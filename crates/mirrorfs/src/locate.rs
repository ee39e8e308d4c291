//! Where an inode is in the replicated tree: maps and logs name inodes, the two copies share only paths.
//!
//! A few are asked for by their numbers, where the file system can be asked, so that it does not matter how many files there are. What does
//! not answer is found by one walk that only lists directories and ends when all is found. **Invariant:** every name of a file is given, or
//! (it is gone) none.

use crate::kept::Kept;
use crate::map::Devices;
use crate::resync::TreePath;
use crate::sys;
use crate::tree::Roots;
use replica::map::FileKey;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

/// More than so many: the walk costs less than to ask for each.
const BY_NUMBER_MAX: usize = 10_000;

/// Of ext2, ext3 and ext4.
const EXT4_SUPER_MAGIC: u64 = 0xEF53;

/// All places of each inode that still has one. A directory's is its own path, a file's is that of its name.
pub(crate) fn places(
    roots: &Roots,
    devices: &Devices,
    wanted: impl Iterator<Item = FileKey>,
) -> std::io::Result<HashMap<FileKey, Vec<TreePath>>> {
    let mut found: HashMap<FileKey, Vec<TreePath>> = HashMap::new();
    let mut wanted: HashSet<FileKey> = wanted.collect();
    for (index, root) in roots.iter().enumerate() {
        let st = sys::stat(root)?;
        let key = devices.key(st.st_dev, st.st_ino);
        if wanted.remove(&key) {
            found.entry(key).or_default().push(TreePath::root(index));
        }
    }
    if wanted.len() <= BY_NUMBER_MAX {
        by_number(roots, devices, &mut wanted, &mut found)?;
    }
    let inodes: HashSet<u64> = wanted.iter().map(|key| key.ino).collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let mut left: HashSet<FileKey> = wanted.clone();
    for (index, root) in roots.iter().enumerate() {
        let device = sys::stat(root)?.st_dev;
        let mut todo = vec![TreePath::root(index)];
        while let Some(path) = todo.pop() {
            let dir = match path.open(roots) {
                Ok(dir) => sys::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?,
                // Not a directory of ours (something is mounted here), or gone this moment.
                Err(Errno::NOENT | Errno::XDEV | Errno::NOTDIR) => continue,
                Err(e) => return Err(e.into()),
            };
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let kind = entry.file_type();
                if inodes.contains(&entry.ino())
                    && let Some(st) = sys::stat_entry(&dir, name)?
                    && st.st_dev == device
                {
                    let key = devices.key(st.st_dev, st.st_ino);
                    if wanted.contains(&key) {
                        found.entry(key).or_default().push(path.join(name));
                        if st.st_nlink == 1 || sys::kind(&st) == sys::S_IFDIR {
                            left.remove(&key);
                        }
                    }
                }
                if matches!(kind, rustix::fs::FileType::Directory | rustix::fs::FileType::Unknown) {
                    todo.push(path.join(name));
                }
            }
            if left.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// A replicated directory whose file system finds a file by its number.
struct Base {
    root: usize,
    dev: u64,
    dir: OwnedFd,
    path: Vec<u8>,
}

/// Takes out of `wanted` whatever the file system itself can say.
fn by_number(
    roots: &Roots,
    devices: &Devices,
    wanted: &mut HashSet<FileKey>,
    found: &mut HashMap<FileKey, Vec<TreePath>>,
) -> std::io::Result<()> {
    let mut bases = Vec::new();
    for (index, root) in roots.iter().enumerate() {
        if rustix::fs::fstatfs(root)?.f_type as u64 == EXT4_SUPER_MAGIC {
            let st = sys::stat(root)?;
            let mut path = sys::path_of(root)?;
            // The root of everything is "/".
            if path == b"/" {
                path.clear();
            }
            let dir = sys::reopen(root, OFlags::RDONLY | OFlags::DIRECTORY)?;
            bases.push(Base { root: index, dev: devices.key(st.st_dev, st.st_ino).dev, dir, path });
        }
    }
    wanted.retain(|key| match told(&bases, roots, *key) {
        Some(Told::At(place)) => {
            found.entry(*key).or_default().push(place);
            false
        }
        Some(Told::Gone) => false,
        None => true,
    });
    Ok(())
}

/// What a file system says of a number.
enum Told {
    At(TreePath),
    Gone,
}

/// `None`: nothing that can be relied upon. A file has no place there until somebody came to it by its name.
fn told(bases: &[Base], roots: &Roots, key: FileKey) -> Option<Told> {
    let mut of = bases.iter().filter(|base| base.dev == key.dev).peekable();
    let Some(fd) = Kept::numbered(key.ino)?.open(&of.peek()?.dir).ok()? else { return Some(Told::Gone) };
    let st = sys::stat(&fd).ok()?;
    if st.st_nlink == 0 {
        return Some(Told::Gone);
    }
    if st.st_nlink > 1 && sys::kind(&st) != sys::S_IFDIR {
        return None;
    }
    let path = sys::path_of(&fd).ok()?;
    of.find_map(|base| {
        let below = path.strip_prefix(base.path.as_slice())?.strip_prefix(b"/")?;
        let names = below.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let place = TreePath { root: base.root, names };
        // It is here, whatever a path in text may have meant.
        let (dir, name) = place.split()?;
        let there = sys::stat_entry(dir.open(roots).ok()?, &name).ok()??;
        (there.st_dev == st.st_dev && there.st_ino == st.st_ino).then_some(Told::At(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    #[test]
    fn few_are_found_by_their_numbers_and_what_has_several_names_is_left_for_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("tree/a/b")).unwrap();
        for name in ["tree/a/b/file", "tree/a/line\nbreak (deleted)", "tree/gone", "tree/linked", "outside"] {
            fs::write(at(name), name).unwrap();
        }
        fs::hard_link(at("tree/linked"), at("tree/a/other")).unwrap();
        let roots: Roots = Arc::new(vec![fs::File::open(at("tree")).unwrap().into()]);
        let devices = Devices::of(&roots).unwrap();
        let key = |name: &str| {
            let st = fs::symlink_metadata(at(name)).unwrap();
            devices.key(st.dev(), st.ino())
        };
        let [below, file, strange, gone, linked, outside] =
            ["tree/a/b", "tree/a/b/file", "tree/a/line\nbreak (deleted)", "tree/gone", "tree/linked", "outside"]
                .map(key);
        fs::rename(at("tree/a/b"), at("tree/b")).unwrap();
        fs::remove_file(at("tree/gone")).unwrap();
        let all = [below, file, strange, gone, linked, outside];

        let (mut wanted, mut found) = (HashSet::from(all), HashMap::new());
        by_number(&roots, &devices, &mut wanted, &mut found).unwrap();
        assert_eq!(wanted, HashSet::from([linked, outside]));
        let root = TreePath::root(0);
        let right = HashMap::from([
            (below, vec![root.join(b"b")]),
            (file, vec![root.join(b"b").join(b"file")]),
            (strange, vec![root.join(b"a").join(b"line\nbreak (deleted)")]),
        ]);
        assert_eq!(found, right);

        let mut found = places(&roots, &devices, all.into_iter()).unwrap();
        let mut names = found.remove(&linked).unwrap();
        names.sort();
        assert_eq!(names, [root.join(b"a").join(b"other"), root.join(b"linked")]);
        assert_eq!(found, right);
    }
}
