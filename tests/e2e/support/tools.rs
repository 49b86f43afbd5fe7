//! Programs from outside: curl, h2load, promtool, python3 with grpcio.

use super::eventually;
use super::process::Process;
use super::seconds;
use std::process::Command;

/// Returns from the test where a tool is absent; fails it when tools are required.
macro_rules! needs {
    ($($tool:literal),+) => {
        $(if !$crate::support::tools::present($tool) { return; })+
    };
}
pub(crate) use needs;

/// Whether a tool is here. Says so when not, or panics when `PILOTLIGHT_REQUIRE_TOOLS=1`.
pub fn present(tool: &str) -> bool {
    let found = match tool {
        "grpcio" => runs("python3", &["-c", "import grpc"]),
        "promtool" | "curl" | "h2load" | "python3" => runs(tool, &["--version"]),
        "openssl" => runs("openssl", &["version"]),
        "sslyze" => runs("python3", &["-c", "import sslyze"]),
        other => panic!("no test knows how to look for {other}"),
    };
    if !found {
        let required = std::env::var("PILOTLIGHT_REQUIRE_TOOLS").is_ok_and(|value| value == "1");
        assert!(!required, "needs {tool}, and PILOTLIGHT_REQUIRE_TOOLS=1");
        println!("skipped: needs {tool}");
    }
    found
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end, within a minute.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command)
}

#[track_caller]
pub fn run_command(command: Command) -> Outcome {
    let mut process = Process::start(command);
    let status = process.exits_within(seconds(300));
    let closed = |p: &Process| p.finished().then_some(());
    eventually("its output ends", seconds(5), || closed(&process));
    Outcome { success: status.success(), stdout: process.stdout_text(), stderr: process.stderr_text() }
}

/// The real curl, silent, without a configuration file and with a deadline of its own.
#[track_caller]
pub fn curl(arguments: &[&str]) -> Outcome {
    let mut all = vec!["-q", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*"];
    if arguments.contains(&"--proxy") {
        all.truncate(5);
    }
    all.extend(arguments);
    run("curl", &all)
}
