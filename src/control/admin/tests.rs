//! The admin API, page by page and on the wire.

use super::*;
use crate::clock::Duration;
use crate::drain::Timing;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Facts {
    ready: AtomicBool,
}

impl Source for Facts {
    fn acted(&self, _: &str) {}

    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) { Ok(()) } else { Err("no configuration yet".to_owned()) }
    }
    fn metrics(&self) -> String {
        "up 1\n".to_owned()
    }
    fn config_dump(&self) -> Value {
        json!({ "generation": 1 })
    }
    fn clusters(&self) -> Value {
        json!([])
    }
    fn functions(&self) -> Value {
        json!([])
    }
}

struct Bench {
    facts: Arc<Facts>,
    drain: Arc<Drain>,
    admin: Arc<Admin>,
}

impl Bench {
    fn new() -> Bench {
        let facts = Arc::new(Facts::default());
        let drain = Drain::new(Timing { delay: Duration::ZERO, timeout: Duration::from_secs(1) });
        let admin = Arc::new(Admin::new(Arc::clone(&facts) as Arc<dyn Source>, Arc::clone(&drain), None));
        Bench { facts, drain, admin }
    }

    fn ask(&self, face: Face, method: &str, target: &str) -> Answer {
        self.admin.answer(face, &Request::builder().method(method).uri(target).body(()).unwrap())
    }

    fn check(&self, face: Face, method: &str, target: &str, status: u16) {
        assert_eq!(self.ask(face, method, target).status(), status, "{face:?} {method} {target}");
    }

    /// Serves on a thread of its own, as long as the process lives.
    fn listen(&self) -> SocketAddr {
        let listener = bind(Face::Admin, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let admin = Arc::clone(&self.admin);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(Face::Admin, listener, admin)).unwrap();
        });
        address
    }
}

/// What comes back for raw bytes.
fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn pages_are_read_and_acts_are_posted() {
    let bench = Bench::new();
    for (path, _, acts, _, _) in PAGES {
        let (right, wrong) = if acts { ("POST", "GET") } else { ("GET", "POST") };
        if path != "/quitquitquit" && path != "/drain" {
            assert_ne!(bench.ask(Face::Admin, right, path).status(), 405, "{path}");
        }
        let refused = bench.ask(Face::Admin, wrong, path);
        assert_eq!(refused.status(), 405, "{path}");
        assert!(refused.headers()[ALLOW].to_str().unwrap().contains(right), "{path}");
        bench.check(Face::Admin, "DELETE", path, 405);
    }
    bench.check(Face::Admin, "GET", "/nothing", 404);
    bench.check(Face::Admin, "HEAD", "/live", 200);
}

#[test]
fn the_read_only_face_has_metrics_and_readiness_and_nothing_else() {
    let bench = Bench::new();
    bench.facts.ready.store(true, Ordering::Relaxed);
    bench.check(Face::Stats, "GET", "/stats/prometheus", 200);
    bench.check(Face::Stats, "GET", "/healthz/ready", 200);
    for path in ["/", "/metrics", "/config_dump", "/clusters", "/ready"] {
        bench.check(Face::Stats, "GET", path, 404);
    }
    for path in ["/quitquitquit", "/drain", "/logging?level=debug"] {
        bench.check(Face::Stats, "POST", path, 404);
    }
}

#[test]
fn readiness_follows_the_configuration_and_fails_when_the_end_begins() {
    let bench = Bench::new();
    bench.check(Face::Admin, "GET", "/ready", 503);
    bench.facts.ready.store(true, Ordering::Relaxed);
    bench.check(Face::Admin, "GET", "/ready", 200);
    bench.check(Face::Admin, "POST", "/quitquitquit", 200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(bench.drain.conduct());
    bench.check(Face::Admin, "GET", "/ready", 503);
    bench.check(Face::Admin, "GET", "/live", 200);
}

#[test]
fn a_level_may_be_percent_encoded() {
    let rows = [
        ("debug", "debug"),
        ("info%2Ca%3Ddebug", "info,a=debug"),
        ("%", "%"),
        ("%zz", "%zz"),
        ("é%2", "é%2"),
    ];
    for (text, wanted) in rows {
        assert_eq!(decoded(text), wanted);
    }
}

#[test]
fn on_the_wire_it_answers_and_turns_strangers_away() {
    let bench = Bench::new();
    let address = bench.listen();
    let rows = [
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "200 OK", "live"),
        ("GET /live HTTP/1.0\r\n\r\n", "200 OK", "live"),
        ("GET /live HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "403", "localhost"),
        (
            "POST /quitquitquit HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n",
            "403",
            "elsewhere",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "200 OK", "/config_dump"),
    ];
    for (request, status, part) in rows {
        let answer = raw(address, request);
        assert!(answer.lines().next().unwrap().contains(status), "{request}: {answer}");
        assert!(answer.contains(part), "{request}: {answer}");
    }
    assert_eq!(bench.drain.phase(), Phase::Running);
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000));
    let answer = raw(address, &long);
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn an_address_that_is_taken_is_named_with_the_flag() {
    let bench = Bench::new();
    let address = bench.listen();
    let message = bind(Face::Admin, address).unwrap_err();
    for part in ["--admin", &address.to_string(), "another pilotlight"] {
        assert!(message.contains(part), "{message}");
    }
}
