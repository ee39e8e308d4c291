//! The listener against everything that is not a member, and the client against everything that breaks.

mod rig;

use agent::identity::{Identity, IdentityFiles};
use agent::places::Places;
use agent::transport::{API_PORT, CallError};
use rig::{Node, eventually, name, pair};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn answer_to(addr: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((addr, API_PORT)).await.expect("the port accepts");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection must be closed by the agent");
    answer
}

#[test]
fn plaintext_and_garbage_are_refused_and_harm_nobody() {
    rig::in_network(async {
        let (one, two) = pair("10.62.1.1", "10.62.1.2").await;
        let plain = answer_to("10.62.1.2", b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!plain.starts_with(b"HTTP"), "no plaintext answer: {plain:?}");
        let mut noise: Vec<u8> = blake3::hash(b"noise").as_bytes().repeat(64);
        let answer = answer_to("10.62.1.2", &noise).await;
        assert!(!answer.starts_with(b"HTTP"));
        noise.splice(0..0, [0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0x3f, 0xfc]); // looks like a ClientHello
        let _ = answer_to("10.62.1.2", &noise).await;
        assert_eq!(one.whoami_at("node2").await.unwrap(), "node node1");
        drop(two);
    });
}

#[test]
fn two_hundred_idle_connections_do_not_block_the_peer() {
    rig::in_network(async {
        let (one, two) = pair("10.62.2.1", "10.62.2.2").await;
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(TcpStream::connect(("10.62.2.2", API_PORT)).await.expect("the port accepts"));
        }
        let asked = std::time::Instant::now();
        assert_eq!(one.whoami_at("node2").await.expect("an answer"), "node node1");
        assert!(asked.elapsed() < Duration::from_secs(3));
        // And they do not stay: the handshake has a deadline.
        let mut last = idle.pop().unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(8), last.read(&mut [0; 1])).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
        drop(two);
    });
}

#[test]
fn certificates_of_others_open_nothing() {
    rig::in_network(async {
        let (one, two) = pair("10.62.3.1", "10.62.3.2").await;
        // A whole other cluster that has the same names and believes node2 to be at our node2's address.
        let (stranger, _there) = pair("10.62.3.11", "10.62.3.12").await;
        let path = stranger.dir.path().join("etc/cluster/applied.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("10.62.3.12", "10.62.3.2");
        std::fs::write(&path, text).unwrap();
        let Node { dir, server, addr, .. } = stranger;
        server.unwrap().stop().await;
        let stranger = Node::at(dir, &addr);
        let refused = stranger.whoami_at("node2").await.unwrap_err();
        assert!(matches!(refused, CallError::Tls { .. }), "{refused}");

        // The other direction: a client of ours that shows another cluster's certificate but trusts our authority.
        let files = IdentityFiles::of(&Places::below(one.dir.path()));
        let theirs = IdentityFiles::of(&Places::below(stranger.dir.path()));
        let mixed = connect_with(&files.ca, &theirs.certificate, &theirs.key, &one, "10.62.3.2").await;
        assert!(mixed.is_err(), "a certificate of another authority was accepted");
        // No certificate at all, while no token is open.
        let bare = connect_without(&files.ca, &one, "10.62.3.2").await;
        assert!(bare.is_err(), "a client without certificate was answered");
        // The right one, to prove that the probe works.
        let right = connect_with(&files.ca, &files.certificate, &files.key, &one, "10.62.3.2").await;
        assert!(right.expect("an answer").starts_with("HTTP/1.1 200"));

        // While a token is open a stranger reaches the join endpoint and nothing else.
        let _token = two.pairing.token().unwrap();
        let bare = connect_without(&files.ca, &one, "10.62.3.2").await.expect("an answer");
        assert!(bare.starts_with("HTTP/1.1 403") && bare.contains("no certificate of this cluster"), "{bare}");
    });
}

/// Every node has the authority's key, also one that left: what it signs with it for the name and number of a member opens nothing, and
/// nobody who shows it is called.
#[test]
fn a_certificate_that_a_member_was_not_admitted_with_opens_nothing() {
    use agent::identity::{Authority, NodeKey};
    rig::in_network(async {
        let (one, two) = pair("10.62.9.1", "10.62.9.2").await;
        let of_one = one.store.current().unwrap().identity.clone();
        let authority = Authority::load(&of_one.ca_pem, of_one.ca_key_pem.as_deref().unwrap()).unwrap();
        let forge = |of: &Node| {
            let identity = of.store.current().unwrap().identity.clone();
            let key = NodeKey::create().unwrap();
            let signed = authority.sign(&key.request, identity.cluster, identity.node, &identity.name, identity.role);
            (signed.unwrap(), key.pem)
        };
        let files = IdentityFiles::of(&Places::below(one.dir.path()));
        let right = connect_with(&files.ca, &files.certificate, &files.key, &one, "10.62.9.2").await;
        assert!(right.expect("an answer").starts_with("HTTP/1.1 200"));
        let (certificate, key) = forge(&one);
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        let forged = connect_with(&files.ca, &files.certificate, &files.key, &one, "10.62.9.2").await;
        assert!(forged.is_err() || !forged.as_ref().unwrap().starts_with("HTTP/1.1 200"), "{forged:?}");

        // Somebody at the address of node2, with a certificate of its name.
        let (certificate, key) = forge(&two);
        let theirs = IdentityFiles::of(&Places::below(two.dir.path()));
        std::fs::write(&theirs.certificate, certificate).unwrap();
        std::fs::write(&theirs.key, key).unwrap();
        let Node { dir, server, addr, .. } = two;
        server.unwrap().stop().await;
        let _impostor = Node::at(dir, &addr);
        let refused = one.whoami_at("node2").await.unwrap_err();
        assert!(matches!(refused, CallError::Tls { .. } | CallError::Unreachable { .. }), "{refused}");
    });
}

#[test]
fn a_peer_that_is_gone_is_said_so_within_the_deadline() {
    rig::in_network(async {
        let (one, mut two) = pair("10.62.4.1", "10.62.4.2").await;
        let unknown = one.whoami_at("node9").await.unwrap_err();
        assert!(matches!(unknown, CallError::NotMember(_)), "{unknown}");
        two.server.take().unwrap().stop().await;
        let asked = std::time::Instant::now();
        let gone = one.whoami_at("node2").await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(4));
        let problem = gone.into_problem("cannot ask node2");
        assert!(problem.why.contains("10.62.4.2:9453") && problem.help.contains("systemctl status stead"), "{problem}");

        // Something that accepts and never speaks.
        let _silent = tokio::net::TcpListener::bind(("10.62.4.2", API_PORT)).await.unwrap();
        let asked = std::time::Instant::now();
        let silent =
            one.client.call::<(), String>(&name("node2"), "GET", "/v1/whoami", None, Duration::from_millis(800)).await;
        assert!(matches!(silent, Err(CallError::Unreachable { .. } | CallError::Timeout { .. })), "{silent:?}");
        assert!(asked.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_silent_network_is_gone_round_and_then_avoided() {
    rig::in_network(async {
        let (one, two) = pair("10.62.7.1", "10.62.7.2").await;
        let xml = one.applier.show().unwrap().xml.replace(
            "  </lans>",
            "<lan name=\"net2\"><node name=\"node1\" addr=\"10.62.107.1\"/><node name=\"node2\" addr=\"10.62.107.2\"/></lan></lans>",
        );
        let request = model::api::ClusterConfigRequest { xml, dry_run: false, ..Default::default() };
        one.applier.configure(request, &agent::api::Caller::Local { uid: 0 }).await.expect("a second network");
        // On the first network node2 now accepts and says nothing.
        let Node { dir, server, .. } = two;
        server.unwrap().stop().await;
        let _silent = tokio::net::TcpListener::bind(("10.62.7.2", API_PORT)).await.unwrap();
        let two = Node::at(dir, "10.62.107.2");
        two.listening().await;
        assert_eq!(one.whoami_at("node2").await.expect("by the second network"), "node node1");
        let asked = std::time::Instant::now();
        assert_eq!(
            one.client
                .call::<(), String>(&name("node2"), "GET", "/v1/whoami", None, Duration::from_secs(3))
                .await
                .unwrap(),
            "node node1"
        );
        assert!(asked.elapsed() < Duration::from_secs(1), "the silent address is not tried first again");
    });
}

/// Nobody waits for the time of a call to be over on a network that is cut: heartbeats have said so already.
#[test]
fn a_network_on_which_a_member_is_not_heard_is_tried_last() {
    rig::in_network(async {
        let (one, two) = pair("10.62.9.1", "10.62.9.2").await;
        let xml = one.applier.show().unwrap().xml.replace(
            "  </lans>",
            "<lan name=\"net2\"><node name=\"node1\" addr=\"10.62.109.1\"/><node name=\"node2\" addr=\"10.62.109.2\"/></lan></lans>",
        );
        let request = model::api::ClusterConfigRequest { xml, dry_run: false, ..Default::default() };
        one.applier.configure(request, &agent::api::Caller::Local { uid: 0 }).await.expect("a second network");
        let Node { dir, server, .. } = two;
        server.unwrap().stop().await;
        let cut = std::net::TcpListener::bind(("10.62.9.2", API_PORT)).unwrap();
        cut.set_nonblocking(true).unwrap();
        let two = Node::at(dir, "10.62.109.2");
        two.listening().await;
        one.client.try_last(Box::new(|_| vec!["10.62.9.2".parse().unwrap()]));
        assert_eq!(one.whoami_at("node2").await.expect("by the second network"), "node node1");
        let knocked = cut.accept().map(|(_, from)| from);
        assert!(
            knocked.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "the network that is cut was tried first: {knocked:?}"
        );
    });
}

#[test]
fn large_bodies_pass_and_calls_at_once_do_too() {
    rig::in_network(async {
        let (one, two) = pair("10.62.5.1", "10.62.5.2").await;
        let body = vec![7_u8; 1_500_000];
        let answer =
            one.client.request(&name("node2"), "POST", "/v1/length", body, Duration::from_secs(10)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"1500000".as_slice()));
        let calls = (0..100).map(|_| one.whoami_at("node2"));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.expect("an answer"), "node node1");
        }
        drop(two);
    });
}

#[test]
fn an_address_that_comes_later_is_listened_on() {
    rig::in_network(async {
        let one = Node::new("10.62.6.1");
        // Somebody else has the port: the agent starts all the same, and takes it when it is free.
        let holder = tokio::net::TcpListener::bind(("10.62.6.1", API_PORT)).await.unwrap();
        let request = model::api::InitRequest { name: name("node1"), addrs: vec!["10.62.6.1".into()] };
        one.pairing.init(request).await.unwrap();
        drop(holder);
        one.listening().await;
        let two = Node::new("10.62.6.2");
        let token = one.pairing.token().unwrap().token;
        eventually("node2 to join", async || two.join("10.62.6.1", &token, "node2").await.is_ok()).await;
    });
}

#[test]
fn files_of_version_one_load() {
    let places =
        Places { etc: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/etc").into(), ..Places::default() };
    let identity = Identity::load(&places).expect("readable").expect("there");
    assert_eq!((identity.node.0, identity.name.as_str()), (1, "node1"));
    let store = agent::cluster_config::ClusterStore::open(places).expect("readable");
    let cluster = store.current().expect("paired");
    assert_eq!(cluster.applied.members.len(), 2);
    assert_eq!(cluster.signature, include_str!("fixtures/v1/signature").trim());
    assert_eq!(
        blake3::Hash::from(identity.key("heartbeat")).to_hex().as_str(),
        include_str!("fixtures/v1/heartbeat_key").trim()
    );
}

#[test]
fn damaged_and_newer_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places::below(dir.path());
    assert!(Identity::load(&places).expect("nothing there is no error").is_none());
    copy_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/etc/cluster"), &places.cluster_dir());
    let files = IdentityFiles::of(&places);
    let newer = std::fs::read_to_string(&files.card).unwrap().replace("\"version\": 1", "\"version\": 2");
    let good = std::fs::read(&files.card).unwrap();
    std::fs::write(&files.card, newer).unwrap();
    let refused = Identity::load(&places).unwrap_err().to_string();
    assert!(refused.contains("identity.json has version 2"), "{refused}");
    std::fs::write(&files.card, &good[..good.len() / 2]).unwrap();
    let refused = Identity::load(&places).unwrap_err().to_string();
    assert!(refused.contains("identity.json is damaged") && refused.contains("stead cluster join"), "{refused}");
    std::fs::write(&files.card, &good).unwrap();
    std::fs::write(&files.key, b"-----BEGIN NOTHING-----").unwrap();
    let refused = Identity::load(&places).unwrap_err().to_string();
    assert!(refused.contains("is damaged"), "{refused}");
    std::fs::remove_file(&files.ca).unwrap();
    let refused = Identity::load(&places).unwrap_err().to_string();
    assert!(refused.contains("ca.pem is damaged: it is missing"), "{refused}");
}

fn copy_dir(from: &str, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn connect_with(
    ca: &std::path::Path,
    certificate: &std::path::Path,
    key: &std::path::Path,
    of: &Node,
    addr: &str,
) -> std::io::Result<String> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    ask(builder(ca).with_client_auth_cert(chain, key).unwrap(), of, addr).await
}

async fn connect_without(ca: &std::path::Path, of: &Node, addr: &str) -> std::io::Result<String> {
    ask(builder(ca).with_no_client_auth(), of, addr).await
}

fn builder(ca: &std::path::Path) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

async fn ask(config: rustls::ClientConfig, of: &Node, addr: &str) -> std::io::Result<String> {
    let server = of.store.current().unwrap().identity.dns_name_of(&name("node2"));
    let stream = TcpStream::connect((addr, API_PORT)).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect(server.try_into().unwrap(), stream).await?;
    stream.write_all(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer).await {
        Ok(_) => Ok(answer),
        Err(_) if !answer.is_empty() => Ok(answer),
        Err(error) => Err(error),
    }
}
