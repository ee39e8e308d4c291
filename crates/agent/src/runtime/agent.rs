//! The agent: what all modules of this node share, and the way from an agent's start to its modules' loops.
//!
//! Decides nothing. **Invariant:** a module has at most one loop; changes of modules and cluster happen one at a time.

use super::instance::{Beginning, Instance, ModulePlaces};
use super::peer_macs::PeerMacs;
use crate::cluster_config::causes;
use crate::cluster_config::{Cluster, ClusterConfiguration, ClusterStore, Unfit};
use crate::heartbeat::Said;
use crate::modules::{Looks, Store};
use crate::places::Places;
use crate::transport::PeerClient;
use cluster::mirror::Advert;
use cluster::witness;
use model::api::Problem;
use model::schema::Mode;
use model::schema::module::Boot;
use model::{ModuleId, ModuleName, NodeId, NodeName};
use platform::net::Network;
use platform::process::cgroup::{CgroupError, CgroupTree, ModuleCgroup};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a peer that is not heard is asked whether this node is still a member at all.
const KNOCK_EVERY: Duration = Duration::from_millis(2_000);

/// What all modules share.
pub struct Agent {
    /// Where files are.
    pub places: Places,
    /// The cluster.
    pub cluster: Arc<ClusterStore>,
    /// Module files.
    pub store: Store,
    /// To the other members.
    pub client: PeerClient,
    /// Kernel's network tables.
    pub network: Arc<Network>,
    /// For what the status says of protection.
    pub(super) gateway: super::protection::KnownGateway,
    /// This boot of the machine.
    pub boot_id: u128,
    /// When this agent started.
    pub started: Instant,
    /// Counts the starts of agents on this node.
    pub incarnation: u64,
    /// Modules with a loop.
    pub instances: tokio::sync::RwLock<BTreeMap<ModuleName, Arc<Instance>>>,
    /// Modules that could not be given a loop, and why.
    pub refused: Mutex<BTreeMap<ModuleName, Problem>>,
    /// When a peer was asked last whether this node is a member.
    knocked: Mutex<BTreeMap<NodeName, Instant>>,
    /// One change of modules or cluster at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// Tokens and joining.
    pub pairing: crate::pairing::Pairing,
    /// Changes of the cluster's configuration.
    pub applier: crate::cluster_config::Applier,
    /// The heartbeats, once paired.
    pub(super) heart: Mutex<Option<super::heart::Heart>>,
    /// What they have said.
    pub(super) heard: Mutex<super::heart::Heard>,
    adverts: Mutex<BTreeMap<ModuleId, Advert>>,
    /// What the heartbeats say of farms, and whether that is all of them: not before every module has its loop.
    words: Mutex<(BTreeMap<ModuleId, Said>, bool)>,
    peer_macs: Mutex<BTreeMap<NodeName, Arc<PeerMacs>>>,
    /// The task that learns them.
    pub(super) learning: super::only::Only,
    cgroups: Option<CgroupTree>,
    /// Scripts that belong to commands, one after the other.
    pub(super) hooks: super::hooks::Turns,
    /// Which witnesses are there.
    pub witnesses: super::witnesses::Heard,
    /// What an operator should know of this node.
    pub warnings: Mutex<Vec<String>>,
    /// What of the node's own files was damaged when this agent started.
    pub(super) damage: Option<String>,
    /// Looks at the programs in force, whenever somebody asks.
    pub(super) looks: Looks,
}

/// Why the agent cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or a kernel table.
    #[error("the agent cannot start: {what}: {why}")]
    Start {
        /// What was attempted.
        what: String,
        /// Why it failed.
        why: String,
    },
}

fn start_error(what: &str) -> impl FnOnce(&dyn std::error::Error) -> AgentError + '_ {
    move |error| AgentError::Start { what: what.into(), why: causes(error) }
}

/// `stead agent`: runs until SIGTERM or SIGINT. Applications, data planes and addresses go on without it.
///
/// # Errors
/// [`AgentError`] names what was missing; nothing was started then.
pub async fn run(places: Places) -> Result<(), AgentError> {
    let agent = match Agent::open(places.clone()).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(%error, "it is tried again in a moment");
            super::abandoned::again(&places).await;
            // Whoever begins the next one may do so at once.
            tokio::time::sleep(super::abandoned::PAUSE).await;
            return Err(error);
        }
    };
    super::abandoned::is_over(&places);
    let _server = super::doors::open(&agent).map_err(|e| start_error("opening the API socket")(&e))?;
    tokio::spawn(crate::heartbeat::awake::tell());
    agent.follow_cluster();
    tokio::spawn(super::witnesses::listen(Arc::downgrade(&agent)));
    tokio::spawn(super::outputs::bound(Arc::downgrade(&agent)));
    {
        // Nobody changes what is begun here: a module would have two loops.
        let _one = agent.changing.lock().await;
        agent.begin_modules().await;
    }
    tracing::info!(incarnation = agent.incarnation, "the agent runs");
    told_to_leave().await.map_err(|e| start_error("waiting for SIGTERM")(&e))?;
    tracing::info!("the agent leaves; what it started goes on");
    super::heart::leave(&agent);
    Ok(())
}

/// SIGTERM or SIGINT came.
///
/// # Errors
/// When the kernel does not let us wait for them.
pub async fn told_to_leave() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// How the warning begins about a module that has no loop.
fn cannot_run(module: &ModuleName) -> String {
    format!("module {module} cannot run on this node: ")
}

impl Agent {
    async fn open(places: Places) -> Result<Arc<Self>, AgentError> {
        for dir in [
            &places.etc,
            &places.var,
            &places.run,
            &places.cluster_dir(),
            &places.etc.join("modules"),
            &places.var.join("modules"),
        ] {
            std::fs::create_dir_all(dir).map_err(|e| start_error(&dir.display().to_string())(&e))?;
        }
        let cluster = ClusterStore::open(places.clone()).map_err(|e| start_error("reading the cluster's files")(&e))?;
        let store = Store::new(places.etc.join("modules"), places.var.join("modules"));
        store.recover().map_err(|e| start_error("clearing an interrupted change of modules")(&e))?;
        let network = Arc::new(Network::open().map_err(|e| start_error("opening the kernel's network tables")(&e))?);
        let boot_id = platform::clock::boot_id().map_err(|e| start_error("reading the boot id")(&e))?;
        let (incarnation, damage) = count_start(&places).map_err(|e| start_error("counting this start")(&e))?;
        let mut warnings = Vec::new();
        let cgroups = CgroupTree::discover()
            .and_then(|tree| tree.enter_agent().map(|()| tree))
            .inspect(|tree| drop(super::checkers::end_all(&tree.checkers()).inspect_err(|e| warnings.push(causes(e)))))
            .inspect_err(|error| warnings.push(format!("processes of modules are not kept apart: {}", causes(error))))
            .ok();
        let client = PeerClient::new(cluster.watch());
        let applier = crate::cluster_config::Applier::new(Arc::clone(&cluster), client.clone());
        let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/stead".into());
        if let Err(error) = crate::tools::lay_out(&places.script_bin(), &program) {
            warnings.push(format!("scripts do not find the helpers of SafeKit: {error}"));
        }
        let agent = Arc::new(Self {
            client,
            pairing: crate::pairing::Pairing::new(Arc::clone(&cluster), applier.clone()),
            applier,
            places,
            cluster,
            store,
            network,
            boot_id,
            started: Instant::now(),
            incarnation,
            instances: tokio::sync::RwLock::default(),
            refused: Mutex::default(),
            knocked: Mutex::default(),
            gateway: super::protection::KnownGateway::default(),
            changing: tokio::sync::Mutex::default(),
            heart: Mutex::default(),
            heard: Mutex::default(),
            adverts: Mutex::default(),
            words: Mutex::default(),
            peer_macs: Mutex::default(),
            learning: super::only::Only::default(),
            cgroups,
            hooks: super::hooks::Turns::default(),
            witnesses: super::witnesses::Heard::default(),
            warnings: Mutex::new(warnings),
            damage,
            looks: Looks::default(),
        });
        let asked = Arc::downgrade(&agent);
        let judged = asked.clone();
        agent.applier.ask_modules(crate::cluster_config::Modules {
            needs: Box::new(move |node| asked.upgrade()?.module_on(node)),
            unfit: Box::new(move |before, after| judged.upgrade()?.module_without_pair(before, after)),
        });
        let asked = Arc::downgrade(&agent);
        agent.client.ask_first(Box::new(move |node| super::heart::silence(&*asked.upgrade()?, node)));
        let asked = Arc::downgrade(&agent);
        agent.client.try_last(Box::new(move |node| {
            asked.upgrade().map(|agent| super::heart::unheard(&agent, node)).unwrap_or_default()
        }));
        Ok(agent)
    }

    /// A module of this node that runs on that one, too. (A light module is each node's own.)
    fn module_on(&self, node: &NodeName) -> Option<String> {
        let cluster = self.cluster.current()?;
        let actives = self.store.list().into_iter().filter_map(|it| self.store.active(&it.name).ok());
        // Nor does a mirror that has no pair run anywhere.
        let runs_on = |active: &crate::modules::Active| match active.configuration.nodes(&cluster.configuration) {
            nodes if active.configuration.mode == Mode::Mirror && nodes.len() != 2 => Vec::new(),
            nodes => nodes,
        };
        let mut shared = actives.filter(|active| active.configuration.mode != Mode::Light);
        Some(shared.find(|active| runs_on(active).contains(node))?.name.to_string())
    }

    /// A mirror of this node and another one that would not be on two nodes any more.
    fn module_without_pair(&self, before: &ClusterConfiguration, after: &ClusterConfiguration) -> Option<Unfit> {
        let own = self.cluster.current()?.identity.name.clone();
        let actives = self.store.list().into_iter().filter_map(|it| self.store.active(&it.name).ok());
        actives.filter(|active| active.configuration.mode == Mode::Mirror).find_map(|active| {
            let (had, would) = (active.configuration.nodes(before), active.configuration.nodes(after));
            let breaks = had.len() == 2 && had.contains(&own) && would.len() != 2;
            breaks.then(|| Unfit { module: active.name.to_string(), before: had, after: would })
        })
    }

    /// Heartbeats follow the cluster; so do the loops, whose peer or addresses may have changed.
    fn follow_cluster(self: &Arc<Self>) {
        let agent = Arc::clone(self);
        let mut watch = agent.cluster.watch();
        super::heart::restart(&agent);
        watch.mark_unchanged();
        tokio::spawn(async move {
            while watch.changed().await.is_ok() {
                super::heart::restart(&agent);
                let _one = agent.changing.lock().await;
                agent.begin_modules_anew().await;
            }
        });
    }

    /// Every active module gets its loop; what ran in this boot is adopted, what was wanted before a reboot starts.
    async fn begin_modules(self: &Arc<Self>) {
        let (mut actives, mut without_loop) = (Vec::new(), Vec::new());
        for installed in self.store.list() {
            match self.store.active(&installed.name) {
                Ok(active) => actives.push(active),
                // Never configured: nothing runs. Unless what was in force is lost, with its directory.
                Err(_) if installed.broken.is_none() && !ModulePlaces::of(self, &installed.name).running().exists() => {
                }
                Err(error) => {
                    let problem = error.problem(format!("cannot run module {}", installed.name));
                    without_loop.push((installed.name, None, problem));
                }
            }
        }
        let running = |active: &crate::modules::Active| ModulePlaces::of(self, &active.name).running().exists();
        // Virtual IPs that this node should not hold go before anything else begins.
        let vips = |a: &crate::modules::Active| a.configuration.vips.iter().map(|v| v.addr).collect::<Vec<_>>();
        let configured: Vec<IpAddr> = actives.iter().flat_map(vips).collect();
        let keep: Vec<IpAddr> = actives.iter().filter(|a| running(a)).flat_map(vips).collect();
        match self.network.remove_stray_vips(&configured, &keep).await {
            Ok(removed) => removed.iter().for_each(|ip| tracing::warn!(%ip, "removed a virtual IP that was left over")),
            Err(error) => self.warn(format!("virtual IPs left over could not be removed: {}", causes(&error))),
        }
        // The folder is empty after a reboot.
        let booted = self.places.run.join("booted");
        let is_boot = !booted.exists();
        if let Err(error) = std::fs::write(&booted, b"") {
            self.warn(format!("{}: {error}", booted.display()));
        }
        // All at once: one whose data plane does not answer keeps the others from nothing.
        let mut beginnings = tokio::task::JoinSet::new();
        for active in actives {
            let delay = Duration::from_millis(active.configuration.boot_delay_ms);
            let wanted = starts_at_boot(active.configuration.boot, &ModulePlaces::of(self, &active.name), is_boot);
            let (beginning, later) = match (running(&active), wanted) {
                (true, _) => (Beginning::Adopt, None),
                (false, true) if delay.is_zero() => (Beginning::Start, None),
                (false, wanted) => (Beginning::Stay, wanted.then_some(delay)),
            };
            let agent = Arc::clone(self);
            beginnings.spawn(async move {
                let begun = Instance::begin(&agent, active.clone(), beginning).await;
                (active, begun, later)
            });
        }
        while let Some(begun) = beginnings.join_next().await {
            let Ok((active, begun, later)) = begun else { continue };
            let name = active.name.clone();
            match begun {
                Ok(instance) => self.take_in(name.clone(), instance).await,
                Err(problem) => without_loop.push((name.clone(), Some(active), problem)),
            }
            if let Some(delay) = later {
                // An agent that is replaced meanwhile goes on with that.
                let delayed = ModulePlaces::of(self, &name).delayed();
                if let Err(error) = platform::store::write_atomic(&delayed, b"", 0o600) {
                    self.warn(causes(&error));
                }
                self.start_later(name, delay);
            }
        }
        self.words.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.tell_words();
        // To end what runs of them takes its time, and the others are known already.
        for (name, active, problem) in without_loop {
            self.have_no_loop(&name, active.as_ref(), problem).await;
        }
    }

    /// `boot_delay`: unless an operator says something else meanwhile.
    fn start_later(self: &Arc<Self>, module: ModuleName, delay: Duration) {
        let agent = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let Some(agent) = agent.upgrade() else { return };
            // Gone at the next boot anyway.
            let _ = std::fs::remove_file(ModulePlaces::of(&agent, &module).delayed());
            let Some(instance) = agent.instance(&module).await else { return };
            if instance.is_commanded() || instance.state() != model::ModuleState::Stop {
                return;
            }
            if let Err(problem) =
                instance.command(cluster::mirror::Command::Start, super::module::Asker::of("", &"at boot time")).await
            {
                agent.warn(problem.to_string());
            }
        });
    }

    async fn begin_modules_anew(self: &Arc<Self>) {
        for installed in self.store.list() {
            let active = match self.store.active(&installed.name).ok() {
                // One whose file was damaged meanwhile goes on with what it runs.
                None if installed.broken.is_some() => {
                    let instance = self.instance(&installed.name).await;
                    instance.map(|instance| crate::modules::Active::clone(&instance.active()))
                }
                active => active,
            };
            if let Some(active) = active {
                self.begin_module_anew(active).await;
            }
        }
    }

    /// A module with a loop. Whoever waits for something holds this, never the list: one slow module is not everybody's.
    pub async fn instance(&self, module: &ModuleName) -> Option<Arc<Instance>> {
        self.instances.read().await.get(module).cloned()
    }

    /// Replaces a module's loop, which goes on where the old one was.
    pub async fn begin_module_anew(self: &Arc<Self>, active: crate::modules::Active) {
        let old = self.instances.write().await.remove(&active.name);
        let was_running = match old {
            Some(old) => {
                let running = old.state() != model::ModuleState::Stop;
                old.leave().await;
                running
            }
            None => false,
        };
        self.begin_module(active, if was_running { Beginning::Adopt } else { Beginning::Stay }).await;
    }

    /// Gives a module its loop.
    pub async fn begin_module(self: &Arc<Self>, active: crate::modules::Active, beginning: Beginning) {
        let name = active.name.clone();
        match Instance::begin(self, active.clone(), beginning).await {
            Ok(instance) => self.take_in(name, instance).await,
            Err(problem) => self.have_no_loop(&name, Some(&active), problem).await,
        }
    }

    /// A module's loop has begun: everybody may know.
    async fn take_in(self: &Arc<Self>, name: ModuleName, instance: Instance) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        // What was said while it had none is not true any more.
        let cannot = cannot_run(&name);
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).retain(|said| !said.starts_with(&cannot));
        {
            // Nothing is said between the two: who signals reads the list.
            let mut instances = self.instances.write().await;
            super::heart::tell_beginner(self, &instance);
            instances.insert(name, Arc::new(instance));
        }
        super::heart::follow_modules(self).await;
    }

    /// A module that cannot be given a loop; what ran of it is ended, and an operator is told.
    async fn have_no_loop(&self, name: &ModuleName, active: Option<&crate::modules::Active>, mut problem: Problem) {
        let ended = super::leftover::end(self, name, active).await;
        if let Some(ended) = &ended {
            problem.why = format!("{}; {ended}", problem.why);
        }
        if ended.is_some() || active.is_none() {
            tracing::error!(module = %name, %problem, "module has no loop");
            let said = format!("{}{}", cannot_run(name), problem.why);
            super::chronicle::Chronicle::open(&ModulePlaces::of(self, name).var).line(
                "heart",
                model::api::LogLevel::C,
                &said,
            );
            self.warn(said);
        } else {
            tracing::warn!(module = %name, %problem, "module has no loop");
        }
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), problem);
    }

    /// Adds a warning for the node's status.
    pub fn warn(&self, warning: String) {
        tracing::warn!("{warning}");
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < 32 && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// What is known of a peer's hardware addresses.
    pub fn peer_macs(&self, peer: &NodeName) -> Arc<PeerMacs> {
        let mut known = self.peer_macs.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(peer.clone()).or_default())
    }

    /// Of these nodes something is remembered; the others left the cluster.
    pub(super) fn keep_macs(&self, is_peer: impl Fn(&NodeName) -> bool) {
        self.peer_macs.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_peer(name));
    }

    /// What the heartbeats say of a module from now on.
    pub fn advertise(&self, module: ModuleId, advert: Advert) {
        let mut adverts = self.adverts.lock().unwrap_or_else(PoisonError::into_inner);
        if adverts.insert(module, advert) != Some(advert) {
            let all: Vec<(ModuleId, Advert)> = adverts.iter().map(|(id, advert)| (*id, *advert)).collect();
            drop(adverts);
            if let Some(heart) = &*self.heart.lock().unwrap_or_else(PoisonError::into_inner) {
                heart.advertise(all);
            }
        }
    }

    /// What the heartbeats say of a farm from now on.
    pub fn say(&self, module: ModuleId, said: Said) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.0.get(&module) != Some(&said) {
            words.0.insert(module, said);
            drop(words);
            self.tell_words();
        }
    }

    /// Nothing is said of a module any more that has no loop: it is stopped here.
    pub(super) fn forget(&self, module: ModuleId) {
        let all: Option<Vec<(ModuleId, Advert)>> = {
            let mut adverts = self.adverts.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = adverts.remove(&module).is_some();
            is_known.then(|| adverts.iter().map(|(id, advert)| (*id, *advert)).collect())
        };
        if let (Some(all), Some(heart)) = (all, &*self.heart.lock().unwrap_or_else(PoisonError::into_inner)) {
            heart.advertise(all);
        }
        self.forget_words(module);
    }

    /// A farm that is no more is not told of any more.
    pub fn forget_words(&self, module: ModuleId) {
        let is_known = self.words.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&module).is_some();
        if is_known {
            self.tell_words();
        }
    }

    fn tell_words(&self) {
        if let Some(words) = self.all_words()
            && let Some(heart) = &*self.heart.lock().unwrap_or_else(PoisonError::into_inner)
        {
            heart.say(words);
        }
    }

    /// All words of farms, once every module has its loop.
    pub(super) fn all_words(&self) -> Option<Vec<(ModuleId, Said)>> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.1.then(|| words.0.iter().map(|(id, said)| (*id, said.clone())).collect())
    }

    /// All adverts, for heartbeats that begin.
    pub(super) fn all_adverts(&self) -> Vec<(ModuleId, Advert)> {
        self.adverts.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, advert)| (*id, *advert)).collect()
    }

    /// Puts a question to the witness that votes. One that left the configuration is not asked, and no other in its place:
    /// two witnesses that vote at once grant two epochs (R16).
    pub async fn ask_witness(
        &self,
        voter: NodeId,
        module: &ModuleName,
        question: &witness::Question,
        unheard: Option<Duration>,
        within: Duration,
    ) -> witness::Answer {
        let Some(cluster) = self.cluster.current() else { return witness::Answer::Unreachable };
        let name = cluster.name_of(voter).filter(|name| cluster.configuration.witness(name).is_some());
        let Some(name) = name else { return witness::Answer::Unreachable };
        crate::witness_client::ask(&self.client, name, module, question, unheard, within).await
    }

    /// Whether this node is still a member is asked of a peer so often, however many modules want to know it.
    pub fn may_knock(&self, peer: &NodeName) -> bool {
        let mut knocked = self.knocked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = knocked.get(peer).is_none_or(|at| at.elapsed() >= KNOCK_EVERY);
        if is_due {
            knocked.insert(peer.clone(), Instant::now());
        }
        is_due
    }

    /// The group of a module's data plane.
    pub fn plane_group(&self, module: &ModuleName) -> Option<ModuleCgroup> {
        self.cgroups.as_ref()?.plane(module).ok()
    }

    /// A group for one run of a checker's own program.
    pub fn checker_group(&self, module: &ModuleName, resource: &str, run: u64) -> Option<ModuleCgroup> {
        let made = self.cgroups.as_ref()?.checker(module, resource, run);
        let told = |error: &CgroupError| {
            tracing::warn!("{}", causes(error));
            self.warn(
                "what the checkers' own programs detach outlives them: there is no control group for them".into(),
            );
        };
        made.inspect_err(told).ok()
    }

    /// The group of a module's application.
    pub fn application_group(&self, module: &ModuleName) -> Option<ModuleCgroup> {
        let made = self.cgroups.as_ref()?.module(module);
        made.inspect_err(|error| self.warn(causes(error))).ok()
    }

    /// The cluster, or the problem that names the way into one.
    ///
    /// # Errors
    /// When this machine belongs to none.
    pub fn paired(&self, what: &str) -> Result<Arc<Cluster>, Problem> {
        self.cluster.current().ok_or_else(|| {
            Problem::new(model::api::Code::Refused, what, "this machine belongs to no cluster")
                .with_help("stead cluster init --name NODE --addr ADDR, or stead cluster join ADDR --token TOKEN")
        })
    }
}

/// `boot="auto"`, and `ignore` while `stead boot` says nothing: what was started before the boot comes back by itself. An agent that is
/// replaced is no boot: what an operator, or too many failures in a row, stopped stays stopped.
fn starts_at_boot(boot: Boot, places: &ModulePlaces, is_boot: bool) -> bool {
    let said = || super::checkers::Switches::open(&places.var).boot;
    (is_boot || places.delayed().exists())
        && match (boot, said()) {
            (Boot::On, _) | (Boot::Ignore, Some(true)) => true,
            (Boot::Off, _) | (Boot::Ignore, Some(false)) => false,
            (Boot::Auto, _) | (Boot::Ignore, None) => places.wanted().exists(),
        }
}

/// How many agents have started on this node, this one included. Never counts backwards, even when its file is lost.
fn count_start(places: &Places) -> Result<(u64, Option<String>), platform::store::StoreError> {
    let (mut file, count, damage) = match platform::store::StateFile::<u64>::open(&places.var, "starts") {
        Ok((file, count, _)) => {
            let damage = file.damage().map(|damage| format!("{damage}; the other copy is enough"));
            (file, count.unwrap_or(0), damage)
        }
        Err(error @ platform::store::StoreError::Unreadable { .. }) => {
            let file = platform::store::StateFile::replace_unreadable(&places.var, "starts")?;
            let damage = format!("{error}; the starts of agents are counted on from the clock");
            (file, platform::clock::wall_ms() / 1000, Some(damage))
        }
        Err(error) => return Err(error),
    };
    file.write(&(count + 1))?;
    let damage = damage.map(|damage| format!("{damage}; is the disk healthy (dmesg)?"));
    if let Some(damage) = &damage {
        tracing::error!("{damage}");
    }
    Ok((count + 1, damage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_on_and_a_damaged_count_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let places = Places { var: dir.path().into(), ..Places::default() };
        let count = || count_start(&places).expect("counted");
        assert_eq!((count(), count()), ((1, None), (2, None)));
        let rot = |copy: &str| std::fs::write(dir.path().join(copy), "stead-state 1 rot").expect("written");
        rot("starts.b");
        let (counted, damage) = count();
        assert_eq!(counted, 3);
        assert!(damage.as_ref().is_some_and(|it| it.contains("starts.b") && it.contains("dmesg")), "{damage:?}");
        assert_eq!(count(), (4, None), "it was written anew");
        rot("starts.a");
        rot("starts.b");
        let (counted, damage) = count();
        assert!(counted > 1_000 && damage.is_some_and(|it| it.contains("both copies of starts")));
    }

    #[test]
    fn only_a_boot_starts_what_was_started_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let places =
            ModulePlaces { var: dir.path().join("var"), run: dir.path().join("run"), socket: dir.path().join("s") };
        for made in [&places.var, &places.run] {
            std::fs::create_dir_all(made).expect("a directory");
        }
        let starts = |boot, is_boot| starts_at_boot(boot, &places, is_boot);
        for boot in [Boot::Auto, Boot::Ignore] {
            assert!(!starts(boot, true), "nobody has started it");
        }
        std::fs::write(places.wanted(), b"started\n").expect("a file");
        for boot in [Boot::Auto, Boot::Ignore, Boot::On] {
            assert!(starts(boot, true));
            // It is in STOP, though it was started: it failed, too often. Another agent does not make that well.
            assert!(!starts(boot, false), "{boot:?}");
        }
        assert!(!starts(Boot::Off, true));
        // The boot was a moment ago, and its start has been put off.
        std::fs::write(places.delayed(), b"").expect("a file");
        assert!(starts(Boot::Auto, false) && starts(Boot::On, false) && !starts(Boot::Off, false));
    }
}
