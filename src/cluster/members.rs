//! Who belongs to a destination now, and who gets a place there.
//!
//! Members outlast snapshots: they are looked up by key when a snapshot is compiled. Those of a function
//! have a hold, where exchanges wait that find no place; newcomers never pass those who wait.

use super::balance::{List, Rng};
use super::holder::Line;
use super::{Endpoint, Gate, Slot};
use crate::activator::{Ask, Bell, Hold, HoldLimits, Outlook, Parked, Room, Ticket};
use crate::clock;
use crate::fault::Kind;
use crate::sync::{AtomicUsize, Mutex, Swap};
use proxy_config::model::{Balance, Outlier};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, LazyLock};

/// What keys of clusters begin with; a revision's has no blank in it.
const GIVEN: &str = "cluster ";
const QUEUED: &str = "queue ";
/// Exchanges that wait for each place where endpoints are given and limited.
const QUEUED_FOR_EACH: usize = 10;
/// What most members have while nobody asks for them: no endpoint, no line.
static NOBODY: LazyLock<Nobody> = LazyLock::new(Nobody::default);

#[derive(Default)]
struct Nobody {
    list: Arc<List>,
    lines: Arc<Vec<Arc<Line>>>,
}

/// The endpoints of one destination while the proxy runs.
#[derive(Debug)]
pub struct Members {
    /// A revision's key, or a cluster's name.
    pub key: Arc<str>,
    pub(super) list: Swap<List>,
    hold: Option<Arc<Hold<Slot>>>,
    /// Of holders that have joined, and how many.
    lines: Swap<Vec<Arc<Line>>>,
    joined: AtomicUsize,
    turn: AtomicUsize,
    /// Changes of the list and of who is ejected, one at a time.
    pub(super) change: Mutex<()>,
}

/// What became of asking for a place.
pub enum Taken {
    /// A place.
    Slot(Slot),
    /// A place in the queue for one.
    Wait(Ticket<Slot>),
}

impl Members {
    /// Members that are given, not started: without one there is nothing to wait for.
    pub fn given(key: Arc<str>) -> Arc<Members> {
        Members::new(key, None)
    }

    /// Members that are started on demand.
    pub fn started(key: Arc<str>, hold: Arc<Hold<Slot>>) -> Arc<Members> {
        Members::new(key, Some(hold))
    }

    fn new(key: Arc<str>, hold: Option<Arc<Hold<Slot>>>) -> Arc<Members> {
        Arc::new(Members {
            key,
            list: Swap::new(NOBODY.list.clone()),
            hold,
            lines: Swap::new(NOBODY.lines.clone()),
            joined: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            change: Mutex::new(()),
        })
    }

    /// Where exchanges wait, if these members are started on demand.
    pub fn hold(&self) -> Option<&Arc<Hold<Slot>>> {
        self.hold.as_ref()
    }

    /// How many other holders have joined. Who frees a slot reads this after freeing.
    #[inline]
    pub(super) fn joined(&self) -> usize {
        self.joined.load(SeqCst)
    }

    pub(super) fn lines(&self) -> impl Deref<Target = Arc<Vec<Arc<Line>>>> {
        self.lines.load()
    }

    pub(super) fn change_lines(&self, f: impl FnOnce(&mut Vec<Arc<Line>>)) {
        let _one_at_a_time = self.change.lock();
        let mut lines = self.lines.load().to_vec();
        f(&mut lines);
        self.joined.store(lines.len(), SeqCst);
        self.lines.store(Arc::new(lines));
    }

    /// Everyone, ejected and closed ones included.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.list.load().endpoints.clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.load().endpoints.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exchanges at all of them.
    pub fn in_flight(&self) -> u32 {
        self.list.load().endpoints.iter().map(|e| e.active()).sum()
    }

    /// Takes in one more. Follow with [`Members::offer`] so that those who wait get its places.
    pub fn insert(&self, endpoint: Arc<Endpoint>) {
        self.change(|endpoints| endpoints.push(endpoint));
    }

    /// Lets one go; exchanges it has go on.
    pub fn remove(&self, id: u64) {
        self.change(|endpoints| endpoints.retain(|e| e.id != id));
    }

    /// Exactly these addresses with these weights from now on; those that stay keep their state.
    pub fn replace(&self, wanted: &[(SocketAddr, u32)]) {
        self.replace_limited(wanted, 0);
    }

    /// As [`Members::replace`]; each takes at most `limit` exchanges at once (0: no limit).
    fn replace_limited(&self, wanted: &[(SocketAddr, u32)], limit: u32) {
        self.change(|endpoints| {
            let old = std::mem::take(endpoints);
            *endpoints = wanted
                .iter()
                .map(|&(address, weight)| {
                    old.iter()
                        .find(|e| e.address == address && e.weight == weight.max(1))
                        .cloned()
                        .inspect(|kept| kept.set_limit(limit))
                        .unwrap_or_else(|| Endpoint::new(address, address.to_string().into(), weight, limit))
                })
                .collect();
        });
    }

    fn change(&self, f: impl FnOnce(&mut Vec<Arc<Endpoint>>)) {
        let _one_at_a_time = self.change.lock();
        let mut endpoints = self.endpoints();
        f(&mut endpoints);
        self.list.store(Arc::new(List::new(endpoints)));
    }

    /// A place at a healthy member, avoiding those in `tried` where another is there.
    #[inline]
    pub fn take(
        self: &Arc<Self>,
        balance: Balance,
        outlier: Option<&Outlier>,
        rng: &mut Rng,
        tried: &[u64],
    ) -> Option<Slot> {
        let list = self.list.load();
        let n = list.endpoints.len();
        let first = match (n, balance) {
            (0, _) => return None,
            (1, _) => 0,
            (_, Balance::LeastRequest) => list.least_of_two(rng),
            (_, Balance::RoundRobin) => list.in_turn(self.turn.fetch_add(1, Relaxed)),
            (_, Balance::Random) => list.draw(rng),
        };
        let home = self.hold.is_some().then_some(self);
        let honour = n == 1 || !panics(&list, outlier);
        for avoid_tried in [true, false] {
            for step in 0..n {
                let endpoint = &list.endpoints[(first + step) % n];
                if honour && endpoint.health.is_ejected() || avoid_tried && tried.contains(&endpoint.id) {
                    continue;
                }
                if let Some(slot) = Slot::take(endpoint, home) {
                    return Some(slot);
                }
            }
            if tried.is_empty() {
                break;
            }
        }
        home.and_then(|home| list.last_resort(home))
    }

    /// Whether a healthy member that is not among `tried` has room.
    #[cold]
    pub fn has_room_beside(&self, tried: &[u64]) -> bool {
        let list = self.list.load();
        list.endpoints.iter().any(|e| !tried.contains(&e.id) && !e.health.is_ejected() && e.has_room())
    }

    /// A place now, or a place in the queue for one on the terms of `ask`, which is asked only then. Nobody
    /// passes those who wait already.
    pub fn take_or_wait(
        self: &Arc<Self>,
        balance: Balance,
        outlier: Option<&Outlier>,
        rng: &mut Rng,
        tried: &[u64],
        ask: impl FnOnce() -> Result<Ask, Kind>,
    ) -> Result<Taken, Kind> {
        let Some(hold) = &self.hold else {
            return self.take(balance, outlier, rng, tried).map(Taken::Slot).ok_or(Kind::NoHealthyUpstream);
        };
        if hold.waiting() == 0
            && let Some(slot) = self.take(balance, outlier, rng, tried)
        {
            return Ok(Taken::Slot(slot));
        }
        match hold.park(ask()?, || self.take(balance, outlier, rng, tried))? {
            Parked::Now(slot) => Ok(Taken::Slot(slot)),
            Parked::Wait(ticket) => Ok(Taken::Wait(ticket)),
        }
    }

    /// Gives free places to the oldest of those who wait.
    pub fn offer(self: &Arc<Self>) -> usize {
        let Some(hold) = &self.hold else { return 0 };
        let mut rng = Rng::new();
        if self.joined() > 0 {
            return self.offer_in_turn(hold, &mut rng);
        }
        hold.offer(clock::now(), || self.take(Balance::LeastRequest, None, &mut rng, &[]))
    }

    /// A place came free.
    #[inline]
    pub(super) fn freed(self: &Arc<Self>) {
        if let Some(hold) = &self.hold
            && (hold.waiting() > 0 || self.joined() > 0 && self.waiting() > 0)
        {
            self.offer();
        }
    }
}

impl List {
    /// Instances of a function may all be ejected once the healthy ones have gone. Nothing would be started
    /// beside them, so they are better than none.
    #[cold]
    fn last_resort(&self, home: &Arc<Members>) -> Option<Slot> {
        if !self.endpoints.iter().all(|e| e.health.is_ejected() || e.is_closed()) {
            return None;
        }
        self.endpoints.iter().find_map(|endpoint| Slot::take(endpoint, Some(home)))
    }
}

/// Whether so few are healthy that ejections are not honoured (Envoy's panic mode).
fn panics(list: &List, outlier: Option<&Outlier>) -> bool {
    let Some(min) = outlier.map(|o| o.min_health_percent as usize).filter(|min| *min > 0) else {
        return false;
    };
    let healthy = list.endpoints.iter().filter(|e| !e.health.is_ejected()).count();
    100 * healthy < min * list.endpoints.len()
}

/// Live state by name, for snapshots to be compiled against.
#[derive(Debug)]
pub struct Registry {
    bell: Arc<Bell>,
    room: Arc<Room>,
    members: Mutex<HashMap<Arc<str>, Arc<Members>>>,
    gates: Mutex<HashMap<Arc<str>, Arc<Gate>>>,
}

impl Registry {
    /// Empty; `bell` is rung when an exchange is held, and no more are than `room` has left.
    pub fn new(bell: Arc<Bell>, room: Arc<Room>) -> Registry {
        Registry { bell, room, members: Mutex::default(), gates: Mutex::default() }
    }

    /// What is held, of all revisions together.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The members of a cluster with given endpoints.
    pub fn given(&self, name: &str) -> Arc<Members> {
        let key: Arc<str> = format!("{GIVEN}{name}").into();
        self.members.lock().entry(key).or_insert_with_key(|key| Members::given(key.clone())).clone()
    }

    /// The members of a cluster with given endpoints, each of which takes `concurrency` exchanges at once.
    /// Others wait their turn, ten for each place, as many as Knative's queue holds.
    pub fn queued(&self, name: &str, wanted: &[(SocketAddr, u32)], concurrency: u32) -> Arc<Members> {
        let key: Arc<str> = format!("{QUEUED}{name}").into();
        let members = self.started(key);
        members.replace_limited(wanted, concurrency);
        if let Some(hold) = &members.hold {
            let count = QUEUED_FOR_EACH.saturating_mul(concurrency as usize).saturating_mul(wanted.len());
            hold.set_limits(HoldLimits { count, ..HoldLimits::default() });
            let places = u32::try_from(wanted.len()).unwrap_or(u32::MAX).saturating_mul(concurrency);
            hold.set_outlook(Outlook { awake: true, at_most: true, places, ..Outlook::default() });
        }
        // A greater limit than before makes room for those who wait.
        members.offer();
        members
    }

    /// The members of a revision.
    pub fn revision(&self, key: &str) -> Arc<Members> {
        self.started(key.into())
    }

    fn started(&self, key: Arc<str>) -> Arc<Members> {
        self.members
            .lock()
            .entry(key)
            .or_insert_with_key(|key| {
                let hold = Hold::new(HoldLimits::default(), self.bell.clone(), self.room.clone());
                Members::started(key.clone(), hold)
            })
            .clone()
    }

    /// The members of a revision, if it was ever asked for.
    pub fn find_revision(&self, key: &str) -> Option<Arc<Members>> {
        self.members.lock().get(key).cloned()
    }

    /// The counts of a cluster, and its name, which is kept here once.
    pub fn gate(&self, cluster: &str) -> (Arc<str>, Arc<Gate>) {
        let mut gates = self.gates.lock();
        if let Some((name, gate)) = gates.get_key_value(cluster) {
            return (name.clone(), gate.clone());
        }
        let (name, gate) = (Arc::<str>::from(cluster), Arc::<Gate>::default());
        gates.insert(name.clone(), gate.clone());
        (name, gate)
    }

    /// Forgets what nobody else holds any more, but for revisions that still have instances.
    pub fn prune(&self) {
        let of_revision = |key: &str| !key.starts_with(GIVEN) && !key.starts_with(QUEUED);
        self.members
            .lock()
            .retain(|key, members| Arc::strong_count(members) > 1 || of_revision(key) && !members.is_empty());
        self.gates.lock().retain(|_, gate| Arc::strong_count(gate) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn given(n: u16) -> Arc<Members> {
        let members = Members::given("c".into());
        let wanted: Vec<_> = (1..=n).map(|p| (SocketAddr::from(([127, 0, 0, 1], p)), 1)).collect();
        members.replace(&wanted);
        members
    }

    fn outlier(max_ejection_percent: u32, min_health_percent: u32) -> Outlier {
        Outlier {
            consecutive_5xx: Some(1),
            consecutive_gateway: None,
            interval: Duration::from_secs(1),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent,
            min_health_percent,
        }
    }

    #[test]
    fn ejection_stops_at_the_percentage_as_envoy_counts_it() {
        for (endpoints, percent, ejected) in [(3, 10, 0), (3, 34, 1), (10, 10, 1), (4, 50, 2), (1, 100, 1)] {
            let (members, policy, now) = (given(endpoints), outlier(percent, 0), clock::now());
            let n = members.endpoints().iter().filter(|e| members.report(e, 503, &policy, now)).count();
            assert_eq!(n, ejected, "{endpoints} endpoints, {percent} %");
        }
    }

    #[test]
    fn ejected_members_get_nothing_unless_too_few_are_healthy() {
        let (members, now) = (given(2), clock::now());
        let mut rng = Rng::with_seed(1);
        let policy = outlier(100, 0);
        for e in members.endpoints() {
            assert!(members.report(&e, 500, &policy, now));
        }
        assert!(members.take(Balance::Random, Some(&policy), &mut rng, &[]).is_none());
        assert!(members.take(Balance::Random, Some(&outlier(100, 50)), &mut rng, &[]).is_some());
        assert_eq!(members.sweep(now + Duration::from_secs(30), policy.interval), 2);
        assert!(members.take(Balance::Random, Some(&policy), &mut rng, &[]).is_some());
    }

    #[test]
    fn instances_of_a_function_that_are_all_ejected_are_better_than_none() {
        let members = Registry::new(Arc::default(), Arc::default()).revision("default/hello-1");
        let [one, two, three] = [1, 2, 3].map(|port| {
            let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)), "i".into(), 1, 1);
            members.insert(endpoint.clone());
            endpoint
        });
        let (policy, mut rng, now) = (outlier(100, 0), Rng::with_seed(1), clock::now());
        let mut take = || members.take(Balance::Random, Some(&policy), &mut rng, &[]);
        assert!(members.report(&one, 500, &policy, now) && members.report(&two, 500, &policy, now));
        let held = take().unwrap();
        assert_eq!(held.endpoint().id, three.id);
        assert!(take().is_none(), "the healthy one is only busy");
        three.close();
        assert!(take().is_some_and(|slot| slot.endpoint().id != three.id));
        members.remove(three.id);
        members.remove(two.id);
        assert!(take().is_some());
    }

    #[test]
    fn tried_members_are_avoided_while_others_are_there() {
        let members = given(2);
        let mut rng = Rng::with_seed(1);
        let first = members.endpoints()[0].id;
        for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::Random] {
            for _ in 0..20 {
                let slot = members.take(balance, None, &mut rng, &[first]).unwrap();
                assert_ne!(slot.endpoint().id, first);
            }
        }
        let all: Vec<u64> = members.endpoints().iter().map(|e| e.id).collect();
        assert!(members.take(Balance::Random, None, &mut rng, &all).is_some());
    }

    #[test]
    fn places_at_given_endpoints_are_limited_where_it_is_said_and_others_wait_their_turn() {
        let registry = Registry::new(Arc::default(), Arc::default());
        let wanted = [("127.0.0.1:1".parse().unwrap(), 1)];
        let members = registry.queued("c", &wanted, 2);
        let mut rng = Rng::with_seed(1);
        let take = |rng: &mut Rng| {
            members.take_or_wait(Balance::Random, None, rng, &[], || Ok(Ask::at(clock::now())))
        };
        let places: Vec<_> = (0..2).map(|_| take(&mut rng).unwrap()).collect();
        assert!(places.iter().all(|place| matches!(place, Taken::Slot(_))));
        let waiting: Vec<_> = (0..20).map(|_| take(&mut rng).unwrap()).collect();
        assert!(waiting.iter().all(|place| matches!(place, Taken::Wait(_))));
        assert!(matches!(take(&mut rng), Err(Kind::HoldFull)));
        assert_eq!(members.in_flight(), 2);
        assert_eq!(registry.queued("c", &wanted, 5).in_flight(), 5, "more room is taken at once");
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let registry = Registry::new(Arc::default(), Arc::default());
        let wanted = [("127.0.0.1:1".parse().unwrap(), 1)];
        let given = registry.given("c");
        given.replace(&wanted);
        drop(registry.queued("q", &wanted, 1));
        registry.revision("n/f").replace(&wanted);
        registry.prune();
        assert_eq!(registry.members.lock().len(), 2);
        drop(given);
        registry.prune();
        assert!(registry.find_revision("n/f").is_some() && registry.members.lock().len() == 1);
    }

    #[test]
    fn replacing_keeps_the_state_of_those_that_stay() {
        let members = given(2);
        let before = members.endpoints();
        members.replace(&[(before[1].address, 1), ("127.0.0.1:9".parse().unwrap(), 1)]);
        assert_eq!(members.endpoints()[0].id, before[1].id);
        assert_ne!(members.endpoints()[1].id, before[0].id);
    }
}
