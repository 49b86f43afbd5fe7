//! Which request goes where: hosts, matches, splits, rewrites, answers from the configuration.

use crate::support::{Origin, Proxy, Reply, yaml};

fn named(name: &'static str) -> Origin {
    Origin::h1().answer(move |seen| {
        let authority = seen.header("host").to_owned();
        Reply::text(name).header("x-path", &seen.uri.to_string()).header("x-authority", &authority)
    })
}

#[test]
fn a_host_nobody_serves_is_404_nr_at_a_gateway_and_502_in_the_mesh() {
    let origin = Origin::h1().reply("hello");
    let text = yaml::service_entry("shop.test", "HTTP", &[origin.address()])
        + &yaml::virtual_service("shop", "shop.test", "- route:\n  - destination: {host: shop.test}");
    let proxy = Proxy::with(text).start();
    proxy.get("/").host("shop.test").send().expect(200);
    let lost = proxy.get("/lost").host("nobody.test").send().expect(404);
    assert!(lost.body.is_empty(), "{}", lost.text());
    assert!(proxy.access_line(&["/lost"]).contains(" 404 NR route_not_found "), "{}", proxy.output());
    proxy.mesh().get("/").host("nobody.test").send().expect(502);
    let counted =
        proxy.metrics().sum("istio_requests_total", &[("response_code", "404"), ("response_flags", "NR")]);
    assert_eq!(counted, 1.0);
    let text = proxy.admin().get("/metrics").send().text();
    assert!(!text.contains("nobody.test"), "label values never come from the wire");
}

#[test]
fn the_mesh_listener_is_an_ordinary_http_proxy() {
    let origin = named("shop");
    let proxy = Proxy::with(yaml::service_entry("shop.test", "HTTP", &[origin.address()])).start();
    let mesh = proxy.mesh();
    let response = mesh.get("http://shop.test/a?b=1").send().expect(200);
    assert_eq!((response.text().as_str(), response.header("x-path")), ("shop", "/a?b=1"));
    assert_eq!(mesh.get("/").host("shop.test:80").send().expect(200).text(), "shop");
    mesh.get("http://nobody.test/").send().expect(502);
    mesh.get(&format!("http://{}/", origin.address())).send().expect(502);
    assert_eq!(origin.hits(), 2, "addresses nobody wrote down are not dialled");
}

#[test]
fn allow_any_dials_what_nobody_knows_but_never_link_local_addresses() {
    let origin = named("outside");
    let directory_free = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  \
                          mesh: |\n    outboundTrafficPolicy: {mode: ALLOW_ANY}\n";
    let proxy = Proxy::with(directory_free).start();
    let response = proxy.mesh().get(&format!("http://{}/x", origin.address())).send().expect(200);
    assert_eq!(response.text(), "outside");
    assert!(proxy.mesh().get("http://169.254.169.254/latest/").send().status >= 400);
}

#[test]
fn the_first_match_wins() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let rules = "
- match: [{uri: {exact: /exact}}, {headers: {x-tier: {regex: 'gold|silver'}}}]
  route: [{destination: {host: a.test}}]
- match:
  - {uri: {prefix: /api/}, method: {exact: POST}, withoutHeaders: {x-internal: {}}}
  route: [{destination: {host: b.test}}]
- match: [{queryParams: {debug: {exact: '1'}}}]
  directResponse: {status: 204}
- route: [{destination: {host: c.test}}]";
    let text = ["a", "b", "c"]
        .iter()
        .zip([&a, &b, &c])
        .map(|(name, origin)| yaml::service_entry(&format!("{name}.test"), "HTTP", &[origin.address()]))
        .collect::<String>();
    let proxy = Proxy::with(text + &yaml::virtual_service("shop", "*", rules)).start();
    let front = proxy.front();
    let check = |request: crate::support::Request, expected: &str| {
        let response = request.clone().send();
        let got = if response.status == 204 { "204".to_owned() } else { response.text() };
        assert_eq!(got, expected, "{request:?}");
    };
    check(front.get("/exact?x"), "a");
    check(front.get("/exactly"), "c");
    check(front.get("/").header("x-tier", "silver"), "a");
    check(front.get("/").header("x-tier", "silver2"), "c");
    check(front.post("/api/x", ""), "b");
    check(front.get("/api/x"), "c");
    check(front.post("/api/x", "").header("x-internal", "1"), "c");
    check(front.get("/?debug=1&x=2"), "204");
    check(front.get("/?debug=2&debug=1"), "c");
}

#[test]
fn paths_and_authorities_are_rewritten_redirected_and_answered() {
    let origin = named("shop");
    let rules = "
- match: [{uri: {prefix: /api/}}]
  rewrite: {uri: /v2/, authority: inner.test}
  route: [{destination: {host: upstream.test}}]
- match: [{uri: {prefix: /old}}]
  redirect: {uri: /new, authority: new.test, redirectCode: 308}
- match: [{uri: {exact: /robots.txt}}]
  directResponse: {status: 200, body: {string: 'no robots'}}
  headers: {response: {set: {x-direct: 'yes'}}}";
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()]);
    let proxy = Proxy::with(text + &yaml::virtual_service("shop", "*", rules)).start();
    let response = proxy.get("/api/orders?id=7").host("shop.test").send().expect(200);
    assert_eq!(response.header("x-path"), "/v2/orders?id=7");
    assert_eq!(response.header("x-authority"), "inner.test");
    let moved = proxy.get("/old/thing?id=7").host("shop.test").send().expect(308);
    assert_eq!(moved.header("location"), "http://new.test/new?id=7");
    let direct = proxy.get("/robots.txt").send().expect(200);
    assert_eq!((direct.text().as_str(), direct.header("x-direct")), ("no robots", "yes"));
    proxy.get("/elsewhere").send().expect(404);
}

#[test]
fn weights_split_traffic_by_their_share_of_the_sum() {
    let (a, b) = (named("a"), named("b"));
    let rules = "
- route:
  - destination: {host: a.test}
    weight: 3
    headers: {response: {set: {x-share: three}}}
  - destination: {host: b.test}
    weight: 1";
    let text = yaml::service_entry("a.test", "HTTP", &[a.address()])
        + &yaml::service_entry("b.test", "HTTP", &[b.address()])
        + &yaml::virtual_service("split", "*", rules);
    let proxy = Proxy::with(text).start();
    let mut connection = proxy.front().connect();
    for _ in 0..400 {
        let response = connection.send(proxy.get("/")).expect(200);
        assert_eq!(response.header("x-share") == "three", response.text() == "a");
    }
    // Three quarters of 400 is 300, with a standard deviation under 9: five of them are 43.
    assert!((255..=345).contains(&a.hits()), "{} of 400", a.hits());
}

#[test]
fn a_destination_that_does_not_exist_fails_its_own_route_only() {
    let origin = named("shop");
    let rules = "
- match: [{uri: {prefix: /lost}}]
  route: [{destination: {host: nowhere.test}}]
- match: [{uri: {prefix: /subset}}]
  route: [{destination: {host: upstream.test, subset: v9}}]
- route: [{destination: {host: upstream.test}}]";
    let text = yaml::service_entry("upstream.test", "HTTP", &[origin.address()]);
    let proxy = Proxy::with(text + &yaml::virtual_service("shop", "*", rules)).start();
    for path in ["/lost", "/subset"] {
        proxy.get(path).send().expect(503);
        assert!(proxy.access_line(&[path]).contains(" 503 NC cluster_not_found "), "{}", proxy.output());
    }
    proxy.get("/").send().expect(200);
}

#[test]
fn a_service_with_endpoint_slices_is_balanced_and_its_subsets_follow_pod_labels() {
    let (a, b) = (Origin::h1().reply("v1"), Origin::h1().reply("v2"));
    // Endpoints of a Service on one host differ by address, as Pods do: 127.0.0.2 is this host, too.
    let port = a.address().port();
    let b2 = Origin::h1().at(format!("127.0.0.2:{port}").parse().unwrap()).reply("v2");
    drop(b);
    let pod = |name: &str, version: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web, version: {version}}}}}\nspec: {{containers: [{{name: web, image: web}}]}}\n---\n"
        )
    };
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  \
         ports: [{{name: http, port: 80, targetPort: {port}}}]\n---\n{}{}\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}, protocol: TCP}}]\nendpoints:\n\
         - {{addresses: [127.0.0.1], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: web-a, namespace: default}}}}\n\
         - {{addresses: [127.0.0.2], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: web-b, namespace: default}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web}}\nspec:\n  host: web\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n---\n",
        pod("web-a", "v1"),
        pod("web-b", "v2"),
    ) + &yaml::virtual_service(
        "web",
        "*",
        "- match: [{headers: {x-version: {exact: v2}}}]\n  route: [{destination: {host: web, subset: v2}}]\n\
         - match: [{headers: {x-version: {exact: v1}}}]\n  route: [{destination: {host: web, subset: v1}}]\n\
         - route: [{destination: {host: web}}]",
    );
    let proxy = Proxy::with(text).start();
    for version in ["v1", "v2"] {
        for _ in 0..5 {
            assert_eq!(proxy.get("/").header("x-version", version).send().expect(200).text(), version);
        }
    }
    let all: std::collections::BTreeSet<String> =
        (0..40).map(|_| proxy.get("/").send().expect(200).text()).collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(b2.hits() > 5);
}
