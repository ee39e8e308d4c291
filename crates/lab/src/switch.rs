//! The switch: one bridge per network in the supervisor's network namespace, one plug per host and network.
//!
//! Faults are made here, on the switch's side, so that nothing a host does can undo them. Frames are dropped before
//! the bridge sees them and after it sent them (netdev hooks), ARP included; the wanted faults of a host are always
//! written as one table in one transaction.

use crate::plan::{HostPlan, LinkPlan, Plan};
use crate::{LabError, tools};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is wrong with one plug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFaults {
    /// Frames are dropped both ways, the carrier stays.
    pub cut: bool,
    /// The host sees no carrier.
    pub carrier_down: bool,
    /// Peers not heard any more: name → MAC.
    pub deaf_to: BTreeMap<String, String>,
}

impl LinkFaults {
    /// In words, for the status.
    pub fn describe(&self, net: &str) -> Vec<String> {
        let mut words = Vec::new();
        if self.carrier_down {
            words.push(format!("{net}: no carrier"));
        } else if self.cut {
            words.push(format!("{net}: cut"));
        }
        words.extend(self.deaf_to.keys().map(|peer| format!("{net}: does not hear {peer}")));
        words
    }
}

/// Makes the bridges in the calling process's network namespace.
pub fn make(plan: &Plan) -> Result<(), LabError> {
    // The switch has addresses, but it forwards nothing between its networks.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_forward", "0");
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let mut script = "link set lo up\n".to_owned();
    for net in &plan.nets {
        let _ = writeln!(
            script,
            "link add name {0} address {1} type bridge forward_delay 0 mcast_snooping 0\n\
             addr add {2}/24 broadcast + dev {0}\nlink set {0} up",
            net.name, net.mac, net.gateway
        );
    }
    tools::feed("ip", &["-batch", "-"], &script)
}

/// Plugs a host in: the other ends appear in the network namespace of `pid`, the plugs are still down.
pub fn plug(host: &HostPlan, pid: i32) -> Result<(), LabError> {
    let mut script = String::new();
    for LinkPlan { net, port, mac, port_mac, .. } in &host.links {
        let _ = writeln!(
            script,
            "link add name {port} address {port_mac} type veth peer name {net} address {mac} netns {pid}\n\
             link set {port} master {net}"
        );
    }
    tools::feed("ip", &["-batch", "-"], &script)
}

/// Sets the plugs up, except those without carrier.
pub fn raise(host: &HostPlan, faults: &[LinkFaults]) -> Result<(), LabError> {
    let mut script = String::new();
    for (link, fault) in host.links.iter().zip(faults) {
        let _ = writeln!(script, "link set {} {}", link.port, if fault.carrier_down { "down" } else { "up" });
    }
    tools::feed("ip", &["-batch", "-"], &script)
}

/// Pulls all plugs of a host.
pub fn unplug(host: &HostPlan) -> Result<(), LabError> {
    let mut script = String::new();
    for link in &host.links {
        let _ = writeln!(script, "link del {}", link.port);
    }
    // Unforced, so that one plug already gone with its host does not keep the other.
    tools::feed("ip", &["-force", "-batch", "-"], &script)
}

/// Makes the frame drops of a host what is wanted. `silent`: nothing passes at all (frozen, losing power).
pub fn drop_frames(host: &HostPlan, faults: &[LinkFaults], silent: bool) -> Result<(), LabError> {
    tools::feed("nft", &["-f", "-"], &table(host, faults, silent))
}

fn table(host: &HostPlan, faults: &[LinkFaults], silent: bool) -> String {
    let table = format!("netdev lab_{}", host.name);
    // Adding before deleting: deleting what is not there would fail.
    let mut script = format!("add table {table}\ndelete table {table}\n");
    let broken = |fault: &LinkFaults| silent || fault.cut || !fault.deaf_to.is_empty();
    if !faults.iter().any(broken) {
        return script;
    }
    let _ = writeln!(script, "add table {table}");
    for (LinkPlan { net, port, .. }, fault) in host.links.iter().zip(faults) {
        let mut chain = |hook: &str, policy: &str| {
            let _ = writeln!(
                script,
                "add chain {table} {net}_{hook} {{ type filter hook {hook} device \"{port}\" priority -500; policy {policy}; }}"
            );
        };
        if silent || fault.cut {
            // Ingress of the plug is what the host says, egress what it hears.
            chain("ingress", "drop");
            chain("egress", "drop");
        } else if !fault.deaf_to.is_empty() {
            chain("egress", "accept");
            for mac in fault.deaf_to.values() {
                let _ = writeln!(script, "add rule {table} {net}_egress ether saddr {mac} drop");
            }
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[test]
    fn a_healthy_host_has_no_table_and_a_silent_one_drops_everything() {
        let plan = Plan::new(&Options { networks: 2, ..Options::new("/proc/self/exe".into()) });
        let host = &plan.hosts[0];
        let mut faults = vec![LinkFaults::default(); 2];
        assert!(!table(host, &faults, false).contains("chain"));
        assert_eq!(table(host, &faults, true).matches("policy drop").count(), 4);
        faults[1].deaf_to.insert("node2".into(), "02:00:0a:00:02:02".into());
        let text = table(host, &faults, false);
        assert!(text.contains("device \"node1-net2\"") && !text.contains("policy drop"), "{text}");
        assert!(text.contains("net2_egress ether saddr 02:00:0a:00:02:02 drop"), "{text}");
        faults[1].cut = true;
        assert!(!table(host, &faults, false).contains("saddr"));
    }

    #[test]
    fn faults_are_told_in_words() {
        let mut faults = LinkFaults { cut: true, ..LinkFaults::default() };
        faults.deaf_to.insert("node2".into(), String::new());
        assert_eq!(faults.describe("net1"), ["net1: cut", "net1: does not hear node2"]);
    }
}
