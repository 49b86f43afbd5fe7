//! What follows from what the probes of an instance say.
//!
//! Nothing is asked here (`probe` does that): an instance is ready by them, put aside and taken back, or
//! replaced.

use super::backoff::Failure;
use super::ended::Crash;
use super::fleet::Floor;
use super::instance::{Instance, Phase};
use super::probe::{Probing, Word, lasts};
use super::unit::Unit;
use crate::clock::{Duration, Instant};
use crate::driver::InstanceId;
use crate::fault::Kind;
use proxy_config::model::{ProbeAction, Probes};
use std::net::{SocketAddr, TcpStream};

impl Unit {
    /// An instance's port accepts, and has accepted the connection that comes with its address.
    pub fn listening(
        &mut self,
        now: Instant,
        id: InstanceId,
        (address, first): (SocketAddr, Option<TcpStream>),
        floor: &mut Floor,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if !matches!(instance.phase, Phase::Starting) {
            return;
        }
        instance.listening = Some(now);
        let probes = &self.revision.probes;
        // That the port accepts is known.
        let known = probes.readiness.as_ref().is_none_or(|probe| {
            let here = probe.action == ProbeAction::Tcp && probe.elsewhere.is_none();
            here && probe.initial_delay.is_zero() && probe.success <= 1
        });
        if known && probes.startup.is_none() {
            self.ready(now, id, address, first);
            return;
        }
        instance.phase = Phase::Probing(address);
        self.probe(id, address, self.revision.probes.clone(), false, floor);
    }

    /// Has an instance asked by `probes`, and no longer by those of before.
    pub fn probe(
        &mut self,
        id: InstanceId,
        address: SocketAddr,
        probes: Probes,
        resumed: bool,
        floor: &mut Floor,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.probed = true;
        floor.probes.push(Probing {
            instance: id,
            address,
            since: instance.since,
            probes,
            protocol: self.revision.protocol,
            resumed,
            exec: floor.driver.exec(id),
        });
    }

    /// Has the ready asked again that are not: those just ready, thawed, or taken back.
    pub fn probe_again(&mut self, floor: &mut Floor) {
        if !lasts(&self.revision.probes) {
            return;
        }
        let silent = |one: &Instance| Some((one.id, one.ready().filter(|_| !one.probed)?.address));
        let silent: Vec<_> = self.instances.values().filter_map(silent).collect();
        for (id, address) in silent {
            self.probe(id, address, self.revision.probes.clone(), true, floor);
        }
    }

    /// The probes of an instance say something.
    pub fn probed(&mut self, now: Instant, id: InstanceId, word: Word, floor: &mut Floor) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        match (&instance.phase, word) {
            (Phase::Probing(address), Word::Ready) => {
                let address = *address;
                self.ready(now, id, address, None);
            }
            (Phase::Probing(_), Word::NeverStarted) => {
                self.never_ready(now, id, "did not pass its startup probe".into(), floor);
            }
            (Phase::Probing(_), Word::Dead) => {
                self.never_ready(now, id, "did not pass its liveness probe".into(), floor);
            }
            (Phase::Ready { endpoint, since }, Word::Unready) => {
                let (endpoint, ready) = (endpoint.clone(), *since);
                endpoint.close();
                self.members.remove(endpoint.id);
                tracing::warn!(instance = &*instance.name, "not ready: its readiness probe fails");
                instance.phase = Phase::Unready { endpoint, ready };
                self.metrics.unready.inc();
            }
            (Phase::Unready { endpoint, ready }, Word::Ready) => {
                let (endpoint, since) = (endpoint.clone(), *ready);
                endpoint.reopen();
                self.members.insert(endpoint.clone());
                tracing::info!(instance = &*instance.name, "ready again");
                instance.phase = Phase::Ready { endpoint, since };
                self.members.offer();
            }
            (Phase::Ready { .. } | Phase::Unready { .. }, Word::Dead) => self.dead(now, id, floor),
            _ => {}
        }
    }

    /// Replaces an instance that does not answer for its life: it takes no more, has half of its grace to
    /// finish what it has, and the other half to end.
    fn dead(&mut self, now: Instant, id: InstanceId, floor: &mut Floor) {
        let half = self.half_of_grace();
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let (Phase::Ready { endpoint, since: ready } | Phase::Unready { endpoint, ready }) = &instance.phase
        else {
            return;
        };
        let (endpoint, ready) = (endpoint.clone(), *ready);
        endpoint.close();
        self.members.remove(endpoint.id);
        instance.outdated = true;
        instance.end_by = Some(now + half);
        instance.phase = Phase::Draining { endpoint, ready, since: now };
        self.lost += 1;
        self.metrics.dead.inc();
        let ready = Some(now.saturating_duration_since(ready));
        let failure = Failure { kind: Kind::Flapping, since: instance.since, ready };
        let crash = Crash::given_up(instance, Kind::Flapping, "did not pass its liveness probe".into());
        self.failed(now, crash, failure, floor);
    }

    fn half_of_grace(&self) -> Duration {
        let written = self.revision.probes.liveness.as_ref().and_then(|probe| probe.grace);
        written.unwrap_or(self.grace()) / 2
    }

    /// How long an instance has from SIGTERM to SIGKILL.
    pub fn grace_of(&self, id: InstanceId) -> Duration {
        let dead = self.instances.get(&id).is_some_and(|instance| instance.end_by.is_some());
        if dead { self.half_of_grace() } else { self.grace() }
    }

    /// Ends those that are put aside, as nobody wants them back.
    pub fn stop_unready(&mut self, now: Instant, floor: &mut Floor) {
        let ids: Vec<_> = self.instances.values().filter(|one| one.is_unready()).map(|one| one.id).collect();
        for id in ids {
            self.retire(now, id, floor);
        }
    }

    /// Instances that max-scale still allows beside those that are put aside.
    pub fn room_of_its_own(&self) -> u32 {
        match (self.terms.max, self.count(Instance::is_unready)) {
            (0, _) | (_, 0) => u32::MAX,
            (max, _) => max.saturating_sub(self.present()),
        }
    }
}

/// Which probe an instance is waiting for, in words.
pub(super) fn not_passed(probes: &Probes, address: SocketAddr) -> String {
    let (name, probe) = match (&probes.startup, &probes.readiness) {
        (Some(probe), _) => ("startup", probe),
        (None, Some(probe)) => ("readiness", probe),
        (None, None) => return format!("{address} is not accepting"),
    };
    match &probe.action {
        ProbeAction::Tcp => format!("{address} does not pass its {name} probe"),
        ProbeAction::Http { path, .. } => format!("its {name} probe GET {path} on {address} has not passed"),
        ProbeAction::Grpc { .. } => format!("its {name} probe by gRPC on {address} has not passed"),
        ProbeAction::Exec { .. } => format!("the command of its {name} probe does not exit with 0"),
    }
}
