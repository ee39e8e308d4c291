//! Who could have written what we are about to run as root?

use super::ScriptError;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// May this be run as root? `false`: there is no such script.
///
/// # Errors
/// [`ScriptError::Unsafe`]: others than root decide what it does; it cannot be looked at.
pub fn check(script: &Path) -> Result<bool, ScriptError> {
    let refuse = |path: &Path, why, remedy: String| Err(ScriptError::Unsafe { path: path.into(), why, remedy });
    if !script.is_absolute() {
        return refuse(script, "its path is not absolute", "give the whole path".into());
    }
    let found = match std::fs::symlink_metadata(script) {
        Ok(found) => found,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(false),
        Err(source) => return Err(ScriptError::Spawn { path: script.into(), cwd: PathBuf::new(), source }),
    };
    let name = script.display();
    if found.is_symlink() {
        return refuse(
            script,
            "it is a symbolic link",
            format!("put the script itself there: cp --remove-destination \"$(readlink -f {name})\" {name}"),
        );
    }
    if !found.is_file() {
        return refuse(script, "it is not a file", format!("remove it: {name}"));
    }
    let directory = script.parent().unwrap_or(Path::new("/"));
    let around = std::fs::metadata(directory).map_err(|source| ScriptError::Spawn {
        path: directory.into(),
        cwd: PathBuf::new(),
        source,
    })?;
    for (path, of) in [(script, &found), (directory, &around)] {
        if of.uid() != 0 {
            return refuse(path, "it does not belong to root", format!("chown root: {}", path.display()));
        }
        // A sticky directory (like /tmp) lets others add, not replace.
        if of.permissions().mode() & 0o022 != 0 && !(of.is_dir() && of.permissions().mode() & 0o1000 != 0) {
            return refuse(path, "others than root may change it", format!("chmod go-w {}", path.display()));
        }
    }
    if found.permissions().mode() & 0o111 == 0 {
        return refuse(script, "it is not executable", format!("chmod +x {name}"));
    }
    Ok(true)
}
