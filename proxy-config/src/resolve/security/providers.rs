//! Who decides for CUSTOM policies: the extension providers of MeshConfig, and which cluster each of them is.

use crate::api::istio::AuthorizationPolicy;
use crate::api::mesh::MeshConfig;
use crate::model::{ExtAuthz, PolicyAction};
use crate::report::{Level, Problem};
use crate::resolve::names;
use crate::resolve::registry::{Reference, Registry};

/// Every provider. One that a policy names and nobody defines is there too, without a cluster, so that every
/// check of it fails.
pub(crate) fn build(
    mesh: Option<&MeshConfig>,
    policies: &[&AuthorizationPolicy],
    registry: &Registry,
    problems: &mut Vec<Problem>,
) -> Vec<ExtAuthz> {
    let mut all: Vec<ExtAuthz> = Vec::new();
    for (mesh, provider) in mesh.into_iter().flat_map(|m| m.ext_authz.iter().map(move |p| (m, p))) {
        let host = provider.service.value.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let reference =
            Reference { host: &host, subset: None, port: Some(provider.port), dialled: provider.port };
        let found = registry.destination(&reference);
        if found.missing.is_some() {
            let message = format!(
                "Referenced host:port not found: \"{host}:{}\"; until it exists every check of {:?} fails",
                provider.port, provider.authz.name
            );
            let help = match registry.meant(&host) {
                Some(meant) => format!("a service of that name is called {meant:?}"),
                None => "add the Service, function or ServiceEntry that has this host, in full".to_owned(),
            };
            let (path, at) = (provider.path.clone(), provider.service.at);
            problems.push(mesh.meta.problem(Level::Error, "IST0101", path, at, message).with_help(help));
        }
        let cluster = found.clusters.into_iter().max_by_key(|(_, share)| *share);
        all.push(ExtAuthz {
            cluster: cluster.map(|(name, _)| name).unwrap_or_default(),
            authority: if names::is_wildcard(&host) { String::new() } else { host },
            ..provider.authz.clone()
        });
    }
    for policy in policies {
        let PolicyAction::Custom(name) = &policy.policy.action else { continue };
        if all.iter().any(|known| known.name == *name && !known.cluster.is_empty()) {
            continue;
        }
        let known: Vec<&str> =
            all.iter().filter(|p| !p.cluster.is_empty()).map(|p| p.name.as_str()).collect();
        let message = format!(
            "no extension provider is called {name:?}: every request that the rules match is refused"
        );
        let help = match known.as_slice() {
            [] => "define it in MeshConfig: `extensionProviders: [{name: …, envoyExtAuthzHttp: {…}}]`"
                .to_owned(),
            known => format!("providers defined: {}", known.join(", ")),
        };
        let at = policy.provider.as_ref().map_or(policy.meta.at, |provider| provider.at);
        let path = "spec.provider.name";
        problems.push(policy.meta.problem(Level::Error, "IST0101", path, at, message).with_help(help));
        if all.iter().all(|known| known.name != *name) {
            all.push(ExtAuthz { name: name.clone(), ..ExtAuthz::default() });
        }
    }
    all
}
