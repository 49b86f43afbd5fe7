//! EndpointSlice: the addresses behind a Service.

use crate::api::Meta;
use crate::report::{At, Place};

/// `discovery.k8s.io` EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Identity.
    pub meta: Meta,
    /// Label `kubernetes.io/service-name`.
    pub service: Option<String>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
    /// `ports`.
    pub ports: Vec<SlicePort>,
}

/// `endpoints[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceEndpoint {
    /// Where it begins.
    pub at: Place,
    /// `addresses`.
    pub addresses: Vec<At<String>>,
    /// `conditions.ready`, true where it is not written.
    pub ready: bool,
    /// `targetRef` to a Pod: its name.
    pub pod: Option<String>,
}

/// `ports[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SlicePort {
    /// `name`, that of the Service's port; empty where it is not written.
    pub name: String,
    /// `port`; `None`: all ports.
    pub port: Option<u16>,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
    /// `protocol` is TCP (the default).
    pub tcp: bool,
}
