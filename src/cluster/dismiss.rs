//! How a member stops being one: it grants nothing more, and only then is it said whether it has anything left.
//!
//! It stands between the scaler's decision and the end of the instance. A request that meets the decision at
//! any moment either has its slot before (the member is busy), or waits and is counted: the member is closed
//! by one atomic step that a slot's taking excludes, and after that, not before, those who wait are looked at.

use super::{Endpoint, Members};
use std::sync::Arc;

/// What became of a member that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissed {
    /// It has gone and has nothing left.
    Idle,
    /// It has gone and still has exchanges, which end in their own time.
    Busy,
    /// Somebody waits, so it stays.
    Wanted,
}

impl Members {
    /// Lets `endpoint` go, unless, where `spare` says so, somebody waits.
    pub fn dismiss(self: &Arc<Self>, endpoint: &Arc<Endpoint>, spare: bool) -> Dismissed {
        let idle = endpoint.close_if_idle();
        if spare && self.waiting() > 0 {
            if idle {
                // Who began to wait while it was closed found nothing.
                endpoint.reopen();
                self.offer();
            }
            return Dismissed::Wanted;
        }
        endpoint.close();
        self.remove(endpoint.id);
        if idle { Dismissed::Idle } else { Dismissed::Busy }
    }
}
