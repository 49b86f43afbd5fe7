//! Dialling: one TCP connection and its handshake, within connectTimeout, with its faults named.

use super::heads::Heads;
use super::nudge::Nudge;
use super::sent::Sent;
use super::wire::{Watch, Wire};
use super::{LocalExec, RequestBody};
use crate::clock;
use crate::cluster::Permit;
use crate::fault::{Fault, Kind};
use crate::telemetry::{Side, Telemetry};
use crate::tls::{Client, ClientStream, Refusal, Stream};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::net::TcpStream;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const MAX_SEND_BUFFER: usize = 128 * 1024;
/// As large as what is accepted from clients, so that an answer's head may be as large as a request's.
const MAX_HEAD: usize = 64 * 1024;

/// Whom to dial, and how.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// A connection that is open already.
    pub(super) first: Option<std::net::TcpStream>,
    /// Of the connection and its handshake together.
    pub(super) timeout: Duration,
    /// With the request's host; `None`: in plaintext.
    pub(super) tls: Option<(Arc<Client>, Box<str>)>,
}

/// What is spoken through.
pub(super) type Link = Stream<TcpStream, ClientStream<TcpStream>>;

/// A fresh HTTP/1 connection.
pub(super) struct Fresh1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) open: Rc<Open>,
    pub(super) fd: RawFd,
    pub(super) local: Option<SocketAddr>,
}

/// A fresh HTTP/2 connection.
pub(super) struct Fresh2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) open: Rc<Open>,
    pub(super) local: Option<SocketAddr>,
    /// Streams the peer allows, kept up to date by the connection's task.
    pub(super) allowed: Rc<Cell<usize>>,
}

/// One connection that is open: it counts against its gate and in the metrics as long as this lives.
#[derive(Debug)]
pub struct Open {
    _permit: Permit,
    telemetry: Arc<Telemetry>,
    /// Wakes the task of an HTTP/1 connection.
    pub(super) nudge: Arc<Nudge>,
    /// The head that went up last on it.
    pub(super) sent: Arc<Sent>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.telemetry.metrics.upstream_connections.dec();
    }
}

/// Opens a connection within `timeout`, or takes the `first`, if that is still good; `permit` is held as long as it
/// is open.
///
/// # Errors
/// It was refused, or took too long.
pub async fn dial(
    address: SocketAddr,
    first: Option<std::net::TcpStream>,
    timeout: Duration,
    permit: Permit,
    telemetry: &Arc<Telemetry>,
) -> Result<(TcpStream, Rc<Open>), Fault> {
    let metrics = &telemetry.metrics;
    let connected = match first.and_then(adopt) {
        Some(stream) => Ok(stream),
        None => connect(address, timeout).await,
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(fault) => {
            metrics.upstream_failed.inc();
            return Err(fault);
        }
    };
    metrics.upstream_opened.inc();
    metrics.upstream_connections.inc();
    let (telemetry, nudge, sent) = (telemetry.clone(), Arc::default(), Arc::default());
    Ok((stream, Rc::new(Open { _permit: permit, telemetry, nudge, sent })))
}

async fn connect(address: SocketAddr, timeout: Duration) -> Result<TcpStream, Fault> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_) => Err(Fault::because(
            Kind::ConnectTimeout,
            format_args!("{address} did not accept within {timeout:?}"),
        )),
        Ok(Err(error)) => Err(Fault::because(Kind::ConnectFailure, format_args!("{address}: {error}"))),
        Ok(Ok(stream)) => {
            hasten(&stream);
            Ok(stream)
        }
    }
}

/// A connection that was opened elsewhere, unless it has ended or the peer has spoken: whoever does that before
/// it is asked means something by it.
fn adopt(stream: std::net::TcpStream) -> Option<TcpStream> {
    if !is_quiet(&stream) {
        return None;
    }
    TcpStream::from_std(stream).ok().inspect(hasten)
}

/// Without it small exchanges wait for delayed acknowledgements; a socket that refuses is dying anyway.
fn hasten(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// Whether a connection is open and silent: an end or stray bytes make it useless.
pub(super) fn is_quiet(fd: impl AsFd) -> bool {
    let mut byte = [std::mem::MaybeUninit::<u8>::uninit(); 1];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(fd, &mut byte, flags), Err(rustix::io::Errno::AGAIN))
}

/// Dials, and does the handshake where there is to be one: nothing goes in plaintext instead.
async fn open(
    peer: Peer,
    permit: Permit,
    telemetry: &Arc<Telemetry>,
) -> Result<(Link, Ends, Rc<Open>), Fault> {
    let began = clock::now();
    let (stream, open) = dial(peer.address, peer.first, peer.timeout, permit, telemetry).await?;
    let ends = Ends { fd: stream.as_raw_fd(), local: stream.local_addr().ok() };
    let Some((client, host)) = peer.tls else { return Ok((Stream::Plain(stream), ends, open)) };
    let shaking = client.connect(&host, stream, clock::wall());
    let shaken = match tokio::time::timeout_at((began + peer.timeout).into(), shaking).await {
        Ok(shaken) => shaken,
        Err(_) => Err((Refusal::Timeout, format!("no handshake within {:?}", peer.timeout))),
    };
    match shaken {
        Ok(stream) => {
            telemetry.secure.done(Side::Upstream);
            Ok((Stream::Tls(Box::new(stream)), ends, open))
        }
        Err((refusal, why)) => {
            telemetry.secure.failed(Side::Upstream, refusal);
            telemetry.metrics.upstream_failed.inc();
            let kind = match refusal {
                Refusal::Timeout => Kind::ConnectTimeout,
                Refusal::Unprepared => Kind::UpstreamTlsUnprepared,
                _ => Kind::UpstreamTls,
            };
            Err(Fault::because(kind, format_args!("TLS_error:{}: {why}", refusal.as_str())))
        }
    }
}

/// Both ends of a connection's socket.
struct Ends {
    fd: RawFd,
    local: Option<SocketAddr>,
}

/// Dials and speaks HTTP/1. The connection's task holds it open until the socket is closed.
pub(super) async fn http1(peer: Peer, permit: Permit, telemetry: &Arc<Telemetry>) -> Result<Fresh1, Fault> {
    let (stream, Ends { fd, local }, open) = open(peer, permit, telemetry).await?;
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .handshake(Wire::new(stream, Watch::Http1(open.nudge.clone(), open.sent.clone())))
        .await
        .map_err(|error| Fault::because(Kind::ConnectFailure, error))?;
    let held = open.clone();
    tokio::task::spawn_local(async move {
        let (waker, mut connection) = (Waker::from(held.nudge.clone()), pin!(connection.with_upgrades()));
        // Its errors reach the exchange through the sender.
        let _ = poll_fn(|cx| {
            held.nudge.tell(cx.waker());
            connection.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await;
        drop(held);
    });
    Ok(Fresh1 { sender, open, fd, local })
}

/// Dials and speaks HTTP/2 with prior knowledge.
pub(super) async fn http2(peer: Peer, permit: Permit, telemetry: &Arc<Telemetry>) -> Result<Fresh2, Fault> {
    let (stream, Ends { local, .. }, open) = open(peer, permit, telemetry).await?;
    let (sender, mut connection) = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(Wire::new(stream, Watch::Http2(Heads::default())))
        .await
        .map_err(|error| Fault::because(Kind::ConnectFailure, error))?;
    let allowed = Rc::new(Cell::new(connection.current_max_send_streams()));
    let (held, shown) = (open.clone(), allowed.clone());
    tokio::task::spawn_local(async move {
        let _ = poll_fn(|cx| {
            let over = Pin::new(&mut connection).poll(cx);
            shown.set(connection.current_max_send_streams());
            over
        })
        .await;
        drop(held);
    });
    Ok(Fresh2 { sender, open, local, allowed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    /// What becomes of a connection whose other end did this.
    fn adopted(far: impl FnOnce(std::net::TcpStream)) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        far(accepted);
        // What the other end did has arrived.
        let _ = near.set_read_timeout(Some(Duration::from_millis(20)));
        let _ = near.peek(&mut [0]);
        near.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { adopt(near).is_some() })
    }

    #[test]
    fn a_connection_from_elsewhere_is_taken_while_it_is_open_and_silent() {
        let mut kept = None;
        assert!(adopted(|far| kept = Some(far)));
        assert!(!adopted(drop), "one that has ended");
        assert!(!adopted(|mut far| {
            far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
            kept = Some(far);
        }));
    }
}
