//! Clients that leave, upstreams that break: afterwards nothing is missing and nobody waits in vain.

use crate::support::h2_origin::{H2Origin, answer};
use crate::support::{Origin, Proxy, RawOrigin, Reply, eventually, millis, seconds, together, yaml};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

fn proxy(protocol: &str, endpoints: &[SocketAddr], policy: &str, route: &str) -> Proxy {
    let text =
        yaml::all_to_with(protocol, endpoints, route) + &yaml::destination_rule("upstream.test", policy);
    Proxy::with(text).workers(4).access_log("off").start()
}

/// Waits until `/clusters` counts nothing in flight any more.
#[track_caller]
fn comes_to_rest(proxy: &Proxy) {
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    let admin = proxy.admin();
    eventually("every count of every cluster is 0 again", seconds(5), || {
        let clusters = admin.get("/clusters").send().json();
        let quiet = |c: &serde_json::Value| {
            let counts = ["requests", "pending", "retries", "held"].iter().all(|name| c[*name] == 0);
            let endpoints =
                c["endpoints"].as_array().is_some_and(|all| all.iter().all(|e| e["in_flight"] == 0));
            counts && endpoints
        };
        clusters.as_array().is_some_and(|all| all.iter().all(quiet)).then_some(())
    });
}

/// A number that looks random, for the `n`-th step of client `client`.
fn dice(client: usize, n: usize) -> usize {
    let x = (client as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (n as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    ((x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33) as usize
}

#[test]
fn two_connections_serve_many_of_whom_some_leave_and_some_are_cut_off() {
    let origin = Origin::h1().answer(|seen| match seen.uri.path() {
        "/slow" => Reply::text("late").after(millis(400)),
        "/cut" => Reply::hang_up(),
        _ => Reply::text("hello").after(millis(2)),
    });
    let policy = "connectionPool: {tcp: {maxConnections: 2}}";
    let proxy = proxy("HTTP", &[origin.address()], policy, "timeout: 10s\nretries: {}");
    let front = proxy.front();
    together(24, |client| {
        for n in 0..25 {
            match dice(client, n) % 8 {
                0 => drop(front.get("/slow").timeout(millis(30)).try_send()),
                1 => drop(front.post("/cut", "x").try_send()),
                _ => drop(front.get("/").send().expect(200)),
            }
        }
    });
    assert!(origin.connections_peak() <= 3, "{} (one may be closing)", origin.connections_peak());
    comes_to_rest(&proxy);
}

#[test]
fn one_http2_connection_with_two_streams_serves_many_of_whom_some_leave() {
    let script = async |mut connection: crate::support::h2_origin::H2Connection, _| {
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match request.uri().path() {
                "/never" => held.push(respond),
                "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                _ => answer(respond, "hello"),
            }
        }
    };
    let origins = [H2Origin::script(2, script), H2Origin::script(2, script)];
    let policy = "connectionPool: {tcp: {maxConnections: 2}}";
    let proxy =
        proxy("HTTP2", &[origins[0].address(), origins[1].address()], policy, "timeout: 10s\nretries: {}");
    let front = proxy.front();
    together(24, |client| {
        for n in 0..25 {
            match dice(client, n) % 8 {
                0 => drop(front.get("/never").timeout(millis(30)).try_send()),
                1 => drop(front.post("/reset", "x").try_send()),
                _ => drop(front.get("/").send().expect(200)),
            }
        }
    });
    comes_to_rest(&proxy);
}

#[test]
fn an_upstream_that_closes_idle_connections_about_as_often_as_they_are_used_costs_nobody_an_answer() {
    let posts: &'static [AtomicUsize] = Box::leak((0..2000).map(|_| AtomicUsize::new(0)).collect());
    let origin = RawOrigin::script(move |mut connection, number| {
        for n in 0.. {
            let head = connection.read_head();
            if let Some(id) = head.strip_prefix("POST /").and_then(|rest| rest.split(' ').next()) {
                posts[id.parse::<usize>().unwrap()].fetch_add(1, Ordering::SeqCst);
                connection.read_exactly(1);
            }
            connection.send("HTTP/1.1 200 OK\ncontent-length: 2\n\nok");
            if !connection.is_silent_for(millis(1 + (dice(number, n) % 4) as u64)) {
                continue;
            }
            return;
        }
    });
    let proxy = proxy("HTTP", &[origin.address()], "loadBalancer: {simple: RANDOM}", "retries: {}");
    let front = proxy.front();
    let lost = AtomicUsize::new(0);
    together(4, |client| {
        let mut kept = front.connect();
        for n in 0..400 {
            std::thread::sleep(millis((dice(client, n) % 5) as u64));
            if n % 4 == 0 {
                // A POST that may have arrived must not be sent again, so a few may be lost.
                let status = kept.send(front.post(&format!("/{}", client * 400 + n), "x")).status;
                lost.fetch_add(usize::from(status != 200), Ordering::SeqCst);
            } else {
                kept.send(front.get("/")).expect(200);
            }
        }
    });
    assert!(posts.iter().all(|count| count.load(Ordering::SeqCst) <= 1), "a POST arrived twice");
    assert!(lost.load(Ordering::SeqCst) < 100, "{lost:?}");
    comes_to_rest(&proxy);
}

#[test]
fn the_rest_of_a_body_that_was_half_sent_when_its_first_upstream_died_follows_the_copy() {
    let origin = RawOrigin::script(|mut connection, number| {
        connection.read_head();
        connection.read_until("3\r\nabc\r\n");
        if number == 1 {
            return;
        }
        let rest = connection.read_until("0\r\n\r\n");
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: {}\n\n", rest.len())).send(&rest);
    });
    let proxy = proxy(
        "HTTP",
        &[origin.address()],
        "loadBalancer: {simple: RANDOM}",
        "retries: {attempts: 1, retryOn: reset}",
    );
    let mut client = proxy.front().raw();
    client.send("POST / HTTP/1.1\nhost: shop\ntransfer-encoding: chunked\n\n3\nabc\n");
    eventually("a second upstream has the copy", seconds(5), || (origin.connections() == 2).then_some(()));
    client.send("3\ndef\n0\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read_until("0\r\n\r\n"), "3\r\ndef\r\n0\r\n\r\n");
    comes_to_rest(&proxy);
}

#[test]
fn slots_of_a_function_come_back_whatever_becomes_of_its_callers() {
    let annotations = "autoscaling.knative.dev/max-scale: '2'";
    let text = yaml::function("busy", annotations, "containerConcurrency: 2");
    let proxy = Proxy::with(text).workers(4).access_log("off").start();
    let front = proxy.front();
    let ask = |path: &str| front.get(path).host("busy.default.localhost").timeout(seconds(20));
    ask("/").send().expect(200);
    together(16, |client| {
        for n in 0..15 {
            match dice(client, n) % 6 {
                0 => drop(ask("/?delay=300ms").timeout(millis(20)).try_send()),
                1 => drop(ask("/?close=1").try_send()),
                _ => drop(ask("/?delay=5ms").send().expect(200)),
            }
        }
    });
    comes_to_rest(&proxy);
}
