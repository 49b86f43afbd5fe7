//! The inbound side as data: a listener in front of one instance, from a configuration to answers.
//!
//! No file says "inbound" yet, so the configuration is made by hand and served in this process, by the same
//! workers and the same path as any other.

// Tests measure real time, and an unmet expectation is a panic.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use pilotlight::activator::Bell;
use pilotlight::cluster::Registry;
use pilotlight::drain::{Drain, Timing};
use pilotlight::limit::Ceiling;
use pilotlight::record::Direction;
use pilotlight::snapshot::{Environment, Published, compile};
use pilotlight::telemetry::Telemetry;
use pilotlight::upstream::Reclaim;
use pilotlight::worker::{Make, Order, Worker};
use proxy_config::model;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

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

/// Reads up to the blank line; `None` at the end of the stream.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        read.push(byte[0]);
    }
    String::from_utf8(read).ok()
}

/// One listener for every host, in front of `application`.
fn inbound(application: SocketAddr, concurrency: u32) -> model::Config {
    let name = format!("inbound|{}||", application.port());
    let cluster = model::Cluster {
        name: name.clone(),
        identity: model::Identity { service_name: "app".to_owned(), ..model::Identity::default() },
        protocol: model::Protocol::Http1,
        endpoints: model::Endpoints::Static(vec![model::Endpoint {
            address: application,
            weight: 1,
            mesh_tls: false,
        }]),
        policy: model::Policy::default(),
        concurrency,
        tls: None,
        guard: None,
    };
    let destination = model::WeightedDestination {
        cluster: name,
        weight: 1,
        headers: model::HeaderOps::default(),
        written: "the application".to_owned(),
    };
    let route = model::Route {
        name: "default".to_owned(),
        matches: model::Match::default(),
        action: model::Action::Forward(model::Forward {
            destinations: vec![destination],
            timeout: None,
            retry: model::Retry::off(),
            rewrite: model::Rewrite::default(),
            headers: model::HeaderOps::default(),
        }),
        origin: model::ObjectRef::default(),
    };
    let host =
        model::VirtualHost { name: "inbound".to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
    let listener = model::Listener {
        name: "inbound:8080".to_owned(),
        direction: model::Direction::Inbound,
        bind: model::Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0))),
        tables: model::Tables::One(model::Table { hosts: vec![host] }),
        origins: Vec::new(),
        tls: model::ListenerTls::Plain,
        guard: None,
    };
    model::Config { listeners: vec![listener], clusters: vec![cluster], ..model::Config::default() }
}

/// Workers that serve one listener of a configuration.
struct Proxy {
    address: SocketAddr,
    telemetry: Arc<Telemetry>,
    published: Arc<Published>,
    registry: Arc<Registry>,
    _workers: Vec<Worker>,
}

impl Proxy {
    fn serve(config: &model::Config, workers: usize) -> Proxy {
        let telemetry = Telemetry::new(workers);
        let published: Arc<Published> = Arc::default();
        let environment = Environment {
            registry: Arc::new(Registry::new(Arc::new(Bell::new()), Arc::default())),
            telemetry: telemetry.clone(),
            keyring: Arc::default(),
            numbers: Default::default(),
            keys: Arc::default(),
            simulate: None,
        };
        let compiled = compile(config, 1, None, &environment);
        assert!(compiled.problems.is_empty(), "{:?}", compiled.problems);
        published.publish(compiled.snapshot);
        let drain = Drain::new(Timing { delay: Duration::ZERO, timeout: DEADLINE });
        let connections = Ceiling::new(1000);
        let (reclaim, asked) = Reclaim::new(workers);
        let make = |(index, asked)| {
            Worker::start(Make {
                index,
                published: published.clone(),
                telemetry: telemetry.clone(),
                drain: drain.clone(),
                connections: connections.clone(),
                reclaim: reclaim.clone(),
                asked,
                hostname: "here".into(),
                max_exchanges: 1000,
                patience: pilotlight::worker::Patience::default(),
                pressure: pilotlight::limit::Pressure::none(),
            })
        };
        let workers: Vec<Worker> = asked.into_iter().enumerate().map(make).map(Result::unwrap).collect();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let number = environment.number(&config.listeners[0].name);
        for worker in &workers {
            let socket = socket.try_clone().unwrap();
            worker.order(Order::Listen { number, direction: Direction::Inbound, socket });
        }
        Proxy { address, telemetry, published, registry: environment.registry, _workers: workers }
    }

    fn get(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The status lines of so many simultaneous requests.
    fn get_at_once(&self, count: usize) -> Vec<String> {
        let together = Barrier::new(count);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..count)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        self.get().lines().next().unwrap_or_default().to_owned()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }
}

#[test]
fn an_instance_never_has_more_requests_than_its_concurrency_and_the_others_wait() {
    for (concurrency, clients, most) in [(1, 8, 1..=1), (3, 20, 3..=3), (0, 12, 4..=12)] {
        let application = Arc::new(Application::default());
        let proxy = Proxy::serve(&inbound(application.start(), concurrency), 2);
        let statuses = proxy.get_at_once(clients);
        assert!(statuses.iter().all(|line| line == "HTTP/1.1 200 OK"), "{statuses:?}");
        let peak = application.most.load(SeqCst);
        assert!(most.contains(&peak), "{peak} at once of {concurrency} allowed");
    }
}

#[test]
fn beyond_ten_for_each_place_it_is_said_at_once_that_there_is_no_room() {
    let application = Arc::new(Application::default());
    let proxy = Proxy::serve(&inbound(application.start(), 1), 2);
    let statuses = proxy.get_at_once(30);
    let count = |start: &str| statuses.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("HTTP/1.1 200") + count("HTTP/1.1 503"), 30, "{statuses:?}");
    assert!(count("HTTP/1.1 200") >= 11 && count("HTTP/1.1 503") > 0, "{statuses:?}");
}

#[test]
fn inbound_requests_are_counted_by_the_destination_alone() {
    let application = Arc::new(Application::default());
    let proxy = Proxy::serve(&inbound(application.start(), 1), 1);
    assert!(proxy.get().ends_with("done"));
    let lines = proxy.telemetry.encode();
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
    let proxy = Proxy::serve(&inbound(silent.local_addr().unwrap(), 1), 1);
    let mut first = TcpStream::connect(proxy.address).unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: any.example\r\n\r\n").unwrap();
    let (mut at_work, _) = silent.accept().unwrap();
    assert!(head(&mut at_work).is_some());
    std::thread::scope(|scope| {
        let second = scope.spawn(|| proxy.get());
        while proxy.registry.room().held() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        proxy.published.current().expire_held(Instant::now());
        assert_eq!(proxy.registry.room().held(), 1, "its time is not over");
        proxy.published.current().expire_held(Instant::now() + Duration::from_secs(601));
        let answer = second.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    });
    at_work.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(head(&mut first).is_some_and(|head| head.starts_with("HTTP/1.1 200 ")));
}
