//! Istio's kinds that are checked in full and do not act yet.

mod rules;
mod shape;

pub(crate) use rules::{sidecar, telemetry, workload_entry};
pub(crate) use shape::{
    ENVOY_FILTER, PROXY_CONFIG, SIDECAR, TELEMETRY, WASM_PLUGIN, WORKLOAD_ENTRY, WORKLOAD_GROUP,
};
