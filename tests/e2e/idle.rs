//! What functions cost that nobody asks for.

use crate::support::{Proxy, seconds, yaml};

fn functions(count: usize) -> String {
    (0..count).map(|n| yaml::function(&format!("f{n}"), "", "")).collect()
}

#[test]
fn of_fifty_functions_waking_one_wakes_no_other() {
    let proxy = Proxy::with(functions(50)).start();
    proxy.get("/").host("f17.default.localhost").timeout(seconds(30)).send().expect(200);
    proxy.get("/").host("f50.default.localhost").send().expect(404);
    let told = proxy.admin().get("/functions").send().json();
    assert_eq!(told["instances"], 1, "{told}");
    let all = told["functions"].as_array().unwrap();
    assert_eq!(all.len(), 50);
    let woken = all.iter().filter(|one| one["starts"] != 0 || one["held_ever"] != 0);
    assert_eq!(woken.map(|one| one["function"].as_str().unwrap()).collect::<Vec<_>>(), ["f17"]);
    let started = proxy.metrics().sum("pilotlight_cold_start_instances_total", &[]);
    assert_eq!(started, 1.0);
}

/// KiB of memory of its own, and milliseconds of processor time a second, of a proxy over so many idle functions: the
/// least of several looks, as what else runs on the machine only adds.
fn cost(count: usize) -> (f64, f64) {
    let proxy = Proxy::with(functions(count)).workers(2).start();
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", proxy.pid())).unwrap();
    let memory = || -> f64 {
        let status = of("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let nanoseconds = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap().flatten();
        let files = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
        files.map(|text| text.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let mut least = (f64::MAX, f64::MAX);
    for _ in 0..6 {
        let before = nanoseconds();
        std::thread::sleep(seconds(1));
        least.1 = least.1.min((nanoseconds() - before) as f64 / 1e6);
        least.0 = least.0.min(memory());
    }
    least
}

/// PILOTLIGHT_IDLE_EXACT=1 asks for what is promised of a release build on a quiet machine.
#[test]
fn two_hundred_idle_functions_cost_next_to_nothing() {
    let exact = std::env::var("PILOTLIGHT_IDLE_EXACT").is_ok_and(|text| text == "1");
    let (most_memory, most_time) = if exact { (4.0, 1.0) } else { (5.0, 20.0) };
    let (one, many) = (cost(1), cost(201));
    let (memory, time) = ((many.0 - one.0) / 200.0, many.1 - one.1);
    println!(
        "each of 200 idle functions: {memory:.1} KiB; all together: {time:.2} ms of a processor a second"
    );
    assert!(memory < most_memory && time < most_time, "{one:?} {many:?}: {memory} KiB, {time} ms");
}
