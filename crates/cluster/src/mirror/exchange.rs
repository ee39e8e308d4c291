//! Another witness (R16): exchanged by the pair, in steps, while PRIM and SECOND.
//!
//! SECOND stores {old, new}; then PRIM stores {new}; then SECOND stores {new}. Who has {old, new} goes on alone by nobody's vote.
//! **Invariant:** at any moment the two records have a witness in common, so two grants by two witnesses cannot both be used.

use super::Out;
use super::action::{Action, Level, Ticket, Timer};
use super::message::Message;
use super::reason::Reason;
use super::state::{Mirror, Names, State, Then};
use alloc::sync::Arc;
use model::{NodeId, Witnesses};

impl Mirror {
    /// The witness that votes here: the only one to be asked. `None`: there is none, or none votes alone now.
    #[must_use]
    pub fn voter(&self) -> Option<NodeId> {
        match self.witnesses() {
            Witnesses::One { witness } => witness,
            Witnesses::Configured | Witnesses::Exchange { .. } => None,
        }
    }

    /// A witness decides who may serve alone; without one the takeover proof does.
    pub(super) fn by_witness(&self) -> bool {
        self.witnesses() != Witnesses::One { witness: None }
    }

    fn witnesses(&self) -> Witnesses {
        match self.record.witnesses {
            Witnesses::Configured => Witnesses::One { witness: self.settings.witness },
            stored => stored,
        }
    }

    pub(super) fn witness_configured(&mut self, witness: Option<NodeId>, out: &mut Out) {
        if self.settings.witness != witness {
            let mut settings = (*self.settings.0).clone();
            settings.witness = witness;
            self.settings = Names(Arc::new(settings));
            self.exchange = None;
            self.pursue_exchange(out);
        }
    }

    /// PRIM: the next step towards the configuration, or towards one word on both disks.
    pub(super) fn pursue_exchange(&mut self, out: &mut Out) {
        if !matches!(self.state, State::Prim { linked: true, .. }) || self.exchange.is_some() || self.pending.is_some()
        {
            return;
        }
        let (mine, wanted) = (self.witnesses(), self.settings.witness);
        let theirs = self.peer_witnesses;
        let take = match (mine, theirs) {
            (Witnesses::One { witness }, Some(Witnesses::Configured)) => {
                if witness != wanted {
                    self.tell(Level::Critical, &Reason::ExchangeWaits, out);
                }
                return;
            }
            // It is on the secondary's disk that neither votes alone: the new one may vote here.
            (Witnesses::One { witness }, Some(Witnesses::Exchange { old, new }))
                if old == witness && new == wanted && witness != wanted =>
            {
                return self.vote_by(new, out);
            }
            (Witnesses::Exchange { new, .. }, Some(theirs)) if theirs == mine => return self.vote_by(new, out),
            (Witnesses::One { witness }, _) if witness != wanted => Witnesses::Exchange { old: witness, new: wanted },
            (mine, Some(theirs)) if mine == theirs => return,
            (mine, _) => mine,
        };
        let ticket = self.next_ticket();
        self.exchange = Some((ticket, take));
        out.push(Action::Send(Message::Witnesses { ticket, take }));
        out.push(Action::Arm(Timer::Exchange));
    }

    fn vote_by(&mut self, witness: Option<NodeId>, out: &mut Out) {
        let mut record = self.record.clone();
        record.witnesses = Witnesses::One { witness };
        self.store(record, Then::Voting, out);
    }

    /// SECOND: only the primary of the session asks, and only its last word counts.
    pub(super) fn exchange_asked(&mut self, ticket: Ticket, take: Witnesses, out: &mut Out) {
        let follows = matches!(self.state, State::Second { linked: true, target: None, .. });
        if !follows || ticket <= self.seen || take == Witnesses::Configured {
            return;
        }
        self.seen = ticket;
        let mut record = self.record.clone();
        record.witnesses = take;
        self.store(record, Then::Exchanged { to: ticket }, out);
    }

    /// SECOND: it is on disk.
    pub(super) fn exchange_stored(&mut self, to: Ticket, out: &mut Out) {
        out.push(Action::Send(Message::WitnessesStored { to, have: self.record.witnesses }));
        self.forget_former_witness(out);
    }

    /// PRIM: it is on the secondary's disk.
    pub(super) fn exchange_confirmed(&mut self, to: Ticket, have: Witnesses, out: &mut Out) {
        if self.exchange != Some((to, have)) {
            return;
        }
        self.exchange = None;
        self.peer_witnesses = Some(have);
        out.push(Action::Disarm(Timer::Exchange));
        self.pursue_exchange(out);
    }

    /// PRIM: it is on this disk; the secondary is next.
    pub(super) fn new_witness_votes(&mut self, out: &mut Out) {
        self.forget_former_witness(out);
        self.tell(Level::State, &Reason::WitnessExchanged, out);
        self.pursue_exchange(out);
    }

    /// Nothing that was learnt from the one holds for the other.
    fn forget_former_witness(&mut self, out: &mut Out) {
        self.incarnation = None;
        self.question = None;
        self.unheard = 0;
        self.refused = false;
        self.witness_empty = false;
        self.told.noted = false;
        if self.voter().is_some() {
            out.push(Action::Pulse);
        }
    }
}
