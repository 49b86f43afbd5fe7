//! What is noted of instances that end, or have to be ended, on their own account.
//!
//! Those that were asked to leave and did are in `leaving`. Nothing is started again here: what is missing is
//! seen at the next look.

use super::fleet::Floor;
use super::instance::{Instance, Phase};
use super::unit::Unit;
use crate::clock::{self, Duration, Instant, SystemTime};
use crate::driver::{Exit, How, InstanceId};
use crate::fault::Kind;
use std::sync::Arc;

/// The last instance that ended on its own.
#[derive(Debug)]
pub(super) struct Crash {
    pub instance: Arc<str>,
    pub at: SystemTime,
    pub how: String,
    pub stderr: Vec<String>,
}

impl Crash {
    pub fn new(instance: &Instance, how: String, stderr: Vec<String>) -> Crash {
        Crash { instance: instance.name.clone(), at: clock::wall(), how, stderr }
    }
}

impl Unit {
    /// An instance is gone.
    pub fn exited(&mut self, now: Instant, id: InstanceId, exit: Exit, floor: &mut Floor) {
        self.account(now);
        let Some(mut instance) = self.instances.remove(&id) else { return };
        instance.remember();
        if !instance.worked {
            self.metrics.wasted.inc();
        }
        self.next = Some(now);
        let ready = instance.ready_for(now);
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
                endpoint.close();
                self.members.remove(endpoint.id);
                self.lost += 1;
            }
            // Nobody waits for it, and nothing is known against its program.
            Phase::Frozen { .. } => {
                tracing::warn!(instance = &*instance.name, "the frozen instance {}", exit.how);
                return;
            }
            Phase::Draining { .. } | Phase::Starting | Phase::Probing(_) => {}
        }
        if matches!(exit.how, How::NotStarted(_)) {
            self.lost = 0;
        }
        let crash = Crash::new(&instance, exit.how.to_string(), exit.stderr);
        self.failed(now, crash, ready, Kind::Crashed, floor);
    }

    /// Notes an instance that ended, or had to be ended, on its own account. `ready`: for how long it was.
    pub fn failed(
        &mut self,
        now: Instant,
        crash: Crash,
        ready: Option<Duration>,
        kind: Kind,
        floor: &mut Floor,
    ) {
        self.crashes += 1;
        self.metrics.crashes.inc();
        self.backoff.failed(now, ready, floor.random.f64());
        let hopeless = ready.is_none() && self.present() == 0;
        let refused = if hopeless { self.hold.refuse(kind) } else { 0 };
        let last_line = crash.stderr.last().map_or("", String::as_str);
        tracing::warn!(instance = &*crash.instance, refused, last_line, "the instance {}", crash.how);
        self.last_crash = Some(crash);
    }
}
