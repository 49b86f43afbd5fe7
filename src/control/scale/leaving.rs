//! How instances leave: idle ones first, busy ones when they have finished, and back again if they are
//! needed before that.
//!
//! Two steps: an instance first takes no more requests, then, when it has none, it is asked to end. A
//! request that comes in between finds another instance, or waits and is seen.

use super::fleet::Floor;
use super::instance::{Instance, Phase};
use super::unit::Unit;
use crate::activator::Outlook;
use crate::clock::{Duration, Instant};
use crate::cluster::Dismissed;
use crate::driver::InstanceId;
use crate::fault::Kind;

/// From SIGTERM to SIGKILL for an instance that has nothing left to do, at most. With a window of 6 s it
/// is gone within 15 s of its last answer.
const GRACE: Duration = Duration::from_secs(8);
/// One that finishes for others is looked at so soon.
const DRAIN: Duration = Duration::from_millis(10);
/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

impl Unit {
    /// Lets up to `count` instances that drain take requests again.
    pub fn reopen(&mut self, count: u32) -> u32 {
        let mut reopened = 0;
        for instance in self.instances.values_mut() {
            if let Phase::Draining { endpoint, ready, .. } = &instance.phase
                && !instance.outdated
                && reopened < count
            {
                endpoint.reopen();
                self.members.insert(endpoint.clone());
                instance.phase = Phase::Ready { endpoint: endpoint.clone(), since: *ready };
                reopened += 1;
            }
        }
        if reopened > 0 {
            self.members.offer();
        }
        reopened
    }

    /// Stops `count` of the ready: idle ones first, of those the longest unused; busy ones finish first.
    pub fn stop_some(&mut self, now: Instant, count: u32, floor: &mut Floor) {
        if count == 0 {
            return;
        }
        let ready = self.instances.values().filter_map(|i| Some((i.ready()?.active(), i.used, i.id)));
        let mut order: Vec<_> = ready.collect();
        order.sort_unstable();
        for (_, _, id) in order.into_iter().take(count as usize) {
            self.retire(now, id, floor);
        }
    }

    /// Takes a ready instance from the members, and ends it when it has nothing left.
    pub fn retire(&mut self, now: Instant, id: InstanceId, floor: &mut Floor) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let (Phase::Ready { endpoint, since: ready } | Phase::Unready { endpoint, ready }) = &instance.phase
        else {
            return;
        };
        let (endpoint, ready) = (endpoint.clone(), *ready);
        if instance.is_unready() {
            instance.phase = Phase::Draining { endpoint, ready, since: now };
            return;
        }
        match self.members.dismiss(&endpoint, self.removed.is_none()) {
            Dismissed::Wanted => {}
            Dismissed::Idle => self.rest(now, id, floor),
            Dismissed::Busy => instance.phase = Phase::Draining { endpoint, ready, since: now },
        }
    }

    pub fn grace(&self) -> Duration {
        self.revision.timeout.min(GRACE)
    }

    /// Ends, or freezes, those that have drained.
    pub fn drain(&mut self, now: Instant, floor: &mut Floor) {
        let due = |one: &Instance| one.end_by.is_some_and(|at| at <= now);
        let over = |one: &&Instance| matches!(&one.phase, Phase::Draining { endpoint, .. } if endpoint.active() == 0 || due(one));
        let ids: Vec<_> = self.instances.values().filter(over).map(|instance| instance.id).collect();
        for id in ids {
            self.rest(now, id, floor);
        }
    }

    /// Lets go of outdated instances, whoever waits: those who wait get one of the new.
    pub fn replace(&mut self, now: Instant, floor: &mut Floor) {
        let grace = self.grace();
        for instance in self.instances.values_mut().filter(|instance| instance.outdated) {
            match &instance.phase {
                Phase::Ready { endpoint, since } | Phase::Unready { endpoint, ready: since } => {
                    endpoint.close();
                    self.members.remove(endpoint.id);
                    instance.phase =
                        Phase::Draining { endpoint: endpoint.clone(), ready: *since, since: now };
                }
                Phase::Starting | Phase::Probing(_) => {
                    instance.phase = Phase::Stopping;
                    floor.driver.stop(instance.id, grace);
                }
                Phase::Draining { .. } | Phase::Frozen { .. } | Phase::Stopping => {}
            }
        }
    }

    /// Lets the instance go that has the least to finish, of those the longest unused, whoever waits for it.
    pub fn give_one_up(&mut self, now: Instant, floor: &mut Floor) {
        let ready =
            self.instances.values_mut().filter_map(|i| Some(((i.ready()?.active(), i.used, i.id), i)));
        let Some((_, instance)) = ready.min_by_key(|(order, _)| *order) else { return };
        tracing::info!(instance = &*instance.name, "makes room for a function that has none");
        instance.outdated = true;
        self.replace(now, floor);
        self.drain(now, floor);
        self.next = Some(now + DRAIN);
    }

    /// It is forgotten: who comes all the same, with routes of long ago, would wait for nobody.
    pub fn close(&self, now: Instant) {
        let again = Some(now + FOR_EVER);
        self.members.set_outlook(Outlook { shut: Some(Kind::Removed), again, ..Outlook::default() });
    }

    /// Lets everything go: who waits is answered, who works finishes.
    pub fn leave(&mut self, now: Instant, floor: &mut Floor) {
        if self.removed.is_some() {
            self.members.refuse(Kind::Removed);
        }
        let ids: Vec<_> = self.instances.keys().copied().collect();
        for id in ids {
            self.retire(now, id, floor);
        }
        self.end_frozen(now, floor);
        self.stop_starting(floor);
    }

    fn stop_starting(&mut self, floor: &mut Floor) {
        let grace = self.grace();
        for instance in self.instances.values_mut().filter(|instance| instance.is_starting()) {
            instance.phase = Phase::Stopping;
            floor.driver.stop(instance.id, grace);
        }
    }

    /// Ends everything now, whatever it does.
    pub fn end(&mut self, now: Instant, grace: Duration, floor: &mut Floor) {
        self.removed = Some(now);
        self.members.refuse(Kind::Removed);
        for instance in self.instances.values_mut() {
            if let Phase::Ready { endpoint, .. }
            | Phase::Unready { endpoint, .. }
            | Phase::Draining { endpoint, .. } = &instance.phase
            {
                endpoint.close();
                self.members.remove(endpoint.id);
            }
            instance.remember();
            instance.phase = Phase::Stopping;
            floor.driver.stop(instance.id, grace);
        }
        self.next = None;
    }
}
