//! The attempts of one exchange: slot, lease, send, verdict; again, or not.
//!
//! Cold start, waiting at a concurrency limit, retry and failover all go through here the same way.

use super::Connection;
use super::answer::Reply;
use super::body::Held;
use super::closing::Closing;
use super::copy::{HeadCopy, Kept};
use super::deadline::Deadlines;
use super::prepare::{self, Outbound};
use super::retry::{self, Failure, Verdict};
use super::unsent;
use crate::clock::{self, Duration};
use crate::cluster::{Permit, Slot, Taken};
use crate::fault::{Blame, Fault, Kind};
use crate::http::grpc;
use crate::record::Flags;
use crate::snapshot::{Destination, Forward, Target};
use crate::telemetry::Limit;
use crate::upstream::{Aim, Lease, RequestBody, SendError};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use smallvec::SmallVec;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

/// Between looks whether an instance has exited, and how many.
const MOMENT: (Duration, u32) = (Duration::from_millis(1), 8);

/// Of an answer that is read for nothing but its connection.
const SET_ASIDE: usize = 4096;

/// One exchange's attempts.
pub(super) struct Attempts<'a> {
    pub(super) connection: &'a Rc<Connection>,
    pub(super) closing: &'a mut Closing,
    pub(super) forwarding: &'a Forward,
    pub(super) target: &'a Arc<Target>,
    pub(super) destination: &'a Arc<Destination>,
    /// A copy of the head that has gone up.
    pub(super) kept: Kept,
    pub(super) outbound: Outbound<'a>,
    pub(super) deadlines: Deadlines,
    pub(super) tries: Tries,
    pub(super) hands: Hands,
}

/// What the current attempt holds.
#[derive(Debug, Default)]
pub(super) struct Hands {
    slot: Option<Slot>,
    request: Option<Permit>,
    lease: Option<Lease>,
    /// The peer may say that it did nothing, and was asked to.
    asked: bool,
}

/// What earlier attempts leave behind.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Endpoints that failed.
    pub(super) endpoints: SmallVec<[u64; 4]>,
    /// Counted retries.
    counted: u32,
    /// The free attempt is used up.
    free_used: bool,
    /// How often it went elsewhere because a peer did nothing.
    pub(super) elsewhere: u8,
    /// The next connection must be a fresh one.
    pub(super) fresh: bool,
    /// The retry in flight.
    permit: Option<Permit>,
}

/// An attempt without a response.
struct Missed {
    fault: Fault,
    stale: bool,
    unsent: bool,
}

impl From<Kind> for Missed {
    fn from(kind: Kind) -> Missed {
        Missed { fault: kind.into(), stale: false, unsent: true }
    }
}

impl Attempts<'_> {
    /// Until there is an answer, or nothing more to be done.
    pub(super) async fn run(&mut self) -> Result<Reply, Fault> {
        loop {
            let slot = match self.slot()? {
                Taken::Slot(slot) => slot,
                Taken::Wait(ticket) => self.turn(ticket).await?,
            };
            let endpoint = slot.endpoint().id;
            let outcome = pin!(self.attempt(slot)).await;
            self.report(&outcome);
            let verdict = match &outcome {
                Ok(response) if self.goes_elsewhere(response, endpoint) => Verdict::Elsewhere,
                Ok(response) => self.judge(response, self.tries_left()),
                Err(missed) => self.judge_miss(missed, self.tries_left()),
            };
            if verdict == Verdict::GiveUp || !self.may_go_on(verdict) {
                if self.tries.counted > 0 && !self.tries_left() {
                    self.note_exhaustion(&outcome);
                }
                return match outcome {
                    Ok(response) => self.reply(response),
                    Err(missed) => Err(self.why(missed.fault).await),
                };
            }
            // Connection and slot are free for others while this exchange backs off.
            match outcome {
                Ok(response) if verdict == Verdict::Elsewhere => self.set_aside(response).await,
                _ => {}
            }
            self.hands = Hands::default();
            self.tries.endpoints.push(endpoint);
            Box::pin(self.back_off(verdict)).await?;
        }
    }

    /// The fault, or that of an instance whose end it was. Its connections break a moment before anybody can
    /// know that it exited, so that moment is waited for.
    #[cold]
    async fn why(&mut self, fault: Fault) -> Fault {
        let broken = matches!(
            fault.kind,
            Kind::Disconnected | Kind::StreamReset | Kind::NotSent | Kind::ConnectFailure
        );
        let Some(slot) = self.hands.slot.as_ref().filter(|slot| broken && slot.endpoint().birth().is_some())
        else {
            return fault;
        };
        let endpoint = slot.endpoint().clone();
        for _ in 0..MOMENT.1 {
            if endpoint.has_ended() {
                return Fault { kind: Kind::InstanceExited, ..fault };
            }
            tokio::time::sleep(MOMENT.0).await;
        }
        fault
    }

    /// One try, from dispatch to the response's head.
    async fn attempt(&mut self, slot: Slot) -> Result<Response<Incoming>, Missed> {
        let destination = self.destination;
        let cluster = &destination.cluster;
        let slot = self.hands.slot.insert(slot);
        let request = cluster.gate.request(cluster.policy.limits.max_requests).inspect_err(|_| {
            destination.metrics.overflow(Limit::Requests).inc();
        })?;
        self.hands.request = Some(request);
        self.hands.asked = cluster.tls_to(slot.endpoint()).is_some_and(|tls| tls.is_mesh());
        let record = &mut self.closing.record;
        let dispatched =
            if record.attempts == 0 && record.hold.is_zero() { record.started } else { clock::now() };
        record.attempts = record.attempts.saturating_add(1);
        record.upstream_host = Some(slot.endpoint().address);
        self.deadlines.begin_try(self.outbound.retry().per_try_timeout.map(|timeout| dispatched + timeout));
        let pools = &self.connection.local.pools;
        let to = Aim { cluster, endpoint: slot.endpoint(), host: self.outbound.host() };
        let idle = if self.tries.fresh { None } else { pools.idle(to, dispatched) };
        let lease = match idle {
            Some(lease) => lease,
            None => {
                let mut connecting = pools.connect(to, self.tries.fresh);
                self.deadlines.within(None, connecting.as_mut()).await?.map_err(|fault| {
                    if fault.kind == Kind::PendingOverflow {
                        destination.metrics.overflow(Limit::Pending).inc();
                    }
                    Missed { fault, stale: false, unsent: true }
                })?
            }
        };
        self.closing.record.upstream_local = lease.local();
        // An instance of a function may be gone without its connections knowing; others are only stale
        // where they were used before.
        let stale = lease.reused() || destination.function.is_some();
        let lease = self.hands.lease.insert(lease);
        if !lease.is_ready() {
            let readied = {
                let mut readying = Box::pin(lease.ready());
                self.deadlines.within(None, readying.as_mut()).await?
            };
            readied.map_err(|fault| Missed { fault, stale, unsent: true })?;
        }
        let Some(message) = self.message(stale) else { return Err(Kind::NotSent.into()) };
        let Some(lease) = &mut self.hands.lease else { return Err(Kind::NotSent.into()) };
        if let Some(cold) = &mut self.closing.record.cold {
            cold.sent = Some(clock::now());
        }
        let mut sending = pin!(lease.send(message));
        let sent = if self.deadlines.none() {
            sending.await
        } else {
            let limited = self.deadlines.within(None, sending.as_mut()).await;
            limited.map_err(|kind| Missed { fault: kind.into(), stale: false, unsent: false })?
        };
        let response = sent.map_err(|error| self.missed(error.into(), stale))?;
        if let Some(lease) = &self.hands.lease {
            lease.head_came();
        }
        let now = clock::now();
        self.closing.record.service_time = Some(now.saturating_duration_since(dispatched));
        self.closing.event(now);
        if self.closing.record.cold.is_some() {
            self.woken(now);
        }
        Ok(response)
    }

    #[cold]
    fn missed(&mut self, error: SendError, stale: bool) -> Missed {
        let SendError { fault, unsent } = error;
        let missed = Missed { fault, stale, unsent: unsent.is_some() };
        if let Some(message) = unsent {
            self.closing.parts = message.into_parts().0;
            self.kept = Kept::Not;
        }
        if let Some(kind) = self.closing.source.as_ref().and_then(|s| s.borrow().broken()) {
            return Missed { fault: kind.into(), stale: false, unsent: false };
        }
        missed
    }

    /// The request for one try. A copy is kept only where a verdict may ask for it once it is sent.
    // A head is large: it is put together where it is sent from.
    #[inline(always)]
    fn message(&mut self, stale: bool) -> Option<Request<RequestBody>> {
        let parts = match std::mem::take(&mut self.kept) {
            Kept::Not => std::mem::replace(&mut self.closing.parts, Request::new(()).into_parts().0),
            Kept::Copy(copy) => copy.into_parts(),
            Kept::Head(parts) => *parts,
            Kept::Gone | Kept::OnWire => return None,
        };
        let Some(lease) = &self.hands.lease else { return None };
        let refusable = matches!(lease, Lease::Http2(_));
        let may_repeat = stale && !self.tries.free_used && (self.outbound.idempotent || refusable);
        let mesh = self.hands.asked;
        let keep = may_repeat || mesh || retry::needs_copy(self.outbound.retry(), self.closing.record.grpc);
        self.kept = match keep {
            false => Kept::Gone,
            true if lease.keep_head() => Kept::OnWire,
            true => Kept::Copy(HeadCopy::of(&parts)),
        };
        let body = self.closing.source.as_ref().map_or(RequestBody::Empty, RequestBody::again);
        let mut request = Request::from_parts(parts, body);
        if self.destination.cluster.tls.is_some() {
            unsent::ask(request.headers_mut(), mesh);
        }
        if self.closing.record.attempts > 1 {
            prepare::attempt(&mut request, self.closing.record.attempts);
        }
        Some(request)
    }

    /// One more try was wanted, and none was left: Envoy's URX.
    #[cold]
    fn note_exhaustion(&mut self, outcome: &Result<Response<Incoming>, Missed>) {
        let wanted = match outcome {
            Ok(response) => self.judge(response, true),
            Err(missed) => self.judge_miss(missed, true),
        };
        if wanted != Verdict::GiveUp {
            self.closing.record.flags |= Flags::of("URX");
        }
    }

    fn judge(&self, response: &Response<Incoming>, tries_left: bool) -> Verdict {
        let (status, headers) = (response.status(), response.headers());
        let grpc = if self.closing.record.grpc { grpc::status(headers) } else { None };
        retry::on_response(status, headers, grpc, self.outbound.retry(), tries_left)
    }

    fn judge_miss(&self, missed: &Missed, tries_left: bool) -> Verdict {
        let failure = Failure {
            kind: missed.fault.kind,
            stale: missed.stale,
            unsent: missed.unsent,
            idempotent: self.outbound.idempotent,
        };
        retry::on_failure(failure, self.outbound.retry(), tries_left, !self.tries.free_used)
    }

    /// Whether the peer says that it did nothing, and somebody else may.
    fn goes_elsewhere(&self, response: &Response<Incoming>, endpoint: u64) -> bool {
        unsent::is_said(self.hands.asked, response)
            && self.tries.elsewhere < unsent::ELSEWHERE
            && self
                .destination
                .cluster
                .members
                .has_room_beside(&[&self.tries.endpoints[..], &[endpoint]].concat())
    }

    /// Reads an answer that nobody gets, so that its connection can serve on; many are refused at once.
    #[cold]
    async fn set_aside(&mut self, response: Response<Incoming>) {
        if self.closing.source.is_some() {
            return;
        }
        let mut reading = Box::pin(Limited::new(response.into_body(), SET_ASIDE).collect());
        let read = self.deadlines.within(None, reading.as_mut()).await;
        if let (Ok(Ok(_)), Some(lease)) = (read, self.hands.lease.take()) {
            let cluster = &self.destination.cluster;
            self.connection.local.pools.give_back(lease, cluster, clock::now(), None);
        }
    }

    fn tries_left(&self) -> bool {
        self.tries.counted < self.outbound.retry().attempts
    }

    /// Whether the request can be sent again, and the cluster can bear it.
    fn may_go_on(&mut self, verdict: Verdict) -> bool {
        if matches!(self.kept, Kept::OnWire) {
            let written = self.hands.lease.as_ref().and_then(Lease::sent_head);
            self.kept = written.map_or(Kept::Gone, |head| Kept::Head(Box::new(head)));
        }
        if matches!(self.kept, Kept::Gone)
            || self.closing.source.as_ref().is_some_and(|s| !s.borrow().replayable())
        {
            return false;
        }
        let cluster = &self.destination.cluster;
        match verdict {
            Verdict::GiveUp => false,
            Verdict::Free => {
                self.tries.free_used = true;
                self.tries.fresh = true;
                self.destination.metrics.free_retries.inc();
                true
            }
            Verdict::Elsewhere => {
                self.tries.elsewhere += 1;
                self.destination.metrics.sent_elsewhere.inc();
                true
            }
            Verdict::Again { budgeted } => {
                let budget = if budgeted { retry::budget(cluster.gate.requests()) } else { u32::MAX };
                self.tries.permit = None;
                self.tries.permit = cluster.gate.retry(cluster.policy.limits.max_retries, budget);
                if self.tries.permit.is_none() {
                    self.destination.metrics.overflow(Limit::Retries).inc();
                    return false;
                }
                self.tries.counted += 1;
                self.destination.metrics.retries.inc();
                true
            }
        }
    }

    async fn back_off(&mut self, verdict: Verdict) -> Result<(), Kind> {
        if matches!(verdict, Verdict::Free | Verdict::Elsewhere) {
            return Ok(());
        }
        let pause = {
            let mut rng = self.connection.local.rng.borrow_mut();
            retry::backoff(self.outbound.retry().backoff, self.tries.counted, &mut rng)
        };
        self.deadlines.begin_try(None);
        let mut pausing = Box::pin(tokio::time::sleep(pause));
        self.deadlines.within(None, pausing.as_mut()).await
    }

    /// Tells the members how it went; time spent held is not in it.
    #[inline]
    fn report(&self, outcome: &Result<Response<Incoming>, Missed>) {
        let Some(policy) = &self.destination.cluster.policy.outlier else { return };
        let status = match outcome {
            // Somebody else's work was in the way: that is no failure of the application's.
            Ok(response) if unsent::is_said(self.hands.asked, response) => return,
            Ok(response) => response.status().as_u16(),
            Err(missed) => {
                let row = missed.fault.kind.row();
                if row.blame != Blame::Upstream {
                    return;
                }
                row.status
            }
        };
        let cluster = &self.destination.cluster;
        let Some(slot) = &self.hands.slot else { return };
        let endpoint = slot.endpoint();
        if cluster.members.report(endpoint, status, policy, clock::now()) {
            self.destination.metrics.ejections.inc();
            self.connection.local.pools.forget(endpoint.id);
            tracing::info!(cluster = %cluster.name, endpoint = %endpoint.name, status, "endpoint ejected");
        }
    }

    /// The answer, on its way down with everything it holds.
    fn reply(&mut self, response: Response<Incoming>) -> Result<Reply, Fault> {
        if let Some(source) = &self.closing.source {
            source.borrow_mut().settle();
        }
        let held = Held {
            lease: self.hands.lease.take(),
            _counted: (self.hands.slot.take(), self.hands.request.take(), self.tries.permit.take()),
            source: self.closing.source.clone(),
            keep_alive: None,
        };
        prepare::response(self, response, held)
    }
}
