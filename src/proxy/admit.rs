//! The innermost layer: whether this process takes one more exchange, for its number or for want of
//! memory, and from this connection.

use super::forward::{Exchange, Failed};
use crate::fault::{Advice, Fault, Kind};
use crate::record::Direction;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use tower::Service;

/// Seconds after which a client that was turned away may ask again.
const RETRY_AFTER: u16 = 1;

/// Refuses what is above the ceiling of one worker, and what comes on a connection that would be refused now.
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
        let full = local.counter.in_flight() > local.max_exchanges;
        if full || local.pressure.sheds() {
            // What is in flight may need calls of its own to end: those of applications here go on.
            if full || exchange.closing.record.direction != Direction::Outbound {
                local.telemetry.metrics.requests_refused.inc();
                let kind = if full { Kind::Overloaded } else { Kind::MemoryShort };
                let fault = Fault::advised(kind, Advice { retry_after: RETRY_AFTER, ..Advice::default() });
                return Admitted::Right(ready(Err(Failed { fault, closing: exchange.closing })));
            }
        }
        let closing = &exchange.closing;
        if let Err(fault) = closing.connection().stands(&closing.snapshot, closing.record.started) {
            return Admitted::Right(ready(Err(Failed { fault, closing: exchange.closing })));
        }
        Admitted::Left(self.inner.call(exchange))
    }
}
