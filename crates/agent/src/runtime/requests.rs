//! What the task that runs an application's scripts is asked, while one of them runs.
//!
//! **Invariant:** whatever is answered (`App` says what) is never lost, however long a script takes; what is not is of the
//! last moment, so that a few requests say it all.

use crate::modules::Active;
use cluster::mirror::App;
use model::ModuleState;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// With as many waiting, roles that are left already are forgotten. Of what is answered, the automaton waits for one at a time.
const ROLES_MAX: usize = 16;

pub enum Asked {
    Wish(Wish),
    /// From the next script on.
    Configure(Box<Active>),
    /// `stead update`.
    Update,
}

pub struct Wish {
    pub wanted: App,
    /// Of the module, when it was wanted.
    pub state: ModuleState,
    /// Forced stops up to then.
    pub force: u64,
    /// Its number.
    pub number: u64,
    /// The restart that begins with this is of these services only; empty: of everything.
    pub only: Option<Vec<String>>,
}

/// The asking end; whoever holds the other runs out of requests when the last of these is gone.
#[derive(Clone)]
pub struct Requests {
    waiting: Arc<Mutex<VecDeque<Asked>>>,
    bell: mpsc::Sender<()>,
}

/// The end of the task.
pub struct Requested {
    waiting: Arc<Mutex<VecDeque<Asked>>>,
    bell: mpsc::Receiver<()>,
}

pub fn requests() -> (Requests, Requested) {
    let waiting = Arc::<Mutex<VecDeque<Asked>>>::default();
    let (ring, bell) = mpsc::channel(1);
    (Requests { waiting: waiting.clone(), bell: ring }, Requested { waiting, bell })
}

fn lock(waiting: &Mutex<VecDeque<Asked>>) -> MutexGuard<'_, VecDeque<Asked>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    pub fn push(&self, asked: Asked) {
        let mut waiting = lock(&self.waiting);
        match (waiting.back_mut(), asked) {
            (Some(Asked::Update), Asked::Update) => {}
            (Some(last @ Asked::Configure(_)), newer @ Asked::Configure(_)) => *last = newer,
            (_, asked) => waiting.push_back(asked),
        }
        if waiting.len() > ROLES_MAX {
            let last = waiting.len() - 1;
            let is_left = |asked: &Asked| matches!(asked, Asked::Wish(Wish { wanted: App::Role { .. }, .. }));
            let left = waiting.iter().position(is_left).filter(|at| *at < last);
            // Commands that nobody has come to yet: the last one says it.
            let older = || waiting.iter().position(|asked| !matches!(asked, Asked::Wish(_))).filter(|at| *at < last);
            if let Some(at) = left.or_else(older) {
                waiting.remove(at);
            }
        }
        drop(waiting);
        // Rung already: it will be heard.
        let _ = self.bell.try_send(());
    }
}

impl Requested {
    /// `None`: nobody is left who could ask.
    pub async fn next(&mut self) -> Option<Asked> {
        loop {
            let first = lock(&self.waiting).pop_front();
            if first.is_some() {
                return first;
            }
            self.bell.recv().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::scripts::Why;

    fn wish(wanted: App, number: u64) -> Asked {
        Asked::Wish(Wish { wanted, state: ModuleState::Prim, force: 0, number, only: None })
    }

    #[tokio::test]
    async fn a_stop_is_not_lost_behind_any_number_of_roles_and_commands() {
        let (asking, mut asked) = requests();
        asking.push(wish(App::Start, 0));
        for number in 1..=100 {
            let to = if number % 2 == 0 { ModuleState::Prim } else { ModuleState::Alone };
            asking.push(wish(App::Role { to, why: Why::Start }, number));
            asking.push(Asked::Update);
            asking.push(Asked::Update);
        }
        asking.push(wish(App::Stop { force: false, why: Why::Stop }, 101));
        drop(asking);
        let mut numbers = Vec::new();
        let mut all = 0;
        while let Some(request) = asked.next().await {
            all += 1;
            if let Asked::Wish(wish) = request {
                numbers.push(wish.number);
            }
        }
        assert!(all <= ROLES_MAX + 1, "{all}");
        assert_eq!((numbers.first(), numbers.last()), (Some(&0), Some(&101)), "{numbers:?}");
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}
