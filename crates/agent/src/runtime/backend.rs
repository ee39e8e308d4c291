//! The API's view of the agent: every endpoint, in terms of what the agent has.
//!
//! Thin: states are read from what the loops publish, commands go to the loops, changes of modules and cluster to
//! [`super::configure`] and the cluster's own code.

mod door;

pub use door::Door;

use super::hooks::{CHANGE, LOOK};
use super::instance::ModulePlaces;
use super::module::Asker;
use super::publish::Published;
use super::views::{has_settled, is_on_its_way, moves, order_of, remedies};
use crate::api::{Answer, Backend, Caller, RawAnswer};
use cluster::mirror::Command as Order;
use door::not_running;
use model::api::{
    ChangeAnswer, ClusterConfig, ClusterConfigRequest, ClusterState, ClusterStateRow, ClusterView, Code, Command,
    CommandAnswer, CommandRequest, ConfInfo, ConfigRequest, ConfigView, DiffView, HookView, InitAnswer, InitRequest,
    InstallAnswer, InstallQuery, JoinAnswer, JoinRequest, LogPage, LogQuery, ModuleList, ModuleView, NodeView,
    PortList, PortView, Problem, QuarantineFolder, QuarantineList, StateQuery, TokenAnswer, VerifyRequest,
    WatchRequest, WhyView,
};
use model::limits::MODULES_MAX;
use model::schema::Mode;
use model::{ModuleName, ModuleState, NodeName, Status};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long another node may take for one answer.
const REMOTE: Duration = Duration::from_secs(70);
/// How long another node may take to tell the states of its modules.
const STATES: Duration = Duration::from_millis(900);

/// A swap that comes right after a start waits so long for the pair to be whole.
const SWAP_SOON: Duration = Duration::from_secs(5);
/// How long the node that serves may take to begin a comparison.
const VERIFY: Duration = Duration::from_secs(10);

impl Backend for Door {
    fn local_node(&self) -> Option<NodeName> {
        self.0.cluster.current().map(|c| c.identity.name.clone())
    }

    async fn node(&self) -> Answer<NodeView> {
        let cluster = self.0.cluster.current();
        let (networks, peers, realtime) = super::heart::view(&self.0).await;
        let store = Arc::clone(&self.0.cluster);
        let edited = beside(move || Ok(store.edited())).await?;
        let mut warnings = self.0.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        warnings.extend(edited);
        Ok(NodeView {
            version: env!("CARGO_PKG_VERSION").into(),
            name: cluster.as_ref().map(|c| c.identity.name.clone()),
            id: cluster.as_ref().map(|c| c.identity.node),
            paired: cluster.is_some(),
            cluster: cluster.as_ref().map(|c| c.identity.cluster),
            uptime_ms: u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            realtime,
            networks,
            peers,
            witnesses: super::witnesses::view(&self.0).await,
            warnings,
        })
    }

    async fn modules(&self) -> Answer<Vec<ModuleView>> {
        let mut views = Vec::new();
        for installed in self.0.store.list() {
            views.push(self.module_view(&installed.name).await?);
        }
        Ok(views)
    }

    async fn module_state(&self, module: ModuleName, query: StateQuery) -> Answer<ModuleView> {
        let mut view = self.module_view(&module).await?;
        if let (true, Some(farm), Some(instance)) = (query.flows, &mut view.farm, self.0.instance(&module).await) {
            farm.flows = instance.flows().await;
        }
        Ok(view)
    }

    async fn command(&self, module: ModuleName, request: CommandRequest, caller: Caller) -> Answer<CommandAnswer> {
        let Some(order) = order_of(&request) else { return self.release(&module).await };
        if request.full && !matches!(order, Order::Second { .. } | Order::Prim { .. }) {
            let what = format!("{} fullsync of module {module} is refused", request.command);
            return Err(Problem::new(Code::Refused, what, "fullsync says how a start goes on: of prim, or of second")
                .with_help(format!("stead second fullsync -m {module}")));
        }
        let (sentence, mut published) = {
            let instance = self.0.instance(&module).await.ok_or_else(|| not_running(&module, &self.0))?;
            let shuts_down = request.command == Command::Shutdown;
            if shuts_down {
                instance.log(&format!("Action shutdown called by {caller}"));
            }
            if order == Order::Swap {
                let mut published = instance.published.clone();
                let soon = published.wait_for(|published| !is_on_its_way(published));
                // Whatever it is by then, the automaton answers.
                let _ = tokio::time::timeout(SWAP_SOON, soon).await;
            }
            self.note_stop(&module, order);
            // What cannot be noted is refused before it is done, not after.
            let is_noted = self.note_start(&module, order)?;
            let asked = instance.command(order, Asker::of(&request.identity, &caller)).await;
            if asked.is_err() || instance.state() == ModuleState::Stop {
                self.forget_stop(&module);
            }
            if is_noted && asked.is_err() {
                self.forget_start(&module);
            }
            let sentence = match asked {
                Err(problem) if order == Order::Swap => return Err(self.with_peers_reason(&instance, problem).await),
                asked => asked?,
            };
            // What ran when the node went down comes back with it.
            if !shuts_down {
                self.note_wish(&module, order)?;
            }
            (sentence, instance.published.clone())
        };
        let wait = Duration::from_millis(request.wait_ms);
        let settled = tokio::time::timeout(wait, published.wait_for(|p| has_settled(order, p)))
            .await
            .is_ok_and(|seen| seen.is_ok());
        Ok(CommandAnswer { sentence, settled, module: self.module_view(&module).await? })
    }

    async fn watch(&self, module: ModuleName, request: WatchRequest, caller: Caller) -> Answer<CommandAnswer> {
        let what = match request {
            WatchRequest::CountLoop { .. } => format!("module {module} was acted upon too often"),
            WatchRequest::Update => format!("the script update of module {module} is not run"),
            WatchRequest::Traffic { .. } => format!("the traffic of module {module} stays as it is"),
            WatchRequest::Boot { .. } => format!("nothing changes about the start of module {module} with its node"),
            WatchRequest::Failover { .. } => format!("nothing changes about the failover of module {module}"),
            WatchRequest::Set { .. } => format!("no resource of module {module} is set"),
            WatchRequest::Print { .. } => format!("nothing is written into the log of module {module}"),
            _ => format!("nothing changes about the checkers of module {module}"),
        };
        let said = {
            let instance = self.0.instance(&module).await.ok_or_else(|| not_running(&module, &self.0))?;
            instance.watch(request, caller.to_string()).await
        };
        let refused = |why| Problem::new(Code::Refused, what, why).with_help(format!("stead get -m {module}"));
        let sentence = said.map_err(refused)?;
        Ok(CommandAnswer { sentence, settled: true, module: self.module_view(&module).await? })
    }

    async fn log(&self, module: ModuleName, query: LogQuery) -> Answer<LogPage> {
        let Some(instance) = self.0.instance(&module).await else {
            // Without a loop (not configured, no second node) the files still tell.
            self.idle_view(&module)?;
            let var = ModulePlaces::of(&self.0, &module).var;
            return beside(move || Ok(super::chronicle::page_of_files(&var, query))).await;
        };
        let chronicle = instance.chronicle.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(chronicle.page(query))
    }

    async fn why(&self, module: ModuleName) -> Answer<WhyView> {
        let Some(instance) = self.0.instance(&module).await else {
            let view = self.idle_view(&module)?;
            let var = ModulePlaces::of(&self.0, &module).var;
            let transitions = beside(move || Ok(super::chronicle::transitions_of_files(&var))).await?;
            return Ok(WhyView { waits_for: Vec::new(), moves: remedies(&view), transitions, module: view });
        };
        let view = self.view(&instance).await?;
        let transitions = instance.chronicle.lock().unwrap_or_else(PoisonError::into_inner).transitions().to_vec();
        let waits = view.state == ModuleState::Wait || view.status == Status::Transient;
        let waits_for = if waits { vec![view.reason.clone()] } else { Vec::new() };
        Ok(WhyView { waits_for, moves: moves(&view), transitions, module: view })
    }

    async fn diff(&self, module: ModuleName) -> Answer<DiffView> {
        let what = format!("the next resync of module {module} is not estimated");
        let (view, peer) = {
            let instance = self.0.instance(&module).await.ok_or_else(|| not_running(&module, &self.0))?;
            let no_peer = || Problem::new(Code::Refused, what.clone(), "a farm replicates nothing");
            (self.view(&instance).await?, instance.peer.clone().ok_or_else(no_peer)?)
        };
        let Some(replication) = view.replication else {
            return Err(Problem::new(Code::Refused, what, "it has no replicated directories"));
        };
        if !matches!(view.state, ModuleState::Alone | ModuleState::Prim) {
            let serves = |state| matches!(state, ModuleState::Alone | ModuleState::Prim);
            let there = view.peer.as_ref().and_then(|peer| peer.state);
            let only = "only the node that serves knows what changed";
            let (why, help) = if there.is_some_and(serves) {
                (format!("it is {} here: {only}", view.state), format!("stead rfsdiff -m {module} -H {peer}"))
            } else {
                let there = there.map_or_else(|| "not heard".to_string(), |state| state.to_string());
                (format!("it is {} here and {there} on {peer}: {only}", view.state), format!("stead why -m {module}"))
            };
            return Err(Problem::new(Code::Refused, what, why).with_help(help));
        }
        let (bytes_per_s, is_measured) = super::diff::rate(replication.progress.as_ref());
        let state_dir = ModulePlaces::of(&self.0, &module).var.join("data");
        let reckoned = super::diff::reckon(&state_dir, &replication.dirs).await;
        let reckoned = reckoned.map_err(|why| Problem::new(Code::Internal, what, why))?;
        let changed = super::diff::changed(&reckoned, &replication.counters, bytes_per_s);
        let whole = super::diff::timed(reckoned.whole, bytes_per_s);
        let crashed = changed.map(|changed| super::diff::crashed(changed, whole, bytes_per_s));
        let complete = (view.state, view.status) == (ModuleState::Prim, Status::Ready);
        Ok(DiffView { module, node: view.node, peer, complete, changed, crashed, whole, bytes_per_s, is_measured })
    }

    async fn verify(&self, module: ModuleName, request: VerifyRequest, caller: Caller) -> Answer<ModuleView> {
        let what = format!("module {module} is not compared");
        let peer = {
            let instance = self.0.instance(&module).await.ok_or_else(|| not_running(&module, &self.0))?;
            let state = instance.state();
            if instance.active().configuration.rfs.is_none() {
                return Err(Problem::new(Code::Refused, what, "it has no replicated directories"));
            }
            match (state, &caller) {
                (ModuleState::Prim, _) => {
                    instance.verify(request, caller.to_string()).await.map_err(|why| {
                        Problem::new(Code::Refused, what, why).with_help(format!("stead state -v -m {module}"))
                    })?;
                    return self.view(&instance).await;
                }
                (ModuleState::Second, Caller::Local { .. }) if instance.peer.is_some() => instance.peer.clone(),
                _ => {
                    let why = format!("there is no complete secondary to compare with: it is {state} here");
                    return Err(Problem::new(Code::Refused, what, why).with_help(format!("stead why -m {module}")));
                }
            }
        };
        let Some(peer) = peer else { return Err(Problem::new(Code::Refused, what, "it has no other node")) };
        let path = format!("/v1/modules/{module}/verify");
        let asked = self.0.client.call(&peer, "POST", &path, Some(&request), VERIFY).await;
        asked.map_err(|e| e.into_problem(format!("{peer}, which serves, cannot be asked")))
    }

    async fn quarantine(&self, module: ModuleName) -> Answer<QuarantineList> {
        let base = self.quarantine_dir(&module)?;
        let folders = beside(move || super::quarantine::list(&base)).await?;
        Ok(QuarantineList { module, node: self.name()?, folders })
    }

    async fn quarantine_folder(&self, module: ModuleName, folder: String) -> Answer<QuarantineFolder> {
        let base = self.quarantine_dir(&module)?;
        beside(move || super::quarantine::show(&base, &folder)).await
    }

    async fn drop_quarantine(&self, module: ModuleName, folder: String, caller: Caller) -> Answer<QuarantineList> {
        let base = self.quarantine_dir(&module)?;
        let chronicle = {
            let instance = self.0.instance(&module).await;
            let filling = |published: &Published| {
                published.mirror.state == ModuleState::Second && published.mirror.status != Status::Ready
            };
            if instance.as_ref().is_some_and(|instance| filling(&instance.published.borrow())) {
                let what = format!("the quarantine folder {folder} of module {module} is not dropped");
                return Err(Problem::new(Code::Busy, what, "a resync into this copy runs and may still keep files")
                    .with_help(format!("stead waitstate SECOND -m {module}")));
            }
            instance.map(|instance| Arc::clone(&instance.chronicle))
        };
        let (at, name) = (base.clone(), folder.clone());
        beside(move || super::quarantine::remove(&at, &name)).await?;
        if let Some(chronicle) = chronicle {
            let text = format!("Quarantine folder {folder} dropped by {caller}");
            chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("rfsplug", model::api::LogLevel::U, &text);
        }
        self.quarantine(module).await
    }

    async fn hook(&self, module: ModuleName, name: String) -> Answer<HookView> {
        let what = format!("the script {name} of module {module} tells nothing");
        let problem = |e: crate::modules::StoreError| e.problem(what.clone());
        let (active, within) = match name.as_str() {
            // What is edited, not what is in force; the names of networks and nodes are the other check's.
            "confcheck" => {
                let names = super::configure::names_now(&self.0.store.editable(&module).map_err(problem)?).await;
                let around = crate::modules::Around { names: Some(&names), ..Default::default() };
                (self.0.store.edited(&module, around).map_err(problem)?, CHANGE)
            }
            "state" | "level" => (self.0.store.active(&module).ok(), LOOK),
            _ => {
                let why = "only confcheck, state and level are asked for like this";
                return Err(Problem::new(Code::NotFound, what, why).with_help("stead state -v"));
            }
        };
        let output = match active {
            None => None,
            Some(active) => super::hooks::play(&self.0, &active, &name, &[], within)
                .await
                .map_err(|failed| failed.problem(what.clone()))?,
        };
        Ok(HookView { module, node: self.name()?, hook: name, output })
    }

    async fn configuration(&self, module: ModuleName) -> Answer<ConfigView> {
        super::configure::view(&self.0, &module).await
    }

    async fn configure(&self, module: ModuleName, request: ConfigRequest, _caller: Caller) -> Answer<ChangeAnswer> {
        let agent = Arc::clone(&self.0);
        to_its_end(async move { super::apply::configure(&agent, &module, &request).await }).await
    }

    async fn deconfigure(&self, module: ModuleName, caller: Caller) -> Answer<CommandAnswer> {
        let (agent, named) = (Arc::clone(&self.0), module.clone());
        to_its_end(async move { super::configure::deconfigure(&agent, &named, &caller).await }).await?;
        let sentence = format!(
            "module {module} is configured no more on this node; its files and its data stay, and its directories are open for writing: what is changed in them is compared when it is started again"
        );
        Ok(CommandAnswer { sentence, settled: true, module: self.module_view(&module).await? })
    }

    async fn install(
        &self,
        module: ModuleName,
        package: Vec<u8>,
        query: InstallQuery,
        caller: Caller,
    ) -> Answer<InstallAnswer> {
        let agent = Arc::clone(&self.0);
        to_its_end(async move { super::configure::install(&agent, &module, package, query, &caller).await }).await
    }

    async fn uninstall(&self, module: ModuleName, query: InstallQuery, caller: Caller) -> Answer<ChangeAnswer> {
        let agent = Arc::clone(&self.0);
        to_its_end(async move { super::configure::uninstall(&agent, &module, query, &caller).await }).await
    }

    async fn package(&self, module: ModuleName) -> Answer<Vec<u8>> {
        self.0.store.package(&module).map_err(|e| e.problem(format!("cannot pack module {module}")))
    }

    async fn ports(&self) -> Answer<PortList> {
        let fixed = [
            ("udp", 4800, "heartbeats"),
            ("tcp", 9453, "API and command line between nodes (mutual TLS)"),
            ("tcp", 9010, "health URL"),
        ];
        let mut ports: Vec<PortView> = fixed
            .into_iter()
            .map(|(protocol, port, purpose)| PortView {
                protocol: protocol.into(),
                port,
                purpose: purpose.into(),
                module: None,
            })
            .collect();
        for installed in self.0.store.list() {
            if let Some(id) = installed.id {
                let mode = self.0.store.active(&installed.name).ok().map(|active| active.configuration.mode);
                let purpose = match mode {
                    Some(Mode::Farm) => "not used: a farm replicates nothing",
                    Some(Mode::Light) => "not used: a light module replicates nothing",
                    _ => "replication (mutual TLS)",
                };
                ports.push(PortView {
                    protocol: "tcp".into(),
                    port: id.replication_port(),
                    purpose: purpose.into(),
                    module: Some(installed.name),
                });
            }
        }
        Ok(PortList { ports })
    }

    async fn cluster(&self) -> Answer<ClusterView> {
        Ok(super::heart::cluster_view(&self.0))
    }

    async fn cluster_init(&self, request: InitRequest) -> Answer<InitAnswer> {
        self.0.pairing.init(request).await
    }

    async fn cluster_join(&self, request: JoinRequest) -> Answer<JoinAnswer> {
        self.0.pairing.join(request).await
    }

    async fn cluster_token(&self) -> Answer<TokenAnswer> {
        self.0.pairing.token()
    }

    async fn cluster_config(&self) -> Answer<ClusterConfig> {
        self.0.applier.show()
    }

    async fn set_cluster_config(&self, request: ClusterConfigRequest, caller: Caller) -> Answer<ChangeAnswer> {
        let agent = Arc::clone(&self.0);
        to_its_end(async move {
            let _one = agent.changing.lock().await;
            agent.applier.configure(request, &caller).await
        })
        .await
    }

    async fn cluster_confinfo(&self) -> Answer<ConfInfo> {
        self.0.applier.confinfo().await
    }

    async fn cluster_state(&self) -> Answer<ClusterState> {
        let cluster = self.0.paired("the cluster has no state")?;
        let mut rows = Vec::new();
        // Once: another node may say that it has any number of modules.
        let installed = self.0.store.list();
        let ask = |node: NodeName| async move {
            let answer: Result<ModuleList, _> =
                self.0.client.call::<(), _>(&node, "GET", "/v1/modules", None, STATES).await;
            (node.clone(), answer.map(|l| l.modules).map_err(|e| e.into_problem(format!("{node} does not answer"))))
        };
        let mut answers = vec![(cluster.identity.name.clone(), self.modules().await)];
        answers.extend(futures_util::future::join_all(cluster.peers().map(|m| ask(m.name.clone()))).await);
        for (node, answer) in answers {
            let row = ClusterStateRow {
                node: node.clone(),
                module: None,
                mode: String::new(),
                id: None,
                state: None,
                status: None,
                applied_unix_ms: None,
                signature: String::new(),
                problem: None,
            };
            match answer {
                Err(problem) => rows.push(ClusterStateRow { problem: Some(problem), ..row }),
                Ok(modules) if modules.is_empty() => rows.push(row),
                Ok(modules) => rows.extend(modules.into_iter().take(MODULES_MAX).map(|m| {
                    let known = installed.iter().find(|it| it.name == m.module);
                    ClusterStateRow {
                        mode: if m.mode.is_empty() { "mirror".into() } else { m.mode },
                        id: known.and_then(|k| k.id),
                        applied_unix_ms: known.and_then(|k| k.applied_unix_ms),
                        module: Some(m.module),
                        state: Some(m.state),
                        status: Some(m.status),
                        signature: m.signature,
                        ..row.clone()
                    }
                })),
            }
        }
        Ok(ClusterState { rows })
    }

    async fn forward(&self, node: NodeName, method: String, path: String, body: Vec<u8>) -> Answer<RawAnswer> {
        self.0
            .client
            .request(&node, &method, &path, body, REMOTE)
            .await
            .map_err(|e| e.into_problem(format!("{node} cannot be asked")))
    }
}

/// A change comes to its end also when whoever asked for it hangs up: cut off in the middle, nodes would have different halves of it.
async fn to_its_end<T: Send + 'static>(change: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|e| Err(Problem::new(Code::Internal, "the change ended badly", e.to_string())))
}

/// Work on files, beside the threads that serve.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Problem::new(Code::Internal, "the work on files ended badly", e.to_string())))
}
