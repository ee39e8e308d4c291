//! What scripts and service managers call: verbs of SafeKit's scripts, and the helpers under their own names.

use crate::fake::{Fake, serve, view};
use crate::support::{run, stead};
use model::ModuleState::{Prim, Stop};
use model::Status::{NotReady, Ready};
use std::path::Path;
use std::process::{Command, Stdio};

fn asked(served: &crate::fake::Served) -> Vec<String> {
    served.fake.asked.lock().expect("lock").clone()
}

#[test]
fn a_script_prints_into_the_log_and_nothing_on_its_own_output() {
    let served = serve(Fake::new("node1", vec![view("node1", Prim, Ready, "serving")]));
    let ran = stead(&served.socket, &["printe", "-m", "pg", "disk is", "full"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    assert_eq!(stead(&served.socket, &["printi", "-m", "pg", "done"]).code, 0);
    assert_eq!(stead(&served.socket, &["update", "-m", "pg"]).code, 0);
    assert_eq!(stead(&served.socket, &["boot", "on", "-m", "pg"]).code, 0);
    assert_eq!(
        asked(&served),
        [
            r#"watch pg {"print":{"error":true,"text":"disk is full"}} by root"#,
            r#"watch pg {"print":{"error":false,"text":"done"}} by root"#,
            r#"watch pg "update" by root"#,
            r#"watch pg {"boot":{"on":true}} by root"#,
        ]
    );
    let ran = stead(&served.socket, &["boot", "snmpon"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("SNMP comes with a later version"), "{ran:?}");
}

#[test]
fn a_shutdown_stops_what_is_started_and_asks_nothing_else() {
    let fake = Fake::new("node1", vec![view("node1", Prim, Ready, "serving")]);
    let served = serve(fake);
    served.fake.coming.lock().expect("lock").push_back(view("node1", Stop, NotReady, "stopped"));
    let ran = stead(&served.socket, &["shutdown"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "pg is stopped\n"), "{ran:?}");
    assert_eq!(asked(&served), ["shutdown pg force=false full=false by root"]);
    let served = serve(Fake::new("node1", vec![view("node1", Stop, NotReady, "stopped")]));
    let ran = stead(&served.socket, &["shutdown"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "no module was started on this node\n"));
    assert!(asked(&served).is_empty());
}

#[test]
fn deconfig_listid_and_keys() {
    let served = serve(Fake::new("node1", vec![view("node1", Stop, NotReady, "stopped")]));
    assert_eq!(stead(&served.socket, &["deconfig", "-m", "pg"]).code, 0);
    assert_eq!(asked(&served), ["deconfig pg by root"]);
    assert_eq!(stead(&served.socket, &["module", "listid"]).out, "1 pg\n");
    assert_eq!(stead(&served.socket, &["module", "genkey", "-m", "pg"]).code, 0);
    let ran = stead(&served.socket, &["module", "delkey", "-m", "pg"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("nothing goes over the network without encryption"), "{ran:?}");
}

fn plain(args: &[&str]) -> crate::support::Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
    command.args(args).stdin(Stdio::null());
    run(command)
}

#[test]
fn a_new_module_is_right_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let into = dir.path().to_str().expect("UTF-8");
    let made = plain(&["module", "new", "shop", "--into", into]);
    assert_eq!(made.code, 0, "{made:?}");
    let folder = dir.path().join("shop");
    for next in ["stead confcheck", "stead module install", "stead config -m shop"] {
        assert!(made.out.contains(next), "{made:?}");
    }
    let checked = plain(&["confcheck", folder.to_str().expect("UTF-8")]);
    assert_eq!(checked.code, 0, "{checked:?}");
    let script = folder.join("bin/start_prim");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&script).expect("there").permissions());
    assert_eq!(mode & 0o111, 0o111);
    let again = plain(&["module", "new", "shop", "--into", into]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("is there already"), "{again:?}");

    let full =
        ["module", "new", "bank", "--into", into, "--vip", "10.0.1.100", "--services", "bank", "--dir", "/srv/b"];
    assert_eq!(plain(&full).code, 0);
    let text = std::fs::read_to_string(dir.path().join("bank/conf/userconfig.xml")).expect("there");
    for value in
        ["name=\"VIP\" value=\"10.0.1.100\"", "name=\"DIR\" value=\"/srv/b\"", "name=\"SERVICES\" value=\"bank\""]
    {
        assert!(text.contains(value), "{text}");
    }
    assert!(text.contains("Module bank: ") && text.contains("/etc/stead/modules/bank/"), "{text}");
    assert!(!text.contains("mirror/"), "it speaks of the template: {text}");
    // A host name is looked up when the module is configured.
    assert_eq!(plain(&["module", "new", "named", "--into", into, "--vip", "shop.example.com"]).code, 0);
    let bad = plain(&["module", "new", "bad", "--into", into, "--vip", "10.0.1.300"]);
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(!dir.path().join("bad").exists());
    let bad = plain(&["module", "new", "bad", "--into", into, "--template", "farm", "--dir", "/srv/bad"]);
    assert!(bad.code == 1 && bad.err.contains("--dir"), "{bad:?}");
}

#[test]
fn every_delivered_module_is_a_template_with_and_without_an_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let into = dir.path().to_str().expect("UTF-8");
    let templates = agent::modules::delivered::names(Path::new(agent::modules::delivered::SHARED));
    assert!(templates.len() >= 6, "{templates:?}");
    for (number, template) in templates.iter().enumerate() {
        for vip in [None, Some("10.0.1.100")] {
            let name = format!("m{number}{}", if vip.is_some() { "vip" } else { "" });
            let mut asked = vec!["module", "new", &name, "--into", into, "--template", template];
            asked.extend(vip.map_or(&[][..], |_| &["--vip"][..]));
            asked.extend(vip);
            let made = plain(&asked);
            assert_eq!(made.code, 0, "{asked:?}: {made:?}");
            let checked = plain(&["confcheck", dir.path().join(&name).to_str().expect("UTF-8")]);
            assert_eq!(checked.code, 0, "{asked:?}: {checked:?}");
        }
    }
}

#[test]
fn what_is_installed_without_a_source_is_the_copy_of_the_module_that_is_named() {
    let none = plain(&["module", "install"]);
    assert!(none.code != 0 && none.err.contains("no module is named"), "{none:?}");
    let absent = plain(&["module", "install", "-m", "not-here-at-all"]);
    assert!(absent.code != 0 && absent.err.contains("/etc/stead/modules/not-here-at-all is not there"), "{absent:?}");
}

#[test]
fn the_helpers_are_this_program_under_other_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let bin = dir.path().join("bin");
    agent::tools::lay_out(&bin, Path::new(env!("CARGO_BIN_EXE_stead"))).expect("laid out");
    let call = |name: &str, args: &[&str]| {
        let mut command = Command::new(bin.join(name));
        command.args(args).stdin(Stdio::null());
        run(command)
    };
    assert_eq!(call("exitcode", &["9"]).code, 9);
    assert_eq!(call("boundcmd", &["20", "sh", "-c", "exit 4"]).code, 4);
    assert_eq!(call("boundcmd", &["100ms", "sleep", "1000"]).code, 2);
    let own = std::process::id().to_string();
    assert!(call("processtree", &["list", "all"]).out.contains(&own));
    assert_eq!(call("safekit", &["-r", "exitcode", "3"]).code, 3);
    assert_eq!(call("safekit", &["-r", "nonsense"]).code, 2);
    assert!(call("safekit", &["--version"]).out.starts_with("stead "));
}

#[test]
fn gencron_uses_the_crontab_program() {
    let dir = tempfile::tempdir().expect("a directory");
    let table = dir.path().join("table");
    std::fs::write(&table, "5 * * * * /opt/job\n").expect("written");
    // Stands in for cron's own: -u USER -l prints, -u USER - reads.
    let program = format!("#!/bin/sh\nif [ \"$3\" = -l ]; then cat {0}; else cat > {0}; fi\n", table.display());
    let crontab = dir.path().join("crontab");
    std::fs::write(&crontab, program).expect("written");
    std::fs::set_permissions(&crontab, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let gencron = |verb: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        command.args(["-r", "gencron", verb, "me", "all", "-c", "stead am"]).env("PATH", path).stdin(Stdio::null());
        run(command).code
    };
    assert_eq!(gencron("del"), 0);
    assert_eq!(std::fs::read_to_string(&table).expect("there"), "#stead am#5 * * * * /opt/job\n");
    assert_eq!(gencron("add"), 0);
    assert_eq!(std::fs::read_to_string(&table).expect("there"), "5 * * * * /opt/job\n");
}

#[test]
fn kill_takes_options_as_safekit_writes_them() {
    let mark = format!("{}.125", 100_000 + std::process::id());
    let mut child = Command::new("sleep").arg(&mark).spawn().expect("sleep");
    let argument = format!("-argregex={mark}");
    let listed = plain(&["kill", "-name=sleep", &argument, "-level=test"]);
    assert_eq!((listed.code, listed.out), (0, format!("{} sleep {mark}\n", child.id())));
    assert_eq!(plain(&["kill", "-name=sleep", &argument, "-level=9"]).code, 0);
    assert!(!child.wait().expect("it ends").success());
    assert!(plain(&["kill", "-name=sleep", &argument]).out.contains("no process"));
    // The module stands before the verb in scripts.
    assert!(plain(&["-m", "am", "kill", "-name=sleep", &argument]).out.contains("no process"));
}
