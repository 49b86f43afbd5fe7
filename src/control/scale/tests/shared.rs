//! What functions share: the room of the process, and what is left of one that is gone.

use super::*;

#[test]
fn a_function_that_has_nothing_gets_an_instance_although_another_wants_all_there_is() {
    let mut world = World::new(2, &[revision("a", 1, 0), revision("z", 1, 0)]);
    let mut greedy: Vec<_> = (0..20).map(|_| world.wait("a")).collect();
    world.hear();
    assert_eq!(world.started(), [1, 2]);
    [1, 2].into_iter().for_each(|id| world.listen(id));
    let mut lonely = world.wait("z");
    world.hear();
    let mut gone = 0;
    for _ in 0..100 {
        // Of the first, somebody always waits and all that takes requests is at work.
        let answers: Vec<_> = greedy.iter_mut().map(answer).collect();
        let mut answers = answers.into_iter();
        greedy.retain(|_| answers.next().is_some_and(|answer| answer.is_none()));
        while greedy.len() < 20 {
            greedy.push(world.wait("a"));
        }
        world.hear();
        world.wind(Duration::from_millis(100));
        if let Some(id) = world.stopped().get(gone).copied() {
            gone += 1;
            world.exit(id);
            let next = *world.started().last().unwrap();
            world.listen(next);
        }
        if matches!(answer(&mut lonely), Some(Ok(_))) {
            assert_eq!(gone, 1, "one had to go for it");
            return;
        }
    }
    panic!("it still waits; {:?} started, {:?} stopped", world.started(), world.stopped());
}

#[test]
fn room_that_comes_free_goes_to_those_who_have_nothing_and_of_those_to_who_has_waited_longest() {
    let all = ["a", "b", "c"].map(|name| revision(name, 1, 0));
    let mut world = World::new(1, &all);
    let _served = world.wait("b");
    world.hear();
    world.listen(1);
    let mut tickets = Vec::new();
    for name in ["c", "a", "b"] {
        tickets.push(world.wait(name));
        world.hear();
        world.wind(Duration::from_millis(5));
    }
    world.exit(1);
    let key =
        |id: usize| world.fleet.units.iter().find(|(_, unit)| unit.instances.contains_key(&(id as u64)));
    assert_eq!(key(2).map(|(key, _)| &**key), Some("default/c"), "it has waited longest");
}

/// Has those listen that were started since, and gives the number of all that were ever started.
fn listens(world: &mut World, from: InstanceId) -> usize {
    let started = world.started();
    started.iter().filter(|id| **id > from).for_each(|id| world.listen(*id));
    world.started().len()
}

#[test]
fn no_more_than_may_are_starting_at_once_and_all_that_are_needed_are_started() {
    let mut hello = revision("hello", 1, 10);
    hello.scale.starting = 3;
    let mut world = World::new(64, &[hello]);
    let mut tickets: Vec<_> = (0..20).map(|_| world.wait("hello")).collect();
    world.hear();
    assert_eq!(world.started().len(), 3);
    world.listen(1);
    assert_eq!(world.started().len(), 4, "one is ready, and the next may start");
    let mut from = 1;
    for want in [7, 10, 10] {
        let last = world.started().len() as InstanceId;
        assert_eq!(listens(&mut world, from), want);
        from = last;
    }
    let served: Vec<_> = tickets.iter_mut().filter_map(answer).collect();
    assert!(served.len() == 10 && served.iter().all(Result::is_ok));
    world.wind(SECOND);
    assert_eq!(world.started().len(), 10, "max-scale holds as ever");
}

#[test]
fn of_those_who_wait_for_the_start_of_another_function_who_has_waited_longest_is_next() {
    let pace = Pace { at_once: 1, ..Pace::default() };
    let all = ["a", "b", "c"].map(|name| revision(name, 1, 0));
    let mut world = World::of(Setup { pace, ..setup(64) }, &all);
    let mut tickets = Vec::new();
    for name in ["a", "c", "a", "b"] {
        tickets.push(world.wait(name));
        world.hear();
        world.wind(Duration::from_millis(5));
    }
    let mut order = Vec::new();
    for id in 1..=4 {
        assert_eq!(world.started().len(), id as usize, "one at a time");
        let whose = world.fleet.units.iter().find(|(_, unit)| unit.instances.contains_key(&id));
        order.extend(whose.map(|(key, _)| key.to_string()));
        // One that ends on its own makes way too.
        if id == 2 {
            world.exit(id)
        } else {
            world.listen(id)
        }
        world.wind(SECOND);
    }
    assert_eq!(order[..3], ["default/a", "default/c", "default/b"]);
}

/// `a`, which is gone, has a request that does not end; `b` is idle, and `c` wants an instance where two are all.
#[test]
fn what_drains_for_long_is_no_room_on_its_way_where_another_is_idle() {
    let [a, b, c] = ["a", "b", "c"].map(|name| revision(name, 1, 0));
    let mut world = World::new(2, &[a, b.clone(), c.clone()]);
    let mut slots = Vec::new();
    for (id, name) in [(1, "a"), (2, "b")] {
        let mut ticket = world.wait(name);
        world.hear();
        world.listen(id);
        slots.push(answer(&mut ticket).unwrap().unwrap());
    }
    slots.pop();
    world.fleet.apply(world.now, &shared(&[b, c]));
    assert!(world.stopped().is_empty(), "it finishes first");
    let _waits = world.wait("c");
    world.hear();
    assert_eq!(world.stopped(), [2]);
    world.exit(2);
    assert_eq!(world.started(), [1, 2, 3]);
    world.wind(SECOND);
    assert_eq!(world.stopped(), [2], "nothing else has to go for it");
}

#[test]
fn a_busy_instance_that_does_not_finish_does_not_keep_who_has_nothing_waiting_for_ever() {
    let mut world = World::new(3, &[revision("a", 1, 0), revision("z", 1, 0)]);
    let mut greedy: Vec<_> = (0..3).map(|_| world.wait("a")).collect();
    world.hear();
    [1, 2, 3].into_iter().for_each(|id| world.listen(id));
    let mut slots: Vec<_> = greedy.iter_mut().map(|ticket| answer(ticket).unwrap().unwrap()).collect();
    let _lonely = world.wait("z");
    world.hear();
    let going = |world: &World| {
        let instances = world.fleet.units.values().flat_map(|unit| unit.instances.values());
        instances.filter(|one| one.outdated).map(|one| one.id).collect::<Vec<_>>()
    };
    world.wind(9 * SECOND);
    let first = going(&world);
    assert_eq!(first.len(), 1, "one has to go, when it has finished");
    world.wind(3 * SECOND);
    let both = going(&world);
    assert_eq!(both.len(), 2, "it takes too long");
    let second = both.into_iter().find(|id| *id != first[0]).unwrap();
    slots.retain(|slot| !slot.endpoint().name.ends_with(&format!("/{second}")));
    world.wind(SECOND);
    assert_eq!(world.stopped(), [second]);
    world.exit(second);
    assert_eq!(world.started(), [1, 2, 3, 4]);
    world.wind(60 * SECOND);
    assert_eq!(going(&world), first, "nothing else had to go");
}

#[test]
fn who_comes_for_a_revision_that_is_long_gone_is_told_at_once() {
    let hello = revision("hello", 1, 0);
    let mut world = World::new(64, std::slice::from_ref(&hello));
    let members = world.members("hello");
    world.fleet.apply(world.now, &[]);
    assert!(matches!(world.take("hello"), Ok(Taken::Wait(_))), "it is told when it is looked at");
    world.hear();
    world.wind(100 * SECOND);
    assert!(world.fleet.units.is_empty(), "nothing is left of it");
    assert_eq!(world.take("hello").err(), Some(Kind::Removed));
    assert_eq!(members.waiting(), 0);
    world.fleet.apply(world.now, &shared(&[hello]));
    let _waits = world.wait("hello");
    world.hear();
    assert_eq!(world.started().len(), 1, "and it may come back");
}
