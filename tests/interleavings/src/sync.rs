//! What `src/sync.rs` names, made of primitives that a scheduler can interrupt at every step.
//!
//! The scheduler knows one order of all steps, as if each were sequentially consistent: weaker orders are not
//! tried. In the sources they are used for numbers that nobody waits for, but for the look of who begins to
//! wait, which stands behind a fence.

pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, fence};

use std::fmt;
use std::sync::Arc;

/// As `parking_lot::Mutex`: a panic does not poison it.
#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Unlocked.
    pub fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    /// Waits until it is free.
    pub fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// As `arc_swap::Guard`.
#[derive(Debug)]
pub struct Loaded<T>(Arc<T>);

impl<T> std::ops::Deref for Loaded<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

/// As `arc_swap::ArcSwap`, as far as it is used: loading and storing are one step each.
#[derive(Debug, Default)]
pub struct Swap<T>(Mutex<Arc<T>>);

impl<T> Swap<T> {
    /// This value.
    pub fn new(value: Arc<T>) -> Swap<T> {
        Swap(Mutex::new(value))
    }

    /// The value in force.
    pub fn load(&self) -> Loaded<T> {
        Loaded(self.0.lock().clone())
    }

    /// Another one from now on.
    pub fn store(&self, value: Arc<T>) {
        // What was there is dropped outside the lock.
        let old = std::mem::replace(&mut *self.0.lock(), value);
        drop(old);
    }
}
