//! How fast a line moves that only finished work makes shorter.
//!
//! Learned from the line itself: how long one exchange has its slot on average is the time that all slots
//! were taken, over the number of slots that came free. Counted in windows of at least `WINDOW` in which
//! somebody always waited, since only then are all slots taken; older windows fade.

use crate::clock::{Duration, Instant};

/// The shortest window.
const WINDOW: Duration = Duration::from_millis(50);
/// What is left of all that was counted with each slot that comes free after it: about 32 of them count.
const FADING: f64 = 31.0 / 32.0;

/// The pace of one line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Since when the open window counts.
    since: Option<Instant>,
    /// Slots that came free in the open window.
    freed: u32,
    /// Of the closed windows: slots that came free, and the seconds that all slots were taken, added up.
    all_freed: f64,
    taken: f64,
}

impl Pace {
    /// A slot came free and went to somebody who waited, one of so many `places`.
    pub fn granted(&mut self, now: Instant, places: u32) {
        let Some(since) = self.since else {
            // What was freed before is not known.
            self.since = Some(now);
            self.freed = 1;
            return;
        };
        let length = now.saturating_duration_since(since);
        if length >= WINDOW && self.freed > 0 {
            let fading = FADING.powi(i32::try_from(self.freed).unwrap_or(i32::MAX));
            self.all_freed = self.all_freed * fading + f64::from(self.freed);
            self.taken = self.taken * fading + length.as_secs_f64() * f64::from(places);
            self.since = Some(now);
            self.freed = 0;
        }
        self.freed += 1;
    }

    /// Nobody waits, or more instances are to be had: what was not counted to the end is not counted.
    pub fn pause(&mut self) {
        self.since = None;
        self.freed = 0;
    }

    /// How long an exchange has its slot; none: not known yet.
    pub fn took(&self, now: Instant, places: u32) -> Option<Duration> {
        if self.all_freed == 0.0 {
            return None;
        }
        let known = self.taken / self.all_freed;
        // Slots that do not come free as fast as they used to are seen before the window closes.
        let open = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let places = f64::from(places);
        let at_least = (self.taken + open * places) / (self.all_freed + f64::from(self.freed) + places);
        Duration::try_from_secs_f64(known.max(at_least)).ok()
    }

    /// How long it takes until somebody is finished who has so many in front of him: his own time, and until
    /// then the time of those in front, shared by all places.
    pub fn until_finished(&self, now: Instant, ahead: usize, places: u32) -> Option<Duration> {
        let took = self.took(now, places)?;
        Some(took + self.until_granted(now, ahead, places)?)
    }

    /// How long it takes until he has his slot.
    pub fn until_granted(&self, now: Instant, ahead: usize, places: u32) -> Option<Duration> {
        let turns = (ahead as f64 + 1.0) / f64::from(places.max(1));
        Duration::try_from_secs_f64(self.took(now, places)?.as_secs_f64() * turns).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Slots that come free at these milliseconds, of so many places; how long each was taken in the end.
    fn check(places: u32, freed: impl Iterator<Item = u64>, want: Option<u64>) {
        let (start, mut pace, mut last) = (clock::now(), Pace::default(), 0);
        for at in freed {
            pace.granted(start + millis(at), places);
            last = at;
        }
        let took = pace.took(start + millis(last), places).map(|took| took.as_millis() as u64);
        match (took, want) {
            (Some(took), Some(want)) => assert!(took.abs_diff(want) <= want / 10, "{took} ms, not {want} ms"),
            (took, want) => assert_eq!(took, want),
        }
    }

    #[test]
    fn the_time_that_a_slot_is_taken_is_learned_from_when_slots_come_free() {
        check(2, std::iter::empty(), None);
        check(2, [0, 0].into_iter(), None);
        check(2, (0..20).map(|n| n / 2 * 100), Some(100));
        check(2, (0..40).map(|n| n * 50), Some(100));
        check(1, (0..40).map(|n| n * 3), Some(3));
        check(100, (0..1_000).map(|n| n / 100 * 1_000), Some(1_000));
        // Fast before, slow now.
        check(1, (0..100).map(|n| n * 10).chain((0..100).map(|n| 1_000 + n * 200)), Some(200));
    }

    #[test]
    fn slots_that_come_free_no_longer_are_seen_before_the_next_one_does() {
        let (start, mut pace) = (clock::now(), Pace::default());
        (0..40).for_each(|n| pace.granted(start + millis(n * 50), 2));
        let took = |after: u64| pace.took(start + millis(1_950 + after), 2).unwrap();
        assert!(took(0) < millis(110) && took(5_000) > millis(300), "{:?} {:?}", took(0), took(5_000));
    }

    #[test]
    fn those_in_front_share_all_places() {
        let (start, mut pace) = (clock::now(), Pace::default());
        (0..40).for_each(|n| pace.granted(start + millis(n * 50), 2));
        let now = start + millis(1_950);
        let until = |ahead| pace.until_finished(now, ahead, 2).unwrap().as_millis();
        assert!((140..=165).contains(&until(0)), "{}", until(0));
        assert!((1_100..=1_200).contains(&until(19)), "{}", until(19));
        pace.pause();
        assert!(pace.until_finished(now, 0, 2).is_some(), "what was learned stays");
    }
}
