//! The fingerprint by which two nodes know that they run the same module.

use super::package::{Package, USERCONFIG};
use model::schema::{ModuleConfiguration, Signature};

/// Of the expanded configuration, the scripts, and every other file of the module. Comments and layout of
/// `userconfig.xml` do not count; neither does the module's name.
#[must_use]
pub fn signature(configuration: &ModuleConfiguration, package: &Package) -> Signature {
    let mut hasher = blake3::Hasher::new_derive_key("stead 2026-11 module configuration signature");
    let mut field = |bytes: &[u8]| {
        // Lengths first: no two different sets of fields give the same stream.
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(configuration.canonical().as_bytes());
    for (path, bytes) in package.files().filter(|(path, _)| *path != USERCONFIG) {
        field(path.as_bytes());
        field(bytes);
    }
    Signature(hasher.finalize().to_hex().to_string())
}
