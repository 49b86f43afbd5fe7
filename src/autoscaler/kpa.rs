//! The autoscaler with a memory: what is measured second by second, and what follows, in one of two
//! flavours.
//!
//! `Flavour::Knative` is Knative's own arithmetic on Knative's own ticks (`knative`). `Flavour::Pilotlight`
//! begins with `scale`, which sees the whole queue at once and counts what is starting, and adds what only
//! averages can tell: room for load that lasts (target-utilization-percentage, and any target by requests
//! a second). Where it differs, on purpose:
//! - A queue is work for instances that exist or start; only what is being answered enters the averages, so
//!   a slow start does not look like growing load.
//! - Room is added for work that turns over, not for a burst that is being worked off: at least as many
//!   must have ended within the stable window as are under way.
//! - An average is over the whole stable window from the first second on, so one busy second is one second.
//! - There is no panic to leave: nothing goes down before a whole window asked for less, and never below
//!   what is queued and under way. The rates have nothing left to bound.
//!
//! Time is an argument. It starts and stops nothing.

mod quiet;

pub use quiet::Quiet;

use super::knative::{self, Observed, State, TICK};
use super::{Bound, Demand, Facts, Plan, Settings, Terms, Window, scale, total};
use crate::clock::{Duration, Instant};
use proxy_config::model::{Aggregation, Metric, Revision};

/// Whose decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// Ours.
    #[default]
    Pilotlight,
    /// Knative's exact arithmetic.
    Knative,
}

/// Requests of one revision at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Held.
    pub queued: u64,
    /// Sent and not answered.
    pub in_flight: u64,
    /// Sent since the beginning; grows.
    pub sent: u64,
}

/// One revision's autoscaler.
#[derive(Clone, Debug)]
pub struct Kpa {
    flavour: Flavour,
    settings: Settings,
    /// Second 0 of the windows.
    began: Instant,
    /// At which microsecond since then what was said last.
    seen: Option<(u64, Load)>,
    /// What the running second came to so far, times a million: of the metric, and of requests that ended. Levels
    /// that are whole numbers add up without rounding.
    second: (f64, f64),
    stable: Window,
    panic: Window,
    ended: Window,
    state: State,
    /// When Knative decides next.
    tick: Option<Instant>,
    desired: u32,
    /// Since when nothing is wanted.
    zero: Option<Instant>,
    /// Since when something is ready.
    active: Option<Instant>,
    /// Whether callers reach instances without the activator, which they must unlearn before the last ends.
    direct: bool,
    /// Whether initial-scale was reached.
    grown: bool,
    /// What the first request reported ahead of its second.
    ahead: f64,
}

impl Kpa {
    /// Without any past.
    pub fn new(flavour: Flavour, settings: Settings, now: Instant) -> Kpa {
        let windows = |length| Window::new(length, settings.aggregation);
        Kpa {
            flavour,
            began: now,
            seen: None,
            second: (0.0, 0.0),
            stable: windows(settings.stable),
            panic: windows(settings.panic),
            ended: Window::new(settings.stable, Aggregation::Linear),
            state: State::default(),
            tick: None,
            desired: 0,
            zero: None,
            active: None,
            direct: false,
            grown: false,
            ahead: 0.0,
            settings,
        }
    }

    /// That of a revision.
    pub fn of(flavour: Flavour, revision: &Revision, now: Instant) -> Kpa {
        Kpa::new(flavour, Settings::of(revision), now)
    }

    /// Other settings; what was measured stays where the windows do.
    pub fn update(&mut self, settings: Settings) {
        let shape = |s: &Settings| (s.metric, s.aggregation, s.stable, s.panic);
        if shape(&settings) != shape(&self.settings) {
            self.stable = Window::new(settings.stable, settings.aggregation);
            self.panic = Window::new(settings.panic, settings.aggregation);
            self.ended = Window::new(settings.stable, Aggregation::Linear);
        }
        self.settings = settings;
    }

    /// What it decides by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether Knative's flavour panics.
    pub fn panics(&self) -> bool {
        self.state.panics()
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        since.as_secs().saturating_mul(1_000_000) + u64::from(since.subsec_micros())
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }

    /// Notes how things stand. What was said last counts as having held since.
    pub fn observe(&mut self, now: Instant, load: Load) {
        let level = self.seen.map_or(0.0, |(_, last)| match self.flavour {
            Flavour::Knative => (last.queued + last.in_flight) as f64,
            Flavour::Pilotlight => last.in_flight as f64,
        });
        self.observe_level(now, level, load);
    }

    /// The same for a stretch whose average concurrency is known to be `level`.
    pub fn observe_level(&mut self, now: Instant, level: f64, load: Load) {
        let now = self.micros(now);
        let Some((before, last)) = self.seen.replace((now, load)) else { return };
        if now <= before {
            // Of the same moment the latest counts, but nothing that was sent is forgotten.
            self.seen = Some((before, Load { sent: last.sent, ..load }));
            return;
        }
        let length = (now - before) as f64 / 1e6;
        let ended = |load: Load| load.sent.saturating_sub(load.in_flight);
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / length;
        let value = match self.settings.metric {
            Metric::Rps => rate(last.sent, load.sent),
            Metric::Concurrency => level,
        };
        self.spread(before, now, (value, rate(ended(last), ended(load))));
    }

    /// Adds a level that held from one microsecond to another to the seconds it held in.
    fn spread(&mut self, from: u64, to: u64, level: (f64, f64)) {
        const SECOND: u64 = 1_000_000;
        let add = |sum: &mut (f64, f64), micros: u64| {
            let share = micros as f64;
            *sum = (sum.0 + level.0 * share, sum.1 + level.1 * share);
        };
        let (first, last) = (from / SECOND, to / SECOND);
        if first == last {
            add(&mut self.second, to - from);
            return;
        }
        add(&mut self.second, SECOND - from % SECOND);
        let (value, ended) = (self.second.0 / SECOND as f64, self.second.1 / SECOND as f64);
        // The first request was counted when it came.
        let value = (value - std::mem::take(&mut self.ahead)).max(0.0);
        self.record(first, first + 1, (value, ended));
        if last > first + 1 {
            self.record(first + 1, last, level);
        }
        self.second = (0.0, 0.0);
        add(&mut self.second, to % SECOND);
    }

    fn record(&mut self, from: u64, until: u64, (value, ended): (f64, f64)) {
        self.stable.fill(from, until, value);
        if self.flavour == Flavour::Pilotlight {
            self.ended.fill(from, until, ended);
        }
        if self.flavour == Flavour::Knative || self.settings.metric == Metric::Rps {
            self.panic.fill(from, until, value);
        }
    }

    /// Decides. `facts` are for `Terms::of` the same revision.
    pub fn plan(&mut self, now: Instant, demands: &[Demand], facts: &Facts<'_>) -> Plan {
        let plan = match self.flavour {
            Flavour::Pilotlight => self.ours(now, demands, facts),
            Flavour::Knative => self.theirs(now, demands, facts),
        };
        if plan.start + plan.later == 0
            && plan.stop == facts.starting + facts.ready
            && total(now, demands) == 0
        {
            // Where nothing runs nothing is measured: silence is not a number of zeros.
            self.forget();
        }
        plan
    }

    fn ours(&self, now: Instant, demands: &[Demand], facts: &Facts<'_>) -> Plan {
        let room = if total(now, demands) > 0 { self.room(now) } else { 0 };
        if room <= facts.terms.min {
            return scale(now, demands, facts);
        }
        let cap = if facts.terms.max == 0 { u32::MAX } else { facts.terms.max };
        let terms = Terms { min: room.min(cap).max(facts.terms.min), ..facts.terms.clone() };
        scale(now, demands, &Facts { terms: &terms, ..facts.clone() })
    }

    /// Instances that load which lasts asks for, room included.
    fn room(&self, now: Instant) -> u32 {
        let second = self.second(now);
        let wanted = |average: f64| up(average / self.settings.target);
        match self.settings.metric {
            Metric::Rps => wanted(self.stable.whole(second)).max(wanted(self.panic.whole(second))),
            Metric::Concurrency => {
                let room = wanted(self.stable.whole(second));
                let ended = self.ended.whole(second) * self.ended.length() as f64;
                let under_way = self.seen.map_or(0, |(_, load)| load.in_flight);
                if room > 1 && ended < under_way as f64 { 0 } else { room }
            }
        }
    }

    fn theirs(&mut self, now: Instant, demands: &[Demand], facts: &Facts<'_>) -> Plan {
        if facts.ready == 0 {
            self.active = None;
        } else {
            self.active.get_or_insert(now);
            self.grown |= facts.ready >= self.settings.bounded(self.settings.initial);
        }
        let poked = self.desired == 0 && total(now, demands) > 0;
        if poked && facts.starting + facts.ready == 0 {
            // The first request of all is reported at once, as one.
            let second = self.second(now);
            self.record(second, second + 1, (1.0, 0.0));
            self.ahead += 1.0;
        }
        if poked || self.tick.is_none_or(|at| at <= now) {
            self.decide(now, facts);
            self.tick = Some(now + TICK);
        }
        let goal = self.goal(now, facts);
        let have = facts.starting + facts.ready;
        let missing = goal.saturating_sub(have);
        let bound = if missing > facts.room { Some(Bound::Ceiling) } else { None };
        let capped = self.settings.max > 0 && self.desired > self.settings.max;
        Plan {
            wanted: goal,
            // What is starting is let to start, and stopped then.
            stop: facts.ready.saturating_sub(goal),
            bound: bound.or(capped.then_some(Bound::MaxScale)),
            ..facts.divide(missing)
        }
    }

    fn decide(&mut self, now: Instant, facts: &Facts<'_>) {
        let second = self.second(now);
        if self.stable.is_empty(second) {
            return;
        }
        // Averages are over seconds that are over; the running one is not known yet.
        let last = if self.ahead > 0.0 { second } else { second.saturating_sub(1) };
        let observed = Observed { stable: self.stable.average(last), panic: self.panic.average(last) };
        let verdict = knative::decide(now, &self.settings, observed, facts.ready, &mut self.state);
        self.desired = verdict.desired;
        if verdict.desired > 0 || facts.ready > 0 {
            self.direct = verdict.excess_burst >= 0;
        }
    }

    /// What is wanted now, bounds and the way to zero included.
    fn goal(&mut self, now: Instant, facts: &Facts<'_>) -> u32 {
        if self.desired > 0 {
            self.zero = None;
            let first = if self.grown { 0 } else { self.settings.initial };
            return self.settings.bounded(self.desired.max(first));
        }
        let since = *self.zero.get_or_insert(now);
        let stay =
            if self.direct { self.settings.grace } else { Duration::ZERO }.max(self.settings.retention);
        let window = Duration::from_secs(self.settings.stable.into());
        let young = self.active.is_some_and(|active| now.saturating_duration_since(active) < window);
        let keep = facts.ready > 0 && (young || now.saturating_duration_since(since) < stay);
        self.settings.bounded(u32::from(keep))
    }

    /// Until when a further look changes nothing, if the metric stays within `low..=high` and nobody is
    /// queued. None: not even now. By concurrency only.
    pub fn settled(&self, now: Instant, (low, high): (f64, f64), facts: &Facts<'_>) -> Option<Instant> {
        let wanted = |value: f64| up(value / self.settings.target);
        let second = self.second(now);
        // An average cannot outgrow what it is plus all that comes, nor the highest second.
        let within = |window: &Window, average: f64, limit: u32| {
            wanted(high) <= limit
                && (wanted(average + high) <= limit
                    || window.range().is_none_or(|(_, highest)| wanted(highest) <= limit))
        };
        if self.flavour == Flavour::Pilotlight {
            let (kept, until) = facts.peaks.step(now, facts.terms.horizon())?;
            return (until > now && within(&self.stable, self.stable.whole(second), kept)).then_some(until);
        }
        let calm = !self.state.panics() && self.settings.down_delay.is_zero() && facts.starting == 0;
        let one = self.settings.activation.max(self.settings.min).max(1);
        let same = facts.ready == self.desired && facts.ready >= one && self.grown;
        if !calm || !same || !within(&self.stable, self.stable.average(second), facts.ready) {
            return None;
        }
        let lowest = || self.stable.range().map_or(0.0, |(lowest, _)| lowest.min(low));
        let enough = facts.ready == 1 || wanted(lowest()) == facts.ready;
        if !enough || !within(&self.panic, self.panic.average(second), facts.ready) {
            return None;
        }
        let window = Duration::from_secs(self.settings.stable.into());
        let rest = if low > 0.0 { window } else { self.silence(now)? };
        (!rest.is_zero()).then(|| now + rest)
    }

    /// Until when further looks change nothing if exactly `in_flight` stay under way and nobody is queued.
    /// None: the next one may. It knows more than `settled`, as it has only one future to look at. By
    /// concurrency only.
    pub fn calm(&self, now: Instant, in_flight: u64, facts: &Facts<'_>) -> Option<Instant> {
        let plain = self.settings.aggregation == Aggregation::Linear
            && self.settings.metric == Metric::Concurrency
            && facts.starting == 0;
        match self.flavour {
            Flavour::Pilotlight if plain && in_flight > 0 => self.calm_by_need(now, in_flight, facts),
            Flavour::Knative if plain => self.calm_in_panic(now, in_flight, facts),
            _ => None,
        }
    }

    /// As long as the averages ask for no more than what is under way does.
    fn calm_by_need(&self, now: Instant, in_flight: u64, facts: &Facts<'_>) -> Option<Instant> {
        let need = in_flight.div_ceil(facts.terms.per_instance.into()).max(facts.terms.min.into());
        if need > u64::from(facts.ready) {
            return None;
        }
        let room = need as f64 * self.settings.target * self.stable.length() as f64;
        // Seconds until the window could be that full, if nothing fell out of it.
        let left = ((room - self.stable.total() - self.second.0 / 1e6) / in_flight as f64).floor();
        let (kept, fall) = facts.peaks.step(now, facts.terms.horizon())?;
        // Else `settled` may have something to say before that.
        let busy = up(in_flight as f64 / self.settings.target) > kept;
        let until = now + Duration::from_secs(left.max(0.0) as u64);
        (busy && left >= 1.0).then(|| until.min(fall - Duration::from_nanos(1)))
    }

    /// Until panic ends, where nothing can prolong or worsen it.
    fn calm_in_panic(&self, now: Instant, in_flight: u64, facts: &Facts<'_>) -> Option<Instant> {
        let (since, pods) = self.state.panic()?;
        let settings = &self.settings;
        let same = self.desired == pods && facts.ready == settings.bounded(pods) && self.grown;
        if !same || !settings.down_delay.is_zero() || pods < settings.activation {
            return None;
        }
        let level = in_flight as f64;
        let rest = (1_000_000 - self.micros(now) % 1_000_000) as f64 / 1e6;
        // No average is above the highest second, be it over, running, or still to come.
        let running = self.second.0 / 1e6 + level * rest;
        let highest =
            |window: &Window| window.range().map_or(0.0, |(_, highest)| highest).max(running).max(level);
        let wanted = |window| (highest(window) / settings.target).ceil();
        let ratio = wanted(&self.panic) / f64::from(facts.ready.max(1));
        let until = since + Duration::from_secs(settings.stable.into());
        let quiet = ratio < settings.panic_threshold && wanted(&self.panic) <= f64::from(pods);
        (quiet && self.stays_below(pods, level, until.saturating_duration_since(now))).then_some(until)
    }

    /// Whether the stable average cannot ask for more than `pods` within `length` of `level` under way.
    fn stays_below(&self, pods: u32, level: f64, length: Duration) -> bool {
        let target = self.settings.target;
        let sum = self.stable.total() + self.second.0 / 1e6 + level * (length.as_secs_f64() + 1.0);
        sum <= f64::from(pods) * target * self.stable.recorded() as f64
    }

    /// Nothing runs from now on, and is not measured until something does.
    pub fn forget(&mut self) {
        self.seen = None;
        self.second = (0.0, 0.0);
    }

    /// Knative decides at this moment next: ticks before it were calm.
    pub fn skip(&mut self, next: Instant) {
        self.tick = self.tick.map(|tick| tick.max(next));
    }

    /// Knative's ticks before `now` were calm; the others stay where they are.
    pub fn skip_before(&mut self, now: Instant) {
        if let Some(tick) = &mut self.tick
            && *tick < now
        {
            let missed = (now - *tick).as_nanos().div_ceil(TICK.as_nanos());
            *tick += TICK * u32::try_from(missed).unwrap_or(u32::MAX);
        }
    }

    /// How long the stable window is still not all zeros.
    fn silence(&self, now: Instant) -> Option<Duration> {
        let back = now.saturating_duration_since(self.began + Duration::from_secs(self.stable.busy()? + 1));
        let window = Duration::from_secs(self.settings.stable.into());
        Some(window.saturating_sub(back))
    }

    /// When it is to be asked next at the latest, while anything runs or waits.
    pub fn next(&self, now: Instant) -> Instant {
        match (self.flavour, self.tick) {
            (Flavour::Knative, Some(at)) if at > now => at,
            _ => now + Duration::from_secs(1),
        }
    }
}

/// The next whole number, as `ceil` and `as` give it, but without a call.
fn up(value: f64) -> u32 {
    let whole = value as u32;
    whole.saturating_add(u32::from(f64::from(whole) < value))
}
