//! Links break silently, one way, or with the carrier; and heal.

mod support;
use lab::{Lab, Options};
use support::{SECOND, options, raise, reaches, says, sh, until};

fn carrier(lab: &Lab, net: &str) -> bool {
    sh(lab, "node1", &format!("cat /sys/class/net/{net}/carrier")).stdout.trim() == "1"
}

#[test]
fn a_cut_link_is_silent_both_ways_and_keeps_its_carrier() {
    let lab = raise(&Options { networks: 2, ..options("cut") });
    until(2 * SECOND, "carrier", || carrier(&lab, "net1"));
    lab.link_cut("node1", Some("net1"), false).unwrap();
    assert!(!reaches(&lab, "node2", "10.0.1.1"));
    assert!(!reaches(&lab, "node1", "10.0.1.2"));
    assert!(!reaches(&lab, "node1", "10.0.1.254"), "the gateway tells a node that it is isolated");
    assert!(reaches(&lab, "node2", "10.0.2.1"), "the other network is whole");
    assert!(reaches(&lab, "node2", "10.0.1.254"), "the other node is not concerned");
    assert!(carrier(&lab, "net1"));
    // Not even a host that plays with its interface undoes it.
    says(&lab, "node1", "ip link set net1 down; ip link set net1 up");
    until(2 * SECOND, "carrier", || carrier(&lab, "net1"));
    assert!(!reaches(&lab, "node2", "10.0.1.1"));
    assert_eq!(lab.status().unwrap().nodes[0].faults, ["net1: cut"]);
    lab.link_heal("node1", Some("net1")).unwrap();
    assert!(reaches(&lab, "node2", "10.0.1.1"));
    assert!(lab.status().unwrap().nodes[0].faults.is_empty());

    // All networks; it stays over a power cut, as a pulled cable does.
    lab.link_cut("node1", None, false).unwrap();
    lab.power_cut("node1").unwrap();
    lab.power_on("node1").unwrap();
    assert!(!reaches(&lab, "node2", "10.0.1.1") && !reaches(&lab, "node2", "10.0.2.1"));
    lab.link_heal("node1", None).unwrap();
    assert!(reaches(&lab, "node2", "10.0.1.1") && reaches(&lab, "node2", "10.0.2.1"));
}

#[test]
fn without_carrier_the_node_sees_its_link_down() {
    let lab = raise(&options("carrier"));
    until(2 * SECOND, "carrier", || carrier(&lab, "net1"));
    lab.link_cut("node1", Some("net1"), true).unwrap();
    until(2 * SECOND, "no carrier", || !carrier(&lab, "net1"));
    assert!(!reaches(&lab, "node2", "10.0.1.1"));
    assert_eq!(lab.status().unwrap().nodes[0].faults, ["net1: no carrier"]);
    lab.link_heal("node1", None).unwrap();
    until(2 * SECOND, "carrier again", || carrier(&lab, "net1"));
    until(2 * SECOND, "traffic again", || reaches(&lab, "node2", "10.0.1.1"));
}

#[test]
fn a_deaf_node_is_still_heard() {
    let lab = raise(&Options { networks: 2, ..options("oneway") });
    lab.link_oneway("node1", "node2", Some("net1")).unwrap();
    // node2's frames do not arrive: neither its ARP requests nor its answers.
    assert!(!reaches(&lab, "node2", "10.0.1.1") && !reaches(&lab, "node1", "10.0.1.2"));
    let counted = "cat /sys/class/net/net1/statistics/rx_packets";
    let before: u64 = says(&lab, "node2", counted).parse().unwrap();
    sh(&lab, "node1", "ip neigh replace 10.0.1.2 lladdr 02:00:0a:00:01:02 dev net1; ping -n -c 3 -i 0.1 -W 1 10.0.1.2");
    let after: u64 = says(&lab, "node2", counted).parse().unwrap();
    assert!(after >= before + 3, "node2 still hears node1: {before} → {after}");
    assert!(reaches(&lab, "client", "10.0.1.1") && reaches(&lab, "client", "10.0.1.2"), "others are not concerned");
    assert!(reaches(&lab, "node2", "10.0.2.1"), "the other network is whole");
    assert_eq!(lab.status().unwrap().nodes[0].faults, ["net1: does not hear node2"]);
    lab.link_heal("node1", Some("net1")).unwrap();
    says(&lab, "node1", "ip neigh flush all");
    assert!(reaches(&lab, "node2", "10.0.1.1"));
}

#[test]
fn names_that_do_not_exist_are_answered_with_those_that_do() {
    let lab = raise(&Options { nodes: 1, ..options("names") });
    for (error, words) in [
        (lab.link_cut("node1", Some("net2"), false), ["net2", "net1"]),
        (lab.link_cut("node5", None, false), ["node5", "node1, client"]),
        (lab.link_oneway("node1", "nobody", None), ["nobody", "node1, client"]),
        (lab.link_oneway("node1", "node1", None), ["node1", "hears itself"]),
        (lab.power_cut("witness"), ["witness", "node1, client"]),
        (lab.freeze("x", true), ["'x'", "node1, client"]),
    ] {
        let text = error.unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[test]
fn a_shared_lab_can_be_made_whole_again() {
    let lab = raise(&Options { networks: 2, ..options("restore") });
    lab.power_cut("node1").unwrap();
    lab.link_cut("node1", None, true).unwrap();
    lab.link_oneway("node2", "client", Some("net2")).unwrap();
    lab.freeze("node2", false).unwrap();
    lab.restore().unwrap();
    assert!(lab.status().unwrap().hosts().all(|host| host.state == lab::HostState::Up && host.faults.is_empty()));
    for (from, to) in [("node1", "10.0.1.2"), ("node2", "10.0.2.1"), ("client", "10.0.2.2")] {
        until(2 * SECOND, "traffic again", || reaches(&lab, from, to));
    }
}
