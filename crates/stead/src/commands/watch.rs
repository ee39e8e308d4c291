//! What a verb wants to see, and looking until it is there, settled elsewhere, or in vain.

use super::Context;
use super::progress::Progress;
use model::api::{Code, Command, ModuleView, Problem};
use model::schema::checkers::SYNCAT_RULE;
use model::{ModuleState, Status};
use std::fmt;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A state that is not the wanted one counts as the outcome when it has not changed for this long.
pub const SETTLED_FOR: Duration = Duration::from_millis(2_500);
/// How long the agent may be gone (restarted) while we watch.
const AGENT_GONE: Duration = Duration::from_secs(10);
/// Different situations that count as news.
const SITUATIONS_MAX: usize = 64;

/// What a verb wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Serving or following, Ready.
    Serving,
    /// Started: serving, following, or waiting for something that has a sentence.
    Started,
    /// Serving, Ready.
    Primary,
    /// This state, settled.
    At(ModuleState),
    /// Serving or following, Ready, in another role than before.
    Other(ModuleState),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => f.write_str("ALONE, PRIM, SECOND or UP, Ready,"),
            Self::Started => f.write_str("started"),
            Self::Primary => f.write_str("primary"),
            Self::At(state) => write!(f, "{state}"),
            Self::Other(state) => write!(f, "in another role than {state}"),
        }
    }
}

/// The goal of a verb.
pub fn goal(verb: Command, before: &ModuleView) -> Goal {
    match verb {
        Command::Start | Command::StopStart => Goal::Started,
        Command::Stop | Command::ForceStop | Command::Release | Command::Shutdown => Goal::At(ModuleState::Stop),
        Command::Restart => Goal::At(before.state),
        Command::Prim => Goal::Primary,
        Command::Second => Goal::At(ModuleState::Second),
        Command::Swap => Goal::Other(before.state),
    }
}

impl Goal {
    /// Nothing better can come.
    pub fn is_reached(self, view: &ModuleView) -> bool {
        use ModuleState::{Alone, Prim, Second, Stop, Up, Wait};
        let ready = view.status == Status::Ready;
        match self {
            Self::Serving | Self::Started => ready && matches!(view.state, Alone | Prim | Second | Up),
            Self::Primary => ready && matches!(view.state, Alone | Prim | Up),
            Self::At(state @ (Stop | Wait)) => view.state == state && view.status != Status::Transient,
            // A primary stays primary when its peer comes or goes meanwhile.
            Self::At(Alone | Prim) => ready && matches!(view.state, Alone | Prim),
            Self::At(state) => ready && view.state == state,
            Self::Other(Second) => ready && matches!(view.state, Alone | Prim),
            // The service moved when it is served there, not when this node has let it go.
            Self::Other(_) => {
                let serves = view.peer.as_ref().is_none_or(|peer| peer.status != Some(Status::Transient));
                ready && view.state == Second && serves
            }
        }
    }

    /// This node has let it go, and the other one is still taking it: its application may need long to start.
    fn waits_for_peer(self, view: &ModuleView) -> bool {
        matches!(self, Self::Other(_))
            && view.state == ModuleState::Second
            && view.peer.as_ref().is_some_and(|peer| peer.status == Some(Status::Transient))
    }

    /// Not what one hopes for, and still what was asked: a started module that waits says why, and a copy that follows by a clock has been
    /// brought up to date and waits for its next time.
    pub fn is_accepted(self, view: &ModuleView) -> bool {
        let is_by_clock = || view.state == ModuleState::Wait && view.reason.contains(SYNCAT_RULE);
        match self {
            Self::Started => view.state != ModuleState::Stop,
            Self::At(ModuleState::Second) => is_by_clock(),
            _ => false,
        }
    }

    /// `waitstate PRIM` must not be content with ALONE.
    fn is_exactly(self, view: &ModuleView) -> bool {
        match self {
            Self::At(state) => self.is_reached(view) && view.state == state,
            _ => self.is_reached(view),
        }
    }
}

/// A goal, and for verbs that end where they began: the moment the old state began, which does not count.
#[derive(Clone, Copy)]
pub struct Aim {
    /// What is wanted.
    pub goal: Goal,
    /// `since_unix_ms` before the verb.
    pub since: Option<u64>,
}

impl Aim {
    /// Nothing better can come, and it is not the old state still.
    pub fn is_reached(self, view: &ModuleView) -> bool {
        let moved = self.since.is_none_or(|since| since == 0 || since != view.since_unix_ms);
        moved && self.goal.is_reached(view)
    }
}

/// When to stop watching.
#[derive(Clone, Copy)]
pub enum Limit {
    /// Nothing has changed for this long.
    Stalled(Duration),
    /// A moment.
    At(Instant),
}

/// Looks until the goal is reached, the state has settled elsewhere (`settled_for`), or the limit has passed.
pub async fn watch(
    context: &Context,
    first: ModuleView,
    aim: Aim,
    settled_for: Option<Duration>,
    limit: Limit,
) -> Result<ModuleView, Problem> {
    let path = format!("modules/{}/state", first.module);
    let mut view = first;
    let mut news = News::new();
    let mut situation = (view.state, view.status, view.reason.clone());
    let (mut changed, mut answered) = (Instant::now(), Instant::now());
    let mut line = Progress::new(context);
    loop {
        let reached = if settled_for.is_some() { aim.is_reached(&view) } else { aim.goal.is_exactly(&view) };
        let is_on_its_way = view.status == Status::Transient || aim.goal.waits_for_peer(&view);
        let settled = settled_for.is_some_and(|time| !is_on_its_way && changed.elapsed() >= time);
        if reached || settled {
            line.clear();
            return Ok(view);
        }
        line.show(&view);
        news.look(&view);
        let over = match limit {
            Limit::Stalled(time) => news.at.elapsed() >= time,
            Limit::At(moment) => Instant::now() >= moment,
        };
        if over {
            line.clear();
            let mut problem =
                missed(&format!("waiting for module {} on {} to be {}", view.module, view.node, aim.goal), &view);
            problem.code = Code::Timeout;
            return Err(problem);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        match context.client.get::<ModuleView>(&path).await {
            Ok(next) => {
                view = next;
                answered = Instant::now();
            }
            // An agent that is being replaced answers again soon.
            Err(problem) if problem.code == Code::NotFound || answered.elapsed() >= AGENT_GONE => {
                line.clear();
                return Err(problem);
            }
            Err(_) => {}
        }
        let now = (view.state, view.status, view.reason.clone());
        if now != situation {
            situation = now;
            changed = Instant::now();
        }
    }
}

/// When something last happened that had not happened before: a module that goes back and forth comes to no end.
struct News {
    seen: Vec<(ModuleState, Status, String)>,
    furthest: u64,
    at: Instant,
}

impl News {
    fn new() -> Self {
        Self { seen: Vec::new(), furthest: 0, at: Instant::now() }
    }

    fn look(&mut self, view: &ModuleView) {
        let situation = (view.state, view.status, view.reason.clone());
        if self.seen.len() < SITUATIONS_MAX && !self.seen.contains(&situation) {
            self.seen.push(situation);
            self.at = Instant::now();
        }
        let progress = view.replication.as_ref().and_then(|r| r.progress);
        let far = progress.map_or(0, |p| p.entries.saturating_add(p.bytes_compared).saturating_add(p.bytes_sent));
        if far > self.furthest {
            self.furthest = far;
            self.at = Instant::now();
        }
    }
}

/// It ended somewhere else.
pub fn missed(what: &str, view: &ModuleView) -> Problem {
    let help = if view.remedy.is_empty() { format!("stead why -m {}", view.module) } else { view.remedy.clone() };
    let why = if view.reason.is_empty() { "no reason is known".to_string() } else { view.reason.clone() };
    Problem::new(Code::Refused, format!("{what} ended at {} {}", view.state, view.status), why).with_help(help)
}
