//! Knative's kinds, as people write them.

pub(crate) mod autoscaler;
mod container;
mod decode;
mod holding;
mod idle;
mod scale;
mod service;
mod shape;

pub(crate) use decode::decode;
pub(crate) use scale::over;
pub(crate) use shape::SPEC;

pub use autoscaler::Autoscaler;
pub use service::{Container, RevisionTemplate, Service, TrafficTarget};
