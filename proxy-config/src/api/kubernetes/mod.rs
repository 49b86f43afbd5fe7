//! Kubernetes' kinds, as far as they say where a Service's endpoints are.

mod decode;
mod endpoint_slice;
mod secret;
mod service;
mod shape;
mod workload;

pub(crate) use decode::{endpoint_slice, pod, service, workload};
pub(crate) use secret::secret;
pub(crate) use shape::{ENDPOINTS, SERVICE, SLICE_PORTS};

pub use endpoint_slice::{EndpointSlice, SliceEndpoint, SlicePort};
pub use secret::Secret;
pub use service::{Service, ServicePort, TargetPort};
pub use workload::{ContainerPort, Pod, Workload};
