//! What operators and failover rules ask of a farm module: taken, refused with a sentence, or one too many.

use super::{Action, After, App, Module, State, Timer};
use crate::mirror::Command;
use crate::scripts;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::farm::Wish;

/// Why it is stopped.
const BY_OPERATOR: &str = "stopped by an operator";

impl Module {
    pub(super) fn command(&mut self, command: Command, out: &mut Vec<Action>) {
        let module = self.settings.module.clone();
        let refuse = |why: String| Action::Reply { accepted: false, sentence: why };
        let accept = |why: &str| Action::Reply { accepted: true, sentence: why.to_string() };
        match command {
            Command::Prim { .. } | Command::Second { .. } | Command::Swap => out.push(refuse(if self.settings.is_light {
                format!(
                    "{module} is light: it runs on this node for itself, and none is primary or secondary (stead start, stead stop)"
                )
            } else {
                format!(
                    "{module} is a farm: all its nodes serve, none is primary or secondary (stead start, stead stop)"
                )
            })),
            Command::Start => match self.state {
                State::Stop => {
                    self.loops = 0;
                    self.prepare("started", out);
                    out.insert(0, accept("starting"));
                }
                State::Draining(After::Stay)
                | State::Stopping(After::Stay)
                | State::Releasing(After::Stay)
                | State::Leaving(After::Stay) => out.push(refuse(format!(
                    "{module} is stopping; when it has stopped it can be started (stead waitstate STOP -m {module})"
                ))),
                // A person has looked: what was done automatically is forgotten, also by this.
                _ => {
                    self.loops = 0;
                    out.push(accept("it is started already"));
                }
            },
            Command::Stop | Command::Wait => {
                self.loops = 0;
                match self.state {
                    State::Stop => out.push(self.stopped()),
                    State::Draining(after) | State::Stopping(after) | State::Releasing(after) | State::Leaving(after) => {
                        if after == After::Wait {
                            self.reason = BY_OPERATOR.into();
                            self.leaves_for = BY_OPERATOR.into();
                        }
                        self.change_after(After::Stay);
                        out.push(accept("stopping"));
                    }
                    _ => {
                        out.push(accept("stopping"));
                        self.leave(After::Stay, BY_OPERATOR, out);
                    }
                }
            }
            Command::ForceStop => {
                self.loops = 0;
                if self.state == State::Stop {
                    out.push(self.stopped());
                    return;
                }
                out.extend([accept("stopping by force"), Action::Disarm(Timer::Drain), Action::Disarm(Timer::Retry)]);
                self.wish(Wish::Out, out);
                self.state = State::Stopping(After::Stay);
                self.reason = "stopped by force".into();
                out.push(Action::App(App::Stop { force: true, why: scripts::Why::Stop }));
            }
            Command::Restart | Command::StopStart => {
                self.loops = 0;
                let after = if command == Command::Restart { After::Restart } else { After::Start };
                match self.state {
                    State::Up => {
                        out.push(accept(if after == After::Restart {
                            "restarting"
                        } else {
                            "stopping, then starting"
                        }));
                        self.leave(after, "restarted by an operator", out);
                    }
                    State::Stop => {
                        out.push(refuse(format!("{module} is stopped (stead start -m {module})")));
                    }
                    _ => out.push(refuse(format!("{module} is on its way: {}", self.reason()))),
                }
            }
        }
    }

    /// The answer to a person who stops what has stopped: a rule that made it wait is the reason no more.
    fn stopped(&mut self) -> Action {
        let sentence = if core::mem::take(&mut self.waits) {
            self.reason = BY_OPERATOR.into();
            "stopped"
        } else {
            "it is stopped already"
        };
        Action::Reply { accepted: true, sentence: sentence.to_string() }
    }

    /// Does this state take an automatic action?
    #[must_use]
    pub fn accepts_automatic(&self, command: Command) -> bool {
        match command {
            Command::Stop | Command::Wait => {
                !matches!(self.state, State::Stop | State::Stopping(_) | State::Releasing(_) | State::Leaving(_))
            }
            Command::Restart | Command::StopStart => self.state == State::Up,
            Command::Start => self.state == State::Stop,
            _ => false,
        }
    }

    /// Would the next automatic action be one too many?
    #[must_use]
    pub fn is_last_loop(&self) -> bool {
        self.settings.loop_ms > 0 && self.loops >= self.settings.max_loop
    }

    pub(super) fn lacks(&mut self, why: &str, out: &mut Vec<Action>) {
        if self.accepts_automatic(Command::Wait) {
            self.leave(After::Wait, why, out);
        }
    }

    pub(super) fn automatic(&mut self, command: Command, why: &str, out: &mut Vec<Action>) {
        if !self.accepts_automatic(command) {
            return;
        }
        if command == Command::Start {
            // What made it wait is over: no new error.
            return self.prepare(why, out);
        }
        let is_one_too_many = self.is_last_loop();
        if self.settings.loop_ms > 0 {
            self.loops = self.loops.saturating_add(1);
            out.push(Action::Arm(Timer::Loop, self.settings.loop_ms));
        }
        if is_one_too_many {
            let why = format!("{} automatic actions in a row (maxloop): {why}", self.settings.max_loop);
            return self.leave(After::Stay, &why, out);
        }
        match command {
            Command::Restart => self.leave(After::Restart, why, out),
            Command::StopStart => self.leave(After::Start, why, out),
            Command::Wait => self.leave(After::Wait, why, out),
            _ => self.leave(After::Stay, why, out),
        }
    }
}
