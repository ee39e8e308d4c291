//! The checkers of one module: which run now, what they found, what follows from it.
//!
//! Waits and looks; what findings mean and which action follows is decided in [`cluster::watch`].
//! **Invariant:** a checker runs exactly while what it looks at should run, and no operator has switched it off.

mod asked;
mod custom;
mod look;
mod processes;
mod said;
mod switches;
mod tls;

pub use asked::{Done, HELD, command, counted, words};
pub use custom::{end_all, handle};
pub use look::Around;
pub use said::Said;
pub use switches::{Failover, Off, Switches};

use super::module::Input;
use cluster::mirror::View;
use cluster::watch::{Change, Finding, Gate, Outcome, Time, Wanted, Watch};
use model::api::{PastView, ResourceView};
use model::resource::Value;
use model::schema::checkers::{Check, Checkers, DISK_DEBOUNCE, DISK_RESOURCE, Debounce, Process, When};
use model::{ModuleState, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Now, on both clocks.
#[must_use]
pub fn now() -> Time {
    Time { boot_ms: platform::clock::boot_ms(), unix_ms: platform::clock::wall_ms() }
}

/// What of the module runs now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phase {
    /// From after prestart to the stop.
    pub pre: bool,
    /// The application serves.
    pub prim: bool,
    /// The copy follows.
    pub second: bool,
}

impl Phase {
    /// As the automaton stands; `between`: prestart is through and the module is kept from starting.
    #[must_use]
    pub fn of(view: &View, phase: &str, between: bool) -> Self {
        let runs = !matches!(phase, "Stop" | "Booting" | "Preparing" | "Leaving");
        let ready = view.status == Status::Ready;
        Self {
            pre: runs || between,
            prim: ready && matches!(view.state, ModuleState::Alone | ModuleState::Prim | ModuleState::Up),
            second: ready && view.state == ModuleState::Second,
        }
    }

    fn has(self, when: &When, classes: &BTreeSet<String>) -> bool {
        match when {
            When::Pre => self.pre,
            When::Prim => self.prim,
            When::Second => self.second,
            When::Both => self.prim || self.second,
            When::Own(class) => (self.prim || self.second) && classes.contains(class),
        }
    }
}

/// Ends with its handle.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum What<'a> {
    Check(&'a Check),
    Process(&'a Process),
}

/// All checkers of one module.
pub struct Overseer {
    config: Arc<Checkers>,
    /// There are directories whose disk is looked at.
    replicated: bool,
    watch: Watch,
    around: Arc<Around>,
    own: mpsc::Sender<Input>,
    running: BTreeMap<String, Running>,
    /// What operators have switched.
    pub switches: Switches,
    /// What was said of resources of one's own.
    said: Said,
    was_started: bool,
    /// The application was started, and has not served since.
    is_fresh: bool,
    /// When it first served since, on the boot-time clock: what changes about it later (a secondary that joins) makes it no older.
    serves_since_ms: Option<u64>,
    views: Arc<Vec<ResourceView>>,
}

/// What is known before anybody looks. What a checker's own program said does not outlive it, and it ended with its agent.
fn begin(watch: &mut Watch, config: &Checkers, said: &Said) {
    let checks = config.checks.iter().map(|it| it.resource.clone());
    let looked_at: BTreeSet<String> = checks.chain(config.processes.iter().map(Process::resource)).collect();
    for (name, value, why) in said.all().filter(|(name, ..)| !looked_at.contains(*name)) {
        watch.set(name, value.clone(), why, now());
    }
    for name in &looked_at {
        watch.set(name, Value::Init, "", now());
    }
}

impl Overseer {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(
        config: Checkers,
        replicated: bool,
        around: Around,
        (switches, said): (Switches, Said),
        own: mpsc::Sender<Input>,
    ) -> Self {
        let mut watch = Watch::new(config.all_rules(replicated), config.handle_time_ms);
        begin(&mut watch, &config, &said);
        let mut this = Self {
            config: Arc::new(config),
            replicated,
            watch,
            around: Arc::new(around),
            own,
            running: BTreeMap::new(),
            switches,
            said,
            was_started: false,
            is_fresh: false,
            serves_since_ms: None,
            views: Arc::default(),
        };
        this.show();
        this
    }

    /// Other checkers and rules from now on: all begin anew.
    pub fn configure(&mut self, config: Checkers) {
        if *self.config == config {
            return;
        }
        self.running.clear();
        self.watch = Watch::new(config.all_rules(self.replicated), config.handle_time_ms);
        begin(&mut self.watch, &config, &self.said);
        self.config = Arc::new(config);
        self.show();
    }

    /// Starts and ends checkers as the module stands now.
    pub fn follow(&mut self, phase: Phase, is_started: bool) -> Vec<Change> {
        let time = now();
        self.is_fresh |= is_started && !self.was_started;
        self.was_started = is_started;
        self.switches.expire(time.unix_ms);
        if self.is_fresh {
            self.serves_since_ms = phase.prim.then_some(time.boot_ms);
            self.is_fresh = !phase.prim;
        }
        let config = Arc::clone(&self.config);
        let checks = config.checks.iter().map(|it| (it.resource.clone(), What::Check(it)));
        let processes = config.processes.iter().map(|it| (it.resource(), What::Process(it)));
        let mut changes = Vec::new();
        for (name, what) in checks.chain(processes) {
            let (when, is_on) = match what {
                What::Check(it) => (&it.when, self.switches.checker.is_none()),
                What::Process(it) => (&it.when, self.switches.errd.is_none()),
            };
            let wanted = is_on && phase.has(when, &self.switches.classes);
            match (wanted, self.running.contains_key(&name)) {
                (true, false) => {
                    changes.extend(self.watch.begin(&name, self.debounce(&what), self.serves_since_ms, time));
                    let task = self.task(&what);
                    self.running.insert(name.clone(), Running(task));
                }
                (false, true) => {
                    self.running.remove(&name);
                    changes.extend(self.watch.end(&name, time));
                }
                _ => {}
            }
            if !is_on {
                changes.extend(self.watch.set(&name, Value::Unknown, "switched off", time));
            } else if !wanted && self.value(&name) == Some(&Value::Unknown) {
                changes.extend(self.watch.end(&name, time));
            }
        }
        self.shown(changes)
    }

    /// A checker said something.
    pub fn found(&mut self, name: &str, finding: &Finding) -> Vec<Change> {
        let why = |watch: &Watch| watch.resources().get(name).map(|it| it.why.clone());
        let before = why(&self.watch);
        let change = self.watch.found(name, finding, now());
        if why(&self.watch) != before {
            self.show();
        }
        self.shown(change.into_iter().collect())
    }

    /// What a look at the disk of the replicated directories found: `Err` says how it failed.
    pub fn looked_at_disk(&mut self, found: Result<(), String>) -> Vec<Change> {
        if self.switches.checker.is_some() {
            let end = self.watch.is_watched(DISK_RESOURCE).then(|| self.watch.end(DISK_RESOURCE, now())).flatten();
            let off = self.watch.set(DISK_RESOURCE, Value::Unknown, "switched off", now());
            return self.shown(end.into_iter().chain(off).collect());
        }
        let begun = (!self.watch.is_watched(DISK_RESOURCE))
            .then(|| self.watch.begin(DISK_RESOURCE, DISK_DEBOUNCE, None, now()))
            .flatten();
        let (outcome, why) = match found {
            Ok(()) => (Outcome::Up, String::new()),
            Err(why) => (Outcome::Silent, why),
        };
        let mut changes: Vec<Change> = begun.into_iter().collect();
        changes.extend(self.found(DISK_RESOURCE, &Finding { outcome, why }));
        self.shown(changes)
    }

    /// Nothing is served from that disk any more.
    pub fn leaves_disk(&mut self) -> Vec<Change> {
        if !self.watch.is_watched(DISK_RESOURCE) {
            return Vec::new();
        }
        let change = self.watch.end(DISK_RESOURCE, now());
        self.shown(change.into_iter().collect())
    }

    /// Why that disk fails, if it does.
    #[must_use]
    pub fn disk_failure(&self) -> Option<&str> {
        let disk = self.watch.resources().get(DISK_RESOURCE)?;
        (disk.value == Value::Down).then_some(disk.why.as_str())
    }

    /// A resource that Stead or an operator sets.
    pub fn set(&mut self, name: &str, value: Value, why: &str) -> Vec<Change> {
        let change = self.watch.set(name, value, why, now());
        self.shown(change.into_iter().collect())
    }

    /// A checker counted something.
    pub fn counted(&mut self, name: &str, count: Option<usize>) -> Vec<Change> {
        let value = count.and_then(|count| Value::new(&count.to_string())).unwrap_or(Value::Unknown);
        self.set(name, value, "")
    }

    /// Who said what a resource is has ended. That it was well is not known any more; that it was not, stays: a rule that
    /// waits must not wake up because nobody looks.
    pub fn lost(&mut self, name: &str, why: &str) -> Vec<Change> {
        match self.value(name) {
            Some(Value::Down) | None => Vec::new(),
            Some(_) => self.set(name, Value::Unknown, why),
        }
    }

    /// Resources of the other node.
    pub fn heard_peer(&mut self, theirs: &BTreeMap<String, Value>) -> Vec<Change> {
        let changes = self.watch.heard_peer(theirs, now());
        self.shown(changes)
    }

    /// What rules ask for now.
    pub fn wanted(&mut self) -> (Vec<Change>, Option<Wanted>) {
        let (changes, wanted) = self.watch.wanted(now());
        (self.shown(changes), wanted)
    }

    /// Why the application does not run, while its next restart is held back: a sentence.
    #[must_use]
    pub fn held(&self) -> Option<String> {
        let wanted = self.watch.held(now())?;
        Some(format!(
            "failover rule {}: {}: its next restart in a row is held back for a moment",
            wanted.rule, wanted.because
        ))
    }

    /// What was asked for is done.
    pub fn done(&mut self) {
        self.watch.done(now());
    }

    /// An operator has looked: what was done automatically is forgotten.
    pub fn forget_restarts(&mut self) {
        self.watch.forget_restarts();
    }

    /// May the module start?
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.watch.gate()
    }

    /// Do rules look at the other node's resources?
    #[must_use]
    pub fn looks_abroad(&self) -> bool {
        self.watch.looks_abroad()
    }

    /// This node's resources, for the other one.
    #[must_use]
    pub fn own_values(&self) -> BTreeMap<String, Value> {
        let own = self.watch.resources().iter().filter(|(name, _)| !name.starts_with("remote."));
        own.map(|(name, resource)| (name.to_string(), resource.value.clone())).collect()
    }

    /// For the status.
    #[must_use]
    pub fn views(&self) -> Arc<Vec<ResourceView>> {
        Arc::clone(&self.views)
    }

    /// Where the looks come from.
    #[must_use]
    pub fn around(&self) -> Arc<Around> {
        Arc::clone(&self.around)
    }

    /// The program that handles the failure of a process.
    fn handler_of(&self, resource: &str) -> Option<String> {
        self.config.processes.iter().find(|it| it.resource() == resource).and_then(|it| it.handler.clone())
    }

    /// The services that a failure of this process restarts, instead of the whole application.
    fn services_of(&self, process: &str) -> Vec<String> {
        self.config.processes.iter().find(|it| it.name == process).map(|it| it.services.clone()).unwrap_or_default()
    }

    /// Is there a class of this name in `<errd>`?
    fn has_class(&self, class: &str) -> bool {
        self.config.processes.iter().any(|it| matches!(&it.when, When::Own(own) if own == class))
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.watch.resources().get(name).map(|resource| &resource.value)
    }

    fn debounce(&self, what: &What<'_>) -> Debounce {
        match what {
            What::Check(it) => it.debounce,
            What::Process(it) => Debounce {
                down_after: Some(1),
                up_after: 1,
                grace_ms: self.config.poll_ms.saturating_mul(it.start_after.into()),
            },
        }
    }

    fn task(&self, what: &What<'_>) -> JoinHandle<()> {
        let (around, own) = (Arc::clone(&self.around), self.own.clone());
        match what {
            What::Check(it) => tokio::spawn(look::run((*it).clone(), around, own)),
            What::Process(it) => tokio::spawn(processes::run((*it).clone(), around, own)),
        }
    }

    fn shown(&mut self, changes: Vec<Change>) -> Vec<Change> {
        if !changes.is_empty() {
            self.show();
        }
        changes
    }

    fn show(&mut self) {
        let view = |(name, resource): (&str, &cluster::watch::Resource)| ResourceView {
            name: name.to_string(),
            value: resource.value.clone(),
            why: resource.why.clone(),
            since_unix_ms: resource.since.unix_ms,
            past: resource
                .past
                .iter()
                .map(|past| PastView { value: past.value.clone(), at_unix_ms: past.at_unix_ms })
                .collect(),
        };
        self.views = Arc::new(self.watch.resources().iter().map(view).collect());
    }
}

/// Who sets resources of this class, as the log says it.
#[must_use]
pub fn setter(resource: &str) -> &'static str {
    match resource.split('.').next().unwrap_or_default() {
        "tcp" => "tcpcheck",
        "http" => "httpcheck",
        "ping" => "pingcheck",
        "intf" => "intfcheck",
        "ip" => "ipcheck",
        "custom" => "customcheck",
        "module" => "modulecheck",
        "splitbrain" => "splitbraincheck",
        "proc" => "errd",
        "rfs" => "rfsplug",
        _ => "heart",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checker_said_of_its_own_resource_does_not_outlive_it_and_what_others_said_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut said = Said::open(dir.path());
        said.note("custom.own", &Value::Up, "set by its program");
        said.note("custom.disk", &Value::Down, "set by diskcheck");
        let mut watch = Watch::new(Vec::new(), 0);
        let check = Check {
            resource: "custom.own".into(),
            when: When::Both,
            act: model::rules::Act::NoAction,
            rule: String::new(),
            debounce: DISK_DEBOUNCE,
            interval_ms: 0,
            timeout_ms: 0,
            probe: model::schema::checkers::Probe::Custom { exec: "own".into(), arg: String::new(), ends: false },
        };
        begin(&mut watch, &Checkers { checks: vec![check], ..Checkers::default() }, &said);
        let value = |name: &str| watch.resources().get(name).map(|it| it.value.clone());
        assert_eq!((value("custom.own"), value("custom.disk")), (Some(Value::Init), Some(Value::Down)));
    }
}
