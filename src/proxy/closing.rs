//! The end of an exchange, which cannot be forgotten: whatever drops this closes the record.

use super::again::Opening;
use super::copy::HeadCopy;
use super::{Connection, Local, unsent};
use crate::clock;
use crate::drain::InFlight;
use crate::fault::{Fault, Kind};
use crate::record::{Protocol, Record};
use crate::snapshot::{Forwarding, Snapshot, Target};
use crate::telemetry::{Observation, Series};
use crate::upstream::Source;
use http::{HeaderMap, Request, request};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A stream that is reset sooner than this after it began was asked for in haste, or to do harm. As long as in Envoy.
const HASTY: Duration = Duration::from_secs(1);

/// An exchange's record while it is open. Dropping it yields the access log line and the metrics; without
/// an answer by then, the client has gone.
#[derive(Debug)]
pub struct Closing {
    /// The facts so far.
    pub record: Record,
    /// The request's head, on its way to being sent; empty once it has gone up for good.
    pub parts: request::Parts,
    /// The request's body until somebody takes it.
    pub incoming: Option<Incoming>,
    /// The world this exchange lives in.
    pub snapshot: Arc<Snapshot>,
    /// Who is counted as the destination.
    pub target: Option<Arc<Target>>,
    /// The head as it came, of one that may have to wait: should its function be replaced meanwhile, it is
    /// looked at anew.
    pub(super) original: Option<Box<HeadCopy>>,
    /// The heads of a request to upgrade, to be judged again.
    pub(super) opening: Option<Box<Opening>>,
    /// Who calls, as the mesh listener took it from the head as it came.
    pub(super) caller: Option<Arc<str>>,
    /// What is believed of those whom the request has passed before.
    pub(super) forwarding: Forwarding,
    /// The client asked for 204 in place of a timeout's 504.
    pub timeout_is_204: bool,
    /// The caller is to be told where nothing reached the application.
    pub(super) tells_unsent: bool,
    /// Fields that the client gets besides the answer's own.
    pub besides: Option<Box<HeaderMap>>,
    /// Where it is counted if it never has a target.
    nowhere: Option<Arc<Series>>,
    /// The request's body, for its size.
    pub source: Option<Rc<RefCell<Source>>>,
    connection: Rc<Connection>,
    /// The last event on the way, and the run of the connection's task in which it was.
    event: Option<(u32, Instant)>,
    /// When the answer had been given whole.
    complete: Option<Instant>,
    _in_flight: InFlight,
}

impl Closing {
    /// Opens the record and the end of an exchange that begins `now`.
    // A record is large: made in the place where it will stay, it is not copied on the way.
    #[inline(always)]
    pub fn open(
        now: Instant,
        request: Request<Incoming>,
        snapshot: Arc<Snapshot>,
        connection: Rc<Connection>,
    ) -> Box<Closing> {
        let in_flight = connection.local.counter.begin();
        connection.flow.move_on();
        connection.busy.set(connection.busy.get() + 1);
        let (parts, incoming) = request.into_parts();
        let tells_unsent = unsent::wanted(&connection, &parts.headers);
        let (direction, remote, local) = (connection.direction, connection.remote, connection.address);
        let place = Box::new_uninit();
        let closing = Closing {
            record: Record::new(now, direction, parts.version.into(), parts.method.clone(), remote, local),
            parts,
            incoming: Some(incoming),
            snapshot,
            target: None,
            original: None,
            opening: None,
            caller: None,
            forwarding: Forwarding::default(),
            timeout_is_204: false,
            tells_unsent,
            besides: None,
            nowhere: None,
            source: None,
            connection,
            event: None,
            complete: None,
            _in_flight: in_flight,
        };
        Box::write(place, closing)
    }

    /// The worker's things.
    #[inline]
    pub fn local(&self) -> &Rc<Local> {
        &self.connection.local
    }

    /// The client's connection.
    #[inline]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Where the exchange is counted unless it gets a target.
    #[inline]
    pub fn nowhere(&mut self, series: &Arc<Series>) {
        self.nowhere = Some(series.clone());
    }

    /// Whether the configuration has changed since, and it can be asked anew.
    pub(super) fn may_move(&self) -> bool {
        self.original.is_some() && self.local().snapshot().generation != self.snapshot.generation
    }

    /// Begins again at the head, under the configuration in force. False: that cannot be done.
    #[cold]
    pub(super) fn move_on(&mut self) -> bool {
        if !self.may_move() {
            return false;
        }
        let Some(original) = self.original.take() else { return false };
        self.parts = original.into_parts();
        self.snapshot = self.local().snapshot();
        self.target = None;
        true
    }

    /// Notes what went wrong.
    pub fn fail(&mut self, fault: Fault) {
        self.connection.local.telemetry.metrics.fault(fault.kind);
        self.record.fail(fault);
    }

    /// Something happened at `now`.
    #[inline]
    pub fn event(&mut self, now: Instant) {
        // Streams of HTTP/2 run in tasks of their own.
        let alone = self.record.protocol != Protocol::Http2;
        self.event = alone.then(|| (self.connection.runs.get(), now));
    }

    /// The time: that of the last event, if the task has not paused since.
    #[inline]
    pub fn now(&self) -> Instant {
        match self.event {
            Some((run, at)) if run == self.connection.runs.get() => at,
            _ => clock::now(),
        }
    }

    /// The last byte of the answer is on its way.
    #[inline]
    pub fn complete(&mut self, now: Instant) {
        self.complete = Some(now);
    }

    /// A part of the answer was given, and there will be more.
    #[inline]
    pub fn offer(&self) {
        self.connection.flow.offer();
    }

    /// The next part is asked for, or nobody will.
    #[inline]
    pub fn taken(&self) {
        let flow = &self.connection.flow;
        flow.offered.set(flow.offered.get() - 1);
    }

    /// Whether the answer has been given whole.
    pub fn is_complete(&self) -> bool {
        self.complete.is_some()
    }

    /// Whether the client has taken it back, soon after it began and before the answer did.
    fn is_cut(&self, now: Instant) -> bool {
        let record = &self.record;
        let left = self.complete.is_none() && record.fault.is_none() && record.status == 0;
        left && now.saturating_duration_since(record.started) < HASTY
    }

    fn close(&mut self, now: Instant) {
        if self.complete.is_none() && self.record.fault.is_none() {
            let status = self.record.status;
            let kind = self.connection.flow.ending.get().unwrap_or(Kind::ClientGone);
            self.fail(kind.into());
            // What the client saw of the answer, if it saw any, stays on record.
            self.record.status = status;
        }
        let record = &mut self.record;
        record.duration = now.saturating_duration_since(record.started);
        if let Some(source) = &self.source {
            record.bytes_received = source.borrow().bytes();
        }
        let (worker, telemetry) = (self.connection.local.index, &self.connection.local.telemetry);
        match &self.target {
            Some(target) => {
                if let Some(tally) = &target.source {
                    tally.series(telemetry).observe(worker, &Observation::of(record, record.duration));
                }
                if let Some(series) = target.sink.as_ref().map(|tally| tally.series(telemetry)) {
                    let busy = record.duration.saturating_sub(record.hold);
                    let seen = Observation::of(record, busy);
                    match self.connection.standing.secured() {
                        None => series.observe(worker, &seen),
                        Some(_) => self.connection.counted(series).observe(worker, &seen),
                    }
                }
            }
            None => {
                if let Some(series) = &self.nowhere {
                    series.observe(worker, &Observation::of(record, record.duration));
                }
            }
        }
        if let Some(log) = &self.snapshot.access_log {
            record.cluster = self.target.as_ref().map(|target| target.cluster.clone());
            self.connection.local.log.log(log, record);
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let now = self.complete.unwrap_or_else(clock::now);
        let cut = self.is_cut(now);
        self.close(now);
        let connection = &*self.connection;
        connection.busy.set(connection.busy.get() - 1);
        connection.reads_served.set(connection.line.reads.load(Relaxed));
        connection.flow.end(cut);
    }
}
