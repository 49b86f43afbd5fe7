//! What the other tests stand on: origins and clients, without a proxy between them.

use crate::support::{Origin, RawOrigin, Reply, Target, millis, together};

#[test]
fn an_origin_answers_counts_and_remembers() {
    for (origin, h2) in [(Origin::h1().reply("hello"), false), (Origin::h2c().reply("hello"), true)] {
        let target = Target::at(origin.address());
        let request = target.post("/a?b=c", "body").host("shop.test").header("x-one", "1");
        let response = if h2 { request.h2() } else { request }.send().expect(200);
        assert_eq!(response.text(), "hello");
        let seen = origin.last();
        assert_eq!((seen.uri.path(), seen.uri.query(), &*seen.body), ("/a", Some("b=c"), &b"body"[..]));
        assert_eq!((origin.hits(), origin.peak(), origin.connections()), (1, 1, 1));
        assert_eq!(seen.header("x-one"), "1");
    }
}

#[test]
fn an_origin_knows_how_many_ran_at_the_same_time() {
    let origin = Origin::h1().delay(millis(300)).reply("slow");
    let target = Target::at(origin.address());
    together(5, |_| target.get("/").send().expect(200));
    assert_eq!(origin.peak(), 5);
    assert_eq!(origin.connections_peak(), 5);
}

#[test]
fn a_connection_is_kept_and_trailers_are_read() {
    let origin = Origin::h2c().answer(|_| Reply::status(200).chunks(&["a", "b"]).trailer("grpc-status", "0"));
    let target = Target::at(origin.address());
    let mut connection = target.connect_h2();
    for _ in 0..3 {
        let response = connection.send(target.get("/"));
        assert_eq!(response.text(), "ab");
        assert_eq!(response.trailers["grpc-status"], "0");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_that_hangs_up_is_an_error_on_the_wire() {
    let origin = Origin::h1().answer(|_| Reply::hang_up());
    assert!(Target::at(origin.address()).get("/").try_send().is_err());
}

#[test]
fn a_raw_origin_plays_its_script() {
    let origin = RawOrigin::script(|mut connection, number| {
        assert!(connection.read_head().starts_with("GET /raw HTTP/1.1\r\n"));
        connection.send(&format!("HTTP/1.1 200 OK\ncontent-length: 1\n\n{number}"));
    });
    let mut client = Target::at(origin.address()).raw();
    client.send("GET /raw HTTP/1.1\nhost: x\n\n");
    assert!(client.read_to_end().ends_with("\r\n\r\n1"));
    assert_eq!(origin.connections(), 1);
}
