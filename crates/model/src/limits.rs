//! Every bound in one place, with the arithmetic that relates them asserted at compile time.

/// Period of heartbeats on each network.
pub const PULSE_MS: u64 = 100;
/// Silence after which a peer is lost (with at least [`LOST_PULSES_MIN`] pulses missed).
pub const LOST_MS: u64 = 1_000;
/// Pulses that must be missed as well.
pub const LOST_PULSES_MIN: u64 = 3;
/// Missed pulses after which the duplicate probe of the takeover proof begins.
pub const PROBE_AFTER_PULSES: u64 = 2;
/// How long the data plane may answer without a word from its agent (boot-time clock).
pub const LEASE_MS: u64 = 800;
/// Takeover window: a secondary without a witness may claim only this long after the last heartbeat
/// in which the primary confirmed hearing it (R18).
pub const WINDOW_MS: u64 = 2_000;
/// Deadline of sync + store of a claim made by proof; past it the claim is dropped.
pub const STORE_MAX_MS: u64 = 700;
/// Silence after which a primary without a witness may go alone.
pub const ALONE_MS: u64 = 3_000;
/// How long a witness lets a crashed copy wait for its complete peer.
pub const DEFER_MS: u64 = 2_000;
/// How long a witness that hears the primary lets its secondary wait for it: a primary that lost its secondary asks at once.
pub const PREFER_MS: u64 = 1_000;
/// One question to the witness, answered or given up.
pub const QUESTION_MS: u64 = 500;
/// A peer that is alive but does not acknowledge is let go after this.
pub const STALL_MS: u64 = 3_000;
/// A node whose disk has not taken a record or a line of its journal for so long sends no heartbeat until it has: it could neither agree to
/// anything nor take anything over, so to its peer it is as if it were gone.
pub const MUTE_MS: u64 = 1_500;
/// A node whose agent has run none of its tasks for so long (all of them wait for files that a disk does not give) sends none either: its
/// lease is over, it hears no command, and to its peer it is as if it were gone. Long beside what a starved machine does to them.
pub const DEAF_MS: u64 = 3_000;
/// A data plane that mirrors and whose lease nobody has renewed for so long ends its link: its agent is dead for good, and the other node must
/// not take the link for a node that serves. An agent that is replaced is back long before.
pub const AGENTLESS_MS: u64 = 10_000;
/// A boot-time clock that jumped this far between two looks means: this node was frozen.
pub const FREEZE_MS: u64 = 500;
/// How long a farm's packet filter serves without a word from its agent: longer than an agent's restart, and than its peers' patience.
pub const FILTER_LEASE_MS: u64 = 3_000;
/// How long after its last datagram a flow of UDP stays with its member of the farm, as long as the kernel's own tracking keeps one that was answered.
pub const PIN_MS: u64 = 120_000;
/// How long after the first part of a packet the others follow it: a sender sends them at once.
pub const PART_MS: u64 = 2_000;
/// How long a member that drains must have taken no packet before it is done, where a rule deals out UDP: its flows have no end that could be seen.
pub const DRAIN_QUIET_MS: u64 = 3_000;
/// How long a farm's director waits until the others act on a view of its making: they say so within milliseconds.
pub const AGREE_MS: u64 = 150;
/// How much longer for one that is heard and does not say so: a program that was late does, one that hangs never will.
pub const LATE_MS: u64 = 2_000;
/// Views of a farm, of which it is remembered what became of frames while each was in force.
pub const GENERATIONS_MAX: usize = 8;
const _: () = assert!(AGREE_MS + LATE_MS < FILTER_LEASE_MS, "the view before serves meanwhile");
/// How long a farm's node answers for no connection that it does not know, after it lost sight of all others or one came back.
pub const DOUBT_MS: u64 = 3_000;
const _: () = assert!(AGREE_MS + LATE_MS < DOUBT_MS, "those that meet have agreed by then");
/// Modules on one cluster.
pub const MODULES_MAX: usize = 256;
/// Epochs kept in a history before the shared part may be folded.
pub const HISTORY_MAX: usize = 4_096;
/// Size of a dirty zone in the change map.
pub const ZONE_BYTES: u64 = 64 * 1024;
/// A walk over the tree that is to tell what a resync would compare is given up after this, within what a client waits for a look.
pub const RECKON_MS: u64 = 3_000;
/// Size of a block, of which the change map remembers in memory whether it was changed.
pub const BLOCK_BYTES: u64 = 4 * 1024;

/// Size of an extent of the activity log.
pub const EXTENT_BYTES: u64 = 4 * 1024 * 1024;
/// Extents and directories that may be hot on a node that leads: a crash makes us compare at most so many (2 GiB,
/// and what was made in the hot directories since the last round).
pub const HOT_MAX: usize = 512;
/// Places in the activity log: a follower learns of a round's end with the next one, so it holds up to two of them.
pub const HOT_TABLE: usize = 2 * HOT_MAX;
/// How often both nodes sync what is hot, so that it cools (R4, R5).
pub const ROUND_MS: u64 = 5_000;

/// How often a HELLO is repeated while the peer is heard and no session stands.
pub const HELLO_MS: u64 = 300;
/// How often a takeover proof that failed is tried again.
pub const PROBE_MS: u64 = 300;
/// How long a node that stepped aside for a swap prefers its peer before it competes again.
pub const ASIDE_MS: u64 = 10_000;
/// How long a peer that could not apply a change (disk full, disk error) is left alone before it is resynchronised.
pub const REJOIN_MS: u64 = 10_000;
/// How long either side of a session waits for the other to connect.
pub const LINK_MS: u64 = 2_000;
/// How long an order to the data plane may stay unanswered before its process is killed.
pub const PLANE_MS: u64 = 15_000;
/// How long fencing may wait for the data plane before its process is killed.
pub const FENCE_MS: u64 = 2_000;
/// How long a node revalidates after a freeze while nobody answers, when nobody can have overtaken it.
pub const REVALIDATE_MS: u64 = 1_000;
/// Where there are spares, every witness is asked so often whether it is there.
pub const WITNESS_ASKED_MS: u64 = 5_000;
/// A spare takes the place of a witness that has been silent for this long.
pub const SPARE_AFTER_MS: u64 = 20_000;
/// Period of the nodes' pulses to the witness.
pub const WITNESS_PULSE_MS: u64 = 500;
/// Consecutive automatic actions (restart of a dead application) before the module is stopped, as SafeKit's `maxloop`.
pub const LOOPS_MAX: u16 = 3;
/// After this long without an automatic action their counter starts again, as SafeKit's `loop_interval`.
pub const LOOP_MS: u64 = 24 * 3_600 * 1_000;
/// Events kept while a record is being stored; more than that and the oldest facts are already superseded.
pub const DEFERRED_MAX: usize = 64;

/// The times of one module's heartbeats; the defaults are the constants above.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timing {
    /// Period of heartbeats.
    pub pulse_ms: u64,
    /// Silence after which the peer is lost.
    pub lost_ms: u64,
    /// Takeover window (R18).
    pub window_ms: u64,
    /// Deadline of sync and store of a claim made by proof.
    pub store_max_ms: u64,
    /// Silence, from the last pulse heard, after which a primary without witness may go alone.
    pub alone_ms: u64,
    /// How long the data plane may answer without a word from its agent: less than the peer's patience.
    pub lease_ms: u64,
    /// A jump of the clock that says that this node was frozen: less than the peer's patience.
    pub freeze_ms: u64,
}

impl Timing {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        pulse_ms: PULSE_MS,
        lost_ms: LOST_MS,
        window_ms: WINDOW_MS,
        store_max_ms: STORE_MAX_MS,
        alone_ms: ALONE_MS,
        lease_ms: LEASE_MS,
        freeze_ms: FREEZE_MS,
    };

    /// The times that follow from a failover timeout: the relations of R18 hold for every value.
    /// `pulse_ms` is lowered when three pulses would not fit.
    #[must_use]
    pub const fn for_timeout(pulse_ms: u64, lost_ms: u64) -> Self {
        let lost_ms = if lost_ms < 3 { 3 } else { lost_ms };
        let most = lost_ms / LOST_PULSES_MIN;
        let pulse_ms = if pulse_ms == 0 || pulse_ms > most { most } else { pulse_ms };
        let window_ms = 2 * lost_ms;
        // A peer that missed a pulse just before counts from there.
        let (lease, freeze) = (lost_ms - pulse_ms - lost_ms / 10, lost_ms / 2);
        Self {
            pulse_ms,
            lost_ms,
            window_ms,
            store_max_ms: STORE_MAX_MS,
            alone_ms: window_ms + STORE_MAX_MS + 300,
            lease_ms: if lease < LEASE_MS { lease } else { LEASE_MS },
            freeze_ms: if freeze < FREEZE_MS { freeze } else { FREEZE_MS },
        }
    }

    /// Silence after which the data link is dialled anew. Where another network may carry it, sooner than the peer itself is
    /// lost: writes are held meanwhile, and a link that was given up for nothing is resumed. Never on less than 500 ms (five
    /// keepalives) of silence, unless the peer itself is lost by then.
    #[must_use]
    pub const fn link_silence_ms(&self, networks: usize) -> u64 {
        let sooner = self.lost_ms * 3 / 5;
        let sooner = if sooner < LINK_SILENCE_MIN_MS { LINK_SILENCE_MIN_MS } else { sooner };
        if networks > 1 && sooner < self.lost_ms { sooner } else { self.lost_ms }
    }
}

/// See [`Timing::link_silence_ms`].
const LINK_SILENCE_MIN_MS: u64 = 500;

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const _: () = {
    assert!(HOT_MAX >= 128 && HOT_TABLE >= 2 * HOT_MAX && EXTENT_BYTES.is_multiple_of(ZONE_BYTES));
    let derived = Timing::for_timeout(PULSE_MS, LOST_MS);
    assert!(derived.window_ms == WINDOW_MS && derived.alone_ms == ALONE_MS && derived.pulse_ms == PULSE_MS);
    assert!(derived.lease_ms == LEASE_MS && derived.freeze_ms == FREEZE_MS);
    assert!(FENCE_MS < ALONE_MS);
    assert!(LOST_PULSES_MIN * PULSE_MS <= LOST_MS);
    assert!(LOST_MS < WINDOW_MS);
    assert!(WINDOW_MS + STORE_MAX_MS < ALONE_MS);
    assert!(LEASE_MS < LOST_MS);
    assert!(Timing::DEFAULT.link_silence_ms(1) == LOST_MS && Timing::DEFAULT.link_silence_ms(2) == 600);
    assert!(Timing::for_timeout(PULSE_MS, 200).link_silence_ms(2) == 200);
    // A claim by proof is dropped, not hushed up, when its record takes too long.
    assert!(MUTE_MS > STORE_MAX_MS);
    assert!(DEFER_MS >= LOST_MS + QUESTION_MS);
    assert!(STALL_MS >= LOST_MS + QUESTION_MS + STORE_MAX_MS);
};
