//! Who waits for a slot gets it, whoever frees, starts, stops, leaves or comes meanwhile, in whatever order
//! the steps of all of them happen.
//!
//! Each test runs under a scheduler that chooses which thread makes its next step. A thread that waits for
//! ever is a deadlock, which the scheduler reports with the order that led to it. `PILOTLIGHT_ORDERS` says how
//! many orders are tried (2,000 otherwise; 100,000 take some minutes).

// An unmet expectation is a panic.
#![allow(clippy::unwrap_used)]

use pilotlight_interleavings::activator::{Ask, Bell, Hold, HoldLimits, Parked, Room, Ticket};
use pilotlight_interleavings::clock;
use pilotlight_interleavings::cluster::{Dismissed, Endpoint, Gate, Holder, Members, Rng, Slot, Taken};
use pilotlight_interleavings::fault::Kind;
use proxy_config::model::Balance;
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Half of the orders at random, half with few, well-placed interruptions (Burckhardt et al., "A Randomized
/// Scheduler with Probabilistic Guarantees of Finding Bugs", ASPLOS 2010).
fn in_every_order(act: impl Fn() + Send + Sync + Clone + 'static) {
    let orders = std::env::var("PILOTLIGHT_ORDERS").ok().and_then(|count| count.parse().ok());
    let orders: usize = orders.unwrap_or(2_000);
    let act = move || {
        // Whatever draws lots draws the same ones again when an order is replayed.
        fastrand::seed(1);
        act();
    };
    shuttle::check_random(act.clone(), orders.div_ceil(2));
    shuttle::check_pct(act, orders.div_ceil(2), 3);
}

fn hold<G>(bell: &Arc<Bell>, room: &Arc<Room>) -> Arc<Hold<G>> {
    Hold::new(HoldLimits::default(), bell.clone(), room.clone())
}

fn endpoint(number: u16, limit: u32) -> Arc<Endpoint> {
    Endpoint::new(SocketAddr::from(([127, 0, 0, 1], number)), "one".into(), 1, limit)
}

/// A function, its scaler's bell, and what is known of those who use it.
struct World {
    members: Arc<Members>,
    bell: Arc<Bell>,
    room: Arc<Room>,
    served: AtomicUsize,
    over: AtomicBool,
    /// Instances that were told to end: nothing may begin there any more.
    ended: [AtomicBool; 8],
    started: AtomicU32,
}

impl World {
    fn new() -> Arc<World> {
        let (bell, room) = (Arc::new(Bell::new()), Arc::new(Room::default()));
        Arc::new(World {
            members: Members::started("default/hello-1".into(), hold(&bell, &room)),
            bell,
            room,
            served: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            ended: Default::default(),
            started: AtomicU32::new(0),
        })
    }

    fn waiting(&self) -> usize {
        self.members.hold().unwrap().waiting()
    }

    /// An instance that is ready at once.
    fn start(&self, limit: u32) -> Arc<Endpoint> {
        let number = self.started.fetch_add(1, SeqCst);
        let endpoint = endpoint(number as u16, limit);
        self.members.insert(endpoint.clone());
        self.members.offer();
        endpoint
    }

    fn take(&self) -> Result<Taken, Kind> {
        let mut rng = Rng::with_seed(1);
        let now = clock::now();
        self.members.take_or_wait(Balance::LeastRequest, None, &mut rng, &[], || Ok(Ask::at(now)))
    }

    /// One exchange, from its asking to its end.
    fn exchange(&self) {
        let slot = match self.take().unwrap() {
            Taken::Slot(slot) => slot,
            Taken::Wait(ticket) => block_on(ticket).unwrap(),
        };
        self.work(&slot);
        drop(slot);
        self.served.fetch_add(1, SeqCst);
    }

    fn work(&self, slot: &Slot) {
        let at = slot.endpoint();
        assert!(at.active() >= 1 && (at.limit() == 0 || at.active() <= at.limit()), "more than may be");
        let number = usize::from(at.address.port());
        assert!(!self.ended[number].load(SeqCst), "sent to an instance that was told to end");
        thread::yield_now();
        assert!(!self.ended[number].load(SeqCst), "an instance was told to end at its work");
    }

    /// One exchange whose client leaves at some moment.
    fn leaver(&self) {
        match self.take().unwrap() {
            Taken::Slot(slot) => self.work(&slot),
            Taken::Wait(mut ticket) => {
                thread::yield_now();
                let _ = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
                thread::yield_now();
            }
        }
    }

    /// Hears the bell until all is over, and looks as the scaler does.
    fn scaler(&self, mut look: impl FnMut()) {
        while !self.over.load(SeqCst) {
            block_on(self.bell.rung());
            for number in self.bell.take() {
                let hold = self.members.hold().unwrap();
                assert_eq!(number, hold.number());
                hold.looked_at();
                look();
            }
        }
    }

    fn end(&self, scaler: thread::JoinHandle<()>, served: usize) {
        self.over.store(true, SeqCst);
        self.bell.ring();
        scaler.join().unwrap();
        assert_eq!(self.served.load(SeqCst), served);
        assert_eq!((self.waiting(), self.members.in_flight()), (0, 0), "all that was held was given back");
        assert_eq!((self.room.held(), self.room.bytes()), (0, 0));
    }
}

fn spawn(world: &Arc<World>, act: fn(&World)) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || act(&world))
}

#[test]
fn who_begins_to_wait_while_nothing_runs_is_heard_and_served() {
    in_every_order(|| {
        let world = World::new();
        let threads: Vec<_> = (0..3).map(|_| spawn(&world, World::exchange)).collect();
        let scaler = spawn(&world, |world| {
            world.scaler(|| {
                if world.waiting() > 0 && world.members.is_empty() {
                    world.start(1);
                }
            });
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(world.started.load(SeqCst), 1, "one start, whoever came first");
        world.end(scaler, 3);
    });
}

#[test]
fn a_slot_that_is_freed_while_somebody_begins_to_wait_is_not_left_idle() {
    in_every_order(|| {
        let world = World::new();
        world.start(2);
        let threads: Vec<_> = (0..5).map(|_| spawn(&world, World::exchange)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.end(thread::spawn(|| {}), 5);
    });
}

#[test]
fn of_several_holders_none_waits_while_a_slot_is_idle() {
    in_every_order(|| {
        let world = World::new();
        world.start(1);
        let join =
            |number| Arc::new(Holder::join(number, &world.members, world.bell.clone(), world.room.clone()));
        let holders = [join(1), join(2)];
        let asks = |holder: Arc<Holder>| {
            let world = world.clone();
            thread::spawn(move || {
                let (mut rng, ask) = (Rng::with_seed(1), Ask::at(clock::now()));
                let slot = match holder.take_or_wait(Balance::LeastRequest, &mut rng, ask).unwrap() {
                    Taken::Slot(slot) => slot,
                    Taken::Wait(ticket) => block_on(ticket).unwrap(),
                };
                world.work(&slot);
                drop(slot);
                world.served.fetch_add(1, SeqCst);
            })
        };
        let mut threads: Vec<_> = holders.iter().map(|holder| asks(holder.clone())).collect();
        threads.push(asks(holders[0].clone()));
        threads.push(spawn(&world, World::exchange));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(world.members.in_flight_of_others(), 0);
        world.end(thread::spawn(|| {}), 4);
    });
}

#[test]
fn who_leaves_gives_its_slot_to_the_next() {
    in_every_order(|| {
        let world = World::new();
        let leavers: Vec<_> = (0..2).map(|_| spawn(&world, World::leaver)).collect();
        let stayers: Vec<_> = (0..2).map(|_| spawn(&world, World::exchange)).collect();
        let starter = spawn(&world, |world| drop(world.start(1)));
        for thread in leavers.into_iter().chain(stayers).chain([starter]) {
            thread.join().unwrap();
        }
        world.end(thread::spawn(|| {}), 2);
    });
}

/// Three requests around the end of the last instance, which takes so many at once (0: any number).
fn meet_the_end(limit: u32) {
    in_every_order(move || {
        let world = World::new();
        let first = world.start(limit);
        let scaler = {
            let world = world.clone();
            thread::spawn(move || {
                let mut last = Some(first);
                let gone = |endpoint: Arc<Endpoint>| match world.members.dismiss(&endpoint, true) {
                    Dismissed::Idle => {
                        world.ended[usize::from(endpoint.address.port())].store(true, SeqCst);
                        // Without a limit a place is taken to be looked at, and given back.
                        let began = limit > 0 && endpoint.active() > 0;
                        assert!(!began, "something began there after it was dismissed");
                        None
                    }
                    // It goes on, or would be looked at again when its work is done.
                    Dismissed::Wanted => Some(endpoint),
                    Dismissed::Busy => {
                        endpoint.reopen();
                        world.members.insert(endpoint.clone());
                        world.members.offer();
                        Some(endpoint)
                    }
                };
                last = last.and_then(gone);
                world.scaler(|| {
                    if last.is_none() && world.waiting() > 0 {
                        last = Some(world.start(limit));
                    }
                });
            })
        };
        let threads: Vec<_> = (0..3).map(|_| spawn(&world, World::exchange)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(world.started.load(SeqCst) <= 2, "one more start at most");
        world.end(scaler, 3);
    });
}

#[test]
fn requests_that_meet_the_end_of_the_last_instance_are_served_by_it_or_by_the_next() {
    meet_the_end(1);
}

#[test]
fn requests_that_meet_the_end_of_an_instance_without_a_limit_are_served_by_it_or_by_the_next() {
    meet_the_end(0);
}

#[test]
fn an_instance_that_somebody_waited_for_does_not_end() {
    in_every_order(|| {
        let world = World::new();
        let only = world.start(1);
        let Ok(Taken::Slot(working)) = world.take() else { panic!("it is free") };
        let worker = thread::spawn(move || drop(working));
        let waiter = {
            let (world, only) = (world.clone(), only.clone());
            thread::spawn(move || {
                let taken = world.take().unwrap();
                // It was there while the instance still took requests.
                let before = !only.is_closed();
                (taken, before)
            })
        };
        let outcome = world.members.dismiss(&only, true);
        worker.join().unwrap();
        let (taken, before) = waiter.join().unwrap();
        if let Taken::Wait(mut ticket) = taken {
            let answer = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
            // One that is busy takes requests again when it is seen that somebody waits.
            let ended = outcome == Dismissed::Idle;
            assert!(!ended || !before || answer.is_ready(), "it ends although somebody waited for it");
        }
    });
}

#[test]
fn who_comes_after_the_scaler_has_looked_is_heard_again() {
    in_every_order(|| {
        let world = World::new();
        // The scaler does one thing at a time.
        let one_at_a_time = Arc::new(shuttle::sync::Mutex::new(()));
        let scaler = {
            let (world, one_at_a_time) = (world.clone(), one_at_a_time.clone());
            thread::spawn(move || {
                world.scaler(|| {
                    let _locked = one_at_a_time.lock().unwrap();
                    if world.waiting() > 0 && world.members.is_empty() {
                        world.start(1);
                    }
                });
            })
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                spawn(&world, |world| {
                    world.exchange();
                    world.exchange();
                })
            })
            .collect();
        for _ in 0..3 {
            let locked = one_at_a_time.lock().unwrap();
            if let Some(endpoint) = world.members.endpoints().first()
                && world.members.dismiss(endpoint, true) == Dismissed::Idle
            {
                world.ended[usize::from(endpoint.address.port())].store(true, SeqCst);
            }
            drop(locked);
            thread::yield_now();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.end(scaler, 4);
    });
}

#[test]
fn newcomers_take_no_place_that_becomes_free_while_others_wait() {
    in_every_order(|| {
        let world = World::new();
        let only = world.start(1);
        let Ok(Taken::Slot(working)) = world.take() else { panic!("it is free") };
        let Ok(Taken::Wait(mut first)) = world.take() else { panic!("it is busy") };
        // There is room for two from now on; who waits is told a little later.
        let releaser = {
            let world = world.clone();
            thread::spawn(move || {
                only.set_limit(2);
                thread::yield_now();
                world.members.offer();
                drop(working);
            })
        };
        let taken = world.take().unwrap();
        let answer = Pin::new(&mut first).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(taken, Taken::Wait(_)) || answer.is_ready(), "somebody was passed");
        releaser.join().unwrap();
        drop(answer);
        if let Taken::Wait(ticket) = taken {
            block_on(ticket).unwrap();
        }
    });
}

/// Takes the one slot there is, if it is free.
fn take(free: &AtomicU32) -> Option<u32> {
    (free.swap(0, SeqCst) == 1).then_some(1)
}

fn park(hold: &Arc<Hold<u32>>, free: &AtomicU32) -> Option<Ticket<u32>> {
    match hold.park(Ask::at(clock::now()), || take(free)).unwrap() {
        Parked::Now(_) => None,
        Parked::Wait(ticket) => Some(ticket),
    }
}

#[test]
fn newcomers_never_pass_those_who_wait() {
    in_every_order(|| {
        let hold: Arc<Hold<u32>> = hold(&Arc::new(Bell::new()), &Arc::new(Room::default()));
        let free = Arc::new(AtomicU32::new(0));
        let turn = Arc::new(AtomicU32::new(0));
        let first = park(&hold, &free).expect("nothing is free");
        let releaser = {
            let (hold, free) = (hold.clone(), free.clone());
            thread::spawn(move || {
                // The one slot there is comes free, and once more when the first has had it.
                for _ in 0..2 {
                    free.store(1, SeqCst);
                    while free.load(SeqCst) == 1 {
                        hold.offer(clock::now(), || take(&free));
                        thread::yield_now();
                    }
                }
            })
        };
        let newcomer = {
            let (hold, free, turn) = (hold.clone(), free.clone(), turn.clone());
            thread::spawn(move || {
                if let Some(ticket) = park(&hold, &free) {
                    block_on(ticket).unwrap();
                }
                // The one who came first has been granted its slot, picked up or not.
                let left = hold.waiting();
                assert_eq!(left, 0, "somebody was passed");
                turn.fetch_add(1, SeqCst);
            })
        };
        block_on(first).unwrap();
        turn.fetch_add(1, SeqCst);
        releaser.join().unwrap();
        newcomer.join().unwrap();
        assert_eq!(turn.load(SeqCst), 2);
    });
}

#[test]
fn connections_are_never_more_than_may_be_and_who_waits_for_one_gets_it() {
    in_every_order(|| {
        let gate = Arc::new(Gate::default());
        let most = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..3)
            .map(|worker| {
                let (gate, most) = (gate.clone(), most.clone());
                thread::spawn(move || {
                    let mut again = false;
                    loop {
                        if let Some(permit) = gate.connection(1) {
                            assert_eq!(most.fetch_add(1, SeqCst), 0);
                            thread::yield_now();
                            most.fetch_sub(1, SeqCst);
                            drop(permit);
                            return;
                        }
                        let (waiter, first) = gate.wait(worker, again);
                        if first && let Some(permit) = gate.connection(1) {
                            drop(waiter);
                            assert_eq!(most.fetch_add(1, SeqCst), 0);
                            most.fetch_sub(1, SeqCst);
                            drop(permit);
                            return;
                        }
                        block_on(waiter).unwrap();
                        again = true;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((gate.waiting(), gate.counts().connections), (0, 0));
    });
}
