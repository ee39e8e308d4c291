//! `<errd>`: processes and services whose death is an error.
//!
//! Deaths of processes are events; what appears is told by the kernel, or found by looking every second where it does not
//! tell. A service's changes are events of D-Bus; where there is none, `systemctl` is asked every second. Which of them it
//! is, is told with the resource.

use super::super::module::Input;
use super::look::{Around, tell_how};
use model::patterns::Expression;
use model::schema::checkers::Process;
use platform::probe::Look;
use platform::probe::process::{Kind, Watcher};
use platform::process::events;
use platform::services::bus::{Bus, BusError, is_active};
use std::convert::Infallible;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What no event tells of: a process that appears, a service.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks for a process that is not there.
const SOON: Duration = Duration::from_millis(100);
/// What the kernel tells of is looked at anyway after so long.
const TOLD: Duration = Duration::from_secs(10);
/// A service is read again after so long even when nothing was told of it.
const ANYWAY: Duration = Duration::from_secs(10);
/// Between two attempts to reach D-Bus.
const BUS_AGAIN: Duration = Duration::from_secs(30);
/// All services of all modules share one connection.
static BUS: Bus = Bus::system();
/// The service manager may take this long to answer.
const SERVICE: Duration = Duration::from_secs(5);

/// Looks until it is ended.
pub async fn run(process: Process, around: Arc<Around>, own: mpsc::Sender<Input>) {
    let resource = process.resource();
    if process.service {
        return service(&process.name, &BUS, |look, how| tell_how(&own, &resource, look, how)).await;
    }
    let expression = |text: &Option<String>| text.as_deref().and_then(Expression::new);
    let mut watcher = Watcher::new(Kind {
        module: around.module.clone(),
        name: process.name.clone(),
        name_regex: expression(&process.name_regex),
        arg_regex: expression(&process.arg_regex),
    });
    // The kernel's answer is awaited once in the life of this agent.
    let without = match tokio::task::block_in_place(events::subscribe) {
        Ok(notices) => {
            watcher = watcher.hearing(notices);
            String::from("the kernel stopped telling of starts")
        }
        Err(why) => why.to_string(),
    };
    let by_looks = format!("starts are looked for every second: {without}");
    loop {
        // A process whose memory is locked up may keep whoever reads its command line.
        let there = tokio::task::block_in_place(|| watcher.look()).len();
        let look = judged(&process, there);
        // One that is about to appear is looked for often: only from then on is its death an event.
        let (pause, how) = match (watcher.hears(), &look) {
            (true, Look::Well) => (TOLD, "events of the kernel"),
            (true, _) => (EVERY, ""),
            (false, Look::Well) => (EVERY, by_looks.as_str()),
            (false, _) => (SOON, ""),
        };
        tell_how(&own, &resource, look, how);
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

/// Follows a service over D-Bus, or asks for it as long as there is no D-Bus.
async fn service(name: &str, bus: &Bus, tell: impl Fn(Look, &str)) {
    loop {
        let without = match followed(name, bus, &tell).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let how = format!("asked of systemctl every second: {without}");
        let next = Instant::now() + BUS_AGAIN;
        while Instant::now() < next {
            tell(asked(name).await, &how);
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Until D-Bus fails.
async fn followed(name: &str, bus: &Bus, tell: &impl Fn(Look, &str)) -> Result<Infallible, BusError> {
    let mut unit = bus.unit(name).await?;
    loop {
        let look = match unit.active_state().await? {
            state if is_active(&state) => Look::Well,
            _ => Look::Gone(crate::runtime::texts::no_service(name)),
        };
        tell(look, "events of systemd over D-Bus");
        unit.changed(ANYWAY).await?;
    }
}

async fn asked(name: &str) -> Look {
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

    #[tokio::test]
    async fn without_d_bus_systemctl_is_asked_and_that_is_told() {
        let nowhere = tempfile::tempdir().expect("a directory");
        let bus = Bus::at(format!("unix:path={}", nowhere.path().join("bus").display()));
        let (said, mut heard) = mpsc::channel(8);
        let followed = service("no-such-service", &bus, |look, how| {
            let _ = said.try_send((look, how.to_string()));
        });
        tokio::select! {
            () = followed => {}
            first = heard.recv() => {
                let (look, how) = first.expect("a look");
                assert_ne!(look, Look::Well);
                assert_eq!(how, "asked of systemctl every second: no connection to the system's D-Bus");
            }
        }
    }
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
