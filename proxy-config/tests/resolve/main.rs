//! What YAML means: small texts and the routes, clusters, revisions and findings they come to.

mod destinations;
mod functions;
mod guards;
mod pieces;
mod reload;
mod routes;
mod seeds;
mod semantics;
mod sidecar;
mod tls;
mod trust;
mod view;
