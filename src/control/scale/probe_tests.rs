//! Probes against servers that answer by a script, and what their words do to an instance.

use super::*;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use proxy_config::model::ProbeAction;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn probing(address: SocketAddr, probes: Probes) -> Probing {
    let (since, protocol) = (clock::now(), Protocol::Http1);
    Probing { instance: 1, address, since, probes, protocol, resumed: false, exec: None }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(20 * SECOND, test).await.expect("it takes too long") })
}

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
                let answer = http::Response::builder().status(status).body(Full::<Bytes>::default());
                async move { answer }
            });
            let auto = hyper::server::conn::http1::Builder::new();
            tokio::spawn(auto.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn http(path: &str) -> ProbeAction {
    ProbeAction::Http { path: path.into(), headers: vec![("X-Probe".into(), "yes".into())] }
}

/// The words that probes say of a server with these statuses, until there are so many.
fn words(statuses: &'static [u16], probes: impl Fn(Probe) -> Probes, want: &[Word]) {
    let said = Arc::new(Mutex::new(Vec::new()));
    block_on(async {
        let address = server(statuses).await;
        let probe = Probe { action: http("ready"), period: 5 * MILLI, ..Probe::default() };
        let probing = probing(address, probes(probe));
        let listening = said.clone();
        let asking = run(&probing, move |word| listening.lock().push(word));
        let enough = async {
            while said.lock().len() < want.len() {
                tokio::time::sleep(MILLI).await;
            }
        };
        tokio::select! { () = asking => {}, () = enough => {} }
    });
    assert_eq!(*said.lock(), want, "{statuses:?}");
}

#[test]
fn readiness_is_said_once_it_passes_and_again_when_it_changes() {
    use Word::{Ready, Unready};
    let ready = |success, failure| {
        move |probe| Probes { readiness: Some(Probe { success, failure, ..probe }), ..Probes::default() }
    };
    words(&[200], ready(1, 3), &[Ready]);
    words(&[302], ready(1, 3), &[Ready]);
    words(&[503, 503, 503, 503, 503, 200], ready(1, 3), &[Ready]);
    words(&[200, 503, 200, 503, 503, 200, 200], ready(1, 2), &[Ready, Unready, Ready]);
    words(&[200, 200, 503, 503, 200, 503, 200, 200], ready(2, 2), &[Ready, Unready, Ready]);
}

#[test]
fn the_startup_probe_goes_before_the_others_and_gives_up_for_good() {
    use Word::{Dead, NeverStarted, Ready};
    let startup =
        |failure| move |probe| Probes { startup: Some(Probe { failure, ..probe }), ..Probes::default() };
    words(&[503, 503, 200], startup(20), &[Ready]);
    words(&[503], startup(3), &[NeverStarted]);
    let all = |probe: Probe| Probes {
        startup: Some(Probe { failure: 50, ..probe.clone() }),
        readiness: None,
        liveness: Some(Probe { failure: 2, ..probe }),
    };
    words(&[503, 503, 503, 200, 200, 503, 200, 503, 503], all, &[Ready, Dead]);
}

#[test]
fn the_first_readiness_is_not_kept_waiting_by_a_period() {
    block_on(async {
        let address = server(&[503, 503, 503, 200]).await;
        let probe = Probe { action: http("ready"), period: 10 * SECOND, ..Probe::default() };
        let probing = probing(address, Probes { readiness: Some(probe), ..Probes::default() });
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        let begin = clock::now();
        let asking = run(&probing, move |word| tx.send(word).unwrap());
        tokio::select! { () = asking => {}, word = rx.recv() => assert_eq!(word, Some(Word::Ready)) }
        assert!(clock::now() - begin < 5 * SECOND);
    });
}

/// A gRPC server whose health is this; `None`: it does not know the service.
async fn healthy(status: Option<u8>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(&*asked, b"\0\0\0\0\x06\x0a\x04shop");
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", if status.is_some() { 0 } else { 5 }.into());
                let body = status.map_or(Bytes::new(), |status| Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
                let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
                Ok::<_, Infallible>(http::Response::new(UnsyncBoxBody::new(body)))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[test]
fn a_grpc_server_is_asked_for_its_health() {
    for (status, want) in [(Some(1), true), (Some(2), false), (None, false)] {
        let good = block_on(async {
            let probe = Probe { action: ProbeAction::Grpc { service: "shop".into() }, ..Probe::default() };
            ask(&probing(healthy(status).await, Probes::default()), &probe).await
        });
        assert_eq!(good, want, "{status:?}");
    }
}

#[test]
fn a_command_decides_and_no_way_to_run_it_is_not_good() {
    let probe = Probe { action: ProbeAction::Exec { command: vec!["ok".into()] }, ..Probe::default() };
    let mut probing = probing("127.0.0.1:1".parse().unwrap(), Probes::default());
    assert!(!block_on(ask(&probing, &probe)));
    probing.exec = Some(Arc::new(|words, limit| Box::pin(async move { words == ["ok"] && limit == SECOND })));
    assert!(block_on(ask(&probing, &probe)));
}

#[test]
fn another_host_is_asked_where_one_is_written_and_a_silent_one_is_not_good() {
    block_on(async {
        let there = server(&[200]).await;
        let elsewhere = Some((there.ip().to_string(), there.port()));
        let probe = Probe { action: http("/ready"), elsewhere, timeout: SECOND, ..Probe::default() };
        assert!(ask(&probing("127.0.0.1:1".parse().unwrap(), Probes::default()), &probe).await);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let probe = Probe { action: http("/ready"), timeout: 30 * MILLI, ..Probe::default() };
        assert!(!ask(&probing(silent.local_addr().unwrap(), Probes::default()), &probe).await);
    });
}
