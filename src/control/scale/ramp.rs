//! An instance without a limit of its own is not given all who wait in the instant in which it is ready.
//!
//! What has just begun to listen has cold caches and a short backlog, and others may be about to be ready.
//! So it gets a few, and twice as many every few milliseconds, until nobody waits; while others are starting
//! no more than its share.

use super::unit::Unit;
use crate::clock::{Duration, Instant};

/// Exchanges in the first step.
pub(super) const FIRST: u32 = 8;
/// From step to step.
const STEP: Duration = Duration::from_millis(5);
/// Beyond this many there is no limit.
const LAST: u32 = 1 << 14;

impl Unit {
    /// Opens further what is due, and lets in who waits.
    pub fn ramp(&mut self, now: Instant) {
        let (waits, share) = (self.hold.waiting() > 0, self.share());
        let mut opened = false;
        for instance in self.instances.values_mut() {
            let Some(since) = instance.ramp else { continue };
            let Some(endpoint) = instance.ready() else { continue };
            if self.revision.concurrency > 0 {
                instance.ramp = None;
                continue;
            }
            let limit = endpoint.limit();
            if !waits || limit >= LAST {
                endpoint.set_limit(0);
                (instance.ramp, opened) = (None, true);
            } else if now.saturating_duration_since(since) >= STEP && limit < share {
                endpoint.set_limit(limit.saturating_mul(2).min(share));
                (instance.ramp, opened) = (Some(now), true);
            }
        }
        if opened {
            self.members.offer();
        }
    }

    /// No instance gets more than this while others have less and will soon take more.
    fn share(&self) -> u32 {
        let share = self.terms.per_instance.max(FIRST);
        let behind = self.instances.values().any(|instance| {
            let opens = || instance.ramp.is_some() && instance.ready().is_some_and(|e| e.limit() < share);
            instance.is_starting() || opens()
        });
        if behind { share } else { u32::MAX }
    }

    /// When the next step is due.
    pub fn next_step(&self) -> Option<Instant> {
        let share = self.share();
        let ramps = self.instances.values().filter_map(|one| Some((one.ramp?, one.ready()?.limit())));
        ramps.filter(|(_, limit)| *limit < share).map(|(since, _)| since + STEP).min()
    }
}
