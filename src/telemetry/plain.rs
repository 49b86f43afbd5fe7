//! Metrics that are numbers in place. Those of the library are each an allocation of its own, to be shared; of a function
//! there are dozens, and most functions idle.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl TypedMetric for Count {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// From now on it is this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl TypedMetric for Level {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Level {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A sum of lengths of time, or of what is counted over time.
#[derive(Debug, Default)]
pub struct Seconds(AtomicU64);

impl Seconds {
    /// So much more.
    pub fn inc_by(&self, more: f64) {
        let add = |bits| Some((f64::from_bits(bits) + more).to_bits());
        // It never refuses.
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }

    /// How much.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Seconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, f64, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Bounds in seconds for what takes from a millisecond to a few minutes: starting and waiting.
const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// A histogram of lengths of time, made by the first of them.
#[derive(Debug, Default)]
pub struct Spread(OnceLock<Histogram>);

impl Spread {
    /// One more, in seconds.
    pub fn observe(&self, seconds: f64) {
        self.0.get_or_init(|| Histogram::new(BOUNDS)).observe(seconds);
    }

    /// What was seen, if anything was.
    pub(super) fn seen(&self) -> Option<&Histogram> {
        self.0.get()
    }
}

/// Numbers of one thing of which there are many, most of them idle: made by the first who uses them.
#[derive(Debug, Default)]
pub struct Seldom<T>(OnceLock<Box<T>>);

impl<T: Default> Seldom<T> {
    /// The numbers, if anybody has used them.
    pub fn seen(&self) -> Option<&T> {
        self.0.get().map(|numbers| &**numbers)
    }

    /// Has a level be `value`; where all of them are zero still, zero is what it is.
    pub fn level(&self, level: impl FnOnce(&T) -> &Level, value: i64) {
        if value != 0 || self.seen().is_some() {
            level(self).set(value);
        }
    }
}

/// To use them, which makes them.
impl<T: Default> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.get_or_init(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_time_add_up() {
        let (sum, count) = (Seconds::default(), Count::default());
        (0..4).for_each(|_| sum.inc_by(0.25));
        (0..4).for_each(|_| count.inc());
        assert_eq!((sum.get(), count.get()), (1.0, 4));
    }

    #[test]
    fn what_nobody_uses_is_not_there_and_zero_is_no_use() {
        let levels = Seldom::<[Level; 2]>::default();
        levels.level(|all| &all[1], 0);
        assert!(levels.seen().is_none());
        levels.level(|all| &all[1], 3);
        levels.level(|all| &all[1], 0);
        assert_eq!(levels.seen().map(|all| (all[0].get(), all[1].get())), Some((0, 0)));
    }
}
