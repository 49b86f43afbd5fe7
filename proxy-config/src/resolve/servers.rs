//! TLS servers of a gateway's port: what they show, what they ask for, where unopened connections go.

use super::gateways::{Admission, Gateways};
use super::names;
use super::registry::{Reference, Registry};
use super::routes::{self, Through};
use super::security::{Credentials, Written};
use super::split::{self, Share};
use crate::api::istio::{
    Gateway, Server, ServerProtocol, ServerTls, TlsMatch, TlsMode, TlsRule, VirtualService,
};
use crate::model::{ServerMode, SniRoute, TlsServer};
use crate::report::{Level, Problem};

/// What becomes of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// HTTP in plaintext.
    Plain,
    /// HTTP inside TLS.
    Opened,
    /// TLS that is not opened.
    Passed,
    /// It is not bound, which was told where it is read.
    Unbound,
}

/// What becomes of `server`.
pub(crate) fn role(server: &Server) -> Role {
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    match (server.protocol.value, mode) {
        (ServerProtocol::Http, _) => Role::Plain,
        (ServerProtocol::Https | ServerProtocol::Tls, Some(TlsMode::Passthrough)) => Role::Passed,
        (ServerProtocol::Https, Some(TlsMode::AutoPassthrough) | None) => Role::Unbound,
        (ServerProtocol::Https, Some(_)) => Role::Opened,
        (ServerProtocol::Tls | ServerProtocol::Tcp, _) => Role::Unbound,
    }
}

/// The TLS servers among `servers`, all of one port.
pub(crate) fn build(
    from: &Gateways<'_>,
    port: u16,
    servers: &[(&Gateway, usize)],
    credentials: &Credentials<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<TlsServer> {
    let mut built = Vec::new();
    let several = servers.windows(2).any(|pair| pair[0].0.meta.object != pair[1].0.meta.object);
    for (gateway, number) in servers {
        let server = &gateway.servers[*number];
        let Some(tls) = server.tls.as_ref().filter(|_| role(server) != Role::Unbound) else { continue };
        let Some(mode) = mode(tls.mode) else { continue };
        let written = Written { meta: &gateway.meta, path: format!("spec.servers[{number}].tls") };
        let admissions: Vec<Admission<'_>> =
            server.hosts.iter().map(|host| Admission::new(&host.value, gateway)).collect();
        built.push(TlsServer {
            origin: gateway.meta.object.clone(),
            hosts: admissions.iter().map(|admission| admission.pattern.to_owned()).collect(),
            mode,
            credential: credentials.server(tls, &written, problems),
            client_names: tls.names.clone(),
            client_spki: tls.spki.clone(),
            client_hash: tls.hashes.clone(),
            versions: tls.versions,
            ciphers: tls.ciphers.clone(),
            sni_routes: if mode == ServerMode::Passthrough {
                sni_routes(from, gateway, port, &admissions)
            } else {
                Vec::new()
            },
            routed: if several { routed(from, gateway, &admissions) } else { Vec::new() },
        });
        told(tls, mode, &written, problems);
    }
    built
}

fn mode(mode: TlsMode) -> Option<ServerMode> {
    Some(match mode {
        TlsMode::Simple => ServerMode::Simple,
        TlsMode::Mutual => ServerMode::Mutual,
        TlsMode::OptionalMutual => ServerMode::OptionalMutual,
        TlsMode::IstioMutual => ServerMode::IstioMutual,
        TlsMode::Passthrough => ServerMode::Passthrough,
        TlsMode::AutoPassthrough => return None,
    })
}

/// Conditions on clients' certificates where clients are not asked for any.
fn told(tls: &ServerTls, mode: ServerMode, written: &Written<'_>, problems: &mut Vec<Problem>) {
    let asks = !matches!(mode, ServerMode::Simple | ServerMode::Passthrough);
    let conditions = !(tls.names.is_empty() && tls.spki.is_empty() && tls.hashes.is_empty());
    if conditions && !asks {
        let message = "conditions on the certificates of clients, which this mode does not ask for";
        let help = "write `mode: MUTUAL`";
        let problem = written.meta.problem(Level::Warning, "IST0133", &written.path, tls.at, message);
        problems.push(problem.with_help(help));
    }
}

/// The hosts that are routed behind this Gateway: those of others on its port are not its clients' business.
fn routed(from: &Gateways<'_>, gateway: &Gateway, admissions: &[Admission<'_>]) -> Vec<String> {
    let object = &gateway.meta.object;
    let key = format!("{}/{}", object.namespace, object.name);
    let mut all = Vec::new();
    for service in from.virtual_services.iter().filter(|service| !service.http.is_empty()) {
        let namespace = &service.meta.object.namespace;
        if !routes::bound(&service.gateways, namespace, Through::Gateway(&key)) {
            continue;
        }
        for host in &service.hosts {
            let host = names::expand(&host.value, namespace);
            all.extend(admissions.iter().filter_map(|a| a.admit(&host, namespace)).map(str::to_owned));
        }
    }
    all.sort();
    all.dedup();
    all
}

fn sni_routes(
    from: &Gateways<'_>,
    gateway: &Gateway,
    port: u16,
    admissions: &[Admission<'_>],
) -> Vec<SniRoute> {
    let object = &gateway.meta.object;
    let key = format!("{}/{}", object.namespace, object.name);
    let mut all = Vec::new();
    for service in from.virtual_services {
        let namespace = &service.meta.object.namespace;
        for (rule, block) in service.tls.iter().flat_map(|rule| rule.matches.iter().map(move |m| (rule, m))) {
            if !applies(service, block, &key, port) {
                continue;
            }
            let mut names: Vec<String> = Vec::new();
            for name in &block.names {
                let admitted = admissions.iter().filter_map(|a| a.admit(&name.value, namespace));
                names.extend(admitted.map(str::to_owned));
            }
            names.dedup();
            if !names.is_empty() {
                let clusters = clusters(from.registry, rule, namespace, port);
                all.push(SniRoute { origin: service.meta.object.clone(), names, clusters });
            }
        }
    }
    all
}

fn applies(service: &VirtualService, block: &TlsMatch, key: &str, port: u16) -> bool {
    let namespace = &service.meta.object.namespace;
    let gateways = if block.gateways.is_empty() { &service.gateways } else { &block.gateways };
    routes::bound(gateways, namespace, Through::Gateway(key))
        && block.port.is_none_or(|wanted| wanted == port)
        && !block.subnets
}

fn clusters(registry: &Registry, rule: &TlsRule, namespace: &str, port: u16) -> Vec<(String, u32)> {
    let shares = rule.route.iter().map(|destination| {
        let host = names::expand(&destination.host.value, namespace);
        let found = registry.destination(&Reference {
            host: &host,
            subset: destination.subset.as_ref().map(|subset| subset.value.as_str()),
            port: destination.port.as_ref().map(|port| port.value),
            dialled: port,
        });
        let weight = if rule.route.len() == 1 { 1 } else { u64::from(destination.weight) };
        Share { weight, parts: found.clusters }
    });
    split::flatten(shares.collect())
}

/// Rules for unopened connections that no server takes.
pub(crate) fn check(from: &Gateways<'_>, problems: &mut Vec<Problem>) {
    for service in from.virtual_services.iter().filter(|service| !service.tls.is_empty()) {
        let taken = from.gateways.iter().any(|gateway| {
            let object = &gateway.meta.object;
            let key = format!("{}/{}", object.namespace, object.name);
            let blocks = service.tls.iter().flat_map(|rule| &rule.matches);
            let mut passed = gateway.servers.iter().filter(|server| role(server) == Role::Passed);
            let ports: Vec<u16> = passed.by_ref().map(|server| server.port.value).collect();
            blocks.into_iter().any(|block| ports.iter().any(|port| applies(service, block, &key, *port)))
        });
        if !taken {
            let message = "rules for TLS act at Gateway servers with `mode: PASSTHROUGH`: none takes these";
            let meta = &service.meta;
            problems.push(meta.problem(Level::Warning, "SC007", "spec.tls", meta.name_at, message));
        }
    }
}
