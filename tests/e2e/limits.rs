//! Limits hold exactly, whatever the number of workers.

use crate::support::proxy::PILOTLIGHT;
use crate::support::{Origin, Proxy, RawOrigin, Response, eventually, millis, seconds, together, yaml};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn upstream(endpoints: &[SocketAddr], policy: &str, route: &str) -> String {
    yaml::all_to_with("HTTP", endpoints, route) + &yaml::destination_rule("upstream.test", policy)
}

/// The most established connections to `port` that this machine knew while `act` ran.
fn connections_during(port: u16, act: impl FnOnce()) -> usize {
    let (stop, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                most.fetch_max(established_to(port), Ordering::SeqCst);
                std::thread::sleep(millis(1));
            }
        });
        act();
        stop.store(true, Ordering::SeqCst);
    });
    most.into_inner()
}

/// Sockets of this machine whose far end is `port` and whose connection stands.
fn established_to(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let far = format!(":{port:04X}");
    table
        .lines()
        .filter(|line| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next().is_some_and(|remote| remote.ends_with(&far)) && fields.next() == Some("01")
        })
        .count()
}

fn statuses(responses: &[Response], status: u16) -> usize {
    responses.iter().filter(|response| response.status == status).count()
}

#[test]
fn max_connections_is_exact_over_four_workers() {
    let origin = Origin::h1().delay(millis(30)).reply("hello");
    let policy = "connectionPool: {tcp: {maxConnections: 2}}";
    let proxy = Proxy::with(upstream(&[origin.address()], policy, "")).workers(4).start();
    let most = connections_during(origin.address().port(), || {
        for response in together(32, |_| proxy.get("/").send()) {
            response.expect(200);
        }
    });
    assert_eq!(origin.peak(), 2, "two ran at the same time, never three");
    assert!(most <= 2, "{most} connections stood at the same time");
}

#[test]
fn who_waits_for_a_connection_is_counted_and_the_rest_is_told_at_once() {
    let origin = Origin::h1().delay(millis(700)).reply("hello");
    let policy = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2}}";
    let proxy = Proxy::with(upstream(&[origin.address()], policy, "")).workers(4).start();
    let front = proxy.front();
    // A request whose connection is being opened waits, too: the first one has its connection before others come.
    let first = std::thread::spawn(move || front.get("/first").send());
    eventually("the only connection is in use", seconds(5), || (origin.hits() == 1).then_some(()));
    let responses = together(7, |_| front.get("/queue").send());
    assert_eq!((statuses(&responses, 200), statuses(&responses, 503)), (2, 5));
    first.join().unwrap().expect(200);
    for refused in responses.iter().filter(|response| response.status == 503) {
        assert_eq!(refused.header("x-envoy-overloaded"), "true");
        assert!(refused.took < millis(600), "{:?}", refused.took);
    }
    assert!(proxy.access_line(&["/queue", " 503 "]).contains(" 503 UO "), "{}", proxy.output());
    assert_eq!(origin.peak(), 1);
}

#[test]
fn requests_in_flight_have_a_limit_of_their_own() {
    let origin = Origin::h1().delay(millis(500)).reply("hello");
    let policy = "connectionPool: {http: {http2MaxRequests: 3}}";
    let proxy = Proxy::with(upstream(&[origin.address()], policy, "retries: {}")).workers(4).start();
    let responses = together(9, |_| proxy.get("/").send());
    assert_eq!((statuses(&responses, 200), statuses(&responses, 503)), (3, 6));
    assert_eq!(origin.peak(), 3);
}

#[test]
fn a_connection_ends_after_as_many_requests_as_it_may_carry() {
    let origin = Origin::h1().reply("hello");
    let policy = "connectionPool: {http: {maxRequestsPerConnection: 3}}";
    let proxy = Proxy::with(upstream(&[origin.address()], policy, "")).workers(1).start();
    let mut client = proxy.front().connect();
    for _ in 0..9 {
        client.send(proxy.get("/")).expect(200);
    }
    assert_eq!(origin.connections(), 3);
}

#[test]
fn five_failures_spread_over_workers_eject_once() {
    let (good, bad) = (Origin::h1().reply("good"), Origin::h1().status(503));
    let policy = "loadBalancer: {simple: ROUND_ROBIN}\noutlierDetection: {consecutive5xxErrors: 5, interval: 60s, \
                  baseEjectionTime: 60s, maxEjectionPercent: 100}";
    let text = upstream(&[good.address(), bad.address()], policy, "retries: {}");
    let proxy = Proxy::with(text).workers(4).start();
    eventually("the bad endpoint failed five times", seconds(10), || {
        proxy.get("/").send();
        (bad.hits() >= 5).then_some(())
    });
    for _ in 0..40 {
        assert_eq!(proxy.get("/").send().expect(200).text(), "good");
    }
    assert_eq!(bad.hits(), 5, "the fifth ejects, and nothing is sent there after it");
}

#[test]
fn ten_percent_of_two_endpoints_is_none() {
    let (good, bad) = (Origin::h1().reply("good"), Origin::h1().status(503));
    let policy = "loadBalancer: {simple: ROUND_ROBIN}\noutlierDetection: {consecutive5xxErrors: 2}";
    let text = upstream(&[good.address(), bad.address()], policy, "retries: {}");
    let proxy = Proxy::with(text).start();
    for _ in 0..40 {
        proxy.get("/").send();
    }
    assert!(bad.hits() > 5, "Envoy's arithmetic: one of two is more than maxEjectionPercent 10");
}

#[test]
fn an_ejected_endpoint_comes_back() {
    let bad =
        Origin::h1().answer(|seen| crate::support::Reply::status(if seen.number <= 2 { 500 } else { 200 }));
    let policy = "outlierDetection: {consecutive5xxErrors: 2, interval: 200ms, baseEjectionTime: 500ms, \
                  maxEjectionPercent: 100}";
    let proxy = Proxy::with(upstream(&[bad.address()], policy, "retries: {}")).workers(2).start();
    proxy.get("/").send().expect(500);
    proxy.get("/").send().expect(500);
    let ejected = proxy.get("/ejected").send().expect(503);
    assert_eq!(ejected.text(), "no healthy upstream");
    assert!(proxy.access_line(&["/ejected"]).contains(" 503 UH "), "{}", proxy.output());
    eventually("it is asked again", seconds(5), || (proxy.get("/").send().status == 200).then_some(()));
}

#[test]
fn container_concurrency_one_peaks_at_one_over_four_workers() {
    let annotations = "autoscaling.knative.dev/max-scale: '1'";
    let proxy = Proxy::with(yaml::function("one", annotations, "containerConcurrency: 1")).workers(4).start();
    let ask =
        |path: &str| proxy.get(path).host("one.default.localhost").timeout(seconds(30)).send().expect(200);
    together(24, |_| ask("/?delay=20ms"));
    assert_eq!(ask("/").json()["peak"], 1);
}

#[test]
fn a_client_whose_connection_became_a_tunnel_still_counts_as_a_connection() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
        connection.read_to_end();
    });
    // Two descriptors a connection, and some to spare: 68 clients.
    let few = ["sh", "-c", "ulimit -n 200; exec \"$0\" \"$@\"", PILOTLIGHT];
    let text = yaml::all_to("HTTP", &[origin.address()]);
    let proxy = Proxy::with(text).workers(1).program(&few).start();
    let front = proxy.front();
    let tunnel = || {
        let mut client = front.raw();
        client.send("GET / HTTP/1.1\nhost: shop\nconnection: upgrade\nupgrade: websocket\n\n");
        client.read_until("\n").starts_with("HTTP/1.1 101 ").then_some(client)
    };
    let mut open: Vec<_> = (0..68).filter_map(|_| tunnel()).collect();
    assert_eq!(open.len(), 68);
    assert_eq!(front.raw().read_to_end(), "", "one more is refused");
    open.pop();
    eventually("there is room again", seconds(5), || {
        let mut client = front.raw();
        client.is_silent_for(millis(50)).then_some(())
    });
}

#[test]
fn an_answer_that_comes_whole_at_the_last_moment_is_passed_on_or_refused_but_not_cut() {
    // Each of many at a moment of its own around the deadline, written in one piece.
    let body = "x".repeat(700);
    let origin = RawOrigin::script(move |mut connection, _| {
        let head = connection.read_head();
        let micros = head.split(['/', ' ']).find_map(|part| part.parse().ok()).expect("a number in the path");
        std::thread::sleep(Duration::from_micros(micros));
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: 700\nconnection: close\n\n{body}"));
        connection.read_to_end();
    });
    let text = yaml::all_to_with("HTTP", &[origin.address()], "timeout: 200ms\nretries: {attempts: 0}");
    let proxy = Proxy::with(text).workers(2).access_log("off").start();
    let front = proxy.front();
    let outcomes = together(20, |client| {
        let ask = |n: usize| front.get(&format!("/{}", 195_000 + (n * 20 + client) * 20)).send();
        (0..20).map(ask).map(|answer| (answer.status, answer.body.len())).collect::<Vec<_>>()
    });
    for (status, length) in outcomes.into_iter().flatten() {
        assert!(status == 200 && length == 700 || status == 504, "{status} with {length} bytes");
    }
}
