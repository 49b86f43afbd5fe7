//! The inbound side in front of one instance: it grants the places there are, and says who waits too long.

use crate::stage::{Proxy, config, head};
use proxy_config::model::{Config, Direction, ListenerTls};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// An application that takes its time and counts how many requests it has at once.
#[derive(Default)]
struct Application {
    now: AtomicU32,
    most: AtomicU32,
}

impl Application {
    fn start(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let application = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (application, stream) = (application.clone(), stream.unwrap());
                std::thread::spawn(move || application.serve(stream));
            }
        });
        address
    }

    fn serve(&self, mut stream: TcpStream) {
        while head(&mut stream).is_some() {
            self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(30));
            self.now.fetch_sub(1, SeqCst);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").is_err() {
                return;
            }
        }
    }
}

/// One listener for every host, in front of `application`.
fn inbound(application: SocketAddr, concurrency: u32) -> Config {
    let mut config = config(Direction::Inbound, ListenerTls::Plain, application, None);
    config.clusters[0].concurrency = concurrency;
    config
}

/// The status lines of so many simultaneous requests.
fn get_at_once(proxy: &Proxy, count: usize) -> Vec<String> {
    let together = Barrier::new(count);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    proxy.get().lines().next().unwrap_or_default().to_owned()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn an_instance_never_has_more_requests_than_its_concurrency_and_the_others_wait() {
    for (concurrency, clients, most) in [(1, 8, 1..=1), (3, 20, 3..=3), (0, 12, 4..=12)] {
        let application = Arc::new(Application::default());
        let proxy = Proxy::serve(&inbound(application.start(), concurrency), None, 2);
        let statuses = get_at_once(&proxy, clients);
        assert!(statuses.iter().all(|line| line == "HTTP/1.1 200 OK"), "{statuses:?}");
        let peak = application.most.load(SeqCst);
        assert!(most.contains(&peak), "{peak} at once of {concurrency} allowed");
    }
}

#[test]
fn beyond_ten_for_each_place_it_is_said_at_once_that_there_is_no_room() {
    let application = Arc::new(Application::default());
    let proxy = Proxy::serve(&inbound(application.start(), 1), None, 2);
    let statuses = get_at_once(&proxy, 30);
    let count = |start: &str| statuses.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("HTTP/1.1 200") + count("HTTP/1.1 503"), 30, "{statuses:?}");
    assert!(count("HTTP/1.1 200") >= 11 && count("HTTP/1.1 503") > 0, "{statuses:?}");
}

#[test]
fn inbound_requests_are_counted_by_the_destination_alone() {
    let application = Arc::new(Application::default());
    let proxy = Proxy::serve(&inbound(application.start(), 1), None, 1);
    assert!(proxy.get().ends_with("done"));
    let lines = proxy.metrics();
    let counted: Vec<&str> = lines.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert!(
        counted.iter().any(|line| line.contains("reporter=\"destination\"") && line.ends_with(" 1")),
        "{counted:#?}"
    );
    assert!(counted.iter().all(|line| !line.contains("reporter=\"source\"")), "{counted:#?}");
}

#[test]
fn who_waits_too_long_for_a_place_is_told_so_and_the_one_who_has_it_goes_on() {
    // Accepts, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::serve(&inbound(silent.local_addr().unwrap(), 1), None, 1);
    let mut first = proxy.connect();
    first.write_all(b"GET / HTTP/1.1\r\nhost: any.example\r\n\r\n").unwrap();
    let (mut at_work, _) = silent.accept().unwrap();
    assert!(head(&mut at_work).is_some());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| proxy.get());
        proxy.until_held(1);
        proxy.expire_held(Instant::now());
        assert_eq!(proxy.held(), 1, "its time is not over");
        proxy.expire_held(Instant::now() + Duration::from_secs(601));
        let answer = second.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    });
    at_work.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(head(&mut first).is_some_and(|head| head.starts_with("HTTP/1.1 200 ")));
}
