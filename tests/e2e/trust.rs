//! Trust where several things meet: ports, gateways and identities side by side, rules that go and come back.

use crate::support::raw::{RawClient, RawOrigin};
use crate::support::secure::Dial;
use crate::support::tokens::Issuer;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Target, Town, millis, seconds, yaml};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {spec}\n---\n"
    )
}

/// A Gateway on port 8080, in plaintext.
const EDGE: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: \
                    ingressgateway}\n  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]\n---\n";

/// A Gateway with one TLS server on port 8443.
fn gateway(town: &Town, name: &str, host: &str, tls: &str) -> String {
    let home = town.file("hosts/shop.example");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  selector: {{istio: \
         ingressgateway}}\n  servers:\n  - port: {{number: 8443, name: {name}, protocol: HTTPS}}\n    hosts: \
         ['{host}']\n    tls: {{serverCertificate: {home}/tls.crt, privateKey: {home}/tls.key, {tls}}}\n---\n"
    )
}

fn bound(name: &str, host: &str, gateways: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: \
         [{host}]\n  gateways: [{gateways}]\n  http: [{{route: [{{destination: {{host: upstream.test}}}}]}}]\n---\n"
    )
}

/// With a certificate of `town`.
fn member(town: &Town, who: &str) -> Dial {
    let file = |name: &str| PathBuf::from(town.file(&format!("{who}/{name}")));
    Dial::new(&["istio-http/1.1", "http/1.1"], Some((&file("cert-chain.pem"), &file("key.pem"))))
}

/// What one request is answered with; `None`: nothing.
fn status(dial: &Dial, at: SocketAddr, sni: &str, host: &str) -> Option<u16> {
    let mut stream = dial.to(at, sni).ok()?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[9..]).parse().ok()
}

#[test]
fn a_port_that_is_strict_takes_no_plaintext_though_another_does_and_no_policy_asks() {
    let (strict, open) = (Origin::h1().reply("strict"), Origin::h1().reply("open"));
    let town = Town::of(&["shop/till", "shop/front"]);
    let (first, second) = (strict.address().port(), open.address().port());
    let modes = |mode: &str| {
        let spec = format!(
            "{{selector: {{matchLabels: {{app: till}}}}, mtls: {{mode: PERMISSIVE}}, portLevelMtls: {{{first}: \
             {{mode: {mode}}}, {second}: {{mode: PERMISSIVE}}}}}}"
        );
        object("PeerAuthentication", "p", "shop", &spec)
    };
    let apps = open.address().to_string();
    let setup = town.beside("shop/till", "app=till", strict.address(), &modes("STRICT"));
    let proxy = setup.args(["--app", &apps]).start();
    let inbound = proxy.inbound(&strict);
    let ask = |port: u16| inbound.get("/").host(&format!("till.shop:{port}")).send();
    assert_eq!(ask(second).expect(200).text(), "open");
    ask(first).expect(403);
    assert_eq!(strict.hits(), 0);
    proxy.access_line(&["403 - peer_authentication_refused"]);
    let (dial, named) = (member(&town, "shop/front"), format!("till.shop:{first}"));
    assert_eq!(status(&dial, inbound.address(), "till.shop", &named), Some(200));
    // What is loosened works at once.
    proxy.write("config.yaml", &modes("PERMISSIVE"));
    assert!(becomes_true(seconds(5), || ask(first).status == 200));
}

#[test]
fn a_websocket_ends_when_its_own_port_takes_no_plaintext_any_more_though_another_does() {
    let app = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
        while connection.offer(&[b'.'; 1]) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let other = Origin::h1().reply("open");
    let town = Town::of(&["shop/till"]);
    let (first, second) = (app.address().port(), other.address().port());
    let modes = |mode: &str| {
        let spec = format!(
            "{{selector: {{matchLabels: {{app: till}}}}, portLevelMtls: {{{first}: {{mode: {mode}}}, {second}: {{mode: \
             PERMISSIVE}}}}}}"
        );
        object("PeerAuthentication", "p", "shop", &spec)
    };
    let setup = town.beside("shop/till", "app=till", app.address(), &modes("PERMISSIVE"));
    let proxy = setup
        .args(["--app", &other.address().to_string(), "--drain-timeout", "1s", "--drain-delay", "0s"])
        .start();
    let inbound = proxy.find(&format!("inbound:{first}")).expect("an inbound listener").address();
    let mut client = RawClient::to(inbound);
    let host = format!("till.shop:{first}");
    client.send(&format!("GET / HTTP/1.1\nhost: {host}\nconnection: upgrade\nupgrade: websocket\n\n"));
    assert!(client.read_head().contains(" 101 "));
    proxy.write("config.yaml", &modes("STRICT"));
    client.read_to_end();
    proxy.access_line(&["101 - connection_no_longer_trusted"]);
}

#[test]
fn a_websocket_ends_when_a_policy_would_refuse_it_now_and_not_when_its_token_ends() {
    let app = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
        while connection.offer(b".") {
            std::thread::sleep(millis(20));
        }
    });
    let issuer = Issuer::new("k");
    let tokens = object(
        "RequestAuthentication",
        "t",
        "shop",
        &format!("{{jwtRules: [{{issuer: i, jwks: '{}'}}]}}", issuer.jwks()),
    );
    let disabled = object("PeerAuthentication", "p", "shop", "{mtls: {mode: DISABLE}}");
    let allowed = |who: &str| {
        let spec = format!("{{rules: [{{from: [{{source: {{requestPrincipals: ['i/{who}']}}}}]}}]}}");
        disabled.clone() + &tokens + &object("AuthorizationPolicy", "a", "shop", &spec)
    };
    let short = ["--drain-timeout", "1s", "--drain-delay", "0s"];
    let setup = Proxy::with(allowed("*")).sidecar("shop/till", "app=till", app.address()).args(short);
    let proxy = setup.start();
    let inbound =
        proxy.find(&format!("inbound:{}", app.address().port())).expect("an inbound listener").address();
    // Good only within what clocks may be apart: they end while the tunnels are open.
    let token = |who: &str| issuer.token_until(-54, json!({"iss": "i", "sub": who}));
    let (ann, bob) = (token("ann"), token("bob"));
    let open = |token: &str| {
        let mut client = RawClient::to(inbound);
        client.send(&format!(
            "GET /ws HTTP/1.1\nhost: till.shop\nauthorization: Bearer {token}\nconnection: upgrade\nupgrade: \
             websocket\n\n"
        ));
        assert!(client.read_head().contains(" 101 "));
        client
    };
    let (mut anns, mut bobs) = (open(&ann), open(&bob));
    let ended = || {
        Target::at(inbound).get("/").header("authorization", &format!("Bearer {ann}")).send().status == 401
    };
    assert!(becomes_true(seconds(20), ended));
    proxy.write("config.yaml", &allowed("ann"));
    bobs.read_to_end();
    proxy.access_line(&["101 - connection_no_longer_trusted"]);
    assert_eq!(anns.read_exactly(300).len(), 300);
    proxy.write(
        "config.yaml",
        &(allowed("ann") + &object("AuthorizationPolicy", "d", "shop", "{action: DENY, rules: [{}]}")),
    );
    anns.read_to_end();
}

#[test]
fn a_stream_ends_when_a_policy_would_refuse_it_now_and_others_go_on() {
    let app = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n");
        while connection.offer(b"1\r\n.\r\n") {
            std::thread::sleep(millis(20));
        }
    });
    let disabled = object("PeerAuthentication", "p", "shop", "{mtls: {mode: DISABLE}}");
    let only = |values: &str| {
        let spec = format!("{{rules: [{{when: [{{key: 'request.headers[x-who]', values: [{values}]}}]}}]}}");
        disabled.clone() + &object("AuthorizationPolicy", "a", "shop", &spec)
    };
    let short = ["--drain-timeout", "1s", "--drain-delay", "0s"];
    let setup = Proxy::with(disabled.clone()).sidecar("shop/till", "app=till", app.address()).args(short);
    let proxy = setup.start();
    let inbound =
        proxy.find(&format!("inbound:{}", app.address().port())).expect("an inbound listener").address();
    let ask = |who: &str| {
        let mut client = RawClient::to(inbound);
        client.send(&format!("GET /{who} HTTP/1.1\nhost: till.shop\nx-who: {who}\n\n"));
        (client.read_head().contains(" 200 "), client)
    };
    let open = |who: &str| {
        let (passes, client) = ask(who);
        assert!(passes, "{who}");
        client
    };
    // It came before there was any policy: only its method and target are known.
    let mut early = open("early");
    let deny = "{action: DENY, rules: [{to: [{operation: {paths: [/early]}}]}]}";
    proxy.write("config.yaml", &(disabled.clone() + &object("AuthorizationPolicy", "d", "shop", deny)));
    early.read_to_end();
    proxy.access_line(&["GET /early", "200 - connection_no_longer_trusted"]);
    proxy.write("config.yaml", &only("ann, bob"));
    assert!(becomes_true(seconds(20), || !ask("eve").0));
    let (mut anns, mut bobs) = (open("ann"), open("bob"));
    proxy.write("config.yaml", &only("ann"));
    bobs.read_to_end();
    proxy.access_line(&["GET /bob", "200 - connection_no_longer_trusted"]);
    anns.read_exactly(600);
    proxy.write("config.yaml", &only("nobody"));
    anns.read_to_end();
}

#[test]
fn keys_are_fetched_at_once_for_a_rule_that_was_taken_away_and_comes_back() {
    let issuer = Issuer::new("k");
    let keys = Origin::h1().reply(&issuer.jwks());
    let origin = Origin::h1().reply("ok");
    let uri = format!("http://{}/jwks", keys.address());
    let rule = object(
        "RequestAuthentication",
        "t",
        "default",
        &format!("{{jwtRules: [{{issuer: i, jwksUri: '{uri}'}}]}}"),
    );
    let without = yaml::all_to("HTTP", &[origin.address()]);
    let proxy = Proxy::with(without.clone() + &rule).start();
    let token = issuer.token(json!({"iss": "i", "sub": "ann"}));
    let ask = |token: &str| proxy.get("/").header("authorization", &format!("Bearer {token}")).send().status;
    assert!(becomes_true(seconds(5), || ask(&token) == 200));
    for round in 1..4 {
        proxy.write("config.yaml", &without);
        assert!(becomes_true(seconds(5), || ask("nonsense") == 200), "{round}");
        proxy.write("config.yaml", &(without.clone() + &rule));
        assert!(becomes_true(seconds(5), || ask("nonsense") == 401), "{round}");
        assert!(becomes_true(seconds(5), || ask(&token) == 200), "{round}: {} fetches", keys.hits());
    }
    assert!(keys.hits() <= 4, "{} fetches", keys.hits());
}

#[test]
fn clients_that_begin_a_handshake_and_say_no_more_keep_nobody_out() {
    let app = Origin::h1().reply("ok");
    let town = Town::of(&["shop/till", "shop/front"]);
    let text = object("PeerAuthentication", "p", "shop", "{mtls: {mode: STRICT}}");
    let proxy = town.beside("shop/till", "app=till", app.address(), &text).workers(1).start();
    let at = proxy.inbound(&app).address();
    let under_way = || proxy.metrics().sum("pilotlight_tls_handshakes_under_way", &[]);
    let halves = |count: usize| -> Vec<TcpStream> {
        let begin = |_| {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
            stream
        };
        (0..count).map(begin).collect()
    };
    let dial = member(&town, "shop/front");
    let _open = halves(512);
    assert!(becomes_true(seconds(5), || under_way() == 512.0));
    assert!(becomes_true(seconds(5), || status(&dial, at, "till.shop", "till.shop") == Some(200)));
    assert!(becomes_true(seconds(5), || under_way() < 512.0));
    let ousted = proxy.metrics().sum("pilotlight_tls_handshakes_failed_total", &[("reason", "too_many")]);
    assert!(ousted >= 1.0);
}

#[test]
fn a_request_that_waits_keeps_its_token_when_its_revision_is_replaced() {
    let issuer = Issuer::new("k");
    let door = "selector: {matchLabels: {istio: ingressgateway}}";
    let rules = object(
        "RequestAuthentication",
        "t",
        "istio-system",
        &format!("{{{door}, jwtRules: [{{issuer: i, jwks: '{}'}}]}}", issuer.jwks()),
    ) + &object(
        "AuthorizationPolicy",
        "a",
        "istio-system",
        &format!("{{{door}, rules: [{{from: [{{source: {{requestPrincipals: ['i/ann']}}}}]}}]}}"),
    );
    let text = |revision: &str, command: &str| {
        let function = yaml::function_running("shop", command, "", "");
        let named = format!("template:\n    metadata: {{name: shop-{revision}}}\n");
        EDGE.to_owned() + &rules + &function.replace("template:\n", &named)
    };
    let proxy = Proxy::with(text("a", "[pilotlight, echo, --start-delay, 60s]")).start();
    let token = issuer.token(json!({"iss": "i", "sub": "ann"}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let request = proxy.get("/").host("shop.default.localhost");
            request.header("authorization", &format!("Bearer {token}")).send()
        });
        assert!(becomes_true(seconds(5), || proxy.metrics().sum("pilotlight_held_requests", &[]) == 1.0));
        proxy.write("config.yaml", &text("b", "[pilotlight, echo]"));
        waiting.join().unwrap().expect(200);
    });
}

#[test]
fn a_gateway_asks_who_came_to_it_and_what_is_behind_it_sees_the_gateway() {
    let origin = Origin::h1().reply("ok");
    let town = Town::of(&["shop/front"]);
    town.issue(&["shop.example"], &[]);
    let own = "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account";
    let front = "cluster.local/ns/shop/sa/front";
    let authority = town.file("ca.crt");
    let optional = format!("mode: OPTIONAL_MUTUAL, caCertificates: {authority}");
    let behind = |who: &str| {
        let spec = format!("{{rules: [{{from: [{{source: {{principals: ['{who}']}}}}]}}]}}");
        object("AuthorizationPolicy", "behind", "default", &spec)
    };
    let door = |source: &str| {
        let spec = format!(
            "{{selector: {{matchLabels: {{istio: ingressgateway}}}}, rules: [{{from: [{{source: {{{source}}}}}]}}]}}"
        );
        object("AuthorizationPolicy", "door", "istio-system", &spec)
    };
    let anybody = Dial::new(&["http/1.1"], None);
    let known = member(&town, "shop/front");
    // A certificate of the gateway's own authority may claim any identity, and claims it at the gateway alone.
    for (policy, without, with) in [
        (behind(own), 200, 200),
        (behind(front), 403, 403),
        (door(&format!("principals: ['{own}']")), 403, 403),
        (door(&format!("principals: ['{front}']")), 403, 200),
        (door("notPrincipals: ['*']"), 200, 403),
        (door("namespaces: [istio-system]"), 403, 403),
    ] {
        let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
            + &gateway(&town, "edge", "*", &optional)
            + &bound("all", "shop.example", "edge")
            + &policy;
        let proxy = Proxy::with(text).start();
        let at = proxy.gateway(8443).address();
        let status = |dial: &Dial| status(dial, at, "shop.example", "shop.example");
        assert_eq!((status(&anybody), status(&known)), (Some(without), Some(with)), "{policy}");
    }
}

#[test]
fn routes_look_at_what_a_token_says_and_not_at_what_the_client_wrote() {
    let (plain, special) = (Origin::h1().reply("plain"), Origin::h1().reply("special"));
    let issuer = Issuer::new("k");
    let rule = format!(
        "{{selector: {{matchLabels: {{istio: ingressgateway}}}}, jwtRules: [{{issuer: i, jwks: '{}', \
         outputClaimToHeaders: [{{header: x-role, claim: role}}]}}]}}",
        issuer.jwks()
    );
    let text = yaml::service_entry("plain.test", "HTTP", &[plain.address()])
        + &yaml::service_entry("special.test", "HTTP", &[special.address()])
        + EDGE
        + &object("RequestAuthentication", "t", "istio-system", &rule)
        + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: all}\nspec:\n  hosts: \
           [shop.example]\n  gateways: [edge]\n  http:\n  - match: [{headers: {x-role: {exact: admin}}}]\n    route: \
           [{destination: {host: special.test}}]\n  - route: [{destination: {host: plain.test}}]\n---\n";
    let proxy = Proxy::with(text).start();
    let ask = |name: &str, value: &str| {
        proxy.gateway(8080).get("/").host("shop.example").header(name, value).send().expect(200).text()
    };
    let token =
        |role: &str| format!("Bearer {}", issuer.token(json!({"iss": "i", "sub": "ann", "role": role})));
    assert_eq!(ask("x-role", "admin"), "plain");
    assert_eq!(ask("authorization", &token("guest")), "plain");
    assert_eq!(ask("authorization", &token("admin")), "special");
    assert_eq!(special.last().header("x-role"), "admin");
}

#[test]
fn a_rewrite_makes_no_path_that_policies_and_the_destination_read_differently() {
    let origin = Origin::h1().reply("ok");
    let deny = object(
        "AuthorizationPolicy",
        "p",
        "default",
        "{action: DENY, rules: [{to: [{operation: {paths: ['/admin', '/admin/*']}}]}]}",
    );
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
        + EDGE
        + &deny
        + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: all}\nspec:\n  hosts: \
           [shop.example]\n  gateways: [edge]\n  http:\n  - match: [{uri: {prefix: /pub}}]\n    rewrite: {uri: /}\n    \
           route: [{destination: {host: upstream.test}}]\n---\n";
    let proxy = Proxy::with(text).start();
    let ask = |path: &str| proxy.gateway(8080).get(path).host("shop.example").send();
    for path in ["/pub./admin", "/pub../admin", "/pub%2e/admin/x", "/pub./x/../admin", "/pubadmin"] {
        assert_eq!(ask(path).status, 403, "{path}");
    }
    for (path, wanted) in [("/pub../x", "/x"), ("/pub/x", "//x"), ("/pub./a?b=/../c", "/a?b=/../c")] {
        ask(path).expect(200);
        assert_eq!(origin.last().uri.to_string(), wanted, "{path}");
    }
}

#[test]
fn policies_of_a_gateway_name_its_own_port_and_those_behind_it_theirs() {
    let origin = Origin::h1().reply("ok");
    let own = origin.address().port().to_string();
    let front = "selector: {matchLabels: {istio: ingressgateway}}, action: DENY";
    for (namespace, selector, port, status) in [
        ("istio-system", front, "8080", 403),
        ("istio-system", front, &*own, 200),
        ("default", "action: DENY", "8080", 200),
        ("default", "action: DENY", &*own, 403),
    ] {
        for rule in [
            format!("to: [{{operation: {{ports: ['{port}']}}}}]"),
            format!("when: [{{key: destination.port, values: ['{port}']}}]"),
        ] {
            let spec = format!("{{{selector}, rules: [{{{rule}}}]}}");
            let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
                + EDGE
                + &bound("all", "shop.example", "edge")
                + &object("AuthorizationPolicy", "p", namespace, &spec);
            let proxy = Proxy::with(text).start();
            proxy.gateway(8080).get("/").host("shop.example").send().expect(status);
        }
    }
}

#[test]
fn who_names_no_host_reaches_nothing_behind_a_gateway_that_asks_for_certificates() {
    let origin = Origin::h1().reply("ok");
    let town = Town::of(&["shop/front"]);
    town.issue(&["shop.example"], &[]);
    let mutual = format!("mode: MUTUAL, caCertificates: {}", town.file("ca.crt"));
    let text = |gateways: &str| {
        yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
            + &gateway(&town, "open", "*", "mode: SIMPLE")
            + &gateway(&town, "shut", "shut.example", &mutual)
            + &bound("open", "open.example", "open")
            + &bound("shut", "shut.example", gateways)
    };
    let proxy = Proxy::with(text("shut")).start();
    let at = proxy.gateway(8443).address();
    let dial = Dial::new(&["http/1.1"], None);
    let ask = |sni: &str, host: &str| status(&dial, at, sni, host);
    // An address is no name: none is sent.
    let nameless = "127.0.0.1";
    assert_eq!(ask(nameless, "open.example"), Some(200));
    for host in ["shut.example", "SHUT.example", "shut.example:8443", "shut.example."] {
        assert_eq!(ask(nameless, host), Some(404), "{host}");
    }
    assert_eq!(ask("open.example", "shut.example"), Some(421));
    assert_eq!(ask("shut.example", "shut.example"), None);
    assert_eq!(origin.hits(), 1);
    // Whoever binds it to both means both.
    proxy.write("config.yaml", &text("shut, open"));
    assert!(becomes_true(seconds(5), || ask(nameless, "shut.example") == Some(200)));
}
