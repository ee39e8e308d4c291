//! The data plane of a module without `<rfs>`: there is nothing to copy, so every order is reached at once.
//!
//! The runtime puts it in the place of `mirrorfs`; the automaton does not know the difference. With it the loss of a peer is
//! noticed by heartbeats alone.

use alloc::vec;
use alloc::vec::Vec;
use model::Epoch;
use model::orders::{Begin, Order, Progress, Report, Session, Situation};

/// See the module's head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NoData {
    epoch: Option<Epoch>,
    alone: Option<Epoch>,
}

impl NoData {
    /// Reports of one order, in order.
    pub fn handle(&mut self, order: &Order) -> Vec<Report> {
        let reached = |situation| Report::Reached { situation };
        match order {
            Order::Configure { .. } | Order::Lease { .. } | Order::Verify { .. } => vec![],
            Order::Idle | Order::Fence | Order::Stop => {
                *self = Self::default();
                vec![reached(Situation::Idle)]
            }
            Order::Hold => {
                self.alone = None;
                vec![reached(Situation::Holding { epoch: self.epoch })]
            }
            Order::Sync { ticket } => vec![Report::Synced { ticket: *ticket }],
            Order::ServeAlone { epoch, .. } => {
                *self = Self { epoch: Some(*epoch), alone: Some(*epoch) };
                vec![reached(Situation::Alone { epoch: *epoch, resync: None })]
            }
            Order::Lead { session, begin } => {
                self.epoch = Some(session.epoch);
                self.begun(*session, *begin, Report::ResyncThrough { session: *session }, |session| {
                    Situation::Mirrored { session }
                })
            }
            Order::Follow { session, begin, .. } => {
                self.begun(*session, *begin, Report::CommitReceived { session: *session }, |session| {
                    Situation::Following { session, complete: true }
                })
            }
            Order::SendCommit { session } => {
                self.alone = None;
                vec![Report::Committed { session: *session, progress: Progress::default() }]
            }
            Order::ConfirmCommit { session } => {
                vec![reached(Situation::Following { session: *session, complete: true })]
            }
        }
    }

    fn begun(
        &self,
        session: Session,
        begin: Begin,
        through: Report,
        mirrored: impl Fn(Session) -> Situation,
    ) -> Vec<Report> {
        let up = Report::LinkUp { session };
        match begin {
            Begin::Resume => vec![up, Report::Reached { situation: mirrored(session) }],
            Begin::Resync { .. } => vec![up, through],
        }
    }
}
