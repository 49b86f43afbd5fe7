//! HTTP as a proxy must treat it: what is refused, what belongs to one connection only, what goes on, and
//! what is added on the way.
//!
//! Works on heads in place. Nothing here awaits, opens a socket or knows a route.

pub mod authority;
pub mod envoy;
pub mod frames;
pub mod grpc;
pub mod headers;
pub mod line;
pub mod normalize;
pub mod response;
pub mod seen;
pub mod target;
pub mod upgrade;
pub mod validate;

pub use authority::Authority;
pub use frames::{Frame, Frames};
pub use seen::Seen;
pub use target::Wire;
