//! A cluster of two nodes that only exists as an API: the real router and the real socket over made-up answers.

use agent::api::{Answer, Backend, Caller, RawAnswer, bind_unix, router, serve_unix};
use axum::body::{Body, to_bytes};
use model::api::*;
use model::orders::{Counters, Progress, Session, Situation};
use model::{ClusterId, Epoch, ModuleId, ModuleName, ModuleState, NodeId, NodeName, Role, Status};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tower::ServiceExt as _;

pub fn module(name: &str) -> ModuleName {
    ModuleName::new(name).expect("a valid name")
}

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a valid name")
}

pub const EPOCH: Epoch = Epoch { counter: 7, node: NodeId(1), random: 0xabcd };
/// 2026-11-22 05:30:37.123456 UTC.
pub const AT_US: u64 = 1_795_325_437_123_456;

/// A view with what most tests need.
pub fn view(on: &str, state: ModuleState, status: Status, reason: &str) -> ModuleView {
    let mut view = ModuleView::new(module("pg"), node(on), state, status);
    view.reason = reason.into();
    view.signature = "3f9a01c2".into();
    view
}

/// Everything filled in.
pub fn full_view() -> ModuleView {
    let mut view = view("node1", ModuleState::Prim, Status::Ready, "node2 has a complete copy");
    view.epoch = Some(EPOCH);
    view.data = "uptodate".into();
    view.role = Role::Primary;
    view.arbiter = "proof".into();
    view.protection =
        "takeover proof: the peer is silent, carrier; neither <splitbrain> nor a default gateway to ask".into();
    view.open_cases = vec![
        OpenCaseView { label: "L2".into(), now: true, sentence: "node1 lost power while mirrored".into() },
        OpenCaseView { label: "L3".into(), now: false, sentence: "the witness has not noted node1 yet".into() },
    ];
    view.not_promised =
        vec!["no witness, nobody to ask at fd00::1: a total cut of the network can leave two primaries".into()];
    view.peer = Some(PeerView {
        node: node("node2"),
        state: Some(ModuleState::Second),
        status: Some(Status::Ready),
        seen_ms_ago: Some(80),
    });
    view.vips = vec![VipView { addr: "10.0.1.100".into(), held: true, interface: "eth1".into(), ..VipView::default() }];
    view.replication = Some(ReplicationView {
        situation: Some(Situation::Mirrored { session: Session { epoch: EPOCH, number: 3 } }),
        sentence: "mirrored to node2".into(),
        counters: Counters {
            frames: 1200,
            bytes: 5 << 20,
            in_flight: 2,
            hot: 40,
            free_bytes: 9 << 30,
            ..Counters::default()
        },
        progress: None,
        dirs: vec!["/srv/stead/pg".into()],
        quarantines: vec!["/var/lib/stead/modules/pg/quarantine/2026-11-21".into()],
        verify: None,
    });
    view.application = Some(ApplicationView { running: true, pids: vec![4242, 4243] });
    view.warnings = vec!["heartbeats run without real-time priority".into()];
    view
}

pub fn resyncing(compared: u64) -> ModuleView {
    let mut view = view("node1", ModuleState::Second, Status::Transient, "catching up with node2");
    let progress = Progress {
        entries: 10,
        bytes_compared: compared,
        bytes_sent: 4096,
        bytes_total: 1 << 30,
        elapsed_ms: 900,
        bytes_per_s: 64 << 20,
        eta_ms: Some(1500),
    };
    view.replication = Some(ReplicationView { progress: Some(progress), ..ReplicationView::default() });
    view
}

/// One node. Everything is answered from these fields.
#[derive(Default)]
pub struct Fake {
    pub name: Option<NodeName>,
    pub modules: Mutex<Vec<ModuleView>>,
    /// States of the only module on the next looks; the last one stays.
    pub coming: Mutex<VecDeque<ModuleView>>,
    /// Answers every command; else: accepted.
    pub refusal: Option<Problem>,
    /// Answers `config` when set.
    pub findings: Option<Problem>,
    pub others: BTreeMap<NodeName, Arc<Fake>>,
    pub silent: Vec<NodeName>,
    pub quarantine: Mutex<Vec<QuarantineView>>,
    /// What was asked, for the tests that look at it.
    pub asked: Mutex<Vec<String>>,
}

impl Fake {
    pub fn new(name: &str, modules: Vec<ModuleView>) -> Self {
        let folder = QuarantineView {
            name: "2026-11-21T10-00-00Z".into(),
            path: "/var/lib/stead/modules/pg/quarantine/2026-11-21T10-00-00Z".into(),
            files: 12,
            bytes: 3 << 20,
            attributes: 0,
            at_least: false,
            changed_unix_ms: AT_US / 1000,
            lost: Some(EPOCH),
            won: Some(Epoch { counter: 8, ..EPOCH }),
        };
        let quarantine = Mutex::new(vec![folder]);
        Self { name: Some(node(name)), modules: Mutex::new(modules), quarantine, ..Self::default() }
    }

    fn heard(&self, what: String) {
        self.asked.lock().expect("no test panics with it").push(what);
    }

    fn find(&self, module: &ModuleName) -> Answer<ModuleView> {
        if let Some(view) = self.coming.lock().expect("lock").pop_front() {
            *self.modules.lock().expect("lock") = vec![view];
        }
        let modules = self.modules.lock().expect("lock");
        modules.iter().find(|m| &m.module == module).cloned().ok_or_else(|| {
            Problem::new(
                Code::NotFound,
                format!("cannot answer for module '{module}'"),
                "it is not installed on this node",
            )
            .with_help("stead module list")
        })
    }

    fn all_nodes(&self) -> Vec<NodeName> {
        self.name.iter().chain(self.others.keys()).chain(&self.silent).cloned().collect()
    }

    fn results(&self) -> Vec<NodeResult> {
        self.all_nodes()
            .into_iter()
            .map(|node| NodeResult { node, signature: "3f9a01c2".into(), problem: None })
            .collect()
    }
}

/// A fake that listens; the socket goes with it.
pub struct Served {
    pub socket: PathBuf,
    pub fake: Arc<Fake>,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

pub fn serve(fake: Fake) -> Served {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("agent.sock");
    let fake = Arc::new(fake);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = {
        let _inside = runtime.enter();
        bind_unix(&socket).expect("a socket")
    };
    runtime.spawn(serve_unix(listener, router(Arc::clone(&fake)), std::future::pending()));
    Served { socket, fake, _dir: dir, _runtime: runtime }
}

impl Backend for Fake {
    fn local_node(&self) -> Option<NodeName> {
        self.name.clone()
    }

    async fn node(&self) -> Answer<NodeView> {
        Ok(NodeView {
            version: "0.1.0".into(),
            name: self.name.clone(),
            id: Some(NodeId(1)),
            paired: self.name.is_some(),
            cluster: Some(ClusterId(0x1234_5678_9abc_def0)),
            uptime_ms: 182_000,
            realtime: RealtimeView { reached: false, detail: "nice -20: SCHED_FIFO is not permitted".into() },
            networks: vec![NetworkView {
                name: "net1".into(),
                addr: "10.0.1.1".into(),
                interface: "eth1".into(),
                carrier: true,
            }],
            peers: vec![PeerNodeView {
                node: node("node2"),
                version: "0.1.0".into(),
                seen_ms_ago: Some(80),
                links: vec![LinkView { network: "net1".into(), heard: true, hears_us: true, seen_ms_ago: Some(80) }],
            }],
            witnesses: [("third", "10.0.1.9", true), ("fourth", "10.0.2.9", false)]
                .map(|(name, addr, answers)| WitnessNodeView { node: node(name), addr: addr.into(), answers })
                .into(),
            warnings: vec!["the clocks differ by 3 s".into()],
        })
    }

    async fn modules(&self) -> Answer<Vec<ModuleView>> {
        Ok(self.modules.lock().expect("lock").clone())
    }

    async fn module_state(&self, module: ModuleName, query: StateQuery) -> Answer<ModuleView> {
        let mut view = self.find(&module)?;
        if let Some(farm) = view.farm.as_mut().filter(|_| !query.flows) {
            farm.flows = None;
        }
        Ok(view)
    }

    async fn hook(&self, module: ModuleName, name: String) -> Answer<HookView> {
        let node = self.find(&module)?.node;
        let output = (name == "state").then(|| "shops open: 3\n".to_string());
        Ok(HookView { module, node, hook: name, output })
    }

    async fn command(&self, module: ModuleName, request: CommandRequest, caller: Caller) -> Answer<CommandAnswer> {
        let script = if request.identity.is_empty() { String::new() } else { format!(" as {}", request.identity) };
        let (command, force, full) = (request.command, request.force, request.full);
        self.heard(format!("{command} {module} force={force} full={full} by {caller}{script}"));
        if let Some(problem) = &self.refusal {
            return Err(problem.clone());
        }
        let module = self.find(&module)?;
        Ok(CommandAnswer { sentence: format!("{} of pg accepted", request.command), settled: false, module })
    }

    async fn watch(&self, module: ModuleName, request: WatchRequest, caller: Caller) -> Answer<CommandAnswer> {
        self.heard(format!("watch {module} {} by {caller}", serde_json::to_string(&request).expect("JSON")));
        Ok(CommandAnswer { sentence: "noted".into(), settled: true, module: self.find(&module)? })
    }

    async fn log(&self, _: ModuleName, query: LogQuery) -> Answer<LogPage> {
        let line = |component: &str, level, text: &str| LogLine {
            at_unix_us: AT_US,
            component: component.into(),
            level,
            text: text.into(),
        };
        let mut lines = vec![
            line("heart", LogLevel::U, "Action start called by root"),
            line("heart", LogLevel::E, "Local state PRIM Ready"),
            line("rfsplug", LogLevel::D, "session 3 is open"),
        ];
        lines.retain(|l| query.verbose || !matches!(l.level, LogLevel::I | LogLevel::D));
        let first = lines.len().saturating_sub(query.lines.unwrap_or(300) as usize);
        Ok(LogPage { lines: lines.split_off(first), next: 3 })
    }

    async fn why(&self, module: ModuleName) -> Answer<WhyView> {
        Ok(WhyView {
            module: self.find(&module)?,
            waits_for: vec!["node2, which may have newer data".into()],
            moves: vec![
                MoveView { what: "node2 starts".into(), command: String::new() },
                MoveView {
                    what: "you decide that this copy is the good one".into(),
                    command: "stead prim -m pg".into(),
                },
            ],
            transitions: vec![
                TransitionView {
                    at_unix_ms: AT_US / 1000,
                    from: None,
                    to: (ModuleState::Stop, Status::NotReady),
                    reason: "agent started".into(),
                    epoch: None,
                },
                TransitionView {
                    at_unix_ms: AT_US / 1000 + 1000,
                    from: Some((ModuleState::Stop, Status::NotReady)),
                    to: (ModuleState::Wait, Status::NotReady),
                    reason: "start was asked for".into(),
                    epoch: Some(EPOCH),
                },
            ],
        })
    }

    async fn verify(&self, module: ModuleName, request: VerifyRequest, caller: Caller) -> Answer<ModuleView> {
        self.heard(format!("verify {module} repair={} {} B/s by {caller}", request.repair, request.bytes_per_s));
        if let Some(problem) = &self.refusal {
            return Err(problem.clone());
        }
        self.find(&module)
    }

    async fn diff(&self, module: ModuleName) -> Answer<DiffView> {
        Ok(DiffView {
            node: self.find(&module)?.node,
            module,
            peer: node("node2"),
            complete: false,
            changed: Some(DiffCost { entries: 12, bytes: 3 << 20, at_least: false, eta_ms: 40 }),
            crashed: Some(DiffCost { entries: 1_036, bytes: 4 << 30, at_least: false, eta_ms: 40_960 }),
            whole: DiffCost { entries: 40_000, bytes: 5 << 30, at_least: false, eta_ms: 51_000 },
            bytes_per_s: 100 << 20,
            is_measured: false,
        })
    }

    async fn quarantine(&self, module: ModuleName) -> Answer<QuarantineList> {
        let folders = self.quarantine.lock().expect("lock").clone();
        Ok(QuarantineList { module, node: self.name.clone().expect("a paired fake"), folders })
    }

    async fn quarantine_folder(&self, _: ModuleName, folder: String) -> Answer<QuarantineFolder> {
        let folders = self.quarantine.lock().expect("lock").clone();
        let found = folders.into_iter().find(|view| view.name == folder);
        let folder = found.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("there is no quarantine folder '{folder}' on this node"), "")
                .with_help("stead quarantine list")
        })?;
        let entry = QuarantineEntry {
            path: "0/base/1.dat".into(),
            was: "/srv/stead/pg/base/1.dat".into(),
            bytes: 8192,
            modified_unix_ms: AT_US / 1000,
        };
        Ok(QuarantineFolder { folder, entries: vec![entry] })
    }

    async fn drop_quarantine(&self, module: ModuleName, folder: String, caller: Caller) -> Answer<QuarantineList> {
        self.heard(format!("drop {folder} of {module} by {caller}"));
        self.quarantine_folder(module.clone(), folder.clone()).await?;
        self.quarantine.lock().expect("lock").retain(|view| view.name != folder);
        self.quarantine(module).await
    }

    async fn configuration(&self, module: ModuleName) -> Answer<ConfigView> {
        Ok(ConfigView {
            module,
            id: Some(ModuleId(1)),
            mode: "mirror".into(),
            macros: vec![MacroView { name: "VIP".into(), value: "10.0.1.100".into() }],
            nodes: vec![
                ConfigSignature {
                    node: node("node1"),
                    active: "3f9a01c2".into(),
                    editable: "77777777".into(),
                    applied_unix_ms: Some(AT_US / 1000),
                    problem: None,
                },
                ConfigSignature {
                    node: node("node2"),
                    active: String::new(),
                    editable: String::new(),
                    applied_unix_ms: None,
                    problem: None,
                },
            ],
            history: vec![
                PastConfiguration {
                    number: 1,
                    signature: "55555555".into(),
                    applied_unix_ms: AT_US / 1000,
                    ..PastConfiguration::default()
                },
                PastConfiguration {
                    number: 2,
                    applied_unix_ms: AT_US / 1000,
                    edited: true,
                    ..PastConfiguration::default()
                },
            ],
            diagnostics: Vec::new(),
        })
    }

    async fn configure(&self, module: ModuleName, request: ConfigRequest, caller: Caller) -> Answer<ChangeAnswer> {
        self.heard(format!(
            "config {module} {:?} dry_run={} local={} restore={:?} export={:?} by {caller}",
            request.set, request.dry_run, request.local, request.restore, request.export
        ));
        if let Some(problem) = &self.findings {
            return Err(problem.clone());
        }
        let warning = Diagnostic {
            severity: Severity::Warning,
            file: "conf/userconfig.xml".into(),
            message: "no start_prim script".into(),
            ..Diagnostic::default()
        };
        Ok(ChangeAnswer {
            applied: !request.dry_run,
            changes: vec!["VIP 10.0.1.99 becomes 10.0.1.100".into()],
            nodes: self.results(),
            diagnostics: vec![warning],
            needs_stop: false,
            next: "stead start -m pg".into(),
        })
    }

    async fn install(
        &self,
        module: ModuleName,
        package: Vec<u8>,
        query: InstallQuery,
        caller: Caller,
    ) -> Answer<InstallAnswer> {
        self.heard(format!(
            "install {module} {} bytes local={} id={:?} by {caller}",
            package.len(),
            query.local,
            query.id.map(|i| i.0)
        ));
        Ok(InstallAnswer { module, id: query.id.unwrap_or(ModuleId(1)), nodes: self.results(), left_out: Vec::new() })
    }

    async fn deconfigure(&self, module: ModuleName, caller: Caller) -> Answer<CommandAnswer> {
        self.heard(format!("deconfig {module} by {caller}"));
        let sentence = format!("module {module} is configured no more on this node");
        Ok(CommandAnswer { sentence, settled: true, module: self.find(&module)? })
    }

    async fn uninstall(&self, module: ModuleName, query: InstallQuery, _: Caller) -> Answer<ChangeAnswer> {
        self.heard(format!("uninstall {module} local={}", query.local));
        Ok(ChangeAnswer { applied: true, nodes: self.results(), ..ChangeAnswer::default() })
    }

    async fn package(&self, _: ModuleName) -> Answer<Vec<u8>> {
        Ok(b"PK made up".to_vec())
    }

    async fn ports(&self) -> Answer<PortList> {
        let port = |protocol: &str, port, purpose: &str, module| PortView {
            protocol: protocol.into(),
            port,
            purpose: purpose.into(),
            module,
        };
        Ok(PortList {
            ports: vec![port("udp", 4800, "heartbeats", None), port("tcp", 5600, "replication", Some(module("pg")))],
        })
    }

    async fn cluster(&self) -> Answer<ClusterView> {
        let members = self.all_nodes();
        let member = |(i, name): (usize, NodeName)| MemberView {
            id: NodeId(i as u16 + 1),
            witness: false,
            networks: Vec::new(),
            seen: !self.silent.contains(&name),
            name,
        };
        Ok(ClusterView {
            paired: true,
            cluster: Some(ClusterId(1)),
            node: self.name.clone(),
            members: members.into_iter().enumerate().map(member).collect(),
        })
    }

    async fn cluster_init(&self, request: InitRequest) -> Answer<InitAnswer> {
        self.heard(format!("init {} {:?}", request.name, request.addrs));
        Ok(InitAnswer { cluster: ClusterId(0xab), node: request.name, token: self.cluster_token().await? })
    }

    async fn cluster_join(&self, request: JoinRequest) -> Answer<JoinAnswer> {
        Err(Problem::new(
            Code::Unauthenticated,
            format!("cannot join the cluster at {}", request.addr),
            "the token is not valid any more",
        )
        .with_help("stead cluster token, on a node of the cluster"))
    }

    async fn cluster_token(&self) -> Answer<TokenAnswer> {
        Ok(TokenAnswer { token: "st1-abcdef".into(), addrs: vec!["10.0.1.1".into()], expires_unix_ms: u64::MAX / 2 })
    }

    async fn cluster_config(&self) -> Answer<ClusterConfig> {
        Ok(ClusterConfig { xml: "<cluster/>".into(), signature: "11".into(), ..Default::default() })
    }

    async fn set_cluster_config(&self, request: ClusterConfigRequest, _: Caller) -> Answer<ChangeAnswer> {
        self.heard(format!("cluster config {} dry_run={}", request.xml.trim(), request.dry_run));
        Ok(ChangeAnswer { applied: !request.dry_run, nodes: self.results(), ..ChangeAnswer::default() })
    }

    async fn cluster_confinfo(&self) -> Answer<ConfInfo> {
        let row = |name: &str, signature: &str| ConfInfoRow {
            node: node(name),
            signature: signature.into(),
            applied_unix_ms: Some(AT_US / 1000),
            problem: None,
        };
        Ok(ConfInfo { nodes: vec![row("node1", "11"), row("node2", "12")] })
    }

    async fn cluster_state(&self) -> Answer<ClusterState> {
        let row = ClusterStateRow {
            node: node("node1"),
            module: Some(module("pg")),
            mode: "mirror".into(),
            id: Some(ModuleId(1)),
            state: Some(ModuleState::Prim),
            status: Some(Status::Ready),
            applied_unix_ms: Some(AT_US / 1000),
            signature: "3f9a01c2".into(),
            problem: None,
        };
        let silent = ClusterStateRow {
            node: node("node2"),
            module: None,
            mode: String::new(),
            id: None,
            state: None,
            status: None,
            applied_unix_ms: None,
            signature: String::new(),
            problem: Some(Problem::new(Code::Unreachable, "node2 does not answer", "no heartbeat for 3 s")),
        };
        Ok(ClusterState { rows: vec![row, silent] })
    }

    async fn forward(&self, node: NodeName, method: String, path: String, body: Vec<u8>) -> Answer<RawAnswer> {
        if self.silent.contains(&node) {
            return Err(Problem::new(
                Code::Unreachable,
                format!("node {node} does not answer"),
                "no heartbeat for 3.2 s",
            ));
        }
        let Some(other) = self.others.get(&node) else {
            return Err(Problem::new(
                Code::NotFound,
                format!("there is no node '{node}'"),
                "cluster.xml does not name it",
            )
            .with_help("stead cluster state"));
        };
        let caller = Caller::Node(self.name.clone().expect("a paired fake"));
        let request = axum::http::Request::builder()
            .method(method.as_str())
            .uri(path)
            .extension(caller)
            .body(Body::from(body))
            .expect("a request");
        let response = match router(Arc::clone(other)).oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), BODY_MAX).await.expect("a body").to_vec();
        Ok(RawAnswer { status, content_type: "application/json".into(), body })
    }
}
