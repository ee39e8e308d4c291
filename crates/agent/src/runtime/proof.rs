//! Gathers the takeover proof: carrier, isolation test, who answers for the virtual IPs. Judges nothing.

use super::addresses::interface_of;
use super::module::Input;
use super::peer_macs::PeerMacs;
use cluster::mirror::{Event, Proof, VipAnswer};
use model::limits::PROBE_MS;
use model::schema::module::Vip;
use platform::net::{Interface, Network, neighbour, ping};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the proof of one module looks at.
#[derive(Clone)]
pub struct Prover {
    inner: Arc<Inner>,
}

struct Inner {
    vips: Vec<Vip>,
    /// The split-brain checker's addresses; empty: the default gateway, when there is one.
    checker: Vec<IpAddr>,
    /// This node's addresses of the heartbeats.
    own: Vec<IpAddr>,
    network: Arc<Network>,
    peer_macs: Arc<PeerMacs>,
    busy: AtomicBool,
    silent: Arc<Silent>,
    heard: Heard,
}

/// Are the peer's own heartbeats heard now, whoever it hears?
pub type Heard = Arc<dyn Fn() -> bool + Send + Sync>;

/// Virtual IPs that nobody answered for a moment ago: who takes over at once need not ask again.
#[derive(Debug, Default)]
pub struct Silent(Mutex<BTreeMap<IpAddr, Instant>>);

impl Silent {
    /// A proof is gathered while silence lasts: with the default patience, two thirds of a second before it is used.
    const FRESH: Duration = Duration::from_millis(1_500);

    fn note(&self, ip: IpAddr, asked: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ip, asked);
    }

    /// True once per question, and only while its answer is fresh.
    pub fn take(&self, ip: IpAddr) -> bool {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
        asked.is_some_and(|asked| asked.elapsed() < Self::FRESH)
    }
}

impl Prover {
    /// For one module.
    #[must_use]
    pub fn new(
        vips: Vec<Vip>,
        checker: Vec<IpAddr>,
        own: Vec<IpAddr>,
        network: Arc<Network>,
        peer_macs: Arc<PeerMacs>,
        silent: Arc<Silent>,
        heard: Heard,
    ) -> Self {
        let busy = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { vips, checker, own, network, peer_macs, busy, silent, heard }) }
    }

    /// The same with other addresses of the split-brain checker.
    #[must_use]
    pub fn asking(&self, checker: Vec<IpAddr>) -> Self {
        let Inner { vips, own, network, peer_macs, silent, heard, .. } = &*self.inner;
        let (network, peer_macs, silent) = (Arc::clone(network), Arc::clone(peer_macs), Arc::clone(silent));
        Self::new(vips.clone(), checker, own.clone(), network, peer_macs, silent, Arc::clone(heard))
    }

    /// Gathers within [`PROBE_MS`]; while one is being gathered another request is the same one.
    pub fn probe(&self, own: mpsc::Sender<Input>) {
        if self.inner.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let deadline = Duration::from_millis(PROBE_MS);
            // What could not be found out in time counts against the claim.
            let unknown = Proof { carrier: false, isolation: Some(false), vip: VipAnswer::Stranger, heard: false };
            let proof = tokio::time::timeout(deadline + deadline, inner.gather(deadline)).await.unwrap_or(unknown);
            inner.busy.store(false, Ordering::SeqCst);
            let _ = own.send(Input::Event(Event::Proof(proof))).await;
        });
    }
}

impl Inner {
    async fn gather(&self, deadline: Duration) -> Proof {
        let interfaces = self.interfaces().await;
        let carrier = !interfaces.is_empty() && interfaces.iter().all(Interface::is_usable);
        let isolation = self.isolation(deadline).await;
        // Silence counts only from a moment at which this node was known not to be cut off. Asked side by side, a network that
        // was healed in between gave a proof out of two halves: nobody at the address before, the checker's answer after, and
        // an isolated primary served beside the new one.
        let vip = match isolation {
            Some(false) => VipAnswer::Stranger,
            Some(true) | None => self.who_answers().await,
        };
        // Last: what is heard now was not heard only before it was lost.
        Proof { carrier, isolation, vip, heard: (self.heard)() }
    }

    /// Those of the virtual IPs; without one, those of the heartbeats.
    async fn interfaces(&self) -> Vec<Interface> {
        let mut found = Vec::new();
        for vip in &self.vips {
            match interface_of(&self.network, vip).await {
                Ok(interface) => found.push(interface),
                // Its interface is gone: no carrier there.
                Err(_) => return Vec::new(),
            }
        }
        if self.vips.is_empty() {
            for ip in &self.own {
                if let Ok(Some(interface)) = self.network.holder_of(*ip).await {
                    found.push(interface);
                }
            }
        }
        found
    }

    async fn isolation(&self, deadline: Duration) -> Option<bool> {
        let checker = self.checker.clone();
        if !checker.is_empty() {
            return Some(
                any(checker.into_iter().map(|ip| move || ping::ping(ip, None, deadline).is_ok_and(|t| t.is_some())))
                    .await,
            );
        }
        // A router answers who it is even when it is told to ignore echoes.
        let gateway = self.network.default_gateways().await.ok()?.into_iter().next()?;
        let interface = self.network.interface(&gateway.interface).await.ok()?;
        let source = interface.source_for(gateway.ip)?;
        Some(
            any([move || {
                neighbour::resolve(&interface.name, source, gateway.ip, deadline).is_ok_and(|mac| mac.is_some())
            }])
            .await,
        )
    }

    async fn who_answers(&self) -> VipAnswer {
        let mut worst = VipAnswer::Nobody;
        // All at once: one after the other, four addresses took longer than a proof may, and nobody took over.
        let mut questions = Vec::new();
        for vip in &self.vips {
            let ip = vip.addr;
            let Ok(interface) = interface_of(&self.network, vip).await else { return VipAnswer::Stranger };
            let name = interface.name.clone();
            let asked = Instant::now();
            let question = tokio::task::spawn_blocking(move || neighbour::probe_duplicate(&name, ip));
            questions.push((ip, asked, question));
        }
        for (ip, asked, question) in questions {
            match question.await {
                Ok(Ok(None)) => self.silent.note(ip, asked),
                Ok(Ok(Some(mac))) if self.peer_macs.contains(mac) => worst = VipAnswer::Peer,
                // Not being able to ask is no silence.
                _ => return VipAnswer::Stranger,
            }
        }
        worst
    }
}

/// Does one of them say yes?
async fn any<F: FnOnce() -> bool + Send + 'static>(questions: impl IntoIterator<Item = F>) -> bool {
    let asked: Vec<_> = questions.into_iter().map(tokio::task::spawn_blocking).collect();
    let mut yes = false;
    for question in asked {
        yes |= question.await.unwrap_or(false);
    }
    yes
}
