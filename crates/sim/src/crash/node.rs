//! One node: its tree in memory and on disk, its activity log, its clock.

use super::tree::{Body, Meta, Op, Tree, Zone};
use super::{Breach, Dice};
use model::limits::{EXTENT_BYTES, HOT_TABLE};
use replica::hot::{ActivityLog, BLOCK_BYTES, Cover, Hot, Made, Round, Touch, extents};
use replica::map::{ChangeMap, FileKey, Record};

const SECTOR: usize = 512;

/// Decides what a power cut leaves.
pub struct Torn<'d>(pub &'d mut Dice);

/// What is not on disk yet.
#[derive(Clone, Debug)]
enum Pending {
    /// In the journal: it persists in order, up to some point.
    Meta(Meta),
    /// Half a zone: it persists or not, whatever else does.
    Data { uid: u64, ino: u64, zone: u64, half: usize, value: u16 },
}

pub struct Node {
    pub tree: Tree,
    pub log: ActivityLog,
    disk: Tree,
    pending: Vec<Pending>,
    image: Vec<u8>,
    unflushed: Vec<(u64, [u8; BLOCK_BYTES])>,
    made: Made,
    making: Option<Cover>,
    round: Option<Round>,
    now_ms: u64,
    uids: u64,
    breach: Option<Breach>,
}

/// What both call an inode.
pub fn key(ino: u64) -> FileKey {
    FileKey { dev: 0, ino }
}

/// Good enough against torn writes, and quick (FNV-1a over words).
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().fold(0, |w, b| w << 8 | u64::from(*b));
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain([rest]);
    let h = words.fold(0xcbf2_9ce4_8422_2325_u64, |h, w| (h ^ w).wrapping_mul(0x0100_0000_01b3));
    (h ^ (h >> 32)) as u32
}

impl Node {
    pub fn new(now_ms: u64, breach: Option<Breach>) -> Self {
        let mut log = ActivityLog::default();
        let image = log.whole(sum);
        Self {
            tree: Tree::new(),
            log,
            disk: Tree::new(),
            pending: Vec::new(),
            image,
            unflushed: Vec::new(),
            made: Made::default(),
            making: None,
            round: None,
            now_ms,
            uids: 0,
            breach,
        }
    }

    /// A change on its way: into the log, durably; then made.
    pub fn stage(&mut self, stage: usize, op: Op) {
        let late = self.breach == Some(Breach::LogAfterApply);
        match (stage, late) {
            (0, false) | (1, true) => self.touch(op),
            (1, false) | (2, true) => self.flush(),
            _ => self.apply(op),
        }
        if stage == 2 {
            // A clock that often stands still.
            self.now_ms += self.uids % 2;
        }
    }

    /// What the change touches, by the rules of the real log.
    fn touch(&mut self, op: Op) {
        let (tree, log, made, now) = (&self.tree, &mut self.log, &mut self.made, self.now_ms);
        let mut items = Vec::new();
        self.making = None;
        match op {
            Op::Create(path) | Op::Mkdir(path) => {
                if let Some((dir, _)) = tree.place(path) {
                    self.making = Some(made.entries(log, key(dir), now, &mut items));
                }
            }
            Op::Remove(path) => {
                if let Some((dir, _)) = tree.place(path) {
                    made.entries(log, key(dir), now, &mut items);
                }
            }
            Op::Rename(from, to) => {
                if let (Some((from, name)), Some((to, _))) = (tree.place(from), tree.place(to))
                    && let Some(moved) = tree.child(from, name)
                {
                    made.entries(log, key(from), now, &mut items);
                    made.moves(log, key(moved), key(to), now, &mut items);
                }
            }
            Op::Write(path, zone, _) => {
                if let Some(ino) = tree.find(path.names()) {
                    made.data(log, extents(key(ino), zone * EXTENT_BYTES, 1), &mut items);
                }
            }
            Op::Truncate(path) => {
                if let Some(ino) = tree.find(path.names()) {
                    made.data(log, extents(key(ino), 0, u64::MAX), &mut items);
                }
            }
            Op::Fsync | Op::Round => {}
        }
        for item in items {
            assert_ne!(self.log.touch(item, 0, HOT_TABLE), Touch::Full, "small workloads fit");
        }
        self.unflushed.extend(self.log.blocks(sum));
    }

    fn flush(&mut self) {
        for (at, block) in self.unflushed.drain(..) {
            self.image[at as usize..][..BLOCK_BYTES].copy_from_slice(&block);
        }
        self.log.written();
    }

    /// Makes the change if it can be made (an application's error changes nothing).
    fn apply(&mut self, op: Op) {
        match op {
            Op::Create(path) | Op::Mkdir(path) => {
                let Some((dir, name)) = self.tree.place(path).filter(|(d, n)| self.tree.child(*d, *n).is_none()) else {
                    return;
                };
                let ino = self.tree.free();
                self.uids += 1;
                let is_dir = matches!(op, Op::Mkdir(_));
                self.meta(Meta::Make { dir, name, ino, uid: self.uids, born_ms: self.now_ms, is_dir });
                if let Some(cover) = self.making {
                    self.made.made(key(ino), cover);
                }
            }
            Op::Remove(path) => {
                if let Some((dir, name)) = self.tree.place(path)
                    && let Some(ino) = self.tree.child(dir, name)
                    && self.tree.dir(ino).is_none_or(|entries| entries.is_empty())
                {
                    self.meta(Meta::Remove { dir, name });
                }
            }
            Op::Rename(from, to) => {
                if let (Some((from, from_name)), Some((to, to_name))) = (self.tree.place(from), self.tree.place(to))
                    && let Some(moved) = self.tree.child(from, from_name)
                    && self.may_replace(moved, to, to_name)
                {
                    self.meta(Meta::Rename { from, from_name, to, to_name });
                }
            }
            Op::Write(path, zone, value) => {
                if let Some((ino, uid, size)) = self.file(path) {
                    self.meta_if(size <= zone, Meta::Size { uid, ino, size: zone + 1 });
                    self.data(ino, uid, zone, [value, value]);
                }
            }
            Op::Truncate(path) => {
                if let Some((ino, uid, _)) = self.file(path) {
                    self.meta(Meta::Size { uid, ino, size: 0 });
                }
            }
            Op::Fsync | Op::Round => {}
        }
    }

    fn may_replace(&self, moved: u64, to: u64, to_name: u8) -> bool {
        let there = self.tree.child(to, to_name);
        let kinds = there.is_none_or(|there| {
            self.tree.dir(there).is_some() == self.tree.dir(moved).is_some()
                && self.tree.dir(there).is_none_or(|entries| entries.is_empty())
        });
        there != Some(moved) && kinds && !self.tree.is_below(to, moved)
    }

    fn file(&self, path: super::Path) -> Option<(u64, u64, u64)> {
        let ino = self.tree.find(path.names())?;
        let inode = &self.tree.inodes[&ino];
        match inode.body {
            Body::File { size, .. } => Some((ino, inode.uid, size)),
            Body::Dir(_) => None,
        }
    }

    fn meta(&mut self, meta: Meta) {
        self.tree.apply(meta);
        self.pending.push(Pending::Meta(meta));
    }

    fn meta_if(&mut self, wanted: bool, meta: Meta) {
        if wanted {
            self.meta(meta);
        }
    }

    fn data(&mut self, ino: u64, uid: u64, zone: u64, value: Zone) {
        put(&mut self.tree, uid, ino, zone, 0, value[0]);
        put(&mut self.tree, uid, ino, zone, 1, value[1]);
        for (half, value) in value.into_iter().enumerate() {
            self.pending.push(Pending::Data { uid, ino, zone, half, value });
        }
    }

    /// Everything is on disk.
    pub fn sync(&mut self) {
        self.disk = self.tree.clone();
        self.pending.clear();
    }

    pub fn round_begins(&mut self) {
        self.round = Some(self.log.begin_round(self.now_ms));
    }

    /// Its blocks need no flush.
    pub fn round_ends(&mut self) {
        if let Some(round) = self.round.take() {
            self.log.end_round(round);
            self.unflushed.extend(self.log.blocks(sum));
            if self.log.must_flush() {
                self.flush();
            }
        }
    }

    /// The broken rule: acknowledged is as good as durable.
    pub fn forget(&mut self) {
        let round = self.log.begin_round(self.now_ms);
        self.log.end_round(round);
        self.unflushed.extend(self.log.blocks(sum));
        self.flush();
    }

    /// Power is lost and comes back.
    pub fn power_cut(&mut self, torn: &mut Torn<'_>) -> Result<(), String> {
        let metas = self.pending.iter().filter(|p| matches!(p, Pending::Meta(_))).count() as u64;
        let mut journalled = torn.0.below(metas + 1);
        let mut data = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Meta(meta) if journalled > 0 => {
                    journalled -= 1;
                    self.disk.apply(meta);
                }
                Pending::Meta(_) => {}
                Pending::Data { uid, ino, zone, half, value } => data.push((uid, ino, zone, half, value)),
            }
        }
        for (uid, ino, zone, half, value) in data {
            if torn.0.below(2) == 0 {
                put(&mut self.disk, uid, ino, zone, half, value);
            }
        }
        self.tree = self.disk.clone();
        for (at, block) in self.unflushed.drain(..) {
            for sector in (0..BLOCK_BYTES / SECTOR).filter(|_| torn.0.below(2) == 0) {
                let from = at as usize + sector * SECTOR;
                self.image[from..from + SECTOR].copy_from_slice(&block[sector * SECTOR..(sector + 1) * SECTOR]);
            }
        }
        self.log = ActivityLog::recover(&self.image, sum).map_err(|e| format!("a power cut lost the log: {e}"))?;
        Ok(())
    }

    /// What was hot becomes the change map of a node that goes on alone.
    pub fn fold(&mut self) -> ChangeMap {
        let mut map = ChangeMap::default();
        for record in self.log.records() {
            map.mark(record);
        }
        // The tree is synced before the epoch is stored (R4).
        self.sync();
        self.now_ms += 1;
        map
    }

    /// A change while alone: in the map, then made.
    pub fn alone(&mut self, op: Op, map: &mut ChangeMap) {
        let entries = |dir| Record::Entries { key: key(dir), since_ms: self.now_ms };
        let mut records = Vec::new();
        match op {
            Op::Create(path) | Op::Mkdir(path) | Op::Remove(path) => {
                records.extend(self.tree.place(path).map(|(dir, _)| entries(dir)));
            }
            Op::Rename(from, to) => {
                if let (Some((from, name)), Some((to, _))) = (self.tree.place(from), self.tree.place(to)) {
                    records.extend([entries(from), entries(to)]);
                    records.extend(self.tree.child(from, name).map(|ino| Record::Tree { key: key(ino) }));
                }
            }
            Op::Write(path, zone, _) => {
                if let Some(ino) = self.tree.find(path.names()) {
                    map.mark_data(key(ino), zone * EXTENT_BYTES, 1);
                }
            }
            Op::Truncate(path) => {
                let zones = |ino| Record::Zones { key: key(ino), first: 0, end: u64::MAX };
                records.extend(self.tree.find(path.names()).map(zones));
            }
            Op::Fsync | Op::Round => {}
        }
        for record in records {
            map.mark(record);
        }
        self.making = None;
        self.apply(op);
    }

    /// What is hot here, with its path: what a target says.
    pub fn told(&self) -> Vec<(Hot, Vec<u8>)> {
        let paths = self.paths();
        self.log
            .items()
            .filter_map(|(hot, _)| Some((hot, paths.iter().find(|(ino, _)| *ino == hot.key().ino)?.1.clone())))
            .collect()
    }

    /// Every inode's path.
    pub fn paths(&self) -> Vec<(u64, Vec<u8>)> {
        self.tree.listing().into_keys().filter_map(|path| Some((self.tree.find(&path)?, path))).collect()
    }
}

fn put(tree: &mut Tree, uid: u64, ino: u64, zone: u64, half: usize, value: u16) {
    if let Some(inode) = tree.inodes.get_mut(&ino)
        && inode.uid == uid
        && let Body::File { zones, .. } = &mut inode.body
    {
        zones.entry(zone).or_default()[half] = value;
    }
}
