//! Interfaces, carriers, addresses, routes — by netlink. The only file that knows `rtnetlink`.
//!
//! Addresses we set carry the protocol mark [`OURS`] (`ip -d addr` shows it, Linux ≥ 5.18), so a later agent
//! recognises them. `vip_up` and `vip_down` name a situation: they may be repeated.

use super::{Mac, NetError, is_in_subnet};
use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::task::JoinHandle;

/// `IFA_PROTO` of the addresses Stead sets ('S').
pub const OURS: u8 = 0x53;
/// The kernel answers netlink in microseconds; past this something is badly wrong.
const DEADLINE: Duration = Duration::from_secs(2);

/// An address on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Set by Stead (a virtual IP).
    pub is_ours: bool,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// The kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; `None` for loopback, tunnels.
    pub mac: Option<Mac>,
    /// Switched on by the administrator.
    pub is_up: bool,
    /// The other end of the cable is there (false while not up).
    pub has_carrier: bool,
    /// All its addresses.
    pub addresses: Vec<Address>,
}

impl Interface {
    /// May packets pass: up and with carrier.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_up && self.has_carrier
    }

    /// Does it hold this address?
    #[must_use]
    pub fn holds(&self, ip: Ipv4Addr) -> bool {
        self.addresses.iter().any(|address| address.ip == IpAddr::V4(ip))
    }

    /// Its own address (not a virtual one) in the network of `ip`: the sender to use when asking there.
    #[must_use]
    pub fn source_for(&self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address.ip {
            IpAddr::V4(own)
                if !address.is_ours && own != ip && address.prefix < 32 && is_in_subnet(ip, own, address.prefix) =>
            {
                Some(own)
            }
            _ => None,
        })
    }
}

/// A default route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// The router.
    pub ip: Ipv4Addr,
    /// Interface it is reached by.
    pub interface: String,
    /// Lower is preferred.
    pub metric: u32,
}

/// A connection to the kernel's network tables. Belongs to the network namespace of the thread that opened
/// it, and to the tokio runtime it was opened in.
#[derive(Debug)]
pub struct Network {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
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
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// All interfaces with their addresses, by index.
    ///
    /// # Errors
    /// [`NetError`]; nothing is changed by asking.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetError> {
        const ACTION: &str = "list the interfaces";
        let (links, addresses) = within(ACTION, async {
            let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
            let addresses: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
            Ok((links, addresses))
        })
        .await?;
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

    /// The interface whose own subnet contains `ip` (the longest prefix wins). Virtual addresses do not count.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn interface_for(&self, ip: Ipv4Addr) -> Result<Option<Interface>, NetError> {
        let best = |interface: &Interface| {
            let own = interface.addresses.iter().filter(|address| !address.is_ours && address.prefix < 32);
            own.filter_map(|address| match address.ip {
                IpAddr::V4(own) if is_in_subnet(ip, own, address.prefix) => Some(address.prefix),
                _ => None,
            })
            .max()
        };
        let interfaces = self.interfaces().await?;
        let found = interfaces.into_iter().filter_map(|interface| best(&interface).map(|prefix| (prefix, interface)));
        Ok(found.max_by_key(|(prefix, _)| *prefix).map(|(_, interface)| interface))
    }

    /// The interface that holds exactly this address, if any.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn holder_of(&self, ip: Ipv4Addr) -> Result<Option<Interface>, NetError> {
        Ok(self.interfaces().await?.into_iter().find(|interface| interface.holds(ip)))
    }

    /// Wanted: this node holds `ip` on this interface, with our mark, and on no other. Returns true if
    /// something had to be changed. Use prefix 32 unless the interface has no other address in that
    /// network: a longer-lived address of the subnet then stays the source of outgoing traffic.
    ///
    /// Probe for duplicates before, announce after: this only sets it.
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn vip_up(&self, interface: &str, ip: Ipv4Addr, prefix: u8) -> Result<bool, NetError> {
        const ACTION: &str = "set a virtual IP";
        let interfaces = self.interfaces().await?;
        let Some(wanted) = interfaces.iter().find(|other| other.name == interface) else {
            return Err(NetError::NoInterface { action: ACTION, interface: interface.into() });
        };
        let as_wanted = Address { ip: IpAddr::V4(ip), prefix, is_ours: true };
        let is_elsewhere = interfaces.iter().any(|other| {
            other
                .addresses
                .iter()
                .any(|address| address.ip == as_wanted.ip && (other.index != wanted.index || *address != as_wanted))
        });
        if is_elsewhere {
            self.vip_down(ip).await?;
        } else if wanted.addresses.contains(&as_wanted) {
            return Ok(false);
        }
        let mut request = self.handle.address().add(wanted.index, IpAddr::V4(ip), prefix);
        request.message_mut().attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OURS)));
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
    /// [`NetError`]; retry safe.
    pub async fn vip_down(&self, ip: Ipv4Addr) -> Result<bool, NetError> {
        self.remove_where(|address| address.ip == IpAddr::V4(ip)).await.map(|removed| !removed.is_empty())
    }

    /// Wanted: of all virtual IPs, this node holds at most those in `keep`. Removes what is in `configured` and
    /// whatever carries our mark. For the start of an agent. Returns what was removed.
    ///
    /// # Errors
    /// [`NetError`]; retry safe.
    pub async fn remove_stray_vips(
        &self,
        configured: &[Ipv4Addr],
        keep: &[Ipv4Addr],
    ) -> Result<Vec<Ipv4Addr>, NetError> {
        self.remove_where(|address| match address.ip {
            IpAddr::V4(ip) => !keep.contains(&ip) && (address.is_ours || configured.contains(&ip)),
            IpAddr::V6(_) => false,
        })
        .await
    }

    /// IPv4 default gateways of the main table, preferred first.
    ///
    /// # Errors
    /// As [`Network::interfaces`].
    pub async fn default_gateways(&self) -> Result<Vec<Gateway>, NetError> {
        let interfaces = self.interfaces().await?;
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let routes: Vec<RouteMessage> =
            within("list the routes", async { self.handle.route().get(request).execute().try_collect().await }).await?;
        let mut gateways: Vec<Gateway> = routes.iter().filter_map(|route| gateway_of(route, &interfaces)).collect();
        gateways.sort_by_key(|gateway| gateway.metric);
        Ok(gateways)
    }

    async fn remove_where(&self, is_unwanted: impl Fn(&Address) -> bool) -> Result<Vec<Ipv4Addr>, NetError> {
        within("remove a virtual IP", async {
            let addresses: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
            let mut removed = Vec::new();
            for message in addresses {
                if let Some(address @ Address { ip: IpAddr::V4(ip), .. }) = address_of(&message)
                    && is_unwanted(&address)
                {
                    match self.handle.address().del(message).execute().await {
                        // Gone in between: as wanted.
                        Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => {}
                        other => other?,
                    }
                    removed.push(ip);
                }
            }
            Ok(removed)
        })
        .await
    }
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

fn interface_of(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        is_up: link.header.flags.contains(LinkFlags::Up),
        has_carrier: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) if link.header.link_layer_type == LinkLayerType::Ether => {
                interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            _ => {}
        }
    }
    interface
}

fn address_of(message: &AddressMessage) -> Option<Address> {
    let mut address =
        Address { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: message.header.prefix_len, is_ours: false };
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Protocol(AddressProtocol::Other(OURS)) => address.is_ours = true,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end; IPv6 has only `Address`.
    address.ip = local.or(remote)?;
    Some(address)
}

fn gateway_of(route: &RouteMessage, interfaces: &[Interface]) -> Option<Gateway> {
    if route.header.table != RouteHeader::RT_TABLE_MAIN || route.header.destination_prefix_length != 0 {
        return None;
    }
    let (mut gateway, mut index, mut metric) = (None, None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(*ip),
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let interface = interfaces.iter().find(|interface| Some(interface.index) == index)?.name.clone();
    Some(Gateway { ip: gateway?, interface, metric })
}
