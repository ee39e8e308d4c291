//! What a package would change of what is in force, and what was in force before.

use super::error::StoreError;
use super::package::{ADDRESSES, Package, USERCONFIG};
use super::store::{ModuleFile, Store, archive_error};
use super::two_phase::is_edited;
use crate::configuration;
use model::api::PastConfiguration;
use model::ids::ModuleName;
use model::schema::plan::{self, Change};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

impl Store {
    /// What the package changes of what is in force here, part by part; `None`: nothing is in force.
    ///
    /// # Errors
    /// What is in force cannot be read.
    pub fn plan(&self, name: &ModuleName, package: &Package) -> Result<Option<Vec<Change>>, StoreError> {
        let active = match self.active(name) {
            Ok(active) => active,
            Err(StoreError::NotConfigured { .. } | StoreError::NotInstalled { .. } | StoreError::Lost { .. }) => {
                return Ok(None);
            }
            // Applying it again is what mends it; the files it was made of are there, most likely.
            Err(StoreError::Corrupted { .. } | StoreError::Io { .. }) => {
                let old = Package::from_folder(&self.module_dir(name).join("active")).ok();
                return Ok(old.map(|old| differences(&old, package)));
            }
            Err(error) => return Err(error),
        };
        let old = Package::from_folder(&active.dir).map_err(|source| archive_error(name, source))?;
        Ok(Some(differences(&old, package)))
    }

    /// Whether the package, file by file, is what is in force here and what can be edited here.
    #[must_use]
    pub fn is_in_force(&self, name: &ModuleName, package: &Package) -> bool {
        let same = |there: Result<Package, StoreError>| there.is_ok_and(|there| there.has_files_of(package));
        same(self.active_package(name)) && same(self.editable_here(name))
    }

    /// Files of the editable copy here that somebody edited since this program wrote it, and that the package has otherwise: who
    /// applies it overwrites them.
    #[must_use]
    pub fn edited_otherwise(&self, name: &ModuleName, package: &Package) -> Vec<String> {
        let Ok(edited) = self.editable_here(name) else { return Vec::new() };
        // One that an older version wrote is what was in force then.
        let written = self.noted(name).or_else(|| self.active_package(name).ok().map(|active| digests(&active)));
        let Some(written) = written else { return Vec::new() };
        let (edited, package) = (digests(&edited), digests(package));
        let mut paths: Vec<&String> = edited.keys().chain(written.keys()).collect();
        paths.sort();
        paths.dedup();
        let is_lost =
            |path: &&String| edited.get(*path) != written.get(*path) && edited.get(*path) != package.get(*path);
        paths.into_iter().filter(is_lost).cloned().collect()
    }

    /// Configurations that were in force before, and copies that were edited and overwritten; the last one first.
    #[must_use]
    pub fn past(&self, name: &ModuleName) -> Vec<PastConfiguration> {
        let read = |path: &Path| -> Option<ModuleFile> {
            serde_json::from_slice(&fs::read(path.join("module.json")).ok()?).ok()
        };
        (1..)
            .zip(self.history(name))
            .filter_map(|(number, path)| {
                if is_edited(&path) {
                    let kept = fs::metadata(&path).and_then(|it| it.modified()).ok();
                    let kept = kept.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
                    let applied_unix_ms = u64::try_from(kept.as_millis()).unwrap_or(0);
                    return Some(PastConfiguration { number, signature: String::new(), applied_unix_ms, edited: true });
                }
                let file = read(&path)?;
                let (signature, applied_unix_ms) = (file.signature.0, file.applied_unix_ms);
                Some(PastConfiguration { number, signature, applied_unix_ms, edited: false })
            })
            .collect()
    }

    /// One of them as a package: 1 is the last one.
    ///
    /// # Errors
    /// [`StoreError::NoPast`]; its files cannot be read.
    pub fn past_package(&self, name: &ModuleName, number: u32) -> Result<Package, StoreError> {
        let kept = self.history(name);
        let path = usize::try_from(number)
            .ok()
            .and_then(|number| kept.get(number.checked_sub(1)?))
            .ok_or_else(|| StoreError::NoPast { name: name.clone(), number, kept: kept.len() })?;
        Package::from_folder(path).map_err(|source| archive_error(name, source))
    }

    /// What is in force here, as a package.
    ///
    /// # Errors
    /// Nothing is in force, or its files cannot be read.
    pub fn active_package(&self, name: &ModuleName) -> Result<Package, StoreError> {
        let dir = self.active(name)?.dir;
        Package::from_folder(&dir).map_err(|source| archive_error(name, source))
    }
}

/// By which files are compared with what they were; what host names stand for is nobody's edit.
pub(super) fn digests(package: &Package) -> BTreeMap<String, String> {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    package.files().filter(|(path, _)| *path != ADDRESSES).map(|(p, b)| (p.to_string(), digest(b))).collect()
}

/// What one package changes of another, part by part.
#[must_use]
pub fn differences(old: &Package, new: &Package) -> Vec<Change> {
    let expanded = |package: &Package| configuration::expanded(package.userconfig(), &package.names());
    let mut found = match (expanded(old), expanded(new)) {
        (Some(old), Some(new)) => plan::changes(&old, &new),
        // What is in force was accepted once; a new stead may not be able to read it any more.
        _ => vec![Change { path: USERCONFIG.into(), what: "cannot be compared".into(), needs_stop: true }],
    };
    let files = |package: &Package| -> BTreeMap<String, Vec<u8>> {
        package
            .files()
            .filter(|(p, _)| *p != USERCONFIG && *p != ADDRESSES)
            .map(|(p, b)| (p.to_string(), b.to_vec()))
            .collect()
    };
    let (was, is) = (files(old), files(new));
    // A script that stops what another version started: files change only while nothing runs.
    let mut file = |path: &str, what: &str| {
        found.push(Change { path: path.to_string(), what: what.to_string(), needs_stop: true });
    };
    was.keys().filter(|path| !is.contains_key(*path)).for_each(|path| file(path, "removed"));
    for (path, bytes) in &is {
        match was.get(path) {
            None => file(path, "added"),
            Some(before) if before != bytes => file(path, "changed"),
            Some(_) => {}
        }
    }
    found
}
