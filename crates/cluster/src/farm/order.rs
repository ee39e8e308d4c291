//! In which order the members of a farm begin to act on a new view: the others first, then the director, last who directed before.
//!
//! Pure. The director's table decides to whom a client's frame goes; the table of whom it reaches decides what becomes of one that
//! belongs to no connection there. So a director that was first would send a connection's frames to its new owner, which by its old table is
//! the last to be asked and answers with a reset. Until a new director has announced itself, clients' frames still go to who directed before:
//! that one goes on by its view for as long as the new director may wait, and gives nothing away to somebody who knows of nothing.
//!
//! Where every member receives every frame (`vmac_invisible`), nobody passes anything on, and two who own one client would both answer it:
//! who loses clients by a view acts on it at once, who gains them when those do. A frame that comes between the two is nobody's, and
//! is sent again by its client.
//! When two parts of a farm meet, clients' frames reach two directors, and whichever acts on the common view first passes connections to the other part.
//! So who waits *prepares*: it deals clients out as before, takes the newcomers for members, and has behind its own owners those of the view to come.
//!
//! One that is heard and does not act on it yet may be *late* (a busy machine): by its table before, it could be the last to be asked, and answer what stands
//! elsewhere with a reset. So it is waited for, up to [`LATE_MS`] more; who falls silent is dead, and not waited for. A new director deals out by the
//! new view at once, as everybody does, and announces itself later: who directed before need not know when.
//! **Invariants:** nothing is waited for when a node is dead, nor for longer than [`AGREE_MS`] and [`LATE_MS`]; what is shown is always the newest view.

use super::member::{self, Member, Why};
use super::module::{Action, Timer};
use alloc::vec::Vec;
use model::NodeId;
use model::farm::{NodeSet, PAST_MAX, View};
use model::limits::{AGREE_MS, LATE_MS};
use serde::{Deserialize, Serialize};

/// What the filter decides by, and what it is about to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Order {
    is_invisible: bool,
    shown: Option<View>,
    pending: Option<Pending>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
struct Pending {
    view: View,
    why: Why,
    /// This node directs it: it need not wait when all others act on it, and announces itself then.
    directs: bool,
    /// [`AGREE_MS`] are over, and not all that are heard act on it.
    #[serde(default)]
    is_late: bool,
}

impl Order {
    /// Of a member without a view. `is_invisible`: every member receives every frame.
    #[must_use]
    pub fn new(is_invisible: bool) -> Self {
        Self { is_invisible, ..Self::default() }
    }

    /// What the filter decides by.
    #[must_use]
    pub fn shown(&self) -> Option<&View> {
        self.shown.as_ref()
    }

    /// What it is about to, once the others act on it or had their time.
    #[must_use]
    pub fn pending(&self) -> Option<&View> {
        self.pending.as_ref().map(|pending| &pending.view)
    }

    /// What a member's decisions become.
    pub fn obey(&mut self, member: &Member, decided: Vec<member::Action>, out: &mut Vec<Action>) {
        for action in decided {
            match action {
                member::Action::Show(view, why) if self.is_for_others_first(member, &view) => {
                    let directs = view.director == member.me();
                    // The time of the first of several: changes that follow each other are not waited for anew.
                    if self.pending.is_none() {
                        out.push(Action::Arm(Timer::Agree, AGREE_MS));
                    }
                    out.extend(
                        self.shown
                            .as_ref()
                            .and_then(|shown| self.meanwhile(shown, &view, member.me()))
                            .map(Action::Prepare),
                    );
                    let is_late = self.pending.as_ref().is_some_and(|pending| pending.is_late);
                    self.pending = Some(Pending { view, why, directs, is_late });
                }
                member::Action::Show(view, why) => {
                    self.forget(out);
                    self.shown = Some(view.clone());
                    out.push(Action::Show(view, why));
                }
                member::Action::Hide => {
                    self.forget(out);
                    self.shown = None;
                    out.push(Action::Hide);
                }
                // With the view, then.
                member::Action::Announce if self.pending.is_some() => {}
                member::Action::Announce => out.push(Action::Announce),
                member::Action::Tell => out.push(Action::Tell),
            }
        }
        if self.is_agreed(member) {
            self.show(out);
        }
    }

    /// The others had their time.
    pub fn expired(&mut self, member: &Member, out: &mut Vec<Action>) {
        let do_all_act = self.do_all_act(member);
        match &mut self.pending {
            Some(pending) if !pending.is_late && !do_all_act => {
                pending.is_late = true;
                out.push(Action::Arm(Timer::Agree, LATE_MS));
            }
            _ => self.show(out),
        }
    }

    /// Does everybody that is heard and is in this node's view act on it?
    #[must_use]
    pub fn is_common(member: &Member) -> bool {
        member.view().is_none_or(|view| do_peers_act(member, view))
    }

    fn forget(&mut self, out: &mut Vec<Action>) {
        if self.pending.take().is_some() {
            out.push(Action::Disarm(Timer::Agree));
        }
    }

    fn show(&mut self, out: &mut Vec<Action>) {
        if let Some(Pending { view, why, directs, .. }) = self.pending.take() {
            self.shown = Some(view.clone());
            out.extend([Action::Disarm(Timer::Agree), Action::Show(view, why)]);
            if directs {
                out.push(Action::Announce);
            }
        }
    }

    /// What the filter decides by while `next` waits, if anything else than `shown`.
    fn meanwhile(&self, shown: &View, next: &View, me: NodeId) -> Option<View> {
        // Clients' frames come to who directed before: to be one of the others, but for answering who asks for the addresses.
        let succeeds = next.director == me && shown.director != me && next.present.has(shown.director);
        between(shown, next)
            .or_else(|| (succeeds && !self.is_invisible).then(|| View { director: shown.director, ..next.clone() }))
    }

    fn is_for_others_first(&self, member: &Member, view: &View) -> bool {
        let me = member.me();
        if self.is_invisible {
            return self.losers(member, view).next().is_some();
        }
        let receives = |shown: &&View| view.director == me || shown.director == me;
        let Some(shown) = self.shown.as_ref().filter(receives) else { return false };
        let is_dead = |node| member.peers().any(|(peer, is_alive, _)| peer == node && is_alive == Some(false));
        view.present.without(me) != NodeSet::EMPTY
            && !shown.present.nodes().any(|node| !view.present.has(node) && is_dead(node))
    }

    /// Those that are not dead and own clients no more, when this node owns them by this view.
    fn losers<'a>(&'a self, member: &'a Member, view: &'a View) -> impl Iterator<Item = NodeId> + 'a {
        let me = member.me();
        // Who has shown nothing yet goes by what the view says of the one before.
        let before = self.shown.as_ref().map_or_else(|| view.past.get(1).copied().unwrap_or_default(), View::serving);
        let now = view.serving();
        let comes = !before.has(me);
        // Who has just started may not have heard of all.
        let heard = member.peers().filter(|(_, is_alive, _)| *is_alive != Some(false)).map(|(node, ..)| node);
        heard.filter(move |node| {
            now.has(me) && view.present.has(*node) && before.has(*node) && (comes || !now.has(*node))
        })
    }

    /// Who directed before goes on until its successor has announced itself: for its time, or until one that was late acts on it.
    fn is_agreed(&self, member: &Member) -> bool {
        let waits_for_all = |pending: &Pending| self.is_invisible || pending.directs || pending.is_late;
        self.pending.as_ref().is_some_and(waits_for_all) && self.do_all_act(member)
    }

    /// All that are waited for act on it.
    fn do_all_act(&self, member: &Member) -> bool {
        let Some(Pending { view, .. }) = &self.pending else { return true };
        if self.is_invisible {
            return self.losers(member, view).all(|node| acts(member, node, view));
        }
        do_peers_act(member, view)
    }
}

fn acts(member: &Member, node: NodeId, view: &View) -> bool {
    member.peers().any(|(peer, _, word)| peer == node && word.is_some_and(|word| word.view.as_ref() == Some(view)))
}

fn do_peers_act(member: &Member, view: &View) -> bool {
    member
        .peers()
        .filter(|(node, is_alive, _)| view.present.has(*node) && *is_alive == Some(true))
        .all(|(_, _, word)| word.is_some_and(|word| word.view.as_ref() == Some(view)))
}

/// What is dealt out as `shown` says, by who knows everybody of `next`; `None`: nobody new is in it.
fn between(shown: &View, next: &View) -> Option<View> {
    let everybody = NodeSet(shown.present.0 | next.present.0);
    if everybody == shown.present {
        return None;
    }
    let mut past = Vec::from([shown.serving()]);
    for set in next.past.iter().chain(&shown.past) {
        if past.len() < PAST_MAX && !past.contains(set) {
            past.push(*set);
        }
    }
    Some(View { counter: next.counter, director: shown.director, instance: shown.instance, present: everybody, past })
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod merge_tests;

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
