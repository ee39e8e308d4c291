//! `processtree list [NAME [REGEX]]`, `processtree kill NAME [REGEX]`: processes with what they have started.

use model::patterns::Expression;
use platform::process::list::{Process, Signal, all, matching, signal, with_descendants};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: processtree list [all | NAME [REGEX]] | processtree kill NAME [REGEX]";
/// Between being asked and being killed.
const GRACE: Duration = Duration::from_secs(3);
const DEPTH_MAX: usize = 64;

pub(super) fn run(args: &[String]) -> Result<u8, String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let expression =
        |text: &str| Expression::new(text).ok_or_else(|| format!("'{text}' is no regular expression (POSIX extended)"));
    match words.as_slice() {
        ["list"] | ["list", "all"] => super::show(&tree(&all(), &roots(&all()))),
        ["list", name] => super::show(&tree(&all(), &matching(Some(name), None))),
        ["list", name, regex] => super::show(&tree(&all(), &matching(Some(name), Some(&expression(regex)?)))),
        ["kill", "all"] => return Err("'kill all' would end this machine: name a process".to_string()),
        ["kill", name] => end(&matching(Some(name), None)),
        ["kill", name, regex] => end(&matching(Some(name), Some(&expression(regex)?))),
        _ => return Err(USAGE.to_string()),
    }
    Ok(0)
}

fn roots(all: &[Process]) -> Vec<Process> {
    let known: BTreeSet<i32> = all.iter().map(|process| process.pid).collect();
    all.iter().filter(|process| !known.contains(&process.parent)).cloned().collect()
}

/// One line a process, those it started below it and to the right.
fn tree(all: &[Process], from: &[Process]) -> String {
    let mut text = String::new();
    let mut seen = BTreeSet::new();
    for root in from {
        branch(all, root, 0, &mut seen, &mut text);
    }
    text
}

fn branch(all: &[Process], at: &Process, depth: usize, seen: &mut BTreeSet<i32>, text: &mut String) {
    if depth > DEPTH_MAX || !seen.insert(at.pid) {
        return;
    }
    let arguments = if at.arguments.is_empty() { "" } else { at.arguments.as_str() };
    let _ = writeln!(text, "{:depth$}{} {} {arguments}", "", at.pid, at.name, depth = depth * 2);
    for child in all.iter().filter(|process| process.parent == at.pid) {
        branch(all, child, depth + 1, seen, text);
    }
}

/// Asked first, killed when that does not help.
fn end(roots: &[Process]) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut doomed: Vec<Process> = roots.iter().flat_map(with_descendants).collect();
    doomed.retain(|process| process.pid != own);
    doomed.iter().for_each(|process| signal(process, Signal::TERM));
    let deadline = Instant::now() + GRACE;
    let is_there = |process: &Process| all().iter().any(|it| it.pid == process.pid && it.name == process.name);
    while doomed.iter().any(is_there) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    doomed.iter().for_each(|process| signal(process, Signal::KILL));
    for process in &doomed {
        super::show(&format!("{} {} ended\n", process.pid, process.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn process(pid: i32, parent: i32, name: &str) -> Process {
        Process { pid, parent, name: name.into(), arguments: format!("/bin/{name} x") }
    }

    #[test]
    fn children_stand_below_their_parents() {
        let all = [process(1, 0, "init"), process(7, 1, "app"), process(8, 7, "worker"), process(9, 1, "other")];
        assert_eq!(
            tree(&all, &roots(&all)),
            "1 init /bin/init x\n  7 app /bin/app x\n    8 worker /bin/worker x\n  9 other /bin/other x\n"
        );
        assert_eq!(tree(&all, &all[1..2]), "7 app /bin/app x\n  8 worker /bin/worker x\n");
    }

    #[test]
    fn one_that_is_named_ends_with_its_children() {
        let mark = format!("{}.25", 100_000 + std::process::id());
        let mut child =
            Command::new("sh").args(["-c", &format!("sleep {mark} & wait; true")]).spawn().expect("a shell");
        let begin = Instant::now();
        while matching(Some("sleep"), Expression::new(&mark).as_ref()).is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(run(&["kill".into(), "sh".into(), mark.clone()]), Ok(0));
        assert!(!child.wait().expect("it ends").success());
        while !matching(Some("sleep"), Expression::new(&mark).as_ref()).is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(40));
        }
    }

    #[test]
    fn what_would_end_the_machine_is_refused() {
        assert!(run(&["kill".into(), "all".into()]).is_err());
        assert!(run(&["kill".into()]).is_err());
        assert!(run(&["list".into(), "x".into(), "(".into()]).is_err());
    }
}
