//! Routes: the rules of a VirtualService as they apply on one listener and port.

use super::names;
use super::registry::{Missing, Reference, Registry, Service};
use super::split::{self, Share};
use super::tables;
use crate::api::istio::{self, HttpDestination, HttpMatch, HttpRule, RuleAction, VirtualService};
use crate::model::{
    Action, DirectResponse, Forward, HeaderOps, Match, ObjectRef, PathRewrite, Redirect, Retry, RetryOn,
    Rewrite, Route, StringMatch, WeightedDestination,
};
use crate::report::{Level, Problem};

/// The gateway name that stands for the mesh.
pub(crate) const MESH: &str = "mesh";

/// Where rules are about to apply.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// What destinations come to.
    pub registry: &'a Registry,
    /// The listener.
    pub listener: Through<'a>,
    /// The port that was dialled there.
    pub port: u16,
}

/// Which listener it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through<'a> {
    /// The mesh listener.
    Mesh,
    /// The gateway of that key (`namespace/name`).
    Gateway(&'a str),
    /// The default gateway, which stands for all gateways.
    AnyGateway,
}

/// The key of a gateway named in a resource of `namespace`: `namespace/name`, or `mesh`.
pub(crate) fn gateway_key(written: &str, namespace: &str) -> String {
    if written == MESH || written.contains('/') {
        return written.to_owned();
    }
    match names::service_parts(written) {
        Some((name, namespace)) => format!("{namespace}/{name}"),
        None => format!("{namespace}/{written}"),
    }
}

/// Whether any of the gateways named is this listener; naming none names the mesh.
pub(crate) fn bound(gateways: &[crate::report::At<String>], namespace: &str, listener: Through<'_>) -> bool {
    if gateways.is_empty() {
        return listener == Through::Mesh;
    }
    gateways.iter().any(|written| {
        let key = gateway_key(&written.value, namespace);
        match listener {
            Through::Mesh => key == MESH,
            Through::Gateway(own) => key == own,
            Through::AnyGateway => key != MESH,
        }
    })
}

/// The routes of `service` in this scene, in order; none behind one that takes every request.
pub(crate) fn build(service: &VirtualService, scene: &Scene<'_>, problems: &mut Vec<Problem>) -> Vec<Route> {
    let mut routes = Vec::new();
    for (i, rule) in service.http.iter().enumerate() {
        let always = [HttpMatch::default()];
        let blocks = if rule.matches.is_empty() { &always[..] } else { &rule.matches };
        for block in blocks.iter().filter(|block| applies(block, service, scene)) {
            let name = match (&rule.name, &block.name) {
                (Some(rule), Some(block)) => format!("{rule}.{block}"),
                (Some(rule), None) => rule.clone(),
                (None, _) => "default".to_owned(),
            };
            let rule_at = Located { service, rule, number: i };
            let action = action(&rule_at, block, scene, problems);
            let matches = matches(block);
            let takes_all = tables::is_catch_all(&matches);
            routes.push(Route { name, matches, action, origin: service.meta.object.clone() });
            if takes_all {
                return routes;
            }
        }
    }
    routes
}

/// The one route of a service that no VirtualService speaks for.
pub(crate) fn plain(service: &Service, scene: &Scene<'_>) -> Route {
    let reference =
        Reference { host: &service.host, subset: None, port: Some(scene.port), dialled: scene.port };
    let found = scene.registry.destination(&reference);
    let weighted = split::flatten(vec![Share { weight: 1, parts: found.clusters }]);
    let destinations = weighted.into_iter().map(|(cluster, weight)| WeightedDestination {
        cluster,
        weight,
        headers: HeaderOps::default(),
        written: service.host.clone(),
    });
    Route {
        name: "default".to_owned(),
        matches: Match::default(),
        action: Action::Forward(Forward {
            destinations: destinations.collect(),
            timeout: None,
            retry: Retry::istio_default(),
            rewrite: Rewrite::default(),
            headers: HeaderOps::default(),
        }),
        origin: service.origin.clone(),
    }
}

/// One rule and where it is written.
struct Located<'a> {
    service: &'a VirtualService,
    rule: &'a HttpRule,
    number: usize,
}

fn applies(block: &HttpMatch, service: &VirtualService, scene: &Scene<'_>) -> bool {
    let namespace = &service.meta.object.namespace;
    let here = block.gateways.is_empty() || bound(&block.gateways, namespace, scene.listener);
    let port = block.port.as_ref().is_none_or(|port| port.value == scene.port);
    // Who calls is not known on the mesh listener; gateways do not ask.
    let caller = block.source.is_none() || scene.listener != Through::Mesh;
    here && port && caller && block.claims.is_none()
}

/// The conditions of a block that are asked of each request.
pub(crate) fn matches(block: &HttpMatch) -> Match {
    Match {
        uri: block.uri.clone(),
        ignore_uri_case: block.ignore_uri_case,
        scheme: block.scheme.clone(),
        method: block.method.clone(),
        authority: block.authority.clone(),
        headers: block.headers.clone(),
        without_headers: block.without_headers.clone(),
        query: block.query.clone(),
    }
}

fn action(
    located: &Located<'_>,
    block: &HttpMatch,
    scene: &Scene<'_>,
    problems: &mut Vec<Problem>,
) -> Action {
    let rule = located.rule;
    match &rule.action {
        RuleAction::Route(written) => Action::Forward(Forward {
            destinations: destinations(located, written, scene, problems),
            timeout: rule.timeout.as_ref().map(|timeout| timeout.value),
            retry: retry(rule.retries.as_ref()),
            rewrite: rewrite(rule.rewrite.as_ref(), block),
            headers: rule.headers.clone(),
        }),
        RuleAction::Redirect(redirect) => Action::Redirect(self::redirect(redirect, rule, block)),
        RuleAction::DirectResponse(direct) => Action::Direct(DirectResponse {
            status: direct.status,
            body: direct.body.clone(),
            headers: rule.headers.response.clone(),
        }),
        // The rules it hands over to are not read: such a request must fail, not fall to a later rule.
        RuleAction::Delegate(_) => Action::Forward(Forward {
            destinations: vec![WeightedDestination {
                cluster: format!("delegate|{}|{}", located.service.meta.object, located.number),
                weight: 1,
                headers: HeaderOps::default(),
                written: "delegate".to_owned(),
            }],
            timeout: None,
            retry: Retry::off(),
            rewrite: Rewrite::default(),
            headers: HeaderOps::default(),
        }),
    }
}

fn destinations(
    located: &Located<'_>,
    written: &[HttpDestination],
    scene: &Scene<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<WeightedDestination> {
    let namespace = &located.service.meta.object.namespace;
    let mut shares = Vec::new();
    for (i, destination) in written.iter().enumerate() {
        let host = names::expand(&destination.host.value, namespace);
        let found = scene.registry.destination(&Reference {
            host: &host,
            subset: destination.subset.as_ref().map(|subset| subset.value.as_str()),
            port: destination.port.as_ref().map(|port| port.value),
            dialled: scene.port,
        });
        if let Some(Missing::AmbiguousPort(ports)) = &found.missing {
            problems.push(ambiguous(located, i, destination, ports, scene.port));
        }
        // The weight of an only destination means nothing.
        let weight = if written.len() == 1 { 1 } else { u64::from(destination.weight) };
        let parts = found.clusters.into_iter().map(|(cluster, share)| ((i, cluster), share)).collect();
        shares.push(Share { weight, parts });
    }
    let flat = split::flatten(shares).into_iter();
    flat.map(|((i, cluster), weight)| WeightedDestination {
        cluster,
        weight,
        headers: written[i].headers.clone(),
        written: described(&written[i]),
    })
    .collect()
}

/// `reviews subset v9`.
pub(crate) fn described(destination: &HttpDestination) -> String {
    let mut text = destination.host.value.clone();
    if let Some(subset) = &destination.subset {
        text.push_str(" subset ");
        text.push_str(&subset.value);
    }
    if let Some(port) = &destination.port {
        text.push_str(&format!(" port {}", port.value));
    }
    text
}

fn ambiguous(
    located: &Located<'_>,
    number: usize,
    destination: &HttpDestination,
    ports: &[u16],
    dialled: u16,
) -> Problem {
    let path = format!("spec.http[{}].route[{number}].destination.port", located.number);
    let host = &destination.host;
    let message = format!("{:?} has several ports and none of them is {dialled}, the one called", host.value);
    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
    let help = format!("add `port: {{number: …}}` with one of {}", listed.join(", "));
    let meta = &located.service.meta;
    meta.problem(Level::Error, "IST0112", path, host.at, message).with_help(help)
}

fn retry(written: Option<&istio::Retries>) -> Retry {
    let Some(written) = written else { return Retry::istio_default() };
    if written.attempts == 0 {
        return Retry::off();
    }
    let default = Retry::istio_default();
    let (on, codes) = match &written.retry_on {
        Some(conditions) => conditions.value.clone(),
        None => (default.on, Vec::new()),
    };
    Retry {
        attempts: written.attempts,
        per_try_timeout: written.per_try_timeout.as_ref().map(|timeout| timeout.value),
        on: if codes.is_empty() { on } else { on.with(RetryOn::STATUS_CODES) },
        codes,
        backoff: written.backoff.unwrap_or(default.backoff),
        avoid_tried: written.ignore_previous_hosts,
    }
}

/// A written path takes the place of what was matched: of the prefix, else of the whole path.
fn replacement(with: &str, block: &HttpMatch) -> PathRewrite {
    match &block.uri {
        Some(StringMatch::Prefix(prefix)) => {
            PathRewrite::Prefix { from_len: prefix.len(), with: with.to_owned() }
        }
        _ => PathRewrite::Full(with.to_owned()),
    }
}

fn rewrite(written: Option<&istio::Rewrite>, block: &HttpMatch) -> Rewrite {
    let Some(written) = written else { return Rewrite::default() };
    let by_pattern = written
        .uri_regex
        .as_ref()
        .map(|(pattern, with)| PathRewrite::Regex { pattern: pattern.clone(), with: with.clone() });
    let path = by_pattern.or_else(|| written.uri.as_ref().map(|uri| replacement(uri, block)));
    Rewrite { path, authority: written.authority.clone() }
}

fn redirect(written: &istio::Redirect, rule: &HttpRule, block: &HttpMatch) -> Redirect {
    let path = match (&written.prefix_rewrite, &written.uri) {
        (Some(prefix), _) => Some(replacement(prefix, block)),
        (None, Some(uri)) => Some(PathRewrite::Full(uri.clone())),
        (None, None) => None,
    };
    Redirect {
        path,
        authority: written.authority.clone(),
        port: written.port,
        scheme: written.scheme.clone(),
        code: written.code,
        headers: rule.headers.response.clone(),
    }
}

/// The object a route follows from, for those that ask.
pub(crate) fn is_written(origin: &ObjectRef) -> bool {
    origin.kind == "VirtualService"
}
