//! What a revision's instances cost: memory over time, while they work and while they are idle.

use super::unit::Unit;
use crate::clock::{Duration, Instant};

/// Memory is measured no more often.
const EVERY: Duration = Duration::from_secs(1);
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
    pub fn account(&mut self, now: Instant) {
        for instance in self.instances.values_mut() {
            let cost = &mut instance.cost;
            let stale = cost.measured.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
            if stale && let Some(bytes) = instance.pid.and_then(resident) {
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

/// Bytes of memory in use by a process; none: it has ended, or is not of this host.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibi: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibi * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_found_and_that_of_nobody_is_not() {
        assert!(resident(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(resident(u32::MAX), None);
    }
}
