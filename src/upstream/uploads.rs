//! Request bodies that are waited for, looked at once a second: one of which no byte comes for too long is given up, so
//! that a silent client does not hold a slot for ever.
//!
//! Only bodies are here that look like one message: of HTTP/1, or with a length, and not gRPC's, whose streams may be
//! silent for as long as they like. Once the answer has begun nothing is given up either: the client may be waiting
//! for it. A body that its upstream does not ask for is not waited for.

use super::body::Source;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The bodies that one worker waits for.
#[derive(Debug, Default)]
pub struct Uploads {
    waiting: RefCell<Vec<Upload>>,
}

#[derive(Debug)]
struct Upload {
    source: Rc<RefCell<Source>>,
    bytes: u64,
    /// Since when there were no more.
    since: Option<Instant>,
}

impl Uploads {
    /// Looks at `source`, of which `bytes` have come, from now on, until it has ended or its answer has begun.
    pub(super) fn add(&self, source: Rc<RefCell<Source>>, bytes: u64) {
        self.waiting.borrow_mut().push(Upload { source, bytes, since: None });
    }

    /// How many are looked at.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// One look at all: those silent for `patience` break off.
    pub fn sweep(&self, now: Instant, patience: Duration) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain_mut(|upload| {
            // Nobody else holds it: the exchange has ended.
            if Rc::strong_count(&upload.source) == 1 {
                return false;
            }
            let mut source = upload.source.borrow_mut();
            if source.is_over() {
                return false;
            }
            let bytes = source.bytes();
            if !source.is_waited_for() || bytes != upload.bytes {
                (upload.bytes, upload.since) = (bytes, None);
                return true;
            }
            let since = *upload.since.get_or_insert(now);
            if now.saturating_duration_since(since) < patience {
                return true;
            }
            source.stall();
            false
        });
    }
}
