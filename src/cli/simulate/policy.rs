//! The policies that are compared, each in front of the same code that scales functions when they run.

use crate::autoscaler::{Demand, Facts, Flavour, Kpa, Load, Peaks, Plan, Settings, Terms, knative, scale};
use crate::clock::{Duration, Instant};
use proxy_config::model::Scale;

/// Between two looks of ours.
const SECOND: Duration = Duration::from_secs(1);
/// So many different numbers wanted are remembered without loss.
const DISTINCT: u32 = 60;
/// How long the fixed policy keeps what is idle.
const KEEP: Duration = Duration::from_secs(600);

/// A policy to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is wanted is started at once and kept for ten minutes after its last use.
    Fixed,
    /// Knative's autoscaler.
    Knative,
    /// Ours.
    Pilotlight,
}

impl Kind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Kind; 3] = [Kind::Fixed, Kind::Knative, Kind::Pilotlight];

    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fixed => "fixed-10m",
            Kind::Knative => "knative",
            Kind::Pilotlight => "pilotlight",
        }
    }
}

/// How many instances there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// On their way.
    pub starting: u32,
    /// Taking requests.
    pub ready: u32,
}

/// Looks in even steps that would change nothing.
#[derive(Clone, Copy, Debug)]
struct Calm {
    /// The next of them.
    at: Instant,
    step: Duration,
    /// None of them is later.
    until: Instant,
}

/// Load that finds nothing to do, see `Policy::quiet`.
#[derive(Clone, Copy, Debug)]
pub struct Lull {
    /// As many may be under way.
    pub high: u64,
    /// Or, where that is not enough: so many microseconds of work in each span, in the first one, and the span.
    pub work: Option<(u64, u64, Duration)>,
    /// When fewer are kept, unless as many are wanted again.
    pub fall: Option<Instant>,
}

/// One function's policy with what it remembers.
#[derive(Debug)]
pub struct Policy {
    terms: Terms,
    peaks: Peaks,
    /// None: the fixed policy.
    kpa: Option<Kpa>,
    flavour: Flavour,
    woken: bool,
    /// What is said to the autoscaler, again and again.
    demand: Demand,
    /// Looks that are not made, as they would change nothing.
    calm: Option<Calm>,
    /// What our autoscaler was not told yet, as long as it cannot matter.
    late: Option<Late>,
}

/// Measurements of a load that was always light: our autoscaler, which has them in no window yet, decides as if it
/// had, since averages of at most what one instance is meant to take ask for one instance, which whoever is under
/// way asks for too.
#[derive(Debug, Default)]
struct Late {
    /// Heavier load matters.
    light: f64,
    events: Vec<(Instant, Measured)>,
}

#[derive(Clone, Copy, Debug)]
enum Measured {
    Now(Load),
    Average(f64, Load),
    /// Nothing runs: measuring ends until the next.
    Nothing,
}

impl Late {
    /// So many are kept at most.
    const MOST: usize = 1024;

    /// How heavy that is.
    fn level(measured: Measured) -> f64 {
        match measured {
            Measured::Now(load) => load.in_flight as f64,
            Measured::Average(level, load) => level.max(load.in_flight as f64),
            Measured::Nothing => 0.0,
        }
    }

    fn note(&mut self, now: Instant, measured: Measured, memory: Duration) {
        if self.events.len() >= Late::MOST {
            // What no window reaches is forgotten, but for the last of it, from which the others go on.
            let old = self.events.partition_point(|(at, _)| *at + memory < now);
            self.events.drain(..old.saturating_sub(1));
        }
        self.events.push((now, measured));
    }

    fn tell(self, kpa: &mut Kpa) {
        kpa.forget();
        for (at, measured) in self.events {
            match measured {
                Measured::Now(load) => kpa.observe(at, load),
                Measured::Average(level, load) => kpa.observe_level(at, level, load),
                Measured::Nothing => kpa.forget(),
            }
        }
    }
}

impl Policy {
    /// Without any past.
    pub fn new(kind: Kind, scale: &Scale, concurrency: u32, now: Instant, lulls: bool) -> Policy {
        let mut terms = Terms::new(scale, concurrency, true);
        if kind == Kind::Fixed {
            (terms.window, terms.down_delay, terms.retention) = (KEEP, Duration::ZERO, Duration::ZERO);
        }
        let flavour = if kind == Kind::Knative { Flavour::Knative } else { Flavour::Pilotlight };
        let settings = Settings::new(scale, concurrency, true);
        let kpa = (kind != Kind::Fixed).then(|| Kpa::new(flavour, settings, now));
        let demand = Demand {
            revision: "simulated".into(),
            holder: 0,
            generation: 0,
            queued: 0,
            in_flight: 0,
            oldest: None,
            expires: now,
        };
        let ours = kpa.as_ref().filter(|_| lulls && flavour == Flavour::Pilotlight);
        let late = ours.and_then(Kpa::light).map(|light| Late { light, events: Vec::new() });
        Policy { terms, peaks: Peaks::default(), kpa, flavour, woken: false, demand, calm: None, late }
    }

    /// Requests that share an instance where there is no hard limit.
    pub fn per_instance(&self) -> u64 {
        self.terms.per_instance.into()
    }

    /// Notes how things stand from now on.
    pub fn observe(&mut self, now: Instant, load: Load) {
        self.measure(now, Measured::Now(load));
    }

    /// Notes a stretch that ends now and was `level` requests at a time on average.
    pub fn observe_level(&mut self, now: Instant, level: f64, load: Load) {
        self.measure(now, Measured::Average(level, load));
    }

    fn measure(&mut self, now: Instant, measured: Measured) {
        let memory = self.memory();
        let (Some(kpa), Some(memory)) = (&mut self.kpa, memory) else { return };
        if let Some(late) = &mut self.late
            && Late::level(measured) <= late.light
        {
            if let Measured::Now(load) | Measured::Average(_, load) = measured {
                // It knows what is under way, and nothing of before.
                kpa.resume(now, load);
            }
            late.note(now, measured, memory);
            return;
        }
        if let Some(late) = self.late.take() {
            late.tell(kpa);
        }
        match measured {
            Measured::Now(load) => kpa.observe(now, load),
            Measured::Average(level, load) => kpa.observe_level(now, level, load),
            Measured::Nothing => {}
        }
    }

    /// Decides.
    pub fn plan(&mut self, now: Instant, load: Load, have: Have) -> Plan {
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let demand = &mut self.demand;
        (demand.queued, demand.in_flight) = (count(load.queued), count(load.in_flight));
        (demand.generation, demand.expires) = (demand.generation + 1, now + Duration::from_secs(1));
        let Policy { terms, peaks, kpa, woken, demand, late, .. } = self;
        let demands = std::slice::from_ref(&*demand);
        let facts = facts(terms, peaks, *woken, have);
        let plan = match kpa {
            None => scale(now, demands, &facts),
            Some(kpa) => {
                kpa.skip_before(now);
                let plan = kpa.plan(now, demands, &facts);
                if let Some(late) = late
                    && !kpa.measures()
                    && !matches!(late.events.last(), None | Some((_, Measured::Nothing)))
                {
                    late.events.push((now, Measured::Nothing));
                }
                plan
            }
        };
        if self.flavour == Flavour::Pilotlight {
            self.peaks.record(now, plan.wanted, self.terms.horizon());
        }
        self.woken |= plan.start > 0;
        plan
    }

    /// When it must be asked again if the load stays within `low..=high` and nobody is queued meanwhile.
    pub fn next(&self, now: Instant, (low, high): (f64, f64), have: Have) -> Option<Instant> {
        if have.starting + have.ready == 0 && high == 0.0 {
            return None;
        }
        let facts = facts(&self.terms, &self.peaks, self.woken, have);
        match &self.kpa {
            Some(kpa) if self.flavour == Flavour::Knative => {
                let tick = kpa.next(now);
                let Some(until) = kpa.settled(now, (low, high), &facts) else { return Some(tick) };
                // It is asked at its ticks only.
                let ticks = until.saturating_duration_since(tick).as_secs().div_ceil(2);
                Some(tick + Duration::from_secs(2 * ticks))
            }
            Some(kpa) if high > 0.0 => {
                Some(kpa.settled(now, (low, high), &facts).unwrap_or(now + Duration::from_secs(1)))
            }
            _ => self.fall(now),
        }
    }

    /// The same if exactly what is under way now stays so, and nobody is queued.
    pub fn due(&mut self, now: Instant, range: (f64, f64), in_flight: u64, have: Have) -> Option<Instant> {
        self.calm = None;
        let next = self.next(now, range, have)?;
        let Some(kpa) = &self.kpa else { return Some(next) };
        let ours = self.flavour == Flavour::Pilotlight;
        let (first, step) = if ours { (now + SECOND, SECOND) } else { (kpa.next(now), knative::TICK) };
        if next != first {
            return Some(next);
        }
        let until = kpa.calm(now, in_flight, &facts(&self.terms, &self.peaks, self.woken, have));
        let Some(until) = until.filter(|until| *until >= first) else { return Some(next) };
        self.calm = Some(Calm { at: first, step, until });
        let steps = until.saturating_duration_since(first).as_secs() / step.as_secs() + 1;
        Some(first + step * u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// Before when `due` is not, while something is under way.
    pub fn soonest(&self, now: Instant) -> Instant {
        match &self.kpa {
            None => now,
            Some(kpa) if self.flavour == Flavour::Knative => kpa.next(now),
            Some(_) => {
                let fall = self.peaks.step(now, self.terms.horizon()).map_or(now, |(_, until)| until);
                fall.min(now + SECOND)
            }
        }
    }

    /// Something happens before `due` could be.
    pub fn due_later(&mut self) {
        self.calm = None;
    }

    /// Nothing has happened since `due` was asked, and it is `now`: of the looks that were not made until then
    /// the last one is made up for, of which nothing comes but what it measures.
    pub fn pass(&mut self, now: Instant, load: Load, have: Have) {
        let (Some(calm), Some(kpa)) = (&mut self.calm, &mut self.kpa) else { return };
        let end = now.min(calm.until);
        let Some(since) = end.checked_duration_since(calm.at) else { return };
        let missed = since.as_secs() / calm.step.as_secs();
        let last = calm.at + calm.step * u32::try_from(missed).unwrap_or(u32::MAX);
        calm.at = last + calm.step;
        kpa.skip(calm.at);
        kpa.observe(last, load);
        if self.flavour == Flavour::Pilotlight {
            let plan = self.plan(last, load, have);
            debug_assert!(plan.start == 0 && plan.stop == 0, "{plan:?} in a calm");
        }
    }

    /// How much may come so that nothing is to be done, as long as nobody is queued and nothing is silent for
    /// long: events within are told to `measure` and `want` afterwards. None: unknown.
    pub fn quiet(&self, now: Instant, in_flight: u64, have: Have) -> Option<Lull> {
        if self.calm.is_some() || have.starting > 0 || self.terms.min > 0 || have.ready > DISTINCT {
            return None;
        }
        let all = u64::from(have.ready) * self.per_instance();
        let fall = match self.flavour {
            Flavour::Knative => None,
            Flavour::Pilotlight => {
                let (kept, until) = self.peaks.step(now, self.terms.horizon())?;
                Some((kept == have.ready).then_some(until)?)
            }
        };
        let Some(kpa) = &self.kpa else { return Some(Lull { high: all, work: None, fall }) };
        let quiet = kpa.quiet(now, in_flight, &facts(&self.terms, &self.peaks, self.woken, have))?;
        if quiet.level > in_flight.max(1) {
            return Some(Lull { high: quiet.level.min(all), work: None, fall });
        }
        if self.late.is_some() {
            // What has come before is not known.
            return None;
        }
        Some(Lull { high: all, work: Some((quiet.work.0, quiet.work.1, quiet.span)), fall })
    }

    /// How long what was measured matters: not at all to the fixed policy.
    pub fn memory(&self) -> Option<Duration> {
        let kpa = self.kpa.as_ref()?;
        Some(Duration::from_secs(u64::from(kpa.settings().stable)) + Duration::from_secs(3))
    }

    /// Of a lull nothing is known before `now`, and it is long enough that it does not matter.
    pub fn resume(&mut self, now: Instant, load: Load) {
        match &mut self.late {
            Some(late) => {
                late.events.clear();
                self.measure(now, Measured::Now(load));
            }
            None => {
                if let Some(kpa) = &mut self.kpa {
                    kpa.resume(now, load);
                }
            }
        }
    }

    /// In a lull so many were wanted at `now`. -> until when they are kept
    pub fn want(&mut self, now: Instant, wanted: u32) {
        if self.flavour == Flavour::Pilotlight {
            self.peaks.record(now, wanted, self.terms.horizon());
        }
    }

    /// How long what was wanted is kept.
    pub fn horizon(&self) -> Duration {
        self.terms.horizon()
    }

    /// A lull is over, whose last event was `now`.
    pub fn wake(&mut self, now: Instant) {
        if let Some(kpa) = &mut self.kpa {
            kpa.skip_before(now + Duration::from_micros(1));
        }
    }

    /// When fewer are kept.
    fn fall(&self, now: Instant) -> Option<Instant> {
        let last = || Some(self.peaks.busy()? + self.terms.horizon() + self.terms.retention);
        let step = self.peaks.step(now, self.terms.horizon()).map(|(_, until)| until);
        step.or_else(last).filter(|at| *at > now)
    }
}

fn facts<'a>(terms: &'a Terms, peaks: &'a Peaks, woken: bool, have: Have) -> Facts<'a> {
    let Have { starting, ready, .. } = have;
    Facts { terms, peaks, starting, ready, lost: 0, woken, room: u32::MAX, starts: u32::MAX }
}
