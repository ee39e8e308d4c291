//! What programs print that outlive whoever started them is bounded: the output of applications, the messages of data planes.
//!
//! Files are cut under the writers, who append: nobody is disturbed, no disk is filled. One task, so that a slow disk piles up nothing.

use super::agent::Agent;
use super::application::output_max;
use super::instance::ModulePlaces;
use platform::process::script::cut_runs;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

/// Between two looks: what a program can write meanwhile is what a disk must have room for.
const EVERY: Duration = Duration::from_secs(1);
/// Messages of a data plane that are kept, and as many older ones.
const MESSAGES_MAX: u64 = 4 * 1024 * 1024;

/// Looks again and again, while the agent lives.
pub(super) async fn bound(agent: Weak<Agent>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(agent) = agent.upgrade() else { return };
        let looked_at: Vec<_> = {
            let instances = agent.instances.read().await;
            let all = instances.values().map(|instance| instance.active());
            all.map(|active| (ModulePlaces::of(&agent, &active.name), output_max(&active))).collect()
        };
        let cut = move || {
            for (places, bytes_max) in looked_at {
                cut_runs(&places.runs(), bytes_max);
                roll(&places.var.join("mirrorfs.log"), MESSAGES_MAX);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(cut).await {
            tracing::error!(%error, "what programs print is not bounded any more");
            return;
        }
    }
}

/// The newest messages are those that matter: they are kept beside, and the file begins anew.
fn roll(path: &Path, bytes_max: u64) {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > bytes_max) {
        // Without room for the copy they are lost: the disk is what must not fill.
        let _ = std::fs::copy(path, path.with_extension("log.1"));
        let emptied = std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(0));
        if let Err(error) = emptied {
            tracing::debug!(%error, path = %path.display(), "cannot be cut");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn messages_are_kept_once_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mirrorfs.log");
        let mut writer = std::fs::File::options().create(true).append(true).open(&path).expect("made");
        writer.write_all(&[b'x'; 11]).expect("written");
        roll(&path, 11);
        assert_eq!(std::fs::read(&path).expect("there").len(), 11, "as much is kept");
        roll(&path, 10);
        writer.write_all(b"more").expect("written");
        assert_eq!(std::fs::read(&path).expect("there"), b"more");
        assert_eq!(std::fs::read(dir.path().join("mirrorfs.log.1")).expect("kept"), [b'x'; 11]);
    }
}
