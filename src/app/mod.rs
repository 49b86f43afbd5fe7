//! Assembly: everything is made here, bound, started in order, and taken down in order.
//!
//! Start-up is the first reload: the same `Engine::apply` brings up the first configuration and every later
//! one. The main thread is the control thread.

mod eject;
mod engine;
mod listen;
mod logs;
mod simulated;
mod source;

use crate::activator::{Bell, Room};
use crate::auth::{KeyRing, Passes};
use crate::cli::run::RunArgs;
use crate::cluster::Registry;
use crate::control::admin::{self, Admin, Face};
use crate::control::discover::{self, Discover};
use crate::control::jwks;
use crate::control::log::Log;
use crate::control::memory::Memory;
use crate::control::process;
use crate::control::reload::certificates::{Certificates, Holder};
use crate::control::reload::{STACK, Watcher};
use crate::control::scale::{Scaler, Setup};
use crate::drain::{Drain, Timing};
use crate::driver::cgroup::Cgroups;
use crate::driver::process::{Processes, Settings};
use crate::limit::{Ceiling, Pressure};
use crate::snapshot::{Environment, Published};
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::Target;
use crate::tls::Keyring;
use crate::upstream::Reclaim;
use crate::worker::{Make, Patience, Worker};
use engine::{Engine, Parts};
use futures_util::future::join;
use parking_lot::Mutex;
use source::Told;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// After the last exchange, for functions to stop politely.
const FUNCTION_GRACE: Duration = Duration::from_secs(5);
/// For access log lines to be written at the end.
const FLUSH: Duration = Duration::from_secs(1);
/// Between looks at ejected endpoints.
const SWEEP: Duration = Duration::from_secs(1);
/// Descriptors kept back from client connections: for upstreams (one for each at most), files, functions.
const SPARE_FILES: u64 = 64;
/// Exchanges of one worker at once: HTTP/2 clients bring many on one connection.
const MAX_EXCHANGES: usize = 100_000;

/// `pilotlight run`.
pub fn run(args: RunArgs) -> ExitCode {
    let log = match Log::install(&args.serve.log_level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("pilotlight: {error}");
            return ExitCode::from(2);
        }
    };
    if let Some((path, error)) = engine::paths(&args).missing() {
        eprintln!("pilotlight: {}: {error}; name a file or directory with YAML", path.display());
        return ExitCode::from(2);
    }
    match start(args, log) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: RunArgs, log: Log) -> Result<ExitCode, String> {
    let files = process::raise_open_files().unwrap_or(1024);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(STACK)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(serve(args, log, files))
}

async fn serve(args: RunArgs, log: Log, open_files: u64) -> Result<ExitCode, String> {
    let began = crate::clock::now();
    let signals = process::Signals::take().map_err(|error| format!("signals cannot be had: {error}"))?;
    let cgroups = Arc::new(Cgroups::new(args.serve.cgroup.clone()));
    let first = engine::first_load(&args, &cgroups);
    let workers = worker_count(&args, first.loaded.config.mesh.concurrency);
    let drain = Drain::new(Timing { delay: args.drain_delay(), timeout: args.serve.drain_timeout });
    let telemetry = telemetry(workers, &args.serve.audit_log)?;
    let bell = Arc::new(Bell::new());
    let registry = Arc::new(Registry::new(bell.clone(), room(&args)));
    let published: Arc<Published> = Arc::default();
    let keys: Arc<KeyRing> = Arc::default();
    let passes = simulated::passes(&args)?;
    let (admin_socket, stats_socket) = bind_admin(&args)?;
    let bounds = Bounds::new(&args, open_files, &telemetry);
    let running = start_workers(workers, &published, &telemetry, &drain, &bounds)?;
    let engine = Arc::new(Engine::new(Parts {
        args: args.clone(),
        published: published.clone(),
        environment: Environment {
            registry: registry.clone(),
            telemetry: telemetry.clone(),
            keyring: Arc::new(Keyring::new(args.serve.certs.as_deref())),
            numbers: Mutex::default(),
            keys: keys.clone(),
            simulate: passes.clone(),
        },
        orders: running.iter().map(Worker::orders).collect(),
        began,
        cgroups: cgroups.clone(),
    }));
    let config = engine.begin(first)?;
    let mesh = engine.address_of("mesh");
    let settings = surroundings(mesh, passes, cgroups.clone())?;
    let (ceiling, flavour, pace) = (args.alone.max_instances, args.alone.autoscaler.into(), args.pace());
    let setup = Setup { registry, telemetry: telemetry.clone(), bell, ceiling, flavour, pace };
    let scaler = Scaler::spawn(setup, |events| Box::new(Processes::new(settings, events)));
    let lookups = engine.clone();
    let discover = Discover::spawn(discover::System::default(), move |event| lookups.found(event));
    engine.attach(scaler.clone(), discover, &config);
    drop(config);
    let (watcher, certificates) = watch(&args, &engine)?;
    let source =
        Arc::new(Told { engine: engine.clone(), scaler: scaler.clone(), telemetry: telemetry.clone() });
    let admin = Arc::new(Admin::new(source, drain.clone(), Some(log)));
    tokio::spawn(admin::serve(Face::Admin, admin_socket, admin.clone()));
    if let Some(socket) = stats_socket {
        tokio::spawn(admin::serve(Face::Stats, socket, admin));
    }
    tokio::spawn(join(sweep(engine.clone()), jwks::run(keys, telemetry.clone())));
    process::trim();
    process::forget_start();
    let left = {
        tokio::select! {
            left = drain.conduct() => left,
            never = signals.obey(&drain, || {
                watcher.look_again();
                certificates.look_again();
            }) => match never {},
        }
    };
    scaler.shutdown(FUNCTION_GRACE.min(drain.time_left(crate::clock::now()))).await;
    cgroups.remove();
    drop((watcher, certificates));
    end(running, &telemetry, left);
    Ok(ExitCode::SUCCESS)
}

/// The last, when nothing is started or watched any more; `left` exchanges were not finished.
fn end(workers: Vec<Worker>, telemetry: &Telemetry, left: usize) {
    workers.into_iter().for_each(Worker::join);
    telemetry.flush(FLUSH);
    if left > 0 {
        tracing::warn!(left, "requests were given up at --drain-timeout");
    }
}

/// For what is held of all functions together.
fn room(args: &RunArgs) -> Arc<Room> {
    let bytes = usize::try_from(args.serve.max_held_bytes).unwrap_or(usize::MAX);
    Arc::new(Room::new(args.serve.max_held as usize, bytes))
}

/// What functions find around them.
fn surroundings(
    mesh: Option<SocketAddr>,
    passes: Option<Arc<Passes>>,
    cgroups: Arc<Cgroups>,
) -> Result<Settings, String> {
    let mut settings =
        Settings::here(mesh).map_err(|error| format!("functions cannot be started: {error}"))?;
    settings.around.passes = passes;
    settings.cgroups = cgroups;
    Ok(settings)
}

/// All metrics and logs; the audit stream goes to `audit`.
fn telemetry(workers: usize, audit: &str) -> Result<Arc<Telemetry>, String> {
    let telemetry = Telemetry::new(workers);
    let target = match audit {
        "off" => return Ok(telemetry),
        "stdout" => Target::Stdout,
        path => Target::from(path),
    };
    telemetry.audit_to(target).map_err(|error| {
        format!("--audit-log {audit}: {error}; name a file that can be written, `stdout` or `off`")
    })?;
    Ok(telemetry)
}

fn start_workers(
    workers: usize,
    published: &Arc<Published>,
    telemetry: &Arc<Telemetry>,
    drain: &Arc<Drain>,
    bounds: &Bounds,
) -> Result<Vec<Worker>, String> {
    let (reclaim, asked) = Reclaim::new(workers);
    let hostname = hostname();
    let start = |(index, asked)| {
        Worker::start(Make {
            index,
            published: published.clone(),
            telemetry: telemetry.clone(),
            drain: drain.clone(),
            connections: bounds.connections.clone(),
            reclaim: reclaim.clone(),
            asked,
            hostname: hostname.clone(),
            max_exchanges: MAX_EXCHANGES,
            patience: bounds.patience,
            pressure: bounds.pressure.clone(),
        })
    };
    asked
        .into_iter()
        .enumerate()
        .map(start)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("no thread for a worker: {error}"))
}

/// Watches the files of the configuration, and those of certificates once there are any.
fn watch(args: &RunArgs, engine: &Arc<Engine>) -> Result<(Watcher, Arc<Certificates<Engine>>), String> {
    let certificates = Arc::new(Certificates::new(engine.clone()));
    certificates.look_again();
    let (watched, theirs) = (engine.clone(), certificates.clone());
    let applied = move |texts| {
        watched.apply(texts);
        theirs.look_again();
    };
    let watcher = Watcher::spawn(engine::paths(args), applied);
    Ok((watcher.map_err(|error| format!("no thread to watch files: {error}"))?, certificates))
}

impl Holder for Engine {
    fn any(&self) -> bool {
        !self.keyring().is_empty()
    }

    fn directories(&self) -> Vec<PathBuf> {
        self.keyring().directories()
    }

    fn look(&self) {
        self.certificates();
    }
}

/// Takes ejected endpoints back when their time is over.
async fn sweep(engine: Arc<Engine>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        engine.sweep(crate::clock::now());
    }
}

/// What all workers keep to together.
struct Bounds {
    connections: Arc<Ceiling>,
    patience: Patience,
    pressure: Arc<Pressure>,
}

impl Bounds {
    /// Looks at how much memory is left from now on, for as long as the process lives.
    fn new(args: &RunArgs, open_files: u64, telemetry: &Arc<Telemetry>) -> Bounds {
        let pressure = Pressure::none();
        let memory = args.serve.cgroup.as_deref().map_or_else(Memory::own, Memory::of);
        let (watched, telemetry, percent) = (pressure.clone(), telemetry.clone(), args.serve.shed_memory);
        tokio::spawn(async move { memory.watch(&watched, &telemetry.metrics, percent).await });
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        // Each client connection may need one upstream.
        let connections = usize::try_from(open_files.saturating_sub(SPARE_FILES) / 2).unwrap_or(512);
        Bounds {
            connections: Ceiling::new(connections),
            patience: Patience {
                body: some(args.serve.body_timeout),
                answer: some(args.serve.answer_timeout),
            },
            pressure,
        }
    }
}

/// `--workers`, else MeshConfig's concurrency, else the CPU quota rounded up.
fn worker_count(args: &RunArgs, concurrency: Option<u32>) -> usize {
    let asked = args.serve.workers.map(u32::from).or(concurrency).filter(|n| *n > 0);
    match asked {
        Some(n) => (n as usize).min(512),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn hostname() -> Box<str> {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into()
}

/// The sockets of the admin API and of what scrapers see of it.
fn bind_admin(args: &RunArgs) -> Result<(TcpListener, Option<TcpListener>), String> {
    let admin = admin::bind(Face::Admin, args.serve.admin)?;
    let stats = args.serve.stats.map(|address| admin::bind(Face::Stats, address)).transpose()?;
    say_listening(&admin, "admin", "--admin");
    stats.iter().for_each(|socket| say_listening(socket, "stats", "--stats"));
    Ok((admin, stats))
}

fn say_listening(socket: &TcpListener, name: &str, why: &str) {
    if let Ok(address) = socket.local_addr() {
        tracing::info!("listening on {address}: {name} ({why})");
    }
}
