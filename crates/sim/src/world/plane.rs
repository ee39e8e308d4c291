//! The abstract data plane: what an order does to trees and sessions.
//!
//! Orders take effect at once; reports are delivered in order. What needs the other side is a step of the world.

use super::{Node, Set};
use cluster::mirror::Event;
use model::Epoch;
use model::orders::{Begin, Order, Report, Session, Situation};

/// What `mirrorfs` does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Plane {
    /// Mode.
    pub mode: Mode,
    /// Leader: applied here, not acknowledged by the follower.
    pub unacked: Set,
    /// Leader: acknowledged by the follower, not yet known here.
    pub acks: Set,
    /// Epoch of the last complete session this process took part in: what a resume needs.
    pub memory: Option<Epoch>,
}

/// See [`Situation`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Nothing mounted.
    Idle,
    /// Holding every answer.
    Hold(Option<Epoch>),
    /// Open, recording.
    Alone(Epoch, Option<(Session, Begin, Phase)>),
    /// Connecting to a complete follower.
    Resuming(Session),
    /// COMMIT sent; `true`: answered by the target, answer on its way.
    Committing(Session, bool),
    /// Mirrored.
    Mirrored(Session),
    /// Following or listening.
    Following {
        /// The session.
        session: Session,
        /// How it begins.
        begin: Begin,
        /// Connected.
        linked: bool,
        /// Complete.
        complete: bool,
    },
}

/// How far a resync is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Not connected yet.
    Connecting,
    /// Copying.
    Copying,
    /// Everything is over there; quiesced.
    Through,
}

impl Plane {
    /// As an agent that connects is told.
    #[must_use]
    pub fn situation(&self) -> Situation {
        match self.mode {
            Mode::Idle => Situation::Idle,
            Mode::Hold(epoch) => Situation::Holding { epoch },
            Mode::Alone(epoch, lead) => match lead {
                Some((session, _, Phase::Through)) => Situation::Committing { session, sent: false },
                Some((session, ..)) => Situation::Alone { epoch, resync: Some(session) },
                None => Situation::Alone { epoch, resync: None },
            },
            Mode::Resuming(session) => Situation::Holding { epoch: Some(session.epoch) },
            Mode::Committing(session, _) => Situation::Committing { session, sent: true },
            Mode::Mirrored(session) => Situation::Mirrored { session },
            Mode::Following { session, complete, .. } => Situation::Following { session, complete },
        }
    }

    /// The session it leads or follows.
    #[must_use]
    pub const fn session(&self) -> Option<Session> {
        match self.mode {
            Mode::Alone(_, Some((session, ..)))
            | Mode::Resuming(session)
            | Mode::Committing(session, _)
            | Mode::Mirrored(session)
            | Mode::Following { session, .. } => Some(session),
            Mode::Idle | Mode::Hold(_) | Mode::Alone(_, None) => None,
        }
    }

    const fn epoch(&self) -> Option<Epoch> {
        match self.mode {
            Mode::Alone(epoch, _) => Some(epoch),
            Mode::Resuming(session) | Mode::Committing(session, _) | Mode::Mirrored(session) => Some(session.epoch),
            Mode::Hold(epoch) => epoch,
            Mode::Idle | Mode::Following { .. } => None,
        }
    }

    /// An application may be waiting in it.
    #[must_use]
    pub const fn is_mounted(&self) -> bool {
        !matches!(self.mode, Mode::Idle | Mode::Following { .. })
    }

    /// Another process has its mounts: what waits goes on waiting, and what was on its way is forgotten.
    pub const fn replace(&mut self) {
        self.mode = Mode::Hold(self.epoch());
        self.acks = 0;
        self.memory = None;
    }

    /// The link is gone on a leader: nothing more is acknowledged under this session.
    pub const fn drop_link(&mut self) {
        self.mode = match self.mode {
            Mode::Alone(epoch, _) => Mode::Alone(epoch, None),
            Mode::Resuming(session) | Mode::Committing(session, _) | Mode::Mirrored(session) => {
                Mode::Hold(Some(session.epoch))
            }
            Mode::Following { session, begin, complete, .. } => {
                Mode::Following { session, begin, linked: false, complete }
            }
            same => same,
        };
        self.acks = 0;
    }
}

/// Does what is ordered; what it reports.
pub fn obey(node: &mut Node, order: &Order, no_sync: bool) -> Vec<Event> {
    let plane = node.plane.get_or_insert(Plane { mode: Mode::Idle, unacked: 0, acks: 0, memory: None });
    let reached = |situation| vec![Event::Plane(Report::Reached { situation })];
    match order {
        Order::Configure { .. } | Order::Lease { .. } | Order::Verify { .. } => vec![],
        Order::Idle => {
            if matches!(plane.mode, Mode::Mirrored(_)) {
                node.disk = node.tree;
            }
            plane.drop_link();
            plane.mode = Mode::Idle;
            reached(Situation::Idle)
        }
        Order::Hold => {
            let epoch = plane.epoch();
            plane.drop_link();
            plane.mode = Mode::Hold(epoch);
            reached(Situation::Holding { epoch })
        }
        Order::Sync { ticket } => {
            if !no_sync {
                node.disk = node.tree;
            }
            vec![Event::Plane(Report::Synced { ticket: *ticket })]
        }
        Order::ServeAlone { .. } if node.refuses => {
            let reason = "cannot write the change map in /var/lib/stead/modules/AM/data: Permission denied".into();
            vec![Event::Plane(Report::Refused { order: "serve_alone".into(), reason })]
        }
        Order::ServeAlone { epoch, fresh_map, .. } => {
            if *fresh_map {
                node.dirty = 0;
            }
            // What is hot goes into the map, then the log begins anew.
            node.dirty |= plane.unacked | std::mem::take(&mut node.hot);
            plane.unacked = 0;
            plane.memory = None;
            plane.mode = Mode::Alone(*epoch, None);
            reached(Situation::Alone { epoch: *epoch, resync: None })
        }
        Order::Lead { session, begin } => {
            plane.mode = match (*begin, plane.mode) {
                (Begin::Resync { .. }, Mode::Alone(epoch, _)) => {
                    Mode::Alone(epoch, Some((*session, *begin, Phase::Connecting)))
                }
                _ => Mode::Resuming(*session),
            };
            vec![]
        }
        Order::Follow { session, begin, .. } => {
            let complete = *begin == Begin::Resume;
            if matches!(begin, Begin::Resync { full: true, .. }) {
                // Nothing can be told apart any more until the commit.
                node.hot = super::Set::MAX;
            }
            plane.unacked = 0;
            plane.mode = Mode::Following { session: *session, begin: *begin, linked: false, complete };
            vec![]
        }
        Order::SendCommit { session } => {
            if matches!(plane.mode, Mode::Alone(_, Some((mine, _, Phase::Through))) if mine == *session) {
                plane.mode = Mode::Committing(*session, false);
            }
            vec![]
        }
        Order::ConfirmCommit { session } => {
            if let Mode::Following { session: mine, complete, .. } = &mut plane.mode
                && mine == session
            {
                *complete = true;
                plane.memory = Some(session.epoch);
                node.dirty = 0;
                node.hot = 0;
                let situation = Situation::Following { session: *session, complete: true };
                return reached(situation);
            }
            vec![]
        }
        Order::Fence => {
            *plane = Plane { mode: Mode::Idle, unacked: 0, acks: 0, memory: None };
            reached(Situation::Idle)
        }
        Order::Stop => {
            node.disk = node.tree;
            node.plane = None;
            vec![Event::PlaneStopped]
        }
    }
}
