//! The witness as nodes meet it: it remembers over restarts, says so when it has lost its memory, and hears nobody else.

mod rig;

use agent::witness_client::{ask, pulse_all};
use cluster::mirror::Ticket;
use cluster::witness::{Answer, Question, Refusal};
use model::{DataState, Epoch, ModuleName, ModuleState, NodeId};
use rig::{Node, Witness, eventually, name, pair};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(3);

fn module() -> ModuleName {
    ModuleName::new("am").unwrap()
}

fn epoch(counter: u64, node: u16) -> Epoch {
    Epoch { counter, node: NodeId(node), random: 7 }
}

fn pulse(node: u16, incarnation: Option<u64>, history: &[Epoch]) -> Question {
    Question::Pulse {
        node: NodeId(node),
        peer: NodeId(3 - node),
        incarnation,
        epoch: history.last().copied(),
        history: history.to_vec(),
        data: DataState::Full,
        yielded: false,
        state: ModuleState::Prim,
        in_session: false,
        forced: false,
    }
}

fn question(node: u16, incarnation: Option<u64>, history: &[Epoch]) -> Question {
    Question::Ask {
        node: NodeId(node),
        peer: NodeId(3 - node),
        incarnation,
        ticket: Ticket { boots: 1, n: 1 },
        epoch: history.last().copied(),
        history: history.to_vec(),
        data: DataState::Full,
        floor: None,
        random: model::marks::Nonce(99),
    }
}

async fn put(node: &Node, question: &Question) -> Answer {
    ask(&node.client, &name("witness"), &module(), question, None, WITHIN).await
}

/// Two nodes and a witness, all paired; the witness listens.
async fn trio(net: u8) -> (Node, Node, Witness) {
    let (one, two) = pair(&format!("10.64.{net}.1"), &format!("10.64.{net}.2")).await;
    let token = one.pairing.token().unwrap().token;
    let witness = Witness::start(tempfile::tempdir().unwrap()).await;
    witness.join(&one.addr, &token, &format!("10.64.{net}.250")).await.expect("the witness joins");
    listening(net).await;
    (one, two, witness)
}

async fn listening(net: u8) {
    let addr = format!("10.64.{net}.250:9454");
    eventually("the witness's port", async || tokio::net::TcpStream::connect(&addr).await.is_ok()).await;
}

async fn incarnation_for(node: &Node) -> u64 {
    match put(node, &question(1, None, &[epoch(1, 1)])).await {
        Answer::Register { incarnation } => incarnation,
        other => panic!("a new memory must ask to register: {other:?}"),
    }
}

#[test]
fn it_grants_once_and_remembers_over_a_restart() {
    rig::in_network(async {
        let (one, two, witness) = trio(1).await;
        let first = epoch(1, 1);
        let memory = incarnation_for(&one).await;
        let early = put(&one, &question(1, Some(memory), &[first])).await;
        assert!(matches!(early, Answer::Refuse { why: Refusal::Empty, .. }), "{early:?}");
        assert_eq!(put(&one, &pulse(1, Some(memory), &[first])).await, Answer::Noted { incarnation: memory });
        let pulses = [(module(), pulse(2, Some(memory), &[first]))];
        assert_eq!(
            pulse_all(&two.client, &name("witness"), &pulses, WITHIN).await,
            [Answer::Noted { incarnation: memory }]
        );
        let granted = put(&one, &question(1, Some(memory), &[first])).await;
        let Answer::Grant { epoch: granted, .. } = granted else { panic!("{granted:?}") };
        assert_eq!((granted.counter, granted.node, granted.random), (2, NodeId(1), 99));

        let dir = witness.stop().await;
        let asked = std::time::Instant::now();
        assert_eq!(put(&two, &question(2, Some(memory), &[first])).await, Answer::Unreachable);
        assert!(asked.elapsed() < WITHIN + Duration::from_millis(500));
        let witness = Witness::start(dir).await;
        listening(1).await;
        let held = put(&two, &question(2, Some(memory), &[first])).await;
        assert!(
            matches!(held, Answer::Refuse { why: Refusal::Held, granted: Some(epoch), .. } if epoch == granted),
            "what was granted before the restart is still granted: {held:?}"
        );

        // Power lost in the middle of a write: one copy is torn, the other counts.
        let dir = witness.stop().await;
        let copies = dir.path().join("var/witness/modules/am");
        std::fs::write(copies.join("ledger.a"), b"stead-state 1 9").unwrap();
        let witness = Witness::start(dir).await;
        listening(1).await;
        let held = put(&two, &question(2, Some(memory), &[first])).await;
        assert!(matches!(held, Answer::Refuse { why: Refusal::Held, .. }), "{held:?}");

        // Both are gone or unreadable: it has lost its memory, and says so.
        let dir = witness.stop().await;
        for copy in ["ledger.a", "ledger.b"] {
            std::fs::write(copies.join(copy), b"nonsense").unwrap();
        }
        let witness = Witness::start(dir).await;
        listening(1).await;
        let lost = put(&two, &question(2, Some(memory), &[first])).await;
        assert!(matches!(lost, Answer::Register { incarnation } if incarnation != memory), "{lost:?}");
        witness.stop().await;
    });
}

#[test]
fn a_node_asks_in_its_own_name_and_a_witness_commands_nothing() {
    rig::in_network(async {
        let (one, two, witness) = trio(2).await;
        let memory = incarnation_for(&one).await;
        assert_eq!(
            put(&two, &pulse(1, Some(memory), &[epoch(1, 1)])).await,
            Answer::Unreachable,
            "node2 spoke as node1"
        );
        let asked =
            one.client.call::<(), serde_json::Value>(&name("witness"), "GET", "/v1/witness/state", None, WITHIN).await;
        let state = asked.expect("the state");
        assert_eq!(
            (state["modules"][0]["module"].as_str(), state["modules"][0]["registered"].as_array().unwrap().len()),
            (Some("am"), 0)
        );
        // A node cannot make the witness a member of something else, nor reach what is not there.
        let refused =
            one.client.call::<(), serde_json::Value>(&name("witness"), "GET", "/v1/modules", None, WITHIN).await;
        assert!(refused.unwrap_err().to_string().contains("stead witness"));

        // With the witness's own key: the nodes' API answers nothing but which configuration is in force.
        let dir = witness.stop().await;
        let there = agent::places::Places::below(dir.path());
        let store = agent::cluster_config::ClusterStore::open(there).unwrap();
        let as_witness = agent::transport::PeerClient::new(store.watch());
        let whoami = as_witness.call::<(), String>(&name("node1"), "GET", "/v1/whoami", None, WITHIN).await;
        assert!(matches!(whoami, Err(agent::transport::CallError::Refused { status: 404, .. })), "{whoami:?}");
        let commit =
            as_witness.request(&name("node1"), "POST", "/v1/cluster/commit", b"{}".to_vec(), WITHIN).await.unwrap();
        assert_eq!(commit.status, 404);
        let in_force =
            as_witness.request(&name("node1"), "GET", "/v1/cluster/in-force", Vec::new(), WITHIN).await.unwrap();
        assert_eq!(in_force.status, 200);
    });
}

#[test]
fn a_machine_is_a_node_or_a_witness() {
    rig::in_network(async {
        let one = Node::new("10.64.3.1");
        let token = one.init("node1").await;
        let witness = Witness::start(tempfile::tempdir().unwrap()).await;
        let request = model::api::JoinRequest {
            addr: "10.64.3.1".into(),
            token: token.clone(),
            name: Some(name("node2")),
            addrs: vec!["10.64.3.2".into()],
            witness: false,
            replace: false,
        };
        let refused = witness.post::<model::api::JoinAnswer>("/v1/cluster/join", &request).await.unwrap_err();
        assert!(refused.why.contains("runs stead witness") && refused.help.contains("--witness"), "{refused}");
        witness.join("10.64.3.1", &token, "10.64.3.250").await.expect("as a witness it joins");
        let Node { dir, server, .. } = one;
        server.unwrap().stop().await;
        let refused = agent::witness_server::run(agent::places::Places::below(dir.path()), async {}).await.unwrap_err();
        assert!(refused.to_string().contains("this machine is node 'node1'"), "{refused}");
    });
}

#[test]
fn a_second_witness_is_a_spare_and_one_that_is_gone_is_replaced_by_its_name() {
    rig::in_network(async {
        let (one, _two, witness) = trio(4).await;
        let token = || one.pairing.token().unwrap().token;
        let named = || -> Vec<String> {
            let cluster = one.store.current().unwrap();
            cluster.configuration.witnesses.iter().map(|it| format!("{}@{}", it.name, it.addr)).collect()
        };
        let spare = Witness::start(tempfile::tempdir().unwrap()).await;
        spare.join_as("spare", &one.addr, &token(), "10.64.4.251", false).await.expect("it joins as a spare");
        assert_eq!(named(), ["witness@10.64.4.250", "spare@10.64.4.251"]);
        eventually("all four to agree", async || {
            let rows = one.applier.confinfo().await.unwrap().nodes;
            rows.len() == 4 && rows.iter().all(|row| row.problem.is_none() && row.signature == rows[0].signature)
        })
        .await;
        // Each has a memory of its own.
        let memory = incarnation_for(&one).await;
        let asked =
            ask(&one.client, &name("spare"), &module(), &question(1, Some(memory), &[epoch(1, 1)]), None, WITHIN).await;
        assert!(matches!(asked, Answer::Register { incarnation } if incarnation != memory), "{asked:?}");

        let third = Witness::start(tempfile::tempdir().unwrap()).await;
        let vague = third.join_as("third", &one.addr, &token(), "10.64.4.252", true).await.unwrap_err();
        assert!(vague.why.contains("witness, spare") && vague.help.contains("--name NAME"), "{vague}");
        let there = third.join_as("spare", &one.addr, &token(), "10.64.4.252", true).await.unwrap_err();
        assert!(there.why.contains("it is not gone"), "{there}");
        spare.stop().await;
        third.join_as("spare", &one.addr, &token(), "10.64.4.252", true).await.expect("it takes the place");
        assert_eq!(named(), ["witness@10.64.4.250", "spare@10.64.4.252"]);
        witness.stop().await;
        third.stop().await;
    });
}
