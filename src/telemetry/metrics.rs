//! `pilotlight_*`: what this process says about itself.
//!
//! Plain handles, to be used where the thing happens. Functions and clusters are asked for when a snapshot
//! is compiled; their names come from the configuration, never from a request.

use super::auth::AuthMetrics;
use super::exposition::family;
use super::plain::{Count, Level, Seconds, Seldom, Spread};
use super::shelf::Shelf;
use crate::clock::Duration;
use crate::fault;
use crate::record::{Cause, ColdStart};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// Metrics of the process as a whole.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Client connections open now.
    pub downstream_connections: Gauge,
    /// Client connections ever accepted.
    pub downstream_opened: Counter,
    /// Client connections refused because there were too many.
    pub downstream_refused: Counter,
    /// Exchanges refused because the process was at its ceiling.
    pub requests_refused: Counter,
    /// Connections to endpoints open now.
    pub upstream_connections: Gauge,
    /// Connections to endpoints ever opened.
    pub upstream_opened: Counter,
    /// Connections to endpoints that could not be opened.
    pub upstream_failed: Counter,
    /// Configurations that were loaded and now serve.
    pub reloads: Counter,
    /// Configurations that were refused as a whole.
    pub reloads_failed: Counter,
    /// When the last configuration began to serve, in seconds since 1970.
    pub last_success: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Objects that are kept out of the configuration because something is wrong with them.
    pub quarantined: Gauge,
    /// Access log lines that were not written.
    pub lines_dropped: Counter,
    /// Instances running now, of all functions.
    pub instances: Gauge,
    /// Times that an instance was to be started and had to wait, because many were started lately.
    pub starts_put_off: Counter,
    /// Instances that may be started now before others have to wait; below zero: a debt.
    pub starts_left: Gauge,
    /// Requests held now, of all functions.
    pub held: Gauge,
    /// Bytes that they keep in memory.
    pub held_bytes: Gauge,
    /// Memory in use, as the control group that bounds it counts.
    pub memory_used: Gauge,
    /// The most there may be.
    pub memory_limit: Gauge,
    /// 1 while new requests are shed for want of memory.
    pub shedding: Gauge,
    /// Of guards.
    pub auth: AuthMetrics,
    faults: Faults,
}

impl Metrics {
    /// Counts one exchange that ended in `kind`.
    pub fn fault(&self, kind: fault::Kind) {
        self.faults.0[kind as usize].inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("pilotlight_{name}"), help, counter.clone());
        };
        counter("downstream_connections_opened", "Client connections accepted", &self.downstream_opened);
        counter(
            "downstream_connections_refused",
            "Client connections refused at the limit",
            &self.downstream_refused,
        );
        counter("requests_refused", "Requests refused at the ceiling of the process", &self.requests_refused);
        counter("upstream_connections_opened", "Connections opened to endpoints", &self.upstream_opened);
        counter(
            "upstream_connections_failed",
            "Connections to endpoints that could not be opened",
            &self.upstream_failed,
        );
        counter("config_reloads", "Configurations that were loaded and served", &self.reloads);
        counter("config_reloads_failed", "Configurations refused as a whole", &self.reloads_failed);
        counter("access_log_dropped_lines", "Access log lines that were not written", &self.lines_dropped);
        counter("starts_put_off", "Starts put off because many were made lately", &self.starts_put_off);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(format!("pilotlight_{name}"), help, gauge.clone());
        };
        gauge("downstream_connections", "Client connections open now", &self.downstream_connections);
        gauge("upstream_connections", "Connections to endpoints open now", &self.upstream_connections);
        gauge("config_quarantined", "Objects kept out of the configuration by an error", &self.quarantined);
        gauge("instances_running", "Instances running now, of all functions", &self.instances);
        gauge("starts_left", "Starts that may be made now before others are put off", &self.starts_left);
        gauge("held_requests", "Requests held now, of all functions", &self.held);
        gauge("held_bytes", "Bytes kept in memory by requests held now, of all functions", &self.held_bytes);
        gauge("memory_used_bytes", "Memory in use within its limit, functions included", &self.memory_used);
        gauge(
            "memory_limit_bytes",
            "The limit of the control group that is nearest to it",
            &self.memory_limit,
        );
        gauge("shedding", "1 while new requests are refused for want of memory", &self.shedding);
        registry.register(
            "pilotlight_config_last_success_timestamp_seconds",
            "When the last configuration began to serve",
            self.last_success.clone(),
        );
        self.auth.register(registry);
        registry.register_collector(Box::new(self.faults.clone()));
        registry.register_collector(Box::new(Build));
    }
}

/// One counter for each kind of fault.
#[derive(Clone, Debug)]
struct Faults(Arc<[Counter]>);

impl Default for Faults {
    fn default() -> Faults {
        Faults(fault::Kind::ALL.iter().map(|_| Counter::default()).collect())
    }
}

impl Collector for Faults {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let rows = fault::Kind::ALL.iter().zip(self.0.iter());
        let rows = rows.map(|(kind, counter)| ([("fault", kind.name())], counter));
        family(&mut encoder, "pilotlight_faults", "Exchanges that ended in a fault, by fault", rows)
    }
}

/// The version, as a label of a constant.
#[derive(Debug)]
struct Build;

impl Collector for Build {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let one = Gauge::<i64>::default();
        one.set(1);
        let version = env!("CARGO_PKG_VERSION");
        let row = [([("version", version)], &one)];
        family(&mut encoder, "pilotlight_build_info", "The version that is running", row)?;
        let row = [([("component", "proxy"), ("tag", version)], &one)];
        family(&mut encoder, "istio_build", "The version that is running, as Istio's tools look for it", row)
    }
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Started, not ready.
    Starting,
    /// Takes requests.
    Ready,
    /// Finishes what it has.
    Draining,
    /// Idle, with its memory and without a processor.
    Frozen,
}

impl State {
    const NAMES: [&'static str; 4] = ["starting", "ready", "draining", "frozen"];
}

/// The first of the faults of the hold, and how many there are: they stand together in the table.
const PARKED: (usize, usize) = {
    let (mut first, mut count, mut at) = (0, 0, 0);
    while at < fault::Kind::ALL.len() {
        if matches!(fault::Kind::ALL[at].row().stage, fault::Stage::Park) {
            if count == 0 {
                first = at;
            }
            count += 1;
        }
        at += 1;
    }
    (first, count)
};

/// Metrics of one function's revision.
#[derive(Debug, Default)]
pub struct FunctionMetrics {
    /// Wakes from zero.
    pub cold_starts: Count,
    /// From the start of an instance until it was ready, in seconds.
    pub start_seconds: Spread,
    /// How long a request was held, in seconds; only of requests that were.
    pub hold_seconds: Spread,
    /// Requests held now.
    pub hold_depth: Level,
    /// Bytes that they keep in memory.
    pub hold_bytes: Level,
    /// Instances that ended on their own.
    pub crashes: Count,
    /// Times that an instance was put aside by its readiness probe.
    pub unready: Count,
    /// Instances that failed their liveness probe.
    pub dead: Count,
    /// 1 while nobody waits for the next start, because those before failed.
    pub circuit_open: Level,
    /// Instances that ended without ever having had a request.
    pub wasted: Count,
    /// Times that an instance was frozen.
    pub freezes: Count,
    /// Times that one was thawed because requests came.
    pub thaws: Count,
    /// Time that instances had requests, of all together, in seconds.
    pub busy_seconds: Seconds,
    /// Time that they had none, their start and end included.
    pub idle_seconds: Seconds,
    /// The same times the memory in use, in GiB.
    pub busy_gb_seconds: Seconds,
    /// The same for idle time.
    pub idle_gb_seconds: Seconds,
    started: [Count; Cause::ALL.len()],
    /// By phase.
    cold: [Spread; ColdStart::PHASES.len()],
    refused: [Count; PARKED.1],
    instances: [Level; State::NAMES.len()],
}

impl FunctionMetrics {
    /// Instances started for this cause; those that were thawed are not among them.
    pub fn started(&self, cause: Cause) -> &Count {
        self.started.get(cause as usize).unwrap_or(&self.thaws)
    }

    /// Counts a request that waited for an instance to start.
    pub fn cold_start(&self, phases: &[Duration; ColdStart::PHASES.len()]) {
        self.cold.iter().zip(phases).for_each(|(histogram, took)| histogram.observe(took.as_secs_f64()));
    }

    /// Requests that ended in this fault while they were held, or instead of it.
    pub fn refused(&self, kind: fault::Kind) -> Option<&Count> {
        self.refused.get((kind as usize).checked_sub(PARKED.0)?)
    }

    /// All of them, by name, save those that never happened.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kinds = fault::Kind::ALL[PARKED.0..].iter().zip(&self.refused);
        kinds.map(|(kind, counter)| (kind.name(), counter.get())).filter(|(_, count)| *count > 0)
    }

    /// Instances in `state` now.
    pub fn instances(&self, state: State) -> &Level {
        &self.instances[state as usize]
    }
}

/// A limit of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `maxConnections`.
    Connections,
    /// `http1MaxPendingRequests`.
    Pending,
    /// `http2MaxRequests`.
    Requests,
    /// The retry budget.
    Retries,
}

impl Limit {
    const NAMES: [&'static str; 4] = ["connections", "pending", "requests", "retries"];
}

/// Metrics of one cluster.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// Endpoints put aside for their errors.
    pub ejections: Count,
    /// Endpoints put aside now.
    pub ejected: Level,
    /// Attempts after the first, by the route's retry policy.
    pub retries: Count,
    /// Attempts on a fresh connection after a reused one died.
    pub free_retries: Count,
    /// Attempts at another endpoint because the sidecar of the first did nothing.
    pub sent_elsewhere: Count,
    overflow: [Count; 4],
}

impl ClusterMetrics {
    /// Requests that met this limit.
    pub fn overflow(&self, limit: Limit) -> &Count {
        &self.overflow[limit as usize]
    }
}

/// Metrics of all functions, by `namespace/name` of the revision.
pub(super) type Functions = Shelf<Arc<str>, Seldom<FunctionMetrics>>;

/// Metrics of all clusters, by name.
pub(super) type Clusters = Shelf<Arc<str>, Seldom<ClusterMetrics>>;

impl Collector for Functions {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (all, unused) = (self.all(), FunctionMetrics::default());
        let all: Vec<_> = all.iter().map(|(name, one)| (&**name, one.seen().unwrap_or(&unused))).collect();
        let encoder = &mut encoder;
        macro_rules! each {
            ($field:ident, $name:literal, $help:literal) => {
                let rows = all.iter().map(|(name, function)| ([("revision", *name)], &function.$field));
                family(encoder, concat!("pilotlight_", $name), $help, rows)?;
            };
        }
        each!(cold_starts, "cold_starts", "Wakes of a function from zero");
        macro_rules! spread {
            ($field:ident, $name:literal, $help:literal) => {
                let seen = all.iter().filter_map(|(name, function)| Some((name, function.$field.seen()?)));
                let rows = seen.map(|(name, histogram)| ([("revision", *name)], histogram));
                family(encoder, concat!("pilotlight_", $name), $help, rows)?;
            };
        }
        spread!(start_seconds, "instance_start_seconds", "From the start of an instance until it was ready");
        spread!(hold_seconds, "hold_seconds", "How long requests were held before an instance took them");
        each!(hold_depth, "hold_queue_depth", "Requests held now");
        each!(hold_bytes, "hold_bytes", "Bytes kept in memory by requests held now");
        let rows = all.iter().flat_map(|(name, function)| {
            let kinds = fault::Kind::ALL[PARKED.0..].iter().zip(&function.refused);
            kinds.map(|(kind, counter)| ([("revision", *name), ("fault", kind.name())], counter))
        });
        family(
            encoder,
            "pilotlight_hold_refused",
            "Requests that ended in a fault of the hold, by fault",
            rows,
        )?;
        each!(crashes, "instance_crashes", "Instances that ended on their own");
        each!(unready, "instance_unready", "Times that an instance was put aside by its readiness probe");
        each!(dead, "instance_liveness_failures", "Instances replaced because of their liveness probe");
        each!(
            circuit_open,
            "crash_circuit_open",
            "1 while nobody waits for the next start after failed ones"
        );
        each!(wasted, "cold_start_wasted", "Instances that ended without ever having had a request");
        each!(freezes, "instance_freezes", "Times that an idle instance was frozen instead of ended");
        each!(thaws, "instance_thaws", "Times that a frozen instance was thawed for requests");
        each!(busy_seconds, "instance_busy_seconds", "Time that instances had requests");
        each!(idle_seconds, "instance_idle_seconds", "Time that instances had none, start and end included");
        each!(
            busy_gb_seconds,
            "instance_busy_gibibyte_seconds",
            "Memory in use over time, with requests, in GiB s"
        );
        each!(
            idle_gb_seconds,
            "instance_idle_gibibyte_seconds",
            "Memory in use over time, without, in GiB s"
        );
        starts(encoder, &all)
    }
}

/// Why instances were started, where the time went, and how far they are.
fn starts(encoder: &mut DescriptorEncoder<'_>, all: &[(&str, &FunctionMetrics)]) -> fmt::Result {
    let rows = all.iter().flat_map(|(name, function)| {
        let causes = Cause::ALL.into_iter().zip(&function.started);
        causes.map(|(cause, counter)| ([("revision", *name), ("cause", cause.name())], counter))
    });
    family(encoder, "pilotlight_cold_start_instances", "Instances started, by cause", rows)?;
    let rows = all.iter().flat_map(|(name, function)| {
        let phases = ColdStart::PHASES.iter().zip(&function.cold);
        let seen = phases.filter_map(|(phase, spread)| Some((phase, spread.seen()?)));
        seen.map(|(phase, histogram)| ([("revision", *name), ("phase", *phase)], histogram))
    });
    let help = "Where the time went of requests that waited for an instance to start, by phase";
    family(encoder, "pilotlight_cold_start_phase_seconds", help, rows)?;
    let rows = all.iter().flat_map(|(name, function)| {
        let states = State::NAMES.iter().zip(&function.instances);
        states.map(|(state, gauge)| ([("revision", *name), ("state", *state)], gauge))
    });
    family(encoder, "pilotlight_instances", "Instances of a function, by state", rows)
}

impl Collector for Clusters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (all, unused) = (self.all(), ClusterMetrics::default());
        let all: Vec<_> = all.iter().map(|(name, one)| (&**name, one.seen().unwrap_or(&unused))).collect();
        let encoder = &mut encoder;
        macro_rules! each {
            ($field:ident, $name:literal, $help:literal) => {
                let rows = all.iter().map(|(name, cluster)| ([("cluster", *name)], &cluster.$field));
                family(encoder, concat!("pilotlight_", $name), $help, rows)?;
            };
        }
        each!(ejections, "ejections", "Endpoints put aside for their errors");
        each!(ejected, "ejected_endpoints", "Endpoints put aside now");
        each!(retries, "retries", "Attempts after the first, by the route's retry policy");
        each!(free_retries, "free_retries", "Attempts on a fresh connection after a reused one died");
        each!(
            sent_elsewhere,
            "sent_elsewhere",
            "Attempts at another endpoint because the sidecar of the first refused before its application saw it"
        );
        let rows = all.iter().flat_map(|(name, cluster)| {
            let limits = Limit::NAMES.iter().zip(&cluster.overflow);
            limits.map(|(limit, counter)| ([("cluster", *name), ("limit", *limit)], counter))
        });
        family(encoder, "pilotlight_overflow", "Requests that met a limit of their cluster, by limit", rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::{Kind, Stage};

    #[test]
    fn exactly_the_faults_of_the_hold_are_counted_for_a_function() {
        let metrics = FunctionMetrics::default();
        for kind in Kind::ALL {
            assert_eq!(metrics.refused(*kind).is_some(), kind.row().stage == Stage::Park, "{kind:?}");
        }
        metrics.refused(Kind::Removed).unwrap().inc();
        assert_eq!(metrics.refusals().collect::<Vec<_>>(), [("Removed", 1)]);
    }
}
