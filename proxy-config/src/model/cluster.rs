//! Destinations: named sets of interchangeable endpoints, and the terms on which they are used.

use super::ClientTls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Istio's form: `outbound|<port>|<subset>|<fqdn>`, for inbound ones `inbound|<port>||`.
    pub name: String,
    /// What it is called in metrics.
    pub identity: Arc<Identity>,
    /// Spoken to the endpoints.
    pub protocol: Protocol,
    /// Where the endpoints come from.
    pub endpoints: Endpoints,
    /// The terms.
    pub policy: Policy,
    /// Requests in flight at one endpoint; others wait their turn. `containerConcurrency` of an inbound
    /// cluster; a revision has its own. 0: no limit.
    pub concurrency: u32,
    /// How its endpoints are spoken to; `None`: in plaintext.
    pub tls: Option<ClientTls>,
    /// What its endpoints ask of callers, by the name of a guard, where this process stands for them (`run`).
    pub guard: Option<String>,
}

/// The destination's labels in Istio's metrics; unknown ones are `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// FQDN: `hello.default.svc.cluster.local`.
    pub service: String,
    /// `hello`.
    pub service_name: String,
    /// `default`.
    pub service_namespace: String,
    /// Workload: the revision, or `unknown`.
    pub workload: String,
    /// `app` label, or `unknown`.
    pub app: String,
    /// `version` label, or `unknown`.
    pub version: String,
    /// Canonical service name.
    pub canonical_service: String,
    /// Canonical revision, `latest` by default.
    pub canonical_revision: String,
}

/// Spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge (h2c).
    Http2,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Known addresses; may be empty, then 503 UH.
    Static(Vec<Endpoint>),
    /// Names to look up again and again.
    Dns(Vec<DnsTarget>),
    /// The instances of one revision, by its `key`; requests to none are held while it starts.
    Revision(String),
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative; 1 unless written.
    pub weight: u32,
    /// It has a proxy of the mesh in front (`security.istio.io/tlsMode: istio`).
    pub mesh_tls: bool,
}

/// One name to look up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsTarget {
    /// A fully qualified name.
    pub host: String,
    /// The port of every address found.
    pub port: u16,
    /// Relative, for each address found.
    pub weight: u32,
}

/// Terms of use, from DestinationRules, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// How much at once.
    pub limits: Limits,
    /// When an endpoint is left out for a while; `None`: never.
    pub outlier: Option<Outlier>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { balance: Balance::LeastRequest, limits: Limits::default(), outlier: None }
    }
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Power of two choices by requests in flight.
    LeastRequest,
    /// One after the other, by weight.
    RoundRobin,
    /// Any.
    Random,
}

/// `connectionPool`. Counts hold for the whole process, `u32::MAX` standing for "no limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// `tcp.maxConnections`.
    pub max_connections: u32,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Duration,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `http.http1MaxPendingRequests`: waiting for a connection, whatever the protocol.
    pub max_pending: u32,
    /// `http.http2MaxRequests`: in flight, whatever the protocol.
    pub max_requests: u32,
    /// `http.maxRequestsPerConnection`; `None`: no limit.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`: retries in flight.
    pub max_retries: u32,
    /// `http.idleTimeout`, where written.
    pub idle_timeout: Option<Duration>,
    /// `http.maxConcurrentStreams`: streams on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: u32::MAX,
            connect_timeout: Duration::from_secs(10),
            max_connection_duration: None,
            max_pending: u32::MAX,
            max_requests: u32::MAX,
            max_requests_per_connection: None,
            max_retries: u32::MAX,
            idle_timeout: None,
            max_concurrent_streams: u32::MAX,
        }
    }
}

/// `outlierDetection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outlier {
    /// `consecutive5xxErrors`; `None` where 0 switched it off.
    pub consecutive_5xx: Option<u32>,
    /// `consecutiveGatewayErrors`; `None` where unset or 0.
    pub consecutive_gateway: Option<u32>,
    /// Between sweeps.
    pub interval: Duration,
    /// Times the number of ejections, at most max(300 s, this).
    pub base_ejection: Duration,
    /// Of the endpoints, ejected at once.
    pub max_ejection_percent: u32,
    /// Below this share of healthy endpoints ejections are not honoured; 0: always honoured.
    pub min_health_percent: u32,
}
