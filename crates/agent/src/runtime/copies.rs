//! A module's copy on this node: the program that serves it, its covers, and what is released.

use super::agent::Agent;
use super::instance::{ModulePlaces, timing};
use super::plane::PlaneProgram;
use super::records::Records;
use crate::identity::number_dns_name;
use crate::modules::Active;
use model::api::{Code, LogLevel, Problem};
use model::orders::{Configuration, ORDERS_VERSION};
use model::{DataState, ModuleName, NodeName, Role};
use platform::mounts::Bare;
use std::path::Path;
use std::time::{Duration, Instant};

/// A data plane that was told to end has ended within this time.
const ENDING: Duration = Duration::from_secs(5);

pub(super) fn plane_program(
    agent: &Agent,
    active: &Active,
    places: &ModulePlaces,
    peer: &NodeName,
) -> Result<PlaneProgram, Problem> {
    let name = &active.name;
    let missing =
        || Problem::new(Code::Internal, format!("cannot run module {name}"), "its cluster or its <rfs> is gone");
    let cluster = agent.cluster.current().ok_or_else(missing)?;
    let rfs = active.configuration.rfs.as_ref().ok_or_else(missing)?;
    let files = crate::identity::IdentityFiles::of(&agent.places);
    let port = active.id.replication_port();
    let member = cluster.applied.member(peer);
    // The network marked as flow first, then the others in the order of cluster.xml.
    let flow = active.configuration.flow.as_deref();
    let addrs = |node: &NodeName, local: bool| -> Vec<String> {
        let mut found: Vec<_> = cluster.configuration.places_of(node).collect();
        found.sort_by_key(|(lan, _)| Some(*lan) != flow);
        let addr = |n: &crate::cluster_config::LanNode| if local { n.laddr.unwrap_or(n.addr) } else { n.addr };
        found.into_iter().map(|(_, n)| std::net::SocketAddr::new(addr(n), port).to_string()).collect()
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(PlaneProgram {
        socket: places.socket.clone(),
        log: places.var.join("mirrorfs.log"),
        cgroup: agent.plane_group(name).map(|group| group.path().join("cgroup.procs")),
        configuration: Configuration {
            version: ORDERS_VERSION,
            module: name.clone(),
            dirs: rfs.dirs.clone(),
            state_dir: text(&places.var.join("data")),
            quarantine_dir: text(&places.var.join("quarantine")),
            tls_ca: text(&files.ca),
            tls_cert: text(&files.certificate),
            tls_key: text(&files.key),
            peer_name: cluster.identity.dns_name_of(peer),
            peer_number: member.map(|it| number_dns_name(cluster.identity.cluster, it.id)).unwrap_or_default(),
            peer_addrs: addrs(peer, false),
            listen_addrs: addrs(&cluster.identity.name, true),
            ack: rfs.ack,
            sync: rfs.sync,
            resync_bytes_per_s: rfs.resync_bytes_per_s,
            silent_ms: timing(active).link_silence_ms(cluster.configuration.places_of(peer).count()),
            idle_poll: rfs.idle_poll,
        },
    })
}

/// Covers the module's directories read-only: nobody writes behind our back while this node does not serve.
pub(super) fn cover(active: &Active, places: &ModulePlaces, log: &impl Fn(LogLevel, &str)) {
    let bare = Bare::of(&places.var.join("data"));
    for dir in active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs) {
        let path = Path::new(&dir.path);
        // Before the record says that the module starts: its age tells since when the directory was bare.
        if let Err(error) = bare.note(path).and_then(|()| platform::mounts::cover(path)) {
            log(LogLevel::C, &crate::cluster_config::causes(&error));
        }
    }
}

/// Nothing of a module's data plane runs any more: what is left of one (of a stopped module, idle or stuck in its disk) could
/// cover a directory again that was given back.
pub(super) async fn end_plane(agent: &Agent, module: &ModuleName) {
    let Some(group) = agent.plane_group(module) else { return };
    let ended = tokio::task::spawn_blocking(move || group.end(Duration::ZERO, ENDING)).await;
    if let Ok(Err(error)) = ended {
        agent.warn(crate::cluster_config::causes(&error));
    }
}

/// A directory is everybody's again. A data plane that is still ending takes its own mount, above the cover, along.
///
/// # Errors
/// [`platform::mounts::MountError`].
pub(super) async fn give_back(path: &Path) -> Result<(), platform::mounts::MountError> {
    let until = Instant::now() + ENDING;
    loop {
        match platform::mounts::uncover(path) {
            Err(platform::mounts::MountError::Hidden { .. }) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Do all replicated directories hold nothing but what a new file system has?
#[must_use]
pub fn trees_empty(active: &Active) -> bool {
    let dirs = active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs);
    dirs.into_iter().all(|dir| match std::fs::read_dir(&dir.path) {
        Ok(mut entries) => entries.all(|e| e.is_ok_and(|e| e.file_name() == "lost+found")),
        // What cannot be looked at is not known to be empty: the data plane will say what is wrong.
        Err(_) => false,
    })
}

/// Takes the covers off and notes that anybody may have written since. Call while the module has no loop.
///
/// # Errors
/// A [`Problem`] that names the directory or the file.
pub fn release(active: &Active, places: &ModulePlaces) -> Result<(), Problem> {
    let what = format!("cannot release module {}", active.name);
    let failed = |why: String| Problem::new(Code::Internal, what.clone(), why);
    // First the note, durably: a crash in between must not forget that the tree was open.
    platform::store::write_atomic(&places.released(), b"", 0o600)
        .map_err(|e| failed(crate::cluster_config::causes(&e)))?;
    let (records, found) = Records::open(&places.var).map_err(|e| failed(crate::cluster_config::causes(&e)))?;
    let mut record = found.record;
    // What is written into the copy that served last is what its owner wants; into the other one, it is an accident.
    let served_last = matches!(record.role, Role::Alone | Role::Primary);
    if record.data == DataState::Full && !served_last {
        record.data = DataState::Crashed;
    }
    record.clean = false;
    record.released = true;
    record.map_since = None;
    records.write(&record).map_err(|e| failed(crate::cluster_config::causes(&e)))?;
    for dir in active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs) {
        platform::mounts::uncover(Path::new(&dir.path)).map_err(|e| failed(crate::cluster_config::causes(&e)))?;
    }
    Ok(())
}
