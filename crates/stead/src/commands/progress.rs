//! What is told while one waits for a module.

use super::Context;
use crate::output::err;
use crate::show;
use model::api::ModuleView;
use model::{ModuleState, Status};
use std::time::{Duration, Instant};

/// Between two lines of progress that only count bytes, when stderr is not a terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// The line that lives while one waits: on stderr, rewritten on a terminal, one per change elsewhere.
pub struct Progress {
    silent: bool,
    live: bool,
    several: bool,
    shown: Option<(ModuleState, Status, String)>,
    at: Instant,
    dirty: bool,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new(context: &Context) -> Self {
        let live = context.output.live && !context.several;
        Self { silent: context.json, live, several: context.several, shown: None, at: Instant::now(), dirty: false }
    }

    /// Shows a view if it says something new.
    pub fn show(&mut self, view: &ModuleView) {
        let key = (view.state, view.status, view.reason.clone());
        let resync = show::resync(view);
        let changed = self.shown.as_ref() != Some(&key);
        let due = resync.is_some() && (self.live || self.at.elapsed() >= PROGRESS_EVERY);
        if self.silent || !(changed || due) {
            return;
        }
        let who = if self.several { format!("{}: ", view.node) } else { String::new() };
        let mut text = format!("{who}{} {}", view.state, view.status);
        if !view.reason.is_empty() {
            text.push_str(&format!(": {}", view.reason));
        }
        if let Some(progress) = resync {
            text.push_str(&format!(" [{}]", show::progress(progress)));
        }
        if self.live {
            err(&format!("\r\x1b[K{text}"));
            self.dirty = true;
        } else {
            err(&format!("{text}\n"));
        }
        self.shown = Some(key);
        self.at = Instant::now();
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.dirty {
            err("\r\x1b[K");
            self.dirty = false;
        }
    }
}
