//! Frozen instead of ended.

use super::*;
use proxy_config::model::Idle;

fn freezing(name: &str, concurrency: u32, max: u32) -> Revision {
    let mut revision = revision(name, concurrency, max);
    revision.scale.window = 6 * SECOND;
    revision.idle = Idle::Freeze { most: 60 * SECOND };
    revision
}

impl World {
    fn frozen(&self) -> Vec<InstanceId> {
        self.notes.lock().frozen.clone()
    }

    fn thawed(&self) -> Vec<InstanceId> {
        self.notes.lock().thawed.clone()
    }

    fn state(&self, function: usize) -> String {
        let report = report::functions(&self.fleet, self.now);
        report["functions"][function]["instances"][0]["state"].as_str().unwrap_or("none").to_owned()
    }
}

#[test]
fn an_idle_instance_is_frozen_and_the_next_request_thaws_it() {
    let mut world = World::awake(freezing("hello", 1, 0));
    let before = world.members("hello").endpoints()[0].id;
    world.wind(10 * SECOND);
    assert_eq!((world.frozen(), world.stopped()), (vec![1], vec![]));
    assert_eq!(world.state(0), "frozen");
    assert!(world.members("hello").is_empty());
    let mut ticket = world.wait("hello");
    world.hear();
    assert_eq!((world.thawed(), world.started()), (vec![1], vec![1]));
    let slot = answer(&mut ticket).unwrap().unwrap();
    assert_ne!(slot.endpoint().id, before, "no connection of before is used again");
    assert_eq!(slot.endpoint().birth().unwrap().cause, crate::record::Cause::Thawed);
    drop(slot);
    world.wind(10 * SECOND);
    assert_eq!(world.frozen(), [1, 1]);
}

#[test]
fn a_frozen_instance_needs_no_looks_and_is_ended_when_its_time_is_over() {
    let mut world = World::awake(freezing("hello", 1, 0));
    world.wind(10 * SECOND);
    let next = world.fleet.next().expect("its end is due");
    assert!(next > world.now + 50 * SECOND, "{:?}", next - world.now);
    world.wind(60 * SECOND);
    assert_eq!(world.stopped(), [1]);
    world.exit(1);
    assert_eq!(world.fleet.next(), None);
}

#[test]
fn who_works_is_not_frozen_before_it_has_finished() {
    let mut world = World::awake(freezing("hello", 2, 0));
    let slot = world.work("hello");
    world.wind(100 * SECOND);
    assert!(world.frozen().is_empty());
    drop(slot);
    world.wind(10 * SECOND);
    assert_eq!(world.frozen(), [1]);
}

#[test]
fn the_latest_frozen_is_thawed_first_and_others_are_started_only_after_all_of_them() {
    let mut world = World::new(64, &[freezing("hello", 1, 4)]);
    let mut tickets: Vec<_> = (0..3).map(|_| world.wait("hello")).collect();
    world.hear();
    (1..=3).for_each(|instance| world.listen(instance));
    let mut slots: Vec<_> = tickets.iter_mut().map(|ticket| answer(ticket).unwrap().unwrap()).collect();
    let last = slots.pop().unwrap();
    drop(slots);
    world.wind(20 * SECOND);
    assert_eq!(world.frozen().len(), 2);
    let id: InstanceId = last.endpoint().name.rsplit('/').next().unwrap().parse().unwrap();
    drop(last);
    world.wind(20 * SECOND);
    assert_eq!(world.frozen().last(), Some(&id));
    let _one = world.wait("hello");
    world.hear();
    assert_eq!(world.thawed(), [id]);
    let _more: Vec<_> = (0..4).map(|_| world.wait("hello")).collect();
    world.hear();
    assert_eq!((world.thawed().len(), world.started().len()), (3, 4), "four are all that may be");
}

#[test]
fn a_reload_ends_what_is_frozen_and_would_be_something_else() {
    let hello = freezing("hello", 1, 2);
    let check = |change: fn(&mut Revision), stopped: &[InstanceId]| {
        let mut world = World::awake(hello.clone());
        world.wind(10 * SECOND);
        assert_eq!(world.frozen(), [1]);
        let mut other = hello.clone();
        change(&mut other);
        world.fleet.apply(world.now, &shared(&[other]));
        assert_eq!(world.stopped(), stopped);
    };
    check(|_| {}, &[]);
    check(|other| other.concurrency = 7, &[]);
    check(|other| other.idle = Idle::Stop, &[1]);
    check(|other| other.env.push(("COLOUR".into(), "red".into())), &[1]);
    check(|other| other.key = "default/other".into(), &[1]);
    let refused = || Command::Refused { reason: "no".into(), help: "none".into() };
    let mut world = World::awake(hello.clone());
    world.wind(10 * SECOND);
    world.fleet.apply(world.now, &shared(&[Revision { command: refused(), ..hello }]));
    assert_eq!(world.stopped(), [1]);
}

#[test]
fn the_frozen_make_room_before_the_idle_do() {
    let mut world = World::new(2, &[freezing("a", 1, 0), revision("b", 1, 0), revision("c", 1, 0)]);
    let mut ticket = world.wait("a");
    world.hear();
    world.listen(1);
    drop(answer(&mut ticket));
    world.wind(10 * SECOND);
    assert_eq!(world.frozen(), [1]);
    let mut ticket = world.wait("b");
    world.hear();
    world.listen(2);
    drop(answer(&mut ticket));
    let _ticket = world.wait("c");
    world.hear();
    assert_eq!(world.stopped(), [1]);
    world.exit(1);
    assert_eq!(world.started(), [1, 2, 3]);
}

#[test]
fn one_that_ends_while_it_is_frozen_is_no_crash_and_at_the_end_none_is_left() {
    let mut world = World::awake(freezing("hello", 1, 0));
    world.wind(10 * SECOND);
    world.exit(1);
    let report = report::functions(&world.fleet, world.now);
    assert_eq!(report["functions"][0]["crashes"], 0);
    let mut ticket = world.wait("hello");
    world.hear();
    assert_eq!(world.started(), [1, 2]);
    world.listen(2);
    drop(answer(&mut ticket));
    world.wind(10 * SECOND);
    assert_eq!(world.frozen(), [1, 2]);
    world.fleet.end(world.now, SECOND);
    assert_eq!(world.stopped(), [2]);
}
