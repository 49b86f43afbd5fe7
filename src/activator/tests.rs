//! Order, bounds, leaving, ringing; and threads that try to lose a wake-up.

use super::*;
use crate::clock::{self, Duration, Instant};
use crate::fault::Kind;
use futures_util::task::noop_waker;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

const SECOND: Duration = Duration::from_secs(1);

fn hold(limits: HoldLimits) -> Arc<Hold<u32>> {
    Hold::new(limits, Arc::new(Bell::new()), Arc::default())
}

fn keeping(now: Instant, bytes: usize) -> Ask {
    Ask { bytes, ..Ask::at(now) }
}

fn wait(hold: &Arc<Hold<u32>>, now: Instant) -> Ticket<u32> {
    match hold.park(Ask::at(now), || None) {
        Ok(Parked::Wait(ticket)) => ticket,
        Ok(Parked::Now(_)) => panic!("nothing was there to be granted"),
        Err(kind) => panic!("refused: {kind:?}"),
    }
}

fn look<G>(ticket: &mut Ticket<G>) -> Option<Result<G, Kind>> {
    match Pin::new(ticket).poll(&mut Context::from_waker(&noop_waker())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn numbers(count: u32) -> impl FnMut() -> Option<u32> {
    let mut given = 0;
    move || {
        given += 1;
        (given <= count).then_some(given)
    }
}

#[test]
fn grants_go_to_the_oldest_first() {
    let hold = hold(HoldLimits::default());
    let now = clock::now();
    let mut tickets: Vec<_> = (0..5).map(|_| wait(&hold, now)).collect();
    assert_eq!(hold.offer(clock::now(), numbers(3)), 3);
    let got: Vec<_> = tickets.iter_mut().map(look).collect();
    assert_eq!(got, [Some(Ok(1)), Some(Ok(2)), Some(Ok(3)), None, None]);
    assert_eq!((hold.waiting(), hold.arrivals()), (2, 5));
}

#[test]
fn more_than_one_batch_is_served_in_one_offer() {
    let hold = hold(HoldLimits::default());
    let mut tickets: Vec<_> = (0..1000).map(|_| wait(&hold, clock::now())).collect();
    assert_eq!(hold.offer(clock::now(), numbers(u32::MAX)), 1000);
    assert!(tickets.iter_mut().map(look).eq((1..=1000).map(|n| Some(Ok(n)))));
}

#[test]
fn an_offer_to_nobody_takes_nothing() {
    let hold = hold(HoldLimits::default());
    assert_eq!(hold.offer(clock::now(), || panic!("nobody would take it")), 0);
}

#[test]
fn who_leaves_from_the_middle_is_passed_over() {
    let hold = hold(HoldLimits::default());
    let now = clock::now();
    let (mut first, second, mut third) =
        (wait(&hold, now), wait(&hold, now + SECOND), wait(&hold, now + SECOND));
    assert_eq!(hold.oldest(), Some(now));
    drop(second);
    assert_eq!(hold.waiting(), 2);
    assert_eq!(hold.offer(clock::now(), numbers(9)), 2);
    assert_eq!((look(&mut first), look(&mut third)), (Some(Ok(1)), Some(Ok(2))));
    assert_eq!(hold.oldest(), None);
}

#[test]
fn a_newcomer_does_not_look_while_somebody_waits() {
    let hold = hold(HoldLimits::default());
    let _first = wait(&hold, clock::now());
    let second = hold.park(Ask::at(clock::now()), || panic!("it would pass the first"));
    assert!(matches!(second, Ok(Parked::Wait(_))));
}

#[test]
fn a_slot_found_at_the_second_look_is_taken_without_waiting() {
    let hold = hold(HoldLimits::default());
    assert!(matches!(hold.park(Ask::at(clock::now()), || Some(7)), Ok(Parked::Now(7))));
    assert_eq!((hold.waiting(), hold.arrivals()), (0, 0));
}

#[test]
fn the_second_look_happens_with_the_arrival_already_visible() {
    let hold = hold(HoldLimits::default());
    let seen = Arc::clone(&hold);
    let parked = hold.park(Ask::at(clock::now()), move || {
        assert_eq!(seen.waiting(), 1);
        None
    });
    assert!(matches!(parked, Ok(Parked::Wait(_))));
}

#[test]
fn count_and_bytes_are_bounds() {
    let limits = HoldLimits { count: 2, bytes: 100, age: SECOND, ..HoldLimits::default() };
    let hold = hold(limits);
    let now = clock::now();
    let _big = hold.park(keeping(now, 90), || None).map_err(|kind| panic!("{kind:?}"));
    assert_eq!(hold.park(keeping(now, 20), || None).err(), Some(Kind::HoldBytesFull), "bytes");
    let small = hold.park(keeping(now, 10), || None);
    assert_eq!(hold.park(Ask::at(now), || None).err(), Some(Kind::HoldFull), "count");
    assert_eq!((hold.waiting(), hold.bytes()), (2, 100));
    drop(small);
    assert_eq!((hold.waiting(), hold.bytes()), (1, 90));
    hold.set_limits(HoldLimits { count: 1, ..limits });
    assert_eq!(hold.park(Ask::at(now), || None).err(), Some(Kind::HoldFull), "new count");
}

#[test]
fn the_process_has_ceilings_of_its_own() {
    let room = Arc::new(Room::new(2, 100));
    let new = || Hold::<u32>::new(HoldLimits::default(), Arc::new(Bell::new()), room.clone());
    let (one, other) = (new(), new());
    let now = clock::now();
    let first = one.park(keeping(now, 60), || None);
    assert_eq!(other.park(keeping(now, 50), || None).err(), Some(Kind::HoldCeiling), "bytes");
    let second = other.park(keeping(now, 40), || None);
    assert_eq!(one.park(Ask::at(now), || None).err(), Some(Kind::HoldCeiling), "count");
    assert_eq!((room.held(), room.bytes()), (2, 100));
    one.refuse(Kind::Removed);
    assert_eq!((room.held(), room.bytes()), (1, 40), "an answer makes room");
    drop((first, second));
    assert_eq!((room.held(), room.bytes()), (0, 0), "so does leaving");
}

/// An outlook, the milliseconds somebody can wait, and whether it is turned away.
fn admit(outlook: Outlook, patience: Option<u64>, turned_away: bool) {
    let (bell, now) = (Arc::new(Bell::new()), clock::now());
    let hold = hold_on(&bell);
    hold.set_outlook(outlook);
    let deadline = patience.map(|millis| now + Duration::from_millis(millis));
    let parked = hold.park(Ask { deadline, ..Ask::at(now) }, || None);
    let want = turned_away.then_some(Kind::StartTooLate);
    assert_eq!(parked.as_ref().err().copied(), want, "{outlook:?} {patience:?}");
    assert_eq!((hold.take_missed(), hold.take_missed()), (usize::from(turned_away), 0));
    assert_eq!(bell.take(), [hold.number()], "it counts as demand either way");
}

#[test]
fn who_cannot_wait_for_a_start_is_told_at_once_and_still_wanted_one() {
    let start = Some(3 * SECOND);
    let at_zero = Outlook { start, ..Outlook::default() };
    admit(at_zero, Some(1_000), true);
    admit(at_zero, Some(3_000), false);
    admit(at_zero, None, false);
    admit(Outlook::default(), Some(1), false);
    admit(Outlook { awake: true, ..at_zero }, Some(1), false);
    let now = clock::now();
    admit(Outlook { ready_at: Some(now + 2 * SECOND), ..at_zero }, Some(1_000), true);
    admit(Outlook { ready_at: Some(now + SECOND), ..at_zero }, Some(2_000), false);
    admit(Outlook { ready_at: Some(now), ..at_zero }, Some(1), false);
}

#[test]
fn who_waits_for_itself_is_told_only_where_nothing_can_be_added() {
    for (inside, at_most, want) in
        [(true, true, Some(Kind::WaitsForItself)), (true, false, None), (false, true, None)]
    {
        let hold = hold(HoldLimits::default());
        hold.set_outlook(Outlook { awake: true, at_most, ..Outlook::default() });
        let parked = hold.park(Ask { inside, ..Ask::at(clock::now()) }, || None);
        assert_eq!(parked.err(), want, "{inside} {at_most}");
    }
}

#[test]
fn whose_deadline_has_passed_takes_nothing() {
    let (hold, now) = (hold(HoldLimits::default()), clock::now());
    let Ok(Parked::Wait(mut late)) = hold.park(Ask { deadline: Some(now + SECOND), ..Ask::at(now) }, || None)
    else {
        panic!("it can wait")
    };
    let mut patient = wait(&hold, now);
    assert_eq!(hold.offer(now + SECOND, numbers(1)), 1);
    assert_eq!((look(&mut late), look(&mut patient)), (Some(Err(Kind::HoldTimeout)), Some(Ok(1))));
}

#[test]
fn advice_comes_from_what_was_learned() {
    let rows = [
        (Kind::HoldFull, Some(2_100), (3, 429)),
        (Kind::HoldCeiling, None, (1, 429)),
        (Kind::StartTooLate, Some(90_000), (90, 0)),
        (Kind::Crashed, Some(5_000), (1, 0)),
        (Kind::Removed, Some(5_000), (0, 0)),
    ];
    for (kind, start, want) in rows {
        let hold = hold(HoldLimits { overflow_status: 429, ..HoldLimits::default() });
        hold.set_outlook(Outlook { start: start.map(Duration::from_millis), ..Outlook::default() });
        let advice = hold.advice(clock::now(), kind);
        assert_eq!((advice.retry_after, advice.status), want, "{kind:?}");
    }
}

/// A line at max-scale whose slots, two, come free every 50 ms in turn.
fn crowded(now: Instant) -> Arc<Hold<u32>> {
    let hold = hold(HoldLimits { overflow_status: 429, ..HoldLimits::default() });
    hold.set_outlook(Outlook { awake: true, at_most: true, crowded: true, places: 2, ..Outlook::default() });
    let mut line: Vec<_> = (0..41).map(|_| wait(&hold, now)).collect();
    for n in 0..40 {
        hold.offer(now + Duration::from_millis(50 * n), numbers(1));
    }
    let ends: Vec<_> = line.iter_mut().map(look).collect();
    assert_eq!(ends.iter().filter(|end| matches!(end, Some(Ok(_)))).count(), 40);
    hold
}

fn asking(now: Instant, patience: u64) -> Ask {
    Ask { deadline: Some(now + Duration::from_millis(patience)), ..Ask::at(now) }
}

#[test]
fn who_cannot_be_served_in_time_at_max_scale_is_told_so_on_arrival_and_when_to_come_back() {
    let begin = clock::now();
    let (hold, now) = (crowded(begin), begin + 2 * SECOND);
    let mut line = Vec::new();
    // Its own 100 ms, and 50 ms for each in front, within four fifths of what it gives.
    while line.len() < 100 {
        match hold.park(asking(now, 1_000), || None) {
            Ok(Parked::Wait(ticket)) => line.push(ticket),
            Ok(Parked::Now(_)) => panic!("nothing is free"),
            Err(kind) => {
                assert_eq!(kind, Kind::WaitTooLong);
                break;
            }
        }
    }
    assert!((12..=14).contains(&line.len()), "{} are taken in", line.len());
    assert!(hold.park(asking(now, 10_000), || None).is_ok(), "who has more time is taken in");
    assert!(hold.park(Ask::at(now), || None).is_ok(), "and who says nothing");
    let advice = hold.advice(now, Kind::WaitTooLong);
    assert_eq!((advice.retry_after, advice.status), (1, 429));
}

#[test]
fn who_waits_in_a_line_that_has_become_slow_is_told_as_soon_as_it_is_known() {
    let begin = clock::now();
    let (hold, now) = (crowded(begin), begin + 2 * SECOND);
    let mut line = Vec::new();
    while let Ok(Parked::Wait(ticket)) = hold.park(asking(now, 1_000), || None) {
        line.push(ticket);
    }
    // Slots come free once in 300 ms from now on.
    let mut refused = Vec::new();
    for n in 1..=3 {
        hold.offer(now + Duration::from_millis(300 * n), numbers(1));
        line.retain_mut(|ticket| match look(ticket) {
            Some(Err(kind)) => {
                refused.push((n, kind));
                false
            }
            Some(Ok(_)) => false,
            None => true,
        });
    }
    assert!(refused.iter().all(|(_, kind)| *kind == Kind::WaitTooLong), "{refused:?}");
    assert!(refused.iter().filter(|(n, _)| *n <= 2).count() >= 5, "{refused:?}");
}

#[test]
fn refusal_reaches_everybody() {
    let hold = hold(HoldLimits::default());
    let mut tickets: Vec<_> = (0..100).map(|_| wait(&hold, clock::now())).collect();
    assert_eq!(hold.refuse(Kind::Crashed), 100);
    assert!(tickets.iter_mut().all(|ticket| look(ticket) == Some(Err(Kind::Crashed))));
    assert_eq!(hold.waiting(), 0);
}

#[test]
fn age_ends_only_the_wait_of_those_who_are_too_old() {
    let hold = hold(HoldLimits { age: 10 * SECOND, ..HoldLimits::default() });
    let now = clock::now();
    let (mut old, mut young) = (wait(&hold, now), wait(&hold, now + SECOND));
    assert_eq!(hold.expire(now + 9 * SECOND), 0);
    assert_eq!(hold.expire(now + 10 * SECOND), 1);
    assert_eq!((look(&mut old), look(&mut young)), (Some(Err(Kind::HoldAge)), None));
}

#[test]
fn a_burst_rings_once_until_it_was_looked_at() {
    let bell = Arc::new(Bell::new());
    let (quiet, busy) =
        (Hold::<u32>::new(HoldLimits::default(), bell.clone(), Arc::default()), hold_on(&bell));
    let mut tickets: Vec<_> = (0..10).map(|_| wait(&busy, clock::now())).collect();
    assert_eq!(bell.take(), [busy.number()]);
    assert_ne!(quiet.number(), busy.number());
    tickets.push(wait(&busy, clock::now()));
    assert!(bell.take().is_empty());
    busy.looked_at();
    tickets.push(wait(&busy, clock::now()));
    assert_eq!(bell.take(), [busy.number()]);
    let mut rung = pin!(bell.rung());
    assert!(rung.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_ready(), "a ring is kept");
}

fn hold_on(bell: &Arc<Bell>) -> Arc<Hold<u32>> {
    Hold::new(HoldLimits::default(), Arc::clone(bell), Arc::default())
}

/// A pool of slots as `cluster` has them: taken by one atomic step, freed and then offered.
struct Pool {
    active: AtomicUsize,
    peak: AtomicUsize,
    limit: usize,
    hold: Arc<Hold<Slot>>,
}

struct Slot(Arc<Pool>);

impl Pool {
    fn take(pool: &Arc<Pool>) -> Option<Slot> {
        let up = |active| (active < pool.limit).then_some(active + 1);
        let before = pool.active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, up).ok()?;
        pool.peak.fetch_max(before + 1, Ordering::Relaxed);
        Some(Slot(Arc::clone(pool)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        if self.0.hold.waiting() > 0 {
            self.0.hold.offer(clock::now(), || Pool::take(&self.0));
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a ticket; `None`: nothing came in time, which in these tests means a lost wake-up.
fn block<G>(mut ticket: Ticket<G>, deadline: Instant) -> Option<Result<G, Kind>> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(answer) = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
        let left = deadline.checked_duration_since(clock::now())?;
        std::thread::park_timeout(left);
    }
}

fn stress(limit: usize, threads: u64, rounds: u32) {
    let pool = Arc::new(Pool {
        active: AtomicUsize::new(0),
        peak: AtomicUsize::new(0),
        limit,
        hold: Hold::new(HoldLimits::default(), Arc::new(Bell::new()), Arc::default()),
    });
    let deadline = clock::now() + 120 * SECOND;
    let workers: Vec<_> = (0..threads)
        .map(|seed| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for round in 0..rounds {
                    if random.u8(..) < 128
                        && let Some(slot) = Pool::take(&pool)
                    {
                        drop(slot);
                        continue;
                    }
                    match pool.hold.park(keeping(clock::now(), 1), || Pool::take(&pool)) {
                        Ok(Parked::Now(slot)) => drop(slot),
                        Ok(Parked::Wait(ticket)) if random.u8(..) < 64 => drop(ticket),
                        Ok(Parked::Wait(ticket)) => match block(ticket, deadline) {
                            Some(Ok(slot)) => drop(slot),
                            Some(Err(kind)) => panic!("{kind:?}"),
                            None => panic!("lost wake-up in round {round} of thread {seed}"),
                        },
                        Err(kind) => panic!("{kind:?}"),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker panicked");
    }
    assert_eq!((pool.active.load(Ordering::SeqCst), pool.hold.waiting(), pool.hold.bytes()), (0, 0, 0));
    assert!(pool.peak.load(Ordering::SeqCst) <= limit);
}

#[test]
fn no_wake_up_is_lost_between_two_threads_and_one_slot() {
    stress(1, 2, 50_000);
}

#[test]
fn no_wake_up_is_lost_among_many_threads_and_few_slots() {
    stress(3, 8, 25_000);
}

#[test]
fn an_endpoint_that_appears_while_parking_is_not_missed() {
    for _ in 0..2_000 {
        let hold: Arc<Hold<u32>> = hold(HoldLimits::default());
        let there = Arc::new(AtomicUsize::new(0));
        let take = |there: &AtomicUsize| (there.swap(0, Ordering::SeqCst) == 1).then_some(1);
        let (h, t) = (Arc::clone(&hold), Arc::clone(&there));
        let inserter = std::thread::spawn(move || {
            t.store(1, Ordering::SeqCst);
            h.offer(clock::now(), || take(&t))
        });
        let got = match hold.park(Ask::at(clock::now()), || take(&there)) {
            Ok(Parked::Now(grant)) => Some(Ok(grant)),
            Ok(Parked::Wait(ticket)) => block(ticket, clock::now() + 20 * SECOND),
            Err(kind) => Some(Err(kind)),
        };
        assert_eq!(got, Some(Ok(1)));
        inserter.join().expect("the inserter panicked");
    }
}
