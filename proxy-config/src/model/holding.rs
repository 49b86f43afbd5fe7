//! How the requests of a function are held while it starts or is busy.

use std::time::Duration;

/// `pilotlight.dev/hold-…` and their kin, of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// `hold-count`: requests that wait at once.
    pub count: u32,
    /// `hold-bytes`: bytes they keep in memory meanwhile.
    pub bytes: u64,
    /// `hold-age`: how long one waits at most.
    pub age: Duration,
    /// `overflow-status`: what those get for whom there is no room, 503 or 429.
    pub overflow_status: u16,
    /// `server-timing`: tell the client where the time of a cold start went.
    pub server_timing: bool,
    /// `half-close: keep`: a client that has closed its sending side only is still there.
    pub half_close: bool,
}

impl Default for Holding {
    fn default() -> Self {
        Holding {
            count: 10_000,
            bytes: 64 << 20,
            age: Duration::from_secs(600),
            overflow_status: 503,
            server_timing: false,
            half_close: false,
        }
    }
}
