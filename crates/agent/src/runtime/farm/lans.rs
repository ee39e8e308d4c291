//! By which networks the members of a farm judge each other's life: those that carry its virtual addresses.
//!
//! A member that clients cannot reach is none, whoever else hears it: its share would be lost. One that is cut off there from all the
//! others is, for itself, a part of the farm of its own, and serves whom it reaches.

use crate::cluster_config::Cluster;
use model::schema::module::ModuleConfiguration;
use platform::net::{Interface, Network};
use std::net::IpAddr;

/// Names of networks; empty: any. `None`: the addresses' network is not there yet.
pub async fn lans_of(cfg: &ModuleConfiguration, cluster: &Cluster, network: &Network) -> Option<Vec<String>> {
    let own = cluster.own_addrs();
    let named = cfg.farm.as_ref().map(|farm| farm.lans.clone()).unwrap_or_default();
    if !named.is_empty() || cfg.vips.is_empty() || own.len() < 2 {
        return Some(named);
    }
    let interfaces = network.interfaces().await.ok()?;
    let vips: Vec<(IpAddr, Option<&str>)> = cfg.vips.iter().map(|vip| (vip.addr, vip.interface.as_deref())).collect();
    Some(carriers(&own, &vips, &interfaces)).filter(|lans| !lans.is_empty())
}

/// The lans in whose subnet a virtual address is; if there is none, those on an interface that carries one.
fn carriers(own: &[(String, IpAddr)], vips: &[(IpAddr, Option<&str>)], interfaces: &[Interface]) -> Vec<String> {
    let subnet_of = |own: IpAddr| interfaces.iter().flat_map(|it| &it.addresses).find(move |it| it.ip == own);
    let holds_a_vip = |addr: IpAddr| {
        subnet_of(addr).is_some_and(|subnet| vips.iter().any(|(vip, _)| subnet.has_in_its_network(*vip)))
    };
    let carries_one = |addr: IpAddr| {
        interfaces.iter().filter(|it| it.holds(addr)).any(|it| {
            vips.iter().any(|(vip, name)| match name {
                Some(name) => *name == it.name,
                None => it.addresses.iter().any(|address| address.has_in_its_network(*vip)),
            })
        })
    };
    let those = |is_one: &dyn Fn(IpAddr) -> bool| -> Vec<String> {
        own.iter().filter(|(_, addr)| is_one(*addr)).map(|(name, _)| name.clone()).collect()
    };
    let lans = those(&holds_a_vip);
    if lans.is_empty() { those(&carries_one) } else { lans }
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::net::Address;

    fn interface(name: &str, addresses: &[(&str, u8)]) -> Interface {
        let address = |(ip, prefix): &(&str, u8)| Address { ip: ip.parse().unwrap(), prefix: *prefix, is_ours: false };
        Interface {
            index: 1,
            name: name.into(),
            mac: None,
            is_up: true,
            has_carrier: true,
            addresses: addresses.iter().map(address).collect(),
        }
    }

    #[test]
    fn the_lans_that_count_are_those_that_carry_the_virtual_addresses() {
        let own: Vec<(String, IpAddr)> = [("clients", "10.0.1.1"), ("pair", "10.0.3.1"), ("private", "10.0.2.1")]
            .map(|(name, addr)| (name.to_string(), addr.parse().unwrap()))
            .into();
        let interfaces = [
            interface("net1", &[("10.0.1.1", 24), ("10.0.3.1", 24), ("fd00:1::1", 64)]),
            interface("net2", &[("10.0.2.1", 24)]),
        ];
        let of = |vips: &[(&str, Option<&'static str>)]| {
            let vips: Vec<_> = vips.iter().map(|(vip, name)| (vip.parse().unwrap(), *name)).collect();
            carriers(&own, &vips, &interfaces)
        };
        assert_eq!(of(&[("10.0.1.100", None)]), ["clients"]);
        assert_eq!(of(&[("10.0.1.100", None), ("10.0.2.100", None)]), ["clients", "private"]);
        assert_eq!(of(&[("fd00:1::100", None)]), ["clients", "pair"], "no lan is in its subnet: all of its interface");
        assert_eq!(of(&[("192.0.2.7", Some("net2"))]), ["private"]);
        assert!(of(&[("192.0.2.7", None)]).is_empty(), "nothing is known");
    }
}
