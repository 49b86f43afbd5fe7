//! Who calls, simulated: functions on this host are known by what stands in their `http_proxy`, and by nothing else.

use crate::support::proxy::Directory;
use crate::support::tools::{curl, needs, run};
use crate::support::wait::becomes_true;
use crate::support::{Proxy, Request, seconds, yaml};

/// Only the clerk may call the till.
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: clerks}\nspec:\n  \
                      selector: {matchLabels: {serving.knative.dev/service: till}}\n  rules: [{from: [{source: \
                      {principals: [cluster.local/ns/default/sa/clerk]}}]}]\n---\n";

/// Two callers with accounts of their own, and the till.
fn shop() -> String {
    yaml::function("clerk", "", "serviceAccountName: clerk")
        + &yaml::function("thief", "", "")
        + &yaml::function("till", "", "")
        + POLICY
}

fn ask(proxy: &Proxy, function: &str, query: &str) -> Request {
    proxy.get(&format!("/?{query}")).host(&format!("{function}.default.localhost"))
}

/// What a call by `function` to the till is answered with.
fn called(proxy: &Proxy, function: &str) -> u64 {
    let answer = ask(proxy, function, "call=http://till/").send().expect(200);
    answer.json()["calls"][0]["status"].as_u64().unwrap()
}

/// The `http_proxy` of the only instance of `function`.
fn announced(proxy: &Proxy, function: &str) -> String {
    let pid = ask(proxy, function, "").send().expect(200).json()["pid"].as_u64().unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    environment.split('\0').find_map(|one| one.strip_prefix("http_proxy=")).unwrap().to_owned()
}

#[test]
fn a_function_calls_as_its_service_account_and_nobody_wakes_what_refuses_them() {
    let own = Directory::new();
    let audit = own.path().join("audit.jsonl");
    let proxy = Proxy::with(shop()).args(["--audit-log", audit.to_str().unwrap()]).start();
    proxy.logs("identities are simulated, for ALLOW default/clerks");
    assert_eq!(called(&proxy, "thief"), 403);
    proxy.mesh().get("/").host("till").send().expect(403);
    let started = [("function", "till")];
    let starts = proxy.metrics().sum("pilotlight_cold_starts_total", &started);
    assert_eq!(
        proxy.metrics().sum("pilotlight_cold_starts_total", &[]) - starts,
        1.0,
        "the thief alone runs"
    );
    assert_eq!(starts, 0.0, "the till was not woken");
    assert_eq!(called(&proxy, "clerk"), 200);
    let told = || std::fs::read_to_string(&audit).unwrap_or_default();
    let denied = "\"principal\":\"cluster.local/ns/default/sa/default\"";
    assert!(
        becomes_true(seconds(5), || told()
            .lines()
            .any(|line| line.contains(denied) && line.contains("\"simulated\":true"))),
        "{}",
        told()
    );
    // Gone with a reload as it came with one.
    proxy.write("config.yaml", &shop().replace("sa/clerk", "sa/boss"));
    assert!(becomes_true(seconds(5), || called(&proxy, "clerk") == 403), "the clerk is no boss");
}

#[test]
fn what_is_simulated_is_nowhere_taken_for_proven() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    \
                accessLogFile: /dev/stdout\n    accessLogFormat: \"%REQ(:AUTHORITY)% %RESPONSE_CODE% \
                peer=%DOWNSTREAM_PEER_URI_SAN% tls=%DOWNSTREAM_TLS_VERSION%\\n\"\n---\n";
    let proxy = Proxy::with(shop() + mesh).start();
    assert_eq!((called(&proxy, "clerk"), called(&proxy, "thief")), (200, 403));
    proxy.access_line(&["till 200 peer=- tls=-"]);
    proxy.access_line(&["till 403 peer=- tls=-"]);
    let metrics = proxy.metrics();
    for code in ["200", "403"] {
        let till =
            [("destination_workload", "till-00001"), ("reporter", "destination"), ("response_code", code)];
        let none = [&till[..], &[("connection_security_policy", "none")]].concat();
        assert_eq!(metrics.sum("istio_requests_total", &till), 1.0);
        assert_eq!(metrics.sum("istio_requests_total", &none), 1.0);
        let unknown = [&till[..], &[("source_principal", "unknown")]].concat();
        assert_eq!(metrics.sum("istio_requests_total", &unknown), 1.0);
    }
    // Nor is the destination told anything of it.
    let seen = ask(&proxy, "clerk", "call=http://till/").send().expect(200).text();
    assert!(!seen.to_lowercase().contains("x-forwarded-client-cert"), "{seen}");
}

#[test]
fn ordinary_clients_send_what_their_proxys_url_says_and_the_destination_does_not_see_it() {
    needs!("curl", "python3");
    let proxy = Proxy::with(shop()).start();
    let (clerk, thief) = (announced(&proxy, "clerk"), announced(&proxy, "thief"));
    assert!(clerk.starts_with("http://default.clerk-00001:") && clerk != thief, "{clerk}");
    let script = "import sys, urllib.request as u, urllib.error as e\n\
                  o = u.build_opener(u.ProxyHandler({'http': sys.argv[1]}))\n\
                  try: print(o.open('http://till/', timeout=20).status)\n\
                  except e.HTTPError as x: print(x.code)\n";
    let status = |at: &str| {
        let by_curl =
            curl(&["--proxy", at, "--output", "/dev/null", "--write-out", "%{http_code}", "http://till/"]);
        let by_python = run("python3", &["-c", script, at]);
        assert_eq!(by_curl.stdout.trim(), by_python.stdout.trim(), "{by_curl:?} {by_python:?}");
        by_curl.stdout.trim().to_owned()
    };
    assert_eq!(status(&clerk), "200");
    assert_eq!(status(&thief), "403");
    assert_eq!(status(&clerk.replace("clerk-00001:", "clerk-00001:x")), "403");
    assert_eq!(status(&thief.replace("thief", "clerk")), "403");
    let seen = curl(&["--proxy", &clerk, "http://till/"]).stdout;
    assert!(seen.contains("\"till\"") && !seen.to_lowercase().contains("proxy-authorization"), "{seen}");
    // At a gateway it says nothing: whoever comes there is the gateway.
    let front = proxy.front().address();
    let at_gateway = clerk.split_once('@').map(|(user, _)| format!("{user}@{front}")).unwrap();
    let host = "http://till.default.localhost/";
    let answer =
        curl(&["--proxy", &at_gateway, "--output", "/dev/null", "--write-out", "%{http_code}", host]);
    assert_eq!(answer.stdout, "403");
}

#[test]
fn nobody_is_simulated_where_others_could_reach_the_listeners() {
    for flag in [["--bind", "0.0.0.0"], ["--mesh", "0.0.0.0:0"]] {
        let proxy = Proxy::with(shop()).args(flag).start();
        let warning = proxy.logs("identities are not simulated");
        assert!(warning.contains("WARN") && warning.contains("ALLOW default/clerks"), "{warning}");
        proxy.mesh().get("/").host("till").send().expect(403);
        assert_eq!(called(&proxy, "clerk"), 403, "{flag:?}: the clerk is nobody");
    }
}

#[test]
fn what_only_mutual_tls_could_do_is_said_at_start() {
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: \
                  {mode: STRICT}}\n---\n";
    let proxy = Proxy::with(shop() + strict).start();
    proxy.logs(
        "PeerAuthentication STRICT of default/clerk-00001, default/thief-00001, default/till-00001 is not",
    );
    assert_eq!(called(&proxy, "clerk"), 200);
}

#[test]
fn policies_name_the_port_of_a_functions_container() {
    let text = yaml::function("till", "", "").trim_end_matches("---\n").to_owned()
        + "        ports: [{containerPort: 9000}]\n---\n";
    let allow = |port| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {{rules: \
             [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}\n---\n"
        )
    };
    for (port, status) in [(8080, 403), (9000, 200)] {
        let proxy = Proxy::with(text.clone() + &allow(port)).start();
        ask(&proxy, "till", "").send().expect(status);
    }
}
