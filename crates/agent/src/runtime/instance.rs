//! One module on this node: its loop with everything that belongs to it, and how it begins.

use super::addresses::Addresses;
use super::agent::Agent;
use super::application::Application;
use super::checkers::{Around, Overseer, Said, Switches};
use super::chronicle::Chronicle;
use super::copies::{cover, dirs_of, end_left, missing, plane_program, trees_empty};
use super::farm::Mailbox;
use super::guard::Guard;
use super::module::{self, Asker, Configured, INPUTS, Input, Parts, leaves_room, peer_said};
pub use super::module_places::ModulePlaces;
use super::outside::Surroundings;
use super::plane::Plane;
use super::proof::Prover;
use super::publish::{Published, View};
use super::records::Records;
use crate::heartbeat::Judge;
use crate::modules::Active;
use cluster::mirror::{Command, Event, Home, Mirror, Policy, Settings};
use model::api::{Code, LogLevel, Problem, VerifyRequest, WatchRequest};
use model::limits::{LOST_PULSES_MIN, Timing};
use model::orders::Situation;
use model::schema::module::DefaultPrim;
use model::{ModuleState, NodeId, NodeName};
use platform::mounts::Bare;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How a loop begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// In STOP.
    Stay,
    /// The machine booted, and the module was started before.
    Start,
    /// The agent was replaced while the module ran.
    Adopt,
}

/// A module that has a loop.
pub struct Instance {
    /// What it runs.
    active: RwLock<Arc<Active>>,
    /// The other node of a mirror.
    pub peer: Option<NodeName>,
    /// The other nodes of a farm; empty: it is none.
    pub farm: Vec<NodeId>,
    /// This one.
    own: NodeName,
    /// By what its nodes are judged.
    judge: Mutex<Judge>,
    /// Notes when the directories are found without their covers.
    bare: Bare,
    inputs: mpsc::Sender<Input>,
    /// Of a farm's loop.
    mailbox: Arc<Mailbox>,
    /// An operator has said what is to become of it since the agent started.
    commanded: AtomicBool,
    addresses: Option<Addresses>,
    application: Application,
    /// What everybody may know.
    pub published: watch::Receiver<Arc<Published>>,
    /// Log and journal.
    pub chronicle: Arc<Mutex<Chronicle>>,
    task: tokio::sync::Mutex<JoinHandle<()>>,
}

impl Instance {
    /// Makes the loop of an active module and lets it begin.
    ///
    /// # Errors
    /// A [`Problem`] that names the file or the missing peer; nothing runs then.
    pub async fn begin(agent: &Arc<Agent>, active: Active, mut beginning: Beginning) -> Result<Self, Problem> {
        let name = active.name.clone();
        let what = format!("cannot run module {name}");
        let internal = |why: String| Problem::new(Code::Internal, what.clone(), why);
        if active.configuration.mode != model::schema::Mode::Mirror {
            return Self::begin_farm(agent, active, beginning).await;
        }
        let cluster = agent.cluster.current().ok_or_else(|| {
            Problem::new(Code::Refused, what.clone(), "this machine belongs to no cluster")
                .with_help("stead cluster init, or stead cluster join")
        })?;
        let own_name = &cluster.identity.name;
        let named = active.configuration.nodes(&cluster.configuration);
        let peers: Vec<_> = cluster.peers().filter(|peer| named.contains(&peer.name)).collect();
        if !named.contains(own_name) {
            return Err(no_part(what, &named));
        }
        let [peer] = peers.as_slice() else {
            return Err(not_two(what, &named));
        };
        let places = ModulePlaces::of(agent, &name);
        for dir in [&places.var, &places.run, &places.runs()] {
            std::fs::create_dir_all(dir).map_err(|e| internal(format!("{}: {e}", dir.display())))?;
        }
        let chronicle = Arc::new(Mutex::new(Chronicle::open(&places.var)));
        let log =
            |level, text: &str| chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("heart", level, text);
        let (records, found) = Records::open(&places.var).map_err(|e| internal(crate::cluster_config::causes(&e)))?;
        records.told_in(Arc::clone(&chronicle));
        if let Some(damage) = &found.damage {
            chronicle.lock().unwrap_or_else(PoisonError::into_inner).damaged(damage);
        }
        super::records::tell_damage(agent, &chronicle, &active, &places.var);
        let cfg = &active.configuration;
        let addrs = |node: &NodeName| -> Vec<IpAddr> {
            cluster.configuration.places_of(node).map(|(_, n)| n.laddr.unwrap_or(n.addr)).collect()
        };
        let settings = Settings {
            module: name.to_string(),
            node: cluster.identity.node,
            node_name: cluster.identity.name.to_string(),
            peer: peer.id,
            peer_name: peer.name.to_string(),
            witness: agent.witnesses.wanted(&cluster, &found.record),
            replicated: cfg.rfs.is_some(),
            vip: !cfg.vips.is_empty(),
            salt: u64::from_be_bytes(crate::identity::random()),
            boot_id: agent.boot_id,
            configuration: first_digits(&active.signature.0),
            policy: Policy {
                failover: Switches::open(&places.var).fails_over(cfg.failover),
                ..policy(&active, &cluster.identity.name)
            },
        };
        let (own, inputs) = mpsc::channel(INPUTS);
        let peer_macs = agent.peer_macs(&peer.name);
        let network = Arc::clone(&agent.network);
        let silent = Arc::default();
        let addresses = Addresses::new(
            name.to_string(),
            cfg.vips.clone(),
            cfg.tcpreset,
            Arc::clone(&network),
            Arc::clone(&peer_macs),
            Arc::clone(&silent),
            Arc::clone(&chronicle),
        );
        let around = Around {
            agent: Arc::downgrade(agent),
            module: name.clone(),
            peer: Some(peer.name.clone()),
            heartbeats: cfg.heartbeats.clone(),
            network: Arc::clone(&network),
            peer_macs: vec![Arc::clone(&peer_macs)],
            peer_may_answer: addresses.despite_peer(),
            shared_macs: Vec::new(),
            bin: active.bin_dir(),
            env: crate::modules::environment::script_environment(&active, &places.run),
        };
        let kept = (Switches::open(&places.var), Said::open(&places.run));
        let overseer = Overseer::new(cfg.checkers.clone(), cfg.rfs.is_some(), around, kept, own.clone());
        let own_addrs = addrs(&cluster.identity.name);
        let heard: super::proof::Heard = {
            let (agent, peer, within_ms) =
                (Arc::downgrade(agent), peer.name.clone(), LOST_PULSES_MIN * timing(&active).pulse_ms);
            Arc::new(move || agent.upgrade().is_some_and(|agent| super::heart::is_overheard(&agent, &peer, within_ms)))
        };
        let (vips, silent_vips) = (cfg.vips.clone(), Arc::clone(&silent));
        let prover = Prover::new(vips, cfg.splitbrain.clone(), own_addrs, network, peer_macs, silent_vips, heard);
        let application = Application::new(agent, &active, &places, Arc::clone(&chronicle), own.clone());
        let mut first = Vec::new();
        let mut plane = None;
        let mut situation = None;
        let mut outdated = false;
        if cfg.rfs.is_some() {
            let program = plane_program(agent, &active, &places, &peer.name)?;
            let (news_out, news) = mpsc::channel(INPUTS);
            // Whatever the note in /run says: where a data plane serves or follows, the module runs.
            let mut adopted = Plane::adopt(&program).await;
            if beginning != Beginning::Adopt
                && adopted.as_ref().is_some_and(|(_, situation)| *situation != Situation::Idle)
            {
                log(LogLevel::C, "the module was taken for stopped, and its data plane runs: it is adopted");
                beginning = Beginning::Adopt;
            }
            if beginning != Beginning::Adopt {
                adopted = None;
            }
            situation = adopted.as_ref().map(|(_, situation)| *situation);
            let mut is_free = situation.is_none();
            if is_free {
                match end_left(agent.plane_group(&name), dirs_of(&active)).await {
                    Ok(false) => {}
                    Ok(true) => {
                        log(LogLevel::C, "a data plane that nobody could adopt was ended, with its mounts");
                        // Nobody else would end what served on it.
                        if application.lives() {
                            beginning = Beginning::Adopt;
                        }
                    }
                    Err(why) => {
                        is_free = false;
                        log(LogLevel::C, &format!("a data plane that nobody could adopt stays: {why}"));
                    }
                }
            }
            if is_free && found.record.data_id.0 != 0 && !places.released().exists() {
                cover(&active, &places, &log);
            }
            outdated = adopted.as_ref().is_some_and(|(connection, _)| connection.is_outdated());
            plane = Some((Plane::start(program, adopted.map(|(connection, _)| connection), news_out), news));
        }
        // Nor is it believed against an application that lives.
        if beginning != Beginning::Adopt && application.lives() {
            log(LogLevel::C, "the module was taken for stopped, and its application runs: it is adopted");
            beginning = Beginning::Adopt;
        }
        // Without data nothing but the application outlives the agent: it runs, so this node served under its record.
        if let (None, Beginning::Adopt, Some(epoch)) = (&cfg.rfs, beginning, found.record.epoch)
            && application.lives()
        {
            situation = match found.record.role {
                model::Role::Alone => Some(Situation::Alone { epoch, resync: None }),
                model::Role::Primary => Some(Situation::Holding { epoch: Some(epoch) }),
                _ => None,
            };
        }
        if situation.is_none() {
            first.push(Event::Tree { empty: trees_empty(dirs_of(&active)).await });
        }
        if beginning == Beginning::Start {
            log(LogLevel::U, &super::texts::called("start", "at boot time"));
        }
        if beginning != Beginning::Stay {
            first.push(match beginning {
                Beginning::Adopt => Event::Adopted { situation, application: application.lives() },
                _ => Event::Command(Command::Start),
            });
        }
        if beginning == Beginning::Adopt
            && let Some(stop) = super::running::stop_under_way(&places.stopping())
        {
            log(LogLevel::U, &super::texts::called("stop", "the agent before this one, which had begun it"));
            first.push(Event::Command(stop));
        }
        let mut mirror = Mirror::new(settings, found.record);
        if beginning == Beginning::Adopt {
            mirror.remember_loops(super::running::loops(&places.running()));
        }
        let view = View::default().publish(&mirror, &addresses);
        let (published, watched) = watch::channel(Arc::new(view));
        let outside = Arc::new(Surroundings::new(agent, &active, peer.name.clone(), own.clone()));
        let parts = Parts {
            guard: Guard::new(&active, &places.var, Arc::clone(&records), own.clone()),
            mirror,
            timing: timing(&active),
            configured: policy(&active, &cluster.identity.name),
            boot: active.configuration.boot,
            scrub_every: scrub_every(&active),
            orders: module::Orders::of(&active.configuration),
            equality: places.var.join("equal"),
            quarantine: places.var.join("quarantine"),
            records,
            chronicle: Arc::clone(&chronicle),
            application: application.clone(),
            addresses: addresses.clone(),
            overseer,
            prover,
            plane,
            outdated,
            outside,
            own: own.clone(),
            published,
        };
        let task = tokio::spawn(module::run(parts, inputs, first));
        let bare = Bare::of(&places.var.join("data"));
        super::running::begun(&watched, beginning).await;
        tokio::spawn(super::running::mark(watched.clone(), places.running(), places.stopping(), beginning));
        Ok(Self {
            judge: Mutex::new(Judge::by_any(timing(&active))),
            own: cluster.identity.name.clone(),
            active: RwLock::new(Arc::new(active)),
            peer: Some(peer.name.clone()),
            farm: Vec::new(),
            bare,
            inputs: own,
            mailbox: Arc::default(),
            commanded: AtomicBool::new(false),
            addresses: Some(addresses),
            application,
            published: watched,
            chronicle,
            task: tokio::sync::Mutex::new(task),
        })
    }

    /// The handle of a farm's loop.
    #[allow(clippy::too_many_arguments, reason = "one place, each a part of its own")]
    pub(super) fn of_farm(
        active: Active,
        judge: Judge,
        own: NodeName,
        farm: Vec<NodeId>,
        places: &ModulePlaces,
        inputs: mpsc::Sender<Input>,
        mailbox: Arc<Mailbox>,
        application: Application,
        published: watch::Receiver<Arc<Published>>,
        chronicle: Arc<Mutex<Chronicle>>,
        task: JoinHandle<()>,
    ) -> Self {
        Self {
            judge: Mutex::new(judge),
            own,
            active: RwLock::new(Arc::new(active)),
            peer: None,
            farm,
            bare: Bare::of(&places.var.join("data")),
            inputs,
            mailbox,
            commanded: AtomicBool::new(false),
            addresses: None,
            application,
            published,
            chronicle,
            task: tokio::sync::Mutex::new(task),
        }
    }

    /// What it runs.
    #[must_use]
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// By what its nodes are judged.
    #[must_use]
    pub fn judge(&self) -> Judge {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By these networks from now on; false: it is so already.
    pub fn judge_by(&self, networks: Vec<String>) -> bool {
        let mut judge = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = judge.networks.as_ref() != networks.as_slice();
        if is_news {
            judge.networks = networks.into();
        }
        is_news
    }

    /// What the heartbeats say of the farm.
    pub fn tell_farm(&self, news: super::farm::News) {
        self.mailbox.put(news);
    }

    /// A new configuration that a running module can take: its loop, its data plane and its application go on.
    pub async fn reconfigure(&self, active: Active) {
        let configured = Configured {
            digits: first_digits(&active.signature.0),
            splitbrain: active.configuration.splitbrain.clone(),
            scrub_every: scrub_every(&active),
            orders: module::Orders::of(&active.configuration),
            checkers: active.configuration.checkers.clone(),
            policy: policy(&active, &self.own),
            boot: active.configuration.boot,
        };
        if self.inputs.send(Input::Configure(configured)).await.is_err() {
            tracing::error!(module = %active.name, "the module's loop is not told of the new configuration");
        }
        self.application.configure(active.clone());
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(active);
    }

    /// A fact; dropped when the loop is hopelessly behind (the next fact of its kind replaces it).
    pub fn tell(&self, event: Event) {
        if self.inputs.try_send(Input::Event(event)).is_err() {
            tracing::error!(module = %self.active().name, "the module's loop does not keep up");
        }
    }

    /// A message of the peer's agent; dropped, as by a network, while it leaves no room for anybody else. A stopped module's directories are
    /// looked at again: anybody may have filled them.
    pub async fn hear(&self, message: cluster::mirror::Message) {
        if self.state() == ModuleState::Stop && leaves_room(&self.inputs) {
            self.look_at_trees().await;
        }
        peer_said(&self.inputs, Input::Event(Event::Message(message)));
    }

    /// Has an operator given a command since the agent started?
    pub fn is_commanded(&self) -> bool {
        self.commanded.load(Ordering::Relaxed)
    }

    /// A person's action, in the log.
    pub fn log(&self, text: &str) {
        self.chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("heart", LogLevel::U, text);
    }

    async fn look_at_trees(&self) {
        let empty = trees_empty(dirs_of(&self.active())).await;
        self.tell(Event::Tree { empty });
    }

    /// Before the record says that the module starts: its age tells since when a directory was bare.
    async fn look_at_covers(&self) {
        let (active, bare) = (self.active(), self.bare.clone());
        let look = move || {
            let dirs = active.configuration.rfs.iter().flat_map(|rfs| &rfs.dirs);
            dirs.map(|dir| bare.note(Path::new(&dir.path))).collect::<Vec<_>>()
        };
        for outcome in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
            if let Err(error) = outcome {
                let mut chronicle = self.chronicle.lock().unwrap_or_else(PoisonError::into_inner);
                chronicle.line("heart", LogLevel::C, &crate::cluster_config::causes(&error));
            }
        }
    }

    /// The application's processes, as they are now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.application.pids()
    }

    /// The peer is back: whoever holds the virtual IPs says so again.
    pub fn announce_again(&self) {
        if let Some(addresses) = &self.addresses {
            addresses.announce_now();
        }
    }

    /// An operator's command: the automaton's sentence, or its refusal.
    ///
    /// # Errors
    /// The refusal.
    pub async fn command(&self, command: Command, by: Asker) -> Result<String, Problem> {
        self.commanded.store(true, Ordering::Relaxed);
        let active = self.active();
        let name = &active.name;
        let what = format!("{} of module {name} is refused", super::publish::command_name(command));
        if matches!(command, Command::Start | Command::Prim { .. } | Command::Second { .. })
            && self.state() == ModuleState::Stop
        {
            if let Some((dir, why)) = missing(dirs_of(&active)).await {
                let dir = dir.display();
                return Err(Problem::new(Code::Refused, what, format!("{dir} {why}"))
                    .with_help(format!("mkdir -p {dir}, or correct <replicated dir> (stead config -m {name})")));
            }
            self.look_at_trees().await;
            self.look_at_covers().await;
        }
        let (reply, answer) = oneshot::channel();
        let busy = || {
            Problem::new(Code::Busy, what.clone(), "the module's loop does not answer")
                .with_help(format!("stead why -m {name}"))
        };
        self.inputs.try_send(Input::Command { command, by, reply }).map_err(|_| busy())?;
        match tokio::time::timeout(Duration::from_secs(5), answer).await {
            Ok(Ok((true, sentence))) => Ok(sentence),
            Ok(Ok((false, sentence))) => {
                Err(Problem::new(Code::Refused, what, sentence).with_help(format!("stead why -m {name}")))
            }
            _ => Err(busy()),
        }
    }

    /// Compares both copies; what comes of it is published.
    ///
    /// # Errors
    /// The sentence why not.
    pub async fn verify(&self, request: VerifyRequest, by: String) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let busy = || "the module's loop does not answer".to_string();
        self.inputs.try_send(Input::Verify { request, by, reply }).map_err(|_| busy())?;
        tokio::time::timeout(Duration::from_secs(5), answer)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(busy()))
    }

    /// Switches checkers, sets resources.
    ///
    /// # Errors
    /// The sentence why not.
    pub async fn watch(&self, request: WatchRequest, by: String) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let busy = || "the module's loop does not answer".to_string();
        self.inputs.try_send(Input::Watch { request, by, reply }).map_err(|_| busy())?;
        tokio::time::timeout(Duration::from_secs(5), answer)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_else(|| Err(busy()))
    }

    /// What stands on this member of a farm; `None`: it is none, or its loop has no time now.
    pub async fn flows(&self) -> Option<model::api::FarmFlowsView> {
        let (reply, answer) = oneshot::channel();
        self.inputs.try_send(Input::Flows { reply }).ok()?;
        tokio::time::timeout(Duration::from_secs(5), answer).await.ok()?.ok()
    }

    /// Resources of the other node.
    pub fn hear_resources(&self, theirs: std::collections::BTreeMap<String, model::resource::Value>) {
        // The next message brings all of them again.
        peer_said(&self.inputs, Input::Resources(theirs));
    }

    /// Where the module is.
    #[must_use]
    pub fn state(&self) -> ModuleState {
        self.published.borrow().mirror.state
    }

    /// Ends the loop; application, data plane and addresses go on.
    pub async fn leave(&self) {
        let _ = self.inputs.send(Input::Leave).await;
        let _ = (&mut *self.task.lock().await).await;
    }
}

/// A mirror whose networks leave this node out: where it has two nodes, nothing is wrong, and nothing is to be done here.
fn no_part(what: String, named: &[NodeName]) -> Problem {
    if let [one, other] = named {
        return Problem::new(
            Code::Refused,
            what,
            format!("the module runs on {one} and {other}: this node has no part in it"),
        );
    }
    not_two(what, named)
}

/// A mirror has two nodes.
fn not_two(what: String, named: &[NodeName]) -> Problem {
    let names: Vec<&str> = named.iter().map(NodeName::as_str).collect();
    if names.len() < 2 {
        return Problem::new(Code::Refused, what, "a mirror module needs two nodes, and this cluster has one")
            .with_help("stead cluster token, then stead cluster join on the second server");
    }
    let why = format!("a mirror module runs on two nodes, and this one's networks have {}", names.join(", "));
    Problem::new(Code::Refused, what, why).with_help(
        "name its two nodes by a network that only they are on (<heart><heartbeat name=\"LAN\"/></heart>), or make it a farm",
    )
}

fn scrub_every(active: &Active) -> Option<Duration> {
    active.configuration.rfs.as_ref().map(|rfs| rfs.scrub_ms).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// What a HELLO carries of a signature; 0 when it is none.
fn first_digits(signature: &str) -> u64 {
    signature.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// What the configuration leaves to nobody but itself.
pub(super) fn policy(active: &Active, own: &NodeName) -> Policy {
    let cfg = &active.configuration;
    Policy {
        failover: cfg.failover,
        home: match &cfg.default_prim {
            DefaultPrim::Alone => Home::Nobody,
            DefaultPrim::LastPrim => Home::Last,
            DefaultPrim::Node(node) if node == own => Home::Here,
            DefaultPrim::Node(_) => Home::There,
        },
        max_loop: cfg.maxloop.try_into().unwrap_or(u16::MAX),
        loop_ms: cfg.loop_interval_ms,
        reboot: cfg.automatic_reboot,
    }
}

pub(super) fn timing(active: &Active) -> Timing {
    let timings = active.configuration.rhythm();
    Timing::for_timeout(timings.pulse_ms, timings.timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_part_in_a_module_is_told_so_and_not_what_would_be_wrong_with_the_module() {
        let named = |names: &[&str]| -> Vec<NodeName> {
            names.iter().map(|name| NodeName::new(name).expect("a name")).collect()
        };
        let problem = no_part("cannot run module mirror".into(), &named(&["node1", "node2"]));
        assert_eq!(problem.why, "the module runs on node1 and node2: this node has no part in it");
        assert_eq!(problem.help, "");
        let problem = no_part("cannot run module mirror".into(), &named(&["node1", "node2", "node4"]));
        assert!(problem.why.contains("this one's networks have node1, node2, node4"), "{problem}");
        assert!(problem.help.contains("name its two nodes"), "{problem}");
    }
}
