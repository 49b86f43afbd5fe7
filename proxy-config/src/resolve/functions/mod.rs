//! Functions: documents of Knative Services become revisions, their traffic and the hosts they answer to.

pub(crate) mod command;
mod limits;
pub(crate) mod traffic;

use super::Options;
use super::names;
use super::registry::{self, Backing, Behind, FUNCTION_PORT, Labels, Port, Service, Source};
use crate::api::knative;
use crate::model::{Identity, Protocol, Revision, Scale};
use crate::report::{Level, Place, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use traffic::{Target, Traffic};

/// Where a container listens that says nothing about it.
const CONTAINER_PORT: u16 = 8080;
/// Label of Knative that keeps a function off the gateways with the value `cluster-local`.
const VISIBILITY: &str = "networking.knative.dev/visibility";

/// One function with all that is known of its history.
pub(crate) struct Function<'a> {
    /// The latest document: it decides traffic and visibility.
    pub latest: &'a knative::Service,
    /// `hello`.
    pub name: String,
    /// `default`.
    pub namespace: String,
    /// Oldest first, each with its document.
    pub revisions: Vec<(Revision, &'a knative::Service)>,
    /// Who gets what.
    pub traffic: Traffic,
}

impl Function<'_> {
    /// `hello.default.svc.cluster.local`.
    pub fn host(&self) -> String {
        names::service_host(&self.name, &self.namespace)
    }

    /// Whether gateways serve its host.
    pub fn public(&self) -> bool {
        self.latest.meta.labels.get(VISIBILITY).is_none_or(|value| value != "cluster-local")
    }

    /// Its hosts on gateways, and the service each of them stands for.
    pub fn gateway_hosts(&self, domain: &str) -> Vec<(String, String)> {
        let outside = |name: &str| format!("{name}.{}.{domain}", self.namespace).to_ascii_lowercase();
        let mut hosts = vec![(outside(&self.name), self.host())];
        for tag in self.traffic.tags.keys() {
            let name = tag_name(tag, &self.name);
            hosts.push((outside(&name), names::service_host(&name, &self.namespace)));
        }
        hosts
    }
}

fn tag_name(tag: &str, function: &str) -> String {
    format!("{tag}-{function}")
}

/// The name a revision has when its template has none: by its number in the history, from 1.
pub(crate) fn automatic_name(function: &str, generation: usize) -> String {
    format!("{function}-{generation:05}")
}

/// All functions. `documents` are in order; several of one function are its history. `scale`: what they
/// scale by unless they say otherwise.
pub(crate) fn build<'a>(
    documents: &[&'a knative::Service],
    scale: &Scale,
    options: &Options,
    problems: &mut Vec<Problem>,
) -> Vec<Function<'a>> {
    let mut histories: BTreeMap<(&str, &str), Vec<&knative::Service>> = BTreeMap::new();
    for document in documents {
        let object = &document.meta.object;
        histories.entry((&object.namespace, &object.name)).or_default().push(document);
    }
    let mut functions = Vec::new();
    let mut keys = BTreeSet::new();
    for history in histories.values() {
        if let Some(mut function) = one(history, scale, options) {
            function.revisions.retain(|(revision, document)| {
                keys.insert(revision.key.clone()) || {
                    problems.push(taken(revision, document));
                    false
                }
            });
            functions.push(function);
        }
    }
    for function in &functions {
        check_traffic(function, &functions, problems);
        problems.extend(limits::unmet(function, &options.unmet));
    }
    problems.extend(options.exec.keys().filter_map(|name| unknown_exec(name, &functions)));
    functions
}

/// A command given for nobody.
fn unknown_exec(name: &str, functions: &[Function<'_>]) -> Option<Problem> {
    let known = |function: &Function<'_>| {
        function.name == name
            || name.split_once('/') == Some((&function.namespace, &function.name))
            || function.revisions.iter().any(|(revision, _)| revision.name == name)
    };
    if functions.iter().any(known) {
        return None;
    }
    let message = format!("no function or revision is called {name:?}");
    Some(Problem::in_file(Level::Warning, "SC043", Path::new("--exec"), Place::default(), message))
}

fn taken(revision: &Revision, document: &knative::Service) -> Problem {
    let at = document.template.name.as_ref().map_or(document.template.at, |name| name.at);
    let message =
        format!("revision {:?} exists already in another Knative Service of the namespace", revision.name);
    document.meta.problem(Level::Error, "SC041", "spec.template.metadata.name", at, message)
}

fn one<'a>(history: &[&'a knative::Service], scale: &Scale, options: &Options) -> Option<Function<'a>> {
    let latest = *history.last()?;
    let (name, namespace) = (latest.meta.object.name.clone(), latest.meta.object.namespace.clone());
    let mut named: Vec<(String, &knative::Service)> = Vec::new();
    for (i, document) in history.iter().enumerate() {
        let revision = match &document.template.name {
            Some(name) => name.value.clone(),
            None => automatic_name(&name, i + 1),
        };
        // The same template again is the same revision: it is now the latest.
        named.retain(|(other, _)| *other != revision);
        named.push((revision, document));
    }
    let targets: Vec<Target> = latest.traffic.iter().map(target).collect();
    let newest = named.last().map(|(name, _)| name.clone())?;
    let traffic = traffic::resolve(&targets, &newest);
    let revisions = named
        .into_iter()
        .map(|(name, document)| {
            let mut revision = build_revision(&name, document, &traffic, options);
            revision.scale = knative::over(scale, &document.template.annotations);
            (revision, document)
        })
        .collect();
    Some(Function { latest, name, namespace, revisions, traffic })
}

fn target(written: &knative::TrafficTarget) -> Target {
    Target {
        percent: written.percent,
        tag: written.tag.as_ref().map(|tag| tag.value.clone()),
        revision: written.revision.as_ref().map(|revision| revision.value.clone()),
    }
}

fn build_revision(name: &str, document: &knative::Service, traffic: &Traffic, options: &Options) -> Revision {
    let object = &document.meta.object;
    let template = &document.template;
    let container = &template.container;
    let mut labels: Labels = template.labels.iter().cloned().collect();
    for (key, value) in [("service", &object.name), ("configuration", &object.name)] {
        labels.insert(format!("serving.knative.dev/{key}"), value.clone());
    }
    labels.insert("serving.knative.dev/revision".to_owned(), name.to_owned());
    labels.entry("app".to_owned()).or_insert_with(|| name.to_owned());
    let written = command::Written {
        service: &object.name,
        namespace: &object.namespace,
        revision: name,
        annotation: template.local_command.as_ref().map(|words| words.value.as_slice()),
        command: &container.command,
        args: &container.args,
    };
    let allowed = command::Allowed {
        exec: &options.exec,
        exec_all: options.exec_all,
        stand_in: options.stand_in,
        namespace: &options.namespace,
    };
    Revision {
        key: format!("{}/{name}", object.namespace),
        service: object.name.clone(),
        namespace: object.namespace.clone(),
        name: name.to_owned(),
        labels,
        service_account: template.service_account.clone().unwrap_or_else(|| "default".to_owned()),
        port: container.port.unwrap_or(CONTAINER_PORT),
        concurrency: template.container_concurrency,
        timeout: Duration::from_secs(u64::from(template.timeout_seconds)),
        scale: (*template.scale).clone(),
        holding: template.holding,
        idle: template.idle,
        probes: (*container.probes).clone(),
        resources: container.resources.value,
        command: command::decide(&written, &allowed),
        env: container.env.clone(),
        directory: directory(&document.meta.file),
        protocol: if container.h2c { Protocol::Http2 } else { Protocol::Http1 },
        reachable: traffic.reaches(name),
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Every revision named in `traffic` must be one of the function's.
fn check_traffic(function: &Function<'_>, all: &[Function<'_>], problems: &mut Vec<Problem>) {
    for (i, target) in function.latest.traffic.iter().enumerate() {
        let Some(wanted) = &target.revision else { continue };
        let known: Vec<&str> =
            function.revisions.iter().map(|(revision, _)| revision.name.as_str()).collect();
        if known.contains(&wanted.value.as_str()) {
            continue;
        }
        let path = format!("spec.traffic[{i}].revisionName");
        let message = format!("Revision {:?} referenced in traffic not found", wanted.value);
        let owner = all.iter().find(|other| {
            other.namespace == function.namespace
                && other.revisions.iter().any(|(r, _)| r.name == wanted.value)
        });
        let help = match owner {
            Some(owner) => {
                format!("it is a revision of {:?}; revisions here: {}", owner.name, known.join(", "))
            }
            None => format!(
                "revisions here: {}; a template is named by `spec.template.metadata.name: {}`",
                known.join(", "),
                wanted.value
            ),
        };
        let meta = &function.latest.meta;
        problems.push(meta.problem(Level::Error, "SC041", path, wanted.at, message).with_help(help));
    }
}

/// The hosts of all functions: their own, those of their tags, those of their revisions.
pub(crate) fn services(functions: &[Function<'_>]) -> Vec<Service> {
    let mut services: Vec<Service> = functions.iter().map(whole).collect();
    for function in functions {
        services.extend(function.revisions.iter().map(|(revision, _)| alone(function, revision)));
    }
    for function in functions {
        for (tag, revision) in &function.traffic.tags {
            let host = names::service_host(revision, &function.namespace);
            services.push(Service {
                host: names::service_host(&tag_name(tag, &function.name), &function.namespace),
                backing: Backing::Split { shares: vec![(host, 100)], revisions: Vec::new() },
                ..whole(function)
            });
        }
    }
    services
}

fn whole(function: &Function<'_>) -> Service {
    let host_of = |revision: &str| names::service_host(revision, &function.namespace);
    let shares = function.traffic.split.iter().map(|(name, share)| (host_of(name), *share)).collect();
    let revisions = function.revisions.iter().map(|(r, _)| (host_of(&r.name), r.labels.clone())).collect();
    let newest = function.revisions.last().map_or(Protocol::Http1, |(revision, _)| revision.protocol);
    Service {
        host: function.host(),
        namespace: function.namespace.clone(),
        ports: vec![port(newest)],
        backing: Backing::Split { shares, revisions },
        addresses: Vec::new(),
        origin: function.latest.meta.object.clone(),
        identity: identity(function, None),
        behind: Behind::default(),
    }
}

fn alone(function: &Function<'_>, revision: &Revision) -> Service {
    Service {
        host: names::service_host(&revision.name, &function.namespace),
        namespace: function.namespace.clone(),
        ports: vec![port(revision.protocol)],
        backing: Backing::Revision { key: revision.key.clone(), function: function.host() },
        addresses: Vec::new(),
        origin: function.latest.meta.object.clone(),
        identity: identity(function, Some(revision)),
        behind: Behind {
            namespace: function.namespace.clone(),
            labels: Vec::new(),
            names: vec![("Service", function.name.clone()), ("Service", revision.name.clone())],
            ..Behind::default()
        },
    }
}

fn port(protocol: Protocol) -> Port {
    Port { number: FUNCTION_PORT, http: true, protocol, source: Source::Static(Vec::new()) }
}

fn identity(function: &Function<'_>, revision: Option<&Revision>) -> Identity {
    let mut identity = registry::identity(&function.host(), &function.name, &function.namespace);
    identity.canonical_service = function.name.clone();
    if let Some(revision) = revision {
        identity.workload = revision.name.clone();
        identity.canonical_revision = revision.name.clone();
        identity.app = revision.labels.get("app").unwrap_or(&revision.name).clone();
        if let Some(version) = revision.labels.get("version") {
            identity.version = version.clone();
        }
    }
    identity
}
