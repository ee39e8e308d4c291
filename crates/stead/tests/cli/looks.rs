//! What the verbs that look print, word for word, and as JSON.

use crate::fake::{Fake, full_view, module, node, resyncing, serve, view};
use crate::support::{command, run, stead};
use model::api::{
    FarmFlowsView, FarmGenerationView, FarmGroupView, FarmInterfaceView, FarmMemberView, FarmRuleView, FarmView,
};
use model::{ModuleState, Status};
use std::sync::Arc;

/// node1 PRIM, node2 SECOND.
fn pair() -> Fake {
    let mut here = Fake::new("node1", vec![full_view()]);
    let mut second = view("node2", ModuleState::Second, Status::Ready, "complete copy behind node1");
    second.not_promised = full_view().not_promised;
    let there = Fake::new("node2", vec![second]);
    here.others.insert(node("node2"), Arc::new(there));
    here
}

#[test]
fn every_look_says_what_the_file_says() {
    let served = serve(pair());
    for (arguments, file) in [
        (&["state"][..], "state.txt"),
        (&["state", "--local", "-m", "pg"], "state-local.txt"),
        (&["state", "-v"], "state-verbose.txt"),
        (&["level"], "level.txt"),
        (&["log"], "log.txt"),
        (&["log", "-v", "-s", "1"], "log-verbose.txt"),
        (&["why"], "why.txt"),
        (&["confinfo"], "confinfo.txt"),
        (&["rfsdiff"], "rfsdiff.txt"),
        (&["quarantine", "list"], "quarantine-list.txt"),
        (&["quarantine", "show", "2026-11-21T10-00-00Z"], "quarantine-show.txt"),
        (&["quarantine", "show", "../x"], "quarantine-unknown.txt"),
        (&["cluster", "state"], "cluster-state.txt"),
        (&["cluster", "confinfo"], "cluster-confinfo.txt"),
        (&["cluster", "config"], "cluster-config.txt"),
        (&["module", "list"], "module-list.txt"),
        (&["module", "getports"], "getports.txt"),
        (&["why", "-m", "nothere"], "no-such-module.txt"),
        (&["why", "-H", "*"], "nodes.txt"),
        (&["state", "-H", "node2,nodeX"], "nodes-unknown.txt"),
        (&["snapshot"], "later.txt"),
    ] {
        stead(&served.socket, arguments).is(file);
    }
}

#[test]
fn a_farm_is_shown_with_its_members_shares_rules_and_packets() {
    use model::farm::{BUCKETS, Fate, Filter, Proto, Wish};
    let mut seen = view("node1", ModuleState::Up, Status::Ready, "serves its share");
    let member =
        |name: &str, heard, wish, present, serving| FarmMemberView { node: node(name), heard, wish, present, serving };
    let rule = |port, proto, filter| FarmRuleView { addr: String::new(), port, proto, filter, group: "Web".into() };
    let all = BUCKETS as u32;
    seen.farm = Some(FarmView {
        view: 7,
        director: Some(node("node1")),
        members: vec![
            member("node1", true, Wish::In, true, true),
            member("node2", true, Wish::Drain, true, false),
            member("node3", false, Wish::Out, false, false),
        ],
        groups: vec![FarmGroupView {
            name: "Web".into(),
            shares: vec![(node("node1"), all * 3 / 4), (node("node2"), all / 4)],
        }],
        rules: vec![
            rule(Some(80), Some(Proto::Tcp), Filter::OnAddr),
            rule(None, Some(Proto::Udp), Filter::OnPort),
            rule(None, None, Filter::OnAddr),
        ],
        interfaces: vec![FarmInterfaceView {
            interface: "eth1".into(),
            addrs: vec!["10.0.1.100".into()],
            counters: vec![(Fate::Accepted, 1200), (Fate::Passed, 300), (Fate::NoRule, 2), (Fate::Lease, 0)],
            generations: vec![
                FarmGenerationView { view: 7, counters: vec![(Fate::Accepted, 200), (Fate::Passed, 0)] },
                FarmGenerationView { view: 6, counters: vec![(Fate::Accepted, 1000), (Fate::Passed, 300)] },
                FarmGenerationView { view: 0, counters: vec![(Fate::Accepted, 0)] },
            ],
            problem: "02:66:00:00:00:09 spoke as a virtual address 3 times: two machines have it".into(),
        }],
        draining: Some(4),
        flows: Some(FarmFlowsView { connections: Some(12), pinned: Some(3) }),
    });
    let served = serve(Fake::new("node1", vec![seen]));
    stead(&served.socket, &["farm", "show"]).is("farm-show.txt");
    let told = stead(&served.socket, &["farm", "show", "--json"]).json();
    assert_eq!(told["farm"]["groups"][0]["shares"][1][1], all / 4);
    assert_eq!(told["farm"]["interfaces"][0]["generations"][1]["counters"][1][1], 300);
    assert_eq!(told["farm"]["flows"], serde_json::json!({"connections": 12, "pinned": 3}));
    assert_eq!(stead(&served.socket, &["log", "-l", "-s", "1"]).code, 0, "SafeKit's -l, without a language");
}

#[test]
fn a_silent_node_keeps_its_row() {
    let mut here = Fake::new("node1", vec![full_view(), resyncing(1 << 29)]);
    here.modules.get_mut().expect("lock")[1].module = module("web");
    here.silent = vec![node("node2")];
    let served = serve(here);
    stead(&served.socket, &["state"]).is("state-silent.txt");
    let json = stead(&served.socket, &["state", "--json"]).json();
    assert_eq!(json["silent"][0]["problem"]["code"], "unreachable");
}

#[test]
fn every_look_is_one_json_document_with_the_documented_shape() {
    let served = serve(pair());
    for (arguments, pointer, wanted) in [
        (&["state"][..], "/modules/0/state", "PRIM"),
        (&["state"], "/modules/1/node", "node2"),
        (&["state"], "/modules/0/replication/situation/situation", "mirrored"),
        (&["state", "-lq"], "/state", "PRIM"),
        (&["level"], "/networks/0/name", "net1"),
        (&["log"], "/lines/1/level", "E"),
        (&["why"], "/moves/1/command", "stead prim -m pg"),
        (&["confinfo"], "/macros/0/value", "10.0.1.100"),
        (&["quarantine", "list"], "/folders/0/name", "2026-11-21T10-00-00Z"),
        (&["quarantine", "show", "2026-11-21T10-00-00Z"], "/entries/0/was", "/srv/stead/pg/base/1.dat"),
        (&["quarantine", "drop", "nix"], "/error/code", "not_found"),
        (&["cluster", "state"], "/rows/0/module", "pg"),
        (&["cluster", "confinfo"], "/nodes/1/signature", "12"),
        (&["cluster", "config"], "/xml", "<cluster/>"),
        (&["cluster", "token"], "/token", "st1-abcdef"),
        (&["module", "list"], "/modules/0/module", "pg"),
        (&["module", "getports"], "/ports/1/module", "pg"),
        (&["why", "-m", "nothere"], "/error/code", "not_found"),
        (&["state", "-H", "*"], "/nodes/node2/modules/0/state", "SECOND"),
        (&["state", "-H", "node2,nodeX"], "/nodes/nodeX/error/code", "not_found"),
        (&["snapshot"], "/error/code", "not_yet"),
        (&["completions", "bash"], "/shell", "bash"),
    ] {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let json = stead(&served.socket, &all).json();
        assert_eq!(json.pointer(pointer).and_then(|v| v.as_str()), Some(wanted), "{arguments:?} {pointer}: {json:#}");
    }
    assert!(stead(&served.socket, &["man", "--json"]).json()["man"].as_str().is_some_and(|m| m.contains(".TH stead")));
}

#[test]
fn quiet_state_exits_with_safekits_numbers() {
    use ModuleState::{Alone, Prim, Second, Stop, Up, Wait};
    for (state, code) in [(Stop, 0), (Wait, 1), (Alone, 2), (Up, 2), (Prim, 3), (Second, 4)] {
        let served = serve(Fake::new("node1", vec![view("node1", state, Status::Ready, "")]));
        let ran = stead(&served.socket, &["state", "-m", "pg", "-lq"]);
        assert_eq!((ran.code, ran.out.as_str()), (code, format!("{state}\n").as_str()));
    }
    let served = serve(Fake::new("node1", vec![]));
    assert_eq!(stead(&served.socket, &["state", "-m", "pg", "-lq"]).code, 101, "a failure must not look like WAIT");
    assert_eq!(stead(&served.socket, &["state", "-lq", "--bogus"]).code, 101, "wrong usage must not look like ALONE");
    assert_eq!(stead(&served.socket, &["state", "--bogus"]).code, 2);
}

#[test]
fn the_module_is_named_by_option_environment_or_being_the_only_one() {
    let mut other = view("node1", ModuleState::Stop, Status::NotReady, "stopped");
    other.module = module("web");
    let served = serve(Fake::new("node1", vec![full_view(), other]));
    stead(&served.socket, &["why"]).is("which-module.txt");
    for variable in ["STEAD_MODULE", "SAFEMODULE"] {
        let mut with = command(&served.socket, &["state", "-lq"]);
        with.env(variable, "web");
        assert_eq!(run(with).code, 0, "{variable}");
        let mut option_wins = command(&served.socket, &["state", "-lq", "-m", "pg"]);
        option_wins.env(variable, "web");
        assert_eq!(run(option_wins).code, 3, "{variable}");
        let mut wrong = command(&served.socket, &["state", "-lq"]);
        wrong.env(variable, "../etc");
        assert_eq!(run(wrong).code, 101, "{variable}");
    }
    stead(&serve(Fake::new("node1", vec![])).socket, &["state"]).is("state-empty.txt");
}

#[test]
fn following_the_log_ends_with_its_reader() {
    use std::io::Read as _;
    let served = serve(pair());
    let mut follow = command(&served.socket, &["log", "-f"]);
    let mut child = follow.stdout(std::process::Stdio::piped()).spawn().expect("the program runs");
    let mut first = [0; 64];
    let mut pipe = child.stdout.take().expect("a pipe");
    pipe.read_exact(&mut first).expect("the first line comes");
    assert!(first.starts_with(b"| 2026-11-22 "), "{}", String::from_utf8_lossy(&first));
    drop(pipe);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            break status;
        }
        if std::time::Instant::now() > end {
            drop(child.kill());
            panic!("it goes on writing into a closed pipe");
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn manual_pages_cover_every_verb() {
    let dir = tempfile::tempdir().expect("a directory");
    let served = serve(pair());
    let ran = stead(&served.socket, &["man", "--dir", &dir.path().to_string_lossy()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for page in ["stead.1", "stead-state.1", "stead-cluster-join.1", "stead-module-install.1"] {
        assert!(dir.path().join(page).is_file(), "{page} is missing");
    }
    for shell in ["bash", "zsh", "fish"] {
        let ran = stead(&served.socket, &["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains("waitstate") && !ran.out.contains("webservercfg"), "{shell}");
    }
}
