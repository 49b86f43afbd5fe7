//! Destinations while the proxy runs: members, slots, ejection, gates.
//!
//! A cluster is a named set of interchangeable endpoints and the terms on which they are used. Policy is
//! fixed per exchange (it comes with the snapshot); membership is loaded anew at each attempt, because it
//! is what a held exchange waits for. Nothing here opens a socket.

mod balance;
mod dismiss;
mod eject;
mod endpoint;
mod gate;
mod health;
mod holder;
mod members;

pub use balance::Rng;
pub use dismiss::Dismissed;
pub use endpoint::{Endpoint, Slot};
pub use gate::{Gate, GateCounts, Permit, Turn, Waiter, WaiterGone};
pub use health::Health;
pub use holder::Holder;
pub use members::{Members, Registry, Taken};

use crate::tls::Client;
use proxy_config::model::{Balance, Policy, Protocol};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One destination of a snapshot: fixed terms, and the live state that outlasts snapshots.
#[derive(Debug)]
pub struct Cluster {
    /// Istio's form: `outbound|80||hello.default.svc.cluster.local`.
    pub name: Arc<str>,
    /// Spoken to the endpoints.
    pub protocol: Protocol,
    /// How an endpoint is chosen, how much at once, and when one is left out.
    pub policy: Arc<Policy>,
    /// `timeoutSeconds` where the members are instances of a function.
    pub function_timeout: Option<Duration>,
    /// Whether the endpoints are on this host, where connections are cheap and idle ones short-lived.
    pub local: bool,
    /// How endpoints are spoken to; `None`: in plaintext.
    pub tls: Option<Arc<Client>>,
    /// Endpoints that have a proxy of the mesh in front, in order.
    pub mesh: Box<[SocketAddr]>,
    /// The endpoints, now.
    pub members: Arc<Members>,
    /// Counts against `limits`, exact over all workers.
    pub gate: Arc<Gate>,
}

impl Cluster {
    /// How `endpoint` is spoken to; `None`: in plaintext.
    #[inline]
    pub fn tls_to(&self, endpoint: &Endpoint) -> Option<&Arc<Client>> {
        let tls = self.tls.as_ref()?;
        tls.applies(self.mesh.binary_search(&endpoint.address).is_ok()).then_some(tls)
    }

    /// A cluster without a description: HTTP/1.1, no limits, no ejection.
    pub fn passthrough(name: &str, members: Arc<Members>, gate: Arc<Gate>) -> Cluster {
        Cluster {
            name: name.into(),
            protocol: Protocol::Http1,
            policy: Arc::new(Policy { balance: Balance::Random, ..Policy::default() }),
            function_timeout: None,
            local: false,
            tls: None,
            mesh: Box::default(),
            members,
            gate,
        }
    }
}
