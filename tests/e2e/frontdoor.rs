//! What the front door does with clients that are slow, silent or speak nonsense: each is bounded, named and counted.

use crate::support::{Origin, Proxy, RawClient, RawOrigin, Reply, eventually, millis, seconds, yaml};
use std::io::Write;
use std::time::Instant;

/// What an HTTP/2 client says first, its settings included.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn faults(proxy: &Proxy, fault: &str) -> f64 {
    proxy.metrics().sum("pilotlight_faults_total", &[("fault", fault)])
}

#[test]
fn what_the_parser_refuses_is_in_the_access_log_and_counted() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let check = |bytes: &[u8], parts: &[&str]| {
        let mut client = proxy.front().raw();
        client.send_bytes(bytes);
        client.read_to_end();
        proxy.access_line(parts);
    };
    check(b"GET / HTTP/9\r\n\r\n", &["\"- - HTTP/1.1\" 400 DPE http1.codec_error"]);
    check(b"GET / HTTP/1.1\nhost: a\r\n\r\n", &["400 DPE http1.codec_error - \"a line of the head"]);
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    check(large.as_bytes(), &["431 DPE http1.headers_too_large"]);
    // A frame of a stream that was never opened.
    let stray = [HELLO, b"\0\0\x01\0\0\0\0\0\x01x"].concat();
    check(&stray, &["\"- - HTTP/2\" 0 DPE http2.violation.of.messaging.rule"]);
    for (fault, count) in [("BadRequest", 2.0), ("HeadTooLarge", 1.0), ("Http2Violation", 1.0)] {
        assert_eq!(faults(&proxy, fault), count, "{fault}");
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_request_body_that_falls_silent_is_answered_with_408_and_frees_its_place() {
    let origin = Origin::h1().reply("hello");
    let policy = "connectionPool: {http: {http2MaxRequests: 1}}";
    let text = yaml::all_to("HTTP", &[origin.address()]) + &yaml::destination_rule("upstream.test", policy);
    let proxy = Proxy::with(text).args(["--body-timeout", "1s"]).workers(1).start();
    for framing in ["content-length: 5\n\nab", "transfer-encoding: chunked\n\n2\nab\n"] {
        let mut client = proxy.front().raw();
        client.send(&format!("POST /slow HTTP/1.1\nhost: a\n{framing}"));
        let answer = client.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        proxy.get("/").send().expect(200);
    }
    proxy.access_line(&["/slow", "408 SI request_idle_timeout"]);
    assert_eq!(faults(&proxy, "RequestStalled"), 2.0);
}

#[test]
fn a_body_that_keeps_coming_an_answer_that_has_begun_and_a_stream_are_not_hurried() {
    let origin = RawOrigin::script(|mut connection, _| {
        let head = connection.read_head();
        if head.starts_with("POST /answered") {
            connection.send("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nok\n");
        }
        connection.read_until("last");
        if !head.starts_with("POST /answered") {
            connection.send("HTTP/1.1 200 OK\ncontent-length: 2\n\nok");
        }
        connection.read_to_end();
    });
    let text = yaml::all_to("HTTP", &[origin.address()]);
    let proxy = Proxy::with(text).args(["--body-timeout", "1s"]).start();
    let trickle = |path: &str, pause: u64| {
        let mut client = proxy.front().raw();
        client.send(&format!("POST {path} HTTP/1.1\nhost: a\ncontent-length: 12\n\n"));
        for piece in ["ab", "cd", "ef", "gh", "last"] {
            client.send_bytes(piece.as_bytes());
            std::thread::sleep(millis(pause));
        }
        assert!(client.read_head().starts_with("HTTP/1.1 200 "), "{path}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| trickle("/trickle", 500));
        scope.spawn(|| {
            let mut client = proxy.front().raw();
            client.send("POST /answered HTTP/1.1\nhost: a\ncontent-length: 6\n\nab").read_until("ok\r\n");
            assert!(client.is_silent_for(millis(2500)));
            client.send("last");
        });
    });
    assert_eq!(faults(&proxy, "RequestStalled"), 0.0);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_loses_its_connection() {
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in origin.incoming().flatten() {
            std::thread::spawn(move || {
                let mut client = RawClient::over(stream.try_clone().unwrap());
                client.read_head();
                let mut stream = stream;
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n");
                let _ = stream.write_all(&vec![b'x'; 64 << 20]);
            });
        }
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[address])).args(["--answer-timeout", "1s"]).start();
    let mut client = proxy.front().raw();
    let began = Instant::now();
    client.send("GET /stuck HTTP/1.1\nhost: a\n\n").read_head();
    let line = proxy.access_line(&["/stuck"]);
    assert!(line.contains("200 SI downstream_flush_timeout"), "{line}");
    assert!(began.elapsed() >= seconds(1));
    // Over HTTP/2 the window is what is shut.
    let mut client = proxy.front().raw();
    let head = b"\x82\x84\x86\x41\x01a";
    let frame = [&[0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1], &head[..]].concat();
    client.send_bytes(HELLO).send_bytes(&frame);
    proxy.access_line(&["\"GET / HTTP/2\" 200 SI downstream_flush_timeout"]);
    // One that reads slowly is no such client.
    let mut client = proxy.front().raw();
    client.send("GET /slow HTTP/1.1\nhost: a\n\n").read_head();
    for _ in 0..8 {
        client.read_exactly(4 << 20);
        std::thread::sleep(millis(400));
    }
    assert_eq!(faults(&proxy, "ResponseStalled"), 2.0);
}

#[test]
fn a_head_that_takes_too_long_ends_its_connection_by_name() {
    let origin = Origin::h1().answer(|_| Reply::text("hello"));
    let proxy = Proxy::to(&origin).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\nx-more: ");
    client.read_to_end_within(seconds(20));
    proxy.access_line(&["\"- - HTTP/1.1\" 0 - request_header_timeout"]);
}

#[test]
fn without_memory_new_requests_are_turned_away_and_what_is_in_flight_lives() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = parking_lot::Mutex::new(gone);
    let origin = RawOrigin::script(move |mut connection, _| {
        while !connection.is_at_end() {
            if connection.read_head().starts_with("GET /slow") {
                gone.lock().recv_timeout(seconds(20)).unwrap();
            }
            connection.send("HTTP/1.1 200 OK\ncontent-length: 5\n\nhello");
        }
    });
    let group = std::env::temp_dir().join(format!("pilotlight-group-{}", std::process::id()));
    std::fs::create_dir_all(&group).unwrap();
    let write = |file: &str, text: &str| {
        // Whole at once, as the kernel's are.
        std::fs::write(group.join("next"), text).unwrap();
        std::fs::rename(group.join("next"), group.join(file)).unwrap();
    };
    write("memory.max", "1000");
    write("memory.current", "899");
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()]))
        .args(["--cgroup", group.to_str().unwrap()])
        .start();
    let sheds = |wanted: f64| {
        eventually("shedding follows", seconds(5), || {
            (proxy.metrics().sum("pilotlight_shedding", &[]) == wanted).then_some(())
        });
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| proxy.get("/slow").send());
        eventually("it is in flight", seconds(5), || (origin.connections() == 1).then_some(()));
        write("memory.current", "900");
        sheds(1.0);
        let refused = proxy.get("/").send().expect(503);
        assert_eq!((refused.header("retry-after"), refused.header("x-envoy-overloaded")), ("1", "true"));
        // Calls of what is in flight go on.
        assert_eq!(proxy.mesh().get("/").host("upstream.test").send().status, 200);
        go.send(()).unwrap();
        slow.join().unwrap().expect(200);
        write("memory.current", "851");
        std::thread::sleep(millis(500));
        proxy.get("/").send().expect(503);
        write("memory.current", "849");
        sheds(0.0);
        proxy.get("/").send().expect(200);
    });
    proxy.access_line(&["503 OM overload_memory"]);
    std::fs::remove_dir_all(group).unwrap();
}

#[test]
fn connections_above_the_ceiling_are_told_so() {
    let origin = Origin::h1().reply("hello");
    let program = ["sh", "-c", "ulimit -n 200 && exec \"$0\" \"$@\"", crate::support::proxy::PILOTLIGHT];
    let proxy = Proxy::to(&origin).program(&program).start();
    // Half of what is left of the descriptors.
    let kept: Vec<RawClient> = (0..68).map(|_| proxy.front().raw()).collect();
    eventually("they are all taken", seconds(5), || {
        (proxy.metrics().sum("pilotlight_downstream_connections", &[]) == 68.0).then_some(())
    });
    let mut late = proxy.front().raw();
    let answer = late.send("GET / HTTP/1.1\nhost: a\n\n").read_to_end();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    drop(kept);
    eventually("there is room again", seconds(5), || (proxy.get("/").send().status == 200).then_some(()));
}
