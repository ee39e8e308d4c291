//! Who is in a lab and how it is wired: names, addresses, MACs. Pure data, the same at every boot.

use crate::options::Agents;
use crate::{LabError, Options};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Host part of the switch's own address: the hosts' default gateway.
const GATEWAY: u8 = 254;
const WITNESS: u8 = 250;
const CLIENT: u8 = 200;
/// Host parts of the addresses kept free for virtual IPs.
const VIP_POOL: std::ops::RangeInclusive<u8> = 100..=119;

/// What a host is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Runs `stead agent`.
    Node,
    /// Runs nothing: where users sit.
    Client,
    /// Runs `stead witness`.
    Witness,
}

/// One plug of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkPlan {
    /// Network, and name of the interface inside the host.
    pub net: String,
    /// Name of the plug on the switch.
    pub port: String,
    /// Address inside the host (prefix /24).
    pub addr: String,
    /// MAC inside the host.
    pub mac: String,
    /// MAC of the plug.
    pub port_mac: String,
}

/// One host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostPlan {
    /// Name, also its hostname.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// One per network.
    pub links: Vec<LinkPlan>,
}

/// One network: a bridge with the gateway's address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetPlan {
    /// `net1`, `net2`: also the bridge's name.
    pub name: String,
    /// The switch's own address.
    pub gateway: String,
    /// MAC of the bridge, fixed: a bridge otherwise takes its lowest port's and changes it when that port goes.
    pub mac: String,
}

/// A whole lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the lab.
    pub name: String,
    /// The `stead` program.
    pub program: PathBuf,
    /// What runs on the hosts.
    pub agents: Agents,
    /// Size of each disk.
    pub disk_mib: u64,
    /// Networks.
    pub nets: Vec<NetPlan>,
    /// Nodes first, then client, then witness.
    pub hosts: Vec<HostPlan>,
    /// Free addresses of net1.
    pub vip_pool: Vec<String>,
}

impl Plan {
    /// Lays out the lab.
    pub fn new(options: &Options) -> Self {
        let nets = 1..=options.networks;
        let host = |name: String, kind, number: u8| HostPlan {
            links: nets.clone().map(|net| link(&name, net, number)).collect(),
            name,
            kind,
        };
        let mut hosts: Vec<_> = (1..=options.nodes).map(|n| host(format!("node{n}"), Kind::Node, n)).collect();
        hosts.push(host("client".to_owned(), Kind::Client, CLIENT));
        if options.witness {
            hosts.push(host("witness".to_owned(), Kind::Witness, WITNESS));
        }
        Self {
            name: options.name.clone(),
            program: options.program.clone(),
            agents: options.agents,
            disk_mib: options.disk_mib,
            nets: nets
                .clone()
                .map(|net| NetPlan {
                    name: format!("net{net}"),
                    gateway: format!("10.0.{net}.{GATEWAY}"),
                    mac: format!("02:00:0a:00:{net:02x}:{GATEWAY:02x}"),
                })
                .collect(),
            hosts,
            vip_pool: VIP_POOL.map(|n| format!("10.0.1.{n}")).collect(),
        }
    }

    /// Position of a host.
    pub fn host(&self, name: &str) -> Result<usize, LabError> {
        self.hosts.iter().position(|host| host.name == name).ok_or_else(|| LabError::UnknownHost {
            host: name.to_owned(),
            known: join(self.hosts.iter().map(|host| host.name.as_str())),
        })
    }

    /// Positions of the networks meant by an optional name: all without one.
    pub fn nets(&self, name: Option<&str>) -> Result<Vec<usize>, LabError> {
        let Some(name) = name else { return Ok((0..self.nets.len()).collect()) };
        match self.nets.iter().position(|net| net.name == name) {
            Some(at) => Ok(vec![at]),
            None => Err(LabError::UnknownNet {
                net: name.to_owned(),
                known: join(self.nets.iter().map(|net| net.name.as_str())),
            }),
        }
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn link(host: &str, net: u8, number: u8) -> LinkPlan {
    LinkPlan {
        net: format!("net{net}"),
        port: format!("{host}-net{net}"),
        addr: format!("10.0.{net}.{number}"),
        mac: format!("02:00:0a:00:{net:02x}:{number:02x}"),
        port_mac: format!("02:00:0b:00:{net:02x}:{number:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_documented_ones_and_ports_fit_an_interface_name() {
        let options = Options { nodes: 16, networks: 2, witness: true, ..Options::new("/proc/self/exe".into()) };
        let plan = Plan::new(&options);
        assert_eq!(plan.hosts[0].links[0].addr, "10.0.1.1");
        assert_eq!(plan.hosts[1].links[1].addr, "10.0.2.2");
        assert_eq!(plan.nets[0].gateway, "10.0.1.254");
        assert_eq!(plan.vip_pool.first().map(String::as_str), Some("10.0.1.100"));
        let ports: std::collections::BTreeSet<_> =
            plan.hosts.iter().flat_map(|host| &host.links).map(|link| &link.port).collect();
        assert_eq!(ports.len(), 18 * 2);
        assert!(ports.iter().all(|port| port.len() <= 15));
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let plan = Plan::new(&Options::new("/proc/self/exe".into()));
        let text = plan.host("node9").unwrap_err().to_string();
        assert!(text.contains("node9") && text.contains("node1, node2, client"), "{text}");
        let text = plan.nets(Some("net2")).unwrap_err().to_string();
        assert!(text.contains("net2") && text.contains("net1"), "{text}");
    }
}
