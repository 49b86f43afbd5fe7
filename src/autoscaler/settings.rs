//! What Knative's autoscaler knows of one revision: annotations and `config-autoscaler`, worked out.

use crate::clock::Duration;
use proxy_config::model::{Aggregation, Metric, Revision, Scale};

/// No target is smaller.
const TARGET_MIN: f64 = 0.01;

/// Settings of one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is measured.
    pub metric: Metric,
    /// What one instance takes of it.
    pub total: f64,
    /// The part of `total` that is aimed at; at least 0.01.
    pub target: f64,
    /// At most so many times what is ready in one decision.
    pub up_rate: f64,
    /// At least what is ready divided by this in one decision.
    pub down_rate: f64,
    /// Panic begins when so many times what is ready is wanted.
    pub panic_threshold: f64,
    /// Length of the stable window, in seconds.
    pub stable: u32,
    /// Length of the panic window, in seconds, at least 1.
    pub panic: u32,
    /// How a window becomes one number.
    pub aggregation: Aggregation,
    /// Requests that must find room at once; -1: any number.
    pub burst_capacity: f64,
    /// At least so many when anything is wanted.
    pub activation: u32,
    /// At least so many until they were ready once.
    pub initial: u32,
    /// Bounds; `max` 0: none.
    pub min: u32,
    /// See `min`.
    pub max: u32,
    /// How much longer the last instance stays.
    pub retention: Duration,
    /// How long the highest decision stands.
    pub down_delay: Duration,
    /// How long the last instance stays for callers that still know it directly.
    pub grace: Duration,
    /// Whether any traffic can come.
    pub reachable: bool,
}

impl Settings {
    /// Those of a revision.
    pub fn of(revision: &Revision) -> Settings {
        Settings::new(&revision.scale, revision.concurrency, revision.reachable)
    }

    /// Those of a scale. `concurrency`: the hard limit of an instance, 0 for none.
    pub fn new(scale: &Scale, concurrency: u32, reachable: bool) -> Settings {
        let total = scale.total(concurrency);
        let stable = seconds(scale.window);
        // The panic window is a whole number of seconds, or it would share them with its neighbours.
        let panic = (f64::from(stable) * scale.panic_window).ceil() as u32;
        Settings {
            metric: scale.metric,
            total,
            target: (total * scale.utilization).max(TARGET_MIN),
            up_rate: scale.global.up_rate,
            down_rate: scale.global.down_rate,
            panic_threshold: scale.panic_threshold,
            stable,
            panic: panic.clamp(1, stable),
            aggregation: scale.aggregation,
            burst_capacity: scale.burst_capacity,
            activation: scale.activation,
            initial: scale.initial,
            min: if reachable { scale.min } else { 0 },
            max: scale.max,
            retention: scale.retention,
            down_delay: if reachable { scale.down_delay } else { Duration::ZERO },
            grace: scale.global.grace,
            reachable,
        }
    }

    /// `wanted` within min-scale and max-scale.
    pub fn bounded(&self, wanted: u32) -> u32 {
        let cap = if self.max == 0 { u32::MAX } else { self.max };
        wanted.max(self.min).min(cap)
    }
}

fn seconds(length: Duration) -> u32 {
    u32::try_from(length.as_secs()).unwrap_or(u32::MAX).clamp(1, 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scale: Scale, concurrency: u32, want: (f64, f64)) {
        let settings = Settings::new(&scale, concurrency, true);
        assert_eq!((settings.total, settings.target), want, "{scale:?} {concurrency}");
    }

    #[test]
    fn the_target_is_the_smaller_of_what_is_aimed_at_and_what_is_let_in() {
        let with = |target| Scale { target: Some(target), ..Scale::default() };
        let rps = |target| Scale { metric: Metric::Rps, target, ..Scale::default() };
        check(Scale::default(), 0, (100.0, 70.0));
        check(Scale::default(), 10, (10.0, 7.0));
        check(Scale::default(), 1, (1.0, 0.7));
        check(with(50.0), 0, (50.0, 35.0));
        check(with(50.0), 10, (10.0, 7.0));
        check(with(5.0), 10, (5.0, 3.5));
        check(with(0.01), 0, (0.01, 0.01));
        check(rps(None), 1, (200.0, 140.0));
        check(rps(Some(10.0)), 1, (10.0, 7.0));
        check(Scale { utilization: 1.0, ..Scale::default() }, 1, (1.0, 1.0));
    }

    #[test]
    fn windows_are_whole_seconds() {
        let of = |window, share| {
            let window = Duration::from_secs(window);
            let settings = Settings::new(&Scale { window, panic_window: share, ..Scale::default() }, 0, true);
            (settings.stable, settings.panic)
        };
        assert_eq!(of(60, 0.1), (60, 6));
        assert_eq!(of(6, 0.1), (6, 1));
        assert_eq!(of(65, 0.1), (65, 7));
        assert_eq!(of(3600, 1.0), (3600, 3600));
    }

    #[test]
    fn what_nobody_can_reach_keeps_nothing() {
        let scale = Scale { min: 3, down_delay: Duration::from_secs(9), ..Scale::default() };
        let settings = Settings::new(&scale, 0, false);
        assert_eq!((settings.min, settings.down_delay), (0, Duration::ZERO));
    }
}
