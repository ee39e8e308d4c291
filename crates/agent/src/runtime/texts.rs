//! Lines of the log that have to read as SafeKit's do, because operators and their monitoring look for them.
//!
//! What the mirror automaton's steps say is [`cluster::mirror::lines`]. docs/book/safekit.md lists all of them.

use cluster::watch::Change;
use model::orders::Progress;
use std::fmt::Display;

/// A command: `by root`, `at boot time`.
#[must_use]
pub fn called(command: &str, who: &str) -> String {
    let by = if who.starts_with("at ") { "" } else { "by " };
    format!("Action {command} called {by}{who}")
}

/// What ends a wait that a rule asked for. Without its checkers a module that stands on another would start beside no data.
#[must_use]
pub fn waits_remedy(rule: &str, module: &impl Display) -> String {
    if rule == model::schema::checkers::MODULE_RULE {
        "nothing, while the module it stands on serves elsewhere: it starts where that one serves".to_string()
    } else if rule == model::schema::checkers::SYNCAT_RULE {
        format!("nothing, until the time of its syncat; now: stead second -m {module}")
    } else {
        format!("repair it; or, to go on without checkers: stead checker off -m {module}")
    }
}

/// A command that is refused, and why.
#[must_use]
pub fn aborted(command: &str, why: &str) -> String {
    let what = match command {
        "prim --force" | "prim --force fullsync" => "primforce start",
        "prim" | "prim fullsync" => "prim start",
        "second" | "second fullsync" => "second start",
        other => other,
    };
    format!("Requested {what} aborted: {why}")
}

/// A resource has another value.
#[must_use]
pub fn resource(change: &Change, setter: &str) -> String {
    let why = if change.why.is_empty() { String::new() } else { format!(": {}", change.why) };
    format!("Resource {} set to {} by {setter}{why}", change.name, change.to)
}

/// A script runs, and where its output is.
#[must_use]
pub fn script(name: &str, output: Option<&str>) -> String {
    match output {
        Some(output) => format!("Script {name} > {output}"),
        // Its output is not kept.
        None => format!("Script {name}"),
    }
}

/// A service is not there.
#[must_use]
pub fn no_service(name: &str) -> String {
    format!("Service {name} not running")
}

/// A virtual address is here.
#[must_use]
pub fn address_set(ip: impl Display, module: impl Display) -> String {
    format!("Virtual IP <{ip} of {module}> set")
}

/// Who is in a farm.
#[must_use]
pub fn membership(names: &[String]) -> String {
    format!("farm membership: {}", names.join(" "))
}

/// This node's part of one group's traffic.
#[must_use]
pub fn load(own: usize, all: usize, group: &str) -> String {
    format!("farm load: {own}/{all} (group {group})")
}

/// What a resync cost, on the node that served.
#[must_use]
pub fn copied(progress: &Progress) -> String {
    let Progress { entries, bytes_compared, bytes_sent, elapsed_ms, .. } = progress;
    let seconds = *elapsed_ms as f64 / 1_000.0;
    format!("Copied {bytes_sent} bytes of {bytes_compared} compared in {entries} entries, in {seconds:.1} s")
}

/// What a resync took away from this copy.
#[must_use]
pub fn kept_apart(folder: &std::path::Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "What only this node had was overwritten, and is kept in {}: stead quarantine show {name}",
        folder.display()
    )
}

/// Somebody took the cover off a directory.
#[must_use]
pub fn uncovered(dir: &std::path::Path) -> String {
    format!(
        "the cover of {} was taken off by hand: anybody may have written there; it is covered again, and what was changed is compared",
        dir.display()
    )
}

/// Somebody took the data plane's mount away.
#[must_use]
pub fn unserved(dir: &std::path::Path) -> String {
    format!(
        "{} was unmounted by hand: what is written there reaches nobody; its data plane is ended, as if it had died",
        dir.display()
    )
}

/// Somebody took the state away.
#[must_use]
pub fn made_anew(var: &std::path::Path) -> String {
    format!("{} was gone: it is made anew, with the module's record only; what else was in it is lost", var.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::resource::Value;

    #[test]
    fn they_read_as_in_the_table_of_the_book() {
        let change = |name: &str, why: &str| Change {
            name: name.into(),
            from: Some(Value::Up),
            to: Value::Down,
            why: why.into(),
        };
        let progress =
            Progress { entries: 3, bytes_compared: 8192, bytes_sent: 4096, elapsed_ms: 1500, ..Progress::default() };
        for (said, wanted) in [
            (called("start", "root"), "Action start called by root"),
            (called("start", "at boot time"), "Action start called at boot time"),
            (called("stop", "maxloop"), "Action stop called by maxloop"),
            (aborted("prim", "node2 is primary"), "Requested prim start aborted: node2 is primary"),
            (aborted("prim --force", "x"), "Requested primforce start aborted: x"),
            (aborted("second", "x"), "Requested second start aborted: x"),
            (aborted("swap", "x"), "Requested swap aborted: x"),
            (
                resource(&change("tcp.id", "refused"), super::super::checkers::setter("tcp.id")),
                "Resource tcp.id set to down by tcpcheck: refused",
            ),
            (
                resource(&change("heartbeat.flow", ""), super::super::checkers::setter("heartbeat.flow")),
                "Resource heartbeat.flow set to down by heart",
            ),
            (
                script("start_prim", Some("userlog_2026-11-29T130000_start_prim.ulog")),
                "Script start_prim > userlog_2026-11-29T130000_start_prim.ulog",
            ),
            (no_service("nginx"), "Service nginx not running"),
            (address_set("10.0.1.100", "AM"), "Virtual IP <10.0.1.100 of AM> set"),
            (membership(&["node1".into(), "node2".into()]), "farm membership: node1 node2"),
            (load(128, 256, "FarmProto_0"), "farm load: 128/256 (group FarmProto_0)"),
            (copied(&progress), "Copied 4096 bytes of 8192 compared in 3 entries, in 1.5 s"),
        ] {
            assert_eq!(said, wanted);
        }
    }
}
