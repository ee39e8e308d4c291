//! The services of a new lab: until they answer, and making them one cluster with the commands a person would type.

use crate::plan::{HostPlan, Kind, Plan};
use crate::{Lab, LabError, Output, wait};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// From the start of the agents to their answers; from there to a paired cluster.
const LIMIT: Duration = Duration::from_secs(60);
/// Lines of an agent's log shown when it does not come up.
const LOG_LINES: usize = 15;

/// Every agent, and the witness, listens: a command typed now reaches it.
pub fn services_answer(lab: &Lab, plan: &Plan) -> Result<(), LabError> {
    let end = Instant::now() + LIMIT;
    let mut services = plan.hosts.iter().filter(|host| matches!(host.kind, Kind::Node | Kind::Witness));
    services.try_for_each(|host| service_answers(lab, host, end))
}

/// `cluster init` on the first node, `cluster join` on the others, then waits until everybody sees everybody.
pub fn pair(lab: &Lab, plan: &Plan) -> Result<(), LabError> {
    services_answer(lab, plan)?;
    let end = Instant::now() + LIMIT;
    let of = |kind| plan.hosts.iter().filter(move |host| host.kind == kind);
    let nodes: Vec<_> = of(Kind::Node).collect();
    let first = nodes[0];
    let stead = plan.program.to_str().unwrap_or("stead");
    let mut init = vec![stead, "cluster", "init", "--name", &first.name];
    for link in &first.links {
        init.extend(["--addr", &link.addr]);
    }
    init.push("--json");
    let mut token = token(&run(lab, first, &init, end)?)?;
    for (at, host) in nodes[1..].iter().copied().chain(of(Kind::Witness)).enumerate() {
        if at > 0 {
            token = self::token(&run(lab, first, &[stead, "cluster", "token", "--json"], end)?)?;
        }
        let mut join = vec![stead, "cluster", "join", &first.links[0].addr, "--token", &token];
        if host.kind == Kind::Witness {
            join.push("--witness");
        }
        run(lab, host, &join, end)?;
    }
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    nodes.iter().try_for_each(|node| sees_all(lab, stead, node, &names, end))
}

/// The agent of a node, or the witness, listens where `stead cluster …` asks it.
fn service_answers(lab: &Lab, host: &HostPlan, end: Instant) -> Result<(), LabError> {
    let pid = lab.status()?.host(&host.name).and_then(|host| host.pid);
    let pid = pid.ok_or_else(|| LabError::Off { host: host.name.clone() })?;
    let socket = format!("/proc/{pid}/root/run/stead/agent.sock");
    if wait::until(left(end), || UnixStream::connect(&socket).is_ok()) {
        return Ok(());
    }
    Err(LabError::Pairing(format!("stead on {} does not answer; {}", host.name, log_tail(lab, &host.name))))
}

/// `cluster state` of a node has an answer of every node.
fn sees_all(lab: &Lab, stead: &str, node: &HostPlan, names: &[&str], end: Instant) -> Result<(), LabError> {
    let mut last = String::new();
    let seen = wait::until(left(end), || {
        let output = lab.exec(&node.name, &[stead, "cluster", "state", "--json"], Duration::from_secs(5));
        let (fine, text) = match output {
            Ok(output) => (output.exit.is_success(), output.stdout + &output.stderr),
            Err(error) => (false, error.to_string()),
        };
        let all = fine && names.iter().all(|name| answered(&text, name));
        last = text;
        all
    });
    if seen {
        return Ok(());
    }
    Err(LabError::Pairing(format!(
        "{} does not see all of {}; `stead cluster state --json` says: {}; {}",
        node.name,
        names.join(", "),
        last.trim(),
        log_tail(lab, &node.name)
    )))
}

/// A row of this node without a problem in `{"rows":[{"node":"node1","problem":null}]}`.
fn answered(state: &str, name: &str) -> bool {
    let state: serde_json::Value = serde_json::from_str(state).unwrap_or_default();
    let rows = state["rows"].as_array().into_iter().flatten();
    rows.into_iter().any(|row| row["node"] == name && row["problem"].is_null())
}

fn run(lab: &Lab, host: &HostPlan, argv: &[&str], end: Instant) -> Result<Output, LabError> {
    let told = |text: &str| {
        // The token is a secret: its value is not told.
        let hidden = argv.iter().position(|arg| *arg == "--token").map(|at| at + 1);
        let shown = |(at, arg): (usize, &&str)| if Some(at) == hidden { "…".to_owned() } else { (*arg).to_owned() };
        let command: Vec<_> = argv.iter().enumerate().skip(1).map(shown).collect();
        LabError::Pairing(format!(
            "`stead {}` on {}: {}; {}",
            command.join(" "),
            host.name,
            text.trim(),
            log_tail(lab, &host.name)
        ))
    };
    match lab.exec(&host.name, argv, left(end)) {
        Ok(output) if output.exit.is_success() => Ok(output),
        Ok(output) => Err(told(&format!("exit code {}, {}{}", output.exit.code, output.stdout, output.stderr))),
        Err(error) => Err(told(&error.to_string())),
    }
}

fn token(output: &Output) -> Result<String, LabError> {
    let value: Option<serde_json::Value> = serde_json::from_str(&output.stdout).ok();
    // `cluster init` answers {"token": {"token": …}}, `cluster token` the inner object.
    let token = value.as_ref().and_then(|value| value.get("token"));
    let token = token.map(|token| token.get("token").unwrap_or(token)).and_then(serde_json::Value::as_str);
    token.map(str::to_owned).ok_or_else(|| {
        LabError::Pairing("the first node gave no join token (field \"token\" of the command's JSON)".to_owned())
    })
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

fn log_tail(lab: &Lab, host: &str) -> String {
    let path = lab.status().ok().and_then(|status| status.host(host).map(|host| host.log.clone())).unwrap_or_default();
    let text = std::fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    if lines.is_empty() {
        return "its log is empty".to_owned();
    }
    format!("the end of its log:\n  {}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::answered;

    #[test]
    fn a_node_that_did_not_answer_is_not_seen() {
        let state = r#"{"rows":[{"node":"node1","mode":""},{"node":"node2","problem":{"code":"unreachable"}}]}"#;
        assert!(answered(state, "node1"));
        assert!(!answered(state, "node2") && !answered(state, "node3") && !answered("", "node1"));
    }
}
