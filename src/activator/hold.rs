//! A bounded queue of exchanges that wait for one revision, oldest first (save in overload, see `overload`).
//!
//! Why no wake-up is lost. Three orders matter, and each is kept by one rule:
//! - *A slot is freed while somebody begins to wait.* The parker raises `waiting`, then looks for a slot
//!   once more; the releaser frees its slot, then reads `waiting`. All four are sequentially consistent,
//!   so in their single order either the parker's raise precedes the releaser's read (the releaser offers)
//!   or the free precedes the parker's look (the parker finds it). Both may happen; then the offer finds
//!   either the slot taken or the line empty, and nothing is handed out twice, because a slot is taken by
//!   one atomic step.
//! - *An endpoint appears while somebody begins to wait.* Its inserter publishes it, then offers, which
//!   takes the lock unconditionally. Parking looks and queues under the same lock: before the offer, then
//!   the offer sees the ticket; or after it, then the look sees the endpoint.
//! - *A ticket is dropped after it was granted.* The grant is taken out under the lock and dropped outside
//!   it; a grant's drop frees its slot and offers, so it reaches the next in line.
//!
//! Who comes while others wait does not look at all: whatever is free, or becomes free, is on its way to
//! the oldest by one of the rules above, so newcomers never pass those who wait.

use super::overload::{End, Overload};
use super::pace::Pace;
use super::queue::{Queue, State, Terms};
use super::room::Room;
use super::{Bell, Outlook};
use crate::clock::{Duration, Instant};
use crate::fault::{Advice, Kind};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, fence};
use smallvec::SmallVec;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// How many are answered under one taking of the lock.
const BATCH: usize = 32;
/// Of the time that somebody gives, what may be reckoned with: what comes in between has the rest.
const SAFE: f64 = 0.8;
/// A line is searched for those who cannot be served in time no more often.
const SEARCH: Duration = Duration::from_millis(10);

/// The bounds of one hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Exchanges that wait.
    pub count: usize,
    /// Bytes they keep in memory meanwhile.
    pub bytes: usize,
    /// How long one waits at most.
    pub age: Duration,
    /// What those are answered for whom there is no room.
    pub overflow_status: u16,
}

impl Default for HoldLimits {
    fn default() -> Self {
        HoldLimits { count: 10_000, bytes: 64 << 20, age: Duration::from_secs(600), overflow_status: 503 }
    }
}

/// One exchange that would wait.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// When it asks.
    pub now: Instant,
    /// Bytes that it keeps in memory while it waits.
    pub bytes: usize,
    /// What is granted later than this is of no use to it.
    pub deadline: Option<Instant>,
    /// It was caused by an exchange that has a slot of this same revision and waits for it.
    pub inside: bool,
}

impl Ask {
    /// One that can wait for ever and keeps nothing.
    pub fn at(now: Instant) -> Ask {
        Ask { now, bytes: 0, deadline: None, inside: false }
    }
}

/// What parking gave.
pub enum Parked<G> {
    /// There was a slot after all.
    Now(G),
    /// A place in line.
    Wait(Ticket<G>),
}

/// Exchanges that wait for slots of one revision. `G` is what is granted; its drop gives it back and, if
/// somebody waits, offers.
pub struct Hold<G> {
    number: u64,
    bell: Arc<Bell>,
    /// Set from the first ring until the scaler looks.
    rung: AtomicBool,
    waiting: AtomicUsize,
    arrivals: AtomicU64,
    /// Turned away since the scaler looked last, because an instance would have come too late for them or
    /// none is started for a while.
    missed: AtomicUsize,
    inner: Mutex<Inner<G>>,
}

struct Inner<G> {
    queue: Queue<G>,
    limits: HoldLimits,
    outlook: Outlook,
    overload: Overload,
    pace: Pace,
    /// When it was last searched for those who cannot be served in time.
    searched: Option<Instant>,
}

impl<G> Hold<G> {
    /// An empty hold that rings `bell` when somebody begins to wait, and keeps no more than `room` has left.
    pub fn new(limits: HoldLimits, bell: Arc<Bell>, room: Arc<Room>) -> Arc<Hold<G>> {
        Arc::new(Hold {
            number: bell.number(),
            bell,
            rung: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            arrivals: AtomicU64::new(0),
            missed: AtomicUsize::new(0),
            inner: Mutex::new(Inner {
                queue: Queue::new(room),
                limits,
                outlook: Outlook::default(),
                overload: Overload::default(),
                pace: Pace::default(),
                searched: None,
            }),
        })
    }

    /// How `Bell::take` names this hold.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many wait. Who frees a slot reads this after freeing, and offers if it is not 0.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many exchanges ever began to wait here.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Since when the oldest waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.inner.lock().queue.at(End::Oldest).map(|head| head.since)
    }

    /// Bytes that those who wait keep in memory.
    pub fn bytes(&self) -> usize {
        self.inner.lock().queue.bytes()
    }

    /// Applies other bounds. Those who wait already stay, even beyond a smaller count.
    pub fn set_limits(&self, limits: HoldLimits) {
        self.inner.lock().limits = limits;
    }

    /// Says what those who come have to expect.
    pub fn set_outlook(&self, outlook: Outlook) {
        let mut inner = self.inner.lock();
        if outlook.places == 0 {
            inner.pace.pause();
        }
        inner.outlook = outlook;
    }

    /// Whether an instance that is frozen will serve those who come.
    pub fn is_frozen(&self) -> bool {
        self.inner.lock().outlook.frozen
    }

    /// What somebody is told who is turned away with `kind`, beside what the fault itself says.
    pub fn advice(&self, now: Instant, kind: Kind) -> Advice {
        let inner = self.inner.lock();
        match kind {
            Kind::HoldFull | Kind::HoldBytesFull | Kind::HoldCeiling => {
                inner.outlook.advice(inner.limits.overflow_status)
            }
            Kind::WaitTooLong => inner.turn_advice(now),
            Kind::StartTooLate => inner.outlook.advice(0),
            Kind::NeverListened
            | Kind::NeverReady
            | Kind::Crashed
            | Kind::ExitedEarly
            | Kind::OutOfMemory
            | Kind::CrashLoop
            | Kind::Flapping
            | Kind::PortTaken
            | Kind::CannotStart
            | Kind::StartsLimited => inner.outlook.after_failure(now),
            _ => Advice::default(),
        }
    }

    /// What a deadline that passes in this hold is due to.
    pub fn too_late(&self) -> Kind {
        if self.inner.lock().outlook.deaf { Kind::ListensLate } else { Kind::HoldTimeout }
    }

    /// How many were turned away, since this was asked last, because an instance would have come too late
    /// for them or none is started for a while. They want it all the same: those who try again will find it.
    pub fn take_missed(&self) -> usize {
        self.missed.swap(0, Ordering::SeqCst)
    }

    /// The scaler says that it looks now: the next arrival rings again. To be called before `waiting` is
    /// read, so that an arrival is either seen or rings.
    pub fn looked_at(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Looks for a slot once more with `again` if nobody waits, else, or if there is none, takes a place
    /// at the end of the line; who cannot be served in time, or never would be, is told so at once.
    ///
    /// `again` runs under the hold's lock: it must neither block, nor drop a grant, nor call the hold.
    ///
    /// # Errors
    /// `HoldFull` and `HoldBytesFull` at this hold's limits, `HoldCeiling` at those of the process,
    /// `StartTooLate`, `WaitTooLong`, `WaitsForItself`; while nothing is started for a while, the reason for that.
    pub fn park(self: &Arc<Self>, ask: Ask, again: impl FnOnce() -> Option<G>) -> Result<Parked<G>, Kind> {
        let mut inner = self.inner.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Orders the look after the raise whatever memory order the look itself uses.
        fence(Ordering::SeqCst);
        if inner.queue.waiting() == 0
            && let Some(grant) = again()
        {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Ok(Parked::Now(grant));
        }
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        let place = inner.place(&ask);
        drop(inner);
        if place.is_err() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if matches!(place, Err(Turned { counts: true, .. })) {
            self.missed.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(place, Ok(_) | Err(Turned { counts: true, .. }))
            && !self.rung.swap(true, Ordering::SeqCst)
        {
            self.bell.ring_for(self.number);
        }
        place
            .map_err(|turned| turned.kind)
            .map(|place| Parked::Wait(Ticket { hold: Arc::clone(self), place: Some(place) }))
    }

    /// Hands what `next` gives to the oldest (in overload: to the newest), until it gives nothing or nobody
    /// waits. `next` is only asked when somebody takes what it gives; whose deadline has passed is answered
    /// so, and takes nothing. Returns how many were served.
    ///
    /// `next` runs under the hold's lock: it must neither block, nor drop a grant, nor call the hold.
    pub fn offer(&self, now: Instant, mut next: impl FnMut() -> Option<G>) -> usize {
        let mut served = 0;
        self.answer(|inner| {
            let head = inner.queue.at(End::Oldest)?;
            let end = inner.overload.end(now, inner.outlook.crowded, &head);
            let terms = inner.queue.at(end)?;
            if terms.deadline.is_some_and(|deadline| deadline <= now) {
                return Some((end, State::Refused(Kind::HoldTimeout)));
            }
            let grant = next()?;
            served += 1;
            if inner.outlook.places > 0 {
                inner.pace.granted(now, inner.outlook.places);
            }
            Some((end, State::Granted(grant)))
        });
        if self.waiting() > 0 {
            self.refuse_lost(now);
        }
        served
    }

    /// Refuses, where only finished work makes room, those who would be finished after their deadlines.
    fn refuse_lost(&self, now: Instant) {
        let mut wakers = Vec::new();
        let mut inner = self.inner.lock();
        let refused = inner.refuse_lost(now, &mut wakers);
        self.waiting.fetch_sub(refused, Ordering::SeqCst);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Answers everybody who waits with a fault. Returns how many.
    pub fn refuse(&self, kind: Kind) -> usize {
        self.answer(|_| Some((End::Oldest, State::Refused(kind))))
    }

    /// Answers those who wait longer than the age limit with `HoldAge`. Returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        let age = self.inner.lock().limits.age;
        self.answer(|inner| {
            let since = inner.queue.at(End::Oldest)?.since;
            let over = now.saturating_duration_since(since) >= age;
            over.then_some((End::Oldest, State::Refused(Kind::HoldAge)))
        })
    }

    /// Answers one after the other as long as `answer` has something to say. Wakers run outside the lock,
    /// which is let go now and then so that a long line does not keep newcomers out.
    fn answer(&self, mut answer: impl FnMut(&mut Inner<G>) -> Option<(End, State<G>)>) -> usize {
        let mut served = 0;
        loop {
            let mut wakers: SmallVec<[Waker; BATCH]> = SmallVec::new();
            let mut answered = 0;
            let mut inner = self.inner.lock();
            while answered < BATCH && inner.queue.waiting() > 0 {
                let Some((end, state)) = answer(&mut inner) else { break };
                // Somebody waits, by the loop's condition, and the lock was not let go since.
                if let Ok(waker) = inner.queue.answer(end, state) {
                    wakers.extend(waker);
                }
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                answered += 1;
            }
            if inner.queue.waiting() == 0 {
                inner.overload.clear();
                inner.pace.pause();
            }
            drop(inner);
            wakers.into_iter().for_each(Waker::wake);
            served += answered;
            if answered < BATCH {
                return served;
            }
        }
    }
}

/// Why there is no place, and whether an instance is wanted all the same.
#[derive(Clone, Copy)]
struct Turned {
    kind: Kind,
    counts: bool,
}

impl From<Kind> for Turned {
    fn from(kind: Kind) -> Turned {
        Turned { kind, counts: false }
    }
}

impl<G> Inner<G> {
    /// A place in line, or why there is none.
    fn place(&mut self, ask: &Ask) -> Result<u32, Turned> {
        if let Some(kind) = self.outlook.refusal(ask.now) {
            return Err(Turned { kind, counts: true });
        }
        if ask.inside && self.outlook.at_most {
            return Err(Kind::WaitsForItself.into());
        }
        let expected = self.outlook.expected(ask.now);
        if expected.zip(ask.deadline).is_some_and(|(expected, deadline)| deadline < expected) {
            return Err(Turned { kind: Kind::StartTooLate, counts: true });
        }
        let (places, ahead) = (self.outlook.places, self.queue.waiting());
        let given = ask.deadline.map(|deadline| deadline.saturating_duration_since(ask.now).mul_f64(SAFE));
        let finished = if places > 0 { self.pace.until_finished(ask.now, ahead, places) } else { None };
        if finished.zip(given).is_some_and(|(finished, given)| finished > given) {
            return Err(Kind::WaitTooLong.into());
        }
        if self.queue.waiting() >= self.limits.count {
            return Err(Kind::HoldFull.into());
        }
        if self.queue.bytes().saturating_add(ask.bytes) > self.limits.bytes {
            return Err(Kind::HoldBytesFull.into());
        }
        let promised = finished.unwrap_or_default();
        let terms = Terms { since: ask.now, deadline: ask.deadline, bytes: ask.bytes, promised };
        self.queue.push(terms).ok_or(Kind::HoldCeiling.into())
    }

    /// See `Hold::refuse_lost`.
    fn refuse_lost(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> usize {
        let places = self.outlook.places;
        let soon = self.searched.is_some_and(|at| now.saturating_duration_since(at) < SEARCH);
        if soon || places == 0 || self.pace.took(now, places).is_none() {
            return 0;
        }
        self.searched = Some(now);
        let Some(head) = self.queue.at(End::Oldest) else { return 0 };
        let end = self.overload.end(now, self.outlook.crowded, &head);
        let pace = self.pace;
        let lost = |ahead, terms: &mut Terms| {
            let Some(finished) = pace.until_finished(now, ahead, places) else { return false };
            if terms.promised.is_zero() {
                terms.promised = now.saturating_duration_since(terms.since) + finished;
            }
            // Only whom not even a better pace would help: an average is not certain.
            terms.deadline.is_some_and(|deadline| deadline < now + finished.mul_f64(SAFE))
        };
        self.queue.refuse_where(end, Kind::WaitTooLong, lost, wakers)
    }

    /// To come back when those who wait now have had their turn, in whole seconds.
    fn turn_advice(&self, now: Instant) -> Advice {
        let turn = self.pace.until_granted(now, self.queue.waiting(), self.outlook.places);
        let seconds = turn.map_or(1.0, |turn| turn.as_secs_f64().ceil().clamp(1.0, 3600.0));
        Advice { retry_after: seconds as u16, status: self.limits.overflow_status }
    }
}

impl<G> fmt::Debug for Hold<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("number", &self.number)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// One exchange's place in line. Await it for the grant or the fault. Dropping it leaves the line at once;
/// a grant that had already come goes on to the next.
#[must_use = "dropping a ticket leaves the line"]
pub struct Ticket<G> {
    hold: Arc<Hold<G>>,
    /// None once the answer was picked up.
    place: Option<u32>,
}

impl<G> Future for Ticket<G> {
    type Output = Result<G, Kind>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Polling after completion is a caller's mistake; staying pending is what it can be told.
        let Some(place) = self.place else { return Poll::Pending };
        let mut inner = self.hold.inner.lock();
        if let State::Waits(waker) = inner.queue.state(place) {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let state = inner.queue.release(place);
        drop(inner);
        self.place = None;
        match state {
            State::Granted(grant) => Poll::Ready(Ok(grant)),
            State::Refused(kind) => Poll::Ready(Err(kind)),
            State::Waits(_) | State::Vacant => unreachable!("a place that does not wait was answered"),
        }
    }
}

impl<G> Drop for Ticket<G> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut inner = self.hold.inner.lock();
        let state = inner.queue.release(place);
        if matches!(state, State::Waits(_)) {
            self.hold.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(inner);
        // Outside the lock: a grant's drop offers what it frees, and that takes the lock.
        drop(state);
    }
}
