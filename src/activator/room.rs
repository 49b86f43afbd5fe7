//! How much all holds of the process keep, together.

use crate::sync::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The ceilings of the process, and what is held now. One per process, shared by every `Hold`.
#[derive(Debug)]
pub struct Room {
    most_held: usize,
    most_bytes: usize,
    held: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for Room {
    fn default() -> Room {
        Room::new(100_000, 256 << 20)
    }
}

impl Room {
    /// For so many exchanges, and so many bytes that they keep in memory.
    pub fn new(most_held: usize, most_bytes: usize) -> Room {
        Room { most_held, most_bytes, held: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Exchanges held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes that they keep in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Room for one more, if there is.
    pub(super) fn enter(&self, bytes: usize) -> bool {
        let below =
            |most: usize, more: usize| move |now: usize| now.checked_add(more).filter(|after| *after <= most);
        if self.held.fetch_update(Relaxed, Relaxed, below(self.most_held, 1)).is_err() {
            return false;
        }
        let entered = self.bytes.fetch_update(Relaxed, Relaxed, below(self.most_bytes, bytes)).is_ok();
        if !entered {
            self.held.fetch_sub(1, Relaxed);
        }
        entered
    }

    /// One has left.
    pub(super) fn leave(&self, bytes: usize) {
        self.held.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}
