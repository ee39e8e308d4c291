//! The farm, explored: every situation that three nodes can get into within stated bounds, and long random games of more.
//!
//! Everything that decides is `cluster::farm::member` and `cluster::farm::order`. A network delivers what a node said *some time ago* (one word per direction is under
//! way), in any order between nodes; links are cut one by one, so that hearing is not transitive; nodes lose power and their memory.
//! **Invariant:** what was not visited is counted and said.

use cluster::farm::member::{Action, Event, Member};
use cluster::farm::module::{Action as Done, Timer};
use cluster::farm::order::Order;
use model::NodeId;
use model::farm::{NodeSet, View, Wish, Word};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A word of the first sets out to the second: what it says now.
    Send(usize, usize),
    /// It arrives.
    Deliver(usize, usize),
    /// The first notices that the second is silent.
    Notice(usize, usize),
    /// The cable between two is cut, or whole again.
    Cut(usize, usize),
    /// See above.
    Join(usize, usize),
    /// Loses power.
    Off(usize),
    /// Boots, and its module starts.
    On(usize),
    /// Does not run for a while, and remembers all when it goes on: others may have missed it, or not.
    Sleep(usize),
    /// See above.
    Wake(usize),
    /// The others had their time to act on a view of this node's making.
    Expire(usize),
    /// An operator's wish.
    Wish(usize, Wish),
}

impl Step {
    /// Something that somebody or something does to the farm, and that is counted.
    const fn is_fault(self) -> bool {
        !matches!(self, Self::Send(..) | Self::Deliver(..) | Self::Notice(..) | Self::Expire(..) | Self::Wake(_))
    }
}

/// A farm.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Farm {
    nodes: Vec<Option<Member>>,
    /// What each node's filter decides by.
    orders: Vec<Order>,
    /// What each node believes of the others' life, as its detector has said it.
    hears: Vec<NodeSet>,
    knows: Vec<NodeSet>,
    starts: Vec<u32>,
    asleep: NodeSet,
    /// Pairs whose cable is cut, smaller first.
    cut: Vec<(usize, usize)>,
    /// Words under way, by (from, to).
    under_way: Vec<Option<Word>>,
    /// What arrived last, so that nothing is sent twice.
    arrived: Vec<Option<Word>>,
}

const fn id(node: usize) -> NodeId {
    NodeId(node as u16 + 1)
}

impl Farm {
    /// All off.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            nodes: vec![None; count],
            orders: vec![Order::default(); count],
            hears: vec![NodeSet::EMPTY; count],
            knows: vec![NodeSet::EMPTY; count],
            starts: vec![0; count],
            asleep: NodeSet::EMPTY,
            cut: vec![],
            under_way: vec![None; count * count],
            arrived: vec![None; count * count],
        }
    }

    /// All on, in one view.
    ///
    /// # Panics
    /// When they do not come together.
    #[must_use]
    pub fn whole(count: usize) -> Self {
        let mut farm = Self::new(count);
        for node in 0..count {
            farm.make(Step::On(node)).expect("boots");
        }
        farm.heal(false).expect("comes together");
        farm
    }

    fn count(&self) -> usize {
        self.nodes.len()
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.count();
        (0..count).flat_map(move |a| (0..count).filter(move |b| *b != a).map(move |b| (a, b)))
    }

    fn is_connected(&self, a: usize, b: usize) -> bool {
        let runs = |node: usize| self.nodes[node].is_some() && !self.asleep.has(id(node));
        runs(a) && runs(b) && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.count() + to
    }

    /// What may happen now. Words that say nothing new are not sent.
    fn possible(&self, faults: &[Fault]) -> Vec<Step> {
        let mut steps = Vec::new();
        for (a, b) in self.pairs() {
            let at = self.at(a, b);
            if self.is_connected(a, b) {
                let word = self.nodes[a].as_ref().map(Member::word);
                let is_news = !self.hears[b].has(id(a)) || self.arrived[at] != word;
                if is_news && self.under_way[at] != word {
                    steps.push(Step::Send(a, b));
                }
                if self.under_way[at].is_some() {
                    steps.push(Step::Deliver(a, b));
                }
            } else if self.nodes[a].is_some()
                && !self.asleep.has(id(a))
                && (self.hears[a].has(id(b)) || !self.knows[a].has(id(b)))
            {
                steps.push(Step::Notice(a, b));
            }
            if a < b && faults.contains(&Fault::Cable) {
                steps.push(if self.cut.contains(&(a, b)) { Step::Join(a, b) } else { Step::Cut(a, b) });
            }
        }
        for node in 0..self.count() {
            if self.asleep.has(id(node)) {
                steps.push(Step::Wake(node));
                continue;
            }
            if faults.contains(&Fault::Sleep) && self.nodes[node].is_some() {
                steps.push(Step::Sleep(node));
            }
            if self.orders[node].pending().is_some() {
                steps.push(Step::Expire(node));
            }
            if faults.contains(&Fault::Power) {
                steps.push(if self.nodes[node].is_some() { Step::Off(node) } else { Step::On(node) });
            }
            if faults.contains(&Fault::Operator)
                && let Some(member) = &self.nodes[node]
            {
                steps.extend(match member.wish() {
                    Wish::In => [Wish::Drain, Wish::Out].map(|wish| Step::Wish(node, wish)).to_vec(),
                    Wish::Drain => vec![Step::Wish(node, Wish::Out)],
                    Wish::Out => vec![Step::Wish(node, Wish::In)],
                });
            }
        }
        steps
    }

    /// Does it, and checks what must hold after every step.
    ///
    /// # Errors
    /// The broken rule.
    pub fn make(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Send(a, b) => {
                let at = self.at(a, b);
                self.under_way[at] = self.nodes[a].as_ref().map(Member::word);
                Ok(())
            }
            Step::Deliver(a, b) => {
                let at = self.at(a, b);
                let Some(word) = self.under_way[at].take() else { return Ok(()) };
                self.arrived[at] = Some(word.clone());
                if !self.hears[b].has(id(a)) {
                    self.hears[b] = self.hears[b].with(id(a));
                    self.knows[b] = self.knows[b].with(id(a));
                    self.tell(b, Event::Heard(id(a)))?;
                }
                self.tell(b, Event::Said { from: id(a), word })
            }
            Step::Notice(a, b) => {
                self.hears[a] = self.hears[a].without(id(b));
                self.knows[a] = self.knows[a].with(id(b));
                let at = self.at(b, a);
                self.arrived[at] = None;
                self.tell(a, Event::Silent(id(b)))
            }
            Step::Cut(a, b) => {
                self.cut.push((a, b));
                self.cut.sort_unstable();
                self.lose(a, b);
                Ok(())
            }
            Step::Join(a, b) => {
                self.cut.retain(|pair| *pair != (a, b));
                Ok(())
            }
            Step::Sleep(node) => {
                self.asleep = self.asleep.with(id(node));
                // What others said to it waits for nobody; what it said last may still arrive.
                for other in 0..self.count() {
                    let at = self.at(other, node);
                    (self.under_way[at], self.arrived[at]) = (None, None);
                }
                Ok(())
            }
            Step::Wake(node) => {
                self.asleep = self.asleep.without(id(node));
                self.hears[node] = NodeSet::EMPTY;
                self.knows[node] = NodeSet::EMPTY;
                self.tell(node, Event::Froze)
            }
            Step::Off(node) => {
                self.asleep = self.asleep.without(id(node));
                self.nodes[node] = None;
                self.orders[node] = Order::default();
                self.hears[node] = NodeSet::EMPTY;
                self.knows[node] = NodeSet::EMPTY;
                for other in 0..self.count() {
                    self.lose(node, other);
                    let at = self.at(other, node);
                    self.arrived[at] = None;
                }
                Ok(())
            }
            Step::On(node) => {
                self.starts[node] += 1;
                // Whoever still believes in the earlier start hears of the new one by its first word.
                let all = (0..self.count()).map(id);
                self.nodes[node] = Some(Member::new(id(node), self.starts[node], all));
                self.tell(node, Event::Wished(Wish::In))
            }
            Step::Expire(node) => {
                let mut done = Vec::new();
                if let Some(member) = &self.nodes[node] {
                    // Its time, and that for one that is late: whoever acts between the two, it acts then or now.
                    (0..2).for_each(|_| self.orders[node].expired(member, &mut done));
                }
                self.check_order(node, true, &done)
            }
            Step::Wish(node, wish) => self.tell(node, Event::Wished(wish)),
        }
    }

    fn wait_no_more(&mut self) -> Result<(), String> {
        let waiting: Vec<usize> = (0..self.count()).filter(|node| self.orders[*node].pending().is_some()).collect();
        waiting.into_iter().try_for_each(|node| self.make(Step::Expire(node)))
    }

    fn lose(&mut self, a: usize, b: usize) {
        let (one, other) = (self.at(a, b), self.at(b, a));
        self.under_way[one] = None;
        self.under_way[other] = None;
    }

    fn tell(&mut self, node: usize, event: Event) -> Result<(), String> {
        let Some(member) = &mut self.nodes[node] else { return Ok(()) };
        let before = member.view().cloned();
        let word = member.word();
        let actions = member.handle(event);
        let after = member.view().cloned();
        let was_pending = self.orders[node].pending().is_some();
        let mut done = Vec::new();
        self.orders[node].obey(member, actions.clone(), &mut done);
        for action in &actions {
            match action {
                Action::Show(view, _) if Some(view) != after.as_ref() => {
                    return Err(format!("{:?} shows {view:?} and acts on {after:?}", id(node)));
                }
                Action::Hide if after.is_some() => return Err(format!("{:?} hides and acts on {after:?}", id(node))),
                Action::Announce if after.as_ref().is_none_or(|view| view.director != id(node)) => {
                    return Err(format!("{:?} announces and does not direct", id(node)));
                }
                _ => {}
            }
        }
        let is_shown = actions.iter().any(|action| matches!(action, Action::Show(..) | Action::Hide));
        if (before != after) != is_shown {
            return Err(format!("{:?}: {before:?} became {after:?} with {actions:?}", id(node)));
        }
        if (word != member.word()) != actions.contains(&Action::Tell) {
            return Err(format!("{:?} does not tell what changed: {actions:?}", id(node)));
        }
        if let Some(view) = &after {
            let serving = view.serving();
            if member.wish() == Wish::Out || !view.present.has(id(node)) || !view.present.has(view.director) {
                return Err(format!("{:?} acts on {view:?} and wants {:?}", id(node), member.wish()));
            }
            if serving.is_empty() || serving.0 & !view.present.0 != 0 {
                return Err(format!("nobody owns the traffic in {view:?}"));
            }
            if let Some(before) = &before
                && after.as_ref() != Some(before)
                && view.counter <= before.counter
            {
                return Err(format!("{:?} went back from {before:?} to {view:?}", id(node)));
            }
        }
        self.check_order(node, was_pending, &done)?;
        self.check_views()
    }

    /// What a filter decides by is the newest view, or, while its director waits for the others, the one before; and the wait has an end.
    fn check_order(&self, node: usize, was_pending: bool, done: &[Done]) -> Result<(), String> {
        let (Some(member), order) = (&self.nodes[node], &self.orders[node]) else { return Ok(()) };
        let newest = order.pending().or(order.shown());
        if newest != member.view() {
            return Err(format!("{:?} acts on {:?} and its filter on {newest:?}", id(node), member.view()));
        }
        if let Some(pending) = order.pending() {
            let directed = order.shown().is_some_and(|shown| shown.director == id(node));
            if order.shown().is_none() || pending.present.len() < 2 || (pending.director != id(node) && !directed) {
                return Err(format!("{:?} waits with {pending:?}, and nobody is to be first", id(node)));
            }
        }
        let armed = done.iter().fold(was_pending, |armed, action| match action {
            Done::Arm(Timer::Agree, _) => true,
            Done::Disarm(Timer::Agree) => false,
            _ => armed,
        });
        if armed != order.pending().is_some() {
            return Err(format!("{:?}: a wait without an end, or an end without a wait: {done:?}", id(node)));
        }
        Ok(())
    }

    /// Two views of one name are one view.
    fn check_views(&self) -> Result<(), String> {
        let mut seen: HashMap<(u64, NodeId, u32), &View> = HashMap::new();
        for view in self.nodes.iter().flatten().filter_map(Member::view) {
            let before = seen.insert((view.counter, view.director, view.instance), view);
            if let Some(other) = before.filter(|other| *other != view) {
                return Err(format!("two views of one name: {other:?} and {view:?}"));
            }
        }
        Ok(())
    }

    /// Makes the network whole (unless `as_it_is`) and lets time pass: everybody who can hear each other must agree on one view, and then fall silent.
    ///
    /// # Errors
    /// What is not so. The number of rounds it took otherwise.
    pub fn heal(&mut self, as_it_is: bool) -> Result<usize, String> {
        // Where hearing is not transitive, views pass from neighbour to neighbour.
        let rounds_max = if as_it_is { 12 + 4 * self.count() } else { 12 };
        if !as_it_is {
            self.cut.clear();
        }
        // Nobody sleeps for ever.
        let asleep: Vec<usize> = (0..self.count()).filter(|node| self.asleep.has(id(*node))).collect();
        asleep.into_iter().try_for_each(|node| self.make(Step::Wake(node)))?;
        for round in 0.. {
            // First what is silent, then one pulse of everybody.
            for (a, b) in self.pairs() {
                if self.nodes[a].is_some()
                    && !self.asleep.has(id(a))
                    && !self.is_connected(a, b)
                    && (self.hears[a].has(id(b)) || !self.knows[a].has(id(b)))
                {
                    self.make(Step::Notice(a, b))?;
                }
            }
            let news: Vec<Step> = self
                .possible(&[])
                .into_iter()
                .filter(|step| !matches!(step, Step::Notice(..) | Step::Expire(_)))
                .collect();
            if news.is_empty() {
                // Who directed before waits for nobody: its time passes.
                let ended = |of: &usize| self.orders[*of].pending().is_some_and(|view| view.director != id(*of));
                let ended: Vec<usize> = (0..self.count()).filter(ended).collect();
                ended.into_iter().try_for_each(|node| self.make(Step::Expire(node)))?;
                self.check_whole()?;
                return Ok(round);
            }
            if round >= rounds_max {
                return Err(format!("still no peace after {round} rounds:\n{}", self.describe()));
            }
            let sends: Vec<_> = self.pairs().filter(|(a, b)| self.is_connected(*a, *b)).collect();
            for (a, b) in &sends {
                self.make(Step::Send(*a, *b))?;
            }
            for (a, b) in sends {
                self.make(Step::Deliver(a, b))?;
            }
        }
        Ok(0)
    }

    /// Of each part in which all hear each other and nobody else: one view of exactly those who want it.
    fn check_whole(&self) -> Result<(), String> {
        for node in 0..self.count() {
            let Some(member) = &self.nodes[node] else { continue };
            let part: Vec<usize> = (0..self.count()).filter(|it| *it == node || self.is_connected(node, *it)).collect();
            let is_clique = part.iter().all(|a| {
                (0..self.count())
                    .all(|b| *a == b || self.is_connected(*a, b) == part.contains(&b) || self.nodes[b].is_none())
            });
            if !is_clique || member.wish() == Wish::Out {
                continue;
            }
            let wants = |wish: Wish| -> NodeSet {
                let of = |it: &&usize| self.nodes[**it].as_ref().is_some_and(|member| member.wish() == wish);
                part.iter().filter(of).map(|it| id(*it)).collect()
            };
            let (inside, draining) = (wants(Wish::In), wants(Wish::Drain));
            if inside.is_empty() && member.view().is_none() {
                // What drains and never was in a view has nothing to drain.
                continue;
            }
            let Some(view) = member.view() else {
                return Err(format!("{:?} is left outside:\n{}", id(node), self.describe()));
            };
            let expected = NodeSet(inside.0 | draining.0);
            let is_served = if inside.is_empty() {
                // Those who had a view; the others are outside.
                view.serving() == view.present
            } else {
                view.present == expected && view.serving() == inside && inside.has(view.director)
            };
            if !is_served {
                return Err(format!("{view:?} is not the view of {expected:?}:\n{}", self.describe()));
            }
            if let Some(pending) = self.orders[node].pending() {
                return Err(format!("{:?} waits with {pending:?}, on which all act:\n{}", id(node), self.describe()));
            }
            for other in &part {
                let theirs = self.nodes[*other].as_ref().and_then(Member::view);
                if theirs.is_some_and(|theirs| theirs != view) {
                    return Err(format!("{:?} and {:?} do not agree:\n{}", id(node), id(*other), self.describe()));
                }
            }
        }
        Ok(())
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let line = |node: usize| match &self.nodes[node] {
            None => format!("  node{} is off\n", node + 1),
            Some(member) => format!(
                "  node{} wants {:?}, hears {:?}, acts on {:?}\n",
                node + 1,
                member.wish(),
                self.hears[node],
                member.view()
            ),
        };
        let nodes: String = (0..self.count()).map(line).collect();
        format!("{nodes}  cut: {:?}", self.cut)
    }

    /// The view of a node.
    #[must_use]
    pub fn view(&self, node: usize) -> Option<&View> {
        self.nodes[node].as_ref().and_then(Member::view)
    }

    fn fingerprint(&self, faults: u8) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self, faults).hash(&mut hasher);
        hasher.finish()
    }
}

/// What may happen to a farm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Cables are cut and joined.
    Cable,
    /// Nodes lose power and boot.
    Power,
    /// Nodes are started, drained and stopped.
    Operator,
    /// Nodes are paused, and go on.
    Sleep,
}

/// Bounds of one search.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// For people.
    pub name: &'static str,
    /// Where it begins: in one view, or all off.
    pub is_whole: bool,
    /// What may go wrong.
    pub faults: &'static [Fault],
    /// How often, together.
    pub most_faults: u8,
    /// A director waits until the others act on its view. Otherwise that time is over at once: the membership does not know of it, and
    /// its own situations are ten times fewer.
    pub waits: bool,
    /// Most situations.
    pub budget: usize,
    /// Fewer than this: the search has become blind.
    pub at_least: usize,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Different situations.
    pub situations: usize,
    /// Steps tried.
    pub steps: usize,
    /// Every situation within the bounds was visited.
    pub is_exhausted: bool,
    /// Longest story.
    pub depth: usize,
    /// Most rounds of heartbeats until peace, in any situation.
    pub rounds: usize,
    /// The first broken rule, and its story.
    pub counterexample: Option<String>,
}

/// Breadth first: the first story found is a shortest one. Every situation is also healed, and left as it is: both must find peace.
#[must_use]
pub fn explore(space: &Space, nodes: usize) -> Outcome {
    let start = if space.is_whole { Farm::whole(nodes) } else { Farm::new(nodes) };
    let mut seen = HashSet::from([start.fingerprint(0)]);
    // Where each situation came from, to tell the story.
    let mut origins: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut queue = VecDeque::from([(start, 0u8, 0usize, 0usize)]);
    let mut outcome = Outcome { situations: 1, is_exhausted: true, ..Outcome::default() };
    let story = |origins: &[(usize, Option<Step>)], mut at: usize, last: Option<Step>, why: &str| {
        let mut steps: Vec<Step> = last.into_iter().collect();
        while let (before, Some(step)) = origins[at] {
            steps.push(step);
            at = before;
        }
        steps.reverse();
        let lines: String = steps.iter().zip(1..).map(|(step, number)| format!("\n{number}. {step:?}")).collect();
        format!("{why}{lines}")
    };
    while let Some((farm, spent, place, depth)) = queue.pop_front() {
        outcome.depth = outcome.depth.max(depth);
        for as_it_is in [false, true] {
            match farm.clone().heal(as_it_is) {
                Ok(rounds) => outcome.rounds = outcome.rounds.max(rounds),
                Err(why) => {
                    let kind = if as_it_is { "left as it is" } else { "healed" };
                    outcome.counterexample = Some(story(&origins, place, None, &format!("{kind}: {why}")));
                    return outcome;
                }
            }
        }
        let faults = if spent < space.most_faults { space.faults } else { &[] };
        for step in farm.possible(faults) {
            outcome.steps += 1;
            let mut next = farm.clone();
            let made = next.make(step).and_then(|()| if space.waits { Ok(()) } else { next.wait_no_more() });
            if let Err(why) = made {
                outcome.counterexample = Some(story(&origins, place, Some(step), &why));
                return outcome;
            }
            let spent = spent + u8::from(step.is_fault());
            if !seen.insert(next.fingerprint(spent)) {
                continue;
            }
            if outcome.situations >= space.budget {
                outcome.is_exhausted = false;
                continue;
            }
            outcome.situations += 1;
            origins.push((place, Some(step)));
            queue.push_back((next, spent, origins.len() - 1, depth + 1));
        }
    }
    outcome
}

/// A random game of so many nodes and steps; now and then everything is healed.
///
/// # Errors
/// The broken rule, with the seed that replays it.
pub fn walk(nodes: usize, seed: u64, steps: usize) -> Result<usize, String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut farm = Farm::new(nodes);
    let mut rounds = 0;
    for number in 0..steps {
        let all = [Fault::Cable, Fault::Power, Fault::Operator, Fault::Sleep];
        let faults: &[Fault] = if random(8) == 0 { &all } else { &[] };
        let mut possible = farm.possible(faults);
        if faults.len() > 1 {
            possible.retain(|step| step.is_fault());
        }
        if possible.is_empty() {
            continue;
        }
        let step = possible[random(possible.len())];
        let told = |why| format!("{nodes} nodes, seed {seed}, step {number} {step:?}: {why}");
        farm.make(step).map_err(told)?;
        if random(40) == 0 {
            rounds = rounds.max(farm.clone().heal(random(2) == 0).map_err(told)?);
        }
    }
    rounds = rounds.max(farm.heal(false).map_err(|why| format!("{nodes} nodes, seed {seed}, at the end: {why}"))?);
    Ok(rounds)
}
