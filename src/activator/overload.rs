//! Whom to serve first: the oldest, until those in front wait for too long.
//!
//! Once a queue is longer than its callers' patience, oldest first means that each is served just when it is
//! about to give up, and all work is wasted. So, as CoDel does (Nichols and Jacobson, ACM Queue 2012): when
//! the wait of the head of the line has been above a target for a whole interval, and no instance can be
//! added, the newest are served first (adaptive LIFO; Maurer, ACM Queue 2015) until the head is below the
//! target again. The target is a part of the time that the head was given, since patience is what counts; or,
//! where its wait was foreseen and there was time for it, what was foreseen and a little more.

use super::queue::Terms;
use crate::clock::{Duration, Instant};

/// The wait of the head must be above its target for this long.
const INTERVAL: Duration = Duration::from_millis(100);
/// The target: a quarter of the time given, within these.
const TARGET: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Which end of the line is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Oldest,
    Newest,
}

/// The state of one line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overload {
    above: Option<Instant>,
}

impl Overload {
    /// Which end is served at `now`, with this one at the head of the line. `crowded`: no instance can be added.
    pub fn end(&mut self, now: Instant, crowded: bool, head: &Terms) -> End {
        let since = head.since;
        let given = head.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(since));
        // Who was taken in for a longer wait is not in the way of others until it is longer than that.
        let target = (given / 4).clamp(TARGET.0, TARGET.1).max(head.promised + head.promised / 4);
        if !crowded || now.saturating_duration_since(since) <= target {
            self.above = None;
            return End::Oldest;
        }
        let above = *self.above.get_or_insert(now);
        if now.saturating_duration_since(above) >= INTERVAL { End::Newest } else { End::Oldest }
    }

    /// Nobody waits any more.
    pub fn clear(&mut self) {
        self.above = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Looks at (milliseconds, crowded, the head's arrival), for heads that are given a second.
    fn check(looks: &[(u64, bool, u64)], want: &[End]) {
        let (start, mut overload) = (clock::now(), Overload::default());
        let at = |millis| start + Duration::from_millis(millis);
        let got: Vec<End> = looks
            .iter()
            .map(|(now, crowded, since)| {
                let deadline = Some(at(since + 1000));
                let head = Terms { since: at(*since), deadline, bytes: 0, promised: Duration::ZERO };
                overload.end(at(*now), *crowded, &head)
            })
            .collect();
        assert_eq!(got, want, "{looks:?}");
    }

    #[test]
    fn the_newest_come_first_only_after_an_interval_above_target_and_until_it_clears() {
        use End::{Newest, Oldest};
        check(
            &[(250, true, 0), (251, true, 0), (350, true, 0), (351, true, 0)],
            &[Oldest, Oldest, Oldest, Newest],
        );
        check(
            &[(300, true, 0), (400, true, 0), (500, true, 250), (600, true, 0)],
            &[Oldest, Newest, Oldest, Oldest],
        );
        check(&[(300, true, 0), (400, false, 0), (500, true, 0)], &[Oldest, Oldest, Oldest]);
    }
}
