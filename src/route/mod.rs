//! Choosing what happens to a request: virtual hosts, matches, splits, and the changes a route makes to
//! path, authority and headers.
//!
//! Everything here is compiled once, when a snapshot is built, and then only read. Matching allocates
//! nothing. Nothing here awaits, reads a clock or knows what a cluster is.

mod change;
mod hosts;
mod matcher;
mod path;
mod pattern;
mod redirect;
mod split;
mod template;

pub use change::{HeaderChange, Side};
pub use hosts::Hosts;
pub use matcher::{Head, Matcher};
pub use path::PathChange;
pub use pattern::Pattern;
pub use redirect::Redirect;
pub use split::Split;
pub use template::Facts;
