//! More than can be served, and clients that do not wait: what can be done is done, and nothing is left behind.
//!
//! Each has a short form here and a long one by an environment variable; CONTRIBUTING names the commands.

use crate::clients::resident;
use crate::support::crowd::{Outcome, ask, open_loop, percentile};
use crate::support::{Proxy, eventually, millis, seconds, yaml};

fn length(variable: &str, short: u64) -> (std::time::Duration, bool) {
    match std::env::var(variable).ok().and_then(|text| text.parse().ok()) {
        Some(long) => (seconds(long), true),
        None => (seconds(short), false),
    }
}

#[test]
fn at_three_times_what_can_be_done_goodput_stays_and_the_others_are_told_at_once() {
    let (length, long) = length("PILOTLIGHT_OVERLOAD_SECONDS", 6);
    let annotations = "autoscaling.knative.dev/max-scale: '2'\nautoscaling.knative.dev/min-scale: '2'";
    let text = yaml::function("busy", annotations, "containerConcurrency: 1\ntimeoutSeconds: 1");
    let proxy = Proxy::with(text).workers(2).start();
    let front = proxy.front();
    eventually("both instances are there", seconds(20), || {
        let functions = proxy.admin().get("/functions").send().json();
        let instances = functions["functions"][0]["instances"].as_array()?.clone();
        (instances.iter().filter(|one| one["state"] == "ready").count() == 2).then_some(())
    });
    let request = "GET /?delay=100ms HTTP/1.1\nhost: busy.default.localhost\nconnection: close\n\n";
    let outcomes = open_loop(60, length, |_| ask(front.address(), request.to_owned(), seconds(5)));
    let of = |status: u16| outcomes.iter().filter(move |one| one.status == status).collect::<Vec<_>>();
    let (served, refused) = (of(200), of(503));
    let took: Vec<_> = refused.iter().map(|one| one.took).collect();
    let (half, most) = (percentile(took.clone(), 50), percentile(took, 99));
    let goodput = served.len() as f64 / length.as_secs_f64();
    println!("{goodput:.1}/s served; {} refused within {half:?} (half), {most:?} (99 %)", refused.len());
    assert!(refused.iter().all(|one| one.text.contains("\r\nretry-after: ")), "{:?}", refused.first());
    assert!(refused.len() > outcomes.len() / 3, "{} of {}", refused.len(), outcomes.len());
    let late = outcomes.len() - served.len() - refused.len();
    assert!(late * 20 <= outcomes.len(), "{late} of {} were kept until it was too late", outcomes.len());
    assert!(served.iter().all(|one| one.took < millis(1500)));
    // Twenty a second could be. What this machine does beside is no part of the short form's promise.
    let (least, soon) = if long { (18.0, millis(10)) } else { (10.0, millis(200)) };
    assert!(goodput >= least, "{goodput}/s");
    assert!(half < soon && (!long || most < soon), "{half:?} {most:?}");
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    let (length, _) = length("PILOTLIGHT_SOAK_SECONDS", 6);
    let annotations = "autoscaling.knative.dev/max-scale: '1'";
    let text = yaml::function("slow", annotations, "containerConcurrency: 2");
    let proxy = Proxy::with(text).workers(2).access_log("off").start();
    let front = proxy.front();
    let quick =
        || front.get("/").host("slow.default.localhost").timeout(seconds(20)).send().expect(200).json();
    quick();
    let request = format!(
        "POST /?delay=30s HTTP/1.1\nhost: slow.default.localhost\ncontent-length: 5000\n\n{}",
        "x".repeat(5000)
    );
    let crowd = |length| {
        let outcomes = open_loop(200, length, |_| ask(front.address(), request.clone(), seconds(1)));
        assert!(outcomes.iter().all(|Outcome { status, .. }| *status == 0), "nobody waits for an answer");
        outcomes.len()
    };
    crowd(seconds(3));
    let before = resident(proxy.pid());
    let count = crowd(length);
    let after = resident(proxy.pid());
    println!("{before} KiB before, {after} KiB after {count} clients that left");
    assert!(after < before + 8192, "{before} KiB before, {after} KiB after {count} clients that left");
    eventually("nobody waits any more", seconds(5), || {
        let functions = proxy.admin().get("/functions").send().json();
        (functions["functions"][0]["waiting"] == 0).then_some(())
    });
    // Nothing of those who left is at the function, and nothing of theirs comes after them.
    let first = eventually("the function has nobody else", seconds(5), || {
        let answer = quick();
        (answer["concurrency"] == 1).then_some(answer)
    });
    let second = quick();
    let served = |answer: &serde_json::Value| answer["served"].as_u64().unwrap();
    assert_eq!(served(&second), served(&first) + 1, "somebody came who had left");
}
