//! Pairing between two machines that each have a network stack of their own, joined by two cables: the second one finds
//! out by itself which address it has on each network.

mod rig;

use model::api::{InitRequest, JoinAnswer, JoinRequest, Problem};
use rig::{Node, ip, name};
use std::sync::mpsc;

/// A machine: a thread in a network namespace of its own.
fn machine<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        // SAFETY: only the network namespace of this thread changes; no descriptor or memory is affected.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("these tests need root");
        ip("link set lo up");
        work()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Second machine with these addresses; joins with `explicit` ones and says what came of it, and its cluster.xml.
fn join_with(second: &'static [(&str, &str)], explicit: &'static [&str]) -> (Result<JoinAnswer, Problem>, String) {
    let (to_first, from_second) = mpsc::channel::<i32>();
    let (to_second, from_first) = mpsc::channel::<String>();
    let (leave, left) = mpsc::channel::<()>();
    let first = machine(move || {
        let thread = from_second.recv().expect("the second machine");
        for net in ["1", "2"] {
            ip(&format!("link add net{net} type veth peer name net{net} netns {thread}"));
            ip(&format!("address add 10.66.{net}.1/24 dev net{net}"));
            ip(&format!("link set net{net} up"));
        }
        runtime().block_on(async {
            let node = Node::new("10.66.1.1");
            let addrs = vec!["10.66.1.1".into(), "10.66.2.1".into()];
            let answer = node.pairing.init(InitRequest { name: name("node1"), addrs }).await.expect("a cluster");
            node.listening().await;
            to_second.send(answer.token.token).expect("the second machine");
            tokio::task::block_in_place(|| left.recv().ok());
        });
    });
    let joined = machine(move || {
        to_first.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("the first machine");
        let token = from_first.recv().expect("the first machine");
        for (device, addr) in second {
            ip(&format!("address add {addr} dev {device}"));
        }
        ip("link set net1 up");
        ip("link set net2 up");
        let outcome = runtime().block_on(async {
            let node = Node::new("unused");
            let request = JoinRequest {
                addr: "10.66.1.1".into(),
                token,
                name: Some(name("node2")),
                addrs: explicit.iter().map(ToString::to_string).collect(),
                witness: false,
                replace: false,
            };
            let answer = node.pairing.join(request).await;
            let xml = node.store.current().map(|cluster| cluster.applied.xml.clone()).unwrap_or_default();
            (answer, xml)
        });
        leave.send(()).expect("the first machine");
        outcome
    });
    let outcome = joined.join().expect("the second machine");
    first.join().expect("the first machine");
    outcome
}

#[test]
fn addresses_are_found_on_every_network() {
    let (joined, xml) = join_with(&[("net1", "10.66.1.2/24"), ("net2", "10.66.2.2/24")], &[]);
    joined.expect("joined");
    assert!(
        xml.contains(r#"<node name="node2" addr="10.66.1.2"/>"#)
            && xml.contains(r#"<node name="node2" addr="10.66.2.2"/>"#),
        "{xml}"
    );
}

#[test]
fn explicit_addresses_go_where_their_subnet_is() {
    let (joined, xml) = join_with(&[("net1", "10.66.1.2/24"), ("net2", "10.66.2.2/24")], &["10.66.2.2", "10.66.1.2"]);
    joined.expect("joined");
    let net2 = xml.split("name=\"net2\"").nth(1).expect("net2");
    assert!(net2.contains("10.66.2.2") && !net2.contains("10.66.1.2"), "{xml}");
}

#[test]
fn a_network_without_an_address_is_named_with_the_option_that_helps() {
    let (joined, xml) = join_with(&[("net1", "10.66.1.2/24"), ("net2", "10.99.2.2/24")], &[]);
    let refused = joined.expect_err("no address in the subnet of net2");
    assert!(refused.why.contains("no address of this machine is in the subnet of 10.66.2.1"), "{refused}");
    assert!(refused.why.contains("network net2") && refused.help.contains("--addr net2=ADDRESS"), "{refused}");
    assert!(xml.is_empty());
}
