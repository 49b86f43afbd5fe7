//! The only place that reads a clock. Everything below takes `now` as an argument, so that policy can be
//! tested with a clock that is wound by hand.

pub use std::time::{Duration, Instant, SystemTime};

/// Monotonic time. Read once per event and handed on.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(at) = wound::at() {
        return at;
    }
    Instant::now()
}

/// Wall-clock time, for what people read.
#[allow(clippy::disallowed_methods)]
#[inline]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A clock that is wound by hand, for the thread of a test.
#[cfg(test)]
pub(crate) mod wound {
    use super::Instant;
    use std::cell::Cell;

    thread_local! {
        static AT: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// The time it shows, if it was wound.
    pub(crate) fn at() -> Option<Instant> {
        AT.get()
    }

    /// Winds it.
    pub(crate) fn set(to: Instant) {
        AT.set(Some(to));
    }

    /// Puts it away.
    pub(crate) fn clear() {
        AT.set(None);
    }
}
