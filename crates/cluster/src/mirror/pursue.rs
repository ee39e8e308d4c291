//! What a waiting, holding or lone node tries next, given what it knows. Called whenever a fact changed.
//!
//! **Invariant:** at most one HELLO and one question are open; saying HELLO closes the question.

use super::Out;
use super::action::{Action, Level, Ticket, Timer};
use super::event::{Proof, VipAnswer};
use super::message::{Facts, Message, Serving, Wish};
use super::reason::Reason;
use super::state::{Mirror, Peer, State};
use crate::witness;
use alloc::boxed::Box;
use model::{DataState, ModuleState, Right, Role};

/// HELLOs without an answer after which the other ways are tried.
pub(super) const UNANSWERED_MAX: u8 = 3;
/// Questions without an answer after which the witness counts as unreachable.
pub(super) const UNHEARD_MAX: u8 = 2;

impl Mirror {
    pub(super) fn pursue(&mut self, out: &mut Out) {
        match &self.state {
            State::Wait => self.pursue_wait(out),
            State::Hold => self.pursue_hold(out),
            State::Alone { join: None } => self.pursue_alone(out),
            _ => {}
        }
    }

    fn pursue_wait(&mut self, out: &mut Out) {
        if self.blocked {
            return;
        }
        if self.wish == (Wish::Prim { force: true }) {
            if self.peer_serves() {
                self.refuse_prim(&Reason::Blocked(self.peer_serves_sentence()), out);
            } else {
                self.claim(Right::Force, None, out);
                return;
            }
        }
        if self.left_out {
            if matches!(self.wish, Wish::Prim { .. }) {
                self.refuse_prim(&Reason::LeftOut, out);
            }
            return self.note(Level::Critical, Reason::LeftOut, out);
        }
        if self.pursue_hello(out) || self.peer == Peer::Unknown {
            return;
        }
        match self.wish {
            Wish::Second { .. } => return self.note(Level::State, Reason::WaitsSecondOnly, out),
            Wish::Prim { .. } => match self.why_prim_is_refused() {
                // What it knows of the other copy, a person without `--force` does not overrule.
                None if self.witness_may_know() => return self.ask(out),
                None => return self.claim(Right::Operator, None, out),
                Some(reason) => self.refuse_prim(&reason, out),
            },
            Wish::None if self.is_held_back() => return self.note(Level::State, Reason::FailoverOff, out),
            Wish::None => {}
        }
        let witness_silent =
            !self.by_witness() || self.voter().is_none() || self.unheard >= UNHEARD_MAX || self.witness_empty;
        if self.may_reopen() && !self.refused && witness_silent {
            return self.reopen(out);
        }
        if !self.record.is_candidate() {
            return self.note(Level::State, self.why_waiting(), out);
        }
        if self.by_witness() {
            return self.ask(out);
        }
        if !(self.may_prove && self.window && self.record.data == DataState::Full) {
            // That the peer still answers for the address says more than that the window has passed.
            let lives = [Reason::VipAnsweredByPeer, Reason::PeerDoesNotHear];
            let alive = self.proof.as_ref().and_then(Self::judge).filter(|why| lives.contains(why));
            if let Some(why) = alive {
                self.note(Level::Critical, why, out);
            } else if !lives.contains(&self.why) {
                let why = if self.was_second { Reason::WaitsWindow } else { self.why_waiting() };
                self.note(Level::State, why, out);
            }
            return;
        }
        self.pursue_proof(out);
    }

    fn pursue_hold(&mut self, out: &mut Out) {
        if self.blocked && matches!(self.why, Reason::StoreFailed(_)) {
            return;
        }
        if self.pursue_hello(out) || self.peer == Peer::Unknown {
            return;
        }
        if self.by_witness() {
            return self.ask(out);
        }
        // Alone is an epoch nobody else is complete in: only a timer's patience, no proof, is needed (Revalidate).
        if self.record.role == Role::Primary && self.alone_due && !self.frozen {
            self.pursue_proof(out);
        }
    }

    /// A lone primary speaks first only to another one; everybody else comes to it.
    fn pursue_alone(&mut self, out: &mut Out) {
        if let Peer::Heard(advert) = self.peer
            && matches!(advert.state, ModuleState::Alone | ModuleState::Prim)
            && self.hello.is_none()
        {
            self.say_hello(out);
        }
    }

    /// True: talking to the peer comes first.
    fn pursue_hello(&mut self, out: &mut Out) -> bool {
        if !matches!(self.peer, Peer::Heard(_)) || self.unanswered >= UNANSWERED_MAX {
            return false;
        }
        if self.hello.is_none() {
            self.say_hello(out);
        }
        true
    }

    fn pursue_proof(&mut self, out: &mut Out) {
        let Some(proof) = self.proof else {
            // Gathered again and again: the last finding stays the reason until another one comes.
            if Self::JUDGEMENTS.iter().all(|judgement| *judgement != self.why) {
                self.note(Level::State, Reason::Gathering, out);
            }
            out.push(Action::Probe);
            return;
        };
        match Self::judge(&proof) {
            None => self.claim(Right::Proof, None, out),
            Some(why) => {
                self.note(Level::Critical, why, out);
                out.push(Action::Arm(Timer::Probe));
            }
        }
    }

    /// The witness that votes has a memory and answers, as far as is known, and there is something to ask it about.
    fn witness_may_know(&self) -> bool {
        self.by_witness()
            && self.voter().is_some()
            && !self.witness_empty
            && self.unheard < UNHEARD_MAX
            && self.record.is_candidate()
            && self.record.epoch.is_some()
    }

    const JUDGEMENTS: [Reason; 5] = [
        Reason::ProofNoCarrier,
        Reason::ProofIsolated,
        Reason::PeerDoesNotHear,
        Reason::VipAnsweredByPeer,
        Reason::ProofStranger,
    ];

    /// Why this proof does not hold. The isolation test can only veto.
    pub(super) fn judge(proof: &Proof) -> Option<Reason> {
        match proof {
            Proof { carrier: false, .. } => Some(Reason::ProofNoCarrier),
            Proof { isolation: Some(false), .. } => Some(Reason::ProofIsolated),
            Proof { heard: true, .. } => Some(Reason::PeerDoesNotHear),
            Proof { vip: VipAnswer::Peer, .. } => Some(Reason::VipAnsweredByPeer),
            Proof { vip: VipAnswer::Stranger, .. } => Some(Reason::ProofStranger),
            Proof { carrier: true, vip: VipAnswer::Nobody, .. } => None,
        }
    }

    pub(super) fn say_hello(&mut self, out: &mut Out) {
        let ticket = self.next_ticket();
        self.hello = Some(ticket);
        self.question = None;
        let facts = Box::new(self.facts());
        out.push(Action::Send(Message::Hello { ticket, facts }));
        out.push(Action::Arm(Timer::Hello));
    }

    fn ask(&mut self, out: &mut Out) {
        if self.voter().is_none() {
            return self.note(Level::State, Reason::WaitsWitnessExchanged, out);
        }
        if self.question.is_some() || self.refused {
            return;
        }
        let ticket = self.next_ticket();
        self.question = Some(ticket);
        out.push(Action::Ask(witness::Question::Ask {
            node: self.settings.node,
            peer: self.settings.peer,
            incarnation: self.incarnation,
            ticket,
            epoch: self.record.epoch,
            history: self.record.history.clone(),
            data: self.record.data,
            floor: self.floor,
            random: model::marks::Nonce(self.random()),
        }));
        out.push(Action::Arm(Timer::Question));
    }

    pub(super) const fn last_ticket(&self) -> Ticket {
        self.last
    }

    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.last.n += 1;
        self.last
    }

    /// Counter of the next epoch: more than any that was heard of.
    pub(super) fn next_counter(&self) -> u64 {
        self.record.history.iter().map(|epoch| epoch.counter).max().unwrap_or(0).max(self.counter.0) + 1
    }

    /// Random part of the next epoch: differs between agent starts (salt) and between epochs of one (counter).
    pub(super) fn random(&self) -> u32 {
        let mut x = self.settings.salt ^ (self.next_counter() << 32) ^ self.record.boots;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x >> 32) as u32
    }

    pub(super) const fn peer_serves(&self) -> bool {
        matches!(&self.peer, Peer::Heard(advert) if matches!(advert.state, ModuleState::Alone | ModuleState::Prim))
    }

    /// The last one alone, with everything, that promised nothing: nobody can be newer (protocol.md §2).
    pub(super) fn may_reopen(&self) -> bool {
        self.record.role == Role::Alone
            && self.record.data == DataState::Full
            && !self.record.yielded
            && self.record.epoch.is_some()
    }

    /// `failover="off"`: who followed somebody waits for him, or for `prim`. An exchange of roles that somebody asked for is no failover.
    pub(super) fn is_held_back(&self) -> bool {
        !self.settings.policy.failover
            && self.state == State::Wait
            && self.record.role == Role::Second
            && self.record.is_candidate()
            && self.wish == Wish::None
            && !self.peer_stepped_aside
    }

    pub(super) fn why_waiting(&self) -> Reason {
        match self.record.data {
            DataState::Unknown => Reason::WaitsForPeerUnknown,
            DataState::Inconsistent => Reason::WaitsForPeerInconsistent,
            _ if self.record.yielded => Reason::WaitsForPeerYielded,
            DataState::Crashed => Reason::WaitsForPeerCrashed,
            DataState::Full => Reason::WaitsForPeer,
        }
    }

    /// What I have, as the peer must see it.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            serving: match self.state {
                State::Stop => Serving::Stopped,
                State::Hold => Serving::Hold,
                State::Alone { .. } => Serving::Alone,
                _ => Serving::No,
            },
            resumable: self.resumable,
            left_clean: self.left_clean,
            map_since: match self.state {
                _ if self.map_lost || self.compare_all => None,
                State::Alone { .. } => self.map_base.or(self.record.map_since),
                _ => self.record.map_since,
            },
            tree_empty: self.tree_empty,
            aside: self.aside,
            wish: if self.is_held_back() { Wish::Second { full: false } } else { self.wish },
            floor: self.last_ticket(),
            configuration: self.settings.configuration,
            ..Facts::of_record(self.settings.node, &self.record)
        }
    }
}
