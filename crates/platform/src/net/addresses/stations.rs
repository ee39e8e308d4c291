//! Hardware addresses that an interface receives beside its own: those that no node sends from.

use super::{Network, errno, within};
use crate::net::{Mac, NetError};
use netlink_packet_route::neighbour::NeighbourFlags;

impl Network {
    /// Wanted: the interface receives what is sent to this hardware address, too. (A card that cannot keep a second one receives everything
    /// then: the kernel sees to it.)
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn receive_also(&self, interface: &str, mac: Mac) -> Result<(), NetError> {
        let index = self.interface(interface).await?.index;
        let request = self.handle.neighbours().add_bridge(index, &mac.0).flags(NeighbourFlags::Own);
        within("receive another hardware address", async {
            match request.execute().await {
                Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
                other => other,
            }
        })
        .await
    }

    /// Wanted: it does not. No error when there is no such interface.
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn receive_no_more(&self, interface: &str, mac: Mac) -> Result<(), NetError> {
        let Ok(found) = self.interface(interface).await else { return Ok(()) };
        let neighbours = self.handle.neighbours();
        let mut request = neighbours.add_bridge(found.index, &mac.0).flags(NeighbourFlags::Own);
        let message = request.message_mut().clone();
        within("receive another hardware address no more", async {
            match neighbours.del(message).execute().await {
                Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
                other => other,
            }
        })
        .await
    }
}
