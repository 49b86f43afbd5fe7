//! Requests that wait: their bounds, what those are told who cannot, and what is started for them.

use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::{Proxy, Request, eventually, millis, seconds, together, yaml};

fn ask(proxy: &Proxy, function: &str, path: &str) -> Request {
    proxy.get(path).host(&format!("{function}.default.localhost")).timeout(seconds(60))
}

/// A function that begins to listen after so long and leaves a line in a file at each start.
fn slow(directory: &Directory, name: &str, after: &str, annotations: &str, spec: &str) -> String {
    let file = directory.path().join(name);
    let script = format!("echo start >> {}; exec {PILOTLIGHT} echo --start-delay {after}", file.display());
    let command = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"\n{annotations}");
    yaml::function_running(name, "[/app]", &command, spec)
}

fn starts(directory: &Directory, name: &str) -> usize {
    std::fs::read_to_string(directory.path().join(name)).map_or(0, |text| text.lines().count())
}

#[test]
fn a_thousand_at_once_start_exactly_the_instances_they_need() {
    let directory = Directory::new();
    let annotations = "autoscaling.knative.dev/max-scale: '20'";
    let text = slow(&directory, "burst", "500ms", annotations, "containerConcurrency: 100");
    let proxy = Proxy::with(text).workers(2).start();
    let answers = together(1000, |_| ask(&proxy, "burst", "/?delay=2s").send().expect(200).json());
    let peak = answers.iter().map(|answer| answer["peak"].as_u64().unwrap()).max().unwrap();
    assert!(peak <= 100, "{peak} at once");
    assert_eq!(starts(&directory, "burst"), 10, "a hundred requests each");
}

#[test]
fn beyond_the_limit_of_the_queue_the_answer_says_when_to_come_back() {
    for (status, annotation) in [(503, ""), (429, "pilotlight.dev/overflow-status: '429'")] {
        let directory = Directory::new();
        let annotations = format!("pilotlight.dev/hold-count: '1'\n{annotation}");
        let proxy = Proxy::with(slow(&directory, "small", "1500ms", &annotations, "")).start();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| ask(&proxy, "small", "/first").send().expect(200));
            eventually("one waits", seconds(5), || {
                (proxy.metrics().sum("pilotlight_held_requests", &[]) == 1.0).then_some(())
            });
            let refused = ask(&proxy, "small", "/second").send().expect(status);
            assert!(refused.took < millis(500), "{:?}", refused.took);
            assert_eq!(refused.header("retry-after"), "1");
            assert!(refused.text().contains("waiting for this function"), "{}", refused.text());
            first.join().unwrap();
        });
        assert!(proxy.access_line(&["/second", "UO"]).contains("hold_queue_full"));
        let labels = [("revision", "default/small-00001"), ("fault", "HoldFull")];
        assert_eq!(proxy.metrics().sum("pilotlight_hold_refused_total", &labels), 1.0);
    }
}

#[test]
fn the_process_has_a_ceiling_for_all_functions_together() {
    let directory = Directory::new();
    let text = slow(&directory, "one", "1500ms", "", "") + &slow(&directory, "two", "1500ms", "", "");
    let proxy = Proxy::with(text).args(["--max-held", "1"]).start();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&proxy, "one", "/").send().expect(200));
        eventually("one waits", seconds(5), || {
            (proxy.metrics().sum("pilotlight_held_requests", &[]) == 1.0).then_some(())
        });
        ask(&proxy, "two", "/other").send().expect(503);
        first.join().unwrap();
    });
    assert!(proxy.access_line(&["/other"]).contains("hold_ceiling"), "{}", proxy.output());
    assert_eq!(starts(&directory, "two"), 0, "who is not held wakes nothing");
}

#[test]
fn who_cannot_wait_for_a_start_is_told_at_once_and_the_next_ones_are_served() {
    let directory = Directory::new();
    let annotations = "autoscaling.knative.dev/window: 6s";
    let proxy = Proxy::with(slow(&directory, "late", "2s", annotations, "timeoutSeconds: 1")).start();
    // How long it takes is not known yet: the first waits for as long as it may.
    ask(&proxy, "late", "/unknown").send().expect(504);
    eventually("it starts all the same", seconds(10), || {
        (ask(&proxy, "late", "/").send().status == 200).then_some(())
    });
    eventually("it is at zero again", seconds(30), || {
        let functions = proxy.admin().get("/functions").send().json();
        functions["functions"][0]["instances"].as_array().unwrap().is_empty().then_some(())
    });
    let refused = ask(&proxy, "late", "/known").send().expect(504);
    assert!(refused.took < millis(300), "{:?}", refused.took);
    assert!(!refused.header("retry-after").is_empty());
    assert!(proxy.access_line(&["/known"]).contains("hold_deadline_too_short"), "{}", proxy.output());
    eventually("it starts for those who come later", seconds(10), || {
        (ask(&proxy, "late", "/").send().status == 200).then_some(())
    });
}

#[test]
fn health_checks_wake_nothing() {
    let directory = Directory::new();
    let proxy = Proxy::with(slow(&directory, "asleep", "0ms", "", "")).start();
    let probe = |path: &str| ask(&proxy, "asleep", path).header("user-agent", "kube-probe/1.33");
    probe("/probed").send().expect(503);
    assert!(proxy.access_line(&["/probed"]).contains("health_check_at_zero"), "{}", proxy.output());
    std::thread::sleep(millis(300));
    assert_eq!(starts(&directory, "asleep"), 0);
    ask(&proxy, "asleep", "/").send().expect(200);
    probe("/").send().expect(200);
}

#[test]
fn functions_that_call_each_other_in_a_circle_are_told_when_they_wait_for_themselves() {
    let annotations = "autoscaling.knative.dev/max-scale: '1'";
    let text =
        yaml::function("ping", annotations, "containerConcurrency: 1") + &yaml::function("pong", "", "");
    let proxy = Proxy::with(text).start();
    let inner =
        "http://pong/?call=http://ping/circle".replace(':', "%3A").replace('?', "%3F").replace('=', "%3D");
    // Two starts on a busy machine take what they take: they are none of what is measured.
    ["ping", "pong"].iter().for_each(|name| drop(ask(&proxy, name, "/").send().expect(200)));
    let answer = ask(&proxy, "ping", &format!("/?call={inner}")).send().expect(200);
    assert!(answer.took < seconds(1), "{:?}", answer.took);
    let answer = answer.json();
    let call = &answer["calls"][0]["answer"]["calls"][0];
    assert_eq!(call["status"], 508, "{answer}");
    assert!(proxy.access_line(&["GET /circle"]).contains("function_waits_for_itself"), "{}", proxy.output());
    let headers = ask(&proxy, "ping", "/").header("x-pilotlight-lineage", "default/ping-00001").send().json();
    assert_eq!(headers["headers"]["x-pilotlight-lineage"], "default/ping-00001", "once: ours");
}

#[test]
fn a_cold_start_says_where_its_time_went() {
    let directory = Directory::new();
    let text = slow(&directory, "cold", "300ms", "pilotlight.dev/server-timing: 'true'", "");
    let proxy = Proxy::with(text).start();
    let first = ask(&proxy, "cold", "/").send().expect(200);
    let timing = first.header("server-timing").to_owned();
    assert!(timing.starts_with("cold;desc=from_zero, hold;dur="), "{timing}");
    let phases: Vec<f64> =
        timing.split(";dur=").skip(1).map(|rest| rest.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(phases.len(), 7, "{timing}");
    let (all, took) = (phases.iter().sum::<f64>(), first.took.as_secs_f64() * 1e3);
    assert!(all <= took && all > 300.0, "{timing}: {took} ms");
    assert!(phases[2] + phases[3] > 290.0, "it was the function that took so long: {timing}");
    assert_eq!(ask(&proxy, "cold", "/").send().expect(200).header("server-timing"), "");
    let labels = [("revision", "default/cold-00001"), ("phase", "listen")];
    assert_eq!(proxy.metrics().sum("pilotlight_cold_start_phase_seconds_count", &labels), 1.0);
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on_when_it_is_its_turn_and_not_before() {
    let directory = Directory::new();
    let gate = directory.path().join("open");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; exec {PILOTLIGHT} echo", gate.display());
    let command =
        format!("pilotlight.dev/local-command: \"sh -c '{script}'\"\npilotlight.dev/hold-count: '1'");
    let proxy = Proxy::with(yaml::function_running("gated", "[/app]", &command, "")).start();
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\nhost: gated.default.localhost\nexpect: 100-continue\ncontent-length: 100000\n\n"
        )
    };
    let mut held = proxy.front().raw();
    held.send(&head("/held"));
    eventually("it waits", seconds(10), || {
        (proxy.metrics().sum("pilotlight_held_requests", &[]) == 1.0).then_some(())
    });
    let mut refused = proxy.front().raw();
    refused.send(&head("/refused"));
    assert!(refused.read_head().starts_with("HTTP/1.1 503 "), "who is refused is asked for no body");
    assert!(held.is_silent_for(millis(300)), "it is not asked for its body while it waits");
    directory.write("open", "");
    assert!(held.read_head().starts_with("HTTP/1.1 100 Continue\r\n"));
    held.send(&"x".repeat(100_000));
    assert!(held.read_head().starts_with("HTTP/1.1 200 OK\r\n"));
    held.read_until("\"body_bytes\":100000");
}
