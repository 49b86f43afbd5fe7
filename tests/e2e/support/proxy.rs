//! A running Pilotlight: the real binary over a directory of YAML, on free ports.

use super::metrics::Metrics;
use super::process::Process;
use super::{Origin, Request, Target, eventually, seconds, yaml};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The binary under test.
pub const PILOTLIGHT: &str = env!("CARGO_BIN_EXE_pilotlight");

/// A directory that goes when it is dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pilotlight-e2e-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("the temporary directory is writable");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How to start one.
#[must_use]
pub struct Setup {
    directory: Directory,
    given: Option<PathBuf>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    program: Vec<String>,
    admin: String,
    http_port: u16,
    map_ports: bool,
    command: &'static str,
}

impl Setup {
    /// Beside one workload, `shop/till`, instead of for all.
    pub fn beside(self, app: &Origin) -> Setup {
        self.sidecar("shop/till", "app=till", app.address())
    }

    /// The same beside any.
    pub fn sidecar(mut self, workload: &str, labels: &str, app: SocketAddr) -> Setup {
        self.command = "sidecar";
        let app = app.to_string();
        self.args(["--workload", workload, "--labels", labels, "--app", &app]).args([
            "--inbound",
            "127.0.0.1:0",
            "--outbound",
            "127.0.0.1:0",
        ])
    }

    /// Where its configuration is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One more file beside the first.
    pub fn file(self, name: &str, text: &str) -> Setup {
        self.directory.write(name, text);
        self
    }

    pub fn args<const N: usize>(mut self, arguments: [&str; N]) -> Setup {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn workers(self, count: usize) -> Setup {
        self.args(["--workers", &count.to_string()])
    }

    /// `off`, `text` or `json`; else what MeshConfig says, else text.
    pub fn access_log(self, format: &str) -> Setup {
        self.args(["--access-log", format])
    }

    /// The admin address; a free port otherwise.
    pub fn admin_at(mut self, address: &str) -> Setup {
        address.clone_into(&mut self.admin);
        self
    }

    /// The port of the default gateway; a free one otherwise.
    pub fn http_port(mut self, port: u16) -> Setup {
        self.http_port = port;
        self
    }

    /// Gateway servers where they say, not on free ports.
    pub fn own_ports(mut self) -> Setup {
        self.map_ports = false;
        self
    }

    /// Another program, or words before the program.
    pub fn program(mut self, words: &[&str]) -> Setup {
        self.program = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The command line that [`Setup::start`] runs.
    fn command(&self) -> Command {
        let path = self.given.as_deref().unwrap_or(self.directory.path());
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).env("NO_COLOR", "1").arg(self.command).arg(path);
        command.args(["--admin", &self.admin]);
        if self.command == "run" {
            self.alone(&mut command, path);
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// What a sidecar has not.
    fn alone(&self, command: &mut Command, path: &Path) {
        if !self.arguments.iter().any(|argument| argument == "--mesh") {
            command.args(["--mesh", "127.0.0.1:0"]);
        }
        command.args(["--http-port", &self.http_port.to_string()]);
        if self.map_ports {
            for port in yaml::gateway_ports(path) {
                command.args(["--port-map", &format!("{port}:0")]);
            }
        }
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let mut proxy = self.spawn();
        eventually("the proxy is ready", seconds(10), || {
            if let Some(status) = proxy.process.exit_status() {
                panic!("the proxy ended before it was ready: {status}");
            }
            let answer = proxy.find("admin")?.get("/ready").try_send().ok()?;
            (answer.status == 200).then_some(())
        });
        proxy
    }

    /// Starts it without waiting.
    #[track_caller]
    pub fn spawn(self) -> Proxy {
        let process = Process::start(self.command());
        Proxy { process, directory: self.directory }
    }
}

/// One that runs.
pub struct Proxy {
    process: Process,
    directory: Directory,
}

impl Proxy {
    /// Over one file of YAML.
    pub fn with(text: impl AsRef<str>) -> Setup {
        let directory = Directory::new();
        directory.write("config.yaml", text.as_ref());
        Setup {
            directory,
            given: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            program: vec![PILOTLIGHT.to_owned()],
            admin: "127.0.0.1:0".to_owned(),
            http_port: 0,
            map_ports: true,
            command: "run",
        }
    }

    /// Over a directory that exists.
    pub fn over(path: impl Into<PathBuf>) -> Setup {
        let mut setup = Proxy::with("");
        setup.given = Some(path.into());
        setup
    }

    /// A gateway that sends everything to one origin.
    pub fn to(origin: &Origin) -> Setup {
        Proxy::with(yaml::all_to(origin.protocol(), &[origin.address()]))
    }

    /// The address of a listener by the name it is logged under.
    pub fn find(&self, name: &str) -> Option<Target> {
        let lines = self.process.stderr.lock();
        lines
            .iter()
            .filter_map(|line| listening(line))
            .find(|(_, n)| *n == name)
            .map(|(at, _)| Target::at(at))
    }

    #[track_caller]
    fn listener(&self, name: &str) -> Target {
        eventually(&format!("a line `listening on …: {name}`"), seconds(5), || self.find(name))
    }

    #[track_caller]
    pub fn admin(&self) -> Target {
        self.listener("admin")
    }

    #[track_caller]
    pub fn mesh(&self) -> Target {
        self.listener("mesh")
    }

    /// The Gateway server with this port number.
    #[track_caller]
    pub fn gateway(&self, port: u16) -> Target {
        self.listener(&format!("gateway:{port}"))
    }

    /// The default gateway, else the only Gateway server.
    #[track_caller]
    pub fn front(&self) -> Target {
        eventually("a line `listening on …: gateway`", seconds(5), || {
            let lines = self.process.stderr.lock();
            lines
                .iter()
                .filter_map(|line| listening(line))
                .find(|(_, name)| *name == "gateway" || name.starts_with("gateway:"))
                .map(|(at, _)| Target::at(at))
        })
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Request {
        self.front().get(path)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        self.front().post(path, body)
    }

    /// Everything on `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin().get("/metrics").send().text())
    }

    /// Writes a file of the configuration.
    pub fn write(&self, name: &str, text: &str) {
        self.directory.write(name, text);
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub fn exits_within(&mut self, within: Duration) -> ExitStatus {
        self.process.exits_within(within)
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        self.process.stderr_text()
    }

    /// What it wrote on standard output: access log lines, and what functions say.
    pub fn output(&self) -> String {
        self.process.stdout_text()
    }

    /// The first access log line that holds all of `parts`.
    #[track_caller]
    pub fn access_line(&self, parts: &[&str]) -> String {
        eventually(&format!("an access log line with {parts:?}"), seconds(5), || {
            let lines = self.process.stdout.lock();
            lines.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned()
        })
    }

    /// Waits for a line on standard error that holds `part`.
    #[track_caller]
    pub fn logs(&self, part: &str) -> String {
        eventually(&format!("a log line with {part:?}"), seconds(5), || {
            self.process.stderr.lock().iter().find(|line| line.contains(part)).cloned()
        })
    }
}

/// Address and name out of `… listening on ADDR: NAME (why)`.
fn listening(line: &str) -> Option<(SocketAddr, &str)> {
    let (_, rest) = line.split_once("listening on ")?;
    let (address, rest) = rest.split_once(": ")?;
    let name = rest.split(" (").next()?.trim();
    Some((address.parse().ok()?, name))
}
