//! Ceilings of the whole process, and whether it is short of memory.

mod pressure;

pub use pressure::Pressure;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many at once, over all threads.
#[derive(Debug)]
pub struct Ceiling {
    most: usize,
    now: AtomicUsize,
}

/// One of them; dropping it makes room.
#[derive(Debug)]
pub struct Place(Arc<Ceiling>);

impl Ceiling {
    /// At most `most`.
    pub fn new(most: usize) -> Arc<Ceiling> {
        Arc::new(Ceiling { most, now: AtomicUsize::new(0) })
    }

    /// One more, if there is room.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let entered = self.now.fetch_update(Relaxed, Relaxed, |n| (n < self.most).then_some(n + 1));
        entered.is_ok().then(|| Place(self.clone()))
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_exact_and_a_left_place_is_free() {
        let ceiling = Ceiling::new(1);
        let place = ceiling.enter().unwrap();
        assert!(ceiling.enter().is_none());
        drop(place);
        assert!(ceiling.enter().is_some());
        assert_eq!(ceiling.now(), 0);
    }
}
