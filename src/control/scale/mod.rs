//! Scaling: one task on the control thread that keeps as many instances as are wanted.
//!
//! It wakes when somebody begins to wait, when an instance starts, listens, passes its probe or ends, when
//! a window or a back-off is over, and on reload. What it decides is in `autoscaler`; what carries it out
//! is a `Driver`; what it knows of each revision is a `Unit`. It never touches a request: instances that
//! become ready are put among the cluster's members, and those offer their places to who waits.

mod account;
mod ask;
mod asleep;
mod backoff;
mod begin;
mod change;
mod ended;
mod fleet;
mod foresee;
mod frozen;
mod healthy;
mod instance;
mod leaving;
mod ledger;
mod memory;
mod pace;
mod probe;
mod ramp;
mod report;
#[cfg(test)]
mod tests;
mod unit;

use crate::activator::Bell;
use crate::autoscaler::{Demand, Flavour};
use crate::clock::{self, Duration};
use crate::cluster::Registry;
use crate::driver::{Driver, Event, InstanceId};
use crate::telemetry::Telemetry;
use fleet::Fleet;
pub use pace::Pace;
use parking_lot::Mutex;
use probe::Word;
use proxy_config::model::Revision;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// How much longer than the grace the end of the last instance is waited for.
const LAST: Duration = Duration::from_secs(2);

/// What a scaler works with.
#[derive(Debug)]
pub struct Setup {
    /// Where the members of revisions are found.
    pub registry: Arc<Registry>,
    /// Where it is counted.
    pub telemetry: Arc<Telemetry>,
    /// Rung by the holds of `registry`.
    pub bell: Arc<Bell>,
    /// Instances of all revisions together, at most.
    pub ceiling: u32,
    /// Whose arithmetic decides how many.
    pub flavour: Flavour,
    /// How many may be started in a while.
    pub pace: Pace,
}

/// The scaler's handle, for any thread. Dropping it does not stop the task; `shutdown` does.
#[derive(Clone, Debug)]
pub struct Scaler {
    fleet: Arc<Mutex<Fleet>>,
    /// The control thread's. What another thread says may start instances, whose pipes and tasks are its business.
    runtime: Handle,
    /// Wakes the task when something was changed through the handle.
    changed: Arc<Notify>,
    /// Becomes true when the task has ended.
    over: watch::Receiver<bool>,
}

impl Scaler {
    /// Starts the task in the current runtime, which must be the control thread's, with the driver that
    /// `driver` makes of the channel for its events.
    pub fn spawn(setup: Setup, driver: impl FnOnce(UnboundedSender<Event>) -> Box<dyn Driver>) -> Scaler {
        let (tx, events) = unbounded_channel();
        let bell = setup.bell.clone();
        let fleet = Arc::new(Mutex::new(Fleet::new(setup, driver(tx))));
        let (ended, over) = watch::channel(false);
        let scaler = Scaler { fleet, runtime: Handle::current(), changed: Arc::default(), over };
        let task = Task::new(scaler.clone(), bell);
        tokio::spawn(async move {
            task.run(events).await;
            // Nobody waits for it.
            let _ = ended.send(true);
        });
        scaler
    }

    /// These revisions exist from now on, those that are known with their instances. To be called before requests can
    /// be for them: one that was gone and is back has then forgotten that.
    pub fn expect(&self, revisions: &[Arc<Revision>]) {
        let _inside = self.runtime.enter();
        self.fleet.lock().expect(clock::now(), revisions);
        self.changed.notify_one();
    }

    /// No others exist any more: they are drained and their waiting exchanges answered. To be called when no new
    /// request can be for one of them.
    pub fn retain(&self, revisions: &[Arc<Revision>]) {
        let _inside = self.runtime.enter();
        self.fleet.lock().retain(clock::now(), revisions);
        self.changed.notify_one();
    }

    /// Takes down what another holder of requests wants. What it says counts until it expires.
    pub fn demanded(&self, demand: Demand) {
        let _inside = self.runtime.enter();
        self.fleet.lock().demanded(clock::now(), demand);
        self.changed.notify_one();
    }

    /// Every function as JSON, for people.
    pub fn functions(&self) -> serde_json::Value {
        report::functions(&self.fleet.lock(), clock::now())
    }

    /// Instances that run, of all functions.
    pub fn running(&self) -> u32 {
        self.fleet.lock().running()
    }

    /// Stops every instance, politely and after `grace` for good, and waits until all have ended. To be
    /// called when no exchange is in flight any more; those that still wait are answered.
    pub async fn shutdown(&self, grace: Duration) {
        let mut over = self.over.clone();
        self.fleet.lock().end(clock::now(), grace);
        self.changed.notify_one();
        if tokio::time::timeout(grace + LAST, over.wait_for(|over| *over)).await.is_err() {
            tracing::error!(left = self.running(), "some instances did not end");
        }
    }
}

struct Task {
    scaler: Scaler,
    bell: Arc<Bell>,
    probed: UnboundedSender<(InstanceId, Word)>,
    words: UnboundedReceiver<(InstanceId, Word)>,
    probes: HashMap<InstanceId, AbortHandle>,
}

impl Task {
    fn new(scaler: Scaler, bell: Arc<Bell>) -> Task {
        let (probed, words) = unbounded_channel();
        Task { scaler, bell, probed, words, probes: HashMap::new() }
    }

    async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        loop {
            let next = self.scaler.fleet.lock().next();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(event) = events.recv() => self.event(event),
                Some((instance, word)) = self.words.recv() => {
                    self.scaler.fleet.lock().probed(clock::now(), instance, word);
                }
                () = self.bell.rung() => {
                    let (now, rung) = (clock::now(), self.bell.take());
                    let mut fleet = self.scaler.fleet.lock();
                    rung.into_iter().for_each(|hold| fleet.rung(now, hold));
                }
                () = self.scaler.changed.notified() => {}
                () = due => self.scaler.fleet.lock().tick(clock::now()),
            }
            self.start_probes();
            if self.scaler.fleet.lock().is_over() {
                return;
            }
        }
    }

    fn event(&mut self, event: Event) {
        if let Event::Exited { instance, .. } = &event
            && let Some(probe) = self.probes.remove(instance)
        {
            probe.abort();
        }
        self.scaler.fleet.lock().event(clock::now(), event);
    }

    /// Asks those who are to be asked from now on, and no longer those who are not.
    fn start_probes(&mut self) {
        let mut fleet = self.scaler.fleet.lock();
        let wanted = fleet.take_probes();
        self.probes.retain(|instance, probe| {
            let stays = fleet.listens_to_probes(*instance);
            if !stays {
                probe.abort();
            }
            stays
        });
        drop(fleet);
        for probing in wanted {
            let (instance, probed) = (probing.instance, self.probed.clone());
            let task = tokio::spawn(async move {
                let say = |word| {
                    // The scaler has ended: nobody listens.
                    let _ = probed.send((instance, word));
                };
                probe::run(&probing, say).await;
            });
            if let Some(before) = self.probes.insert(instance, task.abort_handle()) {
                before.abort();
            }
        }
    }
}
