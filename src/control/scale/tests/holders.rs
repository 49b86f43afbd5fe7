//! Several holders, one scaler: what they say, what is started for it, and who gets what comes free.

use super::*;
use crate::clock::wound;
use crate::cluster::Holder;

/// How long a holder's word counts.
const LASTS: Duration = Duration::from_secs(2);

/// A function and three holders, none of which is this process's own.
struct Three {
    world: World,
    holders: Vec<Option<Holder>>,
    waiting: Vec<(usize, Ticket<Slot>)>,
    working: Vec<(usize, Slot)>,
    random: fastrand::Rng,
}

impl Three {
    fn new(revision: Revision, seed: u64) -> Three {
        let name = revision.name.clone();
        let mut world = World::new(64, &[revision]);
        world.now = clock::now();
        wound::set(world.now);
        let join = |number| Some(Holder::join(number, &world.members(&name), Arc::default(), Arc::default()));
        let holders = (1..=3).map(join).collect();
        Three {
            world,
            holders,
            waiting: Vec::new(),
            working: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn ask(&mut self, holder: usize) {
        let now = self.world.now;
        let Some(holds) = &self.holders[holder] else { return };
        let mut rng = Rng::with_seed(1);
        match holds.take_or_wait(Balance::LeastRequest, &mut rng, Ask::at(now)).unwrap() {
            Taken::Slot(slot) => self.working.push((holder, slot)),
            Taken::Wait(ticket) => self.waiting.push((holder, ticket)),
        }
        self.check();
    }

    /// Every holder that lives says what it wants.
    fn say(&mut self) {
        for holder in self.holders.iter().flatten() {
            let demand = holder.demand(self.world.now, LASTS);
            self.world.fleet.demanded(self.world.now, demand);
        }
        self.check();
    }

    fn wind(&mut self, length: Duration) {
        let end = self.world.now + length;
        while self.world.now < end {
            self.world.wind(Duration::from_millis(100).min(end - self.world.now));
            wound::set(self.world.now);
            self.say();
        }
    }

    /// The slots that were granted are taken up.
    fn take_up(&mut self) {
        for at in (0..self.waiting.len()).rev() {
            if let Some(slot) = answer(&mut self.waiting[at].1) {
                let (holder, _) = self.waiting.remove(at);
                self.working.push((holder, slot.unwrap()));
            }
        }
    }

    fn finish(&mut self) {
        if !self.working.is_empty() {
            let at = self.random.usize(..self.working.len());
            drop(self.working.swap_remove(at));
        }
        self.check();
    }

    /// Never two in flight on one, and none idle while somebody waits.
    fn check(&mut self) {
        self.take_up();
        let endpoints = self.world.members("hello").endpoints();
        assert!(endpoints.iter().all(|endpoint| endpoint.active() <= 1), "two at once");
        let idle = endpoints.iter().filter(|endpoint| endpoint.has_room()).count();
        assert!(idle == 0 || self.waiting.is_empty(), "{idle} idle while {} wait", self.waiting.len());
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        wound::clear();
    }
}

#[test]
fn three_holders_get_exactly_the_instances_that_they_need_together() {
    let mut three = Three::new(revision("hello", 1, 0), 1);
    for holder in [0, 0, 1, 2, 2, 2, 0] {
        three.ask(holder);
    }
    three.say();
    assert_eq!(three.world.started().len(), 7);
    three.say();
    three.wind(SECOND);
    assert_eq!(three.world.started().len(), 7, "said again it is the same");
    for instance in three.world.started() {
        three.world.listen(instance);
        three.check();
    }
    assert_eq!((three.working.len(), three.waiting.len()), (7, 0));
    three.wind(5 * SECOND);
    assert_eq!((three.world.started().len(), three.world.stopped().len()), (7, 0), "in flight counts once");
}

#[test]
fn with_three_holders_at_max_scale_no_instance_is_idle_or_doubly_used() {
    for seed in 0..50 {
        let mut three = Three::new(revision("hello", 1, 3), seed);
        for _ in 0..400 {
            match three.random.u32(..10) {
                0..4 => {
                    let holder = three.random.usize(..3);
                    three.ask(holder);
                }
                4..8 => three.finish(),
                8 => {
                    three.say();
                    let started = three.world.started();
                    started.into_iter().for_each(|instance| three.world.listen(instance));
                    three.check();
                }
                _ => {
                    if !three.waiting.is_empty() {
                        let at = three.random.usize(..three.waiting.len());
                        drop(three.waiting.swap_remove(at));
                        three.check();
                    }
                }
            }
        }
        assert!(three.world.started().len() <= 3, "seed {seed}");
        while !(three.working.is_empty() && three.waiting.is_empty()) {
            three.say();
            let started = three.world.started();
            started.into_iter().for_each(|instance| three.world.listen(instance));
            three.finish();
        }
    }
}

#[test]
fn who_has_waited_longest_is_served_first_in_whichever_line() {
    let mut three = Three::new(revision("hello", 1, 1), 1);
    for holder in [2, 0, 1, 0] {
        three.ask(holder);
        three.wind(Duration::from_millis(100));
    }
    three.world.listen(1);
    let mut served = Vec::new();
    while !(three.working.is_empty() && three.waiting.is_empty()) {
        three.check();
        served.extend(three.working.iter().map(|(holder, _)| *holder));
        three.finish();
    }
    assert_eq!(served, [2, 0, 1, 0]);
}

#[test]
fn what_a_dead_holder_wanted_expires() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.window = 6 * SECOND;
    let mut three = Three::new(hello, 1);
    (0..4).for_each(|_| three.ask(0));
    three.ask(1);
    three.say();
    assert_eq!(three.world.started().len(), 5);
    for instance in three.world.started() {
        three.world.listen(instance);
    }
    three.check();
    // The first dies with all it had in flight; nobody says that it wants nothing.
    three.holders[0] = None;
    three.working.retain(|(holder, _)| *holder != 0);
    three.wind(SECOND);
    assert!(three.world.stopped().is_empty(), "its word still counts");
    three.wind(12 * SECOND);
    assert_eq!(three.world.stopped().len(), 4, "then one is wanted, and the window is over");
    let late = three.holders[1].as_ref().unwrap();
    let mut demand = late.demand(three.world.now, LASTS);
    (demand.generation, demand.queued) = (1, 100);
    three.world.fleet.demanded(three.world.now, demand);
    assert_eq!(three.world.started().len(), 5, "an old word that comes late is not heard");
}

#[test]
fn who_waits_with_another_holder_is_told_what_those_here_are_told() {
    let mut three = Three::new(revision("hello", 1, 0), 1);
    three.ask(1);
    three.say();
    three.world.exit(1);
    let (_, mut ticket) = three.waiting.remove(0);
    assert_eq!(fault(&mut ticket), Some(Kind::Crashed));
}
