//! How many instances may be started in a while: a bucket of starts for each revision, and one for the process.
//!
//! What one queue needs is always started whole as soon as there is anything in the bucket, and the bucket is
//! then in debt: bursts stay exact, and what comes again and again (waking and idling in turns, a scan over
//! all hosts) is bounded.

use crate::clock::{Duration, Instant};

/// Who would wait longer than this for a start that is put off is told so instead.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Starts a second, 0: no limit; and at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Of all functions together.
    pub process: f64,
    /// Of one revision.
    pub function: f64,
    /// Instances of all functions together that are starting at a time; 0: no limit.
    pub at_once: u32,
}

/// A bucket of starts.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: f64,
    most: f64,
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// A full one that gets `rate` starts a second and holds `most`. A rate of 0 sets no limit.
    pub fn new(rate: f64, most: u32) -> Bucket {
        let most = f64::from(most.max(1));
        Bucket { rate, most, level: most, at: None }
    }

    fn fill(&mut self, now: Instant) {
        let since = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.level = (self.level + since.as_secs_f64() * self.rate).min(self.most);
    }

    /// When there is something in it again, if there is nothing now.
    pub fn empty_until(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        // A hair less counts as one: what is computed to be due is due.
        let missing = 1.0 - self.level;
        (self.rate > 0.0 && missing > 1e-6).then(|| now + Duration::from_secs_f64(missing / self.rate))
    }

    /// Takes so many, more than there are if need be.
    pub fn take(&mut self, count: u32) {
        if self.rate > 0.0 {
            self.level -= f64::from(count);
        }
    }

    /// Starts that may be made now; below zero: the debt.
    pub fn level(&self) -> f64 {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_burst_is_whole_and_its_debt_is_paid_before_the_next() {
        let (now, mut bucket) = (clock::now(), Bucket::new(2.0, 10));
        assert_eq!(bucket.empty_until(now), None);
        bucket.take(14);
        assert_eq!(bucket.level(), -4.0);
        assert_eq!(bucket.empty_until(now), Some(now + Duration::from_millis(2_500)));
        assert_eq!(bucket.empty_until(now + Duration::from_millis(2_500)), None);
        bucket.take(1);
        assert_eq!(bucket.empty_until(now + Duration::from_secs(1_000)), None);
        assert_eq!(bucket.level(), 10.0, "it holds no more");
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let (now, mut bucket) = (clock::now(), Bucket::new(0.0, 1));
        bucket.take(1_000_000);
        assert_eq!(bucket.empty_until(now), None);
    }
}
