//! What a revision's instances cost: memory over time, while they work and while they are idle.

use super::fleet::Floor;
use super::unit::Unit;
use crate::clock::{Duration, Instant};

/// Memory is measured no more often.
const EVERY: Duration = Duration::from_secs(5);
/// Not before: a start has better things to do, and what it takes is not known yet.
const SETTLED: Duration = Duration::from_millis(500);
const GIBI: f64 = (1_u64 << 30) as f64;

/// One instance's part.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// Until when it is accounted for.
    until: Option<Instant>,
    measured: Option<Instant>,
    bytes: u64,
}

impl Unit {
    /// Adds what passed since the last look. An instance that starts or ends is idle.
    pub fn account(&mut self, now: Instant, floor: &mut Floor) {
        for instance in self.instances.values_mut() {
            let cost = &mut instance.cost;
            let passed = |since: Instant| now.saturating_duration_since(since);
            let stale = match cost.measured {
                Some(at) => passed(at) >= EVERY,
                None => passed(instance.since) >= SETTLED,
            };
            if stale && let Some(bytes) = instance.pid.and_then(|pid| floor.memory.of(now, pid)) {
                (cost.bytes, cost.measured) = (bytes, Some(now));
            }
            let since = cost.until.replace(now).unwrap_or(instance.since);
            let length = now.saturating_duration_since(since).as_secs_f64();
            let gibi_seconds = cost.bytes as f64 / GIBI * length;
            let (seconds, memory) = if instance.busy {
                (&self.metrics.busy_seconds, &self.metrics.busy_gb_seconds)
            } else {
                (&self.metrics.idle_seconds, &self.metrics.idle_gb_seconds)
            };
            seconds.inc_by(length);
            memory.inc_by(gibi_seconds);
        }
    }
}
