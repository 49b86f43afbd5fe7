//! How the process ends: readiness fails, new work is turned away at the front, what is in flight is
//! finished, and only then the process exits.
//!
//! [`Shutdown`] is the pure state machine (time is an argument); [`Drain`] is what everybody else sees of
//! it: one relaxed load on the hot path, a watch for tasks, and the count of exchanges in flight. It never
//! closes a connection or stops a function itself.
//!
//! The order follows what native sidecars taught: a proxy that stops accepting at once resets callers who
//! have not yet heard that the pod is going, and outbound traffic must flow until the last exchange ends.

use crate::clock::{Duration, Instant};
use parking_lot::Mutex;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Serving.
    #[default]
    Running = 0,
    /// Readiness fails; everything else as before, so that callers can hear of it.
    Draining = 1,
    /// Front listeners (gateway, inbound) answer with `Connection: close` or GOAWAY; the mesh listener,
    /// holds and wakes go on.
    Closing = 2,
    /// Nothing is in flight, or the time is over: stop the functions and exit.
    Done = 3,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Closing => "closing",
            Phase::Done => "done",
        })
    }
}

/// What can be asked of a [`Drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Fail readiness and tell clients to leave, but go on serving (admin `/drain`).
    Drain,
    /// Drain and exit (SIGTERM, SIGINT, admin `/quitquitquit`). Asked again: hurry; a third time: now.
    Stop,
}

/// Lengths of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between failing readiness and turning away new work.
    pub delay: Duration,
    /// From the first [`Ask::Stop`] to the exit, the delay and the stopping of functions included.
    pub timeout: Duration,
}

/// What is in flight when a second stop is asked for gets this much longer.
const HURRY: Duration = Duration::from_secs(1);
/// Nothing must have been in flight for this long before the process ends, so that a request already on its
/// way on an open connection is answered.
const QUIET: Duration = Duration::from_millis(100);
/// Of the timeout, at most this is kept back for stopping functions, and a sixth of it.
const RESERVE: Duration = Duration::from_secs(5);
/// Connections are closed spread over at most this.
const SPREAD: Duration = Duration::from_secs(5);

impl Timing {
    /// Connections on front listeners are told to go spread over this length, so that their callers do not
    /// all reconnect in the same instant: a quarter of what remains after the delay, 5 s at most.
    pub fn spread(&self) -> Duration {
        (self.timeout.saturating_sub(self.delay) / 4).min(SPREAD)
    }

    /// Kept back at the end, when exchanges have been given up.
    fn reserve(&self) -> Duration {
        (self.timeout / 6).min(RESERVE)
    }
}

/// The shutdown as a pure state machine.
#[derive(Clone, Debug)]
pub struct Shutdown {
    timing: Timing,
    phase: Phase,
    /// When new work is turned away.
    closing_at: Option<Instant>,
    /// When what is in flight is given up; `None`: not asked to exit.
    give_up_at: Option<Instant>,
    quiet_since: Option<Instant>,
    hurried: bool,
}

impl Shutdown {
    /// Nobody has asked for anything yet.
    pub fn new(timing: Timing) -> Shutdown {
        Shutdown {
            timing,
            phase: Phase::Running,
            closing_at: None,
            give_up_at: None,
            quiet_since: None,
            hurried: false,
        }
    }

    /// Takes a request into account. The phase follows at the next [`Shutdown::tick`].
    pub fn ask(&mut self, now: Instant, ask: Ask) {
        let closing_at = *self.closing_at.get_or_insert(now + self.timing.delay);
        if ask == Ask::Drain {
            return;
        }
        match self.give_up_at {
            None => {
                let give_up_at = now + self.timing.timeout - self.timing.reserve();
                self.give_up_at = Some(give_up_at);
                self.closing_at = Some(closing_at.min(give_up_at));
            }
            Some(at) => {
                let left = if self.hurried { Duration::ZERO } else { HURRY };
                self.hurried = true;
                self.give_up_at = Some(at.min(now + left));
                self.closing_at = Some(closing_at.min(now));
            }
        }
    }

    /// The phase at `now` with so many exchanges in flight. Phases never go back.
    pub fn tick(&mut self, now: Instant, in_flight: usize) -> Phase {
        let Some(closing_at) = self.closing_at else { return self.phase };
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
        }
        if self.phase == Phase::Draining && now >= closing_at {
            self.phase = Phase::Closing;
        }
        if self.phase == Phase::Closing {
            self.quiet_since = if in_flight == 0 { self.quiet_since.or(Some(now)) } else { None };
            if let Some(give_up_at) = self.give_up_at {
                let quiet = self.quiet_since.is_some_and(|since| now >= since + QUIET);
                if quiet || now >= give_up_at {
                    self.phase = Phase::Done;
                }
            }
        }
        self.phase
    }

    /// When the process is to be gone; `None`: not asked to exit.
    pub fn exit_by(&self) -> Option<Instant> {
        let reserve = self.timing.reserve();
        self.give_up_at.map(|at| at + if self.hurried { reserve.min(HURRY) } else { reserve })
    }

    /// When the phase next changes by time alone, if it does.
    pub fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running | Phase::Done => None,
            Phase::Draining => self.closing_at,
            Phase::Closing => {
                let quiet = self.quiet_since.map(|since| since + QUIET);
                self.give_up_at.map(|at| quiet.map_or(at, |q| q.min(at)))
            }
        }
    }
}

/// One worker's exchanges, alone on its cache line: written by that worker only.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Shard(AtomicUsize);

/// The end of the process, as the rest of it sees it.
#[derive(Debug)]
pub struct Drain {
    phase: AtomicU8,
    told: watch::Sender<Phase>,
    timing: Timing,
    drains: AtomicU32,
    stops: AtomicU32,
    asked: Notify,
    exit_by: Mutex<Option<Instant>>,
    shards: Mutex<Vec<Arc<Shard>>>,
    /// Client sockets that have not yet taken all they were given.
    backed_up: Arc<AtomicUsize>,
}

impl Drain {
    /// A process that is running.
    pub fn new(timing: Timing) -> Arc<Drain> {
        Arc::new(Drain {
            phase: AtomicU8::new(Phase::Running as u8),
            told: watch::Sender::new(Phase::Running),
            timing,
            drains: AtomicU32::new(0),
            stops: AtomicU32::new(0),
            asked: Notify::new(),
            exit_by: Mutex::new(None),
            shards: Mutex::new(Vec::new()),
            backed_up: Arc::default(),
        })
    }

    /// How far the end has come: one relaxed load.
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            2 => Phase::Closing,
            _ => Phase::Done,
        }
    }

    /// Whether front listeners turn away new work: one relaxed load.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= Phase::Closing as u8
    }

    /// For tasks: the phase and its changes.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.told.subscribe()
    }

    /// After [`Phase::Closing`] begins, a connection on a front listener is told to go this much later.
    /// `random` is uniform over all values.
    pub fn stagger(&self, random: u64) -> Duration {
        let spread = self.timing.spread().as_nanos();
        let part = (spread * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(part).unwrap_or(0))
    }

    /// Asks for the end; from any thread. What it leads to is decided by whoever runs [`Drain::conduct`].
    pub fn ask(&self, ask: Ask) {
        match ask {
            Ask::Drain => self.drains.fetch_add(1, Ordering::AcqRel),
            Ask::Stop => self.stops.fetch_add(1, Ordering::AcqRel),
        };
        self.asked.notify_one();
    }

    /// The counter of one worker thread; call it on that thread, once.
    pub fn counter(&self) -> Counter {
        let shard = Arc::new(Shard::default());
        self.shards.lock().push(Arc::clone(&shard));
        Counter { own: Rc::new(Own { shard }) }
    }

    /// Exchanges in flight on all workers, and sockets whose client is yet to take the end of an answer.
    pub fn in_flight(&self) -> usize {
        let exchanges: usize = self.shards.lock().iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum();
        exchanges + self.backed_up.load(Ordering::Relaxed)
    }

    /// For one client socket, which may belong to any thread.
    pub fn backlog(&self) -> Backlog {
        Backlog { count: self.backed_up.clone(), is: false }
    }

    /// What remains, at `now`, until the process is to be gone; the whole timeout if nobody has asked.
    pub fn time_left(&self, now: Instant) -> Duration {
        self.exit_by.lock().map_or(self.timing.timeout, |at| at.saturating_duration_since(now))
    }

    /// Runs the shutdown to its end: returns when the phase is [`Phase::Done`], with the number of
    /// exchanges that were given up. One task of the control thread awaits this from start to end.
    pub async fn conduct(&self) -> usize {
        let mut shutdown = Shutdown::new(self.timing);
        let (mut drains, mut stops) = (0, 0);
        loop {
            let now = crate::clock::now();
            // Both kinds count up, so that no request is lost while this task is busy.
            while drains < self.drains.load(Ordering::Acquire) {
                drains += 1;
                shutdown.ask(now, Ask::Drain);
            }
            while stops < self.stops.load(Ordering::Acquire) {
                stops += 1;
                shutdown.ask(now, Ask::Stop);
            }
            *self.exit_by.lock() = shutdown.exit_by();
            let in_flight = self.in_flight();
            let phase = shutdown.tick(now, in_flight);
            self.enter(phase, in_flight);
            if phase == Phase::Done {
                return in_flight;
            }
            let poll = (phase == Phase::Closing).then(|| now + QUIET / 10);
            let wake = [shutdown.wake_at(), poll].into_iter().flatten().min();
            match wake {
                None => self.asked.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), self.asked.notified()).await;
                }
            }
        }
    }

    /// Makes a phase known.
    fn enter(&self, phase: Phase, in_flight: usize) {
        if self.phase() == phase {
            return;
        }
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.told.send_replace(phase);
        match phase {
            Phase::Running => {}
            Phase::Draining => {
                let delay = self.timing.delay;
                tracing::info!(in_flight, ?delay, "draining: /ready fails, requests are still taken");
            }
            Phase::Closing => {
                tracing::info!(in_flight, "closing: connections are told to go, requests finish")
            }
            Phase::Done if in_flight > 0 => tracing::warn!(in_flight, "stopping: requests are given up"),
            Phase::Done => tracing::info!("stopping: every request has finished"),
        }
    }
}

/// Whether one client socket is full. An exchange is over once its answer is in the socket's buffers or
/// before them; a process that ends takes the latter with it.
#[derive(Debug)]
pub struct Backlog {
    count: Arc<AtomicUsize>,
    is: bool,
}

impl Backlog {
    /// Notes how a write went: `true`, the socket took nothing.
    #[inline]
    pub fn note(&mut self, full: bool) {
        if full != self.is {
            self.change(full);
        }
    }

    #[cold]
    fn change(&mut self, full: bool) {
        self.is = full;
        if full {
            self.count.fetch_add(1, Ordering::Relaxed);
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// A shard on the thread that writes it.
#[derive(Debug)]
struct Own {
    shard: Arc<Shard>,
}

/// Counts one worker's exchanges. Stays on its thread.
#[derive(Clone, Debug)]
pub struct Counter {
    own: Rc<Own>,
}

impl Counter {
    /// An exchange begins; it ends when the guard is dropped. No allocation, no shared cache line.
    #[inline]
    pub fn begin(&self) -> InFlight {
        // A load and a store suffice: only this thread writes.
        let count = &self.own.shard.0;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        InFlight { own: Rc::clone(&self.own) }
    }

    /// This worker's exchanges in flight.
    pub fn in_flight(&self) -> usize {
        self.own.shard.0.load(Ordering::Relaxed)
    }
}

/// One exchange in flight.
#[derive(Debug)]
pub struct InFlight {
    own: Rc<Own>,
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        let count = &self.own.shard.0;
        count.store(count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
