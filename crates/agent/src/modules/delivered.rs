//! The modules that come with Stead: in `/usr/share/stead/modules` when a package put them there, else in
//! this binary, so that `stead module install postgresql` works from anywhere.

use super::package::{Entry, Package, PackageError};
use std::collections::BTreeMap;
use std::path::Path;

/// Where a package installs them; an administrator may change them there.
pub const SHARED: &str = "/usr/share/stead/modules";

type Embedded = (&'static str, &'static [(&'static str, &'static [u8])]);
static EMBEDDED: &[Embedded] = include!(concat!(env!("OUT_DIR"), "/delivered.rs"));

/// Names of all delivered modules, sorted.
#[must_use]
pub fn names(shared: &Path) -> Vec<String> {
    let mut names: Vec<String> = EMBEDDED.iter().map(|(name, _)| (*name).to_string()).collect();
    if let Ok(folders) = std::fs::read_dir(shared) {
        let on_disk = folders.flatten().filter(|e| e.path().join("conf/userconfig.xml").is_file());
        names.extend(on_disk.filter_map(|e| e.file_name().into_string().ok()));
    }
    names.sort();
    names.dedup();
    names
}

/// The module of that name; `None` when none is delivered.
///
/// # Errors
/// The folder in `shared` exists and is no module.
pub fn find(name: &str, shared: &Path) -> Result<Option<Package>, PackageError> {
    let folder = shared.join(name);
    if folder.join("conf/userconfig.xml").is_file() {
        return Package::from_folder(&folder).map(Some);
    }
    let Some((_, files)) = EMBEDDED.iter().find(|(known, _)| *known == name) else { return Ok(None) };
    let entry = |bytes: &&'static [u8]| Entry { bytes: bytes.to_vec(), is_private: false };
    let entries: BTreeMap<String, Entry> =
        files.iter().map(|(path, bytes)| ((*path).to_string(), entry(bytes))).collect();
    Package::from_entries(entries).map(Some)
}
