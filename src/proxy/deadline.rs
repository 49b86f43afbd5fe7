//! The points in time an exchange must not pass, on one timer.
//!
//! The route's timeout counts from when the request was received whole, plus what was spent held before;
//! while the body is still coming only the hold counts. timeoutSeconds counts from the start, the hold
//! included. A try's timeout counts from its dispatch.

use crate::fault::Kind;
use crate::upstream::Source;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// An exchange's deadlines.
#[derive(Debug)]
pub(super) struct Deadlines {
    route: Option<Duration>,
    /// Known once the request has been received.
    route_at: Option<Instant>,
    function_at: Option<Instant>,
    try_at: Option<Instant>,
    /// Time spent held, so far.
    held: Duration,
    source: Option<Rc<RefCell<Source>>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadlines {
    /// Of an exchange that started at `started`; `source` is its body, if it has one.
    pub(super) fn new(
        started: Instant,
        route: Option<Duration>,
        function: Option<Duration>,
        source: Option<Rc<RefCell<Source>>>,
    ) -> Deadlines {
        Deadlines {
            route,
            route_at: if source.is_none() { route.map(|timeout| started + timeout) } else { None },
            function_at: function.map(|timeout| started + timeout),
            try_at: None,
            held: Duration::ZERO,
            source,
            sleep: None,
        }
    }

    /// The current try must have its head by then.
    pub(super) fn begin_try(&mut self, at: Option<Instant>) {
        self.try_at = at;
    }

    /// Adds time spent held.
    pub(super) fn add_hold(&mut self, held: Duration) {
        self.held += held;
    }

    /// What is granted later than this to an exchange that has been held since `since` cannot be finished.
    pub(super) fn of_hold(&mut self, since: Instant) -> Option<Instant> {
        self.next(Some(since)).map(|(at, _)| at)
    }

    /// Whether there is any deadline at all, now or later.
    #[inline]
    pub(super) fn none(&self) -> bool {
        self.route.is_none() && self.function_at.is_none() && self.try_at.is_none()
    }

    /// The route's deadline, once it is known.
    fn route_at(&mut self) -> Option<Instant> {
        if self.route_at.is_none()
            && let (Some(timeout), Some(source)) = (self.route, &self.source)
            && let Some(received) = source.borrow().received()
        {
            self.route_at = Some(received + timeout.saturating_sub(self.held));
        }
        self.route_at
    }

    /// The next deadline, and what it means to pass it.
    fn next(&mut self, hold_since: Option<Instant>) -> Option<(Instant, Kind)> {
        let mut next: Option<(Instant, Kind)> = None;
        let mut consider = |at: Option<Instant>, kind| {
            if let Some(at) = at
                && next.is_none_or(|(soonest, _)| at < soonest)
            {
                next = Some((at, kind));
            }
        };
        let route_at = self.route_at();
        match hold_since {
            // Held: the body is not being read, so the hold alone uses the timeout up.
            Some(since) => {
                let left = self.route.map(|timeout| since + timeout.saturating_sub(self.held));
                consider(route_at.or(left), Kind::HoldTimeout);
                consider(self.function_at, Kind::HoldTimeout);
            }
            None => {
                consider(route_at, Kind::RouteTimeout);
                consider(self.function_at, Kind::FunctionTimeout);
                consider(self.try_at, Kind::TryTimeout);
            }
        }
        next
    }

    /// Runs `future` until a deadline.
    pub(super) async fn within<F: Future + ?Sized>(
        &mut self,
        hold_since: Option<Instant>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Kind> {
        if self.none() {
            return Ok(future.await);
        }
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if self.route.is_some()
                && self.route_at.is_none()
                && let Some(source) = &self.source
            {
                source.borrow_mut().watch(cx.waker());
            }
            let Some((at, kind)) = self.next(hold_since) else { return Poll::Pending };
            if self.arm(at).as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(kind));
            }
            Poll::Pending
        })
        .await
    }

    fn arm(&mut self, at: Instant) -> &mut Pin<Box<Sleep>> {
        let at = tokio::time::Instant::from_std(at);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep
    }

    /// What remains for the response's body: the same timer, armed for the last deadline that applies.
    pub(super) fn for_body(&mut self) -> Option<Remaining> {
        self.try_at = None;
        if self.route.is_some() && self.route_at().is_none() {
            let nothing = Deadlines::new(crate::clock::now(), None, None, None);
            return Some(Remaining::Unknown(Box::new(std::mem::replace(self, nothing))));
        }
        let (at, _) = self.next(None)?;
        self.arm(at);
        self.sleep.take().map(Remaining::Known)
    }
}

/// When carrying the response's body must be over.
#[derive(Debug)]
pub(super) enum Remaining {
    /// A point in time.
    Known(Pin<Box<Sleep>>),
    /// The answer began before the request had ended, and only with that does the route's timeout begin.
    Unknown(Box<Deadlines>),
}

impl Remaining {
    /// Ready when it has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadlines = match self {
            Remaining::Known(sleep) => return sleep.as_mut().poll(cx),
            Remaining::Unknown(deadlines) => deadlines,
        };
        if deadlines.route_at().is_none()
            && let Some(source) = &deadlines.source
        {
            source.borrow_mut().watch(cx.waker());
        }
        match deadlines.next(None) {
            Some((at, _)) => deadlines.arm(at).as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn without_a_body_the_route_counts_from_the_start_and_the_hold_is_in_it() {
        let t = crate::clock::now();
        let mut d = Deadlines::new(t, Some(s(10)), None, None);
        assert_eq!(d.next(Some(t)), Some((t + s(10), Kind::HoldTimeout)));
        d.add_hold(s(4));
        assert_eq!(d.next(None), Some((t + s(10), Kind::RouteTimeout)));
    }

    #[test]
    fn the_soonest_deadline_gives_its_name() {
        let t = crate::clock::now();
        let mut d = Deadlines::new(t, Some(s(10)), Some(s(5)), None);
        assert_eq!(d.next(None), Some((t + s(5), Kind::FunctionTimeout)));
        assert_eq!(d.next(Some(t)), Some((t + s(5), Kind::HoldTimeout)));
        d.begin_try(Some(t + s(2)));
        assert_eq!(d.next(None), Some((t + s(2), Kind::TryTimeout)));
        assert_eq!(d.next(Some(t)), Some((t + s(5), Kind::HoldTimeout)), "tries count from dispatch");
    }

    #[test]
    fn nothing_is_armed_where_nothing_is_configured() {
        let mut d = Deadlines::new(crate::clock::now(), None, None, None);
        assert!(d.none());
        assert!(d.for_body().is_none());
    }
}
