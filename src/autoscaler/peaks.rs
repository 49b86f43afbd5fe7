//! The highest number wanted within a sliding window, in a few entries.
//!
//! A monotone queue: an entry is dropped when a later one wants at least as much, so the first entry that
//! is young enough is the highest. When it is full, the two latest become one that is as high as the
//! higher and as young as the younger: the answer is then never too low, and too late by a 64th of the
//! window at most where looks come evenly.

use crate::clock::{Duration, Instant};
use std::collections::VecDeque;

const ENTRIES: usize = 64;

/// What was wanted, and when.
#[derive(Clone, Debug, Default)]
pub struct Peaks {
    /// Times grow, numbers fall.
    pub(super) entries: VecDeque<(Instant, u32)>,
    busy: Option<Instant>,
}

impl Peaks {
    /// Notes that `wanted` instances were wanted at `now`. Entries older than `horizon` are forgotten.
    pub fn record(&mut self, now: Instant, wanted: u32, horizon: Duration) {
        while self.entries.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= horizon) {
            self.entries.pop_front();
        }
        if wanted == 0 {
            return;
        }
        self.busy = Some(now);
        let mut wanted = wanted;
        while self.entries.back().is_some_and(|(_, before)| *before <= wanted) {
            self.entries.pop_back();
        }
        if self.entries.len() >= ENTRIES
            && let Some((_, before)) = self.entries.pop_back()
        {
            wanted = wanted.max(before);
        }
        self.entries.push_back((now, wanted));
    }

    /// The highest number wanted within `horizon` before `now`.
    pub fn highest(&self, now: Instant, horizon: Duration) -> u32 {
        let young = |(at, _): &&(Instant, u32)| now.saturating_duration_since(*at) < horizon;
        self.entries.iter().find(young).map_or(0, |(_, wanted)| *wanted)
    }

    /// The highest number wanted within `horizon` before `now`, and when another takes its place. None when
    /// nothing was wanted.
    pub fn step(&self, now: Instant, horizon: Duration) -> Option<(u32, Instant)> {
        let young = |(at, _): &&(Instant, u32)| now.saturating_duration_since(*at) < horizon;
        self.entries.iter().find(young).map(|(at, wanted)| (*wanted, *at + horizon))
    }

    /// When anything was wanted last.
    pub fn busy(&self) -> Option<Instant> {
        self.busy
    }
}
