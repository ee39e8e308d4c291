//! When two nodes meet: HELLO asks, WELCOME answers.
//!
//! **Invariants:** only the asked node consents, and has its consent on disk before it says so; an answer counts for
//! the last open HELLO of this boot; answering a HELLO closes my own; nothing is answered while a claim is stored.

use super::Out;
use super::action::{Action, Level, Ticket, Timer};
use super::election::{How, Nobody, Verdict, elect, must_step_down};
use super::message::{Answer, Facts, Message, Serving, Wish};
use super::reason::Reason;
use super::state::{Lineage, Mirror, State, Then};
use alloc::boxed::Box;
use model::orders::{Begin, Order, Session};
use model::{DataState, Relation, Right, Role};

impl Mirror {
    pub(super) fn message(&mut self, message: Message, out: &mut Out) {
        match message {
            Message::Hello { ticket, facts } => self.hello_heard(ticket, &facts, out),
            Message::Welcome { to, last, facts, answer } => self.welcomed(to, last, &facts, answer, out),
            Message::Nudge => {
                if matches!(self.state, State::Wait | State::Hold) && !self.blocked {
                    self.unanswered = 0;
                    // One that is open may have been lost on a node that was busy, or is being answered: repeated, it is both.
                    match self.hello {
                        Some(ticket) => {
                            let facts = Box::new(self.facts());
                            out.push(Action::Send(Message::Hello { ticket, facts }));
                        }
                        None => self.say_hello(out),
                    }
                }
            }
            Message::Witnesses { ticket, take } => self.exchange_asked(ticket, take, out),
            Message::WitnessesStored { to, have } => self.exchange_confirmed(to, have, out),
            Message::SwapPlease => {
                if matches!(self.state, State::Prim { linked: true, .. }) && !self.peer_is_unfit() {
                    self.step_aside(out);
                }
            }
        }
    }

    fn hello_heard(&mut self, ticket: Ticket, theirs: &Facts, out: &mut Out) {
        let busy = matches!(
            self.state,
            State::Booting | State::Preparing | State::Claim(_) | State::Opening | State::Fencing | State::Leaving(_)
        );
        if busy || ticket <= self.seen || theirs.node != self.settings.peer {
            return;
        }
        self.seen = ticket;
        // Whoever says HELLO has left its session.
        match self.state {
            State::Prim { .. } | State::Commit { .. } => self.enter_hold(Reason::PeerLeftSession, out),
            State::Second { .. } => self.enter_wait(Reason::SessionLost, out),
            State::Alone { .. } => self.state = State::Alone { join: None },
            _ => {}
        }
        self.met(theirs);
        let mine = self.facts();
        if must_step_down(&mine, theirs) {
            return self.fence(Self::why_down(&mine, theirs), true, out);
        }
        match elect(&mine, theirs) {
            Verdict::Leads(leader, _) if leader == self.settings.node => {
                if mine.serving == Serving::Alone
                    && theirs.serving == Serving::Alone
                    && mine.relation_to(theirs) == Relation::Diverged
                {
                    self.tell(Level::Critical, &Reason::SplitBrainStay, out);
                }
                if self.hello.is_none() && self.may_lead_now(theirs, out) {
                    self.say_hello(out);
                }
            }
            Verdict::Leads(_, how) => self.consent(ticket, theirs, how, out),
            Verdict::Neither(why) => {
                self.hello = None;
                self.question = None;
                if self.state == State::Wait {
                    // The refusal of an empty leader is the leader's to explain.
                    let why = if why == Nobody::EmptyTree { Nobody::FirstStart } else { why };
                    self.note_nobody(why, &mine, theirs, out);
                }
                if mine.relation_to(theirs) == Relation::Older {
                    self.store_yield(out);
                }
                if self.pending.is_none() {
                    self.welcome(ticket, Box::new(mine), Answer::Neither { why }, out);
                }
            }
        }
    }

    fn welcomed(&mut self, to: Ticket, last: Ticket, theirs: &Facts, answer: Answer, out: &mut Out) {
        if self.hello != Some(to) || theirs.node != self.settings.peer {
            return;
        }
        self.hello = None;
        // H16: only an answer to what was asked after the freeze is word of now; a HELLO may be an old one.
        self.frozen = false;
        self.seen = self.seen.max(last);
        self.met(theirs);
        let mine = self.facts();
        if must_step_down(&mine, theirs) {
            return self.fence(Self::why_down(&mine, theirs), true, out);
        }
        if answer == Answer::Yields && theirs.serving == Serving::Stopped {
            self.tell(Level::Info, &Reason::RemoteStop, out);
        }
        match (&self.state, answer) {
            (State::Wait | State::Hold, Answer::Yields) => {
                let right = match self.wish {
                    Wish::Prim { .. } if self.record.epoch.is_none() => Right::Operator,
                    _ => Right::Consent,
                };
                self.claim(right, None, out);
            }
            (State::Hold, Answer::Follows { begin: Begin::Resume }) => {
                if let Some(session) = self.session_of(to) {
                    out.push(Action::Data(Order::Lead { session, begin: Begin::Resume }));
                    out.push(Action::Disarm(Timer::Hello));
                    out.push(Action::Disarm(Timer::Alone));
                    out.push(Action::Arm(Timer::Link));
                    self.state = State::Prim { session, linked: false };
                    self.note(Level::Info, Reason::Resuming, out);
                }
            }
            (State::Alone { join: None }, Answer::Follows { begin }) if begin != Begin::Resume => {
                if let Some(session) = self.session_of(to) {
                    out.push(Action::Data(Order::Lead { session, begin }));
                    out.push(Action::Disarm(Timer::Hello));
                    self.state = State::Alone { join: Some(session) };
                    let full = begin != Begin::Resync { full: false, quarantine: false };
                    self.note(Level::State, Reason::TargetJoined { full }, out);
                }
            }
            (State::Wait, Answer::Neither { why }) => {
                if matches!(self.wish, Wish::Prim { .. }) {
                    self.refuse_prim(&Self::why_nobody(why, &mine, theirs), out);
                }
                self.note_nobody(why, &mine, theirs, out);
                if mine.relation_to(theirs) == Relation::Older {
                    self.store_yield(out);
                }
            }
            _ => {}
        }
    }

    fn why_down(mine: &Facts, theirs: &Facts) -> Reason {
        match mine.relation_to(theirs) {
            Relation::Diverged => Reason::SplitBrainExit,
            _ => Reason::PeerIsNewer,
        }
    }

    /// Who asked for an empty leader goes on reading why not, although the two talk on.
    fn note_nobody(&mut self, why: Nobody, mine: &Facts, theirs: &Facts, out: &mut Out) {
        if self.is_held_back() {
            return self.note(Level::State, Reason::FailoverOff, out);
        }
        if why != Nobody::FirstStart || self.why != Reason::Nobody(Nobody::EmptyTree) {
            self.note(Level::State, Self::why_nobody(why, mine, theirs), out);
        }
    }

    /// With the name of the node on which it depends.
    fn why_nobody(why: Nobody, mine: &Facts, theirs: &Facts) -> Reason {
        let holder = match mine.relation_to(theirs) {
            Relation::Newer => Some((true, mine)),
            Relation::Older => Some((false, theirs)),
            Relation::Equal if mine.data != theirs.data && mine.data == DataState::Full => Some((true, mine)),
            Relation::Equal if mine.data != theirs.data && theirs.data == DataState::Full => Some((false, theirs)),
            _ => None,
        };
        match (why, holder) {
            (Nobody::NewerMayNotLead, Some((here, facts))) => {
                Reason::NewerMayNotLead { here, promised: !matches!(facts.wish, Wish::Second { .. }) }
            }
            _ => Reason::Nobody(why),
        }
    }

    const fn session_of(&self, hello: Ticket) -> Option<Session> {
        match self.record.epoch {
            Some(epoch) => Some(Session { epoch, number: hello.session_number() }),
            None => None,
        }
    }

    /// What is learnt from any word of the peer about its copy.
    fn met(&mut self, theirs: &Facts) {
        self.unanswered = 0;
        self.spoke |= self.peer == super::state::Peer::Silent;
        self.refused = false;
        self.peer_witnesses = Some(theirs.witnesses);
        self.peer_stepped_aside = theirs.aside;
        let highest = theirs.history.iter().map(|epoch| epoch.counter).max().unwrap_or(0);
        self.counter.0 = self.counter.0.max(highest);
        // R12: a floor is taken only between equal epochs.
        self.floor = (self.facts().relation_to(theirs) == Relation::Equal).then_some(theirs.floor);
    }

    /// Leading means answering for what happens to the other copy.
    fn may_lead_now(&mut self, theirs: &Facts, out: &mut Out) -> bool {
        if matches!(self.state, State::Alone { .. }) {
            if self.let_go {
                return false;
            }
            // One that is half overwritten already is no full one.
            let is_full = !theirs.tree_empty && theirs.data != DataState::Inconsistent;
            let foreign = theirs.epoch.is_none_or(|epoch| !self.record.history.contains(&epoch));
            if self.record.born_empty && foreign && is_full {
                self.note(
                    Level::Error,
                    Reason::Blocked(alloc::format!(
                        "the directories of {peer} are not empty and those of {node} were when it became primary: they are not overwritten (stop the module, then stead prim -m {module}{force} on {peer}; or stead prim -m {module} --force here)",
                        peer = self.settings.peer_name,
                        node = self.settings.node_name,
                        // Its data and ours never were one.
                        force = if theirs.epoch.is_some() { " --force" } else { "" },
                        module = self.settings.module
                    )),
                    out,
                );
                return false;
            }
        }
        !self.blocked
    }

    /// The peer leads: what that asks of me is put on disk, then said.
    fn consent(&mut self, to: Ticket, theirs: &Facts, how: How, out: &mut Out) {
        self.hello = None;
        self.question = None;
        self.may_prove = false;
        let facts = Box::new(self.facts());
        if matches!(self.wish, Wish::Prim { .. }) {
            let why = alloc::format!("the copy of {} is the more complete one: it is primary", self.settings.peer_name);
            self.refuse_prim(&Reason::Blocked(why), out);
        }
        let mut record = self.record.clone();
        match how {
            How::Yield => {
                self.was_second = false;
                // What it is to be kept from trying again it cannot try now; and who serves shall not be alone meanwhile.
                self.blocked &= !self.aside;
                record.yielded = true;
                if self.state == State::Wait {
                    self.note(Level::State, Reason::Talking, out);
                }
                self.store(record, Then::Yielded { to, facts }, out);
            }
            How::Resume => {
                let Some(epoch) = self.record.epoch else { return };
                record.role = Role::Second;
                record.yielded = false;
                let session = Session { epoch, number: to.session_number() };
                let data_id = record.data_id;
                let then = Then::Follow { to, facts, session, begin: Begin::Resume, target: None, data_id };
                self.store(record, then, out);
            }
            How::Join(begin) => {
                let Some(epoch) = theirs.epoch else { return };
                self.was_second = false;
                self.left_clean = false;
                self.aside = false;
                record.role = Role::Second;
                record.data = DataState::Inconsistent;
                record.map_since = None;
                let session = Session { epoch, number: to.session_number() };
                let target = Some(Box::new(Lineage {
                    data_id: theirs.data_id,
                    history: theirs.history.clone(),
                    witnesses: theirs.witnesses,
                }));
                let then = Then::Follow { to, facts, session, begin, target, data_id: theirs.data_id };
                self.store(record, then, out);
            }
        }
    }

    /// R12: the peer is newer, so I ask no more.
    fn store_yield(&mut self, out: &mut Out) {
        let mut record = self.record.clone();
        record.yielded = true;
        self.store(record, Then::Nothing, out);
    }
}
