//! Install, check, macros, two-phase configuration, history, uninstall: what a person sees of them.

use crate::{archive, configure, module, name, store_in, temporary, version_in};
use agent::modules::source::SourceError;
use agent::modules::{Around, Looks, Package, StoreError, Token, delivered, smallest_free_id, stage};
use model::ids::ModuleId;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn a_module_lives_from_install_to_uninstall() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    assert!(matches!(store.active(&app), Err(StoreError::NotInstalled { .. })));
    store.install(&app, &archive(root.path(), "10.0.0.1", "one"), ModuleId(1), false).expect("installed");
    assert!(matches!(store.active(&app), Err(StoreError::NotConfigured { .. })));
    let again =
        store.install(&app, &archive(root.path(), "10.0.0.1", "one"), ModuleId(1), false).expect_err("there already");
    assert!(again.to_string().contains("installed already"), "{again}");
    let script = store.editable_dir(&app).join("bin/start_prim");
    assert_eq!(fs::metadata(&script).expect("there").permissions().mode() & 0o777, 0o755);

    let (checked, signature) = store.check(&app, Around::default()).expect("readable");
    assert!(checked.value.is_some(), "{:?}", checked.diagnostics);
    let prepared =
        store.prepare(&app, &store.package(&app).expect("packed"), ModuleId(1), Around::default()).expect("prepared");
    assert_eq!(Some(&prepared.signature), signature.as_ref());
    assert!(store.active(&app).is_err(), "preparing changes nothing active");
    let active = store.commit(&prepared.token).expect("committed");
    assert_eq!((active.id, &active.signature), (ModuleId(1), &prepared.signature));
    assert_eq!(active.script("start_prim"), Some(active.bin_dir().join("start_prim")));
    assert_eq!(active.script("stop_prim"), None, "a missing script is not an error");
    assert!(matches!(store.commit(&prepared.token), Err(StoreError::UnknownToken { .. })), "a token works once");

    let listed = store.list();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, listed[0].active.as_ref()), (Some(ModuleId(1)), Some(&prepared.signature)));

    assert!(matches!(store.uninstall(&app, true), Err(StoreError::Running { .. })));
    fs::create_dir_all(store.module_dir(&app).join("quarantine/2026")).expect("made");
    let kept = store.uninstall(&app, false).expect("uninstalled");
    assert!(store.list().is_empty());
    assert!(kept.join("state/quarantine/2026").is_dir(), "quarantined files are kept");
    let saved = stage(kept.join("app.safe").to_str().expect("plain"), Path::new("/nonexistent"))
        .expect("a backup that installs");
    store.install(&saved.name, &saved.archive, ModuleId(2), false).expect("installed again, under another number");
    assert_eq!(version_in(&store.editable_dir(&app)).as_deref(), Some("one"));
}

/// A bad disk, or a hand: the automaton asks before it runs any of them.
#[test]
fn programs_that_are_not_what_was_applied_are_named() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "one"), 1);
    let (active, looks) = (store.active(&app).expect("active"), Looks::default());
    let script = active.bin_dir().join("start_prim");
    let is_well = || active.altered().is_none() && looks.altered(&active).is_none() && !active.is_altered("start_prim");
    assert!(is_well(), "{:?}", active.altered());
    let applied = fs::read(&script).expect("there");
    let mut flipped = applied.clone();
    flipped[10] ^= 4;
    for other in [&flipped[..], b"#!/bin/sh\nexit 0\n", b""] {
        fs::write(&script, other).expect("written");
        let said = active.altered().expect("it is another one");
        assert_eq!(looks.altered(&active).as_ref(), Some(&said), "a look that repeats itself sees it");
        let words = [script.display().to_string(), "not what was applied".into(), "stead config -m app".into()];
        assert!(words.iter().all(|word| said.contains(word)) && active.is_altered("start_prim"), "{said}");
    }
    // Written anew, by hand; then by a configuration; and one that is gone is another matter.
    fs::write(&script, &applied).expect("written");
    assert!(is_well(), "{:?}", active.altered());
    fs::write(&script, &flipped).expect("written");
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "two"), 1);
    assert!(is_well(), "what was applied since counts, for who began before it as well: {:?}", active.altered());
    fs::remove_file(&script).expect("removed");
    assert!(is_well(), "it is missing: {:?}", active.altered());
    // An older version did not note what they were.
    let module = active.dir.join("module.json");
    let text = fs::read_to_string(&module).expect("there");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(json.as_object_mut().and_then(|all| all.remove("digests")).is_some(), "{text}");
    fs::write(&module, json.to_string()).expect("written");
    fs::write(&script, &flipped).expect("written");
    assert!(store.active(&app).expect("active").altered().is_none());
}

/// SafeKit makes the file that its scripts source; without it a shell ends at that line.
#[test]
fn the_file_that_scripts_source_for_a_virtual_host_is_made() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let with = |version: &str, host: &str, file: &str| {
        let package = module(root.path(), "10.0.0.1", version);
        let host = format!("<vhost><virtualhostname name=\"{host}\" envfile=\"{file}\"/></vhost><user/>");
        let text = String::from_utf8_lossy(package.userconfig()).replace("<user/>", &host);
        package.with_userconfig(text.into_bytes())
    };
    let apply = |package: Package| {
        configure(&store, "app", &package.to_archive("app").expect("packed"), 1);
        let active = store.active(&app).expect("active");
        let (checked, signature) = store.check(&app, Around::default()).expect("readable");
        assert!(checked.value.is_some() && signature == Some(active.signature.clone()), "{:?}", checked.diagnostics);
        assert!(active.altered().is_none(), "{:?}", active.altered());
        active
    };
    let sourced = |active: &agent::modules::Active, file: &str| {
        let bin = active.bin_dir();
        let command = format!(". $SAFEUSERBIN/{file}; echo \"$SAFEVHOSTNAME\"");
        let ran = std::process::Command::new("sh").args(["-c", &command]).env("SAFEUSERBIN", bin).output();
        String::from_utf8_lossy(&ran.expect("a shell").stdout).trim().to_string()
    };
    let active = apply(with("one", "shop", "vhostenv"));
    assert_eq!(sourced(&active, "vhostenv"), "shop");
    // What was made is made anew, though the editable copy has it by now.
    let active = apply(with("two", "it's another", "vhostenv"));
    assert_eq!(sourced(&active, "vhostenv"), "it's another");
    // Somebody's own stays, and none is made where none may be.
    let own = with("three", "shop", "../../vhostenv");
    apply(own);
    let own = with("four", "shop", "start_prim");
    let active = apply(own);
    assert!(fs::read_to_string(active.bin_dir().join("start_prim")).expect("there").contains("echo four"));
}

#[test]
fn a_refused_configuration_changes_nothing_and_says_everything() {
    let root = temporary();
    let (store, app, web) = (store_in(root.path()), name("app"), name("web"));
    configure(&store, "web", &archive(root.path(), "10.0.0.1", "web"), 1);
    configure(&store, "app", &archive(root.path(), "10.0.0.2", "one"), 2);
    let before = store.active(&app).expect("active");
    let clash = archive(root.path(), "10.0.0.1", "clash");
    let refused = store.prepare(&app, &clash, ModuleId(2), Around::default()).expect_err("web has this address");
    let problem = refused.problem("cannot configure module 'app'");
    assert_eq!(problem.diagnostics.len(), 1);
    let finding = &problem.diagnostics[0];
    assert_eq!((finding.line, finding.width), (6, 5), "the address as written, to underline: {finding:?}");
    assert!(
        finding.message.contains("already belongs to module web") && finding.source_line.contains("%VIP%"),
        "{finding:?}"
    );
    assert!(finding.file.ends_with("app/conf/userconfig.xml"));
    assert_eq!(store.active(&app).expect("still"), before);
    assert_eq!(version_in(&store.editable_dir(&app)).as_deref(), Some("one"));
    // Its own address in its own next configuration is no clash.
    configure(&store, "web", &archive(root.path(), "10.0.0.1", "web2"), 1);
    assert_eq!(version_in(&store.active(&web).expect("active").dir).as_deref(), Some("web2"));
}

#[test]
fn prepare_abort_and_restart_leave_no_trace() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let bytes = archive(root.path(), "10.0.0.1", "one");
    let first = store.prepare(&app, &bytes, ModuleId(1), Around::default()).expect("prepared");
    let second = store.prepare(&app, &bytes, ModuleId(1), Around::default()).expect("prepared again");
    assert!(matches!(store.commit(&first.token), Err(StoreError::UnknownToken { .. })), "a later one replaces it");
    store.abort(&second.token).expect("aborted");
    store.abort(&second.token).expect("twice is fine");
    assert!(store.commit(&second.token).is_err());
    let third = store.prepare(&app, &bytes, ModuleId(1), Around::default()).expect("prepared");
    store.recover().expect("the agent restarts");
    assert!(store.commit(&third.token).is_err());
    assert!(store.list().is_empty());
    for evil in ["../../etc", "app-../x", "", ".", "a/b", "app-00\0"] {
        assert!(matches!(store.commit(&Token(evil.into())), Err(StoreError::UnknownToken { .. })), "{evil:?}");
        store.abort(&Token(evil.into())).expect("nothing to abort");
    }
}

#[test]
fn numbers_belong_to_one_module() {
    let root = temporary();
    let store = store_in(root.path());
    let bytes = archive(root.path(), "10.0.0.1", "one");
    store.install(&name("a"), &bytes, ModuleId(1), false).expect("installed");
    for (module, id) in [("b", 1), ("a", 2), ("b", 0), ("b", 257)] {
        let error = store.prepare(&name(module), &bytes, ModuleId(id), Around::default()).expect_err("wrong number");
        assert!(matches!(error, StoreError::Number { .. }), "{error}");
    }
    assert_eq!(smallest_free_id(store.numbers()).expect("free"), ModuleId(2));
    assert_eq!(smallest_free_id([2, 1, 4].map(ModuleId)).expect("free"), ModuleId(3));
    assert!(smallest_free_id((1..=256).map(ModuleId)).is_err());
}

#[test]
fn the_last_three_configurations_are_kept() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    for version in ["a", "b", "c", "d", "e", "f"] {
        configure(&store, "app", &archive(root.path(), "10.0.0.1", version), 1);
    }
    let kept: Vec<String> = store.history(&app).iter().filter_map(|dir| version_in(dir)).collect();
    assert_eq!(kept, ["e", "d", "c"]);
    assert_eq!(version_in(&store.active(&app).expect("active").dir).as_deref(), Some("f"));
}

#[test]
fn macros_are_spliced_and_comments_survive() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    store.install(&app, &archive(root.path(), "10.0.0.1", "one"), ModuleId(1), false).expect("installed");
    let file = store.editable_dir(&app).join("conf/userconfig.xml");
    let before = fs::read_to_string(&file).expect("readable");
    // A byte-order mark, Windows line ends, apostrophes: what an editor may have made of it.
    fs::write(
        &file,
        format!("\u{feff}{}", before.replace('\n', "\r\n").replace("value=\"10.0.0.1\"", "value = '10.0.0.1'")),
    )
    .expect("written");
    store.set_macros(&app, &[("VIP".into(), "a<b>&\"c\"'d'".into())]).expect("set");
    let after = fs::read_to_string(&file).expect("readable");
    assert!(
        after.starts_with('\u{feff}')
            && after.contains("<!-- one -->\r\n")
            && after.contains("value = 'a&lt;b&gt;&amp;&quot;c&quot;&apos;d&apos;'/>"),
        "{after}"
    );
    assert_eq!(store.macros(&app).expect("readable")[0].value, "a<b>&\"c\"'d'");
    store.set_macros(&app, &[("VIP".into(), "10.0.0.9".into())]).expect("set");
    let (checked, _) = store.check(&app, Around::default()).expect("readable");
    assert_eq!(checked.value.expect("right").vips[0].addr.to_string(), "10.0.0.9");

    let wrong = store.set_macros(&app, &[("VPI".into(), "x".into())]).expect_err("unknown");
    assert!(
        wrong.to_string().contains("no macro VPI") && wrong.help().contains("--set VIP="),
        "{wrong} {}",
        wrong.help()
    );
    assert!(store.set_macros(&app, &[("VIP".into(), "a\nb".into())]).is_err());
    let missing = store.set_macros(&name("apq"), &[]).expect_err("no such module");
    assert!(missing.to_string().contains("did you mean 'app'"), "{missing}");
}

#[test]
fn signatures_are_of_meaning_and_scripts() {
    let root = temporary();
    let one = module(root.path(), "10.0.0.1", "one");
    let text = String::from_utf8(one.userconfig().to_vec()).expect("text");
    let sign = |package: &Package| {
        let home = temporary();
        let bytes = package.to_archive("app").expect("packed");
        store_in(home.path()).prepare(&name("app"), &bytes, ModuleId(1), Around::default()).expect("prepared").signature
    };
    let commented = one.clone().with_userconfig(text.replace("one", "another comment").into_bytes());
    assert_eq!(sign(&one), sign(&commented), "a comment is no change");
    let moved = one.clone().with_userconfig(text.replace("10.0.0.1", "10.0.0.2").into_bytes());
    assert_ne!(sign(&one), sign(&moved));
    assert_ne!(sign(&one), sign(&module(root.path(), "10.0.0.1", "two")), "another script is a change");
}

/// What release 0.1 signed and wrote: a later release must still agree with a node that runs it.
#[test]
fn stored_bytes_of_the_first_release_are_understood() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let dir = store.module_dir(&app).join("active");
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("module.json"), include_bytes!("module-0.1.json")).expect("written");
    let active = store.active(&app).expect("readable");
    assert_eq!(active.id, ModuleId(3));
    let canonical = active.configuration.canonical();
    assert_eq!(canonical, include_str!("canonical-0.1.txt"));
    fs::write(dir.join("module.json"), b"{\"format\":1,").expect("written");
    let error = store.active(&app).expect_err("cut short");
    assert!(error.to_string().contains("module.json") && error.help().contains("stead config -m app"), "{error}");
}

/// Whoever would run it must be told: an application without its scripts is none.
#[test]
fn a_script_that_was_applied_and_is_lost_is_no_script_that_the_module_never_had() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "one"), 1);
    let bin = store.module_dir(&app).join("active/bin");
    fs::remove_dir_all(&bin).expect("removed");
    let active = store.active(&app).expect("readable");
    assert_eq!(active.script("start_prim"), Some(bin.join("start_prim")));
    assert!(active.has_applied("start_prim") && !active.has_applied("stop_prim"));
    assert_eq!(active.script("stop_prim"), None);
    // As the first release wrote it: nothing is known of its scripts.
    let file = store.module_dir(&app).join("active/module.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).expect("there")).expect("what was written");
    json.as_object_mut().expect("an object").remove("scripts").expect("it was noted");
    fs::write(&file, json.to_string()).expect("written");
    assert_eq!(store.active(&app).expect("readable").script("start_prim"), None);
}

/// What is in force is what was edited last: `config` writes it there again.
#[test]
fn an_editable_copy_that_was_removed_comes_back_from_what_is_in_force() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "one"), 1);
    fs::remove_dir_all(store.editable_dir(&app)).expect("removed");
    let package = store.editable(&app).expect("what is in force");
    assert!(package.has_script("start_prim") && !store.is_in_force(&app, &package), "it is to be written");
    let bytes = store.package(&app).expect("packed");
    let prepared = store.prepare(&app, &bytes, ModuleId(1), Around::default()).expect("prepared");
    store.commit(&prepared.token).expect("committed");
    assert_eq!(version_in(&store.editable_dir(&app)).as_deref(), Some("one"));
    assert!(matches!(store.editable(&name("nobody")), Err(StoreError::NotInstalled { .. })));
}

/// It is no module that was never configured: it may have run, and what mends it must not be refused because of it.
#[test]
fn a_configuration_in_force_that_cannot_be_read_is_listed_with_the_reason_and_can_be_applied_again() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    store.install(&app, &archive(root.path(), "10.0.0.9", "one"), ModuleId(1), false).expect("installed");
    let listed = || store.list().into_iter().find(|it| it.name == app).expect("listed");
    assert_eq!((listed().active, listed().broken), (None, None), "never configured");
    let apply = || {
        let package = store.package(&app).expect("packed");
        let prepared = store.prepare(&app, &package, ModuleId(1), Around::default()).expect("prepared");
        store.plan(&app, &Package::from_archive(&package).expect("a package")).expect("a plan");
        store.commit(&prepared.token).expect("committed")
    };
    apply();
    let file = store.module_dir(&app).join("active/module.json");
    let whole = fs::read_to_string(&file).expect("there");
    for (text, word) in [
        ("{\"format\":1,".to_string(), "EOF"),
        (whole.replacen("\"format\": 1", "\"format\": 2", 1), "its format is 2"),
    ] {
        assert_ne!(text, whole);
        fs::write(&file, text).expect("written");
        let found = listed();
        assert_eq!((found.active, found.id), (None, Some(ModuleId(1))));
        let why = found.broken.expect("a reason");
        assert!(why.contains("module.json") && why.contains(word), "{why}");
        apply();
        assert_eq!(listed().broken, None);
    }
    fs::remove_file(&file).expect("removed");
    assert!(listed().broken.is_some_and(|why| why.contains("it is missing")));
    apply();
    assert!(listed().active.is_some());
}

#[test]
fn every_delivered_module_is_right_once_its_address_is_set() {
    let nowhere = Path::new("/nonexistent");
    let names = delivered::names(nowhere);
    assert!(names.contains(&"mirror".to_string()) && names.contains(&"postgresql".to_string()), "{names:?}");
    for module in names {
        let root = temporary();
        let store = store_in(root.path());
        let staged = stage(&module, nowhere).expect("delivered");
        assert!(staged.notes.is_empty(), "{module}: {:?}", staged.notes);
        store.install(&staged.name, &staged.archive, ModuleId(1), false).expect("installed");
        if module != "light" {
            store.set_macros(&staged.name, &[("VIP".into(), "10.0.1.100".into())]).expect("the others have a VIP");
        }
        let (checked, _) = store.check(&staged.name, Around::default()).expect("readable");
        assert!(checked.diagnostics.is_empty(), "{module}: {:?}", checked.diagnostics);
        let configuration = checked.value.expect("right");
        assert!(configuration.user.is_some() && configuration.heartbeats.is_empty());
        // A mirror replicates and is served by one node, a farm by all, and a light module is one node's own.
        let is_mirror = configuration.mode == model::schema::Mode::Mirror;
        assert_eq!(configuration.rfs.is_some(), is_mirror, "{module}");
        for script in if !is_mirror { ["start_both", "stop_both"] } else { ["start_prim", "stop_prim"] } {
            let path = store.editable_dir(&staged.name).join("bin").join(script);
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o111, 0o111, "{}", path.display());
        }
    }
}

#[test]
fn what_a_person_names_is_found_or_explained() {
    let root = temporary();
    let nowhere = Path::new("/nonexistent");
    module(root.path(), "10.0.0.1", "x");
    let folder = root.path().join("source-x");
    assert_eq!(stage(folder.to_str().expect("plain"), nowhere).expect("a folder").name, name("source-x"));
    let safe = root.path().join("my-app.safe");
    fs::write(&safe, archive(root.path(), "10.0.0.1", "x")).expect("written");
    let staged = stage(safe.to_str().expect("plain"), nowhere).expect("an archive");
    assert_eq!(staged.name, name("my-app"), "the archive's name, not the folder's inside");
    assert!(Package::from_archive(&staged.archive).expect("packed again").has_script("start_prim"));
    let unknown = stage("postgress", nowhere).expect_err("unknown");
    assert!(unknown.to_string().contains("did you mean 'postgresql'"), "{unknown}");
    assert!(matches!(stage("./nowhere", nowhere), Err(SourceError::Package { .. })));
    assert!(matches!(
        stage(root.path().join("-x.safe").to_str().expect("plain"), nowhere),
        Err(SourceError::Name { .. })
    ));
    // A package on disk wins over the embedded one.
    fs::create_dir_all(root.path().join("share")).expect("made");
    fs::rename(&folder, root.path().join("share/postgresql")).expect("moved");
    let shared = stage("postgresql", &root.path().join("share")).expect("found");
    assert!(shared.archive != stage("postgresql", nowhere).expect("embedded").archive);
}

#[test]
fn a_plan_names_what_changes_and_what_needs_a_stop() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let first = module(root.path(), "10.0.0.1", "one");
    assert_eq!(store.plan(&app, &first).expect("planned"), None, "nothing is in force");
    configure(&store, "app", &first.to_archive("app").expect("packed"), 1);
    assert_eq!(store.plan(&app, &first).expect("planned"), Some(Vec::new()));
    assert!(store.is_in_force(&app, &first));
    let second = module(root.path(), "10.0.0.2", "two");
    let said: Vec<String> =
        store.plan(&app, &second).expect("planned").expect("changes").iter().map(|c| c.sentence()).collect();
    assert_eq!(
        said,
        [
            "service/vip/interface_list/interface/real_interface/virtual_addr[10.0.0.1]: removed (needs a stop)",
            "service/vip/interface_list/interface/real_interface/virtual_addr[10.0.0.2]: added (needs a stop)",
            "bin/start_prim: changed (needs a stop)",
        ]
    );
    assert!(!store.is_in_force(&app, &second));
}

#[test]
fn what_was_in_force_before_comes_back_under_its_number() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    for version in ["one", "two", "three", "four", "five"] {
        configure(&store, "app", &archive(root.path(), "10.0.0.1", version), 1);
    }
    let past = store.past(&app);
    assert_eq!(past.iter().map(|it| it.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(past.iter().all(|it| !it.signature.is_empty() && it.applied_unix_ms > 0));
    for (number, version) in [(1, "four"), (2, "three"), (3, "two")] {
        let package = store.past_package(&app, number).expect("kept");
        assert!(String::from_utf8_lossy(package.userconfig()).contains(&format!("<!-- {version} -->")), "{number}");
    }
    for number in [0, 4] {
        let refused = store.past_package(&app, number).expect_err("not kept");
        assert!(refused.to_string().contains("3 are kept"), "{refused}");
    }
}

#[test]
fn what_somebody_edited_and_another_node_overwrites_is_told_and_kept() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let apply = |version: &str| {
        let other = module(root.path(), "10.0.0.1", version);
        let prepared = store
            .prepare(&app, &other.to_archive("app").expect("packed"), ModuleId(1), Around::default())
            .expect("prepared");
        let edited = store.edited_otherwise(&app, &other);
        store.keep_edited(&app, &prepared.token).expect("kept");
        store.commit(&prepared.token).expect("committed");
        edited
    };
    assert_eq!(apply("one"), [""; 0], "nothing was in force");
    assert_eq!(apply("two"), [""; 0], "nobody edited anything");
    let script = store.editable_dir(&app).join("bin/start_prim");
    fs::write(&script, "#!/bin/sh\n# only here\n").expect("edited");
    fs::write(store.editable_dir(&app).join("bin/added"), "#!/bin/sh\n").expect("added");
    assert_eq!(apply("three"), ["bin/added", "bin/start_prim"]);
    assert!(!fs::read_to_string(&script).expect("there").contains("only here"));
    let past = store.past(&app);
    assert_eq!(past.iter().map(|it| (it.number, it.edited)).collect::<Vec<_>>(), [(1, false), (2, true), (3, false)]);
    assert!(past.iter().all(|it| it.applied_unix_ms > 0), "{past:?}");
    let edited = store.past_package(&app, 2).expect("kept");
    assert!(edited.has_script("added"));
    let files: Vec<_> = edited.files().collect();
    assert!(files.contains(&("bin/start_prim", &b"#!/bin/sh\n# only here\n"[..])), "{files:?}");
    // The last three of each kind.
    for version in ["a", "b", "c", "d"] {
        fs::write(&script, format!("#!/bin/sh\n# {version}\n")).expect("edited");
        assert_eq!(apply(version), ["bin/start_prim"]);
    }
    let kinds = |edited: bool| store.past(&app).iter().filter(|it| it.edited == edited).count();
    assert_eq!((kinds(true), kinds(false)), (3, 3));
}

#[test]
fn a_module_whose_copies_are_both_gone_is_not_forgotten() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "one"), 1);
    // Its loop has begun once.
    fs::write(store.module_dir(&app).join("state.a"), "x").expect("written");
    fs::remove_dir_all(store.editable_dir(&app)).expect("there");
    fs::remove_dir_all(store.module_dir(&app).join("active")).expect("there");
    let listed = store.list();
    assert_eq!(listed.iter().map(|it| (&it.name, it.id)).collect::<Vec<_>>(), [(&app, Some(ModuleId(1)))]);
    let why = listed[0].broken.as_deref().expect("said");
    assert!(why.contains("was configured on this node, and its files are lost"), "{why}");
    assert!(matches!(store.active(&app), Err(StoreError::Lost { .. })));
    // From another node it comes back, and an uninstallation takes the rest away.
    configure(&store, "app", &archive(root.path(), "10.0.0.1", "one"), 1);
    assert!(store.list()[0].broken.is_none() && store.list()[0].editable);
    fs::remove_dir_all(store.editable_dir(&app)).expect("there");
    fs::remove_dir_all(store.module_dir(&app).join("active")).expect("there");
    store.uninstall(&app, false).expect("uninstalled");
    assert_eq!(store.list(), []);
}

#[test]
fn only_what_somebody_edited_counts_as_edited() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    let install = |version: &str, replace| {
        store.install(&app, &archive(root.path(), "10.0.0.1", version), ModuleId(1), replace).expect("installed");
    };
    let edited = |version: &str| store.edited_otherwise(&app, &module(root.path(), "10.0.0.1", version));
    let script = store.editable_dir(&app).join("bin/start_prim");
    // Before anything is in force.
    install("one", false);
    assert_eq!(edited("two"), [""; 0], "nobody edited anything");
    fs::write(&script, "#!/bin/sh\n# only here\n").expect("edited");
    assert_eq!(edited("two"), ["bin/start_prim"]);
    let other = module(root.path(), "10.0.0.1", "two");
    let bytes = other.to_archive("app").expect("packed");
    let prepared = store.prepare(&app, &bytes, ModuleId(1), Around::default()).expect("prepared");
    store.keep_edited(&app, &prepared.token).expect("kept");
    store.commit(&prepared.token).expect("committed");
    let past = store.past(&app);
    assert_eq!(past.iter().map(|it| (it.number, it.edited)).collect::<Vec<_>>(), [(1, true)]);
    // Another copy was installed over it: that is no edit.
    install("three", true);
    assert_eq!(edited("four"), [""; 0], "nobody edited anything");
    // What an older version left has no note: it was in force, or it may have been edited.
    fs::remove_file(store.module_dir(&app).join("editable.json")).expect("there");
    assert_eq!(edited("four"), ["bin/start_prim", "conf/userconfig.xml"]);
    // Brought here and edited since.
    install("five", true);
    fs::write(&script, "#!/bin/sh\n# again\n").expect("edited");
    assert_eq!(edited("six"), ["bin/start_prim"]);
}

#[test]
fn what_a_configuration_names_and_the_module_lacks_is_told() {
    let root = temporary();
    let (store, app) = (store_in(root.path()), name("app"));
    store.install(&app, &archive(root.path(), "10.0.0.1", "one"), ModuleId(1), false).expect("installed");
    let said = || {
        let (checked, _) = store.check(&app, Around::default()).expect("readable");
        assert!(checked.value.is_some(), "{:?}", checked.diagnostics);
        checked.diagnostics.into_iter().map(|it| it.message).collect::<Vec<_>>().join("\n")
    };
    assert!(!said().contains("bin/"), "{}", said());
    let file = store.editable_dir(&app).join("conf/userconfig.xml");
    let text = fs::read_to_string(&file).expect("there");
    let check = "<check><custom ident=\"c\" when=\"prim\" exec=\"nosuch\" action=\"restart\"/></check></service>";
    fs::write(&file, text.replace("</service>", check)).expect("edited");
    assert!(said().contains("custom.c runs nosuch, and the module has no bin/nosuch"), "{}", said());
    // Lines as an editor of Windows writes them: told, and run with those of this system.
    fs::write(store.editable_dir(&app).join("bin/nosuch"), "#!/bin/sh\r\nexit 0\r\n").expect("edited");
    assert!(said().contains("bin/nosuch has the line ends of Windows"), "{}", said());
    assert!(!said().contains("the module has no"), "{}", said());
    configure(&store, "app", &store.package(&app).expect("packed"), 1);
    let active = store.active(&app).expect("active");
    assert_eq!(fs::read(active.bin_dir().join("nosuch")).expect("there"), b"#!/bin/sh\nexit 0\n");
}
