//! Guards of destinations: what the instances behind a cluster ask of their callers.

use super::{Policies, Subject};
use crate::model::{Guard, MtlsPolicy};
use crate::resolve::registry::{self, Labels, Service, Source};

/// The guards of all clusters, collected while these are made.
pub(crate) struct Guards<'p, 'a> {
    policies: &'p Policies<'a>,
    /// All so far.
    pub built: Vec<Guard>,
    /// Where those of the service at hand begin.
    own: (String, usize),
}

impl<'p, 'a> Guards<'p, 'a> {
    /// None yet.
    pub fn new(policies: &'p Policies<'a>) -> Guards<'p, 'a> {
        Guards { policies, built: Vec::new(), own: (String::new(), 0) }
    }

    /// That of the revision `key`, which stands in `service`.
    pub fn of_revision(&mut self, service: &Service, key: &str, labels: Option<&Labels>) -> Option<String> {
        let subject = Subject { labels: labels.into_iter().collect(), ..subject(service) };
        self.add(service, self.policies.guard(key, &subject)?)
    }

    /// That of those endpoints of `service` that carry `wanted`; `cluster`: what they are called together.
    pub fn of_endpoints(
        &mut self,
        service: &Service,
        source: &Source,
        wanted: Option<&Labels>,
        cluster: &str,
    ) -> Option<String> {
        let mut labels: Vec<&Labels> = Vec::new();
        let told: Vec<&Labels> = match source {
            Source::Static(all) => all.iter().map(|(_, labels)| labels).collect(),
            Source::Dns(all) => all.iter().map(|(_, labels)| labels).collect(),
        };
        let untold = told.is_empty() || told.iter().any(|labels| labels.is_empty());
        let behind = service.behind.labels.iter().filter(|_| untold);
        for own in told.into_iter().filter(|labels| !labels.is_empty()).chain(behind) {
            let chosen = wanted.is_none_or(|wanted| registry::carries(own, wanted));
            if chosen && !labels.contains(&own) {
                labels.push(own);
            }
        }
        let name = if wanted.is_none() { service.host.as_str() } else { cluster };
        let mut guard = self.policies.guard(name, &Subject { labels, ..subject(service) })?;
        let taken = |guards: &Self, name: &str| guards.of_service(service).iter().any(|g| g.name == name);
        if taken(self, name) && !self.of_service(service).iter().any(|other| same(other, &guard)) {
            guard.name = cluster.to_owned();
        }
        self.add(service, guard)
    }

    /// What the workload behind a guard accepts.
    pub fn mtls(&self, name: &str) -> Option<MtlsPolicy> {
        let own = self.built[self.own.1..].iter().find(|guard| guard.name == name);
        own.map(|guard| guard.mtls.clone())
    }

    fn of_service(&self, service: &Service) -> &[Guard] {
        if self.own.0 == service.host { &self.built[self.own.1..] } else { &[] }
    }

    /// One that asks the same of callers of the same service is not made again.
    fn add(&mut self, service: &Service, guard: Guard) -> Option<String> {
        if self.own.0 != service.host {
            self.own = (service.host.clone(), self.built.len());
        }
        if let Some(known) = self.of_service(service).iter().find(|other| same(other, &guard)) {
            return Some(known.name.clone());
        }
        let name = guard.name.clone();
        self.built.push(guard);
        Some(name)
    }
}

fn same(a: &Guard, b: &Guard) -> bool {
    a.mtls == b.mtls && a.jwt == b.jwt && a.policies == b.policies && a.quarantined == b.quarantined
}

fn subject(service: &Service) -> Subject<'_> {
    let behind = &service.behind;
    let namespace = behind.namespace.as_str();
    let (namespaces, near) =
        if behind.outside { (Vec::new(), vec![namespace]) } else { (vec![namespace], Vec::new()) };
    let targets = behind.names.iter().map(|(kind, name)| (*kind, namespace, name.as_str())).collect();
    Subject { namespaces, near, labels: Vec::new(), targets }
}
