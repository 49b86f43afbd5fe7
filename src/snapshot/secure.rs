//! Certificates of a configuration: what listeners and clusters do with TLS.
//!
//! What cannot be had is told, and lets nobody in and nothing out: plaintext never stands in for it.

use super::Security;
use crate::tls::{Client, Keyring, Protocols, Trust};
use proxy_config::model;
use std::net::SocketAddr;
use std::sync::Arc;

/// Makes the TLS of one configuration.
pub(super) struct Secure<'a> {
    keyring: &'a Keyring,
    config: &'a model::Config,
    trust: Trust,
    /// What cannot be had, and what follows.
    pub(super) warnings: Vec<String>,
}

impl<'a> Secure<'a> {
    /// Begins with a configuration.
    pub(super) fn begin(keyring: &'a Keyring, config: &'a model::Config) -> Secure<'a> {
        keyring.begin();
        let mesh = &config.mesh;
        let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
        let trust = Trust { domains: domains.cloned().collect(), oldest: mesh.min_tls };
        Secure { keyring, config, trust, warnings: Vec::new() }
    }

    /// Ends with it.
    pub(super) fn end(self) -> Vec<String> {
        self.keyring.end();
        self.warnings
    }

    /// What a listener does with TLS.
    pub(super) fn listener(&mut self, wanted: &model::Listener) -> Security {
        match &wanted.tls {
            model::ListenerTls::Plain => Security::Plain,
            model::ListenerTls::Servers(servers) => {
                let (servers, problems) = self.keyring.servers(servers, &self.trust);
                self.warnings.extend(problems);
                Security::Servers(servers)
            }
            model::ListenerTls::Mesh(own) => {
                let guard = wanted.guard.as_ref();
                let guard = guard.and_then(|name| self.config.guards.iter().find(|g| g.name == *name));
                let unnamed = [model::OwnPort { port: workload_port(wanted), ..model::OwnPort::default() }];
                let own = if own.is_empty() { &unnamed[..] } else { own };
                let at = |port: &model::OwnPort| guard.map(|guard| guard.mtls.at(port.port));
                let ports = own.iter().map(|port| (port, at(port).unwrap_or_default())).collect::<Vec<_>>();
                // Policies ask about requests, and nothing of these can be read.
                let asks = guard.is_some_and(|g| !g.policies.is_empty() || !g.quarantined.is_empty());
                let (inbound, problem) = self.keyring.inbound(&ports, !asks, &self.trust);
                self.warnings.extend(problem.map(|why| format!("{}: {why}", wanted.name)));
                Security::Mesh(inbound)
            }
        }
    }

    /// How a cluster is spoken to, and which of its endpoints have a proxy of the mesh in front.
    pub(super) fn cluster(&mut self, wanted: &model::Cluster) -> (Option<Arc<Client>>, Box<[SocketAddr]>) {
        let Some(tls) = &wanted.tls else { return (None, Box::default()) };
        let protocols = match wanted.protocol {
            model::Protocol::Http1 => Protocols::Http1,
            model::Protocol::Http2 => Protocols::Http2,
        };
        let (client, problem) = self.keyring.client(&wanted.name, tls, protocols, &self.trust);
        self.warnings.extend(problem);
        let mut mesh: Vec<_> = match &wanted.endpoints {
            model::Endpoints::Static(all) => {
                all.iter().filter(|endpoint| endpoint.mesh_tls).map(|endpoint| endpoint.address).collect()
            }
            _ => Vec::new(),
        };
        mesh.sort();
        (Some(client), mesh.into())
    }
}

/// The workload's own port behind an inbound listener: `inbound:8080`.
fn workload_port(listener: &model::Listener) -> u16 {
    let named = listener.name.strip_prefix("inbound:").and_then(|port| port.parse().ok());
    named.unwrap_or(match listener.bind {
        model::Bind::Address(address) => address.port(),
        _ => 0,
    })
}
