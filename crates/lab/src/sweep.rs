//! Taking away what is left of a lab, whatever state it is in: used by every `down`, by a failed `up`, and by the
//! next `up` after a crash. Needs nothing but the lab's name.

use crate::error::Context;
use crate::place::{BASE, Place};
use crate::{LabError, cgroup, fuse, loopdev, wait};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// How long the killed may wait for a FUSE answer before the connection is aborted.
const PATIENCE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(5);

/// Ends every process of the lab and removes everything it had. The caller holds the lab's lock.
pub fn sweep(name: &str) -> Result<(), LabError> {
    let place = Place::new(name);
    processes(name)?;
    disks(place.dir())?;
    let lab = cgroup::lab(name)?;
    cgroup::remove(&lab, LIMIT)?;
    // The parents are shared by all labs: they go with the last.
    let _ = lab.parent().map(std::fs::remove_dir);
    match std::fs::remove_dir_all(place.dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).what(|| format!("cannot remove {}", place.dir().display()))?;
        }
        _ => {}
    }
    let _ = std::fs::remove_dir(BASE);
    Ok(())
}

fn processes(name: &str) -> Result<(), LabError> {
    let lab = cgroup::lab(name)?;
    let living = cgroup::processes(&lab);
    if living.is_empty() {
        return Ok(());
    }
    let connections: BTreeSet<u32> = living.iter().flat_map(|pid| fuse::connections(*pid)).collect();
    // What the machine itself has mounted is none of ours.
    let connections = &connections - &fuse::connections(own_pid());
    cgroup::kill(&lab);
    let gone = || !cgroup::is_populated(&lab);
    if !wait::until(PATIENCE, gone) {
        fuse::abort(&connections);
        if !wait::until(LIMIT, gone) {
            return Err(LabError::Deadline {
                what: format!("processes of the lab '{name}' do not end: {:?}", cgroup::processes(&lab)),
                limit: LIMIT,
            });
        }
    }
    Ok(())
}

fn disks(dir: &Path) -> Result<(), LabError> {
    // Autoclear takes them with the last mount; a device that never was mounted needs to be asked.
    if wait::until(Duration::from_secs(2), || loopdev::below(dir).is_empty()) {
        return Ok(());
    }
    loopdev::below(dir).into_iter().for_each(loopdev::detach);
    if wait::until(LIMIT, || loopdev::below(dir).is_empty()) {
        return Ok(());
    }
    Err(LabError::Deadline {
        what: format!("loop devices {:?} with images in {} stay busy", loopdev::below(dir), dir.display()),
        limit: LIMIT,
    })
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}
