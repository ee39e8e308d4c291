//! Whether the cluster's witnesses are there: asked only where there are spares, and by the agent, not by each module.

use super::agent::Agent;
use crate::cluster_config::Cluster;
use futures_util::future::join_all;
use model::api::WitnessNodeView;
use model::limits::WITNESS_ASKED_MS;
use model::{NodeId, Record};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// When each of them answered last.
#[derive(Default)]
pub struct Heard(Mutex<BTreeMap<NodeId, Instant>>);

impl Heard {
    /// Which of the cluster's witnesses should vote for a module with this record.
    #[must_use]
    pub fn wanted(&self, cluster: &Cluster, record: &Record) -> Option<NodeId> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was never asked has not been silent.
        let silent = |one| heard.get(&one).map_or(0, |at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
        cluster::spares::wanted(&cluster.witnesses(), record, silent)
    }

    fn begin(&self, all: &[NodeId]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|one, _| all.contains(one));
        for one in all {
            heard.entry(*one).or_insert_with(Instant::now);
        }
    }

    fn answered(&self, one: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(one, Instant::now());
    }
}

/// A look waits no longer for them.
const LOOK: Duration = Duration::from_millis(900);

/// The witnesses of `cluster.xml`, and whether they answer.
pub async fn view(agent: &Agent) -> Vec<WitnessNodeView> {
    let Some(cluster) = agent.cluster.current() else { return Vec::new() };
    join_all(cluster.configuration.witnesses.iter().map(|it| async {
        let answers = tokio::time::timeout(LOOK, agent.applier.is_alive(&it.name)).await.unwrap_or(false);
        WitnessNodeView { node: it.name.clone(), addr: it.addr.to_string(), answers }
    }))
    .await
}

/// Runs as long as the agent.
pub async fn listen(agent: Weak<Agent>) {
    loop {
        tokio::time::sleep(Duration::from_millis(WITNESS_ASKED_MS)).await;
        let Some(agent) = agent.upgrade() else { return };
        let Some(cluster) = agent.cluster.current() else { continue };
        let mut all = cluster.witnesses();
        if all.len() < 2 {
            all.clear();
        }
        agent.witnesses.begin(&all);
        join_all(all.into_iter().map(|one| ask(&agent, &cluster, one))).await;
    }
}

async fn ask(agent: &Agent, cluster: &Arc<Cluster>, one: NodeId) {
    let Some(name) = cluster.name_of(one) else { return };
    if agent.applier.is_alive(name).await {
        agent.witnesses.answered(one);
    }
}
