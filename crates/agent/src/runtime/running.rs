//! The note in `/run` by which the next agent knows that a module runs.
//!
//! **Invariant:** it is there while the module is not in STOP, and no agent takes one away before its own loop has begun:
//! whoever is killed while it looks at what still runs leaves the note to the next.

use super::instance::Beginning;
use super::publish::Published;
use cluster::mirror::Command;
use model::ModuleState;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A loop that hangs at its beginning keeps nobody longer.
const BEGUN: Duration = Duration::from_secs(1);

/// Waits until the loop says where it is: STOP is what a module is in before.
pub(super) async fn begun(published: &watch::Receiver<Arc<Published>>, beginning: Beginning) {
    if beginning != Beginning::Stay {
        // Bounded; who asks meanwhile is told STOP.
        let _ = tokio::time::timeout(BEGUN, published.clone().changed()).await;
    }
}

/// How many automatic actions in a row there were when the note was written last: an agent that dies forgets none of them.
pub(super) fn loops(note: &Path) -> u16 {
    std::fs::read_to_string(note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// What the note of a stop under way says.
pub(super) const STOP: &str = "stop";
/// The same, of one by force.
pub(super) const FORCE_STOP: &str = "forcestop";

/// What the agent before this one was told, and had not brought to its end.
pub(super) fn stop_under_way(note: &Path) -> Option<Command> {
    match std::fs::read_to_string(note).ok()?.trim() {
        FORCE_STOP => Some(Command::ForceStop),
        _ => Some(Command::Stop),
    }
}

/// Keeps the note until the loop is gone; that of a stop, until it is through, or the module starts.
pub(super) async fn mark(
    mut published: watch::Receiver<Arc<Published>>,
    note: PathBuf,
    stopping: PathBuf,
    beginning: Beginning,
) {
    let mut ran = beginning == Beginning::Adopt;
    if beginning != Beginning::Stay && published.changed().await.is_err() {
        return;
    }
    loop {
        let (stopped, loops) = {
            let mirror = &published.borrow_and_update().mirror;
            (mirror.state == ModuleState::Stop, mirror.loops)
        };
        if stopped || !ran {
            // Seldom there.
            let _ = std::fs::remove_file(&stopping);
        }
        ran = !stopped;
        let marked = if stopped { std::fs::remove_file(&note) } else { std::fs::write(&note, loops.to_string()) };
        if let Err(error) = marked
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(%error, path = %note.display(), "cannot note whether the module runs");
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of the scheduler after which everybody has done what there was to do.
    async fn settle() {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }

    fn told(state: ModuleState) -> Arc<Published> {
        let mut published = crate::runtime::farm::nothing(Vec::new(), true);
        published.mirror.state = state;
        Arc::new(published)
    }

    #[tokio::test]
    async fn an_agent_that_only_looks_takes_no_note_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let (note, stopping) = (dir.path().join("running"), dir.path().join("stopping"));
        for (beginning, stays) in [(Beginning::Adopt, true), (Beginning::Start, true), (Beginning::Stay, false)] {
            std::fs::write(&note, b"").expect("a file");
            let (loop_says, seen) = watch::channel(told(ModuleState::Stop));
            let task = tokio::spawn(mark(seen.clone(), note.clone(), stopping.clone(), beginning));
            settle().await;
            assert_eq!(note.exists(), stays, "{beginning:?}: nothing is known yet");
            std::fs::write(&stopping, FORCE_STOP).expect("a file");
            loop_says.send_replace(told(ModuleState::Wait));
            settle().await;
            assert!(note.exists(), "{beginning:?}: it runs");
            loop_says.send_modify(|it| Arc::make_mut(it).mirror.loops = 3);
            settle().await;
            assert_eq!(loops(&note), 3, "{beginning:?}: what was done in a row");
            let is_left = stop_under_way(&stopping) == Some(Command::ForceStop);
            assert_eq!(
                is_left,
                beginning == Beginning::Adopt,
                "{beginning:?}: only what ran already was being stopped"
            );
            std::fs::write(&stopping, STOP).expect("a file");
            loop_says.send_replace(told(ModuleState::Prim));
            settle().await;
            assert_eq!(stop_under_way(&stopping), Some(Command::Stop), "{beginning:?}: a stop is under way");
            loop_says.send_replace(told(ModuleState::Stop));
            settle().await;
            assert!(!note.exists() && !stopping.exists(), "{beginning:?}: it is stopped");
            drop(loop_says);
            task.await.expect("it ends with the loop");
        }
    }
}
