//! The response body on its way down, and everything that lives as long as it does.
//!
//! Frames pass untouched. When the last one is gone the connection goes back to its pool, the slot is freed
//! and the record closes; when the client leaves first, all of that happens too, only without the pool.

use super::again::Trial;
use super::closing::Closing;
use super::deadline::Remaining;
use crate::clock;
use crate::cluster::{Permit, Slot};
use crate::fault::{Fault, Kind};
use crate::http::grpc;
use crate::http::headers::clean_trailers;
use crate::upstream::{Lease, Source};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// So many pauses make an answer one that lasts.
const LASTING: u8 = 2;

/// What an exchange holds while its answer is carried. Dropping it gives everything back.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Option<Lease>,
    /// The place at the endpoint, the request on its cluster's count, the retry in flight: held, not used.
    pub(super) _counted: (Option<Slot>, Option<Permit>, Option<Permit>),
    pub(super) source: Option<Rc<RefCell<Source>>>,
    /// The upstream's `Keep-Alive: timeout`.
    pub(super) keep_alive: Option<Duration>,
}

impl Held {
    /// The answer came whole: the connection may serve the next exchange, if the request went whole too.
    fn settle(&mut self, closing: &Closing, now: Instant) {
        let request_sent = self.source.as_ref().is_none_or(|s| s.borrow().received().is_some());
        if let (Some(lease), Some(target)) = (self.lease.take(), &closing.target)
            && let Some(destination) = &target.destination
            && request_sent
        {
            closing.local().pools.give_back(lease, &destination.cluster, now, self.keep_alive);
        }
    }
}

/// A response body.
#[derive(Debug)]
pub enum ResponseBody {
    /// Ours.
    Fixed {
        /// Not yet given.
        bytes: Option<Bytes>,
        /// Closes the record when given.
        closing: Option<Box<Closing>>,
    },
    /// The upstream's.
    Live(Box<Live>),
}

/// The upstream's body while it is carried.
#[derive(Debug)]
pub struct Live {
    incoming: Incoming,
    /// There from when the body is on its way.
    closing: Option<Box<Closing>>,
    held: Held,
    deadline: Option<Remaining>,
    /// A part was passed on after the deadline; only the end may follow.
    late: bool,
    finished: bool,
    /// The last part was given, and nobody has asked for the next.
    offered: bool,
    /// How often nothing was there yet.
    pauses: u8,
    /// From when it lasts.
    trial: Option<Box<Trial>>,
}

/// Why a body broke off; hyper then ends the connection or the stream.
#[derive(Debug)]
pub struct Cut(Kind);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.row().details)
    }
}

impl std::error::Error for Cut {}

impl ResponseBody {
    /// A body of ours.
    pub(super) fn fixed(bytes: Bytes, mut closing: Box<Closing>) -> ResponseBody {
        if bytes.is_empty() {
            closing.complete(clock::now());
            // The record stays open until hyper has taken the answer's head.
            return ResponseBody::Fixed { bytes: None, closing: Some(closing) };
        }
        ResponseBody::Fixed { bytes: Some(bytes), closing: Some(closing) }
    }

    /// The upstream's body.
    pub(super) fn live(mut live: Box<Live>, closing: Box<Closing>) -> ResponseBody {
        live.closing = Some(closing);
        if live.incoming.is_end_stream() {
            live.finish();
        }
        ResponseBody::Live(live)
    }
}

impl Live {
    /// The upstream's body, not yet on its way.
    #[inline(always)]
    pub(super) fn new(incoming: Incoming, held: Held, deadline: Option<Remaining>) -> Box<Live> {
        Box::new(Live {
            incoming,
            closing: None,
            held,
            deadline,
            late: false,
            finished: false,
            offered: false,
            pauses: 0,
            trial: None,
        })
    }

    /// The next frame. Once the last is here, its connection has nothing left to bring.
    #[inline]
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let hush = self.held.lease.as_ref().and_then(Lease::hush);
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if self.incoming.is_end_stream()
            && let Some(hush) = hush
        {
            hush.forget();
        }
        polled
    }

    /// Whether what came of it after its deadline comes too late: all but an end, and one part before that. The
    /// answer may have come whole in time, and only the turn to pass it on came late; its head is perhaps not
    /// written yet, and would go with it.
    #[cold]
    fn is_too_late(&mut self, polled: &Poll<Option<hyper::Result<Frame<Bytes>>>>) -> bool {
        match polled {
            Poll::Pending => true,
            Poll::Ready(Some(Ok(frame))) if frame.is_data() && !self.incoming.is_end_stream() => {
                std::mem::replace(&mut self.late, true)
            }
            Poll::Ready(_) => false,
        }
    }

    /// Whether policies of now would refuse it, and its time is over. Only what lasts is asked: what is short ends
    /// before anybody would have it.
    #[cold]
    fn is_refused(&mut self, cx: &mut Context<'_>) -> bool {
        self.pauses = self.pauses.saturating_add(1);
        let Some(closing) = &mut self.closing else { return false };
        if self.trial.is_none() && self.pauses < LASTING {
            return false;
        }
        self.trial.get_or_insert_with(|| Trial::new(closing)).poll(cx, closing).is_ready()
    }

    /// The last frame has come.
    fn finish(&mut self) {
        if !self.finished
            && let Some(closing) = &mut self.closing
        {
            self.finished = true;
            let now = closing.now();
            self.held.settle(closing, now);
            closing.complete(now);
        }
    }

    #[inline]
    fn taken(&mut self) {
        if std::mem::take(&mut self.offered)
            && let Some(closing) = &self.closing
        {
            closing.taken();
        }
    }

    fn cut(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.finished = true;
        self.held.lease = None;
        let kind = fault.kind;
        if let Some(closing) = &mut self.closing {
            let status = closing.record.status;
            closing.fail(fault);
            // The head went out with this status.
            closing.record.status = status;
            closing.complete(clock::now());
        }
        Poll::Ready(Some(Err(Cut(kind))))
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(closing) = &mut self.closing
            && closing.record.grpc
            && let Some(status) = grpc::status(trailers)
        {
            closing.record.grpc_status = Some(status);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.taken();
        // A body whose length is known is dropped, not polled, once its last byte is taken.
        if !self.finished && self.incoming.is_end_stream() {
            self.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let live = match self.get_mut() {
            ResponseBody::Fixed { bytes, closing } => {
                let bytes = bytes.take();
                if let (Some(bytes), Some(mut closing)) = (&bytes, closing.take()) {
                    closing.record.bytes_sent += bytes.len() as u64;
                    closing.complete(clock::now());
                }
                return Poll::Ready(bytes.map(|b| Ok(Frame::data(b))));
            }
            ResponseBody::Live(live) => live,
        };
        live.taken();
        if live.finished {
            return Poll::Ready(None);
        }
        let over = live.deadline.as_mut().is_some_and(|deadline| deadline.poll(cx).is_ready());
        let polled = live.next(cx);
        if over && live.is_too_late(&polled) {
            return live.cut(Kind::ResponseTimeout.into());
        }
        if (polled.is_pending() || live.trial.is_some()) && live.is_refused(cx) {
            return live.cut(Kind::TrustEnded.into());
        }
        match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    if let Some(closing) = &mut live.closing {
                        closing.record.bytes_sent += bytes.len() as u64;
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                    live.trailers(trailers);
                }
                if live.incoming.is_end_stream() {
                    live.finish();
                } else if let Some(closing) = &live.closing {
                    closing.offer();
                    live.offered = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => live.cut(Fault::because(Kind::ResponseCut, error)),
            None => {
                live.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Fixed { bytes, .. } => bytes.is_none(),
            ResponseBody::Live(live) => live.finished || live.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Fixed { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |d| d.len() as u64))
            }
            ResponseBody::Live(live) => live.incoming.size_hint(),
        }
    }
}
