//! The READMEs of the examples are true: every command in a `sh` block runs, and prints what stands below it.
//!
//! Lines that begin with `#> ` are what the command above prints; `…` stands for anything. Blocks marked
//! `console` are not run.

use crate::support::process::Process;
use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::tools::{needs, run};
use crate::support::{Origin, Proxy, Reply, eventually, seconds};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Step {
    command: String,
    expected: String,
}

#[test]
fn hello_does_what_its_readme_says() {
    needs!("curl");
    follow_readme("hello", &readme("hello"));
}

#[test]
fn the_front_page_is_true_of_hello() {
    needs!("curl");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    follow_readme("hello", &readme);
}

#[test]
fn shop_does_what_its_readme_says() {
    needs!("curl");
    follow_readme("shop", &readme("shop"));
}

#[test]
fn mtls_does_what_its_readme_says() {
    needs!("curl");
    let home = Directory::new();
    let certificates = home.path().join("certs");
    let out = certificates.to_str().unwrap();
    assert!(run(PILOTLIGHT, &["certs", "--out", out, "default/greeter", "default/caller"]).success);
    let origin = Origin::h1().answer(|seen| {
        let vouched = seen.header("x-forwarded-client-cert");
        Reply::text(&format!("{{\"path\":\"/hello\",\"vouched\":\"{vouched}\"}}"))
    });
    let yaml = std::fs::read_to_string(directory("mtls").join("mtls.yaml")).unwrap();
    let sidecar = |name: &str, app: &str, yaml: &str| {
        home.write(&format!("{name}.yaml"), yaml);
        let mut command = Command::new(PILOTLIGHT);
        command.arg("sidecar").arg(home.path().join(format!("{name}.yaml")));
        command.args(["--workload", &format!("default/{name}"), "--service-account", name, "--app", app]);
        command.args(["--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--certs").arg(certificates.join("default").join(name));
        Process::start(command)
    };
    let port = |process: &Process, name: &str| -> u16 {
        eventually(name, seconds(10), || {
            let text = process.stderr_text();
            let line = text.lines().find(|line| line.contains("listening on") && line.contains(name))?;
            let (_, rest) = line.split_once("127.0.0.1:")?;
            rest.split(':').next()?.parse().ok()
        })
    };
    let greeter = sidecar("greeter", &origin.address().to_string(), &yaml);
    let inbound = port(&greeter, ": inbound:");
    let caller = sidecar("caller", "127.0.0.1:1", &yaml.replace("15106", &inbound.to_string()));
    let ports =
        [(":15201", port(&caller, ": mesh")), (":15106", inbound), (":15100", port(&greeter, ": admin"))];
    follow("mtls", &readme("mtls"), &ports);
}

#[test]
fn check_has_nothing_to_say_about_the_examples() {
    for example in ["hello", "shop", "mtls"] {
        let outcome = run(PILOTLIGHT, &["check", directory(example).to_str().unwrap()]);
        assert!(
            outcome.success && outcome.stdout.is_empty() && outcome.stderr.is_empty(),
            "{example}: {outcome:?}"
        );
    }
}

#[test]
fn the_readmes_hold_commands_with_answers() {
    for (example, least) in [("hello", 8), ("shop", 10)] {
        let steps = steps(&readme(example));
        assert!(steps.len() >= least, "{example}: {} commands", steps.len());
        for step in &steps {
            assert!(!step.expected.is_empty(), "{example}: nothing is said about: {}", step.command);
        }
    }
}

#[test]
fn an_ellipsis_stands_for_anything() {
    let check = |pattern, text, expected| assert_eq!(fits(pattern, text), expected, "{pattern} on {text}");
    check("a…c", "abc", true);
    check("a…c", "ac", true);
    check("a…c", "abcd", false);
    check("a…b…c", "a1b2c", true);
    check("a…b…c", "acb", false);
    check("abc", "abc", true);
    check("…", "", true);
    check("…ab", "ab ab", true);
}

fn directory(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example)
}

fn readme(example: &str) -> String {
    std::fs::read_to_string(directory(example).join("README.md")).expect("every example has a README.md")
}

#[track_caller]
fn follow_readme(example: &str, readme: &str) {
    let proxy = Proxy::over(directory(example)).start();
    let ports = [
        (":8080", proxy.front().address().port()),
        (":15001", proxy.mesh().address().port()),
        (":15000", proxy.admin().address().port()),
    ];
    follow(example, readme, &ports);
}

#[track_caller]
fn follow(example: &str, readme: &str, ports: &[(&str, u16)]) {
    for step in steps(readme) {
        let command = ports
            .iter()
            .fold(step.command.clone(), |text, (written, real)| text.replace(written, &format!(":{real}")));
        let outcome = run("bash", &["-o", "pipefail", "-c", &command]);
        let printed = outcome.stdout.trim_end();
        assert!(
            fits(&step.expected, printed),
            "the README of {example}\n  $ {command}\nsays it prints\n{}\nbut it prints\n{printed}\n{}",
            step.expected,
            outcome.stderr
        );
    }
}

/// The commands of all `sh` blocks with what is said to be printed.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut answered) = (false, true);
    for line in readme.lines() {
        if line.starts_with("```") {
            (inside, answered) = (line == "```sh", true);
        } else if let Some(printed) = line.strip_prefix("#> ").filter(|_| inside) {
            let step = steps.last_mut().expect("an answer stands below a command");
            step.expected += if step.expected.is_empty() { "" } else { "\n" };
            step.expected += printed;
            answered = true;
        } else if inside && answered {
            steps.push(Step { command: line.to_owned(), expected: String::new() });
            answered = false;
        } else if inside {
            let step = steps.last_mut().expect("a command goes on");
            step.command += "\n";
            step.command += line;
        }
    }
    steps
}

/// Whether `text` is `pattern` with something, or nothing, in place of every `…`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}
