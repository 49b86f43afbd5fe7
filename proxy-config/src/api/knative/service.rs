//! Knative Service: a function, its template and how traffic is split over its revisions.

use crate::api::Meta;
use crate::model::{Holding, Idle, Probes, Resources, Scale};
use crate::report::{At, Place};

/// `serving.knative.dev` Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Identity. The label `networking.knative.dev/visibility` is in `meta.labels`.
    pub meta: Meta,
    /// `spec.template`.
    pub template: RevisionTemplate,
    /// `spec.traffic`; empty: everything to the latest revision. Percents sum to 100.
    pub traffic: Vec<TrafficTarget>,
}

/// `spec.template`.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionTemplate {
    /// Where it begins.
    pub at: Place,
    /// `metadata.name`, which begins with the Service's name and `-`.
    pub name: Option<At<String>>,
    /// `metadata.labels`.
    pub labels: Vec<(String, String)>,
    /// `metadata.annotations`, all of them.
    pub annotations: Vec<(At<String>, At<String>)>,
    /// `autoscaling.knative.dev/…` annotations, checked, Knative's defaults filled in.
    pub scale: Box<Scale>,
    /// `pilotlight.dev/…` annotations about held requests, checked, defaults filled in.
    pub holding: Holding,
    /// `pilotlight.dev/idle` and its kin, checked, defaults filled in.
    pub idle: Idle,
    /// Annotation `pilotlight.dev/local-command`, split into words.
    pub local_command: Option<At<Vec<String>>>,
    /// `spec.serviceAccountName`.
    pub service_account: Option<String>,
    /// `spec.containerConcurrency`; 0: no limit.
    pub container_concurrency: u32,
    /// `spec.timeoutSeconds`; 300 where it is not written or 0.
    pub timeout_seconds: u32,
    /// The container that serves.
    pub container: Container,
}

/// The container that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Where it begins.
    pub at: Place,
    /// `name`.
    pub name: Option<String>,
    /// `image`.
    pub image: Option<String>,
    /// `command`.
    pub command: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// `env` with plain values, in order. Those from Secrets and the like are left out (and warned about).
    pub env: Vec<(String, String)>,
    /// `ports[0].containerPort`.
    pub port: Option<u16>,
    /// `ports[0].name` is `h2c`.
    pub h2c: bool,
    /// Its probes, defaults filled in.
    pub probes: Box<Probes>,
    /// `resources`.
    pub resources: At<Resources>,
}

/// `spec.traffic[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficTarget {
    /// Where it begins.
    pub at: Place,
    /// `revisionName`; `None`: the latest revision.
    pub revision: Option<At<String>>,
    /// `tag`, unique within the Service.
    pub tag: Option<At<String>>,
    /// `percent`.
    pub percent: u32,
}
