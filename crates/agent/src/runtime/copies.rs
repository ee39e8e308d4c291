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
use platform::mounts::{Bare, MountError};
use platform::process::cgroup::ModuleCgroup;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A data plane that was told to end has ended within this time.
const ENDING: Duration = Duration::from_secs(5);
/// One that has taken its mount away ends within this by itself.
const LEAVING: Duration = Duration::from_secs(1);
/// Looking at the directories themselves takes no longer, or is not waited for: a file system that hangs holds whoever enters it.
const LOOK: Duration = Duration::from_secs(5);
/// Whether the look before is over is seen so often.
const AGAIN: Duration = Duration::from_millis(20);

/// Directories that are being looked at: one look at a time, so that those that hang do not pile up.
static LOOKING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The replicated directories of a module.
#[must_use]
pub(super) fn dirs_of(active: &Active) -> Vec<PathBuf> {
    active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs).map(|dir| PathBuf::from(&dir.path)).collect()
}

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
            peer_certificate: member.and_then(|it| it.certificate.clone()).unwrap_or_default(),
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

/// Of a module that is no more: what its processes were in, and what its data plane was reached by. What will not end stays,
/// with its lock: no other may take its mounts for dead ones.
pub(super) fn forget(agent: &Agent, module: &ModuleName, places: &ModulePlaces) {
    let is_removed = |group: ModuleCgroup| {
        group.remove().inspect_err(|error| agent.warn(crate::cluster_config::causes(error))).is_ok()
    };
    agent.application_group(module).map(is_removed);
    if agent.plane_group(module).is_some_and(is_removed) {
        for left in [&places.socket, &places.socket.with_extension("lock")] {
            // Gone at the next boot anyway.
            let _ = std::fs::remove_file(left);
        }
    }
}

/// A directory is everybody's again; call when nothing of its data plane runs any more. What such a one had mounted goes too:
/// one that was killed leaves its mount to whoever comes.
///
/// # Errors
/// [`platform::mounts::MountError`].
pub(super) async fn give_back(path: &Path) -> Result<(), platform::mounts::MountError> {
    let until = Instant::now() + ENDING;
    loop {
        let dead = path.to_path_buf();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || platform::mounts::remove_dead(&dead)).await {
            tracing::warn!(%error, "a dead mount stays");
        }
        match platform::mounts::uncover(path) {
            Err(platform::mounts::MountError::Hidden { .. }) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

/// One look at directories, until it is over.
struct Looking(PathBuf);

impl Looking {
    /// `None`: the look before has not come back.
    fn begin(dirs: &[PathBuf]) -> Option<Self> {
        let first = dirs.first()?.clone();
        let is_first = LOOKING.lock().unwrap_or_else(PoisonError::into_inner).insert(first.clone());
        is_first.then_some(Self(first))
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Looks at the directories from a thread that is left behind when it hangs. `None`: it has not come back, or the one before.
async fn look<T: Send + 'static>(dirs: Vec<PathBuf>, with: impl FnOnce(&[PathBuf]) -> T + Send + 'static) -> Option<T> {
    let looked = async {
        let looking = loop {
            match Looking::begin(&dirs) {
                Some(looking) => break looking,
                None => tokio::time::sleep(AGAIN).await,
            }
        };
        let look = move || {
            let found = with(&dirs);
            drop(looking);
            found
        };
        tokio::task::spawn_blocking(look).await.ok()
    };
    timeout(LOOK, looked).await.ok()?
}

/// Do all replicated directories hold nothing but what a new file system has? What cannot be looked at is not known to be
/// empty: the data plane will say what is wrong.
pub(super) async fn trees_empty(dirs: Vec<PathBuf>) -> bool {
    dirs.is_empty() || look(dirs, |dirs| dirs.iter().all(|dir| is_empty(dir))).await.unwrap_or(false)
}

fn is_empty(dir: &Path) -> bool {
    // Whoever enters the mount of a data plane that hangs, hangs with it; and what one serves is none of this node's looks.
    if platform::mounts::is_served(dir).unwrap_or(true) {
        return false;
    }
    // What a link on the way leads to is not the copy.
    match platform::mounts::open_real("look into", dir) {
        Ok(real) => std::fs::read_dir(format!("/proc/self/fd/{}", real.as_raw_fd()))
            .is_ok_and(|mut entries| entries.all(|e| e.is_ok_and(|e| e.file_name() == "lost+found"))),
        // One that is not there holds nothing that could be overwritten; to serve it is another matter.
        Err(MountError::Os { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
        Err(_) => false,
    }
}

/// Why these directories cannot be served, if so: the first of them that is none.
pub(super) async fn missing(dirs: Vec<PathBuf>) -> Option<(PathBuf, &'static str)> {
    let first = dirs.first()?.clone();
    let is_none = |dir: &&PathBuf| !platform::mounts::is_served(dir).unwrap_or(false) && !dir.is_dir();
    match look(dirs, move |dirs| dirs.iter().find(is_none).cloned()).await {
        Some(found) => found.map(|dir| (dir, "is not a directory on this node")),
        None => Some((first, "does not answer: its file system hangs")),
    }
}

/// The first of these directories that is, or is reached through, a symbolic link, and the directory that it leads to: a start refuses it, since
/// whoever owns the link could lead anywhere. What cannot be looked at now says nothing.
pub(super) async fn by_a_link(dirs: Vec<PathBuf>) -> Option<(PathBuf, PathBuf)> {
    let found = |dir: &PathBuf| {
        let is_link = |part: &Path| part.symlink_metadata().is_ok_and(|it| it.is_symlink());
        // A slash at its end would lead through a link that it names.
        let plain: PathBuf = dir.components().collect();
        let real = plain.ancestors().any(is_link).then(|| dir.canonicalize().ok())??;
        Some((dir.clone(), real))
    };
    dirs.first()?;
    look(dirs, move |dirs| dirs.iter().find_map(found)).await?
}

/// The first of these directories that is one with a directory of another module, by a mount: theirs, and whose. What cannot be looked at now says
/// nothing.
pub(super) async fn by_a_mount(
    dirs: Vec<PathBuf>,
    others: Vec<(ModuleName, PathBuf)>,
) -> Option<(PathBuf, ModuleName, PathBuf)> {
    dirs.first()?;
    others.first()?;
    look(dirs, move |dirs| {
        let mounts = platform::mounts::list().ok()?;
        dirs.iter().find_map(|dir| {
            let is_one = |other: &&(ModuleName, PathBuf)| platform::mounts::share_a_place(&mounts, dir, &other.1);
            let (module, there) = others.iter().find(is_one)?;
            Some((dir.clone(), module.clone(), there.clone()))
        })
    })
    .await?
}

/// Ends what lives of a data plane that nobody has adopted (it does not answer, or its module is not to run) before anybody
/// looks at the directories: whoever enters the mount of one that hangs, hangs with it. True: there was one.
///
/// # Errors
/// What stays of it: its mount is still there.
pub(super) async fn end_left(group: Option<ModuleCgroup>, dirs: Vec<PathBuf>) -> Result<bool, String> {
    let end = move || {
        let lives = group.as_ref().is_some_and(|group| !group.is_empty().unwrap_or(true));
        let served = |dir: &&PathBuf| platform::mounts::is_served(dir).unwrap_or(false);
        if !dirs.iter().any(|dir| served(&dir)) {
            // Without a mount it was told to end, most likely: it may be at it.
            let has_left = |group: &ModuleCgroup| group.wait_empty(LEAVING).is_ok();
            if !lives || group.as_ref().is_some_and(has_left) {
                return Ok(false);
            }
        }
        // One that is stuck in the kernel does not end; its mounts go all the same.
        let ended = group.map_or(Ok(false), |group| group.end(Duration::ZERO, ENDING));
        for dir in &dirs {
            platform::mounts::remove_dead(dir).map_err(|error| crate::cluster_config::causes(&error))?;
        }
        if let Err(error) = ended {
            tracing::error!(error = %crate::cluster_config::causes(&error), "a data plane that was killed does not end");
        }
        Ok(true)
    };
    match timeout(LEAVING + ENDING + LOOK, tokio::task::spawn_blocking(end)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its mount does not go".to_string()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

    /// Mounted, and nobody will ever answer: as a data plane that is stopped, or stuck in its disk.
    fn hung(dir: &Path) -> std::fs::File {
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").expect("this kernel has FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let options = std::ffi::CString::new(options).expect("no NUL");
        mount("stead:test", dir, platform::mounts::FSTYPE, MountFlags::empty(), &*options).expect("mounted");
        device
    }

    #[tokio::test]
    async fn a_directory_that_a_link_leads_to_is_told_by_its_own_name() {
        let base = tempfile::tempdir().expect("a directory");
        let real = base.path().canonicalize().expect("real").join("real");
        std::fs::create_dir_all(real.join("data")).expect("made");
        let link = real.parent().expect("one").join("link");
        std::os::unix::fs::symlink("real", &link).expect("made");
        assert_eq!(by_a_link(vec![real.join("data"), real.join("not there")]).await, None);
        // Without any there is nothing to wait for.
        assert_eq!(tokio::time::timeout(LOOK / 2, by_a_link(Vec::new())).await.expect("at once"), None);
        for inside in ["data", ""] {
            let found = by_a_link(vec![real.clone(), link.join(inside)]).await.expect("a link");
            assert_eq!(found.1, if inside.is_empty() { real.clone() } else { real.join(inside) });
        }
    }

    #[tokio::test]
    async fn a_link_on_the_way_leads_to_no_copy() {
        let base = tempfile::tempdir().expect("a directory");
        let real = base.path().canonicalize().expect("real");
        std::fs::create_dir_all(real.join("app/data")).expect("made");
        std::fs::create_dir_all(real.join("decoy/data")).expect("made");
        std::fs::write(real.join("app/data/file"), b"x").expect("written");
        let dir = real.join("app/data");
        assert!(!trees_empty(vec![dir.clone()]).await);
        std::fs::rename(real.join("app"), real.join("aside")).expect("its owner may");
        assert!(trees_empty(vec![dir.clone()]).await, "there is none");
        std::os::unix::fs::symlink("decoy", real.join("app")).expect("its owner may");
        assert!(!trees_empty(vec![dir]).await, "what it leads to is empty, and is not the copy");
    }

    /// In a mount namespace of its own: nothing can remain.
    #[test]
    fn nobody_enters_the_mount_of_a_data_plane_that_hangs_and_it_ends_before_anybody_looks() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = base.path().join("data");
        std::fs::create_dir(&dir).expect("made");
        let played = std::thread::spawn(move || {
            // SAFETY: only this thread (and those it starts) leaves the shared namespace.
            unsafe {
                rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS)
            }
            .expect("tests of mounts need root");
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private");
            let _device = hung(&dir);
            let dirs = || vec![dir.clone()];
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                assert!(!trees_empty(dirs()).await, "what cannot be looked at is not known to be empty");
                assert_eq!(missing(dirs()).await, None);
                assert!(LOOKING.lock().expect("no panic").is_empty(), "somebody hangs in it");
                assert_eq!(end_left(None, dirs()).await, Ok(true));
                assert_eq!(platform::mounts::is_served(&dir).ok(), Some(false));
                assert!(trees_empty(dirs()).await);
                assert_eq!(end_left(None, dirs()).await, Ok(false));
            });
            // A look that hangs holds nobody.
            runtime.shutdown_background();
        })
        .join();
        assert!(played.is_ok());
    }
}
