//! Instances that are frozen instead of ended: they keep their memory, their state and their port, use no
//! processor, and take requests again within a fraction of a millisecond.
//!
//! An instance is frozen where it would be ended for want of work, by the same two steps (`leaving`). What is
//! missing later is first thawed, the latest frozen before the others, and only then started. Those that the
//! process has no room for, that have not been needed for `freeze-for`, or that a reload has left behind are
//! ended. Never more than max-scale are there, frozen ones included: nothing starts while one is frozen.

use super::fleet::Floor;
use super::instance::{Instance, Phase};
use super::ramp;
use super::unit::Unit;
use crate::clock::Instant;
use crate::cluster::Endpoint;
use crate::driver::InstanceId;
use crate::record::{Birth, Cause};
use proxy_config::model::{Command, Idle};

impl Unit {
    /// Whether what it does not need is frozen.
    fn freezes(&self) -> bool {
        let runs = !matches!(self.revision.command, Command::Refused { .. });
        self.removed.is_none() && runs && matches!(self.revision.idle, Idle::Freeze { .. })
    }

    /// Ends, or freezes, an instance that takes no more requests and has none.
    pub fn rest(&mut self, now: Instant, id: InstanceId, floor: &mut Floor) {
        let (freezes, grace) = (self.freezes(), self.grace_of(id));
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.remember();
        match &instance.phase {
            Phase::Ready { endpoint, since: ready } | Phase::Draining { endpoint, ready, .. }
                if freezes && !instance.outdated =>
            {
                let address = endpoint.address;
                instance.busy = false;
                instance.ramp = None;
                instance.phase = Phase::Frozen { address, ready: *ready, since: now };
                floor.driver.freeze(id);
                self.metrics.freezes.inc();
                tracing::info!(instance = &*instance.name, "frozen");
            }
            _ => {
                instance.phase = Phase::Stopping;
                floor.driver.stop(id, grace);
            }
        }
    }

    /// Lets up to `count` frozen instances take requests again, as new endpoints: no connection of before is
    /// used any more, as the instance may find that it has outlived its patience.
    pub fn thaw(&mut self, now: Instant, count: u32, asked: Instant, floor: &mut Floor) -> u32 {
        if count == 0 {
            return 0;
        }
        let frozen = self.instances.values().filter_map(|i| Some((i.frozen()?, i.id)));
        let mut frozen: Vec<_> = frozen.collect();
        frozen.sort_unstable_by(|one, other| other.cmp(one));
        frozen.truncate(count as usize);
        let unlimited = self.revision.concurrency == 0;
        let limit = if unlimited { ramp::FIRST } else { self.revision.concurrency };
        for (_, id) in &frozen {
            let Some(instance) = self.instances.get_mut(id) else { continue };
            let Phase::Frozen { address, ready, since } = instance.phase else { continue };
            floor.driver.thaw(*id);
            let birth = Birth {
                cause: Cause::Thawed,
                asked: asked.max(since),
                ordered: now,
                spawned: now,
                listening: now,
                ready: now,
            };
            let endpoint = Endpoint::born(address, instance.name.clone(), limit, birth, None);
            instance.ramp = unlimited.then_some(now);
            instance.phase = Phase::Ready { endpoint: endpoint.clone(), since: ready };
            instance.again(now);
            self.members.insert(endpoint);
            self.metrics.thaws.inc();
        }
        if !frozen.is_empty() {
            self.members.offer();
        }
        frozen.len() as u32
    }

    /// Ends frozen instances that were not needed for too long, or may be there no more.
    pub fn end_frozen(&mut self, now: Instant, floor: &mut Floor) {
        let most = match self.revision.idle {
            Idle::Freeze { most } if self.freezes() => Some(most),
            _ => None,
        };
        let mut over = match self.terms.max {
            0 => 0,
            max => (self.present() + self.count(|i| i.frozen().is_some())).saturating_sub(max),
        };
        let grace = self.grace();
        for instance in self.instances.values_mut() {
            let Some(since) = instance.frozen() else { continue };
            let due = most.is_none_or(|most| now.saturating_duration_since(since) >= most);
            if due || instance.outdated || over > 0 {
                over = over.saturating_sub(1);
                instance.phase = Phase::Stopping;
                floor.driver.stop(instance.id, grace);
            }
        }
    }

    /// Ends one frozen instance, because others need its room.
    pub fn give_room(&mut self, id: InstanceId, floor: &mut Floor) {
        let grace = self.grace();
        if let Some(instance) = self.instances.get_mut(&id).filter(|instance| instance.frozen().is_some()) {
            instance.phase = Phase::Stopping;
            floor.driver.stop(id, grace);
        }
    }

    /// When the first of the frozen is due to be ended.
    pub fn next_end_of_frozen(&self) -> Option<Instant> {
        let Idle::Freeze { most } = self.revision.idle else { return None };
        self.instances.values().filter_map(Instance::frozen).min().map(|since| since + most)
    }
}
