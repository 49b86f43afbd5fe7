//! The one place where a snapshot is swapped, and how workers see it.

use super::Snapshot;
use arc_swap::{ArcSwap, Cache};
use std::sync::Arc;

/// The snapshot in force.
#[derive(Debug, Default)]
pub struct Published(Arc<ArcSwap<Snapshot>>);

/// A worker's view: a comparison of two pointers while nothing changes.
#[derive(Debug)]
pub struct Reader(Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>);

impl Published {
    /// From now on exchanges begin with this one.
    pub fn publish(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        self.0.store(snapshot.clone());
        snapshot
    }

    /// The one in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(self.0.clone()))
    }
}

impl Reader {
    /// The one in force.
    #[inline]
    pub fn current(&mut self) -> &Arc<Snapshot> {
        self.0.load()
    }
}
