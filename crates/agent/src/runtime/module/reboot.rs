//! `automatic_reboot`: the machine reboots where a rule would have stopped and started the module.
//!
//! **Invariant:** counted on disk before it is done, so that a failure which a reboot does not heal ends in STOP, not in
//! reboots without end.

use super::{Input, Loop, Outside};
use cluster::mirror::{Command, Event};
use model::api::LogLevel;
use model::limits::{LOOP_MS, LOOPS_MAX};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long systemd may take to accept it.
const ACCEPTED: Duration = Duration::from_secs(30);

/// A node that has not gone down by then does not.
const UNDER_WAY: Duration = Duration::from_secs(600);

impl<O: Outside> Loop<O> {
    pub(super) fn reboot(&mut self) {
        let policy = self.parts.mirror.settings().policy;
        // Reboots are always counted: one that the other counter does not know is not forgotten.
        let (most, within) = match policy.loop_ms {
            0 => (LOOPS_MAX, LOOP_MS),
            ms => (policy.max_loop, ms),
        };
        let log = |text: String| self.chronicle(|c| c.line("heart", LogLevel::E, &text));
        match count(self.parts.overseer.switches.dir(), platform::clock::wall_ms(), most, within) {
            Ok(number) => log(format!("Action reboot called by automatic_reboot: {number} of {most}")),
            Err(why) => return log(format!("Action reboot called by automatic_reboot is refused: {why}")),
        }
        let (own, chronicle) = (self.parts.own.clone(), Arc::clone(&self.parts.chronicle));
        tokio::spawn(async move {
            if let Err(error) = platform::services::systemctl(&["reboot"], ACCEPTED).await {
                let why = format!("the node does not reboot: {}", crate::cluster_config::causes(&error));
                // The start that follows says only that it starts.
                chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("heart", LogLevel::E, &why);
                // The loop may be gone.
                let _ = own.send(Input::Event(Event::Automatic { command: Command::Start, why })).await;
                return;
            }
            tokio::time::sleep(UNDER_WAY).await;
            let why = format!(
                "the reboot that automatic_reboot asked for was accepted {} min ago and has not come: systemctl list-jobs says what it waits for",
                UNDER_WAY.as_secs() / 60
            );
            chronicle.lock().unwrap_or_else(PoisonError::into_inner).line("heart", LogLevel::C, &why);
        });
    }
}

/// One more reboot now, unless there were too many; kept durably.
fn count(dir: &Path, now_ms: u64, most: u16, within_ms: u64) -> Result<usize, String> {
    let path = dir.join("reboots");
    let mut times: Vec<u64> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    times.retain(|at| now_ms.saturating_sub(*at) < within_ms && *at <= now_ms);
    if times.len() >= usize::from(most) {
        return Err(format!("there were {} within {} s: the module stays stopped", times.len(), within_ms / 1000));
    }
    times.push(now_ms);
    let text = serde_json::to_vec(&times).unwrap_or_default();
    platform::store::write_atomic(&path, &text, 0o600)
        .map_err(|error| format!("it cannot be counted: {}", crate::cluster_config::causes(&error)))?;
    Ok(times.len())
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn a_failure_that_a_reboot_does_not_heal_ends_in_stop() {
        let dir = tempfile::tempdir().expect("a directory");
        let day = 86_400_000;
        assert_eq!(count(dir.path(), 10 * day, 2, day), Ok(1));
        assert_eq!(count(dir.path(), 10 * day + 5, 2, day), Ok(2));
        assert!(count(dir.path(), 10 * day + 9, 2, day).is_err());
        // A day later they are forgotten.
        assert_eq!(count(dir.path(), 11 * day + 6, 2, day), Ok(1));
        assert!(count(std::path::Path::new("/no/such/dir"), 1, 2, day).is_err());
    }
}
