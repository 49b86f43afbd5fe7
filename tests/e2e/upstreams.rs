//! Upstream connections that die, refuse, or are too few.

use crate::support::h2_origin::{H2Origin, answer};
use crate::support::{Proxy, eventually, millis, seconds, together, yaml};
use std::net::SocketAddr;

fn h2_proxy(endpoints: &[SocketAddr], policy: &str, route: &str) -> Proxy {
    let text = yaml::all_to_with("HTTP2", endpoints, route);
    let rule =
        if policy.is_empty() { String::new() } else { yaml::destination_rule("upstream.test", policy) };
    Proxy::with(text + &rule).workers(1).start()
}

#[test]
fn a_stream_refused_on_a_used_http2_connection_is_sent_on_a_fresh_one() {
    let origin = H2Origin::script(100, async |mut connection, number| {
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if number == 1 && served > 1 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                answer(respond, &number.to_string());
            }
        }
    });
    let proxy = h2_proxy(&[origin.address()], "", "retries: {}");
    assert_eq!(proxy.get("/").send().expect(200).text(), "1");
    let response = proxy.post("/", "x").timeout(seconds(3)).send().expect(200);
    assert_eq!(response.text(), "2");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn an_http2_connection_that_dies_under_a_get_is_replaced_without_anybody_noticing() {
    let origin = H2Origin::script(100, async |mut connection, number| {
        if let Some(Ok((_, respond))) = connection.accept().await {
            answer(respond, &number.to_string());
        }
        // The second request is read, and then the connection is gone.
        connection.accept().await;
    });
    let proxy = h2_proxy(&[origin.address()], "", "retries: {}");
    for expected in 1..=4 {
        let response = proxy.get("/").timeout(seconds(3)).send().expect(200);
        assert_eq!(response.text(), expected.to_string());
    }
}

#[test]
fn a_refused_stream_with_no_second_connection_allowed_goes_to_the_first_again() {
    let origin = H2Origin::script(100, async |mut connection, _| {
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if served == 2 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                answer(respond, &served.to_string());
            }
        }
    });
    let proxy = h2_proxy(&[origin.address()], "connectionPool: {tcp: {maxConnections: 1}}", "retries: {}");
    proxy.get("/").send().expect(200);
    assert_eq!(proxy.get("/").timeout(seconds(3)).send().expect(200).text(), "3");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn requests_above_a_goaway_go_to_the_next_connection() {
    let origin = H2Origin::script(100, async |mut connection, _| {
        let mut served = 0;
        while let Some(Ok((_, respond))) = connection.accept().await {
            answer(respond, "hello");
            served += 1;
            if served == 10 {
                connection.graceful_shutdown();
            }
        }
    });
    let proxy = h2_proxy(&[origin.address()], "", "retries: {}");
    let front = proxy.front();
    together(8, |_| {
        let mut client = front.connect();
        for _ in 0..50 {
            client.send(front.post("/", "x").timeout(seconds(5))).expect(200);
        }
    });
    assert!(origin.connections() >= 20, "{}", origin.connections());
}

#[test]
fn an_upstream_that_closes_every_http2_connection_at_once_is_not_dialled_for_ever() {
    let origin = crate::support::RawOrigin::script(|connection, _| drop(connection));
    let proxy = h2_proxy(&[origin.address()], "", "retries: {}");
    for _ in 0..20 {
        proxy.get("/").timeout(seconds(3)).send().expect(503);
    }
    assert!(origin.connections() <= 60, "{}", origin.connections());
}

#[test]
fn a_stream_that_its_client_leaves_makes_room_for_who_waits() {
    let origin = H2Origin::script(1, async |mut connection, _| {
        let mut held = Vec::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            if request.uri().path() == "/never" {
                held.push(respond);
            } else {
                answer(respond, "hello");
            }
        }
    });
    let proxy = h2_proxy(&[origin.address()], "connectionPool: {tcp: {maxConnections: 1}}", "retries: {}");
    let front = proxy.front();
    // The origin's own limit is known once it has answered.
    front.get("/").send().expect(200);
    let stuck = std::thread::spawn(move || front.get("/never").timeout(millis(700)).try_send());
    std::thread::sleep(millis(200));
    let waiting = front.get("/").timeout(seconds(3)).send().expect(200);
    assert!(waiting.took > millis(300), "{:?}", waiting.took);
    assert!(stuck.join().unwrap().is_err());
}

#[test]
fn the_only_connection_goes_round_between_endpoints() {
    let script = || {
        H2Origin::script(100, async |mut connection, _| {
            while let Some(Ok((_, respond))) = connection.accept().await {
                answer(respond, "hello");
            }
        })
    };
    let origins = [script(), script()];
    let policy = "loadBalancer: {simple: ROUND_ROBIN}\nconnectionPool: {tcp: {maxConnections: 1}}";
    let proxy = h2_proxy(&[origins[0].address(), origins[1].address()], policy, "retries: {}");
    for _ in 0..10 {
        let response = proxy.get("/").timeout(seconds(3)).send().expect(200);
        assert!(response.took < seconds(1), "{:?}", response.took);
    }
    eventually("every count is back", seconds(3), || {
        let clusters = proxy.admin().get("/clusters").send().json();
        let cluster = clusters
            .as_array()?
            .iter()
            .find(|c| c["name"].as_str().is_some_and(|n| n.contains("upstream")))?;
        (cluster["requests"] == 0 && cluster["pending"] == 0).then_some(())
    });
}
