//! All revisions and their instances: which event concerns whom, and what they share.
//!
//! Synchronous, with time as an argument: the task around it waits, this decides.

use super::Setup;
use super::asleep::{Asleep, Kinds};
use super::instance::{Instance, Phase};
use super::memory::Memory;
use super::pace::Bucket;
use super::probe::{Probing, Word, lasts};
use super::unit::Unit;
use crate::autoscaler::{Demand, Flavour, Kpa};
use crate::clock::{Duration, Instant};
use crate::cluster::Registry;
use crate::driver::{Driver, Event, InstanceId};
use crate::fault::Kind;
use crate::telemetry::{FunctionMetrics, Seldom, Telemetry};
use proxy_config::model::Revision;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Arrivals within so long of the last look at their hold are looked at together.
const TOGETHER: Duration = Duration::from_millis(2);
/// So long a busy instance may finish its work for a function that has none, until another one has to go for it too.
const PATIENCE: Duration = Duration::from_secs(10);

/// What revisions share.
pub(super) struct Floor {
    pub driver: Box<dyn Driver>,
    /// Instances of all revisions together, at most.
    pub ceiling: u32,
    /// Instances that were ordered and have not ended.
    pub live: u32,
    /// Instances that may be starting at a time; 0: no limit.
    at_once: u32,
    /// Instances that are starting.
    starting: u32,
    /// What may be started of all revisions together in a while.
    pub pace: Bucket,
    /// Probes to be started.
    pub probes: Vec<Probing>,
    /// Starts that were put off since this was read.
    pub put_off: u64,
    pub random: fastrand::Rng,
    /// What instances have in memory.
    pub memory: Memory,
    owners: HashMap<InstanceId, Arc<str>>,
    next: InstanceId,
}

impl Floor {
    /// How many more instances may be started.
    pub fn room(&self) -> u32 {
        self.ceiling.saturating_sub(self.live)
    }

    /// How many more may begin to start.
    pub fn starts(&self) -> u32 {
        if self.at_once == 0 { u32::MAX } else { self.at_once.saturating_sub(self.starting) }
    }

    /// Counts those of `unit` that are starting.
    fn count(&mut self, unit: &mut Unit) {
        let now = unit.count(Instance::is_starting);
        let before = std::mem::replace(&mut unit.counted, now);
        self.starting = (self.starting + now).saturating_sub(before);
    }

    /// A number for one more instance of revision `key`.
    pub fn order(&mut self, key: Arc<str>) -> InstanceId {
        self.next += 1;
        self.live += 1;
        self.owners.insert(self.next, key);
        self.next
    }
}

pub(super) struct Fleet {
    pub units: BTreeMap<Arc<str>, Unit>,
    /// Revisions that were never asked for: nothing is known of them but what is written.
    asleep: HashMap<Arc<str>, Asleep>,
    kinds: Kinds,
    pub floor: Floor,
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    flavour: Flavour,
    /// Starts a second of one revision.
    pace: f64,
    holds: HashMap<u64, Arc<str>>,
    ending: bool,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("units", &self.units.len()).field("live", &self.floor.live).finish()
    }
}

impl Fleet {
    pub fn new(setup: Setup, driver: Box<dyn Driver>) -> Fleet {
        let floor = Floor {
            driver,
            ceiling: setup.ceiling,
            live: 0,
            at_once: setup.pace.at_once,
            starting: 0,
            pace: Bucket::new(setup.pace.process, setup.ceiling.saturating_mul(2)),
            probes: Vec::new(),
            put_off: 0,
            random: fastrand::Rng::new(),
            memory: Memory::default(),
            owners: HashMap::new(),
            next: 0,
        };
        Fleet {
            units: BTreeMap::new(),
            asleep: HashMap::new(),
            kinds: Kinds::default(),
            floor,
            registry: setup.registry,
            telemetry: setup.telemetry,
            flavour: setup.flavour,
            pace: setup.pace.function,
            holds: HashMap::new(),
            ending: false,
        }
    }

    pub fn running(&self) -> u32 {
        self.floor.live
    }

    /// Whether it was told to end and has.
    pub fn is_over(&self) -> bool {
        self.ending && self.floor.live == 0
    }

    pub fn take_probes(&mut self) -> Vec<Probing> {
        std::mem::take(&mut self.floor.probes)
    }

    /// These revisions exist from now on, and for now whatever else did.
    pub fn expect(&mut self, now: Instant, revisions: &[Arc<Revision>]) {
        if self.ending {
            return;
        }
        let mut new = Vec::new();
        for revision in revisions {
            match (self.units.get_mut(revision.key.as_str()), self.asleep.get(revision.key.as_str())) {
                (Some(unit), _) => unit.update(now, revision, &mut self.floor),
                (None, Some(asleep)) if asleep.unfold(&revision.key) == **revision => {}
                (None, _) => new.push(revision),
            }
        }
        let keys: Vec<_> = self.units.keys().cloned().collect();
        keys.iter().for_each(|key| self.look(now, key));
        // One by one, as most fall asleep at once.
        for revision in new {
            self.add(now, Revision::clone(revision));
            self.look(now, &revision.key.as_str().into());
        }
    }

    /// No revision but these exists any more.
    pub fn retain(&mut self, now: Instant, revisions: &[Arc<Revision>]) {
        if self.ending {
            return;
        }
        let stay: HashSet<&str> = revisions.iter().map(|revision| revision.key.as_str()).collect();
        let gone = |key: &&Arc<str>| !stay.contains(&***key);
        // One that sleeps leaves as all do: somebody may just have begun to wait.
        let asleep: Vec<_> = self.asleep.keys().filter(gone).cloned().collect();
        asleep.iter().for_each(|key| self.wake(now, key));
        let leaving: Vec<_> = self.units.keys().filter(gone).cloned().collect();
        for key in leaving {
            if let Some(unit) = self.units.get_mut(&key) {
                unit.removed.get_or_insert(now);
            }
            self.look(now, &key);
        }
    }

    fn add(&mut self, now: Instant, revision: Revision) {
        let metrics = self.telemetry.function(revision.key.as_str());
        let Some(unit) = self.unit(now, revision, metrics) else { return };
        let key = unit.members.key.clone();
        self.asleep.remove(&key);
        self.holds.insert(unit.hold.number(), key.clone());
        self.units.insert(key, unit);
    }

    /// A revision of which nothing is known yet.
    fn unit(&self, now: Instant, revision: Revision, metrics: Arc<Seldom<FunctionMetrics>>) -> Option<Unit> {
        let members = self.registry.revision(&revision.key);
        let hold = members.hold().cloned()?;
        let kpa = Kpa::of(self.flavour, &revision, now);
        let pace = Bucket::new(self.pace, self.floor.ceiling);
        Some(Unit::new(Arc::new(revision), members, hold, metrics, kpa, pace))
    }

    /// Somebody asks for it.
    fn wake(&mut self, now: Instant, key: &Arc<str>) {
        if let Some(asleep) = self.asleep.remove(key) {
            self.add(now, asleep.unfold(key));
        }
    }

    /// As it would be if it were awake, to be looked at.
    fn dreamt(&self, now: Instant, key: &Arc<str>, asleep: &Asleep) -> Option<Unit> {
        let known = self.telemetry.function(key.clone());
        let metrics = if known.seen().is_some() { known } else { Arc::default() };
        self.unit(now, asleep.unfold(key), metrics)
    }

    /// What is told of each revision, in order of their keys.
    pub fn each<T>(&self, now: Instant, tell: impl Fn(&Unit) -> T) -> Vec<T> {
        let awake = self.units.iter().map(|(key, unit)| (key, tell(unit)));
        let asleep =
            self.asleep.iter().filter_map(|(key, one)| Some((key, tell(&self.dreamt(now, key, one)?))));
        let mut all: Vec<_> = awake.chain(asleep).collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, told)| told).collect()
    }

    /// Somebody began to wait. The first is seen at once; those who come right after are seen together, so
    /// that a queue at its limit does not keep this thread busy.
    pub fn rung(&mut self, now: Instant, hold: u64) {
        let Some(key) = self.holds.get(&hold).cloned() else { return };
        self.wake(now, &key);
        let Some(unit) = self.units.get_mut(&key) else { return };
        match unit.looked.map(|looked| looked + TOGETHER).filter(|soon| *soon > now) {
            Some(soon) => unit.next = Some(unit.next.map_or(soon, |next| next.min(soon))),
            None => self.look(now, &key),
        }
    }

    /// Another holder says what it wants. An older report than one that is known changes nothing.
    pub fn demanded(&mut self, now: Instant, demand: Demand) {
        let key = demand.revision.clone();
        self.wake(now, &key);
        if self.units.get_mut(&key).is_some_and(|unit| unit.ledger.note(now, demand)) {
            self.look(now, &key);
        }
    }

    /// Something happened to an instance.
    pub fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Started { instance, pid, stderr } => {
                self.with(now, instance, |unit, _| {
                    if let Some(instance) = unit.instances.get_mut(&instance) {
                        instance.pid = pid;
                        instance.stderr = stderr;
                        instance.spawned = Some(now);
                    }
                });
            }
            Event::Listening { instance, address, first } => {
                self.with(now, instance, |unit, floor| {
                    unit.listening(now, instance, (address, first), floor);
                });
            }
            Event::Exited { instance, exit } => {
                self.floor.live = self.floor.live.saturating_sub(1);
                let own = self.floor.owners.remove(&instance);
                if let Some(unit) = own.as_ref().and_then(|key| self.units.get_mut(key)) {
                    unit.exited(now, instance, exit, &mut self.floor);
                    self.floor.count(unit);
                }
                self.share(now, own.as_ref());
            }
        }
    }

    /// There is room again, because an instance of `own` has ended or is ready: those who have nothing get it first, of them
    /// those who have waited longest.
    fn share(&mut self, now: Instant, own: Option<&Arc<str>>) {
        let wants = |(key, unit): &(&Arc<str>, &Unit)| unit.starved || own == Some(*key);
        // Who has no oldest waits for nothing.
        let place = |unit: &Unit| {
            let oldest = unit.hold.oldest();
            (unit.present() > 0, oldest.is_none(), oldest)
        };
        let wanting = self.units.iter().filter(wants);
        let mut order: Vec<_> = wanting.map(|(key, unit)| (place(unit), key.clone())).collect();
        order.sort_unstable();
        order.iter().for_each(|(_, key)| self.look(now, key));
    }

    /// The probes of an instance say something.
    pub fn probed(&mut self, now: Instant, instance: InstanceId, word: Word) {
        self.with(now, instance, |unit, floor| unit.probed(now, instance, word, floor));
    }

    /// Whether an instance's probes are still to be asked. Those that are not may be asked again later.
    pub fn listens_to_probes(&mut self, id: InstanceId) -> bool {
        let unit = self.floor.owners.get(&id).and_then(|key| self.units.get_mut(key));
        let Some(unit) = unit else { return false };
        let lasts = lasts(&unit.revision.probes);
        let Some(instance) = unit.instances.get_mut(&id) else { return false };
        instance.probed = instance.listens_to_probes() && (lasts || instance.ready().is_none());
        instance.probed
    }

    fn with(&mut self, now: Instant, instance: InstanceId, f: impl FnOnce(&mut Unit, &mut Floor)) {
        let Some(key) = self.floor.owners.get(&instance).cloned() else { return };
        let Some(unit) = self.units.get_mut(&key) else { return };
        f(unit, &mut self.floor);
        self.floor.count(unit);
        if self.floor.at_once > 0 {
            // Another may have waited for it.
            self.share(now, Some(&key));
        } else {
            self.look(now, &key);
        }
    }

    /// When `tick` is wanted.
    pub fn next(&self) -> Option<Instant> {
        self.units.values().filter_map(|unit| unit.next).min()
    }

    /// Looks at those whose time has come.
    pub fn tick(&mut self, now: Instant) {
        let due = |unit: &Unit| unit.next.is_some_and(|next| next <= now);
        let keys: Vec<_> = self.units.iter().filter(|(_, u)| due(u)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.look(now, key));
    }

    fn look(&mut self, now: Instant, key: &Arc<str>) {
        let Some(unit) = self.units.get_mut(key) else { return };
        if self.ending {
            unit.hold.looked_at();
            unit.members.refuse(Kind::Removed);
            unit.next = None;
            return;
        }
        let short = unit.look(now, &mut self.floor);
        self.floor.count(unit);
        if unit.is_forgotten(now) {
            unit.close(now);
            self.holds.remove(&unit.hold.number());
            self.units.remove(key);
        } else if short > 0 && unit.hold.waiting() > 0 {
            self.make_room(now, key, short);
        } else if unit.is_untouched() {
            self.asleep.insert(key.clone(), Asleep::fold(&unit.revision, &mut self.kinds));
            self.units.remove(key);
        }
        let (metrics, room) = (&self.telemetry.metrics, self.registry.room());
        metrics.instances.set(i64::from(self.floor.live));
        metrics.starts_left.set(self.floor.pace.level() as i64);
        metrics.starts_put_off.inc_by(std::mem::take(&mut self.floor.put_off));
        metrics.held.set(i64::try_from(room.held()).unwrap_or(i64::MAX));
        metrics.held_bytes.set(i64::try_from(room.bytes()).unwrap_or(i64::MAX));
    }

    /// Ends up to `count` frozen or else idle instances of other revisions, the longest unused first, because this one has
    /// requests waiting and the process has no room.
    fn make_room(&mut self, now: Instant, key: &Arc<str>, count: u32) {
        let (mut idle, mut frozen) = (Vec::new(), Vec::new());
        for (other, unit) in &self.units {
            let asleep = unit.instances.values().filter_map(|i| Some((i.frozen()?, i.id, other.clone())));
            frozen.extend(asleep);
            // What is ending already will make room too.
            if other == key || unit.hold.waiting() > 0 {
                continue;
            }
            let spare = unit.present().saturating_sub(unit.terms.min) as usize;
            let ready = unit.instances.values().filter(|i| i.ready().is_some_and(|e| e.active() == 0));
            idle.extend(ready.map(|i| (i.used, i.id, other.clone())).take(spare));
        }
        idle.sort_unstable();
        frozen.sort_unstable();
        let of_all =
            |is: &dyn Fn(&Instance) -> bool| -> u32 { self.units.values().map(|u| u.count(is)).sum() };
        // What finishes its work first may do so for long.
        let ending = of_all(&|one| matches!(one.phase, Phase::Stopping));
        let finishing = of_all(&|one| one.finishes_since(now).is_some_and(|length| length < PATIENCE));
        let mut wanted = count.saturating_sub(ending) as usize;
        for (_, id, other) in frozen.into_iter().take(wanted) {
            if let Some(unit) = self.units.get_mut(&other) {
                unit.give_room(id, &mut self.floor);
                wanted -= 1;
            }
        }
        let found = idle.len();
        for (_, id, other) in idle.into_iter().take(wanted) {
            if let Some(unit) = self.units.get_mut(&other) {
                unit.retire(now, id, &mut self.floor);
                unit.give_room(id, &mut self.floor);
            }
        }
        let more = wanted > finishing as usize && found == 0;
        if more && self.units.get(key).is_some_and(|unit| unit.present() == 0) {
            self.take_from_the_richest(now);
        }
    }

    /// Lets an instance of the revision that has the most finish and go, because another has none: it would
    /// wait for as long as others have more to do than all there may be can.
    fn take_from_the_richest(&mut self, now: Instant) {
        let spare = |unit: &&mut Unit| unit.count(|one| one.ready().is_some()) > unit.terms.min.max(1);
        if let Some(unit) = self.units.values_mut().filter(spare).max_by_key(|unit| unit.present()) {
            unit.give_one_up(now, &mut self.floor);
        }
    }

    /// Ends every instance.
    pub fn end(&mut self, now: Instant, grace: Duration) {
        self.ending = true;
        for unit in self.units.values_mut() {
            unit.end(now, grace, &mut self.floor);
        }
    }
}
