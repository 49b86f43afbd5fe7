//! Kubernetes' kinds, as far as they say where a Service's endpoints are.

mod endpoint_slice;
mod service;
mod workload;

pub use endpoint_slice::{EndpointSlice, SliceEndpoint, SlicePort};
pub use service::{Service, ServicePort, TargetPort};
pub use workload::{ContainerPort, Pod, Workload};
