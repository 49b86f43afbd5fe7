//! HTTP on both sides: versions, bodies, trailers, upgrades, interim answers.

use crate::support::tools::{curl, needs};
use crate::support::{Origin, Proxy, RawOrigin, Reply, Target, millis, seconds, yaml};
use http::Version;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

const MEGABYTE: usize = 1 << 20;

#[test]
fn each_version_comes_in_and_each_goes_out() {
    for origin in [Origin::h1().reply("hello"), Origin::h2c().reply("hello")] {
        let proxy = Proxy::to(&origin).start();
        for h2 in [false, true] {
            let request = proxy.post("/a?b=1", "body").host("shop.test").header("x-one", "1");
            let response = if h2 { request.h2() } else { request }.send().expect(200);
            assert_eq!(response.text(), "hello");
            assert_eq!(response.version, if h2 { Version::HTTP_2 } else { Version::HTTP_11 });
            let seen = origin.last();
            assert_eq!(seen.uri.path_and_query().map(|p| p.as_str()), Some("/a?b=1"));
            assert_eq!((&*seen.body, seen.header("x-one")), (&b"body"[..], "1"));
            let authority = seen.uri.authority().map_or(seen.header("host").to_owned(), ToString::to_string);
            assert_eq!(authority, "shop.test");
        }
    }
}

#[test]
fn curl_gets_its_answer_in_every_version_it_speaks() {
    needs!("curl");
    let origin = Origin::h1().answer(|seen| Reply::text(&format!("{} {}", seen.method, seen.body.len())));
    let proxy = Proxy::to(&origin).start();
    let url = proxy.front().url("/");
    // The server of an HTTP/1.0 request may answer with its own version.
    let versions =
        [("--http1.0", ["1", "1.1"]), ("--http1.1", ["1.1"; 2]), ("--http2-prior-knowledge", ["2"; 2])];
    for (flag, versions) in versions {
        let outcome = curl(&[flag, "-w", " %{http_version} %{http_code}", &url]);
        let accepted = versions.map(|version| format!("GET 0 {version} 200"));
        assert!(accepted.contains(&outcome.stdout), "{outcome:?}");
        let outcome = curl(&[flag, "--data-binary", "12345", &url]);
        assert_eq!(outcome.stdout, "POST 5", "{flag} {outcome:?}");
    }
}

#[test]
fn an_http10_client_gets_a_body_it_can_read_and_the_end_of_the_connection() {
    let origin = Origin::h1().answer(|_| Reply::status(200).chunks(&["one", "two"]));
    let proxy = Proxy::to(&origin).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.0\nhost: shop\n\n");
    let answer = client.read_to_end();
    assert!(answer.ends_with("\r\n\r\nonetwo"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[test]
fn head_requests_and_empty_statuses_have_no_body() {
    let origin = Origin::h1().answer(|seen| match seen.uri.path() {
        "/204" => Reply::status(204),
        "/304" => Reply::status(304),
        _ => Reply::text("12345"),
    });
    let proxy = Proxy::to(&origin).start();
    let mut connection = proxy.front().connect();
    let head = connection.send(proxy.front().request(http::Method::HEAD, "/"));
    assert_eq!((head.status, head.header("content-length"), &*head.body), (200, "5", &b""[..]));
    for status in [204, 304] {
        assert!(connection.send(proxy.get(&format!("/{status}"))).expect(status).body.is_empty());
    }
    assert_eq!(connection.send(proxy.get("/")).text(), "12345", "the connection is still in step");
}

#[test]
fn the_first_bytes_of_an_answer_arrive_before_its_last_are_made() {
    let (next, told) = mpsc::channel::<()>();
    let told = parking_lot::Mutex::new(told);
    let origin = RawOrigin::script(move |mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\none\n");
        told.lock().recv_timeout(seconds(10)).expect("the client has seen the first part");
        connection.send("3\ntwo\n0\n\n");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\n\n").read_until("one");
    next.send(()).expect("the origin waits");
    client.read_until("two");
}

#[test]
fn an_answer_can_begin_before_the_request_has_ended() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.read_until("one");
        connection.send("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\nsoon\n");
        // All of it is read: closing over unread bytes would reset the connection and lose what was sent.
        connection.read_until("two\r\n0\r\n\r\n");
        connection.send("4\nlate\n0\n\n");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut client = proxy.front().raw();
    client.send("POST / HTTP/1.1\nhost: shop\ntransfer-encoding: chunked\n\n3\none\n").read_until("soon");
    client.send("3\ntwo\n0\n\n").read_until("late");
}

#[test]
fn an_upload_is_held_back_by_an_upstream_that_does_not_read() {
    let (next, told) = mpsc::channel::<()>();
    let told = parking_lot::Mutex::new(told);
    let length = 64 * MEGABYTE;
    let origin = RawOrigin::script(move |mut connection, _| {
        connection.read_head();
        told.lock().recv_timeout(seconds(20)).expect("the client is stuck");
        for _ in 0..64 {
            connection.read_exactly(MEGABYTE);
        }
        connection.send("HTTP/1.1 200 OK\ncontent-length: 4\n\ndone");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut stream = TcpStream::connect(proxy.front().address()).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n").unwrap();
    let stuck = write_until_stuck(&mut stream, length);
    assert!(stuck < 32 * MEGABYTE, "{stuck} bytes went into the proxy while nobody read them");
    next.send(()).expect("the origin waits");
    stream.set_write_timeout(Some(seconds(20))).unwrap();
    stream.write_all(&vec![b'x'; length - stuck]).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    let mut answer = [0; 256];
    let read = stream.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).ends_with("done"));
}

#[test]
fn a_download_is_held_back_by_a_client_that_does_not_read() {
    let (report, written) = mpsc::channel();
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = origin.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * MEGABYTE).unwrap();
        let _ = report.send(write_until_stuck(&mut stream, 64 * MEGABYTE));
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[address])).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\n\n").read_head();
    let stuck = written.recv_timeout(seconds(20)).expect("the origin gets stuck or done");
    assert!(stuck < 32 * MEGABYTE, "{stuck} bytes went into the proxy while nobody read them");
}

/// Writes until nothing is taken for half a second; how much was.
fn write_until_stuck(stream: &mut TcpStream, most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while written < most {
        match stream.write(&block[..block.len().min(most - written)]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error} after {written}"),
        }
    }
    written
}

#[test]
fn trailers_pass_through_between_versions() {
    let origin = Origin::h2c().answer(|_| Reply::status(200).chunks(&["body"]).trailer("grpc-status", "7"));
    let proxy = Proxy::to(&origin).start();
    let response = proxy.get("/").header("te", "trailers").h2().send().expect(200);
    assert_eq!(
        (response.text().as_str(), &response.trailers["grpc-status"]),
        ("body", &"7".parse().unwrap())
    );
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_and_then_its_answer() {
    let origin = Origin::h1().answer(|seen| Reply::text(&format!("got {}", seen.body.len())));
    let proxy = Proxy::to(&origin).start();
    let mut client = proxy.front().raw();
    client.send("POST / HTTP/1.1\nhost: shop\nexpect: 100-continue\ncontent-length: 5\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 100 Continue\r\n"));
    client.send("hello");
    assert!(client.read_head().starts_with("HTTP/1.1 200 OK\r\n"));
    client.read_until("got 5");
}

#[test]
fn an_upgrade_is_spliced_once_the_upstream_agreed() {
    let origin = RawOrigin::script(|mut connection, _| {
        let head = connection.read_head().to_lowercase();
        assert!(head.contains("upgrade: chat") && head.contains("connection: upgrade"), "{head}");
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: chat\n\n");
        connection.read_until("ping");
        connection.send("pong");
        connection.read_until("bye");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\nconnection: upgrade\nupgrade: chat\n\n");
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.send("ping").read_until("pong");
    client.send("bye");
    assert_eq!(client.read_to_end(), "");
}

#[test]
fn an_upgrade_the_upstream_declines_is_an_ordinary_answer() {
    let origin = RawOrigin::script(|mut connection, _| {
        for _ in 0..2 {
            connection.read_head();
            connection.send("HTTP/1.1 403 Forbidden\ncontent-length: 2\n\nno");
        }
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut client = proxy.front().raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\nhost: shop\nconnection: upgrade\nupgrade: chat\n\n");
        assert!(client.read_head().starts_with("HTTP/1.1 403 "));
        client.read_until("no");
    }
}

#[test]
fn an_origin_that_breaks_off_in_the_body_breaks_the_answer_off_too() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\ncontent-length: 10\n\nhalf");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let error = proxy.get("/").try_send().expect_err("six bytes are missing");
    assert!(error.contains("200"), "the head had arrived: {error}");
    assert!(proxy.get("/").h2().try_send().is_err());
}

#[test]
fn several_requests_in_one_packet_are_answered_in_order() {
    let origin = Origin::h1().answer(|seen| Reply::text(&format!("[{}]", seen.uri.path())));
    let proxy = Proxy::to(&origin).start();
    let mut client = proxy.front().raw();
    client.send("GET /1 HTTP/1.1\nhost: a\n\nGET /2 HTTP/1.1\nhost: a\n\nGET /3 HTTP/1.1\nhost: a\nconnection: close\n\n");
    let answers = client.read_to_end();
    let places = ["[/1]", "[/2]", "[/3]"].map(|answer| answers.find(answer).unwrap_or(usize::MAX));
    assert!(places.is_sorted() && places[2] != usize::MAX, "{answers}");
}

#[test]
fn what_is_not_http_is_refused_without_reaching_the_origin() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let check = |request: &str| {
        let mut client = proxy.front().raw();
        client.send(request).finish();
        let answer = client.read_to_end();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{answer}"
        );
    };
    check("\u{1}\u{2}\u{3}\r\n\r\n");
    check("GET / HTTP/1.1\nhost: shop\ncontent-length: 5\ncontent-length: 6\n\nhello");
    check("POST / HTTP/1.1\nhost: shop\ntransfer-encoding: gzip\n\nhello");
    check("GET / HTTP/1.1\nhost: shop\nbad name: x\n\n");
    check(&format!("GET / HTTP/1.1\nhost: shop\nx-big: {}\n\n", "x".repeat(200_000)));
    assert_eq!(origin.hits(), 0);
    proxy.get("/").host("shop").send().expect(200);
}

#[test]
fn a_head_that_is_slow_to_come_holds_up_nobody() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let mut quick = proxy.front().raw();
    quick.send("GET / HTTP/1.1\nhost: shop\nx-more: ");
    assert!(quick.is_silent_for(millis(300)), "it may still come");
    proxy.get("/").send().expect(200);
}

#[test]
fn a_client_that_leaves_ends_the_exchange_upstream() {
    let (report, ended) = mpsc::channel();
    let origin = RawOrigin::script(move |mut connection, _| {
        connection.read_head();
        connection.read_to_end();
        let _ = report.send(());
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    let mut client = proxy.front().raw();
    client.send("GET /gone HTTP/1.1\nhost: shop\n\n");
    crate::support::eventually("the origin is asked", seconds(5), || {
        (origin.connections() > 0).then_some(())
    });
    drop(client);
    ended.recv_timeout(seconds(5)).expect("the upstream connection is closed");
    assert!(proxy.access_line(&["/gone"]).contains(" 0 DC "), "{}", proxy.output());
}

#[test]
fn connect_is_off() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    for target in [proxy.front(), proxy.mesh()] {
        let mut client = Target::at(target.address()).raw();
        client.send(&format!("CONNECT {0} HTTP/1.1\nhost: {0}\n\n", origin.address()));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 5"), "{head}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn an_upstream_that_speaks_http10_does_not_decide_how_the_client_is_spoken_to() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.0 200 OK\n\nuntil the end");
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).workers(1).start();
    let mut client = proxy.front().raw();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\nhost: shop\n\n");
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("transfer-encoding: chunked"), "{head}");
        assert!(client.read_until("0\r\n\r\n").contains("until the end"));
    }
    let mut old = proxy.front().raw();
    old.send("GET / HTTP/1.0\nhost: shop\n\n");
    assert!(old.read_to_end().starts_with("HTTP/1.0 200 "));
}
