//! What the proxy says about itself: metrics, access log, admin API.

use crate::support::proxy::Directory;
use crate::support::tools::{needs, run};
use crate::support::{Origin, Proxy, yaml};
use serde_json::Value;

#[test]
fn every_exchange_is_counted_once_under_istios_names() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).workers(2).start();
    for _ in 0..7 {
        proxy.get("/").send().expect(200);
    }
    let metrics = proxy.metrics();
    let labels =
        [("response_code", "200"), ("destination_service", "upstream.test"), ("request_protocol", "http")];
    assert_eq!(metrics.sum("istio_requests_total", &labels), 7.0);
    assert_eq!(metrics.sum("istio_requests_total", &[]), 7.0);
    for histogram in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        assert_eq!(metrics.sum(&format!("{histogram}_count"), &labels), 7.0, "{histogram}");
    }
    let text = proxy.admin().get("/metrics").send().text();
    let series = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    for label in [
        "reporter=",
        "source_workload=",
        "destination_canonical_service=",
        "response_flags=\"-\"",
        "connection_security_policy=",
        "grpc_response_status=",
    ] {
        assert!(series.contains(label), "{label} is missing: {series}");
    }
    assert_eq!(
        proxy.admin().get("/stats/prometheus").send().expect(200).header("content-type").split(';').next(),
        Some("text/plain")
    );
}

#[test]
fn promtool_finds_nothing_but_istios_own_unit() {
    needs!("promtool", "curl");
    let origin = Origin::h1().reply("hello");
    let text = yaml::all_to("HTTP", &[origin.address()]) + &yaml::function("hello", "", "");
    let proxy = Proxy::with(text).start();
    proxy.get("/").send().expect(200);
    proxy.get("/").host("hello.default.localhost").send().expect(200);
    proxy.mesh().get("/").host("nobody.test").send().expect(502);
    let url = proxy.admin().url("/metrics");
    let outcome = run("bash", &["-c", &format!("curl -q -s '{url}' | promtool check metrics")]);
    let said = outcome.stdout + &outcome.stderr;
    let others: Vec<&str> =
        said.lines().filter(|line| !line.contains("istio_request_duration_milliseconds")).collect();
    assert!(others.iter().all(|line| line.trim().is_empty()), "{others:#?}");
}

#[test]
fn the_access_log_is_istios_text_format() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let request = proxy.post("/orders?id=7", "12345").host("shop.test").header("user-agent", "tester/1");
    let response = request.send().expect(200);
    assert_eq!(response.text(), "hello");
    let line = proxy.access_line(&["/orders"]);
    let id = origin.last().header("x-request-id").to_owned();
    assert!(
        line.starts_with("[20") && line[1..25].ends_with('Z') && line[25..].starts_with("] \""),
        "{line}"
    );
    assert!(line.contains("\"POST /orders?id=7 HTTP/1.1\" 200 - via_upstream - \"-\" 5 5 "), "{line}");
    let upstream =
        format!("\"tester/1\" \"{id}\" \"shop.test\" \"{}\" outbound|80||upstream.test ", origin.address());
    assert!(line.contains(&upstream), "{line}\n{upstream}");
    assert!(line.contains(&format!(" {} 127.0.0.1:", proxy.front().address())), "{line}");
    assert!(line.ends_with(" - default"), "{line}");
}

#[test]
fn the_json_access_log_has_istios_keys() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).access_log("json").start();
    proxy.get("/j").host("shop.test").send().expect(200);
    let line = proxy.access_line(&["\"/j\""]);
    let entry: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let strings = [
        ("method", "GET"),
        ("path", "/j"),
        ("protocol", "HTTP/1.1"),
        ("authority", "shop.test"),
        ("response_flags", "-"),
        ("upstream_cluster", "outbound|80||upstream.test"),
        ("route_name", "default"),
        ("response_code_details", "via_upstream"),
    ];
    for (key, expected) in strings {
        assert_eq!(entry[key], expected, "{key} in {line}");
    }
    for (key, expected) in [("response_code", 200), ("bytes_received", 0), ("bytes_sent", 5)] {
        assert_eq!(entry[key], expected, "{key} in {line}");
    }
    assert!(entry["duration"].is_number() && entry["requested_server_name"].is_null(), "{line}");
    for key in [
        "start_time",
        "connection_termination_details",
        "upstream_service_time",
        "x_forwarded_for",
        "user_agent",
        "request_id",
        "upstream_host",
        "upstream_local_address",
        "downstream_local_address",
        "downstream_remote_address",
        "upstream_transport_failure_reason",
    ] {
        assert!(entry.get(key).is_some(), "{key} is missing: {line}");
    }
}

#[test]
fn mesh_config_says_how_the_access_log_looks_and_the_flag_turns_it_off() {
    let origin = Origin::h1().reply("hello");
    let mesh = Directory::new();
    mesh.write("mesh.yaml", "meshConfig:\n  accessLogFile: /dev/stdout\n  \
                             accessLogFormat: \"%REQ(:METHOD)% %REQ(X-TEAM?USER-AGENT)% %RESPONSE_CODE%|%RESPONSE_FLAGS%\\n\"\n");
    let path = mesh.path().join("mesh.yaml");
    let flag = ["--mesh-config", path.to_str().unwrap()];
    let proxy = Proxy::to(&origin).args(flag).start();
    proxy.get("/").header("x-team", "blue").send().expect(200);
    assert_eq!(proxy.access_line(&["blue"]), "GET blue 200|-");
    let proxy = Proxy::to(&origin).args(flag).access_log("off").start();
    proxy.get("/").header("x-team", "green").send().expect(200);
    // The log is written off the hot path; what a second exchange and a scrape have outlived was not written.
    proxy.get("/").header("x-team", "green").send().expect(200);
    proxy.metrics();
    assert!(!proxy.output().contains("green"), "{}", proxy.output());
}

#[test]
fn nothing_a_client_sends_can_write_a_line_of_its_own() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    proxy.get("/a\"b").header("user-agent", "x\" 200 - forged \"").try_send().ok();
    proxy.get("/after").send().expect(200);
    let line = proxy.access_line(&["/after"]);
    assert!(line.contains("\"GET /after HTTP/1.1\" 200"), "{line}");
    assert!(!proxy.output().lines().any(|line| line.starts_with("forged")), "{}", proxy.output());
}

#[test]
fn the_admin_api_tells_what_is_loaded_and_what_runs() {
    let origin = Origin::h1().reply("hello");
    let text = yaml::all_to("HTTP", &[origin.address()]) + &yaml::function("hello", "", "");
    let proxy = Proxy::with(text).start();
    proxy.get("/").host("hello.default.localhost").send().expect(200);
    let admin = proxy.admin();
    let get = |path: &str| admin.get(path).send().expect(200).text();
    assert!(get("/config_dump").contains("outbound|80||upstream.test"));
    assert!(get("/clusters").contains(&origin.address().to_string()));
    assert!(get("/functions").contains("hello"));
    get("/ready");
    get("/live");
    assert_eq!(admin.get("/nothing").send().status, 404);
    assert_eq!(admin.get("/quitquitquit").send().status, 405, "what changes something is a POST");
    admin.post("/logging?level=debug", "").send().expect(200);
    assert!(admin.post("/logging?level=loud", "").send().status == 400);
}

#[test]
fn quitquitquit_is_a_clean_exit_and_drain_only_fails_readiness() {
    let origin = Origin::h1().reply("hello");
    let mut proxy = Proxy::to(&origin).start();
    let admin = proxy.admin();
    admin.post("/drain", "").send().expect(200);
    crate::support::eventually("readiness fails", crate::support::seconds(5), || {
        (admin.get("/ready").send().status == 503).then_some(())
    });
    admin.post("/quitquitquit", "").send().expect(200);
    assert!(proxy.exits_within(crate::support::seconds(15)).success());
}

#[test]
fn a_stats_listener_shows_metrics_and_readiness_and_nothing_else() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).args(["--stats", "127.0.0.1:0"]).start();
    let stats =
        crate::support::eventually("the stats listener", crate::support::seconds(5), || proxy.find("stats"));
    stats.get("/stats/prometheus").send().expect(200);
    stats.get("/healthz/ready").send().expect(200);
    stats.get("/config_dump").send().expect(404);
    assert!(stats.post("/quitquitquit", "").send().status >= 400);
    proxy.get("/").send().expect(200);
}

#[test]
fn connections_to_endpoints_are_counted() {
    for origin in [Origin::h1().reply("hello"), Origin::h2c().reply("hello")] {
        let proxy = Proxy::to(&origin).start();
        proxy.get("/").send().expect(200);
        let metrics = proxy.metrics();
        assert_eq!(metrics.sum("pilotlight_upstream_connections_opened_total", &[]), 1.0);
        assert_eq!(metrics.sum("pilotlight_upstream_connections", &[]), 1.0);
        drop(origin);
        proxy.get("/").send();
        crate::support::eventually("a failure is counted", crate::support::seconds(5), || {
            let metrics = proxy.metrics();
            let open = metrics.sum("pilotlight_upstream_connections", &[]);
            let failed = metrics.sum("pilotlight_upstream_connections_failed_total", &[]);
            (open == 0.0 && failed >= 1.0).then_some(())
        });
    }
}

#[test]
fn a_cold_start_is_counted_and_its_hold_is_not_in_the_destinations_time() {
    let text = yaml::function_running("slow", "[pilotlight, echo, --start-delay, 600ms]", "", "");
    let proxy = Proxy::with(text).start();
    proxy.get("/").host("slow.default.localhost").send().expect(200);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("pilotlight_hold_seconds_count", &[]), 1.0);
    assert!(metrics.sum("pilotlight_hold_seconds_sum", &[]) >= 0.5);
    let destination = [("reporter", "destination")];
    let took = metrics.sum("istio_request_duration_milliseconds_sum", &destination);
    assert!(took < 500.0, "{took} ms");
}
