//! `activator` and `cluster` as they are, over locks and counts whose every step a scheduler may interrupt.
//!
//! The sources are compiled here a second time; only what they find under `crate::sync` is another. Nothing
//! of it is part of the program.

// The sources' own tests run where the sources live.
#![cfg(not(test))]

pub use pilotlight::{autoscaler, clock, fault, record, tls};

#[path = "../../../src/activator/mod.rs"]
pub mod activator;
#[path = "../../../src/cluster/mod.rs"]
pub mod cluster;

pub mod sync;
