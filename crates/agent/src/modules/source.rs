//! What a person names after `stead module install`: a delivered module, a `.safe` file, or a folder.
//!
//! Runs where the person is (the command line); what it makes travels to the nodes as one archive.

use super::delivered;
use super::package::{ARCHIVE_BYTES_MAX, Package, PackageError};
use model::ids::{ModuleName, NameError};
use model::schema::suggest;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A module ready to be sent to the nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// AM: the folder's, the archive's, or the delivered module's name.
    pub name: ModuleName,
    /// The bytes of a `.safe`.
    pub archive: Vec<u8>,
    /// What was left out and what looks odd, one sentence each.
    pub notes: Vec<String>,
}

/// Why nothing could be staged. Nothing was changed anywhere.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No delivered module has this name.
    #[error("'{name}' is neither a delivered module ({delivered}) nor a path{}", .near.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    Unknown {
        /// What was named.
        name: String,
        /// What there is.
        delivered: String,
        /// The nearest.
        near: Option<String>,
    },
    /// The folder or archive has a name no module can have.
    #[error("{path}: {source}; rename it: the name becomes the module's name")]
    Name {
        /// What was named.
        path: String,
        /// The rule.
        source: NameError,
    },
    /// It is not a module.
    #[error("{path} is not installed: {source} ({})", .source.help())]
    Package {
        /// What was named.
        path: String,
        /// Why.
        source: PackageError,
    },
}

/// Reads what `named` names. With a slash or `.safe` (or `.zip`) at its end it is a path; otherwise a delivered
/// module, else a folder here. `shared` is [`delivered::SHARED`].
///
/// # Errors
/// As [`SourceError`] says.
pub fn stage(named: &str, shared: &Path) -> Result<Staged, SourceError> {
    let path = Path::new(named);
    let archive = [".safe", ".zip"].iter().any(|end| named.ends_with(end));
    let wrong = |source| SourceError::Package { path: named.into(), source };
    if archive && !path.is_dir() {
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let name = ModuleName::new(stem).map_err(|source| SourceError::Name { path: named.into(), source })?;
        let bytes = read_archive(path).map_err(wrong)?;
        let package = Package::from_archive(&bytes).map_err(wrong)?;
        return staged(name, &package).map_err(wrong);
    }
    if !named.contains('/') && !path.starts_with(".") {
        if let Some(package) = delivered::find(named, shared).map_err(wrong)? {
            let name = ModuleName::new(named).map_err(|source| SourceError::Name { path: named.into(), source })?;
            return staged(name, &package).map_err(wrong);
        }
        if !path.is_dir() {
            let names = delivered::names(shared);
            let names = || names.iter().map(String::as_str);
            let near = suggest::nearest(named, names()).map(str::to_string);
            return Err(SourceError::Unknown { name: named.into(), delivered: suggest::listed(names()), near });
        }
    }
    // `.` and `DIR/..` have a name too: that of the folder they are.
    let folder = path.canonicalize().map_err(|source| wrong(PackageError::Io { path: path.into(), source }))?;
    let last = folder.file_name().and_then(|s| s.to_str()).unwrap_or_default();
    let name = ModuleName::new(last).map_err(|source| SourceError::Name { path: named.into(), source })?;
    staged(name, &Package::from_folder(&folder).map_err(wrong)?).map_err(wrong)
}

fn staged(name: ModuleName, package: &Package) -> Result<Staged, PackageError> {
    Ok(Staged { archive: package.to_archive(name.as_str())?, name, notes: package.notes.clone() })
}

fn read_archive(path: &Path) -> Result<Vec<u8>, PackageError> {
    let failed = |source: io::Error| PackageError::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(ARCHIVE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
