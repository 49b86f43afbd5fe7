//! Destinations that do not exist: said where they are written, once, whatever listeners they apply on.

use super::names;
use super::registry::{Missing, Reference, Registry};
use crate::api::istio::{HttpDestination, RuleAction, VirtualService};
use crate::report::{Level, Problem};

/// Looks every destination of every rule up.
pub(crate) fn check(virtual_services: &[&VirtualService], registry: &Registry, problems: &mut Vec<Problem>) {
    for service in virtual_services {
        for (r, rule) in service.http.iter().enumerate() {
            let RuleAction::Route(destinations) = &rule.action else { continue };
            for (d, destination) in destinations.iter().enumerate() {
                let path = format!("spec.http[{r}].route[{d}].destination");
                problems.extend(check_one(service, destination, &path, registry));
            }
        }
        for (r, rule) in service.tls.iter().enumerate() {
            for (d, destination) in rule.route.iter().enumerate() {
                let path = format!("spec.tls[{r}].route[{d}].destination");
                problems.extend(check_one(service, destination, &path, registry));
            }
        }
    }
}

fn check_one(
    service: &VirtualService,
    destination: &HttpDestination,
    path: &str,
    registry: &Registry,
) -> Option<Problem> {
    let host = names::expand(&destination.host.value, &service.meta.object.namespace);
    let found = registry.destination(&Reference {
        host: &host,
        subset: destination.subset.as_ref().map(|subset| subset.value.as_str()),
        port: destination.port.as_ref().map(|port| port.value),
        // Which port is dialled is a matter of the listener; where it matters is said there.
        dialled: registry.service(&host).and_then(|s| s.ports.first()).map_or(0, |port| port.number),
    });
    let subset = destination.subset.as_ref();
    let error = |field: &str, at, code, message: String| {
        service.meta.problem(Level::Error, code, format!("{path}.{field}"), at, message)
    };
    match found.missing? {
        Missing::Host(meant) => {
            let message = format!("Referenced host not found: {:?}", destination.host.value);
            let problem = error("host", destination.host.at, "IST0101", message);
            Some(match meant {
                Some(meant) => problem.with_help(format!("a service of that name is called {meant:?}")),
                None if destination.host.value == host => {
                    problem.with_help("add the Service, function or ServiceEntry that has this host")
                }
                None => problem.with_help(format!(
                    "a short name means {host:?} here: add the Service, function or ServiceEntry of that name"
                )),
            })
        }
        Missing::Port(port, known) => {
            let at = destination.port.as_ref().map_or(destination.at, |port| port.at);
            let message = format!("Referenced host:port not found: \"{}:{port}\"", destination.host.value);
            let known: Vec<String> = known.iter().map(u16::to_string).collect();
            let problem = error("port", at, "IST0101", message);
            Some(problem.with_help(format!("its ports are: {}", known.join(", "))))
        }
        Missing::Subset(known) => {
            let subset = subset?;
            let message = format!(
                "Referenced host+subset in destinationrule not found: \"{}+{}\"",
                destination.host.value, subset.value
            );
            let help = match known.as_slice() {
                [] => format!("add a DestinationRule for {host:?} that defines the subset"),
                known => format!("subsets defined for it: {}", known.join(", ")),
            };
            Some(error("subset", subset.at, "IST0101", message).with_help(help))
        }
        Missing::NoRevision => {
            let subset = subset?;
            let message = format!(
                "{:?} is a function, and no revision of it carries the labels of subset {:?}",
                destination.host.value, subset.value
            );
            let help = "label the revision's template, or select by `serving.knative.dev/revision`";
            Some(error("subset", subset.at, "SC042", message).with_help(help))
        }
        Missing::AmbiguousPort(_) => None,
    }
}
