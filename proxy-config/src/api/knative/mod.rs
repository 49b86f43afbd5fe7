//! Knative's kinds, as people write them.

mod decode;
mod holding;
mod scale;
mod service;
mod shape;

pub(crate) use decode::decode;
pub(crate) use shape::SPEC;

pub use service::{Container, RevisionTemplate, Service, TrafficTarget};
