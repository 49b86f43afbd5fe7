//! Equal parts of a snapshot are one part: most routes say the same about retries, most destinations about limits.
//!
//! Lives while a snapshot is compiled.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// Parts by what they are made of.
#[derive(Debug)]
pub(super) struct Shared<K, V>(HashMap<K, Arc<V>>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Shared<K, V> {
        Shared(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Shared<K, V> {
    /// The part of this key, made if there is none.
    pub(super) fn get(&mut self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        match self.find(&key) {
            Some(part) => part,
            None => self.keep(key, make()),
        }
    }

    /// The same where it may fail.
    pub(super) fn try_get<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        match self.find(&key) {
            Some(part) => Ok(part),
            None => Ok(self.keep(key, make()?)),
        }
    }

    /// The part of this key, if there is one.
    pub(super) fn find(&self, key: &K) -> Option<Arc<V>> {
        self.0.get(key).cloned()
    }

    /// From now on this is the part of this key.
    pub(super) fn keep(&mut self, key: K, part: V) -> Arc<V> {
        let part = Arc::new(part);
        self.0.insert(key, part.clone());
        part
    }
}

/// Texts, each kept once.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    /// This text.
    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let name: Arc<str> = text.into();
        self.know(name.clone());
        name
    }

    /// From now on a text like this is this one.
    pub(super) fn know(&mut self, name: Arc<str>) {
        self.0.insert(name);
    }
}
