//! What a module's scripts find in their environment.

use super::store::Active;
use std::path::Path;

/// The variables of every script of this module, on top of a clean environment: SafeKit's names, `PATH`, and
/// the `<var>`s. `run_dir` is a directory of the module's own under `/run`. What a module
/// keeps in `SAFEUSERVAR` outlives a reboot, what it keeps in `SAFEUSERRUN` does not.
#[must_use]
pub fn script_environment(active: &Active, run_dir: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    // Where `safekit` and the helpers are; /run/stead/modules/AM → /run/stead/bin.
    let bin = run_dir.ancestors().nth(2).unwrap_or(Path::new("/run/stead")).join("bin");
    let mut variables = vec![
        ("SAFE".to_string(), text(&bin)),
        ("SAFEMODULE".to_string(), active.name.to_string()),
        ("SAFEBIN".to_string(), text(&bin)),
        ("SAFEUSERBIN".to_string(), text(&active.bin_dir())),
        ("SAFEUSERCONF".to_string(), text(&active.conf_dir())),
        ("SAFEVAR".to_string(), text(active.dir.ancestors().nth(3).unwrap_or(Path::new("/var/lib/stead")))),
        ("SAFEUSERVAR".to_string(), text(&user_var(active))),
        ("SAFEUSERRUN".to_string(), text(run_dir)),
        ("PATH".to_string(), format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display())),
        ("LANG".to_string(), "C.UTF-8".to_string()),
    ];
    for variable in active.configuration.user.iter().flat_map(|user| &user.variables) {
        variables.retain(|(name, _)| *name != variable.name);
        variables.push((variable.name.clone(), variable.value.clone()));
    }
    variables
}

/// Where the module keeps its own files.
#[must_use]
pub fn user_var(active: &Active) -> std::path::PathBuf {
    active.dir.parent().unwrap_or(Path::new("/var/lib/stead/modules")).join("uservar")
}
