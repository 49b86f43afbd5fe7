//! How instances begin: ordered, listening, probed, ready; or given up, and told of when they are slow.
//!
//! What became of those that do not get that far is in `ended`. Nothing here decides how many there are.

use super::backoff::Failure;
use super::ended::Crash;
use super::fleet::Floor;
use super::healthy::not_passed;
use super::instance::{Instance, Phase};
use super::ramp;
use super::unit::Unit;
use crate::clock::{Duration, Instant};
use crate::cluster::Endpoint;
use crate::driver::{InstanceId, Order};
use crate::fault::Kind;
use crate::record::Cause;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// An instance that is not ready by then is given up (Knative's progress deadline).
const PROGRESS: Duration = Duration::from_secs(600);
/// An instance that is not ready after this is told of: most often it listens elsewhere, and nothing else
/// would say so.
const SLOW: Duration = Duration::from_secs(5);

impl Unit {
    pub fn start(&mut self, now: Instant, asked: bool, cause: (Cause, Instant), floor: &mut Floor) {
        self.starts += 1;
        self.metrics.started(cause.0).inc();
        let name: Arc<str> = format!("{}/{}", self.revision.name, self.starts).into();
        let id = floor.order(self.members.key.clone());
        self.instances.insert(id, Instance::new(id, name.clone(), asked, cause, now));
        floor.driver.start(Order { id, name, revision: self.revision.clone() });
    }

    pub fn say_slow(&mut self, now: Instant) {
        let waiting = self.hold.waiting();
        for instance in self.instances.values_mut() {
            if !instance.is_starting()
                || instance.slow
                || now.saturating_duration_since(instance.since) < SLOW
            {
                continue;
            }
            instance.slow = true;
            let why = match &instance.phase {
                Phase::Probing(address) => not_passed(&self.revision.probes, *address),
                _ => "nothing listens on the port that PORT names in its environment; the command must \
                      listen there, on 127.0.0.1 or 0.0.0.0"
                    .to_owned(),
            };
            tracing::warn!(
                instance = &*instance.name,
                waiting,
                "not ready after {} s: {why}",
                SLOW.as_secs()
            );
        }
    }

    /// Gives up instances that are not ready after too long.
    pub fn give_up(&mut self, now: Instant, floor: &mut Floor) {
        let late = |i: &&Instance| i.is_starting() && now.saturating_duration_since(i.since) >= PROGRESS;
        let ids: Vec<_> = self.instances.values().filter(late).map(|instance| instance.id).collect();
        for id in ids {
            let how = format!("was not ready within {} s", PROGRESS.as_secs());
            self.never_ready(now, id, how, floor);
        }
    }

    pub fn never_ready(&mut self, now: Instant, id: InstanceId, how: String, floor: &mut Floor) {
        let written = self.revision.probes.startup.as_ref().and_then(|probe| probe.grace);
        let grace = written.unwrap_or(self.grace());
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let kind = if instance.listening.is_some() { Kind::NeverReady } else { Kind::NeverListened };
        let failure = Failure { kind, since: instance.since, ready: None };
        instance.phase = Phase::Stopping;
        floor.driver.stop(id, grace);
        let crash = Crash::given_up(instance, kind, how);
        self.failed(now, crash, failure, floor);
    }

    /// Puts an instance among the members. Who waits for it gets the connection that is `first`.
    pub fn ready(&mut self, now: Instant, id: InstanceId, address: SocketAddr, first: Option<TcpStream>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let unlimited = self.revision.concurrency == 0;
        let limit = if unlimited { ramp::FIRST } else { self.revision.concurrency };
        let endpoint = Endpoint::born(address, instance.name.clone(), limit, instance.birth(now), first);
        instance.ramp = unlimited.then_some(now);
        instance.phase = Phase::Ready { endpoint: endpoint.clone(), since: now };
        instance.used = now;
        self.backoff.succeeded();
        self.members.insert(endpoint.clone());
        let served = self.members.offer();
        if served == 0 {
            endpoint.drop_first();
        }
        let took = now.saturating_duration_since(instance.since);
        self.learned.saw(took);
        self.metrics.start_seconds.observe(took.as_secs_f64());
        // Its callers may have given up; the next ones find it for at least a window.
        if instance.asked {
            self.peaks.record(now, 1, self.terms.horizon());
        }
        self.next = Some(now);
        let took_ms = (took.as_secs_f64() * 1e4).round() / 10.0;
        tracing::info!(instance = &*instance.name, %address, took_ms, served, "ready");
    }
}
