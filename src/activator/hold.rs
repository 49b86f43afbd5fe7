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

use super::overload::End;
use super::queue::State;
use super::rest::{Inner, Open, Rest, Turned};
use super::room::Room;
use super::{Bell, Outlook};
use crate::clock::{Duration, Instant};
use crate::fault::{Advice, Kind};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, fence};
use smallvec::SmallVec;
use std::fmt;
use std::future::Future;
use std::ops::DerefMut;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// How many are answered under one taking of the lock.
const BATCH: usize = 32;

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
    room: Arc<Room>,
    inner: Mutex<Rest<G>>,
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
            inner: Mutex::new((limits != HoldLimits::default()).then(|| Inner::new(room.clone(), limits))),
            room,
        })
    }

    fn open(&self) -> Open<impl DerefMut<Target = Rest<G>>> {
        let mut inner = self.inner.lock();
        inner.get_or_insert_with(|| Inner::new(self.room.clone(), HoldLimits::default()));
        Open(inner)
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
        self.inner.lock().as_ref()?.queue.at(End::Oldest).map(|head| head.since)
    }

    /// Bytes that those who wait keep in memory.
    pub fn bytes(&self) -> usize {
        self.inner.lock().as_ref().map_or(0, |inner| inner.queue.bytes())
    }

    /// Applies other bounds. Those who wait already stay, even beyond a smaller count.
    pub fn set_limits(&self, limits: HoldLimits) {
        if limits != HoldLimits::default() || self.inner.lock().is_some() {
            self.open().limits = limits;
        }
    }

    /// Says what those who come have to expect.
    pub fn set_outlook(&self, outlook: Outlook) {
        if outlook == Outlook::default() && self.inner.lock().is_none() {
            return;
        }
        let mut inner = self.open();
        if outlook.places == 0 {
            inner.pace.pause();
        }
        inner.outlook = outlook;
    }

    /// Whether an instance that is frozen will serve those who come.
    pub fn is_frozen(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|inner| inner.outlook.frozen)
    }

    /// What somebody is told who is turned away with `kind`, beside what the fault itself says.
    pub fn advice(&self, now: Instant, kind: Kind) -> Advice {
        let inner = self.open();
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
        if self.open().outlook.deaf { Kind::ListensLate } else { Kind::HoldTimeout }
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
        let mut inner = self.open();
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
        let mut inner = self.open();
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
        let Some(age) = self.inner.lock().as_ref().map(|inner| inner.limits.age) else { return 0 };
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
            let mut rest = self.inner.lock();
            let Some(inner) = rest.as_deref_mut() else { return 0 };
            while answered < BATCH && inner.queue.waiting() > 0 {
                let Some((end, state)) = answer(inner) else { break };
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
            drop(rest);
            wakers.into_iter().for_each(Waker::wake);
            served += answered;
            if answered < BATCH {
                return served;
            }
        }
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
        let mut inner = self.hold.open();
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
        let mut inner = self.hold.open();
        let state = inner.queue.release(place);
        if matches!(state, State::Waits(_)) {
            self.hold.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(inner);
        // Outside the lock: a grant's drop offers what it frees, and that takes the lock.
        drop(state);
    }
}
