//! Visits every situation a pair can get into within stated bounds, shortest stories first.
//!
//! Breadth first over [`World`]; a situation is remembered by a 64-bit hash (collision odds below 10⁻⁶ in these
//! spaces), and gone on from again only by who reached it having spent less of a bound. **Invariant:** what was not visited is
//! counted and printed: a cut path is never silent.

mod deep;
mod exact;
mod seen;

pub use deep::explore_deep;
pub use exact::exact;

use crate::fingerprint::{SEED, fingerprint};
use crate::world::check::names;
use crate::world::plane::{Mode, Phase};
use crate::world::step::Step;
use crate::world::{Packet, Rules, Set, Who, World, bit, other};
use cluster::mirror::{Command, Timer};
use seen::{Met, Seen};
use std::collections::VecDeque;

/// What may go wrong in a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A node loses power.
    Power,
    /// An agent dies.
    Agent,
    /// A data plane dies.
    Plane,
    /// A node is paused.
    Freeze,
    /// A node's programs hang.
    Hang,
    /// The network between the nodes is cut.
    Link,
    /// The clients' network is cut at one node.
    Clients,
    /// The way of one node to the witness is cut.
    WitnessLink,
    /// The witness stops.
    Witness,
    /// The witness starts again without its memory.
    WitnessMemory,
    /// A message arrives twice.
    Repeat,
    /// A message is lost although the network is whole.
    Loss,
    /// A data plane refuses to open.
    Refusal,
}

/// Where a search begins. What breaks only after a long story is looked for from its middle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// PRIM and SECOND.
    Whole,
    /// node1 is ALONE, wrote w1 and synced it; node2 came back and its resync has begun.
    Resync,
    /// PRIM and SECOND, whose applications take their time to stop.
    Slow,
    /// The `mirrorfs` of node1 died, and node2 yielded: node1 is storing its new epoch.
    Yield,
}

impl Start {
    /// The situation.
    #[must_use]
    pub fn world(self, rules: Rules) -> World {
        let mut world = World::whole(rules);
        let (steps, there): (&[Step], fn(&World) -> bool) = match self {
            Self::Whole => return world,
            Self::Slow => {
                world.nodes.iter_mut().for_each(|node| node.scripts.shall("stop_prim", "hangs"));
                return world;
            }
            Self::Resync => {
                world.make(Step::Cut);
                world.calm(5_000);
                (&[Step::Write(0), Step::Fsync(0), Step::Heal], |world| {
                    matches!(world.mode(0), Some(Mode::Alone(_, Some((.., Phase::Copying)))))
                })
            }
            Self::Yield => (&[Step::PlaneDies(0)], |world| {
                world.nodes[0]
                    .storing
                    .as_ref()
                    .is_some_and(|(_, record)| record.epoch != world.nodes[0].disk_record.epoch)
            }),
        };
        for step in steps {
            assert!(world.make(*step), "{self:?} begins with {step:?}:\n{}", world.describe());
        }
        for _ in 0..100 {
            if there(&world) {
                return world;
            }
            if !world.step_at_once() {
                // A retry of the HELLO, at most.
                world.make(Step::Expire(1, Timer::Hello));
                world.make(Step::Expire(0, Timer::Hello));
            }
        }
        panic!("{self:?} is not reached:\n{}", world.describe());
    }
}

/// Bounds of one search.
#[derive(Clone, Debug)]
pub struct Space {
    /// For people.
    pub name: &'static str,
    /// Laws.
    pub rules: Rules,
    /// Where it begins.
    pub start: Start,
    /// What may go wrong.
    pub faults: Vec<Fault>,
    /// How often, together.
    pub most_faults: u8,
    /// How often one actor may crash (power, agent, data plane, freeze; the witness).
    pub most_crashes: u8,
    /// Writes of the application.
    pub most_writes: u8,
    /// Expiries of retry timers.
    pub most_expiries: u8,
    /// Epochs, from the one the pair begins with.
    pub most_epochs: u64,
    /// Commands an operator may give, each once.
    pub commands: Vec<(Who, Command)>,
    /// Heal every n-th situation and see whether the pair becomes whole (0: never).
    pub heal_every: u64,
    /// Both configurations name another witness, each at any moment.
    pub exchange: bool,
    /// Both configurations have `syncdelta`: a node that waits for a silent one may serve by itself, at any moment.
    pub syncdelta: bool,
    /// Never the heartbeats and the clients' network cut at once (what no protocol without a third vote survives).
    pub one_network_stays: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Spent {
    faults: u8,
    crashes: [u8; 3],
    expiries: u8,
    commands: u8,
    epochs: u8,
}

impl Spent {
    /// With the epochs begun on the way to this situation; `None`: more than the space has.
    fn with_epochs(self, space: &Space, first: u64, world: &World) -> Option<Self> {
        let epochs = highest_epoch(world).saturating_sub(first);
        (epochs < space.most_epochs).then_some(Self { epochs: u8::try_from(epochs).unwrap_or(u8::MAX), ..self })
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Outcome {
    /// Different situations, each checked.
    pub situations: u64,
    /// Steps tried.
    pub steps: u64,
    /// Steps not taken because a bound was reached: epochs.
    pub cut_epochs: u64,
    /// The queue ran empty: everything within the bounds was visited.
    pub exhausted: bool,
    /// Situations healed, and whether each became whole.
    pub healed: u64,
    /// Longest shortest story.
    pub depth: u32,
    /// The shortest story that breaks a promise.
    pub counterexample: Option<String>,
}

struct Visit {
    parent: u32,
    step: Option<Step>,
    depth: u32,
}

/// Searches a space, visiting at most `budget` situations.
#[must_use]
pub fn explore(space: &Space, budget: u64) -> Outcome {
    explore_while(space, budget, &mut |_| true)
}

/// How many situations are looked at between two questions whether to go on.
const ROUND: u64 = 8_192;

/// The same, as long as `go_on` says so; it is asked every few thousand situations.
#[must_use]
pub fn explore_while(space: &Space, budget: u64, go_on: &mut dyn FnMut(&Outcome) -> bool) -> Outcome {
    let mut outcome =
        Outcome { situations: 0, steps: 0, cut_epochs: 0, exhausted: false, healed: 0, depth: 0, counterexample: None };
    let start = space.start.world(space.rules.clone());
    let first_epoch = highest_epoch(&start);
    let mut seen = Seen::default();
    let mut visits = vec![Visit { parent: 0, step: None, depth: 0 }];
    let mut queue = VecDeque::from([(0u32, start.clone(), Spent::default())]);
    seen.meet(fingerprint(&start), &Spent::default());
    let mut expanded = 0u64;
    while let Some((at, world, spent)) = queue.pop_front() {
        expanded += 1;
        outcome.situations = seen.situations() as u64;
        outcome.depth = visits[at as usize].depth;
        if expanded.is_multiple_of(ROUND) && !go_on(&outcome) {
            return outcome;
        }
        if space.heal_every > 0 && expanded.is_multiple_of(space.heal_every) {
            outcome.healed += 1;
            let mut later = world.clone();
            later.heal();
            let ok = later.is_whole() || !must_heal(&world);
            if let Some(what) = later.violation().or_else(|| (!ok).then(|| "P6: does not heal".to_string())) {
                let story = story(space, &visits, at, None);
                let (mut told, mut last) = (String::new(), world.clone());
                last.transcript = Some(vec![]);
                last.heal();
                for (who, sentence) in last.transcript.iter().flatten() {
                    told.push_str(&format!("    node{}: {sentence}\n", who + 1));
                }
                outcome.counterexample =
                    Some(format!("{what}, {}\n{story}  then all faults end:\n{told}{}", space.name, last.describe()));
                return outcome;
            }
        }
        for (step, cost) in steps(space, &world, spent) {
            let mut next = world.clone();
            if !next.make(step) {
                continue;
            }
            outcome.steps += 1;
            let Some(cost) = cost.with_epochs(space, first_epoch, &next) else {
                outcome.cut_epochs += 1;
                continue;
            };
            if seen.meet(fingerprint(&next), &cost) == Met::Known {
                continue;
            }
            if let Some(what) = next.violation() {
                outcome.counterexample =
                    Some(format!("{what}, {}\n{}", space.name, story(space, &visits, at, Some(step))));
                return outcome;
            }
            if seen.situations() as u64 > budget {
                return outcome;
            }
            let depth = visits[at as usize].depth + 1;
            visits.push(Visit { parent: at, step: Some(step), depth });
            queue.push_back((visits.len() as u32 - 1, next, cost));
        }
    }
    outcome.exhausted = true;
    outcome
}

/// A random walk through a space: deep where [`explore`] is broad. The same seed is the same walk.
///
/// # Errors
/// The story of a broken promise, or of a pair that does not become whole after the faults end.
pub fn walk(space: &Space, seed: u64, length: usize) -> Result<usize, String> {
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_add(SEED);
        let x = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as usize
    };
    let (mut world, mut spent) = (space.start.world(space.rules.clone()), Spent::default());
    let mut told = vec![];
    let mut made = 0;
    for _ in 0..length {
        let possible = steps(space, &world, spent);
        let (faulty, sound): (Vec<_>, Vec<_>) = possible.into_iter().partition(|(_, cost)| cost.faults > spent.faults);
        // Faults are many kinds of one step: without a bound on their share nothing else would happen.
        let choice = if !faulty.is_empty() && (sound.is_empty() || next() % 8 == 0) { faulty } else { sound };
        if choice.is_empty() {
            break;
        }
        let (step, cost) = choice[next() % choice.len()];
        let words = describe(&world, step);
        if world.make(step) {
            told.push(words);
            spent = cost;
            made += 1;
        }
        if let Some(what) = world.violation() {
            return Err(format!("{what}, {}, seed {seed}\n  {}\n{}", space.name, told.join("\n  "), world.describe()));
        }
    }
    let mut healed = world.clone();
    healed.heal();
    let whole = healed.is_whole() || !must_heal(&world);
    match healed.violation().or_else(|| (!whole).then(|| "P6: does not heal".to_string())) {
        None => Ok(made),
        Some(what) => Err(format!(
            "{what}, {}, seed {seed}\n  {}\n{}then all faults end:\n{}",
            space.name,
            told.join("\n  "),
            world.describe(),
            healed.describe()
        )),
    }
}

/// L1 and L3 cannot be closed, and a forced split may need a person: elsewhere the pair heals by itself.
fn must_heal(world: &World) -> bool {
    !world.ghost.forced && world.nodes.iter().all(|node| node.wanted)
}

fn steps(space: &Space, world: &World, spent: Spent) -> Vec<(Step, Spent)> {
    let mut out = Vec::with_capacity(24);
    let mut free = |step: Step| {
        if world.may(step) {
            out.push((step, spent));
        }
    };
    for i in 0..world.packets.len() {
        free(Step::Deliver(i as u8));
    }
    for who in [0, 1] {
        for step in [
            Step::Stored(who),
            Step::Hear(who),
            Step::Silent(who),
            Step::Connect(who),
            Step::Copied(who),
            Step::CommitArrives(who),
            Step::CommittedArrives(who),
            Step::Apply(who),
            Step::Acknowledge(who),
            Step::LinkLost(who),
            Step::LeaseLapses(who),
            Step::PowerOn(who),
            Step::AgentStarts(who),
            Step::Thaw(who),
            Step::Unhang(who),
            Step::HealClients(who),
            Step::Opens(who),
            Step::HealWitness(who),
            Step::ScriptTimesOut(who),
        ] {
            free(step);
        }
        if !space.rules.witness {
            free(Step::WindowPasses(who));
            free(Step::Expire(who, Timer::Alone));
            free(Step::Expire(who, Timer::Store));
        }
        if world.pulse_matters(who) {
            free(Step::Pulse(who));
        }
        if world.ghost.made < space.most_writes {
            free(Step::Write(who));
        }
        if world.ghost.made > 0 {
            free(Step::Fsync(who));
        }
    }
    if space.exchange {
        free(Step::Configure(0));
        free(Step::Configure(1));
    }
    free(Step::Heal);
    free(Step::WitnessStarts);
    if spent.expiries < space.most_expiries {
        let cost = Spent { expiries: spent.expiries + 1, ..spent };
        for who in [0, 1] {
            for timer in TRIED {
                if world.agent_runs(who) && world.nodes[who].timers & bit(timer) != 0 && !pointless(world, who, timer) {
                    out.push((Step::Expire(who, timer), cost));
                }
            }
        }
    }
    for (place, (who, command)) in space.commands.iter().enumerate() {
        if spent.commands & (1 << place) == 0 && world.may(Step::Command(*who, *command)) {
            out.push((Step::Command(*who, *command), Spent { commands: spent.commands | (1 << place), ..spent }));
        }
    }
    if space.syncdelta {
        [0, 1]
            .map(Step::Syncdelta)
            .into_iter()
            .filter(|step| world.may(*step))
            .for_each(|step| out.push((step, spent)));
    }
    if spent.faults < space.most_faults {
        faults(space, world, spent, &mut out);
    }
    out
}

/// What the timer waits for is still on its way: its answer would come late, which the other order shows as well.
fn pointless(world: &World, who: Who, timer: Timer) -> bool {
    match timer {
        Timer::Hello => world.packets.iter().any(|packet| matches!(packet, Packet::Peer(to, _) if *to == other(who))),
        _ => false,
    }
}

fn faults(space: &Space, world: &World, spent: Spent, out: &mut Vec<(Step, Spent)>) {
    let dear = Spent { faults: spent.faults + 1, ..spent };
    let crash = |actor: usize| {
        let mut cost = dear;
        cost.crashes[actor] += 1;
        (cost.crashes[actor] <= space.most_crashes).then_some(cost)
    };
    let mut add = |step: Step, cost: Option<Spent>| {
        if let Some(cost) = cost
            && world.may(step)
        {
            out.push((step, cost));
        }
    };
    for fault in &space.faults {
        for who in [0, 1] {
            match fault {
                Fault::Power => {
                    for stored in [false, true] {
                        for kept in subsets(world.nodes[who].tree & !world.nodes[who].disk) {
                            add(Step::PowerCut(who, kept, stored), crash(who));
                        }
                    }
                }
                Fault::Agent => {
                    for stored in [false, true] {
                        add(Step::AgentDies(who, stored), crash(who));
                    }
                }
                Fault::Plane => {
                    add(Step::PlaneDies(who), crash(who));
                    add(Step::PlaneReplaced(who), crash(who));
                }
                Fault::Freeze => add(Step::Freeze(who), crash(who)),
                Fault::Hang => add(Step::Hang(who), crash(who)),
                Fault::Clients if !(space.one_network_stays && world.cut) => add(Step::CutClients(who), Some(dear)),
                Fault::WitnessLink => add(Step::CutWitness(who), Some(dear)),
                Fault::Refusal => add(Step::Refuses(who), Some(dear)),
                _ => {}
            }
        }
        match fault {
            Fault::Link if !(space.one_network_stays && world.nodes.iter().any(|node| node.client_cut)) => {
                add(Step::Cut, Some(dear));
            }
            Fault::Witness => add(Step::WitnessStops, crash(2)),
            Fault::WitnessMemory => add(Step::WitnessForgets, Some(dear)),
            Fault::Repeat => {
                for i in 0..world.packets.len() {
                    add(Step::Repeat(i as u8), Some(dear));
                }
            }
            Fault::Loss => {
                for i in 0..world.packets.len() {
                    add(Step::Lose(i as u8), Some(dear));
                }
            }
            _ => {}
        }
    }
}

fn subsets(of: Set) -> Vec<Set> {
    (0..=of).filter(|set| set & !of == 0).collect()
}

fn highest_epoch(world: &World) -> u64 {
    world.nodes.iter().filter_map(|node| node.disk_record.epoch).map(|epoch| epoch.counter).max().unwrap_or(0)
}

/// The steps from the beginning, in words.
fn story(space: &Space, visits: &[Visit], at: u32, last: Option<Step>) -> String {
    let mut steps: Vec<Step> = last.into_iter().collect();
    let mut at = at as usize;
    while let Some(step) = visits[at].step {
        steps.push(step);
        at = visits[at].parent as usize;
    }
    steps.reverse();
    let mut world = space.start.world(space.rules.clone());
    let mut text = format!("  in {} steps:\n{}", steps.len(), world.describe());
    for (number, step) in steps.into_iter().enumerate() {
        text.push_str(&format!("{:3}. {}\n", number + 1, describe(&world, step)));
        world.transcript = Some(vec![]);
        world.make(step);
        for (who, sentence) in world.transcript.take().into_iter().flatten() {
            text.push_str(&format!("       node{}: {sentence}\n", who + 1));
        }
    }
    text.push_str(&world.describe());
    text
}

/// A step, for a person.
#[must_use]
pub fn describe(world: &World, step: Step) -> String {
    use crate::world::describe_packet;
    let packet = |i: u8| world.packets.get(usize::from(i)).map_or_else(|| "nothing".to_string(), describe_packet);
    match step {
        Step::Deliver(i) => format!("arrives: {}", packet(i)),
        Step::Repeat(i) => format!("arrives, and will arrive again: {}", packet(i)),
        Step::Lose(i) => format!("is lost: {}", packet(i)),
        Step::PowerCut(who, kept, stored) => format!(
            "node{} loses power; of what was not synced [{}] survives{}",
            who + 1,
            names(kept),
            if stored { "; the record it was storing is on disk" } else { "" }
        ),
        Step::Write(who) => format!("node{}: the application writes w{}", who + 1, world.ghost.made + 1),
        Step::Apply(who) => format!("node{} applies what node{} sent", other(who) + 1, who + 1),
        Step::Acknowledge(who) => format!("node{} hears the acknowledgement", who + 1),
        Step::AgentDies(who, _) => format!("the agent of node{} dies", who + 1),
        Step::Command(who, command) => format!("operator on node{}: {command:?}", who + 1),
        Step::Syncdelta(who) => format!("node{}: the order of syncdelta to serve", who + 1),
        Step::Cut => "the network between the nodes is cut".to_string(),
        Step::Heal => "the network between the nodes is whole again".to_string(),
        other => format!("{other:?}").replace("(0", "(node1").replace("(1", "(node2"),
    }
}

/// Retry timers, each expiry of which is counted.
pub(crate) const TRIED: [Timer; 7] =
    [Timer::Hello, Timer::Question, Timer::Probe, Timer::Revalidate, Timer::Aside, Timer::Link, Timer::Exchange];
