//! The operator's words: Istio, Kubernetes and Knative YAML in, a [`model::Config`] and a
//! [`report::Report`] out.
//!
//! The way through, from [`load::load`]: `document` (text to trees with places), `api` (trees to what people
//! write, field for field), `resolve` (what it means), `lint` (what was hardly meant), `model` (the result).
//! Problems never stop the way: a bad object is quarantined, all else goes on, and every problem is told at
//! once.
//!
//! This crate knows no socket, no thread and no clock.

pub mod api;
mod decode;
pub mod document;
mod lint;
pub mod load;
pub mod model;
pub mod regex;
pub mod report;
mod resolve;
pub mod units;
