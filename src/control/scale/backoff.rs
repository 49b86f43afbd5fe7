//! How long the next start is held back after instances ended on their own.
//!
//! Doubling from a tenth of a second to ten, with jitter; all failures of one round count as one. An
//! instance that was ready and ends for the first time in a while is replaced at once.

use crate::clock::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// Being ready, or having peace, for so long makes past failures forgotten.
const HEALTHY: Duration = Duration::from_secs(60);

/// The back-off of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    streak: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Until when nothing is to be started, if that is still to come.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// An instance ended. `ready`: how long it had been ready. `random` is uniform in 0..1.
    pub fn failed(&mut self, now: Instant, ready: Option<Duration>, random: f64) {
        if self.until(now).is_some() {
            return;
        }
        let peace = self.until.is_some_and(|until| now.saturating_duration_since(until) >= HEALTHY);
        if peace || ready.is_some_and(|ready| ready >= HEALTHY) {
            self.streak = 0;
        }
        let doublings = match (ready, self.streak) {
            (Some(_), 0) => None,
            (Some(_), streak) => Some(streak - 1),
            (None, streak) => Some(streak),
        };
        let full = doublings.map_or(Duration::ZERO, |n| FIRST.saturating_mul(1 << n.min(16)).min(LONGEST));
        self.streak += 1;
        self.until = Some(now + full.mul_f64(0.75 + random / 4.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Failures one after the other, each after the last back-off: the lengths in milliseconds.
    fn check(rounds: &[Option<u64>], want: &[u64]) {
        let (mut now, mut backoff) = (clock::now(), Backoff::default());
        let lengths: Vec<u64> = rounds
            .iter()
            .map(|ready| {
                backoff.failed(now, ready.map(Duration::from_secs), 1.0);
                let length = backoff.until(now).map_or(Duration::ZERO, |until| until - now);
                now += length + Duration::from_millis(1);
                length.as_millis() as u64
            })
            .collect();
        assert_eq!(lengths, want, "{rounds:?}");
    }

    #[test]
    fn it_doubles_up_to_ten_seconds_and_forgets_after_a_healthy_minute() {
        check(&[None; 9], &[100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        check(&[Some(0), Some(0), Some(0)], &[0, 100, 200]);
        check(&[None, None, Some(60), None], &[100, 200, 0, 200]);
    }

    #[test]
    fn failures_of_one_round_count_once() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        (0..20).for_each(|_| backoff.failed(now, None, 1.0));
        assert_eq!(backoff.until(now), Some(now + FIRST));
    }

    #[test]
    fn a_minute_of_peace_is_as_good_as_a_healthy_one() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        backoff.failed(now, None, 1.0);
        let later = now + FIRST + HEALTHY;
        backoff.failed(later, None, 1.0);
        assert_eq!(backoff.until(later), Some(later + FIRST));
    }

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        backoff.failed(now, None, 0.0);
        assert_eq!(backoff.until(now), Some(now + Duration::from_millis(75)));
    }
}
