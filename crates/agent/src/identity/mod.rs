//! Who this node is: cluster id, node number and name, certificates, the cluster's secret.
//!
//! Files of `/etc/stead/cluster`. **Invariant:** `identity.json` is written last, so its presence means that all the
//! others are complete; without it this machine belongs to no cluster, whatever else lies there.

mod certificates;
mod files;

pub(crate) use certificates::fingerprint_of_pem;
pub use certificates::{Authority, CertificateError, NodeKey, dns_name, fingerprint, number_dns_name};
pub use files::write_atomic;

use crate::places::Places;
use crate::transport::PeerRole;
use model::{ClusterId, NodeId, NodeName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Version of the files of this directory.
pub const IDENTITY_VERSION: u32 = 1;
/// No file of this directory is larger; anything larger is not ours.
const FILE_MAX: u64 = 1024 * 1024;

/// Who this node is. Cheap to share behind an `Arc`, never printed with its keys.
#[derive(Clone)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's number, assigned at pairing.
    pub node: NodeId,
    /// This node's name.
    pub name: NodeName,
    /// Node or witness.
    pub role: PeerRole,
    /// Certificate of the cluster's authority (PEM).
    pub ca_pem: String,
    /// Its key, on every node so that each can admit others; a witness has none.
    pub ca_key_pem: Option<String>,
    /// This node's certificate (PEM).
    pub certificate_pem: String,
    /// Its key (PEM).
    pub key_pem: String,
    /// Shared by all nodes; a witness has one of its own, good for nothing.
    secret: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {} of cluster {:016x})", self.node.0, self.name, self.cluster.0)
    }
}

/// `identity.json`.
#[derive(Serialize, Deserialize)]
struct Card {
    version: u32,
    cluster: ClusterId,
    node: NodeId,
    name: NodeName,
    #[serde(default)]
    role: PeerRole,
}

/// The files cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system refused. Retry is safe.
    #[error("cannot {action} {}", path.display())]
    File {
        /// read or write
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what this version writes: fatal until repaired.
    #[error("{} is damaged: {reason}; restore it from a backup, or remove {} and join the cluster again (stead cluster join)", path.display(), path.parent().unwrap_or(path).display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer program.
    #[error("{} has version {version}, this program reads up to {IDENTITY_VERSION}: install the newer stead again", path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Found.
        version: u32,
    },
}

/// Paths of the identity's files.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// Its key.
    pub ca_key: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// This node's key.
    pub key: PathBuf,
    /// The cluster's secret.
    pub secret: PathBuf,
    /// Numbers and names; written last.
    pub card: PathBuf,
}

impl IdentityFiles {
    /// Below these roots.
    #[must_use]
    pub fn of(places: &Places) -> Self {
        let dir = places.cluster_dir();
        Self {
            ca: dir.join("ca.pem"),
            ca_key: dir.join("ca.key"),
            certificate: dir.join("node.pem"),
            key: dir.join("node.key"),
            secret: dir.join("secret"),
            card: dir.join("identity.json"),
        }
    }
}

impl Identity {
    /// Puts an identity together; writes nothing.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a file of its own; called in two places")]
    pub(crate) const fn new(
        cluster: ClusterId,
        node: NodeId,
        name: NodeName,
        role: PeerRole,
        ca_pem: String,
        ca_key_pem: Option<String>,
        certificate_pem: String,
        key_pem: String,
        secret: [u8; 32],
    ) -> Self {
        Self { cluster, node, name, role, ca_pem, ca_key_pem, certificate_pem, key_pem, secret }
    }

    /// The node's identity, or `None` when it belongs to no cluster.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and what to do; nothing is changed.
    pub fn load(places: &Places) -> Result<Option<Self>, IdentityError> {
        let files = IdentityFiles::of(places);
        let Some(card) = read_if_present(&files.card)? else { return Ok(None) };
        let damaged = |path: &Path, reason: String| IdentityError::Damaged { path: path.to_owned(), reason };
        let version = serde_json::from_str::<serde_json::Value>(&card)
            .ok()
            .and_then(|value| value.get("version")?.as_u64())
            .ok_or_else(|| damaged(&files.card, "it has no version".into()))?;
        if version > u64::from(IDENTITY_VERSION) {
            return Err(IdentityError::Newer { path: files.card, version: u32::try_from(version).unwrap_or(u32::MAX) });
        }
        let card: Card = serde_json::from_str(&card).map_err(|error| damaged(&files.card, error.to_string()))?;
        let needed = |path: &Path| read_if_present(path)?.ok_or_else(|| damaged(path, "it is missing".into()));
        let secret = needed(&files.secret)?;
        let secret =
            from_hex(secret.trim()).ok_or_else(|| damaged(&files.secret, "it is not 64 hexadecimal digits".into()))?;
        let identity = Self {
            cluster: card.cluster,
            node: card.node,
            name: card.name,
            role: card.role,
            ca_pem: needed(&files.ca)?,
            ca_key_pem: if card.role == PeerRole::Node { Some(needed(&files.ca_key)?) } else { None },
            certificate_pem: needed(&files.certificate)?,
            key_pem: needed(&files.key)?,
            secret,
        };
        // Building the TLS configuration is the check that certificate, key and authority fit together.
        crate::transport::tls::client_config(&identity)
            .and_then(|_| crate::transport::tls::server_config(&identity, false))
            .map_err(|error| damaged(&files.certificate, error.to_string()))?;
        Ok(Some(identity))
    }

    /// Writes all files, `identity.json` last; each is replaced atomically and fsynced.
    ///
    /// # Errors
    /// The file and the operating system's reason; without `identity.json` the node still belongs to no cluster.
    pub fn store(&self, places: &Places) -> Result<(), IdentityError> {
        let files = IdentityFiles::of(places);
        let card = Card {
            version: IDENTITY_VERSION,
            cluster: self.cluster,
            node: self.node,
            name: self.name.clone(),
            role: self.role,
        };
        let card = serde_json::to_string_pretty(&card).expect("plain data becomes JSON");
        let secret = to_hex(&self.secret) + "\n";
        let mut all = vec![(&files.ca, self.ca_pem.as_str(), 0o644)];
        if let Some(key) = &self.ca_key_pem {
            all.push((&files.ca_key, key, 0o600));
        }
        all.extend([
            (&files.certificate, self.certificate_pem.as_str(), 0o644),
            (&files.key, self.key_pem.as_str(), 0o600),
            (&files.secret, secret.as_str(), 0o600),
            (&files.card, card.as_str(), 0o644),
        ]);
        for (path, text, mode) in all {
            write_atomic(path, text.as_bytes(), mode).map_err(|source| IdentityError::File {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// A key of its own for each purpose ("heartbeat", …), the same on all nodes of the cluster.
    #[must_use]
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(&format!("stead v1 cluster key: {purpose}"), &self.secret)
    }

    /// The TLS name of a member: `NODE.CLUSTERIDHEX.stead`.
    #[must_use]
    pub fn dns_name_of(&self, name: &NodeName) -> String {
        dns_name(self.cluster, name)
    }

    /// Handed to a new node inside the proven channel, nowhere else.
    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

fn read_if_present(path: &Path) -> Result<Option<String>, IdentityError> {
    let failed = |source| IdentityError::File { action: "read", path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(about) if about.len() > FILE_MAX => {
            return Err(IdentityError::Damaged { path: path.to_owned(), reason: "it is far too large".into() });
        }
        Ok(_) => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(IdentityError::Damaged { path: path.to_owned(), reason: "it is not text".into() })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The reverse, of exactly `N` bytes.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Random bytes from the kernel.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .expect("getrandom does not fail on a booted kernel");
    }
    bytes
}
