//! What people write, field for field: trees from [`crate::document`] become typed objects here.
//!
//! What concerns one object alone is checked here: names of fields, shapes of values, rules between the
//! fields of one object. What needs other objects is `resolve`'s. A bad object still says who it is, so that
//! it can be set aside by name.

pub(crate) mod host;
pub mod istio;
mod kinds;
pub mod knative;
pub mod kubernetes;
pub mod mesh;
mod parse;
pub(crate) mod shape;

pub use parse::{parse, parse_mesh_file};

use crate::model::ObjectRef;
use crate::report::{At, Level, Place, Problem};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Identity of an object and what every kind has.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Group, kind, namespace (the default one filled in) and name.
    pub object: ObjectRef,
    /// The file it stands in, as it was named to us.
    pub file: Arc<Path>,
    /// Where the object begins.
    pub at: Place,
    /// Where its name stands.
    pub name_at: Place,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, At<String>>,
}

/// Comparison ignores files and places.
impl PartialEq for Meta {
    fn eq(&self, other: &Meta) -> bool {
        (&self.object, &self.labels, &self.annotations) == (&other.object, &other.labels, &other.annotations)
    }
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            object: ObjectRef::default(),
            file: Arc::from(Path::new("")),
            at: Place::default(),
            name_at: Place::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Meta {
    /// A finding about this object, at `at`; `path` is a field of it such as `spec.http[0].route[1]`.
    pub fn problem(
        &self,
        level: Level,
        code: &'static str,
        path: impl Into<String>,
        at: Place,
        message: impl Into<String>,
    ) -> Problem {
        let mut problem = Problem::in_file(level, code, &self.file, at, message);
        problem.object = Some(self.object.clone());
        problem.path = path.into();
        problem
    }
}

/// One object of the input that reads without error.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Istio Gateway.
    Gateway(istio::Gateway),
    /// Istio VirtualService.
    VirtualService(istio::VirtualService),
    /// Istio DestinationRule.
    DestinationRule(istio::DestinationRule),
    /// Istio ServiceEntry.
    ServiceEntry(istio::ServiceEntry),
    /// Istio PeerAuthentication.
    PeerAuthentication(istio::PeerAuthentication),
    /// Istio RequestAuthentication.
    RequestAuthentication(istio::RequestAuthentication),
    /// Istio AuthorizationPolicy.
    AuthorizationPolicy(istio::AuthorizationPolicy),
    /// Kubernetes Service.
    Service(kubernetes::Service),
    /// Kubernetes EndpointSlice.
    EndpointSlice(kubernetes::EndpointSlice),
    /// Kubernetes Secret, as far as it holds certificates and keys.
    Secret(kubernetes::Secret),
    /// Kubernetes Pod.
    Pod(kubernetes::Pod),
    /// Kubernetes Deployment and its like.
    Workload(kubernetes::Workload),
    /// Knative Service.
    Function(knative::Service),
    /// Knative's ConfigMap `config-autoscaler`.
    Autoscaler(Box<knative::Autoscaler>),
    /// MeshConfig.
    Mesh(mesh::MeshConfig),
    /// A kind that is checked but does not act yet (Telemetry and the like), or is only known by
    /// name (ConfigMap, Namespace).
    Inert(Meta),
}

impl Object {
    /// Its identity.
    pub fn meta(&self) -> &Meta {
        match self {
            Object::Gateway(o) => &o.meta,
            Object::VirtualService(o) => &o.meta,
            Object::DestinationRule(o) => &o.meta,
            Object::ServiceEntry(o) => &o.meta,
            Object::PeerAuthentication(o) => &o.meta,
            Object::RequestAuthentication(o) => &o.meta,
            Object::AuthorizationPolicy(o) => &o.meta,
            Object::Service(o) => &o.meta,
            Object::EndpointSlice(o) => &o.meta,
            Object::Secret(o) => &o.meta,
            Object::Pod(o) => &o.meta,
            Object::Workload(o) => &o.meta,
            Object::Function(o) => &o.meta,
            Object::Autoscaler(o) => &o.meta,
            Object::Mesh(o) => &o.meta,
            Object::Inert(meta) => meta,
        }
    }

    /// Whom it asks something of callers for, where it is an object that does.
    pub(crate) fn selection(&self) -> Option<&istio::Selection> {
        match self {
            Object::PeerAuthentication(o) => Some(&o.selection),
            Object::RequestAuthentication(o) => Some(&o.selection),
            Object::AuthorizationPolicy(o) => Some(&o.selection),
            _ => None,
        }
    }
}

/// What a file gives.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Its objects, in order, without the bad ones. Identities may repeat.
    pub objects: Vec<Object>,
    /// Everything found.
    pub problems: Vec<Problem>,
    /// The file has a syntax error, so it says less than was meant: keep all that was last read from it.
    pub broken: bool,
    /// Objects with an error, to be set aside: their last good version stays, else they are absent.
    pub bad: Vec<ObjectRef>,
    /// What the bad ones (and those that a syntax error hides) would have asked of callers, and of whose.
    pub suspects: Vec<istio::Suspect>,
}
