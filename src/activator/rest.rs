//! What a hold has once somebody waits in it, or once there is something to say to those who come: the line, its terms
//! and what was learned of it.

use super::Outlook;
use super::hold::{Ask, HoldLimits};
use super::overload::{End, Overload};
use super::pace::Pace;
use super::queue::{Queue, Terms};
use super::room::Room;
use crate::clock::{Duration, Instant};
use crate::fault::{Advice, Kind};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::Waker;

/// Of the time that somebody gives, what may be reckoned with: what comes in between has the rest.
const SAFE: f64 = 0.8;
/// A line is searched for those who cannot be served in time no more often.
const SEARCH: Duration = Duration::from_millis(10);

/// Most holds are of functions that nobody asks for: it is made by the first who waits, or of whom there is something
/// to say.
pub(super) type Rest<G> = Option<Box<Inner<G>>>;

pub(super) struct Inner<G> {
    pub queue: Queue<G>,
    pub limits: HoldLimits,
    pub outlook: Outlook,
    pub overload: Overload,
    pub pace: Pace,
    /// When it was last searched for those who cannot be served in time.
    searched: Option<Instant>,
}

/// Why there is no place, and whether an instance is wanted all the same.
#[derive(Clone, Copy)]
pub(super) struct Turned {
    pub kind: Kind,
    pub counts: bool,
}

impl From<Kind> for Turned {
    fn from(kind: Kind) -> Turned {
        Turned { kind, counts: false }
    }
}

/// The rest of a hold, made and locked.
pub(super) struct Open<L>(pub L);

impl<G, L: Deref<Target = Rest<G>>> Deref for Open<L> {
    type Target = Inner<G>;

    fn deref(&self) -> &Inner<G> {
        self.0.as_ref().expect("it was made when it was opened, and is never taken away")
    }
}

impl<G, L: DerefMut<Target = Rest<G>>> DerefMut for Open<L> {
    fn deref_mut(&mut self) -> &mut Inner<G> {
        self.0.as_mut().expect("it was made when it was opened, and is never taken away")
    }
}

impl<G> Inner<G> {
    pub fn new(room: Arc<Room>, limits: HoldLimits) -> Box<Inner<G>> {
        Box::new(Inner {
            queue: Queue::new(room),
            limits,
            outlook: Outlook::default(),
            overload: Overload::default(),
            pace: Pace::default(),
            searched: None,
        })
    }

    /// A place in line, or why there is none.
    pub fn place(&mut self, ask: &Ask) -> Result<u32, Turned> {
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
    pub fn refuse_lost(&mut self, now: Instant, wakers: &mut Vec<Waker>) -> usize {
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
    pub fn turn_advice(&self, now: Instant) -> Advice {
        let turn = self.pace.until_granted(now, self.queue.waiting(), self.outlook.places);
        let seconds = turn.map_or(1.0, |turn| turn.as_secs_f64().ceil().clamp(1.0, 3600.0));
        Advice { retry_after: seconds as u16, status: self.limits.overflow_status }
    }
}
