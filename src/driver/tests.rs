//! Real processes: this test binary plays server, watchdog and proxy.

use super::process::{Processes, Settings};
use super::*;
use crate::clock;
use proxy_config::model::{Command, Holding, Idle, Probes, Protocol, Scale};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::path::PathBuf;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SOON: Duration = Duration::from_secs(20);

/// A revision `hello-00001` that runs these words.
pub(crate) fn revision(words: &[&str]) -> Revision {
    Revision {
        key: "default/hello-00001".into(),
        service: "hello".into(),
        namespace: "default".into(),
        name: "hello-00001".into(),
        labels: Default::default(),
        service_account: "default".into(),
        port: 8080,
        concurrency: 1,
        timeout: Duration::from_secs(300),
        scale: Scale::default(),
        holding: Holding::default(),
        idle: Idle::Stop,
        probes: Probes::default(),
        resources: Default::default(),
        command: Command::Run(words.iter().map(|word| (*word).to_owned()).collect()),
        env: Vec::new(),
        directory: PathBuf::from("/"),
        protocol: Protocol::Http1,
        reachable: true,
    }
}

/// The words that make this test binary behave as the ignored test of that name.
pub(crate) fn myself(acting: &str) -> Vec<String> {
    let exe = std::env::current_exe().unwrap().display().to_string();
    let words = ["--exact", acting, "--ignored", "--nocapture", "--test-threads=1"];
    std::iter::once(exe).chain(words.map(str::to_owned)).collect()
}

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::here(None).unwrap();
    settings.watchdog = myself("driver::tests::acts_as_watchdog").into_iter().map(Into::into).collect();
    settings
}

#[test]
#[ignore = "a process of other tests"]
fn acts_as_watchdog() {
    watchdog::run();
}

#[test]
#[ignore = "a process of other tests"]
fn acts_as_server() {
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    while listener.accept().is_ok() {}
}

/// Starts a function, prints the process ids of it and of its grandchild, and waits to be killed.
#[test]
#[ignore = "a process of other tests"]
fn acts_as_proxy() {
    run(async |mut driver, mut events| {
        driver.start(order(&["sh", "-c", "sleep 1000 & echo $! >&2; wait"]));
        while events.recv().await.is_some() {}
    });
}

pub(crate) fn order(words: &[&str]) -> Order {
    Order { id: 1, name: "hello-00001/1".into(), revision: Arc::new(revision(words)) }
}

fn run(test: impl AsyncFnOnce(Processes, UnboundedReceiver<Event>)) {
    run_with(settings(), test);
}

pub(crate) fn run_with(settings: Settings, test: impl AsyncFnOnce(Processes, UnboundedReceiver<Event>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tx, rx) = unbounded_channel();
    runtime.block_on(async {
        let driver = Processes::new(settings, tx);
        tokio::time::timeout(SOON, test(driver, rx)).await.expect("nothing happened in time");
    });
}

async fn started(events: &mut UnboundedReceiver<Event>) -> Pid {
    match events.recv().await {
        Some(Event::Started { pid: Some(pid), .. }) => Pid::from_raw(pid as i32).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn exited(events: &mut UnboundedReceiver<Event>) -> Exit {
    loop {
        match events.recv().await {
            Some(Event::Exited { exit, .. }) => return exit,
            Some(_) => {}
            None => panic!("no exit"),
        }
    }
}

fn gone(pid: Pid) -> bool {
    // A zombie that belongs to init for a moment is as good as gone.
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_err() || status.contains(") Z ")
}

pub(crate) async fn until_gone(pid: Pid) {
    while !gone(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn an_instance_listens_and_is_stopped_without_a_zombie() {
    run(async |mut driver, mut events| {
        let words = myself("driver::tests::acts_as_server");
        driver.start(order(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        let pid = started(&mut events).await;
        let Some(Event::Listening { instance: 1, address, .. }) = events.recv().await else {
            panic!("it does not listen")
        };
        std::net::TcpStream::connect(address).unwrap();
        driver.stop(1, SOON);
        assert_eq!(exited(&mut events).await.how, How::Signal(15));
        assert!(test_kill_process(pid).is_err(), "a zombie is left");
    });
}

#[test]
fn who_ignores_the_polite_signal_is_killed_with_its_children() {
    run(async |mut driver, mut events| {
        driver.start(order(&[
            "sh",
            "-c",
            "trap '' TERM; sleep 1000 & echo $! >&2; while :; do sleep 0.05; done",
        ]));
        started(&mut events).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = clock::now();
        driver.stop(1, Duration::from_millis(200));
        let exit = exited(&mut events).await;
        assert_eq!(exit.how, How::Signal(9));
        assert!(clock::now() - before >= Duration::from_millis(200));
        let child = Pid::from_raw(exit.stderr[0].parse().unwrap()).unwrap();
        until_gone(child).await;
    });
}

#[test]
fn a_crash_comes_with_its_last_words() {
    run(async |mut driver, mut events| {
        driver.start(order(&["sh", "-c", "echo out; echo no database >&2; exit 3"]));
        let exit = exited(&mut events).await;
        assert_eq!(exit, Exit { how: How::Code(3), stderr: vec!["no database".into()], port_taken: false });
    });
}

#[test]
fn the_end_of_the_first_process_is_the_end_of_the_group() {
    run(async |mut driver, mut events| {
        driver.start(order(&["sh", "-c", "sleep 1000 & echo $! >&2"]));
        let exit = exited(&mut events).await;
        assert_eq!(exit.how, How::Code(0));
        until_gone(Pid::from_raw(exit.stderr[0].parse().unwrap()).unwrap()).await;
    });
}

#[test]
fn a_program_that_is_not_there_is_an_exit_that_says_so() {
    run(async |mut driver, mut events| {
        driver.start(order(&["no-such-program"]));
        let How::NotStarted(why) = exited(&mut events).await.how else { panic!("it was started") };
        assert!(why.starts_with("`no-such-program` is not in PATH"), "{why}");
    });
}

#[test]
fn a_command_beside_an_instance_has_its_environment_and_ends_in_time() {
    run(async |mut driver, mut events| {
        let mut order = order(&["sleep", "1000"]);
        Arc::make_mut(&mut order.revision).env = vec![("COLOUR".into(), "red".into())];
        driver.start(order);
        started(&mut events).await;
        let exec = driver.exec(1).expect("it runs");
        let sh = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
        assert!(exec(sh("test $COLOUR = red && test -n \"$PORT\" && test $PWD = /"), SOON).await);
        assert!(!exec(sh("exit 3"), SOON).await);
        assert!(!exec(vec!["no-such-program".into()], SOON).await);
        let file = std::env::temp_dir().join(format!("pilotlight-exec-{}", std::process::id()));
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        assert!(!exec(sh(&script), Duration::from_millis(500)).await);
        let left = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&file).unwrap();
        until_gone(Pid::from_raw(left).unwrap()).await;
        driver.stop(1, SOON);
        exited(&mut events).await;
        assert!(driver.exec(1).is_none());
    });
}

#[test]
fn nothing_is_left_when_the_proxy_is_killed() {
    use std::io::{BufRead as _, BufReader};
    let words = myself("driver::tests::acts_as_proxy");
    let mut proxy = std::process::Command::new(&words[0])
        .args(&words[1..])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(proxy.stderr.take().unwrap()).lines();
    let grandchild = lines
        .find_map(|line| line.unwrap().strip_prefix("[hello-00001/1] ")?.trim().parse::<i32>().ok())
        .and_then(Pid::from_raw)
        .expect("the grandchild's number");
    assert!(!gone(grandchild));
    kill_process(Pid::from_child(&proxy), Signal::KILL).unwrap();
    let killed = clock::now();
    proxy.wait().unwrap();
    while !gone(grandchild) {
        assert!(clock::now() - killed < SOON, "the grandchild outlives the proxy");
        std::thread::sleep(Duration::from_millis(5));
    }
}
