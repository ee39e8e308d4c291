//! Interfaces, carriers, addresses, routes — by netlink. Only this module knows `rtnetlink`.
//!
//! Addresses we set carry the protocol mark [`OURS`] (`ip -d addr` shows it, Linux ≥ 5.18), so a later agent
//! recognises them. `vip_up` and `vip_down` name a situation: they may be repeated.

mod messages;
mod stations;

pub use messages::{Address, Gateway, Interface};

use super::{NetError, host_prefix};
use futures_util::TryStreamExt;
use messages::{address_of, gateway_of, interface_of, is_marked};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinHandle;

/// `IFA_PROTO` of the addresses Stead sets ('S').
pub const OURS: u8 = 0x53;
/// The kernel answers netlink in microseconds; past this something is badly wrong.
const DEADLINE: Duration = Duration::from_secs(2);
/// Before a question is put again that came too early.
const AGAIN: Duration = Duration::from_millis(2);

/// A connection to the kernel's network tables. Belongs to the network namespace of the thread that opened
/// it, and to the tokio runtime it was opened in.
#[derive(Debug)]
pub struct Network {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
    /// The kernel lists one thing at a time to one socket, and refuses the second question (EBUSY).
    listing: tokio::sync::Mutex<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Opens the connection. Call inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Os`].
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| NetError::os("open netlink", "rtnetlink", error))?;
        Ok(Self { handle, task: tokio::spawn(connection), listing: tokio::sync::Mutex::default() })
    }

    /// All interfaces with their addresses, by index.
    ///
    /// # Errors
    /// [`NetError`]; nothing is changed by asking.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetError> {
        const ACTION: &str = "list the interfaces";
        let links: Vec<LinkMessage> = self.list(ACTION, || self.handle.link().get().execute().try_collect()).await?;
        let addresses: Vec<AddressMessage> =
            self.list(ACTION, || self.handle.address().get().execute().try_collect()).await?;
        let mut interfaces: Vec<Interface> = links.iter().map(interface_of).collect();
        for message in &addresses {
            if let Some(address) = address_of(message)
                && let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == message.header.index)
            {
                interface.addresses.push(address);
            }
        }
        interfaces.sort_by_key(|interface| interface.index);
        Ok(interfaces)
    }

    /// One interface by name.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] or as [`Network::interfaces`].
    pub async fn interface(&self, name: &str) -> Result<Interface, NetError> {
        let found = self.interfaces().await?.into_iter().find(|interface| interface.name == name);
        found.ok_or_else(|| NetError::NoInterface { action: "look at an interface", interface: name.into() })
    }

    /// The interface whose own subnet contains `ip` (the longest prefix wins). Virtual addresses do not count, nor do
    /// link-local ones: every interface has those.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn interface_for(&self, ip: IpAddr) -> Result<Option<Interface>, NetError> {
        let best = |interface: &Interface| {
            let own = interface.addresses.iter().filter(|address| address.has_in_its_network(ip));
            own.filter(|address| !is_link_local(address.ip)).map(|address| address.prefix).max()
        };
        let interfaces = self.interfaces().await?;
        let found = interfaces.into_iter().filter_map(|interface| best(&interface).map(|prefix| (prefix, interface)));
        Ok(found.max_by_key(|(prefix, _)| *prefix).map(|(_, interface)| interface))
    }

    /// The interface that holds exactly this address, if any.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn holder_of(&self, ip: IpAddr) -> Result<Option<Interface>, NetError> {
        Ok(self.interfaces().await?.into_iter().find(|interface| interface.holds(ip)))
    }

    /// Wanted: this node holds `ip` on this interface, with our mark, and on no other. Returns true if
    /// something had to be changed. Use prefix 32 (IPv6: 128) unless the interface has no other address in that
    /// network: a longer-lived address of the subnet then stays the source of outgoing traffic. An IPv6 address is
    /// usable at once (no duplicate detection by the kernel), and deprecated: never the source by itself.
    ///
    /// Probe for duplicates before, announce after: this only sets it.
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn vip_up(&self, interface: &str, ip: IpAddr, prefix: u8) -> Result<bool, NetError> {
        const ACTION: &str = "set a virtual IP";
        let interfaces = self.interfaces().await?;
        let Some(wanted) = interfaces.iter().find(|other| other.name == interface) else {
            return Err(NetError::NoInterface { action: ACTION, interface: interface.into() });
        };
        let holders: Vec<(u32, Address)> = interfaces
            .iter()
            .flat_map(|other| other.addresses.iter().map(|address| (other.index, *address)))
            .filter(|(_, address)| address.ip == ip)
            .collect();
        // The mark is not asked for: kernels before 5.18 do not keep it, and the situation is as wanted.
        if let [(index, address)] = holders[..]
            && (index, address.prefix) == (wanted.index, prefix)
        {
            return Ok(false);
        }
        if !holders.is_empty() {
            self.vip_down(ip).await?;
        }
        let mut request = self.handle.address().add(wanted.index, ip, prefix);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OURS)));
        if ip.is_ipv6() {
            attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        within(ACTION, async {
            match request.execute().await {
                Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
                other => other,
            }
        })
        .await?;
        Ok(true)
    }

    /// Wanted: no interface of this node holds `ip`. Returns true if one did.
    ///
    /// # Errors
    /// [`NetError::Foreign`] when it is an ordinary address of this node (configured by its administrator, with its
    /// subnet): such a one is never removed. [`NetError`]; retry safe.
    pub async fn vip_down(&self, ip: IpAddr) -> Result<bool, NetError> {
        let done = self.remove_where(|address| address.ip == ip).await?;
        match done.foreign.first() {
            Some(_) => {
                let interface = self.holder_of(ip).await?.map_or_else(String::new, |holder| holder.name);
                Err(NetError::Foreign { ip, interface })
            }
            None => Ok(!done.removed.is_empty()),
        }
    }

    /// Wanted: of all virtual IPs, this node holds at most those in `keep`. Removes what is in `configured` and
    /// whatever carries our mark; an administrator's own address (with its subnet) stays, whatever the
    /// configuration says. For the start of an agent. Returns what was removed.
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn remove_stray_vips(&self, configured: &[IpAddr], keep: &[IpAddr]) -> Result<Vec<IpAddr>, NetError> {
        let is_stray =
            |address: &Address| !keep.contains(&address.ip) && (address.is_ours || configured.contains(&address.ip));
        Ok(self.remove_where(is_stray).await?.removed)
    }

    /// Default gateways of the main table, IPv4 before IPv6, preferred first.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn default_gateways(&self) -> Result<Vec<Gateway>, NetError> {
        let interfaces = self.interfaces().await?;
        let mut gateways: Vec<Gateway> = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = || {
                let mut request = RouteMessage::default();
                request.header.address_family = family;
                self.handle.route().get(request).execute().try_collect()
            };
            let routes: Vec<RouteMessage> = self.list("list the routes", request).await?;
            gateways.extend(routes.iter().filter_map(|route| gateway_of(route, &interfaces)));
        }
        gateways.sort_by_key(|gateway| (gateway.ip.is_ipv6(), gateway.metric));
        Ok(gateways)
    }

    /// One list of the kernel's, when nobody else reads one. A reader that was dropped in the middle may have left the kernel at it.
    async fn list<T, F: Future<Output = Result<T, rtnetlink::Error>>>(
        &self,
        action: &'static str,
        ask: impl Fn() -> F,
    ) -> Result<T, NetError> {
        let _alone = self.listing.lock().await;
        within(action, async {
            loop {
                match ask().await {
                    Err(error) if errno(&error) == Some(libc::EBUSY) => tokio::time::sleep(AGAIN).await,
                    other => return other,
                }
            }
        })
        .await
    }

    async fn remove_where(&self, is_unwanted: impl Fn(&Address) -> bool) -> Result<Removal, NetError> {
        const ACTION: &str = "remove a virtual IP";
        let addresses: Vec<AddressMessage> =
            self.list(ACTION, || self.handle.address().get().execute().try_collect()).await?;
        within(ACTION, async {
            // The kernel marks loopback's address itself, if it knows marks at all.
            let knows_marks = addresses.iter().any(is_marked);
            let mut done = Removal::default();
            for message in addresses {
                let Some(address @ Address { ip, .. }) = address_of(&message) else { continue };
                if !is_unwanted(&address) {
                    continue;
                }
                if knows_marks && !address.is_ours && address.prefix < host_prefix(ip) {
                    done.foreign.push(ip);
                    continue;
                }
                match self.handle.address().del(message).execute().await {
                    // Gone in between: as wanted.
                    Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => {}
                    other => other?,
                }
                done.removed.push(ip);
            }
            Ok(done)
        })
        .await
    }
}

/// Every interface has one of these, so they say nothing of where a network is.
const fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[derive(Default)]
struct Removal {
    removed: Vec<IpAddr>,
    /// An administrator's: left alone.
    foreign: Vec<IpAddr>,
}

async fn within<T>(
    action: &'static str,
    work: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, NetError> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let source =
                errno(&error).map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
            Err(NetError::os(action, "netlink", source))
        }
        Err(_) => Err(NetError::Deadline { action, deadline_ms: DEADLINE.as_millis() as u64 }),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}
