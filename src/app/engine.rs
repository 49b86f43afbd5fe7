//! The engine: turns files into what is served, the first time and every time.
//!
//! Called from the main thread at start and from the files' thread afterwards, one change at a time.

use super::eject;
use super::listen::{self, Bound};
use super::logs::Logged;
use super::simulated;
use crate::cli::run::RunArgs;
use crate::clock;
use crate::control::discover::{Discover, Event};
use crate::control::process;
use crate::control::reload::changes::{Changes, Reload};
use crate::control::reload::{Paths, Texts};
use crate::control::scale::Scaler;
use crate::driver::cgroup::{self, Cgroups};
use crate::record::Direction;
use crate::snapshot::{Environment, Published, compile};
use crate::tls::Keyring;
use crate::worker::Order;
use parking_lot::Mutex;
use proxy_config::load::{Kept, Loaded, Options, load};
use proxy_config::model::{self, Config};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// What the engine is made from.
pub(super) struct Parts {
    pub(super) args: RunArgs,
    pub(super) published: Arc<Published>,
    pub(super) environment: Environment,
    pub(super) orders: Vec<UnboundedSender<Order>>,
    pub(super) began: Instant,
    pub(super) cgroups: Arc<Cgroups>,
}

/// Applies configurations.
pub(super) struct Engine {
    parts: Parts,
    /// One change at a time. Who reads the state waits for none to be resolved.
    turn: Mutex<()>,
    state: Mutex<State>,
    rest: OnceLock<(Scaler, Discover)>,
}

/// What is served now.
#[derive(Default)]
struct State {
    generation: u64,
    /// What is served, as what it was made from.
    kept: Arc<Kept>,
    /// The texts that were read last.
    texts: Texts,
    blockers: Vec<String>,
    /// Callers of a workload may come with mutual TLS.
    asks_for_certificate: bool,
    listeners: HashMap<String, (model::Bind, SocketAddr)>,
    /// Listeners that could not be bound, and why.
    unbound: BTreeMap<String, String>,
    /// Every listener that there should be, without its routes, while some could not be bound.
    wanted: Vec<model::Listener>,
    last: Option<Arc<Reload>>,
    log: Logged,
    swept: HashMap<Arc<str>, Instant>,
    /// What was said about identities that are simulated.
    simulated: Vec<simulated::Said>,
    /// What could not be made of what is served.
    told: BTreeSet<String>,
    /// Certificates whose end was warned of.
    ending: HashSet<String>,
}

/// The files that `run` was told of.
pub(super) fn paths(args: &RunArgs) -> Paths {
    Paths { paths: args.serve.paths.clone(), mesh_file: args.serve.load.mesh_config.clone() }
}

/// The first texts, and what they come to.
pub(super) struct First {
    texts: Texts,
    pub(super) loaded: Loaded,
}

/// Reads and resolves everything once, before there is anything to serve it.
pub(super) fn first_load(args: &RunArgs, cgroups: &Cgroups) -> First {
    let texts = paths(args).read();
    let loaded = process::aside(|| read(args, &texts, None, cgroups));
    First { texts, loaded }
}

/// Resolves `texts`. The first configuration with a use for control groups finds out whether there are any, and is
/// resolved once more with what is known then.
fn read(args: &RunArgs, texts: &Texts, before: Option<&Kept>, cgroups: &Cgroups) -> Loaded {
    let mut options = args.options(texts.mesh_file.clone());
    options.unmet = cgroups.unmet();
    let loaded = load(&texts.files, &options, before);
    if cgroups.is_prepared() || !loaded.config.revisions.iter().any(|revision| cgroup::wanted(revision)) {
        return loaded;
    }
    options.unmet = cgroups.prepare();
    load(&texts.files, &options, before)
}

impl Engine {
    /// Serves nothing yet.
    pub(super) fn new(parts: Parts) -> Engine {
        Engine { parts, turn: Mutex::default(), state: Mutex::default(), rest: OnceLock::new() }
    }

    /// Brings up the first configuration, and returns it. An address that cannot be had is an error here.
    pub(super) fn begin(&self, first: First) -> Result<Config, String> {
        let mut state = self.state.lock();
        let began = self.parts.began;
        state.texts = first.texts;
        let config = self.take(&mut state, first.loaded, None, began);
        if let Some(refused) = state.last.as_ref().and_then(|last| last.refused.clone()) {
            return Err(refused);
        }
        if serves_nothing(&config) {
            let paths: Vec<_> =
                self.parts.args.serve.paths.iter().map(|path| path.display().to_string()).collect();
            tracing::warn!(
                "nothing to serve in {}: no function, Service, ServiceEntry or VirtualService; \
                 `pilotlight check --format json` lists what is ignored",
                paths.join(", ")
            );
        }
        let unbound: Vec<&str> = state.unbound.values().map(String::as_str).collect();
        if unbound.is_empty() { Ok(config) } else { Err(unbound.join("; ")) }
    }

    /// From now on functions are started and names looked up, at first those of `config`.
    pub(super) fn attach(&self, scaler: Scaler, discover: Discover, config: &Config) {
        scaler.expect(&config.revisions);
        // Nothing else sets it.
        let _ = self.rest.set((scaler, discover));
        let _one_at_a_time = self.state.lock();
        self.tell(config);
    }

    /// The files have changed, or are looked at for the first time.
    pub(super) fn apply(&self, texts: Texts) {
        let began = clock::now();
        let _turn = self.turn.lock();
        let mut state = self.state.lock();
        if state.texts == texts && state.unbound.is_empty() {
            Arc::make_mut(&mut state.kept).share(&texts.files);
            state.texts = texts;
            return;
        }
        let kept = state.kept.clone();
        drop(state);
        let (loaded, old) = process::aside(|| {
            let loaded = read(&self.parts.args, &texts, Some(&kept), &self.parts.cgroups);
            (loaded, self.config(&kept))
        });
        let mut state = self.state.lock();
        state.texts = texts;
        let last = state.last.as_ref().filter(|last| last.refused.is_none());
        let same = last.is_some_and(|last| {
            old == loaded.config && last.report == loaded.report && state.unbound.is_empty()
        });
        if same {
            state.kept = Arc::new(loaded.kept);
        } else {
            self.take(&mut state, loaded, Some(&old), began);
        }
    }

    /// What is kept, made again.
    fn config(&self, kept: &Kept) -> Config {
        let options = self.parts.args.options(None);
        kept.config(&Options { unmet: self.parts.cgroups.unmet(), ..options })
    }

    /// Serves what was loaded in the place of `old`, unless it is refused as a whole.
    fn take(&self, state: &mut State, loaded: Loaded, old: Option<&Config>, began: Instant) -> Config {
        let args = &self.parts.args;
        let metrics = &self.parts.environment.telemetry.metrics;
        let changes = old.map(|old| Changes::between(old, &loaded.config));
        let refused = (args.serve.strict && loaded.report.has_errors())
            .then(|| "the configuration has errors, and --strict refuses it then".to_owned());
        metrics.quarantined.set(loaded.quarantined.len() as i64);
        if refused.is_none() {
            state.generation += 1;
            self.serve(state, &loaded.config);
            state.kept = Arc::new(loaded.kept);
            state.blockers = loaded.blockers;
            state.asks_for_certificate = asks_for_certificate(&loaded.config);
            metrics.reloads.inc();
            let wall = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            metrics.last_success.set(wall.as_secs_f64());
        } else {
            metrics.reloads_failed.inc();
        }
        let reload = Reload {
            generation: state.generation,
            at: clock::wall(),
            took: clock::now().saturating_duration_since(began),
            refused,
            changes,
            report: loaded.report,
            quarantined: loaded.quarantined,
        };
        reload.log(state.last.as_deref());
        let mut told = serde_json::Map::new();
        told.insert("generation".to_owned(), reload.generation.into());
        told.insert("refused".to_owned(), reload.refused.clone().into());
        told.insert("quarantined".to_owned(), reload.quarantined.len().into());
        self.parts.environment.telemetry.audit.tell("reload", told);
        state.last = Some(Arc::new(reload));
        loaded.config
    }

    /// Compiles, binds, publishes, and tells those who start and look up.
    fn serve(&self, state: &mut State, config: &Config) {
        self.hand_over(state, config);
        let (args, telemetry) = (&self.parts.args, &self.parts.environment.telemetry);
        let access_log = state.log.wanted(args, telemetry, &config.mesh);
        let compiled = compile(config, state.generation, access_log, &self.parts.environment);
        let told: BTreeSet<String> = compiled.problems.into_iter().chain(compiled.warnings).collect();
        told.difference(&state.told).for_each(|problem| tracing::error!("{problem}"));
        state.told = told;
        let said = simulated::said(config, &self.parts.args);
        said.iter().filter(|said| !state.simulated.contains(said)).for_each(simulated::Said::log);
        state.simulated = said;
        let keyring = &self.parts.environment.keyring;
        self.parts.environment.telemetry.secure.certificates(keyring.shown());
        // Nobody is sent to what the scaler does not know, or takes for gone.
        if let Some((scaler, _)) = self.rest.get() {
            scaler.expect(&config.revisions);
        }
        self.parts.published.publish(compiled.snapshot);
        self.listen(state, &config.listeners);
        self.tell(config);
        self.parts.environment.registry.prune();
        self.parts.environment.telemetry.sweep(clock::now());
    }

    fn tell(&self, config: &Config) {
        let Some((scaler, discover)) = self.rest.get() else { return };
        scaler.retain(&config.revisions);
        let names = |cluster: &model::Cluster| match &cluster.endpoints {
            model::Endpoints::Dns(targets) => Some((cluster.name.clone(), targets.clone())),
            _ => None,
        };
        discover.apply(config.clusters.iter().filter_map(names).collect());
    }

    /// A new listener that wants the address of one that goes takes over its sockets and connections: no
    /// client is turned away in between.
    fn hand_over(&self, state: &mut State, config: &Config) {
        for old in gone(state, &config.listeners) {
            let Some((_, address)) = state.listeners.get(&old).copied() else { continue };
            let heir = |listener: &&model::Listener| {
                !state.listeners.contains_key(&listener.name)
                    && listen::possible(listener.bind, &self.parts.args) == address
            };
            if let Some(listener) = config.listeners.iter().find(heir) {
                self.parts.environment.hand_over(&old, &listener.name);
                state.listeners.remove(&old);
                state.listeners.insert(listener.name.clone(), (listener.bind, address));
                let (name, why) = (listen::called(listener), listen::why(listener));
                tracing::info!("{address} is now {name} ({why})");
            }
        }
    }

    /// Opens what is new, closes what is gone.
    fn listen(&self, state: &mut State, listeners: &[model::Listener]) {
        for name in gone(state, listeners) {
            let number = self.parts.environment.number(&name);
            self.order(|| Order::Close { number });
            if let Some((_, address)) = state.listeners.remove(&name) {
                tracing::info!("no longer listening on {address}: {name}");
            }
        }
        let before = std::mem::take(&mut state.unbound);
        for listener in listeners {
            if state.listeners.contains_key(&listener.name) {
                continue;
            }
            match self.bind(state, listener) {
                Ok(bound) => self.open(state, listener, bound),
                Err(error) => {
                    if state.generation > 1 && before.get(&listener.name) != Some(&error) {
                        tracing::error!("{error}; it is tried again every second");
                    }
                    state.unbound.insert(listener.name.clone(), error);
                }
            }
        }
        let again = !state.unbound.is_empty();
        state.wanted = listeners.iter().filter(|_| again).map(model::Listener::without_routes).collect();
    }

    fn bind(&self, state: &State, listener: &model::Listener) -> Result<Bound, String> {
        let args = &self.parts.args;
        let address = listen::possible(listener.bind, args);
        match state.listeners.iter().find(|(_, (_, bound))| *bound == address) {
            Some((owner, _)) => Err(listen::conflict(address, owner, listener)),
            None => listen::bind(listener, args, self.parts.orders.len()),
        }
    }

    fn open(&self, state: &mut State, listener: &model::Listener, bound: Bound) {
        let number = self.parts.environment.number(&listener.name);
        let direction = match listener.direction {
            model::Direction::Gateway => Direction::Gateway,
            model::Direction::Outbound => Direction::Outbound,
            model::Direction::Inbound => Direction::Inbound,
        };
        let why = listen::why(listener);
        let name = listen::called(listener);
        match bound.mapped {
            Some((from, to)) => tracing::info!(
                "listening on {}: {name} ({why}; port {from} may not be bound by this user, so {to} stands in)",
                bound.address
            ),
            None => tracing::info!("listening on {}: {name} ({why})", bound.address),
        }
        for (orders, socket) in self.parts.orders.iter().zip(bound.sockets) {
            let _ = orders.send(Order::Listen { number, direction, socket });
        }
        state.listeners.insert(listener.name.clone(), (listener.bind, bound.address));
    }

    fn order(&self, order: impl Fn() -> Order) {
        for orders in &self.parts.orders {
            let _ = orders.send(order());
        }
    }

    /// Whose certificates these are.
    pub(super) fn keyring(&self) -> &Keyring {
        &self.parts.environment.keyring
    }

    /// Looks at the files of certificates; what is made of them is compiled anew where they have changed. Those
    /// that end soon are told of once.
    pub(super) fn certificates(&self) {
        let environment = &self.parts.environment;
        let _turn = self.turn.lock();
        let (generation, kept) = {
            let state = self.state.lock();
            (state.generation, state.kept.clone())
        };
        let config =
            (environment.keyring.refresh() && generation > 0).then(|| process::aside(|| self.config(&kept)));
        let mut state = self.state.lock();
        if let Some(config) = config {
            state.generation += 1;
            self.serve(&mut state, &config);
            tracing::info!(
                generation = state.generation,
                "certificates have changed, and the new ones are in force"
            );
        }
        environment.telemetry.secure.certificates(environment.keyring.shown());
        let ending = environment.keyring.ending(clock::wall());
        state.ending.retain(|name| ending.iter().any(|(other, _)| other == name));
        for (name, left) in ending {
            if state.ending.insert(name.clone()) {
                let hours = left.as_secs() / 3600;
                tracing::warn!(
                    certificate = name,
                    hours,
                    "a certificate of this proxy ends soon, or has ended: renew it"
                );
            }
        }
    }

    /// A name was looked up.
    pub(super) fn found(&self, event: Event) {
        match event {
            Event::Endpoints(cluster, found) => {
                self.parts.environment.registry.given(&cluster).replace(&found);
            }
            // The first failure in a row is told of where it is counted.
            Event::Failed(name, why) => tracing::debug!("looking up {name}: {why}"),
        }
    }

    /// Takes ejected endpoints back when their time is over, each cluster at its own interval; answers those
    /// who have waited too long for a place at a given endpoint; tries again to bind what could not be bound.
    pub(super) fn sweep(&self, now: Instant) {
        let snapshot = self.parts.published.current();
        let mut state = self.state.lock();
        if !state.unbound.is_empty() {
            let wanted = std::mem::take(&mut state.wanted);
            self.listen(&mut state, &wanted);
        }
        snapshot.expire_held(now);
        eject::sweep(&snapshot, &mut state.swept, now);
    }

    /// Where the listener called `name` is bound.
    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        self.state.lock().listeners.get(name).map(|(_, address)| *address)
    }

    /// Whether the first configuration serves and everything is bound.
    pub(super) fn ready(&self) -> Result<(), String> {
        let state = self.state.lock();
        if state.generation == 0 {
            return Err("no configuration serves yet".to_owned());
        }
        if let Some(why) = self.parts.environment.keyring.trouble(clock::wall()) {
            return Err(why);
        }
        let beside = self.parts.args.sidecar.is_some() && self.parts.args.serve.certs.is_none();
        if beside && state.asks_for_certificate {
            return Err(
                "--certs names no certificate of the workload; it is reached without in mode DISABLE \
                        alone"
                    .to_owned(),
            );
        }
        if let Some(blocker) = state.blockers.first() {
            return Err(format!("{blocker}; every request is refused until it is good"));
        }
        // What a later configuration asks for and cannot have is no reason to stop serving the rest.
        if self.rest.get().is_none() { Err("still starting".to_owned()) } else { Ok(()) }
    }

    /// Calls `tell` with what is served, for the admin API. Takes as long as to resolve it all.
    pub(super) fn look<T>(&self, tell: impl FnOnce(u64, &Config, Option<&Reload>) -> T) -> T {
        let state = self.state.lock();
        let (generation, kept, last) = (state.generation, state.kept.clone(), state.last.clone());
        drop(state);
        tell(generation, &self.config(&kept), last.as_deref())
    }

    /// The snapshot in force.
    pub(super) fn published(&self) -> &Published {
        &self.parts.published
    }
}

/// Names of listeners that the configuration no longer has.
fn gone(state: &State, listeners: &[model::Listener]) -> Vec<String> {
    let stays = |name: &str, bind| listeners.iter().any(|l| l.name == name && l.bind == bind);
    let bound = state.listeners.iter();
    bound.filter(|(name, (bind, _))| !stays(name, *bind)).map(|(name, _)| name.clone()).collect()
}

/// Whether callers of a workload may come with mutual TLS.
fn asks_for_certificate(config: &Config) -> bool {
    config.guards.iter().any(|guard| guard.mtls.mode != model::Mtls::Disable)
}

/// Whether every request will be 404.
fn serves_nothing(config: &Config) -> bool {
    config.listeners.iter().all(|listener| match &listener.tables {
        model::Tables::One(table) => table.hosts.is_empty(),
        model::Tables::ByPort(tables) => tables.values().all(|table| table.hosts.is_empty()),
    })
}
