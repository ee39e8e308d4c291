//! Two nodes, a witness, the networks between them, and an abstract data plane: a world small enough to be
//! searched, around the *real* automata and the real ledger.
//!
//! Writes are names (bits); a tree is the set of writes in it; page cache and disk differ until something syncs.
//! Only what the world does to the automata is modelled here; everything they decide is the production code.
//! **Invariant:** a world is a value: cloned, compared, hashed; the same step on the same world gives the same world.

pub mod check;
mod deeds;
pub mod plane;
mod run;
pub use run::describe_packet;
pub mod scripts;
pub mod step;

use cluster::mirror::{Action, Event, Home, Message, Mirror, Policy, Proof, Settings, Timer, VipAnswer, VipReport};
use cluster::witness::{Answer, LedgerRecord, Question};
use model::orders::Order;
use model::{NodeId, Record};
use plane::Plane;
use scripts::Scripts;
use std::sync::Arc;

/// Number of the witness.
pub const WITNESS: NodeId = NodeId(3);
/// Number of the one that may take its place.
pub const SPARE: NodeId = NodeId(4);

/// A set of writes.
pub type Set = u8;

/// Index of a node: 0 is `node1`.
pub type Who = usize;

/// The other one.
#[must_use]
pub const fn other(who: Who) -> Who {
    1 - who
}

/// What is known of the laws of one search.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// A witness is configured.
    pub witness: bool,
    /// Most messages on their way; more are lost.
    pub in_flight: usize,
    /// Rule of protocol.md that is broken on purpose, so that a search which finds nothing means something.
    pub broken: Option<Broken>,
    /// What the module's configuration chooses.
    pub chosen: Chosen,
    /// What a node can ask to notice its own isolation.
    pub asks: Asks,
}

/// What a node without a witness asks before it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Asks {
    /// The split-brain checker's address, or the gateway: on the clients' network, and alive.
    #[default]
    Alive,
    /// The same, and it is dead.
    Dead,
    /// Neither is there.
    Nothing,
}

/// A choice of the module's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Chosen {
    /// The defaults.
    #[default]
    Nothing,
    /// `failover="off"`.
    FailoverOff,
    /// `defaultprim="node1"`.
    Node1,
    /// `defaultprim="lastprim"`.
    LastPrim,
}

impl Chosen {
    fn policy(self, who: Who) -> Policy {
        let home = match (self, who) {
            (Self::Node1, 0) => Home::Here,
            (Self::Node1, _) => Home::There,
            (Self::LastPrim, _) => Home::Last,
            _ => Home::Nobody,
        };
        Policy { failover: self != Self::FailoverOff, home, ..Policy::default() }
    }
}

/// Ways to break the rules, by altering records and messages *around* the real automata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Broken {
    /// A machine's boot leaves no trace: a copy that lost power counts as full.
    R1CrashUnnoticed,
    /// Nothing is synced before an epoch is stored.
    R4NoSync,
    /// What the peer has acknowledged leaves the activity log, whatever the disks have.
    R5EvictedOnAck,
    /// The target's activity log is not asked for.
    R5TargetNotAsked,
    /// The source's record still says alone when COMMIT is sent.
    R7StillAlone,
    /// The target stores "full" and its disk is not synced.
    R8TargetNotSynced,
    /// An answer of the witness counts for whatever question is open.
    R10AnyAnswer,
    /// A yield is said, and not on disk.
    R14YieldNotStored,
    /// An empty witness believes whoever comes first.
    R15EmptyGrants,
    /// A node takes another witness at once, without its peer.
    R16OneStep,
    /// The takeover window never closes.
    R18NoWindow,
    /// The agent that starts believes its disk: a data plane that only holds is reported as mirrored.
    R20BelievesDisk,
    /// `syncdelta` forces whatever copy is there.
    SyncdeltaAnyCopy,
    /// What the loser of a split brain has is overwritten, whatever was ordered.
    LoserNotKept,
}

/// More agent starts than any story has.
pub(crate) const APART: u64 = 1 << 16;

/// A node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// Has power.
    pub on: bool,
    /// All of it, its kernel included, does not run.
    pub frozen: bool,
    /// Its programs do not run, its kernel answers for the virtual IP.
    pub hung: bool,
    /// The agent; `None`: dead.
    pub agent: Option<Arc<Mirror>>,
    /// The record on disk.
    pub disk_record: Record,
    /// A store that was begun.
    pub storing: Option<(u8, Box<Record>)>,
    /// Armed timers, by their place in [`Timer::ALL`].
    pub timers: u16,
    /// `mirrorfs`; `None`: no process.
    pub plane: Option<Plane>,
    /// What the tree shows.
    pub tree: Set,
    /// What of it is on disk.
    pub disk: Set,
    /// Change map, on disk.
    pub dirty: Set,
    /// Activity log, on disk.
    pub hot: Set,
    /// Machine boots.
    pub boots: u8,
    /// The application runs.
    pub app: bool,
    /// The virtual IP is held.
    pub vip: bool,
    /// The clients' network is cut here.
    pub client_cut: bool,
    /// The way to the witness is cut here.
    pub witness_cut: bool,
    /// The module runs (an agent that starts brings it back).
    pub wanted: bool,
    /// Local outcomes not yet delivered.
    pub inbox: Vec<Event>,
    /// Its configuration names the other witness.
    pub successor: bool,
    /// What its scripts do (scenarios only; in a search they take no time and succeed).
    pub scripts: Scripts,
    /// Its data plane refuses to open.
    pub refuses: bool,
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Packet {
    /// Agent to agent.
    Peer(Who, Message),
    /// To the witness, or its successor.
    Question(NodeId, Question),
    /// From the witness.
    Answer(Who, Answer),
}

/// What the checks remember.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ghost {
    /// Writes made.
    pub made: u8,
    /// Acknowledged to the application.
    pub acked: Set,
    /// fsync of them returned.
    pub fsynced: Set,
    /// Per write: the nodes whose loss of power together excuses it, when it was not fsynced.
    pub held_by: [u8; 8],
    /// Per write: the nodes that lost power since.
    pub lost_by: [u8; 8],
    /// Acknowledged, overwritten by a resync, and in no quarantine.
    pub vanished: Set,
    /// Writes given up by an operator's force, or by L2 (a crashed copy that served after its wait).
    pub excused: Set,
    /// An operator forced.
    pub forced: bool,
    /// A copy that was not complete was made the good one, and nobody had asked for it.
    pub incomplete: bool,
}

/// The witness machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Witness {
    /// Runs.
    pub up: bool,
    /// On its disk.
    pub record: LedgerRecord,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The laws.
    pub rules: Arc<Rules>,
    /// The two nodes.
    pub nodes: [Node; 2],
    /// The third machine.
    pub witness: Option<Witness>,
    /// Another one, which may take its place.
    pub spare: Option<Witness>,
    /// The network between the nodes carries nothing.
    pub cut: bool,
    /// On their way, sorted: order of sending means nothing.
    pub packets: Vec<Packet>,
    /// Packets are kept back (scenarios only).
    pub late: bool,
    /// A resync that was begun does not get through (scenarios only).
    pub copies_wait: bool,
    /// What the checks remember.
    pub ghost: Ghost,
    /// Sentences of the journals since the last look (scenarios only; never part of a search).
    pub transcript: Option<Vec<(Who, String)>>,
    /// Which scripts have run, when they are told (scenarios only).
    pub runs: Option<[cluster::scripts::Scripts; 2]>,
    /// What the log says beside the sentences is told in the transcript.
    pub logs: bool,
}

impl World {
    /// Two nodes with power and agents, module stopped, no data.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let witness = rules.witness.then(|| Witness { up: true, record: cluster::witness::Ledger::empty(1) });
        // Tickets of the two never look alike: what they are renamed to does not depend on which of them asked first.
        let record = |who: Who| Record { boots: who as u64 * APART, ..Record::empty() };
        let node = |who: Who| Node {
            on: true,
            frozen: false,
            hung: false,
            agent: Some(Arc::new(Mirror::new(settings(&rules, who, 1), record(who)))),
            disk_record: record(who),
            storing: None,
            timers: 0,
            plane: None,
            tree: 0,
            disk: 0,
            dirty: 0,
            hot: 0,
            boots: 1,
            app: false,
            vip: false,
            client_cut: false,
            witness_cut: false,
            wanted: false,
            inbox: Vec::new(),
            successor: false,
            scripts: Scripts::default(),
            refuses: false,
        };
        let nodes = [node(0), node(1)];
        Self {
            rules: Arc::new(rules),
            nodes,
            witness,
            spare: None,
            cut: false,
            packets: Vec::new(),
            late: false,
            copies_wait: false,
            ghost: Ghost::default(),
            transcript: None,
            runs: None,
            logs: false,
        }
    }

    /// Runs this node's programs.
    #[must_use]
    pub fn runs(&self, who: Who) -> bool {
        let node = &self.nodes[who];
        node.on && !node.frozen && !node.hung
    }

    /// Its agent runs.
    #[must_use]
    pub fn agent_runs(&self, who: Who) -> bool {
        self.runs(who) && self.nodes[who].agent.is_some()
    }

    /// Its data plane runs.
    #[must_use]
    pub fn plane_runs(&self, who: Who) -> bool {
        self.runs(who) && self.nodes[who].plane.is_some()
    }

    /// Gives an event to an agent, does what it wants, and everything local that follows at once.
    pub fn tell(&mut self, who: Who, event: Event) {
        self.nodes[who].inbox.push(event);
        self.settle(who);
    }

    /// Delivers local outcomes in order, until none is left.
    pub fn settle(&mut self, who: Who) {
        while self.agent_runs(who) && !self.nodes[who].inbox.is_empty() {
            let event = self.nodes[who].inbox.remove(0);
            if let (Some(transcript), Event::Command(command)) = (&mut self.transcript, &event) {
                transcript.push((who, format!("> {command:?}")));
            }
            let node = &mut self.nodes[who];
            let Some(agent) = &mut node.agent else { return };
            let before = self.logs.then(|| Arc::clone(agent));
            let actions = Arc::make_mut(agent).handle(event);
            let said = before.map(|before| cluster::mirror::lines(&before, agent)).unwrap_or_default();
            if let Some(transcript) = &mut self.transcript {
                transcript.extend(said.into_iter().map(|it| (who, format!("  | {} | {}", it.component, it.text))));
            }
            for action in actions {
                self.execute(who, action);
            }
        }
    }

    fn execute(&mut self, who: Who, action: Action) {
        let node = &mut self.nodes[who];
        match action {
            Action::Journal { sentence, .. } => {
                if let Some(transcript) = &mut self.transcript {
                    transcript.push((who, sentence));
                }
            }
            Action::Reply { accepted, sentence } => {
                if let Some(transcript) = &mut self.transcript {
                    transcript.push((who, format!("{}: {sentence}", if accepted { "yes" } else { "no" })));
                }
            }
            Action::Store { id, record } => {
                let record = self.altered(who, record);
                self.nodes[who].storing = Some((id, record));
            }
            Action::Send(message) => {
                let to = other(who);
                if !self.cut && self.nodes[to].on {
                    self.send(Packet::Peer(to, message));
                }
            }
            Action::Ask(question) => {
                if let Some(voter) = self.reachable_witness(who) {
                    self.send(Packet::Question(voter, question));
                }
            }
            // Explored as a step of its own.
            Action::Pulse => {}
            Action::Data(order) => self.order(who, &order),
            Action::KillPlane => {
                node.plane = None;
                node.inbox.push(Event::PlaneDied);
            }
            Action::Probe => {
                let proof = self.proof(who);
                self.nodes[who].inbox.push(Event::Proof(proof));
            }
            Action::Vip(cluster::mirror::Vip::Up { announce_anyway }) => {
                let taken = self.answers(other(who), who) && !announce_anyway;
                let node = &mut self.nodes[who];
                node.inbox.push(Event::Vip(if taken {
                    VipReport::Duplicate { peer: true, who: "10.0.1.100 is answered by the peer".to_string() }
                } else {
                    node.vip = true;
                    VipReport::Held
                }));
            }
            Action::Vip(cluster::mirror::Vip::Down) => {
                node.vip = false;
                node.inbox.push(Event::Vip(VipReport::Released));
            }
            Action::App(app) => {
                scripts::run(node, app);
                self.tell_runs(who, app);
            }
            // No search chooses it; what follows a reboot is a power cut after a stop.
            Action::Reboot => {}
            Action::Arm(timer) => node.timers |= bit(timer),
            Action::Disarm(timer) => node.timers &= !bit(timer),
        }
    }

    /// The scripts that a wish means, when they are told.
    fn tell_runs(&mut self, who: Who, wanted: cluster::mirror::App) {
        let shown = self.nodes[who].agent.as_ref().map_or(model::ModuleState::Stop, |agent| agent.view().state);
        if let (Some(runs), Some(transcript)) = (&mut self.runs, &mut self.transcript) {
            for step in runs[who].plan(wanted, shown) {
                if let cluster::scripts::Step::Run(run) = step {
                    transcript.push((who, format!("  {run}")));
                }
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        if self.packets.len() < self.rules.in_flight && !self.packets.contains(&packet) {
            self.packets.push(packet);
            self.packets.sort_unstable();
        }
    }

    /// The record that reaches the disk: the one asked for, unless a rule is broken on purpose.
    fn altered(&self, who: Who, mut record: Box<Record>) -> Box<Record> {
        let before = &self.nodes[who].disk_record;
        match self.rules.broken {
            Some(Broken::R14YieldNotStored) if record.epoch == before.epoch && record.data == before.data => {
                record.yielded = before.yielded;
            }
            Some(Broken::R7StillAlone) if record.role == model::Role::Primary && before.role == model::Role::Alone => {
                record.role = model::Role::Alone;
            }
            _ => {}
        }
        record
    }

    /// Does `who`'s virtual IP answer to `asker` on the clients' network?
    #[must_use]
    pub fn answers(&self, who: Who, asker: Who) -> bool {
        let (node, asking) = (&self.nodes[who], &self.nodes[asker]);
        node.on && !node.frozen && node.vip && !node.client_cut && !asking.client_cut
    }

    fn proof(&self, who: Who) -> Proof {
        Proof {
            carrier: true,
            isolation: match self.rules.asks {
                Asks::Alive => Some(!self.nodes[who].client_cut),
                Asks::Dead => Some(false),
                Asks::Nothing => None,
            },
            vip: if self.answers(other(who), who) { VipAnswer::Peer } else { VipAnswer::Nobody },
            heard: false,
        }
    }

    /// The witness that votes at this node, when a datagram reaches it now.
    #[must_use]
    pub fn reachable_witness(&self, who: Who) -> Option<NodeId> {
        let voter = self.agent(who)?.voter()?;
        (self.machine(voter).is_some_and(|machine| machine.up) && !self.nodes[who].witness_cut).then_some(voter)
    }

    /// A witness by its number.
    #[must_use]
    pub const fn machine(&self, number: NodeId) -> Option<&Witness> {
        if number.0 == SPARE.0 { self.spare.as_ref() } else { self.witness.as_ref() }
    }

    pub(super) const fn machine_mut(&mut self, number: NodeId) -> Option<&mut Witness> {
        if number.0 == SPARE.0 { self.spare.as_mut() } else { self.witness.as_mut() }
    }

    /// An orderly end of a mirrored leader first sends what is left, or says that it could not.
    fn drain(&mut self, who: Who, order: &Order) {
        let Some(plane) = &self.nodes[who].plane else { return };
        if !matches!(order, Order::Idle | Order::Stop) || plane.unacked == 0 {
            return;
        }
        let (unacked, plane::Mode::Mirrored(session)) = (plane.unacked, plane.mode) else { return };
        let there = other(who);
        let follows = self.plane_runs(there)
            && !self.cut
            && self.nodes[there].plane.as_ref().is_some_and(|plane| {
                matches!(plane.mode, plane::Mode::Following { session: theirs, linked: true, .. } if theirs == session)
            });
        if follows {
            self.nodes[there].tree |= unacked;
            if let Some(plane) = &mut self.nodes[who].plane {
                plane.unacked = 0;
            }
        } else {
            let reason = "not drained".to_string();
            self.nodes[who].inbox.push(Event::Plane(model::orders::Report::LinkLost { session, reason }));
        }
    }

    fn order(&mut self, who: Who, order: &Order) {
        self.drain(who, order);
        let node = &mut self.nodes[who];
        let no_sync = self.rules.broken == Some(Broken::R4NoSync);
        let reports = plane::obey(node, order, no_sync);
        node.inbox.extend(reports);
    }
}

/// Place of a timer in the set of armed ones.
#[must_use]
pub fn bit(timer: Timer) -> u16 {
    Timer::ALL.iter().position(|known| *known == timer).map_or(0, |place| 1 << place)
}

/// Settings of one node's automaton in its machine's n-th boot.
#[must_use]
pub fn settings(rules: &Rules, who: Who, boot: u8) -> Settings {
    let boot = if rules.broken == Some(Broken::R1CrashUnnoticed) { 1 } else { boot };
    Settings {
        module: "AM".to_string(),
        node: NodeId(who as u16 + 1),
        node_name: format!("node{}", who + 1),
        peer: NodeId(other(who) as u16 + 1),
        peer_name: format!("node{}", other(who) + 1),
        witness: rules.witness.then_some(WITNESS),
        replicated: true,
        vip: true,
        salt: who as u64 + 1,
        boot_id: u128::from(boot),
        configuration: 0,
        policy: rules.chosen.policy(who),
    }
}
