//! What a follower's changes make hot, and what is hot by the paths it has now.
//!
//! **Invariant:** a change is in the activity log, durably, before it is made here; what the leader's round covers
//! cools only when the next round shows that both disks have done it.

use super::ids::Ids;
use super::lock;
use super::trouble::Trouble;
use crate::hot::DiskLog;
use crate::map::{self, Devices};
use crate::sys;
use crate::tree::Roots;
use model::limits::{HOT_TABLE, ZONE_BYTES};
use replica::hot::{Cover, Hot, Made, Round, extents};
use replica::map::{ChangeMap, FileKey, Record};
use replica::op::{FileId, Op};
use replica::wire::HotPart;
use rustix::fs::RenameFlags;
use std::sync::{Arc, Mutex};

pub(super) struct Hots {
    log: Arc<Mutex<DiskLog>>,
    devices: Devices,
    /// What was made here, and what covers it since.
    made: Made,
    /// What covers the thing that is about to be made.
    making: Option<Cover>,
    round: Option<Round>,
}

impl Hots {
    pub fn new(log: Arc<Mutex<DiskLog>>, devices: Devices) -> Self {
        Self { log, devices, made: Made::default(), making: None, round: None }
    }

    pub fn clear(&mut self) {
        self.made.clear();
        self.round = None;
    }

    /// A round of another session says nothing about this one's.
    pub fn session_begins(&mut self) {
        self.round = None;
    }

    /// The leader sends a round only when the one before is through on both sides.
    pub fn round_begins(&mut self) -> std::io::Result<()> {
        let mut log = lock(&self.log);
        if let Some(through) = self.round.take() {
            log.end_round(through)?;
        }
        self.round = Some(log.begin_round());
        Ok(())
    }

    /// Before a change: in the log, durably.
    pub fn touch(&mut self, op: &Op<'_>, ids: &mut Ids) -> Result<(), Trouble> {
        let mut items = Vec::new();
        self.making = None;
        match *op {
            Op::Bind { .. } | Op::Unbind { .. } => return Ok(()),
            Op::Create { parent, .. }
            | Op::Mkdir { parent, .. }
            | Op::Mknod { parent, .. }
            | Op::Symlink { parent, .. } => {
                self.making = Some(self.entries(self.key(ids, parent)?, &mut items));
            }
            Op::Link { id, parent, .. } => {
                let (moved, to) = (self.key(ids, id)?, self.key(ids, parent)?);
                self.moves(moved, to, &mut items);
            }
            Op::Unlink { parent, .. } | Op::Rmdir { parent, .. } => {
                self.entries(self.key(ids, parent)?, &mut items);
            }
            Op::Rename { from, from_name, to, to_name, flags, .. } => {
                let (here, there) = (self.key(ids, from)?, self.key(ids, to)?);
                self.entries(here, &mut items);
                if let Some(moved) = self.entry(ids, from, from_name)? {
                    self.moves(moved, there, &mut items);
                }
                if flags & RenameFlags::EXCHANGE.bits() != 0
                    && let Some(moved) = self.entry(ids, to, to_name)?
                {
                    self.moves(moved, here, &mut items);
                }
            }
            Op::Write { id, offset, data, .. } => {
                self.data(extents(self.key(ids, id)?, offset, data.len() as u64), &mut items);
            }
            Op::Fallocate { id, offset, len, .. } => {
                self.data(extents(self.key(ids, id)?, offset, len), &mut items);
            }
            Op::SetAttr { id, size: Some(size), .. } => {
                self.data(extents(self.key(ids, id)?, size, u64::MAX - size), &mut items);
            }
            Op::SetAttr { id, .. } | Op::SetXattr { id, .. } | Op::RemoveXattr { id, .. } => {
                self.data(extents(self.key(ids, id)?, 0, 0), &mut items);
            }
        }
        let mut log = lock(&self.log);
        if !log.touch(&items, HOT_TABLE)? {
            // More than any round leaves hot: say so, and go on.
            tracing::warn!("more is hot than the activity log has room for: a crash now has everything compared");
            log.lose()?;
        }
        Ok(())
    }

    /// After a change was made: what it made is new.
    pub fn made(&mut self, op: &Op<'_>, ids: &mut Ids) -> Result<(), Trouble> {
        if let Some(cover) = self.making.take()
            && let Some(id) = op.introduces()
        {
            let key = self.key(ids, id)?;
            self.made.made(key, cover);
        }
        Ok(())
    }

    fn entries(&mut self, dir: FileKey, out: &mut Vec<Hot>) -> Cover {
        self.made.entries(lock(&self.log).log_mut(), dir, map::now_ms(), out)
    }

    fn moves(&mut self, moved: FileKey, to: FileKey, out: &mut Vec<Hot>) {
        self.made.moves(lock(&self.log).log_mut(), moved, to, map::now_ms(), out);
    }

    fn data(&mut self, what: Hot, out: &mut Vec<Hot>) {
        self.made.data(lock(&self.log).log_mut(), what, out);
    }

    fn key(&self, ids: &mut Ids, id: FileId) -> Result<FileKey, Trouble> {
        let (dev, ino) = ids.inode(id)?;
        Ok(self.devices.key(dev, ino))
    }

    fn entry(&self, ids: &Ids, dir: FileId, name: &[u8]) -> Result<Option<FileKey>, Trouble> {
        Ok(sys::stat_entry(ids.dir(dir)?, name)?.map(|st| self.devices.key(st.st_dev, st.st_ino)))
    }
}

/// One thing that is hot, where it is now.
pub(super) struct Place {
    pub what: HotPart,
    pub root: usize,
    pub range: (u64, u64),
    pub path: Vec<u8>,
}

/// What may differ here, by path: what is hot, and what the map of a time when this node was alone still names (the
/// commit reached the peer, the end of it did not reach this disk). `None`: everything.
pub(super) fn paths(log: &DiskLog, map: &ChangeMap, roots: &Roots) -> Result<Option<Vec<Place>>, std::io::Error> {
    if log.log().is_everything() || map.is_everything() {
        return Ok(None);
    }
    let devices = Devices::of(roots)?;
    let mut records = map.clone();
    for record in log.records() {
        records.mark(record);
    }
    let found = crate::locate::places(roots, &devices, records.keys())?;
    let mut out = Vec::new();
    for record in records.records() {
        let (Record::Zones { key, .. }
        | Record::Attributes { key }
        | Record::Entries { key, .. }
        | Record::Tree { key }) = record
        else {
            return Ok(None);
        };
        for place in found.get(&key).into_iter().flatten() {
            let mut tell = |what, range, path: Vec<u8>| out.push(Place { what, root: place.root, range, path });
            let path = place.names.join(&b'/');
            match record {
                Record::Zones { first, end, .. } => {
                    let offset = first.saturating_mul(ZONE_BYTES);
                    tell(HotPart::Extents, (offset, end.saturating_mul(ZONE_BYTES) - offset), path);
                }
                Record::Tree { .. } => tell(HotPart::Whole, (0, 0), path),
                Record::Entries { since_ms, .. } => {
                    tell(HotPart::Entries, (0, 0), path);
                    let Ok(dir) = place.open(roots) else { continue };
                    for name in sys::names(&dir)? {
                        if sys::is_made_since(&dir, &name, since_ms)? {
                            tell(HotPart::Whole, (0, 0), place.join(&name).names.join(&b'/'));
                        }
                    }
                }
                _ => tell(HotPart::Extents, (0, 0), path),
            }
        }
    }
    Ok(Some(out))
}
