//! The wakings of an upstream connection's task, without those that are in vain.
//!
//! Who takes a part of an answer's body wakes the task that brought it, so that it brings the next; hyper does so
//! after the last part, too. Then the task has nothing to do, and an exchange would pay for one more run of it.
//!
//! And what the socket learns from exchanges: how much may come before an answer begins.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

/// Stands between a connection and its task. One thread uses it; it is atomic only because wakers can be sent.
#[derive(Debug)]
pub(super) struct Nudge {
    task: OnceLock<Waker>,
    hushed: AtomicBool,
    /// A waking that came while it was hushed.
    missed: AtomicBool,
    /// Bytes that may still come before the head of an answer, informational ones included; [`ALL`]: it has come.
    before_head: AtomicU32,
}

impl Default for Nudge {
    fn default() -> Nudge {
        Nudge {
            task: OnceLock::new(),
            hushed: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            before_head: AtomicU32::new(ALL),
        }
    }
}

/// No bound.
const ALL: u32 = u32::MAX;
/// Of informational answers to one request, with the answer's own head and what comes along with it.
const MAX_BEFORE_HEAD: u32 = 1 << 20;

impl Nudge {
    /// Whom wakings are passed on to: a task, whose waker never changes.
    #[inline]
    pub(super) fn tell(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// Keeps wakings back until the result is dropped.
    #[inline]
    pub(super) fn hush(&self) -> Hush<'_> {
        self.hushed.store(true, Relaxed);
        Hush(self)
    }

    /// A request goes up, or the head of its answer has come.
    #[inline]
    pub(super) fn await_head(&self, awaited: bool) {
        self.before_head.store(if awaited { MAX_BEFORE_HEAD } else { ALL }, Relaxed);
    }

    /// Whether an answer is awaited of which nothing has come.
    pub(super) fn awaits_all(&self) -> bool {
        self.before_head.load(Relaxed) == MAX_BEFORE_HEAD
    }

    /// Whether too much has come before an answer's head.
    #[inline]
    pub(super) fn is_flooded(&self) -> bool {
        self.before_head.load(Relaxed) == 0
    }

    /// So many bytes more have come.
    #[inline]
    pub(super) fn came(&self, bytes: usize) {
        let left = self.before_head.load(Relaxed);
        if left != ALL {
            self.before_head.store(left.saturating_sub(u32::try_from(bytes).unwrap_or(ALL)), Relaxed);
        }
    }

    #[inline]
    fn pass_on(&self) {
        if self.hushed.load(Relaxed) {
            self.missed.store(true, Relaxed);
        } else if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.pass_on();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.pass_on();
    }
}

/// While it lives wakings are kept back.
#[derive(Debug)]
pub struct Hush<'a>(&'a Nudge);

impl Hush<'_> {
    /// What was kept back is forgotten: the connection has nothing to do.
    #[inline]
    pub fn forget(self) {
        self.0.missed.store(false, Relaxed);
    }
}

impl Drop for Hush<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.hushed.store(false, Relaxed);
        if self.0.missed.load(Relaxed) {
            self.0.missed.store(false, Relaxed);
            self.0.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn wakings_are_passed_on_at_once_or_after_the_hush_unless_they_are_in_vain() {
        let (count, nudge) = (Arc::new(Count::default()), Arc::new(Nudge::default()));
        nudge.tell(&Waker::from(count.clone()));
        let waker = Waker::from(nudge.clone());
        let check = |wanted| assert_eq!(count.0.load(Relaxed), wanted);
        waker.wake_by_ref();
        check(1);
        let hush = nudge.hush();
        waker.wake_by_ref();
        waker.wake_by_ref();
        check(1);
        drop(hush);
        check(2);
        drop(nudge.hush());
        check(2);
        let hush = nudge.hush();
        waker.wake_by_ref();
        hush.forget();
        check(2);
        waker.wake();
        check(3);
    }
}
