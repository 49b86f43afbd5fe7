//! What a revision's hold and gauges are told after each look.

use super::instance::{Instance, Phase};
use super::unit::Unit;
use crate::activator::{HoldLimits, Outlook};
use crate::clock::Instant;
use crate::telemetry::State;
use proxy_config::model::Revision;

impl Unit {
    /// Says what those who come now have to expect.
    pub fn foresee(&self, now: Instant) {
        let start = self.learned.expected();
        let begun = self.instances.values().filter(|i| i.is_starting()).map(|i| i.since).min();
        let ready = self.count(|instance| instance.ready().is_some());
        let frozen = self.count(|instance| instance.frozen().is_some());
        let held_back = self.backoff.until(now).or(self.put_off.filter(|until| *until > now));
        let gone = self.present() + frozen == 0;
        let shut = self.backoff.shut(now).or_else(|| self.starts_limited(now)).filter(|_| gone);
        self.metrics.level(|all| &all.circuit_open, i64::from(self.backoff.shut(now).is_some() && gone));
        let at_most = self.terms.max > 0 && self.present() >= self.terms.max;
        let settled = (self.bound || at_most) && begun.is_none() && held_back.is_none() && frozen == 0;
        self.members.set_outlook(Outlook {
            start,
            ready_at: begun.or(held_back).zip(start).map(|(begins, start)| begins + start),
            awake: ready > 0 || frozen > 0,
            frozen: frozen > 0,
            at_most,
            crowded: self.bound && begun.is_none(),
            deaf: ready == 0 && begun.is_some() && !self.instances.values().any(|i| i.listening.is_some()),
            again: held_back,
            shut,
            places: if settled { self.places() } else { 0 },
        });
    }

    /// Exchanges that those that are ready take at a time; 0: there is no limit.
    fn places(&self) -> u32 {
        let limits = self.instances.values().filter_map(|i| Some(i.ready()?.limit()));
        limits
            .reduce(|all, limit| if all == 0 || limit == 0 { 0 } else { all.saturating_add(limit) })
            .unwrap_or(0)
    }

    /// Writes down how many there are.
    pub fn gauge(&self) {
        let set = |state, count: u32| {
            self.metrics.level(|all| all.instances(state), i64::from(count));
        };
        set(State::Starting, self.count(Instance::is_starting));
        set(State::Ready, self.count(|instance| instance.ready().is_some()));
        set(State::Frozen, self.count(|instance| instance.frozen().is_some()));
        set(
            State::Draining,
            self.count(|instance| matches!(instance.phase, Phase::Draining { .. } | Phase::Stopping)),
        );
        let level = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.level(|all| &all.hold_depth, level(self.hold.waiting()));
        self.metrics.level(|all| &all.hold_bytes, level(self.hold.bytes()));
    }
}

/// The bounds of a revision's hold.
pub(super) fn limits(revision: &Revision) -> HoldLimits {
    let holding = &revision.holding;
    HoldLimits {
        count: holding.count as usize,
        bytes: usize::try_from(holding.bytes).unwrap_or(usize::MAX),
        age: holding.age,
        overflow_status: holding.overflow_status,
    }
}
