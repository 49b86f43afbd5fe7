//! How an exchange gets a slot, and what it says of itself where it has to wait for one.
//!
//! Everything here beside the first look happens only where a function is at zero or at its limit.

use super::STREAM_WINDOW;
use super::answer::{self, Reply};
use super::attempt::Attempts;
use super::closing::Closing;
use super::deadline::Deadlines;
use super::lineage;
use crate::activator::{Ask, Ticket};
use crate::clock;
use crate::cluster::{Slot, Taken};
use crate::fault::{Fault, Kind};
use crate::record::{ColdStart, Protocol};
use crate::snapshot::Destination;
use futures_util::future::{Either, select};
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, request};
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

/// What is in memory of a body that nobody reads and that does not say its length: over HTTP/1 what came with
/// the head, in hyper's first buffer; over HTTP/2 no more on average, as streams share the connection's window.
const READ_AHEAD: usize = 8 * 1024;

impl Attempts<'_> {
    /// A place at an endpoint; where a function has none free, a place in the queue for one.
    pub(super) fn slot(&mut self) -> Result<Taken, Fault> {
        let cluster = &self.destination.cluster;
        let avoid: &[u64] =
            if self.outbound.retry().avoid_tried || self.tries.fresh || self.tries.elsewhere > 0 {
                &self.tries.endpoints
            } else {
                &[]
            };
        let taken = {
            let mut rng = self.connection.local.rng.borrow_mut();
            let (deadlines, closing, destination) = (&mut self.deadlines, &*self.closing, self.destination);
            cluster.members.take_or_wait(
                cluster.policy.balance,
                cluster.policy.outlier.as_ref(),
                &mut rng,
                avoid,
                || ask(deadlines, closing, destination),
            )
        };
        taken.map_err(|kind| self.refused(kind))
    }

    /// Waits until it is the turn of `ticket`. Boxed, because it is rare and large.
    #[cold]
    pub(super) fn turn(
        &mut self,
        ticket: Ticket<Slot>,
    ) -> Pin<Box<dyn Future<Output = Result<Slot, Fault>> + '_>> {
        Box::pin(async move { self.wait(ticket).await.map_err(|kind| self.refused(kind)) })
    }

    async fn wait(&mut self, ticket: Ticket<Slot>) -> Result<Slot, Kind> {
        let since = clock::now();
        let mut waiting = Box::pin(self.while_client_stays(ticket));
        let granted = self.deadlines.within(Some(since), waiting.as_mut()).await;
        let now = clock::now();
        let held = now.saturating_duration_since(since);
        let too_late = self.deadlines.of_hold(since).is_some_and(|deadline| deadline <= now);
        self.deadlines.add_hold(held);
        self.closing.record.hold += held;
        if let Some(function) = &self.destination.function {
            function.hold_seconds.observe(held.as_secs_f64());
        }
        if let Ok(Ok(slot)) = &granted
            && let Some(birth) = slot.endpoint().birth().filter(|birth| birth.ready >= since)
        {
            let cold =
                ColdStart { birth: birth.clone(), parked: since, granted: now, sent: None, answered: None };
            self.closing.record.cold = Some(Box::new(cold));
        }
        match granted {
            // What cannot be finished any more is not begun; the slot goes to the next.
            Ok(Ok(_)) if too_late => Err(Kind::HoldTimeout),
            Ok(granted) => granted,
            Err(kind) => Err(kind),
        }
    }

    /// Waits for `ticket`, but not for longer than the client does. With its body read or absent hyper drops
    /// the whole exchange when it leaves.
    fn while_client_stays(&self, ticket: Ticket<Slot>) -> impl Future<Output = Result<Slot, Kind>> + use<> {
        let unread = self.closing.source.as_ref().is_some_and(|s| s.borrow().received().is_none());
        let http1 = self.closing.record.protocol != Protocol::Http2;
        let departures = &self.connection.local.departures;
        let departure = (unread && http1 && !self.connection.half_close)
            .then(|| departures.watch(self.connection.socket, false))
            .flatten();
        async move {
            let Some(departure) = departure else { return ticket.await };
            match select(ticket, departure).await {
                Either::Left((granted, _)) => granted,
                Either::Right(_) => Err(Kind::ClientGone),
            }
        }
    }

    /// The head of the answer to a request is there that waited for an instance to start.
    #[cold]
    pub(super) fn woken(&mut self, now: Instant) {
        let Some(cold) = &mut self.closing.record.cold else { return };
        if cold.answered.replace(now).is_none()
            && let Some(function) = &self.destination.function
        {
            function.cold_start(&cold.phases());
        }
    }

    /// A fault of the hold, counted, with what the client is to be told.
    fn refused(&self, kind: Kind) -> Fault {
        let hold = self.destination.cluster.members.hold();
        let kind = match (kind, hold) {
            (Kind::HoldTimeout, Some(hold)) => hold.too_late(),
            (kind, _) => kind,
        };
        let function = self.destination.function.as_ref();
        let moves = kind == Kind::Removed && self.closing.may_move();
        if let Some(counter) = function.and_then(|function| function.refused(kind)).filter(|_| !moves) {
            counter.inc();
        }
        match hold {
            Some(hold) => Fault::advised(kind, hold.advice(clock::now(), kind)),
            None => kind.into(),
        }
    }
}

/// The answer to a health check of a function whose instances are frozen: it could serve at once, and the check
/// itself is nothing to thaw it for.
pub(super) fn on_behalf(destination: &Destination, closing: &Closing) -> Option<Reply> {
    let members = &destination.cluster.members;
    let hold = members.hold().filter(|_| members.is_empty() && !closing.record.grpc)?;
    let frozen = is_health_check(&closing.parts.headers) && hold.is_frozen();
    frozen.then(answer::of_frozen)
}

/// Whether a request that comes now is likely to be held.
#[inline]
pub(super) fn may_wait(destination: &Destination) -> bool {
    let members = &destination.cluster.members;
    members.hold().is_some_and(|hold| hold.waiting() > 0 || members.is_empty())
}

/// What an exchange that has to wait says of itself.
///
/// # Errors
/// It may not: health checks wake nothing.
fn ask(deadlines: &mut Deadlines, closing: &Closing, destination: &Destination) -> Result<Ask, Kind> {
    let (now, parts) = (clock::now(), &closing.parts);
    if destination.cluster.members.is_empty() && is_health_check(&parts.headers) {
        return Err(Kind::HealthCheckAtZero);
    }
    let body = if closing.source.is_some() { ahead(closing.record.protocol, parts) } else { 0 };
    let inside = destination.lineage.as_ref().is_some_and(|own| lineage::passed_before(&parts.headers, own));
    Ok(Ask { now, bytes: head_size(parts) + body, deadline: deadlines.of_hold(now), inside })
}

/// Whether nobody but a prober asks: kubelets, load balancers, Knative's own parts.
fn is_health_check(headers: &HeaderMap) -> bool {
    const AGENTS: [&[u8]; 8] = [
        b"kube-probe/",
        b"Knative-",
        b"Envoy/HC",
        b"GoogleHC/",
        b"ELB-HealthChecker/",
        b"Amazon-Route53-Health-Check-Service",
        b"Consul Health Check",
        b"Load Balancer Agent",
    ];
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    AGENTS.iter().any(|prober| agent.starts_with(prober))
}

/// Bytes of the head, about as they were on the wire.
fn head_size(parts: &request::Parts) -> usize {
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target = parts.uri.path_and_query().map_or(1, |target| target.as_str().len());
    target + fields.sum::<usize>()
}

/// Bytes of the body that may be in memory although nobody reads it: what the window lets in.
fn ahead(protocol: Protocol, parts: &request::Parts) -> usize {
    let most = match protocol {
        Protocol::Http2 => STREAM_WINDOW as usize,
        Protocol::Http10 | Protocol::Http11 => READ_AHEAD,
    };
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.map_or(READ_AHEAD, |length: usize| length.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_body_is_bounded_by_its_length_and_by_the_window() {
        let rows = [
            (Protocol::Http11, Some("100"), 100),
            (Protocol::Http11, Some("100000000"), READ_AHEAD),
            (Protocol::Http11, None, READ_AHEAD),
            (Protocol::Http2, None, READ_AHEAD),
            (Protocol::Http2, Some("7"), 7),
            (Protocol::Http2, Some("100000000"), STREAM_WINDOW as usize),
        ];
        for (protocol, length, want) in rows {
            let mut request = http::Request::post("/").body(()).unwrap();
            if let Some(length) = length {
                request.headers_mut().insert(CONTENT_LENGTH, length.parse().unwrap());
            }
            assert_eq!(ahead(protocol, &request.into_parts().0), want, "{protocol:?} {length:?}");
        }
    }
}
