//! Where the time of a cold start went.
//!
//! An instance notes the points of its start; an exchange that waited for it notes its own, and both
//! together say, without a gap, what each part of the wait was spent on.

use crate::clock::{Duration, Instant};
use std::fmt::Write;
use std::sync::Arc;

/// Why an instance was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Requests came and there was none.
    Zero,
    /// More requests than those that were there could take.
    More,
    /// To keep a number of them.
    Kept,
    /// In place of one that ended on its own.
    Lost,
    /// Requests came, and it was frozen: it was not started anew.
    Thawed,
}

impl Cause {
    /// Every cause of a start.
    pub const ALL: [Cause; 4] = [Cause::Zero, Cause::More, Cause::Kept, Cause::Lost];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Zero => "from_zero",
            Cause::More => "more_demand",
            Cause::Kept => "kept",
            Cause::Lost => "replaced",
            Cause::Thawed => "thawed",
        }
    }
}

/// How an instance came to be.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Why.
    pub cause: Cause,
    /// Since when the oldest had waited that asked for it.
    pub asked: Instant,
    /// When it was ordered.
    pub ordered: Instant,
    /// When its process ran.
    pub spawned: Instant,
    /// When its port was open.
    pub listening: Instant,
    /// When it was ready to take exchanges.
    pub ready: Instant,
}

/// What one exchange waited for that was held until an instance was ready.
#[derive(Clone, Debug)]
pub struct ColdStart {
    /// The instance's.
    pub birth: Arc<Birth>,
    /// When it began to wait.
    pub parked: Instant,
    /// When it got a slot.
    pub granted: Instant,
    /// When there was a connection to send it on.
    pub sent: Option<Instant>,
    /// When the head of the answer was there.
    pub answered: Option<Instant>,
}

impl ColdStart {
    /// The names of the phases.
    pub const PHASES: [&'static str; 7] =
        ["hold", "decide", "spawn", "listen", "probe", "dispatch", "first_byte"];

    /// How long each phase took, of what this exchange waited: together they are the time from when it began
    /// to wait to the head of the answer. `hold` is what the start does not explain.
    pub fn phases(&self) -> [Duration; 7] {
        let birth = &*self.birth;
        let within = |from: Instant, to: Instant| {
            to.min(self.granted).saturating_duration_since(from.max(self.parked))
        };
        let decide = within(birth.asked, birth.ordered);
        let spawn = within(birth.ordered, birth.spawned);
        let listen = within(birth.spawned, birth.listening);
        let probe = within(birth.listening, birth.ready);
        let all = self.granted.saturating_duration_since(self.parked);
        let sent = self.sent.unwrap_or(self.granted);
        let hold = all.saturating_sub(decide + spawn + listen + probe);
        let dispatch = sent.saturating_duration_since(self.granted);
        let first_byte = self.answered.unwrap_or(sent).saturating_duration_since(sent);
        [hold, decide, spawn, listen, probe, dispatch, first_byte]
    }

    /// The value of a `Server-Timing` field, in milliseconds.
    pub fn server_timing(&self) -> String {
        let mut text = format!("cold;desc={}", self.birth.cause.name());
        for (name, took) in ColdStart::PHASES.iter().zip(self.phases()) {
            // Writing to a string does not fail.
            let _ = write!(text, ", {name};dur={:.3}", took.as_secs_f64() * 1e3);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// An exchange that parks and is granted at these milliseconds of a start asked for at 0, ordered at 1,
    /// spawned at 3, listening at 103 and ready at 110; sent 2 ms after, answered 5 ms after that.
    fn check(parked: u64, granted: u64, want: [u64; 7]) {
        let begin = clock::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let birth = Birth {
            cause: Cause::Zero,
            asked: at(0),
            ordered: at(1),
            spawned: at(3),
            listening: at(103),
            ready: at(110),
        };
        let cold = ColdStart {
            birth: Arc::new(birth),
            parked: at(parked),
            granted: at(granted),
            sent: Some(at(granted + 2)),
            answered: Some(at(granted + 7)),
        };
        let phases = cold.phases().map(|phase| phase.as_millis() as u64);
        assert_eq!(phases, want, "from {parked} to {granted}");
        assert_eq!(phases.iter().sum::<u64>(), granted + 7 - parked, "nothing is left unexplained");
    }

    #[test]
    fn the_phases_of_a_wait_are_all_of_it() {
        check(0, 110, [0, 1, 2, 100, 7, 2, 5]);
        check(0, 150, [40, 1, 2, 100, 7, 2, 5]);
        check(53, 110, [0, 0, 0, 50, 7, 2, 5]);
        check(105, 111, [1, 0, 0, 0, 5, 2, 5]);
    }

    #[test]
    fn a_client_can_read_them() {
        let at = clock::now();
        let birth =
            Birth { cause: Cause::More, asked: at, ordered: at, spawned: at, listening: at, ready: at };
        let parked = at - Duration::from_micros(1500);
        let cold = ColdStart { birth: Arc::new(birth), parked, granted: at, sent: None, answered: None };
        let text = cold.server_timing();
        assert!(text.starts_with("cold;desc=more_demand, hold;dur=1.500, decide;dur=0.000, "), "{text}");
    }
}
