//! Asking other workers to give up an idle connection.
//!
//! A connection stays with the worker that made it. Where a cluster's maxConnections is reached and one
//! worker's exchange waits while another worker's connection idles, the other is asked to close it.

use std::sync::Arc;
use tokio::sync::mpsc;

/// A worker's way to ask the others. Each waiter asks once, so what is queued is bounded by who waits.
#[derive(Clone, Debug)]
pub struct Reclaim {
    workers: Arc<[mpsc::UnboundedSender<u64>]>,
}

impl Reclaim {
    /// For `workers` workers: the asking side, and each worker's receiving side.
    pub fn new(workers: usize) -> (Reclaim, Vec<mpsc::UnboundedReceiver<u64>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        (Reclaim { workers: senders.into() }, receivers)
    }

    /// Asks every worker but `worker` for a connection of the gate with this id.
    pub fn ask(&self, worker: usize, gate: u64) {
        for (n, sender) in self.workers.iter().enumerate() {
            if n != worker {
                // A worker that has ended holds no connections.
                let _ = sender.send(gate);
            }
        }
    }
}
