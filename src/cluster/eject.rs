//! Which members are left out for their errors, for how long, and what ends it.
//!
//! What is counted of one member is in `health`; here it is weighed against the others. Nothing here chooses among
//! members.

use super::{Endpoint, Members};
use proxy_config::model::Outlier;
use std::time::{Duration, Instant};

impl Members {
    /// Counts the outcome of an exchange at `endpoint` (a connection that failed is 503, a timeout 504).
    /// True: the endpoint is ejected from now on.
    pub fn report(&self, endpoint: &Endpoint, status: u16, policy: &Outlier, now: Instant) -> bool {
        if !endpoint.health.count(status, policy) {
            return false;
        }
        let _one_at_a_time = self.change.lock();
        let list = self.list.load();
        let ejected = list.endpoints.iter().filter(|e| e.health.is_ejected()).count();
        let spares = 100 * (ejected + 1) <= policy.max_ejection_percent as usize * list.endpoints.len();
        // The only instance of a function is all there is: its first answers cannot send everyone away.
        let last_instance = self.hold().is_some() && ejected + 1 >= list.endpoints.len();
        spares && !last_instance && endpoint.health.eject(now, policy)
    }

    /// Takes back those whose ejection is over. To be called every `interval`.
    pub fn sweep(&self, now: Instant, interval: Duration) -> usize {
        self.list.load().endpoints.iter().filter(|e| e.health.sweep(now, interval)).count()
    }

    /// Takes everybody back: no rule leaves anybody out any more.
    pub fn forgive(&self) -> usize {
        self.list.load().endpoints.iter().filter(|e| e.health.forgive()).count()
    }
}
