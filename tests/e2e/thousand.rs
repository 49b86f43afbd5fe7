//! A thousand requests that wait, and what may happen to them meanwhile.

use crate::support::crowd::{Outcome, ask, at_once};
use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::{Proxy, RawOrigin, eventually, seconds, yaml};
use rustix::process::Signal;
use std::collections::HashMap;

const COUNT: u32 = 1000;

/// A function that begins to listen after so long and leaves a line in a file at each start.
fn slow(directory: &Directory, after: &str, annotations: &str, spec: &str) -> String {
    let file = directory.path().join("starts");
    let script = format!("echo start >> {}; exec {PILOTLIGHT} echo --start-delay {after}", file.display());
    let command = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"\n{annotations}");
    yaml::function_running("burst", "[/app]", &command, spec)
}

fn starts(directory: &Directory) -> usize {
    std::fs::read_to_string(directory.path().join("starts")).map_or(0, |text| text.lines().count())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\nhost: burst.default.localhost\nconnection: close\n\n")
}

fn json(outcome: &Outcome) -> serde_json::Value {
    assert_eq!(outcome.status, 200, "{}", outcome.text);
    let body = outcome.text.split("\r\n\r\n").nth(1).unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", outcome.text))
}

/// So many at zero: the instances ever started, each answered once, and never more at once than may be.
#[track_caller]
fn burst(concurrency: u64, delay: &str, instances: usize) {
    let directory = Directory::new();
    let annotations = "autoscaling.knative.dev/max-scale: '20'";
    let spec = format!("containerConcurrency: {concurrency}");
    let proxy = Proxy::with(slow(&directory, "500ms", annotations, &spec)).workers(2).start();
    let address = proxy.front().address();
    let path = format!("/?delay={delay}");
    let answers = at_once(COUNT, |_| ask(address, get(&path), seconds(90)));
    let (mut served, mut peak) = (HashMap::new(), 0);
    for answer in answers.iter().map(json) {
        let most: &mut u64 = served.entry(answer["pid"].to_string()).or_default();
        *most = (*most).max(answer["served"].as_u64().unwrap());
        peak = peak.max(answer["peak"].as_u64().unwrap());
    }
    assert!(peak <= concurrency, "{peak} at once where {concurrency} may be");
    assert_eq!(served.values().sum::<u64>(), u64::from(COUNT), "each reached a function once");
    assert_eq!(starts(&directory), instances, "containerConcurrency {concurrency}");
}

#[test]
fn a_thousand_at_zero_start_twenty_that_take_one_each() {
    burst(1, "20ms", 20);
}

#[test]
fn a_thousand_at_zero_start_twenty_that_take_ten_each() {
    burst(10, "200ms", 20);
}

#[test]
fn a_thousand_at_zero_start_ten_that_take_a_hundred_each() {
    burst(100, "2s", 10);
}

/// Runs `change` while a thousand wait, and gives what became of them.
fn held(proxy: &Proxy, change: impl FnOnce() + Send) -> Vec<Outcome> {
    let address = proxy.front().address();
    std::thread::scope(|scope| {
        let crowd = scope.spawn(move || at_once(COUNT, |_| ask(address, get("/"), seconds(60))));
        eventually("all of them wait", seconds(20), || {
            let functions = proxy.admin().get("/functions").send().json();
            (functions["functions"][0]["waiting"] == COUNT).then_some(())
        });
        change();
        crowd.join().unwrap()
    })
}

#[test]
fn a_reload_loses_none_of_a_thousand_that_wait() {
    let directory = Directory::new();
    let of = |max: u32| {
        let annotations = format!("autoscaling.knative.dev/max-scale: '{max}'");
        slow(&directory, "3s", &annotations, "containerConcurrency: 100")
    };
    let proxy = Proxy::with(of(2)).workers(2).start();
    let outcomes = held(&proxy, || proxy.write("config.yaml", &of(5)));
    outcomes.iter().for_each(|outcome| drop(json(outcome)));
    assert_eq!(starts(&directory), 5, "the new bound counts for those who wait");
}

#[test]
fn a_thousand_that_wait_for_a_function_that_is_deleted_are_told_at_once() {
    let directory = Directory::new();
    let other = yaml::function("other", "", "");
    let proxy = Proxy::with(slow(&directory, "60s", "", "") + &other).workers(2).start();
    let outcomes = held(&proxy, || proxy.write("config.yaml", &other));
    for outcome in &outcomes {
        assert_eq!(outcome.status, 503, "{}", outcome.text);
        assert!(outcome.text.contains("the function was removed"), "{}", outcome.text);
        assert!(outcome.took < seconds(30), "{:?}", outcome.took);
    }
}

#[test]
fn a_thousand_that_wait_move_to_the_revision_that_takes_the_place_of_theirs() {
    let of = |revision: &str, after: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: burst}}\nspec:\n  template:\n    \
             metadata: {{name: {revision}}}\n    spec:\n      containers: [{{image: example.com/burst:1, command: \
             [pilotlight, echo, --start-delay, {after}]}}]\n---\n"
        )
    };
    let proxy = Proxy::with(of("burst-one", "60s")).workers(2).start();
    let outcomes = held(&proxy, || proxy.write("config.yaml", &of("burst-two", "100ms")));
    assert!(outcomes.iter().all(|outcome| json(outcome)["revision"] == "burst-two"));
}

#[test]
fn sigterm_answers_who_waits_finishes_who_works_and_closes_tunnels() {
    let origin = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
        connection.read_to_end();
    });
    let http = "- route: [{destination: {host: upstream.test}}]\n";
    let text = yaml::function_running("burst", "[pilotlight, echo, --start-delay, 1s]", "", "")
        + &yaml::function("busy", "", "")
        + &yaml::service_entry("upstream.test", "HTTP", &[origin.address()])
        + &yaml::virtual_service("all", "tunnel.test", http);
    let mut proxy = Proxy::with(text).workers(2).args(["--drain-timeout", "6s"]).start();
    let front = proxy.front();
    let busy = move |path: &str| front.get(path).host("busy.default.localhost").timeout(seconds(30)).send();
    busy("/").expect(200);
    let mut tunnel = front.raw();
    tunnel.send("GET / HTTP/1.1\nhost: tunnel.test\nconnection: upgrade\nupgrade: websocket\n\n");
    assert!(tunnel.read_head().starts_with("HTTP/1.1 101 "));
    std::thread::scope(|scope| {
        let working = scope.spawn(move || busy("/?delay=2s"));
        let waiting = scope.spawn(move || at_once(50, |_| ask(front.address(), get("/"), seconds(30))));
        eventually("they wait", seconds(10), || {
            let functions = proxy.admin().get("/functions").send().json();
            let waits = |one: &serde_json::Value| one["waiting"].as_u64().unwrap_or(0);
            let all: u64 = functions["functions"].as_array()?.iter().map(waits).sum();
            (all == 50).then_some(())
        });
        proxy.signal(Signal::TERM);
        working.join().unwrap().expect(200);
        waiting.join().unwrap().iter().for_each(|outcome| drop(json(outcome)));
    });
    assert!(proxy.exits_within(seconds(20)).success());
    tunnel.read_to_end();
}
