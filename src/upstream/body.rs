//! The request body on its way up, shared by the tries of one exchange.
//!
//! The first try reads the client's body frame by frame; while a replay is still possible, frames are also
//! kept, up to a bound, so that a second try can begin anew. Past the bound, or once the response has begun,
//! nothing is kept. Nothing is read before a try asks for it: a held body stays in the client's socket.

use super::uploads::Uploads;
use crate::fault::Kind;
use crate::http::headers::clean_trailers;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Bytes kept for replay of one request, as Linkerd keeps them.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// The client's request body and what was kept of it.
#[derive(Debug)]
pub struct Source {
    live: Option<Incoming>,
    kept: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
    kept_bytes: usize,
    keeping: bool,
    /// Bytes that may be kept.
    most: usize,
    /// A frame went up that was not kept.
    lost: bool,
    /// Bytes that came from the client.
    bytes: u64,
    /// When the whole request was in.
    received: Option<Instant>,
    broken: Option<Kind>,
    /// Where it is looked at once its first byte has had to be waited for.
    uploads: Option<Rc<Uploads>>,
    /// The last read found nothing; who is to be woken if it is given up.
    reader: Option<Waker>,
    /// Counts what comes, for the connection it comes on.
    moved: Rc<Cell<u32>>,
    /// It is looked at.
    watched: bool,
    /// The answer has begun.
    answered: bool,
    /// Which try may read; older ones see an end.
    turn: u32,
    waker: Option<Waker>,
}

impl Source {
    /// A body not yet begun; `keep` while a replay may be wanted. `uploads` bounds how long it may be silent;
    /// `moved` counts what comes.
    pub fn new(
        live: Incoming,
        keep: bool,
        uploads: Option<Rc<Uploads>>,
        moved: Rc<Cell<u32>>,
    ) -> Rc<RefCell<Source>> {
        Rc::new(RefCell::new(Source {
            live: Some(live),
            kept: Vec::new(),
            trailers: None,
            kept_bytes: 0,
            keeping: keep,
            most: REPLAY_LIMIT,
            lost: false,
            bytes: 0,
            received: None,
            broken: None,
            uploads,
            reader: None,
            moved,
            watched: false,
            answered: false,
            turn: 0,
            waker: None,
        }))
    }

    /// Whether a further try would send the same body.
    pub fn replayable(&self) -> bool {
        !self.lost && self.broken.is_none()
    }

    /// More is to be kept than usual: somebody reads before the destination does.
    pub fn keep_up_to(&mut self, bytes: usize) {
        self.most = self.most.max(bytes);
    }

    /// No further try will come: keeps nothing any more.
    pub fn settle(&mut self) {
        self.keeping = false;
        self.answered = true;
        if self.kept_bytes > 0 {
            self.lost = true;
            // The first try has sent all that was kept; a later one may still be sending it.
            if self.turn <= 1 {
                self.kept = Vec::new();
                self.kept_bytes = 0;
            }
        }
    }

    /// Bytes received from the client so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the request had been received whole.
    pub fn received(&self) -> Option<Instant> {
        self.received
    }

    /// Wakes `waker` when the request has been received whole.
    pub fn watch(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Whether the client's body broke off, and how.
    pub fn broken(&self) -> Option<Kind> {
        self.broken
    }

    /// Whether the next bytes have been asked for and have not come.
    pub fn is_waited_for(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether nobody need look at it any more.
    pub fn is_over(&self) -> bool {
        self.live.is_none() || self.answered
    }

    /// Gives up on the client's sending more.
    pub fn stall(&mut self) {
        self.live = None;
        self.broken = Some(Kind::RequestStalled);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    #[cold]
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.answered {
            self.reader = Some(cx.waker().clone());
        }
    }

    fn end(&mut self) {
        self.live = None;
        self.received = Some(crate::clock::now());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn keep(&mut self, bytes: &Bytes) {
        if self.keeping && self.kept_bytes + bytes.len() <= self.most {
            self.kept_bytes += bytes.len();
            self.kept.push(bytes.clone());
        } else {
            self.keeping = false;
            self.lost = true;
            self.kept = Vec::new();
            self.kept_bytes = 0;
        }
    }
}

/// One try's view of the body.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// These bytes, once.
    Whole(Option<Bytes>),
    /// From the start, each time.
    Shared {
        /// What all tries read from.
        source: Rc<RefCell<Source>>,
        /// Kept frames this try has sent.
        sent: usize,
        /// This try.
        turn: u32,
        /// Whether the trailers have gone.
        done: bool,
    },
}

impl RequestBody {
    /// The body for one more try; earlier tries read no further.
    pub fn again(source: &Rc<RefCell<Source>>) -> RequestBody {
        let turn = {
            let mut s = source.borrow_mut();
            s.turn += 1;
            s.turn
        };
        RequestBody::Shared { source: source.clone(), sent: 0, turn, done: false }
    }
}

/// The client's body ended before it was whole.
#[derive(Debug)]
pub struct BodyCut;

impl std::fmt::Display for BodyCut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client's request body broke off")
    }
}

impl std::error::Error for BodyCut {}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let (source, sent, turn, done) = match self.get_mut() {
            RequestBody::Empty => return Poll::Ready(None),
            RequestBody::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            RequestBody::Shared { source, sent, turn, done } => (source, sent, turn, done),
        };
        let s = &mut *source.borrow_mut();
        if s.turn != *turn || s.broken.is_some() {
            return Poll::Ready(Some(Err(BodyCut)));
        }
        if let Some(bytes) = s.kept.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        if let Some(live) = &mut s.live {
            let Poll::Ready(frame) = Pin::new(live).poll_frame(cx) else {
                if let Some(uploads) = s.uploads.take() {
                    uploads.add(source.clone(), s.bytes);
                    s.watched = true;
                }
                if s.watched {
                    s.wait(cx);
                }
                return Poll::Pending;
            };
            s.reader = None;
            match frame {
                None => s.end(),
                Some(Err(_)) => {
                    s.broken = Some(Kind::RequestCut);
                    s.live = None;
                    return Poll::Ready(Some(Err(BodyCut)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => {
                        s.bytes += bytes.len() as u64;
                        s.moved.set(s.moved.get().wrapping_add(1));
                        s.keep(&bytes);
                        if !s.lost {
                            *sent += 1;
                        }
                        if s.live.as_ref().is_some_and(Body::is_end_stream) {
                            s.end();
                        }
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Err(frame) => {
                        s.trailers = frame.into_trailers().ok();
                        s.trailers.iter_mut().for_each(clean_trailers);
                        s.end();
                    }
                },
            }
        }
        if !*done {
            *done = true;
            if let Some(trailers) = &s.trailers {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Whole(bytes) => bytes.is_none(),
            RequestBody::Shared { source, sent, done, .. } => {
                let s = source.borrow();
                s.live.is_none()
                    && s.broken.is_none()
                    && s.kept.len() <= *sent
                    && (*done || s.trailers.is_none())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            RequestBody::Shared { source, sent, .. } => {
                let s = source.borrow();
                let kept: u64 = s.kept.iter().skip(*sent).map(|b| b.len() as u64).sum();
                match s.live.as_ref().map(Body::size_hint) {
                    None if s.trailers.is_none() => SizeHint::with_exact(kept),
                    None => SizeHint::default(),
                    Some(live) => match live.exact() {
                        Some(n) => SizeHint::with_exact(kept + n),
                        None => SizeHint::default(),
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;

    const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n";

    /// What a try reads when a client sends `wire` behind its head.
    fn check<F: Future<Output = ()>>(wire: &'static str, test: impl FnOnce(Rc<RefCell<Source>>) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(HEAD.as_bytes()).await.unwrap();
            client.write_all(wire.as_bytes()).await.unwrap();
            let (give, take) = tokio::sync::oneshot::channel();
            let give = RefCell::new(Some(give));
            let service = service_fn(move |request: http::Request<Incoming>| {
                give.borrow_mut().take().map(|give| give.send(request.into_body()));
                std::future::pending::<Result<http::Response<String>, std::convert::Infallible>>()
            });
            let server = http1::Builder::new().serve_connection(TokioIo::new(server), service);
            tokio::task::spawn_local(server);
            test(Source::new(take.await.unwrap(), true, None, Rc::default())).await;
        });
    }

    async fn next(body: &mut RequestBody) -> Option<String> {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    #[test]
    fn a_second_try_sends_the_whole_body_although_the_answer_begins_meanwhile() {
        check("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", async |source| {
            let mut first = RequestBody::again(&source);
            while next(&mut first).await.is_some() {}
            let mut second = RequestBody::again(&source);
            assert_eq!(next(&mut second).await.as_deref(), Some("abc"));
            source.borrow_mut().settle();
            assert!(!second.is_end_stream());
            assert_eq!(next(&mut second).await.as_deref(), Some("def"));
            assert_eq!(next(&mut second).await, None);
            assert!(second.is_end_stream());
            assert!(!source.borrow().replayable());
        });
    }

    #[test]
    fn an_older_try_reads_no_further_and_does_not_end_as_if_it_were_whole() {
        check("3\r\nabc\r\n", async |source| {
            let mut first = RequestBody::again(&source);
            assert_eq!(next(&mut first).await.as_deref(), Some("abc"));
            let mut second = RequestBody::again(&source);
            assert!(first.frame().now_or_never().unwrap().unwrap().is_err());
            assert_eq!(next(&mut second).await.as_deref(), Some("abc"));
        });
    }

    #[test]
    fn trailers_lose_what_would_be_believed_in_a_head() {
        check("0\r\nx-sum: 1\r\nx-forwarded-for: 6.6.6.6\r\n\r\n", async |source| {
            let mut body = RequestBody::again(&source);
            let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["x-sum"]);
        });
    }
}
