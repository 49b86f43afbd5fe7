//! When the calls of a minute come, of which a trace says only how many there were.

use fastrand::Rng;

/// Microseconds of a minute.
pub(super) const MINUTE: u64 = 60_000_000;
/// So many calls of a minute have a moment each.
const SINGLE: u64 = 32;
/// The calls of busier minutes come in so many trains.
const TRAINS: u64 = 10;

/// How calls are spread over their minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independent of each other, as a Poisson process has them.
    Poisson,
    /// Evenly spaced, from a moment of the function's own.
    Even,
}

/// Evenly spaced calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Train {
    /// The first, in microseconds.
    pub at: u64,
    /// From one to the next.
    pub gap: u64,
    /// How many are to come.
    pub left: u64,
}

/// Draws the moments of one function.
#[derive(Debug)]
pub(super) struct Moments {
    arrivals: Arrivals,
    random: Rng,
    /// Of a gap: where the first of evenly spaced calls comes.
    shift: f64,
    trains: Vec<Train>,
}

impl Moments {
    pub fn new(arrivals: Arrivals, seed: u64) -> Moments {
        let mut random = Rng::with_seed(seed);
        let shift = random.f64();
        Moments { arrivals, random, shift, trains: Vec::new() }
    }

    /// The `count` calls of the minute that begins at `start`, in order.
    pub fn of(&mut self, start: u64, count: u64) -> &[Train] {
        self.trains.clear();
        match self.arrivals {
            Arrivals::Even => {
                let shift = self.shift;
                self.evenly(start, MINUTE, count, shift);
            }
            Arrivals::Poisson if count <= SINGLE => {
                // Given their number, the moments of a Poisson process are independent and equally likely.
                for _ in 0..count {
                    let at = start + self.random.u64(..MINUTE);
                    self.trains.push(Train { at, gap: MINUTE / count, left: 1 });
                }
                self.trains.sort_unstable_by_key(|train| train.at);
            }
            Arrivals::Poisson => {
                let (length, mut left) = (MINUTE / TRAINS, count);
                for train in 0..TRAINS {
                    let some = self.share(left, TRAINS - train);
                    left -= some;
                    let shift = self.random.f64();
                    self.evenly(start + train * length, length, some, shift);
                }
            }
        }
        &self.trains
    }

    fn evenly(&mut self, start: u64, length: u64, count: u64, shift: f64) {
        // None: there is nobody.
        let Some(gap) = length.checked_div(count).map(|gap| gap.max(1)) else { return };
        // Below a gap, so that the last is within the length.
        self.trains.push(Train { at: start + (gap as f64 * shift) as u64, gap, left: count });
    }

    /// How many of `count` fall into the first of so many equal parts: binomial, by its normal limit.
    fn share(&mut self, count: u64, parts: u64) -> u64 {
        if parts <= 1 {
            return count;
        }
        let part = 1.0 / parts as f64;
        let mean = count as f64 * part;
        // The sum of twelve is as good a normal number as is needed, and cheap.
        let normal: f64 = (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0;
        let drawn = mean + normal * (mean * (1.0 - part)).sqrt();
        (drawn.round().max(0.0) as u64).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_its_moment_within_its_minute_and_in_order() {
        for arrivals in [Arrivals::Poisson, Arrivals::Even] {
            for count in [1, 2, 32, 33, 1_000, 10_000_000] {
                let mut moments = Moments::new(arrivals, 7);
                let trains = moments.of(5 * MINUTE, count).to_vec();
                assert_eq!(trains.iter().map(|train| train.left).sum::<u64>(), count);
                let last = |train: &Train| train.at + (train.left - 1) * train.gap;
                assert!(trains.windows(2).all(|pair| last(&pair[0]) <= pair[1].at), "{arrivals:?} {count}");
                assert!(trains[0].at >= 5 * MINUTE, "{arrivals:?} {count}");
                let end = trains.last().map_or(0, last);
                assert!(end < 6 * MINUTE, "{arrivals:?} {count}");
            }
        }
    }

    #[test]
    fn counts_vary_as_those_of_a_poisson_process_do() {
        let mut moments = Moments::new(Arrivals::Poisson, 3);
        let (mut sum, mut squares, mut number) = (0.0, 0.0, 0.0);
        for minute in 0..2_000 {
            for train in moments.of(minute * MINUTE, 1_000) {
                let count = train.left as f64;
                (sum, squares, number) = (sum + count, squares + count * count, number + 1.0);
            }
        }
        let (mean, variance) = (sum / number, squares / number - (sum / number).powi(2));
        assert!((mean - 100.0).abs() < 0.1, "{mean}");
        assert!((85.0..95.0).contains(&variance), "{variance}: 1000 in ten parts have 90");
    }
}
