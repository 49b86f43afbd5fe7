//! What the words of probes do to instances that are ready.

use super::probe::Word;
use super::*;
use proxy_config::model::{Idle, Probe, Probes};

fn probed(name: &str, max: u32) -> Revision {
    let probe = || Some(Probe { period: SECOND, failure: 3, ..Probe::default() });
    let mut hello = revision(name, 1, max);
    hello.probes = Probes { readiness: probe(), liveness: probe(), ..Probes::default() };
    hello
}

fn state(world: &World, n: usize) -> String {
    let report = report::functions(&world.fleet, world.now);
    report["functions"][0]["instances"][n]["state"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_ready_goes_on_being_asked_and_what_leaves_does_not() {
    let mut world = World::awake(probed("hello", 1));
    assert!(world.fleet.take_probes().iter().any(|probing| probing.resumed));
    assert!(world.fleet.listens_to_probes(1));
    world.wind(200 * SECOND);
    assert_eq!(world.stopped(), [1]);
    assert!(!world.fleet.listens_to_probes(1));
    assert!(!world.fleet.listens_to_probes(77));
}

#[test]
fn what_is_frozen_is_not_asked_until_it_thaws() {
    let mut hello = probed("hello", 1);
    hello.scale.window = 6 * SECOND;
    hello.idle = Idle::Freeze { most: 600 * SECOND };
    let mut world = World::awake(hello);
    world.fleet.take_probes();
    world.wind(20 * SECOND);
    assert!(!world.fleet.listens_to_probes(1));
    world.fleet.probed(world.now, 1, Word::Dead);
    assert_eq!(state(&world, 0), "frozen", "a late word changes nothing");
    let _slot = world.wait("hello");
    world.hear();
    assert!(world.fleet.take_probes().iter().any(|probing| probing.instance == 1 && probing.resumed));
    assert!(world.fleet.listens_to_probes(1));
}

#[test]
fn an_instance_that_is_not_ready_is_put_aside_and_taken_back() {
    let mut world = World::awake(probed("hello", 1));
    world.fleet.probed(world.now, 1, Word::Unready);
    assert_eq!((state(&world, 0), world.members("hello").len()), ("unready".into(), 0));
    let mut ticket = world.wait("hello");
    world.hear();
    world.wind(SECOND);
    assert_eq!(world.started(), [1], "max-scale counts it");
    assert!(answer(&mut ticket).is_none() && world.stopped().is_empty(), "it is not ended");
    world.fleet.probed(world.now, 1, Word::Ready);
    assert!(matches!(answer(&mut ticket), Some(Ok(_))));
    assert_eq!(state(&world, 0), "ready");
}

#[test]
fn where_there_is_room_another_takes_the_place_of_what_is_put_aside() {
    let mut world = World::awake(probed("hello", 2));
    world.fleet.probed(world.now, 1, Word::Unready);
    let _ticket = world.wait("hello");
    world.hear();
    assert_eq!(world.started(), [1, 2]);
}

#[test]
fn what_is_put_aside_and_not_wanted_is_ended() {
    let mut world = World::awake(probed("hello", 1));
    world.fleet.probed(world.now, 1, Word::Unready);
    world.wind(200 * SECOND);
    assert_eq!(world.stopped(), [1]);
}

#[test]
fn a_dead_instance_is_replaced_and_has_time_to_finish_what_it_has() {
    let mut world = World::awake(probed("hello", 2));
    let slot = world.work("hello");
    world.fleet.probed(world.now, 1, Word::Dead);
    assert_eq!(world.started(), [1, 2], "replaced at once");
    assert_eq!((state(&world, 0), world.stopped().len()), ("draining".into(), 0));
    world.wind(3 * SECOND);
    assert!(world.stopped().is_empty(), "it may answer still");
    world.wind(2 * SECOND);
    assert_eq!(world.stopped(), [1], "it has had half of its grace");
    drop(slot);
    let unit = world.fleet.units.values().next().unwrap();
    assert_eq!(unit.last_crash.as_ref().unwrap().how, "did not pass its liveness probe");
    assert_eq!(unit.metrics.dead.get(), 1);
}

#[test]
fn a_dead_instance_with_nothing_to_do_is_ended_at_once() {
    let mut world = World::awake(probed("hello", 2));
    world.fleet.probed(world.now, 1, Word::Dead);
    world.wind(Duration::from_millis(50));
    assert_eq!(world.stopped(), [1]);
}
