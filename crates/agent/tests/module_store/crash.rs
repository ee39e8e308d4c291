//! The power goes at every single step of every change: after the reboot, old or new, never half.

use crate::{archive, configure, name, store_in, temporary, version_in};
use agent::modules::disk::{Disk, RealDisk};
use agent::modules::{Around, Store};
use model::ids::ModuleId;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Works until its steps are used up; that last step happens by half, and nothing after it.
struct PowerCut {
    left: AtomicUsize,
}

enum Step {
    Whole,
    Half,
    Dark,
}

impl PowerCut {
    fn step(&self) -> Step {
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(1) => Step::Half,
            Ok(_) => Step::Whole,
            Err(_) => Step::Dark,
        }
    }
}

fn dark<T>() -> io::Result<T> {
    Err(io::Error::other("the power is off"))
}

impl Disk for PowerCut {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        match self.step() {
            Step::Whole => RealDisk.make_dir(path),
            Step::Half => {
                if let Some(parent) = path.parent() {
                    RealDisk.make_dir(parent)?;
                }
                dark()
            }
            Step::Dark => dark(),
        }
    }
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        match self.step() {
            Step::Whole => RealDisk.write_new(path, bytes, mode),
            Step::Half => {
                RealDisk.write_new(path, &bytes[..bytes.len() / 2], mode)?;
                dark()
            }
            Step::Dark => dark(),
        }
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.step() {
            Step::Whole => RealDisk.rename(from, to),
            // A rename has no half: done, and the caller never hears of it.
            Step::Half => {
                RealDisk.rename(from, to)?;
                dark()
            }
            Step::Dark => dark(),
        }
    }
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        match self.step() {
            Step::Whole => RealDisk.exchange(one, other),
            Step::Half => {
                RealDisk.exchange(one, other)?;
                dark()
            }
            Step::Dark => dark(),
        }
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self.step() {
            Step::Whole => RealDisk.remove_tree(path),
            Step::Half => {
                let _ = std::fs::remove_file(path.join("conf/userconfig.xml"));
                dark()
            }
            Step::Dark => dark(),
        }
    }
}

/// Prepares a node, changes it with `steps` left, reboots, and hands it to `after`, for every number of steps until
/// the change goes through. Returns how many that were.
fn at_every_step(
    before: impl Fn(&Store, &Path),
    change: impl Fn(&Store, &Path) -> bool,
    after: impl Fn(&Store, &Path, bool),
) -> usize {
    for steps in 1..500 {
        let root = temporary();
        before(&store_in(root.path()), root.path());
        let cut = Arc::new(PowerCut { left: AtomicUsize::new(steps) });
        let dying = Store::with_disk(
            root.path().join("etc/modules"),
            root.path().join("lib/modules"),
            Arc::clone(&cut) as Arc<dyn Disk>,
        );
        let done = change(&dying, root.path());
        let rebooted = store_in(root.path());
        rebooted.recover().expect("recovered");
        let dirs = [root.path().join("etc/modules"), root.path().join("lib/modules")];
        let left: Vec<String> = dirs
            .iter()
            .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with(".new-") || name == ".staging")
            .collect();
        assert!(left.is_empty(), "recover clears {left:?}");
        after(&rebooted, root.path(), done);
        // Through, and with power to spare: every step has been cut.
        if cut.left.load(Ordering::SeqCst) > 0 {
            assert!(done, "with power to spare, the change goes through");
            return steps;
        }
    }
    panic!("the change never went through");
}

#[test]
fn install_is_all_or_nothing() {
    let app = name("app");
    let steps = at_every_step(
        |_, _| {},
        |store, root| store.install(&app, &archive(root, "10.0.0.1", "one"), ModuleId(1), false).is_ok(),
        |store, root, done| {
            let found = version_in(&store.editable_dir(&app));
            assert!(found.is_none() || found.as_deref() == Some("one"));
            assert_eq!(store.editable_dir(&app).exists(), found.is_some(), "there is no half directory");
            if done {
                assert_eq!(found.as_deref(), Some("one"));
            }
            store.install(&app, &archive(root, "10.0.0.1", "two"), ModuleId(1), true).expect("a second try works");
            assert_eq!(version_in(&store.editable_dir(&app)).as_deref(), Some("two"));
        },
    );
    assert!(steps > 8, "{steps} steps");
}

#[test]
fn a_forced_install_leaves_old_or_new() {
    let app = name("app");
    at_every_step(
        |store, root| {
            store.install(&app, &archive(root, "10.0.0.1", "old"), ModuleId(1), false).expect("installed");
        },
        |store, root| store.install(&app, &archive(root, "10.0.0.1", "new"), ModuleId(1), true).is_ok(),
        |store, _, done| {
            let found = version_in(&store.editable_dir(&app)).expect("one of both");
            assert!(found == "new" || !done && found == "old", "{found}");
            assert_eq!(store.list().len(), 1);
        },
    );
}

#[test]
fn a_commit_leaves_old_or_new() {
    let app = name("app");
    let steps = at_every_step(
        |store, root| {
            store.install(&app, &archive(root, "10.0.0.1", "old"), ModuleId(1), false).expect("installed");
            configure(store, "app", &archive(root, "10.0.0.1", "old"), 1);
        },
        |store, root| {
            let new = archive(root, "10.0.0.2", "new");
            store
                .prepare(&app, &new, ModuleId(1), Around::default())
                .is_ok_and(|prepared| store.commit(&prepared.token).is_ok())
        },
        |store, root, done| {
            let active = store.active(&app).expect("old or new, and readable");
            let found = version_in(&active.dir).expect("one of both");
            assert!(found == "new" || !done && found == "old", "{found}");
            let vip = active.configuration.vips[0].addr.to_string();
            assert_eq!(
                vip,
                if found == "new" { "10.0.0.2" } else { "10.0.0.1" },
                "configuration and scripts belong together"
            );
            assert!(version_in(&store.editable_dir(&app)).is_some());
            configure(store, "app", &archive(root, "10.0.0.3", "third"), 1);
            assert_eq!(version_in(&store.active(&app).expect("active").dir).as_deref(), Some("third"));
        },
    );
    assert!(steps > 10, "{steps} steps");
}

#[test]
fn a_first_commit_is_all_or_nothing() {
    let app = name("app");
    at_every_step(
        |_, _| {},
        |store, root| {
            let new = archive(root, "10.0.0.2", "new");
            store
                .prepare(&app, &new, ModuleId(7), Around::default())
                .is_ok_and(|prepared| store.commit(&prepared.token).is_ok())
        },
        |store, _, done| match store.active(&app) {
            Ok(active) => {
                assert_eq!(version_in(&active.dir).as_deref(), Some("new"));
                assert_eq!(active.id, ModuleId(7));
            }
            Err(error) => assert!(!done, "{error}"),
        },
    );
}

#[test]
fn an_uninstall_can_be_finished() {
    let app = name("app");
    at_every_step(
        |store, root| {
            store.install(&app, &archive(root, "10.0.0.1", "old"), ModuleId(1), false).expect("installed");
            configure(store, "app", &archive(root, "10.0.0.1", "old"), 1);
        },
        |store, _| store.uninstall(&app, false).is_ok(),
        |store, _, done| {
            if done {
                assert!(store.list().is_empty());
                return;
            }
            if let Ok(active) = store.active(&app) {
                assert_eq!(version_in(&active.dir).as_deref(), Some("old"));
            }
            if !store.list().is_empty() {
                store.uninstall(&app, false).expect("a second try works");
            }
            assert!(store.list().is_empty());
        },
    );
}

#[test]
fn macros_change_whole_or_not() {
    let app = name("app");
    at_every_step(
        |store, root| {
            store.install(&app, &archive(root, "10.0.0.1", "old"), ModuleId(1), false).expect("installed");
        },
        |store, _| store.set_macros(&app, &[("VIP".into(), "10.0.0.7".into())]).is_ok(),
        |store, _, done| {
            assert_eq!(version_in(&store.editable_dir(&app)).as_deref(), Some("old"));
            let value = store.macros(&app).expect("readable")[0].value.clone();
            assert!(value == "10.0.0.7" || !done && value == "10.0.0.1", "{value}");
        },
    );
}
