//! What the data path runs from: immutable, compiled, swapped whole.
//!
//! A snapshot is taken once, at the head of an exchange, and lives as long as exchanges use it. Matchers,
//! header changes and metric series are ready made. Live state (members, gates) is only pointed to, and
//! outlasts snapshots. Nothing below this room sees a configuration.

mod compile;
mod guards;
mod publish;
mod secure;
mod shared;
mod simulate;
mod tally;

pub use compile::{Compiled, Environment, compile};
pub use proxy_config::model::{Forwarding, PathNormalization, Protocol, Retry, RetryOn};
pub use publish::{Published, Reader};
pub use tally::Tally;

use crate::auth::{Callers, Guard, Provider};
use crate::cluster::Cluster;
use crate::record::Direction;
use crate::route::{HeaderChange, Hosts, Matcher, PathChange, Redirect, Split};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::{ClusterMetrics, FunctionMetrics, Seldom, Series};
use crate::tls::{Inbound, Servers};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything the data path needs to know, at one point in time.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each configuration that is served.
    pub generation: u64,
    /// By the number a listener has for the life of the process; `None`: it serves no more.
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// Where finished exchanges are logged; `None`: nowhere.
    pub access_log: Option<Arc<AccessLog>>,
    /// Every destination, by name.
    pub destinations: HashMap<Arc<str>, Arc<Destination>>,
    /// Who decides for CUSTOM policies, by name.
    pub providers: HashMap<Arc<str>, Provider>,
    /// Unknown hosts on the mesh listener are dialled.
    pub allow_any: bool,
    /// How paths are made alike.
    pub path_normalization: PathNormalization,
    /// Some destination answers clients that have closed their sending side.
    pub half_close: bool,
}

impl Snapshot {
    /// Answers those who have waited too long for a place at an endpoint that is given, inbound ones included.
    /// Who waits for a function is the concern of its scaler. To be called about once a second.
    pub fn expire_held(&self, now: Instant) {
        for destination in self.destinations.values().filter(|destination| destination.function.is_none()) {
            if let Some(hold) = destination.cluster.members.hold() {
                hold.expire(now);
            }
        }
    }
}

/// The routes of one listener.
#[derive(Debug)]
pub struct Listener {
    /// Stable over reloads.
    pub name: Arc<str>,
    /// Which side of the service it stands on.
    pub direction: Direction,
    /// The number of its Gateways' port, which need not be the one that is bound.
    pub port: Option<u16>,
    /// What it does with TLS.
    pub security: Security,
    /// The routes.
    pub tables: Tables,
    /// Where requests are counted that find no route.
    pub unrouted: Arc<Series>,
    /// Where requests to unknown hosts of the mesh are counted.
    pub black_hole: Arc<Series>,
    /// Where requests to unknown hosts are counted that are dialled as written.
    pub passthrough: Arc<Series>,
    /// What is asked of all who come.
    pub guard: Option<Arc<Guard>>,
    /// Who those are taken for that no certificate speaks for.
    pub simulated: Simulated,
    /// What it believes of who came before, and passes on.
    pub forwarding: Forwarding,
}

impl Listener {
    /// What its own policies call the destination of a request: a gateway is one itself, a workload's side stands for the
    /// port of the program that is meant. `local`: where the client connected; `to`: where the request goes.
    pub fn asked_at(&self, local: SocketAddr, to: Option<SocketAddr>) -> SocketAddr {
        match self.direction {
            Direction::Gateway => SocketAddr::new(local.ip(), self.port.unwrap_or(local.port())),
            Direction::Inbound | Direction::Outbound => to.unwrap_or(local),
        }
    }
}

/// Who clients without a certificate are taken for.
#[derive(Debug)]
pub enum Simulated {
    /// For nobody.
    Nobody,
    /// All of them for one.
    One(Arc<str>),
    /// Functions of this process, by what they were told.
    Callers(Arc<Callers>),
}

/// What a listener does with TLS.
#[derive(Debug)]
pub enum Security {
    /// Nothing.
    Plain,
    /// A gateway's, by the name asked for.
    Servers(Servers),
    /// A workload's own, and plaintext where that may come too.
    Mesh(Inbound),
}

/// One table, or one for each service port.
#[derive(Debug)]
pub enum Tables {
    /// Whatever port the authority names.
    One(Hosts<VirtualHost>),
    /// By the service port that a request means.
    ByPort(HashMap<u16, Hosts<VirtualHost>>),
}

/// The routes of some hosts.
#[derive(Debug)]
pub struct VirtualHost {
    /// The first that matches wins.
    pub routes: Box<[Route]>,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// In access logs.
    pub name: Arc<str>,
    /// When it applies.
    pub matcher: Matcher,
    /// What happens then.
    pub action: Action,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Send it on.
    Forward(Arc<Forward>),
    /// Answer 3xx.
    Redirect(Box<Redirect>),
    /// Answer from the configuration.
    Direct(Box<Direct>),
}

/// Where a request goes and under what terms.
#[derive(Debug)]
pub struct Forward {
    /// Chooses among `targets`.
    pub split: Split,
    /// At least one.
    pub targets: Box<[Arc<Target>]>,
    /// The same for every target.
    pub terms: Arc<Terms>,
}

/// What a route says of requests, wherever they go.
#[derive(Debug)]
pub struct Terms {
    /// Whole exchange; `None`: none.
    pub timeout: Option<Duration>,
    /// When it is tried again.
    pub retry: Retry,
    /// The new path.
    pub path: Option<PathChange>,
    /// The new authority.
    pub authority: Option<HeaderValue>,
    /// Changes for every target.
    pub request_headers: HeaderChange,
    /// The same on the way back.
    pub response_headers: HeaderChange,
}

impl Terms {
    /// Nothing is changed, and there is no timeout.
    pub fn of(retry: Retry) -> Terms {
        Terms {
            timeout: None,
            retry,
            path: None,
            authority: None,
            request_headers: HeaderChange::none(),
            response_headers: HeaderChange::none(),
        }
    }
}

/// One share of a split.
#[derive(Debug)]
pub struct Target {
    /// The cluster's name, in access logs even where the cluster does not exist.
    pub cluster: Arc<str>,
    /// `None`: 503 NC.
    pub destination: Option<Arc<Destination>>,
    /// Changes for this target.
    pub request_headers: HeaderChange,
    /// The same on the way back.
    pub response_headers: HeaderChange,
    /// What this side reports as the source.
    pub source: Option<Tally>,
    /// What this side reports as the destination, where it plays that as well.
    pub sink: Option<Tally>,
}

/// A cluster with its metrics.
#[derive(Debug)]
pub struct Destination {
    /// The terms and the members.
    pub cluster: Cluster,
    /// `pilotlight_cluster_*`.
    pub metrics: Arc<Seldom<ClusterMetrics>>,
    /// `pilotlight_function_*`, where the members are instances of a function.
    pub function: Option<Arc<Seldom<FunctionMetrics>>>,
    /// The revision, as chains of calls name it, where the members are instances of a function.
    pub lineage: Option<HeaderValue>,
    /// Clients are told where the time of a cold start went.
    pub server_timing: bool,
    /// A client that has closed its sending side only is still there.
    pub half_close: bool,
    /// What is asked of callers, where this process stands for the members.
    pub guard: Option<Arc<Guard>>,
    /// Where the members listen, as policies name ports and addresses.
    pub workload: SocketAddr,
}

/// An answer from the configuration.
#[derive(Debug)]
pub struct Direct {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// Changes to its head.
    pub headers: HeaderChange,
}

/// The access log line of a route that has no name.
pub const DEFAULT_ROUTE: &str = "default";
