//! One decision of Knative's autoscaler (KPA), with exactly its arithmetic: for comparison, and for those
//! who want what they have in the cluster.
//!
//! It knows the averages of two windows and how many instances are ready, nothing else: neither the queue
//! nor what is starting. What follows from that (a first decision for one request, more and more instances
//! while the first are slow to start, a plan thrown away when panic ends) is part of the comparison; see
//! `kpa` for the flavour without it.

use super::Settings;
use crate::clock::{Duration, Instant};
use std::collections::VecDeque;

/// Knative decides so often.
pub const TICK: Duration = Duration::from_secs(2);

/// What was measured, of the metric, over all instances together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// Average over the stable window.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
}

/// What one decision leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// When panic began or was last confirmed.
    panic: Option<Instant>,
    /// The highest number wanted in this panic.
    panic_pods: u32,
    /// Decisions within scale-down-delay: ticks grow, numbers fall.
    delayed: VecDeque<(u64, u32)>,
    began: Option<Instant>,
}

impl State {
    /// Whether it panics: only up, by the short window.
    pub fn panics(&self) -> bool {
        self.panic.is_some()
    }

    /// Since when it panics, confirmations included, and the highest number wanted since.
    pub fn panic(&self) -> Option<(Instant, u32)> {
        Some((self.panic?, self.panic_pods))
    }
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Instances wanted, before min-scale and max-scale.
    pub desired: u32,
    /// Requests that would find room at once beyond `target-burst-capacity`; negative: the activator stays
    /// in the path.
    pub excess_burst: i64,
}

/// Decides, with `ready` instances taking requests.
pub fn decide(
    now: Instant,
    settings: &Settings,
    observed: Observed,
    ready: u32,
    state: &mut State,
) -> Verdict {
    let pods = f64::from(ready.max(1));
    let up = (settings.up_rate * pods).ceil();
    let down = if settings.reachable { (pods / settings.down_rate).floor() } else { 0.0 };
    let (raw_stable, raw_panic) =
        ((observed.stable / settings.target).ceil(), (observed.panic / settings.target).ceil());
    let within = |raw: f64| {
        // Not below zero, and `as` saturates.
        let wanted = raw.max(down).min(up) as u32;
        if raw > 0.0 && settings.activation > 1 { wanted.max(settings.activation) } else { wanted }
    };
    let (stable, panic) = (within(raw_stable), within(raw_panic));
    if raw_panic / pods >= settings.panic_threshold {
        state.panic = Some(now);
    } else if let Some(since) = state.panic
        && since + Duration::from_secs(settings.stable.into()) < now
    {
        state.panic = None;
        state.panic_pods = 0;
    }
    let mut desired = stable;
    if state.panics() {
        state.panic_pods = state.panic_pods.max(stable).max(panic);
        desired = state.panic_pods;
    }
    if !settings.down_delay.is_zero() {
        desired = delay(now, settings.down_delay, desired, state);
    }
    Verdict { desired, excess_burst: excess(settings, observed, ready) }
}

/// The highest decision of the delay.
fn delay(now: Instant, length: Duration, desired: u32, state: &mut State) -> u32 {
    let began = *state.began.get_or_insert(now);
    let tick = now.saturating_duration_since(began).as_secs() / TICK.as_secs();
    let ticks = length.as_secs().div_ceil(TICK.as_secs()).max(1);
    let entries = &mut state.delayed;
    while entries.front().is_some_and(|(at, _)| at + ticks <= tick) {
        entries.pop_front();
    }
    while entries.back().is_some_and(|(_, before)| *before <= desired) {
        entries.pop_back();
    }
    entries.push_back((tick, desired));
    entries.front().map_or(desired, |(_, highest)| *highest)
}

fn excess(settings: &Settings, observed: Observed, ready: u32) -> i64 {
    if settings.burst_capacity == 0.0 {
        return 0;
    }
    if settings.burst_capacity < 0.0 {
        return -1;
    }
    (f64::from(ready) * settings.total - settings.burst_capacity - observed.panic).floor() as i64
}
