//! What those who begin to wait have to expect, as the scaler last saw it.

use crate::clock::{Duration, Instant};
use crate::fault::{Advice, Kind};

/// Said by the scaler at each look. Without one nothing is expected, and nobody is turned away for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// How long a start takes as a rule; none: not known.
    pub start: Option<Duration>,
    /// When the first of those that are starting, or held back for a while, should be ready.
    pub ready_at: Option<Instant>,
    /// Some instance takes requests, or will as soon as there are any.
    pub awake: bool,
    /// Some instance is frozen: it takes requests as soon as there are any.
    pub frozen: bool,
    /// No further instance may be started: `max-scale` is reached.
    pub at_most: bool,
    /// More is wanted than may be started, and nothing is on its way: only finished work makes room.
    pub crowded: bool,
    /// Something was started, and nothing listens yet.
    pub deaf: bool,
    /// Nothing is started before this.
    pub again: Option<Instant>,
    /// Until then, by `again`, nobody is let in: this is why.
    pub shut: Option<Kind>,
    /// Exchanges that all instances together take at a time, where no more can be had; 0: not known, or no
    /// limit, or there may soon be more.
    pub places: u32,
}

impl Outlook {
    /// When an instance should be there for somebody who comes now, if there is none yet.
    pub fn expected(&self, now: Instant) -> Option<Instant> {
        match (self.awake, self.ready_at, self.start) {
            (true, ..) => None,
            (false, Some(at), _) => Some(at),
            (false, None, Some(start)) => Some(now + start),
            (false, None, None) => None,
        }
    }

    /// Why somebody who comes now is not let in, although he is counted.
    pub fn refusal(&self, now: Instant) -> Option<Kind> {
        self.shut.filter(|_| self.again.is_some_and(|again| now < again))
    }

    /// What somebody is told whom a failed start concerns: to come back when the next may be made.
    pub fn after_failure(&self, now: Instant) -> Advice {
        let pause = self.again.map_or(Duration::ZERO, |again| again.saturating_duration_since(now));
        Advice { retry_after: whole(pause), status: 0 }
    }

    /// What somebody who is turned away is told: to come back when a start should be over, in whole seconds.
    pub fn advice(&self, status: u16) -> Advice {
        Advice { retry_after: self.start.map_or(1, whole), status }
    }
}

/// Whole seconds, at least one, within an hour.
fn whole(length: Duration) -> u16 {
    length.as_secs_f64().ceil().clamp(1.0, 3600.0) as u16
}
