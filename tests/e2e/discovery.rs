//! Destinations by name, limits of the whole process, and what is said about what does not act.

use crate::support::process::processes_with;
use crate::support::{Origin, Proxy, eventually, seconds, together, yaml};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn named(address: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: named}}\nspec:\n  \
         hosts: [named.test]\n  location: MESH_EXTERNAL\n  resolution: DNS\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints:\n  \
         - {{address: {address}, ports: {{http: {port}}}}}\n---\n"
    )
}

#[test]
fn a_name_is_looked_up_and_each_of_its_addresses_is_an_endpoint() {
    let origin = Origin::h1().reply("found");
    let proxy = Proxy::with(named("localhost", origin.address().port())).start();
    eventually("the name is found", seconds(10), || {
        (proxy.mesh().get("/").host("named.test").send().status == 200).then_some(())
    });
    assert_eq!(proxy.mesh().get("/").host("named.test").send().text(), "found");
}

#[test]
fn a_host_with_another_name_that_nobody_knows_does_not_lead_to_the_one_before() {
    let origin = Origin::h1().reply("found");
    let port = origin.address().port();
    let proxy = Proxy::with(named("localhost", port)).start();
    let status = || proxy.mesh().get("/").host("named.test").send().status;
    eventually("the name is found", seconds(10), || (status() == 200).then_some(()));
    proxy.write("config.yaml", &named("nobody.invalid", port));
    eventually("the other name is not found", seconds(20), || (status() == 503).then_some(()));
    let said = proxy.log().lines().filter(|line| line.contains("nobody.invalid")).count();
    assert_eq!(said, 1, "{}", proxy.log());
}

#[test]
fn a_service_entry_without_endpoints_is_503_uh() {
    let proxy = Proxy::with(yaml::service_entry("empty.test", "HTTP", &[])).start();
    let response = proxy.mesh().get("/empty").host("empty.test").send().expect(503);
    assert_eq!(response.text(), "no healthy upstream");
    assert!(proxy.access_line(&["/empty"]).contains(" 503 UH no_healthy_upstream "), "{}", proxy.output());
}

#[test]
fn endpoints_share_the_load() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::h1().reply("hello")).collect();
    let endpoints: Vec<_> = origins.iter().map(Origin::address).collect();
    for balance in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] {
        let policy = format!("loadBalancer: {{simple: {balance}}}");
        let text = yaml::all_to("HTTP", &endpoints) + &yaml::destination_rule("upstream.test", &policy);
        let proxy = Proxy::with(text).workers(2).start();
        let before: Vec<usize> = origins.iter().map(Origin::hits).collect();
        let mut connection = proxy.front().connect();
        for _ in 0..120 {
            connection.send(proxy.get("/")).expect(200);
        }
        let shares: Vec<usize> =
            origins.iter().zip(before).map(|(origin, before)| origin.hits() - before).collect();
        // A third of 120 is 40, with a standard deviation of about 5.
        assert!(shares.iter().all(|share| (14..=66).contains(share)), "{balance}: {shares:?}");
        if balance == "ROUND_ROBIN" {
            assert!(shares.iter().all(|share| *share == 40), "one worker, one connection: {shares:?}");
        }
    }
}

#[test]
fn all_functions_together_stay_under_the_ceiling() {
    let mark = format!("--exit-after {}s", 80_000 + std::process::id() % 6_000);
    let command = format!("[pilotlight, echo, {}]", mark.replace(' ', ", "));
    let functions =
        ["one", "two"].map(|name| yaml::function_running(name, &command, "", "containerConcurrency: 1"));
    let proxy = Proxy::with(functions.concat()).args(["--max-instances", "3"]).start();
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(processes_with(&mark).len(), Ordering::SeqCst);
            }
        });
        together(12, |number| {
            let host = if number % 2 == 0 { "one.default.localhost" } else { "two.default.localhost" };
            proxy.get("/?delay=100ms").host(host).timeout(seconds(60)).send().expect(200);
        });
        over.store(true, Ordering::SeqCst);
    });
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)), "{most:?} ran at the same time");
    proxy.logs("max-instances");
}

#[test]
fn what_does_not_act_yet_is_said_and_never_silent() {
    let policy =
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: log-all}\nspec: {}\n---\n";
    let unknown = "apiVersion: jaegertracing.io/v1\nkind: Jaeger\nmetadata: {name: simplest}\n---\n";
    let proxy = Proxy::with(format!("{policy}{unknown}{}", yaml::function("hello", "", ""))).start();
    let line = proxy.logs("not enforced yet");
    assert!(line.contains("log-all") || proxy.log().contains("log-all"), "{line}");
    proxy.get("/").host("hello.default.localhost").send().expect(200);
}

#[test]
fn one_revision_name_with_two_templates_is_an_error_that_shows_the_fix() {
    let document = |image: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: twin}}\nspec:\n  template:\n    \
                 metadata: {{name: twin-one}}\n    spec:\n      containers: [{{image: {image}, command: [pilotlight, echo]}}]\n---\n"
        )
    };
    let proxy = Proxy::with(document("a:1") + &document("a:2") + &yaml::function("hello", "", "")).start();
    proxy.logs("twin-one");
    proxy.get("/").host("hello.default.localhost").send().expect(200);
}
