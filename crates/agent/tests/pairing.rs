//! Pairing, from both sides: what must work, and everything that must be refused with words that help.

mod rig;

use agent::pairing::Token;
use agent::transport::API_PORT;
use model::api::{Code, InitRequest};
use rig::{Node, eventually, name, pair};
use rustls_pki::ca_der;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

mod rustls_pki {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    pub fn ca_der(node: &super::Node) -> Vec<u8> {
        let cluster = node.store.current().expect("a paired node");
        CertificateDer::from_pem_slice(cluster.identity.ca_pem.as_bytes()).expect("PEM").to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_pair_and_call_each_other() {
    let (one, two) = pair("127.61.1.1", "127.61.1.2").await;
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

    // Either node admits others, and all of them learn of it.
    let token = two.pairing.token().unwrap().token;
    let three = Node::new("127.61.1.3");
    three.join("127.61.1.2", &token, "node3").await.expect("node3 joins at node2");
    assert_eq!(three.whoami_at("node1").await.unwrap(), "node node3");
    assert_eq!(one.whoami_at("node3").await.unwrap(), "node node1");

    // Restarted from disk, they still know each other.
    let Node { dir, server, addr, .. } = one;
    server.unwrap().stop().await;
    let one = Node::at(dir, &addr);
    one.listening().await;
    assert_eq!(one.whoami_at("node2").await.unwrap(), "node node1");
    assert_eq!(two.whoami_at("node1").await.unwrap(), "node node2", "a kept connection that died is replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_one_machine_and_no_token_means_no_handshake() {
    let (one, two) = pair("127.61.2.1", "127.61.2.2").await;
    let three = Node::new("127.61.2.3");
    let used = one.pairing.token().unwrap().token;
    three.join("127.61.2.1", &used, "node3").await.unwrap();
    let four = Node::new("127.61.2.4");
    let closed = four.join("127.61.2.1", &used, "node4").await.unwrap_err();
    assert_eq!(closed.code, Code::Unauthenticated);
    assert!(closed.why.contains("no join token is open there") && closed.help.contains("stead cluster token"), "{closed}");
    // With another one open, the used one is recognised and named.
    let _open = one.pairing.token().unwrap();
    let used = four.join("127.61.2.1", &used, "node4").await.unwrap_err();
    assert!(used.why.contains("used already, by 'node3'"), "{used}");
    assert!(four.store.current().is_none());
    drop(two);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_names_the_thing_and_the_remedy() {
    let one = Node::new("127.61.3.1");
    let two = Node::new("127.61.3.2");
    let refused = two.pairing.token().unwrap_err();
    assert!(refused.help.contains("stead cluster init"), "{refused}");
    let elsewhere = InitRequest { name: name("node1"), addrs: vec!["192.0.2.7".into()] };
    let refused = one.pairing.init(elsewhere).await.unwrap_err();
    assert!(refused.why.contains("192.0.2.7 is not an address of this machine"), "{refused}");
    let refused = one.pairing.init(InitRequest { name: name("node1"), addrs: vec![] }).await.unwrap_err();
    assert!(refused.help.contains("--addr"), "{refused}");
    let refused = one.pairing.init(InitRequest { name: name("a.-b"), addrs: vec!["127.61.3.1".into()] }).await.unwrap_err();
    assert!(refused.why.contains("cannot be the name of a node"), "{refused}");
    assert!(one.store.current().is_none(), "nothing was made of it");

    let token = one.init("node1").await;
    let refused = one.pairing.init(InitRequest { name: name("x"), addrs: vec!["127.61.3.1".into()] }).await.unwrap_err();
    assert!(refused.why.contains("'node1' of cluster") && refused.help.contains("stead cluster token"), "{refused}");

    let mut typo = token.clone();
    typo.replace_range(9..10, if &token[9..10] == "x" { "y" } else { "x" });
    let refused = two.join("127.61.3.1", &typo, "node2").await.unwrap_err();
    assert!(refused.why.contains("typing error"), "{refused}");
    let refused = two.join("127.61.3.1", "hello", "node2").await.unwrap_err();
    assert!(refused.why.contains("not a join token"), "{refused}");

    let wrong = Token::create(&ca_der(&one)).to_string();
    let refused = two.join("127.61.3.1", &wrong, "node2").await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert!(refused.why.contains("the token is wrong") && refused.help.contains("stead cluster token"), "{refused}");

    let refused = two.join("127.61.3.77", &token, "node2").await.unwrap_err();
    assert_eq!(refused.code, Code::Unreachable);
    assert!(refused.why.contains("127.61.3.77 on TCP port 9453"), "{refused}");
    let refused = two.join("nonsense", &token, "node2").await.unwrap_err();
    assert!(refused.why.contains("'nonsense' is not the address of a machine"), "{refused}");

    let refused = two.join("127.61.3.1", &token, "NODE1").await.unwrap_err();
    assert!(refused.why.contains("a member called 'node1' already") && refused.help.contains("--name"), "{refused}");
    let mut request = two.join_request("127.61.3.1", &token, "node2");
    request.addrs = vec!["192.0.2.9".into()];
    let refused = two.pairing.join(request).await.unwrap_err();
    assert!(refused.why.contains("192.0.2.9 is not an address of this machine"), "{refused}");
    let mut request = two.join_request("127.61.3.1", &token, "node2");
    request.addrs = vec!["net7=127.61.3.2".into()];
    let refused = two.pairing.join(request).await.unwrap_err();
    assert!(refused.why.contains("net7 does not exist") && refused.help.contains("net1"), "{refused}");
    let mut request = two.join_request("127.61.3.1", &token, "node2");
    request.addrs = vec!["127.61.3.1".into()];
    let refused = two.pairing.join(request).await.unwrap_err();
    assert!(refused.why.contains("127.61.3.1 is the address of 'node1' already"), "{refused}");

    // None of the refusals closed the token (one wrong attempt of five).
    two.join("127.61.3.1", &token, "node2").await.expect("the token is still good");
    let refused = two.join("127.61.3.1", &token, "node2").await.unwrap_err();
    assert!(refused.why.contains("'node2' of cluster"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_close_the_open_one_and_are_then_not_even_looked_at() {
    let one = Node::new("127.61.4.1");
    let two = Node::new("127.61.4.2");
    let token = one.init("node1").await;
    let ca = ca_der(&one);
    for _ in 0..5 {
        let wrong = Token::create(&ca).to_string();
        let refused = two.join("127.61.4.1", &wrong, "node2").await.unwrap_err();
        assert!(refused.why.contains("the token is wrong"), "{refused}");
    }
    let refused = two.join("127.61.4.1", &token, "node2").await.unwrap_err();
    assert!(refused.why.contains("no join token is open there"), "{refused}");
    let fresh = one.pairing.token().unwrap().token;
    let refused = two.join("127.61.4.1", &fresh, "node2").await.unwrap_err();
    assert_eq!(refused.code, Code::RateLimited, "{refused}");
    assert!(two.store.current().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_the_middle_with_another_authority_hears_nothing() {
    let one = Node::new("127.61.5.1");
    let token = one.init("node1").await;
    let middle = Node::new("127.61.5.66");
    middle.init("node1").await;
    let two = Node::new("127.61.5.2");
    let refused = two.join("127.61.5.66", &token, "node2").await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert!(refused.why.contains("does not belong to the cluster this token was made in"), "{refused}");
    // Its own token was not missed: not one word arrived.
    let tokens = std::fs::read_to_string(middle.dir.path().join("var/tokens.json")).unwrap();
    assert!(tokens.contains("\"wrong\":0"), "{tokens}");
    assert!(two.store.current().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_and_is_no_agent_is_named() {
    let two = Node::new("127.61.6.2");
    let one = Node::new("127.61.6.1");
    let token = one.init("node1").await;
    let other = tokio::net::TcpListener::bind(("127.61.6.9", API_PORT)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let refused = two.join("127.61.6.9", &token, "node2").await.unwrap_err();
    assert!(refused.why.contains("127.61.6.9 on TCP port 9453 is not a stead agent"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_needs_every_present_member_and_an_interrupted_one_can_be_repeated() {
    let (one, mut two) = pair("127.61.7.1", "127.61.7.2").await;
    two.server.take().unwrap().stop().await;
    let token = one.pairing.token().unwrap().token;
    let three = Node::new("127.61.7.3");
    let refused = three.join("127.61.7.1", &token, "node3").await.unwrap_err();
    assert!(refused.why.contains("node2 does not answer"), "{refused}");
    assert!(one.store.current().unwrap().applied.member(&name("node3")).is_none(), "nothing has changed");

    let Node { dir, addr, .. } = two;
    let two = Node::at(dir, &addr);
    two.listening().await;
    three.join("127.61.7.1", &token, "node3").await.expect("the token is still good");

    // A fourth that was admitted and never came to itself: its name is free for the next attempt.
    let text = std::fs::read_to_string(one.dir.path().join("etc/cluster/applied.json")).unwrap();
    assert!(text.contains("node3"));
    let four = Node::new("127.61.7.4");
    let token = one.pairing.token().unwrap().token;
    std::fs::create_dir_all(four.dir.path().join("etc")).unwrap();
    std::fs::write(four.dir.path().join("etc/cluster"), "a file where the directory must be").unwrap();
    let refused = four.join("127.61.7.1", &token, "node4").await.unwrap_err();
    assert_eq!(refused.code, Code::Internal, "{refused}");
    std::fs::remove_file(four.dir.path().join("etc/cluster")).unwrap();
    let first_number = one.store.current().unwrap().applied.member(&name("node4")).unwrap().id;
    let token = one.pairing.token().unwrap().token;
    four.join("127.61.7.1", &token, "node4").await.expect("the second attempt");
    assert_ne!(four.store.current().unwrap().identity.node, first_number, "a number is never given twice");
    eventually("all to agree", async || {
        let info = one.applier.confinfo().await.unwrap();
        info.nodes.len() == 4 && info.nodes.iter().all(|row| row.signature == info.nodes[0].signature && row.problem.is_none())
    })
    .await;
}
