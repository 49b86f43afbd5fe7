//! DestinationRule: the terms on which a destination is used, and its subsets.

mod decode;
mod shape;
mod tls;

pub(crate) use decode::decode;
pub(crate) use shape::{CONNECTION_POOL, SPEC};

use crate::api::Meta;
use crate::model::{Balance, ClientMode};
use crate::report::{At, Place};
use std::time::Duration;

/// `networking.istio.io` DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Identity.
    pub meta: Meta,
    /// `spec.host`, lower case, as written: short, FQDN or `*.suffix`.
    pub host: At<String>,
    /// `spec.trafficPolicy`.
    pub traffic_policy: Option<TrafficPolicy>,
    /// `spec.subsets`; names are unique.
    pub subsets: Vec<Subset>,
    /// `spec.exportTo` as written; does not act yet.
    pub export_to: Vec<At<String>>,
}

/// `spec.subsets[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// `name`.
    pub name: At<String>,
    /// `labels`: all must be there.
    pub labels: Vec<(String, String)>,
    /// `trafficPolicy`.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy`: four blocks, each of which replaces the whole block it overrides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Where it begins.
    pub at: Place,
    /// `loadBalancer` is written; `simple` or what stands in for what does not act yet.
    pub load_balancer: Option<Balance>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<TlsSettings>,
    /// `portLevelSettings`: each replaces all blocks for its port.
    pub port_level: Vec<PortPolicy>,
}

/// `tls`, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// Where it begins.
    pub at: Place,
    /// Its path in the object.
    pub path: String,
    /// `mode`; `None`: DISABLE.
    pub mode: Option<ClientMode>,
    /// `clientCertificate` and `privateKey`.
    pub files: Option<(String, String)>,
    /// `caCertificates`.
    pub ca_file: Option<String>,
    /// `caCrl`.
    pub crl_file: Option<String>,
    /// `credentialName`.
    pub credential: Option<At<String>>,
    /// `subjectAltNames`.
    pub names: Vec<String>,
    /// `sni`.
    pub sni: Option<String>,
    /// `insecureSkipVerify`.
    pub insecure: bool,
}

/// `trafficPolicy.portLevelSettings[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PortPolicy {
    /// `port.number`.
    pub port: At<u16>,
    /// Its blocks; `port_level` is empty.
    pub policy: TrafficPolicy,
}

/// `connectionPool`. Counters of 0 read as `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`.
    pub connect_timeout: Option<At<Duration>>,
    /// `tcp.maxConnectionDuration`.
    pub max_connection_duration: Option<Duration>,
    /// `http.http1MaxPendingRequests`.
    pub http1_max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`.
    pub http2_max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries`.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`.
    pub idle_timeout: Option<Duration>,
    /// `http.maxConcurrentStreams`.
    pub max_concurrent_streams: Option<u32>,
    /// `http.h2UpgradePolicy`: true for UPGRADE, false for DO_NOT_UPGRADE, absent for DEFAULT.
    pub h2_upgrade: Option<bool>,
}

/// `outlierDetection`, as written; absent values have Envoy's defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierDetection {
    /// Where it begins.
    pub at: Place,
    /// `consecutive5xxErrors`; 0 switches it off.
    pub consecutive_5xx_errors: Option<u32>,
    /// `consecutiveGatewayErrors`; 0 switches it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// `interval`.
    pub interval: Option<Duration>,
    /// `baseEjectionTime`.
    pub base_ejection_time: Option<Duration>,
    /// `maxEjectionPercent`, 0 to 100.
    pub max_ejection_percent: Option<At<u32>>,
    /// `minHealthPercent`, 0 to 100.
    pub min_health_percent: Option<u32>,
}
