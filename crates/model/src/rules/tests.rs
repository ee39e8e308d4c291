use super::*;
use alloc::string::ToString;

fn written(text: &str) -> Vec<String> {
    parse(text).expect(text).rules.iter().map(|(rule, _)| rule.to_string()).collect()
}

fn fault(text: &str) -> Fault {
    parse(text).expect_err(text).swap_remove(0)
}

#[test]
fn what_is_written_is_what_is_meant() {
    let text = "/* SafeKit's own */\n\
        a: if (tcp.http == down) then restart();\n\
        b: if (!heartbeat.* == up && (ping.? != up || remote.custom.x-1.y == init)) then stopstart(); -- why\n\
        c: if (local.custom.x) then wait;\n\
        d: if (state.local == PRIM && cluster() == down) then custom.y=up;";
    assert_eq!(
        written(text),
        [
            "a: if (tcp.http == down) then restart();",
            "b: if ((!(heartbeat.* == up) && (ping.? != up || remote.custom.x-1.y == init))) then stopstart();",
            "c: if (custom.x == up) then wait();",
            "d: if ((state.local == PRIM && cluster.peer == down)) then custom.y=up;",
        ]
    );
    assert_eq!(written(&written(text).join("\n")), written(text), "its own text means the same");
}

#[test]
fn and_binds_closer_than_or() {
    assert_eq!(
        written("a: if (x.a == up || x.b == up && x.c == up) then stop();"),
        ["a: if ((x.a == up || (x.b == up && x.c == up))) then stop();"]
    );
}

#[test]
fn what_is_not_understood_is_named_at_its_place() {
    for (text, line, column, says) in [
        ("a: if (tcp.x == down) then reboot();", 1, 28, "'reboot' is no action"),
        ("a: if (tcp.x == dwon)\n then stop();", 1, 17, "'dwon' is neither"),
        ("a: if (tcp.x == down) then stop()", 1, 33, "end where ';'"),
        ("a: if tcp.x == down then stop();", 1, 7, "where '(' belongs"),
        ("a: if (tcp.x == down) then stop();\nb if (tcp.x) then stop();", 2, 3, "where ':' belongs"),
        ("a: if (tcp.h* == down) then stop();", 1, 8, "whole name"),
        ("a: if (*.x == down) then stop();", 1, 8, "whole name"),
        ("a: if (down) then stop();", 1, 8, "no condition"),
        ("a: if (tcp.x) then rfs.uptodate=up;", 1, 20, "not a rule's to set"),
        ("a: if (tcp.x) then stop(); a: if (tcp.y) then stop();", 1, 28, "stands twice"),
        ("a: if (tcp.x § down) then stop();", 1, 14, "means nothing"),
        ("/* a", 1, 1, "never closed"),
        ("a: if (remote.x == up) then stop();", 1, 8, "has no class"),
    ] {
        let fault = fault(text);
        assert!(fault.message.contains(says), "{text}: {}", fault.message);
        assert_eq!((fault.at.line, fault.at.column), (line, column), "{text}: {}", fault.message);
    }
    let near = fault("a: if (tcp.x == down) then stopstrat();");
    assert_eq!(near.help, "did you mean stopstart()?");
}

#[test]
fn every_rule_that_is_not_understood_is_told() {
    let text = " a: if (tcp.x = down) then stop();
 b if (tcp.x == down) then stop(); c: if (tcp.x == dwon) then stp();
 right: if (tcp.x == down) then stop(); right: if (tcp.y) then stop(); d: if (tcp.x == down) then stop() ";
    let faults = parse(text).expect_err("five are wrong");
    let told: Vec<_> = faults.iter().map(|fault| (fault.at.line, fault.message.as_str())).collect();
    let [first, second, third, twice, last] = told[..] else { panic!("{told:?}") };
    assert!(first.0 == 1 && first.1.contains("'='"), "{told:?}");
    assert!(second.0 == 2 && second.1.contains("where ':' belongs"), "{told:?}");
    assert!(third.0 == 2 && third.1.contains("'dwon' is neither"), "{told:?}");
    assert!(twice.0 == 3 && twice.1.contains("stands twice"), "{told:?}");
    assert!(last.0 == 3 && last.1.contains("end where ';'"), "{told:?}");
}

#[test]
fn hostile_texts_are_refused_at_once() {
    for open in ["(", "!"] {
        let deep = alloc::format!("a: if ({}tcp.x", open.repeat(50_000));
        assert!(fault(&deep).message.contains("deeper"));
    }
    assert!(fault(&"x".repeat(TEXT_MAX + 1)).message.contains("bytes"));
    let many: String = (0..300).map(|n| alloc::format!("r{n}: if (tcp.x) then stop();\n")).collect();
    assert!(fault(&many).message.contains("more than"));
    let whole = "a: if (!heartbeat.* == up && (ping.? != up)) then custom.x=up; -- é\n";
    for cut in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
        let _ = parse(&whole[..cut]);
    }
}

#[test]
fn plain_lua_tables_are_translated_and_programs_are_not() {
    let lua = "--Lua Rules\n\
        Rules = Rules + { t_web = if_then(\"tcp.web\",\"down\",Action.stopstart), _group=\"checker\" }\n\
        Rules.disable(\"ip_failure\")\n";
    let parsed = parse(lua).expect("plain");
    assert_eq!(parsed.rules[0].0.to_string(), "t_web: if (tcp.web == down) then stopstart();");
    assert_eq!(parsed.disabled, ["ip_failure".to_string()]);
    let program = fault("--Lua Rules\nlocal x = 1\nfunction f() return x end\n");
    assert!(program.message.contains("a program") && program.at.line == 2, "{program:?}");
}
