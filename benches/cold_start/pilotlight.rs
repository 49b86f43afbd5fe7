//! The proxy under test, over functions that run the program.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Args;
use crate::measure::{self, Taken, monotonic};

/// How long it may take to be ready, and its functions to be stopped after the last request.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(60);
/// Between looks.
const LOOK: Duration = Duration::from_millis(50);
/// The shortest that Knative allows.
const WINDOW: &str = "6s";
/// Functions beside those that are measured: the first start of all also starts the driver's own threads.
const FIRST: u32 = 1;

/// What was measured of functions that were frozen, in microseconds.
#[derive(Debug, Default)]
pub struct Frozen {
    /// From the request to its answer, where the function was frozen.
    pub thawed: Vec<f64>,
    /// The same right afterwards, where it was not.
    pub warm: Vec<f64>,
}

/// Cold starts of functions that listen after so many milliseconds.
pub fn cold(args: &Args, after: u64) -> io::Result<Taken> {
    let proxy = Running::start(args, after, "")?;
    let mut taken = Taken::default();
    let mut left = args.starts;
    proxy.ask(args.functions)?;
    let watchdog = proxy.watchdog();
    while left > 0 {
        let before = proxy.cpu(watchdog);
        let round = left.min(args.functions);
        for function in 0..round {
            let asked = proxy.ask(function)?;
            taken.programs += measure::cpu(asked.pid);
            taken.saw(&asked);
        }
        taken.starter += proxy.cpu(watchdog).saturating_sub(before);
        left -= round;
        if left > 0 {
            proxy.until("no instance", |functions| count(functions, "\"pid\"") == 0)?;
        }
    }
    Ok(taken)
}

/// Requests to functions that are frozen.
pub fn frozen(args: &Args) -> io::Result<Frozen> {
    let proxy = Running::start(args, 0, "pilotlight.dev/idle: freeze, ")?;
    let mut taken = Frozen::default();
    (0..args.functions + FIRST).try_for_each(|function| proxy.ask(function).map(drop))?;
    let mut left = args.starts;
    while left > 0 {
        let all = (args.functions + FIRST) as usize;
        proxy.until("all are frozen", |functions| count(functions, "\"state\":\"frozen\"") == all)?;
        let round = left.min(args.functions);
        for function in 0..round {
            let (cold, warm) = (proxy.ask(function)?, proxy.ask(function)?);
            if cold.pid != warm.pid {
                return Err(io::Error::other("a frozen function was started anew"));
            }
            taken.thawed.push((cold.answered - cold.sent) as f64 / 1e3);
            taken.warm.push((warm.answered - warm.sent) as f64 / 1e3);
        }
        left -= round;
    }
    Ok(taken)
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

struct Running {
    child: Child,
    front: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
}

impl Running {
    fn start(args: &Args, after: u64, annotations: &str) -> io::Result<Running> {
        let directory = std::env::temp_dir().join(format!("cold-start-{}-{after}", std::process::id()));
        // Beside the log: what is written where configuration is watched is looked at.
        let watched = directory.join("watched");
        fs::create_dir_all(&watched)?;
        let text: String = (0..args.functions + FIRST).map(|n| document(n, after, annotations)).collect();
        fs::write(watched.join("functions.yaml"), text)?;
        let [front, admin] = [free()?, free()?];
        let log = File::create(directory.join("log"))?;
        let mut command = Command::new(&args.pilotlight);
        command.arg("run").arg(&watched).args(["--workers", "1", "--access-log", "off"]);
        command.args(["--http-port", &front.port().to_string(), "--admin", &admin.to_string()]);
        command.args(["--mesh", "127.0.0.1:0", "--max-instances", "1000"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let running = Running { child, front, admin, directory };
        let end = monotonic() + START.as_nanos() as u64;
        while !running.get("/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if monotonic() > end {
                return Err(io::Error::other(format!("the proxy is not ready: {}", running.log())));
            }
            std::thread::sleep(LOOK);
        }
        Ok(running)
    }

    fn ask(&self, function: u32) -> io::Result<measure::Asked> {
        let stream = measure::connect(self.front)?;
        measure::ask(stream, &format!("f{function}.default.localhost"))
            .map_err(|error| io::Error::other(format!("f{function}: {error}; {}", self.log())))
    }

    /// Waits until `/functions` is as it should be.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> io::Result<()> {
        let end = monotonic() + STOP.as_nanos() as u64;
        loop {
            let functions = self.get("/functions")?.replace(": ", ":").replace("\"pid\":null", "");
            if is(&functions) {
                return Ok(());
            }
            if monotonic() > end {
                return Err(io::Error::other(format!("waited in vain: {what}; {}", self.log())));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The watchdog's process, if this system tells children by their parents.
    fn watchdog(&self) -> Option<u32> {
        let entries = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent =
                stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            parent == Some(self.child.id()) && words.ends_with(b"watchdog\0")
        })
    }

    fn cpu(&self, watchdog: Option<u32>) -> Duration {
        measure::cpu(self.child.id()) + watchdog.map(measure::cpu).unwrap_or_default()
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("its last words:\n  {}", lines[lines.len().saturating_sub(10)..].join("\n  "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It is this process's child, and not yet waited for.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Between this and the bind somebody else could take it; the start then fails and says so.
fn free() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn document(number: u32, after: u64, annotations: &str) -> String {
    let executable = std::env::current_exe().unwrap_or_default();
    let executable = Path::new(&executable).display();
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: f{number}}}\nspec:\n  template:\n    \
         metadata:\n      annotations: {{{annotations}autoscaling.knative.dev/window: {WINDOW}, \
         pilotlight.dev/local-command: {executable} function {after}}}\n    spec:\n      containers: [{{image: f}}]\n---\n"
    )
}
