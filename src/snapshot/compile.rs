//! From a configuration to a snapshot.
//!
//! Total, like resolution: what cannot be compiled (the configuration promises that nothing is left that
//! cannot) fails its own route only, and is told. Live state is looked up by name, so it is carried over.

use super::guards::Guards;
use super::secure::Secure;
use super::shared::{Names, Shared};
use super::simulate::Simulation;
use super::tally::{self, Tally, To};
use super::{
    Action, Destination, Direct, Forward, Listener, Route, Snapshot, Tables, Target, Terms, VirtualHost,
};
use crate::auth::{KeyRing, Passes};
use crate::cluster::{Cluster, Registry};
use crate::record::Direction;
use crate::route::{HeaderChange, Hosts, Matcher, PathChange, Redirect, Side, Split};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{Reporter, Telemetry};
use crate::tls::Keyring;
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use proxy_config::model;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What snapshots are compiled against.
#[derive(Debug)]
pub struct Environment {
    /// Live members and gates.
    pub registry: Arc<Registry>,
    /// Metric series.
    pub telemetry: Arc<Telemetry>,
    /// Certificates.
    pub keyring: Arc<Keyring>,
    /// The numbers listeners have, by name: a listener keeps its number for the life of the process.
    pub numbers: Mutex<HashMap<String, usize>>,
    /// Keys of tokens that are fetched.
    pub keys: Arc<KeyRing>,
    /// Who asks is simulated where no certificate says it (`run` on this host): what functions were told.
    pub simulate: Option<Arc<Passes>>,
}

/// A snapshot, and what of it could not be made.
#[derive(Debug)]
pub struct Compiled {
    /// What to serve from.
    pub snapshot: Snapshot,
    /// Routes that answer 503 NC instead, policies that refuse everything, and why.
    pub problems: Vec<String>,
    /// What of TLS cannot be had, and what follows.
    pub warnings: Vec<String>,
}

impl Environment {
    /// The number of the listener called `name`.
    pub fn number(&self, name: &str) -> usize {
        let mut numbers = self.numbers.lock();
        let next = numbers.len();
        *numbers.entry(name.to_owned()).or_insert(next)
    }

    /// From now on the listener called `new` has the number, and with it the sockets and connections, that
    /// the one called `old` had.
    pub fn hand_over(&self, old: &str, new: &str) {
        let mut numbers = self.numbers.lock();
        let Some(number) = numbers.remove(old) else { return };
        if let Some(other) = numbers.insert(new.to_owned(), number) {
            numbers.insert(old.to_owned(), other);
        }
    }
}

/// Compiles `config`.
pub fn compile(
    config: &model::Config,
    generation: u64,
    access_log: Option<Arc<AccessLog>>,
    environment: &Environment,
) -> Compiled {
    let revisions: HashMap<&str, &model::Revision> =
        config.revisions.iter().map(|r| (r.key.as_str(), &**r)).collect();
    let mut problems = Vec::new();
    let guards = Guards::compile(config, &environment.keys, &mut problems);
    let mut compiler = Compiler {
        environment,
        guards,
        simulation: Simulation::of(config, environment.simulate.as_deref()),
        secure: Secure::begin(&environment.keyring, config),
        clusters: HashMap::new(),
        destinations: HashMap::new(),
        names: Names::default(),
        policies: Shared::default(),
        identities: Shared::default(),
        terms: Shared::default(),
        targets: Shared::default(),
        forwards: Shared::default(),
        problems,
    };
    for cluster in &config.clusters {
        compiler.destination(cluster, &revisions);
    }
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let number = environment.number(&listener.name);
        if listeners.len() <= number {
            listeners.resize(number + 1, None);
        }
        listeners[number] = Some(Arc::new(compiler.listener(listener)));
    }
    let half_close = config.revisions.iter().any(|r| r.holding.half_close);
    let providers = super::guards::providers(config, &mut compiler.problems);
    let snapshot = Snapshot {
        generation,
        providers,
        half_close,
        listeners,
        access_log,
        destinations: compiler.destinations,
        allow_any: config.mesh.outbound == model::OutboundMode::AllowAny,
        path_normalization: config.mesh.path_normalization,
    };
    Compiled { snapshot, problems: compiler.problems, warnings: compiler.secure.end() }
}

struct Compiler<'a> {
    environment: &'a Environment,
    guards: Guards,
    simulation: Simulation,
    secure: Secure<'a>,
    clusters: HashMap<Arc<str>, &'a model::Cluster>,
    destinations: HashMap<Arc<str>, Arc<Destination>>,
    names: Names,
    policies: Shared<&'a model::Policy, model::Policy>,
    identities: Shared<&'a model::Identity, To>,
    terms: Shared<Said<'a>, Terms>,
    targets: Shared<(Direction, &'a str, &'a model::HeaderOps), Target>,
    forwards: Shared<(Shares, *const Terms), Forward>,
    problems: Vec<String>,
}

/// Targets, of which none goes while a snapshot is compiled, and their weights.
type Shares = Vec<(*const Target, u32)>;

/// What a route says of requests, wherever they go.
type Said<'a> = (Option<Duration>, &'a model::Retry, &'a model::Rewrite, &'a model::HeaderOps);

impl<'a> Compiler<'a> {
    fn destination(&mut self, wanted: &'a model::Cluster, revisions: &HashMap<&str, &model::Revision>) {
        let registry = &self.environment.registry;
        let (name, gate) = registry.gate(&wanted.name);
        self.names.know(name.clone());
        let telemetry = &self.environment.telemetry;
        let (members, revision, local) = match &wanted.endpoints {
            model::Endpoints::Revision(key) => {
                (registry.revision(key), revisions.get(key.as_str()).copied(), true)
            }
            model::Endpoints::Static(endpoints) => {
                let addresses: Vec<_> = endpoints.iter().map(|e| (e.address, e.weight)).collect();
                let members = if wanted.concurrency > 0 && !addresses.is_empty() {
                    registry.queued(&name, &addresses, wanted.concurrency)
                } else {
                    let members = registry.given(&name);
                    members.replace(&addresses);
                    members
                };
                (members, None, !addresses.is_empty() && addresses.iter().all(|(a, _)| a.ip().is_loopback()))
            }
            // Filled by discovery; what is known from before stays until then.
            model::Endpoints::Dns(_) => (registry.given(&name), None, false),
        };
        let function = matches!(&wanted.endpoints, model::Endpoints::Revision(_))
            .then(|| telemetry.function(members.key.clone()));
        let policy = self.policies.get(&wanted.policy, || wanted.policy.clone());
        let (tls, mesh) = self.secure.cluster(wanted);
        let destination = Destination {
            cluster: Cluster {
                name: name.clone(),
                protocol: wanted.protocol,
                policy,
                function_timeout: revision.map(|r| r.timeout),
                local,
                tls,
                mesh,
                members,
                gate,
            },
            metrics: telemetry.cluster(name.clone()),
            function,
            lineage: revision.and_then(|r| HeaderValue::from_str(&r.key).ok()),
            server_timing: revision.is_some_and(|r| r.holding.server_timing),
            half_close: revision.is_some_and(|r| r.holding.half_close),
            guard: self.guards.get(wanted.guard.as_deref(), &mut self.problems),
            workload: workload(wanted, revision),
        };
        self.clusters.insert(name.clone(), wanted);
        self.destinations.insert(name, Arc::new(destination));
    }

    fn listener(&mut self, wanted: &'a model::Listener) -> Listener {
        let direction = direction(wanted);
        let nowhere = |name| tally::nowhere(&self.environment.telemetry, direction, name);
        let (unrouted, black_hole) = (nowhere("unknown"), nowhere("BlackHoleCluster"));
        let passthrough = nowhere("PassthroughCluster");
        let tables = match &wanted.tables {
            model::Tables::One(table) => Tables::One(self.table(wanted, table)),
            model::Tables::ByPort(tables) => Tables::ByPort(
                tables.iter().map(|(port, table)| (*port, self.table(wanted, table))).collect(),
            ),
        };
        Listener {
            name: wanted.name.as_str().into(),
            direction,
            port: match wanted.bind {
                model::Bind::GatewayPort(port) => Some(port),
                _ => None,
            },
            security: self.secure.listener(wanted),
            tables,
            unrouted,
            black_hole,
            passthrough,
            guard: self.guards.get(wanted.guard.as_deref(), &mut self.problems),
            simulated: self.simulation.at(direction),
            forwarding: wanted.forwarding,
        }
    }

    fn table(&mut self, listener: &'a model::Listener, table: &'a model::Table) -> Hosts<VirtualHost> {
        let hosts: Vec<_> = table
            .hosts
            .iter()
            .map(|host| {
                let routes = host.routes.iter().map(|route| self.route(listener, route)).collect();
                (&host.domains, VirtualHost { routes })
            })
            .collect();
        Hosts::new(hosts)
    }

    /// A route that cannot be made answers 503 NC: without it its requests would fall to the next rule, which
    /// may allow what it refuses. Where even its conditions are unknown, that is all requests of the host.
    fn route(&mut self, listener: &'a model::Listener, wanted: &'a model::Route) -> Route {
        let name = self.names.get(&wanted.name);
        let made =
            Matcher::compile(&wanted.matches).map(|matcher| (matcher, self.action(listener, &wanted.action)));
        let (matcher, why) = match made {
            Ok((matcher, Ok(action))) => return Route { name, matcher, action },
            Ok((matcher, Err(why))) => (matcher, why),
            Err(why) => (Matcher::default(), why),
        };
        self.problems
            .push(format!("{}: route {}: {why}; the route answers 503 instead", wanted.origin, wanted.name));
        let action = Action::Forward(Arc::new(self.nowhere_to_go(listener)));
        Route { name, matcher, action }
    }

    /// To a cluster that does not exist.
    fn nowhere_to_go(&self, listener: &model::Listener) -> Forward {
        let target = Target {
            cluster: "unusable".into(),
            destination: None,
            request_headers: HeaderChange::none(),
            response_headers: HeaderChange::none(),
            source: (listener.direction != model::Direction::Inbound)
                .then(|| self.tally(Reporter::Source, direction(listener), None)),
            sink: None,
        };
        let terms = Arc::new(Terms::of(model::Retry::off()));
        Forward { split: Split::single(), targets: [Arc::new(target)].into(), terms }
    }

    fn action(&mut self, listener: &model::Listener, wanted: &'a model::Action) -> Result<Action, String> {
        Ok(match wanted {
            model::Action::Forward(forward) => Action::Forward(self.forward(listener, forward)?),
            model::Action::Redirect(redirect) => Action::Redirect(Box::new(Redirect::compile(redirect)?)),
            model::Action::Direct(direct) => Action::Direct(Box::new(Direct {
                status: StatusCode::from_u16(direct.status).map_err(|e| e.to_string())?,
                body: direct.body.clone().into(),
                headers: HeaderChange::compile(&direct.headers, Side::Response)?,
            })),
        })
    }

    fn forward(
        &mut self,
        listener: &model::Listener,
        wanted: &'a model::Forward,
    ) -> Result<Arc<Forward>, String> {
        let said = (wanted.timeout, &wanted.retry, &wanted.rewrite, &wanted.headers);
        let terms = self.terms.try_get(said, || terms(wanted))?;
        let weights: Vec<u32> = wanted.destinations.iter().map(|d| d.weight).collect();
        let targets = wanted
            .destinations
            .iter()
            .map(|destination| self.target(direction(listener), destination))
            .collect::<Result<Box<_>, _>>()?;
        let shares = targets.iter().map(Arc::as_ptr).zip(weights.iter().copied()).collect();
        let make = || Ok(Forward { split: Split::compile(&weights)?, targets, terms: terms.clone() });
        self.forwards.try_get((shares, Arc::as_ptr(&terms)), make)
    }

    fn target(
        &mut self,
        direction: Direction,
        wanted: &'a model::WeightedDestination,
    ) -> Result<Arc<Target>, String> {
        let key = (direction, wanted.cluster.as_str(), &wanted.headers);
        if let Some(known) = self.targets.find(&key) {
            return Ok(known);
        }
        let cluster = self.clusters.get(wanted.cluster.as_str()).copied();
        let local = cluster.is_some_and(|c| matches!(c.endpoints, model::Endpoints::Revision(_)));
        let inbound = direction == Direction::Inbound;
        let identity = cluster.map(|c| self.identities.get(&c.identity, || To::new(&c.identity)));
        let identity = identity.as_ref();
        let target = Target {
            cluster: self.names.get(&wanted.cluster),
            destination: self.destinations.get(wanted.cluster.as_str()).cloned(),
            request_headers: HeaderChange::compile(&wanted.headers.request, Side::Request)?,
            response_headers: HeaderChange::compile(&wanted.headers.response, Side::Response)?,
            source: (!inbound).then(|| self.tally(Reporter::Source, direction, identity)),
            // A function's instances have no proxy of their own here: this process is their inbound side too.
            sink: (inbound || local).then(|| self.tally(Reporter::Destination, direction, identity)),
        };
        Ok(self.targets.keep(key, target))
    }

    fn tally(&self, reporter: Reporter, direction: Direction, to: Option<&Arc<To>>) -> Tally {
        Tally::new(&self.environment.telemetry, reporter, direction, to)
    }
}

fn terms(wanted: &model::Forward) -> Result<Terms, String> {
    let authority = wanted.rewrite.authority.as_deref().map(HeaderValue::from_str).transpose();
    Ok(Terms {
        timeout: wanted.timeout,
        retry: wanted.retry.clone(),
        path: wanted.rewrite.path.as_ref().map(PathChange::compile).transpose()?,
        authority: authority.map_err(|e| e.to_string())?,
        request_headers: HeaderChange::compile(&wanted.headers.request, Side::Request)?,
        response_headers: HeaderChange::compile(&wanted.headers.response, Side::Response)?,
    })
}

fn direction(listener: &model::Listener) -> Direction {
    match listener.direction {
        model::Direction::Gateway => Direction::Gateway,
        model::Direction::Outbound => Direction::Outbound,
        model::Direction::Inbound => Direction::Inbound,
    }
}

/// Where a cluster's endpoints listen: the first of them for all, as they differ in their addresses alone.
/// Instances of functions are told their ports; policies mean the container's.
fn workload(cluster: &model::Cluster, revision: Option<&model::Revision>) -> SocketAddr {
    let port = match &cluster.endpoints {
        model::Endpoints::Static(endpoints) => match endpoints.first() {
            Some(endpoint) => return endpoint.address,
            None => 0,
        },
        model::Endpoints::Dns(targets) => targets.first().map_or(0, |target| target.port),
        model::Endpoints::Revision(_) => revision.map_or(0, |revision| revision.port),
    };
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Head;
    use http::{HeaderMap, Method};
    use model::{Action as Wanted, DirectResponse, MessageOps, ObjectRef, StringMatch};

    fn direct(value: &str) -> Wanted {
        let headers = MessageOps { set: vec![("x-a".into(), value.into())], ..MessageOps::default() };
        Wanted::Direct(DirectResponse { status: 200, body: Vec::new(), headers })
    }

    fn route(name: &str, uri: Option<StringMatch>, action: Wanted) -> model::Route {
        let matches = model::Match { uri, ..model::Match::default() };
        model::Route { name: name.into(), matches, action, origin: ObjectRef::default() }
    }

    fn check(routes: Vec<model::Route>, path: &str, first: &str, problems: usize) {
        let host = model::VirtualHost { name: "h".into(), domains: vec!["*".into()], routes };
        let listener = model::Listener {
            name: "gateway".into(),
            direction: model::Direction::Gateway,
            bind: model::Bind::DefaultGateway,
            tables: model::Tables::One(model::Table { hosts: vec![host] }),
            origins: Vec::new(),
            tls: model::ListenerTls::Plain,
            guard: None,
            forwarding: model::Forwarding::at(model::Direction::Gateway),
        };
        let config = model::Config { listeners: vec![listener], ..model::Config::default() };
        let environment = Environment {
            registry: Arc::new(Registry::new(Arc::default(), Arc::default())),
            telemetry: Telemetry::new(1),
            keyring: Arc::default(),
            numbers: Mutex::default(),
            keys: Arc::default(),
            simulate: None,
        };
        let compiled = compile(&config, 1, None, &environment);
        assert_eq!(compiled.problems.len(), problems, "{:?}", compiled.problems);
        let Some(Tables::One(hosts)) = compiled.snapshot.listeners[0].as_ref().map(|l| &l.tables) else {
            panic!("one table");
        };
        let headers = HeaderMap::new();
        let head = Head {
            method: &Method::GET,
            path,
            query: None,
            authority: "a",
            scheme: "http",
            headers: &headers,
        };
        let found =
            hosts.find("a").unwrap().routes.iter().find(|route| route.matcher.matches(&head)).unwrap();
        let what = match &found.action {
            Action::Forward(forward) if forward.targets[0].destination.is_none() => "503 NC",
            _ => &found.name,
        };
        assert_eq!(what, first, "{path}");
    }

    #[test]
    fn a_route_that_cannot_be_made_does_not_let_its_requests_fall_to_the_next_rule() {
        let prefix = || Some(StringMatch::Prefix("/private".into()));
        let good = vec![route("private", prefix(), direct("x")), route("rest", None, direct("x"))];
        check(good, "/private/a", "private", 0);
        let action = || vec![route("private", prefix(), direct("%NOPE%")), route("rest", None, direct("x"))];
        check(action(), "/private/a", "503 NC", 1);
        check(action(), "/public", "rest", 1);
        let condition = vec![
            route("x", Some(StringMatch::Regex("(".into())), direct("x")),
            route("rest", None, direct("x")),
        ];
        check(condition, "/public", "503 NC", 1);
    }
}
