//! Functions that do not start, do not stay, or are started too often: what those who wait are told, when, and
//! how many starts it takes. "At once" is without the clock being wound.

use super::*;
use crate::fault::Advice;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Its port opens.
    Listens,
    /// Its probes say this.
    Probe(probe::Word),
    /// Time passes.
    Pass(Duration),
    /// It ends, or never was; the flag: somebody else has its port.
    Ends(&'static str, bool),
}
use Step::{Ends, Listens, Pass, Probe};

impl World {
    fn newest(&self) -> InstanceId {
        *self.started().last().expect("nothing was started")
    }

    fn end(&mut self, how: &str, port_taken: bool) {
        let how = match how {
            "exit" => How::Code(1),
            "killed" => How::Signal(9),
            why => How::NotStarted(why.into()),
        };
        let exit = Exit { how, stderr: vec!["no database".into()], port_taken };
        self.fleet.event(self.now, Event::Exited { instance: self.newest(), exit });
    }

    fn step(&mut self, step: Step) {
        match step {
            Listens => self.listen(self.newest()),
            Probe(word) => self.fleet.probed(self.now, self.newest(), word),
            Pass(length) => self.wind(length),
            Ends(how, port_taken) => self.end(how, port_taken),
        }
    }

    fn retry_after(&self, kind: Kind) -> u16 {
        let advice: Advice = self.members("hello").hold().unwrap().advice(self.now, kind);
        advice.retry_after
    }

    fn unit(&self) -> &unit::Unit {
        self.fleet.units.values().next().unwrap()
    }
}

/// One round of `steps` with somebody waiting: what he is told at the last of them, how the crash is called,
/// and whether the next who comes waits.
fn once(steps: &[Step], told: Option<Kind>, crash: Kind, next_waits: bool) {
    let mut hello = revision("hello", 1, 1);
    if steps.iter().any(|step| matches!(step, Probe(_))) {
        hello.probes.readiness =
            Some(proxy_config::model::Probe { initial_delay: millis(1), ..Default::default() });
    }
    let mut world = World::new(64, &[hello]);
    let mut ticket = world.wait("hello");
    world.hear();
    let (last, before) = steps.split_last().unwrap();
    before.iter().for_each(|step| world.step(*step));
    let early = answer(&mut ticket);
    world.step(*last);
    if early.is_none() {
        assert_eq!(fault(&mut ticket), told, "{steps:?}");
    }
    assert_eq!(world.unit().last_crash.as_ref().map(|crash| crash.kind), Some(crash), "{steps:?}");
    let waits = matches!(world.take("hello"), Ok(Taken::Wait(_)));
    assert_eq!(waits, next_waits, "{steps:?}");
}

#[test]
fn each_way_to_fail_is_told_at_once_under_its_own_name() {
    use Kind::{CannotStart, Crashed, ExitedEarly, Flapping, NeverListened, NeverReady, PortTaken};
    once(&[Ends("exit", false)], Some(Crashed), Crashed, true);
    once(&[Ends("killed", false)], Some(Crashed), Crashed, true);
    once(&[Ends("not in PATH", false)], Some(CannotStart), CannotStart, false);
    // Another port is tried first.
    once(&[Ends("exit", true)], None, PortTaken, true);
    once(&[Listens, Probe(probe::Word::NeverStarted)], Some(NeverReady), NeverReady, true);
    once(&[Pass(601 * SECOND)], Some(NeverListened), NeverListened, true);
    once(&[Listens, Probe(probe::Word::Ready), Ends("exit", false)], None, ExitedEarly, true);
    once(&[Listens, Pass(5 * SECOND), Ends("exit", false)], None, Flapping, true);
}

#[test]
fn who_gives_up_before_anything_listens_is_told_that() {
    let mut world = World::new(64, &[revision("hello", 1, 1)]);
    let _ticket = world.wait("hello");
    world.hear();
    let hold = world.members("hello").hold().unwrap().clone();
    assert_eq!(hold.too_late(), Kind::ListensLate);
    world.listen(1);
    assert_eq!(hold.too_late(), Kind::HoldTimeout, "it is only busy");
}

/// Rounds of the same failure with somebody waiting in each, until nobody waits any more. Returns the world
/// in that moment.
fn until_shut(revision: Revision, steps: &[Step], told: Kind) -> World {
    let mut world = World::new(64, &[revision]);
    let mut rounds = 0;
    while let Ok(Taken::Wait(mut ticket)) = world.take("hello") {
        rounds += 1;
        assert!(rounds < 10, "the circuit does not open");
        world.hear();
        let before = world.started().len();
        let pause = world.unit().backoff.until(world.now).map(|until| until - world.now);
        world.wind(pause.unwrap_or_default() + millis(2));
        if rounds > 1 {
            assert!(
                world.started().len() <= before + 1,
                "one at a time after a round of which nothing is left"
            );
        }
        steps.iter().for_each(|step| world.step(*step));
        // At the last step, not later.
        let answer = answer(&mut ticket);
        if world.unit().backoff.shut(world.now).is_some() {
            assert!(matches!(answer, Some(Err(kind)) if kind == told) || answer.is_some_and(|a| a.is_ok()));
        }
    }
    world
}

#[test]
fn after_three_rounds_the_circuit_is_open_and_one_trial_closes_it() {
    let mut world = until_shut(revision("hello", 1, 20), &[Ends("exit", false)], Kind::CrashLoop);
    assert_eq!(world.started().len(), 3);
    assert_eq!(world.unit().metrics.circuit_open.get(), 1);
    let until = world.unit().backoff.until(world.now).expect("a back-off");
    for _ in 0..100 {
        assert_eq!(world.take("hello").err(), Some(Kind::CrashLoop), "at once");
    }
    assert_eq!(world.retry_after(Kind::CrashLoop), 1);
    world.hear();
    assert_eq!(world.started().len(), 3, "nothing is started meanwhile");
    // They are gone, and what they wanted is tried all the same: by one instance.
    world.wind(until - world.now + millis(2));
    assert_eq!(world.started().len(), 4);
    let mut tickets: Vec<_> = (0..5).map(|_| world.wait("hello")).collect();
    world.hear();
    assert_eq!(world.started().len(), 4, "half open: one trial, whoever comes");
    world.step(Listens);
    assert!(matches!(answer(&mut tickets[0]), Some(Ok(_))));
    assert_eq!(world.unit().metrics.circuit_open.get(), 0);
    world.wind(millis(10));
    assert!(world.started().len() > 4, "closed: the others get what they need");
}

#[test]
fn a_trial_that_fails_opens_it_again_for_longer() {
    let mut world = until_shut(revision("hello", 1, 20), &[Ends("exit", false)], Kind::CrashLoop);
    let mut last = Duration::ZERO;
    for _ in 0..8 {
        assert_eq!(world.take("hello").err(), Some(Kind::CrashLoop));
        world.hear();
        let pause = world.unit().backoff.until(world.now).expect("a back-off") - world.now;
        assert!(pause >= last.mul_f64(0.75), "{pause:?} after {last:?}");
        assert!(u32::from(world.retry_after(Kind::CrashLoop)) >= pause.as_secs() as u32);
        last = pause;
        let before = world.started().len();
        world.wind(pause + millis(2));
        assert_eq!(world.started().len(), before + 1);
        world.step(Ends("exit", false));
    }
    assert!((millis(7_400)..=10 * SECOND).contains(&last), "{last:?}");
}

#[test]
fn without_demand_nothing_is_tried() {
    let mut world = until_shut(revision("hello", 1, 20), &[Ends("exit", false)], Kind::CrashLoop);
    let started = world.started().len();
    // The one refused by the loop above counts once.
    world.hear();
    world.wind(SECOND);
    world.step(Ends("exit", false));
    world.wind(600 * SECOND);
    assert_eq!(world.started().len(), started + 1);
    assert_eq!(world.fleet.next(), None, "and it costs nothing");
}

#[test]
fn what_flaps_is_told_apart_from_what_never_starts() {
    let steps = [Listens, Pass(5 * SECOND), Ends("exit", false)];
    let world = until_shut(revision("hello", 1, 1), &steps, Kind::Flapping);
    assert_eq!(world.started().len(), 3);
    let steps = [Listens, Ends("exit", false)];
    let world = until_shut(revision("hello", 1, 1), &steps, Kind::CrashLoop);
    assert_eq!(world.started().len(), 3);
    let world = until_shut(revision("hello", 1, 1), &[Ends("exit", true)], Kind::PortTaken);
    assert_eq!(world.started().len(), 3);
    let world = until_shut(revision("hello", 1, 1), &[Ends("not there", false)], Kind::CannotStart);
    assert_eq!(world.started().len(), 1);
}

/// Two thousand requests in 20 s at a function whose every start fails: how many starts that makes.
#[test]
fn a_crowd_before_a_function_that_crashes_makes_no_storm_of_starts() {
    let mut world = World::new(64, &[revision("hello", 1, 20)]);
    let (mut tickets, mut crashed) = (Vec::new(), 0);
    for _ in 0..2_000 {
        match world.take("hello") {
            Ok(Taken::Wait(ticket)) => tickets.push(ticket),
            Ok(Taken::Slot(_)) => panic!("nothing runs"),
            Err(kind) => assert!(matches!(kind, Kind::CrashLoop), "{kind:?}"),
        }
        world.hear();
        world.wind(millis(7));
        for instance in world.started().split_off(crashed) {
            world.exit(instance);
            crashed += 1;
        }
        tickets.retain_mut(|ticket| answer(ticket).is_none());
    }
    assert!((5..=30).contains(&crashed), "{crashed} starts in 20 s");
}

#[test]
fn the_last_words_are_in_the_report_and_how_it_ended() {
    let mut world = World::new(64, &[revision("hello", 1, 1)]);
    let _ticket = world.wait("hello");
    world.hear();
    world.step(Ends("killed", false));
    let report = report::functions(&world.fleet, world.now);
    let crash = &report["functions"][0]["last_crash"];
    assert_eq!((&crash["signal"], &crash["exit_status"]), (&9.into(), &serde_json::Value::Null));
    assert_eq!((&crash["fault"], &crash["stderr"][0]), (&"Crashed".into(), &"no database".into()));
    assert_eq!(report["functions"][0]["circuit"], "closed");
}

fn paced(ceiling: u32, pace: Pace, revisions: &[Revision]) -> World {
    let mut setup = setup(ceiling);
    setup.pace = pace;
    World::of(setup, revisions)
}

#[test]
fn a_burst_is_started_whole_whatever_the_rate() {
    let pace = Pace { process: 1.0, function: 1.0, at_once: 0 };
    let mut world = paced(64, pace, &[revision("hello", 1, 20)]);
    let _tickets: Vec<_> = (0..50).map(|_| world.wait("hello")).collect();
    world.hear();
    assert_eq!(world.started().len(), 20);
}

#[test]
fn waking_and_idling_in_turns_is_bounded_and_who_would_wait_long_is_told() {
    let mut hello = revision("hello", 1, 1);
    hello.scale.window = 6 * SECOND;
    let pace = Pace { process: 0.0, function: 0.05, at_once: 0 };
    // The bucket of a revision holds what the process may run.
    let mut world = paced(2, pace, &[hello]);
    let mut refused = 0;
    for _ in 0..20 {
        match world.take("hello") {
            Ok(Taken::Wait(mut ticket)) => {
                world.hear();
                match fault(&mut ticket) {
                    Some(kind) => {
                        assert_eq!(kind, Kind::StartsLimited);
                        assert!((1..=20).contains(&world.retry_after(kind)));
                        refused += 1;
                    }
                    None => {
                        let instance = world.newest();
                        world.listen(instance);
                        drop(answer(&mut ticket));
                        world.wind(7 * SECOND);
                        assert_eq!(world.stopped().last(), Some(&instance));
                        world.exit(instance);
                    }
                }
            }
            Ok(Taken::Slot(_)) => {}
            Err(kind) => {
                assert_eq!(kind, Kind::StartsLimited);
                refused += 1;
                world.hear();
            }
        }
        world.wind(SECOND);
    }
    let started = world.started().len();
    assert!(refused > 0 && started <= 6, "{started} starts, {refused} refused");
}

#[test]
fn a_scan_over_many_hosts_is_bounded_and_everybody_has_his_turn() {
    let all: Vec<_> = (0..100).map(|n| revision(&format!("f{n:02}"), 1, 1)).collect();
    let pace = Pace { process: 20.0, function: 10.0, at_once: 0 };
    let mut world = paced(10, pace, &all);
    let mut tickets: Vec<_> = (0..100).map(|n| world.wait(&format!("f{n:02}"))).collect();
    world.hear();
    assert!(world.started().len() <= 20, "{}", world.started().len());
    let mut ended = 0;
    for _ in 0..700 {
        // Each does its work at once and makes room.
        for instance in world.started().split_off(ended) {
            world.listen(instance);
            tickets.retain_mut(|ticket| !matches!(answer(ticket), Some(Ok(_))));
            ended += 1;
            let unit = world.fleet.units.values().find(|unit| unit.instances.contains_key(&instance));
            assert!(unit.is_some());
        }
        for instance in world.stopped() {
            if world.fleet.units.values().any(|unit| unit.instances.contains_key(&instance)) {
                world.exit(instance);
            }
        }
        world.wind(millis(10));
    }
    assert!(world.started().len() <= 20 + 7 * 20 + 1, "{} starts", world.started().len());
    assert!(tickets.is_empty(), "{} still wait", tickets.len());
}
