//! A reload that changes what a revision is while something of it runs, starts, fails or leaves.

use super::probe::Word;
use super::*;
use proxy_config::model::{Probe, Probes, Revision};

fn readiness() -> Probes {
    Probes {
        readiness: Some(Probe { period: SECOND, failure: 3, initial_delay: SECOND, ..Probe::default() }),
        ..Probes::default()
    }
}

fn liveness() -> Probes {
    Probes { liveness: Some(Probe { period: SECOND, failure: 3, ..Probe::default() }), ..Probes::default() }
}

/// `hello` with these probes.
fn asked(probes: Probes) -> Revision {
    Revision { probes, ..revision("hello", 1, 1) }
}

fn state(world: &World) -> String {
    let report = report::functions(&world.fleet, world.now);
    report["functions"][0]["instances"][0]["state"].as_str().unwrap().to_owned()
}

impl World {
    fn reload(&mut self, revisions: &[Revision]) {
        self.fleet.apply(self.now, &shared(revisions));
    }

    /// A function whose circuit is open.
    fn crash_looping(hello: &Revision) -> World {
        let mut world = World::new(64, std::slice::from_ref(hello));
        for round in 1..=3 {
            let mut ticket = world.wait("hello");
            world.hear();
            world.wind(SECOND);
            world.exit(round);
            assert!(fault(&mut ticket).is_some());
        }
        assert!(matches!(world.take("hello"), Err(Kind::CrashLoop)));
        world
    }
}

#[test]
fn the_circuit_closes_at_once_when_a_reload_mends_what_failed_and_for_no_other_change() {
    let hello = revision("hello", 1, 1);
    let check = |change: fn(&mut Revision), closes: bool| {
        let mut other = hello.clone();
        change(&mut other);
        let mut world = World::crash_looping(&hello);
        world.reload(&[other]);
        let taken = world.take("hello");
        assert_eq!(matches!(taken, Ok(Taken::Wait(_))), closes, "{:?}", taken.err());
        world.hear();
        assert_eq!(world.started().len(), if closes { 4 } else { 3 });
    };
    check(|_| {}, false);
    check(|other| other.concurrency = 7, false);
    check(|other| other.command = Command::Run(vec!["mended".into()]), true);
    check(|other| other.env.push(("DATABASE".into(), "there".into())), true);
    check(|other| other.probes = liveness(), true);
    let mut world = World::crash_looping(&hello);
    world.reload(&[]);
    world.reload(std::slice::from_ref(&hello));
    assert!(matches!(world.take("hello"), Ok(Taken::Wait(_))), "it begins anew where it was away");
}

#[test]
fn how_long_another_program_takes_is_not_known() {
    let hello = revision("hello", 1, 1);
    let mut world = World::new(64, std::slice::from_ref(&hello));
    let mut ticket = world.wait("hello");
    world.hear();
    world.wind(30 * SECOND);
    world.listen(1);
    drop(answer(&mut ticket));
    let expected = |world: &World| world.fleet.units.values().next().unwrap().learned.expected();
    assert!(expected(&world) >= Some(30 * SECOND));
    world.reload(&[Revision { concurrency: 2, ..hello.clone() }]);
    assert!(expected(&world) >= Some(30 * SECOND));
    world.reload(&[Revision { command: Command::Run(vec!["swift".into()]), ..hello }]);
    assert_eq!(expected(&world), None);
}

#[test]
fn what_is_not_ready_by_its_probes_is_asked_by_those_of_a_reload() {
    let other = || Probes {
        readiness: Some(Probe { period: 2 * SECOND, initial_delay: SECOND, ..Probe::default() }),
        ..Probes::default()
    };
    for put_aside in [false, true] {
        let mut world = World::new(64, &[asked(readiness())]);
        let mut ticket = world.wait("hello");
        world.hear();
        world.listen(1);
        if put_aside {
            world.fleet.probed(world.now, 1, Word::Ready);
            drop(answer(&mut ticket));
            world.fleet.probed(world.now, 1, Word::Unready);
        }
        world.fleet.take_probes();
        world.reload(&[asked(other())]);
        let probing = world.fleet.take_probes().pop().expect("it is asked anew");
        assert_eq!((probing.probes, probing.resumed), (other(), false));
        assert_ne!(state(&world), "ready", "nothing is known by the new ones yet");
        world.reload(&[asked(Probes::default())]);
        assert_eq!(state(&world), "ready", "its port is open, and nothing else is asked");
        assert!(!world.fleet.listens_to_probes(1));
        assert!(put_aside || matches!(answer(&mut ticket), Some(Ok(_))), "who waited is served");
    }
}

#[test]
fn an_instance_is_not_ended_by_a_probe_that_is_no_longer_written() {
    let mut world = World::awake(asked(liveness()));
    assert!(world.fleet.listens_to_probes(1));
    world.reload(&[asked(Probes::default())]);
    assert!(!world.fleet.listens_to_probes(1));
    world.reload(&[asked(liveness())]);
    let probing = world.fleet.take_probes().pop().expect("it is asked again");
    assert!(probing.resumed && world.fleet.listens_to_probes(1));
}

#[test]
fn an_instance_that_comes_back_keeps_to_the_limit_of_now() {
    let wide = revision("hello", 10, 1);
    let mut world = World::awake(wide.clone());
    let first = world.work("hello");
    world.reload(&[]);
    world.reload(&[Revision { concurrency: 2, ..wide.clone() }]);
    let _second = world.work("hello");
    assert!(matches!(world.take("hello"), Ok(Taken::Wait(_))), "two are all it takes");
    drop(first);
    let mut world = World::awake(Revision { probes: readiness(), ..wide.clone() });
    world.fleet.probed(world.now, 1, Word::Ready);
    world.fleet.probed(world.now, 1, Word::Unready);
    world.reload(&[Revision { probes: readiness(), concurrency: 1, ..wide }]);
    world.fleet.probed(world.now, 1, Word::Ready);
    let _only = world.work("hello");
    assert!(matches!(world.take("hello"), Ok(Taken::Wait(_))));
}

#[test]
fn a_revision_that_comes_back_as_another_program_serves_nobody_by_the_old_one() {
    let hello = revision("hello", 1, 1);
    let mut world = World::awake(hello.clone());
    let slot = world.work("hello");
    world.reload(&[]);
    world.reload(&[Revision { command: Command::Run(vec!["other".into()]), ..hello }]);
    let mut ticket = world.wait("hello");
    world.hear();
    drop(slot);
    assert!(answer(&mut ticket).is_none(), "the old one is not asked again");
    assert_eq!(world.started(), [1, 2]);
}

#[test]
fn who_comes_for_what_is_expected_back_is_not_told_that_it_has_gone() {
    let hello = revision("hello", 1, 1);
    let mut world = World::awake(hello.clone());
    world.reload(&[]);
    let mut late = world.wait("hello");
    world.hear();
    assert_eq!(fault(&mut late), Some(Kind::Removed), "an exchange of the old configuration");
    // Routes to it are published after this, and what has gone is told after that.
    world.fleet.expect(world.now, &shared(&[hello]));
    let slot = world.take("hello");
    assert!(slot.is_ok(), "{:?}", slot.err());
    world.hear();
    assert!(world.fleet.units.values().all(|unit| unit.removed.is_none()));
}
