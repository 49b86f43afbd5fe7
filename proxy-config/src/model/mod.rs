//! What the YAML means: the finished form of a configuration.
//!
//! Every reference is resolved, every default filled in, every short name expanded. Nothing here knows a
//! socket or a thread; the proxy compiles it into what its data path runs from. Lists keep the order in
//! which rules are tried.

mod cluster;
mod function;
mod holding;
mod idle;
mod listener;
mod mesh;
mod probe;
mod route;
mod security;

pub use cluster::{
    Balance, Cluster, DnsTarget, Endpoint, Endpoints, Identity, Limits, Outlier, Policy, Protocol,
};
pub use function::{Aggregation, Command, GlobalScale, Metric, Revision, Scale};
pub use holding::Holding;
pub use idle::Idle;
pub use listener::{Bind, ClientCert, Direction, Forwarding, Listener, Table, Tables, VirtualHost};
pub use mesh::{AccessLog, AccessLogEncoding, Mesh, OutboundMode, PathNormalization};
pub use probe::{Probe, ProbeAction, Probes, Resources, amount};
pub use route::{
    Action, DirectResponse, Forward, HEADER_OPERATORS, HeaderOps, Match, MessageOps, PathRewrite, Redirect,
    RedirectPort, Retry, RetryOn, Rewrite, Route, StringMatch, WeightedDestination,
};
pub use security::{
    AuthorizationPolicy, Blocks, ClientMode, ClientTls, Credential, ExtAuthz, Guard, JwtKeys, JwtRule,
    ListenerTls, Mtls, MtlsPolicy, OwnPort, Pem, PolicyAction, PolicyCondition, PolicyOperation, PolicyRule,
    PolicySource, ServerMode, SniRoute, TlsServer, TlsVersion, Values, Workload,
};

use std::fmt;
use std::sync::Arc;

/// A whole configuration, ready to be compiled into what the proxy serves from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Settings of the whole mesh.
    pub mesh: Mesh,
    /// Where traffic comes in, and what happens to it. The mesh listener, when there is one, is last.
    pub listeners: Vec<Listener>,
    /// Every destination that exists, by unique `name`. A route that names a cluster absent from here
    /// answers 503 NC.
    pub clusters: Vec<Cluster>,
    /// Every revision of every function, by unique `key`.
    pub revisions: Vec<Arc<Revision>>,
    /// What is asked of callers, by unique `name`.
    pub guards: Vec<Guard>,
    /// Who decides for CUSTOM policies, by unique `name`.
    pub ext_authz: Vec<ExtAuthz>,
    /// The workload beside which this proxy stands; `None` where it stands for all (`run`).
    pub workload: Option<Workload>,
}

/// Names one object of the input: `VirtualService default/orders`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// API group without version; empty for the core group.
    pub group: String,
    /// As written: `VirtualService`.
    pub kind: String,
    /// The object's namespace, the default one filled in.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
