//! Plans as tables, and windows with a clock that is wound by hand.

use super::*;
use crate::clock;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn terms() -> Terms {
    Terms {
        per_instance: 1,
        min: 0,
        max: 0,
        initial: 1,
        activation: 1,
        starting: 0,
        window: seconds(60),
        retention: Duration::ZERO,
        down_delay: Duration::ZERO,
    }
}

fn demand(now: Instant, queued: u32, in_flight: u32) -> Demand {
    let expires = now + seconds(1);
    Demand { revision: "n/f".into(), holder: 1, generation: 1, queued, in_flight, oldest: None, expires }
}

fn facts<'a>(terms: &'a Terms, peaks: &'a Peaks, starting: u32, ready: u32) -> Facts<'a> {
    Facts { terms, peaks, starting, ready, lost: 0, woken: false, room: 64, starts: u32::MAX }
}

/// Terms, (queued, in flight), (starting, ready, room) -> (start, stop, bound).
fn check(name: &str, terms: Terms, load: (u32, u32), have: (u32, u32, u32), want: (u32, u32, Option<Bound>)) {
    let (now, peaks) = (clock::now(), Peaks::default());
    let facts = Facts { room: have.2, ..facts(&terms, &peaks, have.0, have.1) };
    let plan = scale(now, &[demand(now, load.0, load.1)], &facts);
    assert_eq!((plan.start, plan.stop, plan.bound), want, "{name}");
}

#[test]
fn no_more_begin_to_start_than_may_be_starting_at_once() {
    let terms = Terms { starting: 3, ..terms() };
    let (now, peaks) = (clock::now(), Peaks::default());
    // (starting, ready), of all together -> (start, short, later), of ten that are wanted
    let check = |have: (u32, u32), starts: u32, room: u32, want: (u32, u32, u32)| {
        let facts = Facts { starts, room, ..facts(&terms, &peaks, have.0, have.1) };
        let plan = scale(now, &[demand(now, 10, 0)], &facts);
        assert_eq!((plan.start, plan.short, plan.later), want, "{have:?} {starts} {room}");
    };
    check((0, 0), u32::MAX, 64, (3, 0, 7));
    check((2, 0), u32::MAX, 64, (1, 0, 7));
    check((3, 0), u32::MAX, 64, (0, 0, 7));
    check((0, 9), u32::MAX, 64, (1, 0, 0));
    check((0, 0), 2, 64, (2, 0, 8));
    check((1, 0), 0, 64, (0, 0, 9));
    check((0, 0), u32::MAX, 2, (2, 8, 0));
    check((0, 0), u32::MAX, 5, (3, 5, 2));
}

#[test]
fn the_whole_queue_counts_and_the_terms_bound_it() {
    let per = |per_instance| Terms { per_instance, ..terms() };
    let max = |max, t| Terms { max, ..t };
    check("nothing", terms(), (0, 0), (0, 0, 64), (0, 0, None));
    check("one", terms(), (1, 0), (0, 0, 64), (1, 0, None));
    check("rounded up", per(10), (11, 0), (0, 0, 64), (2, 0, None));
    check("a burst", max(20, per(10)), (200, 0), (0, 0, 64), (20, 0, None));
    check("starting ones count", max(20, per(10)), (200, 0), (15, 0, 64), (5, 0, None));
    check("in flight counts", per(10), (5, 10), (0, 1, 64), (1, 0, None));
    check("nothing more for what is running", per(10), (0, 200), (0, 20, 64), (0, 0, None));
    check("max-scale", max(20, terms()), (1000, 0), (0, 0, 64), (20, 0, Some(Bound::MaxScale)));
    check("process ceiling", terms(), (1000, 0), (0, 0, 64), (64, 0, Some(Bound::Ceiling)));
    check("no room", terms(), (1, 0), (0, 0, 0), (0, 0, Some(Bound::Ceiling)));
    check("min-scale", Terms { min: 3, ..terms() }, (0, 0), (1, 0, 64), (2, 0, None));
    check("activation-scale", Terms { activation: 4, ..terms() }, (1, 0), (0, 0, 64), (4, 0, None));
    check("not once awake", Terms { activation: 4, ..terms() }, (2, 0), (0, 1, 64), (1, 0, None));
    check("initial-scale", Terms { initial: 3, ..terms() }, (1, 0), (0, 0, 64), (3, 0, None));
    check("activation within max", Terms { activation: 4, max: 2, ..terms() }, (1, 0), (0, 0, 64), {
        (2, 0, Some(Bound::MaxScale))
    });
    check("more than can be counted", terms(), (u32::MAX, u32::MAX), (0, 0, 5), (5, 0, Some(Bound::Ceiling)));
}

#[test]
fn the_latest_report_of_each_holder_counts_until_it_expires() {
    let now = clock::now();
    let of = |holder, generation, queued, expires| Demand {
        revision: "n/f".into(),
        holder,
        generation,
        queued,
        in_flight: 1,
        oldest: None,
        expires: now + expires,
    };
    let demands = [of(1, 1, 100, seconds(9)), of(1, 2, 4, seconds(2)), of(2, 7, 9, seconds(3))];
    assert_eq!(total(now, &demands), 15);
    assert_eq!(total(now + seconds(2), &demands), 10, "an older report does not come back");
    assert_eq!(total(now + seconds(3), &demands), 0);
    // Of each holder's reports, in any order, the latest, as each compared with each would say.
    let mut random = fastrand::Rng::with_seed(5);
    for holders in [1, 2, 7, 40] {
        let reports = (0..60).map(|_| {
            of(random.u64(0..holders), random.u64(0..9), random.u32(0..99), seconds(random.u64(0..3)))
        });
        let demands: Vec<Demand> = reports.collect();
        let is_latest =
            |one: &&Demand| !demands.iter().any(|d| d.holder == one.holder && d.generation > one.generation);
        let counts = |one: &&Demand| one.expires > now + seconds(1);
        let latest = demands.iter().filter(is_latest).filter(counts);
        let want: u64 = latest.map(|one| u64::from(one.queued) + u64::from(one.in_flight)).sum();
        assert_eq!(total(now + seconds(1), &demands), want, "{holders} holders");
    }
}

/// Winds the clock in quarters of a second after one busy moment with five in flight, and notes when
/// instances go: (after seconds, how many are left).
fn decline(terms: &Terms) -> Vec<(f64, u32)> {
    let start = clock::now();
    let (mut peaks, mut have, mut seen) = (Peaks::default(), 5, Vec::new());
    peaks.record(start, 5, terms.horizon());
    for quarter in 1..400 {
        let now = start + Duration::from_millis(250 * quarter);
        let plan = scale(now, &[demand(now, 0, 0)], &facts(terms, &peaks, 0, have));
        peaks.record(now, plan.wanted, terms.horizon());
        if plan.stop > 0 {
            have -= plan.stop;
            seen.push((quarter as f64 / 4.0, have));
        }
    }
    seen
}

#[test]
fn instances_stay_for_the_window_and_the_last_for_the_retention_too() {
    let six = Terms { window: seconds(6), ..terms() };
    let rows = [
        (six.clone(), vec![(6.0, 0)]),
        (terms(), vec![(60.0, 0)]),
        (Terms { retention: seconds(10), ..six.clone() }, vec![(6.0, 1), (16.0, 0)]),
        (Terms { down_delay: seconds(4), ..six.clone() }, vec![(10.0, 0)]),
        (Terms { min: 2, ..six.clone() }, vec![(6.0, 2)]),
        (Terms { max: 3, ..six }, vec![(0.25, 3), (6.0, 0)]),
    ];
    for (terms, want) in rows {
        assert_eq!(decline(&terms), want, "{terms:?}");
    }
}

#[test]
fn what_is_starting_is_not_stopped_when_its_callers_leave() {
    let (terms, peaks, now) = (terms(), Peaks::default(), clock::now());
    let plan = scale(now, &[], &facts(&terms, &peaks, 3, 0));
    assert_eq!((plan.start, plan.stop), (0, 0));
}

#[test]
fn a_lost_instance_is_replaced_while_the_window_still_wants_it() {
    let (terms, mut peaks, now) = (terms(), Peaks::default(), clock::now());
    peaks.record(now, 3, terms.horizon());
    let lost = |lost, ready| Facts { lost, ..facts(&terms, &peaks, 0, ready) };
    assert_eq!(scale(now + seconds(1), &[], &lost(1, 2)).start, 1);
    assert_eq!(scale(now + seconds(1), &[], &lost(0, 2)).start, 0, "only what was ready");
    assert_eq!(scale(now + seconds(61), &[], &lost(1, 0)).start, 0, "nobody wants it any more");
}

#[test]
fn peaks_are_few_and_never_too_low() {
    let (start, horizon) = (clock::now(), seconds(60));
    let mut random = fastrand::Rng::with_seed(7);
    let (mut peaks, mut all) = (Peaks::default(), Vec::new());
    for step in 0..5_000_u64 {
        let now = start + Duration::from_millis(step * 50);
        let wanted = random.u32(0..=(5_000 - step as u32) / 40);
        peaks.record(now, wanted, horizon);
        all.push((now, wanted));
        let young = all.iter().filter(|(at, _)| now.saturating_duration_since(*at) < horizon);
        let highest = young.map(|(_, wanted)| *wanted).max().unwrap_or(0);
        assert!(peaks.highest(now, horizon) >= highest, "step {step}");
        assert!(peaks.entries.len() <= ENTRIES_AT_MOST);
    }
    assert_eq!(peaks.highest(start + seconds(1_000), horizon), 0);
}

const ENTRIES_AT_MOST: usize = 64;
