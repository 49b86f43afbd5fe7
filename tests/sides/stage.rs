//! Proxies of this process on a stage: listeners and clusters made by hand, certificates in folders.

use pilotlight::activator::Bell;
use pilotlight::cli::certs::{Authority, Names};
use pilotlight::cluster::Registry;
use pilotlight::drain::{Drain, Timing};
use pilotlight::limit::Ceiling;
use pilotlight::record::Direction;
use pilotlight::snapshot::{Environment, Published, compile};
use pilotlight::telemetry::Telemetry;
use pilotlight::tls::Keyring;
use pilotlight::upstream::Reclaim;
use pilotlight::worker::{Make, Order, Worker};
use proxy_config::model::{self, ListenerTls, Mtls};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// A workload's certificate; removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn of(authority: &Authority, account: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pilotlight-mtls-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let folder = Folder(std::env::temp_dir().join(name));
        folder.put(authority, account, 3600);
        folder
    }

    /// Another certificate, that ends after so many seconds.
    pub fn put(&self, authority: &Authority, account: &str, seconds: i64) {
        let names = Names::Workload { namespace: "default", account };
        let issued = authority.issue_until(&names, seconds).unwrap();
        issued.write(&self.0, ["cert-chain.pem", "key.pem", "root-cert.pem"]).unwrap();
    }

    pub fn trust(&self, authorities: &[&Authority]) {
        let text: String = authorities.iter().map(|authority| authority.certificate.as_str()).collect();
        std::fs::write(self.0.join("new"), text).unwrap();
        std::fs::rename(self.0.join("new"), self.0.join("root-cert.pem")).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An application that answers with the head it was sent.
pub fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    while let Some(head) = head(&mut stream) {
        let lower = head.to_ascii_lowercase();
        let answer = if lower.contains("upgrade: websocket") {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned()
        } else {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len())
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        if lower.contains("upgrade: websocket") {
            let mut bytes = [0; 64];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                let _ = stream.write_all(&bytes[..n]);
            }
            return;
        }
    }
}

/// Reads up to the blank line; `None` at the end of the stream.
pub fn head(stream: &mut impl Read) -> Option<String> {
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

/// A listener whose every request goes to `to`.
pub fn config(
    direction: model::Direction,
    tls: ListenerTls,
    to: SocketAddr,
    secured: Option<model::ClientTls>,
) -> model::Config {
    let cluster = model::Cluster {
        name: "to".to_owned(),
        identity: Default::default(),
        protocol: model::Protocol::Http1,
        endpoints: model::Endpoints::Static(vec![model::Endpoint { address: to, weight: 1, mesh_tls: true }]),
        policy: model::Policy::default(),
        concurrency: 0,
        tls: secured,
        guard: None,
    };
    let destination = model::WeightedDestination {
        cluster: "to".to_owned(),
        weight: 1,
        headers: model::HeaderOps::default(),
        written: "the other side".to_owned(),
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
        model::VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
    let listener = model::Listener {
        name: "inbound:8080".to_owned(),
        direction,
        bind: model::Bind::Address(SocketAddr::from(([127, 0, 0, 1], 0))),
        tables: model::Tables::One(model::Table { hosts: vec![host] }),
        origins: Vec::new(),
        tls,
        guard: None,
        forwarding: model::Forwarding::at(direction),
    };
    let mut config =
        model::Config { listeners: vec![listener], clusters: vec![cluster], ..model::Config::default() };
    config.mesh.trust_domain = "td".to_owned();
    config
}

/// What an inbound listener asks of callers.
pub fn guarded(mut config: model::Config, mode: Mtls) -> model::Config {
    let mtls = model::MtlsPolicy { mode, ..model::MtlsPolicy::default() };
    config.listeners[0].guard = Some("guard".to_owned());
    config.guards = vec![model::Guard { name: "guard".to_owned(), mtls, ..model::Guard::default() }];
    config
}

/// How a sidecar calls another.
pub fn to_mesh(mode: model::ClientMode, names: &[&str]) -> model::ClientTls {
    model::ClientTls {
        mode,
        credential: model::Credential::default(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        sni: Some("outbound_.80_._.b.default.svc.cluster.local".to_owned()),
        insecure: false,
    }
}

/// Workers that serve one listener of a configuration.
pub struct Proxy {
    pub address: SocketAddr,
    pub telemetry: Arc<Telemetry>,
    environment: Environment,
    published: Arc<Published>,
    generation: AtomicU64,
    _workers: Vec<Worker>,
}

impl Proxy {
    pub fn serve(config: &model::Config, folder: Option<&Folder>, workers: usize) -> Proxy {
        let telemetry = Telemetry::new(workers);
        let published: Arc<Published> = Arc::default();
        let environment = Environment {
            registry: Arc::new(Registry::new(Arc::new(Bell::new()), Arc::default())),
            telemetry: telemetry.clone(),
            keyring: Arc::new(Keyring::new(folder.map(|folder| folder.0.as_path()))),
            numbers: Default::default(),
            keys: Default::default(),
            simulate: None,
        };
        let drain = Drain::new(Timing { delay: Duration::ZERO, timeout: Duration::from_secs(2) });
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
                pressure: pilotlight::limit::Pressure::none(),
                patience: pilotlight::worker::Patience::default(),
            })
        };
        let workers: Vec<Worker> = asked.into_iter().enumerate().map(make).map(Result::unwrap).collect();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let generation = AtomicU64::new(0);
        let proxy = Proxy { address, telemetry, environment, published, generation, _workers: workers };
        proxy.publish(config);
        let number = proxy.environment.number(&config.listeners[0].name);
        let direction = match config.listeners[0].direction {
            model::Direction::Gateway => Direction::Gateway,
            model::Direction::Outbound => Direction::Outbound,
            model::Direction::Inbound => Direction::Inbound,
        };
        for worker in &proxy._workers {
            let socket = socket.try_clone().unwrap();
            worker.order(Order::Listen { number, direction, socket });
        }
        proxy
    }

    /// Serves this from now on; the texts say what of TLS cannot be had.
    pub fn publish(&self, config: &model::Config) -> Vec<String> {
        let generation = self.generation.fetch_add(1, SeqCst) + 1;
        let compiled = compile(config, generation, None, &self.environment);
        assert!(compiled.problems.is_empty(), "{:?}", compiled.problems);
        self.published.publish(compiled.snapshot);
        compiled.warnings
    }

    /// Reads certificates again, and serves with them.
    pub fn rotate(&self, config: &model::Config) {
        assert!(self.environment.keyring.refresh(), "nothing changed");
        self.publish(config);
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The answer to one request in plaintext; empty: the connection was reset or closed.
    pub fn get(&self) -> String {
        let mut stream = self.connect();
        let request =
            "GET / HTTP/1.1\r\nhost: b\r\nx-forwarded-client-cert: forged\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    pub fn metrics(&self) -> String {
        self.telemetry.encode()
    }

    /// Answers who has waited too long for a place, as of `now`.
    pub fn expire_held(&self, now: Instant) {
        self.published.current().expire_held(now);
    }

    /// Requests that are held.
    pub fn held(&self) -> usize {
        self.environment.registry.room().held()
    }

    /// Waits until so many requests are held.
    pub fn until_held(&self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.held() != count {
            assert!(Instant::now() < deadline, "never {count} held");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the metrics have a line with all of `words` that ends in `value`.
    pub fn until(&self, words: &[&str], value: &str) {
        let deadline = Instant::now() + DEADLINE;
        let is = |line: &str| words.iter().all(|word| line.contains(word)) && line.ends_with(value);
        while !self.metrics().lines().any(is) {
            assert!(Instant::now() < deadline, "never {words:?} {value}:\n{}", self.metrics());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Sends a request on an open connection, and gives the status line of its answer; empty: there was none.
pub fn again(stream: &mut (impl Read + Write)) -> String {
    if stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n").is_err() {
        return String::new();
    }
    let Some(head) = head(stream) else { return String::new() };
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head.lines().next().unwrap_or_default().to_owned()
}
