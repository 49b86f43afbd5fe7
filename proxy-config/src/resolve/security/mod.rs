//! What is asked of callers: the objects that select a workload become one guard for it.
//!
//! Where a destination has several kinds of endpoints, what any of them asks is asked of its callers; nothing
//! here decides about a request.

mod credentials;
mod doubles;
mod gateways;
mod providers;
mod workloads;

pub(crate) use credentials::{Credentials, Written, beside};
pub(crate) use gateways::guard_listeners;
pub(crate) use providers::build as providers;
pub(crate) use workloads::Guards;

use super::Input;
use super::registry::{self, Labels};
use crate::api::istio::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication, Selection, Suspect};
use crate::model::{Guard, Mtls, MtlsPolicy};
use crate::report::Problem;
use std::collections::BTreeMap;

/// One workload, or several that cannot be told apart.
#[derive(Default)]
pub(crate) struct Subject<'s> {
    /// The namespaces it may stand in; usually one.
    pub namespaces: Vec<&'s str>,
    /// Namespaces whose objects concern it only by a selector or by name.
    pub near: Vec<&'s str>,
    /// What its instances carry, each combination once.
    pub labels: Vec<&'s Labels>,
    /// What it can be named as in `targetRefs`: kind, namespace, name.
    pub targets: Vec<(&'s str, &'s str, &'s str)>,
}

/// The objects of one namespace.
#[derive(Default)]
struct Home<'a> {
    peers: Vec<&'a PeerAuthentication>,
    requests: Vec<&'a RequestAuthentication>,
    policies: Vec<&'a AuthorizationPolicy>,
    suspects: Vec<&'a Suspect>,
}

/// All objects that ask something of callers.
pub(crate) struct Policies<'a> {
    root: &'a str,
    homes: BTreeMap<&'a str, Home<'a>>,
}

impl<'a> Policies<'a> {
    /// Sorts what the input has; `root` is the namespace whose objects hold for the whole mesh.
    pub fn new(input: &Input<'a>, root: &'a str, problems: &mut Vec<Problem>) -> Policies<'a> {
        doubles::check(&input.peer_authentications, problems);
        let mut homes: BTreeMap<&'a str, Home<'a>> = BTreeMap::new();
        for peer in &input.peer_authentications {
            homes.entry(&peer.meta.object.namespace).or_default().peers.push(peer);
        }
        for request in &input.request_authentications {
            homes.entry(&request.meta.object.namespace).or_default().requests.push(request);
        }
        for policy in &input.authorization_policies {
            homes.entry(&policy.meta.object.namespace).or_default().policies.push(policy);
        }
        for suspect in input.suspects {
            homes.entry(&suspect.meta.object.namespace).or_default().suspects.push(suspect);
        }
        for home in homes.values_mut() {
            home.policies.sort_by(|a, b| a.meta.object.name.cmp(&b.meta.object.name));
            home.requests.sort_by(|a, b| a.meta.object.name.cmp(&b.meta.object.name));
        }
        Policies { root, homes }
    }

    /// What is asked of callers of `subject`; `None`: nothing.
    pub fn guard(&self, name: &str, subject: &Subject<'_>) -> Option<Guard> {
        let mut guard = Guard {
            name: name.to_owned(),
            namespace: subject.namespaces.first().copied().unwrap_or_default().to_owned(),
            mtls: self.mtls(subject),
            ..Guard::default()
        };
        let around = subject.namespaces.iter().chain(&subject.near).chain(std::iter::once(&self.root));
        let mut around: Vec<&str> = around.copied().collect();
        around.sort_unstable();
        around.dedup();
        for (namespace, home) in around.iter().filter_map(|name| Some((*name, self.homes.get(name)?))) {
            let selects = |selection: &Selection| self.selects(selection, namespace, subject);
            let requests = home.requests.iter().filter(|object| selects(&object.selection));
            guard.jwt.extend(requests.flat_map(|object| object.rules.iter().cloned()));
            let policies = home.policies.iter().filter(|object| selects(&object.selection));
            guard.policies.extend(policies.map(|object| object.policy.clone()));
            let everything = Selection::default();
            let suspects = home.suspects.iter().filter(|object| {
                // By a selector that cannot be read, whoever is near may have been meant.
                let near = namespace == self.root || subject.near.contains(&namespace);
                object.selection.is_none() && near
                    || selects(object.selection.as_ref().unwrap_or(&everything))
            });
            guard.quarantined.extend(suspects.map(|object| object.meta.object.clone()));
        }
        let plain =
            Guard { name: guard.name.clone(), namespace: guard.namespace.clone(), ..Guard::default() };
        (guard != plain).then_some(guard)
    }

    fn selects(&self, selection: &Selection, namespace: &str, subject: &Subject<'_>) -> bool {
        if !selection.targets.is_empty() {
            let named = |kind: &str, name: &str| subject.targets.contains(&(kind, namespace, name));
            return selection.targets.iter().any(|target| named(&target.kind, &target.name.value));
        }
        let root = namespace == self.root;
        if selection.labels.is_empty() {
            return root && !subject.namespaces.is_empty() || subject.namespaces.contains(&namespace);
        }
        let around = root || subject.namespaces.contains(&namespace) || subject.near.contains(&namespace);
        around && carried(&selection.labels, subject)
    }

    /// Of several instances the strictest counts.
    fn mtls(&self, subject: &Subject<'_>) -> MtlsPolicy {
        let none = Labels::new();
        let labels = if subject.labels.is_empty() { vec![&none] } else { subject.labels.clone() };
        let all = subject
            .namespaces
            .iter()
            .flat_map(|namespace| labels.iter().map(move |labels| self.mtls_of(namespace, labels)));
        all.reduce(stricter).unwrap_or_default()
    }

    fn mtls_of(&self, namespace: &str, labels: &Labels) -> MtlsPolicy {
        let of = |namespace: &str| self.homes.get(namespace).map_or(&[][..], |home| &home.peers);
        let whole = |namespace: &str| of(namespace).iter().find(|peer| peer.selection.labels.is_empty());
        let own = of(namespace).iter().find(|peer| {
            !peer.selection.labels.is_empty() && registry::carries(labels, &peer.selection.labels)
        });
        let levels = [own, whole(namespace), whole(self.root)];
        let mode = levels.iter().flatten().find_map(|peer| peer.mode).unwrap_or_default();
        let ports = own.iter().flat_map(|peer| &peer.ports);
        MtlsPolicy { mode, ports: ports.map(|(port, own)| (*port, own.unwrap_or(mode))).collect() }
    }
}

fn carried(wanted: &Labels, subject: &Subject<'_>) -> bool {
    subject.labels.iter().any(|labels| registry::carries(labels, wanted))
}

fn stricter(a: MtlsPolicy, b: MtlsPolicy) -> MtlsPolicy {
    let rank = |mode: Mtls| match mode {
        Mtls::Disable => 0,
        Mtls::Permissive => 1,
        Mtls::Strict => 2,
    };
    let max = |a: Mtls, b: Mtls| if rank(a) >= rank(b) { a } else { b };
    let ports = a.ports.keys().chain(b.ports.keys());
    let ports = ports.map(|port| (*port, max(a.at(*port), b.at(*port)))).collect();
    MtlsPolicy { mode: max(a.mode, b.mode), ports }
}
