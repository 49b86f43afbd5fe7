//! The access log: one line for each exchange, in Envoy's format language.
//!
//! A line is rendered at the end of its exchange into a buffer of its worker; full or 50 ms old buffers go
//! over a bounded queue to the one thread that writes. When the queue is full, lines are dropped and
//! counted: a slow disk or a stopped reader never slows an exchange.

mod escape;
mod format;
mod operator;
mod render;
mod secure;
mod sink;
#[cfg(test)]
mod tests;
mod time;

pub use format::{Encoding, Format, FormatError};
pub use sink::{Sink, Target};
pub use time::Epoch;

pub(super) use sink::{Batch, Sinks};

use super::audit;
use crate::clock::Duration;
use crate::record::Record;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// A worker hands its lines over when it has this many bytes of them…
const FULL: usize = 16 * 1024;
/// …or when the oldest is this old.
const STALE: Duration = Duration::from_millis(50);

/// A moment since 1970, as JSON logs write it.
pub(super) fn iso_millis(since_1970: Duration) -> String {
    let mut out = Vec::with_capacity(24);
    time::TimeFormat::iso_millis().write(since_1970, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// A format and where its lines go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Arc<Format>,
    sink: Arc<Sink>,
}

impl AccessLog {
    pub(super) fn new(format: Format, sink: Arc<Sink>) -> AccessLog {
        AccessLog { format: Arc::new(format), sink }
    }

    /// What a line looks like, and which headers it needs.
    pub fn format(&self) -> &Format {
        &self.format
    }
}

/// What one worker has of its own for telling: its number and the lines it has not handed over yet.
/// Clones share the lines; the last one to go hands them over.
#[derive(Clone, Debug)]
pub struct Worker {
    index: usize,
    epoch: Epoch,
    lines: Rc<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    pending: RefCell<Pending>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    sink: Option<Arc<Sink>>,
    batch: Batch,
}

impl Pending {
    fn hand_over(&mut self) {
        if let Some(sink) = &self.sink {
            sink.push(&mut self.batch);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.hand_over();
    }
}

impl Worker {
    pub(super) fn new(index: usize, epoch: Epoch) -> Worker {
        Worker { index, epoch, lines: Rc::default() }
    }

    /// The worker's number, for `Series::observe`.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Appends the line of a closed record. Never blocks.
    pub fn log(&self, log: &AccessLog, record: &Record) {
        self.append(&log.sink, |out| log.format.write(record, self.epoch, out));
    }

    /// Appends a line of the audit stream. Never blocks.
    pub fn audit(&self, sink: &Arc<Sink>, event: &str, facts: Map<String, Value>) {
        self.append(sink, |out| audit::line(out, event, facts));
    }

    #[inline]
    fn append(&self, sink: &Arc<Sink>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.lines.pending.borrow_mut();
        if !pending.sink.as_ref().is_some_and(|own| Arc::ptr_eq(own, sink)) {
            pending.hand_over();
            pending.sink = Some(sink.clone());
        }
        let first = pending.batch.bytes.is_empty();
        write(&mut pending.batch.bytes);
        pending.batch.lines += 1;
        if pending.batch.bytes.len() >= FULL {
            pending.hand_over();
        } else if first {
            self.lines.begun.notify_one();
        }
    }

    /// Hands over what is there.
    pub fn flush(&self) {
        self.lines.pending.borrow_mut().hand_over();
    }

    /// Hands lines over before they are stale; to be run beside the worker's connections. Never ends, and
    /// sleeps while nothing is logged.
    pub async fn keep_flushing(self) {
        loop {
            self.lines.begun.notified().await;
            tokio::time::sleep(STALE).await;
            self.flush();
        }
    }
}
