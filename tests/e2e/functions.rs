//! Functions from zero: woken, held, scaled, stopped.

use crate::support::process::alive;
use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::wait::becomes_true;
use crate::support::{Proxy, Request, eventually, millis, seconds, together, yaml};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

fn ask(proxy: &Proxy, function: &str, path: &str) -> Request {
    proxy.get(path).host(&format!("{function}.default.localhost")).timeout(seconds(30))
}

/// A template annotation that runs `script` with sh.
fn by_shell(script: &str) -> String {
    format!("pilotlight.dev/local-command: sh -c '{script}'").replace(": sh", ": \"sh") + "\""
}

/// A function whose every start leaves a line in a file.
fn counted(directory: &Directory, name: &str, annotations: &str, spec: &str) -> String {
    let file = directory.path().join(name);
    let script = format!("echo start >> {}; exec {PILOTLIGHT} echo", file.display());
    yaml::function_running(name, "[/app/server]", &format!("{}\n{annotations}", by_shell(&script)), spec)
}

fn starts(directory: &Directory, name: &str) -> usize {
    std::fs::read_to_string(directory.path().join(name)).map_or(0, |text| text.lines().count())
}

#[test]
fn the_first_request_starts_a_function_and_is_answered_by_it() {
    let proxy = Proxy::with(yaml::function("hello", "", "")).start();
    let answer = ask(&proxy, "hello", "/path?x=1").send().expect(200).json();
    assert_eq!((&answer["name"], &answer["service"]), (&"hello".into(), &"hello".into()));
    assert_eq!(answer["revision"], "hello-00001");
    assert_eq!(answer["headers"]["host"], "hello.default.localhost");
    let again = ask(&proxy, "hello", "/").send().expect(200).json();
    assert_eq!((&again["pid"], &again["served"]), (&answer["pid"], &2.into()));
}

#[test]
fn the_connection_that_found_a_function_listening_carries_the_request_that_woke_it() {
    let proxy = Proxy::with(yaml::function("hello", "", "")).start();
    let answer = ask(&proxy, "hello", "/").send().expect(200).json();
    assert_eq!(answer["connection"], 1, "there was one before: {answer}");
}

#[test]
fn starts_take_turns_where_only_so_many_may_be_starting_at_once() {
    let directory = Directory::new();
    let of = |name: &str, annotation: &str| {
        let file = directory.path().join(name);
        let script = format!("date +%s%N >> {}; sleep 0.2; exec {PILOTLIGHT} echo", file.display());
        let annotations = format!("{}\n{annotation}", by_shell(&script));
        yaml::function_running(name, "[/app/server]", &annotations, "containerConcurrency: 1")
    };
    let text = of("own", "pilotlight.dev/starting-at-once: '2'") + &of("all", "");
    let proxy = Proxy::with(text).args(["--starting-at-once", "3"]).start();
    for (name, at_once) in [("own", 2), ("all", 3)] {
        let path = "/?delay=3s";
        together(7, |_| ask(&proxy, name, path).timeout(seconds(60)).send().expect(200));
        let text = std::fs::read_to_string(directory.path().join(name)).unwrap();
        let mut times: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        times.sort_unstable();
        assert_eq!(times.len(), 7, "{name}");
        let early = times.windows(at_once + 1).find(|of| of[at_once] - of[0] < 200_000_000);
        assert_eq!(early, None, "{name}: more than {at_once} were starting at once");
    }
}

#[test]
fn a_function_answers_under_all_its_names() {
    let proxy = Proxy::with(yaml::function("hello", "", "")).start();
    let mesh = ["hello", "hello.default", "hello.default.svc", "hello.default.svc.cluster.local", "hello:80"];
    for host in mesh {
        assert_eq!(proxy.mesh().get("/").host(host).send().expect(200).json()["name"], "hello", "{host}");
    }
    proxy.get("/").host("hello.default.localhost:8080").send().expect(200);
    proxy.get("/").host("HELLO.default.localhost").send().expect(200);
    proxy.get("/").host("hello").send().expect(404);
}

#[test]
fn two_hundred_at_once_start_exactly_the_instances_they_need() {
    let directory = Directory::new();
    let text =
        counted(&directory, "burst", "autoscaling.knative.dev/max-scale: '20'", "containerConcurrency: 10");
    let proxy = Proxy::with(text).workers(2).start();
    let answers = together(200, |_| {
        let request = ask(&proxy, "burst", "/?delay=1500ms").timeout(seconds(60));
        request.send().expect(200).json()
    });
    let mut peaks: BTreeMap<u64, u64> = BTreeMap::new();
    for answer in &answers {
        let (pid, peak) = (answer["pid"].as_u64().unwrap(), answer["peak"].as_u64().unwrap());
        peaks.entry(pid).and_modify(|most| *most = (*most).max(peak)).or_insert(peak);
    }
    assert!(peaks.values().all(|peak| *peak <= 10), "containerConcurrency was exceeded: {peaks:?}");
    assert_eq!(starts(&directory, "burst"), 20, "ten requests each");
    assert_eq!(peaks.len(), 20, "{peaks:?}");
}

#[test]
fn requests_beyond_what_may_run_wait_their_turn() {
    let annotations = "autoscaling.knative.dev/max-scale: '2'";
    let proxy = Proxy::with(yaml::function("queue", annotations, "containerConcurrency: 2")).start();
    let answers = together(20, |_| ask(&proxy, "queue", "/?delay=50ms").send().expect(200).json());
    let pids: BTreeSet<u64> = answers.iter().map(|answer| answer["pid"].as_u64().unwrap()).collect();
    assert!(pids.len() <= 2, "{pids:?}");
    assert!(answers.iter().all(|answer| answer["peak"].as_u64().unwrap() <= 2));
}

#[test]
fn an_instance_is_not_asked_before_its_probe_is_answered() {
    let script = format!("exec {PILOTLIGHT} echo --start-delay 400ms");
    let spec = "";
    let text = yaml::function_running("slow", "[/app]", &by_shell(&script), spec)
        .trim_end_matches("---\n")
        .to_owned()
        + "        readinessProbe: {httpGet: {path: /ready}}\n---\n";
    let proxy = Proxy::with(text).start();
    let response = ask(&proxy, "slow", "/").send().expect(200);
    assert!(response.took >= millis(400), "{:?}", response.took);
    assert!(response.json()["served"].as_u64().unwrap() >= 2, "the probe was the first to be answered");
}

#[test]
fn instances_know_who_they_are_and_little_else() {
    let text = yaml::function("hello", "", "").trim_end_matches("---\n").to_owned()
        + "        env: [{name: GREETING, value: salut}]\n---\n";
    let proxy = Proxy::with(text).env("SECRET_OF_THE_SHELL", "1").start();
    let pid = ask(&proxy, "hello", "/").send().expect(200).json()["pid"].as_u64().unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let has = |variable: &str| {
        environment.split('\0').any(|own| own == variable || own.starts_with(&format!("{variable}=")))
    };
    for expected in [
        "PORT",
        "K_SERVICE=hello",
        "K_CONFIGURATION=hello",
        "K_REVISION=hello-00001",
        "GREETING=salut",
        "http_proxy",
        "HTTP_PROXY",
        "no_proxy",
        "NO_PROXY",
        "PATH",
        "HOME",
    ] {
        assert!(has(expected), "{expected} is missing: {environment:?}");
    }
    assert!(!has("SECRET_OF_THE_SHELL"));
}

#[test]
fn a_command_for_a_container_is_not_run_here_and_the_log_says_what_would() {
    let text = yaml::function_running("app", "[/app/server]", "", "");
    let proxy = Proxy::with(&text).start();
    let response = ask(&proxy, "app", "/").send().expect(503);
    assert!(response.text().contains("may not be run here"), "{}", response.text());
    proxy.logs("--exec");
    let proxy = Proxy::with(&text).args(["--exec", &format!("app={PILOTLIGHT} echo")]).start();
    assert_eq!(ask(&proxy, "app", "/").send().expect(200).json()["name"], "app");
    let proxy = Proxy::with(&text).args(["--stand-in"]).start();
    assert_eq!(ask(&proxy, "app", "/").send().expect(200).json()["name"], "app");
}

#[test]
fn a_function_that_crashes_while_starting_is_reported_to_those_who_wait() {
    let text = yaml::function_running("crash", "[/app]", &by_shell("exit 3"), "");
    let proxy = Proxy::with(text).start();
    let responses = together(4, |_| ask(&proxy, "crash", "/crash").send().expect(503));
    for response in responses {
        assert!(response.text().contains("crashed"), "{}", response.text());
        assert!(response.took < seconds(10), "{:?}", response.took);
    }
    assert!(proxy.access_line(&["/crash"]).contains("function_crashed"), "{}", proxy.output());
    proxy.admin().get("/ready").send().expect(200);
}

#[test]
fn what_a_function_may_take_includes_the_time_it_was_held() {
    let spec = "timeoutSeconds: 1";
    let script = format!("exec {PILOTLIGHT} echo --start-delay 20s");
    let proxy = Proxy::with(yaml::function_running("late", "[/app]", &by_shell(&script), spec)).start();
    let response = ask(&proxy, "late", "/").send().expect(504);
    assert!((millis(900)..seconds(5)).contains(&response.took), "{:?}", response.took);
}

#[test]
fn an_idle_function_is_stopped_and_wakes_again() {
    let annotations = "autoscaling.knative.dev/window: 6s";
    let proxy = Proxy::with(yaml::function("idle", annotations, "")).start();
    let first = ask(&proxy, "idle", "/").send().expect(200).json()["pid"].as_u64().unwrap();
    let pid = u32::try_from(first).unwrap();
    assert!(becomes_true(seconds(15), || !alive(pid)), "it still runs 15 s after its last answer");
    let second = ask(&proxy, "idle", "/").send().expect(200).json()["pid"].as_u64().unwrap();
    assert_ne!(first, second);
}

#[test]
fn min_scale_keeps_instances_and_replaces_the_one_that_dies() {
    let directory = Directory::new();
    let text = counted(&directory, "kept", "autoscaling.knative.dev/min-scale: '2'", "");
    let proxy = Proxy::with(text).start();
    eventually("two instances start unasked", seconds(10), || {
        (starts(&directory, "kept") == 2).then_some(())
    });
    let pid = ask(&proxy, "kept", "/").send().expect(200).json()["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    eventually("a third replaces it", seconds(10), || (starts(&directory, "kept") == 3).then_some(()));
}

#[test]
fn what_a_reload_adds_and_what_it_raises_starts_unasked() {
    let directory = Directory::new();
    let proxy = Proxy::with(counted(&directory, "there", "", "")).start();
    let reached = |name: &str, count: usize| {
        let what = format!("{name} has been started {count} times");
        eventually(&what, seconds(10), || (starts(&directory, name) == count).then_some(()));
    };
    proxy.write("more.yaml", &counted(&directory, "more", "autoscaling.knative.dev/min-scale: '2'", ""));
    reached("more", 2);
    let defaults =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-autoscaler, namespace: knative-serving}\n";
    proxy.write("defaults.yaml", &format!("{defaults}data: {{min-scale: '1'}}\n"));
    reached("there", 1);
    ask(&proxy, "more", "/").send().expect(200);
    assert!(!proxy.log().contains("defect"), "{}", proxy.log());
}

/// Kills one of three instances while clients with kept connections ask for `path`; every one is answered.
#[track_caller]
fn kill_one_of_three(rules: &str, path: &str) {
    let annotations = "autoscaling.knative.dev/min-scale: '3'\nautoscaling.knative.dev/max-scale: '3'";
    let text = yaml::function("trio", annotations, "containerConcurrency: 10") + rules;
    let proxy = Proxy::with(text).workers(2).start();
    let front = proxy.front();
    let ask = |path: &str| front.get(path).host("trio.default.localhost");
    let pids = || {
        (0..30).map(|_| ask("/").send().expect(200).json()["pid"].as_i64().unwrap()).collect::<BTreeSet<_>>()
    };
    eventually("all three answer", seconds(10), || (pids().len() == 3).then_some(()));
    let over = AtomicBool::new(false);
    let answers: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let (mut connection, mut answers) = (front.connect(), 0);
                    while !over.load(Ordering::SeqCst) {
                        connection.send(ask(path)).expect(200);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        std::thread::sleep(millis(300));
        let victim = i32::try_from(*pids().first().unwrap()).unwrap();
        kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
        std::thread::sleep(millis(1000));
        over.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().expect("no request failed")).sum()
    });
    assert!(answers > 50, "{answers}");
}

#[test]
fn killing_one_of_three_instances_fails_no_request_that_a_route_retries() {
    let http =
        "- route: [{destination: {host: trio}}]\n  retries: {attempts: 3, retryOn: 'reset,connect-failure'}";
    kill_one_of_three(&yaml::virtual_service("trio", "trio.default.localhost", http), "/?delay=5ms");
}

#[test]
fn killing_one_of_three_instances_fails_no_request_that_was_safe_to_retry() {
    kill_one_of_three("", "/?delay=5ms");
}

#[test]
fn a_function_that_speaks_h2c_is_woken_by_grpc() {
    let text = yaml::function("greeter", "", "").trim_end_matches("---\n").to_owned()
        + "        ports: [{name: h2c, containerPort: 8080}]\n---\n";
    let proxy = Proxy::with(text).start();
    let request =
        proxy.post("/greeter.Greeter/Hello", b"\0\0\0\0\x02hi".to_vec()).host("greeter.default.localhost");
    let response =
        request.header("content-type", "application/grpc").header("te", "trailers").h2().send().expect(200);
    assert_eq!(&*response.body, b"\0\0\0\0\x02hi");
    assert_eq!(response.trailers["grpc-status"], "0");
}

#[test]
fn a_large_body_is_held_and_arrives_whole() {
    let text = yaml::function_running("upload", "[pilotlight, echo, --start-delay, 500ms]", "", "");
    let proxy = Proxy::with(text).start();
    let body = vec![b'x'; 8 << 20];
    let request = proxy.post("/", body).host("upload.default.localhost").timeout(seconds(30));
    assert_eq!(request.send().expect(200).json()["body_bytes"], 8 << 20);
}

#[test]
fn a_client_that_leaves_takes_its_place_in_the_queue_with_it() {
    let script = format!("exec {PILOTLIGHT} echo --start-delay 2s");
    let text = yaml::function_running("late", "[/app]", &by_shell(&script), "containerConcurrency: 1");
    let proxy = Proxy::with(text).start();
    let mut client = proxy.front().raw();
    client.send("GET /left HTTP/1.1\nhost: late.default.localhost\n\n");
    assert!(client.is_silent_for(millis(300)));
    drop(client);
    assert!(proxy.access_line(&["/left"]).contains(" 0 DC "), "{}", proxy.output());
    let answer = ask(&proxy, "late", "/").send().expect(200).json();
    assert_eq!(answer["served"], 1, "the one who left was never sent");
}

#[test]
fn traffic_splits_over_revisions_and_tags_name_one() {
    let document = |revision: &str, traffic: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: pair}}\nspec:\n  template:\n    \
             metadata: {{name: {revision}}}\n    spec:\n      containers: [{{image: example.com/pair:1, command: \
             [pilotlight, echo]}}]\n{traffic}---\n"
        )
    };
    let traffic = "  traffic:\n  - {revisionName: pair-one, percent: 75}\n  - {revisionName: pair-two, percent: 25, tag: canary}\n";
    let proxy = Proxy::with(document("pair-one", "") + &document("pair-two", traffic)).start();
    let revision = |host: &str| {
        let answer = proxy.get("/").host(host).send().expect(200).json();
        answer["revision"].as_str().unwrap().to_owned()
    };
    for _ in 0..5 {
        assert_eq!(revision("canary-pair.default.localhost"), "pair-two");
    }
    let ones = (0..200).filter(|_| revision("pair.default.localhost") == "pair-one").count();
    // Three quarters of 200 is 150, with a standard deviation of about 6.
    assert!((115..=185).contains(&ones), "{ones} of 200");
}

#[test]
fn functions_call_each_other_by_name() {
    let proxy = Proxy::with(yaml::function("front", "", "") + &yaml::function("back", "", "")).start();
    let answer = ask(&proxy, "front", "/?call=http://back/inner").header("x-request-id", "one-trace").send();
    let answer = answer.expect(200).json();
    let call = &answer["calls"][0];
    assert_eq!((&call["status"], &call["answer"]["name"]), (&200.into(), &"back".into()));
    assert_eq!(call["answer"]["path"], "/inner");
    assert_eq!(answer["headers"]["x-request-id"], call["answer"]["headers"]["x-request-id"]);
}
