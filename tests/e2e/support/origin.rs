//! Upstreams in this process: real HTTP servers on real sockets that count what they see.

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counted from 1 over all connections.
    pub number: usize,
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// The header's first value, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }
}

/// What to answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    delay: Duration,
    hang_up: bool,
}

impl Reply {
    pub fn text(body: &str) -> Reply {
        Reply { status: 200, chunks: vec![Bytes::copy_from_slice(body.as_bytes())], ..Reply::default() }
    }

    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    /// Closes the connection instead of answering.
    pub fn hang_up() -> Reply {
        Reply { hang_up: true, ..Reply::status(200) }
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several frames instead of one body.
    pub fn chunks(mut self, chunks: &[&'static str]) -> Reply {
        self.chunks = chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect();
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Reply {
        self.trailers.get_or_insert_default().insert(name, value.parse().expect("a header value"));
        self
    }

    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }
}

type Answer = dyn Fn(&Seen) -> Reply + Send + Sync;

struct State {
    answer: Box<Answer>,
    seen: Mutex<Vec<Seen>>,
    hits: AtomicUsize,
    running: AtomicUsize,
    peak: AtomicUsize,
    open: AtomicUsize,
    open_peak: AtomicUsize,
    accepted: AtomicUsize,
}

/// How an origin behaves, before it is told what to answer.
pub struct Manner {
    h2: bool,
    delay: Duration,
    at: SocketAddr,
}

impl Manner {
    /// Waits before every answer.
    pub fn delay(mut self, delay: Duration) -> Manner {
        self.delay = delay;
        self
    }

    /// On a given address instead of a free port.
    pub fn at(mut self, address: SocketAddr) -> Manner {
        self.at = address;
        self
    }

    /// The same text to every request, 200.
    #[track_caller]
    pub fn reply(self, body: &str) -> Origin {
        let reply = Reply::text(body);
        self.answer(move |_| reply.clone())
    }

    /// The same status to every request, without a body.
    #[track_caller]
    pub fn status(self, status: u16) -> Origin {
        self.answer(move |_| Reply::status(status))
    }

    /// Whatever `answer` says.
    #[track_caller]
    pub fn answer(self, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Origin {
        let delay = self.delay;
        Origin::start(self.h2, self.at, move |seen| {
            let mut reply = answer(seen);
            reply.delay += delay;
            reply
        })
    }
}

/// A running upstream; stops when it is dropped.
pub struct Origin {
    address: SocketAddr,
    h2: bool,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Speaks HTTP/1.1.
    pub fn h1() -> Manner {
        Manner { h2: false, delay: Duration::ZERO, at: SocketAddr::from(([127, 0, 0, 1], 0)) }
    }

    /// Speaks HTTP/2 without TLS.
    pub fn h2c() -> Manner {
        Manner { h2: true, ..Origin::h1() }
    }

    #[track_caller]
    fn start(h2: bool, at: SocketAddr, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Origin {
        let listener = std::net::TcpListener::bind(at).expect("the address is free");
        listener.set_nonblocking(true).expect("a socket can be set non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State {
            answer: Box::new(answer),
            seen: Mutex::default(),
            hits: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            open_peak: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a non-blocking listener");
                tokio::select! { _ = stopped => (), () = accept(listener, h2, served) => () }
            });
        });
        Origin { address, h2, state, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ServiceEntry protocol that says what it speaks.
    pub fn protocol(&self) -> &'static str {
        if self.h2 { "HTTP2" } else { "HTTP" }
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// The most requests that ran at the same time.
    pub fn peak(&self) -> usize {
        self.state.peak.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// The most connections that were open at the same time.
    pub fn connections_peak(&self) -> usize {
        self.state.open_peak.load(Ordering::SeqCst)
    }

    /// What was asked, in the order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    #[track_caller]
    pub fn last(&self) -> Seen {
        self.state.seen.lock().last().cloned().expect("the origin was asked")
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Counts one more for as long as it lives, and the most there ever were.
struct Counted(Arc<State>, fn(&State) -> &AtomicUsize);

impl Counted {
    fn new(state: &Arc<State>, now: fn(&State) -> &AtomicUsize, peak: fn(&State) -> &AtomicUsize) -> Counted {
        let count = now(state).fetch_add(1, Ordering::SeqCst) + 1;
        peak(state).fetch_max(count, Ordering::SeqCst);
        Counted(Arc::clone(state), now)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, h2: bool, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.accepted.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let _open = Counted::new(&state, |s| &s.open, |s| &s.open_peak);
            serve(stream, h2, Arc::clone(&state)).await;
        });
    }
}

async fn serve(stream: TcpStream, h2: bool, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| respond(request, Arc::clone(&state)));
    // A client that goes away, or a reply that hangs up, is an error here and none of the test's.
    if h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn respond(
    request: http::Request<Incoming>,
    state: Arc<State>,
) -> Result<http::Response<Body>, String> {
    let _running = Counted::new(&state, |s| &s.running, |s| &s.peak);
    let number = state.hits.fetch_add(1, Ordering::SeqCst) + 1;
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let seen = Seen {
        number,
        method: head.method,
        uri: head.uri,
        version: head.version,
        headers: head.headers,
        body,
    };
    let reply = (state.answer)(&seen);
    state.seen.lock().push(seen);
    tokio::time::sleep(reply.delay).await;
    if reply.hang_up {
        return Err("told to hang up".to_owned());
    }
    let mut response = http::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    response.body(body_of(reply)).map_err(|error| error.to_string())
}

fn body_of(reply: Reply) -> Body {
    if reply.trailers.is_none() && reply.chunks.len() <= 1 {
        return Full::new(reply.chunks.into_iter().next().unwrap_or_default()).boxed();
    }
    let chunks = reply.chunks.into_iter().map(Frame::data);
    let frames = chunks.chain(reply.trailers.map(Frame::trailers)).map(Ok);
    StreamBody::new(futures_util::stream::iter(frames)).boxed()
}
