//! Istio's kinds, as people write them.

mod destination_rule;
mod gateway;
mod service_entry;
mod virtual_service;

pub use destination_rule::{
    ConnectionPool, DestinationRule, OutlierDetection, PortPolicy, Subset, TrafficPolicy,
};
pub use gateway::{Gateway, Server, ServerProtocol};
pub use service_entry::{EntryPort, Resolution, ServiceEntry, WorkloadAddress};
pub use virtual_service::{
    DirectResponse, HttpDestination, HttpMatch, HttpRule, Redirect, Retries, Rewrite, RuleAction,
    VirtualService,
};
