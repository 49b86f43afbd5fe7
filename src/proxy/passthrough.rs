//! Requests to hosts nobody has described, where ALLOW_ANY lets them out.
//!
//! The host is looked up and dialled as written. Link-local addresses (where clouds keep credentials) and
//! this proxy's own listener are never dialled.

use crate::cluster::{Cluster, Gate, Members};
use crate::fault::{Fault, Kind};
use crate::http::Authority;
use crate::route::{HeaderChange, Split};
use crate::snapshot::{Destination, Forward, Listener, Retry, Tally, Target, Terms};
use crate::telemetry::Telemetry;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// As Istio calls it.
const CLUSTER: &str = "PassthroughCluster";
/// Addresses remembered; beyond it all are forgotten.
const MAX_KNOWN: usize = 256;
/// For the address of a host: what a resolver takes for two tries at most.
const LOOKUP: Duration = Duration::from_secs(10);

/// One worker's made-up clusters.
#[derive(Debug)]
pub struct Passthrough {
    telemetry: Arc<Telemetry>,
    gate: Arc<Gate>,
    known: RefCell<HashMap<SocketAddr, Arc<Destination>>>,
    terms: Forward,
}

impl Passthrough {
    /// Nothing known yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Passthrough {
        let terms = Arc::new(Terms::of(Retry::istio_default()));
        let terms = Forward { split: Split::single(), targets: Box::default(), terms };
        Passthrough { telemetry, gate: Arc::default(), known: RefCell::default(), terms }
    }

    /// The terms: Istio's defaults, nothing changed.
    pub fn terms(&self) -> &Forward {
        &self.terms
    }

    /// Where a request to `authority` goes that came in at `own`.
    pub async fn target(
        &self,
        listener: &Listener,
        authority: Authority<'_>,
        own: SocketAddr,
    ) -> Result<Arc<Target>, Fault> {
        let port = authority.port.unwrap_or(80);
        let host = authority.host.trim_start_matches('[').trim_end_matches(']');
        let asking = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port)));
        let found = asking
            .await
            .map_err(|_| {
                Fault::because(Kind::UnknownHost, format_args!("no answer for {host} in {LOOKUP:?}"))
            })?
            .map_err(|error| Fault::because(Kind::UnknownHost, format_args!("looking up {host}: {error}")))?;
        let address = found.into_iter().find(|address| may_dial(*address, own)).ok_or_else(|| {
            Fault::because(Kind::UnknownHost, format_args!("{host} has no address that may be dialled"))
        })?;
        Ok(Arc::new(Target {
            cluster: CLUSTER.into(),
            destination: Some(self.destination(address)),
            request_headers: HeaderChange::none(),
            response_headers: HeaderChange::none(),
            source: Some(Tally::of(listener.passthrough.clone())),
            sink: None,
        }))
    }

    fn destination(&self, address: SocketAddr) -> Arc<Destination> {
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_KNOWN && !known.contains_key(&address) {
            known.clear();
        }
        let make = || {
            let members = Members::given(CLUSTER.into());
            members.replace(&[(address, 1)]);
            let cluster = Cluster::passthrough(CLUSTER, members, self.gate.clone());
            Arc::new(Destination {
                cluster,
                metrics: self.telemetry.cluster(CLUSTER),
                function: None,
                lineage: None,
                server_timing: false,
                half_close: false,
                guard: None,
                workload: address,
            })
        };
        known.entry(address).or_insert_with(make).clone()
    }
}

fn may_dial(address: SocketAddr, own: SocketAddr) -> bool {
    // An IPv4 address in IPv6 clothes is dialled as what it is.
    let (ip, own_ip) = (address.ip().to_canonical(), own.ip().to_canonical());
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let own_listener = address.port() == own.port() && (ip == own_ip || ip.is_unspecified());
    !link_local && !own_listener
}

#[cfg(test)]
mod tests {
    use super::may_dial;

    #[test]
    fn link_local_addresses_and_the_own_listener_are_never_dialled() {
        let own = "127.0.0.1:15001".parse().unwrap();
        for (address, allowed) in [
            ("169.254.169.254:80", false),
            ("[fe80::1]:80", false),
            ("[::ffff:169.254.169.254]:80", false),
            ("127.0.0.1:15001", false),
            ("0.0.0.0:15001", false),
            ("[::ffff:127.0.0.1]:15001", false),
            ("[::ffff:0.0.0.0]:15001", false),
            ("127.0.0.1:8080", true),
            ("192.0.2.1:80", true),
        ] {
            assert_eq!(may_dial(address.parse().unwrap(), own), allowed, "{address}");
        }
    }
}
