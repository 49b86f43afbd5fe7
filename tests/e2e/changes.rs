//! What changes while it matters: a configuration that is another one while requests wait, functions start or fail,
//! endpoints are left out, and connections are kept.

use crate::support::{Origin, Proxy, Reply, eventually, seconds, yaml};

#[test]
fn who_was_left_out_by_rules_that_are_gone_is_asked_again() {
    let origins = [Origin::h1().answer(|_| Reply::status(500)), Origin::h1().reply("good")];
    let policy = "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 300s, \
                  maxEjectionPercent: 100}";
    let addresses = [origins[0].address(), origins[1].address()];
    let all = yaml::all_to_with("HTTP", &addresses, "retries: {}");
    let proxy = Proxy::with(&all).file("rule.yaml", &yaml::destination_rule("upstream.test", policy)).start();
    eventually("the bad one is left out", seconds(10), || {
        proxy.get("/").send();
        let endpoints = proxy.admin().get("/clusters").send().json();
        endpoints.to_string().contains("\"healthy\":false").then_some(())
    });
    std::fs::remove_file(proxy.directory().join("rule.yaml")).unwrap();
    let before = origins[0].hits();
    eventually("it is asked again", seconds(10), || {
        proxy.get("/").send();
        (origins[0].hits() > before).then_some(())
    });
}
