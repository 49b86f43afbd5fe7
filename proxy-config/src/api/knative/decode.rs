//! A Knative Service's tree to its struct, and the rules between its fields.

use super::{Container, RevisionTemplate, Service, TrafficTarget};
use super::{container, holding, scale};
use crate::api::Meta;
use crate::decode::Cursor;
use crate::report::At;

const E: &str = "IST0106";

/// Knative's `timeoutSeconds` where none is written.
const DEFAULT_TIMEOUT_SECONDS: u32 = 300;
/// What Knative's own sidecar listens on.
const RESERVED_PORTS: [u16; 6] = [8008, 8012, 8013, 8022, 9090, 9091];
/// What Knative sets itself.
const RESERVED_ENV: [&str; 4] = ["PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"];

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> Option<Service> {
    let metadata = root.field("metadata");
    for (key, value) in metadata.field("annotations").entries() {
        let what = match key.value {
            key if key.starts_with(scale::PREFIX) => "autoscaling annotations",
            key if key.starts_with(holding::PREFIX) => "annotations of a revision",
            "serving.knative.dev/rollout-duration" | "serving.knative.dev/rolloutDuration" => {
                value.warn("SC007", "a gradual rollout does not act yet");
                continue;
            }
            _ => continue,
        };
        value.error_with_help(
            "SC040",
            format!("{what} must be put under \"spec.template.metadata.annotations\" to work"),
            format!("move {} to spec.template.metadata.annotations", key.value),
        );
    }
    annotations_as_labels(&metadata);
    let spec = root.field("spec");
    let template = template(&spec.field("template"), &meta.object.name);
    let traffic = traffic(&spec.field("traffic"));
    Some(Service { meta, template: template?, traffic: traffic? })
}

/// An annotation among the labels does nothing, and nothing else says so.
fn annotations_as_labels(metadata: &Cursor<'_>) {
    for (key, value) in metadata.field("labels").entries() {
        if [scale::PREFIX, holding::PREFIX].iter().any(|prefix| key.value.starts_with(prefix)) {
            value.warn_with_help(
                "IST0107",
                format!("{} is an annotation: as a label it does nothing", key.value),
                "move it to spec.template.metadata.annotations",
            );
        }
    }
}

fn template(cursor: &Cursor<'_>, service: &str) -> Option<RevisionTemplate> {
    let metadata = cursor.field("metadata");
    let name = metadata.field("name").text_at();
    if let Some(name) = &name {
        let here = metadata.field("name");
        let rest = name.value.strip_prefix(service).and_then(|rest| rest.strip_prefix('-'));
        if rest.is_none_or(str::is_empty) {
            here.error(E, format!("{:?} must have prefix \"{service}-\"", name.value));
        } else if !is_label(&name.value) {
            here.error(E, format!("not a DNS 1035 label: {:?}", name.value));
        }
    }
    annotations_as_labels(&metadata);
    let annotations = metadata.field("annotations");
    let spec = cursor.field("spec");
    let limited = |name: &str, max: i64| {
        let field = spec.field(name);
        let value = field.number::<i64>().unwrap_or(0);
        if !(0..=max).contains(&value) {
            field.error(E, format!("expected 0 <= {value} <= {max}"));
        }
        u32::try_from(value).unwrap_or(0)
    };
    let timeout = limited("timeoutSeconds", 600);
    let labels = metadata.field("labels").string_map();
    let said = scale::annotations(&annotations);
    Some(RevisionTemplate {
        at: cursor.at(),
        name,
        labels: labels.into_iter().map(|(key, value)| (key.value, value.value)).collect(),
        annotations: annotations.string_map(),
        scale: Box::new(said.scale),
        holding: said.holding,
        idle: said.idle,
        local_command: said.local_command,
        service_account: spec.field("serviceAccountName").string().filter(|name| !name.is_empty()),
        container_concurrency: limited("containerConcurrency", 1000),
        timeout_seconds: if timeout == 0 { DEFAULT_TIMEOUT_SECONDS } else { timeout },
        container: serving(&spec.field("containers"))?,
    })
}

/// A DNS-1035 label.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The one that serves: the only one, else the one with ports.
fn serving(list: &Cursor<'_>) -> Option<Container> {
    let all: Vec<Cursor<'_>> = list.items().collect();
    let serving: Vec<&Cursor<'_>> =
        all.iter().filter(|c| c.field("ports").items().next().is_some()).collect();
    let chosen = match (all.as_slice(), serving.as_slice()) {
        ([], _) => {
            if list.is_present() {
                list.error(E, "missing field(s): at least one container");
            }
            return None;
        }
        ([only], _) => only,
        (_, [one]) => one,
        (_, []) => {
            list.error(E, "missing field(s): the container that serves needs `ports`");
            return None;
        }
        (_, [_, second, ..]) => {
            second.field("ports").error(E, "more than one container port is set");
            return None;
        }
    };
    for other in all.iter().filter(|c| c.path() != chosen.path()) {
        other.warn("SC007", "a further container does not act yet: it is not started");
    }
    Some(one_container(chosen))
}

fn one_container(cursor: &Cursor<'_>) -> Container {
    if !cursor.field("image").is_present() {
        cursor.warn_with_help("IST0133", "missing field(s): image", "a cluster refuses a container without");
    }
    if cursor.field("name").text() == Some("queue-proxy") {
        cursor.field("name").error(E, "\"queue-proxy\" is a reserved container name");
    }
    let ports = cursor.field("ports");
    if ports.items().nth(1).is_some() {
        ports.error(E, "more than one container port is set");
    }
    let port = ports.items().next();
    let name = port.as_ref().map(|p| p.field("name"));
    let name_text = name.as_ref().and_then(Cursor::text).unwrap_or_default();
    if let Some(name) = &name
        && !matches!(name_text, "" | "http1" | "h2c")
    {
        name.error_with_help(
            E,
            format!("Port name {name_text} is not allowed"),
            "Name must be empty, or one of: 'h2c', 'http1'",
        );
    }
    let number = port.as_ref().map(|p| p.field("containerPort"));
    let port_number = number.as_ref().and_then(Cursor::number::<u16>);
    if let (Some(number), Some(value)) = (&number, port_number)
        && RESERVED_PORTS.contains(&value)
    {
        number.error(E, format!("{value} is a reserved port"));
    }
    let words = |name: &str| cursor.field(name).strings().into_iter().map(|w| w.value).collect();
    Container {
        at: cursor.at(),
        name: cursor.field("name").string(),
        image: cursor.field("image").string(),
        command: words("command"),
        args: words("args"),
        env: env(&cursor.field("env")),
        port: port_number,
        h2c: name_text == "h2c",
        probes: Box::new(container::probes(cursor, port_number)),
        resources: container::resources(&cursor.field("resources")),
    }
}

fn env(list: &Cursor<'_>) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    for item in list.items() {
        let name = item.field("name");
        let Some(text) = name.string() else { continue };
        if RESERVED_ENV.contains(&text.as_str()) {
            name.error_with_help(
                E,
                format!("{text:?} is a reserved environment variable"),
                "remove it: it is set for every instance",
            );
            continue;
        }
        if text.is_empty() || text.contains(['=', '\0']) {
            name.error(E, format!("invalid environment variable name {text:?}"));
            continue;
        }
        if item.field("valueFrom").is_present() {
            continue;
        }
        let value = item.field("value");
        let value_text = value.string().unwrap_or_default();
        if value_text.contains('\0') {
            value.error(E, "an environment variable cannot contain a NUL");
            continue;
        }
        out.push((text, value_text));
    }
    out
}

fn traffic(list: &Cursor<'_>) -> Option<Vec<TrafficTarget>> {
    let mut out: Vec<TrafficTarget> = Vec::new();
    let mut total: i64 = 0;
    let count = list.items().count();
    for item in list.items() {
        let percent = item.field("percent").number::<i64>().unwrap_or(0);
        if !(0..=100).contains(&percent) {
            item.field("percent").error(E, format!("expected 0 <= {percent} <= 100"));
        }
        total = total.saturating_add(percent);
        if item.field("configurationName").is_present() {
            item.field("configurationName").error(E, "must not set the field(s): configurationName");
        }
        let tag = item.field("tag").text_at().filter(|t| !t.value.is_empty());
        if let Some(tag) = &tag {
            check_tag(&item.field("tag"), tag, &out);
        }
        let revision = revision(&item);
        let percent = u32::try_from(percent.clamp(0, 100)).unwrap_or(0);
        out.push(TrafficTarget { at: item.at(), revision, tag, percent });
    }
    if count > 0 && total != 100 {
        list.error(E, format!("Traffic targets sum to {total}, want 100"));
        return None;
    }
    Some(out)
}

fn revision(item: &Cursor<'_>) -> Option<At<String>> {
    let revision = item.field("revisionName").text_at().filter(|r| !r.value.is_empty());
    let latest = item.field("latestRevision");
    match (&revision, latest.boolean()) {
        (Some(name), Some(true)) => {
            let message = format!("may not set revisionName {:?} when latestRevision is true", name.value);
            latest.error(E, message);
        }
        (None, Some(false)) => {
            latest.error(E, "latestRevision must be true when revisionName is not set");
        }
        _ => {}
    }
    revision
}

fn check_tag(cursor: &Cursor<'_>, tag: &At<String>, before: &[TrafficTarget]) {
    if !is_label(&tag.value) {
        cursor.error(E, format!("not a DNS 1035 label: {:?}", tag.value));
    }
    if before.iter().any(|t| t.tag.as_ref() == Some(tag)) {
        cursor.error(E, format!("Multiple definitions for {:?}", tag.value));
    }
}
