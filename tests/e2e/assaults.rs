//! HTTP/2 clients that want work, not answers: memory stays within bounds, and others are served meanwhile.
//!
//! `PILOTLIGHT_ASSAULT_SECONDS=20 cargo test --release --test e2e assaults -- --nocapture --test-threads=1` attacks for
//! longer and prints how long the requests of others took beside how long they take in peace.

use crate::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use crate::support::{Origin, Proxy, Reply, seconds};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What an attack may cost over what the proxy has when idle.
const MOST: u64 = 64 << 20;
/// Attackers at once.
const ATTACKERS: usize = 4;

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// How long an ordinary client's requests take, for so long; the slowest in a hundred.
fn others(proxy: &Proxy, length: Duration, mut look: impl FnMut()) -> Duration {
    let (begun, mut took) = (Instant::now(), Vec::new());
    let mut connection = proxy.front().connect();
    while begun.elapsed() < length || took.len() < 20 {
        let response = connection.send(proxy.get("/small")).expect(200);
        took.push(response.took);
        look();
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Attacks a proxy with one worker while another client asks it.
fn check(
    name: &str,
    fault: Option<&str>,
    settings: &[u8],
    assault: impl Fn(&mut Frames, &AtomicBool) + Sync,
) {
    let large = "x".repeat(1 << 20);
    let origin = Origin::h1().answer(move |seen| match seen.uri.path() {
        "/large" => Reply::text(&large),
        _ => Reply::text("small"),
    });
    let proxy = Proxy::to(&origin).workers(1).access_log("off").start();
    let front: SocketAddr = proxy.front().address();
    let long = std::env::var("PILOTLIGHT_ASSAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    let length = long.map_or(Duration::from_millis(1500), seconds);
    let peace = others(&proxy, length / 4, || {});
    let idle = resident(proxy.pid());
    let stop = AtomicBool::new(false);
    let (mut most, mut war) = (0, Duration::ZERO);
    std::thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(|| {
                // Attackers have machines of their own: here they get what others leave.
                let _ = rustix::process::setpriority_process(None, 19);
                while !stop.load(Ordering::Relaxed) {
                    assault(&mut Frames::to(front, settings), &stop);
                }
            });
        }
        war = others(&proxy, length, || most = most.max(resident(proxy.pid())));
        stop.store(true, Ordering::Relaxed);
    });
    let grown = most.saturating_sub(idle);
    println!("{name}: memory +{} KiB, others' p99 {peace:?} in peace, {war:?} now", grown >> 10);
    assert!(grown <= MOST, "{name}: {grown} bytes more than idle");
    if let Some(fault) = fault {
        let count = proxy.metrics().sum("pilotlight_faults_total", &[("fault", fault)]);
        assert!(count > 0.0, "{name} is not counted as {fault}");
    }
    proxy.get("/small").send().expect(200);
}

/// Sends the same again until it is not taken any more.
fn repeat(client: &mut Frames, stop: &AtomicBool, bytes: &[u8]) {
    while !stop.load(Ordering::Relaxed) && client.send(bytes) {}
}

/// Sends what `make` makes of each stream's number, many at once, until it is not taken any more.
fn streams(client: &mut Frames, stop: &AtomicBool, make: impl Fn(u32) -> Vec<u8>) {
    for first in (1..).step_by(64) {
        let bytes: Vec<u8> = (first..first + 64).step_by(2).flat_map(&make).collect();
        if stop.load(Ordering::Relaxed) || !client.send(&bytes) {
            return;
        }
    }
}

#[test]
fn rapid_resets_end_the_connection() {
    check("rapid reset", Some("Http2Flood"), &[], |client, stop| {
        streams(client, stop, |stream| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/small"));
            [head, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
        });
    });
}

#[test]
fn streams_that_make_the_proxy_reset_them_end_the_connection() {
    check("made you reset", Some("Http2Flood"), &[], |client, stop| {
        streams(client, stop, |stream| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/small"));
            // A window beyond what there may be is an error of the stream.
            [head, frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())].concat()
        });
    });
    check("made you end it", Some("Http2Violation"), &[], |client, stop| {
        streams(client, stop, |stream| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/small"));
            [head, frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes())].concat()
        });
    });
}

#[test]
fn a_head_without_end_is_cut_off() {
    check("continuation flood", Some("Http2Flood"), &[], |client, stop| {
        client.send(&frame(HEADERS, END_STREAM, 1, &frames::get("/small")));
        repeat(client, stop, &frame(CONTINUATION, 0, 1, &frames::field("x", &"y".repeat(100)).repeat(100)));
    });
}

#[test]
fn floods_of_settings_and_pings_cost_no_memory_though_nobody_reads_the_answers() {
    let settings = frame(SETTINGS, 0, 0, &[]).repeat(100);
    check("settings flood", Some("Http2Flood"), &[], |client, stop| repeat(client, stop, &settings));
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(100);
    check("ping flood", Some("Http2Flood"), &[], |client, stop| repeat(client, stop, &pings));
}

#[test]
fn a_small_block_that_unfolds_to_a_large_head_is_refused() {
    // One field of 4 KiB into the table, and then a byte for each time it is meant.
    let value = "y".repeat(4000);
    let length = value.len() - 127;
    let prefix = [0x40, 1, b'x', 127, (length & 127) as u8 | 128, (length >> 7) as u8];
    let table = [&frames::get("/small")[..], &prefix, value.as_bytes()].concat();
    let bomb = [&frames::get("/small")[..], &[0xbe; 12_000]].concat();
    check("header bomb", None, &[], |client, stop| {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &table));
        streams(client, stop, |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream + 2, &bomb));
    });
}

#[test]
fn empty_parts_of_a_body_without_end_end_the_connection() {
    check("empty body parts", Some("Http2Flood"), &[], |client, stop| {
        let head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/small")];
        client.send(&frame(HEADERS, END_HEADERS, 1, &frames::block(&head)));
        repeat(client, stop, &frame(DATA, 0, 1, &[]).repeat(100));
    });
}

#[test]
fn answers_that_nobody_takes_wait_within_bounds() {
    // INITIAL_WINDOW_SIZE 0.
    check("window stall", None, &[0, 4, 0, 0, 0, 0], |client, stop| {
        for stream in (1..400).step_by(2) {
            client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/large")));
        }
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}
