//! A task of which there is one: the one before ends when the next begins.

use std::sync::{Mutex, PoisonError};
use tokio::task::{AbortHandle, JoinHandle};

/// The task that runs now, if any.
#[derive(Default)]
pub(super) struct Only(Mutex<Option<AbortHandle>>);

impl Only {
    /// It takes the place of the one before, which ends where it waits.
    pub(super) fn begin(&self, task: JoinHandle<()>) {
        let former = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(task.abort_handle());
        if let Some(former) = former {
            former.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_before_ends() {
        let (only, (tell, mut told)) = (Only::default(), tokio::sync::mpsc::channel::<()>(1));
        for _ in 0..100 {
            let held = tell.clone();
            only.begin(tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            }));
        }
        drop(tell);
        while told.sender_strong_count() > 1 {
            tokio::task::yield_now().await;
        }
        only.begin(tokio::spawn(async {}));
        assert_eq!(told.recv().await, None, "nobody is left");
    }
}
