//! The connections of one worker, looked at once a second: who has been idle or slow for too long, and who
//! is told to finish.
//!
//! One sweep instead of a timer for each connection: a request costs nothing here, and patience is exact to
//! a second.

use crate::clock;
use crate::fault::Kind;
use crate::proxy::{Connection, Local, unread};
use crate::record::{Direction, Protocol};
use crate::snapshot::Snapshot;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::{Duration, Instant};

/// For a request's head, from its first byte to its last.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// For a connection without a request: longer than any client's own patience with a pooled connection.
pub(super) const IDLE_PATIENCE: Duration = Duration::from_secs(3600);

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Go on.
    None,
    /// Finish what is in flight, take no more.
    Finish,
    /// End now.
    End,
}

/// One connection on the board.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Rc<Connection>,
    http2: bool,
    word: Cell<Word>,
    waker: RefCell<Option<Waker>>,
    /// Since when nothing is in flight.
    idle_since: Cell<Option<Instant>>,
    /// Since when a head has been under way.
    head_since: Cell<Option<Instant>>,
    /// When it is to be told to finish.
    finish_at: Cell<Option<Instant>>,
    /// When it ends, having been told to finish for want of trust.
    end_at: Cell<Option<Instant>>,
    /// Since when the client has taken nothing of what is ready for it, and how much it had taken before.
    stuck: Cell<Option<(Instant, u32, u32)>>,
}

impl Entry {
    /// What it is told now.
    #[inline]
    pub(super) fn word(&self) -> Word {
        self.word.get()
    }

    /// Whom to wake when there is something to tell.
    #[inline]
    pub(super) fn watch(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    fn tell(&self, word: Word) {
        if self.word.get() != Word::End {
            self.word.set(word);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// A connection that would be refused now finishes what it has, for as long as a drain may take.
    fn judge(&self, snapshot: &Snapshot, now: Instant) {
        match self.end_at.get() {
            None if self.connection.stands(snapshot, now).is_err() => {
                let drain = &self.connection.local.drain;
                self.end_at.set(Some(now + drain.time_left(now)));
                self.tell(Word::Finish);
            }
            Some(at) if now >= at => self.tell(Word::End),
            _ => {}
        }
    }

    /// What is spoken on it.
    pub(super) fn protocol(&self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Http11 }
    }

    /// Whether something has been ready for the client for so long without its taking any of it. Parts of
    /// answers wait where HTTP/2 windows are shut, or behind a socket that is full.
    fn is_stuck(&self, now: Instant, patience: Duration) -> bool {
        let (flow, line) = (&self.connection.flow, &self.connection.line);
        if flow.offered.get() == 0 && line.blocked.load(Relaxed) == 0 {
            self.stuck.set(None);
            return false;
        }
        let (parts, writes) = (flow.parts.get(), line.writes.load(Relaxed));
        match self.stuck.get() {
            // HTTP/2 writes answers to pings, too: there only parts count, unless the socket itself is full.
            Some((since, p, w)) if p == parts && (w == writes || flow.offered.get() > 0) => {
                now.saturating_duration_since(since) >= patience
            }
            _ => {
                self.stuck.set(Some((now, parts, writes)));
                false
            }
        }
    }

    fn sweep(&self, now: Instant, patience: Option<Duration>) {
        if patience.is_some_and(|patience| self.is_stuck(now, patience)) {
            self.connection.flow.ending.set(Some(Kind::ResponseStalled));
            if self.connection.busy.get() == 0 {
                // The answer went into buffers whole, and its record is closed.
                unread(&self.connection, self.protocol(), Kind::ResponseStalled.into());
            }
            self.tell(Word::End);
            return;
        }
        if self.finish_at.get().is_some_and(|at| now >= at) {
            self.finish_at.set(None);
            self.tell(Word::Finish);
        }
        let connection = &*self.connection;
        if connection.busy.get() > 0 {
            self.idle_since.set(None);
            self.head_since.set(None);
            return;
        }
        let idle_since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(idle_since));
        // HTTP/2 has pings and windows to say between requests; hyper bounds its heads.
        let under_way = !self.http2 && connection.line.reads.load(Relaxed) != connection.reads_served.get();
        if !under_way {
            self.head_since.set(None);
            if now.saturating_duration_since(idle_since) >= IDLE_PATIENCE {
                self.tell(Word::Finish);
            }
            return;
        }
        let head_since = self.head_since.get().unwrap_or(now);
        self.head_since.set(Some(head_since));
        if now.saturating_duration_since(head_since) >= HEAD_PATIENCE {
            unread(connection, self.protocol(), Kind::HeadStalled.into());
            self.tell(Word::End);
        }
    }
}

/// All connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: RefCell<Vec<Rc<Entry>>>,
}

impl Board {
    /// Puts a connection up; take it down with [`Board::remove`].
    pub(super) fn add(&self, connection: Rc<Connection>, http2: bool) -> Rc<Entry> {
        // Who comes while the process closes is told to go like those who were there.
        let local = &connection.local;
        let late = connection.direction != Direction::Outbound && local.drain.is_closing();
        let finish_at = late.then(|| clock::now() + local.drain.stagger(local.rng.borrow_mut().u64(..)));
        let entry = Rc::new(Entry {
            connection,
            http2,
            word: Cell::new(Word::None),
            waker: RefCell::new(None),
            idle_since: Cell::new(None),
            head_since: Cell::new(None),
            finish_at: Cell::new(finish_at),
            end_at: Cell::new(None),
            stuck: Cell::new(None),
        });
        self.entries.borrow_mut().push(entry.clone());
        entry
    }

    /// Takes a connection down.
    pub(super) fn remove(&self, entry: &Rc<Entry>) {
        let mut entries = self.entries.borrow_mut();
        if let Some(at) = entries.iter().position(|e| Rc::ptr_eq(e, entry)) {
            entries.swap_remove(at);
        }
    }

    /// One look at everyone.
    pub(super) fn sweep(&self, now: Instant, patience: Option<Duration>, snapshot: &Snapshot) {
        // Waking runs no code of a connection, so the list cannot change under the loop.
        self.entries.borrow().iter().for_each(|entry| {
            entry.judge(snapshot, now);
            entry.sweep(now, patience);
        });
    }

    /// A listener is gone: its connections finish.
    pub(super) fn finish_listener(&self, number: usize) {
        for entry in self.entries.borrow().iter().filter(|e| e.connection.listener == number) {
            entry.tell(Word::Finish);
        }
    }

    /// The process ends: connections of front listeners finish, spread over time so that their clients do
    /// not all come back elsewhere at once.
    pub(super) fn finish_front(&self, now: Instant, local: &Local) {
        for entry in self.entries.borrow().iter() {
            if entry.connection.direction != Direction::Outbound {
                let pause = local.drain.stagger(local.rng.borrow_mut().u64(..));
                entry.finish_at.set(Some(now + pause));
                if pause < super::SWEEP {
                    entry.finish_at.set(None);
                    entry.tell(Word::Finish);
                }
            }
        }
    }
}
