//! The heartbeats, and what the modules' loops hear of them.
//!
//! Timing and liveness are judged in the heartbeat thread by the pure detector; here the signals only find their way
//! to the modules of the peer they speak of.

use super::agent::Agent;
use super::farm::News as FarmNews;
use super::instance::Instance;
use crate::cluster_config::Cluster;
use crate::heartbeat::{Config, Event as News, Heartbeat, Judge, Network, Peer, Ran, Said, Snapshot, Words};
use cluster::detector::Signal;
use cluster::mirror::{Advert, Event};
use model::api::{ClusterView, LinkView, MemberView, NetworkView, PeerNodeView, RealtimeView};
use model::limits::{FILTER_LEASE_MS, LOST_MS, PULSE_MS, Timing};
use model::{ModuleId, ModuleState, NodeId, NodeName, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often a peer's hardware addresses are learnt again.
const LEARN: Duration = Duration::from_secs(30);
/// The same, while nothing is known of a peer.
const LEARN_AGAIN: Duration = Duration::from_secs(1);
/// How long a peer may take to tell its version.
const VERSION: Duration = Duration::from_millis(500);
/// A network on which a peer was not heard for three pulses is no good way to it.
const UNHEARD_MS: u64 = 3 * PULSE_MS;
/// A node that lives and for so long says nothing of a module does not run it: an agent that starts has all its modules by then.
const LACKS: Duration = Duration::from_secs(5);
/// How long a farm's node that hears none of several others any more waits before it goes on alone.
const BLINK: Duration = Duration::from_millis(500);
/// Who was heard within this was there when the silence began.
const LATELY_MS: u64 = 1_500;
/// What a node that lives says of a module it does not run.
const NOTHING: Advert = Advert { epoch: None, state: ModuleState::Stop, status: Status::NotReady };

/// The running heartbeats.
pub struct Heart {
    beat: Heartbeat,
    /// By what modules judge that have something of their own.
    others: Vec<Judge>,
}

/// What the heartbeats have said so far: a loop that begins later must know it too.
#[derive(Default)]
pub struct Heard {
    adverts: BTreeMap<(NodeId, ModuleId), Advert>,
    /// Since when a node that lives says nothing of a module of this pair.
    lacking: BTreeMap<(NodeId, ModuleId), Instant>,
    /// By the cluster's judge, and by that of each module that has its own. Absent: not judged yet.
    peers: BTreeMap<(NodeId, Judge), bool>,
    windows: BTreeMap<(NodeId, Judge), bool>,
    /// What every node says of its farms; absent: nothing since it fell silent.
    words: BTreeMap<NodeId, Words>,
    /// Nodes not heard again since this one slept: farms take nobody's life for granted then.
    unheard: BTreeSet<(NodeId, Judge)>,
    /// Nodes whose agent has said that it ends, and until when their filters go on without it.
    away: BTreeMap<NodeId, Instant>,
    /// How often it was found silent or heard.
    turns: BTreeMap<(NodeId, Judge), u64>,
}

impl Heard {
    /// The node is heard, and says nothing of the module.
    fn is_lacking(&self, node: NodeId, module: ModuleId, judge: &Judge) -> bool {
        self.peers.get(&(node, judge.clone())) == Some(&true) && !self.adverts.contains_key(&(node, module))
    }

    /// Each of these has been found silent, so that it will be told when it is heard again; and none has said that it leaves.
    fn is_deserted(&self, farm: &[NodeId], judge: &Judge, now: Instant) -> bool {
        farm.iter().all(|node| {
            self.peers.get(&(*node, judge.clone())) == Some(&false)
                && self.away.get(node).is_none_or(|until| *until <= now)
        })
    }
}

impl Heart {
    /// When the heartbeats' thread ran.
    pub fn ran(&self) -> Arc<Ran> {
        self.beat.ran()
    }

    /// What to say of the farms from now on.
    pub fn say(&self, words: Vec<(ModuleId, Said)>) {
        self.beat.set_words(words);
    }

    /// What to say of the modules from now on.
    pub fn advertise(&self, adverts: Vec<(ModuleId, Advert)>) {
        self.beat.set_adverts(adverts);
    }
}

/// By which the cluster's own status judges.
fn own_timing(cluster: &Cluster) -> Timing {
    Timing::for_timeout(cluster.configuration.pulse_ms, LOST_MS)
}

fn own_judge(cluster: &Cluster) -> Judge {
    Judge::by_any(own_timing(cluster))
}

fn config(cluster: &Cluster, incarnation: u64, others: Vec<Judge>) -> Config {
    let own = &cluster.identity.name;
    let lans: Vec<_> = cluster
        .configuration
        .lans
        .iter()
        .filter_map(|lan| Some((lan, lan.nodes.iter().find(|n| n.name == *own)?)))
        .collect();
    let peer = |member: &crate::cluster_config::Member| Peer {
        node: member.id,
        addresses: lans
            .iter()
            .map(|(lan, _)| lan.nodes.iter().find(|n| n.name == member.name).map(|n| n.addr))
            .collect(),
    };
    Config {
        cluster: cluster.identity.cluster,
        node: cluster.identity.node,
        incarnation,
        key: cluster.identity.key("heartbeat"),
        port: cluster.configuration.port,
        networks: lans
            .iter()
            .map(|(lan, node)| Network { name: lan.name.clone(), local: node.laddr.unwrap_or(node.addr) })
            .collect(),
        peers: cluster.peers().map(peer).collect(),
        timing: own_timing(cluster),
        others,
    }
}

/// Begins the heartbeats, or tells them of a change of the cluster.
pub fn restart(agent: &Arc<Agent>) {
    let Some(cluster) = agent.cluster.current() else { return };
    let mut heart = lock(&agent.heart);
    if let Some(heart) = &*heart {
        heart.beat.reconfigure(config(&cluster, agent.incarnation, heart.others.clone()));
    } else {
        match Heartbeat::start(config(&cluster, agent.incarnation, Vec::new()), agent.all_adverts()) {
            Ok((beat, news)) => {
                if let Some(words) = agent.all_words() {
                    beat.set_words(words);
                }
                *heart = Some(Heart { beat, others: Vec::new() });
                tokio::spawn(pass_on(Arc::clone(agent), news));
            }
            Err(error) => agent.warn(format!("no heartbeats: {}", crate::cluster_config::causes(&error))),
        }
    }
    drop(heart);
    agent.learning.begin(tokio::spawn(learn(Arc::clone(agent))));
}

/// Heartbeats judge by the patience and the networks of every module that has its own.
pub async fn follow_modules(agent: &Agent) {
    let Some(cluster) = agent.cluster.current() else { return };
    let own = own_judge(&cluster);
    let mut others: Vec<Judge> = agent.instances.read().await.values().map(|it| it.judge()).collect();
    others.sort_unstable();
    others.dedup();
    others.retain(|judge| *judge != own);
    if let Some(heart) = &mut *lock(&agent.heart)
        && heart.others != others
    {
        heart.others = others;
        heart.beat.reconfigure(config(&cluster, agent.incarnation, heart.others.clone()));
    }
}

/// A farm has its addresses: from now on its nodes are judged by the networks that carry them.
pub async fn judge_farm(agent: &Arc<Agent>, module: &str) {
    let Some(cluster) = agent.cluster.current() else { return };
    let active =
        agent.instances.read().await.values().find(|it| it.active().name.as_str() == module).map(|it| it.active());
    let Some(active) = active else { return };
    let Some(lans) = super::farm::lans_of(&active.configuration, &cluster, &agent.network).await else { return };
    let is_news = {
        let instances = agent.instances.read().await;
        let instance = instances.get(&active.name).filter(|it| !it.farm.is_empty());
        instance.is_some_and(|instance| {
            let is_news = instance.judge_by(lans);
            if is_news {
                tell_beginner(agent, instance);
            }
            is_news
        })
    };
    if is_news {
        follow_modules(agent).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This node slept, and a farm has forgotten who lives: it hears it anew.
pub async fn hear_anew(agent: &Agent, module: &str) {
    let (judge, nodes) = {
        let instances = agent.instances.read().await;
        let Some(instance) = instances.values().find(|it| it.active().name.as_str() == module) else { return };
        (instance.judge(), instance.farm.clone())
    };
    lock(&agent.heard).unheard.extend(nodes.iter().map(|node| (*node, judge.clone())));
    // Who was silent before the sleep is not found silent a second time.
    tokio::time::sleep(Duration::from_millis(judge.timing.lost_ms)).await;
    for node in nodes {
        let judged = (node, judge.clone());
        let is_silent = {
            let mut heard = lock(&agent.heard);
            heard.peers.get(&judged) == Some(&false) && heard.unheard.remove(&judged)
        };
        if is_silent {
            tell_farms(agent, node, &judge).await;
        }
    }
}

/// This agent ends, and another is to follow it: what its farms' filters do goes on meanwhile.
pub fn leave(agent: &Agent) {
    let heart = lock(&agent.heart).take();
    if let Some(heart) = heart {
        // The lease was renewed within the last pulse.
        heart.beat.leave(u16::try_from(FILTER_LEASE_MS).unwrap_or(u16::MAX));
    }
}

/// When the heartbeats' thread ran: nobody sleeps without it.
pub fn ran(agent: &Agent) -> Option<Arc<Ran>> {
    lock(&agent.heart).as_ref().map(Heart::ran)
}

fn snapshot(agent: &Agent) -> Snapshot {
    lock(&agent.heart).as_ref().map(|heart| heart.beat.snapshot()).unwrap_or_default()
}

/// Peers' hardware addresses, while they live: later they tell a fenced peer from a stranger.
async fn learn(agent: Arc<Agent>) {
    let Some(cluster) = agent.cluster.current() else { return };
    let signature = cluster.signature.clone();
    agent.keep_macs(|name| cluster.peers().any(|peer| peer.name == *name));
    while agent.cluster.current().is_some_and(|c| c.signature == signature) {
        let mut pause = LEARN;
        for peer in cluster.peers() {
            let addrs = cluster.configuration.addrs_of(&peer.name);
            let macs = agent.peer_macs(&peer.name);
            macs.learn(&agent.network, &addrs).await;
            // Both nodes booted a moment ago, most likely: before it fails for the first time it must be known.
            if macs.is_empty() {
                pause = LEARN_AGAIN;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn pass_on(agent: Arc<Agent>, mut news: mpsc::Receiver<News>) {
    while let Some(news) = news.recv().await {
        match news {
            News::Signals { from, signals, .. } => {
                for (judge, signal) in signals {
                    signalled(&agent, from, judge, signal).await;
                }
            }
            News::Adverts { from, changed, .. } => {
                {
                    let mut heard = lock(&agent.heard);
                    for (module, advert) in &changed {
                        match advert {
                            Some(advert) => heard.adverts.insert((from, *module), *advert),
                            None => heard.adverts.remove(&(from, *module)),
                        };
                    }
                }
                expect_words(&agent, from).await;
                tell(&agent, from, |instance| {
                    let (_, advert) = changed.iter().find(|(module, _)| *module == instance.active().id)?;
                    let is_heard = lock(&agent.heard).peers.get(&(from, instance.judge())) == Some(&true);
                    let advert = advert.unwrap_or(NOTHING);
                    Some(if is_heard { Event::PeerHeard(advert) } else { Event::PeerOverheard(advert) })
                })
                .await;
            }
            News::Words { from, words } => {
                let instances = agent.instances.read().await;
                let mut heard = lock(&agent.heard);
                for instance in instances.values().filter(|it| it.farm.contains(&from)) {
                    // What comes by another network than the farm's is kept until the node is heard there.
                    if heard.peers.get(&(from, instance.judge())) != Some(&false)
                        && let Some(said) = said_of(&words, instance.active().id)
                    {
                        instance.tell_farm(FarmNews::Said(from, said));
                    }
                }
                if let Some(ms) = words.away_ms {
                    heard.away.insert(from, Instant::now() + Duration::from_millis(ms.into()));
                }
                heard.words.insert(from, words);
            }
            News::Heard { from, network, hears_me: true, .. } => heard_again(&agent, from, network).await,
            News::Heard { .. } => {}
        }
    }
}

/// What a node says of this farm; it says nothing of one that it does not have.
fn said_of(words: &Words, module: ModuleId) -> Option<Said> {
    words.of.get(&module).cloned().or_else(|| words.is_whole.then(Said::default))
}

/// After a sleep of this node: the first datagram of a node that hears it again.
async fn heard_again(agent: &Agent, from: NodeId, network: usize) {
    let judges: Vec<Judge> = {
        let Some(cluster) = agent.cluster.current() else { return };
        let mut heard = lock(&agent.heard);
        if heard.unheard.is_empty() {
            return;
        }
        let networks: Vec<String> = cluster.own_addrs().into_iter().map(|(name, _)| name).collect();
        let is_it = |node: NodeId, judge: &Judge| node == from && judge.counts(&networks, network);
        let judges = heard.unheard.iter().filter(|(node, judge)| is_it(*node, judge)).map(|(_, judge)| judge.clone());
        let judges = judges.collect();
        heard.unheard.retain(|(node, judge)| !is_it(*node, judge));
        judges
    };
    for judge in judges {
        tell_farms(agent, from, &judge).await;
    }
}

/// A farm hears of all its nodes, by the networks that it lives on.
async fn tell_farms(agent: &Agent, from: NodeId, judge: &Judge) {
    for instance in agent.instances.read().await.values() {
        if instance.judge() == *judge && instance.farm.contains(&from) {
            tell_farm(&lock(&agent.heard), instance, from, judge);
        }
    }
}

/// Several others were heard a moment ago, and none of them is now: they have hardly died all at once, so it is this node's own link.
fn is_cut_off(agent: &Agent) -> bool {
    let Some(cluster) = agent.cluster.current() else { return false };
    let quiet_ms = own_timing(&cluster).pulse_ms * 5 / 2;
    let snapshot = snapshot(agent);
    let heard = snapshot.peers.iter().filter_map(|peer| peer.links.iter().filter_map(|link| link.heard_ms_ago).min());
    let lately: Vec<u64> = heard.filter(|ago| *ago < LATELY_MS).collect();
    lately.len() > 1 && lately.iter().all(|ago| *ago >= quiet_ms)
}

/// How long a silence means nothing to a farm. An agent that has said that it ends leaves a filter that serves on: were its share taken, its
/// connections would be reset. A link that blinks: a node that went on alone at once would take the others' clients for its own, and reset their
/// connections when the link is back a moment later.
fn patience_with(agent: &Agent, silent: NodeId) -> Option<Duration> {
    let until = lock(&agent.heard).away.get(&silent).copied();
    let away = until.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    away.or_else(|| is_cut_off(agent).then_some(BLINK))
}

/// Unless the silence is over by then: another one has its own patience.
fn tell_farms_later(agent: &Arc<Agent>, from: NodeId, judge: Judge, after: Duration) {
    let turn = lock(&agent.heard).turns.get(&(from, judge.clone())).copied();
    let agent = Arc::downgrade(agent);
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        let Some(agent) = agent.upgrade() else { return };
        if lock(&agent.heard).turns.get(&(from, judge.clone())).copied() != turn {
            return;
        }
        if is_cut_off(&agent) {
            // Not one after the other: each would be a view that is right for a moment.
            let instances = agent.instances.read().await;
            let heard = lock(&agent.heard);
            let of_it = instances.values().filter(|it| it.judge() == judge && it.farm.contains(&from));
            for instance in of_it.filter(|it| heard.is_deserted(&it.farm, &judge, Instant::now())) {
                instance.tell_farm(FarmNews::CutOff);
            }
        }
        tell_farms(&agent, from, &judge).await;
    });
}

/// Was a node found silent, by whoever judges it, and by nobody heard since?
pub(super) fn is_silent(agent: &Agent, node: NodeId) -> bool {
    let heard = lock(&agent.heard);
    let mut judged = heard.peers.iter().filter(|((id, _), _)| *id == node).map(|(_, is_heard)| *is_heard).peekable();
    judged.peek().is_some() && judged.all(|is_heard| !is_heard)
}

/// Is it heard, and what did it say last? It may have said it by another network.
fn tell_farm(heard: &Heard, instance: &Instance, node: NodeId, judge: &Judge) {
    match heard.peers.get(&(node, judge.clone())) {
        Some(_) if heard.unheard.contains(&(node, judge.clone())) => {}
        Some(true) => instance.tell_farm(FarmNews::Heard(node)),
        Some(false) => return instance.tell_farm(FarmNews::Silent(node)),
        None => {}
    }
    if let Some(said) = heard.words.get(&node).and_then(|words| said_of(words, instance.active().id)) {
        instance.tell_farm(FarmNews::Said(node, said));
    }
}

async fn signalled(agent: &Arc<Agent>, from: NodeId, judge: Judge, signal: Signal) {
    let judged = (from, judge.clone());
    let event = match signal {
        Signal::PeerHeard => None,
        Signal::PeerSilent => Some(Event::PeerSilent),
        Signal::ProbeMayBegin => Some(Event::ProbeMayBegin),
        Signal::WindowOpened => Some(Event::WindowOpened),
        Signal::WindowClosed => Some(Event::WindowClosed),
        // A module's loop looks at the clock itself, before anything else it does.
        Signal::Froze { .. } | Signal::LinkUp(_) | Signal::LinkDown(_) => return,
    };
    let instances = agent.instances.read().await;
    {
        let mut heard = lock(&agent.heard);
        if matches!(signal, Signal::PeerHeard | Signal::PeerSilent) {
            *heard.turns.entry(judged.clone()).or_default() += 1;
        }
        match signal {
            Signal::PeerHeard => {
                heard.unheard.remove(&judged);
                heard.peers.insert(judged, true);
            }
            Signal::PeerSilent => {
                heard.unheard.remove(&judged);
                heard.peers.insert(judged, false);
                heard.words.remove(&from);
                let of_these = |module| instances.values().any(|it| it.active().id == module && it.judge() == judge);
                heard.adverts.retain(|(node, module), _| *node != from || !of_these(*module));
            }
            Signal::WindowOpened => drop(heard.windows.insert(judged, true)),
            Signal::WindowClosed => drop(heard.windows.insert(judged, false)),
            _ => {}
        }
    }
    drop(instances);
    let patience = (signal == Signal::PeerSilent).then(|| patience_with(agent, from)).flatten();
    match (signal, patience) {
        (_, Some(patience)) => tell_farms_later(agent, from, judge.clone(), patience),
        (Signal::PeerHeard | Signal::PeerSilent, None) => tell_farms(agent, from, &judge).await,
        _ => {}
    }
    tell(agent, from, |instance| {
        let event = || event.clone().unwrap_or_else(|| Event::PeerHeard(advert(agent, from, instance.active().id)));
        (instance.judge() == judge).then(event)
    })
    .await;
    if matches!(signal, Signal::PeerHeard | Signal::PeerSilent) {
        expect_words(agent, from).await;
    }
    if signal == Signal::PeerHeard {
        for instance in agent.instances.read().await.values() {
            instance.announce_again();
        }
    }
}

/// Of each module of which this node is heard and says nothing, it is waited for its word; when none comes, it does not run the module.
async fn expect_words(agent: &Arc<Agent>, from: NodeId) {
    let Some(name) = agent.cluster.current().and_then(|c| c.name_of(from).cloned()) else { return };
    for instance in agent.instances.read().await.values().filter(|it| it.peer.as_ref() == Some(&name)) {
        expect_word(agent, instance, from);
    }
}

fn expect_word(agent: &Arc<Agent>, instance: &Instance, from: NodeId) {
    let (module, judge) = (instance.active().id, instance.judge());
    let since = Instant::now();
    {
        let mut heard = lock(&agent.heard);
        if !heard.is_lacking(from, module, &judge) {
            heard.lacking.remove(&(from, module));
            return;
        }
        if heard.lacking.contains_key(&(from, module)) {
            return;
        }
        heard.lacking.insert((from, module), since);
    }
    let agent = Arc::downgrade(agent);
    tokio::spawn(async move {
        tokio::time::sleep(LACKS).await;
        let Some(agent) = agent.upgrade() else { return };
        let still = {
            let heard = lock(&agent.heard);
            heard.lacking.get(&(from, module)) == Some(&since) && heard.is_lacking(from, module, &judge)
        };
        if still {
            tell(&agent, from, |instance| (instance.active().id == module).then_some(Event::PeerLacks)).await;
        }
    });
}

fn advert(agent: &Agent, from: NodeId, module: ModuleId) -> Advert {
    lock(&agent.heard).adverts.get(&(from, module)).copied().unwrap_or(NOTHING)
}

/// Tells the loops of the modules whose peer this is.
async fn tell(agent: &Agent, from: NodeId, event: impl Fn(&Instance) -> Option<Event>) {
    let Some(name) = agent.cluster.current().and_then(|c| c.name_of(from).cloned()) else { return };
    for instance in agent.instances.read().await.values().filter(|i| i.peer.as_ref() == Some(&name)) {
        if let Some(event) = event(instance) {
            instance.tell(event);
        }
    }
}

/// A loop that begins while the heartbeats run learns what they know.
pub fn tell_beginner(agent: &Arc<Agent>, instance: &Instance) {
    let Some(cluster) = agent.cluster.current() else { return };
    let judge = instance.judge();
    instance.farm.iter().for_each(|node| tell_farm(&lock(&agent.heard), instance, *node, &judge));
    let Some(member) = instance.peer.as_ref().and_then(|peer| cluster.applied.member(peer)) else { return };
    let advert = advert(agent, member.id, instance.active().id);
    let heard = lock(&agent.heard);
    match heard.peers.get(&(member.id, judge.clone())) {
        Some(true) => instance.tell(Event::PeerHeard(advert)),
        Some(false) => instance.tell(Event::PeerSilent),
        None => {}
    }
    if heard.windows.get(&(member.id, judge)) == Some(&true) {
        instance.tell(Event::WindowOpened);
    }
    drop(heard);
    expect_word(agent, instance, member.id);
}

/// Does the module's peer live and still count on this node's copy? It asks for the word that it may go on alone.
pub fn counts_on_us(agent: &Agent, instance: &Instance) -> bool {
    let Some(cluster) = agent.cluster.current() else { return false };
    let Some(member) = instance.peer.as_ref().and_then(|peer| cluster.applied.member(peer)) else { return false };
    let is_heard = lock(&agent.heard).peers.get(&(member.id, instance.judge())) == Some(&true);
    is_heard && advert(agent, member.id, instance.active().id).state == ModuleState::Prim
}

/// A peer, and by what the cluster itself judges it.
fn judged(agent: &Agent, peer: &NodeName) -> Option<(NodeId, Judge)> {
    let cluster = agent.cluster.current()?;
    Some((cluster.applied.member(peer)?.id, own_judge(&cluster)))
}

/// Milliseconds since a peer was heard, and whether it is.
pub fn seen(agent: &Agent, peer: &NodeName) -> (Option<u64>, bool) {
    let Some((member, own)) = judged(agent, peer) else { return (None, false) };
    let is_heard = lock(&agent.heard).peers.get(&(member, own)) == Some(&true);
    let ago = snapshot(agent).peers.iter().find(|p| p.node == member && p.incarnation.is_some()).map(|p| p.silent_ms);
    (ago, is_heard)
}

/// The networks on which a peer may be heard, and whether it is.
pub fn links(agent: &Agent, peer: &NodeName) -> Vec<(String, bool)> {
    heard_within(agent, peer, LOST_MS)
}

/// Addresses of a peer on networks where it was not heard lately: not yet lost, and no good way to it.
pub fn unheard(agent: &Agent, peer: &NodeName) -> Vec<IpAddr> {
    let Some(cluster) = agent.cluster.current() else { return Vec::new() };
    let quiet: Vec<String> =
        heard_within(agent, peer, UNHEARD_MS).into_iter().filter(|(_, heard)| !heard).map(|(name, _)| name).collect();
    let lans = cluster.configuration.lans.iter().filter(|lan| quiet.iter().any(|name| *name == lan.name.as_str()));
    lans.flat_map(|lan| &lan.nodes).filter(|node| node.name == *peer).map(|node| node.addr).collect()
}

/// Is a peer heard on some network, which hears this node on none? (One that hears it and lacks the module is as good as silent.)
pub fn is_overheard(agent: &Agent, peer: &NodeName, within_ms: u64) -> bool {
    let Some((member, _)) = judged(agent, peer) else { return false };
    let snapshot = snapshot(agent);
    let links = || snapshot.peers.iter().filter(|p| p.node == member).flat_map(|p| &p.links);
    let is_fresh = |link: &&crate::heartbeat::LinkSnapshot| link.heard_ms_ago.is_some_and(|ago| ago < within_ms);
    !links().any(|link| link.is_up) && links().filter(is_fresh).any(|link| !link.hears_us)
}

fn heard_within(agent: &Agent, peer: &NodeName, within_ms: u64) -> Vec<(String, bool)> {
    let Some(member) = agent.cluster.current().and_then(|c| c.applied.member(peer).map(|m| m.id)) else {
        return Vec::new();
    };
    let snapshot = snapshot(agent);
    let links = snapshot.peers.iter().filter(|p| p.node == member).flat_map(|p| p.links.iter().zip(&snapshot.networks));
    links
        .filter(|(link, _)| link.is_configured)
        .map(|(link, network)| (network.name.clone(), link.heard_ms_ago.is_some_and(|ago| ago < within_ms)))
        .collect()
}

/// For how long a peer has been silent; `None`: it is heard, or not judged yet.
pub fn silence(agent: &Agent, peer: &NodeName) -> Option<Duration> {
    let (member, own) = judged(agent, peer)?;
    if lock(&agent.heard).peers.get(&(member, own)) != Some(&false) {
        return None;
    }
    Some(unheard_for(agent, peer).unwrap_or_default())
}

/// For how long nothing was heard of a peer, whoever is lost by now.
pub fn unheard_for(agent: &Agent, peer: &NodeName) -> Option<Duration> {
    let (member, _) = judged(agent, peer)?;
    snapshot(agent).peers.iter().find(|p| p.node == member).map(|p| Duration::from_millis(p.silent_ms))
}

/// Networks, peers and scheduling, for the node's status.
pub async fn view(agent: &Agent) -> (Vec<NetworkView>, Vec<PeerNodeView>, RealtimeView) {
    let Some(cluster) = agent.cluster.current() else { return (Vec::new(), Vec::new(), RealtimeView::default()) };
    let interfaces = agent.network.interfaces().await.unwrap_or_default();
    let networks = cluster
        .own_addrs()
        .into_iter()
        .map(|(name, addr)| {
            let interface = interfaces.iter().find(|i| i.addresses.iter().any(|a| a.ip == addr));
            NetworkView {
                name,
                addr: addr.to_string(),
                interface: interface.map(|i| i.name.clone()).unwrap_or_default(),
                carrier: interface.is_some_and(|i| i.has_carrier),
            }
        })
        .collect();
    let snapshot = snapshot(agent);
    let versions = versions(agent, &cluster).await;
    let peers = snapshot
        .peers
        .iter()
        .filter_map(|p| {
            let links =
                p.links.iter().zip(&snapshot.networks).filter(|(l, _)| l.is_configured).map(|(l, n)| LinkView {
                    network: n.name.clone(),
                    heard: l.heard_ms_ago.is_some_and(|ago| ago < LOST_MS),
                    hears_us: l.hears_us,
                    seen_ms_ago: l.heard_ms_ago,
                });
            let node = cluster.name_of(p.node)?.clone();
            Some(PeerNodeView {
                version: versions.get(&node).cloned().unwrap_or_default(),
                node,
                seen_ms_ago: p.incarnation.map(|_| p.silent_ms),
                links: links.collect(),
            })
        })
        .collect();
    let realtime = snapshot.realtime.map_or_else(RealtimeView::default, |r| RealtimeView {
        reached: r.problems.is_empty(),
        detail: if r.problems.is_empty() { format!("{:?}", r.scheduling) } else { r.problems.join("; ") },
    });
    (networks, peers, realtime)
}

/// Versions of the peers' programs, of those that answer at once.
async fn versions(agent: &Agent, cluster: &Cluster) -> BTreeMap<NodeName, String> {
    let ask = |peer: NodeName| async move {
        let version = agent.client.call::<(), String>(&peer, "GET", "/v1/peer/version", None, VERSION).await.ok()?;
        Some((peer, version))
    };
    let asked = futures_util::future::join_all(cluster.peers().map(|m| ask(m.name.clone()))).await;
    asked.into_iter().flatten().collect()
}

/// The cluster's members, and who is heard.
pub fn cluster_view(agent: &Agent) -> ClusterView {
    let Some(cluster) = agent.cluster.current() else { return ClusterView::default() };
    let members = cluster
        .applied
        .members
        .iter()
        .map(|m| MemberView {
            id: m.id,
            name: m.name.clone(),
            witness: m.role == crate::transport::PeerRole::Witness,
            networks: cluster
                .configuration
                .places_of(&m.name)
                .map(|(lan, n)| NetworkView {
                    name: lan.to_string(),
                    addr: n.addr.to_string(),
                    interface: String::new(),
                    carrier: false,
                })
                .collect(),
            seen: m.id == cluster.identity.node || seen(agent, &m.name).1,
        })
        .collect();
    ClusterView {
        paired: true,
        cluster: Some(cluster.identity.cluster),
        node: Some(cluster.identity.name.clone()),
        members,
    }
}

#[cfg(test)]
#[path = "heart_tests.rs"]
mod tests;
