//! One function under one policy, from its first call to the end of the trace: a hand-wound clock.
//!
//! A trace says how many calls a minute had, not when: that is drawn (see `moments`). While everybody finds a free place, time passes in stretches as long as nothing
//! can change, and counts are reckoned; as soon as somebody might wait, call by call (of very many, in
//! groups of an eighth of what is under way at a time). Those who wait are in the activator's own `Hold`.
//!
//! Not simulated: crashes, the process ceiling, network, and the time a platform takes to notice that an
//! instance is ready; an instance is ready the given time after it was ordered.

mod lull;

use super::moments::{Arrivals, MINUTE, Train};
use super::policy::{Have, Policy};
use super::report::Tally;
use super::trace::Function;
use crate::activator::{Ask, Bell, Hold, HoldLimits, Parked, Ticket};
use crate::autoscaler::{Load, Plan};
use crate::clock::{Duration, Instant};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Those under way when a stretch ends are remembered in at most so many groups.
const GROUPS: u64 = 16;

/// What is the same for all functions.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `containerConcurrency`; 0: no limit.
    pub concurrency: u32,
    /// From the order of an instance until it is ready, in microseconds.
    pub start: u64,
    /// When the calls of a minute come.
    pub arrivals: Arrivals,
    /// Minutes to simulate.
    pub minutes: u32,
    /// Where the clock begins.
    pub origin: Instant,
    /// Where nothing can change, time passes without asking.
    pub lulls: bool,
}

/// A stretch in which everybody is served at once.
struct Stretch {
    until: u64,
    /// Highest number under way.
    peak: u64,
    /// Calls within it.
    calls: u64,
}

/// See the module.
pub struct World<'a> {
    rules: Rules,
    policy: Policy,
    /// Microseconds that a call takes.
    takes: u64,
    now: u64,
    /// The same as an instant.
    at: Instant,
    ready: u32,
    /// How many `starting` counts.
    coming: u32,
    /// When they will be ready, and how many.
    starting: VecDeque<(u64, u32)>,
    /// When they will have ended, and how many.
    running: VecDeque<(u64, u64)>,
    load: Load,
    hold: Arc<Hold<u64>>,
    waiting: VecDeque<(u64, u64, Ticket<u64>)>,
    /// Who has left the hold and found room for a part of the group only: since when, how many.
    head: Option<(u64, u64)>,
    /// When the policy wants to be asked.
    due: Option<u64>,
    log: lull::Log,
    tally: &'a mut Tally,
    /// Instance-microseconds: answering, and of all.
    busy: f64,
    alive: f64,
}

impl<'a> World<'a> {
    /// A world in which nothing has happened.
    pub fn new(rules: Rules, policy: Policy, function: &Function, tally: &'a mut Tally) -> World<'a> {
        World {
            rules,
            policy,
            takes: ((function.duration * 1e6) as u64).max(1),
            now: 0,
            at: rules.origin,
            ready: 0,
            coming: 0,
            starting: VecDeque::new(),
            running: VecDeque::new(),
            load: Load::default(),
            hold: Hold::new(HoldLimits::default(), Arc::new(Bell::new()), Arc::default()),
            waiting: VecDeque::new(),
            head: None,
            due: None,
            log: lull::Log::default(),
            tally,
            busy: 0.0,
            alive: 0.0,
        }
    }

    /// Trains of calls come, one after the other.
    pub fn pass_by(&mut self, trains: &[Train]) {
        let mut next = 0;
        while let Some(train) = trains.get(next) {
            self.advance(train.at);
            match self.lull(&trains[next..]) {
                0 => {
                    self.meet(*train);
                    next += 1;
                }
                passed => next += passed,
            }
        }
    }

    /// The trace has ended.
    pub fn end_of_trace(mut self, function: &Function) {
        self.advance(u64::from(self.rules.minutes) * MINUTE);
        let gigabytes = function.memory / 1024.0;
        self.tally.used += self.busy.min(self.alive) / 1e6 * gigabytes;
        self.tally.wasted += (self.alive - self.busy).max(0.0) / 1e6 * gigabytes;
        // Those who wait when the trace ends have waited so long.
        let left: Vec<(u64, u64)> = self
            .head
            .into_iter()
            .chain(self.waiting.iter().map(|(since, count, _)| (*since, *count)))
            .collect();
        left.into_iter().for_each(|(since, count)| self.tally.waits.add(self.now - since, count));
    }

    /// A train of calls comes.
    fn meet(&mut self, mut train: Train) {
        while train.left > 0 {
            self.advance(train.at);
            match self.stretch(&train) {
                Some(stretch) => self.flow(&mut train, &stretch),
                None => self.arrive(&mut train),
            }
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.rules.origin);
        since.as_secs() * 1_000_000 + u64::from(since.subsec_nanos().div_ceil(1_000))
    }

    fn have(&self) -> Have {
        Have { starting: self.coming, ready: self.ready }
    }

    fn capacity(&self) -> u64 {
        match (self.rules.concurrency, self.ready) {
            (_, 0) => 0,
            (0, _) => u64::MAX,
            (limit, ready) => u64::from(limit) * u64::from(ready),
        }
    }

    /// How many instances answer when so many are under way, on as few as they fit.
    fn answering(&self, in_flight: u64) -> u64 {
        in_flight.div_ceil(self.policy.per_instance())
    }

    /// Time passes without events.
    fn pass(&mut self, until: u64) {
        let length = (until - self.now) as f64;
        if length > 0.0 {
            let busy = self.answering(self.load.in_flight);
            let have = self.have();
            self.busy += length * busy as f64;
            self.alive += length * (u64::from(have.starting) + u64::from(have.ready).max(busy)) as f64;
        }
        self.now = until;
        self.at = self.rules.origin + Duration::from_micros(until);
    }

    /// All that happens until `until`, calls left out.
    fn advance(&mut self, until: u64) {
        loop {
            let ended = self.running.front().map_or(u64::MAX, |(at, _)| *at);
            let ready = self.starting.front().map_or(u64::MAX, |(at, _)| *at);
            let due = self.due.unwrap_or(u64::MAX);
            let next = ended.min(ready).min(due).max(self.now);
            if next > until {
                self.pass(until);
                self.policy.pass(self.at, self.load, self.have());
                return;
            }
            // A look at this very moment comes after what happens at it.
            let before = self.rules.origin + Duration::from_micros(next.saturating_sub(1));
            self.policy.pass(before, self.load, self.have());
            self.pass(next);
            if ended <= next {
                self.end();
            } else if ready <= next {
                if let Some((_, count)) = self.starting.pop_front() {
                    self.ready += count;
                    self.coming -= count;
                }
                self.serve();
                self.look();
            } else {
                self.due = None;
                self.look();
            }
        }
    }

    /// The oldest under way have ended.
    fn end(&mut self) {
        // What was wanted until now is noted before it is wanted no longer.
        self.ask(self.load);
        if let Some((_, count)) = self.running.pop_front() {
            self.load.in_flight -= count;
        }
        self.policy.observe(self.at, self.load);
        self.serve();
        self.due = self.next((self.load.in_flight as f64, self.load.in_flight as f64));
    }

    fn next(&mut self, range: (f64, f64)) -> Option<u64> {
        let soon = self.load.queued > 0;
        let (now, have) = (self.at, self.have());
        let ended = self.running.front().map_or(u64::MAX, |(at, _)| *at);
        if !soon && self.starting.is_empty() && ended < self.micros(self.policy.soonest(now)) {
            // Asked again then.
            self.policy.due_later();
            return None;
        }
        let at = match soon {
            true => self.policy.next(now, range, have),
            false => self.policy.due(now, range, self.load.in_flight, have),
        };
        let at = at.map(|at| self.micros(at).max(self.now + 1));
        if soon { Some(at.unwrap_or(u64::MAX).min(self.now + 1_000_000)) } else { at }
    }

    /// Asks the policy and does as it says.
    fn look(&mut self) {
        let now = self.at;
        if self.load.queued > 0 && self.hold.expire(now) > 0 {
            self.drop_refused();
        }
        self.policy.observe(now, self.load);
        self.ask(self.load);
        let level = self.load.in_flight as f64;
        self.due = self.next((level, level));
    }

    fn ask(&mut self, load: Load) {
        let plan = self.policy.plan(self.at, load, self.have());
        self.act(&plan);
    }

    fn act(&mut self, plan: &Plan) {
        if plan.start > 0 {
            self.starting.push_back((self.now + self.rules.start, plan.start));
            self.coming += plan.start;
            self.tally.starts += u64::from(plan.start);
        }
        self.ready -= plan.stop.min(self.ready);
    }

    /// One call, or one group of very many, comes.
    fn arrive(&mut self, train: &mut Train) {
        let group = (self.takes / train.gap / 8).clamp(1, train.left);
        train.at += group * train.gap;
        train.left -= group;
        self.tally.requests += group;
        let free =
            if self.load.queued == 0 { self.capacity().saturating_sub(self.load.in_flight) } else { 0 };
        let sent = free.min(group);
        self.send(self.now, sent);
        if sent == group {
            self.look();
            return;
        }
        let held = group - sent;
        self.tally.held += held;
        match self.hold.park(Ask::at(self.at), || None) {
            Ok(Parked::Wait(ticket)) => {
                self.load.queued += held;
                self.waiting.push_back((self.now, held, ticket));
            }
            Ok(Parked::Now(_)) => {}
            Err(_) => self.tally.refused += held,
        }
        self.look();
    }

    fn send(&mut self, since: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.tally.waits.add(self.now - since, count);
        self.load.in_flight += count;
        self.load.sent += count;
        self.running.push_back((self.now + self.takes, count));
    }

    /// Free places go to those who wait, the oldest first.
    fn serve(&mut self) {
        while self.load.queued > 0 {
            let free = self.capacity().saturating_sub(self.load.in_flight);
            if free == 0 {
                break;
            }
            let Some((since, count)) = self.head.take().or_else(|| self.oldest()) else { break };
            let sent = free.min(count);
            self.load.queued -= sent;
            self.send(since, sent);
            if sent < count {
                self.head = Some((since, count - sent));
            }
        }
    }

    /// The hold grants a place to its oldest.
    fn oldest(&mut self) -> Option<(u64, u64)> {
        let mut grant = Some(1);
        self.hold.offer(self.at, || grant.take());
        let (since, count, mut ticket) = self.waiting.pop_front()?;
        match poll(&mut ticket) {
            Poll::Ready(Ok(_)) => Some((since, count)),
            Poll::Ready(Err(_)) => {
                self.refuse(since, count);
                None
            }
            Poll::Pending => {
                self.waiting.push_front((since, count, ticket));
                None
            }
        }
    }

    /// Those whom the hold has refused leave.
    fn drop_refused(&mut self) {
        while let Some((since, count, mut ticket)) = self.waiting.pop_front() {
            if poll(&mut ticket).is_pending() {
                self.waiting.push_front((since, count, ticket));
                return;
            }
            self.refuse(since, count);
        }
    }

    fn refuse(&mut self, since: u64, count: u64) {
        self.load.queued -= count;
        self.tally.refused += count;
        self.tally.waits.add(self.now - since, count);
    }

    /// How long everybody will be served at once and the policy has nothing to say, if at all.
    fn stretch(&self, train: &Train) -> Option<Stretch> {
        if self.load.queued > 0 || self.ready == 0 {
            return None;
        }
        let peak = self.peak_of(train);
        if peak > self.capacity() {
            return None;
        }
        let steady = self.takes as f64 / train.gap as f64;
        let level =
            steady.min(train.left as f64) + if train.left > 1 { 0.0 } else { self.load.in_flight as f64 };
        let high = level.max(self.load.in_flight as f64);
        let low = if self.load.in_flight as f64 >= steady.floor() { steady.floor() } else { 0.0 };
        let last = train.at + (train.left - 1) * train.gap;
        let mut until = last;
        if last > self.now {
            let next = self.policy.next(self.at, (low, high), self.have());
            until = until.min(next.map_or(u64::MAX, |at| self.micros(at).max(self.now)));
            until = until.min(self.starting.front().map_or(u64::MAX, |(at, _)| *at));
        }
        let calls = ((until - self.now) / train.gap + 1).min(train.left);
        Some(Stretch { until, peak, calls })
    }

    /// The most that can be under way at a time while the train passes.
    fn peak_of(&self, train: &Train) -> u64 {
        let new = |after: u64| (after / train.gap + 1).min(train.left);
        let (last, mut before) = ((train.left - 1) * train.gap, self.load.in_flight);
        let mut peak = new(self.takes - 1);
        for (at, count) in &self.running {
            let after = at.saturating_sub(train.at + 1).min(self.takes - 1);
            peak = peak.max(before + new(after));
            if after >= last {
                // All have come, from now on it only falls.
                break;
            }
            before -= count;
        }
        peak
    }

    /// A stretch passes.
    fn flow(&mut self, train: &mut Train, stretch: &Stretch) {
        let length = stretch.until - self.now;
        // The policy is told of the most that is under way, at both ends.
        if length > 0 {
            self.policy.observe(self.at, self.load);
            self.ask(Load { in_flight: stretch.peak, ..self.load });
        }
        let level = self.ride(train, stretch.until, stretch.calls);
        self.at = self.rules.origin + Duration::from_micros(self.now);
        self.tally.requests += stretch.calls;
        self.tally.waits.add(0, stretch.calls);
        train.at += stretch.calls * train.gap;
        train.left -= stretch.calls;
        match length {
            0 => self.policy.observe(self.at, self.load),
            _ => self.policy.observe_level(self.at, level, self.load),
        }
        let most = stretch.peak.min(self.load.in_flight + 1);
        self.ask(Load { in_flight: most, ..self.load });
        self.due = self.next((0.0, most as f64));
    }

    /// So many calls of a train come until `until`, and are served at once: counts are reckoned.
    /// -> how many were under way on average
    fn ride(&mut self, train: &Train, until: u64, calls: u64) -> f64 {
        let (from, gap) = (self.now, train.gap);
        let length = until - from;
        // Request-time until the end: of those before, of those who end within, of those who do not.
        let (mut before, mut ended) = (0, 0);
        while let Some((at, count)) = self.running.front().copied().filter(|(at, _)| *at <= until) {
            before += (at - from) * count;
            ended += count;
            self.running.pop_front();
        }
        self.load.in_flight -= ended;
        before += self.load.in_flight * length;
        let unfinished = if length < self.takes {
            0
        } else {
            // The first call that comes later than `until - takes`.
            ((length - self.takes) / gap + 1).min(calls)
        };
        let open = calls - unfinished;
        let newest = length - (calls - 1) * gap;
        let of_open = open * newest + gap * (open * open.saturating_sub(1) / 2);
        let work = before + unfinished * self.takes + of_open;
        let mut average = 0.0;
        if length > 0 {
            let level = work as f64 / length as f64;
            let per_instance = self.policy.per_instance() as f64;
            let busy = match (self.policy.per_instance(), level) {
                (1, _) => level,
                (_, level) if level < 1.0 => level,
                _ => (level / per_instance).ceil(),
            };
            let have = self.have();
            self.busy += length as f64 * busy;
            self.alive += length as f64 * (f64::from(have.starting) + f64::from(have.ready).max(busy));
            average = level;
        }
        self.now = until;
        self.remember(train, unfinished, calls);
        self.load.in_flight += open;
        self.load.sent += calls;
        average
    }

    /// Calls `from..until` of a train are under way.
    fn remember(&mut self, train: &Train, from: u64, until: u64) {
        let group = (until - from).div_ceil(GROUPS).max(1);
        let mut first = from;
        while first < until {
            let count = group.min(until - first);
            // A group ends when the middle of it does.
            let end = train.at + (2 * first + count - 1) * train.gap / 2 + self.takes;
            self.running.push_back((end, count));
            first += count;
        }
    }
}

fn poll(ticket: &mut Ticket<u64>) -> Poll<Result<u64, crate::fault::Kind>> {
    Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
}
