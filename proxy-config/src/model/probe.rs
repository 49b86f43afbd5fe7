//! How a container is asked whether it has started, is ready, and is alive.

use std::time::Duration;

/// The probes of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probes {
    /// `startupProbe`: the others begin when it has passed; when it fails for good the instance is given up.
    pub startup: Option<Probe>,
    /// `readinessProbe`; none: the port accepts, once.
    pub readiness: Option<Probe>,
    /// `livenessProbe`: when it fails the instance is replaced.
    pub liveness: Option<Probe>,
}

/// One of them, Kubernetes' and Knative's defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// Another address than the instance's own; by a host that was written.
    pub elsewhere: Option<(String, u16)>,
    /// Between tries; zero: as often as sensible.
    pub period: Duration,
    /// For one try.
    pub timeout: Duration,
    /// From the start to the first.
    pub initial_delay: Duration,
    /// Good answers in a row that it takes.
    pub success: u32,
    /// Bad answers in a row that it takes; 0: no number of them does.
    pub failure: u32,
    /// `terminationGracePeriodSeconds`: how long an instance has to end that failed it.
    pub grace: Option<Duration>,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            action: ProbeAction::Tcp,
            elsewhere: None,
            period: Duration::ZERO,
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            success: 1,
            failure: 0,
            grace: None,
        }
    }
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeAction {
    /// The port accepts.
    Tcp,
    /// A GET answers 200 to 399.
    Http {
        /// Path with query.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Of this service; empty: of the server.
        service: String,
    },
    /// A command that is run beside the instance exits with status 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// `resources` of a container. `requests.memory` is for the scheduler of a cluster, and means nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `limits.memory`, in bytes.
    pub memory: Option<u64>,
    /// `limits.cpu`, in thousandths of a processor.
    pub cpu: Option<u64>,
    /// `requests.cpu`, the same; where it is not written, the limit.
    pub cpu_request: Option<u64>,
}

impl Resources {
    /// Whether anything is limited or shared out by them.
    pub fn is_empty(&self) -> bool {
        *self == Resources::default()
    }
}

/// Bytes as people write them: `64Mi`.
pub fn amount(bytes: u64) -> String {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(size, name)| format!("{}{name}", bytes / size))
}
