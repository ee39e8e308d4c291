//! Which spaces are searched: in every test run, and for hours.
//!
//! Each bound is written down here; what a space does not contain is not claimed anywhere.

use crate::explore::{Fault, Space, Start};
use crate::world::{Asks, Broken, Chosen, Rules};
use cluster::mirror::Command;

/// A space, how many situations may be visited, and how many must be.
#[derive(Debug)]
pub struct Search {
    /// The bounds.
    pub space: Space,
    /// Most situations visited.
    pub budget: u64,
    /// Fewer than this means that the search has become blind.
    pub at_least: u64,
    /// The queue must run empty: every situation within the bounds was visited.
    pub exhaustive: bool,
}

/// A rule broken on purpose, and where its absence is found.
#[derive(Debug)]
pub struct Mutation {
    /// The rule.
    pub broken: Broken,
    /// Where.
    pub space: Space,
    /// Within so many situations.
    pub budget: u64,
}

struct Bounds {
    witness: bool,
    in_flight: usize,
    most_faults: u8,
    most_writes: u8,
    most_expiries: u8,
}

fn space(name: &'static str, faults: &[Fault], commands: &[(usize, Command)], bounds: &Bounds) -> Space {
    Space {
        name,
        rules: Rules {
            witness: bounds.witness,
            in_flight: bounds.in_flight,
            broken: None,
            chosen: Chosen::Nothing,
            asks: Asks::Alive,
        },
        start: Start::Whole,
        faults: faults.to_vec(),
        most_faults: bounds.most_faults,
        most_crashes: 2,
        most_writes: bounds.most_writes,
        most_expiries: bounds.most_expiries,
        most_epochs: 3,
        commands: commands.to_vec(),
        heal_every: 100,
        exchange: false,
        syncdelta: false,
        one_network_stays: true,
    }
}

const fn bounds(witness: bool, in_flight: usize, most_faults: u8, most_writes: u8, most_expiries: u8) -> Bounds {
    Bounds { witness, in_flight, most_faults, most_writes, most_expiries }
}

const STOP_START: [(usize, Command); 4] =
    [(0, Command::Stop), (0, Command::Start), (1, Command::Stop), (1, Command::Start)];

fn exchanging(mut space: Space) -> Space {
    space.exchange = true;
    space
}

/// What waits for an operator does not become whole by itself.
fn choosing(chosen: Chosen, mut space: Space) -> Space {
    space.rules.chosen = chosen;
    if chosen == Chosen::FailoverOff {
        space.heal_every = 0;
    }
    space
}

/// A complete copy may serve by itself when the other node is silent.
fn allowing(mut space: Space) -> Space {
    space.syncdelta = true;
    space
}

fn from(start: Start, mut space: Space) -> Space {
    space.start = start;
    space
}

/// What `cargo test -p sim` searches: some minutes on one core.
#[must_use]
pub fn standard() -> Vec<Search> {
    use Fault::*;
    let whole = |space, at_least| Search { space, budget: 3 * at_least, at_least, exhaustive: true };
    let first = |space, budget: u64| Search { space, budget, at_least: budget / 10 * 9, exhaustive: false };
    vec![
        whole(space("witness; one power cut, one write", &[Power], &[], &bounds(true, 3, 1, 1, 1)), 332_000),
        whole(space("no witness; one power cut, one write", &[Power], &[], &bounds(false, 3, 1, 1, 1)), 105_000),
        whole(space("no witness; two power cuts", &[Power], &[], &bounds(false, 2, 2, 0, 0)), 172_000),
        whole(
            allowing(space("no witness; syncdelta, two power cuts", &[Power], &[], &bounds(false, 2, 2, 0, 0))),
            200_000,
        ),
        first(
            allowing(space(
                "no witness; syncdelta, two power cuts, one write",
                &[Power],
                &[],
                &bounds(false, 2, 2, 1, 0),
            )),
            300_000,
        ),
        whole(space("witness; one cut of the network, one write", &[Link], &[], &bounds(true, 4, 1, 1, 0)), 23_000),
        whole(space("no witness; one cut of the network, one write", &[Link], &[], &bounds(false, 3, 1, 1, 1)), 66_000),
        whole(
            space(
                "witness; two cuts, of the network or of the way to the witness",
                &[Link, WitnessLink],
                &[],
                &bounds(true, 2, 2, 0, 0),
            ),
            195_000,
        ),
        whole(
            space(
                "no witness; two cuts, of the network or of the clients' (never both at once)",
                &[Link, Clients],
                &[],
                &bounds(false, 2, 2, 0, 0),
            ),
            141_000,
        ),
        whole(
            space(
                "witness; death of an agent or of a mirrorfs, one write",
                &[Agent, Plane],
                &[],
                &bounds(true, 3, 1, 1, 1),
            ),
            296_000,
        ),
        whole(
            space(
                "no witness; death of an agent or a mirrorfs, pause, hanging programs; one write",
                &[Agent, Plane, Freeze, Hang],
                &[],
                &bounds(false, 3, 1, 1, 1),
            ),
            119_000,
        ),
        whole(
            space(
                "witness; pause, witness stops, forgets, is cut off; one write",
                &[Freeze, Witness, WitnessMemory, WitnessLink],
                &[],
                &bounds(true, 3, 1, 1, 1),
            ),
            75_000,
        ),
        whole(space("witness; swap, one cut", &[Link], &[(0, Command::Swap)], &bounds(true, 2, 1, 0, 0)), 48_000),
        first(
            space(
                "witness; swap, a data plane that refuses to open, a cut of the network; one write",
                &[Refusal, Link],
                &[(0, Command::Swap)],
                &bounds(true, 2, 2, 1, 0),
            ),
            100_000,
        ),
        first(
            space(
                "no witness; swap, a data plane that refuses to open, a power cut; one write",
                &[Refusal, Power],
                &[(0, Command::Swap)],
                &bounds(false, 2, 2, 1, 0),
            ),
            100_000,
        ),
        whole(
            exchanging(space(
                "witness; exchanged for another, one cut of the network",
                &[Link],
                &[],
                &bounds(true, 2, 1, 0, 0),
            )),
            81_000,
        ),
        whole(
            space("no witness; swap, one power cut", &[Power], &[(0, Command::Swap)], &bounds(false, 2, 1, 0, 0)),
            60_000,
        ),
        whole(
            space("no witness; stop and start of both, one write", &[], &STOP_START, &bounds(false, 2, 0, 1, 0)),
            129_000,
        ),
        whole(space("witness; stop and start of both", &[], &STOP_START, &bounds(true, 2, 0, 0, 0)), 27_000),
        whole(
            space(
                "no witness; prim --force on node2 at any moment, one cut, one write",
                &[Link],
                &[(1, Command::Prim { force: true, full: false })],
                &bounds(false, 2, 1, 1, 0),
            ),
            47_000,
        ),
        whole(
            choosing(
                Chosen::FailoverOff,
                space(
                    "no witness; failover=\"off\", one power cut or cut of the network, prim on node2 at any moment, one write",
                    &[Power, Link],
                    &[(1, Command::Prim { force: false, full: false })],
                    &bounds(false, 2, 1, 1, 0),
                ),
            ),
            85_000,
        ),
        whole(
            choosing(
                Chosen::FailoverOff,
                space("witness; failover=\"off\", two cuts of the network", &[Link], &[], &bounds(true, 2, 2, 0, 0)),
            ),
            15_000,
        ),
        whole(
            choosing(
                Chosen::Node1,
                space(
                    "no witness; defaultprim=\"node1\", one power cut, one write",
                    &[Power],
                    &[],
                    &bounds(false, 2, 1, 1, 0),
                ),
            ),
            29_000,
        ),
        whole(
            choosing(
                Chosen::LastPrim,
                space(
                    "witness; defaultprim=\"lastprim\", one power cut or cut of the network",
                    &[Power, Link],
                    &[],
                    &bounds(true, 2, 1, 0, 0),
                ),
            ),
            10_000,
        ),
        first(
            from(
                Start::Resync,
                space("witness; from the middle of a resync: two power cuts", &[Power], &[], &bounds(true, 2, 2, 1, 0)),
            ),
            200_000,
        ),
        first(
            from(
                Start::Yield,
                space(
                    "witness; after a yield: a cut of the network, a death of an agent",
                    &[Link, Agent],
                    &[],
                    &bounds(true, 2, 2, 0, 0),
                ),
            ),
            200_000,
        ),
        first(
            from(
                Start::Slow,
                space(
                    "no witness; applications slow to stop: stop and start of both, a power cut, one write",
                    &[Power],
                    &STOP_START,
                    &bounds(false, 2, 1, 1, 0),
                ),
            ),
            200_000,
        ),
        first(
            from(
                Start::Slow,
                space(
                    "witness; applications slow to stop: swap, stop of node2, a cut or a death of an agent",
                    &[Link, Agent],
                    &[(0, Command::Swap), (1, Command::Stop)],
                    &bounds(true, 2, 1, 0, 0),
                ),
            ),
            200_000,
        ),
        first(
            space(
                "witness; three faults of any kind, two writes",
                &[Power, Agent, Plane, Freeze, Link, WitnessLink, Witness, WitnessMemory, Repeat, Loss],
                &[],
                &bounds(true, 4, 3, 2, 2),
            ),
            300_000,
        ),
        first(
            space(
                "no witness; three faults of any kind (never both networks cut), two writes",
                &[Power, Agent, Plane, Freeze, Hang, Link, Clients, Repeat, Loss],
                &[],
                &bounds(false, 4, 3, 2, 2),
            ),
            300_000,
        ),
    ]
}

/// What `cargo xtask soak` adds: each to `budget` situations.
#[must_use]
pub fn large(budget: u64) -> Vec<Search> {
    use Fault::*;
    let first = |space| Search { space, budget, at_least: 0, exhaustive: false };
    vec![
        first(space(
            "witness; two power cuts or cuts of the network, one write",
            &[Power, Link],
            &[],
            &bounds(true, 3, 2, 1, 1),
        )),
        first(space(
            "no witness; two power cuts or cuts of the network, one write",
            &[Power, Link],
            &[],
            &bounds(false, 3, 2, 1, 1),
        )),
        first(space(
            "witness; the network cut twice, messages lost or repeated",
            &[Link, Repeat, Loss],
            &[],
            &bounds(true, 3, 3, 0, 1),
        )),
        first(space(
            "witness; it loses its memory, the network is cut, a node loses power",
            &[WitnessMemory, Witness, Link, Power],
            &[],
            &bounds(true, 3, 3, 1, 0),
        )),
        first(space("no witness; pauses and cuts", &[Freeze, Link, Clients], &[], &bounds(false, 3, 3, 1, 1))),
        first(space("witness; swap, power cut, cut", &[Power, Link], &[(0, Command::Swap)], &bounds(true, 3, 2, 1, 1))),
        first(space(
            "no witness; stop and start of both, power cut",
            &[Power],
            &STOP_START,
            &bounds(false, 3, 1, 1, 0),
        )),
        first(space(
            "witness; four faults of any kind",
            &[Power, Agent, Plane, Freeze, Hang, Link, WitnessLink, Witness, WitnessMemory, Repeat, Loss],
            &[],
            &bounds(true, 4, 4, 2, 3),
        )),
    ]
}

/// The large spaces of `cargo xtask soak --explore`. First two power cuts of each node, and of the witness two stops; then those that
/// the design's model was searched in (protocol.md §4); then the widest, which no machine exhausts: two crashes of every actor, of any
/// kind, with four messages on their way, lost and repeated. A run says how far it came.
#[must_use]
pub fn crashes() -> Vec<Space> {
    use Fault::*;
    const POWER_AND_LINKS: [Fault; 3] = [Power, Link, WitnessLink];
    let plain = |name, faults: &[Fault], bounds: Bounds| space(name, faults, &[], &bounds);
    let commanded =
        |name, commands: &[(usize, Command)], bounds: Bounds| space(name, &POWER_AND_LINKS, commands, &bounds);
    vec![
        plain("no witness; two power cuts of each node", &[Power], bounds(false, 2, 4, 0, 0)),
        plain(
            "witness; two power cuts of each node, two stops of the witness",
            &[Power, Witness],
            bounds(true, 2, 6, 0, 0),
        ),
        plain("witness; two power cuts or cuts of any way, two writes", &POWER_AND_LINKS, bounds(true, 2, 2, 2, 0)),
        plain("witness; three power cuts or cuts of any way, one write", &POWER_AND_LINKS, bounds(true, 2, 3, 1, 0)),
        plain(
            "witness; it forgets, power cuts and cuts of any way: two, one write",
            &[Power, Link, WitnessLink, WitnessMemory],
            bounds(true, 2, 2, 1, 0),
        ),
        plain(
            "witness; two faults of any kind, one write",
            &[Power, Link, WitnessLink, Agent, Plane, Freeze, Witness, WitnessMemory],
            bounds(true, 2, 2, 1, 0),
        ),
        commanded(
            "witness; swap at any moment, power cuts and cuts of any way: two",
            &[(0, Command::Swap)],
            bounds(true, 2, 2, 1, 0),
        ),
        commanded(
            "witness; force at any moment, power cuts and cuts of any way: two",
            &[(1, Command::Prim { force: true, full: false })],
            bounds(true, 2, 2, 1, 0),
        ),
        plain(
            "no witness; three faults of any kind (never both networks cut), two writes",
            &[Power, Link, Clients, Freeze, Agent, Plane],
            bounds(false, 2, 3, 2, 0),
        ),
        exchanging(plain(
            "witness; exchanged for another at any moment; three crashes, cuts, lost or repeated messages",
            &[Power, Agent, Link, Loss, Repeat],
            bounds(true, 3, 3, 0, 1),
        )),
        plain(
            "no witness; two crashes of each node of any kind, messages lost and repeated, one write",
            &[Power, Agent, Plane, Freeze, Hang, Repeat, Loss],
            bounds(false, 4, 6, 1, 1),
        ),
        plain(
            "witness; two crashes of every actor of any kind, messages lost and repeated, one write",
            &[Power, Agent, Plane, Freeze, Hang, Witness, Repeat, Loss],
            bounds(true, 4, 8, 1, 1),
        ),
    ]
}

/// Where random walks go: every kind of fault, more of them, more writes.
#[must_use]
pub fn wild() -> Vec<Space> {
    use Fault::*;
    let mut with = space(
        "witness; random walk",
        &[Power, Agent, Plane, Freeze, Hang, Link, WitnessLink, Witness, Repeat, Loss],
        &[(0, Command::Swap), (1, Command::StopStart)],
        &bounds(true, 6, 5, 5, 12),
    );
    let mut without = space(
        "no witness; random walk",
        &[Power, Agent, Plane, Freeze, Hang, Link, Clients, Repeat, Loss],
        &[(0, Command::Swap), (1, Command::StopStart)],
        &bounds(false, 6, 4, 5, 12),
    );
    with.most_epochs = 100;
    without.most_epochs = 100;
    vec![with, without]
}

/// Rules broken on purpose: an explorer that cannot fail is a defect.
#[must_use]
pub fn mutations() -> Vec<Mutation> {
    use Fault::*;
    let mutation = |broken, faults: &[Fault], bounds: Bounds, budget| {
        let mut space = space("a rule is broken on purpose", faults, &[], &bounds);
        space.rules.broken = Some(broken);
        space.heal_every = 0;
        Mutation { broken, space, budget }
    };
    let midway = |start, broken, faults: &[Fault], bounds| {
        let mutation = mutation(broken, faults, bounds, 100_000);
        Mutation { space: from(start, mutation.space), ..mutation }
    };
    vec![
        // R8 shows only in what was synced alone (else R1 and L2 excuse it), and R14 only when the one that yielded has
        // forgotten it and is cut off: 25 steps and more from a whole pair, so both are looked for from the middle of their story.
        midway(Start::Resync, Broken::R8TargetNotSynced, &[Power], bounds(true, 2, 2, 1, 0)),
        midway(Start::Yield, Broken::R14YieldNotStored, &[Link, Agent], bounds(true, 2, 2, 0, 0)),
        mutation(Broken::R1CrashUnnoticed, &[Power], bounds(false, 2, 1, 1, 0), 100_000),
        mutation(Broken::R4NoSync, &[Power, Link], bounds(true, 2, 2, 1, 0), 1_000_000),
        mutation(Broken::R5EvictedOnAck, &[Power], bounds(false, 2, 2, 1, 0), 1_000_000),
        mutation(Broken::R5TargetNotAsked, &[Power], bounds(false, 2, 2, 1, 0), 1_000_000),
        mutation(Broken::R7StillAlone, &[Power], bounds(false, 2, 2, 1, 0), 500_000),
        mutation(Broken::R10AnyAnswer, &[Power, Link], bounds(true, 2, 2, 1, 0), 500_000),
        mutation(Broken::R15EmptyGrants, &[WitnessMemory, Witness, Link], bounds(true, 2, 3, 1, 0), 300_000),
        {
            let mutation = mutation(Broken::R16OneStep, &[Link], bounds(true, 2, 1, 0, 0), 300_000);
            Mutation { space: exchanging(mutation.space), ..mutation }
        },
        mutation(Broken::R18NoWindow, &[Power, Link], bounds(false, 2, 3, 1, 0), 500_000),
        mutation(Broken::R20BelievesDisk, &[Power, Agent], bounds(true, 2, 2, 1, 0), 500_000),
        {
            let mutation = mutation(Broken::SyncdeltaAnyCopy, &[Power], bounds(false, 2, 2, 1, 0), 500_000);
            Mutation { space: allowing(mutation.space), ..mutation }
        },
        {
            let mutation = mutation(Broken::LoserNotKept, &[Link], bounds(false, 2, 1, 1, 1), 500_000);
            let forced = [(1, Command::Prim { force: true, full: false })];
            Mutation { space: Space { commands: forced.to_vec(), ..mutation.space }, ..mutation }
        },
    ]
}
