//! Lints on VirtualServices: hosts that nobody will send, rules that are never reached, retries that never
//! happen.

use crate::api::istio::{HttpMatch, HttpRule, VirtualService};
use crate::model::RetryOn;
use crate::report::{Level, Problem};
use crate::resolve::registry::Registry;
use crate::resolve::routes::{self, Through};
use crate::resolve::{Input, names, tables};
use std::time::Duration;

pub(super) fn check(input: &Input<'_>, registry: &Registry, problems: &mut Vec<Problem>) {
    for service in &input.virtual_services {
        hosts(service, input, registry, problems);
        reachability(service, problems);
        for (i, rule) in service.http.iter().enumerate() {
            problems.extend(retries(service, rule, i));
        }
    }
}

fn hosts(service: &VirtualService, input: &Input<'_>, registry: &Registry, problems: &mut Vec<Problem>) {
    let namespace = &service.meta.object.namespace;
    let on_mesh = routes::bound(&service.gateways, namespace, Through::Mesh);
    let on_gateway = routes::bound(&service.gateways, namespace, Through::AnyGateway);
    for (i, written) in service.hosts.iter().enumerate() {
        let host = names::expand(&written.value, namespace);
        let path = format!("spec.hosts[{i}]");
        let mut warn = |code, message: String, help: String| {
            let problem = service.meta.problem(Level::Warning, code, path.as_str(), written.at, message);
            problems.push(problem.with_help(help));
        };
        if on_gateway && !on_mesh && host != written.value && !names::is_wildcard(&host) {
            warn(
                "SC013",
                format!("clients of the gateway must send the host {host:?}"),
                "write the name that clients use, or `*`".to_owned(),
            );
        }
        if on_mesh && !on_gateway && registry.service(&host).is_none() && names::looks_external(&host) {
            warn(
                "SC012",
                "these rules act within the mesh alone, where no service has this host".to_owned(),
                match registry.meant(&host) {
                    Some(meant) => {
                        format!("the service is called {meant:?}; only a name without dots is completed")
                    }
                    None => gateway_help(input, &host, namespace),
                },
            );
        }
    }
}

/// Names the gateway that would serve `host`, where there is one.
fn gateway_help(input: &Input<'_>, host: &str, namespace: &str) -> String {
    let serves = |written: &str| {
        let pattern = written.rsplit('/').next().unwrap_or_default();
        names::intersect(pattern, host).is_some()
    };
    let mut gateways = input.gateways.iter();
    let found = gateways.find(|g| g.servers.iter().flat_map(|s| &s.hosts).any(|h| serves(&h.value)));
    match found.map(|gateway| &gateway.meta.object) {
        Some(object) if object.namespace == namespace => format!("add `gateways: [{}]`", object.name),
        Some(object) => format!("add `gateways: [{}/{}]`", object.namespace, object.name),
        None => "add `gateways: […]` with the Gateway that clients come through, or a ServiceEntry for it"
            .to_owned(),
    }
}

/// Whether a rule takes every request of every listener, so that nothing behind it is reached.
fn takes_all(rule: &HttpRule) -> bool {
    let unconditional = |block: &HttpMatch| {
        let free = block.port.is_none() && block.gateways.is_empty();
        let free = free && block.source.is_none() && block.claims.is_none();
        free && tables::is_catch_all(&routes::matches(block))
    };
    rule.matches.is_empty() || rule.matches.iter().any(unconditional)
}

fn reachability(service: &VirtualService, problems: &mut Vec<Problem>) {
    let Some(last) = service.http.iter().position(takes_all) else { return };
    for (i, rule) in service.http.iter().enumerate().skip(last + 1) {
        let message = format!("this rule is never reached: spec.http[{last}] takes every request");
        let problem =
            service.meta.problem(Level::Warning, "IST0130", format!("spec.http[{i}]"), rule.at, message);
        problems.push(problem.with_help("put rules without conditions last"));
    }
}

fn retries(service: &VirtualService, rule: &HttpRule, number: usize) -> Option<Problem> {
    let retries = rule.retries.as_ref().filter(|retries| retries.attempts > 0)?;
    let per_try = retries.per_try_timeout.as_ref()?;
    let path = format!("spec.http[{number}].retries.perTryTimeout");
    let on = retries.retry_on.as_ref().map_or(RetryOn::istio_default(), |on| on.value.0);
    let timed_out = RetryOn::SERVER_ERROR.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET);
    let finding =
        |level, message: String| service.meta.problem(level, "SC030", path.clone(), per_try.at, message);
    if !on.any(timed_out) {
        let message = format!(
            "a try that takes longer than {} ends as 504 and is not tried again under these conditions",
            length(per_try.value)
        );
        let help = "add `reset` (or `gateway-error`, `5xx`) to retryOn";
        return Some(finding(Level::Warning, message).with_help(help));
    }
    let timeout = rule.timeout.as_ref()?.value;
    let wanted = per_try.value.saturating_mul(retries.attempts.saturating_add(1));
    if per_try.value >= timeout {
        let message = format!(
            "one try may last as long as the whole timeout of {}: it is never tried again",
            length(timeout)
        );
        return Some(finding(Level::Warning, message));
    }
    (wanted > timeout).then(|| {
        let message =
            format!("all tries may take {}; the timeout of {} ends them", length(wanted), length(timeout));
        finding(Level::Info, message)
    })
}

/// `1.5s`, `30ms`.
pub(super) fn length(duration: Duration) -> String {
    format!("{duration:?}")
}
