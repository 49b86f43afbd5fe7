//! Who is taken for whom in `run`, where one process plays gateway, caller and destination and no certificate says
//! who asks. Never beside a workload, and never where others can reach the listeners.

use super::Simulated;
use super::shared::Names;
use crate::auth::{Callers, Passes};
use crate::record::Direction;
use proxy_config::model::Config;
use std::sync::Arc;

/// Of one configuration; nothing: nobody is taken for anybody.
pub(super) struct Simulation(Option<(Arc<str>, Arc<Callers>)>);

impl Simulation {
    /// What functions were told is made of `passes`.
    pub(super) fn of(config: &Config, passes: Option<&Passes>) -> Simulation {
        let passes = passes.filter(|_| config.workload.is_none());
        Simulation(passes.map(|passes| (gateway(config), Arc::new(callers(config, passes)))))
    }

    /// Who comes to a listener of this direction.
    pub(super) fn at(&self, direction: Direction) -> Simulated {
        match (&self.0, direction) {
            (Some((gateway, _)), Direction::Gateway) => Simulated::One(gateway.clone()),
            (Some((_, callers)), Direction::Outbound) => Simulated::Callers(callers.clone()),
            _ => Simulated::Nobody,
        }
    }
}

/// Istio's own.
fn gateway(config: &Config) -> Arc<str> {
    let (domain, namespace) = (&config.mesh.trust_domain, &config.mesh.root_namespace);
    format!("{domain}/ns/{namespace}/sa/istio-ingressgateway-service-account").into()
}

fn callers(config: &Config, passes: &Passes) -> Callers {
    let (mut callers, mut names) = (Callers::default(), Names::default());
    for revision in &config.revisions {
        let (domain, namespace) = (&config.mesh.trust_domain, &revision.namespace);
        let principal = format!("{domain}/ns/{namespace}/sa/{}", revision.service_account);
        callers.learn(passes, &revision.key, names.get(&principal));
    }
    callers
}
