//! Checkers and failover rules: findings become verdicts, verdicts become resources, rules over resources ask for actions.
//!
//! Pure. Findings and times come in; what is asked of the module goes out, with the sentence an operator will read. The
//! automaton decides what becomes of it: it may refuse an action and is asked again.
//!
//! | file | holds |
//! |---|---|
//! | `verdict` | findings in a row → up or down |
//! | `resources` | names, values, since when, what they were |
//! | `evaluate` | does a condition hold |
//! | `backoff` | restarts that follow each other wait longer and longer |
//! | `story` | texts that play values against rules |
//!
//! **Invariants:** everything is bounded; the same input in the same order asks for the same actions.

mod backoff;
mod evaluate;
mod resources;
pub mod story;
mod verdict;

pub use resources::{Change, Past, RESOURCES_MAX, Resource, Resources, Time};
pub use verdict::{Finding, Outcome};

use backoff::Backoff;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::resource::Value;
use model::rules::{Act, Rule, Then};
use model::schema::checkers::Debounce;
use verdict::Verdict;

/// Assignments may wake other rules; after so many rounds the rest waits for the next change.
const ROUNDS_MAX: usize = 4;

/// What the rules ask of the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Name of the rule.
    pub rule: String,
    /// What it asks for.
    pub act: Act,
    /// Why: the resources it looks at.
    pub because: String,
}

impl Wanted {
    /// It is another module that does not serve, not this one that failed.
    #[must_use]
    pub fn is_lack(&self) -> bool {
        self.act == Act::Wait && self.rule == model::schema::checkers::MODULE_RULE
    }
}

/// May the module start, as far as rules that make it wait say?
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Yes.
    Open,
    /// A resource is not known yet.
    Unknown {
        /// Which.
        resource: String,
    },
    /// No.
    Closed(Wanted),
}

/// What is asked for now.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Asked {
    act: Act,
    since_ms: u64,
    is_done: bool,
}

/// The checkers and rules of one module on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    rules: Vec<Rule>,
    handle_time_ms: u64,
    resources: Resources,
    verdicts: BTreeMap<String, Verdict>,
    asked: Option<Asked>,
    backoff: Backoff,
    /// A resource changed since assignments were last made: rules that contradict each other go round once per change.
    is_moved: bool,
}

impl Watch {
    /// No resource is known yet.
    #[must_use]
    pub fn new(rules: Vec<Rule>, handle_time_ms: u64) -> Self {
        Self {
            rules,
            handle_time_ms,
            resources: Resources::default(),
            verdicts: BTreeMap::new(),
            asked: None,
            backoff: Backoff::default(),
            is_moved: false,
        }
    }

    /// The resources, for people and for rules.
    #[must_use]
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Does any rule look at the other node's resources?
    #[must_use]
    pub fn looks_abroad(&self) -> bool {
        self.rules.iter().any(|rule| rule.names().iter().any(|name| name.remote))
    }

    /// A checker begins, or begins again. `since_ms`: when what it looks at was started (on the boot-time clock), from when on it is given its
    /// time.
    pub fn begin(&mut self, name: &str, debounce: Debounce, since_ms: Option<u64>, time: Time) -> Option<Change> {
        self.verdicts.insert(name.to_string(), Verdict::new(debounce, since_ms));
        self.set(name, Value::Init, "", time)
    }

    /// Has it begun?
    #[must_use]
    pub fn is_watched(&self, name: &str) -> bool {
        self.verdicts.contains_key(name)
    }

    /// A checker ends: what it said holds no longer, nor what was asked because of it.
    pub fn end(&mut self, name: &str, time: Time) -> Option<Change> {
        self.verdicts.remove(name);
        self.asked = None;
        self.set(name, Value::Init, "", time)
    }

    /// A checker found something; a finding of one that has ended says nothing.
    pub fn found(&mut self, name: &str, finding: &Finding, time: Time) -> Option<Change> {
        let value = self.verdicts.get_mut(name)?.found(finding.outcome, time.boot_ms);
        // What is well stays so, and may be watched in another way from now on; what is not may be so for another reason.
        let same = if finding.outcome == Outcome::Up { Value::Up } else { Value::Down };
        let is_same = self.resources.get(name).is_some_and(|it| it.value == same);
        let value = value.or(is_same.then_some(same))?;
        self.set(name, value, &finding.why, time)
    }

    /// Somebody sets a resource.
    pub fn set(&mut self, name: &str, value: Value, why: &str, time: Time) -> Option<Change> {
        self.resources.set(name, value, why, time).inspect(|_| self.is_moved = true)
    }

    /// What the other node says of its resources; the ones it does not name are not known any more.
    pub fn heard_peer(&mut self, theirs: &BTreeMap<String, Value>, time: Time) -> Vec<Change> {
        self.is_moved = true;
        self.resources.set_remote(theirs, time)
    }

    /// What is asked for now, if it has been asked for long enough and was not done yet. Assignments of rules are made
    /// on the way, and returned.
    pub fn wanted(&mut self, time: Time) -> (Vec<Change>, Option<Wanted>) {
        let changes = self.assign(time);
        let Some(mut wanted) = self.strongest() else {
            self.asked = None;
            return (changes, None);
        };
        let same = self.asked.take().filter(|asked| asked.act == wanted.act);
        let asked = same.unwrap_or(Asked { act: wanted.act, since_ms: time.boot_ms, is_done: false });
        let asked_ms = asked.since_ms.saturating_add(self.handle_time_ms);
        let due_ms = self.backoff.due_ms(wanted.act).max(asked_ms);
        let is_due = !asked.is_done && time.boot_ms >= due_ms;
        self.asked = Some(asked);
        if is_due && due_ms > asked_ms {
            wanted.because = format!("{}; held back: restart {} in a row", wanted.because, self.backoff.row() + 1);
        }
        (changes, is_due.then_some(wanted))
    }

    /// The module does what was wanted: it is not asked again before the reason for it is gone.
    pub fn done(&mut self, time: Time) {
        if let Some(asked) = &mut self.asked {
            asked.is_done = true;
            self.backoff.acted(asked.act, time.boot_ms);
        }
    }

    /// A restart that is wanted and held back, because it would be the next in a row: until then the application does not run.
    #[must_use]
    pub fn held(&self, time: Time) -> Option<Wanted> {
        let asked = self.asked.as_ref().filter(|asked| !asked.is_done)?;
        if time.boot_ms >= self.backoff.due_ms(asked.act) {
            return None;
        }
        self.strongest().filter(|wanted| wanted.act == asked.act)
    }

    /// An operator has looked: the next restart waits for nothing.
    pub fn forget_restarts(&mut self) {
        self.backoff = Backoff::default();
    }

    /// See [`Gate`].
    #[must_use]
    pub fn gate(&self) -> Gate {
        let waits = || self.rules.iter().filter(|rule| rule.then == Then::Act(Act::Wait));
        if let Some(rule) = waits().find(|rule| evaluate::holds(&rule.when, &self.resources)) {
            return Gate::Closed(self.wants(rule, Act::Wait));
        }
        let unknown = waits()
            .flat_map(Rule::names)
            .flat_map(|name| self.resources.matching(name))
            .find(|(_, value)| *value == Value::Init);
        match unknown {
            Some((resource, _)) => Gate::Unknown { resource },
            None => Gate::Open,
        }
    }

    fn assign(&mut self, time: Time) -> Vec<Change> {
        let mut changes = Vec::new();
        if !core::mem::take(&mut self.is_moved) {
            return changes;
        }
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for rule in &self.rules {
                if let Then::Assign { resource, value } = &rule.then
                    && evaluate::holds(&rule.when, &self.resources)
                    && let Some(change) =
                        self.resources.set(resource, value.clone(), &format!("failover rule {}", rule.label), time)
                {
                    changes.push(change);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        changes
    }

    /// Of all rules that hold, the strongest action; of those, the first rule.
    fn strongest(&self) -> Option<Wanted> {
        let holding = self.rules.iter().filter_map(|rule| match rule.then {
            Then::Act(act) if act != Act::NoAction && evaluate::holds(&rule.when, &self.resources) => Some((act, rule)),
            _ => None,
        });
        holding.min_by_key(|(act, _)| *act).map(|(act, rule)| self.wants(rule, act))
    }

    fn wants(&self, rule: &Rule, act: Act) -> Wanted {
        let mut parts: Vec<String> = Vec::new();
        for (name, value) in rule.names().into_iter().flat_map(|name| self.resources.matching(name)) {
            // What is well is no reason, unless the rule says so itself.
            if value == Value::Up || parts.len() == 4 {
                continue;
            }
            let why = self.resources.get(&name).map_or("", |resource| &resource.why);
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            let part = format!("{name} is {value}{why}");
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        let because = if parts.is_empty() { rule.when.to_string() } else { parts.join(", ") };
        Wanted { rule: rule.label.clone(), act, because }
    }
}
