//! Keys that are fetched: where workers find them, and how they say that they miss one.
//!
//! Whoever fetches puts a whole set in place at once. Until the first one there is none, and every token fails.

use super::keys::KeySet;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Where a set of keys is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The JWKS itself.
    Uri(String),
    /// Where the issuer's `/.well-known/openid-configuration` says.
    Issuer(String),
}

/// A set of keys that is fetched again and again.
#[derive(Debug)]
pub struct Remote {
    /// Where.
    pub origin: Origin,
    /// Of one fetch.
    pub timeout: Duration,
    keys: ArcSwapOption<Fetched>,
    missed: AtomicBool,
    bell: Arc<Notify>,
}

/// Keys as they were fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Counts up with each change.
    pub(super) version: u64,
    pub(super) keys: KeySet,
}

impl Remote {
    #[inline]
    pub(super) fn keys(&self) -> Option<Arc<Fetched>> {
        self.keys.load_full()
    }

    /// The version in place; 0: none yet.
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.keys.load().as_ref().map_or(0, |fetched| fetched.version)
    }

    /// A token names a key that is not in the set.
    pub(super) fn miss(&self) {
        if !self.missed.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Whether a key was missed since the last call.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// Puts a set in place.
    pub fn put(&self, keys: KeySet) {
        let version = self.version() + 1;
        self.keys.store(Some(Arc::new(Fetched { version, keys })));
    }

    /// Whether there is any set.
    pub fn is_filled(&self) -> bool {
        self.version() > 0
    }
}

/// Everything that is to be fetched; it outlasts snapshots.
#[derive(Debug, Default)]
pub struct KeyRing {
    remotes: Mutex<HashMap<(Origin, Duration), Weak<Remote>>>,
    bell: Arc<Notify>,
}

impl KeyRing {
    /// The keys of `origin`, as they are now and will be.
    pub fn remote(&self, origin: Origin, timeout: Duration) -> Arc<Remote> {
        let mut remotes = self.remotes.lock();
        remotes.retain(|_, remote| remote.strong_count() > 0);
        let key = (origin, timeout);
        if let Some(remote) = remotes.get(&key).and_then(Weak::upgrade) {
            return remote;
        }
        let remote = Arc::new(Remote {
            origin: key.0.clone(),
            timeout,
            keys: ArcSwapOption::empty(),
            missed: AtomicBool::new(false),
            bell: self.bell.clone(),
        });
        remotes.insert(key, Arc::downgrade(&remote));
        self.bell.notify_one();
        remote
    }

    /// All that some snapshot still has.
    pub fn remotes(&self) -> Vec<Arc<Remote>> {
        let mut remotes: Vec<_> = self.remotes.lock().values().filter_map(Weak::upgrade).collect();
        remotes.sort_by(|a, b| a.origin.cmp(&b.origin));
        remotes
    }

    /// Waits until there is something new to fetch. A change that came before the call is not lost.
    pub async fn changed(&self) {
        self.bell.notified().await;
    }
}
