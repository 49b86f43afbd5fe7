//! Lints on policies: those that select nobody, need tokens that nobody verifies, name callers that hardly exist.

use crate::api::Meta;
use crate::api::istio::{AuthorizationPolicy, Selection};
use crate::report::{Level, Problem};
use crate::resolve::Input;
use crate::resolve::registry::{self, Labels, Registry};
use std::collections::BTreeMap;

/// The service account of the gateway that Istio installs.
const GATEWAY_ACCOUNT: &str = "istio-ingressgateway-service-account";

pub(super) fn check(input: &Input<'_>, registry: &Registry, root: &str, problems: &mut Vec<Problem>) {
    let workloads = Workloads::new(input, registry);
    let policies = input.authorization_policies.iter().map(|o| (&o.meta, &o.selection));
    let requests = input.request_authentications.iter().map(|o| (&o.meta, &o.selection));
    let peers = input.peer_authentications.iter().map(|o| (&o.meta, &o.selection));
    for (meta, selection) in policies.chain(requests).chain(peers) {
        problems.extend(selects_nobody(meta, selection, &workloads, root));
    }
    for policy in &input.authorization_policies {
        problems.extend(without_tokens(policy, input, root));
        problems.extend(gateway_elsewhere(policy, &workloads, root));
    }
}

/// The labels of all that is known to run, by namespace.
struct Workloads<'a> {
    by_namespace: BTreeMap<&'a str, Vec<Labels>>,
    gateways: Vec<&'a Labels>,
}

impl<'a> Workloads<'a> {
    fn new(input: &Input<'a>, registry: &'a Registry) -> Workloads<'a> {
        let mut by_namespace: BTreeMap<&'a str, Vec<Labels>> = BTreeMap::new();
        for pod in &input.pods {
            by_namespace.entry(&pod.meta.object.namespace).or_default().push(pod.meta.labels.clone());
        }
        for workload in &input.workloads {
            let labels = workload.template_labels.iter().cloned().collect();
            by_namespace.entry(&workload.meta.object.namespace).or_default().push(labels);
        }
        for entry in &input.service_entries {
            let all = by_namespace.entry(&entry.meta.object.namespace).or_default();
            all.extend(entry.endpoints.iter().map(|endpoint| endpoint.labels.iter().cloned().collect()));
            all.push(entry.meta.labels.clone());
        }
        for service in registry.services() {
            if let Some(labels) = registry.revision_labels(service) {
                by_namespace.entry(&service.namespace).or_default().push(labels.clone());
            }
        }
        for service in &input.services {
            let selector = service.selector.iter().cloned().collect();
            by_namespace.entry(&service.meta.object.namespace).or_default().push(selector);
        }
        by_namespace.values_mut().for_each(|all| all.retain(|labels| !labels.is_empty()));
        by_namespace.retain(|_, all| !all.is_empty());
        let gateways = input.gateways.iter().map(|gateway| &gateway.selector).collect();
        Workloads { by_namespace, gateways }
    }

    fn any(&self, namespace: &str, wanted: &Labels, root: &str) -> bool {
        let here = |name: &str| {
            self.by_namespace
                .get(name)
                .is_some_and(|all| all.iter().any(|own| registry::carries(own, wanted)))
        };
        let gateway = self.gateways.iter().any(|own| registry::carries(own, wanted));
        let usual = |(key, value): (&String, &String)| {
            matches!(
                (key.as_str(), value.as_str()),
                ("istio", "ingressgateway") | ("app", "istio-ingressgateway")
            )
        };
        let everywhere = || self.by_namespace.keys().any(|name| here(name));
        here(namespace) || gateway || wanted.iter().all(usual) || (namespace == root && everywhere())
    }
}

/// Only where something is known to run: policies alone are often looked at without it.
fn selects_nobody(
    meta: &Meta,
    selection: &Selection,
    workloads: &Workloads<'_>,
    root: &str,
) -> Option<Problem> {
    let namespace = meta.object.namespace.as_str();
    let known = workloads.by_namespace.contains_key(namespace) || namespace == root;
    let unknown = !known || workloads.by_namespace.is_empty() || selection.labels.is_empty();
    if unknown || workloads.any(namespace, &selection.labels, root) {
        return None;
    }
    let labels: Vec<String> = selection.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let message = format!("No matching workloads for this resource with the labels {}", labels.join(", "));
    let problem = meta.problem(Level::Warning, "IST0127", "spec.selector", selection.at, message);
    Some(problem.with_help(
        "of a function they are on its template; Knative sets `app` to the revision's name, and \
         serving.knative.dev/service to the function's",
    ))
}

/// A policy about tokens where no RequestAuthentication can concern the same workloads.
fn without_tokens(policy: &AuthorizationPolicy, input: &Input<'_>, root: &str) -> Option<Problem> {
    let (path, at) = policy.needs_token.clone()?;
    let namespace = &policy.meta.object.namespace;
    let meets = |other: &Selection| {
        let apart = |(key, value): (&String, &String)| other.labels.get(key).is_some_and(|own| own != value);
        !policy.selection.labels.iter().any(apart)
    };
    let verified = input.request_authentications.iter().any(|request| {
        let home = &request.meta.object.namespace;
        (home == namespace || home == root || namespace == root) && meets(&request.selection)
    });
    if verified {
        return None;
    }
    let message = "no RequestAuthentication concerns the same workloads: no token is ever verified, and this \
                   never matches";
    let problem = policy.meta.problem(Level::Warning, "SC021", path, at, message);
    Some(problem.with_help("add a RequestAuthentication with the issuer, and the same selector"))
}

/// The gateway's account is looked for in the wrong namespace.
fn gateway_elsewhere(policy: &AuthorizationPolicy, workloads: &Workloads<'_>, root: &str) -> Option<Problem> {
    let (path, written) = policy.principals.iter().find(|(_, principal)| {
        let parts: Vec<&str> = principal.value.rsplitn(4, '/').collect();
        matches!(parts.as_slice(), [account, "sa", namespace, rest]
            if *account == GATEWAY_ACCOUNT && *namespace != root && rest.ends_with("/ns"))
    })?;
    let namespace = written.value.rsplit('/').nth(2).unwrap_or_default();
    let usual: Labels = [("istio".to_owned(), "ingressgateway".to_owned())].into();
    let runs = workloads.by_namespace.get(namespace);
    if runs.is_some_and(|all| all.iter().any(|own| registry::carries(own, &usual))) {
        return None;
    }
    let message = format!("{:?}: the gateway of an installation stands in namespace {root}", written.value);
    let help =
        format!("write {:?}", written.value.replace(&format!("/ns/{namespace}/"), &format!("/ns/{root}/")));
    Some(policy.meta.problem(Level::Warning, "SC022", path.clone(), written.at, message).with_help(help))
}
