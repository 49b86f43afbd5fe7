//! The average of a metric over a sliding window, from one number a second.
//!
//! Two of these, a long and a short one, are what Knative's autoscaler decides from. The arithmetic is
//! Knative's, partial windows included: until a window has passed since the first number, the average is
//! over the seconds since then; where the latest numbers are missing, it is over those before; seconds
//! missing in between count as zero; after a whole window without numbers all begins anew.
//!
//! Numbers are kept as whole millionths, so that sums of them are exact, whatever the order: what has left the
//! window has left no trace.

use proxy_config::model::Aggregation;

/// Numbers are rounded, and averages cut, to this many parts of one.
const PARTS: f64 = 1e6;
/// How much of the whole the weights of a window make up at least.
const WEIGHT: f64 = 0.9999;
/// The weight of the latest second is at least this, or very long windows would be plain averages.
const LEAST: f64 = 0.2;

/// Numbers of the last seconds. Seconds are counted from any fixed moment.
#[derive(Clone, Debug)]
pub struct Window {
    /// Of each second, in parts.
    buckets: Vec<f64>,
    aggregation: Aggregation,
    /// Of the latest second in an exponentially weighted average.
    smoothing: f64,
    first: u64,
    /// The latest second that was recorded; none: nothing was.
    last: Option<u64>,
    /// The bucket of that second.
    place: usize,
    /// The latest second that is not zero.
    busy: Option<u64>,
    /// Of all buckets.
    total: f64,
}

impl Window {
    /// An empty window of `length` seconds, at least 1.
    pub fn new(length: u32, aggregation: Aggregation) -> Window {
        let length = length.max(1);
        let smoothing = (1.0 - libm::pow(1.0 - WEIGHT, 1.0 / f64::from(length))).max(LEAST);
        Window {
            buckets: vec![0.0; length as usize],
            aggregation,
            smoothing,
            first: 0,
            last: None,
            place: 0,
            busy: None,
            total: 0.0,
        }
    }

    /// Its length in seconds.
    pub fn length(&self) -> u64 {
        self.buckets.len() as u64
    }

    /// The sum of all seconds of the window.
    pub fn total(&self) -> f64 {
        self.total / PARTS
    }

    /// How many seconds an average is over, once there are any.
    pub fn recorded(&self) -> u64 {
        self.last.map_or(0, |last| (last - self.first + 1).min(self.length()))
    }

    /// Whether nothing was recorded in the window that ends with second `now`.
    pub fn is_empty(&self, now: u64) -> bool {
        self.last.is_none_or(|last| now > last && now - last > self.length())
    }

    /// The bucket of a second that is part of the window or one of those that come after it, `last` being the latest.
    fn place(&self, last: u64, second: u64) -> usize {
        let length = self.buckets.len();
        // Within one window of the last, so that it fits and there is one turn at most.
        if second >= last {
            let place = self.place + (second - last) as usize;
            if place < length { place } else { place - length }
        } else {
            let back = (last - second) as usize;
            if back <= self.place { self.place - back } else { self.place + length - back }
        }
    }

    /// Adds `value` to a second. Seconds between the latest and this one become zero; one that is older
    /// than the window is ignored.
    pub fn record(&mut self, second: u64, value: f64) {
        self.fill(second, second + 1, value);
    }

    /// Adds `value` to each second in `from..until`. Costs no more than one window, however long that is.
    pub fn fill(&mut self, from: u64, until: u64, value: f64) {
        if from >= until {
            return;
        }
        let from = from.max(until.saturating_sub(self.length()));
        self.reach(from);
        self.reach(until - 1);
        let value = cut(value * PARTS + 0.5);
        if value == 0.0 {
            // Seconds passed over are zero.
            return;
        }
        // What is too old to be part of the window is left out.
        let last = self.last.unwrap_or(0);
        let from = from.max((last + 1).saturating_sub(self.length()));
        if from >= until {
            return;
        }
        for bucket in self.stretch(last, from, until).into_iter().flatten() {
            *bucket += value;
        }
        self.total += value * (until - from) as f64;
        self.busy = self.busy.max(Some(until - 1));
    }

    /// The buckets of `from..until`, at most one window.
    fn stretch(&mut self, last: u64, from: u64, until: u64) -> [&mut [f64]; 2] {
        let (start, count) = (self.place(last, from), (until - from) as usize);
        let (head, tail) = self.buckets.split_at_mut(start);
        let later = count.min(tail.len());
        [&mut tail[..later], &mut head[..count - later]]
    }

    /// Makes `second` part of the window, unless it is too old.
    fn reach(&mut self, second: u64) {
        match self.last {
            Some(last) if second <= last => {
                if last - second < self.length() {
                    self.first = self.first.min(second);
                }
            }
            // All of it is zero.
            Some(last) if self.busy.is_none_or(|busy| last - busy >= self.length()) => {
                if second - last >= self.length() {
                    self.first = second;
                }
                self.total = 0.0;
                // Which bucket is whose does not matter then.
                self.last = Some(second);
            }
            Some(last) if second - last < self.length() => {
                let mut gone = 0.0;
                for bucket in self.stretch(last, last + 1, second + 1).into_iter().flatten() {
                    gone += std::mem::take(bucket);
                }
                self.total -= gone;
                self.place = self.place(last, second);
                self.last = Some(second);
            }
            _ => {
                self.buckets.fill(0.0);
                self.total = 0.0;
                self.first = second;
                self.last = Some(second);
            }
        }
    }

    /// The average over the window that ends with second `now`.
    pub fn average(&self, now: u64) -> f64 {
        let Some(last) = self.last.filter(|_| !self.is_empty(now)) else { return 0.0 };
        let missing = now.saturating_sub(last);
        match self.aggregation {
            Aggregation::Linear => self.linear(last, missing),
            Aggregation::WeightedExponential => self.weighted(last, missing),
        }
    }

    fn linear(&self, last: u64, missing: u64) -> f64 {
        if missing >= self.length() {
            return 0.0;
        }
        let gone = self.gone(last, missing);
        let seconds = (last - self.first + 1).min(self.length() - missing);
        cut((self.total - gone).max(0.0) / seconds as f64) / PARTS
    }

    /// What falls out of the window in the seconds after the last.
    fn gone(&self, last: u64, missing: u64) -> f64 {
        if missing == 0 || self.total == 0.0 {
            return 0.0;
        }
        let (start, count) = (self.place(last, last + 1), missing as usize);
        let (head, tail) = self.buckets.split_at(start);
        let later = count.min(tail.len());
        tail[..later].iter().chain(&head[..count - later]).sum()
    }

    fn weighted(&self, last: u64, missing: u64) -> f64 {
        let left = 1.0 - self.smoothing;
        let mut weight = self.smoothing * libm::pow(left, missing as f64);
        let seconds = self.length().saturating_sub(missing).min(last + 1);
        let mut sum = 0.0;
        for back in 0..seconds {
            sum += self.buckets[self.place(last, last - back)] * weight;
            weight *= left;
        }
        sum / PARTS
    }

    /// The average over the whole window that ends with second `now`, however few seconds were recorded.
    pub fn whole(&self, now: u64) -> f64 {
        let Some(last) = self.last.filter(|_| !self.is_empty(now)) else { return 0.0 };
        let missing = now.saturating_sub(last);
        if self.aggregation == Aggregation::WeightedExponential {
            return self.weighted(last, missing);
        }
        if missing >= self.length() {
            return 0.0;
        }
        (self.total - self.gone(last, missing)).max(0.0) / (self.length() as f64 * PARTS)
    }

    /// The lowest and the highest second of the window, those never recorded left out.
    pub fn range(&self) -> Option<(f64, f64)> {
        let last = self.last?;
        // Buckets not recorded yet are zero.
        let highest = self.buckets.iter().fold(0.0, |high: f64, value| high.max(*value));
        let seconds = (last - self.first + 1).min(self.length());
        let lowest = if seconds == self.length() {
            self.buckets.iter().fold(f64::MAX, |low, value| low.min(*value))
        } else {
            let values = (0..seconds).map(|back| self.buckets[self.place(last, last - back)]);
            values.fold(f64::MAX, f64::min)
        };
        Some((lowest / PARTS, highest / PARTS))
    }

    /// The latest second that is not zero.
    pub fn busy(&self) -> Option<u64> {
        self.busy
    }
}

/// The whole part of what is not negative; without a call where that is possible.
fn cut(value: f64) -> f64 {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if value < EXACT { value as u64 as f64 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: u32, aggregation: Aggregation, values: &[(u64, f64)]) -> Window {
        let mut window = Window::new(length, aggregation);
        values.iter().for_each(|(second, value)| window.record(*second, *value));
        window
    }

    fn check(name: &str, values: &[(u64, f64)], now: u64, want: f64) {
        assert_eq!(of(5, Aggregation::Linear, values).average(now), want, "{name}");
    }

    #[test]
    fn averages_are_over_what_there_is() {
        check("nothing", &[], 9, 0.0);
        check("one second", &[(7, 4.0)], 7, 4.0);
        check("a partial window", &[(7, 4.0), (8, 2.0)], 8, 3.0);
        check("the same second twice adds up", &[(7, 4.0), (7, 2.0)], 7, 6.0);
        check("a gap is zero", &[(7, 4.0), (9, 2.0)], 9, 2.0);
        check("a whole window", &[(1, 5.0), (2, 5.0), (3, 5.0), (4, 5.0), (5, 0.0)], 5, 4.0);
        check("what is older falls out", &[(1, 500.0), (4, 4.0), (6, 1.0)], 6, 1.0);
        check("late numbers shorten it", &[(1, 9.0), (2, 9.0), (3, 9.0), (4, 1.0), (5, 2.0)], 7, 4.0);
        check("silence for a window", &[(1, 9.0), (2, 9.0)], 7, 0.0);
        check("after it, anew", &[(1, 9.0), (7, 3.0)], 7, 3.0);
        check("too old", &[(9, 3.0), (4, 100.0)], 9, 3.0);
        check("cut to six digits", &[(1, 1.0), (2, 1.0), (3, 0.0)], 3, 0.666666);
    }

    #[test]
    fn the_latest_seconds_weigh_more_by_request() {
        // A window of 5: the weight of the latest second is 1 − 0.0001^(1/5).
        let weight: f64 = 1.0 - libm::pow(0.0001, 0.2);
        let rising = of(5, Aggregation::WeightedExponential, &[(1, 5.0), (2, 5.0), (3, 10.0)]);
        let left = 1.0 - weight;
        let want = weight * (10.0 + left * 5.0 + left * left * 5.0);
        assert!((rising.average(3) - want).abs() < 1e-9, "{}", rising.average(3));
        assert!((rising.average(4) - want * left).abs() < 1e-9);
        let long = of(3600, Aggregation::WeightedExponential, &[(1, 10.0)]);
        assert!((long.average(1) - 2.0).abs() < 1e-9, "never less than a fifth");
    }

    #[test]
    fn a_stretch_is_as_good_as_its_seconds() {
        for (from, until) in [(3, 4), (3, 7), (3, 300), (8, 8)] {
            for aggregation in [Aggregation::Linear, Aggregation::WeightedExponential] {
                let mut at_once = of(5, aggregation, &[(1, 7.0), (3, 1.0)]);
                let mut one_by_one = at_once.clone();
                at_once.fill(from, until, 2.5);
                (from..until).for_each(|second| one_by_one.record(second, 2.5));
                for now in [until, until + 2] {
                    let (a, b) = (at_once.average(now), one_by_one.average(now));
                    // Only where a partial window began is forgotten, and only of windows that are full.
                    assert!((a - b).abs() < 1e-6, "{from}..{until} at {now}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn what_has_left_the_window_leaves_no_trace() {
        // Thirds and sevenths have no end, but their millionths have.
        let numbers = |from: u64| (from..from + 5).map(|second| (second, 1.0 / (second % 7 + 1) as f64));
        let long: Vec<(u64, f64)> = (0..200).flat_map(|round| numbers(round * 5)).collect();
        let late: Vec<(u64, f64)> = numbers(995).collect();
        let (long, late) = (of(5, Aggregation::Linear, &long), of(5, Aggregation::Linear, &late));
        assert_eq!((long.total(), long.whole(999)), (late.total(), late.whole(999)));
        assert_eq!(long.average(1_001), late.average(1_001));
    }

    #[test]
    fn the_range_is_of_seconds_that_count() {
        assert_eq!(Window::new(5, Aggregation::Linear).range(), None);
        assert_eq!(of(5, Aggregation::Linear, &[(1, 7.0), (2, 3.0)]).range(), Some((3.0, 7.0)));
        assert_eq!(of(5, Aggregation::Linear, &[(1, 7.0), (9, 3.0)]).range(), Some((3.0, 3.0)));
        assert_eq!(of(5, Aggregation::Linear, &[(1, 7.0), (3, 3.0)]).range(), Some((0.0, 7.0)));
    }
}
