//! One witness for many clusters: each asks by its own authority, none hears of another, and all is remembered over a restart.
//!
//! `STEAD_WITNESS_CLUSTERS=100 STEAD_WITNESS_MODULES=10 cargo test --release -p agent --test witness_many -- --nocapture` measures a thousand
//! modules (`cargo xtask bench witness`): every module of every cluster asks, eight at a time.

mod rig;

use agent::witness_client::ask;
use cluster::mirror::Ticket;
use cluster::witness::{Answer, Question, Refusal};
use model::{DataState, Epoch, ModuleName, ModuleState, NodeId};
use rig::{Node, Witness, eventually, name, pair};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(10);
/// Questions on their way at once.
const AT_ONCE: usize = 8;

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn module(index: usize) -> ModuleName {
    ModuleName::new(&format!("am{index}")).expect("a name")
}

fn first(cluster: usize) -> Epoch {
    Epoch { counter: 1, node: NodeId(1), random: u32::try_from(cluster).expect("few") }
}

fn pulse(node: u16, incarnation: Option<u64>, epoch: Epoch) -> Question {
    Question::Pulse {
        node: NodeId(node),
        peer: NodeId(3 - node),
        incarnation,
        epoch: Some(epoch),
        history: vec![epoch],
        data: DataState::Full,
        yielded: false,
        state: ModuleState::Prim,
        in_session: false,
        forced: false,
    }
}

fn question(node: u16, incarnation: Option<u64>, epoch: Epoch) -> Question {
    Question::Ask {
        node: NodeId(node),
        peer: NodeId(3 - node),
        incarnation,
        ticket: Ticket { boots: 1, n: 1 },
        epoch: Some(epoch),
        history: vec![epoch],
        data: DataState::Full,
        floor: None,
        random: model::marks::Nonce(99),
    }
}

/// Both nodes of a cluster that this witness serves. Their listeners are not needed any more once they have paired.
async fn cluster(index: usize, witness: &Witness) -> (Node, Node) {
    let (high, low) = (index / 250 + 1, index % 250 + 1);
    let addr = |node: usize| format!("10.{}.{low}.{node}", 70 + high);
    let (one, two) = pair(&addr(1), &addr(2)).await;
    let token = one.pairing.token().expect("a token").token;
    witness.join(&addr(1), &token, "10.66.0.1").await.expect("the witness joins");
    (one, two)
}

async fn put(node: &Node, module: &ModuleName, question: &Question) -> Answer {
    ask(&node.client, &name("witness"), module, question, None, WITHIN).await
}

async fn listening() {
    eventually("the witness's port", async || tokio::net::TcpStream::connect("10.66.0.1:9454").await.is_ok()).await;
}

/// Both nodes register, the first asks: what the witness's memory is, and how long the grant took.
async fn grant(nodes: &(Node, Node), cluster: usize, module: &ModuleName) -> Result<(u64, Duration), Answer> {
    let epoch = first(cluster);
    let memory = match put(&nodes.0, module, &question(1, None, epoch)).await {
        Answer::Register { incarnation } => incarnation,
        other => return Err(other),
    };
    for (node, number) in [(&nodes.0, 1), (&nodes.1, 2)] {
        let noted = put(node, module, &pulse(number, Some(memory), epoch)).await;
        if noted != (Answer::Noted { incarnation: memory }) {
            return Err(noted);
        }
    }
    let began = Instant::now();
    match put(&nodes.0, module, &question(1, Some(memory), epoch)).await {
        Answer::Grant { epoch, .. } if epoch.node == NodeId(1) => Ok((memory, began.elapsed())),
        other => Err(other),
    }
}

#[test]
fn every_cluster_has_its_own_memory_behind_one_port() {
    let (clusters, modules) = (number("STEAD_WITNESS_CLUSTERS", 4), number("STEAD_WITNESS_MODULES", 3));
    rig::in_network(async move {
        let witness = Witness::start(tempfile::tempdir().expect("a directory")).await;
        let mut all = Vec::new();
        for index in 0..clusters {
            all.push(cluster(index, &witness).await);
        }
        listening().await;
        // All the modules have the same names, and node 1 of each cluster asks for itself: none is in another one's way.
        let mut took = Vec::new();
        let mut memories = std::collections::BTreeMap::new();
        let jobs: Vec<(usize, usize)> = (0..modules).flat_map(|m| (0..clusters).map(move |c| (c, m))).collect();
        for some in jobs.chunks(AT_ONCE) {
            let asked = some.iter().map(|(c, m)| {
                let nodes = &all[*c];
                async move { (*c, *m, grant(nodes, *c, &module(*m)).await) }
            });
            for (c, m, granted) in futures_util::future::join_all(asked).await {
                let (memory, time) = granted.unwrap_or_else(|other| panic!("module {m} of cluster {c}: {other:?}"));
                took.push(time);
                assert_eq!(memories.insert((c, m), memory), None);
            }
        }
        took.sort();
        let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
        let granted: Vec<String> = [50, 99, 100].map(|share| format!("{:.2}", at(share).as_secs_f64() * 1000.0)).into();
        println!(
            "{} modules of {clusters} clusters: granted in {} ms (median, 99 of 100, longest)",
            took.len(),
            granted.join(", ")
        );
        let distinct: std::collections::BTreeSet<u64> = memories.values().copied().collect();
        assert_eq!(distinct.len(), memories.len(), "each module of each cluster has a memory of its own");

        // Restarted, it remembers what it granted to whom.
        let dir = witness.stop().await;
        let began = Instant::now();
        let witness = Witness::start(dir).await;
        listening().await;
        // For `cargo xtask bench witness`.
        println!("measured {} {:.2}", granted.join(" "), began.elapsed().as_secs_f64() * 1000.0);
        for (c, m) in [(0, 0), (clusters - 1, modules - 1)] {
            let held = put(&all[c].1, &module(m), &question(2, Some(memories[&(c, m)]), first(c))).await;
            assert!(matches!(held, Answer::Refuse { why: Refusal::Held, .. }), "module {m} of cluster {c}: {held:?}");
        }

        // The memory of one cluster is lost: that one begins anew, the others do not notice.
        let dir = witness.stop().await;
        std::fs::remove_dir_all(dir.path().join("var/clusters/2/witness")).expect("the second cluster's memory");
        let witness = Witness::start(dir).await;
        listening().await;
        let lost = put(&all[1].1, &module(0), &question(2, Some(memories[&(1, 0)]), first(1))).await;
        assert!(matches!(lost, Answer::Register { incarnation } if incarnation != memories[&(1, 0)]), "{lost:?}");
        let held = put(&all[0].1, &module(0), &question(2, Some(memories[&(0, 0)]), first(0))).await;
        assert!(matches!(held, Answer::Refuse { why: Refusal::Held, .. }), "{held:?}");
        witness.stop().await;
    });
}
