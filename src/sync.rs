//! What threads share is made of these: locks, counts, and a value that is swapped whole.
//!
//! Under one name each, so that `tests/interleavings` can compile the very sources of `activator` and
//! `cluster` over primitives whose every order of steps is tried. Here they are what they are called after,
//! and cost what it costs.

pub use arc_swap::ArcSwap as Swap;
pub use parking_lot::Mutex;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};
