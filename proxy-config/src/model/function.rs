//! Functions: revisions that are started on demand.

use super::{Holding, Idle, Probes, Protocol, Resources};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One revision of one function.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// `namespace/name`; unique, stable over reloads.
    pub key: String,
    /// The function: `hello`.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The revision: `hello-00001`.
    pub name: String,
    /// Template labels and Knative's own (`serving.knative.dev/service`, `…/revision`, `…/configuration`, and
    /// `app`, the revision's name unless the template has one).
    pub labels: BTreeMap<String, String>,
    /// `serviceAccountName`.
    pub service_account: String,
    /// `containerPort`, as policies name it: instances on this host are told ports of their own.
    pub port: u16,
    /// `containerConcurrency`; 0: no limit.
    pub concurrency: u32,
    /// `timeoutSeconds`, the hold included.
    pub timeout: Duration,
    /// How many instances.
    pub scale: Scale,
    /// How requests are held.
    pub holding: Holding,
    /// What becomes of instances that are not needed.
    pub idle: Idle,
    /// How an instance is asked how it is, from when its port is open.
    pub probes: Probes,
    /// What an instance may use.
    pub resources: Resources,
    /// What is run.
    pub command: Command,
    /// The YAML's env of the container, in order.
    pub env: Vec<(String, String)>,
    /// The directory of the YAML file.
    pub directory: PathBuf,
    /// Spoken to its instances (port name `h2c`: HTTP/2).
    pub protocol: Protocol,
    /// Whether it gets traffic by percent or tag; one that does not keeps no instances.
    pub reachable: bool,
}

/// `autoscaling.knative.dev/…` of one revision and what else bounds its instances, with the defaults of ConfigMap
/// `config-autoscaler` or, where it says nothing, Knative's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// `min-scale`.
    pub min: u32,
    /// `max-scale`; 0: no limit of its own.
    pub max: u32,
    /// `initial-scale`.
    pub initial: u32,
    /// `activation-scale`: at least this many when it wakes.
    pub activation: u32,
    /// `pilotlight.dev/starting-at-once`: instances that may be starting at a time; 0: no limit.
    pub starting: u32,
    /// `metric`.
    pub metric: Metric,
    /// `target`, of the metric, per instance; none: see `total`.
    pub target: Option<f64>,
    /// `target-utilization-percentage` as a fraction: the share of the target that is aimed at.
    pub utilization: f64,
    /// `target-burst-capacity`: requests that must find room at once; -1: any number.
    pub burst_capacity: f64,
    /// `window`: the stable window.
    pub window: Duration,
    /// `panic-window-percentage` as a fraction of the stable window.
    pub panic_window: f64,
    /// `panic-threshold-percentage` as a multiple of what is ready.
    pub panic_threshold: f64,
    /// `metric-aggregation-algorithm`.
    pub aggregation: Aggregation,
    /// `scale-to-zero-pod-retention-period`: the last instance is kept this much longer.
    pub retention: Duration,
    /// `scale-down-delay`.
    pub down_delay: Duration,
    /// What only `config-autoscaler` says.
    pub global: GlobalScale,
}

impl Default for Scale {
    fn default() -> Self {
        Scale {
            min: 0,
            max: 0,
            initial: 1,
            activation: 1,
            starting: 0,
            metric: Metric::Concurrency,
            target: None,
            utilization: 0.7,
            burst_capacity: 211.0,
            window: Duration::from_secs(60),
            panic_window: 0.1,
            panic_threshold: 2.0,
            aggregation: Aggregation::Linear,
            retention: Duration::ZERO,
            down_delay: Duration::ZERO,
            global: GlobalScale::default(),
        }
    }
}

impl Scale {
    /// What one instance takes of the metric at full use. `concurrency`: the revision's hard limit, 0 for
    /// none; by concurrency nothing above it is aimed at.
    pub fn total(&self, concurrency: u32) -> f64 {
        match (self.metric, self.target) {
            (Metric::Rps, target) => target.unwrap_or(self.global.rps_target),
            (Metric::Concurrency, None) if concurrency == 0 => self.global.concurrency_target,
            (Metric::Concurrency, None) => f64::from(concurrency),
            (Metric::Concurrency, Some(target)) if concurrency == 0 => target,
            (Metric::Concurrency, Some(target)) => target.min(f64::from(concurrency)),
        }
    }
}

/// What is measured per instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Requests at a time.
    Concurrency,
    /// Requests a second.
    Rps,
}

/// How the seconds of a window become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// All count the same.
    Linear,
    /// The later the more.
    WeightedExponential,
}

/// Keys of `config-autoscaler` that no annotation overrides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlobalScale {
    /// `container-concurrency-target-default`.
    pub concurrency_target: f64,
    /// `requests-per-second-target-default`.
    pub rps_target: f64,
    /// `max-scale-up-rate`: at most so many times what is ready, in one decision.
    pub up_rate: f64,
    /// `max-scale-down-rate`: at least what is ready divided by this, in one decision.
    pub down_rate: f64,
    /// `scale-to-zero-grace-period`.
    pub grace: Duration,
}

impl Default for GlobalScale {
    fn default() -> Self {
        GlobalScale {
            concurrency_target: 100.0,
            rps_target: 200.0,
            up_rate: 1000.0,
            down_rate: 2.0,
            grace: Duration::from_secs(30),
        }
    }
}

/// What an instance runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Program and arguments. The program `pilotlight` means this same executable.
    Run(Vec<String>),
    /// The built-in echo, under the function's name.
    StandIn,
    /// Nothing may be run on this host; requests answer 503 and say why.
    Refused {
        /// Why, in one clause.
        reason: String,
        /// The exact flag or annotation to add.
        help: String,
    },
}
