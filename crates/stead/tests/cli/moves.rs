//! The verbs that change something: what is sent, what is waited for, what is told, and the exit code.

use crate::fake::{Fake, node, resyncing, serve, view};
use crate::support::stead;
use model::api::{Code, Diagnostic, Problem};
use model::{ModuleState, Status};
use std::sync::Arc;

use ModuleState::{Alone, Prim, Second, Stop, Wait};
use Status::{NotReady, Ready, Transient};

fn coming(states: Vec<model::api::ModuleView>) -> Fake {
    let fake = Fake::new("node1", vec![view("node1", Stop, NotReady, "stopped")]);
    fake.coming.lock().expect("lock").extend(states);
    fake
}

#[test]
fn start_tells_the_resynchronisation_and_its_end() {
    // The first look is the one before the command.
    let served = serve(coming(vec![
        view("node1", Stop, NotReady, "stopped"),
        view("node1", Wait, Transient, "starting"),
        resyncing(1 << 28),
        resyncing(1 << 29),
        view("node1", Second, Ready, "complete copy behind node2"),
    ]));
    stead(&served.socket, &["start"]).is("start-resync.txt");
    assert_eq!(*served.fake.asked.lock().expect("lock"), ["start pg force=false full=false by root"]);
}

#[test]
fn start_that_waits_is_told_with_what_ends_it() {
    let mut waiting = view("node1", Wait, NotReady, "data may be not uptodate: waiting for node2");
    waiting.remedy = "stead prim -m pg".into();
    let served = serve(coming(vec![view("node1", Stop, NotReady, ""), waiting]));
    stead(&served.socket, &["start", "-m", "pg"]).is("start-waits.txt");
}

#[test]
fn a_verb_that_came_to_something_else_fails_and_says_what() {
    let before = view("node1", Stop, NotReady, "stopped");
    let served = serve(coming(vec![
        before,
        view("node1", Wait, NotReady, "the virtual IP 10.0.1.100 is answered by 02:00:00:00:00:09"),
    ]));
    stead(&served.socket, &["prim", "--force", "fullsync"]).is("prim-failed.txt");
    assert_eq!(*served.fake.asked.lock().expect("lock"), ["prim pg force=true full=true by root"]);
    let ran = stead(&served.socket, &["prim", "--json"]);
    assert_eq!((ran.code, ran.json()["error"]["code"].as_str()), (1, Some("refused")));
}

#[test]
fn a_refused_verb_fails_with_the_agents_words() {
    let mut fake = coming(vec![]);
    fake.refusal = Some(
        Problem::new(Code::Refused, "cannot start module pg as primary on node1", "node2 is primary")
            .with_help("stead swap -m pg"),
    );
    let served = serve(fake);
    stead(&served.socket, &["prim"]).is("prim-refused.txt");
}

#[test]
fn each_verb_knows_what_it_waits_for() {
    let at = |state, status| view("node1", state, status, "");
    for (arguments, states, code) in [
        (&["stop"][..], vec![at(Prim, Ready), at(Prim, Transient), at(Wait, Transient), at(Stop, NotReady)], 0),
        (&["forcestop"], vec![at(Prim, Ready), at(Stop, NotReady)], 0),
        (&["restart"], vec![at(Prim, Ready), at(Prim, Transient), at(Alone, Transient), at(Alone, Ready)], 0),
        (&["swap"], vec![at(Prim, Ready), at(Prim, Transient), at(Second, Transient), at(Second, Ready)], 0),
        (&["swap"], vec![at(Second, Ready), at(Second, Transient), at(Prim, Ready)], 0),
        (
            &["stopstart"],
            vec![at(Prim, Ready), at(Wait, Transient), at(Stop, NotReady), at(Wait, Transient), at(Second, Ready)],
            0,
        ),
        (&["second", "fullsync"], vec![at(Stop, NotReady), at(Wait, NotReady)], 1),
        (&["start"], vec![at(Stop, NotReady), at(Wait, Transient), at(Stop, NotReady)], 1),
        (&["start", "--no-wait"], vec![at(Stop, NotReady), at(Wait, Transient)], 0),
        (&["release"], vec![at(Stop, NotReady)], 0),
        (&["waitstart", "--timeout", "1"], vec![at(Wait, NotReady), at(Alone, Transient), at(Alone, Ready)], 0),
        (&["waitstop", "--timeout", "1"], vec![at(Prim, Ready)], 1),
        (&["waitstate", "prim", "--timeout", "1"], vec![at(Alone, Ready)], 1),
        (&["waitstate", "SECOND", "--timeout", "1"], vec![at(Second, Transient), at(Second, Ready)], 0),
    ] {
        let served = serve(coming(states));
        let ran = stead(&served.socket, arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_seeded_copy_is_compared_as_a_whole_and_both_ends_leave_a_line() {
    let at = |state, status| view("node1", state, status, "");
    for how in [&["rfssync", "external", "second", "monday"][..], &["rfssync", "-d", "second", "monday"]] {
        let served =
            serve(coming(vec![at(Stop, NotReady), at(Stop, NotReady), at(Wait, Transient), at(Second, Ready)]));
        let ran = stead(&served.socket, how);
        assert_eq!(ran.code, 0, "{ran:?}");
        let asked = served.fake.asked.lock().expect("lock").clone();
        assert!(asked[0].starts_with("watch pg") && asked[0].contains("second monday"), "{asked:?}");
        assert_eq!(asked[1..], ["second pg force=false full=true by root"], "{how:?}");
    }
    let served = serve(coming(vec![at(Prim, Ready)]));
    let ran = stead(&served.socket, &["rfssync", "external", "prim", "monday"]);
    assert!(ran.code == 0 && ran.out.contains("stead rfssync external second monday -m pg"), "{ran:?}");
    assert_eq!(served.fake.asked.lock().expect("lock").len(), 1, "nothing is asked of the automaton");
    for (state, how) in [(Second, "second"), (Stop, "prim")] {
        let served = serve(coming(vec![at(state, Ready)]));
        let ran = stead(&served.socket, &["rfssync", "external", how, "monday"]);
        assert!(ran.code == 1 && served.fake.asked.lock().expect("lock").is_empty(), "{how}: {ran:?}");
    }
    let long = "a backup with a name beyond twenty-four characters";
    for how in [&["rfssync", "external", "second", long][..], &["rfssync", "-d", "third", "monday"]] {
        assert_ne!(stead(&serve(coming(vec![])).socket, how).code, 0, "{how:?}");
    }
}

#[test]
fn a_comparison_that_nobody_tells_of_found_nothing_equal() {
    let mut serving = view("node1", Prim, Ready, "serving, every change is on node2 too");
    serving.replication = Some(model::api::ReplicationView::default());
    let served = serve(Fake::new("node1", vec![serving]));
    let ran = stead(&served.socket, &["rfsverify", "-m", "pg"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("not known") && ran.err.contains("stead rfsverify -m pg"), "{}", ran.err);
}

#[test]
fn rfssync_alone_says_what_the_next_resync_is_and_asks_for_nothing() {
    let served = serve(coming(vec![view("node1", Prim, Ready, "")]));
    let ran = stead(&served.socket, &["rfssync"]);
    assert!(ran.code == 0 && ran.out.contains("only what changed") && ran.out.contains("stead rfsdiff"), "{ran:?}");
    assert!(served.fake.asked.lock().expect("lock").is_empty());
}

#[test]
fn a_script_names_itself_as_safekits_scripts_do() {
    for verb in ["restart", "stop", "stopstart", "swap"] {
        let served = serve(coming(vec![view("node1", Prim, Ready, "")]));
        let ran = stead(&served.socket, &[verb, "-i", "mychecker", "--no-wait"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let asked = format!("{verb} pg force=false full=false by root as mychecker");
        assert_eq!(*served.fake.asked.lock().expect("lock"), [asked]);
    }
}

#[test]
fn a_saved_log_is_what_log_prints() {
    let served = serve(coming(vec![]));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pg.log");
    let ran = stead(&served.socket, &["logsave", "-A", &file.to_string_lossy()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let printed = stead(&served.socket, &["log", "-A", "-l", "en"]);
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), printed.out);
    assert!(printed.out.contains("session 3 is open"), "-A shows level D: {printed:?}");
}

#[test]
fn a_restart_is_not_over_before_it_has_begun() {
    let at = |status, since| {
        let mut view = view("node1", Prim, status, "");
        view.since_unix_ms = since;
        view
    };
    let served = serve(coming(vec![at(Ready, 1), at(Ready, 1), at(Ready, 1), at(Transient, 2), at(Ready, 3)]));
    let ran = stead(&served.socket, &["restart"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(served.fake.coming.lock().expect("lock").len(), 0, "it must have looked until the end: {ran:?}");
}

#[test]
fn a_module_that_goes_back_and_forth_is_given_up() {
    let back_and_forth =
        (0..40).map(|i| view("node1", Wait, Transient, if i % 2 == 0 { "trying" } else { "trying again" }));
    let served = serve(coming(back_and_forth.collect()));
    let ran = stead(&served.socket, &["second", "--timeout", "2"]);
    assert!(ran.code == 1 && ran.took < std::time::Duration::from_secs(9), "{ran:?}");
}

#[test]
fn waiting_in_vain_says_where_it_stands() {
    let served = serve(coming(vec![view("node1", Wait, NotReady, "waiting for node2")]));
    stead(&served.socket, &["waitstart", "--timeout", "1"]).is("waitstart-timeout.txt");
}

#[test]
fn nobody_waits_for_what_a_module_never_is() {
    for (mode, never) in [("farm", "PRIM"), ("light", "SECOND"), ("mirror", "UP")] {
        let mut here = view("node1", Stop, NotReady, "");
        here.mode = mode.into();
        let served = serve(coming(vec![here]));
        let ran = stead(&served.socket, &["waitstate", never, "--timeout", "60"]);
        assert!(ran.code == 1 && ran.took.as_secs() < 30 && ran.err.contains("is never"), "{ran:?}");
    }
}

#[test]
fn all_nodes_are_commanded_and_each_answers_for_itself() {
    let mut here = coming(vec![view("node1", Prim, Ready, ""), view("node1", Stop, NotReady, "stopped by root")]);
    let there = Fake::new("node2", vec![view("node2", Stop, NotReady, "stopped by root")]);
    here.others.insert(node("node2"), Arc::new(there));
    let served = serve(here);
    let ran = stead(&served.socket, &["stop", "-H", "*", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()["nodes"]["node2"]["module"]["state"], "STOP");
    let there = &served.fake.others[&node("node2")];
    assert_eq!(*there.asked.lock().expect("lock"), ["stop pg force=false full=false by node node1"]);
}

#[test]
fn what_changes_all_nodes_writes_one_file_or_reads_this_machine_is_not_for_several() {
    let mut fake = coming(vec![]);
    fake.others.insert(node("node2"), Arc::new(Fake::new("node2", vec![])));
    let served = serve(fake);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file").to_string_lossy().into_owned();
    std::fs::write(folder.path().join("cluster.xml"), "<cluster/>").expect("written");
    let xml = folder.path().join("cluster.xml").to_string_lossy().into_owned();
    for (arguments, why) in [
        (&["config", "-m", "pg"][..], "ask one"),
        (&["config", "-m", "pg", "--dry-run"], "ask one"),
        (&["module", "install", "postgresql"], "ask one"),
        (&["module", "uninstall", "pg"], "ask one"),
        (&["module", "export", "-m", "pg"], "ask that one"),
        (&["cluster", "config", &xml], "ask one"),
        (&["cluster", "confcheck", &xml], "ask one"),
        (&["logsave", "-m", "pg", &file], "the same file"),
        (&["module", "package", "-m", "pg", &file], "the same file"),
    ] {
        let ran = stead(&served.socket, &[arguments, &["-H", "*"]].concat());
        assert!(ran.code == 1 && ran.err.contains(why) && ran.err.contains("help: stead "), "{arguments:?}: {ran:?}");
    }
    for arguments in [&["rules", "test", "tcp.db=down"][..], &["what-if", "swap"], &["journal", "replay"]] {
        let ran = stead(&served.socket, &[arguments, &["-m", "pg", "-H", "node2", "--json"]].concat());
        let why = ran.json()["error"]["why"].as_str().unwrap_or_default().to_string();
        assert!(ran.code == 1 && why.contains("of this machine only"), "{arguments:?}: {ran:?}");
    }
    assert!(served.fake.asked.lock().expect("lock").is_empty() && std::fs::metadata(&file).is_err());
    // Each node by itself is meant, or one only.
    assert_eq!(stead(&served.socket, &["config", "-m", "pg", "--local", "-H", "*"]).code, 0);
    assert_eq!(stead(&served.socket, &["config", "-m", "pg", "-H", "node2"]).code, 0);
}

#[test]
fn what_is_no_journal_and_no_value_is_refused() {
    let served = serve(coming(vec![]));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("passwd").to_string_lossy().into_owned();
    for (text, why) in [("root:x:0:0\nbin:x:1:1\n", "none of its 2 lines"), ("", "there is nothing in it")] {
        std::fs::write(&file, text).expect("written");
        let ran = stead(&served.socket, &["journal", "replay", &file]);
        assert!(ran.code == 1 && ran.out.is_empty() && ran.err.contains(why) && ran.err.contains("help: "), "{ran:?}");
    }
    let ran = stead(&served.socket, &["set", "-m", "pg", "-r", "custom.a", "-v", "sideways"]);
    assert!(
        ran.code == 1 && ran.err.contains("'sideways'") && ran.err.contains("up, down, init or unknown"),
        "{ran:?}"
    );
    assert!(served.fake.asked.lock().expect("lock").is_empty());
}

#[test]
fn a_program_reads_refusals_of_every_kind() {
    let served = serve(coming(vec![]));
    for (arguments, code) in [
        (&["snapshot", "x.zip", "--json"][..], 1),
        (&["webserver", "restart", "--json"], 1),
        (&["boot", "webon", "--json"], 1),
        (&["notification", "status", "--json"], 1),
        (&["nonsense", "--json"], 2),
        (&["waitstate", "SOMEWHERE", "--json"], 2),
        (&["state", "--json", "--nonsense"], 2),
    ] {
        let ran = stead(&served.socket, arguments);
        assert!(ran.code == code && ran.json()["error"]["why"].is_string() && ran.err.is_empty(), "{ran:?}");
    }
    let ran = stead(&served.socket, &["state", "--json", "--nonsense"]);
    assert!(ran.json()["error"]["why"].as_str().is_some_and(|why| why.contains("--nonsense")), "{ran:?}");
}

#[test]
fn config_shows_the_line_the_caret_and_the_help() {
    let mut fake = coming(vec![]);
    let found = |line, column, width, message: &str, source: &str, help: &str| Diagnostic {
        file: "/etc/stead/modules/pg/conf/userconfig.xml".into(),
        line,
        column,
        width,
        message: message.into(),
        source_line: source.into(),
        help: help.into(),
        ..Diagnostic::default()
    };
    fake.findings = Some(
        Problem::new(
            Code::Misconfigured,
            "cannot apply the configuration of module pg",
            "2 errors, nothing was applied on any node",
        )
        .with_help("correct the file, then: stead config -m pg")
        .with_diagnostics(vec![
            found(12, 6, 4, "unknown element <vipp>", "    <vipp>", "did you mean <vip>?"),
            found(14, 20, 9, "10.0.1.300 is not an address", "\t\t<virtual_addr addr=\"10.0.1.300\"/>", ""),
        ]),
    );
    let served = serve(fake);
    stead(&served.socket, &["config", "-m", "pg", "--set", "VIP=10.0.1.300"]).is("config-wrong.txt");
    let json = stead(&served.socket, &["config", "-m", "pg", "--json"]).json();
    assert_eq!(json["error"]["diagnostics"][0]["line"], 12);
}

#[test]
fn export_and_restore_are_asked_as_safekits_users_type_them() {
    let mut fake = coming(vec![]);
    fake.others.insert(node("node2"), Arc::new(Fake::new("node2", vec![])));
    let served = serve(fake);
    assert_eq!(stead(&served.socket, &["-H", "node2", "-E", "pg"]).code, 0);
    assert_eq!(stead(&served.socket, &["-H", "*", "-E", "pg", "--dry-run"]).code, 0);
    assert_eq!(stead(&served.socket, &["config", "-m", "pg", "--restore", "2"]).code, 0);
    assert_eq!(
        *served.fake.asked.lock().expect("lock"),
        [
            "config pg [] dry_run=false local=false restore=None export=Some([NodeName(\"node2\")]) by root",
            "config pg [] dry_run=true local=false restore=None export=Some([]) by root",
            "config pg [] dry_run=false local=false restore=Some(2) export=None by root",
        ]
    );
}

#[test]
fn config_tells_what_is_in_force_where() {
    let mut fake = coming(vec![]);
    fake.others.insert(node("node2"), Arc::new(Fake::new("node2", vec![])));
    let served = serve(fake);
    stead(&served.socket, &["config", "--set", "VIP=10.0.1.100", "--set", "X=a=b"]).is("config.txt");
    stead(&served.socket, &["config", "--dry-run", "--local"]).is("config-dry.txt");
    assert_eq!(
        *served.fake.asked.lock().expect("lock"),
        [
            "config pg [(\"VIP\", \"10.0.1.100\"), (\"X\", \"a=b\")] dry_run=false local=false restore=None export=None by root",
            "config pg [] dry_run=true local=true restore=None export=None by root"
        ]
    );
}

#[test]
fn a_module_comes_from_a_folder_or_an_archive_and_goes_into_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("web");
    std::fs::create_dir_all(folder.join("conf")).expect("a folder");
    std::fs::write(folder.join("conf/userconfig.xml"), "<safe/>").expect("a file");
    let not_an_archive = dir.path().join("x.safe");
    std::fs::write(&not_an_archive, b"#!/bin/sh").expect("a file");
    let served = serve(coming(vec![]));
    let path = |p: &std::path::Path| p.to_string_lossy().into_owned();
    let ran = stead(&served.socket, &["module", "install", &path(&folder), "-M", "7"]);
    assert!(
        ran.code == 0
            && ran.out.contains("module web is installed with number 7 on node1")
            && ran.out.contains("next: stead config -m web"),
        "{ran:?}"
    );
    let ran = stead(&served.socket, &["module", "install", &path(&folder), "-m", "web2", "--local"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = stead(&served.socket, &["module", "install", &path(&not_an_archive)]);
    assert!(ran.code == 1 && ran.err.contains("x.safe is not installed: it is not a readable zip archive"), "{ran:?}");
    let ran = stead(&served.socket, &["module", "install", "nosuchmodule"]);
    assert!(ran.code == 1 && ran.err.contains("'nosuchmodule' is neither a delivered module"), "{ran:?}");
    let copy = dir.path().join("copy.safe");
    let ran = stead(&served.socket, &["module", "package", &path(&copy)]);
    assert_eq!((ran.code, std::fs::read(&copy).expect("it is there")), (0, b"PK made up".to_vec()));
    let ran = stead(&served.socket, &["module", "package", "-"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "PK made up"));
    let ran = stead(&served.socket, &["module", "uninstall"]);
    assert!(ran.code == 1 && ran.err.contains("only removed by name"), "{ran:?}");
    assert_eq!(stead(&served.socket, &["module", "uninstall", "pg", "--local"]).code, 0);
    let asked: Vec<String> = served.fake.asked.lock().expect("lock").clone();
    let shapes: Vec<(&str, &str)> = asked
        .iter()
        .map(|a| (a.split(' ').nth(1).unwrap_or(""), a.split_once("local=").map_or("", |(_, rest)| rest)))
        .collect();
    assert_eq!(
        shapes,
        [("web", "false id=Some(7) by root"), ("web2", "true id=None by root"), ("pg", "true")],
        "{asked:?}"
    );
}

#[test]
fn the_cluster_is_made_entered_and_configured() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cluster.xml");
    std::fs::write(&file, "<cluster/>\n").expect("a file");
    let served = serve(coming(vec![]));
    let ran =
        stead(&served.socket, &["cluster", "init", "--name", "node1", "--addr", "10.0.1.1", "--addr", "net2=10.0.2.1"]);
    assert!(ran.code == 0 && ran.out.contains("stead cluster join 10.0.1.1 --token st1-abcdef"), "{ran:?}");
    stead(&served.socket, &["cluster", "join", "10.0.1.1", "--token", "old"]).is("join-refused.txt");
    let file = file.to_string_lossy();
    let ran = stead(&served.socket, &["cluster", "config", &file, "--dry-run"]);
    assert!(
        ran.code == 0 && ran.out.starts_with("cluster configuration: checked on node1, nothing applied"),
        "{ran:?}"
    );
    let ran = stead(&served.socket, &["cluster", "config", &file]);
    assert!(ran.code == 0 && ran.out.starts_with("cluster configuration: applied on node1"), "{ran:?}");
    assert_eq!(stead(&served.socket, &["cluster", "config", "/nowhere.xml"]).code, 1);
    // A member must not make another machine a member.
    let mut pair = coming(vec![]);
    pair.others.insert(node("node2"), Arc::new(Fake::new("node2", vec![])));
    let served = serve(pair);
    let ran = stead(&served.socket, &["cluster", "init", "--name", "n", "--addr", "10.0.1.1", "-H", "node2", "--json"]);
    assert_eq!(ran.json()["nodes"]["node2"]["error"]["code"], "forbidden", "{ran:?}");
}
