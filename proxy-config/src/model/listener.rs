//! Where traffic comes in: listeners, their tables, their virtual hosts.

use super::{ListenerTls, ObjectRef, Route};
use std::collections::BTreeMap;

/// One place that accepts connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique and stable over reloads: `gateway:8080`, `mesh`, `inbound:8080`.
    pub name: String,
    /// Which side of the service this listener stands on.
    pub direction: Direction,
    /// Where it listens.
    pub bind: Bind,
    /// The routes.
    pub tables: Tables,
    /// The objects that asked for it; empty for the listeners that exist by themselves.
    pub origins: Vec<ObjectRef>,
    /// What it does with TLS.
    pub tls: ListenerTls,
    /// What it asks of callers, by the name of a guard; an inbound listener's.
    pub guard: Option<String>,
    /// What it believes of who came before, and passes on.
    pub forwarding: Forwarding,
}

impl Listener {
    /// The same, with nothing to serve.
    #[must_use]
    pub fn without_routes(&self) -> Listener {
        Listener {
            name: self.name.clone(),
            direction: self.direction,
            bind: self.bind,
            tables: Tables::One(Table::default()),
            origins: self.origins.clone(),
            tls: self.tls.clone(),
            guard: self.guard.clone(),
            forwarding: self.forwarding,
        }
    }
}

/// What a listener believes and passes on of those whom a request has passed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// What becomes of `X-Forwarded-Client-Cert`.
    pub client_cert: ClientCert,
    /// So many proxies in front, the client of this one included, append to `X-Forwarded-For` what is true; 0: nobody
    /// does, and the client is who connected.
    pub trusted_proxies: u32,
}

/// Nothing is believed, nothing said.
impl Default for Forwarding {
    fn default() -> Forwarding {
        Forwarding { client_cert: ClientCert::Sanitize, trusted_proxies: 0 }
    }
}

impl Forwarding {
    /// Istio's defaults.
    pub fn at(direction: Direction) -> Forwarding {
        let client_cert = match direction {
            Direction::Gateway => ClientCert::SanitizeSet,
            Direction::Outbound => ClientCert::Sanitize,
            Direction::Inbound => ClientCert::AppendForward,
        };
        Forwarding { client_cert, trusted_proxies: 0 }
    }
}

/// What becomes of `X-Forwarded-Client-Cert`. But for the last, what clients say that showed no certificate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientCert {
    /// It goes, and nothing is said (SANITIZE).
    Sanitize,
    /// What the client says is passed on as it is (FORWARD_ONLY).
    ForwardOnly,
    /// And what is known of the client is added (APPEND_FORWARD).
    AppendForward,
    /// What is known of the client takes its place (SANITIZE_SET).
    SanitizeSet,
    /// What anybody says is passed on as it is (ALWAYS_FORWARD_ONLY).
    AlwaysForwardOnly,
}

/// Direction is data: one data path serves all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// In front, for callers without a proxy of their own: appends X-Forwarded-*.
    Gateway,
    /// From a workload to others; passes X-Forwarded-* untouched.
    Outbound,
    /// In front of a local instance: enforces its concurrency and, later, policy.
    Inbound,
}

/// Where a listener is bound; the command line turns this into an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// The default gateway, on the port the command line gives; exists exactly when no Gateway is loaded.
    DefaultGateway,
    /// A Gateway server's port number, before any port map.
    GatewayPort(u16),
    /// The outbound (mesh) listener.
    Mesh,
    /// A given address.
    Address(std::net::SocketAddr),
}

/// Routes of a listener: a gateway has one table, the mesh listener one for each service port.
#[derive(Clone, Debug, PartialEq)]
pub enum Tables {
    /// The same for every request, whatever port its authority names.
    One(Table),
    /// By the service port a request means: that of its authority, else 80. No table: unknown host.
    ByPort(BTreeMap<u16, Table>),
}

/// Virtual hosts; no two share a domain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In no particular order: the most specific domain wins.
    pub hosts: Vec<VirtualHost>,
}

/// Routes for some hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// For logs and dumps: `hello.default.svc.cluster.local:80`.
    pub name: String,
    /// Lower case, no port: exact, `*.suffix` or `*`. Precedence: exact, then the longest suffix, then `*`.
    pub domains: Vec<String>,
    /// Tried in order, the first match wins; none: 404 NR.
    pub routes: Vec<Route>,
}
