//! The operator's words: Istio, Kubernetes and Knative YAML in, a [`model::Config`] and a [`Report`] out.
//!
//! The way through: `document` (text to trees with places), `api` (trees to what people write, field for
//! field), `resolve` (what it means), `model` (the result). Problems never stop the way: a bad object is
//! quarantined, all else goes on, and every problem is told at once.
//!
//! This crate knows no socket, no thread and no clock.

pub mod api;
mod decode;
pub mod document;
pub mod model;
pub mod report;
pub mod units;
