//! What listeners believe of those whom a request has passed before: MeshConfig's `defaultConfig`, and for a gateway or a
//! workload what its own Pods say instead.

use super::Input;
use super::registry::{self, Labels};
use crate::api::mesh::{MeshConfig, ProxySettings};
use crate::model::{Direction, Forwarding, Listener, Workload};

/// Fills it in. `own`: the workload beside which this proxy stands.
pub(crate) fn fill(
    listeners: &mut [Listener],
    input: &Input<'_>,
    mesh: Option<&MeshConfig>,
    own: Option<&Workload>,
) {
    let whole = mesh.map(|mesh| mesh.proxy).unwrap_or_default();
    for listener in listeners {
        let usual = Forwarding::at(listener.direction);
        listener.forwarding = match listener.direction {
            Direction::Outbound => usual,
            Direction::Inbound => {
                let pods = own.map(|own| of_pods(input, Some(&own.namespace), &own.labels));
                let said = pods.and_then(|said| said.client_cert).or(whole.client_cert);
                Forwarding { client_cert: said.unwrap_or(usual.client_cert), ..usual }
            }
            Direction::Gateway => {
                let gateways = input.gateways.iter().filter(|g| listener.origins.contains(&g.meta.object));
                let pods = gateways.map(|gateway| of_pods(input, None, &gateway.selector));
                let pods = pods.fold(ProxySettings::default(), joined);
                Forwarding {
                    client_cert: pods
                        .gateway_client_cert
                        .or(whole.gateway_client_cert)
                        .unwrap_or(usual.client_cert),
                    trusted_proxies: pods.trusted_proxies.or(whole.trusted_proxies).unwrap_or_default(),
                }
            }
        };
    }
}

/// What is said first counts.
fn joined(first: ProxySettings, second: ProxySettings) -> ProxySettings {
    ProxySettings {
        client_cert: first.client_cert.or(second.client_cert),
        gateway_client_cert: first.gateway_client_cert.or(second.gateway_client_cert),
        trusted_proxies: first.trusted_proxies.or(second.trusted_proxies),
    }
}

/// What the Pods say that carry `labels`, and those who make them.
fn of_pods(input: &Input<'_>, namespace: Option<&str>, labels: &Labels) -> ProxySettings {
    let here = |other: &str| namespace.is_none_or(|namespace| namespace == other);
    // A workload is known by all of its labels, a gateway's Pods carry more than it selects by.
    let carries = |own: &Labels| match namespace {
        Some(_) => !own.is_empty() && registry::carries(labels, own),
        None => !labels.is_empty() && registry::carries(own, labels),
    };
    let pods = input.pods.iter().filter(|pod| here(&pod.meta.object.namespace) && carries(&pod.meta.labels));
    let makers = input.workloads.iter().filter(|workload| {
        let own: Labels = workload.template_labels.iter().cloned().collect();
        here(&workload.meta.object.namespace) && carries(&own)
    });
    let all = pods.map(|pod| pod.proxy).chain(makers.map(|workload| workload.proxy));
    all.fold(ProxySettings::default(), joined)
}
