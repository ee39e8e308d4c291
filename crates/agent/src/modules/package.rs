//! A module as a set of small files in memory: `conf/…` and `bin/…`, from a folder, an archive, or the binary.
//!
//! **Invariant:** every path in a [`Package`] is relative, clean, below `conf/` or `bin/`, and unique; it has
//! `conf/userconfig.xml`; counts and sizes are bounded; its scripts have the line ends of this system. Whatever writes one to
//! disk relies on it.

use model::schema::checkers::{Checkers, Probe};
use model::schema::module::VirtualHost;
use model::schema::names::Answers;
use model::schema::{Diagnostic, Position};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What a module has.
const ONLY_PARTS: &str = "a module has conf/ and bin/";
/// Files and folders of a folder that are named as left out.
const LEFT_OUT_MAX: usize = 20;
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

/// How a file begins that `stead config` makes for `<vhost>`.
const ENV_FILE: &str = "# Made by `stead config` for <vhost>, and again when that changes. The application sees the node's own host name;\n\
    # to give it this one: unshare --uts sh -c \"hostname $SAFEVHOSTNAME; exec SERVER\"\n";

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
                "a module has plain files in conf/ and bin/ (an archive from elsewhere that has others is not to be trusted)"
            }
            Self::TooLarge(_) => {
                "a module holds configuration and scripts; install the application itself on the nodes"
            }
            Self::Shape(_) => "a module has AM/conf/userconfig.xml and its scripts in AM/bin",
            Self::Io { .. } => "`stead module list` shows the delivered modules; a path names a folder or a .safe file",
        }
    }
}

/// A file before it has its place.
pub(super) struct Entry {
    pub bytes: Vec<u8>,
    pub is_private: bool,
}

/// A module's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    files: BTreeMap<String, Vec<u8>>,
    /// Those that nobody but their owner might read: nobody but root may where they are installed.
    private: BTreeSet<String>,
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

    /// The same with the files that scripts source for `<vhost>`, which SafeKit makes when it configures a module. One that somebody
    /// wrote stays as it is.
    #[must_use]
    pub fn with_env_files(mut self, hosts: &[VirtualHost]) -> Self {
        let mut made: BTreeMap<String, String> = BTreeMap::new();
        for host in hosts.iter().filter(|host| is_env_file(&host.env_file)) {
            let text = made.entry(format!("bin/{}", host.env_file)).or_insert_with(|| ENV_FILE.to_string());
            text.push_str(&format!("SAFEVHOSTNAME='{}'\nexport SAFEVHOSTNAME\n", host.name.replace('\'', "'\\''")));
        }
        for (path, text) in made {
            let is_ours = self.files.get(&path).is_none_or(|there| there.starts_with(ENV_FILE.as_bytes()));
            if is_ours {
                self.files.insert(path, text.into_bytes());
            }
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

    /// Names of the files in `bin/` itself.
    pub fn scripts(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| path.strip_prefix("bin/")).filter(|name| !name.contains('/'))
    }

    /// What a person should know of its files: line ends, scripts that cannot run, programs that are named and not there.
    /// `file` is the configuration's path as shown.
    #[must_use]
    pub fn findings(&self, file: &str, checkers: Option<&Checkers>) -> Vec<Diagnostic> {
        let note = |text: String| Diagnostic::note(file, Position::default(), text);
        let mut found: Vec<Diagnostic> = self.notes.iter().cloned().map(note).collect();
        let checks = checkers.into_iter().flat_map(|it| &it.checks).filter_map(|check| match &check.probe {
            Probe::Custom { exec, .. } => Some((check.resource.as_str(), exec.as_str())),
            _ => None,
        });
        let handlers = checkers.into_iter().flat_map(|it| &it.processes);
        let handlers = handlers.filter_map(|it| Some((it.name.as_str(), it.handler.as_deref()?)));
        for (of, program) in checks.chain(handlers) {
            // One with a path is the system's: another node may have it.
            if !program.contains('/') && !self.has_script(program) {
                let text = format!("{of} runs {program}, and the module has no bin/{program}");
                found.push(note(text).with_help("put it there, or name it by its whole path"));
            }
        }
        found
    }

    /// Mode of a file: what is in `bin` runs, and what was private stays so.
    #[must_use]
    pub fn mode(&self, path: &str) -> u32 {
        let mode = if path.starts_with("bin/") { 0o755 } else { 0o644 };
        if self.private.contains(path) { mode & 0o700 } else { mode }
    }

    /// The same files, for the same eyes?
    #[must_use]
    pub fn has_files_of(&self, other: &Self) -> bool {
        self.files == other.files && self.private == other.private
    }

    /// A module out of named files, wherever they come from. Paths must be clean already.
    pub(super) fn from_entries(entries: BTreeMap<String, Entry>) -> Result<Self, PackageError> {
        let prefix = root_of(&entries)?;
        let programs = programs_in(&entries, &prefix);
        let (mut files, mut private, mut notes) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for (path, Entry { bytes, is_private }) in entries {
            match place(&path, &prefix, &programs) {
                Place::Here(at) => {
                    if at.starts_with("bin/") {
                        remark(&at, &bytes, &mut notes);
                    }
                    let bytes = if is_of_windows(&at, &bytes) { with_own_line_ends(&bytes) } else { bytes };
                    if is_private {
                        private.insert(at.clone());
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
        Ok(Self { files, private, notes })
    }

    /// Reads a folder that holds `conf/` and `bin/`. Symbolic links in it are refused: what they lead to is not the module's, and whoever
    /// wrote it may not even be allowed to read it.
    ///
    /// # Errors
    /// As [`PackageError`] says.
    pub fn from_folder(folder: &Path) -> Result<Self, PackageError> {
        let io = |source: io::Error| PackageError::Io { path: folder.into(), source };
        let dir = openat(rustix::fs::CWD, folder, DIRECTORY, Mode::empty()).map_err(|e| io(e.into()))?;
        let (mut entries, mut total) = (BTreeMap::new(), 0);
        let mut names = names(&dir).map_err(io)?;
        // The configuration first: it says which programs are meant.
        names.sort_by_key(|name| name != b"conf");
        let (mut programs, mut left_out) = (BTreeSet::new(), Vec::new());
        for name in names {
            let is_part = name == *b"conf" || name == *b"bin";
            let is_meant = |name: &&str| is_part || SCRIPTS.contains(name) || programs.contains(*name);
            let Some(name) = std::str::from_utf8(&name).ok().filter(is_meant) else {
                // What a person's tools keep beside it is nobody's question.
                if !name.starts_with(b".") && left_out.len() < LEFT_OUT_MAX {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    left_out.push(format!("{} is left out: {ONLY_PARTS}", name.escape_debug()));
                }
                continue;
            };
            match open(&dir, name, folder.join(name), name)? {
                Opened::Folder(part, path) if is_part => {
                    walk(&part, &path, name, &mut entries, &mut total)?;
                    if name == "conf" {
                        programs = programs_in(&entries, "");
                    }
                }
                Opened::File(file, path) if !is_part => read_file(file, path, name.into(), &mut entries, &mut total)?,
                // A folder with a script's name, a file that is called conf.
                Opened::Folder(..) | Opened::File(..) => {}
            }
        }
        let mut package = Self::from_entries(entries)?;
        package.notes.extend(left_out);
        Ok(package)
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

/// What `envfile` names: a plain file in `bin`. Those for Windows are sourced by nobody here.
fn is_env_file(name: &str) -> bool {
    !name.contains('/')
        && check_name(name).is_ok()
        && !SCRIPTS.contains(&name)
        && !WINDOWS_ONLY.iter().any(|end| name.ends_with(end))
}

/// Programs of the module's own that its configuration names, checkers' and handlers' among them. What cannot be read names none.
fn named_programs(userconfig: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // Host names say nothing of programs.
    let mut left: Vec<_> = crate::configuration::expanded(userconfig, &Answers::default()).into_iter().collect();
    while let Some(element) = left.pop() {
        let attribute = match element.name.as_str() {
            "custom" => "exec",
            "proc" => "action",
            _ => "",
        };
        found.extend(element.value(attribute).filter(|program| !program.contains('/')).map(str::to_string));
        left.extend(element.children);
    }
    found
}

enum Place {
    Here(String),
    Ignored(&'static str),
}

fn place(path: &str, prefix: &str, programs: &BTreeSet<String>) -> Place {
    let Some(inner) = path.strip_prefix(prefix) else { return Place::Ignored("it is beside the module") };
    match inner {
        "conf/modulekey.p12" | "conf/modulekey.dat" => Place::Ignored("Stead has the cluster's own certificates"),
        "conf/userconfig.xml.template" => Place::Ignored("it is obsolete"),
        "userconfig.xml" => Place::Here(USERCONFIG.into()),
        _ if inner.starts_with("conf/") || inner.starts_with("bin/") => Place::Here(inner.into()),
        _ if SCRIPTS.contains(&inner) || programs.contains(inner) => Place::Here(format!("bin/{inner}")),
        _ => Place::Ignored(ONLY_PARTS),
    }
}

fn programs_in(entries: &BTreeMap<String, Entry>, prefix: &str) -> BTreeSet<String> {
    let at = |path: &str| entries.get(&format!("{prefix}{path}"));
    at(USERCONFIG).or_else(|| at("userconfig.xml")).map(|entry| named_programs(&entry.bytes)).unwrap_or_default()
}

/// What stands before `conf/userconfig.xml`: nothing, or `AM/`.
fn root_of(entries: &BTreeMap<String, Entry>) -> Result<String, PackageError> {
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

const WINDOWS_ONLY: [&str; 4] = [".cmd", ".ps1", ".bat", ".exe"];
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

fn remark(path: &str, bytes: &[u8], notes: &mut Vec<String>) {
    let script =
        path.strip_prefix("bin/").is_some_and(|name| SCRIPTS.contains(&name) && name != "module_scripts_utils");
    if is_of_windows(path, bytes) {
        notes.push(format!("{path} has the line ends of Windows: it runs with those of this system"));
    }
    if script && !bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes).starts_with(b"#!") {
        notes.push(format!("{path} does not begin with #! and an interpreter: the system cannot run it"));
    } else if WINDOWS_ONLY.iter().any(|end| path.ends_with(end)) {
        notes.push(format!("{path} is for Windows: it is never run here"));
    }
}

/// A script (by its name, its first line or its end) as an editor of Windows writes it: the system would look for an
/// interpreter called `sh\r`, and a shell for commands that end so. What else is in `bin` is data, and taken as it is.
fn is_of_windows(path: &str, bytes: &[u8]) -> bool {
    let Some(name) = path.strip_prefix("bin/") else { return false };
    let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    let script = text.starts_with(b"#!") || SCRIPTS.contains(&name) || name.ends_with(".sh");
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let marked = text.len() < bytes.len();
    script
        && !WINDOWS_ONLY.iter().any(|end| name.ends_with(end))
        && !bytes.contains(&0)
        && (marked || first.len() < text.len() && first.ends_with(b"\r"))
}

fn with_own_line_ends(bytes: &[u8]) -> Vec<u8> {
    let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    let mut own = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => own.extend_from_slice(&[line, b"\n"].concat()),
            None => own.extend_from_slice(line),
        }
    }
    own
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
    if name.chars().any(is_unseen) {
        return refuse("has a character in it that is not seen, or turns others round");
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

/// Format characters: what a person reads is another name than the system does.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != *b"." && name != *b".." {
            names.push(name);
        }
    }
    Ok(names)
}

enum Opened {
    Folder(OwnedFd, PathBuf),
    File(fs::File, PathBuf),
}

/// One entry, by descriptor: what it is cannot change between the look and the reading. `shown` is its name in the module.
fn open(dir: &OwnedFd, name: &str, path: PathBuf, shown: &str) -> Result<Opened, PackageError> {
    let kind = |what| PackageError::Kind { name: shown.escape_debug().take(120).collect(), what };
    // A pipe that nobody writes into keeps nobody waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Err(kind("a symbolic link")),
        Err(Errno::NXIO | Errno::NODEV) => return Err(kind("neither a file nor a folder")),
        Err(error) => return Err(PackageError::Io { path, source: error.into() }),
    };
    let file = fs::File::from(fd);
    let found = file.metadata().map_err(|source| PackageError::Io { path: path.clone(), source })?;
    match found.file_type() {
        it if it.is_dir() => Ok(Opened::Folder(file.into(), path)),
        it if it.is_file() => Ok(Opened::File(file, path)),
        _ => Err(kind("neither a file nor a folder")),
    }
}

fn walk(
    folder: &OwnedFd,
    path: &Path,
    name: &str,
    entries: &mut BTreeMap<String, Entry>,
    total: &mut u64,
) -> Result<(), PackageError> {
    for part in names(folder).map_err(|source| PackageError::Io { path: path.into(), source })? {
        let part = String::from_utf8(part).map_err(|error| PackageError::Name {
            name: String::from_utf8_lossy(error.as_bytes()).escape_debug().take(120).collect(),
            why: "is not UTF-8",
        })?;
        let name = format!("{name}/{part}");
        match open(folder, &part, path.join(&part), &name)? {
            Opened::Folder(below, path) => {
                check_name(&name)?;
                walk(&below, &path, &name, entries, total)?;
            }
            Opened::File(file, path) => read_file(file, path, name, entries, total)?,
        }
    }
    Ok(())
}

fn read_file(
    file: fs::File,
    path: PathBuf,
    name: String,
    entries: &mut BTreeMap<String, Entry>,
    total: &mut u64,
) -> Result<(), PackageError> {
    check_name(&name)?;
    let failed = |source| PackageError::Io { path: path.clone(), source };
    let is_private = is_private(file.metadata().map_err(failed)?.permissions().mode());
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    count(&name, bytes.len() as u64, total)?;
    entries.insert(name, Entry { bytes, is_private });
    if entries.len() > FILES_MAX {
        return Err(PackageError::TooLarge(format!("more than {FILES_MAX} files")));
    }
    Ok(())
}

/// Could its owner read it, and nobody else?
pub(super) const fn is_private(mode: u32) -> bool {
    mode & 0o400 != 0 && mode & 0o077 == 0
}
