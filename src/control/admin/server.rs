//! The sockets of the admin API: connections taken, bounded and served, one task each on the control thread.

use super::{Admin, Answer, guard, text};
use crate::clock::Duration;
use crate::control::process;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once on one listener; more wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// A request head larger than this is refused.
const MAX_HEAD: usize = 16 << 10;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;
/// To send a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives no longer.
const MAX_LIFE: Duration = Duration::from_secs(300);
/// After a failed accept (out of descriptors), before the next.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Everything (`--admin`).
    Admin,
    /// Metrics and readiness, nothing that acts (`--stats`).
    Stats,
}

/// Binds a listener of the admin API; port 0 takes any.
///
/// # Errors
/// Names the address, the flag that asked for it, and what to do.
pub fn bind(face: Face, address: SocketAddr) -> Result<std::net::TcpListener, String> {
    let flag = match face {
        Face::Admin => "--admin",
        Face::Stats => "--stats",
    };
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("; is another pilotlight running? Choose another with {flag} ADDR")
            }
            _ => format!("; choose another with {flag} ADDR"),
        };
        format!("{flag}: cannot listen on {address}: {error}{help}")
    })
}

/// Serves until the future is dropped. Runs on the control thread's runtime.
///
/// # Errors
/// When the runtime refuses the listener.
pub async fn serve(face: Face, listener: std::net::TcpListener, admin: Arc<Admin>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Aborts the connections when this future is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                connections.spawn(async move {
                    connection(face, stream, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "admin connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(face: Face, stream: TcpStream, admin: Arc<Admin>) {
    let Ok(local) = stream.local_addr().map(|address| address.ip()) else { return };
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(guarded(face, local, admin, request.map(drop)).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong on a connection concerns only the one who holds its other end.
    let _ = tokio::time::timeout(MAX_LIFE, served).await;
}

async fn guarded(face: Face, local: IpAddr, admin: Arc<Admin>, request: Request<()>) -> Answer {
    if let Some(reason) = guard::refusal(face, local, request.headers()) {
        return text(StatusCode::FORBIDDEN, reason);
    }
    if !super::takes_long(request.uri().path()) {
        return admin.answer(face, &request);
    }
    // This thread has functions to start meanwhile.
    let answer = tokio::task::spawn_blocking(move || process::aside(|| admin.answer(face, &request)));
    let failed = "this page failed by a defect of this program\n";
    answer.await.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, failed))
}
