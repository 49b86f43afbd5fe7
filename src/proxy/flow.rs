//! How the exchanges of one client connection move, and how many of them were meant.
//!
//! A request that its client resets has cost the proxy and the destination what any other costs, and the client nothing.
//! Here that is only counted: the connection's task ends a client that goes too far.

use crate::fault::Kind;
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// How the exchanges of one connection move: for the board to see whether they do, and for its task to see whether they
/// are meant.
#[derive(Debug, Default)]
pub struct Flow {
    /// Answers whose last part was given and which have not been asked for the next.
    pub offered: Cell<u32>,
    /// What came of the exchanges: parts of answers and of request bodies, beginnings, ends.
    pub parts: Rc<Cell<u32>>,
    /// How many more streams were reset before anything began for them than were not.
    pub unbegun: Cell<u32>,
    /// How many more streams were reset soon after they had begun, and before their answers, than were answered.
    pub cut: Cell<u32>,
    /// Why the connection is being ended, where it is for the client's doing.
    pub ending: Cell<Option<Kind>>,
}

impl Flow {
    /// A part of an answer was given, and there will be more.
    #[inline]
    pub(super) fn offer(&self) {
        self.offered.set(self.offered.get() + 1);
        self.move_on();
    }

    /// Something came of an exchange.
    #[inline]
    pub(super) fn move_on(&self) {
        self.parts.set(self.parts.get().wrapping_add(1));
    }

    /// An exchange has ended; whether its client `cut` it off.
    #[inline]
    pub(super) fn end(&self, cut: bool) {
        self.move_on();
        let so_far = self.cut.get();
        self.cut.set(if cut { so_far.saturating_add(1) } else { so_far.saturating_sub(1) });
    }

    /// An HTTP/2 exchange is about to begin; `doubtful`: its stream may have been reset by what came with its head.
    /// hyper looks at that only when it has been pending.
    #[inline]
    pub(super) async fn begin(&self, doubtful: bool) {
        if doubtful {
            let unbegun = Unbegun(self);
            yield_once().await;
            std::mem::forget(unbegun);
        }
        self.unbegun.set(self.unbegun.get().saturating_sub(1));
    }
}

/// Counts a stream for which nothing began.
struct Unbegun<'a>(&'a Flow);

impl Drop for Unbegun<'_> {
    fn drop(&mut self) {
        self.0.unbegun.set(self.0.unbegun.get().saturating_add(1));
    }
}

/// Is pending once, and woken at once.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
