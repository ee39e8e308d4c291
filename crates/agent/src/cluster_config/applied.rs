//! What is in force: members, text of the configuration, date. One file, replaced atomically.

use super::ClusterConfiguration;
use crate::identity::to_hex;
use crate::transport::PeerRole;
use model::api::Diagnostic;
use model::{NodeId, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Version of `applied.json` and of the same object on the wire.
pub const APPLIED_VERSION: u32 = 1;

/// A machine that was paired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Never given twice.
    pub id: NodeId,
    /// Name in `cluster.xml`.
    pub name: NodeName,
    /// Node or witness.
    #[serde(default)]
    pub role: PeerRole,
    /// It has been heard since it was admitted. One that never was may be admitted again under its name: its first
    /// attempt was interrupted.
    #[serde(default)]
    pub confirmed: bool,
    /// Fingerprint of the one certificate it was given ([`crate::identity::fingerprint`]): nobody else is believed to be this member,
    /// whoever has the authority's key. `None`: admitted by a version that kept none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The applied configuration. The members come from pairing alone; the text may be changed by `stead cluster config`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// [`APPLIED_VERSION`].
    pub version: u32,
    /// When, milliseconds since 1970, on the clock of the node that applied it.
    pub applied_unix_ms: u64,
    /// Where the command was given.
    pub by: NodeName,
    /// Number of the next member.
    pub next_node: u16,
    /// Everybody.
    pub members: Vec<Member>,
    /// Text of `cluster.xml`.
    pub xml: String,
    /// What the host names in it stand for, as they were when it was applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, IpAddr>,
}

/// The file is not what this version reads.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    /// From a newer program.
    #[error("it has version {0}, this program reads up to {APPLIED_VERSION}: install the newer stead")]
    Newer(u32),
    /// Not JSON, or not ours.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The text inside is wrong.
    #[error("its configuration is wrong: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Configuration(Vec<Diagnostic>),
}

impl Applied {
    /// From JSON, with the version looked at before anything else.
    ///
    /// # Errors
    /// [`AppliedError`].
    pub fn from_json(text: &str) -> Result<Self, AppliedError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(text)?;
        if version > APPLIED_VERSION {
            return Err(AppliedError::Newer(version));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The configuration in the text, or everything that is wrong with it.
    pub(crate) fn read(&self) -> Result<ClusterConfiguration, Vec<Diagnostic>> {
        super::read(&self.xml, &self.names.clone().into_iter().collect()).map(|(configuration, _)| configuration)
    }

    /// The configuration in the text.
    ///
    /// # Errors
    /// [`AppliedError::Configuration`].
    pub fn configuration(&self) -> Result<ClusterConfiguration, AppliedError> {
        self.read().map_err(AppliedError::Configuration)
    }

    /// Short hexadecimal BLAKE3 over text, members and what names stand for: equal on two nodes means the same cluster on both.
    #[must_use]
    pub fn signature(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("stead v1 cluster configuration signature");
        hasher.update(&(self.xml.len() as u64).to_le_bytes()).update(self.xml.as_bytes());
        for member in &self.members {
            hasher.update(&member.id.0.to_le_bytes()).update(&[u8::from(member.role == PeerRole::Witness)]);
            hasher.update(&(member.name.as_str().len() as u64).to_le_bytes()).update(member.name.as_str().as_bytes());
        }
        // Nothing without names: signatures of configurations that have none stay what they were.
        for (name, addr) in &self.names {
            let line = format!("{name} {addr}");
            hasher.update(&(line.len() as u64).to_le_bytes()).update(line.as_bytes());
        }
        to_hex(&hasher.finalize().as_bytes()[..16])
    }

    /// As it is kept by everyone but the node that admits: that one alone knows an admission that was interrupted.
    #[must_use]
    pub(crate) fn all_confirmed(mut self) -> Self {
        self.members.iter_mut().for_each(|member| member.confirmed = true);
        self
    }

    /// A program that knows nothing of fingerprints hands the members on without: what is known of who stays is kept.
    #[must_use]
    pub(crate) fn keeping_certificates(mut self, before: &Self) -> Self {
        for member in self.members.iter_mut().filter(|member| member.certificate.is_none()) {
            let known = before.members.iter().find(|known| known.id == member.id && known.name == member.name);
            member.certificate = known.and_then(|known| known.certificate.clone());
        }
        self
    }

    /// A member by name.
    #[must_use]
    pub fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }
}
