//! Settings that hold for the whole mesh (MeshConfig).

use super::TlsVersion;

/// Mesh-wide settings, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// What MeshConfig says about access logs; `None` when it says nothing.
    pub access_log: Option<AccessLog>,
    /// `defaultConfig.concurrency`: worker threads. `None` or 0: from the CPU quota.
    pub concurrency: Option<u32>,
    /// `cluster.local` unless set.
    pub trust_domain: String,
    /// What becomes of a request on the mesh listener to a host nobody knows.
    pub outbound: OutboundMode,
    /// The namespace whose policies and rules hold for the whole mesh.
    pub root_namespace: String,
    /// Domains that count as our own in identities.
    pub trust_domain_aliases: Vec<String>,
    /// What is done to a path before it is matched, asked about and sent on.
    pub path_normalization: PathNormalization,
    /// The oldest version spoken between workloads.
    pub min_tls: TlsVersion,
    /// Workloads of the mesh are spoken to with mutual TLS where no rule says anything.
    pub auto_mtls: bool,
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh {
            access_log: None,
            concurrency: None,
            trust_domain: "cluster.local".to_owned(),
            outbound: OutboundMode::RegistryOnly,
            root_namespace: "istio-system".to_owned(),
            trust_domain_aliases: Vec::new(),
            path_normalization: PathNormalization::Base,
            min_tls: TlsVersion::V12,
            auto_mtls: true,
        }
    }
}

/// `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    /// Nothing.
    None,
    /// Dot segments are resolved, `\\` becomes `/` (BASE, DEFAULT).
    #[default]
    Base,
    /// The same, and adjacent slashes become one.
    MergeSlashes,
    /// The same, after `%2F` and `%5C` were decoded.
    DecodeAndMergeSlashes,
}

/// `outboundTrafficPolicy.mode`. Unlike Istio's default, ALLOW_ANY must be written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundMode {
    /// Unknown hosts answer 502.
    RegistryOnly,
    /// Unknown hosts are dialled as written, link-local addresses excepted.
    AllowAny,
}

/// `accessLogFile`, `accessLogEncoding`, `accessLogFormat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Path of the file; `/dev/stdout` for standard output. Empty: off.
    pub file: String,
    /// TEXT or JSON.
    pub encoding: AccessLogEncoding,
    /// An Envoy format string (TEXT) or a JSON object of format strings (JSON); `None`: Istio's default.
    pub format: Option<String>,
}

/// How an access log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogEncoding {
    /// One formatted line.
    Text,
    /// One JSON object a line.
    Json,
}
