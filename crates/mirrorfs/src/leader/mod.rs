//! The sending half: puts every change of the front into one order, sends it, and answers the application
//! when the policy is met — or records it in the change map while there is no peer.
//!
//! It never goes on alone by itself: when the peer is lost it holds, reports, and waits for an order (I2).
//! **Invariant (I4):** a completion runs with `Ok` only after the peer has acknowledged the change under this
//! session, or after the change is in the durable change map under [`Leader::serve_alone`]'s epoch.

mod known;
mod orders;
mod outlet;
mod rounds;
mod sender;
mod stream;

pub use known::KNOWN_MAX;
pub(crate) use stream::SYNC_STALL_MS;

use crate::behind::Behind;
use crate::disk::Disk;
use crate::hot::DiskLog;
use crate::link::{Closer, Identity, LinkError};
use crate::map::{Devices, DiskMap};
use crate::nodes::Scope;
use crate::outlet::{Completion, InodeKey, Space};
use crate::resync::{Events, TreePath};
use crate::sys;
use crate::tree::{Reports, Roots, Tree};
use known::Known;
use model::ids::Lsn;
use model::orders::{AckPolicy, AsyncPolicy, Configuration, Counters, Report, Session, Situation};
use replica::hot::Hot;
use replica::map::Record;
use replica::op::FileId;
use replica::window::{Bounds, Window};
use replica::wire::{Envelope, Message, encode};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

/// Changes in flight: enough to fill a link of 10 Gbit/s over 10 ms, little enough to lose quickly.
const WINDOW: Bounds = Bounds { frames: 8_192, bytes: 32 << 20 };

/// What this half is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Fenced, or not serving.
    Closed,
    /// No answer leaves.
    Held,
    /// Changes are answered at once and recorded in the map.
    Alone,
    /// The same, and streamed to a target that is being brought up to date.
    Target,
    /// Everything is through; no answer leaves until the commit is.
    Committing {
        /// COMMIT is on its way (R6: never back to alone).
        sent: bool,
    },
    /// The peer's acknowledgement answers.
    Mirrored,
}

/// One change in flight.
struct Change {
    frame: Arc<Vec<u8>>,
    done: Option<Completion>,
    touches: Vec<Record>,
}

/// What is to be durable on the peer, and who waits for it.
struct Wanted {
    file: Option<FileId>,
    data_only: bool,
    done: Completion,
}

struct Barrier {
    wanted: Wanted,
    since: Instant,
}

/// A session that is connected.
struct Live {
    closers: Vec<Closer>,
}

pub(crate) struct Inner {
    pub(crate) mode: Mode,
    /// Grows with every link: a thread of an old one finds out and ends.
    pub(crate) generation: u64,
    live: Option<Live>,
    session: Option<Session>,
    envelope: Envelope,
    window: Window<Change>,
    /// Who waits for room in it, first come first served.
    line: VecDeque<u64>,
    /// The last place that was given in the line.
    place: u64,
    /// What the front touched since its last change was submitted.
    touches: Vec<Record>,
    /// Acknowledged while committing: answered with the commit.
    through: Vec<(Vec<Record>, Completion)>,
    /// Syncs the peer was asked for, by position.
    barriers: BTreeMap<u64, Barrier>,
    /// Barriers that wait for an acknowledgement only (async="second").
    after: VecDeque<(Lsn, Completion)>,
    /// Barriers that came while nothing could be asked.
    parked: Vec<Wanted>,
    known: Known,
    /// What is new, and covered by its directory in the map or the activity log.
    made: rounds::Made,
    /// The round under way.
    round: Option<rounds::Pending>,
    /// This disk could not sync: there are no more rounds in this session.
    rounds_off: bool,
    /// What the change that is being made touched, as the activity log says it.
    hots: Vec<replica::hot::Hot>,
    /// Changes that wait for something to cool.
    starved: usize,
    /// The next round is due now.
    cool: bool,
    /// The follower's process, once it was complete under us.
    peer: Option<u64>,
    progress_at: Instant,
    space: Option<Space>,
    frames: u64,
    bytes: u64,
    sending: sender::Sending,
    /// A file that is read without the order lock, and whether it was touched since.
    watched: Option<(InodeKey, bool)>,
    events: Option<Arc<Events>>,
    epoch: Option<model::ids::Epoch>,
    /// Abilities of this session's follower.
    features: u64,
}

/// The sending half of one module's data plane.
pub struct Leader {
    configuration: Configuration,
    identity: Identity,
    roots: Roots,
    /// What stays local, by replicated directory.
    scopes: Vec<Scope>,
    reports: Reports,
    instance: u64,
    tree: RwLock<Option<Weak<dyn Tree>>>,
    /// What was changed while the module was stopped may still be looked for.
    behind: RwLock<Option<Arc<Behind>>>,
    map: Mutex<DiskMap>,
    /// Shared with the follower's half: one log per node. Locked after `inner`, and never held over a wait.
    log: Arc<Mutex<DiskLog>>,
    devices: Devices,
    disk: Disk,
    inner: Mutex<Inner>,
    /// The way to the peer. Locked before `inner`, never after it.
    outgoing: Mutex<Option<sender::Outgoing>>,
    /// Something to send.
    work: Condvar,
    /// Room in the window or the hot set, or another mode.
    room: Condvar,
    /// A round is due, begun, synced by the peer, or over.
    rounds: Condvar,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic aborts the process (I8); a poisoned lock cannot be met.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The session is over, another one may have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Leader {
    /// Whom it believes.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Reads certificates and the change map; serves nothing yet. An unreadable map is reported.
    ///
    /// # Errors
    /// [`LinkError::Identity`].
    pub fn new(configuration: &Configuration, roots: Roots, reports: Reports) -> Result<Arc<Self>, LinkError> {
        sys::raise_file_limit();
        let identity = Identity::load(configuration)?;
        let (map, lost) = DiskMap::open(Path::new(&configuration.state_dir));
        let (log, log_lost) = DiskLog::open(Path::new(&configuration.state_dir));
        for reason in lost.into_iter().chain(log_lost) {
            reports(Report::MapLost { reason });
        }
        let devices = Devices::of(&roots)?;
        Ok(Arc::new(Self {
            log: Arc::new(Mutex::new(log)),
            devices,
            disk: Disk::default(),
            scopes: configuration.dirs.iter().map(Scope::root).collect(),
            configuration: configuration.clone(),
            identity,
            roots,
            reports,
            instance: sys::random(),
            tree: RwLock::new(None),
            behind: RwLock::new(None),
            map: Mutex::new(map),
            inner: Mutex::new(Inner {
                mode: Mode::Closed,
                generation: 0,
                live: None,
                session: None,
                envelope: Envelope { session: 0, epoch: 0, lsn: 0 },
                window: Window::new(WINDOW),
                line: VecDeque::new(),
                place: 0,
                touches: Vec::new(),
                through: Vec::new(),
                barriers: BTreeMap::new(),
                after: VecDeque::new(),
                parked: Vec::new(),
                known: Known::default(),
                made: rounds::Made::default(),
                round: None,
                rounds_off: false,
                hots: Vec::new(),
                starved: 0,
                cool: false,
                peer: None,
                progress_at: Instant::now(),
                space: None,
                frames: 0,
                bytes: 0,
                sending: sender::Sending::default(),
                watched: None,
                events: None,
                epoch: None,
                features: 0,
            }),
            outgoing: Mutex::new(None),
            work: Condvar::new(),
            room: Condvar::new(),
            rounds: Condvar::new(),
        }))
    }

    /// The front's tree; needed before the first [`Self::lead`].
    pub fn attach(&self, tree: Weak<dyn Tree>) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = Some(tree);
    }

    /// No resync is planned before this is over.
    pub(crate) fn wait_for(&self, behind: Arc<Behind>) {
        *self.behind.write().unwrap_or_else(PoisonError::into_inner) = Some(behind);
    }

    pub(crate) fn behind(&self) -> Option<Arc<Behind>> {
        self.behind.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// This was changed by others (`None`: nobody knows what): durable when this returns.
    pub(crate) fn changed_behind(&self, found: Option<&[Hot]>) -> std::io::Result<()> {
        let inner = lock(&self.inner);
        // The log goes into the map when this node begins to serve; after that, only the map is asked.
        if !matches!(inner.mode, Mode::Alone | Mode::Target) {
            return match found {
                Some(found) => lock(&self.log).add(found),
                None => lock(&self.log).lose(),
            };
        }
        let record = |hot: &Hot| match *hot {
            Hot::Entries { key, since_ms } => Record::Entries { key, since_ms },
            Hot::Whole { key } | Hot::Extents { key, .. } => Record::Tree { key },
        };
        match found {
            Some(found) => self.map().touch(found.iter().map(record)),
            None => self.map().touch([Record::Everything]),
        }
    }

    pub(crate) fn tree(&self) -> Option<Arc<dyn Tree>> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade)
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Replicated or not, by where it is.
    pub(crate) fn scope(&self, place: &TreePath) -> Scope {
        let root = self.scopes.get(place.root).cloned().unwrap_or(Scope::Local);
        if root.hides_nothing() {
            return root;
        }
        place.names.iter().fold(root, |scope, name| scope.child(name))
    }

    pub(crate) fn report(&self, report: Report) {
        (self.reports)(report);
    }

    /// The node's activity log, for the follower's half.
    #[must_use]
    pub fn log(&self) -> Arc<Mutex<DiskLog>> {
        self.log.clone()
    }

    pub(crate) fn devices(&self) -> &Devices {
        &self.devices
    }

    pub(crate) fn map(&self) -> MutexGuard<'_, DiskMap> {
        lock(&self.map)
    }

    /// What the last look at this node's disk found; `None`: it is suspect, and looked at elsewhere.
    #[must_use]
    pub fn disk(&self) -> Option<i32> {
        (!self.disk.is_suspect()).then_some(0)
    }

    /// A look at a disk that is suspect: what was found. May take as long as the disk.
    #[must_use]
    pub fn look_at_disk(&self) -> Option<i32> {
        let state_dir = Path::new(&self.configuration.state_dir);
        self.disk.is_suspect().then(|| self.disk.look(&self.roots, state_dir))
    }

    /// The map has something to say to a person.
    fn tell_map_note(&self) {
        let note = self.map().take_note();
        if let Some(reason) = note {
            self.report(Report::LocalFault { reason });
        }
    }

    /// What it is doing; `None` while it serves nothing.
    #[must_use]
    pub fn situation(&self) -> Option<Situation> {
        let inner = lock(&self.inner);
        let session = inner.session;
        Some(match inner.mode {
            Mode::Closed => return None,
            Mode::Held => Situation::Holding { epoch: inner.epoch },
            Mode::Alone => Situation::Alone { epoch: inner.epoch?, resync: None },
            Mode::Target => Situation::Alone { epoch: inner.epoch?, resync: session },
            Mode::Committing { sent } => Situation::Committing { session: session?, sent },
            Mode::Mirrored => Situation::Mirrored { session: session? },
        })
    }

    /// Numbers of the present session.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (dirty_zones, dirty_entries, dirty_everything) = {
            let map = lock(&self.map);
            (map.map().count(), map.map().entries(), map.map().is_everything())
        };
        let hot = self.hot() as u64;
        let own = sys::space(&self.roots).map_or(0, |s| s.available_bytes);
        let inner = lock(&self.inner);
        Counters {
            frames: inner.frames,
            bytes: inner.bytes,
            in_flight: inner.window.len() as u64,
            dirty_zones,
            hot,
            dirty_entries,
            dirty_everything,
            free_bytes: inner.space.filter(|_| inner.live.is_some()).map_or(own, |s| s.available_bytes.min(own)),
            disk: None,
        }
    }

    /// Waits until nothing is in flight (an orderly end). `false`: the deadline passed.
    #[must_use]
    pub fn drained(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let mut inner = lock(&self.inner);
        while !(inner.window.is_empty() && inner.barriers.is_empty() && inner.after.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inner = self.room.wait_timeout(inner, left).map_or_else(|e| e.into_inner().0, |w| w.0);
        }
        true
    }

    fn frame(inner: &Inner, message: &Message<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(message, &inner.envelope, crc32c::crc32c, &mut frame);
        frame
    }

    /// Gives a frame its position. It leaves with the next [`Self::pump`], at the latest when the sending thread
    /// looks; who needs it gone now says so.
    fn push(&self, inner: &mut Inner, frame: Vec<u8>, done: Option<Completion>, touches: Vec<Record>) -> Lsn {
        self.push_into(inner, frame, done, touches, Window::push)
    }

    fn push_into(
        &self,
        inner: &mut Inner,
        mut frame: Vec<u8>,
        done: Option<Completion>,
        touches: Vec<Record>,
        push: impl FnOnce(&mut Window<Change>, usize, Change) -> Lsn,
    ) -> Lsn {
        if inner.window.is_empty() && inner.barriers.is_empty() {
            inner.progress_at = Instant::now();
        }
        let lsn = inner.window.next();
        patch(&mut frame, &Envelope { lsn: lsn.0, ..inner.envelope });
        inner.frames += 1;
        inner.bytes += frame.len() as u64;
        inner.sending.pushed(frame.len(), done.is_some());
        push(&mut inner.window, frame.len(), Change { frame: Arc::new(frame), done, touches });
        self.rouse(inner);
        lsn
    }

    /// Waits for room, first come first served; comes back at once when there is nobody to wait for.
    fn wait_for_room<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, bytes: usize) -> MutexGuard<'a, Inner> {
        if inner.live.is_none() || (inner.line.is_empty() && inner.window.has_room(bytes)) {
            return inner;
        }
        inner.place += 1;
        let own = inner.place;
        inner.line.push_back(own);
        while inner.live.is_some() && !(inner.line.front() == Some(&own) && inner.window.has_room(bytes)) {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.line.retain(|place| *place != own);
        if !inner.line.is_empty() {
            // There may be room for the next one too.
            self.room.notify_all();
        }
        inner
    }

    /// Not under the order lock: waits until the resync has less than its half of the window in flight. However much the
    /// application has there: it waits for room with the order lock held, and the resync takes its turn at that lock.
    pub(crate) fn wait_for_half(&self, generation: u64) -> Result<(), Gone> {
        let mut inner = lock(&self.inner);
        while inner.generation == generation && inner.live.is_some() && !inner.window.has_half() {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.generation == generation && inner.live.is_some() { Ok(()) } else { Err(Gone) }
    }

    /// An ordered message of the resync.
    pub(crate) fn emit(&self, generation: u64, message: &Message<'_>) -> Result<Lsn, Gone> {
        self.emit_frame(generation, Self::unplaced(message))
    }

    /// A frame whose session and position are not said yet ([`Self::push`] says them): made under no lock.
    pub(crate) fn unplaced(message: &Message<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(message, &Envelope { session: 0, epoch: 0, lsn: 0 }, crc32c::crc32c, &mut frame);
        frame
    }

    /// The same of a frame that is made already.
    pub(crate) fn emit_frame(&self, generation: u64, frame: Vec<u8>) -> Result<Lsn, Gone> {
        let mut inner = self.wait_for_room(lock(&self.inner), frame.len());
        if inner.generation != generation || inner.live.is_none() {
            return Err(Gone);
        }
        let lsn = self.push_into(&mut inner, frame, None, Vec::new(), Window::push_beside);
        self.hurry(&mut inner);
        Ok(lsn)
    }

    /// Under the order lock: from here on [`Self::is_untouched`] says whether the application began to change this file.
    pub(crate) fn watch(&self, file: InodeKey) {
        lock(&self.inner).watched = Some((file, false));
    }

    /// It is watched, and nothing was changed since. Under the order lock that means: what was read meanwhile is so now.
    pub(crate) fn is_untouched(&self, file: InodeKey) -> bool {
        lock(&self.inner).watched == Some((file, false))
    }

    /// Does this session's target understand where things were?
    pub(crate) fn tells_moves(&self) -> bool {
        lock(&self.inner).features & replica::wire::FEATURE_MOVES != 0
    }

    /// Under the order lock: what the front's ids mean on the target may have changed; each is bound anew by
    /// its next use.
    pub(crate) fn bind_anew(&self) {
        let mut inner = lock(&self.inner);
        if !inner.known.is_empty() {
            inner.known.clear();
            let frame = Self::frame(&inner, &Message::Op(replica::op::Op::Unbind { id: FileId(0) }));
            self.push(&mut inner, frame, None, Vec::new());
        }
    }

    /// Runs `f` with the state locked, if this session still lives.
    pub(crate) fn with_session<T>(&self, generation: u64, f: impl FnOnce(&mut Inner) -> T) -> Result<T, Gone> {
        let mut inner = lock(&self.inner);
        if inner.generation == generation && inner.live.is_some() { Ok(f(&mut inner)) } else { Err(Gone) }
    }

    fn acks_at_once(&self) -> bool {
        self.configuration.ack == AckPolicy::Commit
    }

    fn syncs_peer(&self) -> bool {
        self.configuration.sync == AsyncPolicy::None
    }
}

/// Puts session and position into an encoded frame (the layout is version 1's header).
fn patch(frame: &mut [u8], envelope: &Envelope) {
    frame[8..16].copy_from_slice(&envelope.session.to_le_bytes());
    frame[16..20].copy_from_slice(&envelope.epoch.to_le_bytes());
    frame[24..32].copy_from_slice(&envelope.lsn.to_le_bytes());
}
