//! The middle layer: a fault becomes the answer its row of the table says.

use super::answer;
use super::body::ResponseBody;
use super::forward::{Exchange, Failed};
use http::Response;
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower::Service;

/// Answers for what failed.
#[derive(Clone, Debug)]
pub struct Rescue<S> {
    inner: S,
}

impl<S> Rescue<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> Rescue<S> {
        Rescue { inner }
    }
}

impl<S> Service<Exchange> for Rescue<S>
where
    S: Service<Exchange, Response = Response<ResponseBody>, Error = Failed>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Rescued<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Nothing inside reserves anything before there is a request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange) -> Self::Future {
        Rescued { inner: self.inner.call(exchange) }
    }
}

pin_project! {
    /// An exchange whose fault will be answered.
    pub struct Rescued<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Response<ResponseBody>, Failed>>> Future for Rescued<F> {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(cx));
        Poll::Ready(Ok(result.unwrap_or_else(|failed| answer::to_fault(failed.fault, failed.closing))))
    }
}
