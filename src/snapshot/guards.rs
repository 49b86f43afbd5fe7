//! Guards and providers of a configuration, compiled, by name.
//!
//! A guard that is named and not there refuses everything: whoever names one means to be guarded.

use crate::auth::{self, Guard, KeyRing, Provider, Trust};
use proxy_config::model;
use std::collections::HashMap;
use std::sync::Arc;

/// The providers of one configuration.
pub(super) fn providers(config: &model::Config, problems: &mut Vec<String>) -> HashMap<Arc<str>, Provider> {
    let all = config.ext_authz.iter().map(|wanted| Provider::compile(wanted, problems));
    all.map(|provider| (provider.name.clone(), provider)).collect()
}

/// All of one configuration.
pub(super) struct Guards(HashMap<String, Arc<Guard>>);

impl Guards {
    /// Compiles them; `problems` learns what cannot be.
    pub(super) fn compile(config: &model::Config, keys: &KeyRing, problems: &mut Vec<String>) -> Guards {
        let trust = Trust {
            domain: config.mesh.trust_domain.clone(),
            aliases: config.mesh.trust_domain_aliases.clone(),
        };
        let one = |guard: &model::Guard| {
            (guard.name.clone(), Arc::new(auth::compile(guard, &trust, keys, problems)))
        };
        Guards(config.guards.iter().map(one).collect())
    }

    /// The guard of that name. One without any demand is none.
    pub(super) fn get(&self, name: Option<&str>, problems: &mut Vec<String>) -> Option<Arc<Guard>> {
        let name = name?;
        match self.0.get(name) {
            Some(guard) => guard.demands_anything().then(|| guard.clone()),
            None => {
                problems.push(format!("guard {name} does not exist; what it guards refuses every request"));
                Some(Arc::new(Guard::refusing(name)))
            }
        }
    }
}
