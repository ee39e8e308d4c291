//! What the target lacks, or has as something else: made there, a few at a time.
//!
//! Each file that is made is open on both sides until its content is through: however many a directory lacks, few are at once.

use super::content::{FileTask, Ranges};
use super::entries::{Below, DirTask, Made, Place};
use super::walker::Held;
use super::{Resync, Stop, TreePath, is_ours, unreadable};
use crate::sys;
use replica::map::FileKey;
use replica::op::is_entry_name;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries made before the content of those that are files.
const STEP: usize = 16;

/// Entries of one directory.
pub(super) struct Lacking {
    pub path: TreePath,
    pub dir: Arc<Held>,
    pub entries: VecDeque<(Vec<u8>, Place)>,
}

impl Resync {
    /// Makes the next few.
    pub(super) fn supply(&mut self) -> Result<(), Stop> {
        let Some(mut lacking) = self.lacking.pop_front() else { return Ok(()) };
        for _ in 0..STEP {
            let Some((name, place)) = lacking.entries.pop_front() else { return Ok(()) };
            if place == Place::Fresh && !self.is_to_be_sent(&lacking, &name)? {
                continue;
            }
            self.restore(&lacking.path, &lacking.dir, &name, place)?;
        }
        self.lacking.push_front(lacking);
        Ok(())
    }

    /// Of a directory that was listed here only: is it ours to send?
    fn is_to_be_sent(&mut self, from: &Lacking, name: &[u8]) -> Result<bool, Stop> {
        if !is_entry_name(name) || self.is_ignored(&from.path, name) {
            return Ok(false);
        }
        let sent = match sys::stat_entry(&from.dir.fd, name).map_err(unreadable)? {
            Some(st) => is_ours(&from.path, &from.dir, name, st.st_dev)?,
            None => false,
        };
        self.meter.entries(u64::from(sent));
        Ok(sent)
    }

    /// Makes an entry on the target what it is here now, and has its content sent.
    fn restore(&mut self, path: &TreePath, dir: &Arc<Held>, name: &[u8], place: Place) -> Result<(), Stop> {
        // A file the target has under another name already gets this name too.
        let number = match sys::stat_entry(&dir.fd, name) {
            Ok(Some(st)) if st.st_nlink > 1 && sys::kind(&st) != sys::S_IFDIR => {
                let key = FileKey { dev: st.st_dev, ino: st.st_ino };
                self.links.get(key).filter(|l| l.known).map(|l| (key, l.number))
            }
            _ => None,
        };
        let made = self.walker.with_order(|w| w.restore(path, dir, name, place, number))??;
        match made {
            Made::Nothing | Made::Other(None) => {}
            Made::Other(Some(key)) => self.is_known(path, name, key)?,
            Made::Linked(key) => {
                // What was verified may have been another file than the one it belongs to now.
                self.link_is_open(key);
                if let Some(link) = self.links.get_mut(key) {
                    link.names.insert((path.clone(), name.to_vec()));
                }
                self.files.push_back(FileTask::compare(path.clone(), name.to_vec(), Ranges::All));
            }
            Made::Directory => self.dirs.push(DirTask { path: path.join(name), fresh: true, below: Below::Everything }),
            Made::File(held, linked) => {
                if linked {
                    self.is_known(path, name, held.key)?;
                }
                self.files.push_back(FileTask::send(held));
            }
        }
        Ok(())
    }

    /// The target has the first of several names: told at once, so that whoever links to it finds it known.
    fn is_known(&mut self, path: &TreePath, name: &[u8], key: FileKey) -> Result<(), Stop> {
        self.check_entry(path, name)?;
        if let Some(link) = self.links.get_mut(key) {
            link.known = true;
        }
        Ok(())
    }
}
