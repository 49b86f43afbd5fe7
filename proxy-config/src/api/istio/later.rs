//! Istio's kinds that are checked in full and do not act yet.

mod rules;
mod shape;

pub(crate) use rules::{
    authorization_policy, peer_authentication, request_authentication, sidecar, telemetry, workload_entry,
};
pub(crate) use shape::{
    AUTHORIZATION_POLICY, ENVOY_FILTER, PEER_AUTHENTICATION, PROXY_CONFIG, REQUEST_AUTHENTICATION, SIDECAR,
    TELEMETRY, WASM_PLUGIN, WORKLOAD_ENTRY, WORKLOAD_GROUP,
};
