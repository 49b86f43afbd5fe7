//! The audit stream: who was refused, what AUDIT and dry-run policies say, what changed. One JSON object a line.
//!
//! Lines take the way of access log lines: a worker's buffer, a bounded queue, the thread that writes. What finds the
//! queue full is dropped and counted.

use super::access_log::{Batch, Sink, Sinks, Target, iso_millis};
use crate::clock;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value};
use std::io;
use std::sync::{Arc, OnceLock};

/// Where the stream goes, if anywhere.
#[derive(Debug)]
pub struct Audit {
    files: Sinks,
    sink: OnceLock<Arc<Sink>>,
    /// Of events of the process itself, which no worker tells.
    own: Mutex<()>,
}

impl Audit {
    /// Goes nowhere yet; `dropped` counts lines that are not written to a file of its own.
    pub(super) fn new(dropped: Counter) -> Audit {
        Audit { files: Sinks::new(dropped), sink: OnceLock::new(), own: Mutex::new(()) }
    }

    /// From now on it goes to `target`. Standard streams share the writer of access logs, so that lines stay whole.
    pub(super) fn open(&self, target: Target, shared: &Sinks) -> io::Result<()> {
        let sink = match target {
            Target::File(_) => self.files.open(target)?,
            Target::Stdout | Target::Stderr => shared.open(target)?,
        };
        // The first one holds.
        let _ = self.sink.set(sink);
        Ok(())
    }

    /// Where lines go; `None`: nobody wants them.
    #[inline]
    pub fn sink(&self) -> Option<&Arc<Sink>> {
        self.sink.get()
    }

    /// Tells an event of the process itself: a reload, a change by the admin API.
    pub fn tell(&self, event: &str, facts: Map<String, Value>) {
        let Some(sink) = self.sink() else { return };
        let mut batch = Batch::default();
        line(&mut batch.bytes, event, facts);
        batch.lines = 1;
        let _in_order = self.own.lock();
        sink.push(&mut batch);
    }

    pub(super) fn flush(&self, deadline: clock::Instant) {
        self.files.flush(deadline);
    }
}

/// Appends one line.
pub(super) fn line(out: &mut Vec<u8>, event: &str, facts: Map<String, Value>) {
    let since = clock::wall().duration_since(clock::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut all = Map::new();
    all.insert("time".to_owned(), iso_millis(since).into());
    all.insert("event".to_owned(), event.into());
    all.extend(facts);
    // Writing to a vector cannot fail, and there are no keys but texts.
    let _ = serde_json::to_writer(&mut *out, &Value::Object(all));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_is_in_it() {
        let mut out = Vec::new();
        let mut facts = Map::new();
        facts.insert("path".to_owned(), "/a\n{\"event\":\"x\"}".into());
        line(&mut out, "denied", facts);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&read["event"], &read["path"]), (&"denied".into(), &"/a\n{\"event\":\"x\"}".into()));
        assert!(read["time"].as_str().unwrap().ends_with('Z'));
    }
}
