//! The autoscaler: how many instances a revision should have. Arithmetic only.
//!
//! Whoever holds requests says how many (`Demand`, with an expiry, never "one more"); the one scaler of a
//! revision sums what has not expired and asks `scale` what to do. Nothing here starts, stops, waits or
//! reads a clock.
//!
//! Up at once: the whole queue and all that is in flight, divided by what one instance takes; instances
//! that are starting count as capacity, so a slow start is not answered by more starts. Down late: the
//! highest number wanted within the stable window stays.
//!
//! `scale` is one moment's decision. `Kpa` stands before it with the averages of the last minute, or, on
//! request, in its place with Knative's arithmetic.

pub mod knative;
mod kpa;
#[cfg(test)]
mod kpa_tests;
mod peaks;
mod settings;
#[cfg(test)]
mod tests;
mod window;

pub use kpa::{Flavour, Kpa, Load, Quiet};
pub use peaks::Peaks;
pub use settings::Settings;
pub use window::Window;

use crate::clock::{Duration, Instant};
use proxy_config::model::{Metric, Revision, Scale};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::sync::Arc;

/// What one holder of requests asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// For what: a revision's key.
    pub revision: Arc<str>,
    /// Who asks.
    pub holder: u64,
    /// Grows with each report of the same holder; of several the latest counts.
    pub generation: u64,
    /// Requests it holds.
    pub queued: u32,
    /// Requests it has sent that are not answered.
    pub in_flight: u32,
    /// Since when its oldest waits.
    pub oldest: Option<Instant>,
    /// From when on this no longer counts, unless it is said again.
    pub expires: Instant,
}

/// Requests of all holders together: of each its latest report, if it has not expired.
pub fn total(now: Instant, demands: &[Demand]) -> u64 {
    let count = |demand: &Demand| match demand.expires > now {
        true => u64::from(demand.queued) + u64::from(demand.in_flight),
        false => 0,
    };
    // Most revisions have one holder.
    if let [only] = demands {
        return count(only);
    }
    let mut order: SmallVec<[&Demand; 8]> = demands.iter().collect();
    order.sort_unstable_by_key(|demand| (demand.holder, Reverse(demand.generation)));
    let latest = |reports: &[&Demand]| -> u64 {
        let generation = reports.first().map(|report| report.generation);
        reports
            .iter()
            .take_while(|report| Some(report.generation) == generation)
            .map(|report| count(report))
            .sum()
    };
    order.chunk_by(|one, other| one.holder == other.holder).map(latest).sum()
}

/// What the configuration says about one revision's number of instances.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Requests that one instance takes at a time; at least 1.
    pub per_instance: u32,
    /// Kept whatever the demand.
    pub min: u32,
    /// Never more; 0: no limit.
    pub max: u32,
    /// At least so many at the first wake.
    pub initial: u32,
    /// At least so many at each wake.
    pub activation: u32,
    /// Starting at a time, at most; 0: no limit.
    pub starting: u32,
    /// How long the highest number wanted stays.
    pub window: Duration,
    /// How much longer the last instance stays.
    pub retention: Duration,
    /// How much longer all stay.
    pub down_delay: Duration,
}

impl Terms {
    /// The terms of a revision. One that no traffic can reach keeps nothing.
    pub fn of(revision: &Revision) -> Terms {
        Terms::new(&revision.scale, revision.concurrency, revision.reachable)
    }

    /// Those of a scale. `concurrency`: the hard limit of an instance, 0 for none.
    pub fn new(scale: &Scale, concurrency: u32, reachable: bool) -> Terms {
        let per_instance = match concurrency {
            // Saturating by the rules of `as`: a target beyond u32 is as good as no limit.
            0 if scale.metric == Metric::Concurrency => scale.total(0).ceil() as u32,
            // By requests a second, what is under way asks for one instance, and the rate for the rest.
            0 => u32::MAX,
            limit => limit,
        };
        let length = |value| if reachable { value } else { Duration::ZERO };
        Terms {
            per_instance: per_instance.max(1),
            min: if reachable { scale.min } else { 0 },
            max: scale.max,
            initial: scale.initial,
            activation: scale.activation,
            starting: scale.starting,
            window: scale.window,
            retention: length(scale.retention),
            down_delay: length(scale.down_delay),
        }
    }

    /// How long a number wanted is remembered.
    pub fn horizon(&self) -> Duration {
        self.window + self.down_delay
    }
}

/// How things stand.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// What the configuration says.
    pub terms: &'a Terms,
    /// What was wanted before.
    pub peaks: &'a Peaks,
    /// Instances that are on their way.
    pub starting: u32,
    /// Instances that take requests.
    pub ready: u32,
    /// Instances that were ready and ended on their own, and were not replaced yet.
    pub lost: u32,
    /// Whether it was ever woken.
    pub woken: bool,
    /// Instances that the process may still start, of all revisions together.
    pub room: u32,
    /// Instances that may begin to start now, of all revisions together.
    pub starts: u32,
}

impl Facts<'_> {
    /// Instances of this revision that may begin to start now.
    pub fn at_once(&self) -> u32 {
        let own = match self.terms.starting {
            0 => u32::MAX,
            most => most.saturating_sub(self.starting),
        };
        own.min(self.starts)
    }

    /// The part of a plan that says what becomes of so many that are missing.
    pub fn divide(&self, missing: u32) -> Plan {
        let short = missing.saturating_sub(self.room);
        let start = missing.min(self.room).min(self.at_once());
        Plan { wanted: 0, start, stop: 0, short, later: missing - short - start, bound: None }
    }
}

/// What kept a plan from starting more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `max-scale`.
    MaxScale,
    /// The ceiling of the process.
    Ceiling,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Instances that the demand of this moment asks for, within the terms. To be given to `Peaks::record`.
    pub wanted: u32,
    /// Instances to start.
    pub start: u32,
    /// Ready instances to stop, idle ones first.
    pub stop: u32,
    /// Instances that it would start too if the process had room.
    pub short: u32,
    /// Instances that it starts when those that are starting are ready.
    pub later: u32,
    /// What kept it from starting more.
    pub bound: Option<Bound>,
}

/// Decides how many instances to start or to stop.
pub fn scale(now: Instant, demands: &[Demand], facts: &Facts<'_>) -> Plan {
    let terms = facts.terms;
    let have = facts.starting + facts.ready;
    let cap = if terms.max == 0 { u32::MAX } else { terms.max };
    let need = u32::try_from(total(now, demands).div_ceil(u64::from(terms.per_instance))).unwrap_or(u32::MAX);
    let mut wanted = need.max(terms.min);
    if need > 0 && have == 0 {
        wanted = wanted.max(terms.activation).max(if facts.woken { 0 } else { terms.initial });
    }
    let mut bound = (wanted > cap).then_some(Bound::MaxScale);
    wanted = wanted.min(cap);
    let keep = kept(now, wanted, have, facts).min(cap);
    let goal = wanted.max(keep.min(have.saturating_add(facts.lost)));
    let missing = goal.saturating_sub(have);
    if missing > facts.room {
        bound = Some(Bound::Ceiling);
    }
    Plan {
        wanted,
        // What is starting is let to start: its callers may have given up, the next ones will be glad.
        stop: have.saturating_sub(keep).min(facts.ready),
        bound,
        ..facts.divide(missing)
    }
}

/// How many stay although this moment asks for less.
fn kept(now: Instant, wanted: u32, have: u32, facts: &Facts<'_>) -> u32 {
    let terms = facts.terms;
    let keep = wanted.max(facts.peaks.highest(now, terms.horizon()));
    if keep > 0 || have == 0 {
        return keep;
    }
    let last = terms.horizon() + terms.retention;
    u32::from(facts.peaks.busy().is_some_and(|busy| now.saturating_duration_since(busy) < last))
}
