//! Lints on DestinationRules: rules that hide each other, breakers that cannot break, subsets of nobody.

use super::rules::length;
use crate::api::istio::{DestinationRule, TrafficPolicy};
use crate::report::{Level, Problem};
use crate::resolve::registry::{self, Registry, Service, Source};
use crate::resolve::{Input, names};
use std::collections::BTreeMap;
use std::time::Duration;

/// Connecting across machines takes longer often enough.
const SHORT_CONNECT: Duration = Duration::from_millis(100);

pub(super) fn check(input: &Input<'_>, registry: &Registry, problems: &mut Vec<Problem>) {
    let mut rules: Vec<&DestinationRule> = input.destination_rules.clone();
    rules.sort_by(|a, b| a.meta.object.name.cmp(&b.meta.object.name));
    let patterns: Vec<&DestinationRule> =
        rules.iter().copied().filter(|rule| names::is_wildcard(&rule.host.value)).collect();
    let mut first: BTreeMap<(String, String), &DestinationRule> = BTreeMap::new();
    for rule in &rules {
        let host = names::expand(&rule.host.value, &rule.meta.object.namespace);
        problems.extend(unknown_host(rule, &host, registry));
        problems.extend(hides(rule, &host, &patterns));
        for (path, policy) in policies(rule) {
            problems.extend(short_connect(rule, &path, policy));
            problems.extend(never_ejects(rule, &path, policy, &host, registry));
        }
        empty_subsets(rule, &host, registry, problems);
        match first.get(&(rule.meta.object.namespace.clone(), host.clone())) {
            Some(earlier) => problems.extend(outvoted(rule, earlier)),
            None => {
                first.insert((rule.meta.object.namespace.clone(), host), rule);
            }
        }
    }
}

/// Every traffic policy of a rule, with its path.
fn policies(rule: &DestinationRule) -> Vec<(String, &TrafficPolicy)> {
    let mut all: Vec<(String, &TrafficPolicy)> = Vec::new();
    let own = rule.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate().filter_map(|(i, subset)| {
        Some((format!("spec.subsets[{i}].trafficPolicy"), subset.traffic_policy.as_ref()?))
    });
    for (path, policy) in own.chain(subsets) {
        for (i, port) in policy.port_level.iter().enumerate() {
            all.push((format!("{path}.portLevelSettings[{i}]"), &port.policy));
        }
        all.push((path, policy));
    }
    all
}

fn unknown_host(rule: &DestinationRule, host: &str, registry: &Registry) -> Option<Problem> {
    if registry.covers_any(host) || registry.service(host).is_some() {
        return None;
    }
    let message = format!("no service has the host {host:?}");
    Some(rule.meta.problem(Level::Warning, "IST0174", "spec.host", rule.host.at, message))
}

/// An exact host takes nothing from a pattern that covers it.
fn hides(rule: &DestinationRule, host: &str, patterns: &[&DestinationRule]) -> Option<Problem> {
    let hidden = patterns.iter().find(|other| {
        let namespace = &other.meta.object.namespace;
        let pattern = names::expand(&other.host.value, namespace);
        *namespace == rule.meta.object.namespace
            && pattern != host
            && names::covers(&pattern, host)
            && other.traffic_policy.is_some()
    })?;
    let message = format!(
        "for this host nothing of {} ({}) holds any more: rules replace each other",
        hidden.meta.object, hidden.host.value
    );
    let problem = rule.meta.problem(Level::Warning, "SC034", "spec.host", rule.host.at, message);
    Some(problem.with_help("repeat here what shall hold from it, its tls mode included"))
}

/// A second policy for one host is not used.
fn outvoted(rule: &DestinationRule, first: &DestinationRule) -> Option<Problem> {
    let policy = rule.traffic_policy.as_ref()?;
    first.traffic_policy.as_ref()?;
    let message = format!(
        "{} ({}:{}) is for the same host and its policy is taken; this one is not used",
        first.meta.object,
        first.meta.file.display(),
        first.meta.at.line
    );
    let problem = rule.meta.problem(Level::Warning, "SC033", "spec.trafficPolicy", policy.at, message);
    Some(problem.with_help("put them into one DestinationRule; of several the first by name wins"))
}

fn short_connect(rule: &DestinationRule, path: &str, policy: &TrafficPolicy) -> Option<Problem> {
    let timeout = policy.connection_pool.as_ref()?.connect_timeout.as_ref()?;
    if timeout.value >= SHORT_CONNECT {
        return None;
    }
    let message = format!("{} is short: one lost packet fails a connection", length(timeout.value));
    let path = format!("{path}.connectionPool.tcp.connectTimeout");
    Some(rule.meta.problem(Level::Warning, "SC032", path, timeout.at, message))
}

/// With few endpoints even the first ejection would pass the permitted share.
fn never_ejects(
    rule: &DestinationRule,
    path: &str,
    policy: &TrafficPolicy,
    host: &str,
    registry: &Registry,
) -> Option<Problem> {
    let outlier = policy.outlier_detection.as_ref()?;
    let percent = outlier.max_ejection_percent.as_ref().map_or(10, |percent| percent.value);
    let endpoints = registry.service(host).map(known_endpoints).filter(|count| *count > 0)?;
    if 100 / endpoints <= percent as usize {
        return None;
    }
    // An only endpoint is better kept; that is hardly a mistake.
    let level = if endpoints > 1 { Level::Warning } else { Level::Info };
    let message =
        format!("of {endpoints} endpoints none is ever ejected: one is more than {percent} percent");
    let (path, at) = match &outlier.max_ejection_percent {
        Some(percent) => (format!("{path}.outlierDetection.maxEjectionPercent"), percent.at),
        None => (format!("{path}.outlierDetection"), outlier.at),
    };
    let help = format!("set maxEjectionPercent to at least {}", 100usize.div_ceil(endpoints));
    Some(rule.meta.problem(level, "SC031", path, at, message).with_help(help))
}

fn known_endpoints(service: &Service) -> usize {
    let counts = service.ports.iter().map(|port| match &port.source {
        Source::Static(endpoints) => endpoints.len(),
        Source::Dns(_) => 0,
    });
    counts.max().unwrap_or(0)
}

/// A subset that no endpoint belongs to, where endpoints are known.
fn empty_subsets(rule: &DestinationRule, host: &str, registry: &Registry, problems: &mut Vec<Problem>) {
    let Some(service) = registry.service(host).filter(|service| known_endpoints(service) > 0) else { return };
    for (i, subset) in rule.subsets.iter().enumerate() {
        let wanted: registry::Labels = subset.labels.iter().cloned().collect();
        let carried = service.ports.iter().any(|port| match &port.source {
            Source::Static(all) => all.iter().any(|(_, labels)| registry::carries(labels, &wanted)),
            Source::Dns(all) => all.iter().any(|(_, labels)| registry::carries(labels, &wanted)),
        });
        if !carried {
            let message =
                format!("no endpoint of {host:?} carries the labels of subset {:?}", subset.name.value);
            let path = format!("spec.subsets[{i}]");
            problems.push(rule.meta.problem(Level::Warning, "IST0173", path, subset.name.at, message));
        }
    }
}
