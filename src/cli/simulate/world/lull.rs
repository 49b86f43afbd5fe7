//! A lull: a stretch of a trace in which no policy finds anything to do, passed by without asking it each time.
//!
//! The policy itself says how much may come before it has to be asked again (`Policy::quiet`). As long as no more
//! comes, calls and their ends are counted here, one after the other; at the end of the lull the policy is told
//! what it would have measured and wanted. That is what it would know had it been asked at each call: a test
//! holds both ways against each other. It never decides anything.

use super::super::moments::Train;
use super::super::policy::Lull;
use super::World;
use crate::autoscaler::Load;
use crate::clock::{Duration, Instant};

/// Something that the policy would have been told.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: u64,
    /// How many were under way on average since the event before, if it is not what was under way after that.
    level: Option<f64>,
    load: Load,
}

/// Events of a lull that the policy may still have to be told.
#[derive(Debug, Default)]
pub(super) struct Log {
    events: Vec<Event>,
    /// So many trains more before another lull is looked for.
    wait: u32,
    /// The same, next time.
    patience: u32,
}

/// Lulls are looked for rarely where they end soon.
const PATIENCE: u32 = 15;
/// One of fewer trains is short.
const SHORT: usize = 4;
/// Events are thinned out when there are so many.
const EVENTS: usize = 1024;
/// A train as long as this or longer is no part of a lull.
const TRAIN: u64 = 10_000_000;
/// Until the autoscaler's window may be empty there is this much time at least.
const REST: u64 = 3_000_000;
/// The same, while a train passes.
const LONG_REST: u64 = 20_000_000;

/// A lull on its way.
struct Course {
    /// As many may be under way.
    high: u64,
    /// See `Work`.
    work: Option<Work>,
    /// When fewer are kept.
    fall: u64,
    /// What is wanted then puts it off.
    kept: u64,
    /// How long.
    horizon: u64,
    /// Longer silence is looked at.
    silence: u64,
    /// When it began.
    began: u64,
    /// How long what was measured matters, if anything is.
    memory: Option<u64>,
    /// What was wanted last, and not told: when, how many.
    wanted: (u64, u64),
    /// What the last event leaves for the next look: the highest number under way.
    most: Option<u64>,
    calls: u64,
}

/// So many calls may come within a time.
struct Work {
    within: u64,
    calls: usize,
    /// As long as what was before the lull counts.
    first: usize,
}

impl World<'_> {
    /// Trains that pass in a lull, the first of which comes now. 0: it must be asked.
    pub(super) fn lull(&mut self, trains: &[Train]) -> usize {
        if self.log.wait > 0 {
            self.log.wait -= 1;
            return 0;
        }
        let calm = self.load.queued == 0 && self.starting.is_empty() && self.ready > 0;
        let soon = trains.get(SHORT - 1).is_some_and(|train| train.at < self.now + 60_000_000);
        if !calm || !soon || !self.rules.lulls {
            return 0;
        }
        let passed = match self.policy.quiet(self.at, self.load.in_flight, self.have()) {
            Some(lull) => self.course(&lull).map_or(0, |course| self.follow(course, trains)),
            None => 0,
        };
        self.log.patience = if passed < SHORT { (2 * self.log.patience + 1).min(PATIENCE) } else { 0 };
        self.log.wait = self.log.patience;
        passed
    }

    fn course(&self, lull: &Lull) -> Option<Course> {
        let whole = |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX / 4);
        let memory = self.policy.memory().map(whole);
        let work = match lull.work {
            None => None,
            Some((all, first, span)) => {
                // Else the policy looks while a call is under way.
                if lull.fall.is_some() && self.takes >= 1_000_000 {
                    return None;
                }
                let each = self.takes.min(whole(span));
                let calls = |work: u64| usize::try_from(work / each).unwrap_or(usize::MAX);
                // What is under way adds to what was before.
                let first = first.saturating_sub(self.load.in_flight * each);
                // Whatever is within a span came within this time before its end.
                let within = whole(span) + self.takes;
                Some(Work { within, calls: calls(all), first: calls(first) })
            }
        };
        Some(Course {
            high: lull.high.min(self.capacity()),
            work,
            fall: lull.fall.map_or(u64::MAX, |at| self.micros(at)),
            kept: self.ready.into(),
            horizon: whole(self.policy.horizon()),
            // Of the autoscaler's window, of which `memory` is three seconds more.
            silence: match (lull.fall, memory) {
                (None, Some(memory)) => memory - 2 * REST,
                _ => u64::MAX / 4,
            },
            began: self.now,
            memory,
            wanted: (0, 0),
            most: None,
            calls: 0,
        })
    }

    fn follow(&mut self, mut course: Course, trains: &[Train]) -> usize {
        let mut passed = 0;
        for (number, train) in trains.iter().enumerate() {
            if !self.ends_until(&mut course, train.at) {
                break;
            }
            let silent = self.load.in_flight == 0 && train.at - self.now > course.silence;
            if train.at >= course.fall || silent || !course.takes_work(trains, number) {
                break;
            }
            let goes = if train.left == 1 {
                self.single(&mut course, train)
            } else {
                self.whole(&mut course, train)
            };
            if !goes {
                break;
            }
            passed += 1;
            if self.log.events.len() >= EVENTS {
                self.thin_out(&course);
            }
        }
        if passed > 0 {
            self.arrive_at(&course);
        }
        passed
    }

    /// What ends until a moment. False: not all of it may without a look.
    fn ends_until(&mut self, course: &mut Course, until: u64) -> bool {
        while let Some((at, count)) = self.running.front().copied().filter(|(at, _)| *at <= until) {
            if at >= course.fall {
                return false;
            }
            self.drift(at);
            self.wants(course, at, self.load.in_flight);
            self.running.pop_front();
            self.load.in_flight -= count;
            self.tells(course, at, None);
            course.most = None;
        }
        true
    }

    /// One call comes.
    fn single(&mut self, course: &mut Course, train: &Train) -> bool {
        if self.load.in_flight >= course.high {
            return false;
        }
        self.drift(train.at);
        self.load.in_flight += 1;
        self.load.sent += 1;
        course.calls += 1;
        self.running.push_back((train.at + self.takes, 1));
        self.tells(course, train.at, None);
        self.wants(course, train.at, self.load.in_flight);
        course.most = Some(self.load.in_flight);
        true
    }

    /// A train passes as a whole.
    fn whole(&mut self, course: &mut Course, train: &Train) -> bool {
        let (from, until) = (train.at, train.at + (train.left - 1) * train.gap);
        let peak = self.peak_of(train);
        if course.work.is_some() || peak > course.high || until >= course.fall || until - from >= TRAIN {
            return false;
        }
        if course.silence < u64::MAX / 4 && from > course.began + TRAIN && !self.was_busy(course, from) {
            return false;
        }
        self.drift(from);
        self.tells(course, from, None);
        self.wants(course, from, peak);
        let level = self.ride(train, until, train.left);
        course.calls += train.left;
        self.tells(course, until, Some(level));
        let most = peak.min(self.load.in_flight + 1);
        self.wants(course, until, most);
        course.most = Some(most);
        true
    }

    /// Whether the autoscaler's window will have something in it for so long that a train can pass.
    fn was_busy(&self, course: &Course, now: u64) -> bool {
        let second = |at: u64| at / 1_000_000;
        let events = &self.log.events;
        let young = |at: u64| now - at + LONG_REST < course.silence;
        events.windows(2).rev().take_while(|pair| young(pair[0].at)).any(|pair| {
            let level = pair[1].level.unwrap_or(pair[0].load.in_flight as f64);
            // That of a second which is over is known.
            level > 0.0 && second(pair[0].at) < second(now)
        })
    }

    /// Time passes without events.
    fn drift(&mut self, until: u64) {
        let length = (until - self.now) as f64;
        self.busy += length * self.answering(self.load.in_flight) as f64;
        self.alive += length * f64::from(self.ready);
        self.now = until;
    }

    /// The policy will be told how things stand now.
    fn tells(&mut self, course: &Course, at: u64, level: Option<f64>) {
        if course.memory.is_some() {
            self.log.events.push(Event { at, level, load: self.load });
        }
    }

    /// The policy will be told that so many under way were wanted to be served.
    fn wants(&mut self, course: &mut Course, at: u64, in_flight: u64) {
        if course.fall == u64::MAX || in_flight == 0 {
            return;
        }
        let wanted = self.answering(in_flight);
        if wanted >= course.kept {
            course.fall = at + course.horizon;
        }
        let (before, last) = std::mem::replace(&mut course.wanted, (at, wanted));
        // The later of two that are the same takes the place of the other.
        if last != wanted && last > 0 {
            self.policy.want(self.instant(before), u32::try_from(last).unwrap_or(u32::MAX));
        }
    }

    fn instant(&self, micros: u64) -> Instant {
        self.rules.origin + Duration::from_micros(micros)
    }

    /// Events that are too old to matter are forgotten.
    fn thin_out(&mut self, course: &Course) {
        let oldest = self.now.saturating_sub(course.memory.unwrap_or(0));
        // The last of them is where the others begin.
        let old = self.log.events.partition_point(|event| event.at < oldest);
        self.log.events.drain(..old.saturating_sub(1));
    }

    /// The lull is over: the policy is told.
    fn arrive_at(&mut self, course: &Course) {
        self.at = self.instant(self.now);
        self.tally.requests += course.calls;
        self.tally.waits.add(0, course.calls);
        if let (at, wanted @ 1..) = course.wanted {
            self.policy.want(self.instant(at), u32::try_from(wanted).unwrap_or(u32::MAX));
        }
        let events = std::mem::take(&mut self.log.events);
        let oldest = self.now.saturating_sub(course.memory.unwrap_or(0));
        let old = events.partition_point(|event| event.at < oldest);
        if let Some(last) = old.checked_sub(1) {
            self.policy.resume(self.instant(events[last].at), events[last].load);
        }
        for event in &events[old..] {
            match event.level {
                Some(level) => self.policy.observe_level(self.instant(event.at), level, event.load),
                None => self.policy.observe(self.instant(event.at), event.load),
            }
        }
        self.log.events = events;
        self.log.events.clear();
        self.policy.wake(self.at);
        let level = self.load.in_flight as f64;
        self.due = self.next(course.most.map_or((level, level), |most| (0.0, most as f64)));
    }
}

impl Course {
    /// Whether the work of this train is within what may come.
    fn takes_work(&self, trains: &[Train], number: usize) -> bool {
        let Some(work) = &self.work else { return true };
        let at = trains[number].at;
        let calls = if at > self.began + work.within + 1_000_000 { work.calls } else { work.first };
        calls > 0 && (number < calls || trains[number - calls].at + work.within < at)
    }
}
