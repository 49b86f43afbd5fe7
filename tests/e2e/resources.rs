//! Limits of functions: control groups that are directories with files, and those of the kernel where they may be had.

use crate::support::process::alive;
use crate::support::proxy::{Directory, PILOTLIGHT, Setup};
use crate::support::wait::becomes_true;
use crate::support::{Proxy, Request, eventually, seconds, yaml};
use rustix::process::Signal;
use std::path::{Path, PathBuf};

const LIMITS: &str = "resources: {limits: {memory: 64Mi, cpu: 500m}, requests: {cpu: 250m}}";

/// A function with limits that runs `script` with sh.
fn limited(name: &str, script: &str) -> String {
    let command = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"");
    yaml::function_running(name, &format!("[/app]\n        {LIMITS}"), &command, "")
}

fn ask(proxy: &Proxy, function: &str) -> Request {
    proxy.get("/").host(&format!("{function}.default.localhost")).timeout(seconds(30))
}

fn below(root: &Path) -> impl Fn(Setup) -> Proxy {
    let root = root.to_str().unwrap().to_owned();
    move |setup| setup.args(["--cgroup", &root]).start()
}

#[test]
fn limits_are_in_force_before_the_program_runs_and_are_given_back() {
    let root = Directory::new();
    root.write("cgroup.controllers", "cpu memory pids\n");
    let proxy = below(root.path())(Proxy::with(limited("small", &format!("exec {PILOTLIGHT} echo"))));
    ask(&proxy, "small").send().expect(200);
    let group = root.path().join(format!("pilotlight.{}/1", proxy.pid()));
    let file = |name: &str| std::fs::read_to_string(group.join(name)).unwrap_or_default();
    let names = [
        "memory.max",
        "memory.swap.max",
        "memory.oom.group",
        "cpu.max",
        "cpu.weight",
        "pids.max",
        "cgroup.procs",
    ];
    assert_eq!(names.map(file), ["67108864", "0", "1", "50000 100000", "10", "4096", "0"]);
    assert!(!proxy.log().contains("not enforced"), "{}", proxy.log());
}

#[test]
fn a_function_that_is_killed_for_its_memory_is_told_so_by_name() {
    let root = Directory::new();
    root.write("cgroup.controllers", "memory cpu\n");
    let events = format!("{}/pilotlight.*/*/memory.events", root.path().display());
    let script = format!(
        "for f in $(echo {events} | sed s/events/max/g); do echo oom 1 > ${{f%max}}events; echo oom_kill 1 >> ${{f%max}}events; done; kill -9 $$"
    );
    let proxy = below(root.path())(Proxy::with(limited("greedy", &script)));
    let refused = ask(&proxy, "greedy").send().expect(503);
    assert!(refused.text().contains("killed because it used more memory than it may"), "{}", refused.text());
    proxy.access_line(&["503 UF function_out_of_memory"]);
    let crash = proxy.admin().get("/functions").send().json()["functions"][0]["last_crash"].clone();
    assert_eq!((&crash["fault"], &crash["signal"]), (&"OutOfMemory".into(), &9.into()));
    let why = "was killed: it used more memory than resources.limits.memory allows (64Mi)";
    assert_eq!(crash["how"], why);
    proxy.logs(why);
}

#[test]
fn limits_that_nothing_enforces_are_told_once_with_their_place() {
    let root = Directory::new();
    let text = limited("free", &format!("exec {PILOTLIGHT} echo"));
    let line = text.lines().position(|line| line.contains("resources")).unwrap() + 1;
    let proxy = below(root.path())(Proxy::with(yaml::function("other", "", "")));
    ask(&proxy, "other").send().expect(200);
    assert!(!proxy.log().contains("not enforced"), "nobody asked for it");
    proxy.write("more.yaml", &text);
    proxy.logs(&format!("more.yaml:{line}:"));
    ask(&proxy, "free").send().expect(200);
    proxy.write("again.yaml", &yaml::function("again", "", ""));
    eventually("the next is there", seconds(10), || {
        (ask(&proxy, "again").send().status == 200).then_some(())
    });
    let log = proxy.log();
    assert_eq!(
        log.matches("limits.memory 64Mi and limits.cpu 500m not enforced on this host").count(),
        1,
        "{log}"
    );
    assert!(log.contains("is no control group of version 2") && log.contains("--cgroup"), "{log}");
}

/// A control group of the kernel, if it may be made.
struct Kernel(PathBuf);

impl Kernel {
    fn group(name: &str) -> Option<Kernel> {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own =
            text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_start_matches('/');
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let own = mounts.map(|mount| Path::new(mount).join(own)).into_iter();
        let own = own.filter(|group| group.join("cgroup.controllers").is_file());
        let made = own.map(|group| group.join(format!("test-{name}-{}", std::process::id())));
        let made = made.filter(|path| std::fs::create_dir(path).is_ok()).map(Kernel).next();
        if made.is_none() {
            println!("skipped: needs a control group of version 2 that may be written");
        }
        made
    }

    /// Groups of proxies that are in it.
    fn proxies(&self) -> usize {
        let all = std::fs::read_dir(&self.0).unwrap().flatten();
        all.filter(|entry| entry.path().is_dir()).count()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        becomes_true(seconds(5), || removed(&self.0));
    }
}

/// Removes a group with all below it; whether it is gone.
fn removed(group: &Path) -> bool {
    let inside = std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    inside.filter(|path| path.is_dir()).for_each(|path| {
        let _ = removed(&path);
    });
    std::fs::remove_dir(group).is_ok()
}

#[test]
fn a_function_that_is_frozen_by_its_group_goes_on_and_nothing_is_left_of_it() {
    let Some(root) = Kernel::group("frozen") else { return };
    let script = format!("(setsid sleep 1000) & exec {PILOTLIGHT} echo");
    let annotations = format!(
        "pilotlight.dev/local-command: \"sh -c '{script}'\"\nautoscaling.knative.dev/window: 6s\npilotlight.dev/idle: freeze"
    );
    let text = yaml::function_running("cold", "[/app]", &annotations, "");
    let mut proxy = below(&root.0)(Proxy::with(&text));
    let pid = ask(&proxy, "cold").send().expect(200).json()["pid"].clone();
    let group = root.0.join(format!("pilotlight.{}/1", proxy.pid()));
    let file = |name: &str| std::fs::read_to_string(group.join(name)).unwrap_or_default();
    let all: Vec<u32> = file("cgroup.procs").lines().map(|line| line.parse().unwrap()).collect();
    assert!(all.len() >= 2, "{all:?}");
    eventually("it is frozen", seconds(15), || file("cgroup.events").contains("frozen 1").then_some(()));
    assert_eq!(ask(&proxy, "cold").send().expect(200).json()["pid"], pid, "the same process");
    proxy.signal(Signal::TERM);
    assert!(proxy.exits_within(seconds(15)).success());
    assert_eq!(root.proxies(), 0);
    assert!(all.iter().all(|pid| !alive(*pid)), "{all:?}");
}

#[test]
fn the_groups_of_a_proxy_that_was_killed_are_removed_by_the_next() {
    let Some(root) = Kernel::group("left") else { return };
    let text = yaml::function("cold", "pilotlight.dev/idle: freeze", "");
    let mut first = below(&root.0)(Proxy::with(&text));
    ask(&first, "cold").send().expect(200);
    let living = below(&root.0)(Proxy::with(&text));
    assert_eq!(root.proxies(), 2);
    first.signal(Signal::KILL);
    first.exits_within(seconds(5));
    let next = below(&root.0)(Proxy::with(&text));
    assert_eq!(root.proxies(), 2, "{}", next.log());
    next.logs("was left by a proxy that was killed");
    ask(&living, "cold").send().expect(200);
}
