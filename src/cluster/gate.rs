//! A cluster's limits: how many requests, connections, waiters and retries at once, exact over all workers.
//!
//! Those who need a connection when all are in use wait here in order. A connection that comes free goes to
//! one who waits: on the same worker by hand-over, on another by being closed, since connections stay with
//! the worker that made them.

use crate::fault::Kind;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{self, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Hand-overs to the same worker while an older waiter stands on another, before that one gets its turn.
const LOCAL_TURNS: u32 = 8;

/// A name, not a state: nothing waits for it.
static NEXT_ID: atomic::AtomicU64 = atomic::AtomicU64::new(1);

/// Counts of one cluster.
#[derive(Debug)]
pub struct Gate {
    /// Unique in this process; part of a connection pool's key.
    pub id: u64,
    requests: AtomicU32,
    connections: AtomicU32,
    pending: AtomicU32,
    retries: AtomicU32,
    overflows: AtomicU64,
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    local_turns: u32,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    worker: usize,
    wake: oneshot::Sender<()>,
}

/// What a gate counts now, for `/clusters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Requests in flight.
    pub requests: u32,
    /// Connections open or being opened.
    pub connections: u32,
    /// Requests without a connection yet.
    pub pending: u32,
    /// Retries in flight.
    pub retries: u32,
    /// Refusals because a limit was reached, ever.
    pub overflows: u64,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Request,
    Connection,
    Pending,
    Retry,
}

/// One counted thing; dropping it takes it off the count.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    which: Which,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.counter(self.which).fetch_sub(1, SeqCst);
        if matches!(self.which, Which::Connection) && self.gate.waiting() > 0 {
            self.gate.wake_oldest();
        }
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            id: NEXT_ID.fetch_add(1, Relaxed),
            requests: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            overflows: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }
}

impl Gate {
    fn counter(&self, which: Which) -> &AtomicU32 {
        match which {
            Which::Request => &self.requests,
            Which::Connection => &self.connections,
            Which::Pending => &self.pending,
            Which::Retry => &self.retries,
        }
    }

    #[inline]
    fn enter(self: &Arc<Self>, which: Which, max: u32) -> Option<Permit> {
        let counter = self.counter(which);
        let entered = if max == u32::MAX {
            counter.fetch_add(1, SeqCst);
            true
        } else {
            counter.fetch_update(SeqCst, SeqCst, |n| (n < max).then_some(n + 1)).is_ok()
        };
        entered.then(|| Permit { gate: self.clone(), which })
    }

    /// One more request in flight.
    #[inline]
    pub fn request(self: &Arc<Self>, max: u32) -> Result<Permit, Kind> {
        self.enter(Which::Request, max).ok_or_else(|| self.overflow(Kind::RequestOverflow))
    }

    /// One more request without a connection.
    pub fn pending(self: &Arc<Self>, max: u32) -> Result<Permit, Kind> {
        self.enter(Which::Pending, max).ok_or_else(|| self.overflow(Kind::PendingOverflow))
    }

    /// One more connection.
    pub fn connection(self: &Arc<Self>, max: u32) -> Option<Permit> {
        self.enter(Which::Connection, max)
    }

    /// One more retry in flight: at most `max`, and never more than `budget`.
    pub fn retry(self: &Arc<Self>, max: u32, budget: u32) -> Option<Permit> {
        self.enter(Which::Retry, max.min(budget))
    }

    /// Requests in flight.
    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    fn overflow(&self, kind: Kind) -> Kind {
        self.overflows.fetch_add(1, Relaxed);
        kind
    }

    /// All counts.
    pub fn counts(&self) -> GateCounts {
        GateCounts {
            requests: self.requests.load(Relaxed),
            connections: self.connections.load(Relaxed),
            pending: self.pending.load(Relaxed),
            retries: self.retries.load(Relaxed),
            overflows: self.overflows.load(Relaxed),
        }
    }

    /// How many wait for a connection.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Queues up for a connection, behind those who wait (`again`: in front, having been woken in vain).
    /// True: at the front, where one looks once more before waiting. Who frees a connection does so first
    /// and then reads `waiting`; who stands further back is reached by the waking of those in front.
    pub fn wait(self: &Arc<Self>, worker: usize, again: bool) -> (Waiter, bool) {
        let (wake, woken) = oneshot::channel();
        let mut queue = self.queue.lock();
        let ticket = queue.next;
        queue.next += 1;
        let entry = Entry { ticket, worker, wake };
        let first = again || queue.entries.is_empty();
        if again {
            queue.entries.push_front(entry);
        } else {
            queue.entries.push_back(entry);
        }
        self.waiting.fetch_add(1, SeqCst);
        (Waiter { gate: self.clone(), ticket, woken }, first)
    }

    /// A connection of `worker` came free while others wait. True: one of this worker's waiters was told to
    /// take it. False: it should be closed, so that the oldest waiter's worker may open one.
    pub fn hand_over(&self, worker: usize) -> bool {
        let mut queue = self.queue.lock();
        let foreign_first = queue.entries.front().is_some_and(|e| e.worker != worker);
        if foreign_first && queue.local_turns >= LOCAL_TURNS {
            queue.local_turns = 0;
            return false;
        }
        let Some(at) = queue.entries.iter().position(|e| e.worker == worker) else {
            return queue.entries.is_empty();
        };
        queue.local_turns = if foreign_first { queue.local_turns + 1 } else { 0 };
        if let Some(entry) = queue.entries.remove(at) {
            self.waiting.fetch_sub(1, SeqCst);
            drop(queue);
            // A waiter that has just left takes itself off the count; the connection stays idle.
            let _ = entry.wake.send(());
        }
        true
    }

    fn wake_oldest(&self) {
        loop {
            let entry = {
                let mut queue = self.queue.lock();
                let Some(entry) = queue.entries.pop_front() else { return };
                self.waiting.fetch_sub(1, SeqCst);
                entry
            };
            if entry.wake.send(()).is_ok() {
                return;
            }
        }
    }
}

/// A place in the queue for a connection; ready when it is worth looking again.
#[derive(Debug)]
pub struct Waiter {
    gate: Arc<Gate>,
    ticket: u64,
    woken: oneshot::Receiver<()>,
}

/// Whether a waiter's turn came.
pub type Turn = Result<(), WaiterGone>;

/// The gate went away.
#[derive(Debug)]
pub struct WaiterGone;

impl Future for Waiter {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        Pin::new(&mut self.woken).poll(cx).map(|woken| woken.map_err(|_| WaiterGone))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let woken_unused = {
            let mut queue = self.gate.queue.lock();
            match queue.entries.iter().position(|e| e.ticket == self.ticket) {
                Some(at) => {
                    queue.entries.remove(at);
                    self.gate.waiting.fetch_sub(1, SeqCst);
                    false
                }
                // It was woken. If nobody saw that, the turn goes to the next.
                None => self.woken.try_recv().is_ok(),
            }
        };
        if woken_unused && self.gate.waiting() > 0 {
            self.gate.wake_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn limits_are_exact_and_overflow_has_its_name() {
        let gate = Arc::new(Gate::default());
        let one = gate.request(1).unwrap();
        assert_eq!(gate.request(1).unwrap_err(), Kind::RequestOverflow);
        drop(one);
        assert!(gate.request(1).is_ok());
        assert_eq!(gate.pending(0).unwrap_err(), Kind::PendingOverflow);
        assert_eq!(gate.counts().overflows, 2);
    }

    #[test]
    fn a_freed_connection_wakes_the_oldest_and_a_leaver_passes_its_turn_on() {
        let gate = Arc::new(Gate::default());
        let held = gate.connection(1).unwrap();
        let (first, mut second) = (gate.wait(0, false).0, gate.wait(1, false).0);
        drop(held);
        assert_eq!(gate.waiting(), 1);
        drop(first);
        assert!((&mut second).now_or_never().is_some_and(|turn| turn.is_ok()));
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn only_who_stands_at_the_front_looks_once_more() {
        let gate = Arc::new(Gate::default());
        // A connection that came free before the first one stood in line has woken nobody.
        drop(gate.connection(1).unwrap());
        let (first, looks) = gate.wait(0, false);
        let (_second, second_looks) = gate.wait(0, false);
        assert_eq!((looks, second_looks), (true, false));
        drop(first);
        assert!(gate.wait(0, true).1, "woken in vain");
    }

    #[test]
    fn hand_over_prefers_the_same_worker_but_not_forever() {
        let gate = Arc::new(Gate::default());
        let _foreign = gate.wait(1, false).0;
        let mut local: Vec<Waiter> = (0..LOCAL_TURNS + 2).map(|_| gate.wait(0, false).0).collect();
        for n in 0..LOCAL_TURNS {
            assert!(gate.hand_over(0), "turn {n}");
        }
        assert!(!gate.hand_over(0), "now the older one on the other worker");
        assert!(local.remove(0).now_or_never().is_some());
    }
}
