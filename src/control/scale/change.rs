//! What a reload makes of a revision that is known: which of its instances are another program's by now, which are
//! asked otherwise, and what is forgotten with what was mended.
//!
//! Nothing is started or stopped here: the next look, which comes at once, does that.

use super::backoff::Backoff;
use super::fleet::Floor;
use super::foresee::limits;
use super::instance::{Instance, Phase};
use super::probe::Word;
use super::unit::Unit;
use crate::activator::Learned;
use crate::autoscaler::{Settings, Terms};
use crate::clock::Instant;
use crate::driver::InstanceId;
use proxy_config::model::{Probes, Revision};
use std::net::SocketAddr;
use std::sync::Arc;

impl Unit {
    /// Other words for the same revision.
    pub fn update(&mut self, now: Instant, revision: &Arc<Revision>, floor: &mut Floor) {
        let (back, other) = (self.removed.take().is_some(), self.revision != *revision);
        if !back && !other {
            return;
        }
        if other {
            self.change(now, revision, floor);
        }
        if back {
            self.backoff = Backoff::default();
            self.reopen(u32::MAX);
        }
        self.members.offer();
        self.next = Some(now);
    }

    fn change(&mut self, now: Instant, revision: &Revision, floor: &mut Floor) {
        let before = self.revision.clone();
        // A copy: what a configuration was lies with much that goes when it is served.
        self.revision = Arc::new(revision.clone());
        self.terms = Terms::of(revision);
        self.kpa.update(Settings::of(revision));
        self.hold.set_limits(limits(revision));
        self.refused.forget();
        let (runs, asked) = (runs_otherwise(&before, revision), before.probes != revision.probes);
        if runs {
            self.instances.values_mut().for_each(|instance| instance.outdated = true);
            self.learned = Learned::default();
        }
        if runs || asked {
            // What failed is not what will be tried next.
            self.backoff = Backoff::default();
        }
        if before.concurrency != revision.concurrency {
            // Of those, too, that may be taken back.
            for endpoint in self.instances.values().filter_map(Instance::endpoint) {
                endpoint.set_limit(revision.concurrency);
            }
        }
        if asked {
            self.ask_otherwise(now, floor);
        }
    }

    /// Has all asked by the probes of now that are asked at all. Who was found not ready by those of before is ready
    /// when these say so.
    fn ask_otherwise(&mut self, now: Instant, floor: &mut Floor) {
        let probes = &self.revision.probes;
        // A start is over for what has been ready once.
        let later = Probes { startup: None, ..probes.clone() };
        let mut waiting: Vec<(InstanceId, SocketAddr, Probes)> = Vec::new();
        for instance in self.instances.values_mut().filter(|instance| !instance.outdated) {
            instance.probed = false;
            match &instance.phase {
                Phase::Probing(address) => waiting.push((instance.id, *address, probes.clone())),
                Phase::Unready { endpoint, .. } => {
                    waiting.push((instance.id, endpoint.address, later.clone()));
                }
                // The next look has them asked.
                Phase::Ready { .. } => {}
                Phase::Starting | Phase::Draining { .. } | Phase::Frozen { .. } | Phase::Stopping => {}
            }
        }
        for (id, address, probes) in waiting {
            if probes.startup.is_none() && probes.readiness.is_none() {
                self.probed(now, id, Word::Ready, floor);
            } else {
                self.probe(id, address, probes, false, floor);
            }
        }
    }
}

/// Whether instances of the one are not what instances of the other would be.
fn runs_otherwise(one: &Revision, other: &Revision) -> bool {
    let program =
        |of: &Revision| (of.command.clone(), of.env.clone(), of.directory.clone(), of.protocol, of.resources);
    program(one) != program(other)
}
