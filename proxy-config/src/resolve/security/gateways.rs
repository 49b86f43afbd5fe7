//! Guards of gateways: what their listeners ask of callers.
//!
//! One process plays all gateways; which Pods would be one is told by the Pods and Deployments of the input, or
//! else the one that Istio installs is meant.

use super::{Policies, Subject};
use crate::model::{Bind, Guard, Listener};
use crate::resolve::Input;
use crate::resolve::registry::{self, Labels};
use std::collections::BTreeSet;

/// Gives every gateway's listener its guard, and gives the guards back.
pub(crate) fn guard_listeners(
    listeners: &mut [Listener],
    input: &Input<'_>,
    policies: &Policies<'_>,
) -> Vec<Guard> {
    let mut guards = Vec::new();
    let gateways = listeners.iter_mut().filter(|l| !matches!(l.bind, Bind::Mesh));
    for listener in gateways {
        if let Some(guard) = guard(listener, input, policies) {
            listener.guard = Some(guard.name.clone());
            guards.push(guard);
        }
    }
    guards
}

fn guard(listener: &Listener, input: &Input<'_>, policies: &Policies<'_>) -> Option<Guard> {
    let mut labels: Vec<Labels> = Vec::new();
    let mut namespaces = BTreeSet::new();
    let own = input.gateways.iter().filter(|gateway| listener.origins.contains(&gateway.meta.object));
    let none = Labels::new();
    let mut selectors: Vec<&Labels> = own.map(|gateway| &gateway.selector).collect();
    if selectors.is_empty() {
        selectors.push(&none);
    }
    for selector in selectors {
        let found = pods(input).filter(|(_, own)| !selector.is_empty() && registry::carries(own, selector));
        let before = labels.len();
        for (namespace, own) in found {
            namespaces.insert(namespace);
            labels.push(own);
        }
        if labels.len() == before {
            namespaces.insert(policies.root);
            labels.push(installed(selector));
        }
    }
    let subject = Subject {
        namespaces: namespaces.into_iter().collect(),
        near: listener.origins.iter().map(|origin| origin.namespace.as_str()).collect(),
        labels: labels.iter().collect(),
        targets: listener
            .origins
            .iter()
            .map(|origin| ("Gateway", origin.namespace.as_str(), origin.name.as_str()))
            .collect(),
    };
    // Who may come in by which certificate is a matter of a Gateway's servers.
    let guard = Guard { mtls: Default::default(), ..policies.guard(&listener.name, &subject)? };
    let asks = !(guard.jwt.is_empty() && guard.policies.is_empty() && guard.quarantined.is_empty());
    asks.then_some(guard)
}

fn pods<'i>(input: &'i Input<'_>) -> impl Iterator<Item = (&'i str, Labels)> {
    let pods = input.pods.iter().map(|pod| (pod.meta.object.namespace.as_str(), pod.meta.labels.clone()));
    let made = input.workloads.iter().map(|workload| {
        (workload.meta.object.namespace.as_str(), workload.template_labels.iter().cloned().collect())
    });
    pods.chain(made)
}

/// What the gateway of an ordinary installation carries besides what is asked for.
fn installed(selector: &Labels) -> Labels {
    let mut labels = selector.clone();
    let usual = [("istio", "ingressgateway"), ("app", "istio-ingressgateway")];
    if usual.iter().all(|(key, value)| selector.get(*key).is_none_or(|own| own == value))
        && (selector.is_empty() || usual.iter().any(|(key, _)| selector.contains_key(*key)))
    {
        labels.extend(usual.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    labels
}
