//! HTTP/2 connections when trust tightens: GOAWAY, what is in flight ends in time, and nothing new is served.

use super::frames::{self, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, frame};
use super::secure::Dial;
use super::stage::{DEADLINE, Proxy, head};
use super::{Pair, inbound};
use pilotlight::cli::certs::Authority;
use proxy_config::model::{Config, Mtls};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The first byte of a head with status 200.
const OK: u8 = 0x88;

/// An application that answers `/slow` only when it is let.
struct Application {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
    go: std::sync::mpsc::Sender<()>,
}

fn application() -> Application {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, gone) = std::sync::mpsc::channel();
    let (seen, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(parking_lot::Mutex::new(gone)));
    let count = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen, gone) = (stream.unwrap(), count.clone(), gone.clone());
            std::thread::spawn(move || {
                while let Some(head) = head(&mut stream) {
                    seen.fetch_add(1, SeqCst);
                    if head.starts_with("GET /slow") && gone.lock().recv_timeout(DEADLINE).is_err() {
                        return;
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
                }
            });
        }
    });
    Application { address, seen, go }
}

/// Everything that comes until the end of the connection; `at_goaway` when the client is told to go.
fn rest<S: Read + Write>(
    client: &mut Frames<S>,
    at_goaway: impl FnOnce(&mut Frames<S>),
) -> Vec<frames::Came> {
    let (mut all, mut at_goaway) = (Vec::new(), Some(at_goaway));
    while let Some(came) = client.read() {
        if came.0 == PING {
            client.send(&frame(PING, 1, 0, &came.2));
        }
        if came.0 == GOAWAY
            && let Some(act) = at_goaway.take()
        {
            act(client);
        }
        all.push(came);
    }
    assert!(at_goaway.is_none(), "no GOAWAY: {all:?}");
    all
}

fn get<S: Read + Write>(client: &mut Frames<S>, stream: u32, path: &str) {
    assert!(client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get(path))));
}

/// An open connection with an answer on its way; then something that would refuse it. `finishes`: the answer comes.
fn check<S: Read + Write>(
    (callee, application): (&Proxy, &Application),
    stream: S,
    finishes: bool,
    tighten: impl Fn(&Proxy),
) {
    let mut client = Frames::over(stream, &[]);
    get(&mut client, 1, "/");
    let came = client.outcome(1).unwrap();
    assert_eq!((came.0, came.2[0]), (HEADERS, OK), "{came:?}");
    get(&mut client, 3, "/slow");
    let began = Instant::now();
    while application.seen.load(SeqCst) < 2 {
        assert!(began.elapsed() < DEADLINE, "the slow one never came");
        std::thread::sleep(Duration::from_millis(5));
    }
    tighten(callee);
    let began = Instant::now();
    let all = rest(&mut client, |client| {
        get(client, 5, "/");
        if finishes {
            application.go.send(()).unwrap();
        }
    });
    assert!(began.elapsed() < DEADLINE, "it ends in time");
    let heads: Vec<(u32, u8)> =
        all.iter().filter(|came| came.0 == HEADERS).map(|came| (came.1, came.2[0])).collect();
    assert_eq!(heads.contains(&(3, OK)), finishes, "{all:?}");
    assert!(!heads.contains(&(5, OK)), "{all:?}");
    assert_eq!(application.seen.load(SeqCst), 2, "nothing new was served");
    if !finishes {
        application.go.send(()).unwrap();
    }
}

/// With a callee of its own; `secured`: the client shows the certificate of the caller.
fn check_at(
    pair: &Pair,
    before: Mtls,
    secured: bool,
    finishes: bool,
    tighten: impl Fn(&Proxy, &Application),
) {
    let application = application();
    let callee = Proxy::serve(&inbound(before, application.address), Some(&pair.far), 1);
    let act = |callee: &Proxy| tighten(callee, &application);
    if secured {
        let file = |name: &str| pair.near.0.join(name);
        let dial = Dial::new(&["istio-h2", "istio"], Some((&file("cert-chain.pem"), &file("key.pem"))));
        let stream = dial.to(callee.address, "outbound_.80_._.b.default.svc.cluster.local").unwrap();
        check((&callee, &application), stream, finishes, act);
    } else {
        check((&callee, &application), callee.connect(), finishes, act);
    }
}

/// Every way that trust tightens while a certificate is good.
fn check_all(finishes: bool) {
    let strict = |application: &Application| -> Config { inbound(Mtls::Strict, application.address) };
    check_at(&Pair::new(), Mtls::Permissive, false, finishes, |callee, application| {
        callee.publish(&strict(application));
    });
    let pair = Pair::new();
    check_at(&pair, Mtls::Strict, true, finishes, |callee, application| {
        pair.far.trust(&[&Authority::new("td").unwrap()]);
        callee.rotate(&strict(application));
    });
    check_at(&Pair::new(), Mtls::Strict, true, finishes, |callee, application| {
        // Mutual TLS is no longer spoken at all.
        callee.publish(&inbound(Mtls::Disable, application.address));
    });
}

#[test]
fn http2_connections_that_would_be_refused_now_are_told_to_go() {
    check_all(true);
    let pair = Pair::new();
    pair.near.put(&pair.authority, "a", 3);
    check_at(&pair, Mtls::Strict, true, true, |_, _| std::thread::sleep(Duration::from_millis(3100)));
}

#[test]
fn what_is_in_flight_on_them_has_as_long_as_a_drain() {
    check_all(false);
}
