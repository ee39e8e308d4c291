//! The cluster as this node knows it, on disk and for everyone who watches.
//!
//! **Invariant:** watchers see a new cluster only after it is on disk.

use super::ClusterConfiguration;
use super::applied::{Applied, AppliedError};
use crate::identity::{Identity, IdentityError, write_atomic};
use crate::places::Places;
use crate::transport::PeerRole;
use model::{NodeId, NodeName};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// Changes whenever the cluster does; `None` while this machine belongs to none.
pub type ClusterWatch = watch::Receiver<Option<Arc<Cluster>>>;

/// A paired node's whole knowledge of its cluster; replaced as a whole.
#[derive(Debug)]
pub struct Cluster {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Members, text, date.
    pub applied: Applied,
    /// The text, read.
    pub configuration: ClusterConfiguration,
    /// Of `applied`.
    pub signature: String,
}

impl Cluster {
    pub(crate) fn new(identity: Arc<Identity>, applied: Applied) -> Result<Self, AppliedError> {
        Ok(Self { configuration: applied.configuration()?, signature: applied.signature(), identity, applied })
    }

    /// Every member but this one, witness included.
    pub fn others(&self) -> impl Iterator<Item = &super::Member> {
        self.applied.members.iter().filter(|member| member.id != self.identity.node)
    }

    /// The other nodes, without the witness.
    pub fn peers(&self) -> impl Iterator<Item = &super::Member> {
        self.others().filter(|member| member.role == PeerRole::Node)
    }

    /// Numbers of the configuration's witnesses, in its order.
    #[must_use]
    pub fn witnesses(&self) -> Vec<NodeId> {
        let named =
            |name: &NodeName| self.applied.members.iter().find(|member| member.name == *name).map(|member| member.id);
        self.configuration.witnesses.iter().filter_map(|witness| named(&witness.name)).collect()
    }

    /// Name of a member.
    #[must_use]
    pub fn name_of(&self, node: NodeId) -> Option<&NodeName> {
        self.applied.members.iter().find(|member| member.id == node).map(|member| &member.name)
    }

    /// Addresses this node listens on: network (empty for a witness) and address.
    #[must_use]
    pub fn own_addrs(&self) -> Vec<(String, IpAddr)> {
        match self.configuration.witness(&self.identity.name) {
            Some(witness) => vec![(String::new(), witness.addr)],
            None => self
                .configuration
                .places_of(&self.identity.name)
                .map(|(lan, node)| (lan.to_owned(), node.local_addr()))
                .collect(),
        }
    }
}

/// The files cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// See there.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// `applied.json` is damaged.
    #[error("{}: {source}; copy it from another node of the cluster, or remove {} and join again (stead cluster join)", path.display(), path.parent().unwrap_or(path).display())]
    Applied {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: AppliedError,
    },
    /// The operating system refused; the state on disk is the old one.
    #[error("cannot {action} {}", path.display())]
    File {
        /// read or write
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The copy for people; what counts is in `applied.json`.
const CLUSTER_XML: &str = "cluster.xml";

/// One change at a time: held from its first step to its last.
pub(crate) struct Changing<'a>(&'a AtomicBool);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Owner of the cluster's files.
pub struct ClusterStore {
    places: Places,
    sender: watch::Sender<Option<Arc<Cluster>>>,
    /// A change is being prepared or made on this node.
    changing: AtomicBool,
    /// One writer at a time: short, never across an await.
    writing: std::sync::Mutex<()>,
}

impl ClusterStore {
    /// Reads what is there.
    ///
    /// # Errors
    /// [`StoreError`] names the file; a machine that belongs to no cluster is not an error.
    pub fn open(places: Places) -> Result<Arc<Self>, StoreError> {
        let cluster = match Identity::load(&places)? {
            None => None,
            Some(identity) => {
                let path = places.cluster_dir().join("applied.json");
                let bytes = std::fs::read(&path).map_err(|source| StoreError::File {
                    action: "read",
                    path: path.clone(),
                    source,
                })?;
                // What is no text is no JSON either, and that error names the remedy.
                let text = String::from_utf8_lossy(&bytes);
                let cluster = Applied::from_json(&text).and_then(|applied| Cluster::new(Arc::new(identity), applied));
                Some(Arc::new(cluster.map_err(|source| StoreError::Applied { path, source })?))
            }
        };
        Ok(Arc::new(Self {
            places,
            sender: watch::Sender::new(cluster),
            changing: AtomicBool::new(false),
            writing: std::sync::Mutex::new(()),
        }))
    }

    /// To wait for changes.
    #[must_use]
    pub fn watch(&self) -> ClusterWatch {
        self.sender.subscribe()
    }

    /// Now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Cluster>> {
        self.sender.borrow().clone()
    }

    /// Where the files are.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// What a person should know of the copy for people: it says something else than what is in force, and nobody acts on it.
    #[must_use]
    pub fn edited(&self) -> Option<String> {
        // Between the two files of a change.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = self.current()?;
        let path = self.places.cluster_dir().join(CLUSTER_XML);
        let text = std::fs::read_to_string(&path).ok()?;
        let path = path.display();
        (text != cluster.applied.xml).then(|| {
            format!(
                "{path} is not what is in force, and nobody acts on it: stead cluster config {path} applies it, on all nodes; what is \
                 in force: stead cluster config"
            )
        })
    }

    /// Held while a change is prepared and made.
    pub(crate) fn try_change(&self) -> Option<Changing<'_>> {
        self.changing.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).ok()?;
        Some(Changing(&self.changing))
    }

    /// Is one under way?
    pub(crate) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Acquire)
    }

    /// Enters a cluster: the identity becomes valid with its last file.
    pub(crate) fn enter(&self, identity: Identity, applied: Applied) -> Result<Arc<Cluster>, StoreError> {
        let path = self.places.cluster_dir().join("applied.json");
        let cluster =
            Cluster::new(Arc::new(identity), applied).map_err(|source| StoreError::Applied { path, source })?;
        self.write(&cluster.applied)?;
        cluster.identity.store(&self.places)?;
        let cluster = Arc::new(cluster);
        self.sender.send_replace(Some(Arc::clone(&cluster)));
        Ok(cluster)
    }

    /// Puts another configuration in force on this node.
    pub(crate) fn replace(&self, applied: Applied) -> Result<Arc<Cluster>, StoreError> {
        self.update(|before| Some(applied.keeping_certificates(before)), true)
    }

    /// Remembers that a member has been heard since it was admitted. Nobody who watches is disturbed.
    pub(crate) fn confirm(&self, node: NodeId) -> Result<(), StoreError> {
        if self
            .current()
            .is_none_or(|cluster| cluster.applied.members.iter().all(|member| member.id != node || member.confirmed))
        {
            return Ok(());
        }
        let confirmed = |applied: &Applied| {
            let mut applied = applied.clone();
            applied.members.iter_mut().find(|member| member.id == node)?.confirmed = true;
            Some(applied)
        };
        self.update(confirmed, false).map(|_| ())
    }

    /// Reads, changes, writes and publishes as one step; `None` changes nothing.
    fn update(&self, change: impl FnOnce(&Applied) -> Option<Applied>, tell: bool) -> Result<Arc<Cluster>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.places.cluster_dir().join("applied.json");
        let current = self.current().ok_or_else(|| StoreError::File {
            action: "write",
            path: path.clone(),
            source: io::Error::other("this machine belongs to no cluster"),
        })?;
        let Some(applied) = change(&current.applied) else { return Ok(current) };
        let cluster = Cluster::new(Arc::clone(&current.identity), applied)
            .map_err(|source| StoreError::Applied { path, source })?;
        self.write(&cluster.applied)?;
        let cluster = Arc::new(cluster);
        self.sender.send_if_modified(|known| {
            *known = Some(Arc::clone(&cluster));
            tell
        });
        Ok(cluster)
    }

    fn write(&self, applied: &Applied) -> Result<(), StoreError> {
        let dir = self.places.cluster_dir();
        let json = serde_json::to_string_pretty(applied).expect("plain data becomes JSON");
        // The copy for people first: if we fall between the two, the authority still says the old one.
        for (name, text) in [(CLUSTER_XML, applied.xml.as_str()), ("applied.json", &json)] {
            let path = dir.join(name);
            write_atomic(&path, text.as_bytes(), 0o644).map_err(|source| StoreError::File {
                action: "write",
                path,
                source,
            })?;
        }
        Ok(())
    }
}

/// `StoreError` with its causes, for a person.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
