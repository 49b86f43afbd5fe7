//! What end-to-end tests are written with: proxies, origins, clients, tools and deadlines.
//!
//! Everything is bounded by a deadline and cleans up after itself when dropped.

pub mod client;
pub mod crowd;
pub mod frames;
pub mod h2_origin;
pub mod metrics;
pub mod origin;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod recorder;
pub mod secure;
pub mod tokens;
pub mod tools;
pub mod town;
pub mod wait;
pub mod yaml;

pub use client::{Request, Response, Target};
pub use origin::{Origin, Reply};
pub use proxy::Proxy;
pub use raw::{RawClient, RawOrigin};
pub use town::Town;
pub use wait::{eventually, millis, seconds, together};
