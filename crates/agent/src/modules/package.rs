//! A module as a set of small files in memory: `conf/…` and `bin/…`, from a folder, an archive, or the binary.
//!
//! **Invariant:** every path in a [`Package`] is relative, clean, below `conf/` or `bin/`, and unique; it has
//! `conf/userconfig.xml`; counts and sizes are bounded. Whatever writes one to disk relies on it.

use model::schema::names::Answers;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most files of a module.
pub const FILES_MAX: usize = 500;
/// Largest file of a module.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Largest module, unpacked.
pub const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Largest archive.
pub const ARCHIVE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The configuration.
pub const USERCONFIG: &str = "conf/userconfig.xml";
/// What host names in it stood for when it was applied (hosts(5)); written by `stead config`.
pub const ADDRESSES: &str = "conf/addresses";

/// Scripts the automaton calls; old archives have them at their root.
pub const SCRIPTS: [&str; 19] = [
    "prestart",
    "poststop",
    "start_prim",
    "stop_prim",
    "start_both",
    "stop_both",
    "start_second",
    "stop_second",
    "start_sec",
    "stop_sec",
    "transition",
    "update",
    "config",
    "postconfig",
    "deconfig",
    "confcheck",
    "state",
    "level",
    "module_scripts_utils",
];

/// Why something is not a module. State unchanged.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Not a zip archive, or a damaged one.
    #[error("it is not a readable zip archive: {0}")]
    NotAnArchive(String),
    /// A name that could leave its directory, or that no module has.
    #[error("it has an entry named '{name}', which {why}")]
    Name {
        /// As in the archive, made printable.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A symbolic link, a device, an encrypted entry.
    #[error("its entry '{name}' is {what}")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A bound is passed.
    #[error("it is too large: {0}")]
    TooLarge(String),
    /// No configuration, or several.
    #[error("it has {0}")]
    Shape(&'static str),
    /// A folder or file that cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PackageError {
    /// What helps.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NotAnArchive(_) => "pack it again: `zip -r AM.safe AM`",
            Self::Name { .. } | Self::Kind { .. } => {
                "do not trust this archive; a module has plain files in conf/ and bin/"
            }
            Self::TooLarge(_) => {
                "a module holds configuration and scripts; install the application itself on the nodes"
            }
            Self::Shape(_) => "a module has AM/conf/userconfig.xml and its scripts in AM/bin",
            Self::Io { .. } => "`stead module list` shows the delivered modules; a path names a folder or a .safe file",
        }
    }
}

/// A module's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    files: BTreeMap<String, Vec<u8>>,
    /// What was left out and what looks odd, one sentence each.
    pub notes: Vec<String>,
}

impl Package {
    /// Path (`conf/…`, `bin/…`) and content, in the order of the paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// `conf/userconfig.xml`.
    #[must_use]
    pub fn userconfig(&self) -> &[u8] {
        self.files.get(USERCONFIG).expect("checked when the package was made")
    }

    /// The same with another `conf/userconfig.xml`.
    #[must_use]
    pub fn with_userconfig(mut self, bytes: Vec<u8>) -> Self {
        self.files.insert(USERCONFIG.into(), bytes);
        self
    }

    /// The same with what its host names stand for; no file of it when there is nothing to keep.
    #[must_use]
    pub fn with_names(mut self, names: &Answers) -> Self {
        let text = names.to_hosts();
        if text.is_empty() {
            self.files.remove(ADDRESSES);
        } else {
            self.files.insert(ADDRESSES.into(), text.into_bytes());
        }
        self
    }

    /// What its host names stood for when it was applied.
    #[must_use]
    pub fn names(&self) -> Answers {
        self.files.get(ADDRESSES).map(|bytes| Answers::from_hosts(&String::from_utf8_lossy(bytes))).unwrap_or_default()
    }

    /// Whether it has this script in `bin/`.
    #[must_use]
    pub fn has_script(&self, name: &str) -> bool {
        self.files.contains_key(&format!("bin/{name}"))
    }

    /// Mode of a file: what is in `bin` runs.
    #[must_use]
    pub fn mode(path: &str) -> u32 {
        if path.starts_with("bin/") { 0o755 } else { 0o644 }
    }

    /// A module out of named files, wherever they come from. Paths must be clean already.
    pub(super) fn from_entries(entries: BTreeMap<String, Vec<u8>>) -> Result<Self, PackageError> {
        let prefix = root_of(&entries)?;
        let (mut files, mut notes) = (BTreeMap::new(), Vec::new());
        for (path, bytes) in entries {
            match place(&path, &prefix) {
                Place::Here(at) => {
                    if at.starts_with("bin/") {
                        remark(&at, &bytes, &mut notes);
                    }
                    if files.insert(at, bytes).is_some() {
                        return Err(PackageError::Name { name: path, why: "stands for a file that is there twice" });
                    }
                }
                Place::Ignored(why) => notes.push(format!("{path} is left out: {why}")),
            }
        }
        if files.len() > FILES_MAX {
            return Err(PackageError::TooLarge(format!("more than {FILES_MAX} files")));
        }
        Ok(Self { files, notes })
    }

    /// Reads a folder that holds `conf/` and `bin/`. Symbolic links are refused.
    ///
    /// # Errors
    /// As [`PackageError`] says.
    pub fn from_folder(folder: &Path) -> Result<Self, PackageError> {
        let (mut entries, mut total) = (BTreeMap::new(), 0);
        for part in ["conf", "bin"] {
            let path = folder.join(part);
            if path.is_dir() {
                walk(&path, part, &mut entries, &mut total)?;
            }
        }
        if let Ok(scripts) = fs::read_dir(folder) {
            for name in scripts
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok())
                .filter(|n| SCRIPTS.contains(&n.as_str()))
            {
                read_file(&folder.join(&name), name, &mut entries, &mut total)?;
            }
        }
        if entries.is_empty() && fs::metadata(folder).is_err() {
            return Err(PackageError::Io { path: folder.into(), source: io::Error::from(io::ErrorKind::NotFound) });
        }
        Self::from_entries(entries)
    }

    /// Reads a `.safe`.
    ///
    /// # Errors
    /// As [`PackageError`] says: nothing of a suspicious archive is used.
    pub fn from_archive(bytes: &[u8]) -> Result<Self, PackageError> {
        Self::from_entries(super::package_zip::read(bytes)?)
    }

    /// A `.safe` with everything under `name/`. Equal packages give equal bytes.
    ///
    /// # Errors
    /// The zip writer's, which memory alone can cause.
    pub fn to_archive(&self, name: &str) -> Result<Vec<u8>, PackageError> {
        super::package_zip::write(self, name)
    }
}

enum Place {
    Here(String),
    Ignored(&'static str),
}

fn place(path: &str, prefix: &str) -> Place {
    let Some(inner) = path.strip_prefix(prefix) else { return Place::Ignored("it is beside the module") };
    match inner {
        "conf/modulekey.p12" | "conf/modulekey.dat" => Place::Ignored("Stead has the cluster's own certificates"),
        "conf/userconfig.xml.template" => Place::Ignored("it is obsolete"),
        "userconfig.xml" => Place::Here(USERCONFIG.into()),
        _ if inner.starts_with("conf/") || inner.starts_with("bin/") => Place::Here(inner.into()),
        _ if SCRIPTS.contains(&inner) => Place::Here(format!("bin/{inner}")),
        _ => Place::Ignored("a module has conf/ and bin/"),
    }
}

/// What stands before `conf/userconfig.xml`: nothing, or `AM/`.
fn root_of(entries: &BTreeMap<String, Vec<u8>>) -> Result<String, PackageError> {
    let at = |end: &str| -> Vec<String> {
        let fits = |prefix: &&str| prefix.is_empty() || prefix.matches('/').count() == 1 && prefix.ends_with('/');
        entries.keys().filter_map(|path| path.strip_suffix(end)).filter(fits).map(str::to_string).collect()
    };
    let mut found = at(USERCONFIG);
    if found.is_empty() {
        found = at("userconfig.xml");
    }
    match found.as_slice() {
        [prefix] => Ok(prefix.clone()),
        [] => Err(PackageError::Shape("no conf/userconfig.xml")),
        _ => Err(PackageError::Shape("several modules in it")),
    }
}

fn remark(path: &str, bytes: &[u8], notes: &mut Vec<String>) {
    let script =
        path.strip_prefix("bin/").is_some_and(|name| SCRIPTS.contains(&name) && name != "module_scripts_utils");
    if script && !bytes.starts_with(b"#!") {
        notes.push(format!("{path} does not begin with #! and an interpreter: the system cannot run it"));
    } else if script && bytes.iter().position(|b| *b == b'\n').is_some_and(|end| bytes[..end].ends_with(b"\r")) {
        notes.push(format!(
            "{path} has the line ends of Windows: the system cannot find its interpreter (`sed -i 's/\\r$//'` helps)"
        ));
    } else if [".cmd", ".ps1", ".bat", ".exe"].iter().any(|end| path.ends_with(end)) {
        notes.push(format!("{path} is for Windows: it is never run here"));
    }
}

/// Whether a relative path is clean enough to be joined to a directory of ours.
pub(super) fn check_name(name: &str) -> Result<(), PackageError> {
    let refuse = |why| Err(PackageError::Name { name: name.escape_debug().take(120).collect(), why });
    if name.is_empty() || name.len() > 1024 {
        return refuse("is empty or longer than 1024 bytes");
    }
    if name.starts_with('/') || name.as_bytes().get(1) == Some(&b':') {
        return refuse("is an absolute path");
    }
    if name.contains('\\') {
        return refuse("has a backslash in it");
    }
    if name.chars().any(char::is_control) {
        return refuse("has a control character in it");
    }
    if name.split('/').any(|part| part == "..") {
        return refuse("leaves its directory");
    }
    if name.split('/').any(|part| part.is_empty() || part == "." || part.len() > 200) {
        return refuse("is not a plain path");
    }
    if name.split('/').count() > 10 {
        return refuse("is nested too deep");
    }
    Ok(())
}

/// Counts what is read against the bounds.
pub(super) fn count(name: &str, bytes: u64, total: &mut u64) -> Result<(), PackageError> {
    *total = total.saturating_add(bytes);
    if bytes > FILE_BYTES_MAX {
        return Err(PackageError::TooLarge(format!("'{name}' has more than {FILE_BYTES_MAX} bytes")));
    }
    if *total > BYTES_MAX {
        return Err(PackageError::TooLarge(format!("it unpacks to more than {BYTES_MAX} bytes")));
    }
    Ok(())
}

fn walk(
    folder: &Path,
    name: &str,
    entries: &mut BTreeMap<String, Vec<u8>>,
    total: &mut u64,
) -> Result<(), PackageError> {
    let failed = |source| PackageError::Io { path: folder.into(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file_name = entry.file_name();
        let Some(part) = file_name.to_str() else {
            return Err(PackageError::Name { name: file_name.to_string_lossy().into_owned(), why: "is not UTF-8" });
        };
        let (path, name) = (entry.path(), format!("{name}/{part}"));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            check_name(&name)?;
            walk(&path, &name, entries, total)?;
        } else if kind.is_file() {
            read_file(&path, name, entries, total)?;
        } else {
            return Err(PackageError::Kind { name, what: "neither a file nor a folder" });
        }
    }
    Ok(())
}

fn read_file(
    path: &Path,
    name: String,
    entries: &mut BTreeMap<String, Vec<u8>>,
    total: &mut u64,
) -> Result<(), PackageError> {
    check_name(&name)?;
    let failed = |source| PackageError::Io { path: path.into(), source };
    let file = fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(PackageError::Kind { name, what: "not a plain file" });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    count(&name, bytes.len() as u64, total)?;
    entries.insert(name, bytes);
    if entries.len() > FILES_MAX {
        return Err(PackageError::TooLarge(format!("more than {FILES_MAX} files")));
    }
    Ok(())
}
