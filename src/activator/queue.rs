//! The queue inside a hold: places in order of arrival that can be left from the middle in O(1).
//!
//! A slab of places with a doubly linked list through those that still wait. A place belongs to its ticket
//! until the ticket gives it back, whatever became of it, so an index can never mean somebody else. Not
//! synchronised: the hold's lock is around it.

use crate::clock::Instant;
use crate::fault::Kind;
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

#[derive(Debug)]
struct Place<G> {
    state: State<G>,
    since: Instant,
    bytes: usize,
    /// Towards the oldest; for a vacant place: the next vacant one.
    before: u32,
    /// Towards the newest.
    after: u32,
}

#[derive(Debug)]
pub(super) struct Queue<G> {
    places: Vec<Place<G>>,
    vacant: u32,
    used: usize,
    oldest: u32,
    newest: u32,
    waiting: usize,
    bytes: usize,
}

impl<G> Queue<G> {
    pub fn new() -> Queue<G> {
        Queue { places: Vec::new(), vacant: NONE, used: 0, oldest: NONE, newest: NONE, waiting: 0, bytes: 0 }
    }

    /// How many are in line.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes held by those in line.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the oldest waits.
    pub fn since(&self) -> Option<Instant> {
        (self.oldest != NONE).then(|| self.places[self.oldest as usize].since)
    }

    /// A new place at the end of the line.
    pub fn push(&mut self, since: Instant, bytes: usize) -> u32 {
        let place = Place { state: State::Waits(None), since, bytes, before: self.newest, after: NONE };
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
        self.bytes += bytes;
        index
    }

    /// Takes the oldest out of line with an answer; the waker is to be woken outside the lock. Nobody in
    /// line: the answer comes back.
    pub fn answer_oldest(&mut self, answer: State<G>) -> Result<Option<Waker>, State<G>> {
        if self.oldest == NONE {
            return Err(answer);
        }
        let index = self.oldest;
        self.unlink(index);
        match std::mem::replace(&mut self.places[index as usize].state, answer) {
            State::Waits(waker) => Ok(waker),
            State::Granted(_) | State::Refused(_) | State::Vacant => {
                unreachable!("only who waits is in line")
            }
        }
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
            (place.before, place.after, place.bytes)
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
    }
}
