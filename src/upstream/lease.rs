//! A connection lent to one exchange, and what its failures mean.

use super::RequestBody;
use super::connect::Open;
use super::h2::Stream;
use super::nudge::Hush;
use super::pool::Key;
use super::wire::is_flood;
use crate::fault::{Fault, Kind};
use futures_util::future::Either;
use http::{Request, Response, request};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use std::error::Error as _;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

/// An HTTP/1 connection in use by one exchange.
#[derive(Debug)]
pub struct Lease1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) open: Rc<Open>,
    pub(super) fd: RawFd,
    pub(super) local: Option<SocketAddr>,
    pub(super) served: u32,
    pub(super) born: Instant,
    pub(super) reused: bool,
    pub(super) key: Key,
}

/// A connection, or a stream on one, for one exchange. Dropping it ends what is under way on it.
#[derive(Debug)]
pub enum Lease {
    /// The whole connection.
    Http1(Lease1),
    /// One stream.
    Http2(Stream),
}

/// Why there is no response.
#[derive(Debug)]
pub struct SendError {
    /// What happened.
    pub fault: Fault,
    /// The request, if nothing of it was written.
    pub unsent: Option<Request<RequestBody>>,
}

impl Lease {
    /// Whether the connection has carried an exchange before: only then may an early end be a stale connection.
    pub fn reused(&self) -> bool {
        match self {
            Lease::Http1(lease) => lease.reused,
            Lease::Http2(stream) => stream.reused(),
        }
    }

    /// Our end's address.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Lease::Http1(lease) => lease.local,
            Lease::Http2(stream) => stream.local(),
        }
    }

    /// Keeps the connection's task from running for what the result's holder does.
    #[inline]
    pub fn hush(&self) -> Option<Hush<'_>> {
        match self {
            Lease::Http1(lease) => Some(lease.open.nudge.hush()),
            Lease::Http2(_) => None,
        }
    }

    /// Whether it takes a request at once. One that has just been given back may have a last step to do.
    #[inline]
    pub fn is_ready(&self) -> bool {
        match self {
            Lease::Http1(lease) => lease.sender.is_ready(),
            Lease::Http2(_) => true,
        }
    }

    /// Waits until it takes a request.
    ///
    /// # Errors
    /// It ended instead.
    pub async fn ready(&mut self) -> Result<(), Fault> {
        match self {
            Lease::Http1(lease) => lease.sender.ready().await.map_err(|e| Fault::because(Kind::NotSent, e)),
            Lease::Http2(_) => Ok(()),
        }
    }

    /// The response's head has come: what comes next is as long as it likes.
    #[inline]
    pub fn head_came(&self) {
        if let Lease::Http1(lease) = self {
            lease.open.nudge.await_head(false);
        }
    }

    /// Keeps the head that is sent next, in case it is to be sent again. False: this connection cannot.
    #[inline]
    pub fn keep_head(&self) -> bool {
        match self {
            Lease::Http1(lease) => {
                lease.open.sent.want();
                true
            }
            Lease::Http2(_) => false,
        }
    }

    /// The head that was to be kept, if it has gone up.
    pub fn sent_head(&self) -> Option<request::Parts> {
        match self {
            Lease::Http1(lease) => lease.open.sent.head(),
            Lease::Http2(_) => None,
        }
    }

    /// Sends the request, at once; the future waits for the response's head. Its error becomes a [`SendError`].
    #[inline]
    pub fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        match self {
            Lease::Http1(lease) => {
                lease.open.nudge.await_head(true);
                Either::Left(lease.sender.try_send_request(request))
            }
            Lease::Http2(stream) => Either::Right(stream.send(request)),
        }
    }
}

impl From<TrySendError<Request<RequestBody>>> for SendError {
    #[cold]
    fn from(mut error: TrySendError<Request<RequestBody>>) -> SendError {
        if let Some(request) = error.take_message() {
            return SendError { fault: Fault::because(Kind::NotSent, error.error()), unsent: Some(request) };
        }
        let error = error.into_error();
        SendError { fault: Fault::because(kind_of(&error), full(&error)), unsent: None }
    }
}

/// What an error before the response's head means.
fn kind_of(error: &hyper::Error) -> Kind {
    if error.is_user() {
        // The only thing of ours that can fail here is the request's body.
        return Kind::RequestCut;
    }
    if error.is_parse() {
        return Kind::BadResponse;
    }
    let source = error.source();
    if source.and_then(|e| e.downcast_ref::<std::io::Error>()).is_some_and(is_flood) {
        return Kind::BadResponse;
    }
    let Some(h2) = source.and_then(|e| e.downcast_ref::<h2::Error>()) else {
        return Kind::Disconnected;
    };
    match h2.reason() {
        None if h2.get_io().is_some_and(is_flood) => Kind::BadResponse,
        Some(h2::Reason::REFUSED_STREAM) => Kind::StreamRefused,
        // Streams above GOAWAY's last id were not looked at; those below it end otherwise.
        Some(h2::Reason::NO_ERROR) if h2.is_go_away() && h2.is_remote() => Kind::StreamRefused,
        Some(h2::Reason::PROTOCOL_ERROR) if !h2.is_remote() => Kind::BadResponse,
        _ if h2.is_io() => Kind::Disconnected,
        _ => Kind::StreamReset,
    }
}

/// How a client ended its HTTP/2 connection, if it was we who ended it for what it did.
pub fn broke_http2(error: &hyper::Error) -> Option<Kind> {
    let h2 = error.source()?.downcast_ref::<h2::Error>().filter(|error| !error.is_remote())?;
    match h2.reason()? {
        h2::Reason::NO_ERROR => None,
        h2::Reason::ENHANCE_YOUR_CALM => Some(Kind::Http2Flood),
        _ => Some(Kind::Http2Violation),
    }
}

/// The error with its causes, in one line.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
