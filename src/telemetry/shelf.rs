//! Metrics by name, shared by all who ask for the same one, and forgotten when nobody has for a while.
//!
//! Snapshots ask while they are compiled and hold what they get; a name that no snapshot holds any more is
//! still scraped for ten minutes, then gone. Never touched by an exchange.

use crate::clock::{Duration, Instant};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// How long something stays after its last holder let go.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// Named metrics.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    places: Mutex<HashMap<K, Place<V>>>,
}

#[derive(Debug)]
struct Place<V> {
    metric: Arc<V>,
    /// Since when nobody else has held it.
    idle: Option<Instant>,
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Shelf { places: Mutex::default() }
    }
}

impl<K: Ord + Hash + Clone, V> Shelf<K, V> {
    /// The metric of that name, made if there is none.
    pub(super) fn get(&self, name: K, make: impl FnOnce(K) -> V) -> Arc<V> {
        let mut places = self.places.lock();
        if let Some(place) = places.get_mut(&name) {
            place.idle = None;
            return place.metric.clone();
        }
        let metric = Arc::new(make(name.clone()));
        places.insert(name, Place { metric: metric.clone(), idle: None });
        metric
    }

    /// The metric of that name, if there is one.
    pub(super) fn find(&self, name: &K) -> Option<Arc<V>> {
        let mut places = self.places.lock();
        let place = places.get_mut(name)?;
        place.idle = None;
        Some(place.metric.clone())
    }

    /// Everything on the shelf, in the order of the names.
    pub(super) fn all(&self) -> Vec<(K, Arc<V>)> {
        let all = |(name, place): (&K, &Place<V>)| (name.clone(), place.metric.clone());
        let mut all: Vec<_> = self.places.lock().iter().map(all).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Forgets what nobody has held for `KEPT`.
    pub(super) fn sweep(&self, now: Instant) {
        self.places.lock().retain(|_, place| {
            if Arc::strong_count(&place.metric) > 1 {
                place.idle = None;
                return true;
            }
            let since = *place.idle.get_or_insert(now);
            now.saturating_duration_since(since) < KEPT
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_holds_is_forgotten_after_ten_minutes() {
        let shelf = Shelf::<&str, u8>::default();
        let now = crate::clock::now();
        let held = shelf.get("held", |_| 1);
        drop(shelf.get("idle", |_| 2));
        shelf.sweep(now);
        assert_eq!(shelf.all().len(), 2);
        shelf.sweep(now + KEPT - Duration::from_secs(1));
        assert_eq!(shelf.all().len(), 2);
        shelf.sweep(now + KEPT);
        assert_eq!(shelf.all().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["held"]);
        drop(held);
    }

    #[test]
    fn asking_again_gives_the_same_metric_and_starts_the_wait_anew() {
        let shelf = Shelf::<&str, u8>::default();
        let now = crate::clock::now();
        let first = shelf.get("a", |_| 1);
        assert!(Arc::ptr_eq(&first, &shelf.get("a", |_| 2)));
        drop(first);
        shelf.sweep(now);
        drop(shelf.get("a", |_| 3));
        shelf.sweep(now + KEPT);
        assert_eq!(shelf.all().len(), 1);
    }
}
