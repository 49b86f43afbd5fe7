//! Functions that fail: each way has its own fault and words, told as soon as it is known, without a storm of
//! starts; and what is printed on standard error is for the operator alone.

use crate::support::client::Response;
use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::{Proxy, Request, eventually, millis, seconds, together, yaml};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn ask(proxy: &Proxy, path: &str) -> Request {
    proxy.get(path).host("fails.default.localhost").timeout(seconds(60))
}

/// A function run by a script; `STARTS` in it is a file that gets a line at each start, `FACT` one that gets
/// the time, and `ECHO` a server.
fn function(directory: &Directory, script: &str, annotations: &str, spec: &str) -> String {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (starts, fact) = (path("starts"), path("fact"));
    let script = format!("echo start >> {starts}; {script}")
        .replace("FACT", &format!("date +%s.%N > {fact}"))
        .replace("ECHO", &format!("{PILOTLIGHT} echo"));
    let command = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"\n{annotations}");
    yaml::function_running("fails", "[/app]", &command, spec)
}

fn starts(directory: &Directory) -> usize {
    std::fs::read_to_string(directory.path().join("starts")).map_or(0, |text| text.lines().count())
}

/// How long ago the script wrote down the time.
fn since_fact(directory: &Directory) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let text = std::fs::read_to_string(directory.path().join("fact")).unwrap();
    now.saturating_sub(Duration::from_secs_f64(text.trim().parse().unwrap()))
}

/// Asks until the answer is by this fault; which answers come before does not matter.
#[track_caller]
fn told(proxy: &Proxy, details: &str) -> Response {
    let mut count = 0;
    let response = eventually(&format!("an answer by {details}"), seconds(30), || {
        count += 1;
        let path = format!("/ask-{count}-");
        let response = ask(proxy, &path).send();
        proxy.access_line(&[&path]).contains(details).then_some(response)
    });
    assert!(!response.text().contains("secret"), "{}", response.text());
    response
}

#[test]
fn those_who_wait_are_told_of_a_crash_within_milliseconds() {
    let directory = Directory::new();
    let script = "echo secret >&2; sleep 0.3; FACT; exit 3";
    let proxy = Proxy::with(function(&directory, script, "", "")).start();
    let answers = together(20, |_| (ask(&proxy, "/").send().expect(503), since_fact(&directory)));
    let slowest = answers.iter().map(|(_, since)| *since).max().unwrap();
    println!("the slowest of 20 was told {slowest:?} after the script was about to exit");
    assert!(slowest < seconds(2), "{slowest:?}");
    for (answer, _) in answers {
        assert!(answer.text().contains("crashed while starting"), "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
    }
    let functions = proxy.admin().get("/functions").send().expect(200).json();
    let crash = &functions["functions"][0]["last_crash"];
    assert_eq!((&crash["exit_status"], &crash["fault"]), (&3.into(), &"Crashed".into()));
    assert_eq!(crash["stderr"][0], "secret");
}

#[test]
fn a_function_that_always_crashes_is_refused_at_once_and_tried_again() {
    let directory = Directory::new();
    let healed = directory.path().join("healed");
    let script = format!("if [ -e {} ]; then exec ECHO; fi; echo secret >&2; exit 1", healed.display());
    let proxy = Proxy::with(function(&directory, &script, "", "")).start();
    let refused = told(&proxy, "function_crash_loop").expect(503);
    assert!(refused.text().contains("tried again later"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), "1");
    assert!(starts(&directory) <= 6, "{} starts", starts(&directory));
    let before = starts(&directory);
    let answers = together(100, |_| ask(&proxy, "/crowd").send().expect(503));
    assert!(answers.iter().all(|answer| answer.took < seconds(20)));
    assert!(starts(&directory) <= before + 5, "{} starts for a crowd", starts(&directory) - before);
    assert!(proxy.metrics().sum("pilotlight_hold_refused_total", &[("fault", "CrashLoop")]) >= 1.0);
    // Whoever asks is refused, and the trial that he causes brings it back.
    std::fs::write(healed, "").unwrap();
    eventually("it is served again", seconds(30), || {
        std::thread::sleep(millis(50));
        (ask(&proxy, "/healed").send().status == 200).then_some(())
    });
}

#[test]
fn a_command_that_is_not_there_is_told_at_once_every_time() {
    let text = yaml::function_running(
        "fails",
        "[/app]",
        "pilotlight.dev/local-command: no-such-program-anywhere",
        "",
    );
    let proxy = Proxy::with(text).start();
    for _ in 0..3 {
        let answer = ask(&proxy, "/").send().expect(503);
        assert!(answer.text().contains("cannot be run"), "{}", answer.text());
        assert!(answer.took < seconds(5));
    }
    proxy.logs("`no-such-program-anywhere` is not in PATH");
}

#[test]
fn a_file_that_is_no_program_is_told_by_name() {
    let directory = Directory::new();
    let file = directory.path().join("text");
    std::fs::write(&file, "no program").unwrap();
    let annotation = format!("pilotlight.dev/local-command: {}", file.display());
    let proxy = Proxy::with(yaml::function_running("fails", "[/app]", &annotation, "")).start();
    assert!(ask(&proxy, "/").send().expect(503).text().contains("cannot be run"));
    proxy.logs("is not an executable file");
}

#[test]
fn a_function_that_listens_too_late_is_told_apart_from_a_busy_one() {
    let directory = Directory::new();
    let proxy =
        Proxy::with(function(&directory, "exec ECHO --start-delay 30s", "", "timeoutSeconds: 1")).start();
    let answer = ask(&proxy, "/late").send().expect(504);
    assert!(answer.text().contains("did not listen on its port in time"), "{}", answer.text());
    assert!(proxy.access_line(&["/late", " UT "]).contains("function_listens_late"));
    let busy = yaml::function(
        "fails",
        "autoscaling.knative.dev/max-scale: '1'",
        "containerConcurrency: 1\ntimeoutSeconds: 1",
    );
    let proxy = Proxy::with(busy).start();
    let answers = together(2, |_| ask(&proxy, "/?delay=3s").send().expect(504));
    assert!(answers.iter().all(|answer| !answer.text().contains("port")));
}

#[test]
fn a_function_that_exits_at_its_work_is_said_to_have_exited() {
    let directory = Directory::new();
    let proxy = Proxy::with(function(&directory, "exec ECHO", "", "")).start();
    ask(&proxy, "/").send().expect(200);
    let pid = ask(&proxy, "/").send().expect(200).json()["pid"].as_i64().unwrap();
    std::thread::scope(|scope| {
        let working =
            scope.spawn(|| proxy.post("/work?delay=20s", "x").host("fails.default.localhost").send());
        eventually("it works", seconds(10), || {
            let functions = proxy.admin().get("/functions").send().expect(200).json();
            (functions["functions"][0]["instances"][0]["in_flight"] == 1).then_some(())
        });
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let killed = std::time::Instant::now();
        let answer = working.join().unwrap().expect(503);
        println!("told {:?} after the kill", killed.elapsed());
        assert!(answer.text().contains("exited while it worked"), "{}", answer.text());
    });
    assert!(proxy.access_line(&["/work", " UC "]).contains("function_exited"));
    ask(&proxy, "/").send().expect(200);
    let crash = proxy.admin().get("/functions").send().expect(200).json();
    assert_eq!(crash["functions"][0]["last_crash"]["signal"], 9);
}

#[test]
fn a_function_that_listens_and_exits_again_and_again_is_not_asked_for_ever() {
    let directory = Directory::new();
    let script = "ECHO & sleep 0.2; kill $!; exit 1";
    let proxy = Proxy::with(function(&directory, script, "", "")).start();
    let answer = told(&proxy, "function_crash_loop").expect(503);
    assert!(answer.text().contains("crashes whenever it is started"), "{}", answer.text());
    let functions = proxy.admin().get("/functions").send().expect(200).json();
    assert_eq!(functions["functions"][0]["last_crash"]["fault"], "ExitedEarly");
    let script = "ECHO & sleep 1.3; kill $!; exit 1";
    let directory = Directory::new();
    let proxy =
        Proxy::with(function(&directory, script, "autoscaling.knative.dev/min-scale: '1'", "")).start();
    told(&proxy, "function_flapping").expect(503);
    assert!(starts(&directory) <= 20, "{} starts", starts(&directory));
}
