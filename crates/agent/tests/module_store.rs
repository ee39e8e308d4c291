//! The module store's promises: all or nothing, whatever moment the power goes; no archive escapes its directory.

#[path = "module_store/crash.rs"]
mod crash;
#[path = "module_store/hostile.rs"]
mod hostile;
#[path = "module_store/store.rs"]
mod store;

use agent::modules::{Around, Package, Store};
use model::ids::{ModuleId, ModuleName};
use std::path::Path;
use tempfile::TempDir;

fn name(text: &str) -> ModuleName {
    ModuleName::new(text).expect("valid")
}

fn store_in(root: &Path) -> Store {
    Store::new(root.join("etc/modules"), root.join("lib/modules"))
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A module with one VIP and one script that says which version it is.
fn module(root: &Path, vip: &str, version: &str) -> Package {
    let folder = root.join(format!("source-{version}"));
    std::fs::create_dir_all(folder.join("conf")).expect("made");
    std::fs::create_dir_all(folder.join("bin")).expect("made");
    let xml = format!(
        "<!DOCTYPE safe>\n<safe>\n  <!-- {version} -->\n  <macro name=\"VIP\" value=\"{vip}\"/>\n  <service mode=\"mirror\">\n    <vip><interface_list><interface><real_interface><virtual_addr addr=\"%VIP%\"/></real_interface></interface></interface_list></vip>\n    <user/>\n  </service>\n</safe>\n"
    );
    std::fs::write(folder.join("conf/userconfig.xml"), xml).expect("written");
    std::fs::write(folder.join("bin/start_prim"), format!("#!/bin/sh\necho {version}\n")).expect("written");
    Package::from_folder(&folder).expect("a module")
}

fn archive(root: &Path, vip: &str, version: &str) -> Vec<u8> {
    module(root, vip, version).to_archive("app").expect("packed")
}

/// Which version a directory holds, when it holds all of it.
fn version_in(dir: &Path) -> Option<String> {
    let package = Package::from_folder(dir).ok()?;
    let script = package.files().find(|(path, _)| *path == "bin/start_prim")?.1;
    let version = String::from_utf8_lossy(script).lines().nth(1)?.strip_prefix("echo ")?.to_string();
    let marked = String::from_utf8_lossy(package.userconfig()).contains(&format!("<!-- {version} -->"));
    assert!(marked, "scripts of version {version} stand beside another configuration in {}", dir.display());
    Some(version)
}

fn configure(store: &Store, module: &str, archive: &[u8], id: u16) {
    let prepared = store.prepare(&name(module), archive, ModuleId(id), Around::default()).expect("prepared");
    store.commit(&prepared.token).expect("committed");
}
