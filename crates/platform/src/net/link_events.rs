//! Tells when an interface of this node changes: its carrier, its addresses.

use super::NetError;
use futures_util::StreamExt;
use rtnetlink::MulticastGroup;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Open as long as it is kept.
#[derive(Debug)]
pub struct LinkEvents {
    changed: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for LinkEvents {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl LinkEvents {
    /// Listens to the kernel. Call inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Os`]: the caller looks by itself from time to time.
    pub fn open() -> Result<Self, NetError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|error| NetError::os("listen for changes of interfaces", "rtnetlink", error))?;
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let listener = tokio::spawn(async move {
            while messages.next().await.is_some() {
                told.notify_waiters();
            }
        });
        Ok(Self { changed, tasks: [tokio::spawn(connection), listener] })
    }

    /// Something changed after the call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
