//! Checkers and failover rules at a farm module's loop: what they find is noted, what they ask for becomes a command.
//!
//! Decides nothing: `cluster::watch` says what is wanted, the automaton whether it is done.

use super::super::checkers::{self, Done, HELD, Phase};
use super::super::chronicle::printed;
use super::actor::Loop;
use cluster::farm::module::{Event, Timer};
use cluster::mirror::{AppReport, Command};
use cluster::watch::{Change, Gate, Wanted};
use model::api::{LogLevel, WatchRequest};
use model::resource::Value;
use model::rules::Act;
use model::{ModuleState, NodeName, Status};
use tokio::time::Instant;

/// What checkers and rules are about to do.
#[derive(Default)]
pub(super) struct Oversight {
    /// `prestart` is through, and the automaton is not told yet.
    held: Option<Instant>,
    /// Stopped until no rule makes it wait.
    pub(super) waits: Option<Wanted>,
    /// Where the log says that the module is; `None`: nothing yet, it was stopped.
    said: Option<(ModuleState, Status)>,
}

impl Loop {
    /// After everything that happens, and at least ten times a second.
    pub(super) async fn oversee(&mut self) {
        self.note_facts();
        self.follow();
        let (changes, wanted) = self.parts.overseer.wanted();
        self.tell_changes(&changes);
        if self.oversight.waits.is_some() {
            self.wait_on().await;
        } else if self.oversight.held.is_some() {
            self.hold_on().await;
        } else if let Some(wanted) = wanted {
            self.act(wanted).await;
        }
        self.tell_where();
    }

    /// For the log, when the module is elsewhere than it was.
    pub(super) fn tell_where(&mut self) {
        let (state, status) = self.shown_state();
        if (state, status) != self.oversight.said.unwrap_or((ModuleState::Stop, Status::NotReady)) {
            self.oversight.said = Some((state, status));
            self.line(LogLevel::E, "heart", &format!("Local state {state} {status}"));
        }
    }

    /// The start is held back until what makes the module wait is known.
    pub(super) fn is_held_back(&mut self, event: &Event) -> bool {
        let held = *event == Event::App(AppReport::Prepared)
            && self.parts.module.phase() == "Preparing"
            && self.parts.overseer.gate() != Gate::Open;
        if held {
            self.oversight.held = Some(Instant::now());
        }
        held
    }

    async fn hold_on(&mut self) {
        let Some(since) = self.oversight.held else { return };
        if self.parts.module.phase() != "Preparing" {
            self.oversight.held = None;
            return;
        }
        let wanted = match self.parts.overseer.gate() {
            Gate::Open => {
                self.oversight.held = None;
                return self.handle_now(Event::App(AppReport::Prepared)).await;
            }
            Gate::Closed(wanted) => wanted,
            Gate::Unknown { resource } if since.elapsed() >= HELD => {
                let because = format!("{resource} is not known yet");
                Wanted { rule: "Implicit_wait".into(), act: Act::Wait, because }
            }
            Gate::Unknown { .. } => return,
        };
        self.oversight.held = None;
        self.act(wanted).await;
    }

    async fn wait_on(&mut self) {
        if self.parts.module.loops() > self.parts.module.settings().max_loop {
            self.oversight.waits = None;
            return;
        }
        match self.parts.overseer.gate() {
            // What it waits for may become another reason meanwhile.
            Gate::Closed(wanted) => self.oversight.waits = Some(wanted),
            Gate::Open if self.parts.module.phase() == "Stop" => {
                self.oversight.waits = None;
                let why = "failover rule Implicit_wakeup: nothing makes it wait any more".to_string();
                self.line(LogLevel::E, "heart", "Action wakeup from failover rule Implicit_wakeup");
                self.handle(Event::Automatic { command: Command::Start, why }).await;
            }
            Gate::Open | Gate::Unknown { .. } => {}
        }
    }

    async fn act(&mut self, wanted: Wanted) {
        let Some(command) = checkers::command(wanted.act) else { return };
        if !self.parts.module.accepts_automatic(command) {
            return;
        }
        let (line, why) = checkers::words(&wanted);
        self.line(LogLevel::E, "heart", &line);
        let is_lack = wanted.is_lack();
        if self.parts.module.is_last_loop() && !is_lack {
            self.line(LogLevel::E, "heart", &super::super::texts::called("stop", "maxloop"));
        }
        self.parts.overseer.done();
        self.parts.application.restart_only(self.parts.overseer.services_for(command, &wanted.rule));
        if command == Command::Wait {
            self.oversight.waits = Some(wanted);
        }
        let event = if is_lack { Event::Lacks { why } } else { Event::Automatic { command, why } };
        self.handle(event).await;
        // At once: what the stop ends is no failure.
        self.follow();
    }

    fn follow(&mut self) {
        let between = self.oversight.held.is_some() || self.oversight.waits.is_some();
        let module = &self.parts.module;
        let phase = Phase {
            pre: between || !matches!(module.phase(), "Stop" | "Preparing" | "Leaving"),
            prim: module.shown() == (ModuleState::Up, Status::Ready),
            second: false,
        };
        let changes = self.parts.overseer.follow(phase, module.is_started());
        self.tell_changes(&changes);
    }

    /// A command to a module that waits by a rule, which the automaton takes for stopped. `None`: it is the automaton's.
    pub(super) fn answer_waiting(&mut self, command: Command) -> Option<(bool, String)> {
        let wanted = self.oversight.waits.as_ref()?;
        let module = &self.parts.module.settings().module;
        let why = format!("it waits: failover rule {}: {}", wanted.rule, wanted.because);
        match command {
            Command::Stop | Command::Wait | Command::ForceStop => {
                self.oversight.waits = None;
                None
            }
            Command::Start | Command::StopStart | Command::Restart => {
                Some((true, format!("module {module} is started; {why}")))
            }
            _ => None,
        }
    }

    /// An operator about checkers and resources.
    pub(super) async fn watch(&mut self, request: WatchRequest, by: &str) -> Result<String, String> {
        if let Some(answer) = self.parts.overseer.asked(&request, by, self.parts.boot) {
            return answer.map(|done| self.noted(done, by));
        }
        let said = match request {
            WatchRequest::Failover { .. } => return Err("a farm has no failover to switch: all its nodes serve".into()),
            WatchRequest::CountLoop { by: who } => {
                let settings = self.parts.module.settings().clone();
                if settings.loop_ms == 0 {
                    return Ok("automatic actions are not counted (loop_interval=\"0\")".into());
                }
                let (line, answer) = checkers::counted(&who, self.parts.module.count_loop(), settings.max_loop);
                self.note_automaton();
                self.arm(Timer::Loop, settings.loop_ms);
                self.line(LogLevel::E, "heart", &line);
                return answer;
            }
            WatchRequest::ForgetLoops => {
                self.parts.module.forget_loops();
                self.note_automaton();
                self.parts.overseer.forget_restarts();
                "resetloop".to_string()
            }
            WatchRequest::Print { error, text } => {
                let level = if error { LogLevel::E } else { LogLevel::I };
                self.line(level, "userplug", &printed(&text));
                return Ok("in the log".to_string());
            }
            WatchRequest::Traffic { open } => {
                let module = self.parts.module.settings();
                if !module.by_script {
                    return Err(format!(
                        "the traffic of {} is not its scripts' to open or close (<vip scriptcontrol=\"on\">)",
                        module.module
                    ));
                }
                self.handle(Event::Traffic { open }).await;
                format!("traffic {}", if open { "open" } else { "closed" })
            }
            WatchRequest::Update => {
                if self.parts.module.shown().1 == Status::Transient {
                    return Err("it is changing its state".into());
                }
                self.parts.application.update();
                "update".to_string()
            }
            // Answered above.
            _ => return Err("no module answers that".into()),
        };
        Ok(self.noted(Done::Action(said), by))
    }

    fn noted(&self, done: Done, by: &str) -> String {
        self.parts.overseer.note(done, by, |level, component, text| self.line(level, component, text))
    }

    /// What Stead itself knows, as resources.
    fn note_facts(&mut self) {
        let (state, _) = self.shown_state();
        let up = |is: bool| if is { Value::Up } else { Value::Down };
        let word = |text: String| Value::new(&text).unwrap_or(Value::Unknown);
        let mut facts = vec![
            ("state.local".to_string(), word(state.to_string())),
            ("heart.stopstartloop".to_string(), word(self.parts.module.loops().to_string())),
            ("usersetting.checker".to_string(), up(self.parts.overseer.switches.checker.is_none())),
            ("usersetting.errd".to_string(), up(self.parts.overseer.switches.errd.is_none())),
        ];
        if let Some((_, farm)) = &self.farm {
            let own = &self.parts.own_name;
            for group in &self.parts.wires.configured().groups {
                // Without a view there are no shares, and the load of everybody is 0 as far as this node knows.
                let shares = farm.groups.iter().find(|it| it.name == group.name);
                let load = |node: &NodeName| word(shares.map_or(0, |it| it.percent(node)).to_string());
                facts.push((format!("farm.{}", group.name), load(own)));
                let nodes = std::iter::once(own).chain(self.parts.others.iter().map(|(_, name)| name));
                facts.extend(nodes.map(|node| (format!("farm.{}.{node}", group.name), load(node))));
            }
        }
        let mut changes = Vec::new();
        for (name, value) in facts {
            changes.extend(self.parts.overseer.set(&name, value, ""));
        }
        changes.retain(|change| change.name.starts_with("usersetting."));
        self.tell_changes(&changes);
    }

    /// In the log, and to the handlers of processes.
    pub(super) fn tell_changes(&mut self, changes: &[Change]) {
        self.parts.overseer.tell(changes, |level, component, text| self.line(level, component, text));
    }

    /// The program that handles the failure of a process has ended; when it did not help, the module is started anew.
    pub(super) async fn handled(&mut self, resource: &str, outcome: Result<(), String>) {
        let Err(why) = outcome else { return };
        self.line(LogLevel::C, "errd", &why);
        self.act(Wanted { rule: format!("errd_{resource}"), act: Act::StopStart, because: why }).await;
    }
}
