//! Istio's kinds, as people write them.

pub(crate) mod destination_rule;
pub(crate) mod gateway;
mod headers;
pub(crate) mod later;
mod matching;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod virtual_service;
mod wire;

pub use destination_rule::{
    ConnectionPool, DestinationRule, OutlierDetection, PortPolicy, Subset, TlsSettings, TrafficPolicy,
};
pub use gateway::{Gateway, Server, ServerProtocol, ServerTls, TlsMode};
pub use security::{
    AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Selection, Suspect, TargetRef,
};
pub use service_entry::{EntryPort, Resolution, ServiceEntry, WorkloadAddress};
pub use virtual_service::{
    DirectResponse, HttpDestination, HttpMatch, HttpRule, Redirect, Retries, Rewrite, RuleAction, TlsMatch,
    TlsRule, VirtualService,
};
