//! What only got another name while the target was away: the target makes the same move before anything is compared.
//!
//! A hint for the target, which it may not be able to follow; what moved is compared to the last byte all the same. **Invariant:** a move is
//! told while what it says is true here, under the order lock, so that it and the changes of the application come in the right order.

use super::entries::Place;
use super::{Resync, Stop, TreePath, present, unreadable};
use crate::sys;
use replica::map::FileKey;
use replica::moves::{Move, Way, in_order};
use replica::op::{Op, Time};
use replica::wire::Message;
use std::collections::HashMap;

/// One of them.
pub(super) struct Moved {
    key: FileKey,
    from: (TreePath, Vec<u8>),
    to: (TreePath, Vec<u8>),
}

impl Resync {
    /// Takes the moves that the map knows into the plan. `found`: where everything that the map names is now.
    pub(super) fn plan_moves(&mut self, found: &HashMap<FileKey, Vec<TreePath>>) {
        if !self.walker.leader.tells_moves() {
            return;
        }
        // Of several names, nobody knows which one moved.
        let place_of =
            |key: &FileKey| found.get(key).filter(|places| places.len() == 1).and_then(|places| places.first());
        let mut moved: HashMap<usize, (Vec<Move>, Vec<FileKey>)> = HashMap::new();
        for (key, dir, name) in self.map.origins() {
            let dir = FileKey { dev: key.dev, ino: dir };
            let (Some(from), Some((to, to_name))) = (place_of(&dir), place_of(&key).and_then(TreePath::split)) else {
                continue;
            };
            let is_back = *from == to && *name == *to_name;
            if from.root == to.root && !is_back && !self.is_ignored(from, name) && !self.is_ignored(&to, &to_name) {
                let (moves, keys) = moved.entry(to.root).or_default();
                moves.push(Move { from: (from.names.clone(), name.to_vec()), to: (to.names, to_name) });
                keys.push(key);
            }
        }
        for (root, (moves, keys)) in moved {
            let at = |(names, name): &(Way, Vec<u8>)| (TreePath { root, names: names.clone() }, name.clone());
            let told = |n: usize| Moved { key: keys[n], from: at(&moves[n].from), to: at(&moves[n].to) };
            self.moves.extend(in_order(&moves).into_iter().map(told));
        }
    }

    /// Tells the next one.
    pub(super) fn tell_move(&mut self, moved: Moved) -> Result<(), Stop> {
        let Moved { key, from: (from, from_name), to: (to, to_name) } = moved;
        self.make_way(&to)?;
        let devices = self.walker.leader.devices().clone();
        self.walker.with_order(|w| {
            let (Some(from), Some(to)) = (w.resolve(&from)?, w.resolve(&to)?) else { return Ok(()) };
            let Some(st) = sys::stat_entry(&to.fd, &to_name).map_err(unreadable)? else { return Ok(()) };
            if devices.key(st.st_dev, st.st_ino) != key {
                return Ok(());
            }
            let (from, to, nothing) = (from.id, to.id, Time::default());
            let (from_name, to_name) = (&from_name[..], &to_name[..]);
            let from_mtime = sys::mtime(&st);
            w.emit(&Message::Restore(Op::Rename {
                from,
                from_name,
                to,
                to_name,
                flags: 0,
                from_mtime,
                to_mtime: nothing,
            }))?;
            // Ids bound by these names, or by names below them, may mean what was there before.
            w.leader.bind_anew();
            if sys::kind(&st) == sys::S_IFDIR {
                w.bind_anew();
            } else {
                w.forget_key(FileKey { dev: st.st_dev, ino: st.st_ino });
            }
            Ok::<_, Stop>(())
        })?
    }

    /// A directory that was made meanwhile is not there yet: it is made first, so that something can come into it.
    fn make_way(&mut self, to: &TreePath) -> Result<(), Stop> {
        let mut dir = TreePath::root(to.root);
        for name in &to.names {
            let inner = dir.join(name);
            if self.is_made_since(&dir, name)? && self.ways.insert(inner.clone()) {
                self.walker.with_order(|w| match w.resolve(&dir)? {
                    Some(held) => w.restore(&dir, &held, name, Place::Unknown, None).map(drop),
                    None => Ok(()),
                })??;
            }
            dir = inner;
        }
        Ok(())
    }

    /// Made while the target was away, and not moved: those come by themselves.
    fn is_made_since(&self, dir: &TreePath, name: &[u8]) -> Result<bool, Stop> {
        let leader = &self.walker.leader;
        let Some(fd) = present(dir.open(leader.roots()))? else { return Ok(false) };
        let Some(own) = sys::stat_entry(&fd, name).map_err(unreadable)? else { return Ok(false) };
        if self.map.is_moved(leader.devices().key(own.st_dev, own.st_ino)) {
            return Ok(false);
        }
        // Below one that was made is nothing that was there before.
        let st = sys::stat(&fd).map_err(unreadable)?;
        let since = self.map.since(leader.devices().key(st.st_dev, st.st_ino));
        let is_new = |since_ms| sys::is_made_since(&fd, name, since_ms).unwrap_or(false);
        Ok(self.ways.contains(dir) || since.is_some_and(is_new))
    }
}
