//! Timeouts and second tries.

use crate::support::{Origin, Proxy, RawOrigin, Reply, millis, seconds, yaml};
use std::net::SocketAddr;
use std::time::Duration;

/// An address where nobody listens.
fn closed() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

fn proxy_with(route: &str, endpoints: &[SocketAddr]) -> Proxy {
    Proxy::with(yaml::all_to_with("HTTP", endpoints, route)).workers(1).start()
}

/// Answers 503 so many times, then 200.
fn failing(times: usize) -> Origin {
    Origin::h1()
        .answer(move |seen| if seen.number <= times { Reply::status(503) } else { Reply::text("at last") })
}

#[test]
fn a_route_that_takes_too_long_is_504_ut() {
    let origin = Origin::h1().delay(seconds(5)).reply("late");
    let proxy = proxy_with("timeout: 300ms", &[origin.address()]);
    let response = proxy.get("/slow").send().expect(504);
    assert_eq!(response.text(), "upstream request timeout");
    assert!((millis(290)..seconds(2)).contains(&response.took), "{:?}", response.took);
    assert!(proxy.access_line(&["/slow"]).contains(" 504 UT response_timeout "), "{}", proxy.output());
}

#[test]
fn the_time_a_client_takes_to_send_its_body_does_not_count() {
    let origin = Origin::h1().reply("hello");
    let proxy = proxy_with("timeout: 400ms", &[origin.address()]);
    let mut client = proxy.front().raw();
    client.send("POST / HTTP/1.1\nhost: shop\ncontent-length: 4\n\n");
    for _ in 0..4 {
        // The point is that time passes between two bytes.
        std::thread::sleep(Duration::from_millis(200));
        client.send("x");
    }
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn the_timeout_of_an_answer_that_began_early_counts_from_the_end_of_the_request() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n1\na\n");
        connection.read_to_end();
    });
    let proxy = proxy_with("timeout: 300ms", &[origin.address()]);
    let mut client = proxy.front().raw();
    client.send("POST /early HTTP/1.1\nhost: shop\ncontent-length: 1\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read_until("a\r\n"), "1\r\na\r\n");
    assert!(client.is_silent_for(millis(500)), "the request has not ended yet");
    client.send("x");
    assert!(client.is_silent_for(millis(200)));
    assert_eq!(client.read_to_end(), "", "cut off, not ended");
    assert!(proxy.access_line(&["/early"]).contains(" 200 UT "), "{}", proxy.output());
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another() {
    let origin = Origin::h1().answer(|seen| {
        Reply::text("second").after(if seen.number == 1 { seconds(5) } else { Duration::ZERO })
    });
    let proxy =
        proxy_with("retries: {attempts: 2, perTryTimeout: 200ms, retryOn: reset}", &[origin.address()]);
    let response = proxy.get("/").send().expect(200);
    assert!((millis(190)..seconds(3)).contains(&response.took), "{:?}", response.took);
    assert_eq!(origin.hits(), 2);
}

#[test]
fn answers_are_tried_again_as_the_route_says() {
    let check = |route: &str, failures: usize, status: u16, hits: usize| {
        let origin = failing(failures);
        let proxy = proxy_with(route, &[origin.address()]);
        let response = proxy.get("/").send();
        assert_eq!((response.status, origin.hits()), (status, hits), "{route:?} {}", response.text());
    };
    check("", 1, 503, 1);
    check("retries: {attempts: 0}", 1, 503, 1);
    check("retries: {}", 1, 503, 1);
    check("retries: {attempts: 2, retryOn: 5xx}", 2, 200, 3);
    check("retries: {attempts: 2, retryOn: 5xx}", 3, 503, 3);
    check("retries: {attempts: 3, retryOn: 'gateway-error'}", 1, 200, 2);
    check("retries: {attempts: 3, retryOn: '503,connect-failure'}", 3, 200, 4);
    check("retries: {attempts: 3, retryOn: connect-failure}", 1, 503, 1);
    check("retries: {attempts: 3, retryOn: retriable-4xx}", 1, 503, 1);
}

#[test]
fn the_body_is_sent_again_whole() {
    let origin = failing(1);
    let proxy = proxy_with("retries: {attempts: 1, retryOn: 5xx}", &[origin.address()]);
    let body = vec![b'x'; 20_000];
    proxy.post("/", body.clone()).send().expect(200);
    assert_eq!(origin.seen().iter().map(|seen| seen.body == body).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn what_was_not_sent_is_always_tried_elsewhere() {
    let origin = Origin::h1().reply("hello");
    let proxy = proxy_with("", &[closed(), origin.address()]);
    for number in 0..30 {
        proxy.post("/", format!("{number}")).send().expect(200);
    }
    assert_eq!(origin.hits(), 30);
}

#[test]
fn an_upstream_nobody_answers_for_is_503_uf() {
    let proxy = proxy_with("retries: {}", &[closed()]);
    let response = proxy.get("/closed").send().expect(503);
    let text = response.text();
    assert!(text.starts_with("upstream connect error or disconnect/reset before headers"), "{text}");
    assert!(text.contains("connection failure"), "{text}");
    assert!(proxy.access_line(&["/closed"]).contains(" 503 UF "), "{}", proxy.output());
}

/// Each connection answers its first request and closes when it reads a second one.
fn closes_on_reuse() -> RawOrigin {
    RawOrigin::script(|mut connection, number| {
        connection.read_head();
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: 1\n\n{number}"));
        connection.read_head();
    })
}

#[test]
fn a_reused_connection_that_dies_is_replaced_without_anybody_noticing() {
    let origin = closes_on_reuse();
    let proxy = proxy_with("retries: {}", &[origin.address()]);
    let mut client = proxy.front().connect();
    for expected in ["1", "2", "3", "4"] {
        assert_eq!(client.send(proxy.get("/")).expect(200).text(), expected);
    }
}

#[test]
fn a_post_that_may_have_arrived_is_not_sent_twice() {
    let origin = closes_on_reuse();
    let proxy = proxy_with("retries: {}", &[origin.address()]);
    let mut client = proxy.front().connect();
    client.send(proxy.get("/")).expect(200);
    client.send(proxy.post("/once", "x")).expect(503);
    assert_eq!(origin.connections(), 1);
    assert!(proxy.access_line(&["/once"]).contains(" 503 UC "), "{}", proxy.output());
}

#[test]
fn an_idle_connection_that_the_upstream_closed_is_not_used() {
    let origin = RawOrigin::script(|mut connection, number| {
        connection.read_head();
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: 1\n\n{number}"));
    });
    let proxy = proxy_with("retries: {}", &[origin.address()]);
    for expected in 1..=5 {
        assert_eq!(proxy.post("/", "x").send().expect(200).text(), expected.to_string());
    }
}

#[test]
fn every_endpoint_down_but_one_answers_every_time() {
    let origin = Origin::h1().reply("hello");
    let endpoints = [closed(), closed(), closed(), origin.address()];
    let route = "retries: {attempts: 5, retryOn: 'connect-failure,reset'}";
    let proxy = proxy_with(route, &endpoints);
    for _ in 0..30 {
        proxy.get("/").send().expect(200);
    }
}

#[test]
fn an_upgrade_over_a_connection_that_had_died_is_asked_for_again() {
    let origin = RawOrigin::script(|mut connection, number| {
        let head = connection.read_head();
        if head.contains("upgrade: websocket") {
            connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
            connection.read_to_end();
            return;
        }
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: 1\n\n{number}"));
        connection.read_head();
    });
    let proxy = proxy_with("retries: {}", &[origin.address()]);
    proxy.get("/").send().expect(200);
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\nconnection: upgrade\nupgrade: websocket\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn urx_says_that_one_more_try_was_wanted_and_none_was_left() {
    let check = |origin: &RawOrigin, retry_on: &str, wanted: &str| {
        let route = format!("retries: {{attempts: 1, retryOn: '{retry_on}'}}");
        let proxy = proxy_with(&route, &[origin.address()]);
        proxy.get("/tried").send();
        let line = proxy.access_line(&["/tried"]);
        assert!(line.contains(wanted), "{line}");
    };
    let breaks = RawOrigin::script(|mut connection, _| drop(connection.read_head()));
    check(&breaks, "reset", " 503 UC,URX ");
    let breaks_then_fails = || {
        RawOrigin::script(|mut connection, number| {
            connection.read_head();
            if number > 1 {
                connection.send("HTTP/1.1 500 No\ncontent-length: 0\n\n");
            }
        })
    };
    check(&breaks_then_fails(), "reset", " 500 - ");
    check(&breaks_then_fails(), "reset,retriable-status-codes,500", " 500 URX ");
}
