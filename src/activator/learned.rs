//! How long something takes as a rule, from the last few times that it was seen.
//!
//! A low quantile, so that one slow start neither turns anybody away whom the next one would have served,
//! nor stays for long; each older time counts for half of the one after it, so that a change is believed
//! once it was seen two or three times.

use crate::clock::Duration;
use smallvec::SmallVec;

/// Older ones would count for less than a thousandth.
const KEPT: usize = 8;
/// As a share of all that is counted.
const QUANTILE: f64 = 0.25;

/// The times, latest last.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    times: SmallVec<[Duration; KEPT]>,
}

impl Learned {
    /// It took so long this time.
    pub fn saw(&mut self, took: Duration) {
        if self.times.len() == KEPT {
            self.times.remove(0);
        }
        self.times.push(took);
    }

    /// How long it takes; none: it was never seen.
    pub fn expected(&self) -> Option<Duration> {
        let mut weighed: SmallVec<[(Duration, f64); KEPT]> = self
            .times
            .iter()
            .rev()
            .enumerate()
            .map(|(age, took)| (*took, 0.5_f64.powi(age as i32)))
            .collect();
        weighed.sort_unstable_by_key(|(took, _)| *took);
        let all: f64 = weighed.iter().map(|(_, weight)| weight).sum();
        let mut below = 0.0;
        weighed.iter().find_map(|(took, weight)| {
            below += weight;
            // Strictly more: of a pair of which one is new, the new one is not outvoted by what is half gone.
            (below > QUANTILE * all).then_some(*took)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts in seconds, and what is expected after them.
    fn check(starts: &[u64], want: Option<u64>) {
        let mut learned = Learned::default();
        starts.iter().for_each(|seconds| learned.saw(Duration::from_secs(*seconds)));
        assert_eq!(learned.expected(), want.map(Duration::from_secs), "{starts:?}");
    }

    #[test]
    fn one_slow_start_is_not_believed_and_not_remembered() {
        check(&[], None);
        check(&[3], Some(3));
        check(&[3, 60], Some(3));
        check(&[3, 3, 60, 3], Some(3));
        check(&[60], Some(60));
        check(&[60, 3], Some(3));
        check(&[60, 3, 3], Some(3));
        check(&[1, 60, 2, 60, 1], Some(1));
    }

    #[test]
    fn a_change_is_believed_after_a_few_times() {
        check(&[3, 3, 3, 3, 60], Some(3));
        check(&[3, 3, 3, 3, 3, 60, 60, 60], Some(60));
        check(&[60, 60, 60, 60, 60, 3], Some(3));
        check(&[5; 40], Some(5));
    }
}
