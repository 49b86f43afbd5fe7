//! One instance, from its order to its end.

use super::account::Cost;
use crate::clock::{Duration, Instant};
use crate::cluster::Endpoint;
use crate::driver::{InstanceId, Tail};
use crate::record::{Birth, Cause};
use std::net::SocketAddr;
use std::sync::Arc;

/// The connection that an instance begins with is closed at the first look after this, if nobody has taken it.
const UNTAKEN: Duration = Duration::from_millis(100);

/// How far an instance is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Ordered; its port is not open.
    Starting,
    /// Its port is open, its probe has not passed.
    Probing(SocketAddr),
    /// Among the members.
    Ready {
        /// As which.
        endpoint: Arc<Endpoint>,
        /// Since when.
        since: Instant,
    },
    /// Not among the members while its readiness probe fails; finishes what it has.
    Unready {
        /// What it was among them, and will be again.
        endpoint: Arc<Endpoint>,
        /// Since when it was ready.
        ready: Instant,
    },
    /// No longer among the members; finishes what it has.
    Draining {
        /// What it was among them.
        endpoint: Arc<Endpoint>,
        /// Since when it was ready.
        ready: Instant,
        /// Since when it drains.
        since: Instant,
    },
    /// Not among the members, and not running: neither asked for anything nor ended.
    Frozen {
        /// Where it listens.
        address: SocketAddr,
        /// Since when it was ready.
        ready: Instant,
        /// Since when it is frozen.
        since: Instant,
    },
    /// Asked to end.
    Stopping,
}

impl Phase {
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Probing(_) => "probing",
            Phase::Ready { .. } => "ready",
            Phase::Unready { .. } => "unready",
            Phase::Draining { .. } => "draining",
            Phase::Frozen { .. } => "frozen",
            Phase::Stopping => "stopping",
        }
    }
}

#[derive(Debug)]
pub(super) struct Instance {
    pub id: InstanceId,
    pub name: Arc<str>,
    pub pid: Option<u32>,
    /// The last it said.
    pub stderr: Tail,
    /// When it was ordered.
    pub since: Instant,
    /// Why, and since when the oldest had waited then.
    pub cause: (Cause, Instant),
    /// When its process ran.
    pub spawned: Option<Instant>,
    /// When its port was open.
    pub listening: Option<Instant>,
    /// It has, or had since the last look, an exchange.
    pub busy: bool,
    /// It ever had one.
    pub worked: bool,
    /// What it costs.
    pub cost: Cost,
    pub phase: Phase,
    /// Whether requests asked for it, not a number to be kept.
    pub asked: bool,
    /// Runs what its revision said before a reload, or makes room for another function: takes no more requests
    /// and is not taken back.
    pub outdated: bool,
    /// When its limit was opened last, while it is not yet given all who wait.
    pub ramp: Option<Instant>,
    /// When it was last seen to have, or to have had, an exchange.
    pub used: Instant,
    /// Whether its slow start was told.
    pub slow: bool,
    /// Its probes are being asked.
    pub probed: bool,
    /// When it is asked to end whatever it still has.
    pub end_by: Option<Instant>,
    /// Slots it had granted at the last look.
    granted: u64,
}

impl Instance {
    /// How long it has been finishing what it has before it ends.
    pub fn finishes_since(&self, now: Instant) -> Option<Duration> {
        let Phase::Draining { since, .. } = self.phase else { return None };
        Some(now.saturating_duration_since(since))
    }

    pub fn new(
        id: InstanceId,
        name: Arc<str>,
        asked: bool,
        cause: (Cause, Instant),
        now: Instant,
    ) -> Instance {
        Instance {
            id,
            name,
            pid: None,
            stderr: Tail::default(),
            since: now,
            cause,
            spawned: None,
            listening: None,
            busy: false,
            worked: false,
            cost: Cost::default(),
            phase: Phase::Starting,
            asked,
            outdated: false,
            ramp: None,
            used: now,
            slow: false,
            probed: false,
            end_by: None,
            granted: 0,
        }
    }

    /// How it came to be, at the moment it is ready.
    pub fn birth(&self, now: Instant) -> Birth {
        let spawned = self.spawned.unwrap_or(self.since);
        let listening = self.listening.unwrap_or(now).max(spawned);
        let (cause, asked) = self.cause;
        Birth { cause, asked, ordered: self.since, spawned, listening, ready: now }
    }

    /// Notes, before it is forgotten, whether it was ever of use.
    pub fn remember(&mut self) {
        let granted = self.endpoint().is_some_and(|endpoint| endpoint.granted() > 0);
        self.worked |= granted;
    }

    /// Its endpoint, whether it is among the members or finishes what it has.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.phase {
            Phase::Ready { endpoint, .. }
            | Phase::Unready { endpoint, .. }
            | Phase::Draining { endpoint, .. } => Some(endpoint),
            Phase::Starting | Phase::Probing(_) | Phase::Frozen { .. } | Phase::Stopping => None,
        }
    }

    /// Whether it is on its way to be ready.
    pub fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Probing(_))
    }

    /// Its endpoint, if it is among the members.
    pub fn ready(&self) -> Option<&Arc<Endpoint>> {
        match &self.phase {
            Phase::Ready { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    /// Whether it is put aside by its readiness probe.
    pub fn is_unready(&self) -> bool {
        matches!(self.phase, Phase::Unready { .. })
    }

    /// Whether its probes have something to say.
    pub fn listens_to_probes(&self) -> bool {
        matches!(self.phase, Phase::Probing(_) | Phase::Ready { .. } | Phase::Unready { .. })
    }

    /// Since when it is frozen, if it is.
    pub fn frozen(&self) -> Option<Instant> {
        match self.phase {
            Phase::Frozen { since, .. } => Some(since),
            _ => None,
        }
    }

    /// It takes requests again, at a new endpoint.
    pub fn again(&mut self, now: Instant) {
        self.used = now;
        self.granted = 0;
    }

    /// How long it has been ready, if it ever was.
    pub fn ready_for(&self, now: Instant) -> Option<Duration> {
        match &self.phase {
            Phase::Ready { since, .. }
            | Phase::Unready { ready: since, .. }
            | Phase::Draining { ready: since, .. }
            | Phase::Frozen { ready: since, .. } => Some(now.saturating_duration_since(*since)),
            Phase::Starting | Phase::Probing(_) | Phase::Stopping => None,
        }
    }

    /// Exchanges it has, and how many it was given since the last look, however short.
    pub fn look(&mut self, now: Instant) -> (u32, u64) {
        let Some(endpoint) = self.ready() else { return (0, 0) };
        if self.listening.is_some_and(|at| now.saturating_duration_since(at) >= UNTAKEN) {
            endpoint.drop_first();
        }
        let (active, granted) = (endpoint.active(), endpoint.granted());
        let given = granted.saturating_sub(self.granted);
        self.granted = granted;
        self.busy = active > 0 || given > 0;
        if self.busy {
            self.used = now;
        }
        (active, given)
    }
}
