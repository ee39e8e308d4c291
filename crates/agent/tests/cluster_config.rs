//! `cluster.xml` is applied on all members or on none, also when the conversation is cut in the middle.

mod rig;

use agent::api::Caller;
use agent::transport::{Serve, Server};
use model::api::{ChangeAnswer, ClusterConfigRequest, Code, Problem};
use rig::{Node, Witness, eventually, pair};

async fn configure(node: &Node, xml: &str, dry_run: bool) -> Result<ChangeAnswer, Problem> {
    let request = ClusterConfigRequest { xml: xml.into(), dry_run, ..Default::default() };
    node.applier.configure(request, &Caller::Local { uid: 0 }).await
}

fn signatures(one: &Node, two: &Node) -> (String, String) {
    (one.store.current().unwrap().signature.clone(), two.store.current().unwrap().signature.clone())
}

/// The present text with a second network at these addresses.
fn with_net2(node: &Node, first: &str, second: &str) -> String {
    let lan = format!(
        "    <lan name=\"net2\">\n      <node name=\"node1\" addr=\"{first}\"/>\n      <node name=\"node2\" addr=\"{second}\"/>\n    </lan>\n  </lans>"
    );
    node.applier.show().unwrap().xml.replace("  </lans>", &lan)
}

#[test]
fn a_new_network_reaches_both_nodes_and_is_used() {
    rig::in_network(async {
        let (one, two) = pair("10.63.1.1", "10.63.1.2").await;
        let before = signatures(&one, &two);
        let xml = with_net2(&one, "10.63.101.1", "10.63.101.2");
        let dry = configure(&one, &xml, true).await.expect("it could be applied");
        assert!(
            !dry.applied && dry.changes.iter().any(|change| change.contains("node2 at 10.63.101.2 on network net2")),
            "{dry:?}"
        );
        assert_eq!(signatures(&one, &two), before, "a dry run changes nothing");

        let done = configure(&one, &xml, false).await.expect("applied");
        assert!(
            done.applied && done.nodes.len() == 2 && done.nodes.iter().all(|node| node.problem.is_none()),
            "{done:?}"
        );
        let (first, second) = signatures(&one, &two);
        assert!(first == second && first != before.0);
        let written = std::fs::read_to_string(two.dir.path().join("etc/cluster/cluster.xml")).unwrap();
        assert_eq!(written, xml);
        // The copy for people: what is written into it is told, not acted on.
        assert_eq!(two.store.edited(), None);
        let copy = two.dir.path().join("etc/cluster/cluster.xml");
        std::fs::write(&copy, xml.replace("net2", "net3")).unwrap();
        let told = two.store.edited().expect("a warning");
        assert!(told.contains(&format!("stead cluster config {}", copy.display())), "{told}");
        std::fs::write(&copy, &xml).unwrap();
        assert_eq!(two.store.edited(), None);
        eventually("node2 to listen on the new network", async || {
            tokio::net::TcpStream::connect(("10.63.101.2", agent::transport::API_PORT)).await.is_ok()
        })
        .await;
        // Applying from the other side works as well.
        configure(&two, &xml.replace("<lans>", "<lans pulse=\"200ms\">"), false).await.expect("applied");
        assert_eq!(one.store.current().unwrap().configuration.pulse_ms, 200);
    });
}

#[test]
fn what_one_node_cannot_take_is_applied_nowhere_and_the_line_is_named() {
    rig::in_network(async {
        let (one, two) = pair("10.63.2.1", "10.63.2.2").await;
        let before = signatures(&one, &two);

        let wrong = with_net2(&one, "10.63.102.1", "192.0.2.2");
        let refused = configure(&one, &wrong, false).await.unwrap_err();
        assert_eq!(refused.code, Code::Misconfigured);
        assert!(
            refused.why.contains("node2 does not take the configuration") && refused.why.contains("192.0.2.2"),
            "{refused}"
        );
        let line = 1 + wrong.lines().position(|line| line.contains("192.0.2.2")).unwrap();
        assert_eq!(refused.diagnostics.first().map(|found| found.line as usize), Some(line), "{refused:?}");

        let wrong = with_net2(&one, "192.0.2.1", "10.63.102.2");
        let refused = configure(&one, &wrong, false).await.unwrap_err();
        assert!(refused.why.contains("node1 does not take") && refused.why.contains("192.0.2.1"), "{refused}");

        let xml = one.applier.show().unwrap().xml;
        let without: String =
            xml.lines().filter(|line| !line.contains("node2")).map(|line| format!("{line}\n")).collect();
        let refused = configure(&one, &without, false).await.unwrap_err();
        let found = &refused.diagnostics[0];
        assert!(
            found.message.contains("'node2' is a member of the cluster and missing here")
                && found.help.contains("--forget node2")
                && found.line > 0,
            "{refused:?}"
        );

        let refused = configure(&one, &xml.replace("node2", "node7"), false).await.unwrap_err();
        let found = &refused.diagnostics[0];
        assert!(
            found.message.contains("'node7' is not paired") && found.help.contains("stead cluster join"),
            "{refused:?}"
        );
        assert_eq!(found.line as usize, 1 + xml.lines().position(|line| line.contains("node2")).unwrap());

        let refused = configure(&one, "<cluster><lans>", false).await.unwrap_err();
        assert!(!refused.diagnostics.is_empty(), "{refused}");
        assert_eq!(signatures(&one, &two), before);
    });
}

#[test]
fn of_two_operators_at_once_exactly_one_changes_the_cluster() {
    rig::in_network(async {
        let (one, two) = pair("10.63.11.1", "10.63.11.2").await;
        for round in 1..=5_u64 {
            let xml = |pulse: u64| {
                let now = one.applier.show().unwrap().xml;
                let present = now.split("<lans").nth(1).and_then(|rest| rest.split('>').next()).unwrap().to_owned();
                now.replace(&format!("<lans{present}>"), &format!("<lans pulse=\"{pulse}ms\">"))
            };
            let (first, second) = (xml(100 + round), xml(200 + round));
            let (done1, done2) = tokio::join!(configure(&one, &first, false), configure(&two, &second, false));
            let (done, refused) = match (done1, done2) {
                (Ok(done), Err(refused)) | (Err(refused), Ok(done)) => (done, refused),
                other => panic!("exactly one: {other:?}"),
            };
            assert!(done.nodes.iter().all(|node| node.problem.is_none()), "{done:?}");
            assert_eq!(refused.code, Code::Busy, "{refused}");
            assert!(
                refused.why.contains("is making another change") || refused.why.contains("has changed it meanwhile"),
                "{refused}"
            );
            let (here, there) = signatures(&one, &two);
            assert_eq!(here, there);
        }
        // Nobody has the turn any more.
        let xml = one.applier.show().unwrap().xml;
        configure(&two, &xml, false).await.expect("applied");
    });
}

#[test]
fn a_member_that_does_not_answer_stops_the_change() {
    rig::in_network(async {
        let (one, mut two) = pair("10.63.3.1", "10.63.3.2").await;
        let before = signatures(&one, &two);
        two.server.take().unwrap().stop().await;
        let xml = with_net2(&one, "10.63.103.1", "10.63.103.2");
        let refused = configure(&one, &xml, false).await.unwrap_err();
        assert_eq!(refused.code, Code::Unreachable);
        assert!(refused.why.contains("node2 does not answer (10.63.3.2:9453"), "{refused}");
        assert_eq!(signatures(&one, &two), before);
        let info = one.applier.confinfo().await.unwrap();
        assert!(info.nodes[0].problem.is_none() && info.nodes[1].problem.is_some(), "{info:?}");
    });
}

#[test]
fn a_promise_whose_outcome_was_not_heard_is_settled_by_asking() {
    rig::in_network(async {
        let (one, mut two) = pair("10.63.4.1", "10.63.4.2").await;
        let before = signatures(&one, &two).0;
        let promise = |node: &Node, xml: &str| {
            let mut applied = node.store.current().unwrap().applied.clone();
            applied.xml = xml.into();
            serde_json::json!({"version": 1, "made_unix_ms": 1, "asker": "node1", "applied": applied}).to_string()
        };
        let path = two.dir.path().join("etc/cluster/promise.json");
        tokio::spawn(two.applier.clone().settle_promises());

        // The asker decided against it: the promise is void.
        let xml = with_net2(&one, "10.63.104.1", "10.63.104.2");
        std::fs::write(&path, promise(&two, &xml)).unwrap();
        eventually("the promise to be void", async || !path.exists()).await;
        assert_eq!(signatures(&one, &two).1, before);

        // The asker decided for it while this node was cut off: it is taken as soon as the asker answers.
        two.server.take().unwrap().stop().await;
        let Node { dir, server, addr, .. } = one;
        server.unwrap().stop().await;
        std::fs::write(&path, promise(&two, &xml)).unwrap();
        let file = dir.path().join("etc/cluster/applied.json");
        let mut decided: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        decided["xml"] = xml.clone().into();
        std::fs::write(&file, decided.to_string()).unwrap();
        assert!(path.exists(), "as long as nobody can be asked it binds");
        let one = Node::at(dir, &addr);
        one.listening().await;
        eventually("the configuration to be taken", async || two.store.current().unwrap().applied.xml == xml).await;
        let (first, second) = signatures(&one, &two);
        assert_eq!(first, second);
        assert!(!path.exists());
    });
}

#[test]
fn a_node_that_is_taken_off_the_list_is_shut_out_at_once() {
    rig::in_network(async {
        let (one, two) = pair("10.63.5.1", "10.63.5.2").await;
        assert_eq!(two.whoami_at("node1").await.unwrap(), "node node2");
        // There is no command for it yet; what counts is the applied list.
        let Node { dir, server, addr, .. } = one;
        server.unwrap().stop().await;
        let file = dir.path().join("etc/cluster/applied.json");
        let mut applied: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        applied["members"].as_array_mut().unwrap().retain(|member| member["name"] == "node1");
        applied["xml"] = applied["xml"]
            .as_str()
            .unwrap()
            .lines()
            .filter(|line| !line.contains("node2"))
            .collect::<Vec<_>>()
            .join("\n")
            .into();
        std::fs::write(&file, applied.to_string()).unwrap();
        let one = Node::at(dir, &addr);
        one.listening().await;
        let refused = two.whoami_at("node1").await.unwrap_err().to_string();
        assert!(refused.contains("belongs to no node of the cluster"), "{refused}");
    });
}

#[test]
fn two_agents_cannot_share_a_socket() {
    rig::in_network(async {
        let one = Node::new("10.63.6.1");
        let places = agent::places::Places::below(one.dir.path());
        let serve = Serve { port: 9453, router: axum::Router::new(), join: None };
        let Err(refused) = Server::start(&places, &one.store, serve) else { panic!("a second agent took the socket") };
        assert!(
            std::error::Error::source(&refused).unwrap().to_string().contains("another agent answers"),
            "{refused}"
        );
    });
}

#[test]
fn a_witness_is_left_out_without_its_consent_and_taken_in_again_where_it_is() {
    rig::in_network(async {
        let (one, two) = pair("10.63.7.1", "10.63.7.2").await;
        let token = one.pairing.token().unwrap().token;
        let witness = Witness::start(tempfile::tempdir().unwrap()).await;
        witness.join(&one.addr, &token, "10.63.7.250").await.expect("the witness joins");
        let with = one.applier.show().unwrap().xml;
        let without: String =
            with.lines().filter(|line| !line.contains("<witness")).map(|l| format!("{l}\n")).collect();
        let named = |node: &Node| node.store.current().unwrap().configuration.witnesses.len() == 1;
        eventually("the witness's port", async || tokio::net::TcpStream::connect("10.63.7.250:9454").await.is_ok())
            .await;

        configure(&one, &without, false).await.expect("applied without it");
        assert!(!named(&one) && !named(&two));
        // It missed this one, and is up to date again with the change that names it. The kept connections are of before.
        configure(&two, &without.replace("<lans>", "<lans pulse=\"200ms\">"), false).await.expect("applied without it");
        let fresh = agent::cluster_config::Applier::new(
            std::sync::Arc::clone(&one.store),
            agent::transport::PeerClient::new(one.store.watch()),
        );
        let with_other_pulse = with.replace("<lans>", "<lans pulse=\"300ms\">");
        let request = ClusterConfigRequest { xml: with_other_pulse, dry_run: false, ..Default::default() };
        fresh.configure(request, &Caller::Local { uid: 0 }).await.expect("it is taken in again");
        let rows = two.applier.confinfo().await.unwrap().nodes;
        let signature = one.store.current().unwrap().signature.clone();
        assert_eq!(rows.iter().filter(|row| row.signature == signature).count(), 3, "{rows:?}");

        let dir = witness.stop().await;
        let refused = configure(&one, &with, false).await.expect_err("a change that names it needs it");
        assert!(refused.why.contains("witness"), "{refused}");
        configure(&one, &without, false).await.expect("one that is gone cannot hinder that it is left out");
        assert!(!named(&one) && !named(&two));
        let witness = Witness::start(dir).await;
        eventually("the witness's port", async || tokio::net::TcpStream::connect("10.63.7.250:9454").await.is_ok())
            .await;
        configure(&two, &with, false).await.expect("it is back");
        assert!(named(&one) && named(&two));
        witness.stop().await;
    });
}

/// Its certificate opens nothing any more, on any node, and what it had open is closed.
#[test]
fn a_member_that_has_left_for_good_is_let_in_nowhere() {
    rig::in_network(async {
        let (one, two) = pair("10.63.40.1", "10.63.40.2").await;
        let token = one.pairing.token().unwrap().token;
        let three = Node::new("10.63.40.3");
        three.join("10.63.40.1", &token, "node3").await.expect("node3 joins");
        for node in ["node1", "node2"] {
            assert_eq!(three.whoami_at(node).await.unwrap(), "node node3");
        }
        let xml = one.applier.show().unwrap().xml;
        let without: String =
            xml.lines().filter(|line| !line.contains("node3")).map(|line| format!("{line}\n")).collect();
        let forget = async |at: &Node, xml: &str, gone: &str| {
            let request = ClusterConfigRequest { xml: xml.into(), forget: vec![rig::name(gone)], ..Default::default() };
            at.applier.configure(request, &Caller::Local { uid: 0 }).await
        };
        for (at, xml, gone, because) in [
            (&one, &xml, "node3", "still has a line of 'node3'"),
            (&one, &without, "node9", "'node9' is no member"),
            (&three, &without, "node3", "'node3' is this node itself"),
        ] {
            let refused = forget(at, xml, gone).await.unwrap_err();
            assert!(refused.why.contains(because) && !refused.help.is_empty(), "{refused}");
        }
        // A module of any node holds it.
        two.applier.ask_modules(agent::cluster_config::Modules {
            needs: Box::new(|node| (node.as_str() == "node3").then(|| "shop".into())),
            unfit: Box::new(|_, _| None),
        });
        let refused = forget(&one, &without, "node3").await.unwrap_err();
        assert!(refused.why.contains("module shop runs on node3") && refused.help.contains("--replace"), "{refused}");

        let Node { dir, addr, server, .. } = two;
        server.unwrap().stop().await;
        let two = Node::at(dir, &addr);
        two.listening().await;
        let done = forget(&one, &without, "node3").await.expect("it goes");
        assert!(done.changes.iter().any(|change| change.contains("no longer a member: node3")), "{done:?}");
        assert_eq!(signatures(&one, &two).0, signatures(&one, &two).1);
        for node in ["node1", "node2"] {
            let refused = three.whoami_at(node).await.unwrap_err().to_string();
            assert!(refused.contains("belongs to no node of the cluster"), "{refused}");
        }
        assert!(one.whoami_at("node3").await.is_err() && one.whoami_at("node2").await.is_ok());
        // Its number is not given again.
        let token = two.pairing.token().unwrap().token;
        let four = Node::new("10.63.40.4");
        four.join("10.63.40.2", &token, "node3").await.expect("another machine, of the same name");
        assert_eq!(four.store.current().unwrap().identity.node.0, 4);
        assert!(three.whoami_at("node1").await.is_err() && four.whoami_at("node1").await.is_ok());
    });
}
