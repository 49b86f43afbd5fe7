//! HTTP/2 clients that want work, not answers: memory stays within bounds, and others are served meanwhile.
//!
//! `PILOTLIGHT_ASSAULT_SECONDS=20 cargo test --release --test e2e assaults -- --nocapture --test-threads=1` attacks for
//! longer. Then, too, of a hundred requests of an ordinary client, to an application that takes a millisecond, the
//! slowest may take three times as long as in peace: while four attackers do to the client's only worker what they can,
//! and connect anew whenever they are shut out. What is measured is what the proxy does to others; see `Threads`.

use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use crate::support::{Origin, Proxy, Reply, eventually, seconds, yaml};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What an attack may cost over what the proxy has when idle.
const MOST: u64 = 64 << 20;
/// Attackers at once.
const ATTACKERS: usize = 4;
/// Longer than anything takes here that comes at all.
const PATIENCE: Duration = seconds(30);

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What an attacker does on each of its connections. All of it is made beforehand, so that attackers cost this process,
/// in which the other client and the origin are too, nothing but writes.
struct Assault {
    /// The payload of its SETTINGS.
    settings: Vec<u8>,
    /// Said first.
    start: Vec<u8>,
    /// Said then, by parts, while they are taken.
    parts: Vec<Vec<u8>>,
    /// Whether the parts are said again and again; else it connects anew.
    again: bool,
    /// How many times as long others may have to wait.
    slower: f64,
}

impl Assault {
    /// The same again and again.
    fn repeat(part: Vec<u8>) -> Assault {
        Assault { settings: Vec::new(), start: Vec::new(), parts: vec![part], again: true, slower: 3.0 }
    }

    /// What `make` makes of each stream's number, many at once.
    fn streams(make: impl Fn(u32) -> Vec<u8>) -> Assault {
        let part = |first: u32| (first..first + 64).step_by(2).flat_map(&make).collect();
        Assault {
            parts: (1..20_000).step_by(64).map(part).collect(),
            again: false,
            ..Assault::repeat(Vec::new())
        }
    }

    fn after(self, start: Vec<u8>) -> Assault {
        Assault { start, ..self }
    }

    fn run(&self, front: SocketAddr, stop: &AtomicBool) {
        let mut client = Frames::to(front, &self.settings);
        let mut taken = client.send(&self.start);
        let goes_on = || !stop.load(Ordering::Relaxed);
        while taken && goes_on() {
            taken = self.parts.iter().all(|part| goes_on() && client.send(part)) && self.again;
            if self.parts.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Until the proxy has ended the connection, however slow the machine is.
    fn run_to_the_end(&self, front: SocketAddr) {
        let mut client = Frames::to(front, &self.settings);
        client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut taken = client.send(&self.start);
        while taken {
            taken = self.parts.iter().all(|part| client.send(part)) && self.again;
        }
        while client.read().is_some() {}
    }
}

/// Ends the attack when it is let go, as a failed assertion does too.
struct Peace<'a>(&'a AtomicBool);

impl Drop for Peace<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The threads that a request goes through. Attackers, clients, origin and proxy share the CPUs of one machine here, as
/// they never would: how long these threads waited for one is known to the system, and is not the proxy's doing.
struct Threads(Vec<PathBuf>);

impl Threads {
    /// The proxy's, and those of this process, before there are attackers.
    fn of(proxy: &Proxy) -> Threads {
        let of = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tasks = of(proxy.pid()).chain(of(std::process::id()));
        Threads(tasks.map(|task| task.unwrap().path().join("schedstat")).collect())
    }

    /// How long each of them has been ready to run without running.
    fn waited(&self) -> Vec<u64> {
        let waited = |path| std::fs::read_to_string(path).ok()?.split(' ').nth(1)?.parse().ok();
        self.0.iter().map(|path| waited(path).unwrap_or(0)).collect()
    }
}

/// How long an ordinary client's requests take, for so long; the slowest in a hundred. Of each is taken off what the
/// one thread waited for a CPU that waited longest.
fn others(proxy: &Proxy, threads: &Threads, length: Duration, mut look: impl FnMut()) -> Duration {
    let (begun, mut took) = (Instant::now(), Vec::new());
    let mut connection = proxy.front().connect();
    while begun.elapsed() < length || took.len() < 100 {
        let before = threads.waited();
        let response = connection.send(proxy.get("/others")).expect(200);
        let after = threads.waited();
        let waited = after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).max();
        took.push(response.took.saturating_sub(Duration::from_nanos(waited.unwrap_or(0))));
        look();
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Answers nothing, and costs next to nothing.
fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = VecDeque::new();
        for stream in listener.incoming().flatten() {
            kept.push_back(stream);
            if kept.len() > 2000 {
                // It has been given up long ago.
                kept.pop_front();
            }
        }
    });
    address
}

/// Attacks a proxy with one worker while another client asks it.
fn check(name: &str, fault: Option<&str>, assault: &Assault) {
    let large = "x".repeat(1 << 20);
    let attacked = Origin::h1().answer(move |seen| match seen.uri.path() {
        "/large" => Reply::text(&large),
        _ => Reply::text("small"),
    });
    let origin = Origin::h1().answer(|_| Reply::text("small"));
    let silent = silent();
    let rules = "- match: [{uri: {prefix: /others}}]\n  route: [{destination: {host: others.test}}]\n\
                 - match: [{uri: {prefix: /silent}}]\n  route: [{destination: {host: silent.test}}]\n\
                 - route: [{destination: {host: attacked.test}}]";
    let text = [
        yaml::service_entry("others.test", "HTTP", &[origin.address()]),
        yaml::service_entry("attacked.test", "HTTP", &[attacked.address()]),
        yaml::service_entry("silent.test", "HTTP", &[silent]),
        yaml::virtual_service("all", "*", rules),
    ];
    let proxy = Proxy::with(text.concat()).workers(1).access_log("off").start();
    let front: SocketAddr = proxy.front().address();
    let long = std::env::var("PILOTLIGHT_ASSAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = long.map_or(Duration::from_millis(1500), seconds);
    let threads = Threads::of(&proxy);
    let peace = others(&proxy, &threads, length / 4, || {});
    let idle = resident(proxy.pid());
    let (stop, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut most, mut war) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        let _peace = Peace(&stop);
        for _ in 0..ATTACKERS {
            scope.spawn(|| {
                // Attackers have machines of their own: here they get what others leave.
                let _ = rustix::process::setpriority_process(None, 19);
                while !stop.load(Ordering::Relaxed) {
                    connections.fetch_add(1, Ordering::Relaxed);
                    assault.run(front, &stop);
                }
            });
        }
        war = others(&proxy, &threads, length, || most = most.max(resident(proxy.pid())));
    });
    let grown = most.saturating_sub(idle);
    let (each, times) = (connections.into_inner(), war.as_secs_f64() / peace.as_secs_f64());
    let slower = format!("others' p99 {peace:?} in peace, {war:?} now: {times:.1} times");
    println!("{name}: {each} connections, memory +{} KiB, {slower}", grown >> 10);
    assert!(grown <= MOST, "{name}: {grown} bytes more than idle");
    assert!(long.is_none() || cfg!(debug_assertions) || times <= assault.slower, "{name}: {slower}");
    assert!(war < PATIENCE, "{name}: {slower}");
    if let Some(fault) = fault {
        // Those attackers may have got nowhere on a busy machine, and they leave when they like.
        assault.run_to_the_end(front);
        let count = || proxy.metrics().sum("pilotlight_faults_total", &[("fault", fault)]);
        eventually(&format!("{name} counted as {fault}"), PATIENCE, || (count() > 0.0).then_some(()));
    }
    proxy.get("/others").send().expect(200);
}

fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/small"))
}

#[test]
fn rapid_resets_end_the_connection() {
    let reset = |stream| [ask(stream), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat();
    check("rapid reset", Some("Http2Flood"), &Assault::streams(reset));
}

#[test]
fn resets_of_what_has_begun_cost_others_little() {
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let blocks = (1..20_000).step_by(64).flat_map(|first| {
        let streams = move || (first..first + 64).step_by(2);
        [streams().flat_map(ask).collect(), streams().flat_map(reset).collect()]
    });
    let assault = Assault { parts: blocks.collect(), again: false, ..Assault::repeat(Vec::new()) };
    check("late reset", None, &assault);
}

#[test]
fn resets_of_what_has_begun_end_the_connection() {
    let ask = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/silent"));
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let parts = (1..20_000).step_by(64).flat_map(|first| {
        let streams = move || (first..first + 64).step_by(2);
        [streams().flat_map(ask).collect(), streams().flat_map(reset).collect()]
    });
    // What has begun is work as any other's: each costs a connection to the destination.
    let assault =
        Assault { parts: parts.collect(), again: false, slower: 8.0, ..Assault::repeat(Vec::new()) };
    check("late reset", Some("Http2Flood"), &assault);
}

#[test]
fn streams_that_make_the_proxy_reset_them_end_the_connection() {
    let grow = |by: u32| {
        Assault::streams(move |stream| {
            [ask(stream), frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())].concat()
        })
    };
    // A window beyond what there may be is an error of the stream.
    check("made you reset", Some("Http2Flood"), &grow(0x7fff_ffff));
    check("made you end it", Some("Http2Violation"), &grow(0));
}

#[test]
fn a_head_without_end_is_cut_off() {
    let more = frame(CONTINUATION, 0, 1, &frames::field("x", &"y".repeat(100)).repeat(100));
    let head = frame(HEADERS, END_STREAM, 1, &frames::get("/small"));
    check("continuation flood", Some("Http2Flood"), &Assault::repeat(more).after(head));
}

#[test]
fn floods_of_settings_and_pings_cost_no_memory_though_nobody_reads_the_answers() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(100);
    check("settings flood", Some("Http2Flood"), &Assault::repeat(settings));
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    check("ping flood", Some("Http2Flood"), &Assault::repeat(pings));
}

#[test]
fn a_small_block_that_unfolds_to_a_large_head_is_refused() {
    // One field of 4 KiB into the table, and then a byte for each time it is meant.
    let value = "y".repeat(4000);
    let length = value.len() - 127;
    let prefix = [0x40, 1, b'x', 127, (length & 127) as u8 | 128, (length >> 7) as u8];
    let table = [&frames::get("/small")[..], &prefix, value.as_bytes()].concat();
    let bomb = [&frames::get("/small")[..], &[0xbe; 12_000]].concat();
    let bombs = Assault::streams(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &bomb));
    check("header bomb", None, &bombs.after(frame(HEADERS, END_HEADERS | END_STREAM, 1, &table)));
}

#[test]
fn empty_parts_of_a_body_without_end_end_the_connection() {
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/small")];
    let head = frame(HEADERS, END_HEADERS, 1, &frames::block(&head));
    let empty = frame(DATA, 0, 1, &[]).repeat(100);
    check("empty body parts", Some("Http2Flood"), &Assault::repeat(empty).after(head));
}

#[test]
fn answers_that_nobody_takes_wait_within_bounds() {
    let asked = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/large"));
    let start = (1..400).step_by(2).flat_map(asked).collect();
    // INITIAL_WINDOW_SIZE 0.
    let settings = vec![0, 4, 0, 0, 0, 0];
    let stalled = Assault { settings, start, parts: Vec::new(), ..Assault::repeat(Vec::new()) };
    check("window stall", None, &stalled);
}
