//! Applying a configuration on all nodes or none: prepare everywhere, then commit everywhere or abort.
//!
//! `prepare` validates and stages; nothing active changes. `commit` is one rename (or swap) of a directory;
//! everything after it is tidying that may fail or be cut off without harm.

use super::error::StoreError;
use super::package::{Package, USERCONFIG};
use super::signature::signature;
use super::store::{
    Active, Around, FORMAT, ModuleFile, Prepared, Store, Token, archive_error, entries, random, time_name, unix_ms,
};
use model::ids::{ModuleId, ModuleName};
use std::fs;
use std::path::PathBuf;

/// Active configurations kept after they were replaced; and as many editable copies.
const HISTORY: usize = 3;
/// End of the name of an editable copy in the history.
const EDITED: &str = "-edited";

/// Is this, in the history, a copy that was edited and never in force?
pub(super) fn is_edited(kept: &std::path::Path) -> bool {
    super::store::file_name(kept).ends_with(EDITED)
}

impl Store {
    /// Validates a module for this node and stages it. An earlier one staged for the same module is dropped.
    ///
    /// # Errors
    /// [`StoreError::Archive`], [`StoreError::Refused`] with all findings, [`StoreError::Number`], [`StoreError::Io`].
    pub fn prepare(
        &self,
        name: &ModuleName,
        archive: &[u8],
        id: ModuleId,
        around: Around<'_>,
    ) -> Result<Prepared, StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let package = Package::from_archive(archive).map_err(|source| archive_error(name, source))?;
        self.check_number(name, id)?;
        let checked = self.check_package(name, &package, around);
        let Some(configuration) = checked.value else {
            return Err(StoreError::Refused {
                name: name.clone(),
                diagnostics: checked.diagnostics,
                text: package.userconfig().to_vec(),
            });
        };
        let package = package.with_env_files(&configuration.virtual_hosts);
        let digests = super::plan::digests(&package);
        let file = ModuleFile {
            format: FORMAT,
            name: name.clone(),
            id,
            signature: signature(&configuration, &package),
            applied_unix_ms: unix_ms(),
            configuration,
            scripts: package.scripts().map(str::to_string).collect(),
            digests: digests
                .into_iter()
                .filter_map(|(path, digest)| Some((path.strip_prefix("bin/")?.to_string(), digest)))
                .collect(),
        };
        let staging = self.lib.join(".staging");
        for old in entries(&staging).into_iter().filter(|path| staged_name(path).as_ref() == Some(name)) {
            self.disk.remove_tree(&old).map_err(StoreError::io("clearing", &old))?;
        }
        let token = Token(format!("{name}-{}", random()));
        let dir = staging.join(&token.0);
        let json = serde_json::to_vec_pretty(&file).expect("plain data");
        let write = || {
            self.write_tree(&dir, &package)?;
            // The configuration once more: for the same eyes.
            self.disk.write_new(&dir.join("module.json"), &json, package.mode(USERCONFIG))
        };
        if let Err(source) = write() {
            let _ = self.disk.remove_tree(&dir);
            return Err(StoreError::Io { what: "staging the configuration in", path: dir, source });
        }
        Ok(Prepared {
            token,
            signature: file.signature,
            diagnostics: checked.diagnostics,
            configuration: file.configuration,
        })
    }

    /// A prepared configuration as it will be in force; its files are still where they are staged.
    ///
    /// # Errors
    /// [`StoreError::UnknownToken`], [`StoreError::Io`], [`StoreError::Corrupted`].
    pub fn prepared(&self, token: &Token) -> Result<Active, StoreError> {
        let (dir, name) = self.staged(token)?;
        Self::read_active(&name, dir)
    }

    /// Keeps the editable copy in the history when committing this would overwrite what somebody edited in it.
    ///
    /// # Errors
    /// [`StoreError::UnknownToken`], [`StoreError::Io`]: it is where it was, and is not kept.
    pub fn keep_edited(&self, name: &ModuleName, token: &Token) -> Result<(), StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let (dir, _) = self.staged(token)?;
        let package = Package::from_folder(&dir).map_err(|source| archive_error(name, source))?;
        if self.edited_otherwise(name, &package).is_empty() {
            return Ok(());
        }
        let edited = self.editable_here(name)?;
        let history = self.module_dir(name).join("history");
        let (fresh, to) = (
            self.lib.join(format!(".new-{name}-{}", random())),
            history.join(format!("{}{EDITED}", time_name(unix_ms()))),
        );
        let kept = self.disk.make_dir(&history).and_then(|()| self.write_tree(&fresh, &edited));
        kept.and_then(|()| self.disk.rename(&fresh, &to)).map_err(StoreError::io("keeping what was edited in", &to))?;
        self.prune(name);
        Ok(())
    }

    /// Makes a prepared configuration the active one, and the editable copy the same.
    ///
    /// # Errors
    /// [`StoreError::UnknownToken`]; [`StoreError::Io`]: the old one is in force.
    pub fn commit(&self, token: &Token) -> Result<Active, StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        let (dir, name) = self.staged(token)?;
        let package = Package::from_folder(&dir).map_err(|source| archive_error(&name, source))?;
        let file: ModuleFile =
            serde_json::from_slice(&fs::read(dir.join("module.json")).map_err(StoreError::io("reading", &dir))?)
                .map_err(|error| StoreError::Corrupted {
                    name: name.clone(),
                    path: dir.clone(),
                    why: error.to_string(),
                })?;
        self.check_number(&name, file.id)?;
        self.write_number(&name, file.id)?;
        let active = self.module_dir(&name).join("active");
        let failed = |what| StoreError::io(what, &active);
        if active.exists() {
            self.disk.exchange(&dir, &active).map_err(failed("replacing"))?;
            // From here on the new one is in force. What was active is in `dir` now.
            self.keep(&name, dir);
        } else {
            self.disk.rename(&dir, &active).map_err(failed("naming"))?;
        }
        if let Err(error) = self.write_editable(&name, &package) {
            tracing::warn!(module = %name, %error, "the configuration is active; its editable copy on this node is older");
        }
        self.active(&name)
    }

    /// Drops a prepared configuration. One that is not there any more is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn abort(&self, token: &Token) -> Result<(), StoreError> {
        let _one = self.change.lock().expect("a panic aborts the process");
        match self.staged(token) {
            Ok((dir, _)) => self.disk.remove_tree(&dir).map_err(StoreError::io("dropping", &dir)),
            Err(_) => Ok(()),
        }
    }

    /// Where the last configurations of a module are, newest first.
    #[must_use]
    pub fn history(&self, name: &ModuleName) -> Vec<PathBuf> {
        let mut kept = entries(&self.module_dir(name).join("history"));
        kept.reverse();
        kept
    }

    fn staged(&self, token: &Token) -> Result<(PathBuf, ModuleName), StoreError> {
        let unknown = || StoreError::UnknownToken { token: token.0.clone() };
        // A token comes from the network: it must be a plain name before it is joined to a path.
        let plain = token.0.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || token.0.starts_with('.') || token.0.len() > 100 {
            return Err(unknown());
        }
        let dir = self.lib.join(".staging").join(&token.0);
        if !dir.join("module.json").is_file() {
            return Err(unknown());
        }
        let name = staged_name(&dir).ok_or_else(unknown)?;
        Ok((dir, name))
    }

    /// Files the replaced configuration away; a failure costs history, not the change.
    fn keep(&self, name: &ModuleName, old: PathBuf) {
        let history = self.module_dir(name).join("history");
        let to = history.join(time_name(unix_ms()));
        if let Err(error) = self.disk.make_dir(&history).and_then(|()| self.disk.rename(&old, &to)) {
            tracing::warn!(module = %name, %error, "the new configuration is active; the history of old ones could not be updated");
        }
        self.prune(name);
    }

    /// The last ones of each kind stay; what cannot be removed goes the next time.
    fn prune(&self, name: &ModuleName) {
        let (edited, active): (Vec<_>, Vec<_>) = self.history(name).into_iter().partition(|path| is_edited(path));
        for oldest in [edited, active].iter().flat_map(|all| all.iter().skip(HISTORY)) {
            if let Err(error) = self.disk.remove_tree(oldest) {
                tracing::warn!(module = %name, %error, "an old configuration stays in the history");
            }
        }
    }
}

/// The module a staging directory is for: its name without the random end.
fn staged_name(dir: &std::path::Path) -> Option<ModuleName> {
    super::store::file_name(dir).rsplit_once('-').and_then(|(name, _)| ModuleName::new(name).ok())
}
