//! Processes of the rig: started on the right core, read while they run, ended when dropped.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{Args, Proxy, load, policy, tls};

/// How long a process may take until it serves, also under valgrind.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to.
const STOP: Duration = Duration::from_secs(40);

/// Which core a process runs on, where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The core kept for the proxy that is measured.
    Measured,
    /// All others.
    Beside,
}

/// Puts this thread, and what it starts from now on, in its place. On one core it changes nothing.
pub fn stay(place: Place) {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| match sched_getaffinity(None) {
        Ok(all) => (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect(),
        Err(_) => Vec::new(),
    });
    let [measured, beside @ ..] = &allowed[..] else { return };
    if beside.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    match place {
        Place::Measured => set.set(*measured),
        Place::Beside => beside.iter().for_each(|cpu| set.set(*cpu)),
    }
    // Where it is not allowed the numbers are noisier, and that is all.
    let _ = sched_setaffinity(None, &set);
}

/// Lets this process and its children hold thousands of sockets, as far as the system allows.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Says where a part of the rig listens, to the process that started it.
pub fn announce(address: SocketAddr) {
    // Whoever started it is gone if this fails, and then there is nobody to tell.
    let _ = writeln!(io::stdout(), "{address}");
}

/// A directory that is removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty one.
    pub fn new() -> io::Result<Scratch> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("hop-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process of the rig that serves.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    scratch: Scratch,
    /// What stands around it: the part that encrypts and the part that opens.
    around: Vec<Running>,
}

impl Running {
    /// Starts the upstream.
    pub fn upstream() -> io::Result<Running> {
        Running::part(Command::new(std::env::current_exe()?).arg("upstream"), Scratch::new()?, Place::Beside)
    }

    /// Starts a proxy in front of `upstream` and waits until it serves; with `profile`, under callgrind, which
    /// writes there when the proxy ends.
    pub fn proxy(
        args: &Args,
        proxy: Proxy,
        upstream: SocketAddr,
        profile: Option<&Path>,
    ) -> io::Result<Running> {
        let scratch = Scratch::new()?;
        let program = match proxy {
            Proxy::Relay | Proxy::Minimal => std::env::current_exe()?,
            Proxy::Pilotlight => PathBuf::from(&args.pilotlight),
        };
        let mut command = match profile {
            None => Command::new(program),
            Some(file) => {
                let mut command = Command::new("valgrind");
                let out = format!("--callgrind-out-file={}", file.display());
                command.args(["--tool=callgrind", "--quiet", &out]).arg(program);
                command
            }
        };
        let mut running = if proxy == Proxy::Pilotlight {
            Running::pilotlight(&mut command, scratch, upstream, args.mtls)
        } else {
            command.arg(proxy.name()).arg(upstream.to_string());
            Running::part(&mut command, scratch, Place::Measured)
        }?;
        let child = &mut running.child;
        load::wait_until_served(running.address, START, || matches!(child.try_wait(), Ok(None)))
            .map_err(|error| running.explain(&error))?;
        Ok(running)
    }

    /// A part of this executable: it says where it listens.
    fn part(command: &mut Command, scratch: Scratch, place: Place) -> io::Result<Running> {
        let mut running = Running::spawn(command.stdout(Stdio::piped()), scratch, place)?;
        let mut line = String::new();
        if let Some(stdout) = running.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        running.address =
            line.trim().parse().map_err(|_| running.explain(&"it did not say where it listens"))?;
        Ok(running)
    }

    /// pilotlight with a Gateway that asks for certificates, those in `certificates`; nobody stands around it.
    pub fn gateway(args: &Args, upstream: SocketAddr, certificates: &Path) -> io::Result<Running> {
        let mut command = Command::new(&args.pilotlight);
        let running = Running::configured(&mut command, Scratch::new()?, upstream, Some(certificates))?;
        let began = load::now();
        while TcpStream::connect(running.address).is_err() {
            if began.elapsed() > START {
                return Err(running.explain(&"it does not listen"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// A bare acceptor with the same certificates.
    pub fn acceptor(certificates: &Path) -> io::Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("accept").arg(certificates);
        Running::part(&mut command, Scratch::new()?, Place::Measured)
    }

    /// pilotlight, with `mtls` between a part that encrypts and one that opens.
    fn pilotlight(
        command: &mut Command,
        scratch: Scratch,
        upstream: SocketAddr,
        mtls: bool,
    ) -> io::Result<Running> {
        let certificates = scratch.path().join("certificates");
        let mut around = Vec::new();
        if mtls {
            tls::issue(&certificates)?;
            around.push(Running::carrier("unwrap", upstream, &certificates)?);
        }
        let upstream = around.first().map_or(upstream, |opens| opens.address);
        let certificates = mtls.then_some(certificates);
        let mut running = Running::configured(command, scratch, upstream, certificates.as_deref())?;
        if let Some(certificates) = certificates {
            let wrap = Running::carrier("wrap", running.address, &certificates)?;
            running.address = wrap.address;
            around.push(wrap);
        }
        running.around = around;
        Ok(running)
    }

    /// `pilotlight run` on a directory that says the least: a Gateway, a route, an upstream.
    fn configured(
        command: &mut Command,
        scratch: Scratch,
        upstream: SocketAddr,
        certificates: Option<&Path>,
    ) -> io::Result<Running> {
        // Between this and the bind somebody else could take it; the start then fails and says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = configuration(port, upstream, certificates) + &policy::objects();
        fs::write(scratch.path().join("hop.yaml"), text)?;
        command.arg("run").arg(scratch.path()).args(["--workers", "1", "--access-log", "off"]);
        command.args(["--admin", "127.0.0.1:0", "--mesh", "127.0.0.1:0", "--bind", "127.0.0.1"]);
        let mut running = Running::spawn(command.stdout(Stdio::null()), scratch, Place::Measured)?;
        running.address = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(running)
    }

    /// A part that carries bytes beside what is measured.
    fn carrier(part: &str, to: SocketAddr, certificates: &Path) -> io::Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(part).arg(to.to_string()).arg(certificates);
        Running::part(&mut command, Scratch::new()?, Place::Beside)
    }

    fn spawn(command: &mut Command, scratch: Scratch, place: Place) -> io::Result<Running> {
        let log = File::create(scratch.path().join("log"))?;
        stay(place);
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        stay(Place::Beside);
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display()))
        })?;
        Ok(Running { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), scratch, around: Vec::new() })
    }

    /// An error with the last words of the process.
    fn explain(&self, error: &dyn std::fmt::Display) -> io::Error {
        let log = fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        io::Error::other(format!("{error}; its last words:\n  {last}"))
    }

    /// CPU time of all threads that live, of user and kernel together.
    pub fn cpu(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            nanoseconds += first.ok_or_else(|| io::Error::other("schedstat: no number"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("smaps_rollup: no Rss"))
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) -> io::Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM)?;
        }
        let asked = load::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP {
                return Err(self.explain(&"it did not end when asked to"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(port: u16, upstream: SocketAddr, certificates: Option<&Path>) -> String {
    let (mut server, mut rule) = ("protocol: HTTP}".to_owned(), String::new());
    if let Some(home) = certificates.map(Path::display) {
        server = format!(
            "protocol: HTTPS}}\n    tls: {{mode: MUTUAL, serverCertificate: {home}/tls.crt, privateKey: {home}/tls.key, \
             caCertificates: {home}/ca.crt}}"
        );
        rule = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: hop}}\nspec:\n  host: \
             upstream.test\n  trafficPolicy:\n    tls: {{mode: MUTUAL, clientCertificate: {home}/tls.crt, privateKey: \
             {home}/tls.key, caCertificates: {home}/ca.crt, sni: hop.test}}\n"
        );
    }
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: hop}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: {port}, name: http, {server}
    hosts: [\"*\"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: hop}}
spec:
  hosts: [hop.test]
  gateways: [hop]
  http:
  - match:
    - uri: {{prefix: /hello}}
    route:
    - destination: {{host: upstream.test, port: {{number: 80}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: hop}}
spec:
  hosts: [upstream.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  endpoints:
  - address: {}
    ports: {{http: {}}}
{rule}",
        upstream.ip(),
        upstream.port()
    )
}
