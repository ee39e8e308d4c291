//! `<errd>`: processes whose death is an error. Deaths are events; what appears is found by looking every second.

use super::super::module::Input;
use super::look::{Around, tell};
use model::patterns::Expression;
use model::schema::checkers::Process;
use platform::probe::Look;
use platform::probe::process::{Kind, Watcher};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What no event tells of: a process that appears, a service.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks for a process that is not there.
const SOON: Duration = Duration::from_millis(100);
/// The service manager may take this long to answer.
const SERVICE: Duration = Duration::from_secs(5);

/// Looks until it is ended.
pub async fn run(process: Process, around: Arc<Around>, own: mpsc::Sender<Input>) {
    let resource = process.resource();
    if process.service {
        loop {
            tell(&own, &resource, service(&process.name).await);
            tokio::time::sleep(EVERY).await;
        }
    }
    let expression = |text: &Option<String>| text.as_deref().and_then(Expression::new);
    let mut watcher = Watcher::new(Kind {
        module: around.module.clone(),
        name: process.name.clone(),
        name_regex: expression(&process.name_regex),
        arg_regex: expression(&process.arg_regex),
    });
    loop {
        // A process whose memory is locked up may keep whoever reads its command line.
        let there = tokio::task::block_in_place(|| watcher.look()).len();
        let look = judged(&process, there);
        // One that is about to appear is looked for often: only from then on is its death an event.
        let pause = if look == Look::Well { EVERY } else { SOON };
        tell(&own, &resource, look);
        watcher.wait(pause).await;
    }
}

fn judged(process: &Process, there: usize) -> Look {
    let name = &process.name;
    if there < process.at_least as usize {
        return Look::Gone(match there {
            0 => format!("Process {name} not running"),
            some => format!("Process {name}: {some} running, at least {} wanted", process.at_least),
        });
    }
    match process.at_most {
        Some(most) if there > most as usize => {
            Look::Gone(format!("Process {name}: {there} running, at most {most} wanted"))
        }
        _ => Look::Well,
    }
}

async fn service(name: &str) -> Look {
    let mut command = tokio::process::Command::new("systemctl");
    command.args(["is-active", "--quiet", "--", name]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(SERVICE, command.status()).await {
        Ok(Ok(status)) if status.success() => Look::Well,
        Ok(Ok(_)) => Look::Gone(crate::runtime::texts::no_service(name)),
        Ok(Err(error)) => Look::Silent(format!("systemctl: {error}")),
        Err(_) => Look::late(SERVICE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::rules::Act;
    use model::schema::checkers::When;

    #[test]
    fn too_few_and_too_many_are_errors() {
        let process = |at_least, at_most| Process {
            name: "x".into(),
            service: false,
            name_regex: None,
            arg_regex: None,
            at_least,
            at_most,
            act: Act::Restart,
            services: Vec::new(),
            handler: None,
            when: When::Prim,
            start_after: 1,
        };
        assert_eq!(judged(&process(1, None), 0), Look::Gone("Process x not running".into()));
        assert_eq!(judged(&process(1, None), 99), Look::Well);
        assert!(matches!(judged(&process(3, None), 2), Look::Gone(why) if why.contains("at least 3")));
        assert!(matches!(judged(&process(0, Some(0)), 1), Look::Gone(why) if why.contains("at most 0")));
        assert_eq!(judged(&process(0, Some(0)), 0), Look::Well);
    }
}
