//! Changes of the store that one node makes by itself: install, edit macros, uninstall, and the writing of
//! whole directories that they and [`super::two_phase`] share.
//!
//! **Invariant:** what has no final name yet is called `.new-…`; [`Store::recover`] clears it.

use super::error::StoreError;
use super::package::Package;
use super::store::{FORMAT, IdFile, Store, archive_error, entries, file_name, random, time_name, unix_ms};
use model::ids::{ModuleId, ModuleName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `editable.json`: digests of the files that this program wrote into the editable copy last.
#[derive(Serialize, Deserialize)]
struct WrittenFile {
    format: u32,
    files: BTreeMap<String, String>,
}

impl Store {
    /// Clears what an interrupted change left. Call once, when the agent starts: prepared configurations are gone.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn recover(&self) -> Result<(), StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let staging = self.lib.join(".staging");
        self.disk.remove_tree(&staging).map_err(StoreError::io("clearing", &staging))?;
        for folder in [&self.etc, &self.lib] {
            for path in entries(folder).into_iter().filter(|p| file_name(p).starts_with(".new-")) {
                self.disk.remove_tree(&path).map_err(StoreError::io("clearing", &path))?;
            }
        }
        Ok(())
    }

    /// Changes macros in the editable copy; comments and layout survive.
    ///
    /// # Errors
    /// As [`Store::with_macros`]; [`StoreError::Io`].
    pub fn set_macros(&self, name: &ModuleName, changes: &[(String, String)]) -> Result<(), StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let package = self.with_macros(name, changes)?;
        // As somebody would edit it: it is not what this program brought.
        self.replace_editable(name, &package)
    }

    /// Installs the editable copy, under a number chosen for all nodes. `force` replaces one that is there (kept
    /// in `.removed/` as a `.safe`). The active copy does not change.
    ///
    /// # Errors
    /// [`StoreError::Archive`], [`StoreError::AlreadyInstalled`], [`StoreError::Number`], [`StoreError::Io`].
    pub fn install(
        &self,
        name: &ModuleName,
        archive: &[u8],
        id: ModuleId,
        force: bool,
    ) -> Result<Vec<String>, StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let package = Package::from_archive(archive).map_err(|source| archive_error(name, source))?;
        let path = self.editable_dir(name);
        if path.exists() && !force {
            return Err(StoreError::AlreadyInstalled { name: name.clone(), path });
        }
        self.check_number(name, id)?;
        if path.exists() {
            self.back_up(name)?;
        }
        self.write_number(name, id)?;
        self.write_editable(name, &package)?;
        Ok(package.notes)
    }

    /// Removes a module that does not run (`running` is what the caller knows). Its state and quarantined files
    /// move to the returned directory, beside a `.safe` of it; replicated directories are not touched.
    ///
    /// # Errors
    /// [`StoreError::Running`], [`StoreError::NotInstalled`], [`StoreError::Io`].
    pub fn uninstall(&self, name: &ModuleName, running: bool) -> Result<PathBuf, StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        if running {
            return Err(StoreError::Running { name: name.clone() });
        }
        if !self.list().iter().any(|it| it.name == *name) {
            return Err(self.not_installed(name));
        }
        let removed = self.back_up(name)?;
        let state = self.module_dir(name);
        if state.is_dir() {
            let to = removed.join("state");
            self.disk.rename(&state, &to).map_err(StoreError::io("moving away", &state))?;
        }
        let editable = self.editable_dir(name);
        if editable.is_dir() {
            let aside = self.etc.join(format!(".new-{name}-{}", random()));
            self.disk.rename(&editable, &aside).map_err(StoreError::io("moving away", &editable))?;
            self.disk.remove_tree(&aside).map_err(StoreError::io("removing", &aside))?;
        }
        Ok(removed)
    }

    /// What is in force is in force no more. The editable copy, the state and the past configurations stay.
    ///
    /// # Errors
    /// [`StoreError`]; it may be in force still.
    pub fn deconfigure(&self, name: &ModuleName) -> Result<(), StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        if !self.list().iter().any(|it| it.name == *name) {
            return Err(self.not_installed(name));
        }
        let active = self.module_dir(name).join("active");
        if active.is_dir() {
            // Aside first: half a configuration is none.
            let aside = self.module_dir(name).join(format!(".old-{}", random()));
            self.disk.rename(&active, &aside).map_err(StoreError::io("moving away", &active))?;
            self.disk.remove_tree(&aside).map_err(StoreError::io("removing", &aside))?;
        }
        Ok(())
    }

    /// Replaces the editable copy, and remembers what it is then: what differs later was edited.
    pub(super) fn write_editable(&self, name: &ModuleName, package: &Package) -> Result<(), StoreError> {
        self.replace_editable(name, package)?;
        // Without the note what is not edited is taken for edited, and kept once too often.
        if let Err(error) = self.note_written(name, package) {
            tracing::warn!(module = %name, %error, "it cannot be noted what was written into the editable copy");
        }
        Ok(())
    }

    fn note_written(&self, name: &ModuleName, package: &Package) -> std::io::Result<()> {
        let (path, files) = (self.written_path(name), super::plan::digests(package));
        if self.noted(name).is_some_and(|noted| noted == files) {
            return Ok(());
        }
        let fresh = self.lib.join(format!(".new-{name}-{}", random()));
        let bytes = serde_json::to_vec(&WrittenFile { format: FORMAT, files }).expect("plain data");
        self.disk.make_dir(&self.module_dir(name))?;
        self.disk.write_new(&fresh, &bytes, 0o600)?;
        self.disk.rename(&fresh, &path)
    }

    fn written_path(&self, name: &ModuleName) -> PathBuf {
        self.module_dir(name).join("editable.json")
    }

    /// What this program wrote into the editable copy last, as far as it noted that.
    pub(super) fn noted(&self, name: &ModuleName) -> Option<BTreeMap<String, String>> {
        let bytes = std::fs::read(self.written_path(name)).ok()?;
        let file: WrittenFile = serde_json::from_slice(&bytes).ok()?;
        (file.format == FORMAT).then_some(file.files)
    }

    /// One with the same files is left alone (an editor may be open).
    fn replace_editable(&self, name: &ModuleName, package: &Package) -> Result<(), StoreError> {
        if self.editable_here(name).is_ok_and(|now| now.has_files_of(package)) {
            return Ok(());
        }
        let target = self.editable_dir(name);
        let fresh = self.etc.join(format!(".new-{name}-{}", random()));
        let failed = |what| StoreError::io(what, &target);
        self.write_tree(&fresh, package).map_err(failed("writing"))?;
        if target.exists() {
            self.disk.exchange(&fresh, &target).map_err(failed("replacing"))?;
            // Without a look back: the new one is in force, and `recover` clears what stays.
            let _ = self.disk.remove_tree(&fresh);
            return Ok(());
        }
        self.disk.rename(&fresh, &target).map_err(failed("naming"))
    }

    pub(super) fn write_tree(&self, root: &Path, package: &Package) -> std::io::Result<()> {
        self.disk.make_dir(root)?;
        for (path, bytes) in package.files() {
            let path_here = root.join(path);
            self.disk.make_dir(path_here.parent().unwrap_or(root))?;
            self.disk.write_new(&path_here, bytes, package.mode(path))?;
        }
        Ok(())
    }

    pub(super) fn write_number(&self, name: &ModuleName, id: ModuleId) -> Result<(), StoreError> {
        if self.number(name) == Some(id) {
            return Ok(());
        }
        let path = self.module_dir(name).join("id.json");
        let fresh = self.lib.join(format!(".new-{name}-{}", random()));
        let bytes = serde_json::to_vec(&IdFile { format: FORMAT, id }).expect("plain data");
        let failed = |what| StoreError::io(what, &path);
        self.disk.make_dir(&self.module_dir(name)).map_err(failed("making the directory of"))?;
        self.disk.write_new(&fresh, &bytes, 0o644).map_err(failed("writing"))?;
        self.disk.rename(&fresh, &path).map_err(failed("naming"))
    }

    fn back_up(&self, name: &ModuleName) -> Result<PathBuf, StoreError> {
        let removed = self.lib.join(".removed").join(format!("{name}_{}_{}", time_name(unix_ms()), &random()[..4]));
        let failed = |what| StoreError::io(what, &removed);
        self.disk.make_dir(&removed).map_err(failed("making"))?;
        // A folder that is no module any more has nothing worth a .safe; its files go with the state.
        if let Ok(archive) = self.package(name).or_else(|_| self.active_archive(name)) {
            self.disk.write_new(&removed.join(format!("{name}.safe")), &archive, 0o600).map_err(failed("writing"))?;
        }
        Ok(removed)
    }

    fn active_archive(&self, name: &ModuleName) -> Result<Vec<u8>, StoreError> {
        let dir = self.active(name)?.dir;
        Package::from_folder(&dir)
            .and_then(|package| package.to_archive(name.as_str()))
            .map_err(|source| archive_error(name, source))
    }
}
