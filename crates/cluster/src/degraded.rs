//! `rfs.degraded`: this node serves without the other one's copy, although the other one is there.
//!
//! Pure. A node that starts is brought up to date in its own time, and one that stops does what it was told: neither is
//! a loss. One is when a copy that was complete is let go, or when a node that is there does not come.

use model::{ModuleState, Status};

/// A node that stops says so within this time.
pub const LEAVES_MS: u64 = 1_000;
/// A node that is started begins to follow within this time.
pub const COMES_MS: u64 = 15_000;

/// What one look sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// This node.
    pub state: ModuleState,
    /// This node.
    pub status: Status,
    /// The other one; `None`: not heard.
    pub peer: Option<ModuleState>,
}

/// What is remembered between two looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Degraded {
    /// Since both were equal, the other node was there all the time.
    had: bool,
    /// Since when this node serves alone beside one that is there and does not follow.
    alone_ms: Option<u64>,
    is_up: bool,
}

impl Degraded {
    /// `now_ms` by the boot-time clock.
    pub fn look(&mut self, sight: Sight, now_ms: u64) -> bool {
        use ModuleState::{Alone, Prim, Second, Stop};
        match (sight.state, sight.peer) {
            (Prim, Some(_)) if sight.status == Status::Ready => *self = Self { had: true, ..Self::default() },
            // On the way to one of the others.
            (Prim, Some(Second | ModuleState::Wait)) => {}
            (Alone, Some(peer)) if peer != Stop => {
                let since_ms = *self.alone_ms.get_or_insert(now_ms);
                let alone_ms = now_ms.saturating_sub(since_ms);
                // Once it is a loss it stays one until both are equal again.
                self.is_up |= alone_ms >= if self.had { LEAVES_MS } else { COMES_MS };
                if !self.is_up && !self.had && peer == Second {
                    self.alone_ms = None;
                }
            }
            _ => *self = Self::default(),
        }
        self.is_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModuleState::{Alone, Prim, Second, Stop, Wait};
    use Status::{Ready, Transient};

    /// (ms, this node, the other): when it goes up and down.
    fn play(looks: &[(u64, (ModuleState, Status), Option<ModuleState>)]) -> alloc::string::String {
        let mut degraded = Degraded::default();
        looks
            .iter()
            .map(|(at, (state, status), peer)| {
                let sight = Sight { state: *state, status: *status, peer: *peer };
                if degraded.look(sight, *at) { 'u' } else { '.' }
            })
            .collect()
    }

    const ALONE: (ModuleState, Status) = (Alone, Ready);
    const PRIM: (ModuleState, Status) = (Prim, Ready);
    const HOLD: (ModuleState, Status) = (Prim, Transient);

    #[test]
    fn a_start_a_long_resync_and_a_stop_are_no_loss() {
        let start = [
            (0, ALONE, None),
            (100, ALONE, Some(Stop)),
            (200, ALONE, Some(Wait)),
            (400, ALONE, Some(Wait)),
            (500, ALONE, Some(Second)),
            (900_000, ALONE, Some(Second)),
            (900_100, PRIM, Some(Second)),
        ];
        assert_eq!(play(&start), ".......");
        let stop =
            [(0, PRIM, Some(Second)), (100, HOLD, Some(Wait)), (200, ALONE, Some(Wait)), (300, ALONE, Some(Stop))];
        assert_eq!(play(&stop), "....");
        let power = [(0, PRIM, Some(Second)), (100, HOLD, None), (200, ALONE, None), (60_000, ALONE, Some(Wait))];
        assert_eq!(play(&power), "....");
    }

    #[test]
    fn a_copy_that_is_let_go_is_one_until_both_are_equal_again() {
        let let_go = [
            (0, PRIM, Some(Second)),
            (100, HOLD, Some(Wait)),
            (200, ALONE, Some(Wait)),
            (1_200, ALONE, Some(Wait)),
            (9_000, ALONE, Some(Second)),
            (9_900, HOLD, Some(Second)),
            (10_000, PRIM, Some(Second)),
        ];
        assert_eq!(play(&let_go), "...uuu.");
        let stopped_then =
            [(0, PRIM, Some(Second)), (10, ALONE, Some(Wait)), (2_000, ALONE, Some(Wait)), (2_100, ALONE, Some(Stop))];
        assert_eq!(play(&stopped_then), "..u.");
    }

    #[test]
    fn a_node_that_is_there_and_does_not_come_is_one() {
        assert_eq!(play(&[(0, ALONE, Some(Wait)), (14_999, ALONE, Some(Wait)), (15_000, ALONE, Some(Wait))]), "..u");
        let refused = [
            (0, ALONE, Some(Wait)),
            (9_000, ALONE, Some(Second)),
            (10_000, ALONE, Some(Wait)),
            (24_999, ALONE, Some(Wait)),
        ];
        assert_eq!(play(&refused), "....");
    }
}
