//! One client connection: which protocol it speaks, hyper's part of it, and its end.

use super::board::{Board, Entry, HEAD_PATIENCE, IDLE_PATIENCE, Word};
use super::entry::{Door, Entered, Fate, Shared, fd};
use super::socket::Socket;
use crate::fault::{Fault, Kind};
use crate::http::headers::Peer;
use crate::http::line::{Line, TURN};
use crate::proxy::{self, Connection, Flow, Local, ResponseBody, STREAM_WINDOW, Seat, Stack, unread};
use crate::record::{Direction, Protocol};
use crate::snapshot::{Security, Snapshot};
use crate::upstream::{LocalExec, broke_http2, full};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::TokioTimer;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;

/// Of a request's head, all fields together.
const MAX_HEAD: usize = 60 * 1024;
/// hyper's read buffer: room for the largest head.
const MAX_BUFFER: usize = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes that may come without anything coming of them: more than fit the window.
const MAX_IDLE_BYTES: u64 = 2 * CONNECTION_WINDOW as u64;
/// Bytes of one HTTP/2 client after which it is known what they are: more than a frame, so that a large one counts.
const LOOK_EVERY: u64 = 48 << 10;
/// Frames with fewer bytes, on average, are small ones.
const SMALL: u64 = 1024;
/// Bytes that are read at once of a client with small frames: some ten requests, some fifty SETTINGS.
const SHORT_TURN: u32 = 512;
const MAX_STREAMS: u32 = 200;
const MAX_LOCAL_RESETS: usize = 128;
const MAX_PENDING_RESETS: usize = 20;
/// Streams that were reset before anything began for them, less those for which something did.
const MAX_UNBEGUN: u32 = 100;
/// Streams that were reset soon after they had begun, less those that were answered: of a client that asks and takes
/// back, as many as it may have open. Each may cost a connection to the destination.
const MAX_CUT: u32 = MAX_STREAMS;
const MAX_SEND_BUFFER: usize = 128 * 1024;
/// What an HTTP/2 client says first; no HTTP/1 request begins like it.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The stack as hyper wants it.
struct Stacked(RefCell<Stack>);

impl Service<Request<Incoming>> for Stacked {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = <Stack as tower::Service<Request<Incoming>>>::Future;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        tower::Service::call(&mut *self.0.borrow_mut(), request)
    }
}

/// Serves a connection until its end.
pub(super) async fn serve(
    local: Rc<Local>,
    board: Rc<Board>,
    doors: Shared,
    (listener, direction): (usize, Direction),
    stream: TcpStream,
    remote: SocketAddr,
    seat: Seat,
) {
    // Without it, small answers wait for the client's delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    let Ok(address) = stream.local_addr() else { return };
    let door = Door { local: &local, doors: &doors, listener, remote };
    // Boxed, as is what passes through: handshakes are large, and this task is what an idle client costs.
    let entered = match Box::pin(door.open(stream)).await {
        Fate::In(entered) => *entered,
        Fate::On { stream, route, sni, start } => {
            let client = proxy::Raw { stream, start, sni, remote, address, listener };
            // What a gateway passes on is the business of who is behind it.
            let allowed = |snapshot: &Snapshot| match still(snapshot, listener) {
                Some(Security::Mesh(inbound)) => inbound.unopened().is_some(),
                _ => true,
            };
            Box::pin(proxy::pass_on(local, seat, client, &route, allowed)).await;
            return;
        }
        Fate::Gone => return,
    };
    let Entered { stream, http2, scheme, standing, vouched } = entered;
    let line = Arc::new(Line::default());
    let half_close = !http2 && local.snapshot().half_close;
    let connection = Rc::new(Connection {
        local,
        listener,
        direction,
        remote,
        address,
        half_close,
        socket: fd(&stream),
        peer: Peer::new(remote.ip()),
        scheme,
        standing,
        vouched,
        busy: Cell::new(0),
        runs: Cell::new(0),
        line: line.clone(),
        reads_served: Cell::new(0),
        flow: Flow::default(),
        seat,
    });
    let entry = board.add(connection.clone(), http2);
    let socket = Socket::new(stream, http2, line, connection.local.drain.backlog());
    let stack = Stacked(RefCell::new(proxy::stack(connection)));
    if http2 {
        serve2(socket, stack, &entry).await
    } else {
        serve1(socket, stack, &entry).await
    }
    board.remove(&entry);
}

fn still(snapshot: &Snapshot, listener: usize) -> Option<&Security> {
    let listener = snapshot.listeners.get(listener).and_then(Option::as_ref);
    listener.map(|listener| &listener.security)
}

/// Looks at the first bytes without taking them. `None`: nothing came, or it went away.
pub(super) async fn speaks_http2(stream: &TcpStream) -> Option<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let look = async {
        loop {
            let n = stream.peek(&mut start).await.ok().filter(|n| *n > 0)?;
            if start[..n] != HTTP2_PREFACE[..n] {
                return Some(false);
            }
            if n == HTTP2_PREFACE.len() {
                return Some(true);
            }
            // A part of the preface: the rest is on its way, but would not make the socket readable anew.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // A connection opened ahead of its first request may stay silent for as long as an idle one.
    tokio::time::timeout(IDLE_PATIENCE, stream.readable()).await.ok()?.ok()?;
    tokio::time::timeout(HEAD_PATIENCE, look).await.ok()?
}

async fn serve1(socket: Socket, stack: Stacked, entry: &Entry) {
    let connection = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .half_close(entry.connection.half_close)
        .header_read_timeout(None)
        .serve_connection(socket, stack)
        .with_upgrades();
    // Boxed once: hyper's connection is large, and this task is what an idle client costs.
    let mut connection = Box::pin(connection);
    drive(entry, connection.as_mut(), |c| c.graceful_shutdown()).await;
}

async fn serve2(socket: Socket, stack: Stacked, entry: &Entry) {
    // Until it is known better.
    entry.connection.line.turn.store(SHORT_TURN, Relaxed);
    let connection = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(socket, stack);
    let mut connection = Box::pin(connection);
    drive(entry, connection.as_mut(), |c| c.graceful_shutdown()).await;
}

/// Whether bytes keep coming of which no exchange begins, moves or ends: floods of SETTINGS, PING and the like. What
/// bodies may bring unread, their window, is less. `seen`: what had come of exchanges, and at which byte.
fn asks_for_nothing(connection: &Connection, seen: &mut (u32, u64)) -> bool {
    let (parts, bytes) = (connection.flow.parts.get(), connection.line.bytes.load(Relaxed));
    if parts != seen.0 {
        *seen = (parts, bytes);
    }
    bytes - seen.1 > MAX_IDLE_BYTES
}

/// Whether it keeps resetting what it asked for.
fn asks_in_vain(flow: &Flow) -> bool {
    flow.unbegun.get() > MAX_UNBEGUN || flow.cut.get() > MAX_CUT
}

/// How much of an HTTP/2 client is read at once: little while frames are small, as what they cost is not their bytes.
/// `since`: frames and bytes when that was last looked at.
fn pace(line: &Line, since: &mut (u32, u64)) {
    let (frames, bytes) = (line.frames.load(Relaxed), line.bytes.load(Relaxed));
    let came = bytes - since.1;
    if came < LOOK_EVERY {
        return;
    }
    let small = came < SMALL * u64::from(frames.wrapping_sub(since.0));
    line.turn.store(if small { SHORT_TURN } else { TURN }, Relaxed);
    *since = (frames, bytes);
}

/// What hyper ended the connection for, if it is for what came on it: hyper has answered 400 or 431, or said
/// GOAWAY.
#[cold]
fn broken(connection: &Connection, error: &hyper::Error) {
    let (protocol, kind) = if error.is_parse_too_large() {
        (Protocol::Http11, Kind::HeadTooLarge)
    } else if error.is_parse() {
        (Protocol::Http11, Kind::BadRequest)
    } else if let Some(kind) = broke_http2(error) {
        (Protocol::Http2, kind)
    } else {
        return tracing::debug!(client = %connection.remote, %error, "client connection ended");
    };
    let fault = match connection.line.is_spoilt() {
        true => Fault::because(kind, "a line of the head does not end in CRLF"),
        false => Fault::because(kind, full(error)),
    };
    unread(connection, protocol, fault);
}

/// Runs hyper's connection, and does what the board says.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    entry: &Entry,
    mut connection: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
) {
    let mut told = Word::None;
    let (client, mut seen, mut paced) = (&*entry.connection, (0, 0), (0, 0));
    poll_fn(|cx| {
        client.runs.set(client.runs.get().wrapping_add(1));
        if entry.protocol() == Protocol::Http2 {
            client.line.used.store(0, Relaxed);
            client.line.resets.store(0, Relaxed);
        }
        let word = entry.word();
        if word != told {
            told = word;
            match word {
                Word::Finish => finish(connection.as_mut()),
                Word::End => return Poll::Ready(()),
                Word::None => {}
            }
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(result) => {
                if let Err(error) = result {
                    broken(&entry.connection, &error);
                }
                Poll::Ready(())
            }
            Poll::Pending => {
                if entry.protocol() == Protocol::Http2 {
                    pace(&client.line, &mut paced);
                    if asks_for_nothing(client, &mut seen) || asks_in_vain(&client.flow) {
                        unread(client, Protocol::Http2, Kind::Http2Flood.into());
                        return Poll::Ready(());
                    }
                }
                entry.watch(cx.waker());
                Poll::Pending
            }
        }
    })
    .await;
}
