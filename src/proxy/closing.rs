//! The end of an exchange, which cannot be forgotten: whatever drops this closes the record.

use super::Local;
use crate::clock;
use crate::drain::InFlight;
use crate::fault::{Fault, Kind};
use crate::record::{Direction, Record};
use crate::snapshot::{Snapshot, Target};
use crate::telemetry::{Observation, Series};
use crate::upstream::Source;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// An exchange's record while it is open. Dropping it yields the access log line and the metrics; without
/// an answer by then, the client has gone.
#[derive(Debug)]
pub struct Closing {
    /// The facts so far.
    pub record: Record,
    /// The world this exchange lives in.
    pub snapshot: Arc<Snapshot>,
    /// Who is counted as the destination.
    pub target: Option<Arc<Target>>,
    /// The client asked for 204 in place of a timeout's 504.
    pub timeout_is_204: bool,
    /// Where it is counted if it never has a target.
    nowhere: Option<Arc<Series>>,
    /// The request's body, for its size.
    pub source: Option<Rc<RefCell<Source>>>,
    local: Rc<Local>,
    /// The answer has been given whole.
    complete: bool,
    _in_flight: InFlight,
}

impl Closing {
    /// Opens the end of an exchange that begins now.
    #[inline]
    pub fn open(record: Record, snapshot: Arc<Snapshot>, local: Rc<Local>) -> Box<Closing> {
        let in_flight = local.counter.begin();
        Box::new(Closing {
            record,
            snapshot,
            target: None,
            timeout_is_204: false,
            nowhere: None,
            source: None,
            local,
            complete: false,
            _in_flight: in_flight,
        })
    }

    /// The worker's things.
    #[inline]
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Where the exchange is counted unless it gets a target.
    #[inline]
    pub fn nowhere(&mut self, series: &Arc<Series>) {
        self.nowhere = Some(series.clone());
    }

    /// Notes what went wrong.
    pub fn fail(&mut self, fault: Fault) {
        self.local.telemetry.metrics.fault(fault.kind);
        self.record.fail(fault);
    }

    /// The last byte of the answer is on its way.
    #[inline]
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether the answer has been given whole.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    fn close(&mut self, now: Instant) {
        if !self.complete && self.record.fault.is_none() {
            let status = self.record.status;
            self.fail(Kind::ClientGone.into());
            // What the client saw of the answer, if it saw any, stays on record.
            self.record.status = status;
        }
        let record = &mut self.record;
        record.duration = now.saturating_duration_since(record.started);
        if let Some(source) = &self.source {
            record.bytes_received = source.borrow().bytes();
        }
        let worker = self.local.index;
        match &self.target {
            Some(target) => {
                if let Some(series) = &target.source {
                    series.observe(worker, &Observation::of(record, record.duration));
                }
                if let Some(series) = &target.sink {
                    let busy = record.duration.saturating_sub(record.hold);
                    series.observe(worker, &Observation::of(record, busy));
                }
            }
            None => {
                if let Some(series) = &self.nowhere {
                    series.observe(worker, &Observation::of(record, record.duration));
                }
            }
        }
        if let Some(log) = &self.snapshot.access_log {
            self.local.log.log(log, record);
        }
    }

    /// Whether this side stands in front of callers without a proxy of their own.
    pub fn is_gateway(&self) -> bool {
        self.record.direction == Direction::Gateway
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.close(clock::now());
    }
}
