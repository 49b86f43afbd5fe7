//! Settings that hold for the whole mesh (MeshConfig).

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
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh {
            access_log: None,
            concurrency: None,
            trust_domain: "cluster.local".to_owned(),
            outbound: OutboundMode::RegistryOnly,
        }
    }
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
