//! The rows of `<rfs>`: replicated directories. Most of SafeKit's knobs have no counterpart here; they are
//! known, accepted, and a note says what Stead does instead.

use super::table::{AttributeRow as A, ElementRow, Kind, Support, YEAR_MS};
use super::units::Unit;
use Kind::{AbsolutePath, Choice, Integer, Name, NamePattern, OnOff, RelativePath, Schedule, Text, Time};
use Support::{NotYetUnless, Noted, NotedUnless};

const ANY: Kind = Integer(0, u64::MAX / 2);
const SECONDS: Kind = Time(Unit::Second, 0, YEAR_MS);
const STALL: &str = "Stead lets a peer go that is alive and does not acknowledge for 3 s, and says so";
const HASHES: &str = "Stead's resync compares blocks of 64 KiB by hash and sends the differences";
const WINDOWS: &str = "it is for Windows";
const OVERMOUNT: &str = "Stead mounts over the directory in place and renames nothing";

/// `<rfs>` and what is inside it.
pub static RFS: ElementRow = ElementRow {
    name: "rfs",
    attributes: &[
        A::new("ack", Choice(&["write", "commit"]), "write: every change waits until the peer has it; commit: fsync and its kin wait.").or("write"),
        A::new("async", Choice(&["none", "second"]), "none: fsync waits for both disks; second: the peer's memory is enough.").or("none"),
        A::new("reiallowedbw", Integer(1, 1_000_000_000), "Cap of the resync, in KB/s. Replication is never capped."),
        A::new("scrub", SECONDS, "How long after the last comparison of both copies the next one begins in the background, and repairs; 0: never.").or("1d").dynamic(),
        A::new("idlepoll", OnOff, "While replication is busy, idle processors of a virtual machine whose kernel does not poll by itself wait awake: faster, and paid for with their time.").or("on"),
        A::new("acl", OnOff, "Replicate ACLs.").but(NotedUnless(&["on"], "POSIX ACLs are always replicated, with owners, modes and extended attributes")),
        A::new("scripts", OnOff, "Replication driven by scripts.").but(NotYetUnless(&["off"], "the module's _rfs_ scripts are not called: Stead replicates the directories itself")),
        A::new("syncat", Schedule, "Bring the secondary up to date at these times of its own clock (fields of a crontab) instead of in real time; in between it is WAIT, and its copy is as old as the last time.").dynamic(),
        A::new("syncdelta", Time(Unit::Minute, 0, YEAR_MS), "A complete copy may serve by itself, as by `prim --force`, when the other node is silent and the last time both were equal is not longer ago; 0: never. Not with a witness.").or("0").dynamic(),
        A::new("iotimeout", SECONDS, "I/O timeout of the filter.").but(Noted(WINDOWS)),
        A::new("roflags", Text, "What a write on the secondary does.").but(Noted(WINDOWS)),
        A::new("allocthreshold", ANY, "Pre-allocation before a full copy.").but(Noted(WINDOWS)),
        A::new("nfsbox_options", Choice(&["cross", "nocross"]), "Reparse points.").but(Noted(WINDOWS)),
        A::new("locktimeout", SECONDS, "Replication request timeout.").but(Noted(STALL)),
        A::new("sendtimeout", SECONDS, "TCP send timeout.").but(Noted(STALL)),
        A::new("nbrei", ANY, "Parallel resync threads.").dynamic().but(Noted(HASHES)),
        A::new("ruzone_blocksize", ANY, "Zone of the modification bitmap.").but(Noted(HASHES)),
        A::new("reipacketsize", ANY, "Packet of the resync.").but(Noted(HASHES)),
        A::new("reicommit", ANY, "Intermediate commits of one file.").but(Noted(HASHES)),
        A::new("reidetail", OnOff, "Detailed resync log.").dynamic().but(Noted("`stead state -m AM` shows the progress of a resync")),
        A::new("reitimeout", SECONDS, "Resync request timeout.").dynamic().but(Noted(STALL)),
        A::new("packetsize", ANY, "rsize and wsize of the NFS mount.").but(Noted("Stead does not use NFS")),
        A::new("checktime", Time(Unit::Millisecond, 0, YEAR_MS), "Health check of the NFS mount.").but(Noted("Stead does not use NFS")),
        A::new("checkintv", SECONDS, "Period of that check.").but(Noted("Stead does not use NFS")),
        A::new("namespacepolicy", Choice(&["0", "1", "3", "4"]), "When bitmaps are trusted.").but(Noted("Stead's change map is on disk and always valid, or known not to be")),
        A::new("nbremconn", ANY, "TCP connections between the nodes.").but(Noted("Stead opens the connections it needs")),
        A::new("mountover", OnOff, "Mount over the directory.").but(Noted(OVERMOUNT)),
        A::new("mountoversuffix", Text, "Suffix of the renamed directory.").but(Noted(OVERMOUNT)),
    ],
    children: &[&REPLICATED, &FLOW],
    needs: &["replicated"],
    doc: "Directories replicated in real time from the primary to the secondary.",
    ..ElementRow::BASE
};

static REPLICATED: ElementRow = ElementRow {
    name: "replicated",
    attributes: &[
        A::new("dir", AbsolutePath, "The directory: absolute, the same on both nodes.").required(),
        A::new("mode", Choice(&["read_only"]), "What the secondary may do.")
            .but(Noted("Stead's secondary is always read-only")),
    ],
    children: &[&TOCHECK, &NOTREPLICATED],
    many: true,
    key: "dir",
    doc: "One replicated directory.",
    ..ElementRow::BASE
};

static TOCHECK: ElementRow = ElementRow {
    name: "tocheck",
    attributes: &[
        A::new("path", RelativePath, "A path that is missing only when the directory is not mounted.").required()
    ],
    many: true,
    key: "path",
    doc: "Refuse to start when this path is missing: guards an unmounted directory.",
    ..ElementRow::BASE
};

static NOTREPLICATED: ElementRow = ElementRow {
    name: "notreplicated",
    attributes: &[
        A::new("path", RelativePath, "A path that stays local to each node."),
        A::new(
            "regexpath",
            NamePattern,
            "Names that stay local, in every directory: those that match the expression, or, with ! before it, those that match no such expression.",
        ),
    ],
    many: true,
    doc: "A file or directory that stays local.",
    ..ElementRow::BASE
};

static FLOW: ElementRow = ElementRow {
    name: "flow",
    attributes: &[A::new("name", Name, "A lan of cluster.xml.").required()],
    doc: "The network that carries the replication (older form of <heartbeat ident=\"flow\">).",
    ..ElementRow::BASE
};
