//! What every holder of one revision said last that it wants.
//!
//! Holders report sums with an expiry, never "one more": a report that is lost, repeated or late does no
//! harm, and a holder that dies is forgotten when its last report expires.

use crate::autoscaler::Demand;
use crate::clock::Instant;

/// Holders of one revision that are listened to. The one heard of longest ago makes room for one more.
const MOST: usize = 1_000;

/// The latest report of each holder.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    reports: Vec<Demand>,
}

/// What all want together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub queued: u64,
    pub in_flight: u64,
    pub oldest: Option<Instant>,
}

impl Ledger {
    /// Takes a report down, unless a later one of the same holder is known. Returns whether it did.
    pub fn note(&mut self, now: Instant, demand: Demand) -> bool {
        let known = self.reports.iter_mut().find(|report| report.holder == demand.holder);
        match known {
            Some(report) if report.generation >= demand.generation => return false,
            Some(report) => *report = demand,
            None => {
                // One that has expired is only of use to tell late reports of its holder.
                if self.reports.len() >= MOST {
                    self.reports.sort_by_key(|report| std::cmp::Reverse(report.expires));
                    self.reports.truncate(MOST - 1);
                }
                if demand.expires > now {
                    self.reports.push(demand);
                }
            }
        }
        true
    }

    /// All reports; what has expired does not count.
    pub fn reports(&self) -> &[Demand] {
        &self.reports
    }

    /// The sums of what has not expired.
    pub fn wanted(&self, now: Instant) -> Wanted {
        let mut wanted = Wanted::default();
        for report in self.reports.iter().filter(|report| report.expires > now) {
            wanted.queued += u64::from(report.queued);
            wanted.in_flight += u64::from(report.in_flight);
            let oldest = report.oldest.filter(|_| report.queued > 0);
            wanted.oldest = wanted.oldest.into_iter().chain(oldest).min();
        }
        wanted
    }

    /// When the next report of another holder than this process's own expires that wants something.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let others = self.reports.iter().filter(|report| report.holder != 0 && report.expires > now);
        others.filter(|report| report.queued + report.in_flight > 0).map(|report| report.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{self, Duration};

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn report(now: Instant, holder: u64, generation: u64, queued: u32, lasts: u64) -> Demand {
        let expires = now + seconds(lasts);
        let oldest = Some(now + seconds(holder));
        Demand { revision: "n/f".into(), holder, generation, queued, in_flight: 1, oldest, expires }
    }

    #[test]
    fn the_latest_report_of_each_holder_counts_until_it_expires() {
        let (now, mut ledger) = (clock::now(), Ledger::default());
        assert!(ledger.note(now, report(now, 1, 4, 10, 3)));
        assert!(ledger.note(now, report(now, 2, 1, 5, 1)));
        assert!(!ledger.note(now, report(now, 1, 3, 99, 9)), "an older one");
        assert!(!ledger.note(now, report(now, 1, 4, 99, 9)), "the same once more");
        let sums = |ledger: &Ledger, after| {
            let wanted = ledger.wanted(now + seconds(after));
            (wanted.queued, wanted.in_flight, wanted.oldest)
        };
        assert_eq!(sums(&ledger, 0), (15, 2, Some(now + seconds(1))));
        assert_eq!(ledger.next(now), Some(now + seconds(1)));
        assert_eq!(sums(&ledger, 1), (10, 1, Some(now + seconds(1))), "the second has died");
        assert!(!ledger.note(now + seconds(1), report(now, 2, 1, 5, 9)), "and does not come back by itself");
        assert!(ledger.note(now, report(now, 1, 5, 0, 9)));
        assert_eq!(sums(&ledger, 1), (0, 1, None), "a later report takes the place of the earlier");
        assert_eq!(sums(&ledger, 9), (0, 0, None));
        assert_eq!(ledger.next(now + seconds(9)), None);
    }

    #[test]
    fn as_many_holders_are_listened_to_as_there_is_room_for() {
        let (now, mut ledger) = (clock::now(), Ledger::default());
        for holder in 1..=2 * MOST as u64 {
            assert!(ledger.note(now, report(now, holder, 1, 1, 1 + holder)));
        }
        assert_eq!(ledger.reports().len(), MOST);
        assert!(ledger.reports().iter().any(|report| report.holder == 2 * MOST as u64));
    }
}
