//! The queue inside a hold: places in order of arrival that can be left from the middle in O(1).
//!
//! A slab of places with a doubly linked list through those that still wait. A place belongs to its ticket
//! until the ticket gives it back, whatever became of it, so an index can never mean somebody else. Not
//! synchronised: the hold's lock is around it.

use super::overload::End;
use super::room::Room;
use crate::clock::{Duration, Instant};
use crate::fault::Kind;
use std::sync::Arc;
use std::task::Waker;

const NONE: u32 = u32::MAX;
/// Below this many places the memory of an empty queue is kept.
const KEEP: usize = 64;

/// What became of a place.
#[derive(Debug)]
pub(super) enum State<G> {
    /// Still in line.
    Waits(Option<Waker>),
    /// Got what it waited for and has not picked it up.
    Granted(G),
    /// Will not get it.
    Refused(Kind),
    /// Given back.
    Vacant,
}

/// What somebody in line said, and was told, when he came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When he came.
    pub since: Instant,
    /// Until when he may wait.
    pub deadline: Option<Instant>,
    /// Bytes that he keeps in memory.
    pub bytes: usize,
    /// For how long he had to expect to wait.
    pub promised: Duration,
}

#[derive(Debug)]
struct Place<G> {
    state: State<G>,
    terms: Terms,
    /// Towards the oldest; for a vacant place: the next vacant one.
    before: u32,
    /// Towards the newest.
    after: u32,
}

#[derive(Debug)]
pub(super) struct Queue<G> {
    /// Of the process, taken and left with each place.
    room: Arc<Room>,
    places: Vec<Place<G>>,
    vacant: u32,
    used: usize,
    oldest: u32,
    newest: u32,
    waiting: usize,
    bytes: usize,
}

impl<G> Queue<G> {
    pub fn new(room: Arc<Room>) -> Queue<G> {
        Queue {
            room,
            places: Vec::new(),
            vacant: NONE,
            used: 0,
            oldest: NONE,
            newest: NONE,
            waiting: 0,
            bytes: 0,
        }
    }

    /// How many are in line.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes held by those in line.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who stands at this end of the line.
    pub fn at(&self, end: End) -> Option<Terms> {
        let index = self.index(end);
        (index != NONE).then(|| self.places[index as usize].terms)
    }

    fn index(&self, end: End) -> u32 {
        match end {
            End::Oldest => self.oldest,
            End::Newest => self.newest,
        }
    }

    /// A new place at the end of the line; none: the process has no room for it.
    pub fn push(&mut self, terms: Terms) -> Option<u32> {
        if !self.room.enter(terms.bytes) {
            return None;
        }
        let place = Place { state: State::Waits(None), terms, before: self.newest, after: NONE };
        let index = if self.vacant == NONE {
            self.places.push(place);
            (self.places.len() - 1) as u32
        } else {
            let index = self.vacant;
            self.vacant = self.places[index as usize].before;
            self.places[index as usize] = place;
            index
        };
        match self.newest {
            NONE => self.oldest = index,
            newest => self.places[newest as usize].after = index,
        }
        self.newest = index;
        self.used += 1;
        self.waiting += 1;
        self.bytes += terms.bytes;
        Some(index)
    }

    /// Takes who stands at this end out of line with an answer; the waker is to be woken outside the lock.
    /// Nobody in line: the answer comes back.
    pub fn answer(&mut self, end: End, answer: State<G>) -> Result<Option<Waker>, State<G>> {
        let index = self.index(end);
        if index == NONE {
            return Err(answer);
        }
        self.unlink(index);
        match std::mem::replace(&mut self.places[index as usize].state, answer) {
            State::Waits(waker) => Ok(waker),
            State::Granted(_) | State::Refused(_) | State::Vacant => {
                unreachable!("only who waits is in line")
            }
        }
    }

    /// Refuses everybody of whom `lost` says so, from this end on; it is told how many who stay are in front.
    /// The wakers are to be woken outside the lock. Returns how many were refused.
    pub fn refuse_where(
        &mut self,
        from: End,
        kind: Kind,
        mut lost: impl FnMut(usize, &mut Terms) -> bool,
        wakers: &mut Vec<Waker>,
    ) -> usize {
        let (mut index, mut stay, mut refused) = (self.index(from), 0, 0);
        while index != NONE {
            let place = &mut self.places[index as usize];
            let next = if from == End::Oldest { place.after } else { place.before };
            if lost(stay, &mut place.terms) {
                self.unlink(index);
                let state = &mut self.places[index as usize].state;
                if let State::Waits(waker) = std::mem::replace(state, State::Refused(kind)) {
                    wakers.extend(waker);
                }
                refused += 1;
            } else {
                stay += 1;
            }
            index = next;
        }
        refused
    }

    /// What became of a place.
    pub fn state(&mut self, index: u32) -> &mut State<G> {
        &mut self.places[index as usize].state
    }

    /// Gives a place back and says what it held, which is to be dropped outside the lock.
    pub fn release(&mut self, index: u32) -> State<G> {
        if matches!(self.places[index as usize].state, State::Waits(_)) {
            self.unlink(index);
        }
        let place = &mut self.places[index as usize];
        place.before = self.vacant;
        let state = std::mem::replace(&mut place.state, State::Vacant);
        self.vacant = index;
        self.used -= 1;
        if self.used == 0 && self.places.len() > KEEP {
            self.places = Vec::new();
            self.vacant = NONE;
        }
        state
    }

    fn unlink(&mut self, index: u32) {
        let (before, after, bytes) = {
            let place = &self.places[index as usize];
            (place.before, place.after, place.terms.bytes)
        };
        match before {
            NONE => self.oldest = after,
            before => self.places[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.places[after as usize].before = before,
        }
        self.waiting -= 1;
        self.bytes -= bytes;
        self.room.leave(bytes);
    }
}
