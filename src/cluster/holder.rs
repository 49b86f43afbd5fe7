//! Several holders of requests for one destination.
//!
//! A holder is whoever keeps requests until there is a slot: this process's workers together, whose line is
//! the members' own, or another that has joined (a caller's proxy, a gateway). Each has a line and says what
//! it wants (`Holder::demand`); slots are granted here, at the destination, whose limits hold for all of them
//! together. What comes free goes to whoever has waited longest, in whichever line.

use super::{Members, Rng, Slot, Taken};
use crate::activator::{Ask, Bell, Hold, HoldLimits, Outlook, Parked, Room};
use crate::autoscaler::Demand;
use crate::clock::{self, Duration, Instant};
use crate::fault::Kind;
use crate::sync::{AtomicU32, AtomicU64};
use proxy_config::model::Balance;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// One joined holder's line, as the destination sees it.
#[derive(Debug)]
pub(super) struct Line {
    hold: Arc<Hold<Slot>>,
    in_flight: AtomicU32,
}

impl Line {
    /// A slot of this line was given back.
    pub(super) fn left(&self) {
        self.in_flight.fetch_sub(1, SeqCst);
    }
}

/// A holder that has joined. Dropping it takes its line away; what it said last counts until that expires.
#[derive(Debug)]
pub struct Holder {
    number: u64,
    members: Arc<Members>,
    line: Arc<Line>,
    generation: AtomicU64,
}

impl Holder {
    /// Joins `members` under a number that no other holder has; 0 is this process's own. Rings `bell` when it
    /// has something to say, and keeps no more than `room` has left.
    pub fn join(number: u64, members: &Arc<Members>, bell: Arc<Bell>, room: Arc<Room>) -> Holder {
        let hold = Hold::new(HoldLimits::default(), bell, room);
        let line = Arc::new(Line { hold, in_flight: AtomicU32::new(0) });
        members.change_lines(|lines| lines.push(line.clone()));
        Holder { number, members: members.clone(), line, generation: AtomicU64::new(0) }
    }

    /// A place now, or one in this holder's line.
    ///
    /// # Errors
    /// As [`Hold::park`].
    pub fn take_or_wait(&self, balance: Balance, rng: &mut Rng, ask: Ask) -> Result<Taken, Kind> {
        if self.line.hold.waiting() == 0
            && let Some(slot) = self.members.take(balance, None, rng, &[])
        {
            return Ok(Taken::Slot(slot.of(&self.line)));
        }
        let again = || Some(self.members.take(balance, None, rng, &[])?.of(&self.line));
        match self.line.hold.park(ask, again)? {
            Parked::Now(slot) => Ok(Taken::Slot(slot)),
            Parked::Wait(ticket) => Ok(Taken::Wait(ticket)),
        }
    }

    /// What it wants now, for the scaler to count until `lasts` is over.
    pub fn demand(&self, now: Instant, lasts: Duration) -> Demand {
        let hold = &self.line.hold;
        hold.looked_at();
        Demand {
            revision: self.members.key.clone(),
            holder: self.number,
            generation: self.generation.fetch_add(1, SeqCst) + 1,
            queued: u32::try_from(hold.waiting() + hold.take_missed()).unwrap_or(u32::MAX),
            in_flight: self.line.in_flight.load(SeqCst),
            oldest: hold.oldest(),
            expires: now + lasts,
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.members.change_lines(|lines| lines.retain(|line| !Arc::ptr_eq(line, &self.line)));
        // Whoever still waits there would wait for ever.
        self.line.hold.refuse(Kind::Removed);
    }
}

impl Slot {
    /// The same slot, counted as `line`'s.
    fn of(mut self, line: &Arc<Line>) -> Slot {
        line.in_flight.fetch_add(1, SeqCst);
        self.line = Some(line.clone());
        self
    }
}

impl Members {
    /// How many wait, in all lines.
    pub fn waiting(&self) -> usize {
        let own = self.hold().map_or(0, |hold| hold.waiting());
        if self.joined() == 0 {
            return own;
        }
        own + self.lines().iter().map(|line| line.hold.waiting()).sum::<usize>()
    }

    /// Exchanges in flight of holders that have joined.
    pub fn in_flight_of_others(&self) -> u32 {
        self.lines().iter().map(|line| line.in_flight.load(SeqCst)).sum()
    }

    /// Says to everybody who holds what newcomers have to expect.
    pub fn set_outlook(&self, outlook: Outlook) {
        self.hold().into_iter().for_each(|hold| hold.set_outlook(outlook));
        self.lines().iter().for_each(|line| line.hold.set_outlook(outlook));
    }

    /// Answers everybody who waits, in all lines, with a fault. Returns how many.
    pub fn refuse(&self, kind: Kind) -> usize {
        let own = self.hold().map_or(0, |hold| hold.refuse(kind));
        own + self.lines().iter().map(|line| line.hold.refuse(kind)).sum::<usize>()
    }

    /// Gives free places to those who wait in several lines, one at a time to whoever has waited longest.
    #[cold]
    pub(super) fn offer_in_turn(self: &Arc<Self>, own: &Arc<Hold<Slot>>, rng: &mut Rng) -> usize {
        let (now, lines, mut served) = (clock::now(), self.lines(), 0);
        loop {
            let mut heads: Vec<(Instant, Option<&Arc<Line>>)> = Vec::with_capacity(lines.len() + 1);
            heads.extend(own.oldest().map(|since| (since, None)));
            heads.extend(lines.iter().filter_map(|line| Some((line.hold.oldest()?, Some(line)))));
            heads.sort_by_key(|(since, _)| *since);
            // The first may leave meanwhile: then the next one gets what there is.
            let one = heads.into_iter().any(|(_, line)| {
                let mut given = false;
                let mut next = || {
                    if given {
                        return None;
                    }
                    let slot = self.take(Balance::LeastRequest, None, rng, &[])?;
                    given = true;
                    Some(match line {
                        Some(line) => slot.of(line),
                        None => slot,
                    })
                };
                let hold = line.map_or(own, |line| &line.hold);
                hold.offer(now, &mut next) > 0
            });
            if !one {
                return served;
            }
            served += 1;
        }
    }
}
