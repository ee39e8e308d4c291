//! Copies an entry with everything below it: however deep, with a few descriptors.

use super::folder::{be_like, copy_entry};
use crate::follower::removal::{Key, key, open_dir, up};
use crate::sys;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One directory there and here.
struct Two {
    from: OwnedFd,
    to: OwnedFd,
}

struct Above {
    from: Key,
    to: Key,
    /// What is left to do there.
    names: Vec<Vec<u8>>,
}

impl Two {
    fn open(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, to_name: &[u8]) -> Result<Self, Errno> {
        Ok(Self { from: open_dir(from, name)?, to: open_dir(to, to_name)? })
    }
}

pub(super) fn copy_tree(dir: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, to_name: &[u8]) -> Result<(), Errno> {
    let first = sys::open_entry(dir, name)?;
    copy_entry(first.as_fd(), to, to_name)?;
    if sys::kind(&sys::stat(&first)?) != sys::S_IFDIR {
        return Ok(());
    }
    let mut here = Two::open(dir, name, to, to_name)?;
    let mut names = sys::names(&here.from)?;
    let mut above: Vec<Above> = Vec::new();
    loop {
        if let Some(name) = names.pop() {
            let entry = sys::open_entry(&here.from, &name)?;
            copy_entry(entry.as_fd(), here.to.as_fd(), &name)?;
            if sys::kind(&sys::stat(&entry)?) == sys::S_IFDIR {
                let below = Two::open(here.from.as_fd(), &name, here.to.as_fd(), &name)?;
                let names = std::mem::replace(&mut names, sys::names(&below.from)?);
                above.push(Above { from: key(&here.from)?, to: key(&here.to)?, names });
                here = below;
            }
        } else {
            be_like(&here.from, &here.to)?;
            let Some(back) = above.pop() else { return Ok(()) };
            here = Two { from: up(&here.from, back.from)?, to: up(&here.to, back.to)? };
            names = back.names;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    #[test]
    fn a_tree_of_any_depth_is_copied_with_its_attributes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["from", "to", "from/top"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::set_permissions(at("from/top"), fs::Permissions::from_mode(0o2751)).unwrap();
        fs::File::create(at("from/top/sparse")).unwrap().write_all_at(b"end", 8 << 20).unwrap();
        sys::set_xattr(fs::File::open(at("from/top/sparse")).unwrap(), b"user.note", b"kept").unwrap();
        std::os::unix::fs::symlink("no where", at("from/top/link")).unwrap();
        std::os::unix::fs::lchown(at("from/top/link"), Some(7), Some(8)).unwrap();
        let [from, to] = ["from", "to"].map(|name| fs::File::open(at(name)).unwrap());
        // Deeper than a path can say.
        let mut deep = open_dir(&from, b"top").unwrap();
        let name = "d".repeat(200);
        for _ in 0..300 {
            rustix::fs::mkdirat(&deep, name.as_str(), Mode::RWXU).unwrap();
            deep = open_dir(&deep, name.as_bytes()).unwrap();
        }
        let bottom =
            rustix::fs::openat(&deep, "bottom", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR, Mode::RUSR);
        rustix::io::write(bottom.unwrap(), b"precious").unwrap();

        copy_tree(from.as_fd(), b"top", to.as_fd(), b"copy").unwrap();

        let stat = |name: &str| fs::symlink_metadata(at(name)).unwrap();
        assert_eq!(stat("to/copy").mode() & 0o7777, 0o751);
        assert_eq!(stat("to/copy").mtime_nsec(), stat("from/top").mtime_nsec());
        let sparse = stat("to/copy/sparse");
        assert!(sparse.len() == (8 << 20) + 3 && sparse.blocks() < 100, "{} blocks", sparse.blocks());
        assert!(fs::read(at("to/copy/sparse")).unwrap().ends_with(b"end"));
        let kept = sys::xattrs(fs::File::open(at("to/copy/sparse")).unwrap()).unwrap();
        assert_eq!(kept, [(b"user.note".to_vec(), b"kept".to_vec())]);
        assert_eq!((stat("to/copy/link").uid(), stat("to/copy/link").gid()), (7, 8));
        let mut deep = open_dir(&to, b"copy").unwrap();
        for _ in 0..300 {
            deep = open_dir(&deep, name.as_bytes()).unwrap();
        }
        let bottom = sys::reopen(sys::open_entry(&deep, b"bottom").unwrap(), rustix::fs::OFlags::RDONLY).unwrap();
        let mut text = [0; 20];
        let n = sys::read_at(&bottom, &mut text, 0).unwrap();
        assert_eq!(&text[..n], b"precious");
    }

    #[test]
    fn what_has_no_content_is_kept_too() {
        use rustix::fs::FileType;
        let dir = tempfile::tempdir().unwrap();
        for name in ["from", "to"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let [from, to] = ["from", "to"].map(|name| fs::File::open(dir.path().join(name)).unwrap());
        let null = rustix::fs::makedev(1, 3);
        let all =
            [("fifo", FileType::Fifo, 0), ("socket", FileType::Socket, 0), ("null", FileType::CharacterDevice, null)];
        for (name, kind, device) in all {
            rustix::fs::mknodat(&from, name, kind, Mode::RUSR | Mode::WUSR, device).unwrap();
            copy_tree(from.as_fd(), name.as_bytes(), to.as_fd(), name.as_bytes()).unwrap();
            let kept = rustix::fs::statat(&to, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert_eq!(FileType::from_raw_mode(kept.st_mode), kind, "{name}");
            assert_eq!((kept.st_mode & 0o777, kept.st_rdev), (0o600, device), "{name}");
        }
    }
}
