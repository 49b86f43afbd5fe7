//! Functions: revisions that are started on demand.

use super::{Holding, Protocol};
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
    /// Template labels and Knative's own (`serving.knative.dev/service`, `…/revision`, `…/configuration`).
    pub labels: BTreeMap<String, String>,
    /// `containerConcurrency`; 0: no limit.
    pub concurrency: u32,
    /// `timeoutSeconds`, the hold included.
    pub timeout: Duration,
    /// How many instances.
    pub scale: Scale,
    /// How requests are held.
    pub holding: Holding,
    /// When an instance counts as ready, after its port opened.
    pub probe: Probe,
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

/// `autoscaling.knative.dev/…` of one revision, Knative's defaults filled in.
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
    /// `target`: requests in flight wanted per instance where `concurrency` is 0.
    pub target: f64,
    /// `window`: the stable window.
    pub window: Duration,
    /// `scale-to-zero-pod-retention-period`: the last instance is kept this much longer.
    pub retention: Duration,
    /// `scale-down-delay`.
    pub down_delay: Duration,
}

impl Default for Scale {
    fn default() -> Self {
        Scale {
            min: 0,
            max: 0,
            initial: 1,
            activation: 1,
            target: 100.0,
            window: Duration::from_secs(60),
            retention: Duration::ZERO,
            down_delay: Duration::ZERO,
        }
    }
}

/// `readinessProbe`.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// Between tries; zero: as often as sensible.
    pub period: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Before the first.
    pub initial_delay: Duration,
    /// Good answers in a row that it takes.
    pub success: u32,
    /// Bad answers in a row that it takes to give the instance up; 0: until the progress deadline.
    pub failure: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            action: ProbeAction::Tcp,
            period: Duration::ZERO,
            timeout: Duration::from_secs(1),
            initial_delay: Duration::ZERO,
            success: 1,
            failure: 0,
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
