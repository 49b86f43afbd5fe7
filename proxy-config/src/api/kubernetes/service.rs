//! Service (core): a name, its ports and the Pods behind it.

use crate::api::Meta;
use crate::report::At;

/// Core `v1` Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Identity.
    pub meta: Meta,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`.
    pub selector: Vec<(String, String)>,
    /// `spec.clusterIP: None`.
    pub headless: bool,
    /// `spec.clusterIP` or `clusterIPs`, where they are addresses.
    pub cluster_ips: Vec<String>,
    /// `spec.externalName` where the type is ExternalName, lower case.
    pub external_name: Option<At<String>>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
}

/// `spec.ports[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// `port`.
    pub port: At<u16>,
    /// `name`.
    pub name: Option<String>,
    /// `targetPort`; `None`: as `port`.
    pub target_port: Option<TargetPort>,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
    /// `protocol` is TCP (the default); others are not proxied.
    pub tcp: bool,
}

/// `targetPort`: a number or the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The number.
    Number(u16),
    /// The name.
    Name(String),
}
