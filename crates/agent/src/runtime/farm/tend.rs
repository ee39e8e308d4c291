//! What is asked before a farm's addresses are taken, and what is looked after while they are held.
//!
//! Decides nothing. **Invariant:** what is wanted is set again when somebody took it away, and said in the log.

use super::super::addresses::interface_of;
use super::wires::Wires;
use crate::cluster_config::causes;
use model::api::LogLevel;
use platform::net::{Mac, host_prefix, neighbour};

impl Wires {
    /// Has another machine one of the addresses? Asking takes a second for each: it is done beside the loop. `is_member`: is it a network
    /// card of another node?
    ///
    /// # Errors (of the answer)
    /// The sentence why the addresses cannot be taken.
    pub fn question(
        &self,
        is_member: impl Fn(Mac) -> bool + Send + 'static,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static {
        let (vips, network) = (self.wiring.vips.clone(), self.wiring.network.clone());
        let (module, macs) = (self.wiring.module.clone(), self.macs.clone());
        async move {
            for vip in &vips {
                let (ip, interface) = (vip.addr, interface_of(&network, vip).await?);
                if interface.holds(ip) {
                    continue;
                }
                let name = interface.name.clone();
                let asked = tokio::task::spawn_blocking(move || neighbour::probe_duplicate(&name, ip)).await;
                let is_all = |mac: Mac| vip.vmac.is_some_and(|vmac| vmac == mac.0);
                let known =
                    |mac: Mac| is_member(mac) || is_all(mac) || macs.values().flatten().any(|known| *known == mac.0);
                match asked {
                    Ok(Ok(Some(mac))) if !known(mac) => {
                        return Err(format!(
                            "{ip} is answered by {mac} on {}, another machine: take {ip} away from it, or give module {module} another address (stead config -m {module})",
                            interface.name
                        ));
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(format!("{ip}: {}", causes(&error))),
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        }
    }

    /// Sets again what an administrator, or an interface that was gone, took away. True: this node's hardware address is another now.
    pub async fn tend(&mut self) -> bool {
        if self.wires.is_empty() {
            return false;
        }
        // What cannot be asked now is asked again in a second.
        let Ok(interfaces) = self.wiring.network.interfaces().await else { return false };
        let (mut lines, mut is_news) = (Vec::new(), false);
        for wire in &mut self.wires {
            let name = wire.interface.clone();
            let Some(interface) = interfaces.iter().find(|interface| interface.name == name) else {
                if wire.index != 0 {
                    wire.index = 0;
                    wire.is_attached = false;
                    wire.announcers.clear();
                    wire.problem = format!("{name} is gone: its virtual addresses are set again when it comes back");
                    lines.push((LogLevel::C, wire.problem.clone()));
                }
                continue;
            };
            if wire.index != interface.index {
                wire.is_attached = false;
                if let Err(error) = wire.attach(&self.wiring) {
                    // No address without a filter in front of it: tried again in a second.
                    let why = format!("{name} is there again without its virtual addresses: {}", causes(&error));
                    if wire.problem != why {
                        lines.push((LogLevel::C, why.clone()));
                        wire.problem = why;
                    }
                    continue;
                }
                wire.index = interface.index;
                let spoken = platform::farm::speak_in_own_name(&name);
                wire.problem = spoken.err().map(|error| causes(&error)).unwrap_or_default();
                for vmac in wire.plan.vmacs.iter().flatten() {
                    if let Err(error) = self.wiring.network.receive_also(&name, Mac(*vmac)).await {
                        wire.problem = causes(&error);
                    }
                }
                lines.push((LogLevel::E, format!("{name} is another interface now: the packet filter is on it again")));
                if let Some(mac) = interface.mac.filter(|mac| mac.0 != wire.mac) {
                    wire.mac = mac.0;
                    is_news = true;
                    if let Some(own) = self.macs.get_mut(&self.wiring.me) {
                        wire.vips.iter().for_each(|index| own[*index] = mac.0);
                    }
                }
            }
            // The kernel may have made it a moment after the interface came.
            if let Err(error) = wire.filter.speak_as(self.wiring.own_name(interface)) {
                wire.problem = causes(&error);
            }
            for ip in wire.vips.iter().map(|index| self.wiring.vips[*index].addr).filter(|ip| !interface.holds(*ip)) {
                match self.wiring.network.vip_up(&name, ip, host_prefix(ip)).await {
                    Ok(true) => lines.push((
                        LogLevel::E,
                        format!(
                            "Virtual IP <{ip} of {}> was taken off {name} by somebody: set again",
                            self.wiring.module
                        ),
                    )),
                    Ok(false) => {}
                    Err(error) => wire.problem = causes(&error),
                }
            }
        }
        lines.iter().for_each(|(level, text)| self.log(*level, text));
        if is_news && let Some(view) = self.shown.clone() {
            self.show(&view);
        }
        is_news
    }
}
