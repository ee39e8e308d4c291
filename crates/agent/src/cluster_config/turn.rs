//! Whose turn it is to change modules or the cluster: one change at a time, on all nodes that it concerns.
//!
//! A change asks each of its nodes for the turn, in the order of their numbers, and is refused where another has it: of changes that
//! begin at once, one that is first wherever they meet goes on, and nobody waits for anybody. **Invariant:** a turn that is not
//! renewed is over, so one whose agent died binds nobody for long.

use super::apply::Applier;
use crate::api::Answer;
use crate::identity::{random, to_hex};
use crate::transport::{CallError, PeerClient};
use futures_util::future::join_all;
use model::NodeName;
use model::api::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One node's answer.
const WITHIN: Duration = Duration::from_secs(5);
/// A turn that nobody renewed for so long is over.
const LASTS: Duration = Duration::from_secs(12);
/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(2);
const _: () = assert!(LASTS.as_secs() > RENEWED.as_secs() + 2 * WITHIN.as_secs() - 1, "one lost renewal ends nothing");

/// What one node asks of another.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Which change: two of one node are two.
    ticket: String,
    /// "configuration of module shop".
    what: String,
}

struct Held {
    by: NodeName,
    asked: Asked,
    since: Instant,
    until: Instant,
}

/// Who has the turn on this node.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Option<Held>>);

impl Turns {
    fn held(&self, now: Instant) -> std::sync::MutexGuard<'_, Option<Held>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is over is nobody's.
        let _ = held.take_if(|held| held.until <= now);
        held
    }

    /// Begins a turn, or goes on with it; the sentence says who else has it.
    fn take(&self, by: &NodeName, asked: &Asked, now: Instant) -> Result<(), String> {
        let mut held = self.held(now);
        match &mut *held {
            Some(held) if held.asked.ticket != asked.ticket => Err(held.sentence(now)),
            Some(held) => {
                held.until = now + LASTS;
                Ok(())
            }
            None => {
                *held = Some(Held { by: by.clone(), asked: asked.clone(), since: now, until: now + LASTS });
                Ok(())
            }
        }
    }

    fn end(&self, ticket: &str) {
        let _ = self.held(Instant::now()).take_if(|held| held.asked.ticket == ticket);
    }

    /// May this node take a step of a change here? The sentence says who else has the turn. One without any is let in: its version knows
    /// of no turns.
    fn lets_in(&self, node: &NodeName, now: Instant) -> Result<(), String> {
        match &*self.held(now) {
            Some(held) if held.by != *node => Err(held.sentence(now)),
            _ => Ok(()),
        }
    }
}

impl Held {
    fn sentence(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        format!("{} is making another change, for {seconds} s: {}", self.by, self.asked.what)
    }
}

/// What it takes to ask for a turn, and to renew it.
#[derive(Clone)]
struct Claim {
    turns: Arc<Turns>,
    client: PeerClient,
    asked: Asked,
    own: NodeName,
    /// In the order of their numbers, this one among them.
    nodes: Vec<NodeName>,
}

/// The turn, on all nodes of a change. Ends with [`Turn::end`]; dropped, it ends a moment later.
pub(crate) struct Turn {
    claim: Claim,
    renewing: Option<tokio::task::AbortHandle>,
}

impl Applier {
    /// The turn on this node and on `others`, for "configuration of module shop". One that cannot be asked is left out: the change
    /// itself will find it so, and says it better.
    ///
    /// # Errors
    /// `refused`, and who has it. Nothing is held then.
    pub(crate) async fn turn(
        &self,
        refused: &str,
        what: &str,
        others: &[NodeName],
        client: &PeerClient,
    ) -> Answer<Turn> {
        let cluster = self.cluster()?;
        let own = cluster.identity.name.clone();
        let mut nodes: Vec<NodeName> =
            others.iter().filter(|name| **name != own).cloned().chain([own.clone()]).collect();
        nodes.sort_by_key(|name| cluster.applied.member(name).map_or(u16::MAX, |member| member.id.0));
        let asked = Asked { ticket: to_hex(&random::<16>()), what: what.to_owned() };
        let claim = Claim { turns: Arc::clone(self.turns()), client: client.clone(), asked, own, nodes };
        let mut turn = Turn { claim, renewing: None };
        for node in turn.claim.nodes.clone() {
            if let Some(why) = turn.claim.take(&node).await {
                turn.end().await;
                return Err(busy(refused, why));
            }
        }
        // Not before: out of their order two could keep each other from all of them.
        turn.renewing = Some(tokio::spawn(turn.claim.clone().keep()).abort_handle());
        Ok(turn)
    }

    /// May this node take a step of its change here?
    ///
    /// # Errors
    /// `what`, and who has the turn.
    pub(crate) fn lets_in(&self, node: &NodeName, what: &str) -> Answer<()> {
        self.turns().lets_in(node, Instant::now()).map_err(|why| busy(what, why))
    }
}

fn busy(what: &str, why: String) -> Problem {
    Problem::new(Code::Busy, what, why).with_help("wait until it is done, look at what it made, then again")
}

impl Turn {
    /// Is it still ours everywhere? Asked before the step after which nothing is taken back.
    ///
    /// # Errors
    /// `what`, and who has it: this node was not heard for so long that others went on.
    pub(crate) async fn confirm(&self, what: &str) -> Answer<()> {
        self.claim.renew().await.map_or(Ok(()), |why| Err(busy(what, why)))
    }

    /// Everybody may go on when this returns.
    pub(crate) async fn end(mut self) {
        let claim = self.give_up();
        claim.end_there().await;
    }

    /// It ends on this node, and is renewed nowhere; whoever has what is returned ends it on the others.
    fn give_up(&mut self) -> Claim {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        self.claim.turns.end(&self.claim.asked.ticket);
        let nodes = std::mem::take(&mut self.claim.nodes);
        Claim { nodes, ..self.claim.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let claim = self.give_up();
        if let (false, Ok(runtime)) = (claim.nodes.is_empty(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { claim.end_there().await });
        }
    }
}

impl Claim {
    /// Who else has the turn there; `None`: it is ours, or nobody can say.
    async fn take(&self, node: &NodeName) -> Option<String> {
        if *node == self.own {
            return self.turns.take(node, &self.asked, Instant::now()).err();
        }
        match self.client.call::<_, ()>(node, "POST", "/v1/cluster/turn", Some(&self.asked), WITHIN).await {
            Err(CallError::Refused { problem, .. }) if problem.code == Code::Busy => Some(problem.why),
            _ => None,
        }
    }

    async fn renew(&self) -> Option<String> {
        join_all(self.nodes.iter().map(|node| self.take(node))).await.into_iter().flatten().next()
    }

    async fn keep(self) {
        loop {
            tokio::time::sleep(RENEWED).await;
            self.renew().await;
        }
    }

    async fn end_there(&self) {
        let others = self.nodes.iter().filter(|node| **node != self.own);
        let end = |node| self.client.call::<_, ()>(node, "POST", "/v1/cluster/turn/end", Some(&self.asked), WITHIN);
        join_all(others.map(end)).await;
    }
}

/// Another node asks.
pub(super) fn asked(turns: &Turns, own: &NodeName, by: &NodeName, asked: &Asked) -> Answer<()> {
    let taken = turns.take(by, asked, Instant::now());
    taken.map_err(|why| Problem::new(Code::Busy, format!("it is not {by}'s turn on {own}"), why))
}

/// Another node's change is over.
pub(super) fn ended(turns: &Turns, asked: &Asked) {
    turns.end(&asked.ticket);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).expect("a name")
    }

    fn change(ticket: &str) -> Asked {
        Asked { ticket: ticket.into(), what: format!("configuration of module {ticket}") }
    }

    #[test]
    fn a_turn_is_one_changes_until_it_ends_or_is_renewed_no_more() {
        let (turns, start) = (Turns::default(), Instant::now());
        let (one, two) = (node("node1"), node("node2"));
        assert_eq!(turns.take(&one, &change("a"), start), Ok(()));
        let why = turns.take(&two, &change("b"), start + RENEWED).expect_err("it is node1's");
        assert_eq!(why, "node1 is making another change, for 2 s: configuration of module a");
        turns.take(&one, &change("c"), start).expect_err("two of one node are two");
        // Steps of whoever has it; of anybody, when nobody has.
        assert_eq!(turns.lets_in(&one, start), Ok(()));
        turns.lets_in(&two, start).expect_err("it is node1's");
        // Renewed, it lasts; and a dead agent's is over by itself.
        assert_eq!(turns.take(&one, &change("a"), start + RENEWED), Ok(()));
        turns.take(&two, &change("b"), start + LASTS).expect_err("it was renewed");
        assert_eq!(turns.take(&two, &change("b"), start + RENEWED + LASTS), Ok(()));
        // What is over ends nobody else's.
        turns.end("a");
        turns.lets_in(&one, start + RENEWED + LASTS).expect_err("it is node2's");
        turns.end("b");
        assert_eq!(turns.lets_in(&one, start + RENEWED + LASTS), Ok(()));
    }
}
