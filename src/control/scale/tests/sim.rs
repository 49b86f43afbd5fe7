//! Activator, autoscaler and slots together, without sockets: requests that arrive, wait, work and leave, and
//! instances that start, crash and end, all by a clock that is wound by hand and by choices of one seed.

use super::*;
use crate::clock::wound;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What happens at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Arrive(usize),
    Finish(usize),
    Leave(usize),
    Listen(InstanceId),
    Exit(InstanceId),
    Reload,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Served,
    /// It got a slot too late to be finished.
    Late,
    Left,
    Refused(Kind),
}

/// How requests and instances behave.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub revision: Revision,
    pub ceiling: u32,
    /// When each request arrives, how long it works and how long it waits.
    pub requests: Vec<(Duration, Duration, Duration)>,
    /// The shortest and the longest start, in milliseconds.
    pub start: (u64, u64),
    /// In a hundred starts.
    pub crashes: u32,
    pub reloads: Vec<Duration>,
}

pub(super) struct Sim {
    pub world: World,
    random: fastrand::Rng,
    script: Script,
    events: BinaryHeap<Reverse<(Instant, usize, What)>>,
    count: usize,
    begin: Instant,
    waiting: BTreeMap<usize, (Ticket<Slot>, Instant)>,
    working: BTreeMap<usize, Slot>,
    pub ends: BTreeMap<usize, End>,
    /// How long after its arrival each of those was refused that were.
    pub refused: Vec<Duration>,
    seen: (usize, usize),
    /// Instances that have not ended.
    live: Vec<InstanceId>,
    pub most_live: usize,
    /// The most that one instance had at once.
    pub peak: u32,
}

impl Sim {
    pub fn new(seed: u64, script: Script) -> Sim {
        // Whatever draws lots on this thread draws the same ones again.
        fastrand::seed(seed);
        let world = World::new(script.ceiling, std::slice::from_ref(&script.revision));
        let begin = world.now;
        wound::set(begin);
        let mut sim = Sim {
            world,
            random: fastrand::Rng::with_seed(seed),
            events: BinaryHeap::new(),
            count: 0,
            begin,
            waiting: BTreeMap::new(),
            working: BTreeMap::new(),
            ends: BTreeMap::new(),
            refused: Vec::new(),
            seen: (0, 0),
            live: Vec::new(),
            most_live: 0,
            peak: 0,
            script,
        };
        for id in 0..sim.script.requests.len() {
            sim.at(begin + sim.script.requests[id].0, What::Arrive(id));
        }
        for at in sim.script.reloads.clone() {
            sim.at(begin + at, What::Reload);
        }
        sim
    }

    fn at(&mut self, at: Instant, what: What) {
        self.count += 1;
        self.events.push(Reverse((at, self.count, what)));
    }

    /// Runs until nothing is to come any more, and looks whether the books balance.
    pub fn run(&mut self) {
        self.settle();
        while let Some(Reverse((at, _, what))) = self.events.pop() {
            // The scaler's own looks on the way, one at a time: each may start or grant something.
            while let Some(next) = self.world.fleet.next().filter(|next| *next < at) {
                self.wind(next);
                self.world.fleet.tick(next);
                self.settle();
                if self.events.peek().is_some_and(|Reverse((sooner, ..))| *sooner < at) {
                    break;
                }
            }
            if self.events.peek().is_some_and(|Reverse((sooner, ..))| *sooner < at) {
                self.at(at, what);
                continue;
            }
            self.wind(at);
            self.happen(what);
            self.settle();
        }
        assert!(self.waiting.is_empty() && self.working.is_empty());
        assert_eq!(self.ends.len(), self.script.requests.len(), "each request has one end");
        let room = self.world.registry.room();
        assert_eq!((room.held(), room.bytes()), (0, 0));
    }

    fn wind(&mut self, to: Instant) {
        self.world.now = self.world.now.max(to);
        wound::set(self.world.now);
    }

    fn happen(&mut self, what: What) {
        let now = self.world.now;
        match what {
            What::Arrive(id) => self.arrive(id),
            What::Finish(id) => {
                if self.working.remove(&id).is_some() {
                    let (arrived, _, patience) = self.script.requests[id];
                    let late = now > self.begin + arrived + patience;
                    self.end(id, if late { End::Late } else { End::Served });
                }
            }
            What::Leave(id) => {
                if self.waiting.remove(&id).is_some() {
                    self.end(id, End::Left);
                }
            }
            What::Listen(instance) => self.world.listen(instance),
            What::Exit(instance) => {
                if let Some(at) = self.live.iter().position(|one| *one == instance) {
                    self.live.swap_remove(at);
                    self.world.exit(instance);
                }
            }
            What::Reload => {
                let revision = &mut self.script.revision;
                revision.concurrency = self.random.u32(1..=3);
                revision.scale.max = self.random.u32(1..=6);
                self.world.fleet.apply(now, &shared(std::slice::from_ref(revision)));
            }
        }
    }

    fn arrive(&mut self, id: usize) {
        let now = self.world.now;
        let deadline = now + self.script.requests[id].2;
        let ask = Ask { deadline: Some(deadline), bytes: 100, ..Ask::at(now) };
        let members = self.world.members(&self.script.revision.name);
        let mut random = Rng::with_seed(self.random.u64(..));
        match members.take_or_wait(Balance::LeastRequest, None, &mut random, &[], || Ok(ask)) {
            Ok(Taken::Slot(slot)) => self.work(id, slot),
            Ok(Taken::Wait(ticket)) => {
                self.waiting.insert(id, (ticket, deadline));
                self.at(deadline, What::Leave(id));
            }
            Err(kind) => self.end(id, End::Refused(kind)),
        }
    }

    fn work(&mut self, id: usize, slot: Slot) {
        let active = slot.endpoint().active();
        self.peak = self.peak.max(active);
        let limit = slot.endpoint().limit();
        assert!(limit == 0 || active <= limit, "{active} at once where {limit} may be");
        self.at(self.world.now + self.script.requests[id].1, What::Finish(id));
        assert!(self.working.insert(id, slot).is_none(), "{id} was served twice");
    }

    fn end(&mut self, id: usize, end: End) {
        if matches!(end, End::Refused(_)) {
            let arrived = self.begin + self.script.requests[id].0;
            self.refused.push(self.world.now.saturating_duration_since(arrived));
        }
        assert_eq!(self.ends.insert(id, end), None, "{id} ended twice");
    }

    /// Lets everything happen that happens at once.
    fn settle(&mut self) {
        loop {
            let (started, stopped) = (self.world.started(), self.world.stopped());
            let before = (self.seen, self.waiting.len());
            started[self.seen.0..].iter().for_each(|instance| self.begin_start(*instance));
            stopped[self.seen.1..].iter().for_each(|instance| {
                let name = format!("hello/{instance}");
                let busy = self.working.values().any(|slot| *slot.endpoint().name == *name);
                assert!(!busy, "{name} is stopped at its work");
                let soon = Duration::from_millis(self.random.u64(0..50));
                self.at(self.world.now + soon, What::Exit(*instance));
            });
            self.seen = (started.len(), stopped.len());
            let now = self.world.now;
            for hold in self.world.bell.take() {
                self.world.fleet.rung(now, hold);
            }
            let ids: Vec<usize> = self.waiting.keys().copied().collect();
            for id in ids {
                let answered = self.waiting.get_mut(&id).and_then(|(ticket, _)| answer(ticket));
                let Some(answer) = answered else { continue };
                let (_, deadline) = self.waiting.remove(&id).unwrap();
                match answer {
                    // As the exchange does: what is too late is not begun.
                    Ok(_) if deadline <= now => self.end(id, End::Left),
                    Ok(slot) => self.work(id, slot),
                    Err(kind) => self.end(id, End::Refused(kind)),
                }
            }
            if (self.seen, self.waiting.len()) == before && self.world.started().len() == self.seen.0 {
                return;
            }
        }
    }

    fn begin_start(&mut self, instance: InstanceId) {
        self.live.push(instance);
        self.most_live = self.most_live.max(self.live.len());
        assert!(self.live.len() <= self.script.ceiling as usize, "more than the process may run");
        let took = Duration::from_millis(self.random.u64(self.script.start.0..=self.script.start.1));
        let at = self.world.now + took;
        if self.random.u32(0..100) < self.script.crashes {
            // While it starts, or some time after.
            let early = self.random.bool();
            self.at(at + Duration::from_millis(if early { 0 } else { 300 }), What::Exit(instance));
            if early {
                return;
            }
        }
        self.at(at, What::Listen(instance));
    }

    pub fn served(&self) -> usize {
        self.ends.values().filter(|end| **end == End::Served).count()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        wound::clear();
    }
}
