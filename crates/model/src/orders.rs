//! What the agent orders from `mirrorfs`, and what `mirrorfs` reports back.
//!
//! One Unix stream socket per module (`/run/stead/mirrorfs/AM.sock`, root only), one JSON object per
//! line in each direction. `mirrorfs` listens, the agent connects: so the agent can be replaced while
//! `mirrorfs` goes on serving, and the next agent adopts it by reading [`Report::Adopted`].
//!
//! **Invariant (I5):** an order names a wanted situation and may be repeated; `mirrorfs` decides no role.

use crate::ids::{DataId, Epoch, ModuleName};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Version of this language; both sides refuse a stranger's major.
pub const ORDERS_VERSION: u32 = 1;

/// One connection's worth of replication: frames of any other session are dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Epoch under which the primary may send.
    pub epoch: Epoch,
    /// Chosen by the leader's agent, unique: tells a late frame of a closed session.
    pub number: u64,
}

impl core::hash::Hash for Session {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
        state.write_u128(crate::marks::TICKET | u128::from(self.number));
    }
}

/// One replicated directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicatedDir {
    /// Absolute path, the same on both nodes.
    pub path: String,
    /// Path (relative) whose absence means "this directory is not mounted": refuse.
    #[serde(default)]
    pub tocheck: Vec<String>,
    /// Relative paths that stay local.
    #[serde(default)]
    pub notreplicated: Vec<String>,
    /// Names that stay local, wherever they are ([`crate::patterns::Patterns`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notreplicated_names: Vec<String>,
}

/// When a change is answered to the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckPolicy {
    /// Every change waits until the peer has it.
    #[default]
    Write,
    /// Changes stream at once; `fsync` and friends wait.
    Commit,
}

/// What `fsync` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AsyncPolicy {
    /// Both disks.
    #[default]
    None,
    /// This disk and the peer's memory.
    Second,
}

/// What a member's certificate (DER) is hashed under (BLAKE3, derived key), to tell it from any other that the authority may sign.
pub const CERTIFICATE_CONTEXT: &str = "stead v1 certificate of a member";

/// Everything `mirrorfs` needs to know that is not an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// [`ORDERS_VERSION`].
    pub version: u32,
    /// The module.
    pub module: ModuleName,
    /// The replicated directories, in the order of the configuration.
    pub dirs: Vec<ReplicatedDir>,
    /// Where the dirty map and other state of the data plane live (`/var/lib/stead/modules/AM/data`).
    pub state_dir: String,
    /// Where a losing or foreign copy's files are kept before they are overwritten.
    pub quarantine_dir: String,
    /// PEM files: cluster CA, this node's certificate, this node's key.
    pub tls_ca: String,
    /// This node's certificate.
    pub tls_cert: String,
    /// This node's key.
    pub tls_key: String,
    /// TLS name the peer's certificate must carry (`NODE.CLUSTERID.stead`).
    pub peer_name: String,
    /// The other TLS name it must carry (`NUMBER.id.CLUSTERID.stead`): a machine that had the name before has another number. Empty: an
    /// agent of the first release does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_number: String,
    /// Fingerprint of the peer's certificate ([`CERTIFICATE_CONTEXT`]). Empty: of a peer that was admitted by the first release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer_certificate: String,
    /// `ip:port` of the peer's replication port, best network first.
    pub peer_addrs: Vec<String>,
    /// `ip:port` to listen on while following.
    pub listen_addrs: Vec<String>,
    /// Acknowledgement policy.
    pub ack: AckPolicy,
    /// fsync policy.
    pub sync: AsyncPolicy,
    /// Cap of the resync in bytes per second; 0: none.
    pub resync_bytes_per_s: u64,
    /// Silence after which a connection to the peer is lost: the patience of the module's heartbeats, or less where another
    /// network may carry it ([`crate::limits::Timing::link_silence_ms`]).
    #[serde(default = "default_silent_ms")]
    pub silent_ms: u64,
    /// While the process is busy, idle processors of a virtual machine may be kept from sleeping.
    #[serde(default)]
    pub idle_poll: bool,
}

impl Configuration {
    /// [`Configuration::silent_ms`], within reason.
    #[must_use]
    pub fn silence(&self) -> core::time::Duration {
        core::time::Duration::from_millis(self.silent_ms.clamp(100, SILENT_MAX_MS))
    }
}

/// As long as any timeout of a module may be.
const SILENT_MAX_MS: u64 = 86_400_000;

fn default_silent_ms() -> u64 {
    crate::limits::LOST_MS
}

/// How a session begins on the leader's side, and what the follower must expect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// Both copies are full under this epoch: resend what was not acknowledged, then mirrored.
    Resume,
    /// The follower is a target; compare only what the change map names (the follower left cleanly and
    /// its epoch is where the map began), or everything.
    Resync {
        /// Compare everything by block hashes.
        full: bool,
        /// Keep what the target loses in its quarantine (diverged or foreign copy).
        quarantine: bool,
    },
}

/// Agent → `mirrorfs`: a wanted situation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "one Configure per connection")]
pub enum Order {
    /// First order on every connection; a running `mirrorfs` refuses another configuration of directories.
    Configure {
        /// The configuration.
        configuration: Configuration,
    },
    /// Not serving, not following: FUSE unmounted, link closed, directories covered read-only. From Mirrored (the
    /// application is already stopped: swap) it first drains the link and syncs, for at most `STALL_MS`; when it
    /// cannot drain it reports [`Report::LinkLost`] before [`Report::Reached`] (the same for [`Order::Stop`]).
    Idle,
    /// Mounted, link closed, no acknowledgement leaves: requests wait.
    Hold,
    /// Make this copy durable for a new epoch: sync the hot files (a follower: the file system) and fold
    /// the hot set into the dirty map (R4). Answer: [`Report::Synced`].
    Sync {
        /// Returned in the answer.
        ticket: u64,
    },
    /// Mounted and open under this epoch, changes recorded in the dirty map. Stamps the directories.
    ServeAlone {
        /// Stored by the agent before this order.
        epoch: Epoch,
        /// Stamp to check (or, with `stamp`, to write).
        data_id: DataId,
        /// First `prim` ever or a force: write the stamp instead of checking it.
        stamp: bool,
        /// Start a new dirty map (first time alone under this epoch after being mirrored), or go on with
        /// the one on disk; an unreadable map is reported and means "compare everything".
        fresh_map: bool,
    },
    /// Connect to the follower. From [`Order::Hold`] with [`Begin::Resume`]; from
    /// [`Order::ServeAlone`] with [`Begin::Resync`], going on serving. Then [`Report::LinkUp`]; a resumed session ends with
    /// [`Report::Reached`] Mirrored, a resync with [`Report::ResyncThrough`]. No link in time: [`Report::LinkLost`].
    Lead {
        /// The session.
        session: Session,
        /// How it begins.
        begin: Begin,
    },
    /// Resync is through and role=primary is stored: send COMMIT (R6, R7).
    SendCommit {
        /// The session.
        session: Session,
    },
    /// Follow: listen, accept only this session, apply in order. Directories stay covered read-only. Then
    /// [`Report::LinkUp`]; a resumed session then [`Report::Reached`] Following with `complete`. A later Follow
    /// replaces an earlier one.
    Follow {
        /// The session.
        session: Session,
        /// How it begins.
        begin: Begin,
        /// Stamp this copy gets with the commit.
        data_id: DataId,
        /// Epoch of this copy so far: noted beside what goes to quarantine.
        #[serde(default)]
        lost: Option<Epoch>,
    },
    /// Target: {full, epoch, history} is stored; answer COMMITTED.
    ConfirmCommit {
        /// The session.
        session: Session,
    },
    /// Mirrored: compare the other copy with this one, and repair it if asked; told by [`Report::Verified`].
    Verify {
        /// Repair content and attributes that differ.
        repair: bool,
        /// Cap; 0: none.
        bytes_per_s: u64,
        /// Ordered by nobody: the background scrub.
        #[serde(default)]
        scrub: bool,
    },
    /// Fenced: held and new requests get EIO, link closed, mount torn down by force. Ends as Idle.
    Fence,
    /// The agent is alive: requests may be answered for this long, from now, on the boot-time clock.
    Lease {
        /// Milliseconds.
        valid_ms: u64,
    },
    /// Orderly end: drain, sync, unmount, keep the read-only cover, exit 0.
    Stop,
}

/// What `mirrorfs` is doing: told on adoption and in status.
#[derive(Clone, Copy, PartialEq, Hash, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "situation", rename_all = "snake_case")]
pub enum Situation {
    /// Nothing mounted.
    Idle,
    /// Mounted, holding; `epoch` it last served under.
    Holding {
        /// Last epoch.
        epoch: Option<Epoch>,
    },
    /// Mounted and open, recording.
    Alone {
        /// Epoch.
        epoch: Epoch,
        /// A resync runs.
        resync: Option<Session>,
    },
    /// Resync through, quiesced, or COMMIT sent and not answered.
    Committing {
        /// Session.
        session: Session,
        /// COMMIT has been sent (R6: never back to alone).
        sent: bool,
    },
    /// Mounted and mirrored.
    Mirrored {
        /// Session.
        session: Session,
    },
    /// Following (or listening for) this session.
    Following {
        /// Session.
        session: Session,
        /// Complete, or still a target.
        complete: bool,
    },
}

/// Progress of a resync.
#[derive(Clone, Copy, PartialEq, Hash, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Entries (files and directories) compared.
    pub entries: u64,
    /// Bytes compared by hash.
    pub bytes_compared: u64,
    /// Bytes that had to be sent.
    pub bytes_sent: u64,
    /// Estimate of the whole, in bytes to compare; 0: unknown yet.
    pub bytes_total: u64,
    /// Milliseconds since the resync began.
    pub elapsed_ms: u64,
    /// Bytes compared or sent per second since then; 0: too early to say.
    #[serde(default)]
    pub bytes_per_s: u64,
    /// Estimate of what remains; absent when nothing does.
    pub eta_ms: Option<u64>,
}

impl Progress {
    /// Bytes that are through: compared, or sent without a question.
    #[must_use]
    pub const fn bytes_done(&self) -> u64 {
        if self.bytes_compared > self.bytes_sent { self.bytes_compared } else { self.bytes_sent }
    }
}

/// Most places named in [`VerifyProgress::examples`].
pub const VERIFY_EXAMPLES_MAX: usize = 20;

/// A comparison of the two copies while mirrored.
#[derive(Clone, PartialEq, Hash, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// Not through yet.
    pub running: bool,
    /// What differs is repaired.
    #[serde(default)]
    pub repair: bool,
    /// Nobody asked: the background scrub.
    #[serde(default)]
    pub scrub: bool,
    /// How far.
    pub progress: Progress,
    /// Places (files, directories, links) that differ.
    pub differences: u64,
    /// Places that differ also after their repair.
    #[serde(default)]
    pub stubborn: u64,
    /// Places that are missing, extra or of another type there: the session ends, and a resync of them follows. What is `stubborn`
    /// beside them may be so for the lack of an entry.
    #[serde(default)]
    pub resync: u64,
    /// Some of them.
    #[serde(default)]
    pub examples: Vec<String>,
    /// Why it ended early; empty: it is through.
    #[serde(default)]
    pub failed: String,
}

/// Numbers of the data plane, reported about once a second while serving or following.
#[derive(Clone, Copy, PartialEq, Hash, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Changes sent or applied in this session.
    pub frames: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Changes sent and not acknowledged.
    pub in_flight: u64,
    /// Dirty zones in the change map.
    pub dirty_zones: u64,
    /// Files and directories it names.
    #[serde(default)]
    pub dirty_entries: u64,
    /// It cannot name them: the next resync compares everything.
    #[serde(default)]
    pub dirty_everything: bool,
    /// Extents and directories in the activity log: what a crash of this node, now, would have compared.
    #[serde(default)]
    pub hot: u64,
    /// Free bytes: the smaller of both nodes while mirrored.
    pub free_bytes: u64,
    /// What a look at this node's disk found: 0, or the error number. Absent: nobody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<i32>,
}

/// `mirrorfs` → agent: what happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// First report on every connection; followed by [`Report::LinkUp`] when a link is up (an adopted follower whose
    /// link is down must not look as if it were behind a living primary).
    Adopted {
        /// [`ORDERS_VERSION`].
        version: u32,
        /// Process id.
        pid: u32,
        /// Its process group, which it shares with its keeper and nobody else. Absent: a program that has no keeper.
        #[serde(default)]
        group: Option<u32>,
        /// What it is doing.
        situation: Situation,
    },
    /// The order could not be followed; the situation is unchanged. The text names the thing and the remedy
    /// (a process that holds the tree open, a missing directory, a foreign stamp, a full disk).
    Refused {
        /// The order's tag.
        order: String,
        /// Sentence for a person.
        reason: String,
    },
    /// The situation asked for is reached.
    Reached {
        /// What it is now.
        situation: Situation,
    },
    /// Answer to [`Order::Sync`].
    Synced {
        /// Of the question.
        ticket: u64,
    },
    /// The link of this session is up on this side (authenticated, session agreed).
    LinkUp {
        /// Session.
        session: Session,
    },
    /// The link is lost (closed, or silent for at most `LOST_MS`: both sides send keepalives); on a mirrored leader
    /// acknowledgements are held, a leader in resync goes on alone.
    LinkLost {
        /// Session.
        session: Session,
        /// Why.
        reason: String,
    },
    /// The peer is connected but has not acknowledged for `stalled_ms` (≥ `STALL_MS`); acknowledgements are held.
    PeerStalled {
        /// Session.
        session: Session,
        /// For how long.
        stalled_ms: u64,
    },
    /// The peer could not apply (ENOSPC, EIO): it must be let go.
    PeerFault {
        /// Session.
        session: Session,
        /// What the peer said.
        reason: String,
    },
    /// [`Begin::Resume`] is impossible (one of the two data planes is new): resync instead.
    CannotResume {
        /// Session.
        session: Session,
    },
    /// Resync progress.
    Progress {
        /// Session.
        session: Session,
        /// Numbers.
        progress: Progress,
    },
    /// Leader: everything is compared and sent, and writes are quiesced: store role=primary, then SendCommit.
    ResyncThrough {
        /// Session.
        session: Session,
    },
    /// Target: COMMIT received, copy synced: store {full, …}, then ConfirmCommit.
    CommitReceived {
        /// Session.
        session: Session,
    },
    /// Leader: COMMITTED received, own copy synced, maps cleared, writes resumed.
    Committed {
        /// Session.
        session: Session,
        /// What the resync cost.
        progress: Progress,
    },
    /// A local disk error that the application was told of.
    LocalFault {
        /// What failed on what.
        reason: String,
    },
    /// The change map on disk was unreadable: the next resync compares everything.
    MapLost {
        /// Why.
        reason: String,
    },
    /// How far a comparison is, about once a second, and what came of it.
    Verified {
        /// Numbers.
        verify: VerifyProgress,
    },
    /// Numbers.
    Counters {
        /// Numbers.
        counters: Counters,
    },
}
