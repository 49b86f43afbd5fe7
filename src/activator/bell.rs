//! How holds tell the scaler that they want to be looked at.
//!
//! Many workers ring, one scaler listens. A hold that has rung stays silent until it was looked at, so a
//! burst of a thousand costs one wake-up and the list of those who rang is never longer than the number
//! of holds.

use crate::sync::{AtomicU64, Mutex};
use std::sync::atomic::Ordering;
use tokio::sync::Notify;

/// One per process, shared by every `Hold`.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    rung: Mutex<Vec<u64>>,
    numbers: AtomicU64,
}

impl Bell {
    /// A bell that nobody has rung.
    pub fn new() -> Bell {
        Bell::default()
    }

    /// Wakes the listener without naming a hold.
    pub fn ring(&self) {
        self.notify.notify_one();
    }

    /// Wakes the listener on behalf of one hold. The hold's own flag keeps it from calling twice.
    pub(super) fn ring_for(&self, hold: u64) {
        self.rung.lock().push(hold);
        self.notify.notify_one();
    }

    /// A number for a new hold.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits until somebody rings. A ring that came before the call is not lost. Cancel-safe.
    pub async fn rung(&self) {
        self.notify.notified().await;
    }

    /// The numbers of the holds that rang since the last call (`Hold::number`).
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.rung.lock())
    }
}
