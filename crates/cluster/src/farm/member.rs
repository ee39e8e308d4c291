//! Membership of one node in a farm: which view it acts on, and whether it makes the next one.
//!
//! Pure. Nodes say their whole [`Word`] in every heartbeat; nothing is asked, answered or voted. One node, the director, makes
//! views of whom it hears; the others act on the last view of their director that contains them. The director is the lowest of those that
//! serve, unless one directs already. A partition leaves each half with a director of its own, and each half serves what it
//! receives; when it heals, the lower director takes the others in.
//!
//! **Invariants:** a node acts only on a view that contains it; the counter of what it acts on only grows; two views with one
//! (counter, director, instance) are equal.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use model::NodeId;
use model::farm::{NodeSet, PAST_MAX, View, Wish, Word};
use serde::{Deserialize, Serialize};

/// What happens to a member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// This node is heard in both directions.
    Heard(NodeId),
    /// This node is silent past the timeout, or has been since this one started.
    Silent(NodeId),
    /// All others are, of which several were heard a moment ago: either they are gone, or this node is cut off from them.
    CutOff,
    /// What a node says, newer than what it said before.
    Said {
        /// Who.
        from: NodeId,
        /// What.
        word: Word,
    },
    /// What this node wants has changed.
    Wished(Wish),
    /// This node did not run for so long that the others may have gone on without it: it knows nothing until it has heard them again.
    Froze,
}

/// Why the view changed, for people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nobody else serves this farm.
    Founded,
    /// The director is gone, silent, or drains, and this node is the lowest that serves.
    TookOver,
    /// A node came, left, drains or is silent.
    Changed,
    /// Two halves met.
    Merged,
    /// The director says so.
    Told,
}

impl Why {
    /// The sentence an operator will read.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Founded => "nobody else serves this farm: this node begins it",
            Self::TookOver => "the director is gone or drains: this node directs now",
            Self::Changed => "a node came, left, drains or is silent",
            Self::Merged => "two parts of the farm met: this node directs both",
            Self::Told => "the director's view",
        }
    }
}

/// What is to be so from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The filter decides by this view.
    Show(View, Why),
    /// This node is in no view: it accepts nothing for the virtual IPs.
    Hide,
    /// This node answers for the virtual IPs: tell the network.
    Announce,
    /// Say the new word at once.
    Tell,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
struct Peer {
    /// `None`: not known since this node started.
    is_alive: Option<bool>,
    /// What it last said; forgotten when it falls silent.
    word: Option<Word>,
}

/// Adopt, abandon, take over: no event needs more.
const PASSES_MAX: usize = 4;

/// See the module's head.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    me: NodeId,
    instance: u32,
    peers: BTreeMap<NodeId, Peer>,
    wish: Wish,
    view: Option<View>,
    highest: u64,
}

impl Member {
    /// Outside, and nothing known. `instance`: random per start.
    #[must_use]
    pub fn new(me: NodeId, instance: u32, peers: impl IntoIterator<Item = NodeId>) -> Self {
        let peers = peers.into_iter().filter(|node| *node != me).map(|node| (node, Peer::default())).collect();
        Self { me, instance, peers, wish: Wish::Out, view: None, highest: 0 }
    }

    /// The member that says this, as far as others can tell: it hears what `said` says of those that it says it hears.
    pub(super) fn that_says(me: NodeId, word: &Word, said: &BTreeMap<NodeId, Word>) -> Self {
        let others = said.keys().filter(|node| **node != me);
        let peer = |node: &NodeId| match word.hears.has(*node) {
            true => Peer { is_alive: Some(true), word: said.get(node).cloned() },
            false => Peer { is_alive: Some(false), word: None },
        };
        let instance = word.view.as_ref().filter(|view| view.director == me).map_or(0, |view| view.instance);
        Self {
            me,
            instance,
            peers: others.map(|node| (*node, peer(node))).collect(),
            wish: word.wish,
            view: word.view.clone(),
            highest: word.highest,
        }
    }

    /// What to say now.
    #[must_use]
    pub fn word(&self) -> Word {
        let hears = self.peers.iter().filter(|(_, peer)| peer.is_alive == Some(true)).map(|(node, _)| *node).collect();
        Word { wish: self.wish, view: self.view.clone(), highest: self.highest, hears }
    }

    /// The view this node acts on.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Does another node that is heard want traffic?
    #[must_use]
    pub fn is_another_in(&self) -> bool {
        self.alive().any(|(_, word)| word.is_some_and(|word| word.wish == Wish::In))
    }

    /// The other nodes: is it heard (`None`: not known yet), and what does it say?
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, Option<bool>, Option<&Word>)> {
        self.peers.iter().map(|(node, peer)| (*node, peer.is_alive, peer.word.as_ref()))
    }

    /// Is it known of every other node whether it lives, and of those that do what they want?
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.peers.values().all(|peer| peer.is_alive.is_some_and(|is_alive| !is_alive || peer.word.is_some()))
    }

    /// What this node wants.
    #[must_use]
    pub fn wish(&self) -> Wish {
        self.wish
    }

    /// Why a node that wants in is in no view: the sentence an operator will read.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        if self.wish == Wish::Out || self.view.is_some() {
            None
        } else if self.alive().any(|(_, word)| word.is_some_and(|word| word.view.is_some())) {
            Some("the director does not hear this node yet: it lets it in when it does")
        } else if self.peers.values().any(|peer| peer.is_alive.is_none()) {
            Some("it is not known yet whether other nodes serve this farm")
        } else {
            Some("a lower node begins the farm")
        }
    }

    /// The only way in.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let before = self.word();
        let mut is_back_without_a_view = false;
        match event {
            Event::Heard(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.is_alive = Some(true);
                }
            }
            Event::Silent(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    *peer = Peer { is_alive: Some(false), word: None };
                }
            }
            Event::CutOff => {
                self.peers.values_mut().for_each(|peer| *peer = Peer { is_alive: Some(false), word: None });
            }
            Event::Said { from, word } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    is_back_without_a_view = peer.word.is_none() && word.view.is_none();
                    peer.word = Some(word);
                }
            }
            Event::Wished(wish) => self.wish = wish,
            Event::Froze => {
                self.peers.values_mut().for_each(|peer| *peer = Peer::default());
                if self.view.take().is_some() {
                    return Vec::from([Action::Hide, Action::Tell]);
                }
            }
        }
        let mut out = Vec::new();
        // What was adopted may be what this node is to take over from: each pass brings a newer view, or ends it.
        for _ in 0..PASSES_MAX {
            let next = self.settle();
            if next.is_empty() {
                break;
            }
            out = next;
        }
        if self.view == before.view {
            // Let in and left behind at once.
            out.clear();
        }
        // It may have been on the other side of a cut, with clients that still look for it. (Who acts on a view there is let in first: nobody here knows
        // of its connections before.)
        if is_back_without_a_view && self.directs(self.me) && !out.contains(&Action::Announce) {
            out.push(Action::Announce);
        }
        if self.word() != before {
            out.push(Action::Tell);
        }
        out
    }

    /// The policy: what follows from what is known. First whose view it is, then whether it changes.
    fn settle(&mut self) -> Vec<Action> {
        if self.wish == Wish::Out {
            return if self.view.take().is_some() { [Action::Hide].into() } else { Vec::new() };
        }
        if let Some(view) = self.offered() {
            self.highest = view.counter;
            self.view = Some(view.clone());
            return [Action::Show(view, Why::Told)].into();
        }
        match self.director() {
            // Who drains lets another take over, as soon as there is one that can.
            Some(director) if director == self.me && !self.may_direct(self.wish) && self.has_heir() => Vec::new(),
            Some(director) if director == self.me => self.direct(Why::Changed),
            Some(_) if self.is_abandoned() => {
                self.view = None;
                [Action::Hide].into()
            }
            Some(_) if self.should_take_over() => self.direct(Why::TookOver),
            None if self.should_found() => self.direct(Why::Founded),
            _ => Vec::new(),
        }
    }

    fn director(&self) -> Option<NodeId> {
        self.view.as_ref().map(|view| view.director)
    }

    /// Peers that are heard, with what they say.
    fn alive(&self) -> impl Iterator<Item = (NodeId, Option<&Word>)> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.is_alive == Some(true))
            .map(|(node, peer)| (*node, peer.word.as_ref()))
    }

    fn said_by(&self, node: NodeId) -> Option<&Word> {
        self.peers.get(&node).filter(|peer| peer.is_alive == Some(true)).and_then(|peer| peer.word.as_ref())
    }

    /// Does anybody want traffic? While nobody does, those that drain go on.
    fn is_anybody_in(&self) -> bool {
        self.wish == Wish::In || self.alive().any(|(_, word)| word.is_some_and(|word| word.wish == Wish::In))
    }

    fn may_direct(&self, wish: Wish) -> bool {
        wish == Wish::In || (wish == Wish::Drain && !self.is_anybody_in())
    }

    /// As far as this node knows, does that one make views that others should follow?
    fn directs(&self, node: NodeId) -> bool {
        if node == self.me {
            return self.director() == Some(self.me) && self.may_direct(self.wish);
        }
        self.said_by(node)
            .is_some_and(|word| self.may_direct(word.wish) && word.view.as_ref().is_some_and(|it| it.director == node))
    }

    /// A view that this node is to act on from now on: of its director, or of one that goes before it.
    fn offered(&self) -> Option<View> {
        let follows = self.director();
        self.alive()
            .filter_map(|(node, word)| Some((node, word?.view.as_ref()?)))
            .filter(|(node, view)| {
                view.director == *node
                    && view.present.has(self.me)
                    && view.counter > self.highest
                    && follows.is_none_or(|mine| *node <= mine || !self.directs(mine))
            })
            .map(|(_, view)| view.clone())
            .next()
    }

    /// The farm goes on without this node: its director, or those it hears, act on a newer view that it is not in.
    fn is_abandoned(&self) -> bool {
        let Some(mine) = &self.view else { return false };
        let lacks_me = |word: &Word| {
            word.view.as_ref().is_some_and(|view| view.counter > mine.counter && !view.present.has(self.me))
        };
        // A director that is heard speaks for itself, even while it drains: others may have directors of their own.
        if let Some(word) = self.said_by(mine.director)
            && word.view.is_some()
        {
            return lacks_me(word);
        }
        self.alive().any(|(_, word)| word.is_some_and(lacks_me))
    }

    /// The director is no more: the lowest of its view that still acts on a view makes the next one.
    fn should_take_over(&self) -> bool {
        let Some(mine) = &self.view else { return false };
        // Who serves goes before who drains: that one does it when nobody else of the view can, and lets the next director in.
        let rank = |node: NodeId, wish: Wish| (wish != Wish::In, node);
        !self.directs(mine.director)
            && self.alive().filter(|(node, _)| mine.present.has(*node)).all(|(node, word)| {
                word.is_some_and(|word| {
                    word.view.is_none() || word.wish == Wish::Out || rank(node, word.wish) > rank(self.me, self.wish)
                })
            })
    }

    /// Somebody that serves, and either acts on a view and is in this node's, or directs already.
    fn has_heir(&self) -> bool {
        let present = self.view.as_ref().map(|view| view.present).unwrap_or_default();
        self.alive().any(|(node, word)| {
            word.is_some_and(|word| {
                word.wish == Wish::In
                    && word.view.as_ref().is_some_and(|view| present.has(node) || view.director == node)
            })
        })
    }

    /// Nobody that is heard acts on a view, everybody's silence is certain, and this is the lowest that wants in.
    fn should_found(&self) -> bool {
        self.wish == Wish::In
            && self.peers.values().all(|peer| peer.is_alive.is_some())
            && self.alive().all(|(node, word)| {
                word.is_some_and(|word| word.view.is_none() && (node > self.me || word.wish != Wish::In))
            })
    }

    /// May this node's view contain that one? Not while it hears a lower director that it would rather follow.
    fn is_mine(&self, node: NodeId, word: &Word) -> bool {
        let Some(view) = &word.view else { return true };
        let director = view.director;
        // The director has died, and that node has not noticed yet: its share stays its own meanwhile, or its connections were reset here. Does it
        // go on hearing it, it acts on a view without this node next.
        let is_silent = self.said_by(director).is_none();
        // No newer one: if the director lives after all, it may go on making views with this node in them.
        let is_before = |mine: &View| mine.present.has(node) && view.counter <= mine.counter;
        let is_common = || view.present.has(self.me) && self.view.as_ref().is_some_and(is_before);
        if is_silent && is_common() {
            return true;
        }
        let hears = director == node || word.hears.has(director);
        let yields = match self.said_by(director) {
            _ if director == node => !self.may_direct(word.wish),
            Some(said) => {
                !self.may_direct(said.wish) || said.view.as_ref().is_none_or(|view| view.director != director)
            }
            None => false,
        };
        director >= self.me || !hears || yields
    }

    /// That node of this one's view acts on a lower director's, which has this node in it and is heard there: it is heard here as well in a moment, if
    /// it is not yet, and makes the view that this node acts on, too. Were the node left out meanwhile, its connections were reset here.
    fn goes_before(&self, node: NodeId, word: &Word) -> bool {
        let (Some(mine), Some(theirs)) = (&self.view, &word.view) else { return false };
        let director = theirs.director;
        let takes_me = |said: &Word| said.view.as_ref().is_some_and(|view| view.present.has(self.me));
        director < self.me
            && mine.present.has(node)
            && theirs.present.has(self.me)
            && (director == node || word.hears.has(director))
            && self.said_by(director).is_none_or(|said| self.directs(director) && takes_me(said))
    }

    /// Makes the next view, if it differs from the one in force.
    fn direct(&mut self, why: Why) -> Vec<Action> {
        let mut present = NodeSet::EMPTY.with(self.me);
        let mut serving = if self.wish == Wish::In { present } else { NodeSet::EMPTY };
        let mut highest = self.highest;
        let mut is_outrun = false;
        let mut others: Vec<View> = Vec::new();
        for (node, word) in self.alive() {
            let Some(word) = word.filter(|word| word.wish != Wish::Out) else { continue };
            let goes_before = self.goes_before(node, word);
            if !goes_before && !self.is_mine(node, word) {
                continue;
            }
            present = present.with(node);
            if word.wish == Wish::In {
                serving = serving.with(node);
            }
            if goes_before {
                continue;
            }
            highest = highest.max(word.highest);
            if word.view != self.view {
                // It would not take a view that is no newer than its own.
                is_outrun |= word.highest >= self.highest;
                others.extend(word.view.clone());
            }
        }
        if serving.is_empty() {
            serving = present;
        }
        let is_same = self.view.as_ref().is_some_and(|view| {
            view.director == self.me && view.present == present && view.serving() == serving && !is_outrun
        });
        if is_same {
            return Vec::new();
        }
        let is_merged = others.iter().any(|view| view.director != self.me && Some(view.director) != self.director());
        let view = View {
            counter: highest + 1,
            director: self.me,
            instance: self.instance,
            present,
            past: past_of(serving, self.view.as_ref(), &others),
        };
        self.highest = view.counter;
        self.view = Some(view.clone());
        let why = if is_merged && why == Why::Changed { Why::Merged } else { why };
        // With every view, not only the first: a client may hold the hardware address of a member that is gone now. (A node's IPv6
        // stack asks for a client's address in the virtual IP's name, and so becomes it for that client.)
        // Not by one that is about to give way to a lower director: the clients of that part would come here, where nobody knows of them.
        let mut out = Vec::from([Action::Show(view, why)]);
        if !self.alive().any(|(node, _)| node < self.me && self.directs(node)) {
            out.push(Action::Announce);
        }
        out
    }
}

/// Distinct sets, newest first: of this view, and of those that others acted on, taken in turns.
fn past_of(serving: NodeSet, mine: Option<&View>, others: &[View]) -> Vec<NodeSet> {
    let mut past = Vec::from([serving]);
    for age in 0..PAST_MAX {
        for view in mine.into_iter().chain(others) {
            if let Some(set) = view.past.get(age)
                && past.len() < PAST_MAX
                && !past.contains(set)
            {
                past.push(*set);
            }
        }
    }
    past
}
