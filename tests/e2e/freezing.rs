//! Functions that are frozen instead of stopped.

use crate::support::process::alive;
use crate::support::proxy::PILOTLIGHT;
use crate::support::wait::becomes_true;
use crate::support::{Proxy, Request, Target, eventually, millis, seconds, yaml};
use rustix::process::Signal;

const ANNOTATIONS: &str = "autoscaling.knative.dev/window: 6s\npilotlight.dev/idle: freeze";

fn ask(proxy: &Proxy, function: &str) -> Request {
    proxy.get("/").host(&format!("{function}.default.localhost")).timeout(seconds(30))
}

/// A frozen function that runs `script` with sh, which ends with an echo, and the pid of that.
fn frozen(name: &str, script: &str) -> (Proxy, u32) {
    let annotations = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"\n{ANNOTATIONS}");
    let proxy = Proxy::with(yaml::function_running(name, "[/app]", &annotations, "")).start();
    let pid = ask(&proxy, name).send().expect(200).json()["pid"].as_u64().unwrap();
    let pid = u32::try_from(pid).unwrap();
    until_frozen(&proxy);
    (proxy, pid)
}

#[track_caller]
fn until_frozen(proxy: &Proxy) {
    eventually("the instance is frozen", seconds(15), || {
        let state = &proxy.admin().get("/functions").send().json()["functions"][0]["instances"][0]["state"];
        (*state == "frozen").then_some(())
    });
}

/// State and processor time of every process of a group.
fn group(leader: u32) -> Vec<(u32, char, u64)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_group = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        (fields[2] == leader.to_string()).then(|| (pid, fields[0].chars().next().unwrap_or('?'), time))
    };
    pids.filter_map(of_group).collect()
}

#[test]
fn a_frozen_function_and_all_it_started_use_no_processor_and_it_goes_on_where_it_was() {
    let (proxy, pid) = frozen("busy", &format!("(while :; do :; done) & exec {PILOTLIGHT} echo"));
    let before = group(pid);
    assert!(before.len() >= 2, "{before:?}");
    assert!(before.iter().all(|(_, state, _)| *state == 'T' || frozen_by_cgroup(pid)), "{before:?}");
    std::thread::sleep(millis(300));
    assert_eq!(group(pid), before, "three tenths of a second are thirty ticks");
    let gauge = |state| proxy.metrics().sum("pilotlight_instances", &[("state", state)]);
    assert_eq!((gauge("frozen"), gauge("ready")), (1.0, 0.0));

    let probe = ask(&proxy, "busy").header("user-agent", "kube-probe/1.30").send().expect(200);
    assert!(probe.text().contains("frozen"), "{}", probe.text());
    assert_eq!(group(pid), before, "a probe thaws nothing");

    let answer = ask(&proxy, "busy").send().expect(200).json();
    assert_eq!(
        (&answer["pid"], &answer["served"]),
        (&pid.into(), &2.into()),
        "the same process, its count kept"
    );
    eventually("what it started runs again", seconds(5), || (group(pid) != before).then_some(()));
    assert_eq!(proxy.metrics().sum("pilotlight_instance_thaws_total", &[]), 1.0);
    until_frozen(&proxy);
}

fn frozen_by_cgroup(pid: u32) -> bool {
    let path = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    path.contains("pilotlight")
}

#[test]
fn a_frozen_function_hears_that_it_is_to_end() {
    let script = format!("trap \\\"echo bye; kill $!; exit\\\" TERM; {PILOTLIGHT} echo & wait");
    let (mut proxy, pid) = frozen("polite", &script);
    proxy.signal(Signal::TERM);
    assert!(proxy.exits_within(seconds(15)).success());
    assert!(proxy.output().contains("bye"), "{}", proxy.output());
    assert!(!alive(pid));
}

#[test]
fn a_proxy_that_is_killed_leaves_no_frozen_function() {
    let (mut proxy, pid) = frozen("left", &format!("(sleep 1000) & exec {PILOTLIGHT} echo"));
    let all = group(pid);
    assert!(all.len() >= 2, "{all:?}");
    proxy.signal(Signal::KILL);
    proxy.exits_within(seconds(5));
    assert!(becomes_true(seconds(5), || all.iter().all(|(pid, ..)| !alive(*pid))), "{:?}", group(pid));
}

#[test]
fn a_frozen_function_that_is_taken_out_of_the_configuration_is_ended() {
    let (proxy, pid) = frozen("gone", &format!("exec {PILOTLIGHT} echo"));
    proxy.write("config.yaml", &yaml::function("other", "", ""));
    assert!(becomes_true(seconds(15), || !alive(pid)), "it is still there");
}

/// How often `function` was started so far, and how often an instance of it crashed.
fn starts(admin: Target, function: &str) -> (i64, i64) {
    let functions = admin.get("/functions").send().json();
    let all = functions["functions"].as_array().unwrap();
    let one = all.iter().find(|one| one["function"] == function).unwrap();
    (one["starts"].as_i64().unwrap(), one["crashes"].as_i64().unwrap())
}

/// Requests at moments around the one at which the last instance goes, each answered, by the same instance or by one
/// that was started instead, with at most one start more for each. PILOTLIGHT_RACES says how many; each takes about
/// 7 s, and many functions run at once.
#[track_caller]
fn requests_around_the_end(annotations: &str) {
    let races =
        std::env::var("PILOTLIGHT_RACES").ok().and_then(|count| count.parse().ok()).unwrap_or(200_usize);
    let at_once = 50;
    let names: Vec<String> = (0..at_once).map(|n| format!("f{n}")).collect();
    let text: String = names.iter().map(|name| yaml::function(name, annotations, "")).collect();
    let proxy = Proxy::with(text).args(["--max-instances", "200"]).start();
    let (front, admin) = (proxy.front(), proxy.admin());
    let rounds = races.div_ceil(at_once);
    let play = |number: usize, name: &String| {
        let host = format!("{name}.default.localhost");
        let get =
            || front.get("/").host(&host).timeout(seconds(60)).send().expect(200).json()["pid"].to_string();
        let (mut pid, mut before, mut others, mut more) = (get(), 1, 0, 0);
        for round in 0..rounds {
            // From a little before to a little after, in steps of a fraction of a millisecond.
            let at = (number * rounds + round) as u64;
            std::thread::sleep(seconds(6) + millis(at * 600 / (at_once * rounds) as u64) - millis(50));
            let other = get();
            let (after, crashes) = starts(admin, name);
            assert_eq!(crashes, 0, "{name}");
            // One that was started instead is no start more, be it in this round or left over from the last.
            let needed = i64::from(other != pid);
            let extra = after - before - needed;
            assert!(extra <= 1, "{name}: {extra} starts more in round {round}");
            (pid, before, others, more) = (other, after, others + needed, more + extra);
        }
        (others, more)
    };
    let (others, more) = std::thread::scope(|scope| {
        let play = &play;
        let threads: Vec<_> =
            names.iter().enumerate().map(|(n, name)| scope.spawn(move || play(n, name))).collect();
        let ends = threads.into_iter().map(|thread| thread.join().expect("every request was answered"));
        ends.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    println!("{} races: {others} met another instance, {more} starts more", rounds * at_once);
}

#[test]
fn requests_at_every_moment_around_the_last_stop_are_answered() {
    requests_around_the_end("autoscaling.knative.dev/window: 6s");
}

#[test]
fn requests_at_every_moment_around_a_freeze_are_answered() {
    requests_around_the_end(ANNOTATIONS);
}
