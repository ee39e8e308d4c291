//! Where an inode is in the replicated tree: maps and logs name inodes, the two copies share only paths.
//!
//! Found by one walk that only lists directories and ends when all is found. **Invariant:** every name of a file is given, or (it is gone) none.

use crate::map::Devices;
use crate::resync::TreePath;
use crate::sys;
use crate::tree::Roots;
use replica::map::FileKey;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};

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
