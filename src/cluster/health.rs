//! Outlier ejection with Envoy's arithmetic, counted over all workers.
//!
//! Source: Envoy's outlier detection. Counters are compared for equality with the threshold, so of many
//! simultaneous errors exactly one trips; the ejection time grows with the multiplier, which grows with each
//! ejection and falls by one for each sweep the endpoint stays healthy.

use crate::sync::{AtomicBool, AtomicU32, Mutex};
use proxy_config::model::Outlier;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

const MAX_EJECTION: Duration = Duration::from_secs(300);

/// What is known of one endpoint's errors.
#[derive(Debug, Default)]
pub struct Health {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    ejected: AtomicBool,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    until: Option<Instant>,
    last_unejected: Option<Instant>,
    multiplier: u32,
    ejections: u64,
}

impl Health {
    /// Whether it is left out now.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Ejections since it exists.
    pub fn ejections(&self) -> u64 {
        self.times.lock().ejections
    }

    /// Counts one outcome. True: a threshold was reached by exactly this one, and the endpoint should be
    /// ejected if its cluster can spare it.
    #[inline]
    pub(super) fn count(&self, status: u16, policy: &Outlier) -> bool {
        if status < 500 {
            if self.consecutive_5xx.load(Relaxed) != 0 {
                self.consecutive_5xx.store(0, Relaxed);
            }
            if self.consecutive_gateway.load(Relaxed) != 0 {
                self.consecutive_gateway.store(0, Relaxed);
            }
            return false;
        }
        let fives = self.consecutive_5xx.fetch_add(1, SeqCst) + 1;
        let mut tripped = policy.consecutive_5xx == Some(fives);
        if matches!(status, 502..=504) {
            let gateway = self.consecutive_gateway.fetch_add(1, SeqCst) + 1;
            tripped |= policy.consecutive_gateway == Some(gateway);
        } else {
            self.consecutive_gateway.store(0, Relaxed);
        }
        tripped
    }

    /// Leaves it out from now on. False: it was already.
    pub(super) fn eject(&self, now: Instant, policy: &Outlier) -> bool {
        let mut times = self.times.lock();
        if self.ejected.load(SeqCst) {
            return false;
        }
        let base = policy.base_ejection;
        let max = MAX_EJECTION.max(base);
        if base.saturating_mul(times.multiplier) < max + base {
            times.multiplier += 1;
        }
        times.until = Some(now + base.saturating_mul(times.multiplier).min(max));
        times.ejections += 1;
        self.ejected.store(true, SeqCst);
        self.reset();
        true
    }

    /// One sweep: takes it back when its time is over, lets the multiplier fall while it is healthy.
    /// True: it was taken back.
    pub(super) fn sweep(&self, now: Instant, interval: Duration) -> bool {
        let mut times = self.times.lock();
        if self.ejected.load(SeqCst) {
            if times.until.is_some_and(|until| now < until) {
                return false;
            }
            times.until = None;
            times.last_unejected = Some(now);
            self.reset();
            self.ejected.store(false, SeqCst);
            return true;
        }
        if times.multiplier > 0 && times.last_unejected.is_none_or(|at| now >= at + interval) {
            times.multiplier -= 1;
        }
        false
    }

    /// It is as if it had never failed. True: it was left out.
    pub(super) fn forgive(&self) -> bool {
        if !self.is_ejected() {
            return false;
        }
        let mut times = self.times.lock();
        *times = Times { ejections: times.ejections, ..Times::default() };
        self.reset();
        self.ejected.swap(false, SeqCst)
    }

    fn reset(&self) {
        self.consecutive_5xx.store(0, SeqCst);
        self.consecutive_gateway.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Outlier {
        Outlier {
            consecutive_5xx: Some(3),
            consecutive_gateway: None,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 100,
            min_health_percent: 0,
        }
    }

    #[test]
    fn exactly_the_nth_consecutive_error_trips() {
        let health = Health::default();
        let seen: Vec<bool> = [500, 500, 200, 500, 503, 500, 500].map(|s| health.count(s, &policy())).into();
        assert_eq!(seen, [false, false, false, false, false, true, false]);
    }

    #[test]
    fn ejection_time_grows_with_each_ejection_and_decays_while_healthy() {
        let (health, policy, start) = (Health::default(), policy(), crate::clock::now());
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(health.eject(at(0), &policy));
        assert!(!health.eject(at(1), &policy), "ejected only once");
        assert!(!health.sweep(at(29), policy.interval));
        assert!(health.sweep(at(30), policy.interval));
        assert!(health.eject(at(31), &policy));
        assert!(!health.sweep(at(31 + 59), policy.interval), "the second lasts 60 s");
        assert!(health.sweep(at(31 + 60), policy.interval));
        for sweep in 1..=2 {
            health.sweep(at(91 + 10 * sweep), policy.interval);
        }
        assert!(health.eject(at(200), &policy));
        assert!(health.sweep(at(230), policy.interval), "back to the base time");
    }

    #[test]
    fn ejection_time_never_passes_five_minutes() {
        let (health, policy, start) = (Health::default(), policy(), crate::clock::now());
        let mut now = start;
        for _ in 0..20 {
            assert!(health.eject(now, &policy));
            now += Duration::from_secs(300);
            assert!(health.sweep(now, policy.interval));
        }
    }
}
