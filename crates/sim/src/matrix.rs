//! Who serves when networks are cut: every pair of "what is cut" and "what arbitrates", asked from the automata, as markdown.
//!
//! Each cell is one run of the model on its virtual clock: a whole pair, the cut, a write on every node that still takes one,
//! half a minute, then all is healed. What depends on the order of messages is the explorer's.

use crate::world::step::Step;
use crate::world::{Asks, Chosen, Rules, World};
use model::{ModuleState, Status};
use std::fmt::Write as _;

/// Long enough for every timeout of the design.
const LONG_MS: u64 = 30_000;

/// What is cut: words, and the steps that do it.
///
/// A link counts only where both directions are heard (`cluster::detector`), and what is not heartbeats needs both: one direction that is
/// cut is the same as both, and stands beside it so that nobody has to know.
const CUTS: [(&str, &[Step]); 13] = [
    ("one of two networks between the nodes", &[]),
    ("every network between the nodes; clients reach both", &[Step::Cut]),
    ("one direction between the nodes: the primary hears nothing", &[Step::Cut]),
    ("one direction between the nodes: the secondary hears nothing", &[Step::Cut]),
    ("the clients' side only: the primary's", &[Step::CutClients(0)]),
    ("the clients' side only: the secondary's", &[Step::CutClients(1)]),
    ("the clients' side only: of both", &[Step::CutClients(0), Step::CutClients(1)]),
    ("the primary is isolated: every network", &[Step::Cut, Step::CutClients(0), Step::CutWitness(0)]),
    ("the secondary is isolated: every network", &[Step::Cut, Step::CutClients(1), Step::CutWitness(1)]),
    (
        "every network between the nodes, and both from their clients",
        &[Step::Cut, Step::CutClients(0), Step::CutClients(1)],
    ),
    ("every network between them, and the primary's way to the witness", &[Step::Cut, Step::CutWitness(0)]),
    ("every network between them, and the secondary's way to the witness", &[Step::Cut, Step::CutWitness(1)]),
    ("the primary loses power", &[Step::PowerCut(0, 0, false)]),
];

/// What arbitrates: in words; a witness; it lives; what a node without one can ask.
const ARBITERS: [(&str, bool, bool, Asks); 5] = [
    ("none, nothing to ask", false, true, Asks::Nothing),
    ("split-brain checker, or gateway", false, true, Asks::Alive),
    ("split-brain checker that is dead", false, true, Asks::Dead),
    ("witness", true, true, Asks::Alive),
    ("witness that is dead", true, false, Asks::Alive),
];

/// One cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What both are after the cut; `None`: no power.
    pub states: [Option<(ModuleState, Status)>; 2],
    /// Who lets applications write after it.
    pub serves: [bool; 2],
    /// After the repair: PRIM and SECOND.
    pub heals: bool,
    /// Acknowledged before or after the cut, and not there after the repair.
    pub lost: u32,
}

impl Outcome {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        let state = |who: usize| {
            self.states[who].map_or_else(|| "off".to_string(), |(state, status)| format!("{state} {status}"))
        };
        let serves = match self.serves {
            [true, true] => "**both serve**",
            [true, false] => "the primary serves on",
            [false, true] => "the secondary takes over",
            [false, false] => "nobody serves",
        };
        let heals = match (self.heals, self.lost) {
            (true, 0) => "",
            (true, _) => "; the loser's writes go to its quarantine",
            (false, _) => "; needs a person afterwards",
        };
        format!("{serves} ({}, {}){heals}", state(0), state(1))
    }
}

/// Plays one cell.
#[must_use]
pub fn play(cut: &[Step], witness: bool, alive: bool, asks: Asks) -> Outcome {
    let mut world = World::whole(Rules { witness, in_flight: 8, broken: None, chosen: Chosen::Nothing, asks });
    if !alive {
        world.make(Step::WitnessStops);
        world.calm(LONG_MS);
    }
    world.make(Step::Write(0));
    world.calm(1_000);
    for step in cut {
        world.make(*step);
    }
    world.calm(LONG_MS);
    let states = [0, 1].map(|who| world.agent(who).map(|agent| (agent.view().state, agent.view().status)));
    // A write counts as taken when it is acknowledged.
    let serves = [0, 1].map(|who| {
        let before = world.ghost.acked;
        world.make(Step::Write(who)) && {
            world.calm(1_000);
            world.ghost.acked != before
        }
    });
    let acked = world.ghost.acked;
    world.heal();
    let heals = world.is_whole();
    let kept = world.nodes[0].tree & world.nodes[1].tree;
    Outcome { states, serves, heals, lost: (acked & !kept).count_ones() }
}

/// `docs/arbitration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Who serves when something is cut\n\n\
         Printed from the automata by `UPDATE=1 cargo test -p sim --test matrix`; a test fails when this page is stale.\n\
         The pair was PRIM / SECOND; each cell says who serves half a minute after the cut, and what primary\n\
         and secondary are then. Nothing acknowledged is lost\n\
         and the pair becomes whole by itself when everything is repaired, except where the cell says otherwise.\n\
         A link counts only where both directions are heard, so a cut of one direction is a cut. Whether clients\n\
         reach the primary is not the pair's question: a checker of the interface, or a `ping` of something on their side, moves the\n\
         service then (the book, *What is watched*).\n\n\
         What a node without a witness asks before it takes over: the addresses of `<splitbrain>`; without them, the default gateway; without one, nothing.\n\
         The answer can only forbid. Where both nodes reach the witness and it has heard the primary since the secondary lost it, the\n\
         secondary is refused for up to a second, so that the primary, which asks at the same time, serves on. With a timeout below\n\
         some 700 ms the witness may not have heard it yet; then whoever asks first serves, and nothing is lost. A cut of one direction\n\
         leaves the clients' network whole here; where clients and heartbeats have one network, a secondary that hears nothing takes over, and the\n\
         primary, which hears that, gives way to it. The secondary that loses power is the row of its isolation; cells confirmed in a lab are named in\n\
         [ACCEPTANCE.md](ACCEPTANCE.md).\n\n",
    );
    let heads: Vec<_> = ARBITERS.iter().map(|(name, ..)| *name).collect();
    let _ = writeln!(text, "| what is cut | {} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for (words, cut) in CUTS {
        let cells = ARBITERS.map(|(_, witness, alive, asks)| play(cut, witness, alive, asks).words());
        let _ = writeln!(text, "| {words} | {} |", cells.join(" | "));
    }
    text
}

/// All cells: what is cut, what arbitrates, and what follows.
#[must_use]
pub fn cells() -> Vec<(&'static str, &'static str, Outcome)> {
    let of = |(words, cut): (&'static str, &'static [Step])| {
        ARBITERS.map(|(arbiter, witness, alive, asks)| (words, arbiter, play(cut, witness, alive, asks)))
    };
    CUTS.into_iter().flat_map(of).collect()
}
