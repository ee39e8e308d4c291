//! The virtual IPs of one module: wanted up or down, as the automaton says.
//!
//! Before an address is taken it is asked for on its network; a stranger's answer is a refusal that names the MAC.
//! The peer's answer is one too, unless the right to serve is stronger than that answer (`announce_anyway`).

use super::chronicle::Chronicle;
use super::module::Input;
use super::peer_macs::PeerMacs;
use super::proof::Silent;
use crate::cluster_config::causes;
use cluster::mirror::{Event, VipReport};
use model::api::{LogLevel, VipView};
use model::schema::module::Vip;
use platform::net::{Announcer, Interface, Mac, NetError, Network, host_prefix, neighbour};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// How long the connections of addresses that leave may take to be closed: the module's loop waits for that.
const RESET: std::time::Duration = std::time::Duration::from_millis(500);

/// The virtual IPs of one module.
#[derive(Clone)]
pub struct Addresses {
    inner: Arc<Inner>,
}

struct Inner {
    module: String,
    vips: Vec<Vip>,
    tcpreset: bool,
    network: Arc<Network>,
    peer_macs: Arc<PeerMacs>,
    silent: Arc<Silent>,
    chronicle: Arc<Mutex<Chronicle>>,
    held: Mutex<Vec<Held>>,
    /// They were taken by a right that is stronger than the peer's answer.
    despite_peer: Arc<AtomicBool>,
    /// Counts wishes: a taking that was overtaken by a later wish gives back what it took.
    wish: AtomicU64,
    /// What the last of them was.
    wanted: AtomicBool,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

struct Held {
    ip: IpAddr,
    interface: String,
    announcer: Option<Announcer>,
}

/// One address that is to be taken.
struct Question {
    interface: Interface,
    is_here: bool,
    /// `None`: nobody answered a moment ago, or it is here.
    answer: Option<tokio::task::JoinHandle<Result<Option<Mac>, NetError>>>,
}

impl Addresses {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(
        module: String,
        vips: Vec<Vip>,
        tcpreset: bool,
        network: Arc<Network>,
        peer_macs: Arc<PeerMacs>,
        silent: Arc<Silent>,
        chronicle: Arc<Mutex<Chronicle>>,
    ) -> Self {
        let (held, wish, turn) = (Mutex::default(), AtomicU64::new(0), tokio::sync::Mutex::new(()));
        let wanted = AtomicBool::new(false);
        let despite_peer = Arc::default();
        let inner = Inner {
            module,
            vips,
            tcpreset,
            network,
            peer_macs,
            silent,
            chronicle,
            held,
            despite_peer,
            wish,
            wanted,
            turn,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Addresses of the configuration.
    pub fn configured(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.inner.vips.iter().map(|vip| vip.addr)
    }

    /// Whether the peer's answer for a held address means nothing: who is fenced may answer for a long time yet, when its
    /// kernel runs and its programs do not.
    #[must_use]
    pub fn despite_peer(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.inner.despite_peer)
    }

    /// Wanted: held and announced. The outcome comes to the loop.
    pub fn up(&self, announce_anyway: bool, own: mpsc::Sender<Input>) {
        let this = self.clone();
        this.inner.despite_peer.store(announce_anyway, Ordering::SeqCst);
        this.inner.wanted.store(true, Ordering::SeqCst);
        let wish = this.inner.wish.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::spawn(async move {
            let turn = this.inner.turn.lock().await;
            let report = this.take_all(announce_anyway, wish).await;
            drop(turn);
            // A later `down` has already reported for itself.
            if this.inner.wish.load(Ordering::SeqCst) == wish {
                let _ = own.send(Input::Event(Event::Vip(report))).await;
            }
        });
    }

    /// Wanted: not held. Complete when it returns.
    pub async fn down(&self) -> VipReport {
        self.inner.wanted.store(false, Ordering::SeqCst);
        self.inner.wish.fetch_add(1, Ordering::SeqCst);
        // What a running `up` has taken is given back here or, being overtaken, by itself: whichever is later.
        self.release().await
    }

    /// Announce again (a healed partition, a thaw).
    pub fn announce_now(&self) {
        for held in self.held().iter() {
            if let Some(announcer) = &held.announcer {
                announcer.announce_now();
            }
        }
    }

    /// For the status.
    #[must_use]
    pub fn views(&self) -> Vec<VipView> {
        let held = self.held();
        let view = |vip: &Vip| {
            let here = held.iter().find(|h| h.ip == vip.addr);
            VipView {
                addr: vip.addr.to_string(),
                held: here.is_some(),
                interface: here.map(|h| h.interface.clone()).unwrap_or_default(),
                problem: here.map(problem).unwrap_or_default(),
            }
        };
        self.inner.vips.iter().map(view).collect()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_all(&self, announce_anyway: bool, wish: u64) -> VipReport {
        // All are asked for at once, and taken in the order of the file.
        let mut questions = Vec::new();
        for vip in &self.inner.vips {
            questions.push(self.ask(vip).await);
        }
        for (vip, question) in self.inner.vips.iter().zip(questions) {
            let report = match question {
                Ok(question) => self.take(vip, question, announce_anyway).await,
                Err(report) => Err(report),
            };
            if self.inner.wish.load(Ordering::SeqCst) != wish {
                // Overtaken by another `up`, it keeps for that one what it has: given back, the address would be nobody's meanwhile.
                if !self.inner.wanted.load(Ordering::SeqCst) {
                    self.release().await;
                }
                return VipReport::Released;
            }
            if let Err(report) = report {
                self.release().await;
                return report;
            }
        }
        VipReport::Held
    }

    /// Where it belongs, and who answers for it; nobody is asked when the answer is known or it is here already.
    async fn ask(&self, vip: &Vip) -> Result<Question, VipReport> {
        let ip = vip.addr;
        let interface = interface_of(&self.inner.network, vip).await.map_err(|reason| VipReport::Failed { reason })?;
        let is_here = interface.holds(ip) && self.held().iter().any(|h| h.ip == ip);
        let name = interface.name.clone();
        let answer = (!is_here && !self.inner.silent.take(ip))
            .then(|| tokio::task::spawn_blocking(move || neighbour::probe_duplicate(&name, ip)));
        Ok(Question { interface, is_here, answer })
    }

    async fn take(&self, vip: &Vip, question: Question, announce_anyway: bool) -> Result<(), VipReport> {
        let failed = |reason: String| VipReport::Failed { reason };
        let ip = vip.addr;
        let Question { interface, is_here, answer } = question;
        if is_here {
            return Ok(());
        }
        let asked = match answer {
            Some(answer) => answer.await,
            None => Ok(Ok(None)),
        };
        match asked {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(mac))) => {
                let peer = self.inner.peer_macs.contains(mac);
                let who = format!("{ip} is answered by {mac} on {}", interface.name);
                if !(peer && announce_anyway) {
                    let module = &self.inner.module;
                    if peer {
                        let who = format!("{who}, the other node: it still holds the address");
                        return Err(VipReport::Duplicate { peer, who });
                    }
                    let who = format!(
                        "{who}, another machine: take {ip} away from it, or give module {module} another address (stead config -m {module}); tried again every {} s",
                        model::limits::REJOIN_MS / 1000
                    );
                    return Err(VipReport::Duplicate { peer, who });
                }
                self.log(LogLevel::E, &format!("{who}: the peer is fenced, taking the address"));
            }
            Ok(Err(error)) => return Err(failed(format!("{ip}: {}", causes(&error)))),
            Err(error) => return Err(failed(error.to_string())),
        }
        // Alone in its prefix beside the interface's own address of that network: outgoing traffic keeps the node's own source.
        let host = host_prefix(ip);
        let prefix = if interface.source_for(ip).is_some() { host } else { vip.prefix.unwrap_or(host) };
        self.inner.network.vip_up(&interface.name, ip, prefix).await.map_err(|e| failed(causes(&e)))?;
        let announcer = Announcer::start(&interface.name, ip)
            .inspect_err(|error| {
                self.log(LogLevel::C, &format!("{ip} is set but cannot be announced: {}", causes(error)))
            })
            .ok();
        self.held().push(Held { ip, interface: interface.name.clone(), announcer });
        self.log(LogLevel::E, &super::texts::address_set(ip, &self.inner.module));
        Ok(())
    }

    async fn release(&self) -> VipReport {
        // The announcers end before the addresses go: nothing is announced that is not held.
        let held: Vec<Held> = std::mem::take(&mut *self.held());
        let ours: Vec<IpAddr> = held.iter().map(|h| h.ip).collect();
        drop(held);
        if self.inner.tcpreset && !ours.is_empty() {
            reset(ours).await;
        }
        for ip in self.configured() {
            match self.inner.network.vip_down(ip).await {
                Ok(false) => {}
                Ok(true) => self.log(LogLevel::E, &format!("Virtual IP <{ip} of {}> removed", self.inner.module)),
                Err(error) => return VipReport::Failed { reason: causes(&error) },
            }
        }
        VipReport::Released
    }

    fn log(&self, level: LogLevel, text: &str) {
        self.inner.chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("vipplug", level, text);
    }
}

/// Clients learn at once that their connections are over; however many there are, the address goes after a bounded time.
async fn reset(ips: Vec<IpAddr>) {
    let resetting = tokio::task::spawn_blocking(move || {
        for ip in ips {
            if let Err(error) = platform::net::tcp_reset::reset_connections(ip) {
                tracing::debug!(%ip, %error, "connections of the virtual IP were not reset");
            }
        }
    });
    if tokio::time::timeout(RESET, resetting).await.is_err() {
        tracing::debug!("not all connections of the virtual IPs were reset in time");
    }
}

/// What an operator should know of an address that is held.
fn problem(held: &Held) -> String {
    let Some(announcer) = &held.announcer else { return "it cannot be announced".into() };
    let report = announcer.report();
    match (report.competitor, report.problem) {
        (Some(mac), _) if report.competing_lately => format!("{mac} speaks as this address too: two machines have it"),
        (_, Some(why)) => format!("it cannot be announced: {why}"),
        _ => String::new(),
    }
}

/// The interface that carries this virtual IP.
pub async fn interface_of(network: &Network, vip: &Vip) -> Result<Interface, String> {
    let ip = vip.addr;
    let found = match &vip.interface {
        Some(name) => network.interface(name).await.map(Some),
        None => network.interface_for(ip).await,
    };
    match found {
        Ok(Some(interface)) => Ok(interface),
        Ok(None) => Err(format!(
            "no interface of this node has a network that contains {ip}; `ip addr` shows them, <interface name=\"…\"> names one"
        )),
        Err(error) => Err(causes(&error)),
    }
}
