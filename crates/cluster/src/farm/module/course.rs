//! How a farm module goes on: what scripts, addresses, timers and the other nodes report, and the way out.

use super::{Action, After, App, Module, State, Taken, Timer};
use crate::farm::doubt::Doubt;
use crate::farm::order::Order;
use crate::farm::{foreign, member};
use crate::mirror::{AppReport, Level};
use alloc::format;
use alloc::vec::Vec;
use model::NodeId;
use model::farm::{Wish, Word};
use model::limits::{DOUBT_MS, REJOIN_MS};

impl Module {
    pub(super) fn adopted(&mut self, serving: bool, open: bool, out: &mut Vec<Action>) {
        if serving {
            self.state = State::Up;
            self.holds = true;
            self.is_open = open || !self.settings.by_script;
            self.reason = "goes on as it was found".into();
            out.push(Action::Take);
            self.serve(out);
        } else {
            self.prepare("started again after the agent's restart", out);
        }
    }

    pub(super) fn prepare(&mut self, why: &str, out: &mut Vec<Action>) {
        self.state = State::Preparing;
        self.waits = false;
        self.is_open = !self.settings.by_script;
        self.reason = why.into();
        out.push(Action::App(App::Prepare));
    }

    pub(super) fn app(&mut self, report: AppReport, out: &mut Vec<Action>) {
        match (&self.state, report) {
            (State::Preparing, AppReport::Prepared) => {
                self.state = State::Taking;
                self.reason =
                    if self.settings.is_light { "its application starts" } else { "takes its addresses" }.into();
                out.push(Action::Take);
            }
            (State::Starting, AppReport::Started) => {
                self.state = State::Up;
                self.reason = if self.settings.is_light { "its application runs" } else { "serves its share" }.into();
                self.serve(out);
            }
            (State::Preparing | State::Starting, AppReport::StartFailed { reason }) => {
                out.push(Action::Journal { level: Level::Critical, sentence: reason.clone() });
                self.stop_application(After::Stay, &format!("it could not be started: {reason}"), out);
            }
            (State::Stopping(After::Restart), AppReport::Stopped) => {
                self.state = State::Starting;
                self.is_open = !self.settings.by_script;
                out.push(Action::App(App::Start));
            }
            (State::Stopping(after), AppReport::Stopped) => {
                let after = *after;
                // Closed after the application: what it said last has been sent.
                self.wish(Wish::Out, out);
                self.state = State::Releasing(after);
                out.push(Action::Release);
            }
            (State::Leaving(after @ (After::Stay | After::Wait | After::Restart)), AppReport::Released) => {
                self.waits = *after == After::Wait;
                self.state = State::Stop;
            }
            (State::Leaving(After::Start), AppReport::Released) => {
                let why = self.reason.clone();
                self.prepare(&why, out);
            }
            _ => {}
        }
    }

    pub(super) fn taken(&mut self, taken: Taken, out: &mut Vec<Action>) {
        match (&self.state, taken) {
            (State::Taking, Taken::Held) => {
                self.holds = true;
                self.state = State::Starting;
                self.reason = "its application starts".into();
                out.push(Action::App(App::Start));
            }
            (State::Taking, Taken::Failed { why }) => {
                if self.reason != why {
                    out.push(Action::Journal { level: Level::Critical, sentence: why.clone() });
                }
                self.state = State::Blocked;
                self.reason = why;
                out.push(Action::Arm(Timer::Retry, REJOIN_MS));
            }
            // After the agent's restart: what was there cannot be had again.
            (State::Up, Taken::Failed { why }) => {
                out.push(Action::Journal { level: Level::Critical, sentence: why.clone() });
                self.leave(After::Start, &why, out);
            }
            _ => {}
        }
    }

    pub(super) fn expired(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match (timer, &self.state) {
            (Timer::Drain, State::Draining(after)) => {
                let (after, seconds) = (*after, self.settings.drain_ms / 1000);
                let why = format!("connections still stood after {seconds} s of draining: they end now");
                out.push(Action::Journal { level: Level::Error, sentence: why });
                self.drained(after, out);
            }
            (Timer::Drain, State::Up) => self.closed(out),
            (Timer::Retry, State::Blocked) => {
                self.state = State::Taking;
                out.push(Action::Take);
            }
            (Timer::Loop, _) => self.loops = 0,
            (Timer::Doubt, _) => out.push(Action::Doubt(false)),
            (Timer::Agree, _) => self.order.expired(&self.member, out),
            _ => {}
        }
    }

    pub(super) fn news(&mut self, event: member::Event, out: &mut Vec<Action>) {
        if let member::Event::Silent(node) | member::Event::Said { from: node, .. } = &event {
            self.foreign.forget(*node);
        }
        self.heed(event, out);
    }

    /// A node with another configuration is heard: for the membership it wants nothing.
    pub(super) fn differs(&mut self, from: NodeId, word: Word, out: &mut Vec<Action>) {
        let event = member::Event::Said { from, word: foreign::nothing(&word) };
        self.foreign.hear(from, word);
        self.heed(event, out);
    }

    fn heed(&mut self, event: member::Event, out: &mut Vec<Action>) {
        let doubt = Doubt::before(&self.member, &event);
        let actions = self.member.handle(event);
        if doubt.arises(&self.member) && !self.settings.is_light {
            out.extend([Action::Doubt(true), Action::Arm(Timer::Doubt, DOUBT_MS)]);
        }
        self.obey(actions, out);
        self.wish(self.wanted, out);
        // Who could have taken the traffic over is gone: waiting would only bring new connections.
        if let State::Draining(after) = self.state
            && !self.member.is_another_in()
            && self.member.knows_all()
        {
            self.drained(after, out);
        }
    }

    /// It accepts nothing until it has heard the others, and comes in as one that returns. What connections stand here stand again then.
    pub(super) fn froze(&mut self, out: &mut Vec<Action>) {
        let was_in = self.member.view().is_some();
        let actions = self.member.handle(member::Event::Froze);
        self.obey(actions, out);
        if was_in && !self.settings.is_light {
            let sentence = "this node did not run for a while: it hears the others before it serves again".into();
            out.push(Action::Journal { level: Level::Error, sentence });
        }
    }

    /// The application runs: this node wants traffic, unless its scripts say otherwise.
    fn serve(&mut self, out: &mut Vec<Action>) {
        self.wish(if self.is_open { Wish::In } else { Wish::Out }, out);
    }

    /// What a script says of the traffic. Closed, connections that stand may finish as before a stop.
    pub(super) fn traffic(&mut self, open: bool, out: &mut Vec<Action>) {
        if !self.settings.by_script || self.is_open == open {
            return;
        }
        self.is_open = open;
        if self.state != State::Up {
            return;
        }
        if open {
            out.push(Action::Disarm(Timer::Drain));
            self.serve(out);
        } else {
            self.wish(Wish::Drain, out);
            if self.settings.drain_ms > 0 && self.member.is_another_in() {
                out.push(Action::Arm(Timer::Drain, self.settings.drain_ms));
            } else {
                self.closed(out);
            }
        }
    }

    /// No connection stands. New ones come as long as a view says that this node serves.
    pub(super) fn idle(&mut self, out: &mut Vec<Action>) {
        let me = self.member.me();
        // By the newest view, and by the one that the filter still decides by, no new connection comes.
        if [self.member.view(), self.order.shown()].into_iter().flatten().any(|view| view.serving().has(me)) {
            return;
        }
        // Nor by that of the director, which waits for all.
        if !Order::is_common(&self.member) {
            return;
        }
        match self.state {
            State::Draining(after) => self.drained(after, out),
            State::Up => self.closed(out),
            _ => {}
        }
    }

    /// What stood when a script closed the traffic has finished, or had its time.
    pub(super) fn closed(&mut self, out: &mut Vec<Action>) {
        if self.wanted == Wish::Drain {
            out.push(Action::Disarm(Timer::Drain));
            self.wish(Wish::Out, out);
        }
    }

    /// Nothing, while a node with another configuration goes before this one.
    pub(super) fn wish(&mut self, wish: Wish, out: &mut Vec<Action>) {
        self.wanted = wish;
        let wish = if self.yields_to().is_some() { Wish::Out } else { wish };
        if wish != self.member.wish() {
            let actions = self.member.handle(member::Event::Wished(wish));
            self.obey(actions, out);
        }
    }

    fn obey(&mut self, actions: Vec<member::Action>, out: &mut Vec<Action>) {
        self.order.obey(&self.member, actions, out);
    }

    /// Away from serving, whatever follows.
    pub(super) fn leave(&mut self, after: After, why: &str, out: &mut Vec<Action>) {
        self.reason = why.into();
        out.push(Action::Disarm(Timer::Retry));
        match self.state {
            // Nobody was let in: there is nothing to finish.
            State::Up if self.member.wish() == Wish::Out => self.stop_application(after, why, out),
            State::Up => {
                self.wish(Wish::Drain, out);
                if self.settings.drain_ms > 0 && self.settings.has_addresses && self.member.is_another_in() {
                    self.state = State::Draining(after);
                    self.leaves_for = why.into();
                    self.reason = format!("{why}: no new connections, those that stand may finish");
                    out.push(Action::Arm(Timer::Drain, self.settings.drain_ms));
                } else {
                    self.stop_application(after, why, out);
                }
            }
            _ => self.stop_application(after, why, out),
        }
    }

    /// What stood has ended, one way or another.
    fn drained(&mut self, after: After, out: &mut Vec<Action>) {
        let why = core::mem::take(&mut self.leaves_for);
        self.stop_application(after, &why, out);
    }

    pub(super) fn stop_application(&mut self, after: After, why: &str, out: &mut Vec<Action>) {
        self.reason = why.into();
        self.leaves_for.clear();
        self.state = State::Stopping(after);
        out.extend([Action::Disarm(Timer::Drain), Action::App(App::Stop { force: false, why: after.why() })]);
    }

    /// A stop that is under way ends otherwise than it was begun.
    pub(super) fn change_after(&mut self, now: After) {
        match &mut self.state {
            State::Draining(after) | State::Stopping(after) | State::Releasing(after) | State::Leaving(after) => {
                *after = now;
            }
            _ => {}
        }
    }
}
