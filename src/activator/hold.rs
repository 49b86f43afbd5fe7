//! A bounded queue of exchanges that wait for one revision, oldest first.
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

use super::Bell;
use super::queue::{Queue, State};
use crate::clock::{Duration, Instant};
use crate::fault::Kind;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
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
}

impl Default for HoldLimits {
    fn default() -> Self {
        HoldLimits { count: 10_000, bytes: 64 << 20, age: Duration::from_secs(600) }
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
    inner: Mutex<Inner<G>>,
}

struct Inner<G> {
    queue: Queue<G>,
    limits: HoldLimits,
}

impl<G> Hold<G> {
    /// An empty hold that rings `bell` when somebody begins to wait.
    pub fn new(limits: HoldLimits, bell: Arc<Bell>) -> Arc<Hold<G>> {
        Arc::new(Hold {
            number: bell.number(),
            bell,
            rung: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            arrivals: AtomicU64::new(0),
            inner: Mutex::new(Inner { queue: Queue::new(), limits }),
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
        self.inner.lock().queue.since()
    }

    /// Bytes that those who wait keep in memory.
    pub fn bytes(&self) -> usize {
        self.inner.lock().queue.bytes()
    }

    /// Applies other bounds. Those who wait already stay, even beyond a smaller count.
    pub fn set_limits(&self, limits: HoldLimits) {
        self.inner.lock().limits = limits;
    }

    /// The scaler says that it looks now: the next arrival rings again. To be called before `waiting` is
    /// read, so that an arrival is either seen or rings.
    pub fn looked_at(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Looks for a slot once more with `again` if nobody waits, else, or if there is none, takes a place
    /// at the end of the line.
    ///
    /// `again` runs under the hold's lock: it must neither block, nor drop a grant, nor call the hold.
    ///
    /// # Errors
    /// `HoldFull` when the count or the bytes are at their limit.
    pub fn park(
        self: &Arc<Self>,
        now: Instant,
        bytes: usize,
        again: impl FnOnce() -> Option<G>,
    ) -> Result<Parked<G>, Kind> {
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
        let full = inner.queue.waiting() >= inner.limits.count
            || inner.queue.bytes().saturating_add(bytes) > inner.limits.bytes;
        if full {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Kind::HoldFull);
        }
        let place = inner.queue.push(now, bytes);
        drop(inner);
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.bell.ring_for(self.number);
        }
        Ok(Parked::Wait(Ticket { hold: Arc::clone(self), place: Some(place) }))
    }

    /// Hands what `next` gives to the oldest, until it gives nothing or nobody waits. `next` is only asked
    /// when somebody takes what it gives. Returns how many were served.
    ///
    /// `next` runs under the hold's lock: it must neither block, nor drop a grant, nor call the hold.
    pub fn offer(&self, mut next: impl FnMut() -> Option<G>) -> usize {
        self.answer(|queue| {
            if queue.waiting() == 0 {
                return None;
            }
            next().map(State::Granted)
        })
    }

    /// Answers everybody who waits with a fault. Returns how many.
    pub fn refuse(&self, kind: Kind) -> usize {
        self.answer(|_| Some(State::Refused(kind)))
    }

    /// Answers those who wait longer than the age limit with `HoldTimeout`. Returns how many.
    pub fn expire(&self, now: Instant) -> usize {
        let age = self.inner.lock().limits.age;
        self.answer(|queue| {
            let over = queue.since().is_some_and(|since| now.saturating_duration_since(since) >= age);
            over.then_some(State::Refused(Kind::HoldTimeout))
        })
    }

    /// Answers the oldest as long as `answer` has something to say. Wakers run outside the lock, which is
    /// let go now and then so that a long line does not keep newcomers out.
    fn answer(&self, mut answer: impl FnMut(&Queue<G>) -> Option<State<G>>) -> usize {
        let mut served = 0;
        loop {
            let mut wakers: SmallVec<[Waker; BATCH]> = SmallVec::new();
            let mut answered = 0;
            let mut inner = self.inner.lock();
            while answered < BATCH && inner.queue.waiting() > 0 {
                let Some(state) = answer(&inner.queue) else { break };
                // Somebody waits, by the loop's condition, and the lock was not let go since.
                if let Ok(waker) = inner.queue.answer_oldest(state) {
                    wakers.extend(waker);
                }
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                answered += 1;
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
