//! What is noted of instances that end, or have to be ended, on their own account.
//!
//! Those that were asked to leave and did are in `leaving`. Nothing is started again here: what is missing is
//! seen at the next look.

use super::backoff::Failure;
use super::fleet::Floor;
use super::instance::{Instance, Phase};
use super::unit::Unit;
use crate::clock::{self, Duration, Instant, SystemTime};
use crate::driver::{Exit, How, InstanceId};
use crate::fault::Kind;
use std::sync::Arc;

/// An instance that ends so soon after it was ready had only opened its port.
const EARLY: Duration = Duration::from_secs(1);

/// SIGKILL, by which the kernel ends what uses too much memory.
const KILLED: i32 = 9;

/// The last instance that ended on its own.
#[derive(Debug)]
pub(super) struct Crash {
    pub instance: Arc<str>,
    pub at: SystemTime,
    pub kind: Kind,
    pub how: String,
    /// Its exit status, or the signal that ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stderr: Vec<String>,
}

impl Crash {
    /// One that ended.
    fn new(instance: &Instance, kind: Kind, exit: Exit) -> Crash {
        let (code, signal) = match exit.how {
            How::Code(code) => (Some(code), None),
            How::Signal(signal) => (None, Some(signal)),
            How::OutOfMemory(_) => (None, Some(KILLED)),
            How::NotStarted(_) => (None, None),
        };
        let name = instance.name.clone();
        let (how, stderr) = (exit.how.to_string(), exit.stderr);
        Crash { instance: name, at: clock::wall(), kind, how, code, signal, stderr }
    }

    /// One that has to be ended.
    pub fn given_up(instance: &Instance, kind: Kind, how: String) -> Crash {
        let stderr = instance.stderr.lines();
        let name = instance.name.clone();
        Crash { instance: name, at: clock::wall(), kind, how, code: None, signal: None, stderr }
    }
}

impl Unit {
    /// An instance is gone.
    pub fn exited(&mut self, now: Instant, id: InstanceId, exit: Exit, floor: &mut Floor) {
        self.account(now, floor);
        let Some(mut instance) = self.instances.remove(&id) else { return };
        instance.remember();
        if !instance.worked {
            self.metrics.wasted.inc();
        }
        self.next = Some(now);
        let ready = instance.ready_for(now);
        let kind = class(&instance, &exit, ready);
        match &instance.phase {
            Phase::Stopping => {
                tracing::info!(instance = &*instance.name, "stopped");
                // One that was given up: only now its last words are known.
                if let Some(crash) = self.last_crash.as_mut().filter(|c| c.instance == instance.name) {
                    crash.stderr = exit.stderr;
                }
                return;
            }
            Phase::Ready { endpoint, .. } => {
                endpoint.end();
                self.members.remove(endpoint.id);
                self.lost += 1;
            }
            // Nobody waits for it, and nothing is known against its program.
            Phase::Frozen { .. } => {
                tracing::warn!(instance = &*instance.name, "the frozen instance {}", exit.how);
                return;
            }
            Phase::Unready { endpoint, .. } => {
                endpoint.end();
                self.lost += 1;
            }
            Phase::Draining { endpoint, .. } => endpoint.end(),
            Phase::Starting | Phase::Probing(_) => {}
        }
        if matches!(exit.how, How::NotStarted(_)) {
            self.lost = 0;
        }
        let crash = Crash::new(&instance, kind, exit);
        self.failed(now, crash, Failure { kind, since: instance.since, ready }, floor);
    }

    /// Notes an instance that ended, or had to be ended, on its own account. Where nothing is left and there
    /// is no hope that the next comes soon, those who wait are told.
    pub fn failed(&mut self, now: Instant, crash: Crash, failure: Failure, floor: &mut Floor) {
        self.crashes += 1;
        self.metrics.crashes.inc();
        let was_vain = self.backoff.is_vain();
        self.backoff.failed(now, failure, floor.random.f64());
        let mut refused = 0;
        if self.present() == 0 {
            self.backoff.nothing_left();
            // What newcomers and those who are answered are told agrees.
            self.foresee(now);
            let first = failure.ready.is_none() && failure.kind != Kind::PortTaken;
            let told = self.backoff.shut(now).or(first.then_some(failure.kind));
            refused = told.map_or(0, |kind| self.members.refuse(kind));
        }
        let last_line = crash.stderr.last().map_or("", String::as_str);
        let class = failure.kind.name();
        tracing::warn!(instance = &*crash.instance, class, refused, last_line, "the instance {}", crash.how);
        self.last_crash = Some(crash);
        if let (false, Some(kind)) = (was_vain, self.backoff.shut(now)) {
            let trial = self.backoff.until(now).unwrap_or(now).saturating_duration_since(now);
            tracing::warn!(
                revision = &*self.members.key,
                "the circuit is open: every start fails ({}), requests are refused at once; one instance is \
                 tried in {trial:.1?}. /functions on the admin address has its last lines",
                kind.name()
            );
        }
    }
}

/// Which failure it is.
fn class(instance: &Instance, exit: &Exit, ready: Option<Duration>) -> Kind {
    match (&exit.how, &instance.phase, ready) {
        (How::NotStarted(_), ..) => Kind::CannotStart,
        (How::OutOfMemory(_), ..) => Kind::OutOfMemory,
        (_, Phase::Starting, _) if exit.port_taken => Kind::PortTaken,
        (_, Phase::Starting, _) => Kind::Crashed,
        (.., Some(ready)) if ready >= EARLY => Kind::Flapping,
        _ => Kind::ExitedEarly,
    }
}
