//! The echo's sockets: one listener shared by its workers, and the HTTP/1.1 or HTTP/2 behind each connection.
//!
//! Each worker is a thread with a runtime of its own. What is answered is not decided here.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::ExitAfter;
use super::answer::{Echo, Identity, Origin};
use super::call::{Caller, Proxies};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections served at a time, over all workers.
const MOST_CONNECTIONS: usize = 65_536;
/// How long a connection may stay without a request, before the first and between two.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long what is under way may take once the process was asked to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause when accepting fails, so that running out of descriptors is not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The shortest beginning of the HTTP/2 preface that no HTTP/1 method shares.
const PREFACE: &[u8] = b"PRI ";

/// How a server runs.
pub(super) struct Plan {
    pub(super) workers: usize,
    pub(super) exit_after: Option<ExitAfter>,
    pub(super) proxies: Proxies,
    /// Whether SIGTERM and SIGINT stop it.
    pub(super) signals: bool,
}

/// Why a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Signal,
    ExitAfter,
}

/// A bound echo that does not serve yet.
pub(super) struct Server {
    listener: StdListener,
    address: SocketAddr,
    plan: Plan,
    shared: Arc<Shared>,
}

struct Shared {
    echo: Arc<Echo>,
    caller: Arc<Caller>,
    stop: watch::Sender<bool>,
    accepted: AtomicU64,
    open: AtomicUsize,
}

impl Server {
    /// Binds `address` and listens: from here on connections queue.
    pub(super) fn bind(address: &str, identity: Identity, mut plan: Plan) -> io::Result<Server> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = StdListener::from(socket);
        let address = listener.local_addr()?;
        let stop_after = match plan.exit_after {
            Some(ExitAfter::Requests(count)) => Some(count),
            Some(ExitAfter::Time(_)) | None => None,
        };
        let stop = watch::Sender::new(false);
        let shared = Arc::new(Shared {
            echo: Arc::new(Echo::new(&identity, address, stop_after, stop.clone())),
            caller: Arc::new(Caller::new(std::mem::take(&mut plan.proxies))),
            stop,
            accepted: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        });
        Ok(Server { listener, address, plan, shared })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops a server from elsewhere, as `--exit-after` does.
    #[cfg(test)]
    pub(super) fn stopper(&self) -> watch::Sender<bool> {
        self.shared.stop.clone()
    }

    /// Serves until it is stopped and what was under way has ended, or [`STOP_TIMEOUT`] is over.
    pub(super) fn run(self) -> io::Result<End> {
        let main = runtime()?;
        // Before anything is served: a signal must find somebody who waits for it.
        let signals = {
            let _inside = main.enter();
            let both =
                || io::Result::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
            self.plan.signals.then(both).transpose()?
        };
        let mut siblings = Vec::new();
        for number in 1..self.plan.workers {
            let (listener, shared) = (self.listener.try_clone()?, Arc::clone(&self.shared));
            let runtime = runtime()?;
            let thread = std::thread::Builder::new().name(format!("echo-{number}"));
            siblings.push(thread.spawn(move || runtime.block_on(shared.serve(listener)))?);
        }
        let end = main.block_on(async {
            let serving = Arc::clone(&self.shared).serve(self.listener);
            tokio::pin!(serving);
            let stopping = Arc::clone(&self.shared).stopping(self.plan.exit_after, signals);
            tokio::pin!(stopping);
            let end = tokio::select! {
                served = &mut serving => return served.map(|()| End::ExitAfter),
                end = &mut stopping => end,
            };
            self.shared.stop.send_replace(true);
            serving.await.map(|()| end)
        })?;
        for sibling in siblings {
            if let Ok(outcome) = sibling.join() {
                outcome?;
            }
        }
        Ok(end)
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}

impl Shared {
    /// Waits for what ends the process.
    async fn stopping(
        self: Arc<Self>,
        exit_after: Option<ExitAfter>,
        signals: Option<(Signal, Signal)>,
    ) -> End {
        let signalled = async {
            let Some((mut terminate, mut interrupt)) = signals else {
                return std::future::pending().await;
            };
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            // Whoever asks twice does not want to wait.
            tokio::spawn(async move {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                std::process::exit(1);
            });
        };
        let over = async {
            match exit_after {
                Some(ExitAfter::Time(length)) => tokio::time::sleep(length).await,
                Some(ExitAfter::Requests(_)) | None => std::future::pending().await,
            }
        };
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = signalled => End::Signal,
            () = over => End::ExitAfter,
            _ = stop.wait_for(|stop| *stop) => End::ExitAfter,
        }
    }

    /// One worker: accepts until it is time to stop, then waits for the connections.
    async fn serve(self: Arc<Self>, listener: StdListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if self.open.load(Relaxed) >= MOST_CONNECTIONS {
                continue;
            }
            let connection = self.accepted.fetch_add(1, Relaxed) + 1;
            self.open.fetch_add(1, Relaxed);
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                shared.connection(stream, Origin { peer, connection }).await;
                shared.open.fetch_sub(1, Relaxed);
            });
        }
        drop((listener, stop));
        // Every connection and every websocket listens to `stop` for as long as it lives.
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.stop.closed()).await;
        Ok(())
    }

    async fn connection(&self, stream: TcpStream, origin: Origin) {
        // Without it answers are only later.
        let _ = stream.set_nodelay(true);
        let mut stop = self.stop.subscribe();
        let http2 = tokio::select! {
            sniffed = tokio::time::timeout(IDLE_TIMEOUT, speaks_http2(&stream)) => match sniffed {
                Ok(Ok(http2)) => http2,
                Ok(Err(_)) | Err(_) => return,
            },
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let service =
            service_fn(|request| Arc::clone(&self.echo).answer(Arc::clone(&self.caller), origin, request));
        let io = TokioIo::new(stream);
        // What ends a connection early (the peer, or an answer that was to be cut) needs no report.
        if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new());
            let connection = builder.serve_connection(io, service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
            let connection = builder.serve_connection(io, service).with_upgrades();
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

/// Looks at the first bytes without taking them. A peer that sends less than it takes to tell is looked at again
/// every millisecond; the caller bounds how long.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
