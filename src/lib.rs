//! Pilotlight: a sidecar L7 proxy that runs the YAML people already have and wakes functions from zero.
//!
//! Modules stand in dependency order: a module names only modules listed above it. `tests/tidy.rs` holds
//! the project to that.

// words
pub mod clock;
pub mod drain;
pub mod fault;
pub mod http;
pub mod record;
pub mod sync;
// certificates, and what is made of them
pub mod tls;

// mechanisms: no sockets, no exchange
pub mod activator;
pub mod auth;
pub mod autoscaler;
pub mod cluster;
pub mod limit;
pub mod route;
pub mod telemetry;
// compiled
pub mod snapshot;
// connections to upstreams
pub mod upstream;
// the exchange's path
pub mod proxy;
// instances: started and stopped
pub mod driver;
// threads
pub mod control;
pub mod worker;
// assembly
pub mod cli;

pub mod app;
