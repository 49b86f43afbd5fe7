//! Control groups that are directories with files, and, where this host lets us, the kernel's own.

use super::group::{Removed, settings};
use super::*;
use crate::driver::process::{Processes, Settings};
use crate::driver::tests::{exited, order, revision, run_with, settings as plain, until_gone};
use crate::driver::{Driver as _, Event, How};
use proxy_config::model::Resources;
use rustix::process::Pid;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

const ALL: Controllers = Controllers { memory: true, cpu: true, pids: true };
const SOON: Duration = Duration::from_secs(20);

/// A directory that goes when it is dropped.
struct Root(PathBuf);

impl Root {
    /// In the temporary directory, with these files.
    fn of_files(name: &str, files: &[(&str, &str)]) -> Root {
        let path = std::env::temp_dir().join(format!("pilotlight-cgroup-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        files.iter().for_each(|(file, text)| fs::write(path.join(file), text).unwrap());
        Root(path)
    }

    /// Of the kernel, if it may be had.
    fn of_the_kernel(name: &str) -> Option<Root> {
        let path = own()?.join(format!("test-{name}-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Root(path)),
            Err(error) => {
                eprintln!("skipped: needs a control group of version 2 that may be written: {error}");
                None
            }
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }

    /// Of this test's proxy.
    fn of_instance(&self, id: InstanceId, file: &str) -> String {
        self.read(&format!("{PREFIX}{}/{id}/{file}", std::process::id()))
    }

    /// Runs `test` with a driver whose instances have their groups here.
    fn run(&self, test: impl AsyncFnOnce(Processes, UnboundedReceiver<Event>)) {
        let cgroups = Arc::new(Cgroups::new(Some(self.0.clone())));
        cgroups.prepare();
        run_with(Settings { cgroups: cgroups.clone(), ..plain() }, test);
        cgroups.remove();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        clear(&self.0, None);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an instance that starts has said, as soon as one line begins like that.
async fn said(events: &mut UnboundedReceiver<Event>, line: &str) -> Vec<String> {
    let Some(Event::Started { stderr, .. }) = events.recv().await else { panic!("it does not start") };
    while !stderr.lines().iter().any(|said| said.starts_with(line)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stderr.lines()
}

fn limits(memory: Option<u64>, cpu: Option<u64>, cpu_request: Option<u64>) -> Resources {
    Resources { memory, cpu, cpu_request }
}

#[test]
fn resources_are_written_as_kubernetes_means_them() {
    let check = |resources: Resources, controllers: Controllers, want: &str| {
        let written = settings(&resources, controllers);
        let text: Vec<_> = written.iter().map(|(file, text)| format!("{file}={text}")).collect();
        assert_eq!(text.join(" "), want, "{resources:?} {controllers:?}");
    };
    let none = Controllers::default();
    let memory = "memory.max=67108864 memory.swap.max=0 memory.oom.group=1";
    check(limits(Some(64 << 20), None, None), ALL, &format!("{memory} pids.max=4096"));
    check(limits(None, Some(500), Some(250)), ALL, "cpu.max=50000 100000 cpu.weight=10 pids.max=4096");
    check(limits(None, Some(1), Some(1)), ALL, "cpu.max=1000 100000 cpu.weight=1 pids.max=4096");
    check(limits(None, None, Some(1000)), ALL, "cpu.weight=39 pids.max=4096");
    check(limits(None, None, Some(1_000_000)), ALL, "cpu.weight=10000 pids.max=4096");
    check(limits(Some(64 << 20), Some(500), None), Controllers { memory: true, ..none }, memory);
    check(limits(Some(64 << 20), Some(500), Some(500)), none, "");
    check(Resources::default(), ALL, "");
}

#[test]
fn what_cannot_be_enforced_is_told_with_the_reason() {
    let check = |name: &str, files: &[(&str, &str)], memory: Option<&str>, cpu: Option<&str>| {
        let root = Root::of_files(name, files);
        let unmet = Cgroups::new(Some(root.0.clone())).prepare();
        let says = |reason: &Option<Reason>, want: Option<&str>| {
            assert_eq!(reason.is_some(), want.is_some(), "{name}: {reason:?}");
            let text = reason.as_ref().map_or("", |reason| &reason.why);
            assert!(text.contains(want.unwrap_or("")), "{name}: {text}");
        };
        says(&unmet.memory, memory);
        says(&unmet.cpu, cpu);
    };
    check("all", &[(MARK, "cpuset cpu io memory pids\n")], None, None);
    check("old", &[], Some("is no control group of version 2"), Some("is no control group of version 2"));
    check(
        "some",
        &[(MARK, "cpu pids\n")],
        Some("has no `memory` controller (its cgroup.controllers: cpu pids)"),
        None,
    );
    check("bare", &[(MARK, "\n")], Some("no `memory`"), Some("no `cpu`"));
    let root = Root::of_files("locked", &[(MARK, "memory cpu\n")]);
    fs::create_dir(root.0.join(SUBTREE)).unwrap();
    let unmet = Cgroups::new(Some(root.0.clone())).prepare();
    let why = unmet.memory.unwrap().why;
    assert!(why.contains("cannot be handed on: Is a directory"), "{why}");
}

#[test]
fn an_instance_is_in_its_group_with_all_limits_before_its_program_runs() {
    let root = Root::of_files("limits", &[(MARK, "memory cpu pids"), (SUBTREE, "memory\n")]);
    root.run(async |mut driver, mut events| {
        let group = root.0.join(format!("{PREFIX}{}/1", std::process::id()));
        let script = format!(
            "cat {0}/cgroup.procs {0}/memory.max {0}/cpu.max >&2; echo >&2; sleep 1000",
            group.display()
        );
        let mut order = order(&["sh", "-c", &script]);
        Arc::make_mut(&mut order.revision).resources = limits(Some(1 << 26), Some(1500), None);
        driver.start(order);
        let lines = said(&mut events, "0").await;
        assert_eq!(lines, ["067108864150000 100000"]);
        assert_eq!(root.read(SUBTREE), "+cpu +pids", "what is there already is not asked for");
        driver.freeze(1);
        assert_eq!(root.of_instance(1, "cgroup.freeze"), "1");
        driver.thaw(1);
        assert_eq!(root.of_instance(1, "cgroup.freeze"), "0");
        driver.stop(1, SOON);
        assert_eq!(exited(&mut events).await.how, How::Signal(15));
        assert_eq!(root.of_instance(1, "cgroup.kill"), "1");
    });
}

#[test]
fn an_instance_that_is_killed_for_its_memory_says_so() {
    let check = |name: &str, events: &str, want: How| {
        let root = Root::of_files(name, &[(MARK, "memory")]);
        root.run(async |mut driver, mut ends| {
            let group = root.0.join(format!("{PREFIX}{}/1", std::process::id()));
            let script = format!("printf '{events}' > {}/memory.events; kill -9 $$", group.display());
            let mut order = order(&["sh", "-c", &script]);
            Arc::make_mut(&mut order.revision).resources = limits(Some(64 << 20), None, None);
            driver.start(order);
            assert_eq!(exited(&mut ends).await.how, want, "{events}");
        });
    };
    check("own", "low 0\\nmax 9\\noom 1\\noom_kill 2\\n", How::OutOfMemory(Some(64 << 20)));
    check("above", "oom 0\\noom_kill 1\\n", How::OutOfMemory(None));
    check("other", "max 9\\noom 0\\noom_kill 0\\n", How::Signal(9));
    let text = How::OutOfMemory(Some(64 << 20)).to_string();
    assert_eq!(text, "was killed: it used more memory than resources.limits.memory allows (64Mi)");
}

#[test]
fn a_limit_that_cannot_be_set_is_an_instance_that_cannot_be_started() {
    let root = Root::of_files("refused", &[(MARK, "memory")]);
    root.run(async |mut driver, mut events| {
        // The name of its group is taken.
        fs::create_dir(root.0.join(format!("{PREFIX}{}/1", std::process::id()))).unwrap();
        let mut order = order(&["true"]);
        Arc::make_mut(&mut order.revision).resources = limits(Some(1), None, None);
        driver.start(order);
        let How::NotStarted(why) = exited(&mut events).await.how else { panic!("it was started") };
        assert!(why.starts_with("no control group for it: "), "{why}");
    });
}

#[test]
fn what_a_killed_proxy_left_is_removed_and_what_a_living_one_has_is_not() {
    let root = Root::of_files("left", &[(MARK, "")]);
    for directory in
        ["pilotlight.7/3", "pilotlight.7/proxy", "pilotlight.8/1", "pilotlight.service/1", "others/1"]
    {
        fs::create_dir_all(root.0.join(directory)).unwrap();
    }
    let _lives = locked(&root.0.join("pilotlight.8")).unwrap();
    let cgroups = Cgroups::new(Some(root.0.clone()));
    cgroups.prepare();
    let own = format!("{PREFIX}{}", std::process::id());
    let mut left: Vec<_> =
        fs::read_dir(&root.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let mut want = [MARK, "others", "pilotlight.8", "pilotlight.service", &own].map(str::to_owned);
    want.sort();
    assert_eq!(left, want);
    assert!(locked(&root.0.join(&own)).is_none(), "others see that it lives");
    cgroups.remove();
    assert!(!root.0.join(own).exists());
}

#[test]
fn only_who_has_a_use_for_a_group_gets_one() {
    let root = Root::of_files("use", &[(MARK, "cpu")]);
    let cgroups = Cgroups::new(Some(root.0.clone()));
    let mut wants = revision(&["true"]);
    assert!(!wanted(&wants) && cgroups.group(1, &wants).unwrap().is_none());
    wants.resources = limits(Some(1), None, None);
    assert!(wanted(&wants) && cgroups.group(1, &wants).unwrap().is_none(), "nothing is prepared");
    cgroups.prepare();
    assert!(cgroups.group(1, &wants).unwrap().is_none(), "there is no controller of memory");
    wants.idle = Idle::Freeze { most: SOON };
    assert!(wanted(&wants) && cgroups.group(1, &wants).unwrap().is_some());
}

#[test]
fn the_kernel_freezes_and_ends_all_that_an_instance_started_wherever_it_went() {
    let Some(root) = Root::of_the_kernel("kernel") else { return };
    root.run(async |mut driver, mut events| {
        let mut order =
            order(&["sh", "-c", "setsid sleep 1000 & echo $! >&2; cat /proc/self/cgroup >&2; wait"]);
        Arc::make_mut(&mut order.revision).idle = Idle::Freeze { most: SOON };
        driver.start(order);
        let lines = said(&mut events, "0::").await;
        let here = format!("{PREFIX}{}/1", std::process::id());
        assert!(lines.iter().any(|line| line.starts_with("0::") && line.ends_with(&here)), "{lines:?}");
        let far = Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        driver.freeze(1);
        while !root.of_instance(1, "cgroup.events").contains("frozen 1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        driver.stop(1, SOON);
        exited(&mut events).await;
        until_gone(far).await;
        while root.0.join(&here).exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(group::remove(&root.0), Removed::Gone, "nothing is left in it");
}

#[test]
fn the_kernel_moves_this_proxy_only_where_it_must() {
    let Some(root) = Root::of_the_kernel("plain") else { return };
    let before = fs::read_to_string("/proc/self/cgroup").unwrap();
    let cgroups = Cgroups::new(Some(root.0.clone()));
    cgroups.prepare();
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    cgroups.remove();
}

/// Starts a process in a group; an orphan, if it is to be somebody else's. It ends with the group.
#[allow(clippy::zombie_processes)]
fn inhabitant(group: &Path, orphan: bool) -> String {
    let mut shell = std::process::Command::new("sh");
    let script = if orphan { "sleep 1000 >&2 & echo $!" } else { "echo $$; exec sleep 1000 >&2" };
    let mut child = shell.args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut text).unwrap();
    if orphan {
        child.wait().unwrap();
    }
    let process = text.trim().to_owned();
    fs::write(group.join(MEMBERS), &process).unwrap();
    process
}

#[test]
fn the_kernel_hands_controllers_on_when_our_processes_have_moved_and_not_beside_others() {
    let Some(root) = Root::of_the_kernel("moves") else { return };
    let listed = root.read(MARK);
    let Some(controller) = listed.split_whitespace().find(|name| !matches!(*name, "cpu" | "pids" | "cpuset"))
    else {
        eprintln!("skipped: needs a controller that is handed on to this group");
        return;
    };
    let base = root.0.join("pilotlight.1");
    fs::create_dir(&base).unwrap();
    let ours = inhabitant(&root.0, false);
    let other = inhabitant(&root.0, true);
    let why = hand_on(&root.0, &base, &[controller]).unwrap_err();
    assert!(why.starts_with("processes of others are in "), "{why}");
    assert!(root.read(MEMBERS).contains(&ours), "it is back where it was");
    assert!(!base.join(LEAF).exists());
    fs::write(own().unwrap().join(MEMBERS), &other).unwrap();
    hand_on(&root.0, &base, &[controller]).unwrap();
    assert_eq!(
        (root.read(MEMBERS).trim(), root.read("pilotlight.1/proxy/cgroup.procs").trim()),
        ("", &*ours)
    );
    let group = Group::make(base.join("1"), &[]).unwrap();
    assert!(fs::read_to_string(base.join("1").join(MARK)).unwrap().contains(controller));
    assert_eq!(group.remove(), Removed::Gone);
    let other = Pid::from_raw(other.parse().unwrap()).unwrap();
    rustix::process::kill_process(other, rustix::process::Signal::KILL).unwrap();
}
