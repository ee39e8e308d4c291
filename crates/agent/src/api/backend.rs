//! What the API asks of the agent.

use model::api::{
    ChangeAnswer, ClusterConfig, ClusterConfigRequest, ClusterState, ClusterView, CommandAnswer, CommandRequest,
    ConfInfo, ConfigRequest, ConfigView, DiffView, HookView, InitAnswer, InitRequest, InstallAnswer, InstallQuery,
    JoinAnswer, JoinRequest, LogPage, LogQuery, ModuleView, NodeView, PortList, Problem, QuarantineFolder,
    QuarantineList, StateQuery, TokenAnswer, VerifyRequest, WatchRequest, WhyView,
};
use model::{ModuleName, NodeName};
use std::fmt;
use std::future::Future;

/// What every call comes to.
pub type Answer<T> = Result<T, Problem>;

/// Who asks: set by the door the request came through, never by the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A process of this machine, on the Unix socket.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// Another node, proven by its certificate.
    Node(NodeName),
}

impl fmt::Display for Caller {
    /// As the log says it: "Action start called by …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid: 0 } => f.write_str("root"),
            Self::Local { uid } => write!(f, "uid {uid}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

/// Another node's answer, passed on as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// `application/json` or `application/octet-stream`.
    pub content_type: String,
    /// Body.
    pub body: Vec<u8>,
}

/// The agent, as the API sees it. Implementations may write `async fn`; every method must end within the deadline
/// it is given or a constant one, and must survive being dropped (the client hung up): the work goes on elsewhere.
pub trait Backend: Send + Sync + 'static {
    /// This node's name, `None` before pairing. Requests for `/v1/nodes/<this name>/…` are served here.
    fn local_node(&self) -> Option<NodeName>;

    /// `GET /v1/node`.
    fn node(&self) -> impl Future<Output = Answer<NodeView>> + Send;

    /// `GET /v1/modules`: every module of this node, by name.
    fn modules(&self) -> impl Future<Output = Answer<Vec<ModuleView>>> + Send;
    /// `GET /v1/modules/{m}/state`.
    fn module_state(&self, module: ModuleName, query: StateQuery) -> impl Future<Output = Answer<ModuleView>> + Send;
    /// `POST /v1/modules/{m}/command`: answers once the automaton has decided on it, then waits `wait_ms` at most
    /// for the module to settle.
    fn command(
        &self,
        module: ModuleName,
        request: CommandRequest,
        caller: Caller,
    ) -> impl Future<Output = Answer<CommandAnswer>> + Send;
    /// `POST /v1/modules/{m}/watch`: checkers on and off, resources.
    fn watch(
        &self,
        module: ModuleName,
        request: WatchRequest,
        caller: Caller,
    ) -> impl Future<Output = Answer<CommandAnswer>> + Send;
    /// `GET /v1/modules/{m}/log`.
    fn log(&self, module: ModuleName, query: LogQuery) -> impl Future<Output = Answer<LogPage>> + Send;
    /// `GET /v1/modules/{m}/why`.
    fn why(&self, module: ModuleName) -> impl Future<Output = Answer<WhyView>> + Send;
    /// `GET /v1/modules/{m}/diff`: on the node that serves.
    fn diff(&self, module: ModuleName) -> impl Future<Output = Answer<DiffView>> + Send;
    /// `POST /v1/modules/{m}/verify`: begins on the node that serves; answers with that node's view.
    fn verify(
        &self,
        module: ModuleName,
        request: VerifyRequest,
        caller: Caller,
    ) -> impl Future<Output = Answer<ModuleView>> + Send;
    /// `GET /v1/modules/{m}/quarantine`.
    fn quarantine(&self, module: ModuleName) -> impl Future<Output = Answer<QuarantineList>> + Send;
    /// `GET /v1/modules/{m}/quarantine/{folder}`.
    fn quarantine_folder(
        &self,
        module: ModuleName,
        folder: String,
    ) -> impl Future<Output = Answer<QuarantineFolder>> + Send;
    /// `DELETE /v1/modules/{m}/quarantine/{folder}`: what is left afterwards.
    fn drop_quarantine(
        &self,
        module: ModuleName,
        folder: String,
        caller: Caller,
    ) -> impl Future<Output = Answer<QuarantineList>> + Send;
    /// `GET /v1/modules/{m}/hook/{name}`: refused when the script fails.
    fn hook(&self, module: ModuleName, name: String) -> impl Future<Output = Answer<HookView>> + Send;
    /// `GET /v1/modules/{m}/config`.
    fn configuration(&self, module: ModuleName) -> impl Future<Output = Answer<ConfigView>> + Send;
    /// `POST /v1/modules/{m}/config`: on all nodes or none, unless `local`.
    fn configure(
        &self,
        module: ModuleName,
        request: ConfigRequest,
        caller: Caller,
    ) -> impl Future<Output = Answer<ChangeAnswer>> + Send;
    /// `POST /v1/modules/{m}/deconfig`: on this node.
    fn deconfigure(&self, module: ModuleName, caller: Caller) -> impl Future<Output = Answer<CommandAnswer>> + Send;
    /// `POST /v1/modules/{m}/install`: `package` is the bytes of a `.safe`.
    fn install(
        &self,
        module: ModuleName,
        package: Vec<u8>,
        query: InstallQuery,
        caller: Caller,
    ) -> impl Future<Output = Answer<InstallAnswer>> + Send;
    /// `DELETE /v1/modules/{m}`.
    fn uninstall(
        &self,
        module: ModuleName,
        query: InstallQuery,
        caller: Caller,
    ) -> impl Future<Output = Answer<ChangeAnswer>> + Send;
    /// `GET /v1/modules/{m}/package`: the bytes of a `.safe`.
    fn package(&self, module: ModuleName) -> impl Future<Output = Answer<Vec<u8>>> + Send;
    /// `GET /v1/modules/getports`.
    fn ports(&self) -> impl Future<Output = Answer<PortList>> + Send;

    /// `GET /v1/cluster`.
    fn cluster(&self) -> impl Future<Output = Answer<ClusterView>> + Send;
    /// `POST /v1/cluster/init`.
    fn cluster_init(&self, request: InitRequest) -> impl Future<Output = Answer<InitAnswer>> + Send;
    /// `POST /v1/cluster/join`.
    fn cluster_join(&self, request: JoinRequest) -> impl Future<Output = Answer<JoinAnswer>> + Send;
    /// `POST /v1/cluster/token`.
    fn cluster_token(&self) -> impl Future<Output = Answer<TokenAnswer>> + Send;
    /// `GET /v1/cluster/config`.
    fn cluster_config(&self) -> impl Future<Output = Answer<ClusterConfig>> + Send;
    /// `POST /v1/cluster/config`: on all nodes or none.
    fn set_cluster_config(
        &self,
        request: ClusterConfigRequest,
        caller: Caller,
    ) -> impl Future<Output = Answer<ChangeAnswer>> + Send;
    /// `GET /v1/cluster/confinfo`.
    fn cluster_confinfo(&self) -> impl Future<Output = Answer<ConfInfo>> + Send;
    /// `GET /v1/cluster/state`.
    fn cluster_state(&self) -> impl Future<Output = Answer<ClusterState>> + Send;

    /// Asks another node over mutual TLS; `path` begins with `/v1/` and holds the query. A node that is not in the
    /// cluster is `not_found`, one that does not answer `unreachable`.
    fn forward(
        &self,
        node: NodeName,
        method: String,
        path: String,
        body: Vec<u8>,
    ) -> impl Future<Output = Answer<RawAnswer>> + Send;
}
