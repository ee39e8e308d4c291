//! Pairing, from both sides: what must work, and everything that must be refused with words that help.

mod rig;

use agent::pairing::Token;
use agent::transport::{API_PORT, CallError};
use model::api::{Code, InitRequest};
use rig::{Node, Witness, eventually, name, pair};
use rustls_pki::ca_der;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod rustls_pki {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    pub fn ca_der(node: &super::Node) -> Vec<u8> {
        let cluster = node.store.current().expect("a paired node");
        CertificateDer::from_pem_slice(cluster.identity.ca_pem.as_bytes()).expect("PEM").to_vec()
    }
}

#[test]
fn two_nodes_pair_and_call_each_other() {
    rig::in_network(async {
        let (one, two) = pair("10.61.1.1", "10.61.1.2").await;
        assert_eq!(one.whoami_at("node2").await.expect("an answer"), "node node1");
        assert_eq!(two.whoami_at("node1").await.expect("an answer"), "node node2");
        let (first, second) = (one.store.current().unwrap(), two.store.current().unwrap());
        assert_eq!(first.signature, second.signature);
        assert_eq!(first.identity.key("heartbeat"), second.identity.key("heartbeat"));
        assert_ne!(first.identity.key("heartbeat"), first.identity.key("other"));
        assert_eq!((second.identity.node.0, second.identity.name.as_str()), (2, "node2"));
        assert!(first.applied.members.iter().all(|member| member.confirmed), "node2 was heard");
        let info = two.applier.confinfo().await.unwrap();
        assert_eq!(info.nodes.len(), 2);
        assert!(info.nodes.iter().all(|row| row.problem.is_none() && row.signature == first.signature), "{info:?}");

        // Restarted from disk, they still know each other.
        let Node { dir, server, addr, .. } = one;
        server.unwrap().stop().await;
        let one = Node::at(dir, &addr);
        one.listening().await;
        assert_eq!(one.whoami_at("node2").await.unwrap(), "node node1");
        assert_eq!(two.whoami_at("node1").await.unwrap(), "node node2", "a kept connection that died is replaced");
    });
}

#[test]
fn an_authority_whose_key_is_empty_gives_no_token_and_names_the_file_and_the_remedy() {
    rig::in_network(async {
        let one = Node::new("10.61.9.1");
        one.init("node1").await;
        let Node { dir, server, addr, .. } = one;
        server.unwrap().stop().await;
        let key = agent::places::Places::below(dir.path()).cluster_dir().join("ca.key");
        assert!(key.is_file(), "{}", key.display());
        std::fs::write(&key, "").unwrap();
        let one = Node::at(dir, &addr);
        one.listening().await;
        let refused = one.pairing.token().unwrap_err();
        assert!(refused.why.contains("ca.key") && refused.why.contains("it is empty"), "{refused}");
        assert!(refused.help.contains("from another node"), "{refused}");
    });
}

#[test]
fn a_token_is_good_for_one_machine_and_no_token_means_no_handshake() {
    rig::in_network(async {
        let (one, three) = (Node::new("10.61.2.1"), Node::new("10.61.2.3"));
        let token = one.init("node1").await;
        let two = Node::new("10.61.2.2");
        two.join("10.61.2.1", &token, "node2").await.unwrap();
        let closed = three.join("10.61.2.1", &token, "node3").await.unwrap_err();
        assert_eq!(closed.code, Code::Unauthenticated);
        assert!(
            closed.why.contains("no join token is open there") && closed.help.contains("stead cluster token"),
            "{closed}"
        );
        // With another one open, the used one is recognised and named.
        let open = one.pairing.token().unwrap().token;
        let used = three.join("10.61.2.1", &token, "node3").await.unwrap_err();
        assert!(used.why.contains("used already, by 'node2'"), "{used}");
        assert!(three.store.current().is_none());
        // The one that is open lets it in: a cluster may have more than two nodes.
        let third = three.join("10.61.2.1", &open, "node3").await.unwrap();
        assert_eq!(third.members.len(), 3);
    });
}

#[test]
fn every_refusal_names_the_thing_and_the_remedy() {
    rig::in_network(async {
        let one = Node::new("10.61.3.1");
        let two = Node::new("10.61.3.2");
        let refused = two.pairing.token().unwrap_err();
        assert!(refused.help.contains("stead cluster init"), "{refused}");
        let elsewhere = InitRequest { name: name("node1"), addrs: vec!["192.0.2.7".into()] };
        let refused = one.pairing.init(elsewhere).await.unwrap_err();
        assert!(refused.why.contains("192.0.2.7 is not an address of this machine"), "{refused}");
        let refused = one.pairing.init(InitRequest { name: name("node1"), addrs: vec![] }).await.unwrap_err();
        assert!(refused.help.contains("--addr"), "{refused}");
        let refused =
            one.pairing.init(InitRequest { name: name("a.-b"), addrs: vec!["10.61.3.1".into()] }).await.unwrap_err();
        assert!(refused.why.contains("cannot be the name of a node"), "{refused}");
        assert!(one.store.current().is_none(), "nothing was made of it");

        let token = one.init("node1").await;
        let refused =
            one.pairing.init(InitRequest { name: name("x"), addrs: vec!["10.61.3.1".into()] }).await.unwrap_err();
        assert!(
            refused.why.contains("'node1' of cluster") && refused.help.contains("stead cluster token"),
            "{refused}"
        );

        let mut typo = token.clone();
        typo.replace_range(9..10, if &token[9..10] == "x" { "y" } else { "x" });
        let refused = two.join("10.61.3.1", &typo, "node2").await.unwrap_err();
        assert!(refused.why.contains("typing error"), "{refused}");
        let refused = two.join("10.61.3.1", "hello", "node2").await.unwrap_err();
        assert!(refused.why.contains("not a join token"), "{refused}");

        let wrong = Token::create(&ca_der(&one)).to_string();
        let refused = two.join("10.61.3.1", &wrong, "node2").await.unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated);
        assert!(
            refused.why.contains("the token is wrong") && refused.help.contains("stead cluster token"),
            "{refused}"
        );

        let refused = two.join("10.61.3.77", &token, "node2").await.unwrap_err();
        assert_eq!(refused.code, Code::Unreachable);
        assert!(refused.why.contains("10.61.3.77 on TCP port 9453"), "{refused}");
        let refused = two.join("nonsense", &token, "node2").await.unwrap_err();
        assert!(refused.why.contains("'nonsense' is not the address of a machine"), "{refused}");

        let refused = two.join("10.61.3.1", &token, "NODE1").await.unwrap_err();
        assert!(
            refused.why.contains("a member called 'node1' already") && refused.help.contains("--name"),
            "{refused}"
        );
        let mut request = two.join_request("10.61.3.1", &token, "node2");
        request.addrs = vec!["192.0.2.9".into()];
        let refused = two.pairing.join(request).await.unwrap_err();
        assert!(refused.why.contains("192.0.2.9 is not an address of this machine"), "{refused}");
        let mut request = two.join_request("10.61.3.1", &token, "node2");
        request.addrs = vec!["net7=10.61.3.2".into()];
        let refused = two.pairing.join(request).await.unwrap_err();
        assert!(refused.why.contains("net7 does not exist") && refused.help.contains("net1"), "{refused}");
        let mut request = two.join_request("10.61.3.1", &token, "node2");
        request.addrs = vec!["10.61.3.1".into()];
        let refused = two.pairing.join(request).await.unwrap_err();
        assert!(refused.why.contains("10.61.3.1 stands twice: for node1"), "{refused}");

        // None of the refusals closed the token (one wrong attempt of five).
        two.join("10.61.3.1", &token, "node2").await.expect("the token is still good");
        let refused = two.join("10.61.3.1", &token, "node2").await.unwrap_err();
        assert!(refused.why.contains("'node2' of cluster"), "{refused}");
    });
}

#[test]
fn wrong_tokens_close_the_open_one_and_are_then_not_even_looked_at() {
    rig::in_network(async {
        let one = Node::new("10.61.4.1");
        let two = Node::new("10.61.4.2");
        let token = one.init("node1").await;
        let ca = ca_der(&one);
        for _ in 0..5 {
            let wrong = Token::create(&ca).to_string();
            let refused = two.join("10.61.4.1", &wrong, "node2").await.unwrap_err();
            assert!(refused.why.contains("the token is wrong"), "{refused}");
        }
        let refused = two.join("10.61.4.1", &token, "node2").await.unwrap_err();
        assert!(refused.why.contains("no join token is open there"), "{refused}");
        let fresh = one.pairing.token().unwrap().token;
        let refused = two.join("10.61.4.1", &fresh, "node2").await.unwrap_err();
        assert_eq!(refused.code, Code::RateLimited, "{refused}");
        assert!(two.store.current().is_none());
    });
}

#[test]
fn a_machine_in_the_middle_with_another_authority_hears_nothing() {
    rig::in_network(async {
        let one = Node::new("10.61.5.1");
        let token = one.init("node1").await;
        let middle = Node::new("10.61.5.66");
        middle.init("node1").await;
        let two = Node::new("10.61.5.2");
        let refused = two.join("10.61.5.66", &token, "node2").await.unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated);
        assert!(refused.why.contains("does not belong to the cluster this token was made in"), "{refused}");
        // Its own token was not missed: not one word arrived.
        let tokens = std::fs::read_to_string(middle.dir.path().join("var/tokens.json")).unwrap();
        assert!(tokens.contains("\"wrong\":0"), "{tokens}");
        assert!(two.store.current().is_none());
    });
}

#[test]
fn what_answers_and_is_no_agent_is_named() {
    rig::in_network(async {
        let two = Node::new("10.61.6.2");
        let one = Node::new("10.61.6.1");
        let token = one.init("node1").await;
        let other = tokio::net::TcpListener::bind(("10.61.6.9", API_PORT)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = other.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
            }
        });
        let refused = two.join("10.61.6.9", &token, "node2").await.unwrap_err();
        assert!(refused.why.contains("10.61.6.9 on TCP port 9453 is not a stead agent"), "{refused}");
    });
}

#[test]
fn a_join_needs_every_present_member() {
    rig::in_network(async {
        let (one, mut two) = pair("10.61.7.1", "10.61.7.2").await;
        two.server.take().unwrap().stop().await;
        let token = one.pairing.token().unwrap().token;
        let witness = Witness::start(tempfile::tempdir().unwrap()).await;
        let refused = witness.join("10.61.7.1", &token, "10.61.7.250").await.unwrap_err();
        assert!(refused.why.contains("node2 does not answer"), "{refused}");
        assert!(one.store.current().unwrap().applied.member(&name("witness")).is_none(), "nothing has changed");

        let Node { dir, addr, .. } = two;
        let two = Node::at(dir, &addr);
        two.listening().await;
        witness.join("10.61.7.1", &token, "10.61.7.250").await.expect("the token is still good");
        assert_eq!(two.store.current().unwrap().configuration.witnesses[0].addr.to_string(), "10.61.7.250");
        let dir = witness.dir.path().join("etc/cluster");
        assert!(!dir.join("ca.key").exists(), "a witness cannot admit anybody");
        let secret = |dir: &std::path::Path| std::fs::read_to_string(dir.join("secret")).unwrap();
        assert_ne!(
            secret(&dir),
            secret(&one.dir.path().join("etc/cluster")),
            "a witness does not get the cluster's secret"
        );
        eventually("all to agree", async || {
            let info = one.applier.confinfo().await.unwrap();
            info.nodes.len() == 3
                && info.nodes.iter().all(|row| row.signature == info.nodes[0].signature && row.problem.is_none())
        })
        .await;
        let token = one.pairing.token().unwrap().token;
        let second = Witness::start(tempfile::tempdir().unwrap()).await;
        let refused = second.join("10.61.7.1", &token, "10.61.7.251").await.unwrap_err();
        assert!(refused.why.contains("already") && refused.help.contains("--name"), "{refused}");
    });
}

#[test]
fn an_interrupted_join_can_be_repeated() {
    rig::in_network(async {
        let (one, two) = (Node::new("10.61.8.1"), Node::new("10.61.8.2"));
        let token = one.init("node1").await;
        std::fs::create_dir_all(two.dir.path().join("etc")).unwrap();
        std::fs::write(two.dir.path().join("etc/cluster"), "a file where the directory must be").unwrap();
        let refused = two.join("10.61.8.1", &token, "node2").await.unwrap_err();
        assert_eq!(refused.code, Code::Internal, "{refused}");
        std::fs::remove_file(two.dir.path().join("etc/cluster")).unwrap();
        // It was admitted and never came to itself: its name is free for the next attempt, its number is not.
        let token = one.pairing.token().unwrap().token;
        two.join("10.61.8.1", &token, "node2").await.expect("the second attempt");
        assert_eq!(two.store.current().unwrap().identity.node.0, 3);
        assert_eq!(one.whoami_at("node2").await.unwrap(), "node node1");
        assert_eq!(one.store.current().unwrap().applied.members.len(), 2);
    });
}

#[test]
fn a_machine_takes_the_place_of_one_that_is_gone_and_of_no_other() {
    rig::in_network(async {
        let (one, mut two) = pair("10.61.9.1", "10.61.9.2").await;
        let token = one.pairing.token().unwrap().token;
        let new = Node::new("10.61.9.3");
        let plain = new.join_request("10.61.9.1", &token, "node2");
        let replacing = model::api::JoinRequest { replace: true, ..plain.clone() };
        let refused = new.pairing.join(plain).await.unwrap_err();
        assert!(refused.why.contains("'node2' already") && refused.help.contains("--replace"), "{refused}");
        let refused = new.pairing.join(replacing.clone()).await.unwrap_err();
        assert!(refused.why.contains("'node2' answers: it is not gone"), "{refused}");
        let itself = model::api::JoinRequest { name: Some(name("node1")), ..replacing.clone() };
        let refused = new.pairing.join(itself).await.unwrap_err();
        assert!(refused.why.contains("'node1' already") && !refused.help.contains("--replace"), "{refused}");

        two.server.take().unwrap().stop().await;
        new.pairing.join(replacing).await.expect("node2 is gone");
        new.listening().await;
        assert_eq!(one.whoami_at("node2").await.unwrap(), "node node1");
        let members = one.store.current().unwrap().applied.members.clone();
        assert_eq!(members.iter().map(|member| member.id.0).collect::<Vec<_>>(), [1, 3]);
        // The old one comes back: it is nobody.
        let Node { dir, addr, .. } = two;
        let old = Node::at(dir, &addr);
        let refused = old.whoami_at("node1").await.unwrap_err().to_string();
        assert!(refused.contains("belongs to no node of the cluster"), "{refused}");

        // It answers at the address of the one that has its name now: nobody talks to it.
        let mut new = new;
        new.server.take().unwrap().stop().await;
        old.listening().await;
        let impostor = rig::once_free(|| std::net::TcpListener::bind(("10.61.9.3", API_PORT)));
        impostor.set_nonblocking(true).unwrap();
        let impostor = tokio::net::TcpListener::from_std(impostor).unwrap();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = impostor.accept().await {
                let mut to = tokio::net::TcpStream::connect(("10.61.9.2", API_PORT)).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
            }
        });
        // The connection that it had kept may be lost under its first request; nobody can answer there but the impostor.
        let mut refused = one.whoami_at("node2").await;
        eventually("the kept connection to be given up", async || {
            let is_lost = matches!(refused, Err(CallError::Lost { .. }));
            if is_lost {
                refused = one.whoami_at("node2").await;
            }
            !is_lost
        })
        .await;
        assert!(matches!(refused, Err(CallError::Tls { .. })), "{refused:?}");
    });
}
