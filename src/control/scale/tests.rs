//! The scaler with a driver that only takes notes and a clock that is wound by hand; then once for real.

use super::*;
use crate::activator::{Ask, Ticket};
use crate::clock::{self, Instant};
use crate::cluster::{Members, Rng, Slot, Taken};
use crate::driver::{Exit, How, Order};
use crate::fault::Kind;
use futures_util::task::noop_waker;
use proxy_config::model::{Balance, Command};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

mod failing;
mod first;
mod frozen;
mod health;
mod held;
mod holders;
mod last_moment;
mod reloads;
mod shared;
mod sim;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Notes {
    started: Vec<InstanceId>,
    stopped: Vec<InstanceId>,
    frozen: Vec<InstanceId>,
    thawed: Vec<InstanceId>,
}

struct Fake(Arc<Mutex<Notes>>);

impl Driver for Fake {
    fn start(&mut self, order: Order) {
        self.0.lock().started.push(order.id);
    }

    fn stop(&mut self, instance: InstanceId, _: Duration) {
        self.0.lock().stopped.push(instance);
    }

    fn exec(&self, _: InstanceId) -> Option<crate::driver::Exec> {
        None
    }

    fn freeze(&mut self, instance: InstanceId) {
        self.0.lock().frozen.push(instance);
    }

    fn thaw(&mut self, instance: InstanceId) {
        self.0.lock().thawed.push(instance);
    }
}

/// A fleet, its clock and its notes.
struct World {
    fleet: Fleet,
    registry: Arc<Registry>,
    bell: Arc<Bell>,
    notes: Arc<Mutex<Notes>>,
    now: Instant,
}

fn setup(ceiling: u32) -> Setup {
    let bell = Arc::new(Bell::new());
    let registry = Arc::new(Registry::new(bell.clone(), Arc::default()));
    Setup {
        registry,
        telemetry: Telemetry::new(1),
        bell,
        ceiling,
        flavour: Flavour::default(),
        pace: Pace::default(),
    }
}

pub(super) fn revision(name: &str, concurrency: u32, max: u32) -> Revision {
    let mut revision = crate::driver::tests::revision(&["true"]);
    revision.key = format!("default/{name}");
    revision.name = name.to_owned();
    revision.concurrency = concurrency;
    revision.scale.max = max;
    revision
}

fn shared(revisions: &[Revision]) -> Vec<Arc<Revision>> {
    revisions.iter().cloned().map(Arc::new).collect()
}

impl Fleet {
    /// Exactly these from now on.
    fn apply(&mut self, now: Instant, revisions: &[Arc<Revision>]) {
        self.expect(now, revisions);
        self.retain(now, revisions);
    }
}

impl World {
    fn new(ceiling: u32, revisions: &[Revision]) -> World {
        World::of(setup(ceiling), revisions)
    }

    fn of(setup: Setup, revisions: &[Revision]) -> World {
        let notes = Arc::<Mutex<Notes>>::default();
        let (registry, bell) = (setup.registry.clone(), setup.bell.clone());
        let fleet = Fleet::new(setup, Box::new(Fake(notes.clone())));
        let mut world = World { fleet, registry, bell, notes, now: clock::now() };
        world.fleet.apply(world.now, &shared(revisions));
        world
    }

    fn members(&self, name: &str) -> Arc<Members> {
        self.registry.revision(&format!("default/{name}"))
    }

    fn take(&self, name: &str) -> Result<Taken, Kind> {
        self.members(name).take_or_wait(Balance::LeastRequest, None, &mut Rng::with_seed(1), &[], || {
            Ok(Ask::at(clock::now()))
        })
    }

    fn wait(&mut self, name: &str) -> Ticket<Slot> {
        let Ok(Taken::Wait(ticket)) = self.take(name) else { panic!("it need not wait") };
        ticket
    }

    fn work(&mut self, name: &str) -> Slot {
        let Ok(Taken::Slot(slot)) = self.take(name) else { panic!("it has to wait") };
        slot
    }

    /// Lets the scaler hear the bell.
    fn hear(&mut self) {
        self.bell.take().into_iter().for_each(|hold| self.fleet.rung(self.now, hold));
        self.wind(Duration::from_millis(3));
    }

    fn started(&self) -> Vec<InstanceId> {
        self.notes.lock().started.clone()
    }

    fn stopped(&self) -> Vec<InstanceId> {
        self.notes.lock().stopped.clone()
    }

    fn listen(&mut self, instance: InstanceId) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1000 + instance as u16));
        self.fleet.event(self.now, Event::Listening { instance, address, first: None });
    }

    fn exit(&mut self, instance: InstanceId) {
        let exit = Exit { how: How::Code(1), stderr: vec!["no database".into()], port_taken: false };
        self.fleet.event(self.now, Event::Exited { instance, exit });
    }

    /// Winds the clock, with every look that is due on the way.
    fn wind(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(next) = self.fleet.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.fleet.tick(self.now);
            assert!(self.fleet.next().is_none_or(|later| later > self.now), "it would never rest");
        }
        self.now = end;
    }

    /// A function with one instance that is ready.
    fn awake(revision: Revision) -> World {
        let mut world = World::new(64, std::slice::from_ref(&revision));
        let mut ticket = world.wait(&revision.name);
        world.hear();
        world.listen(1);
        drop(answer(&mut ticket));
        world
    }
}

fn answer(ticket: &mut Ticket<Slot>) -> Option<Result<Slot, Kind>> {
    match Pin::new(ticket).poll(&mut Context::from_waker(&noop_waker())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn fault(ticket: &mut Ticket<Slot>) -> Option<Kind> {
    answer(ticket).and_then(Result::err)
}

#[test]
fn two_hundred_at_zero_start_exactly_twenty_and_all_are_served() {
    let mut world = World::new(64, &[revision("hello", 10, 20)]);
    let mut tickets = Vec::new();
    for n in 0..200 {
        tickets.push(world.wait("hello"));
        // The scaler hears some of them early, as threads would have it.
        if n % 7 == 0 {
            world.hear();
        }
    }
    world.hear();
    world.wind(SECOND);
    assert_eq!(world.started().len(), 20);
    for instance in 1..=20 {
        world.listen(instance);
    }
    let slots: Vec<_> = tickets.iter_mut().map(|ticket| answer(ticket).expect("no answer")).collect();
    assert!(slots.iter().all(Result::is_ok));
    assert!(world.members("hello").endpoints().iter().all(|endpoint| endpoint.active() == 10));
    world.wind(30 * SECOND);
    assert_eq!((world.started().len(), world.stopped().len()), (20, 0), "they satisfy the burst");
}

#[test]
fn a_stream_of_arrivals_is_looked_at_together() {
    let mut world = World::awake(revision("hello", 1, 1));
    let _busy = world.work("hello");
    let mut looks = std::collections::HashSet::new();
    let mut tickets = Vec::new();
    for _ in 0..1_000 {
        tickets.push(world.wait("hello"));
        world.bell.take().into_iter().for_each(|hold| world.fleet.rung(world.now, hold));
        looks.insert(world.fleet.units.values().next().unwrap().looked);
        world.wind(Duration::from_micros(20));
    }
    assert!(looks.len() <= 12, "{} looks in 20 ms", looks.len());
}

#[test]
fn the_process_ceiling_binds_over_all_revisions() {
    let mut world = World::new(3, &[revision("a", 1, 0), revision("b", 1, 0)]);
    let mut waiting: Vec<_> = (0..2).map(|_| world.wait("a")).collect();
    world.hear();
    waiting.extend((0..2).map(|_| world.wait("b")));
    world.hear();
    assert_eq!(world.started().len(), 3);
    // An instance of `a` ends for want of work, and `b` gets its room.
    world.listen(1);
    drop(answer(&mut waiting[0]));
    drop(waiting.remove(1));
    world.wind(SECOND);
    assert_eq!(world.stopped(), [1]);
    world.exit(1);
    assert_eq!(world.started().len(), 4);
}

#[test]
fn with_a_window_of_six_seconds_it_is_gone_soon_after_and_not_before() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.window = 6 * SECOND;
    let mut world = World::awake(hello);
    // Work shorter than a look is seen by the slots it was granted.
    for _ in 0..20 {
        drop(world.work("hello"));
        world.wind(SECOND);
    }
    world.wind(Duration::from_millis(4_500));
    assert!(world.stopped().is_empty());
    world.wind(Duration::from_millis(1_500));
    assert_eq!(world.stopped(), [1]);
    world.exit(1);
    world.wind(100 * SECOND);
    assert_eq!(world.started(), [1]);
    assert_eq!(world.fleet.next(), None, "a function at zero costs nothing");
}

#[test]
fn busy_instances_are_kept_and_idle_ones_go() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.window = 6 * SECOND;
    let mut world = World::new(64, &[hello]);
    let mut tickets: Vec<_> = (0..3).map(|_| world.wait("hello")).collect();
    world.hear();
    (1..=3).for_each(|instance| world.listen(instance));
    let mut slots: Vec<_> = tickets.iter_mut().map(|ticket| answer(ticket).unwrap().unwrap()).collect();
    let busy = slots.remove(1);
    drop(slots);
    world.wind(20 * SECOND);
    let mut stopped = world.stopped();
    stopped.sort_unstable();
    let name = busy.endpoint().name.to_string();
    let left: Vec<_> = (1..=3).filter(|id| !name.ends_with(&format!("/{id}"))).collect();
    assert_eq!(stopped, left);
    drop(busy);
    world.wind(10 * SECOND);
    assert_eq!(world.stopped().len(), 3);
}

#[test]
fn who_comes_after_the_decision_waits_for_one_more_start() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.window = 6 * SECOND;
    let mut world = World::awake(hello);
    world.wind(10 * SECOND);
    assert_eq!(world.stopped(), [1]);
    let mut ticket = world.wait("hello");
    world.hear();
    assert_eq!(world.started(), [1, 2]);
    world.exit(1);
    world.listen(2);
    assert!(matches!(answer(&mut ticket), Some(Ok(_))));
    assert_eq!(world.started(), [1, 2]);
}

#[test]
fn a_crash_at_start_is_told_to_those_who_wait_and_the_next_start_is_held_back() {
    let mut world = World::new(64, &[revision("hello", 1, 0)]);
    let mut ticket = world.wait("hello");
    world.hear();
    world.exit(1);
    assert_eq!(fault(&mut ticket), Some(Kind::Crashed));
    let mut next = world.wait("hello");
    world.hear();
    assert_eq!(world.started(), [1], "the back-off holds");
    world.wind(Duration::from_millis(101));
    assert_eq!(world.started(), [1, 2]);
    assert!(answer(&mut next).is_none(), "newcomers wait");
    let unit = world.fleet.units.values().next().unwrap();
    let crash = unit.last_crash.as_ref().unwrap();
    assert_eq!(
        (crash.how.as_str(), crash.stderr.as_slice()),
        ("exited with status 1", &["no database".into()][..])
    );
}

#[test]
fn one_crash_of_several_starts_is_not_told_to_anyone() {
    let mut world = World::new(64, &[revision("hello", 1, 0)]);
    let mut tickets: Vec<_> = (0..2).map(|_| world.wait("hello")).collect();
    world.hear();
    assert_eq!(world.started(), [1, 2]);
    world.exit(1);
    assert!(tickets.iter_mut().all(|ticket| answer(ticket).is_none()));
    world.wind(SECOND);
    assert_eq!(world.started(), [1, 2, 3]);
}

#[test]
fn an_instance_that_dies_at_work_is_replaced_at_once() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.min = 3;
    let mut world = World::new(64, &[hello]);
    assert_eq!(world.started(), [1, 2, 3]);
    (1..=3).for_each(|instance| world.listen(instance));
    world.wind(SECOND);
    world.exit(2);
    assert_eq!(world.members("hello").len(), 2);
    assert_eq!(world.started(), [1, 2, 3, 4]);
}

#[test]
fn min_scale_is_kept_from_the_start_and_max_scale_follows_a_reload() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.min = 2;
    let mut world = World::new(64, std::slice::from_ref(&hello));
    assert_eq!(world.started(), [1, 2]);
    (1..=2).for_each(|instance| world.listen(instance));
    hello.scale.min = 0;
    world.fleet.apply(world.now, &shared(std::slice::from_ref(&hello)));
    world.wind(100 * SECOND);
    assert_eq!(world.stopped().len(), 2);
}

#[test]
fn a_removed_revision_answers_who_waits_and_finishes_who_works() {
    let mut world = World::awake(revision("hello", 1, 1));
    let slot = world.work("hello");
    let mut ticket = world.wait("hello");
    world.hear();
    world.fleet.apply(world.now, &[]);
    assert_eq!(fault(&mut ticket), Some(Kind::Removed));
    world.wind(SECOND);
    assert!(world.stopped().is_empty());
    let mut late = world.wait("hello");
    world.hear();
    assert_eq!(fault(&mut late), Some(Kind::Removed), "an exchange of the old configuration");
    drop(slot);
    world.wind(SECOND);
    assert_eq!(world.stopped(), [1]);
    world.exit(1);
    world.wind(100 * SECOND);
    assert!(world.fleet.units.is_empty());
}

#[test]
fn a_revision_that_comes_back_while_it_drains_takes_requests_again() {
    let hello = revision("hello", 1, 1);
    let mut world = World::awake(hello.clone());
    let slot = world.work("hello");
    world.fleet.apply(world.now, &[]);
    world.fleet.apply(world.now, &shared(&[hello]));
    drop(slot);
    drop(world.work("hello"));
    assert_eq!(world.started(), [1]);
}

#[test]
fn what_may_not_be_run_is_refused_at_once() {
    let mut hello = revision("hello", 1, 0);
    hello.command = Command::Refused { reason: "made for a container".into(), help: "--exec-all".into() };
    let mut world = World::new(64, &[hello]);
    let mut ticket = world.wait("hello");
    world.hear();
    assert_eq!(fault(&mut ticket), Some(Kind::NotRunnable));
    assert!(world.started().is_empty());
    assert_eq!(world.fleet.next(), None);
}

#[test]
fn what_never_listens_is_given_up() {
    let mut world = World::new(64, &[revision("hello", 1, 0)]);
    let mut ticket = world.wait("hello");
    world.hear();
    world.wind(599 * SECOND);
    assert!(answer(&mut ticket).is_none());
    world.wind(2 * SECOND);
    assert_eq!(fault(&mut ticket), Some(Kind::NeverListened));
    assert_eq!(world.stopped(), [1]);
}

#[test]
fn a_probe_stands_between_the_port_and_the_members() {
    let mut hello = revision("hello", 1, 0);
    hello.probes.readiness = Some(proxy_config::model::Probe { initial_delay: SECOND, ..Default::default() });
    let mut world = World::new(64, &[hello]);
    let mut ticket = world.wait("hello");
    world.hear();
    world.listen(1);
    assert!(answer(&mut ticket).is_none());
    assert_eq!(world.fleet.take_probes().len(), 1);
    world.fleet.probed(world.now, 1, probe::Word::Ready);
    assert!(matches!(answer(&mut ticket), Some(Ok(_))));
}

#[test]
fn the_report_names_what_people_look_for() {
    let mut world = World::awake(revision("hello", 1, 1));
    let _slot = world.work("hello");
    let _ticket = world.wait("hello");
    let report = report::functions(&world.fleet, world.now);
    let function = &report["functions"][0];
    assert_eq!(function["revision"], "default/hello");
    assert_eq!((&function["waiting"], &function["starts"]), (&1.into(), &1.into()));
    assert_eq!(function["instances"][0]["state"], "ready");
    assert_eq!(function["instances"][0]["in_flight"], 1);
    assert_eq!(function["instances"][0]["name"], "hello/1");
}

/// Requests aimed at every moment around the end of the window: each is served, with one start at most.
#[test]
fn requests_around_the_last_moment_are_served() {
    let mut hello = revision("hello", 1, 0);
    hello.scale.window = 6 * SECOND;
    for millis in 5_500..6_600 {
        let mut world = World::awake(hello.clone());
        world.wind(Duration::from_millis(millis));
        match world.take("hello") {
            Ok(Taken::Slot(_)) => assert_eq!(world.started(), [1]),
            Ok(Taken::Wait(mut ticket)) => {
                world.hear();
                assert_eq!(world.started(), [1, 2], "at {millis} ms");
                world.listen(2);
                assert!(matches!(answer(&mut ticket), Some(Ok(_))));
            }
            Err(kind) => panic!("{kind:?} at {millis} ms"),
        }
    }
}

#[test]
fn a_real_process_is_woken_serves_and_is_ended() {
    use crate::driver::process::Processes;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let setup = setup(4);
        let registry = setup.registry.clone();
        let scaler =
            Scaler::spawn(setup, |events| Box::new(Processes::new(crate::driver::tests::settings(), events)));
        let mut hello = revision("hello", 1, 0);
        hello.command = Command::Run(crate::driver::tests::myself("driver::tests::acts_as_server"));
        scaler.expect(&shared(&[hello]));
        let members = registry.revision("default/hello");
        let taken = members.take_or_wait(Balance::LeastRequest, None, &mut Rng::with_seed(1), &[], || {
            Ok(Ask::at(clock::now()))
        });
        let Ok(Taken::Wait(ticket)) = taken else { panic!("nothing runs yet") };
        let slot = tokio::time::timeout(20 * SECOND, ticket).await.expect("no wake").expect("refused");
        std::net::TcpStream::connect(slot.endpoint().address).unwrap();
        assert_eq!(scaler.running(), 1);
        assert!(scaler.functions()["functions"][0]["instances"][0]["pid"].is_u64());
        drop(slot);
        scaler.shutdown(5 * SECOND).await;
        assert_eq!(scaler.running(), 0);
    });
}
