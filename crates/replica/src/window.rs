//! The acknowledgement window: what was made here and is not yet known to be on the peer.
//!
//! Assigns positions, remembers what to send again, and says whose wait is over. It holds no frame of its
//! own: `T` is whatever the caller wants back. **Invariant:** positions are contiguous; an acknowledgement of
//! something never sent is a broken peer, not a surprise to be tolerated.
//!
//! Two share it: changes that somebody waits for, and what runs beside them (a resync). Who runs beside has at most half
//! of what is in flight, so at most half of what the peer takes; how much the others have in flight is not its business,
//! or whoever writes faster than the peer applies would keep it out for ever.

use alloc::collections::VecDeque;
use model::ids::Lsn;

/// Bounds of a [`Window`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Changes.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The peer acknowledged, or wants to resume at, a position outside the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer speaks of change {said}, but {first} to {last} are in flight")]
pub struct OutsideWindow {
    /// What it said.
    pub said: u64,
    /// Oldest change not acknowledged.
    pub first: u64,
    /// Newest change sent.
    pub last: u64,
}

#[derive(Debug)]
struct Slot<T> {
    bytes: usize,
    is_beside: bool,
    item: T,
}

/// How much of the window some of its slots fill.
#[derive(Clone, Copy, Default, Debug)]
struct Share {
    frames: usize,
    bytes: usize,
}

impl Share {
    fn without<T>(&mut self, slot: Slot<T>) -> T {
        if slot.is_beside {
            self.frames -= 1;
            self.bytes -= slot.bytes;
        }
        slot.item
    }
}

/// Changes in flight, oldest first.
#[derive(Debug)]
pub struct Window<T> {
    bounds: Bounds,
    slots: VecDeque<Slot<T>>,
    bytes: usize,
    /// What runs beside the changes.
    beside: Share,
    /// Position of the oldest slot.
    first: u64,
    /// Position of the first slot that was not yet handed to the socket.
    unsent: u64,
}

impl<T> Window<T> {
    /// Empty; the first position is 1.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, slots: VecDeque::new(), bytes: 0, beside: Share::default(), first: 1, unsent: 1 }
    }

    /// May another change of this size enter? One is always let into an empty window.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.slots.is_empty() || (self.slots.len() < self.bounds.frames && self.bytes + bytes <= self.bounds.bytes)
    }

    /// May who runs beside the changes go on? It has less than its half in flight.
    #[must_use]
    pub fn has_half(&self) -> bool {
        self.beside.frames < self.bounds.frames.div_ceil(2) && self.beside.bytes < self.bounds.bytes.div_ceil(2)
    }

    /// The position the next [`Self::push`] will give.
    #[must_use]
    pub fn next(&self) -> Lsn {
        Lsn(self.first + self.slots.len() as u64)
    }

    /// The newest position given; 0: none.
    #[must_use]
    pub fn last(&self) -> Lsn {
        Lsn(self.next().0 - 1)
    }

    /// Everything up to here is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        Lsn(self.first - 1)
    }

    /// Takes a change in, whatever the bounds say: who may wait for room asks [`Self::has_room`] first.
    pub fn push(&mut self, bytes: usize, item: T) -> Lsn {
        self.push_slot(Slot { bytes, is_beside: false, item })
    }

    /// The same of who runs beside the changes; before it prepares one, it asks [`Self::has_half`] as well.
    pub fn push_beside(&mut self, bytes: usize, item: T) -> Lsn {
        self.beside.frames += 1;
        self.beside.bytes += bytes;
        self.push_slot(Slot { bytes, is_beside: true, item })
    }

    fn push_slot(&mut self, slot: Slot<T>) -> Lsn {
        let lsn = self.next();
        self.bytes += slot.bytes;
        self.slots.push_back(slot);
        lsn
    }

    /// The oldest change that was not handed out yet; it counts as sent from here on.
    pub fn take_unsent(&mut self) -> Option<(Lsn, &T)> {
        let slot = self.slots.get((self.unsent - self.first) as usize)?;
        let lsn = Lsn(self.unsent);
        self.unsent += 1;
        Some((lsn, &slot.item))
    }

    /// Is there something to send?
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.unsent < self.next().0
    }

    /// The peer has everything up to `lsn`: gives back what that ends, oldest first.
    ///
    /// # Errors
    /// [`OutsideWindow`] if that was never sent. State unchanged.
    pub fn acknowledge(&mut self, lsn: Lsn) -> Result<impl Iterator<Item = T> + '_, OutsideWindow> {
        if lsn.0 >= self.unsent {
            return Err(self.outside(lsn));
        }
        let count = (lsn.0 + 1).saturating_sub(self.first) as usize;
        self.first += count as u64;
        let (bytes, beside) = (&mut self.bytes, &mut self.beside);
        Ok(self.slots.drain(..count).map(|slot| {
            *bytes -= slot.bytes;
            beside.without(slot)
        }))
    }

    /// A new connection continues the stream: the peer has everything up to `applied`; what follows will be
    /// handed out again. Gives back what is over, oldest first.
    ///
    /// # Errors
    /// [`OutsideWindow`] if the peer is not where this window can take it up. State unchanged.
    pub fn resume(&mut self, applied: Lsn) -> Result<impl Iterator<Item = T> + '_, OutsideWindow> {
        if applied.0 + 1 < self.first || applied > self.last() {
            return Err(self.outside(applied));
        }
        self.unsent = self.unsent.max(applied.0 + 1);
        let first = applied.0 + 1;
        let over = (first - self.first) as usize;
        self.first = first;
        self.unsent = first;
        let (bytes, beside) = (&mut self.bytes, &mut self.beside);
        Ok(self.slots.drain(..over).map(|slot| {
            *bytes -= slot.bytes;
            beside.without(slot)
        }))
    }

    /// Empties the window (the peer is let go) and starts counting again at 1.
    pub fn reset(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.bytes = 0;
        self.beside = Share::default();
        self.first = 1;
        self.unsent = 1;
        core::mem::take(&mut self.slots).into_iter().map(|slot| slot.item)
    }

    /// What is in flight, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|slot| &slot.item)
    }

    /// The same, to be changed (a resumed session renumbers its frames).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().map(|slot| &mut slot.item)
    }

    /// How many changes are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn outside(&self, said: Lsn) -> OutsideWindow {
        OutsideWindow { said: said.0, first: self.first, last: self.unsent - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn window() -> Window<u64> {
        Window::new(Bounds { frames: 3, bytes: 100 })
    }

    #[test]
    fn waits_end_in_order_and_only_for_what_was_sent() {
        let mut w = window();
        for i in 1..=3 {
            assert_eq!(w.push(10, i), Lsn(i));
        }
        assert!(w.acknowledge(Lsn(1)).is_err(), "nothing was sent yet");
        assert_eq!(w.take_unsent(), Some((Lsn(1), &1)));
        assert_eq!(w.take_unsent(), Some((Lsn(2), &2)));
        assert!(w.acknowledge(Lsn(3)).is_err());
        assert_eq!(w.acknowledge(Lsn(2)).unwrap().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(w.acknowledge(Lsn(1)).unwrap().count(), 0, "an old acknowledgement says nothing new");
        assert_eq!((w.len(), w.last()), (1, Lsn(3)));
    }

    #[test]
    fn who_runs_beside_has_half_of_it_whatever_the_changes_take() {
        let mut w = Window::new(Bounds { frames: 4, bytes: 100 });
        w.push(49, 1);
        w.push(1, 2);
        w.push(1, 3);
        w.push(1, 4);
        assert!(w.has_half() && !w.has_room(1), "it waits for room like a change");
        while w.take_unsent().is_some() {}
        assert_eq!(w.acknowledge(Lsn(3)).unwrap().count(), 3);
        w.push_beside(1, 5);
        assert!(w.has_half());
        w.push_beside(1, 6);
        assert!(!w.has_half() && w.has_room(1), "two of four frames are its own");
        while w.take_unsent().is_some() {}
        assert_eq!(w.acknowledge(Lsn(5)).unwrap().count(), 2);
        assert!(w.has_half());
        w.push_beside(49, 7);
        assert!(!w.has_half() && w.has_room(1), "half of the bytes");
        assert_eq!(w.resume(Lsn(6)).unwrap().count(), 1);
        assert!(w.has_half());
        w.push_beside(1, 8);
        assert!(!w.has_half());
        assert_eq!(w.reset().count(), 2);
        assert!(w.has_half());
    }

    #[test]
    fn the_bounds_hold_and_an_empty_window_takes_anything() {
        let mut w = window();
        assert!(w.has_room(1_000_000));
        w.push(90, 1);
        assert!(w.has_room(10) && !w.has_room(11));
        w.push(5, 2);
        w.push(5, 3);
        assert!(!w.has_room(0), "three changes");
        while w.take_unsent().is_some() {}
        assert_eq!(w.acknowledge(Lsn(3)).unwrap().count(), 3);
        assert!(w.has_room(100));
    }

    #[test]
    fn a_resumed_session_sends_again_what_the_peer_does_not_have() {
        let mut w = window();
        for i in 1..=3 {
            w.push(1, i);
        }
        while w.take_unsent().is_some() {}
        assert_eq!(w.acknowledge(Lsn(1)).unwrap().count(), 1);
        assert!(w.resume(Lsn(0)).is_err(), "1 is not here any more");
        assert!(w.resume(Lsn(4)).is_err(), "4 was never made");
        assert_eq!(w.resume(Lsn(2)).unwrap().collect::<Vec<_>>(), [2]);
        assert_eq!(w.take_unsent(), Some((Lsn(3), &3)));
        assert_eq!(w.take_unsent(), None);
    }
}
