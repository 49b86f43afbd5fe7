//! Probes of functions: what is ready takes requests, what is not is left alone, what is dead is replaced.

use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::{Proxy, Request, eventually, seconds, yaml};

fn ask(proxy: &Proxy) -> Request {
    proxy.get("/").host("probed.default.localhost").timeout(seconds(30))
}

/// A function with more said about its container, lines at no indentation.
fn probed(command: &str, annotations: &str, container: &str) -> String {
    let more: String = container.trim().lines().map(|line| format!("        {line}\n")).collect();
    let spec = "containerConcurrency: 10";
    yaml::function_running("probed", command, annotations, spec).trim_end_matches("---\n").to_owned() + &more
}

fn state(proxy: &Proxy) -> String {
    let functions = proxy.admin().get("/functions").send().expect(200).json();
    functions["functions"][0]["instances"][0]["state"].as_str().unwrap_or("").to_owned()
}

#[test]
fn a_command_puts_an_instance_aside_and_back_without_ending_it() {
    let directory = Directory::new();
    let file = directory.path().join("aside");
    let probe = format!(
        "readinessProbe: {{exec: {{command: [sh, -c, 'test -n \"$PORT\" && test ! -e {}']}}, periodSeconds: 1, \
         failureThreshold: 1}}",
        file.display()
    );
    let max = "autoscaling.knative.dev/max-scale: '1'";
    let proxy = Proxy::with(probed("[pilotlight, echo]", max, &probe)).start();
    let before = ask(&proxy).send().expect(200).json()["pid"].clone();
    std::fs::write(&file, "").unwrap();
    eventually("it is put aside", seconds(20), || (state(&proxy) == "unready").then_some(()));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ask(&proxy).send().expect(200).json()["pid"].clone());
        eventually("a request waits", seconds(10), || {
            (proxy.metrics().sum("pilotlight_held_requests", &[]) == 1.0).then_some(())
        });
        std::fs::remove_file(&file).unwrap();
        assert_eq!(held.join().unwrap(), before, "the same process answers");
    });
    assert_eq!(proxy.metrics().sum("pilotlight_instance_unready_total", &[]), 1.0);
}

#[test]
fn an_instance_that_fails_its_liveness_probe_is_replaced() {
    let directory = Directory::new();
    let file = directory.path().join("dead");
    let script = format!("rm -f {}; exec {PILOTLIGHT} echo", file.display());
    let annotation = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"");
    let probe = format!(
        "livenessProbe: {{exec: {{command: [test, '!', -e, {}]}}, periodSeconds: 1, failureThreshold: 1}}",
        file.display()
    );
    let proxy = Proxy::with(probed("[/app]", &annotation, &probe)).start();
    let before = ask(&proxy).send().expect(200).json()["pid"].clone();
    std::fs::write(&file, "").unwrap();
    eventually("another process answers", seconds(20), || {
        (ask(&proxy).send().expect(200).json()["pid"] != before).then_some(())
    });
    assert!(proxy.metrics().sum("pilotlight_instance_liveness_failures_total", &[]) >= 1.0);
    proxy.logs("did not pass its liveness probe");
}

#[test]
fn what_never_passes_its_startup_probe_is_given_up_by_name() {
    let probe = "startupProbe: {httpGet: {path: '/?status=503'}, periodSeconds: 1, failureThreshold: 1}";
    let proxy = Proxy::with(probed("[pilotlight, echo]", "", probe)).start();
    let answer = ask(&proxy).send().expect(503);
    assert!(answer.text().contains("did not become ready"), "{}", answer.text());
    proxy.logs("did not pass its startup probe");
}

#[test]
fn probes_wake_nothing_and_count_nowhere() {
    let probe = "readinessProbe: {httpGet: {path: /ready}, periodSeconds: 1}\n\
                 livenessProbe: {tcpSocket: {}, periodSeconds: 1}";
    let window = "autoscaling.knative.dev/window: 6s";
    let proxy = Proxy::with(probed("[pilotlight, echo]", window, probe)).start();
    ask(&proxy).send().expect(200);
    eventually("it goes to zero although it is probed", seconds(30), || {
        (proxy.metrics().sum("pilotlight_instances_running", &[]) == 0.0).then_some(())
    });
    let lines = proxy.output().lines().filter(|line| line.contains("HTTP/1.1\"")).count();
    assert_eq!(lines, 1, "{}", proxy.output());
}
