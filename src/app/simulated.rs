//! What `run` says about identities: one process plays gateway, caller and destination, so who asks is simulated, and
//! what only mutual TLS can do is not done. Never said beside a workload, where certificates speak.

use crate::auth::Passes;
use crate::cli::run::RunArgs;
use proxy_config::model::{AuthorizationPolicy, Config, Guard, Mtls, PolicyAction, PolicySource};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(String),
    Warning(String),
}

impl Said {
    pub(super) fn log(&self) {
        match self {
            Said::Info(text) => tracing::info!("{text}"),
            Said::Warning(text) => tracing::warn!("{text}"),
        }
    }
}

/// Whether identities may be simulated: nobody but programs of this host can reach the listeners.
pub(super) fn possible(args: &RunArgs) -> bool {
    args.sidecar.is_none() && args.alone.bind.is_loopback() && args.alone.mesh.ip().is_loopback()
}

/// What functions are known by, where identities are simulated.
pub(super) fn passes(args: &RunArgs) -> Result<Option<Arc<Passes>>, String> {
    Ok(possible(args).then(Passes::new).transpose()?.map(Arc::new))
}

/// What is to be said about a configuration.
pub(super) fn said(config: &Config, args: &RunArgs) -> Vec<Said> {
    if args.sidecar.is_some() {
        return Vec::new();
    }
    let mut said = Vec::new();
    let asking = listed(config.guards.iter().flat_map(|guard| &guard.policies).filter(asks_who).map(called));
    match (asking.is_empty(), possible(args)) {
        (true, _) => {}
        (false, true) => said.push(Said::Info(format!(
            "identities are simulated, for {asking}: requests at gateways count as the ingress gateway's, calls by \
             functions through their http_proxy as their service account's, all others as nobody's"
        ))),
        (false, false) => said.push(Said::Warning(format!(
            "identities are not simulated, as others could reach --bind {} or --mesh {}: for {asking}, whoever \
             shows no certificate is nobody: principals, namespaces and serviceAccounts match none of them, their \
             not… twins all; listen on 127.0.0.1 to try such policies",
            args.alone.bind, args.alone.mesh
        ))),
    }
    let strict =
        listed(config.guards.iter().filter(|guard| is_strict(guard)).map(|guard| guard.name.clone()));
    if !strict.is_empty() {
        said.push(Said::Info(format!(
            "PeerAuthentication STRICT of {strict} is not enforced here: there is no mutual TLS between \
             processes of one `run`; `pilotlight sidecar` enforces it"
        )));
    }
    said
}

/// The first few, in order.
fn listed(all: impl Iterator<Item = String>) -> String {
    const MOST: usize = 5;
    let all: BTreeSet<String> = all.collect();
    let first: Vec<&str> = all.iter().take(MOST).map(String::as_str).collect();
    let more = if all.len() > MOST { format!(" and {} more", all.len() - MOST) } else { String::new() };
    first.join(", ") + &more
}

fn is_strict(guard: &Guard) -> bool {
    guard.mtls.mode == Mtls::Strict || guard.mtls.ports.values().any(|mode| *mode == Mtls::Strict)
}

fn called(policy: &AuthorizationPolicy) -> String {
    let action = match &policy.action {
        PolicyAction::Allow => "ALLOW",
        PolicyAction::Deny => "DENY",
        PolicyAction::Audit => "AUDIT",
        PolicyAction::Custom(_) => "CUSTOM",
    };
    format!("{action} {}/{}", policy.origin.namespace, policy.origin.name)
}

/// Whether the verdict depends on the peer's identity.
fn asks_who(policy: &&AuthorizationPolicy) -> bool {
    const KEYS: [&str; 4] =
        ["source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"];
    let asks = |source: &PolicySource| {
        let PolicySource { principals, namespaces, service_accounts, trust_domains, .. } = source;
        [principals, namespaces, service_accounts, trust_domains]
            .iter()
            .any(|values| !values.any.is_empty() || !values.none.is_empty())
    };
    policy.rules.iter().any(|rule| {
        rule.from.iter().any(asks) || rule.when.iter().any(|condition| KEYS.contains(&condition.key.as_str()))
    })
}
