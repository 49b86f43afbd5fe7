//! What two readers could understand differently is refused or said plainly, so that nobody is led past a rule
//! or into another's exchange.

use crate::support::{Origin, Proxy, RawOrigin, Reply, yaml};

/// What the proxy answers to raw bytes, which ask for the connection's end.
fn answer(proxy: &Proxy, request: &str) -> String {
    let mut client = proxy.front().raw();
    client.send(request);
    client.read_to_end()
}

#[test]
fn framing_that_could_be_read_in_two_ways_does_not_reach_the_origin() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    for (fields, status) in [
        ("transfer-encoding: gzip, chunked\n\n0\n\n", "501"),
        ("transfer-encoding: xchunked\n\n0\n\n", "400"),
        ("transfer-encoding: chunked\ntransfer-encoding: identity\n\n0\n\n", "400"),
        ("content-length: 1, 1\n\na", "400"),
        ("content-length: +1\n\na", "400"),
        ("host: other\n\n", "400"),
        ("x-a : 1\n\n", "400"),
        ("x-a: 1\n folded\n\n", "400"),
    ] {
        let answer = answer(&proxy, &format!("POST / HTTP/1.1\nhost: shop\nconnection: close\n{fields}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {answer}");
    }
    for head in ["GET shop HTTP/1.1\nhost: shop\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\nhost: user@shop\n"] {
        let answer = answer(&proxy, &format!("{head}connection: close\n\n"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_body_is_carried_whatever_the_method_and_with_one_framing() {
    let origin = Origin::h1().answer(|seen| Reply::text(&String::from_utf8_lossy(&seen.body)));
    let proxy = Proxy::to(&origin).start();
    for method in ["GET", "DELETE", "OPTIONS", "POST", "SEARCH"] {
        for framing in ["transfer-encoding: chunked\n\n3\nabc\n0\n\n", "content-length: 3\n\nabc"] {
            let request = format!("{method} / HTTP/1.1\nhost: shop\nconnection: close\n{framing}");
            let answer = answer(&proxy, &request);
            assert!(answer.ends_with("abc") || answer.contains("\r\nabc\r\n"), "{request}: {answer}");
            let seen = origin.last();
            let framings = seen.all("transfer-encoding").len() + seen.all("content-length").len();
            assert_eq!(framings, 1, "{:?}", seen.headers);
        }
    }
}

#[test]
fn a_rule_for_a_path_sees_it_however_it_is_written() {
    let origin = Origin::h1().answer(|seen| Reply::text(seen.uri.path()));
    let http = "- match: [{uri: {prefix: /admin}}]\n  directResponse: {status: 403}\n\
                - route: [{destination: {host: upstream.test}}]\n";
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()]);
    let text = text + &yaml::virtual_service("all", "*", http);
    let proxy = Proxy::with(text).start();
    for path in ["/admin", "/%61dmin", "/x/../admin", "/x/%2e%2E/admin/y", "/.//../admin", "/x\\..\\admin"] {
        let answer = answer(&proxy, &format!("GET {path} HTTP/1.1\nhost: shop\nconnection: close\n\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
    for (path, seen) in
        [("/a/../b%20c?q=/../d", "/b%20c"), ("/ad%256din", "/ad%256din"), ("/a%2fb", "/a%2fb")]
    {
        let answer = answer(&proxy, &format!("GET {path} HTTP/1.1\nhost: shop\nconnection: close\n\n"));
        assert!(answer.ends_with(&format!("\r\n\r\n{seen}")), "{path}: {answer}");
    }
    let nul = "GET /a%00b HTTP/1.1\nhost: shop\nconnection: close\n\n";
    assert!(answer(&proxy, nul).starts_with("HTTP/1.1 400 "));
}

#[test]
fn what_counts_as_one_slash_is_for_the_mesh_to_say() {
    let origin = Origin::h1().answer(|seen| Reply::text(seen.uri.path()));
    let http = "- match: [{uri: {prefix: /admin}}]\n  directResponse: {status: 403}\n\
                - route: [{destination: {host: upstream.test}}]\n";
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()]);
    let mesh = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\n";
    let proxy = Proxy::with(text + &yaml::virtual_service("all", "*", http) + mesh).start();
    let ask = |path: &str| answer(&proxy, &format!("GET {path} HTTP/1.1\nhost: shop\nconnection: close\n\n"));
    for path in ["//admin", "/%2fadmin", "/x%2F..%5c/admin", "/x%2f%2e%2e%2fadmin/y"] {
        assert!(ask(path).starts_with("HTTP/1.1 403 "), "{path}: {}", ask(path));
    }
    for (path, seen) in [("//a///b%2Fc", "/a/b/c"), ("/%252fadmin", "/%252fadmin")] {
        assert!(ask(path).ends_with(&format!("\r\n\r\n{seen}")), "{path}: {}", ask(path));
    }
}

#[test]
fn an_answer_that_could_be_read_in_two_ways_is_a_502() {
    for answer in [
        "transfer-encoding: chunked\ncontent-length: 9\n\n1\na\n0\n\n",
        "transfer-encoding: gzip, chunked\n\n1\na\n0\n\n",
        "transfer-encoding: gzip\n\nabc",
    ] {
        let origin = RawOrigin::script(move |mut connection, _| {
            connection.read_head();
            connection.send(&format!("HTTP/1.1 200 OK\n{answer}"));
        });
        let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
        let response = proxy.get("/").send();
        assert_eq!(response.status, 502, "{answer}");
    }
}

#[test]
fn a_101_nobody_asked_for_is_a_502() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: other\n\nraw");
        connection.read_to_end();
    });
    let proxy = Proxy::with(yaml::all_to("HTTP", &[origin.address()])).start();
    proxy.get("/").send().expect(502);
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\nconnection: upgrade\nupgrade: websocket\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 502 "));
}

#[test]
fn no_upgrade_leads_to_another_http() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    for protocol in ["h2c", "HTTP/2.0", "websocket, h2c"] {
        let request = format!(
            "GET / HTTP/1.1\nhost: shop\nconnection: upgrade, http2-settings\nupgrade: {protocol}\n\
             http2-settings: AAMAAABkAAQAAP__\n\n"
        );
        let mut client = proxy.front().raw();
        client.send(&request);
        assert!(client.read_head().starts_with("HTTP/1.1 200 "), "{protocol}");
        let seen = origin.last();
        assert!(!seen.headers.contains_key("upgrade") && !seen.headers.contains_key("http2-settings"));
    }
}

#[test]
fn a_client_outside_the_mesh_cannot_speak_as_a_proxy() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let forged = [
        ("x_forwarded_for", "192.0.2.1"),
        ("x-envoy_internal", "true"),
        ("x-envoy-internal", "true"),
        ("x-envoy-max-retries", "9"),
        ("x-pilotlight-hold", "1"),
        ("x-forwarded-client-cert", "By=spiffe://a"),
    ];
    let request = forged.iter().fold(proxy.get("/"), |request, (name, value)| request.header(name, value));
    request.send().expect(200);
    let seen = origin.last();
    for (name, _) in forged {
        assert!(!seen.headers.contains_key(name), "{name}: {:?}", seen.headers);
    }
}

#[test]
fn trailers_lose_what_would_be_believed_in_a_head() {
    let origin = Origin::h2c().answer(|_| {
        Reply::status(200).chunks(&["body"]).trailer("grpc-status", "7").trailer("set-cookie", "a=1")
    });
    let proxy = Proxy::to(&origin).start();
    let response = proxy.get("/").header("te", "trailers").h2().send().expect(200);
    assert!(response.trailers.contains_key("grpc-status") && !response.trailers.contains_key("set-cookie"));
}

#[test]
fn an_http2_head_has_at_most_a_hundred_fields() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let with = |count: usize| {
        let request = (0..count).fold(proxy.get("/").h2(), |request, _| request.header("cookie", "a=1"));
        request.send().status
    };
    assert_eq!(with(90), 200);
    assert_eq!(origin.last().all("cookie").len(), 1, "one field on HTTP/1");
    assert_eq!(with(150), 431);
    assert_eq!(origin.hits(), 1);
}
