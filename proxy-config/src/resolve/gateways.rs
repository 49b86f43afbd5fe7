//! Gateways: which listeners there are, and which hosts each of them serves.

use super::functions::Function;
use super::names;
use super::registry::Registry;
use super::routes::{self, Scene, Through};
use super::security::Credentials;
use super::servers::{self, Role};
use super::tables::GatewayTable;
use crate::api::istio::{Gateway, VirtualService};
use crate::model::{
    Action, Bind, Direction, Listener, ListenerTls, Match, MessageOps, ObjectRef, Redirect, RedirectPort,
    Route, Tables,
};
use crate::report::{At, Level, Problem};
use std::collections::BTreeMap;

/// What the default gateway's callers are taken to have dialled.
const HTTP_PORT: u16 = 80;

/// All that gateways are made from.
pub(crate) struct Gateways<'a> {
    /// The Gateways of the input.
    pub gateways: &'a [&'a Gateway],
    /// The VirtualServices of the input, by name and then namespace.
    pub virtual_services: &'a [&'a VirtualService],
    /// The functions.
    pub functions: &'a [Function<'a>],
    /// What destinations come to.
    pub registry: &'a Registry,
    /// Of function hosts.
    pub domain: &'a str,
    /// What TLS servers show.
    pub credentials: &'a Credentials<'a>,
}

/// A host that a server admits: the namespaces allowed to claim it, and the pattern.
pub(crate) struct Admission<'a> {
    namespace: Option<&'a str>,
    /// The pattern.
    pub pattern: &'a str,
    /// Every request is sent to HTTPS.
    redirects: bool,
}

impl<'a> Admission<'a> {
    /// From `[namespace/]host` as written in `gateway`.
    pub fn new(written: &'a str, gateway: &'a Gateway) -> Admission<'a> {
        let (namespace, pattern) = match written.split_once('/') {
            None | Some(("*", _)) => (None, written.rsplit_once('/').map_or(written, |(_, host)| host)),
            Some((".", host)) => (Some(gateway.meta.object.namespace.as_str()), host),
            Some((namespace, host)) => (Some(namespace), host),
        };
        Admission { namespace, pattern, redirects: false }
    }

    /// The part of `host` that is served, if any.
    pub fn admit<'h>(&'h self, host: &'h str, namespace: &str) -> Option<&'h str> {
        if self.namespace.is_some_and(|allowed| allowed != namespace) {
            return None;
        }
        names::intersect(self.pattern, host)
    }
}

/// The listeners: one for each port with an HTTP server, or the default one where there is no Gateway.
pub(crate) fn build(from: &Gateways<'_>, problems: &mut Vec<Problem>) -> Vec<Listener> {
    check_references(from, problems);
    if from.gateways.is_empty() {
        return vec![default_listener(from, problems)];
    }
    servers::check(from, problems);
    let mut ports: BTreeMap<u16, Vec<(&Gateway, usize)>> = BTreeMap::new();
    for gateway in from.gateways {
        for (number, server) in gateway.servers.iter().enumerate() {
            if servers::role(server) != Role::Unbound {
                ports.entry(server.port.value).or_default().push((gateway, number));
            }
        }
    }
    for servers in ports.values_mut() {
        one_kind(servers, problems);
    }
    ports.into_iter().map(|(port, servers)| listener(from, port, &servers, problems)).collect()
}

/// A port speaks either in plaintext or TLS; the first server decides.
fn one_kind(all: &mut Vec<(&Gateway, usize)>, problems: &mut Vec<Problem>) {
    let plain =
        |(gateway, number): &(&Gateway, usize)| servers::role(&gateway.servers[*number]) == Role::Plain;
    let Some((first, is_plain)) = all.first().map(|first| (first.0, plain(first))) else { return };
    all.retain(|entry| {
        let fits = plain(entry) == is_plain;
        if !fits {
            let (gateway, number) = *entry;
            let port = &gateway.servers[number].port;
            let kind = if is_plain { "plaintext" } else { "TLS" };
            let message = format!(
                "port {} speaks {kind} already by {}; this server is not used",
                port.value, first.meta.object
            );
            let path = format!("spec.servers[{number}].port");
            problems.push(gateway.meta.problem(Level::Error, "IST0145", path, port.at, message));
        }
        fits
    });
}

fn default_listener(from: &Gateways<'_>, problems: &mut Vec<Problem>) -> Listener {
    let mut table = GatewayTable::default();
    let scene = Scene { registry: from.registry, listener: Through::AnyGateway, port: HTTP_PORT };
    for service in from.virtual_services {
        let namespace = &service.meta.object.namespace;
        if !routes::bound(&service.gateways, namespace, scene.listener) {
            continue;
        }
        let routes = routes::build(service, &scene, problems);
        for host in &service.hosts {
            let domain = names::expand(&host.value, namespace);
            let earlier = table.append(&domain, &routes);
            problems.extend(earlier.and_then(|earlier| shadowed(service, &domain, &earlier)));
        }
    }
    offer_functions(from, &scene, &mut table, |host, _| Some(host.to_owned()));
    Listener {
        name: "gateway:default".to_owned(),
        direction: Direction::Gateway,
        bind: Bind::DefaultGateway,
        tables: Tables::One(table.finish(HTTP_PORT)),
        origins: Vec::new(),
        tls: ListenerTls::Plain,
        guard: None,
        forwarding: crate::model::Forwarding::at(Direction::Gateway),
    }
}

fn listener(
    from: &Gateways<'_>,
    port: u16,
    servers: &[(&Gateway, usize)],
    problems: &mut Vec<Problem>,
) -> Listener {
    let mut by_gateway: BTreeMap<String, Vec<Admission<'_>>> = BTreeMap::new();
    let mut origins = Vec::new();
    for (gateway, number) in servers {
        let object = &gateway.meta.object;
        let server = &gateway.servers[*number];
        let admissions = by_gateway.entry(format!("{}/{}", object.namespace, object.name)).or_default();
        let redirects = server.https_redirect;
        let opened = servers::role(server) != Role::Passed;
        let hosts = server.hosts.iter().filter(|_| opened);
        admissions.extend(hosts.map(|host| Admission { redirects, ..Admission::new(&host.value, gateway) }));
        if !origins.contains(object) {
            origins.push(object.clone());
        }
    }
    let mut table = GatewayTable::default();
    for service in from.virtual_services {
        for (key, admissions) in &by_gateway {
            let scene = Scene { registry: from.registry, listener: Through::Gateway(key), port };
            append(service, &scene, admissions, &mut table, problems);
        }
    }
    let all: Vec<&Admission<'_>> = by_gateway.values().flatten().collect();
    for admission in all.iter().filter(|admission| admission.redirects) {
        let origin = origins.first().cloned().unwrap_or_default();
        table.offer(admission.pattern, || vec![to_https(origin)]);
    }
    let scene = Scene { registry: from.registry, listener: Through::AnyGateway, port };
    offer_functions(from, &scene, &mut table, |host, namespace| {
        let admission = all.iter().find(|admission| admission.admit(host, namespace).is_some())?;
        if admission.redirects { None } else { admission.admit(host, namespace).map(str::to_owned) }
    });
    let tls = servers::build(from, port, servers, from.credentials, problems);
    let tls = if tls.is_empty() { ListenerTls::Plain } else { ListenerTls::Servers(tls) };
    Listener {
        name: format!("gateway:{port}"),
        direction: Direction::Gateway,
        bind: Bind::GatewayPort(port),
        tables: Tables::One(table.finish(port)),
        origins,
        tls,
        guard: None,
        forwarding: crate::model::Forwarding::at(Direction::Gateway),
    }
}

/// The rules of one VirtualService under every host that it claims and this gateway admits.
fn append(
    service: &VirtualService,
    scene: &Scene<'_>,
    admissions: &[Admission<'_>],
    table: &mut GatewayTable,
    problems: &mut Vec<Problem>,
) {
    let namespace = &service.meta.object.namespace;
    if !routes::bound(&service.gateways, namespace, scene.listener) {
        return;
    }
    if service.http.is_empty() {
        return;
    }
    // Of several servers that admit a host the one with the narrowest pattern decides what becomes of it.
    let mut domains: Vec<(String, &Admission<'_>)> = Vec::new();
    for host in &service.hosts {
        let host = names::expand(&host.value, namespace);
        for admission in admissions {
            let Some(domain) = admission.admit(&host, namespace) else { continue };
            let width = |of: &Admission<'_>| names::specificity(of.pattern);
            match domains.iter_mut().find(|(known, _)| known == domain) {
                Some((_, first)) if width(first) < width(admission) => *first = admission,
                Some(_) => {}
                None => domains.push((domain.to_owned(), admission)),
            }
        }
    }
    if domains.is_empty() {
        return;
    }
    let routes = routes::build(service, scene, problems);
    for (domain, admission) in domains {
        if admission.redirects {
            table.offer(&domain, || vec![to_https(service.meta.object.clone())]);
            continue;
        }
        let earlier = table.append(&domain, &routes);
        problems.extend(earlier.and_then(|earlier| shadowed(service, &domain, &earlier)));
    }
}

/// `httpsRedirect`: the same address by HTTPS, at its own port.
fn to_https(origin: ObjectRef) -> Route {
    let redirect = Redirect {
        path: None,
        authority: None,
        port: Some(RedirectPort::FromProtocol),
        scheme: Some("https".to_owned()),
        code: 301,
        headers: MessageOps::default(),
    };
    Route {
        name: "https-redirect".to_owned(),
        matches: Match::default(),
        action: Action::Redirect(redirect),
        origin,
    }
}

/// Of two rules that take every request of one host, only one can.
fn shadowed(service: &VirtualService, domain: &str, earlier: &ObjectRef) -> Option<Problem> {
    let meta = &service.meta;
    if *earlier == meta.object {
        return None;
    }
    let message =
        format!("the rule here that takes every request of {domain:?} is never reached: {earlier} has one");
    let help = "of several VirtualServices for a gateway's host the first by name goes first";
    Some(meta.problem(Level::Warning, "IST0130", "spec.http", meta.name_at, message).with_help(help))
}

/// Function hosts that nobody has claimed by exactly that name.
fn offer_functions(
    from: &Gateways<'_>,
    scene: &Scene<'_>,
    table: &mut GatewayTable,
    admit: impl Fn(&str, &str) -> Option<String>,
) {
    for function in from.functions.iter().filter(|function| function.public()) {
        for (host, target) in function.gateway_hosts(from.domain) {
            let Some(service) = from.registry.service(&target) else { continue };
            if let Some(domain) = admit(&host, &function.namespace) {
                let dialled = Scene { port: super::registry::FUNCTION_PORT, ..*scene };
                table.offer(&domain, || vec![routes::plain(service, &dialled)]);
            }
        }
    }
}

/// Every gateway that a VirtualService names must exist, and admit one of its hosts.
fn check_references(from: &Gateways<'_>, problems: &mut Vec<Problem>) {
    for service in from.virtual_services {
        for (i, written) in service.gateways.iter().enumerate() {
            let path = format!("spec.gateways[{i}]");
            check_reference(from, service, written, &path, problems);
        }
        for (r, rule) in service.http.iter().enumerate() {
            for (m, block) in rule.matches.iter().enumerate() {
                for (i, written) in block.gateways.iter().enumerate() {
                    let path = format!("spec.http[{r}].match[{m}].gateways[{i}]");
                    check_reference(from, service, written, &path, problems);
                }
            }
        }
    }
}

fn check_reference(
    from: &Gateways<'_>,
    service: &VirtualService,
    written: &At<String>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let namespace = &service.meta.object.namespace;
    let key = routes::gateway_key(&written.value, namespace);
    if key == routes::MESH {
        return;
    }
    let is = |gateway: &&&Gateway| {
        let object = &gateway.meta.object;
        key == format!("{}/{}", object.namespace, object.name)
    };
    let Some(gateway) = from.gateways.iter().find(is) else {
        problems.push(unknown_gateway(from, service, written, path));
        return;
    };
    let admits = service.hosts.iter().any(|host| {
        let host = names::expand(&host.value, namespace);
        let mut admissions = gateway.servers.iter().flat_map(|server| &server.hosts);
        admissions.any(|own| Admission::new(&own.value, gateway).admit(&host, namespace).is_some())
    });
    if !admits && !service.hosts.is_empty() {
        let hosts: Vec<&str> =
            gateway.servers.iter().flat_map(|s| &s.hosts).map(|host| host.value.as_str()).collect();
        let message =
            format!("none of the hosts is admitted by gateway {key}, which serves {}", hosts.join(", "));
        problems.push(service.meta.problem(Level::Warning, "IST0132", path, written.at, message));
    }
}

fn unknown_gateway(
    from: &Gateways<'_>,
    service: &VirtualService,
    written: &At<String>,
    path: &str,
) -> Problem {
    let name = written.value.rsplit('/').next().unwrap_or_default();
    let message = format!("Referenced gateway not found: {:?}", written.value);
    // Without any Gateway the default one serves the rules: that is how they are tried out alone.
    let level = if from.gateways.is_empty() { Level::Warning } else { Level::Error };
    let problem = service.meta.problem(level, "IST0101", path, written.at, message);
    let elsewhere =
        from.gateways.iter().map(|gateway| &gateway.meta.object).find(|object| object.name == name);
    match elsewhere {
        Some(object) => {
            let full = format!("{}/{}", object.namespace, object.name);
            problem.with_help(format!(
                "found {full} (SC011: a short name means the VirtualService's own namespace); write `{full}`"
            ))
        }
        None if from.gateways.is_empty() => problem
            .with_help("no Gateway is loaded; until there is one the default gateway serves these rules"),
        None => problem.with_help(known_gateways(from)),
    }
}

fn known_gateways(from: &Gateways<'_>) -> String {
    let objects = from.gateways.iter().map(|gateway| &gateway.meta.object);
    let names: Vec<String> = objects.map(|o| format!("`{}/{}`", o.namespace, o.name)).take(5).collect();
    format!("the gateways here are {}", names.join(", "))
}
