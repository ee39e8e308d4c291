//! The modules of this node: what is installed, what is active, and the changes between.
//!
//! ```text
//! /etc/stead/modules/AM/{conf,bin}                 editable copy
//! /var/lib/stead/modules/AM/id.json                its number, given at install
//! /var/lib/stead/modules/AM/editable.json          what was written into the editable copy last
//! /var/lib/stead/modules/AM/active/{conf,bin}      active copy, with module.json
//! /var/lib/stead/modules/AM/history/TIME/          the last three active ones
//! /var/lib/stead/modules/.staging/TOKEN/           prepared, not committed
//! /var/lib/stead/modules/.removed/AM_TIME/         state of an uninstalled module, with AM.safe
//! ```
//! **Invariant:** a directory gets its final name only when all of it is on disk, by one rename.

use super::disk::{Disk, RealDisk};
use super::error::StoreError;
use super::package::{Package, PackageError, USERCONFIG};
use super::signature::signature;
use crate::configuration::{self, splice};
use model::ids::{ModuleId, ModuleName};
use model::schema::names::Answers;
use model::schema::{
    Checked, ClusterConfiguration, Diagnostic, ModuleConfiguration, OtherModule, Signature, Subnet, Surroundings,
    suggest,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Version of `module.json` and `id.json`.
pub(super) const FORMAT: u32 = 1;

/// What a configuration is checked against, as far as the caller knows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// `None`: lans and nodes are not checked.
    pub cluster: Option<&'a ClusterConfiguration>,
    /// Addresses of this node; empty: virtual addresses are not compared with them.
    pub subnets: &'a [Subnet],
    /// What host names stand for now; `None`: what is kept with the module.
    pub names: Option<&'a Answers>,
}

/// A module as `list` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    /// Its name.
    pub name: ModuleName,
    /// Its number; `None`: an installation that was interrupted.
    pub id: Option<ModuleId>,
    /// Whether there is an editable copy.
    pub editable: bool,
    /// Signature of the active configuration; `None`: never configured, or it cannot be read.
    pub active: Option<Signature>,
    /// Why the active configuration cannot be read, if there is one.
    pub broken: Option<String>,
    /// When that was applied.
    pub applied_unix_ms: Option<u64>,
}

/// The active copy of a module: what runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Active {
    /// Its name.
    pub name: ModuleName,
    /// Its number.
    pub id: ModuleId,
    /// Its fingerprint.
    pub signature: Signature,
    /// When it was applied.
    pub applied_unix_ms: u64,
    /// Expanded.
    pub configuration: ModuleConfiguration,
    /// Names of the files that were in `bin/` when it was applied; empty: the program that applied it did not note them.
    pub scripts: Vec<String>,
    /// What each file below `bin/` was then (BLAKE3); empty: as with `scripts`.
    pub digests: BTreeMap<String, String>,
    /// `…/active`.
    pub dir: PathBuf,
}

impl Active {
    /// Where its scripts are.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Where its configuration is.
    #[must_use]
    pub fn conf_dir(&self) -> PathBuf {
        self.dir.join("conf")
    }

    /// A script; `None`: the module has none of that name, or runs none (no `<user>`). One that was applied and is lost is
    /// one that it has.
    #[must_use]
    pub fn script(&self, name: &str) -> Option<PathBuf> {
        self.configuration.user.as_ref()?;
        Some(self.bin_dir().join(name)).filter(|path| self.has_applied(name) || path.is_file())
    }

    /// Was there a script of that name when it was applied?
    #[must_use]
    pub fn has_applied(&self, name: &str) -> bool {
        self.scripts.iter().any(|script| script == name)
    }
}

/// A prepared configuration: `commit` or `abort` it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

/// What `prepare` answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// For `commit` or `abort`; lost when the agent restarts.
    pub token: Token,
    /// The same on every node that prepared the same.
    pub signature: Signature,
    /// Expanded.
    pub configuration: ModuleConfiguration,
    /// Notes only.
    pub diagnostics: Vec<Diagnostic>,
}

/// `module.json` in the active copy.
#[derive(Serialize, Deserialize)]
pub(super) struct ModuleFile {
    pub format: u32,
    pub name: ModuleName,
    pub id: ModuleId,
    pub signature: Signature,
    pub applied_unix_ms: u64,
    pub configuration: ModuleConfiguration,
    /// As [`Active::scripts`].
    #[serde(default)]
    pub scripts: Vec<String>,
    /// As [`Active::digests`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct IdFile {
    pub format: u32,
    pub id: ModuleId,
}

/// The module store of a node.
#[derive(Clone)]
pub struct Store {
    pub(super) etc: PathBuf,
    pub(super) lib: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    /// One change at a time.
    pub(super) change: Arc<Mutex<()>>,
}

impl Store {
    /// The store in `etc` (`/etc/stead/modules`) and `lib` (`/var/lib/stead/modules`). Nothing is made until
    /// something is installed.
    #[must_use]
    pub fn new(etc: impl Into<PathBuf>, lib: impl Into<PathBuf>) -> Self {
        Self::with_disk(etc, lib, Arc::new(RealDisk))
    }

    /// The same on another disk.
    #[must_use]
    pub fn with_disk(etc: impl Into<PathBuf>, lib: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        Self { etc: etc.into(), lib: lib.into(), disk, change: Arc::default() }
    }

    /// Every module of this node, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Installed> {
        let here = |name: ModuleName| {
            let (active, broken) = match self.active(&name) {
                Ok(active) => (Some(active), None),
                Err(StoreError::NotConfigured { .. } | StoreError::NotInstalled { .. }) => (None, None),
                Err(error) => (None, Some(error.problem("").why)),
            };
            Installed {
                id: active.as_ref().map(|a| a.id).or_else(|| self.number(&name)),
                editable: self.editable_dir(&name).join(USERCONFIG).is_file(),
                applied_unix_ms: active.as_ref().map(|a| a.applied_unix_ms),
                active: active.map(|a| a.signature),
                broken,
                name,
            }
        };
        self.names().into_iter().map(here).collect()
    }

    /// Names of the modules that have an editable or an active copy.
    fn names(&self) -> Vec<ModuleName> {
        let mut names: Vec<ModuleName> = entries(&self.etc)
            .iter()
            .chain(&entries(&self.lib))
            .filter_map(|path| ModuleName::new(file_name(path)).ok())
            .filter(|name| {
                let is_there = || self.editable_dir(name).is_dir() || self.module_dir(name).join("active").is_dir();
                is_there() || self.was_here(name)
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Its state says that it ran on this node; an uninstallation takes that away.
    fn was_here(&self, name: &ModuleName) -> bool {
        ["state.a", "state.b", "journal"].iter().any(|file| self.module_dir(name).join(file).is_file())
    }

    /// The active copy.
    ///
    /// # Errors
    /// [`StoreError::NotInstalled`], [`StoreError::NotConfigured`], [`StoreError::Lost`], [`StoreError::Corrupted`].
    pub fn active(&self, name: &ModuleName) -> Result<Active, StoreError> {
        let dir = self.module_dir(name).join("active");
        // With its directory there always is the file: one that is missing was lost.
        if dir.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            let editable = self.editable_dir(name);
            return Err(if editable.is_dir() {
                StoreError::NotConfigured { name: name.clone() }
            } else if self.was_here(name) {
                StoreError::Lost { name: name.clone(), editable, active: dir }
            } else {
                self.not_installed(name)
            });
        }
        Self::read_active(name, dir)
    }

    pub(super) fn read_active(name: &ModuleName, dir: PathBuf) -> Result<Active, StoreError> {
        let path = dir.join("module.json");
        let corrupted = |why: String| StoreError::Corrupted { name: name.clone(), path: path.clone(), why };
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(corrupted("it is missing".into()));
            }
            read => read.map_err(StoreError::io("reading", &path))?,
        };
        let file: ModuleFile = serde_json::from_slice(&bytes).map_err(|error| corrupted(error.to_string()))?;
        if file.format != FORMAT {
            return Err(corrupted(format!("its format is {}, this release reads {FORMAT}", file.format)));
        }
        Ok(Active {
            name: name.clone(),
            id: file.id,
            signature: file.signature,
            applied_unix_ms: file.applied_unix_ms,
            configuration: file.configuration,
            scripts: file.scripts,
            digests: file.digests,
            dir,
        })
    }

    /// The editable copy as it is now; where somebody removed it, what is in force.
    ///
    /// # Errors
    /// [`StoreError::NotInstalled`], [`StoreError::Archive`] (what is wrong with the files).
    pub fn editable(&self, name: &ModuleName) -> Result<Package, StoreError> {
        match self.editable_here(name) {
            Err(StoreError::NotInstalled { .. }) => self.active_package(name),
            there => there,
        }
    }

    /// The editable copy, if it is there.
    pub(super) fn editable_here(&self, name: &ModuleName) -> Result<Package, StoreError> {
        let folder = self.editable_dir(name);
        if !folder.is_dir() {
            return Err(self.not_installed(name));
        }
        Package::from_folder(&folder).map_err(|source| archive_error(name, source))
    }

    /// The editable copy as if it were in force, when nothing refuses it; its files are where they are edited.
    ///
    /// # Errors
    /// As [`Store::editable`].
    pub fn edited(&self, name: &ModuleName, around: Around<'_>) -> Result<Option<Active>, StoreError> {
        let (checked, signature) = self.check(name, around)?;
        let (Some(configuration), Some(signature)) = (checked.value, signature) else { return Ok(None) };
        let id = self.number(name).unwrap_or(ModuleId(0));
        let dir = self.editable_dir(name);
        Ok(Some(Active {
            name: name.clone(),
            id,
            signature,
            applied_unix_ms: 0,
            configuration,
            scripts: Vec::new(),
            digests: BTreeMap::new(),
            dir,
        }))
    }

    /// The editable copy as a `.safe`.
    ///
    /// # Errors
    /// As [`Store::editable`].
    pub fn package(&self, name: &ModuleName) -> Result<Vec<u8>, StoreError> {
        self.editable(name)?.to_archive(name.as_str()).map_err(|source| archive_error(name, source))
    }

    /// Checks the editable copy: findings and, when nothing refuses it, the configuration. The signature is what
    /// [`Store::prepare`] would answer.
    ///
    /// # Errors
    /// As [`Store::editable`].
    pub fn check(
        &self,
        name: &ModuleName,
        around: Around<'_>,
    ) -> Result<(Checked<ModuleConfiguration>, Option<Signature>), StoreError> {
        let package = self.editable(name)?;
        let checked = self.check_package(name, &package, around);
        let package = match around.names {
            Some(names) => package.with_names(names),
            None => package,
        };
        let hosts = checked.value.as_ref().map(|configuration| configuration.virtual_hosts.as_slice());
        let package = package.with_env_files(hosts.unwrap_or_default());
        let fingerprint = checked.value.as_ref().map(|configuration| signature(configuration, &package));
        Ok((checked, fingerprint))
    }

    /// Why the package is refused, a host name of it without an address among the reasons.
    #[must_use]
    pub fn refusal(&self, name: &ModuleName, package: &Package, names: &Answers) -> StoreError {
        let checked = self.check_package(name, package, Around { names: Some(names), ..Around::default() });
        StoreError::Refused {
            name: name.clone(),
            diagnostics: checked.diagnostics,
            text: package.userconfig().to_vec(),
        }
    }

    /// The macros of the editable copy, in its order.
    ///
    /// # Errors
    /// As [`Store::editable`]; [`StoreError::Macros`] when the file cannot be read.
    pub fn macros(&self, name: &ModuleName) -> Result<Vec<splice::Macro>, StoreError> {
        let file = self.shown(name);
        splice::macros(self.editable(name)?.userconfig(), &file)
            .map_err(|it| StoreError::Macros { name: name.clone(), diagnostic: Box::new(it) })
    }

    /// The editable copy with these macros changed, as a package: nothing is written. For `config -m AM --set`
    /// on all nodes or none: prepare this one, and the commit writes it.
    ///
    /// # Errors
    /// As [`Store::macros`]; an unknown macro.
    pub fn with_macros(&self, name: &ModuleName, changes: &[(String, String)]) -> Result<Package, StoreError> {
        let package = self.editable(name)?;
        let file = self.shown(name);
        let text = splice::set_macros(package.userconfig(), &file, name.as_str(), changes)
            .map_err(|it| StoreError::Macros { name: name.clone(), diagnostic: Box::new(it) })?;
        Ok(package.with_userconfig(text))
    }

    /// Numbers used on this node.
    #[must_use]
    pub fn numbers(&self) -> Vec<ModuleId> {
        self.list().into_iter().filter_map(|it| it.id).collect()
    }

    pub(super) fn check_package(
        &self,
        name: &ModuleName,
        package: &Package,
        around: Around<'_>,
    ) -> Checked<ModuleConfiguration> {
        let actives: Vec<Active> =
            self.list().iter().filter(|it| it.name != *name).filter_map(|it| self.active(&it.name).ok()).collect();
        let others: Vec<OtherModule<'_>> =
            actives.iter().map(|a| OtherModule { name: &a.name, configuration: &a.configuration }).collect();
        let names = package.names();
        let surroundings = Surroundings {
            module: name.as_str(),
            cluster: around.cluster,
            subnets: around.subnets,
            others: &others,
            names: around.names.unwrap_or(&names),
        };
        let mut checked = configuration::read_module(package.userconfig(), &self.shown(name), &surroundings);
        let scripts: Vec<&str> =
            ["start_prim", "stop_prim", "prestart", "poststop"].into_iter().filter(|s| package.has_script(s)).collect();
        let file = self.shown(name);
        let mut notes = package.findings(&file, checked.value.as_ref().map(|it| &it.checkers));
        if checked.value.as_ref().is_some_and(|c| c.user.is_none()) && !scripts.is_empty() {
            let text = format!("the module has scripts ({}), and no <user>: they will not run", scripts.join(", "));
            let note = Diagnostic::note(&file, model::schema::Position::default(), text);
            notes.push(note.with_help("add <user/> to <service>"));
        }
        checked.diagnostics.extend(notes.iter().cloned());
        if let Some(configuration) = &mut checked.value {
            configuration.notes.extend(notes);
        }
        checked
    }

    pub(super) fn check_number(&self, name: &ModuleName, id: ModuleId) -> Result<(), StoreError> {
        if id.0 == 0 || usize::from(id.0) > model::limits::MODULES_MAX {
            return Err(StoreError::number(name, id, format!("numbers go from 1 to {}", model::limits::MODULES_MAX)));
        }
        for it in self.list() {
            if it.name == *name && it.id.is_some_and(|own| own != id) {
                let own = it.id.map_or(0, |own| own.0);
                return Err(StoreError::number(name, id, format!("it has number {own} here")));
            }
            if it.name != *name && it.id == Some(id) {
                return Err(StoreError::number(name, id, format!("module '{}' has it", it.name)));
            }
        }
        Ok(())
    }

    pub(super) fn number(&self, name: &ModuleName) -> Option<ModuleId> {
        let bytes = fs::read(self.module_dir(name).join("id.json")).ok()?;
        serde_json::from_slice::<IdFile>(&bytes).ok().map(|file| file.id)
    }

    pub(super) fn not_installed(&self, name: &ModuleName) -> StoreError {
        let known = self.names();
        let near = suggest::nearest(name.as_str(), known.iter().map(ModuleName::as_str)).map(str::to_string);
        StoreError::NotInstalled { name: name.clone(), near: near.filter(|near| near != name.as_str()) }
    }

    /// The path a person knows the configuration by.
    #[must_use]
    pub fn shown(&self, name: &ModuleName) -> String {
        self.editable_dir(name).join(USERCONFIG).to_string_lossy().into_owned()
    }

    /// `/etc/stead/modules/AM`.
    #[must_use]
    pub fn editable_dir(&self, name: &ModuleName) -> PathBuf {
        self.etc.join(name.as_str())
    }

    /// `/var/lib/stead/modules/AM`.
    #[must_use]
    pub fn module_dir(&self, name: &ModuleName) -> PathBuf {
        self.lib.join(name.as_str())
    }
}

/// The smallest number no module has, counting those of all nodes.
///
/// # Errors
/// [`StoreError::NoNumberLeft`].
pub fn smallest_free_id(used: impl IntoIterator<Item = ModuleId>) -> Result<ModuleId, StoreError> {
    let used: std::collections::BTreeSet<ModuleId> = used.into_iter().collect();
    let last = u16::try_from(model::limits::MODULES_MAX).expect("a small constant");
    (1..=last).map(ModuleId).find(|id| !used.contains(id)).ok_or(StoreError::NoNumberLeft)
}

pub(super) fn archive_error(name: &ModuleName, source: PackageError) -> StoreError {
    StoreError::Archive { name: name.clone(), source }
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

pub(super) fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

pub(super) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-22T05-40-00.123Z`: sorts by time, and every shell takes it.
pub(super) fn time_name(unix_ms: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).unwrap_or(0)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H-%M-%S.%3fZ").to_string()
}

pub(super) fn random() -> String {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .expect("the kernel gives 8 random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
