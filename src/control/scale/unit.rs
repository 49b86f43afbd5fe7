//! One revision: its terms, its instances and what became of them.

use super::backoff::Backoff;
use super::ended::Crash;
use super::fleet::Floor;
use super::foresee::limits;
use super::instance::{Instance, Phase};
use super::ledger::Ledger;
use super::pace::{Bucket, PATIENCE};
use crate::activator::{Hold, Learned};
use crate::autoscaler::{Bound, Demand, Facts, Kpa, Load, Peaks, Plan, Terms};
use crate::clock::{Duration, Instant};
use crate::cluster::{Members, Slot};
use crate::driver::InstanceId;
use crate::fault::Kind;
use crate::record::Cause;
use crate::telemetry::{FunctionMetrics, Seldom};
use proxy_config::model::{Command, Revision};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a removed revision is remembered, for exchanges that began before.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The same thing is not said again sooner.
const SILENCE: Duration = Duration::from_secs(60);
const TICKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// The soonest next look.
const AT_ONCE: Duration = Duration::from_millis(1);
const DRAIN_TICKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// When something was said last.
#[derive(Debug, Default)]
pub(super) struct Said(Option<Instant>);

impl Said {
    /// Whether it may be said again now.
    fn again(&mut self, now: Instant) -> bool {
        let may = self.0.is_none_or(|at| now.saturating_duration_since(at) >= SILENCE);
        if may {
            self.0 = Some(now);
        }
        may
    }

    /// It is said again whenever it was said.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

#[derive(Debug)]
pub(super) struct Unit {
    pub revision: Arc<Revision>,
    pub terms: Terms,
    pub members: Arc<Members>,
    pub hold: Arc<Hold<Slot>>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub backoff: Backoff,
    pub starts: u64,
    pub crashes: u64,
    pub last_crash: Option<Crash>,
    /// When it was taken out of the configuration.
    pub removed: Option<Instant>,
    /// Wants instances for which the process has no room, or which may not start yet.
    pub starved: bool,
    /// When it is to be looked at without being called.
    pub next: Option<Instant>,
    /// When it was looked at last.
    pub looked: Option<Instant>,
    /// How long its starts take.
    pub learned: Learned,
    pub metrics: Arc<Seldom<FunctionMetrics>>,
    pub peaks: Peaks,
    pub kpa: Kpa,
    /// Slots that its instances ever granted.
    sent: u64,
    /// Ready instances that ended on their own and are not replaced yet.
    pub lost: u32,
    /// What every holder wants.
    pub ledger: Ledger,
    /// More was wanted at the last look than may be had.
    pub bound: bool,
    /// What may be started of it in a while.
    pub pace: Bucket,
    /// Until when a start is put off, because many were made lately.
    pub put_off: Option<Instant>,
    /// Somebody was turned away while nothing is started, so one instance is, when it may be.
    trial: bool,
    generation: u64,
    pub refused: Said,
    bounded: Said,
    /// Instances that were starting when those of all revisions were counted.
    pub counted: u32,
}

impl Unit {
    pub fn new(
        revision: Arc<Revision>,
        members: Arc<Members>,
        hold: Arc<Hold<Slot>>,
        metrics: Arc<Seldom<FunctionMetrics>>,
        kpa: Kpa,
        pace: Bucket,
    ) -> Unit {
        hold.set_limits(limits(&revision));
        Unit {
            terms: Terms::of(&revision),
            revision,
            members,
            hold,
            instances: BTreeMap::new(),
            backoff: Backoff::default(),
            starts: 0,
            crashes: 0,
            last_crash: None,
            removed: None,
            starved: false,
            next: None,
            looked: None,
            learned: Learned::default(),
            metrics,
            peaks: Peaks::default(),
            kpa,
            sent: 0,
            lost: 0,
            ledger: Ledger::default(),
            bound: false,
            pace,
            put_off: None,
            trial: false,
            generation: 0,
            refused: Said::default(),
            bounded: Said::default(),
            counted: 0,
        }
    }

    pub fn count(&self, which: impl Fn(&Instance) -> bool) -> u32 {
        self.instances.values().filter(|instance| which(instance)).count() as u32
    }

    /// Instances that take requests or are about to.
    pub fn present(&self) -> u32 {
        self.count(|one| one.is_starting() || one.ready().is_some() || one.is_unready())
    }

    /// Whether nothing of it is left to be done.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        let old = |at| now.saturating_duration_since(at) >= REMEMBERED;
        self.instances.is_empty() && self.removed.is_some_and(old)
    }

    /// Whether nothing has happened to it that is worth remembering.
    pub fn is_untouched(&self) -> bool {
        let told = self.ledger.reports().iter().any(|report| report.holder != 0);
        let idle = self.instances.is_empty() && self.hold.waiting() == 0 && self.next.is_none();
        let known = self.starts + self.crashes + self.sent > 0 || self.peaks.busy().is_some() || self.trial;
        idle && !known && !told && !self.starved && self.removed.is_none()
    }

    /// Looks at who waits and who works, and starts and stops accordingly. Returns how many instances it
    /// lacks because the process has no room for them.
    pub fn look(&mut self, now: Instant, floor: &mut Floor) -> u32 {
        self.hold.looked_at();
        self.looked = Some(now);
        self.starved = false;
        let short = if self.removed.is_some() {
            self.leave(now, floor);
            0
        } else if matches!(self.revision.command, Command::Refused { .. }) {
            self.refuse(now);
            self.leave(now, floor);
            0
        } else {
            self.replace(now, floor);
            self.give_up(now, floor);
            self.say_slow(now);
            self.hold.expire(now);
            self.ramp(now);
            self.end_frozen(now, floor);
            self.adjust(now, floor)
        };
        self.account(now, floor);
        self.drain(now, floor);
        self.foresee(now);
        self.next = self.due(now);
        self.gauge();
        short
    }

    fn adjust(&mut self, now: Instant, floor: &mut Floor) -> u32 {
        // An ejection may have ended, which tells nobody.
        if self.members.waiting() > 0 {
            self.members.offer();
        }
        let own = self.demand(now);
        self.ledger.note(now, own);
        let all = self.ledger.wanted(now);
        let ready = self.count(|instance| instance.ready().is_some());
        let facts = Facts {
            terms: &self.terms,
            peaks: &self.peaks,
            starting: self.count(Instance::is_starting),
            ready,
            lost: self.lost,
            woken: self.starts > 0,
            room: floor.room(),
            starts: floor.starts(),
        };
        let at_once = facts.at_once();
        let (queued, in_flight) = (all.queued, all.in_flight);
        self.kpa.observe(now, Load { queued, in_flight, sent: self.sent });
        let plan = self.kpa.plan(now, self.ledger.reports(), &facts);
        let from_zero = ready + facts.starting == 0 && plan.wanted > 0;
        self.peaks.record(now, plan.wanted, self.terms.horizon());
        self.say_bound(now, &plan, floor);
        let missing = plan.start + plan.short + plan.later;
        let since = all.oldest.unwrap_or(now);
        let missing = missing.min(self.room_of_its_own());
        let missing = missing - self.reopen(missing);
        let missing = missing - self.thaw(now, missing, since, floor);
        let room = floor.room();
        let start = self.may_start(now, missing.min(room).min(at_once), floor);
        let short = missing.saturating_sub(room);
        if start > 0 {
            if from_zero && queued > 0 {
                self.metrics.cold_starts.inc();
            }
            let asked = queued > 0 || in_flight > 0;
            let cause = match (self.lost > 0, from_zero, asked) {
                (true, ..) => Cause::Lost,
                (false, true, true) => Cause::Zero,
                (false, false, true) => Cause::More,
                (false, _, false) => Cause::Kept,
            };
            self.lost = self.lost.saturating_sub(start);
            self.trial = false;
            (0..start).for_each(|_| self.start(now, asked, (cause, since), floor));
        }
        self.stop_some(now, plan.stop, floor);
        if plan.wanted == 0 && self.peaks.highest(now, self.terms.horizon()) == 0 {
            self.stop_unready(now, floor);
        }
        self.probe_again(floor);
        self.bound = plan.bound.is_some();
        self.starved = short > 0 || plan.later > 0;
        short
    }

    /// What this process's own holders ask for. They are one: all workers park in the same hold and take
    /// slots of the same endpoints. What others have in flight here they say themselves.
    fn demand(&mut self, now: Instant) -> Demand {
        let (mut in_flight, mut given) = (0, 0);
        for instance in self.instances.values_mut() {
            let (active, granted) = instance.look(now);
            in_flight += active;
            given += granted;
        }
        self.sent += given;
        // Work that began and ended between two looks was one at a time at least.
        if in_flight == 0 && given > 0 {
            in_flight = 1;
        }
        self.generation += 1;
        let missed = self.hold.take_missed();
        // Who was turned away in vain still wants an instance when one may be started.
        self.trial &= self.present() == 0;
        self.trial |= missed > 0 && self.foreseen_shut(now);
        let queued = (self.hold.waiting() + missed).max(usize::from(self.trial));
        Demand {
            revision: self.members.key.clone(),
            holder: 0,
            generation: self.generation,
            queued: u32::try_from(queued).unwrap_or(u32::MAX),
            in_flight: in_flight.saturating_sub(self.members.in_flight_of_others()),
            oldest: self.hold.oldest(),
            expires: now + TICKS.1,
        }
    }

    /// How many of `count` instances may be started now. Notes until when the others are put off.
    fn may_start(&mut self, now: Instant, count: u32, floor: &mut Floor) -> u32 {
        self.put_off = None;
        if count == 0 || self.backoff.until(now).is_some() {
            return 0;
        }
        self.put_off = self.pace.empty_until(now).max(floor.pace.empty_until(now));
        if self.put_off.is_some() {
            floor.put_off += 1;
            if let Some(kind) = self.starts_limited(now).filter(|_| self.present() == 0) {
                self.foresee(now);
                self.trial |= self.hold.refuse(kind) > 0;
            }
            return 0;
        }
        let alone = self.backoff.tries_alone();
        let count = if alone { count.min(1_u32.saturating_sub(self.present())) } else { count };
        self.pace.take(count);
        floor.pace.take(count);
        count
    }

    /// Whether who comes now is not worth waiting for what is put off.
    pub fn starts_limited(&self, now: Instant) -> Option<Kind> {
        self.put_off
            .filter(|until| until.saturating_duration_since(now) > PATIENCE)
            .map(|_| Kind::StartsLimited)
    }

    /// Whether those who come are turned away until something may be started.
    fn foreseen_shut(&self, now: Instant) -> bool {
        self.backoff.shut(now).is_some() || self.put_off.is_some()
    }

    fn say_bound(&mut self, now: Instant, plan: &Plan, floor: &Floor) {
        let Some(bound) = plan.bound else { return };
        if !self.bounded.again(now) {
            return;
        }
        let (revision, waiting) = (&self.revision.key, self.hold.waiting());
        match bound {
            Bound::MaxScale => {
                tracing::info!(
                    revision,
                    waiting,
                    max = self.terms.max,
                    "more is wanted than max-scale allows"
                );
            }
            Bound::Ceiling => tracing::warn!(
                revision,
                waiting,
                ceiling = floor.ceiling,
                running = floor.live,
                "more instances are wanted than this process may run; --max-instances raises that"
            ),
        }
    }

    fn refuse(&mut self, now: Instant) {
        let Command::Refused { reason, help } = &self.revision.command else { return };
        let refused = self.members.refuse(Kind::NotRunnable);
        if refused > 0 && self.refused.again(now) {
            tracing::warn!(revision = self.revision.key, "the function is not run here: {reason}; {help}");
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        if let Some(removed) = self.removed
            && self.instances.is_empty()
        {
            return Some(removed + REMEMBERED);
        }
        let drains = self.instances.values().filter_map(|instance| match &instance.phase {
            Phase::Draining { since, .. } => Some(now.saturating_duration_since(*since)),
            _ => None,
        });
        let drain = drains.min().map(|age| (age / 10).clamp(DRAIN_TICKS.0, DRAIN_TICKS.1));
        let others = self.ledger.next(now).map(|at| at - now);
        let waits = self.members.waiting() > 0 || others.is_some();
        // The frozen need no looks.
        let busy = waits || self.instances.values().any(|instance| instance.frozen().is_none());
        let tick = busy.then(|| (self.terms.window / 24).clamp(TICKS.0, TICKS.1));
        let wanted = waits || self.trial || self.lost > 0 || self.present() < self.terms.min;
        let until = self.backoff.until(now).max(self.put_off);
        let held = until.filter(|_| wanted).map(|until| until.saturating_duration_since(now).max(AT_ONCE));
        let step = self.next_step().map(|at| at.saturating_duration_since(now).max(AT_ONCE));
        let end = self.next_end_of_frozen().map(|at| at.saturating_duration_since(now).max(AT_ONCE));
        drain
            .into_iter()
            .chain(tick)
            .chain(held)
            .chain(step)
            .chain(end)
            .chain(others)
            .min()
            .map(|length| now + length)
    }
}
