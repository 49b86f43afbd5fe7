//! The innermost layer: whether this process takes one more exchange.

use super::forward::{Exchange, Failed};
use crate::fault::Kind;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use tower::Service;

/// Refuses what is above the ceiling of one worker.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    inner: S,
}

impl<S> Admit<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> Admit<S> {
        Admit { inner }
    }
}

/// An exchange let in, or refused at once.
pub type Admitted<F, T> = futures_util::future::Either<F, Ready<Result<T, Failed>>>;

impl<S: Service<Exchange, Error = Failed>> Service<Exchange> for Admit<S> {
    type Response = S::Response;
    type Error = Failed;
    type Future = Admitted<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, exchange: Exchange) -> Self::Future {
        let local = exchange.closing.local();
        if local.counter.in_flight() > local.max_exchanges {
            local.telemetry.metrics.requests_refused.inc();
            let fault = Kind::Overloaded.into();
            return Admitted::Right(ready(Err(Failed { fault, closing: exchange.closing })));
        }
        Admitted::Left(self.inner.call(exchange))
    }
}
