//! What an autoscaler can say about its own future: how much load may come before it has to be asked again.
//!
//! For whoever replays a long past and would ask again and again in vain. It decides nothing.

use super::{Flavour, Kpa, Load};
use crate::autoscaler::Facts;
use crate::clock::{Duration, Instant};
use proxy_config::model::{Aggregation, Metric};

/// Sums of whole numbers are exact; what is left of an average that should be a whole number is not.
const NEAR: f64 = 0.99;
/// So long Knative's flavour must find something in its window.
const QUIET: Duration = Duration::from_secs(20);

/// Load that finds nothing to do, see `Kpa::quiet`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// As many may be under way at every moment.
    pub level: u64,
    /// Or else so many microseconds of requests under way may come into each `span`, and so many into the first.
    pub work: (u64, u64),
    /// See `work`.
    pub span: Duration,
}

impl Kpa {
    /// How much may come so that every look finds nothing to do, as long as nobody is queued, all instances
    /// stay, and something ends within each 57 seconds or window, if that is shorter. By concurrency only.
    ///
    /// No average is above the highest second, so where no second comes near what one instance is meant to take,
    /// both flavours ask for one instance at most.
    pub fn quiet(&self, now: Instant, in_flight: u64, facts: &Facts<'_>) -> Option<Quiet> {
        let settings = &self.settings;
        let plain = settings.aggregation == Aggregation::Linear
            && settings.metric == Metric::Concurrency
            && facts.starting == 0
            && self.ahead == 0.0;
        let (since, _) = self.seen.filter(|_| plain)?;
        let limit = settings.target * NEAR;
        let (running, sum) = (self.second.0 / 1e6, self.stable.total() + self.second.0 / 1e6);
        // Nothing is negative, so no second has more than all of them.
        let low =
            sum <= limit || running.max(self.stable.range().map_or(0.0, |(_, highest)| highest)) <= limit;
        let level = if low { limit as u64 } else { 0 };
        let open = self.micros(now).saturating_sub(since) as f64 * in_flight as f64;
        let work = |most: f64, used: f64| (most * 1e6, most * 1e6 - used * 1e6 - open);
        let ((all, first), span) = match self.flavour {
            Flavour::Pilotlight => {
                let length = self.stable.length();
                (work(limit * length as f64, sum), Duration::from_secs(length))
            }
            Flavour::Knative if low && self.is_one(now, facts) => {
                (work(limit, running), Duration::from_secs(1))
            }
            Flavour::Knative => return None,
        };
        Some(Quiet { level, work: (all as u64, first as u64), span })
    }

    /// Whether Knative's flavour has one instance and will want one for a while.
    fn is_one(&self, now: Instant, facts: &Facts<'_>) -> bool {
        let settings = &self.settings;
        // Decisions leave the same mark whatever the averages are.
        let burst = settings.burst_capacity;
        let same = burst <= 0.0 || settings.total < burst;
        facts.ready == 1
            && self.desired == 1
            && self.grown
            && self.zero.is_none()
            && self.active.is_some()
            && settings.activation.max(settings.min) <= 1
            && !self.state.panics()
            && settings.panic_threshold > 1.0
            && settings.down_delay.is_zero()
            && same
            && self.silence(now).is_some_and(|rest| rest >= QUIET)
    }

    /// The past is known from `now` on only: what was measured before will have left all windows when something
    /// is decided next.
    pub fn resume(&mut self, now: Instant, load: Load) {
        self.seen = Some((self.micros(now), load));
        self.second = (0.0, 0.0);
    }

    /// Whether anything is measured.
    pub fn measures(&self) -> bool {
        self.seen.is_some()
    }

    /// A level that never asks for more than one instance, if it is never exceeded. By concurrency only.
    pub fn light(&self) -> Option<f64> {
        let plain = self.settings.metric == Metric::Concurrency
            && self.settings.aggregation == Aggregation::Linear
            && self.stable.recorded() == 0;
        let light = self.settings.target * NEAR;
        (plain && light >= 1.0).then_some(light)
    }
}
