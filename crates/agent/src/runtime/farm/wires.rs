//! What a farm module has on the wire: its virtual addresses on every member, and the packet filter in front of them.
//!
//! Decides nothing. **Invariant:** an address is there only behind a filter; a filter that was shown no view accepts nothing.

use super::super::addresses::interface_of;
use super::super::chronicle::Chronicle;
use super::generations::Generations;
use crate::cluster_config::causes;
use cluster::farm::picture::{Plan, Presence};
use cluster::farm::shares::Shares;
use model::api::{FarmFlowsView, FarmInterfaceView, LogLevel, VipView};
use model::farm::{BUCKETS, DEPTH, Fate, Filter as RuleFilter, NOBODY, Picture, Proto, Rule, Station, View};
use model::limits::{FILTER_LEASE_MS, PIN_MS};
use model::schema::farm::Farm;
use model::schema::module::Vip;
use model::{ModuleId, NodeId};
use platform::farm::{Claim, Filter, FilterError, Pins, Place};
use platform::net::{Address, Announcer, Interface, Mac, Network, host_prefix, tcp_reset};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(FILTER_LEASE_MS);

/// What it is made of.
pub struct Wiring {
    /// Name of the module.
    pub module: String,
    /// Its number.
    pub id: ModuleId,
    /// This node.
    pub me: NodeId,
    /// Where the kernel keeps attached filters.
    pub dir: PathBuf,
    /// Virtual addresses.
    pub vips: Vec<Vip>,
    /// Rules.
    pub farm: Farm,
    /// Scores of each group.
    pub groups: Vec<Shares>,
    /// Reset connections before an address is removed.
    pub tcpreset: bool,
    /// Kernel's network tables.
    pub network: Arc<Network>,
    /// Log.
    pub chronicle: Arc<Mutex<Chronicle>>,
}

/// The addresses and filters of one module.
pub struct Wires {
    pub(super) wiring: Wiring,
    pub(super) wires: Vec<Wire>,
    /// What every node says its virtual addresses' hardware addresses are.
    pub(super) macs: BTreeMap<NodeId, Vec<[u8; 6]>>,
    pub(super) shown: Option<View>,
    presence: Presence,
    /// Frames of connections that nobody here has are not answered.
    doubts: bool,
}

/// One interface.
pub(super) struct Wire {
    pub(super) interface: String,
    /// The kernel's number of it: another one after it was gone.
    pub(super) index: u32,
    /// Indexes of its addresses in the configuration.
    pub(super) vips: Vec<usize>,
    pub(super) plan: Plan,
    pub(super) mac: [u8; 6],
    pub(super) filter: Filter,
    pub(super) generations: Generations,
    pub(super) is_attached: bool,
    pub(super) announcers: Vec<Announcer>,
    pub(super) problem: String,
}

impl Wires {
    /// Nothing is there yet.
    #[must_use]
    pub fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            wires: Vec::new(),
            macs: BTreeMap::new(),
            shown: None,
            presence: Presence::default(),
            doubts: false,
        }
    }

    /// Wanted: every address, behind a filter that accepts nothing yet. `goes_on`: an earlier agent left a filter that serves; it stays
    /// until a view is shown. That no stranger has them was asked before ([`Wires::question`]).
    ///
    /// # Errors
    /// The sentence why not; nothing is there then.
    pub async fn take(&mut self, goes_on: bool) -> Result<(), String> {
        let taken = self.try_take(goes_on).await;
        if taken.is_err() {
            self.release().await;
        }
        taken
    }

    async fn try_take(&mut self, goes_on: bool) -> Result<(), String> {
        let mut places: Vec<(Interface, [u8; 6], Vec<usize>)> = Vec::new();
        for (index, vip) in self.wiring.vips.iter().enumerate() {
            let interface = interface_of(&self.wiring.network, vip).await?;
            let Some(mac) = interface.mac else {
                return Err(format!("{} has no hardware address: a farm needs an Ethernet interface", interface.name));
            };
            match places.iter_mut().find(|(it, ..)| it.name == interface.name) {
                Some((.., vips)) => vips.push(index),
                None => places.push((interface, mac.0, vec![index])),
            }
        }
        let mut macs = vec![[0; 6]; self.wiring.vips.len()];
        self.wires.clear();
        for (it, mac, vips) in places {
            let (name, interface, index) = (self.wiring.own_name(&it), it.name, it.index);
            vips.iter().for_each(|index| macs[*index] = mac);
            let loaded = tokio::task::spawn_blocking(Filter::load).await.map_err(|error| error.to_string())?;
            let plan = self.plan(&vips);
            let filter = loaded.map_err(|error| causes(&error))?;
            let (announcers, problem, generations) = (Vec::new(), String::new(), Generations::default());
            let is_attached = false;
            let mut wire =
                Wire { interface, index, vips, plan, mac, filter, generations, is_attached, announcers, problem };
            if !goes_on {
                wire.hide(self.wiring.me).map_err(|error| causes(&error))?;
                wire.attach(&self.wiring).map_err(|error| causes(&error))?;
            }
            let spoken = platform::farm::speak_in_own_name(&wire.interface).and_then(|()| wire.filter.speak_as(name));
            if let Err(error) = spoken {
                self.log(LogLevel::C, &causes(&error));
            }
            self.wires.push(wire);
        }
        self.macs.insert(self.wiring.me, macs);
        for wire in &self.wires {
            for vip in wire.vips.iter().map(|index| &self.wiring.vips[*index]) {
                if let Some(vmac) = vip.vmac.map(Mac) {
                    let received = self.wiring.network.receive_also(&wire.interface, vmac).await;
                    received.map_err(|error| causes(&error))?;
                }
                let set = self.wiring.network.vip_up(&wire.interface, vip.addr, host_prefix(vip.addr)).await;
                if set.map_err(|error| causes(&error))? {
                    let text = format!("Virtual IP <{} of {}> set on {}", vip.addr, self.wiring.module, wire.interface);
                    self.log(LogLevel::E, &text);
                }
            }
        }
        Ok(())
    }

    /// The rules that concern these addresses, numbered as they are on one interface.
    fn plan(&self, here: &[usize]) -> Plan {
        let vips: Vec<IpAddr> = here.iter().map(|index| self.wiring.vips[*index].addr).collect();
        let place = |addr: IpAddr| vips.iter().position(|vip| *vip == addr).and_then(|at| u8::try_from(at).ok());
        let rules = self.wiring.farm.rules.iter().filter_map(|rule| {
            let vip = match rule.addr {
                Some(addr) => Some(place(addr)?),
                None => None,
            };
            Some(Rule { vip, port: rule.port, proto: rule.proto?, filter: rule.filter, group: rule.group })
        });
        Plan {
            vmacs: here.iter().map(|index| self.wiring.vips[*index].vmac).collect(),
            rules: rules.collect(),
            arp_group: self.wiring.farm.rules.iter().find(|rule| rule.proto.is_none()).map(|rule| rule.group),
            groups: self.wiring.groups.clone(),
            vips,
        }
    }

    /// Wanted: no address, no filter.
    pub async fn release(&mut self) {
        self.shown = None;
        // The announcers end before the addresses go: nothing is announced that is not held.
        self.wires.iter_mut().for_each(|wire| wire.announcers.clear());
        for vip in &self.wiring.vips {
            let ip = vip.addr;
            if self.wiring.tcpreset
                && let Ok(Err(error)) = tokio::task::spawn_blocking(move || tcp_reset::reset_connections(ip)).await
            {
                tracing::debug!(%ip, %error, "connections of the virtual IP were not reset");
            }
            match self.wiring.network.vip_down(ip).await {
                Ok(false) => {}
                Ok(true) => self.log(LogLevel::E, &format!("Virtual IP <{ip} of {}> removed", self.wiring.module)),
                Err(error) => self.log(LogLevel::C, &causes(&error)),
            }
        }
        let place = self.wiring.place();
        for wire in std::mem::take(&mut self.wires) {
            for vmac in wire.plan.vmacs.iter().flatten() {
                if let Err(error) = self.wiring.network.receive_no_more(&wire.interface, Mac(*vmac)).await {
                    self.log(LogLevel::C, &causes(&error));
                }
            }
            if let Err(error) = platform::farm::detach(&wire.interface, &place) {
                self.log(LogLevel::C, &causes(&error));
            }
        }
    }

    /// From the next packet on the filters decide by this view.
    pub fn show(&mut self, view: &View) {
        let me = self.wiring.me;
        self.presence.see(view);
        let mut problems = Vec::new();
        for wire in &mut self.wires {
            let macs = &self.macs;
            let first = wire.vips.first().copied().unwrap_or(0);
            let mac_of = |node: NodeId| macs.get(&node).and_then(|macs| macs.get(first)).copied();
            let Some(picture) = wire.plan.picture(view, &self.presence, me, mac_of) else { continue };
            let picture = Picture { doubts: self.doubts, ..picture };
            let shown = wire
                .filter
                .show(&picture)
                .and_then(|()| wire.filter.renew(LEASE))
                .and_then(|()| wire.attach(&self.wiring));
            wire.problem = shown.err().map(|error| causes(&error)).unwrap_or_default();
            if !wire.problem.is_empty() {
                problems.push(wire.problem.clone());
            }
            if view.director != me {
                wire.announcers.clear();
            }
        }
        problems.iter().for_each(|problem| self.log(LogLevel::C, problem));
        self.shown = Some(view.clone());
    }

    /// May connections stand where this node does not see them?
    pub fn doubt(&mut self, doubts: bool) {
        if std::mem::replace(&mut self.doubts, doubts) != doubts
            && let Some(view) = self.shown.clone()
        {
            self.show(&view);
        }
    }

    /// From the next packet on nothing is accepted.
    pub fn hide(&mut self) {
        self.shown = None;
        self.presence.forget();
        let me = self.wiring.me;
        let problems: Vec<FilterError> = self.wires.iter_mut().filter_map(|wire| wire.hide(me).err()).collect();
        problems.iter().for_each(|error| self.log(LogLevel::C, &causes(error)));
        self.count_anew(0);
    }

    /// What comes from now on belongs to this view (0: to none).
    pub fn count_anew(&mut self, view: u64) {
        for wire in &mut self.wires {
            // For people: what cannot be read now is told with the view before.
            if let Ok(so_far) = wire.filter.counters() {
                wire.generations.begin(view, so_far);
            }
        }
    }

    /// The agent lives: the filters go on.
    pub fn renew(&mut self) {
        if self.shown.is_none() {
            return;
        }
        for wire in &mut self.wires {
            if let Err(error) = wire.filter.renew(LEASE) {
                wire.problem = causes(&error);
            }
        }
    }

    /// This node answers for the addresses: the network is told, at once and again. Where every member answers clients of its own (`proto="arp"`) no
    /// longer than a new view needs it: with every word all clients come here, and stay until they ask again (for 8 s, with Linux).
    pub fn announce(&mut self) {
        for wire in &mut self.wires {
            if wire.announcers.is_empty() {
                let started: Result<Vec<_>, _> = wire
                    .plan
                    .vips
                    .iter()
                    .zip(&wire.plan.vmacs)
                    .map(|(ip, vmac)| match vmac {
                        Some(vmac) => Announcer::start_as(&wire.interface, *ip, Mac(*vmac)),
                        None if wire.plan.arp_group.is_some() => Announcer::start_briefly(&wire.interface, *ip),
                        None => Announcer::start_among_others(&wire.interface, *ip),
                    })
                    .collect();
                match started {
                    Ok(announcers) => wire.announcers = announcers,
                    Err(error) => wire.problem = format!("it cannot be announced: {}", causes(&error)),
                }
            } else {
                wire.announcers.iter().for_each(Announcer::announce_now);
            }
        }
    }

    /// Hardware addresses of another node. When they are news, what is shown is shown again.
    pub fn learn(&mut self, node: NodeId, macs: Vec<[u8; 6]>) {
        if macs.is_empty() || self.macs.get(&node) == Some(&macs) {
            return;
        }
        self.macs.insert(node, macs);
        if let Some(view) = self.shown.clone()
            && view.present.has(node)
        {
            self.show(&view);
        }
    }

    /// This node's own, for its word.
    #[must_use]
    pub fn own_macs(&self) -> Vec<[u8; 6]> {
        if self.wires.is_empty() { Vec::new() } else { self.macs.get(&self.wiring.me).cloned().unwrap_or_default() }
    }

    /// Rules and groups.
    #[must_use]
    pub fn configured(&self) -> &Farm {
        &self.wiring.farm
    }

    /// Connections to the addresses that stand here; `None`: they cannot be counted now.
    pub async fn connections(&self) -> Option<usize> {
        let ips: Vec<IpAddr> = self.wiring.vips.iter().map(|vip| vip.addr).collect();
        let count = move || ips.into_iter().map(tcp_reset::standing_connections).sum::<Result<usize, _>>();
        match tokio::task::spawn_blocking(count).await {
            Ok(Ok(count)) => Some(count),
            Ok(Err(error)) => {
                tracing::warn!(module = %self.wiring.module, %error, "connections cannot be counted");
                None
            }
            Err(_) => None,
        }
    }

    /// What stands here, counted beside the loop.
    pub fn flows(&self) -> impl Future<Output = FarmFlowsView> + Send + 'static {
        let ips: Vec<IpAddr> = self.wiring.vips.iter().map(|vip| vip.addr).collect();
        let pins: Vec<Pins> = self.wires.iter().map(|wire| wire.filter.pins()).collect();
        let count = move || {
            let connections = ips.into_iter().map(tcp_reset::standing_connections).sum::<Result<usize, _>>();
            let pinned = pins.iter().map(|pins| pins.count(Duration::from_millis(PIN_MS))).sum::<Result<usize, _>>();
            let told = |why: &dyn std::fmt::Display| tracing::debug!(%why, "flows cannot be counted");
            FarmFlowsView {
                connections: connections.inspect_err(|error| told(error)).ok().map(|count| count as u64),
                pinned: pinned.inspect_err(|error| told(error)).ok().map(|count| count as u64),
            }
        };
        async move { tokio::task::spawn_blocking(count).await.unwrap_or_default() }
    }

    /// Are flows of UDP dealt out that stay with their node?
    #[must_use]
    pub fn has_flows(&self) -> bool {
        self.wiring.farm.rules.iter().any(|rule| rule.proto == Some(Proto::Udp) && rule.filter != RuleFilter::OnIpid)
    }

    /// Packets that this node has taken since the filters were loaded.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        let of = |wire: &Wire| wire.filter.counters().unwrap_or_default();
        let all = self.wires.iter().flat_map(of);
        all.filter(|(fate, _)| *fate == Fate::Accepted).map(|(_, count)| count).sum()
    }

    /// Buckets of each node that is present, by group.
    #[must_use]
    pub fn shares(&self) -> Vec<Vec<(NodeId, usize)>> {
        let Some(view) = &self.shown else { return Vec::new() };
        let present: Vec<NodeId> = view.present.nodes().collect();
        let serving: Vec<NodeId> = view.serving().nodes().collect();
        let counts = |shares: &Shares| {
            let counts = Shares::counts(&shares.table(&present, std::slice::from_ref(&serving)), present.len());
            present.iter().copied().zip(counts).collect()
        };
        self.wiring.groups.iter().map(counts).collect()
    }

    /// For the status.
    #[must_use]
    pub fn vips(&self) -> Vec<VipView> {
        let views = self.wiring.vips.iter().enumerate().map(|(index, vip)| {
            let wire = self.wires.iter().find(|wire| wire.vips.contains(&index));
            VipView {
                addr: vip.addr.to_string(),
                held: wire.is_some(),
                interface: wire.map(|wire| wire.interface.clone()).unwrap_or_default(),
                problem: wire.map(|wire| wire.problem.clone()).unwrap_or_default(),
            }
        });
        views.collect()
    }

    /// The filters and what became of frames.
    #[must_use]
    pub fn interfaces(&self) -> Vec<FarmInterfaceView> {
        let view = |wire: &Wire| {
            let strangers = self.strangers(&wire.filter.claims().unwrap_or_default());
            let mut counters = wire.filter.counters().unwrap_or_default();
            let generations = wire.generations.views(&counters);
            for (_, count) in counters.iter_mut().filter(|(fate, _)| *fate == Fate::Conflict) {
                *count = strangers.iter().map(|claim| claim.count).sum();
            }
            let problem = match strangers.iter().max_by_key(|claim| claim.count) {
                Some(claim) if wire.problem.is_empty() => {
                    format!("{} spoke as a virtual address {} times: two machines have it", claim.mac, claim.count)
                }
                _ => wire.problem.clone(),
            };
            FarmInterfaceView {
                interface: wire.interface.clone(),
                addrs: wire.plan.vips.iter().map(ToString::to_string).collect(),
                counters,
                generations,
                problem,
            }
        };
        self.wires.iter().map(view).collect()
    }

    /// Those who are no node of the farm: what a member announced before its hardware address was known here is no stranger's.
    fn strangers(&self, claims: &[Claim]) -> Vec<Claim> {
        let is_known = |mac: Mac| self.macs.values().flatten().any(|known| *known == mac.0);
        claims.iter().copied().filter(|claim| !is_known(claim.mac)).collect()
    }

    pub(super) fn log(&self, level: LogLevel, text: &str) {
        self.wiring.chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("vipplug", level, text);
    }
}

impl Wiring {
    /// The node's own IPv6 address there: link-local, else another that is no virtual one.
    pub(super) fn own_name(&self, interface: &Interface) -> Option<Ipv6Addr> {
        let is_own = |it: &&Address| !it.is_ours && self.vips.iter().all(|vip| vip.addr != it.ip);
        let own = interface.addresses.iter().filter(is_own).filter_map(|it| match it.ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        });
        own.min_by_key(|ip| !ip.is_unicast_link_local())
    }

    fn place(&self) -> Place {
        Place { dir: self.dir.clone(), name: self.module.clone(), id: self.id.0 }
    }
}

impl Wire {
    pub(super) fn attach(&mut self, wiring: &Wiring) -> Result<(), FilterError> {
        if !self.is_attached {
            self.filter.attach(&self.interface, &wiring.place())?;
            self.is_attached = true;
        }
        Ok(())
    }

    /// A picture in which nobody owns anything, and no lease.
    fn hide(&mut self, me: NodeId) -> Result<(), FilterError> {
        self.announcers.clear();
        self.filter.renew(Duration::ZERO)?;
        self.filter.show(&Picture {
            number: 0,
            me: 0,
            director: NOBODY,
            stations: vec![Station { node: me, mac: self.mac }],
            since: vec![0],
            vips: self.plan.vips.clone(),
            vmacs: self.plan.vmacs.clone(),
            pin_ms: 0,
            part_ms: 2_000,
            doubts: false,
            rules: self.plan.rules.clone(),
            arp_group: None,
            tables: self.plan.groups.iter().map(|_| vec![[NOBODY; DEPTH]; BUCKETS]).collect(),
        })
    }
}
