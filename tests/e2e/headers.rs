//! Which headers pass, which are added, which never do.

use crate::support::{Origin, Proxy, RawOrigin, yaml};

#[test]
fn headers_of_one_hop_do_not_reach_the_next() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let mut client = proxy.front().raw();
    client.send(
        "GET / HTTP/1.1\nhost: shop\nconnection: keep-alive, x-secret, host, x-forwarded-for\nx-secret: 1\n\
         keep-alive: timeout=5\nproxy-connection: keep-alive\nte: trailers, gzip\nx-keep: yes\n\n",
    );
    client.read_until("hello");
    let seen = origin.last();
    for gone in ["x-secret", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!seen.headers.contains_key(gone), "{gone}: {:?}", seen.headers);
    }
    assert!(!seen.header("connection").contains("x-secret"), "{:?}", seen.headers);
    assert!(matches!(seen.header("te"), "" | "trailers"), "{:?}", seen.headers);
    assert_eq!((seen.header("host"), seen.header("x-keep")), ("shop", "yes"));
    assert!(!seen.header("x-forwarded-for").is_empty(), "naming it in Connection does not strip it");
}

#[test]
fn headers_of_the_upstream_hop_do_not_reach_the_client() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send(
            "HTTP/1.1 200 OK\nconnection: x-inner\nx-inner: 1\nkeep-alive: timeout=3\nx-keep: yes\n\
             content-length: 2\n\nok",
        );
        connection.read_to_end();
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    for h2 in [false, true] {
        let request = proxy.get("/");
        let response = if h2 { request.h2() } else { request }.send().expect(200);
        for gone in ["x-inner", "keep-alive", "connection"] {
            assert!(!response.headers.contains_key(gone), "{gone}: {:?}", response.headers);
        }
        assert_eq!(response.header("x-keep"), "yes");
    }
}

#[test]
fn a_gateway_says_for_whom_it_asks() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let forwarded = |chain: Option<&str>| {
        let request = proxy.get("/");
        match chain {
            Some(chain) => request.header("x-forwarded-for", chain),
            None => request,
        }
        .send()
        .expect(200);
        origin.last().all("x-forwarded-for").join(",").replace(", ", ",")
    };
    assert_eq!(forwarded(None), "127.0.0.1");
    assert_eq!(forwarded(Some("192.0.2.7")), "192.0.2.7,127.0.0.1");
    assert_eq!(origin.last().header("x-forwarded-proto"), "http");
}

#[test]
fn the_mesh_listener_leaves_forwarding_headers_alone() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::with(yaml::service_entry("shop.test", "HTTP", &[origin.address()])).start();
    proxy.mesh().get("/").host("shop.test").send().expect(200);
    assert!(!origin.last().headers.contains_key("x-forwarded-for"), "{:?}", origin.last().headers);
    proxy.mesh().get("/").host("shop.test").header("x-forwarded-for", "192.0.2.7").send().expect(200);
    assert_eq!(origin.last().all("x-forwarded-for"), ["192.0.2.7"]);
}

#[test]
fn every_request_has_an_id_and_the_mesh_keeps_the_callers() {
    let origin = Origin::h1().reply("hello");
    let text = yaml::service_entry("shop.test", "HTTP", &[origin.address()]);
    let proxy = Proxy::with(text).start();
    let ids: Vec<String> = (0..2)
        .map(|_| {
            proxy.mesh().get("/").host("shop.test").send().expect(200);
            origin.last().header("x-request-id").to_owned()
        })
        .collect();
    assert_eq!(ids[0].len(), 36, "{ids:?}");
    assert_ne!(ids[0], ids[1]);
    proxy.mesh().get("/").host("shop.test").header("x-request-id", "mine").send().expect(200);
    assert_eq!(origin.last().header("x-request-id"), "mine");
}

#[test]
fn routes_change_headers_of_both_directions() {
    let origin = Origin::h1().answer(|_| crate::support::Reply::text("hello").header("x-internal", "1"));
    let route = "headers:\n  request:\n    set: {x-tier: gold}\n    add: {x-list: b}\n    remove: [x-debug]\n  \
                 response:\n    set: {x-from: shop}\n    remove: [x-internal]";
    let proxy = Proxy::with(yaml::all_to_with("HTTP", &[origin.address()], route)).start();
    let request = proxy.get("/").header("x-tier", "iron").header("x-list", "a").header("x-debug", "1");
    let response = request.send().expect(200);
    let seen = origin.last();
    assert_eq!((seen.header("x-tier"), seen.header("x-debug")), ("gold", ""));
    assert_eq!(seen.all("x-list").join(",").replace(' ', ""), "a,b");
    assert_eq!((response.header("x-from"), response.header("x-internal")), ("shop", ""));
}
