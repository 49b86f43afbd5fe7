//! Lints on who trusts whom: TLS that the destination will not take, policies that keep everybody out, hosts that
//! are served in plaintext beside TLS.

use crate::api::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, Selection, ServerProtocol,
    TlsSettings, TrafficPolicy,
};
use crate::model::{self, ClientMode, Mtls, PolicyAction};
use crate::report::{Level, Problem};
use crate::resolve::registry::{Port, Registry, Service, Source};
use crate::resolve::security::{Guards, Policies};
use crate::resolve::{Input, names};

/// An issuer whose tokens have no groups.
const GOOGLE: &str = "https://accounts.google.com";

pub(super) fn check(input: &Input<'_>, registry: &Registry, root: &str, problems: &mut Vec<Problem>) {
    // Doubles are told when the policies are resolved.
    let policies = Policies::new(input, root, &mut Vec::new());
    for rule in &input.destination_rules {
        problems.extend(refused_tls(rule, registry, &policies));
    }
    for policy in &input.authorization_policies {
        problems.extend(only_itself(policy, input, root));
        problems.extend(groups_of_google(policy, input));
    }
    problems.extend(input.peer_authentications.iter().filter_map(|peer| hardly_meant(peer, root)));
    problems.extend(input.gateways.iter().copied().filter_map(beside_tls));
}

/// The first port of a service for which the rule says a TLS that its workloads refuse.
fn refused_tls(rule: &DestinationRule, registry: &Registry, policies: &Policies<'_>) -> Option<Problem> {
    let own = rule.traffic_policy.as_ref()?;
    let mine = |service: &&Service| {
        let found = registry.rule(service);
        !service.behind.outside && found.is_some_and(|found| found.origin == rule.meta.object)
    };
    registry.services().filter(mine).find_map(|service| {
        let mut guards = Guards::new(policies);
        service.ports.iter().find_map(|port| {
            let tls = settings(own, port.number)?;
            let guard = guards.of_endpoints(service, &port.source, None, &service.host)?;
            let asked = guards.mtls(&guard)?;
            conflict(rule, service, port, tls, &asked)
        })
    })
}

/// What is written for a port.
fn settings(policy: &TrafficPolicy, port: u16) -> Option<&TlsSettings> {
    let own = policy.port_level.iter().find(|own| own.port.value == port);
    own.map_or(policy, |own| &own.policy).tls.as_ref()
}

fn conflict(
    rule: &DestinationRule,
    service: &Service,
    port: &Port,
    tls: &TlsSettings,
    asked: &model::MtlsPolicy,
) -> Option<Problem> {
    let takes = |mode: Mtls| match &port.source {
        Source::Static(all) if !all.is_empty() => {
            all.iter().any(|(endpoint, _)| asked.at(endpoint.address.port()) == mode)
        }
        _ => asked.mode == mode,
    };
    let said = match tls.mode {
        None => "DISABLE",
        Some(ClientMode::Simple) => "SIMPLE",
        Some(ClientMode::Mutual) => "MUTUAL",
        Some(ClientMode::IstioMutual | ClientMode::Auto) => "ISTIO_MUTUAL",
    };
    let asks = match said {
        "ISTIO_MUTUAL" if takes(Mtls::Disable) => "DISABLE",
        "DISABLE" | "SIMPLE" | "MUTUAL" if takes(Mtls::Strict) => "STRICT",
        _ => return None,
    };
    let host = &service.host;
    let message = format!(
        "PeerAuthentication asks {asks} of {host:?}, and callers of its port {} speak {said}: they are refused",
        port.number
    );
    let foreign = tls.sni.as_ref().filter(|sni| *sni != host && asks == "STRICT");
    let help = match (foreign, asks) {
        (Some(sni), _) => {
            format!(
                "{sni:?} is called by a ServiceEntry of its own; leave `tls` away for what is in the mesh"
            )
        }
        (None, "STRICT") => "write ISTIO_MUTUAL, or leave `tls` away".to_owned(),
        _ => "write DISABLE, or leave `tls` away".to_owned(),
    };
    Some(rule.meta.problem(Level::Warning, "IST0113", &tls.path, tls.at, message).with_help(help))
}

/// All that a workload lets in is itself: by its name, as its account is seldom written beside it.
fn only_itself(policy: &AuthorizationPolicy, input: &Input<'_>, root: &str) -> Option<Problem> {
    let (labels, rules) = (&policy.selection.labels, &policy.policy.rules);
    let name = ["app", "app.kubernetes.io/name"].iter().find_map(|key| labels.get(*key))?;
    let home = &policy.meta.object.namespace;
    let is_own = |principal: &String| {
        let parts: Vec<&str> = principal.rsplitn(4, '/').collect();
        let [account, "sa", namespace, _] = parts.as_slice() else { return false };
        let rest = account.strip_prefix(name.as_str());
        *namespace == home && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let principals: Vec<&String> = policy.principals.iter().map(|(_, written)| &written.value).collect();
    let all = rules.iter().all(|rule| {
        !rule.from.is_empty() && rule.from.iter().all(|source| !source.principals.any.is_empty())
    });
    let allows =
        |policy: &AuthorizationPolicy| policy.policy.action == PolicyAction::Allow && !policy.policy.dry_run;
    let others = input.authorization_policies.iter().any(|other| {
        let near = other.meta.object.namespace == *home || other.meta.object.namespace == root;
        other.meta.object != policy.meta.object && near && allows(other) && meets(&other.selection, policy)
    });
    if rules.is_empty() || !all || !allows(policy) || others || !principals.into_iter().all(is_own) {
        return None;
    }
    let (path, written) = policy.principals.first()?;
    let message = format!("{name} lets in nobody but itself: {:?} is its own account", written.value);
    let help = "name the accounts of those who call it; of a gateway it is \
                `cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`";
    Some(policy.meta.problem(Level::Warning, "SC022", path.clone(), written.at, message).with_help(help))
}

/// Whether a workload can carry what both select.
fn meets(other: &Selection, policy: &AuthorizationPolicy) -> bool {
    let apart = |(key, value): (&String, &String)| other.labels.get(key).is_some_and(|own| own != value);
    !policy.selection.labels.iter().any(apart)
}

fn groups_of_google(policy: &AuthorizationPolicy, input: &Input<'_>) -> Option<Problem> {
    let mut keys = policy.policy.rules.iter().flat_map(|rule| &rule.when);
    if !keys.any(|condition| condition.key == "request.auth.claims[groups]") {
        return None;
    }
    let home = &policy.meta.object.namespace;
    let mut issuers = input
        .request_authentications
        .iter()
        .filter(|request| request.meta.object.namespace == *home && meets(&request.selection, policy))
        .flat_map(|request| &request.rules)
        .map(|rule| rule.issuer.as_str())
        .peekable();
    issuers.peek()?;
    if !issuers.all(|issuer| issuer == GOOGLE) {
        return None;
    }
    let (path, at) = policy.needs_token.clone()?;
    let message = "tokens of accounts.google.com have no claim `groups`";
    Some(policy.meta.problem(Level::Info, "SC021", path, at, message.to_owned()))
}

/// What people take a mode, or the place of an object, for.
fn hardly_meant(peer: &PeerAuthentication, root: &str) -> Option<Problem> {
    let namespace = &peer.meta.object.namespace;
    let message = match peer.mode {
        Some(Mtls::Disable) => {
            "DISABLE takes plaintext alone; PERMISSIVE takes plaintext and mutual TLS".to_owned()
        }
        Some(Mtls::Strict) if peer.selection.is_everything() && namespace != root => {
            format!("it holds for namespace {namespace}; for the whole mesh it stands in {root}")
        }
        _ => return None,
    };
    Some(peer.meta.problem(Level::Info, "SC026", "spec.mtls.mode", peer.meta.at, message))
}

/// A host that is served in plaintext and with TLS, and nobody is sent from one to the other.
fn beside_tls(gateway: &Gateway) -> Option<Problem> {
    let covers = |a: &str, b: &str| a == b || names::covers(a, b);
    let (i, server) = gateway.servers.iter().enumerate().find(|(_, server)| {
        server.protocol.value == ServerProtocol::Http
            && !server.https_redirect
            && gateway.servers.iter().filter(|other| other.tls.is_some()).any(|other| {
                let pairs = server.hosts.iter().flat_map(|a| other.hosts.iter().map(move |b| (a, b)));
                pairs.into_iter().any(|(a, b)| covers(&a.value, &b.value) || covers(&b.value, &a.value))
            })
    })?;
    let message =
        "hosts that have TLS are served in plaintext too; `tls: {httpsRedirect: true}` sends to https";
    let path = format!("spec.servers[{i}]");
    Some(gateway.meta.problem(Level::Info, "SC025", path, server.at, message.to_owned()))
}
