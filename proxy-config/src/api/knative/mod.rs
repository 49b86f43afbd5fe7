//! Knative's kinds, as people write them.

mod service;

pub use service::{Container, RevisionTemplate, Service, TrafficTarget};
