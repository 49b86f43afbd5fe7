//! MeshConfig: settings of the whole mesh, wherever they are written.

mod decode;
mod providers;
mod proxy;
mod shape;

pub(crate) use decode::{decode, from_config_map};
pub use proxy::ProxySettings;
pub(crate) use proxy::annotated;

use super::Meta;
use crate::model::{AccessLogEncoding, ExtAuthz, OutboundMode, PathNormalization, TlsVersion};
use crate::report::At;

/// MeshConfig, from `data.mesh` of the ConfigMap `istio`, from `meshConfig:` of a Helm or IstioOperator
/// file, or from a file of its own. Absent values are not written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshConfig {
    /// Identity; kind `MeshConfig` where it was not a ConfigMap.
    pub meta: Meta,
    /// `accessLogFile`.
    pub access_log_file: Option<At<String>>,
    /// `accessLogEncoding`.
    pub access_log_encoding: Option<AccessLogEncoding>,
    /// `accessLogFormat`.
    pub access_log_format: Option<At<String>>,
    /// `defaultConfig.concurrency`.
    pub concurrency: Option<At<u32>>,
    /// What `defaultConfig` says of who came before.
    pub proxy: ProxySettings,
    /// `trustDomain`.
    pub trust_domain: Option<At<String>>,
    /// `outboundTrafficPolicy.mode`.
    pub outbound: Option<At<OutboundMode>>,
    /// `rootNamespace`.
    pub root_namespace: Option<At<String>>,
    /// `trustDomainAliases`.
    pub trust_domain_aliases: Vec<At<String>>,
    /// `pathNormalization.normalization`.
    pub path_normalization: Option<PathNormalization>,
    /// `meshMTLS.minProtocolVersion`.
    pub min_tls: Option<TlsVersion>,
    /// `enableAutoMtls`.
    pub auto_mtls: Option<bool>,
    /// `extensionProviders` that decide for CUSTOM policies.
    pub ext_authz: Vec<Provider>,
}

/// `extensionProviders[]` with `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Of the service in the object: `extensionProviders[0].envoyExtAuthzHttp.service`.
    pub path: String,
    /// `service`: `[namespace/]host`.
    pub service: At<String>,
    /// `port`.
    pub port: u16,
    /// The rest; `cluster` and `authority` are not known yet.
    pub authz: ExtAuthz,
}
