//! The whole program, from outside: the real binary on real sockets, spoken to by real clients.
//!
//! A test writes YAML, starts a proxy on free ports, and says what a user would see. Nothing here reaches
//! into the proxy's insides; what cannot be seen from outside is tested beside the code.
//!
//! Tests that need a tool (curl, h2load, promtool, python3 with grpcio) print `skipped: needs X` where it is
//! absent, and fail instead when `PILOTLIGHT_REQUIRE_TOOLS=1`, which `.ci/run` sets.

// Tests measure real time, and an unmet expectation is a panic.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, dead_code)]

mod support;

mod articles;
mod articles_user;
mod asking;
mod assaults;
mod callers;
mod canaries;
mod changes;
mod chaos;
mod clients;
mod denials;
mod departures;
mod discovery;
mod examples;
mod failures;
mod forwarding;
mod freezing;
mod frontdoor;
mod functions;
mod guards;
mod harness;
mod headers;
mod holding;
mod hygiene;
mod idle;
mod leaving;
mod lifecycle;
mod limits;
mod observability;
mod outward;
mod pressure;
mod probes;
mod protocols;
mod reload;
mod resources;
mod retries;
mod revocation;
mod rotation;
mod routing;
mod scanners;
mod seeds;
mod sequences;
mod sidecar;
mod smoke;
mod smuggling;
mod thousand;
mod tls;
mod trust;
mod uploads;
mod upstreams;
