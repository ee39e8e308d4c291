//! The verbs that move a module: send, then watch until it has settled and say what came of it.

use super::Context;
use super::progress::Progress;
use crate::cli::{ControlArgs, FullSync, Verb};
use crate::client::COMMAND;
use crate::output::Done;
use model::api::{Code, Command, CommandAnswer, CommandRequest, ModuleView, Problem};
use model::{ModuleName, ModuleState, Status};
use serde_json::json;
use std::fmt;
use std::time::{Duration, Instant};

/// The agent answers at once when the module settles within this.
const FIRST_WAIT: Duration = Duration::from_millis(1_000);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A state that is not the wanted one counts as the outcome when it has not changed for this long.
const SETTLED_FOR: Duration = Duration::from_millis(2_500);
/// How long the agent may be gone (restarted) while we watch.
const AGENT_GONE: Duration = Duration::from_secs(10);

/// start, stop, …, waitstate.
pub async fn control(context: &Context, verb: &Verb) -> Result<Done, Problem> {
    let module = context.module().await?;
    let command = |command| CommandRequest { command, force: false, full: false, wait_ms: 0 };
    let (request, args) = match verb {
        Verb::Start(args) => (command(Command::Start), args),
        Verb::Stop(args) => (command(Command::Stop), args),
        Verb::Restart(args) => (command(Command::Restart), args),
        Verb::Stopstart(args) => (command(Command::StopStart), args),
        Verb::Swap(args) => (command(Command::Swap), args),
        Verb::Forcestop(args) => (command(Command::ForceStop), args),
        Verb::Release(args) => (command(Command::Release), args),
        Verb::Second(args) => (CommandRequest { full: full(args.full), ..command(Command::Second) }, &args.control),
        Verb::Prim(args) => {
            (CommandRequest { full: full(args.full), force: args.force, ..command(Command::Prim) }, &args.control)
        }
        Verb::Waitstart(args) => return wait(context, &module, Goal::Serving, args.timeout).await,
        Verb::Waitstop(args) => {
            return wait(context, &module, Goal::At(ModuleState::Stop), args.timeout).await;
        }
        Verb::Waitstate(args) => {
            return wait(context, &module, Goal::At(args.state), args.wait.timeout).await;
        }
        _ => {
            return Err(Problem::new(Code::Internal, "not a verb that moves a module", ""));
        }
    };
    command_and_watch(context, &module, request, args).await
}

const fn full(asked: Option<FullSync>) -> bool {
    matches!(asked, Some(FullSync::Fullsync))
}

async fn command_and_watch(
    context: &Context,
    module: &ModuleName,
    mut request: CommandRequest,
    args: &ControlArgs,
) -> Result<Done, Problem> {
    let before: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    if !args.no_wait {
        request.wait_ms = FIRST_WAIT.as_millis() as u64;
    }
    let answer: CommandAnswer = context.client.post(&format!("modules/{module}/command"), &request, COMMAND).await?;
    let verb = request.command;
    if args.no_wait || verb == Command::Release {
        let text = format!(
            "{}\n",
            if answer.sentence.is_empty() { format!("{verb} accepted") } else { answer.sentence.clone() }
        );
        return Ok(Done::new(text, json!({ "command": verb, "sentence": answer.sentence, "module": answer.module })));
    }
    let goal = goal(verb, &before);
    let aim =
        Aim { goal, since: matches!(verb, Command::Restart | Command::StopStart).then_some(before.since_unix_ms) };
    let last = if answer.settled && aim.is_reached(&answer.module) {
        answer.module
    } else {
        let stall = Duration::from_secs(args.timeout);
        watch(context, answer.module, aim, Some(SETTLED_FOR), Limit::Stalled(stall)).await?
    };
    if goal.is_reached(&last) || goal.is_accepted(&last) {
        return Ok(Done::new(outcome(&last), json!({ "command": verb, "sentence": answer.sentence, "module": last })));
    }
    Err(missed(&format!("{verb} of module {module} on {}", last.node), &last))
}

async fn wait(context: &Context, module: &ModuleName, goal: Goal, timeout_s: u64) -> Result<Done, Problem> {
    let first: ModuleView = context.client.get(&format!("modules/{module}/state")).await?;
    let limit = Limit::At(Instant::now() + Duration::from_secs(timeout_s));
    let last = watch(context, first, Aim { goal, since: None }, None, limit).await?;
    Ok(Done::new(outcome(&last), json!({ "module": last })))
}

/// What a verb wants to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
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

fn goal(verb: Command, before: &ModuleView) -> Goal {
    match verb {
        Command::Start | Command::StopStart => Goal::Started,
        Command::Stop | Command::ForceStop | Command::Release => Goal::At(ModuleState::Stop),
        Command::Restart => Goal::At(before.state),
        Command::Prim => Goal::Primary,
        Command::Second => Goal::At(ModuleState::Second),
        Command::Swap => Goal::Other(before.state),
    }
}

impl Goal {
    /// Nothing better can come.
    fn is_reached(self, view: &ModuleView) -> bool {
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
            Self::Other(_) => ready && view.state == Second,
        }
    }

    /// Not what one hopes for, and still what was asked: a started module that waits says why.
    fn is_accepted(self, view: &ModuleView) -> bool {
        self == Self::Started && view.state != ModuleState::Stop
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
struct Aim {
    goal: Goal,
    since: Option<u64>,
}

impl Aim {
    fn is_reached(self, view: &ModuleView) -> bool {
        let moved = self.since.is_none_or(|since| since == 0 || since != view.since_unix_ms);
        moved && self.goal.is_reached(view)
    }
}

/// When to stop watching.
#[derive(Clone, Copy)]
enum Limit {
    /// Nothing has changed for this long.
    Stalled(Duration),
    /// A moment.
    At(Instant),
}

/// Looks until the goal is reached, the state has settled elsewhere (`settled_for`), or the limit has passed.
async fn watch(
    context: &Context,
    first: ModuleView,
    aim: Aim,
    settled_for: Option<Duration>,
    limit: Limit,
) -> Result<ModuleView, Problem> {
    let path = format!("modules/{}/state", first.module);
    let mut view = first;
    let mut seen = what_changes(&view);
    let (mut changed, mut answered) = (Instant::now(), Instant::now());
    let mut line = Progress::new(context);
    loop {
        let reached = if settled_for.is_some() { aim.is_reached(&view) } else { aim.goal.is_exactly(&view) };
        let settled = settled_for.is_some_and(|time| view.status != Status::Transient && changed.elapsed() >= time);
        if reached || settled {
            line.clear();
            return Ok(view);
        }
        line.show(&view);
        let over = match limit {
            Limit::Stalled(time) => changed.elapsed() >= time,
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
        let now = what_changes(&view);
        if now != seen {
            seen = now;
            changed = Instant::now();
        }
    }
}

/// What counts as a change: also a resync that advances.
fn what_changes(view: &ModuleView) -> (ModuleState, Status, String, (u64, u64, u64)) {
    let progress = view
        .replication
        .as_ref()
        .and_then(|r| r.progress)
        .map_or((0, 0, 0), |p| (p.entries, p.bytes_compared, p.bytes_sent));
    (view.state, view.status, view.reason.clone(), progress)
}

fn outcome(view: &ModuleView) -> String {
    let mut text = format!("{} on {} is {} {}", view.module, view.node, view.state, view.status);
    if !view.reason.is_empty() {
        text.push_str(&format!(": {}", view.reason));
    }
    text.push('\n');
    if !view.remedy.is_empty() {
        text.push_str(&format!("  next: {}\n", view.remedy));
    }
    text
}

fn missed(what: &str, view: &ModuleView) -> Problem {
    let help = if view.remedy.is_empty() { format!("stead why -m {}", view.module) } else { view.remedy.clone() };
    let why = if view.reason.is_empty() { "no reason is known".to_string() } else { view.reason.clone() };
    Problem::new(Code::Refused, format!("{what} ended at {} {}", view.state, view.status), why).with_help(help)
}
