//! The service manager: `systemctl`, bounded; its units over D-Bus in [`bus`].

pub mod bus;

use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// As much of what it says as is passed on.
const SAID_MAX: usize = 500;

/// What was asked did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It could not be run: there is no systemd here.
    #[error("systemctl {asked} cannot be run: {source}")]
    Spawn {
        /// The arguments.
        asked: String,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[error("systemctl {asked} failed: {said}")]
    Failed {
        /// The arguments.
        asked: String,
        /// Its words, or its exit status.
        said: String,
    },
    /// It did not answer in time; what it began may go on.
    #[error("systemctl {asked} has not ended within {waited_s} s")]
    TimedOut {
        /// The arguments.
        asked: String,
        /// How long was waited.
        waited_s: u64,
    },
}

/// Runs `systemctl`, found on `PATH`, with these arguments.
///
/// # Errors
/// [`ServiceError`]
pub async fn systemctl(arguments: &[&str], within: Duration) -> Result<(), ServiceError> {
    let asked = arguments.join(" ");
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(within, command.output()).await {
        Err(_) => return Err(ServiceError::TimedOut { asked, waited_s: within.as_secs() }),
        Ok(Err(source)) => return Err(ServiceError::Spawn { asked, source }),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_MAX).collect::<String>();
    let said = if words.is_empty() { output.status.to_string() } else { words };
    Err(ServiceError::Failed { asked, said })
}
