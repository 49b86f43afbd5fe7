//! Istio's four standard HTTP metrics of one pair of peers, counted on the hot path.
//!
//! A series is found once, when a snapshot is compiled. What varies per exchange (status, flags, gRPC) is a
//! small number, looked up in a list that is bounded. Each worker writes its own shard with plain loads and
//! stores; a scrape adds the shards up. Nothing here locks or reads a name from the wire.

use crate::clock::Duration;
use crate::record::{Flags, Record};
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bounds of Istio's histograms: milliseconds or bytes.
pub const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];
/// One bucket per bound, and one for what is above them all.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The bounds in whole units of `1 / scale`, rounded down: what an integer may be at most.
const fn whole(scale: f64) -> [u64; BOUNDS.len()] {
    let mut out = [0; BOUNDS.len()];
    let mut at = 0;
    while at < out.len() {
        out[at] = (BOUNDS[at] * scale) as u64;
        at += 1;
    }
    out
}

const NANOSECONDS: [u64; BOUNDS.len()] = whole(1e6);
const BYTES: [u64; BOUNDS.len()] = whole(1.0);

/// More combinations of status, flags and gRPC status than this are counted together as `other`.
const COMBINATIONS: usize = 48;

/// Which side of the exchange reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reporter {
    /// The caller's.
    Source,
    /// The callee's.
    Destination,
}

impl Reporter {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        }
    }
}

/// A label value: from the configuration, never from the wire.
pub type Label = Cow<'static, str>;

/// Who one end of an exchange is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// `*_workload`
    pub workload: Label,
    /// `*_workload_namespace`
    pub namespace: Label,
    /// `*_principal`: `spiffe://…`
    pub principal: Label,
    /// `*_app`
    pub app: Label,
    /// `*_version`
    pub version: Label,
    /// `*_canonical_service`
    pub canonical_service: Label,
    /// `*_canonical_revision`
    pub canonical_revision: Label,
    /// `*_cluster`: the Kubernetes cluster
    pub cluster: Label,
}

const UNKNOWN: Label = Cow::Borrowed("unknown");

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            workload: UNKNOWN,
            namespace: UNKNOWN,
            principal: UNKNOWN,
            app: UNKNOWN,
            version: UNKNOWN,
            canonical_service: UNKNOWN,
            canonical_revision: Cow::Borrowed("latest"),
            cluster: UNKNOWN,
        }
    }
}

/// The labels of a series that the configuration decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesLabels {
    /// `reporter`
    pub reporter: Reporter,
    /// `source_*`
    pub source: Peer,
    /// `destination_*`
    pub destination: Peer,
    /// `destination_service`: the FQDN.
    pub service: Label,
    /// `destination_service_name`
    pub service_name: Label,
    /// `destination_service_namespace`
    pub service_namespace: Label,
    /// `connection_security_policy`: `mutual_tls` or `none` at the destination, `unknown` at the source.
    pub security: Label,
}

impl SeriesLabels {
    /// Everything unknown, as a reporter says it who knows nothing.
    pub fn unknown(reporter: Reporter) -> SeriesLabels {
        SeriesLabels {
            reporter,
            source: Peer::default(),
            destination: Peer::default(),
            service: UNKNOWN,
            service_name: UNKNOWN,
            service_namespace: UNKNOWN,
            security: match reporter {
                Reporter::Source => UNKNOWN,
                Reporter::Destination => Cow::Borrowed("none"),
            },
        }
    }
}

/// What one finished exchange adds to a series.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// The HTTP status; 0: none was sent.
    pub code: u16,
    /// Response flags.
    pub flags: Flags,
    /// Whether the request is gRPC.
    pub grpc: bool,
    /// The gRPC status, if one came.
    pub grpc_status: Option<u8>,
    /// How long it took; a destination leaves the hold out.
    pub duration: Duration,
    /// Request bytes.
    pub request_bytes: u64,
    /// Response bytes.
    pub response_bytes: u64,
}

impl Observation {
    /// What `record` adds where the whole of `duration` counts.
    pub fn of(record: &Record, duration: Duration) -> Observation {
        Observation {
            code: record.status,
            flags: record.flags,
            grpc: record.grpc,
            grpc_status: record.grpc_status,
            duration,
            request_bytes: record.bytes_received,
            response_bytes: record.bytes_sent,
        }
    }

    #[inline]
    fn outcome(&self) -> Outcome {
        let status = match self.grpc_status {
            Some(status) if self.grpc => u64::from(status) + 1,
            _ => 0,
        };
        Outcome(
            u64::from(self.code)
                | u64::from(self.flags.bits()) << 16
                | u64::from(self.grpc) << 48
                | status << 49,
        )
    }
}

/// Status, flags and gRPC status of an exchange in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome(u64);

impl Outcome {
    /// Status 200, no flags, not gRPC.
    const PLAIN: Outcome = Outcome(200);
    /// What is beyond the bound.
    pub(super) const OTHER: Outcome = Outcome(u64::MAX);

    pub(super) fn code(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn flags(self) -> Flags {
        Flags::from_bits((self.0 >> 16) as u32)
    }

    pub(super) fn grpc(self) -> bool {
        self.0 >> 48 & 1 == 1
    }

    pub(super) fn grpc_status(self) -> Option<u8> {
        (self.0 >> 49).checked_sub(1).map(|status| status as u8)
    }
}

/// One histogram of one worker.
#[derive(Debug, Default)]
struct Cells {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Cells {
    #[inline]
    fn add(&self, bounds: &[u64; BOUNDS.len()], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        bump(&self.buckets[bucket], 1);
        bump(&self.sum, value);
    }
}

/// Adds without a locked instruction: each cell has one writer, and a scrape may be one behind.
#[inline]
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// What one worker counts of one outcome: 504 bytes, kept off its neighbours' cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    duration: Cells,
    request: Cells,
    response: Cells,
}

/// The shards of one outcome, one for each worker.
#[derive(Debug)]
struct Shards(Box<[Shard]>);

impl Shards {
    fn new(workers: usize) -> Shards {
        Shards((0..workers.max(1)).map(|_| Shard::default()).collect())
    }

    #[inline]
    fn add(&self, worker: usize, seen: &Observation) {
        debug_assert!(worker < self.0.len(), "worker {worker} of {}", self.0.len());
        let Some(shard) = self.0.get(worker) else { return };
        shard.duration.add(&NANOSECONDS, seen.duration.as_nanos() as u64);
        shard.request.add(&BYTES, seen.request_bytes);
        shard.response.add(&BYTES, seen.response_bytes);
    }

    fn total(&self, outcome: Outcome) -> Total {
        let mut total = Total { outcome, duration: Sum::new(), request: Sum::new(), response: Sum::new() };
        for shard in &self.0 {
            total.duration.add(&shard.duration);
            total.request.add(&shard.request);
            total.response.add(&shard.response);
        }
        total
    }
}

/// A histogram summed over the workers; the sum is in nanoseconds or bytes.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum: u64,
}

impl Sum {
    fn new() -> Sum {
        Sum { buckets: [0; BUCKETS], sum: 0 }
    }

    fn add(&mut self, cells: &Cells) {
        for (total, cell) in self.buckets.iter_mut().zip(&cells.buckets) {
            *total += cell.load(Relaxed);
        }
        self.sum = self.sum.wrapping_add(cells.sum.load(Relaxed));
    }

    /// How many values were seen.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What a series has counted of one outcome.
#[derive(Debug)]
pub(super) struct Total {
    pub(super) outcome: Outcome,
    pub(super) duration: Sum,
    pub(super) request: Sum,
    pub(super) response: Sum,
}

/// One outcome after the plain one, in the order in which they were first seen.
#[derive(Debug)]
struct Node {
    outcome: Outcome,
    shards: Shards,
    next: OnceLock<Box<Node>>,
}

/// `istio_requests_total` and its three histograms for one set of labels.
#[derive(Debug)]
pub struct Series {
    labels: SeriesLabels,
    workers: usize,
    plain: Shards,
    rare: OnceLock<Box<Node>>,
}

impl Series {
    pub(super) fn new(labels: SeriesLabels, workers: usize) -> Series {
        Series { labels, workers, plain: Shards::new(workers), rare: OnceLock::new() }
    }

    /// The labels that do not vary.
    pub fn labels(&self) -> &SeriesLabels {
        &self.labels
    }

    /// Counts one exchange. `worker` is the caller's own index: two threads that use the same one lose
    /// counts. Does not block; allocates only when an outcome is seen for the first time.
    #[inline]
    pub fn observe(&self, worker: usize, seen: &Observation) {
        let outcome = seen.outcome();
        if outcome == Outcome::PLAIN {
            self.plain.add(worker, seen);
        } else {
            self.shards_of(outcome).add(worker, seen);
        }
    }

    fn shards_of(&self, outcome: Outcome) -> &Shards {
        let mut place = &self.rare;
        let mut nth = 1;
        loop {
            let Some(node) = place.get() else {
                let outcome = if nth < COMBINATIONS { outcome } else { Outcome::OTHER };
                let shards = Shards::new(self.workers);
                // Whoever comes second finds the node of whoever came first.
                let _ = place.set(Box::new(Node { outcome, shards, next: OnceLock::new() }));
                continue;
            };
            if node.outcome == outcome || node.outcome == Outcome::OTHER {
                return &node.shards;
            }
            place = &node.next;
            nth += 1;
        }
    }

    /// What was counted, outcome by outcome; outcomes that never happened are left out.
    pub(super) fn totals(&self) -> Vec<Total> {
        let mut totals = vec![self.plain.total(Outcome::PLAIN)];
        let mut place = &self.rare;
        while let Some(node) = place.get() {
            totals.push(node.shards.total(node.outcome));
            place = &node.next;
        }
        totals.retain(|total| total.duration.count() > 0);
        totals
    }
}
