//! Readiness probes, from the moment an instance's port is open.
//!
//! They run on the control thread, each a task of its own that ends with a verdict or with the instance.

use crate::clock::{self, Duration, Instant};
use crate::driver::InstanceId;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy_config::model::{Probe, ProbeAction, Protocol};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Without a period: at first, and at most.
const EAGER: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
const AGENT: &str = "kube-probe/pilotlight";

/// A probe to be run.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    pub instance: InstanceId,
    pub address: SocketAddr,
    /// When the instance was started.
    pub since: Instant,
    pub probe: Probe,
    pub protocol: Protocol,
}

/// Probes until a verdict: true after `success` good answers in a row, false after `failure` bad ones.
/// With `failure` 0 it goes on until it is aborted.
pub(super) async fn run(probing: &Probing, now: Instant) -> bool {
    let probe = &probing.probe;
    let delay = (probing.since + probe.initial_delay).saturating_duration_since(now);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let (begin, mut good, mut bad) = (clock::now(), 0, 0);
    loop {
        // A timeout of zero is as good as none given: Kubernetes means one second.
        let timeout = if probe.timeout.is_zero() { Duration::from_secs(1) } else { probe.timeout };
        let passed = tokio::time::timeout(timeout, ask(probing)).await.unwrap_or(None).is_some();
        (good, bad) = if passed { (good + 1, 0) } else { (0, bad + 1) };
        if good >= probe.success.max(1) {
            return true;
        }
        if probe.failure > 0 && bad >= probe.failure {
            return false;
        }
        let pause = match probe.period {
            Duration::ZERO => ((clock::now() - begin) / 20).clamp(EAGER.0, EAGER.1),
            period => period,
        };
        tokio::time::sleep(pause).await;
    }
}

/// One try. None: not good.
async fn ask(probing: &Probing) -> Option<()> {
    let stream = TcpStream::connect(probing.address).await.ok()?;
    let ProbeAction::Http { path, headers } = &probing.probe.action else { return Some(()) };
    let io = TokioIo::new(stream);
    let status = match probing.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await.ok()?;
            let connection = Connection(tokio::spawn(connection));
            let answer = sender.send_request(request(probing, path, headers, false)?).await.ok()?;
            drop(connection);
            answer.status()
        }
        Protocol::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
            let connection = Connection(tokio::spawn(connection));
            let answer = sender.send_request(request(probing, path, headers, true)?).await.ok()?;
            drop(connection);
            answer.status()
        }
    };
    (200..400).contains(&status.as_u16()).then_some(())
}

/// A connection's task, which ends with the try.
struct Connection<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(
    probing: &Probing,
    path: &str,
    headers: &[(String, String)],
    whole: bool,
) -> Option<http::Request<Empty<Bytes>>> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let uri = if whole { format!("http://{}{path}", probing.address) } else { path };
    let mut request = http::Request::get(uri).header(http::header::USER_AGENT, AGENT);
    let named =
        |name: http::HeaderName| headers.iter().any(|(given, _)| name.as_str().eq_ignore_ascii_case(given));
    if !whole && !named(http::header::HOST) {
        request = request.header(http::header::HOST, probing.address.to_string());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::service::service_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Serves each connection once, with the statuses in order and the last for ever.
    async fn server(statuses: &'static [u16]) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    assert_eq!(request.uri().path(), "/ready");
                    assert_eq!(request.headers()["x-probe"], "yes");
                    let n = count.fetch_add(1, Ordering::SeqCst) as usize;
                    let status = statuses[n.min(statuses.len() - 1)];
                    let answer = http::Response::builder().status(status).body(Empty::<Bytes>::new());
                    async move { answer }
                });
                let auto = hyper::server::conn::http1::Builder::new();
                tokio::spawn(auto.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn check(statuses: &'static [u16], success: u32, failure: u32, want: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(async {
            let address = server(statuses).await;
            let headers = vec![("X-Probe".to_owned(), "yes".to_owned())];
            let action = ProbeAction::Http { path: "ready".into(), headers };
            let probe = Probe { action, success, failure, ..Probe::default() };
            let now = clock::now();
            let probing = Probing { instance: 1, address, since: now, probe, protocol: Protocol::Http1 };
            tokio::time::timeout(Duration::from_secs(20), run(&probing, now)).await.unwrap()
        });
        assert_eq!(got, want, "{statuses:?}");
    }

    #[test]
    fn the_verdict_follows_from_answers_in_a_row() {
        check(&[200], 1, 0, true);
        check(&[302], 1, 0, true);
        check(&[503, 503, 200], 1, 0, true);
        check(&[200, 503, 200, 200], 2, 3, true);
        check(&[503, 500, 404], 1, 3, false);
    }
}
