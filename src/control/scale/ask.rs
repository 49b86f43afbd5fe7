//! One try of a probe: a connection, a GET, a gRPC health check, or a command.
//!
//! Nothing is kept from try to try, and nothing of it is seen by clusters, metrics or the access log.

use super::probe::Probing;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy_config::model::{Probe, ProbeAction, Protocol};
use tokio::net::TcpStream;

const AGENT: &str = "kube-probe/pilotlight";
/// Of the answer to a health check: longer ones are none.
const ANSWER: usize = 64;

/// Whether the answer is good, within the probe's timeout.
pub(super) async fn ask(probing: &Probing, probe: &Probe) -> bool {
    tokio::time::timeout(probe.timeout, tried(probing, probe)).await.unwrap_or(None).is_some()
}

/// None: not good.
async fn tried(probing: &Probing, probe: &Probe) -> Option<()> {
    match &probe.action {
        ProbeAction::Tcp => connect(probing, probe).await.map(drop),
        ProbeAction::Http { path, headers } => get(probing, probe, path, headers).await,
        ProbeAction::Grpc { service } => check(probing, probe, service).await,
        ProbeAction::Exec { command } => {
            let run = probing.exec.as_ref()?;
            run(command.clone(), probe.timeout).await.then_some(())
        }
    }
}

async fn connect(probing: &Probing, probe: &Probe) -> Option<TcpStream> {
    match &probe.elsewhere {
        Some((host, port)) => TcpStream::connect((host.as_str(), *port)).await.ok(),
        None => TcpStream::connect(probing.address).await.ok(),
    }
}

async fn get(probing: &Probing, probe: &Probe, path: &str, headers: &[(String, String)]) -> Option<()> {
    let io = TokioIo::new(connect(probing, probe).await?);
    let whole = probing.protocol == Protocol::Http2 && probe.elsewhere.is_none();
    let request = request(probing, path, headers, whole)?;
    let status = if whole {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
        let _connection = Connection(tokio::spawn(connection));
        sender.send_request(request).await.ok()?.status()
    } else {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        let _connection = Connection(tokio::spawn(connection));
        sender.send_request(request).await.ok()?.status()
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
) -> Option<http::Request<Full<Bytes>>> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let uri = if whole { format!("http://{}{path}", probing.address) } else { path };
    let named =
        |name: http::HeaderName| headers.iter().any(|(given, _)| name.as_str().eq_ignore_ascii_case(given));
    let mut request = http::Request::get(uri);
    if !named(http::header::USER_AGENT) {
        request = request.header(http::header::USER_AGENT, AGENT);
    }
    if !whole && !named(http::header::HOST) {
        request = request.header(http::header::HOST, probing.address.to_string());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::default()).ok()
}

/// `grpc.health.v1.Health/Check`: one field in the request, one in the answer, so both are written out.
async fn check(probing: &Probing, probe: &Probe, service: &str) -> Option<()> {
    let io = TokioIo::new(connect(probing, probe).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
    let _connection = Connection(tokio::spawn(connection));
    let request = http::Request::post(format!("http://{}/grpc.health.v1.Health/Check", probing.address))
        .header(http::header::USER_AGENT, AGENT)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(Bytes::from(health_request(service))))
        .ok()?;
    let answer = sender.send_request(request).await.ok()?;
    if answer.status() != http::StatusCode::OK {
        return None;
    }
    let body = http_body_util::Limited::new(answer.into_body(), ANSWER).collect().await.ok()?;
    let well = body
        .trailers()
        .is_some_and(|trailers| trailers.get("grpc-status").is_some_and(|status| status.as_bytes() == b"0"));
    (well && is_serving(&body.to_bytes())).then_some(())
}

/// `HealthCheckRequest { service = 1 }` in its frame.
fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Whether the frame holds `HealthCheckResponse { status = 1: SERVING }`.
fn is_serving(frame: &[u8]) -> bool {
    matches!(frame, [0, 0, 0, 0, 2, 0x08, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_written_and_read_as_the_protocol_says() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "s".repeat(300);
        assert_eq!(health_request(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for other in [&[0, 0, 0, 0, 2, 8, 2][..], &[0, 0, 0, 0, 0], &[], &[1, 0, 0, 0, 2, 8, 1]] {
            assert!(!is_serving(other), "{other:?}");
        }
    }
}
