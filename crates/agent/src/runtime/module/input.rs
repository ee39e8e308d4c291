//! What reaches a module's loop, and what it reaches.

use super::super::guard::Seen;
use super::Orders;
use cluster::mirror::{Command, Event, Message};
use cluster::watch::Finding;
use cluster::witness;
use model::NodeId;
use model::api::{FarmFlowsView, VerifyRequest, WatchRequest};
use model::resource::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What reaches the loop from outside.
pub enum Input {
    /// An operator's command; answered once.
    Command {
        /// Which.
        command: Command,
        /// Who.
        by: Asker,
        /// (accepted, sentence).
        reply: oneshot::Sender<(bool, String)>,
    },
    /// Compare both copies; answered once.
    Verify {
        /// How.
        request: VerifyRequest,
        /// Who, for the log.
        by: String,
        /// The sentence why not.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// The part of a new configuration that the loop itself goes by.
    Configure(Configured),
    /// A checker found something.
    Found {
        /// Its resource.
        resource: String,
        /// What.
        finding: Finding,
    },
    /// A checker counted something; `None`: it cannot be counted now.
    Counted {
        /// Its resource.
        resource: String,
        /// How many.
        count: Option<usize>,
    },
    /// The program that says what this resource is has ended.
    Lost {
        /// What it spoke of.
        resource: String,
        /// How.
        why: String,
    },
    /// The program that handles the failure of a process has ended.
    Handled {
        /// Of the process.
        resource: String,
        /// All is well again, or why not.
        outcome: Result<(), String>,
    },
    /// A look at the module's own files and mounts has come back.
    Seen(Box<Seen>),
    /// Resources of the other node.
    Resources(BTreeMap<String, Value>),
    /// An operator about checkers and resources; answered once.
    Watch {
        /// What.
        request: WatchRequest,
        /// Who, for the log.
        by: String,
        /// What was done, or the sentence why not.
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// How many flows stand on this member of a farm; answered once, beside the loop.
    Flows {
        /// So many.
        reply: oneshot::Sender<FarmFlowsView>,
    },
    /// Whether another machine has one of a farm's addresses: the sentence, if so.
    Asked(Result<(), String>),
    /// A fact or an outcome.
    Event(Event),
    /// End the loop without touching application, data plane or addresses (the agent is being replaced).
    Leave,
}

/// Who gives a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asker {
    /// As the log says it.
    pub name: String,
    /// A script of the module (`-i NAME`): automatic actions so far are not forgotten because of it.
    pub is_script: bool,
}

impl Asker {
    /// A person, or a script that named itself: a name that anybody may give hides nobody.
    #[must_use]
    pub fn of(identity: &str, caller: &impl std::fmt::Display) -> Self {
        let name = crate::runtime::chronicle::printed(identity);
        if name.is_empty() {
            return Self { name: caller.to_string(), is_script: false };
        }
        Self { name: format!("{name} ({caller})"), is_script: true }
    }
}

/// What of a configuration the loop itself goes by, and may change while it runs.
pub struct Configured {
    /// First digits of its signature.
    pub digits: u64,
    /// Addresses of the split-brain checker.
    pub splitbrain: Vec<std::net::IpAddr>,
    /// As [`super::Parts::scrub_every`].
    pub scrub_every: Option<Duration>,
    /// What it orders by a clock.
    pub orders: Orders,
    /// What watches it.
    pub checkers: model::schema::checkers::Checkers,
    /// `failover=` of the configuration, and the rest of its policy.
    pub policy: cluster::mirror::Policy,
    /// `boot=` of the configuration.
    pub boot: model::schema::module::Boot,
}

/// Inputs waiting; the senders of facts drop what does not fit (the next one replaces it), commands are refused.
pub const INPUTS: usize = 512;

/// What the other node says. It is dropped, as by a network, where it would leave less than half of the queue to this node's own facts and to
/// operators: whoever is broken there must not be deaf here.
pub fn peer_said(inputs: &mpsc::Sender<Input>, said: Input) {
    if !leaves_room(inputs) || inputs.try_send(said).is_err() {
        tracing::debug!("the other node says more than the module's loop takes");
    }
}

/// May the other node say something more?
pub fn leaves_room(inputs: &mpsc::Sender<Input>) -> bool {
    inputs.capacity() > inputs.max_capacity() / 2
}

/// Where the loop's messages go.
pub trait Outside: Send + Sync + 'static {
    /// To the peer's agent, at most once.
    fn send(&self, message: Message);
    /// To the witness that votes here, and to no other; the answer comes back as [`Event::Witness`]. `followed`: the peer led, and did
    /// not step aside for this node.
    fn ask(&self, voter: NodeId, question: witness::Question, followed: bool);
    /// Asks the peer, or else the witness, whether it still takes this node for a member; who does not is heard of as [`Event::LeftOut`].
    fn knock(&self, voter: Option<NodeId>);
    /// The witness that should vote here (where there are spares).
    fn witness(&self, record: &model::Record) -> Option<NodeId>;
    /// What the heartbeats say of this module from now on.
    fn advertise(&self, advert: cluster::mirror::Advert);
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::mirror::Message;

    #[test]
    fn a_peer_that_never_stops_leaves_room_for_everybody_else() {
        let (inputs, mut loops) = mpsc::channel(INPUTS);
        for _ in 0..10 * INPUTS {
            peer_said(&inputs, Input::Resources(BTreeMap::new()));
            peer_said(&inputs, Input::Event(Event::Message(Message::Nudge)));
        }
        assert!(!leaves_room(&inputs));
        for _ in 0..INPUTS / 2 {
            assert!(inputs.try_send(Input::Event(Event::PeerSilent)).is_ok(), "room for a fact");
        }
        // What the loop has taken makes room again.
        (0..INPUTS / 2 + 1).for_each(|_| drop(loops.try_recv()));
        assert!(leaves_room(&inputs));
    }
}
