//! The checkers that a virtual address brings with it: `check` and `connections` of `<vip>`.

use super::checkers::{Check, Checkers, Debounce, Probe, When};
use super::table::{ElementRow, SAFE};
use super::tree::Element;
use super::typed::Reader;
use crate::rules::Act;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The checkers that `check` and `connections` of `<vip>` stand for, unless the same thing is watched by name.
pub(super) fn add(service: &Element, checkers: &mut Checkers) {
    let row = SAFE.child("service").and_then(|row| row.child("vip")).expect("the table has <vip>");
    let within = |of: Reader<'_>, name: &str| -> Vec<(Element, &'static ElementRow)> {
        let row = of.row.child(name).expect("the table has the parts of <vip>");
        of.element.all(name).map(|element| (element.clone(), row)).collect()
    };
    let check = |resource: String, when, act, interval_ms, probe| Check {
        resource,
        when,
        act,
        rule: String::new(),
        debounce: Debounce { grace_ms: 0, ..Debounce::DEFAULT },
        interval_ms,
        timeout_ms: 1_000,
        probe,
    };
    let mut made: Vec<Check> = Vec::new();
    for vip in service.all("vip") {
        let lists = within(Reader { element: vip, row }, "interface_list");
        let interfaces = lists.iter().flat_map(|(list, row)| within(Reader { element: list, row }, "interface"));
        for (interface, row) in interfaces {
            let carrier = Reader { element: &interface, row };
            for kind in ["real_interface", "virtual_interface"] {
                for (part, row) in within(carrier, kind) {
                    for (addr, row) in within(Reader { element: &part, row }, "virtual_addr") {
                        let it = Reader { element: &addr, row };
                        let Some(ip) = it.address("addr") else { continue };
                        if carrier.is_on("check") {
                            let prefix = it.text("netmask").and_then(super::typed::netmask);
                            let (name, local) = match (carrier.text("name"), prefix) {
                                (Some(name), _) => (name.to_string(), name.to_string()),
                                (None, Some(prefix)) => (network(ip, prefix), ip.to_string()),
                                (None, None) => (ip.to_string(), ip.to_string()),
                            };
                            let probe = Probe::Intf { local };
                            made.push(check(format!("intf.{name}"), When::Pre, Act::Wait, 1_000, probe));
                        }
                        let host = ip.to_string();
                        if it.is_on("check") {
                            let probe = Probe::Ip { host: host.clone() };
                            made.push(check(format!("ip.{host}"), When::Prim, Act::StopStart, 1_000, probe));
                        }
                        if it.is_on("connections") {
                            let probe = Probe::Connections { host: host.clone() };
                            made.push(check(format!("connections.{host}"), When::Prim, Act::NoAction, 10_000, probe));
                        }
                    }
                }
            }
        }
    }
    for check in made {
        if !checkers.checks.iter().any(|known| known.resource == check.resource || known.probe == check.probe) {
            checkers.checks.push(check);
        }
    }
}

/// The address of the network that this address is in.
fn network(ip: core::net::IpAddr, prefix: u8) -> String {
    match ip {
        core::net::IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            core::net::Ipv4Addr::from(u32::from(ip) & mask).to_string()
        }
        core::net::IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            core::net::Ipv6Addr::from(u128::from(ip) & mask).to_string()
        }
    }
}
