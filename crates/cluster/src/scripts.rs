//! Which scripts of a module run when it goes from one state to another, in which order, with which arguments.
//!
//! Pure: a plan comes out, and whoever runs it reports. Four pairs of scripts belong to states: `prim` to those that
//! serve, `second` to SECOND, `both` to every state of a pair that is whole or serves, `sec` to who has no secondary
//! below it. A change of state stops the pairs the new one lacks, tells `transition`, and starts those it has more.
//! **Invariant:** a pair is started once before it is stopped, and a stop is graceful first, then certain.

use crate::mirror::App;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use model::ModuleState::{self, Alone, Prim, Second, Stop, Up, Wait};
use serde::{Deserialize, Serialize};

/// A pair of scripts: `start_…` and `stop_…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pair {
    /// ALONE, SECOND.
    Sec,
    /// ALONE, PRIM.
    Prim,
    /// SECOND.
    Second,
    /// ALONE, PRIM, SECOND, and UP of a farm.
    Both,
}

impl Pair {
    /// All, in the order of a stop; a start goes the other way.
    pub const ALL: [Self; 4] = [Self::Sec, Self::Prim, Self::Second, Self::Both];

    /// What stands behind `start_` and `stop_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sec => "sec",
            Self::Prim => "prim",
            Self::Second => "second",
            Self::Both => "both",
        }
    }

    /// Does it belong to this state?
    #[must_use]
    pub const fn is_of(self, state: ModuleState) -> bool {
        match self {
            Self::Sec => matches!(state, Alone | Up | Second),
            Self::Prim => matches!(state, Alone | Up | Prim),
            Self::Second => matches!(state, Second),
            Self::Both => matches!(state, Alone | Up | Prim | Second),
        }
    }
}

/// Why scripts run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The module starts, or goes on in another state.
    #[default]
    Start,
    /// It stops.
    Stop,
    /// It stops and starts again.
    StopStart,
    /// It stops, the node reboots, and it starts again.
    Reboot,
    /// It waits.
    StopWait,
    /// The application alone: it stays where it is.
    Restart,
    /// It lets the other node serve.
    Swap,
}

impl Why {
    /// The scripts' third argument. A restart is seen from the first two, which are equal then.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start | Self::Swap => "start",
            Self::Stop | Self::Restart => "stop",
            Self::StopStart | Self::Reboot => "stopstart",
            Self::StopWait => "stopwait",
        }
    }
}

/// What a run is for: how long it may take, and whether its failure matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `prestart`: if it fails the module does not start.
    Prepare,
    /// If it fails where the module serves, the module gives up.
    Start(Pair),
    /// Graceful: what is left then is ended.
    Stop(Pair),
    /// Certain: what is left then is killed.
    Force(Pair),
    /// Told, not asked.
    Tell,
}

/// One run of one script.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its file name.
    pub script: String,
    /// `force`, when it is; present state; next state; action.
    pub args: Vec<String>,
    /// What for.
    pub kind: Kind,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.script)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

/// One step of a plan.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A missing script is no error.
    Run(Run),
    /// What this pair (all: `None`) has left running is ended.
    End {
        /// Of which.
        pair: Option<Pair>,
        /// Killed at once, without being asked.
        kill: bool,
    },
}

/// Where the scripts of a module are on one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Scripts {
    at: ModuleState,
    /// Started and not stopped; sorted.
    up: Vec<Pair>,
}

impl Default for Scripts {
    fn default() -> Self {
        Self { at: Stop, up: Vec::new() }
    }
}

impl Scripts {
    /// All scripts of this state have run.
    #[must_use]
    pub fn of(state: ModuleState) -> Self {
        Self { at: state, up: Pair::ALL.into_iter().filter(|pair| pair.is_of(state)).collect() }
    }

    /// State of the last change whose scripts ran.
    #[must_use]
    pub const fn at(&self) -> ModuleState {
        self.at
    }

    /// Is this pair started?
    #[must_use]
    pub fn is_up(&self, pair: Pair) -> bool {
        self.up.contains(&pair)
    }

    /// A start of this pair was broken off because the module goes on to `next`, or was not begun for that reason.
    /// `true`: what it left running is to be killed, since the pair belongs to `next` too and starts anew there. One
    /// that does not is stopped on the way, like any other.
    pub fn broken_off(&mut self, pair: Pair, next: ModuleState, begun: bool) -> bool {
        let anew = pair.is_of(next);
        if anew || !begun {
            self.up.retain(|up| *up != pair);
        }
        anew && begun
    }

    /// What is to be run for what the automaton wants, with the module in `shown`. From here on it counts as begun.
    pub fn plan(&mut self, wanted: App, shown: ModuleState) -> Vec<Step> {
        let mut plan = Vec::new();
        match wanted {
            // The agent was replaced, and the module has been there all the time.
            App::Prepare if shown == Second && self.at == Second => {}
            App::Prepare => {
                self.up.clear();
                self.at = Stop;
                self.arrive(Wait, Why::Start, &mut plan);
                plan.push(self.run("prestart", None, (Stop, Wait), Why::Start, Kind::Prepare));
            }
            App::Start => self.change(shown, Why::Start, &mut plan),
            App::Role { to, why } => self.change(to, why, &mut plan),
            App::Stop { force, why } => self.stop(force, why, &mut plan),
            App::Release { why } => {
                for pair in Pair::ALL {
                    plan.push(self.stop_run(pair, true, (Wait, Stop), why));
                }
                plan.push(Step::End { pair: None, kill: true });
                plan.push(self.run("poststop", None, (Wait, Stop), why, Kind::Tell));
                self.up.clear();
                self.at = Wait;
                self.arrive(Stop, why, &mut plan);
            }
        }
        plan
    }

    /// To another state: stops what it lacks, tells, starts what it has more.
    fn change(&mut self, to: ModuleState, why: Why, plan: &mut Vec<Step>) {
        let from = self.at;
        for pair in Pair::ALL {
            if self.is_up(pair) && !pair.is_of(to) {
                self.end(pair, (from, to), why, plan);
            }
        }
        self.arrive(to, why, plan);
        for pair in Pair::ALL.into_iter().rev() {
            if !self.is_up(pair) && pair.is_of(to) {
                let script = alloc::format!("start_{}", pair.name());
                plan.push(self.run(&script, None, (from, to), why, Kind::Start(pair)));
                self.up.push(pair);
            }
        }
        self.up.sort_unstable();
    }

    fn stop(&mut self, force: bool, why: Why, plan: &mut Vec<Step>) {
        let (from, to) = (
            self.at,
            match why {
                Why::Restart => self.at,
                Why::Swap => Second,
                _ => Wait,
            },
        );
        if force {
            // First of all: what holds the mount must die before anything else can go on.
            plan.push(Step::End { pair: None, kill: true });
            // `poststop` is through or begun.
            if from == Stop {
                return;
            }
            // On the way out the scripts run by force just before `poststop`.
            if matches!(why, Why::Stop | Why::StopStart | Why::Reboot) {
                self.up.clear();
            }
        }
        for pair in Pair::ALL {
            let stays = why == Why::Swap && pair.is_of(to);
            match (self.is_up(pair), force) {
                (true, false) if !stays => self.end(pair, (from, to), why, plan),
                (true, true) => {
                    plan.push(self.stop_run(pair, true, (from, to), why));
                    plan.push(Step::End { pair: Some(pair), kill: true });
                }
                _ => {}
            }
        }
        if force {
            self.up.clear();
        }
        if self.up.is_empty() {
            plan.push(Step::End { pair: None, kill: true });
        }
        // Where a swap ends is not known yet.
        if why != Why::Swap {
            self.arrive(to, why, plan);
        }
    }

    /// Gracefully, then for certain: the second pass finds leftovers that are no processes (sockets, locks, mounts).
    fn end(&mut self, pair: Pair, way: (ModuleState, ModuleState), why: Why, plan: &mut Vec<Step>) {
        plan.push(self.stop_run(pair, false, way, why));
        plan.push(Step::End { pair: Some(pair), kill: false });
        plan.push(self.stop_run(pair, true, way, why));
        plan.push(Step::End { pair: Some(pair), kill: true });
        self.up.retain(|up| *up != pair);
    }

    fn arrive(&mut self, to: ModuleState, why: Why, plan: &mut Vec<Step>) {
        if self.at != to {
            plan.push(self.run("transition", None, (self.at, to), why, Kind::Tell));
        }
        self.at = to;
    }

    fn stop_run(&self, pair: Pair, force: bool, way: (ModuleState, ModuleState), why: Why) -> Step {
        let kind = if force { Kind::Force(pair) } else { Kind::Stop(pair) };
        self.run(&alloc::format!("stop_{}", pair.name()), force.then_some("force"), way, why, kind)
    }

    fn run(
        &self,
        script: &str,
        first: Option<&str>,
        (from, to): (ModuleState, ModuleState),
        why: Why,
        kind: Kind,
    ) -> Step {
        let word = if matches!((why, kind), (Why::Restart, Kind::Start(_))) { "start" } else { why.word() };
        let states = [from.to_string(), to.to_string(), word.to_string()];
        let args = first.map(ToString::to_string).into_iter().chain(states).collect();
        Step::Run(Run { script: script.to_string(), args, kind })
    }
}

/// The scripts of one change of state, as a list of what is run.
#[must_use]
pub fn between(from: ModuleState, to: ModuleState, why: Why) -> Vec<Run> {
    let mut scripts = Scripts::of(from);
    let plan = match (from, to) {
        (Stop, Wait) => scripts.plan(App::Prepare, to),
        (Wait, Stop) => scripts.plan(App::Release { why }, to),
        _ if why == Why::Restart => {
            let mut plan = scripts.plan(App::Stop { force: false, why }, from);
            plan.extend(scripts.plan(App::Role { to, why: Why::Start }, from));
            plan
        }
        _ => scripts.plan(App::Role { to, why }, to),
    };
    plan.into_iter()
        .filter_map(|step| match step {
            Step::Run(run) => Some(run),
            Step::End { .. } => None,
        })
        .collect()
}
