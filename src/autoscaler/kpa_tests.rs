//! Decision tables of Knative's arithmetic, both flavours side by side in the cases that made the
//! difference, and what must hold for any load.

use super::knative::{Observed, State, decide};
use super::*;
use crate::clock;
use proptest::prelude::*;
use proxy_config::model::{Metric, Scale};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A target of 10 without reserve, as in Knative's own examples.
fn ten() -> Scale {
    Scale { target: Some(10.0), utilization: 1.0, ..Scale::default() }
}

fn settings(scale: &Scale, concurrency: u32) -> Settings {
    Settings::new(scale, concurrency, true)
}

/// Averages (stable, panic) and ready instances -> wanted.
fn check(name: &str, settings: &Settings, (stable, panic): (f64, f64), ready: u32, want: u32) {
    let verdict = decide(clock::now(), settings, Observed { stable, panic }, ready, &mut State::default());
    assert_eq!(verdict.desired, want, "{name}");
}

#[test]
fn knatives_decisions_are_as_published() {
    let of = |scale: Scale| settings(&scale, 0);
    let global = |up_rate, down_rate| {
        let mut scale = Scale { target: Some(1.0), utilization: 1.0, ..Scale::default() };
        (scale.global.up_rate, scale.global.down_rate) = (up_rate, down_rate);
        settings(&scale, 0)
    };
    check("nothing", &of(ten()), (0.0, 0.0), 0, 0);
    check("a trace of traffic", &of(ten()), (0.000001, 0.0), 0, 1);
    check("stable", &of(ten()), (100.0, 100.0), 10, 10);
    check("rounded up", &of(ten()), (101.0, 101.0), 10, 11);
    check("panic from one", &of(ten()), (10.0, 100.0), 1, 10);
    check("below the threshold the short window is not asked", &of(ten()), (30.0, 50.0), 3, 3);
    check("at the threshold it is", &of(ten()), (30.0, 60.0), 3, 6);
    check("in panic the larger of the two", &of(ten()), (500.0, 100.0), 5, 50);
    check("70 % of 100", &of(Scale::default()), (141.0, 141.0), 2, 3);
    check("one request at a time wants two", &settings(&Scale::default(), 1), (1.0, 1.0), 1, 2);
    check("a thousand waiting", &settings(&Scale::default(), 1), (1000.0, 1000.0), 2, 1429);
    check("up by the rate", &global(10.0, 2.0), (1000.0, 1000.0), 3, 30);
    check("a small rate still rounds up", &global(1.1, 2.0), (3.0, 3.0), 2, 3);
    check("down by the rate", &of(ten()), (0.0, 0.0), 10, 5);
    check("rounded down", &global(1000.0, 1.5), (1.0, 1.0), 10, 6);
    check("the last goes at once", &of(ten()), (0.0, 0.0), 1, 0);
    check("unreachable: no rate", &Settings::new(&ten(), 0, false), (0.0, 0.0), 10, 0);
    let many = of(Scale { activation: 5, ..ten() });
    check("activation-scale", &many, (1.0, 1.0), 0, 5);
    check("not at zero", &many, (0.0, 0.0), 0, 0);
    check("no more than that above it", &many, (80.0, 80.0), 8, 8);
}

#[test]
fn the_activator_stays_in_the_path_until_a_burst_finds_room() {
    for (burst_capacity, ready, panic, want) in [
        (211.0, 1, 0.0, -111),
        (211.0, 3, 0.0, 89),
        (211.0, 3, 89.5, -1),
        (0.0, 0, 500.0, 0),
        (-1.0, 100, 0.0, -1),
    ] {
        let settings = settings(&Scale { burst_capacity, ..Scale::default() }, 0);
        let observed = Observed { stable: panic, panic };
        let verdict = decide(clock::now(), &settings, observed, ready, &mut State::default());
        assert_eq!(verdict.excess_burst, want, "{burst_capacity} {ready} {panic}");
    }
}

#[test]
fn panic_only_goes_up_and_ends_a_window_after_the_last_alarm() {
    let (start, settings) = (clock::now(), settings(&ten(), 0));
    let mut state = State::default();
    for (at, (stable, panic), ready, want, panics) in [
        (0, (20.0, 100.0), 2, 10, true),
        (2, (20.0, 40.0), 10, 10, true),
        (4, (20.0, 250.0), 10, 25, true),
        (6, (20.0, 10.0), 25, 25, true),
        (64, (20.0, 10.0), 25, 25, true),
        (66, (130.0, 130.0), 25, 13, false),
        (68, (20.0, 20.0), 13, 6, false),
    ] {
        let verdict = decide(start + seconds(at), &settings, Observed { stable, panic }, ready, &mut state);
        assert_eq!((verdict.desired, state.panics()), (want, panics), "after {at} s");
    }
}

#[test]
fn a_delay_keeps_the_highest_decision() {
    let (start, mut state) = (clock::now(), State::default());
    let settings = settings(&Scale { down_delay: seconds(10), ..ten() }, 0);
    for (at, load, want) in [
        (0, 50.0, 5),
        (2, 40.0, 5),
        (4, 30.0, 5),
        (8, 30.0, 5),
        (10, 30.0, 4),
        (12, 30.0, 3),
        (14, 90.0, 9),
        (22, 30.0, 9),
        (24, 30.0, 3),
    ] {
        let verdict =
            decide(start + seconds(at), &settings, Observed { stable: load, panic: load }, 6, &mut state);
        assert_eq!(verdict.desired, want, "after {at} s");
    }
}

/// One revision in a world where instances take `slow` to be ready.
struct World {
    kpa: Kpa,
    terms: Terms,
    peaks: Peaks,
    start: Instant,
    at: Duration,
    slow: Duration,
    starting: Vec<Duration>,
    ready: u32,
    /// Instances ever ordered.
    ordered: u32,
    load: Load,
    room: u32,
}

impl World {
    fn new(flavour: Flavour, scale: &Scale, concurrency: u32, slow: Duration) -> World {
        let start = clock::now();
        let settings = settings(scale, concurrency);
        let terms = Terms::new(scale, concurrency, true);
        let kpa = Kpa::new(flavour, settings, start);
        World {
            kpa,
            terms,
            peaks: Peaks::default(),
            start,
            at: Duration::ZERO,
            slow,
            starting: Vec::new(),
            ready: 0,
            ordered: 0,
            load: Load::default(),
            room: u32::MAX,
        }
    }

    fn look(&mut self) -> Plan {
        let (now, at) = (self.start + self.at, self.at);
        self.ready += self.starting.iter().filter(|due| **due <= at).count() as u32;
        self.starting.retain(|due| *due > at);
        self.kpa.observe(now, self.load);
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let demand = Demand {
            revision: "n/f".into(),
            holder: 1,
            generation: 1,
            queued: count(self.load.queued),
            in_flight: count(self.load.in_flight),
            oldest: None,
            expires: now + seconds(1),
        };
        let facts = Facts {
            terms: &self.terms,
            peaks: &self.peaks,
            starting: self.starting.len() as u32,
            ready: self.ready,
            lost: 0,
            woken: self.ordered > 0,
            room: self.room,
            starts: u32::MAX,
        };
        let plan = self.kpa.plan(now, &[demand], &facts);
        self.peaks.record(now, plan.wanted, self.terms.horizon());
        self.ordered += plan.start;
        self.starting.extend((0..plan.start.min(5_000)).map(|_| at + self.slow));
        self.ready -= plan.stop.min(self.ready);
        plan
    }

    /// Looks every quarter of a second until `at`.
    fn run(&mut self, at: u64) -> &mut World {
        while self.at < seconds(at) {
            self.at += Duration::from_millis(250);
            self.look();
        }
        self
    }

    fn have(&self) -> u32 {
        self.starting.len() as u32 + self.ready
    }

    fn queue(&mut self, queued: u64) -> Plan {
        self.load.queued = queued;
        self.look()
    }

    /// Whoever is queued is sent.
    fn serve(&mut self) {
        self.load.sent += self.load.queued;
        self.load.in_flight += self.load.queued;
        self.load.queued = 0;
        self.look();
    }

    /// Whoever is in flight is done.
    fn finish(&mut self) {
        self.load.in_flight = 0;
        self.look();
    }
}

#[test]
fn a_burst_at_zero_is_sized_at_once_or_guessed_at() {
    for (concurrency, ours, first, later) in [(1, 1000, 2, 1000), (10, 100, 1, 143), (100, 10, 1, 15)] {
        let new = |flavour| World::new(flavour, &Scale::default(), concurrency, seconds(3));
        let mut mine = new(Flavour::Pilotlight);
        assert_eq!(mine.queue(1000).start, ours);
        assert_eq!(mine.run(3).ordered, ours, "slow starts are not answered by more starts");
        mine.serve();
        assert_eq!(mine.run(90).ordered, ours, "nor is the work that they do");
        let mut theirs = new(Flavour::Knative);
        assert_eq!(theirs.queue(1000).start, first, "one request is all it hears of");
        assert_eq!(
            theirs.run(3).ordered,
            later,
            "then of all, with a reserve on top (and at most 1000 times what is ready)"
        );
    }
}

#[test]
fn slow_starts_make_knative_order_more_and_us_not() {
    let scale = Scale { target: Some(10.0), ..Scale::default() };
    let new = |flavour| World::new(flavour, &scale, 0, seconds(40));
    let (mut mine, mut theirs) = (new(Flavour::Pilotlight), new(Flavour::Knative));
    for at in (1..=40).step_by(4) {
        // One more every four seconds, and none can be served.
        mine.queue(at);
        theirs.queue(at);
        mine.run(at);
        theirs.run(at);
    }
    assert_eq!(mine.ordered, 4, "37 waiting, ten an instance");
    assert_eq!(theirs.ordered, 5, "room for a load that has not even begun");
    assert!(theirs.kpa.panics());
}

#[test]
fn work_that_comes_as_panic_ends_is_not_met_with_fewer_instances() {
    let mut scale = Scale { target: Some(1.0), utilization: 1.0, ..Scale::default() };
    scale.global.down_rate = 100.0;
    let mut left: Vec<u32> = Vec::new();
    for flavour in [Flavour::Pilotlight, Flavour::Knative] {
        let mut world = World::new(flavour, &scale, 1, Duration::ZERO);
        world.queue(1);
        world.serve();
        world.run(4);
        world.queue(99);
        world.serve();
        world.run(12).finish();
        // A few requests keep it awake until the window has passed, then a hundred wait.
        world.load.in_flight = 1;
        world.run(59).queue(100);
        let fewest = (60..=76).map(|at| world.run(at).have()).min();
        left.push(fewest.unwrap_or(0));
    }
    assert!(left[0] >= 100, "{left:?}");
    assert!(left[1] < 50, "the average of a minute that was mostly quiet: {left:?}");
}

#[test]
fn lasting_load_gets_room_and_a_burst_does_not() {
    let sustained = |flavour, turns_over: bool| {
        let mut world = World::new(flavour, &Scale::default(), 10, Duration::ZERO);
        world.queue(100);
        world.serve();
        for at in 1..=90 {
            world.load.sent += if turns_over { 100 } else { 0 };
            world.run(at);
        }
        world.have()
    };
    assert_eq!(sustained(Flavour::Pilotlight, true), 15, "100 at a time, 10 each, 70 % of it");
    assert_eq!(sustained(Flavour::Pilotlight, false), 10, "the same hundred for minutes");
    assert_eq!(sustained(Flavour::Knative, false), 15);
}

#[test]
fn requests_a_second_scale_both_flavours() {
    let scale = Scale { metric: Metric::Rps, target: Some(10.0), utilization: 1.0, ..Scale::default() };
    for flavour in [Flavour::Pilotlight, Flavour::Knative] {
        let mut world = World::new(flavour, &scale, 0, Duration::ZERO);
        world.queue(1);
        world.serve();
        for at in 1..=90 {
            // Forty a second, each done at once but one.
            world.load.sent += 40;
            world.run(at);
        }
        assert_eq!(world.have(), 4, "{flavour:?}");
    }
}

#[test]
fn knative_keeps_the_last_instance_for_those_who_know_its_address() {
    let idle = |scale: &Scale| {
        let mut world = World::new(Flavour::Knative, scale, 0, Duration::ZERO);
        world.queue(1);
        world.serve();
        world.run(100).finish();
        let from = world.at;
        while world.have() > 0 && world.at < seconds(400) {
            world.at += Duration::from_millis(250);
            world.look();
        }
        (world.at - from).as_secs()
    };
    let within = |(low, high): (u64, u64), took: u64| assert!((low..=high).contains(&took), "{took} s");
    within((59, 63), idle(&Scale::default()));
    within((89, 93), idle(&Scale { burst_capacity: 0.0, ..Scale::default() }));
    within((159, 163), idle(&Scale { retention: seconds(100), ..Scale::default() }));
    within((5, 9), idle(&Scale { window: seconds(6), ..Scale::default() }));
}

fn scales() -> impl Strategy<Value = Scale> {
    let bounds = (0..4u32, 0..8u32, 1..5u32, 1..5u32);
    let soft = (0.5..200.0f64, 0.05..=1.0f64, any::<bool>(), 6..90u64, 0..40u64);
    (bounds, soft).prop_map(
        |((min, above, initial, activation), (target, utilization, rps, window, keep))| {
            let max = if above == 0 { 0 } else { min + above };
            let metric = if rps { Metric::Rps } else { Metric::Concurrency };
            Scale {
                min,
                max,
                initial,
                activation,
                metric,
                target: Some(target),
                utilization,
                window: seconds(window),
                retention: seconds(keep),
                ..Scale::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bounds_hold_and_what_is_idle_ends(
        scale in scales(),
        concurrency in 0..20u32,
        loads in prop::collection::vec((0..300u64, 1..20u64), 1..8),
        knative in any::<bool>(),
    ) {
        let flavour = if knative { Flavour::Knative } else { Flavour::Pilotlight };
        let mut world = World::new(flavour, &scale, concurrency, seconds(2));
        let cap = if scale.max == 0 { u32::MAX } else { scale.max };
        world.look();
        for (queued, length) in loads {
            let until = world.at.as_secs() + length;
            world.queue(queued);
            prop_assert!(queued == 0 || world.have() > 0, "nobody waits for nothing");
            world.serve();
            while world.at < seconds(until) {
                world.at += Duration::from_millis(500);
                world.look();
                prop_assert!((scale.min..=cap).contains(&world.have()), "{} instances", world.have());
                if flavour == Flavour::Pilotlight && concurrency > 0 {
                    let need = world.load.in_flight.div_ceil(concurrency.into());
                    prop_assert!(u64::from(world.have()) >= need.min(cap.into()));
                }
            }
            world.finish();
        }
        let grace = scale.retention.max(scale.global.grace).as_secs();
        // Knative halves it at each of its ticks at most.
        let halvings = 2 * 32;
        world.run(world.at.as_secs() + 2 * scale.window.as_secs() + grace + halvings);
        prop_assert_eq!(world.have(), scale.min);
    }

    #[test]
    fn more_demand_never_gets_less(
        scale in scales(),
        concurrency in 0..20u32,
        load in 1..500u64,
        more in 0..500u64,
        panic in 0.0..500.0f64,
        ready in 0..40u32,
    ) {
        let start = |queued| World::new(Flavour::Pilotlight, &scale, concurrency, seconds(2)).queue(queued).start;
        prop_assert!(start(load) <= start(load + more));
        let settings = settings(&scale, concurrency);
        let desired = |load: u64| {
            let observed = Observed { stable: load as f64, panic };
            decide(clock::now(), &settings, observed, ready, &mut State::default()).desired
        };
        prop_assert!(desired(load) <= desired(load + more));
    }
}

/// What a calm is said to be is one: until its end every look finds nothing to do and wants the same.
/// So many are ready, and nothing is in the way of more.
fn awake<'a>(terms: &'a Terms, peaks: &'a Peaks, ready: u32) -> Facts<'a> {
    Facts { terms, peaks, starting: 0, ready, lost: 0, woken: true, room: 99, starts: u32::MAX }
}

#[test]
fn looks_within_a_calm_change_nothing() {
    let (mut calms, mut looks) = ([0, 0], 0);
    for (seed, flavour) in (0..400).map(|n| (n, [Flavour::Pilotlight, Flavour::Knative][n as usize % 2])) {
        let mut random = fastrand::Rng::with_seed(seed);
        let concurrency = random.u32(1..4);
        let scale = Scale { max: random.u32(0..5), ..Scale::default() };
        let terms = Terms::new(&scale, concurrency, true);
        let (mut now, mut load, mut ready, mut peaks) = (clock::now(), Load::default(), 0, Peaks::default());
        let mut kpa = Kpa::new(flavour, settings(&scale, concurrency), now);
        let look = |kpa: &mut Kpa, peaks: &mut Peaks, now, load: Load, ready: &mut u32| {
            kpa.observe(now, load);
            let facts = Facts {
                terms: &terms,
                peaks,
                starting: 0,
                ready: *ready,
                lost: 0,
                woken: true,
                room: 99,
                starts: u32::MAX,
            };
            let demand = Demand {
                revision: "f".into(),
                holder: 0,
                generation: 1,
                queued: 0,
                in_flight: load.in_flight as u32,
                oldest: None,
                expires: now + seconds(1),
            };
            let plan = kpa.plan(now, &[demand], &facts);
            peaks.record(now, plan.wanted, terms.horizon());
            *ready = *ready + plan.start - plan.stop;
            plan
        };
        for _ in 0..60 {
            let most = u64::from(ready * concurrency).max(1);
            load = Load { in_flight: random.u64(0..=most), sent: load.sent + 1, ..load };
            let plan = look(&mut kpa, &mut peaks, now, load, &mut ready);
            let facts = awake(&terms, &peaks, ready);
            let calm = kpa.calm(now, load.in_flight, &facts);
            let first = if flavour == Flavour::Knative { kpa.next(now) } else { now + seconds(1) };
            let step = if flavour == Flavour::Knative { seconds(2) } else { seconds(1) };
            if let Some(until) = calm.filter(|until| *until >= first) {
                calms[seed as usize % 2] += 1;
                let (mut kpa, mut peaks, mut same) = (kpa.clone(), peaks.clone(), ready);
                let mut at = first;
                while at <= until {
                    let then = look(&mut kpa, &mut peaks, at, load, &mut same);
                    let (start, stop) = (then.start, then.stop);
                    assert_eq!((start, stop), (0, 0), "seed {seed}: {:?} of {:?}", at - now, until - now);
                    assert!(plan.start + plan.stop > 0 || then.wanted == plan.wanted, "seed {seed}");
                    (at, looks) = (at + step, looks + 1);
                }
            }
            let most = random.u64(2..20_000);
            now += Duration::from_millis(random.u64(1..most));
        }
    }
    assert!(calms.iter().all(|count| *count > 100) && looks > 1_000, "{calms:?} {looks}");
}

#[test]
fn ticks_that_were_calm_leave_the_next_ones_where_they_are() {
    let start = clock::now();
    let settings = Settings::new(&Scale::default(), 1, true);
    let mut kpa = Kpa::new(Flavour::Knative, settings, start);
    let terms = Terms::new(&Scale::default(), 1, true);
    let peaks = Peaks::default();
    let facts = awake(&terms, &peaks, 1);
    kpa.observe(start, Load::default());
    kpa.plan(start, &[], &facts);
    let next = |kpa: &Kpa, millis| kpa.next(start + Duration::from_millis(millis)) - start;
    assert_eq!(next(&kpa, 0), seconds(2));
    for (now, want) in [(1_999, 2), (2_000, 2), (2_001, 4), (9_000, 10), (10_000, 10)] {
        kpa.skip_before(start + Duration::from_millis(now));
        assert_eq!(next(&kpa, now - 1), seconds(want), "{now}");
    }
}
