//! What the API says of quarantines: files a losing or foreign copy had, kept before they were overwritten.

use crate::ids::{Epoch, ModuleName, NodeName};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Name of the note that a quarantine folder carries about itself.
pub const QUARANTINE_NOTE: &str = "about.json";
/// Version of [`QuarantineNote`].
pub const QUARANTINE_VERSION: u32 = 1;
/// Name of the list beside it: one [`QuarantineAttributes`] per line.
pub const QUARANTINE_ATTRIBUTES: &str = "attributes.jsonl";
/// Most entries in one answer of `show`.
pub const QUARANTINE_ENTRIES_MAX: usize = 10_000;

/// What the data plane notes beside the files when it begins to keep some.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineNote {
    /// [`QUARANTINE_VERSION`].
    pub version: u32,
    /// The copy whose files are kept: what it descended from; `None`: it never had an epoch, or nobody said.
    #[serde(default)]
    pub lost: Option<Epoch>,
    /// The epoch under which it was overwritten.
    pub won: Epoch,
    /// The replicated directories, in the order of the folders `0`, `1`, … beside this note.
    #[serde(default)]
    pub dirs: Vec<String>,
}

/// An entry of which mode, owner, time or extended attributes were overwritten, as they were before. Its content may be kept as well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineAttributes {
    /// Where it was: the number of its directory in [`QuarantineNote::dirs`], then the path below that.
    pub path: String,
    /// Permissions, octal.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification: seconds since 1970, as `touch -d @…` takes them.
    pub mtime: String,
    /// Extended attributes, ACLs among them; values in hexadecimal, as `setfattr -v` takes them.
    #[serde(default)]
    pub xattrs: BTreeMap<String, String>,
}

/// `GET /v1/modules/{m}/quarantine`: newest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuarantineList {
    /// The module.
    pub module: ModuleName,
    /// The node that speaks: each keeps its own.
    pub node: NodeName,
    /// One for each resync that kept something.
    #[serde(default)]
    pub folders: Vec<QuarantineView>,
}

/// One folder.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QuarantineView {
    /// Its name: the moment the resync began, UTC.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Files in it (directories not counted).
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries of which attributes were overwritten, noted in [`QUARANTINE_ATTRIBUTES`].
    #[serde(default)]
    pub attributes: u64,
    /// There are more: counting was given up.
    #[serde(default)]
    pub at_least: bool,
    /// Last change of the folder.
    #[serde(default)]
    pub changed_unix_ms: u64,
    /// Epoch of the copy that lost; `None`: unknown.
    #[serde(default)]
    pub lost: Option<Epoch>,
    /// Epoch under which it was overwritten; `None`: unknown.
    #[serde(default)]
    pub won: Option<Epoch>,
}

/// `GET /v1/modules/{m}/quarantine/{folder}`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QuarantineFolder {
    /// The folder.
    pub folder: QuarantineView,
    /// What is in it, by path; [`QUARANTINE_ENTRIES_MAX`] at most.
    #[serde(default)]
    pub entries: Vec<QuarantineEntry>,
}

/// One kept file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Where it is in the folder.
    pub path: String,
    /// Where it was; empty: unknown.
    #[serde(default)]
    pub was: String,
    /// Bytes.
    pub bytes: u64,
    /// Its own modification time.
    #[serde(default)]
    pub modified_unix_ms: u64,
}
