//! A request body that must keep coming: a client that stops in the middle is given up.

use axum::body::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// Longest pause between two pieces.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Wraps what hyper receives.
pub(crate) struct Patient {
    body: Incoming,
    pause: Pin<Box<Sleep>>,
}

impl Patient {
    pub fn new(body: Incoming) -> Self {
        Self { body, pause: Box::pin(tokio::time::sleep(PAUSE_MAX)) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body.frame()).poll(context) {
            Poll::Ready(frame) => {
                self.pause.as_mut().reset(tokio::time::Instant::now() + PAUSE_MAX);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => match self.pause.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err("the request's body stopped coming".into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
