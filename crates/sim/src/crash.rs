//! Crashes of either node or both, at every step of a workload: the real activity log and change map of `replica` on
//! simulated disks, whose power cuts keep any subset of what was not flushed, torn at 512 bytes.
//!
//! The tree is small and harsh: no date tells anything, inodes are used again at once, clocks stand still for several
//! changes. **Invariant checked:** after recovery and resync the trees are equal; one node crashed: to a state of the
//! stream that holds every acknowledged change; both: to what the source's own disk kept, every fsync included.

mod node;
mod resync;
mod tree;

use node::{Node, Torn};
use resync::resync;
pub use tree::Op;
use tree::{Listing, Path};

/// A rule that is broken on purpose: a harness that cannot fail is a defect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breach {
    /// The change is made before the log knows of it.
    LogAfterApply,
    /// What the peer acknowledged leaves the logs, whatever the disks have.
    CoolsOnAck,
    /// The target's log is not asked for.
    TargetNotAsked,
    /// What was made since a directory became hot is taken for old.
    NewIsOld,
}

/// Who loses power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The node that leads.
    Primary,
    /// The node that follows.
    Secondary,
    /// Both; the first leads afterwards.
    Both,
    /// Both; the former secondary leads afterwards.
    BothTurned,
}

/// All of them.
pub const CRASHES: [Crash; 4] = [Crash::Primary, Crash::Secondary, Crash::Both, Crash::BothTurned];

/// A source of decisions; the same seed decides the same.
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// Any number below `n`.
    pub const fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What a run cost and found.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    /// Files and directories compared.
    pub compared: u64,
    /// Files and directories there were.
    pub there: u64,
    /// Steps that were made before the crash; less than asked: the workload was over.
    pub steps: usize,
}

/// One story: this workload, this many steps of it, this crash.
#[derive(Clone, Debug)]
pub struct Story {
    /// What the application does.
    pub ops: Vec<Op>,
    /// The power cut comes after so many steps.
    pub steps: usize,
    /// Who loses power.
    pub crash: Crash,
    /// What survives, and how the two take turns.
    pub seed: u64,
    /// The follower may fall behind.
    pub lags: bool,
    /// Rule broken on purpose.
    pub breach: Option<Breach>,
}

/// Where one change is on its way at a node.
const STAGES: usize = 3;

struct World<'s> {
    story: &'s Story,
    nodes: [Node; 2],
    /// Stages made of the change at the head, on each node; and the change.
    at: [(usize, usize); 2],
    /// The tree after each change.
    states: Vec<Listing>,
    fsynced: Option<usize>,
    dice: Dice,
}

impl Story {
    /// Plays it.
    ///
    /// # Errors
    /// A sentence: which promise is broken, and the story.
    pub fn play(&self) -> Result<Outcome, String> {
        let mut world = World {
            story: self,
            nodes: [Node::new(1_000, self.breach), Node::new(700, self.breach)],
            at: [(0, 0); 2],
            states: Vec::new(),
            fsynced: None,
            dice: Dice::new(self.seed),
        };
        world.states.push(world.nodes[0].tree.listing());
        let mut steps = 0;
        while steps < self.steps && world.step() {
            steps += 1;
        }
        let mut outcome = world.crash().map_err(|what| format!("{what}: {self:?}"))?;
        outcome.steps = steps;
        Ok(outcome)
    }
}

impl World<'_> {
    /// One step of one node. `false`: everything is done.
    fn step(&mut self) -> bool {
        let ops = self.story.ops.len();
        let behind = self.at[0].0 - self.at[1].0;
        let may = [
            // One application that waits, or one that is a few changes ahead.
            self.at[0].0 < ops
                && (behind == 0 || (self.story.lags && behind < 4 && self.at[0].1 == 0) || self.at[0].1 > 0),
            self.at[1].0 < self.at[0].0,
        ];
        let who = match may {
            [false, false] => return false,
            [true, false] => 0,
            [false, true] => 1,
            _ => self.dice.below(2) as usize,
        };
        let (op, stage) = self.at[who];
        let change = self.story.ops[op];
        if matches!(change, Op::Fsync | Op::Round) && who == 0 && behind > 0 {
            // Its place in the stream is behind everything sent; nothing new is made meanwhile here.
            return self.advance(1);
        }
        self.advance(who);
        let _ = stage;
        true
    }

    fn advance(&mut self, who: usize) -> bool {
        let (op, stage) = self.at[who];
        let change = self.story.ops[op];
        match change {
            Op::Fsync | Op::Round => self.sync(who, stage, change),
            _ => self.nodes[who].stage(stage, change),
        }
        if stage + 1 < STAGES {
            self.at[who].1 += 1;
            return true;
        }
        self.at[who] = (op + 1, 0);
        if who == 0 {
            self.states.push(self.nodes[0].tree.listing());
        } else {
            if self.story.breach == Some(Breach::CoolsOnAck) {
                self.nodes.iter_mut().for_each(Node::forget);
            }
            match change {
                Op::Fsync => self.fsynced = Some(op + 1),
                // Both disks have done it: it cools here; there with the next round.
                Op::Round => self.nodes[0].round_ends(),
                _ => {}
            }
        }
        true
    }

    fn sync(&mut self, who: usize, stage: usize, change: Op) {
        match stage {
            0 if change == Op::Round => {
                if who == 1 {
                    self.nodes[1].round_ends();
                }
                self.nodes[who].round_begins();
            }
            1 => self.nodes[who].sync(),
            _ => {}
        }
    }

    fn crash(mut self) -> Result<Outcome, String> {
        let (primary, secondary) = match self.story.crash {
            Crash::Primary => (true, false),
            Crash::Secondary => (false, true),
            Crash::Both | Crash::BothTurned => (true, true),
        };
        for (who, crashes) in [primary, secondary].into_iter().enumerate() {
            if crashes {
                let mut torn = Torn(&mut self.dice);
                self.nodes[who].power_cut(&mut torn)?;
            }
        }
        let acknowledged = self.at[1].0;
        let whole_at_primary = self.at[0].0;
        let [first, second] = self.nodes;
        let (mut source, mut target, expected) = match self.story.crash {
            Crash::Primary => (second, first, Some(acknowledged)),
            // A change on its way through the primary's stages is made or not.
            Crash::Secondary => (first, second, (self.at[0].1 == 0).then_some(whole_at_primary)),
            Crash::Both => (first, second, None),
            Crash::BothTurned => (second, first, None),
        };
        // The secondary may have made a change it has not acknowledged yet.
        let expected = expected.filter(|_| self.story.crash != Crash::Primary || self.at[1].1 == 0);
        let before = source.tree.listing();
        let mut map = source.fold();
        for _ in 0..self.dice.below(3) {
            let op = random(&mut self.dice);
            source.alone(op, &mut map);
        }
        let after = source.tree.listing();
        let compared = resync(&source, &mut target, map, self.story.breach);
        if target.tree.listing() != after {
            return Err(format!("the trees differ: {:?} here, {:?} there", after, target.tree.listing()));
        }
        if let Some(n) = expected
            && before != self.states[n]
        {
            return Err(format!("not the state after {n} changes: {before:?}"));
        }
        if let Some(n) = self.fsynced
            && whole_at_primary == n
            && self.at == [(n, 0); 2]
            && before != self.states[n]
        {
            return Err(format!("an fsync is lost: {before:?}"));
        }
        Ok(Outcome { compared, there: after.len() as u64, steps: 0 })
    }
}

/// Any change, mostly possible.
pub fn random(dice: &mut Dice) -> Op {
    let path = |dice: &mut Dice| match dice.below(7) {
        n @ 0..=3 => Path::new(&[n as u8]),
        n => Path::new(&[3, (n - 4) as u8]),
    };
    match dice.below(16) {
        0..=2 => Op::Create(path(dice)),
        3 => Op::Mkdir(path(dice)),
        4..=8 => Op::Write(path(dice), dice.below(3), dice.below(60_000) as u16 + 1),
        9 => Op::Truncate(path(dice)),
        10 => Op::Remove(path(dice)),
        11..=13 => Op::Rename(path(dice), path(dice)),
        14 => Op::Round,
        _ => Op::Fsync,
    }
}

/// The changes that small workloads are made of.
#[must_use]
pub fn alphabet() -> Vec<Op> {
    let (a, b, d, inner) = (Path::new(&[0]), Path::new(&[1]), Path::new(&[3]), Path::new(&[3, 0]));
    vec![
        Op::Create(a),
        Op::Create(b),
        Op::Mkdir(d),
        Op::Create(inner),
        Op::Write(a, 0, 11),
        Op::Write(b, 1, 12),
        Op::Write(inner, 0, 13),
        Op::Truncate(a),
        Op::Remove(a),
        Op::Remove(d),
        Op::Rename(a, b),
        Op::Rename(b, a),
        Op::Rename(a, inner),
        Op::Rename(inner, a),
        Op::Rename(d, b),
        Op::Fsync,
        Op::Round,
    ]
}
