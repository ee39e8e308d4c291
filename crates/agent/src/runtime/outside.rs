//! What a module's loop says to the rest of the cluster: peer, witness, heartbeats.
//!
//! At most once, never retried here: the automaton repeats what matters.

use super::agent::Agent;
use super::module::{Input, Outside};
use crate::modules::Active;
use crate::transport::CallError;
use cluster::mirror::{Advert, Event, Message};
use cluster::witness;
use model::api::Code;
use model::limits::QUESTION_MS;
use model::{ModuleId, ModuleName, NodeId, NodeName};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Messages on their way to the peer; more are dropped.
const MESSAGES: usize = 8;
/// Questions and pulses on their way to the witness.
const QUESTIONS: usize = 4;
/// A message that takes longer says nothing any more.
const MESSAGE: Duration = Duration::from_millis(1_000);

/// One module's way out.
pub struct Surroundings {
    agent: Weak<Agent>,
    module: ModuleName,
    id: ModuleId,
    peer: NodeName,
    own: mpsc::Sender<Input>,
    messages: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

impl Surroundings {
    /// Of this module.
    #[must_use]
    pub fn new(agent: &Arc<Agent>, active: &Active, peer: NodeName, own: mpsc::Sender<Input>) -> Self {
        Self {
            agent: Arc::downgrade(agent),
            module: active.name.clone(),
            id: active.id,
            peer,
            own,
            messages: Arc::new(Semaphore::new(MESSAGES)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
        }
    }
}

impl Outside for Surroundings {
    fn send(&self, message: Message) {
        let (Some(agent), Ok(permit)) = (self.agent.upgrade(), Arc::clone(&self.messages).try_acquire_owned()) else {
            return;
        };
        let path = format!("/v1/peer/modules/{}/message", self.module);
        let peer = self.peer.clone();
        tokio::spawn(async move {
            // Who is silent is for the automaton to judge.
            let sent: Result<(), _> =
                agent.client.insisting().call(&peer, "POST", &path, Some(&message), MESSAGE).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "message to the peer");
            }
            drop(permit);
        });
    }

    fn ask(&self, voter: NodeId, question: witness::Question, followed: bool) {
        let Some(agent) = self.agent.upgrade() else { return };
        let is_ask = matches!(question, witness::Question::Ask { .. });
        let own = self.own.clone();
        let Ok(permit) = Arc::clone(&self.questions).try_acquire_owned() else {
            // The witness has answered nothing for a while: so much is an answer to a question.
            if is_ask {
                let _ = own.try_send(Input::Event(Event::Witness(witness::Answer::Unreachable)));
            }
            return;
        };
        let module = self.module.clone();
        let unheard = followed.then(|| super::heart::unheard_for(&agent, &self.peer)).flatten();
        tokio::spawn(async move {
            let within = Duration::from_millis(QUESTION_MS);
            let answer = agent.ask_witness(voter, &module, &question, unheard, within).await;
            drop(permit);
            let _ = own.send(Input::Event(Event::Witness(answer))).await;
        });
    }

    fn knock(&self, voter: Option<NodeId>) {
        let Some(agent) = self.agent.upgrade() else { return };
        // Once for all modules of the pair: a peer without power is not called by each.
        if !agent.may_knock(&self.peer) {
            return;
        }
        let peer = self.peer.clone();
        tokio::spawn(async move {
            let voter = agent.cluster.current().and_then(|cluster| cluster.name_of(voter?).cloned());
            for member in [Some(peer.clone()), voter].into_iter().flatten() {
                let said: Result<serde::de::IgnoredAny, _> =
                    agent.client.insisting().call(&member, "GET", "/v1/node", None::<&()>, MESSAGE).await;
                match said {
                    Ok(_) => break,
                    Err(CallError::Refused { problem, .. }) if problem.code == Code::NotMember => {
                        let instances = agent.instances.read().await;
                        let of_pair = instances.values().filter(|it| it.peer.as_ref() == Some(&peer));
                        of_pair.for_each(|it| it.tell(Event::LeftOut));
                        break;
                    }
                    Err(_) => {}
                }
            }
        });
    }

    fn witness(&self, record: &model::Record) -> Option<NodeId> {
        let agent = self.agent.upgrade()?;
        let cluster = agent.cluster.current()?;
        agent.witnesses.wanted(&cluster, record)
    }

    fn advertise(&self, advert: Advert) {
        if let Some(agent) = self.agent.upgrade() {
            agent.advertise(self.id, advert);
        }
    }
}
