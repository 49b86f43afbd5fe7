//! Tokens that were verified, remembered by one worker: verifying costs a signature, remembering a comparison.
//!
//! Two generations; what is used stays, and the older half goes at once when the younger is full. Only good tokens
//! are kept, so that bad ones push nobody out.

use super::Verified;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::rc::Rc;

/// Tokens in one generation.
const HALF: usize = 512;
/// Longer tokens are verified each time.
const LONGEST: usize = 4096;

/// One worker's memory of tokens.
#[derive(Debug, Default)]
pub struct Cache {
    young: Half,
    old: Half,
    hasher: foldhash::fast::RandomState,
}

type Half = HashMap<u64, Entry, foldhash::fast::RandomState>;

struct Entry {
    token: Box<str>,
    rule: (u64, usize),
    version: u64,
    verified: Rc<Verified>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({:?}, version {})", self.rule, self.version)
    }
}

impl Cache {
    /// What a rule found in this token with this version of its keys, if it may still be used at `now`.
    #[inline]
    pub(super) fn get(
        &mut self,
        token: &str,
        rule: (u64, usize),
        version: u64,
        now: u64,
    ) -> Option<Rc<Verified>> {
        let key = self.key(token, rule);
        let fits = |entry: &Entry| entry.rule == rule && entry.version == version && *entry.token == *token;
        if let Some(entry) = self.young.get(&key) {
            return (fits(entry) && entry.verified.holds(now)).then(|| entry.verified.clone());
        }
        let entry = self.old.remove(&key).filter(fits).filter(|entry| entry.verified.holds(now))?;
        let verified = entry.verified.clone();
        self.insert(key, entry);
        Some(verified)
    }

    pub(super) fn put(&mut self, token: &str, rule: (u64, usize), version: u64, verified: Rc<Verified>) {
        if token.len() <= LONGEST {
            let key = self.key(token, rule);
            self.insert(key, Entry { token: token.into(), rule, version, verified });
        }
    }

    /// Tokens remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn key(&self, token: &str, rule: (u64, usize)) -> u64 {
        self.hasher.hash_one((token, rule))
    }

    fn insert(&mut self, key: u64, entry: Entry) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}
