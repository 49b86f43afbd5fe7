//! How long the next start is held back after instances ended on their own, and when it is said to be in vain.
//!
//! Doubling from a tenth of a second to ten, with jitter; all failures of one round count as one. An
//! instance that was ready and ends for the first time in a while is replaced at once. After three rounds in
//! a row, or at once where no attempt can help, the circuit is open: until the next start may be made nobody
//! waits for it. That start is a trial of one instance; the circuit is closed when it is ready.

use crate::clock::{Duration, Instant};
use crate::fault::Kind;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// Being ready, or having peace, for so long makes past failures forgotten.
const HEALTHY: Duration = Duration::from_secs(60);
/// Rounds of failures after which the circuit opens.
const TRIP: u32 = 3;

/// How an instance failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// What those are told whom it concerns.
    pub kind: Kind,
    /// When it was ordered.
    pub since: Instant,
    /// How long it had been ready, if it was.
    pub ready: Option<Duration>,
}

/// The back-off of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    streak: u32,
    until: Option<Instant>,
    /// The last failure.
    last: Option<Kind>,
    /// Nothing came of the last round: the next start is of one instance.
    alone: bool,
}

impl Backoff {
    /// Until when nothing is to be started, if that is still to come.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Why nobody is to wait for the next start, while the circuit is open.
    pub fn shut(&self, now: Instant) -> Option<Kind> {
        self.until(now).filter(|_| self.is_vain())?;
        self.last.map(|kind| match kind {
            Kind::Crashed | Kind::ExitedEarly => Kind::CrashLoop,
            kind => kind,
        })
    }

    /// Whether every start has failed for so long that the circuit is open between trials.
    pub fn is_vain(&self) -> bool {
        self.streak >= TRIP || self.last == Some(Kind::CannotStart)
    }

    /// Whether no more than one instance is to be started until one is ready.
    pub fn tries_alone(&self) -> bool {
        self.alone
    }

    /// An instance ended. `random` is uniform in 0..1.
    pub fn failed(&mut self, now: Instant, failure: Failure, random: f64) {
        if self.until(now).is_some() {
            return;
        }
        let Failure { kind, since, ready } = failure;
        let peace = self.until.is_some_and(|until| since.saturating_duration_since(until) >= HEALTHY);
        if peace || ready.is_some_and(|ready| ready >= HEALTHY) {
            self.streak = 0;
        }
        // Another port is worth a try at once.
        let doublings = match (ready.is_some() || kind == Kind::PortTaken, self.streak) {
            (true, 0) => None,
            (true, streak) => Some(streak - 1),
            (false, streak) => Some(streak),
        };
        let full = doublings.map_or(Duration::ZERO, |n| FIRST.saturating_mul(1 << n.min(16)).min(LONGEST));
        self.streak += 1;
        self.last = Some(kind);
        self.until = Some(now + full.mul_f64(0.75 + random / 4.0));
    }

    /// Nothing is left of what was started.
    pub fn nothing_left(&mut self) {
        self.alone = true;
    }

    /// An instance is ready.
    pub fn succeeded(&mut self) {
        self.alone = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn failure(since: Instant, ready: Option<Duration>) -> Failure {
        Failure { kind: if ready.is_some() { Kind::Flapping } else { Kind::Crashed }, since, ready }
    }

    /// Failures one after the other, each after the last back-off: the lengths in milliseconds.
    fn check(rounds: &[Option<u64>], want: &[u64]) {
        let (mut now, mut backoff) = (clock::now(), Backoff::default());
        let lengths: Vec<u64> = rounds
            .iter()
            .map(|ready| {
                backoff.failed(now, failure(now, ready.map(Duration::from_secs)), 1.0);
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
        (0..20).for_each(|_| backoff.failed(now, failure(now, None), 1.0));
        assert_eq!(backoff.until(now), Some(now + FIRST));
    }

    #[test]
    fn a_minute_of_peace_is_as_good_as_a_healthy_one() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        backoff.failed(now, failure(now, None), 1.0);
        let later = now + FIRST + HEALTHY;
        backoff.failed(later, failure(later, None), 1.0);
        assert_eq!(backoff.until(later), Some(later + FIRST));
    }

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        backoff.failed(now, failure(now, None), 0.0);
        assert_eq!(backoff.until(now), Some(now + Duration::from_millis(75)));
    }

    #[test]
    fn a_slow_start_that_fails_is_no_peace() {
        let (now, mut backoff) = (clock::now(), Backoff::default());
        backoff.failed(now, failure(now, None), 1.0);
        backoff.failed(now + 10 * HEALTHY, failure(now + FIRST, None), 1.0);
        assert_eq!(backoff.until(now + 10 * HEALTHY), Some(now + 10 * HEALTHY + 2 * FIRST));
    }

    /// After failures of these kinds, each after the last back-off: why nobody is to wait any more.
    fn shut(kinds: &[Kind], want: Option<Kind>) {
        let (mut now, mut backoff) = (clock::now(), Backoff::default());
        for kind in kinds {
            now = backoff.until(now).unwrap_or(now) + Duration::from_millis(1);
            let ready = (*kind == Kind::Flapping).then_some(Duration::from_secs(5));
            backoff.failed(now, Failure { kind: *kind, since: now, ready }, 1.0);
        }
        assert_eq!(backoff.shut(now), want, "{kinds:?}");
        let later = backoff.until(now).unwrap_or(now);
        assert_eq!(backoff.shut(later), None, "the trial is due: {kinds:?}");
        assert_eq!(backoff.is_vain(), want.is_some(), "a trial that is due has not succeeded: {kinds:?}");
    }

    #[test]
    fn the_circuit_opens_after_three_rounds_and_at_once_where_nothing_can_help() {
        use Kind::{CannotStart, CrashLoop, Crashed, ExitedEarly, Flapping, NeverReady, PortTaken};
        shut(&[], None);
        shut(&[Crashed], None);
        shut(&[Crashed, Crashed], None);
        shut(&[Crashed, Crashed, Crashed], Some(CrashLoop));
        shut(&[Crashed, Crashed, ExitedEarly, ExitedEarly], Some(CrashLoop));
        shut(&[Flapping, Flapping], None);
        shut(&[Flapping, Flapping, Flapping], Some(Flapping));
        shut(&[NeverReady, NeverReady, NeverReady], Some(NeverReady));
        shut(&[PortTaken, PortTaken, PortTaken], Some(PortTaken));
        shut(&[CannotStart], Some(CannotStart));
    }
}
