//! The only place that reads a clock. Everything below takes `now` as an argument, so that policy can be
//! tested with a clock that is wound by hand.

pub use std::time::{Duration, Instant, SystemTime};

/// Monotonic time. Read once per event and handed on.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for what people read.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
