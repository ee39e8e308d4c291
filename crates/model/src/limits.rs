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
/// One question to the witness, answered or given up.
pub const QUESTION_MS: u64 = 500;
/// A peer that is alive but does not acknowledge is let go after this.
pub const STALL_MS: u64 = 3_000;
/// A boot-time clock that jumped this far between two looks means: this node was frozen.
pub const FREEZE_MS: u64 = 500;
/// Modules on one cluster.
pub const MODULES_MAX: usize = 256;
/// Epochs kept in a history before the shared part may be folded.
pub const HISTORY_MAX: usize = 4_096;
/// Size of a dirty zone in the change map.
pub const ZONE_BYTES: u64 = 64 * 1024;

const _: () = {
    assert!(LOST_PULSES_MIN * PULSE_MS <= LOST_MS);
    assert!(LOST_MS < WINDOW_MS);
    assert!(WINDOW_MS + STORE_MAX_MS < ALONE_MS);
    assert!(LEASE_MS < LOST_MS);
    assert!(DEFER_MS >= LOST_MS + QUESTION_MS);
    assert!(STALL_MS >= LOST_MS + QUESTION_MS + STORE_MAX_MS);
};
