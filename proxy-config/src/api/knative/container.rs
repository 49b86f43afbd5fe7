//! Probes and resources of a container.

use crate::decode::Cursor;
use crate::document::Value;
use crate::model::{Probe, ProbeAction, Probes, Resources};
use crate::report::At;
use crate::units;
use std::time::Duration;

const E: &str = "IST0106";
const ACTIONS: [&str; 4] = ["httpGet", "tcpSocket", "exec", "grpc"];
/// Kubernetes' `periodSeconds` and `failureThreshold` where they are not written.
const PERIOD: u32 = 10;
const FAILURE: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

/// `startupProbe`, `readinessProbe` and `livenessProbe` of a container that serves on `port`.
pub(super) fn probes(container: &Cursor<'_>, port: Option<u16>) -> Probes {
    let one = |name: &str, purpose| {
        let cursor = container.field(name);
        cursor.is_present().then(|| probe(&cursor, purpose, port.unwrap_or(8080)))
    };
    Probes {
        startup: one("startupProbe", Purpose::Startup),
        readiness: one("readinessProbe", Purpose::Readiness),
        liveness: one("livenessProbe", Purpose::Liveness),
    }
}

fn probe(cursor: &Cursor<'_>, purpose: Purpose, container_port: u16) -> Probe {
    let actions: Vec<_> =
        ACTIONS.map(|name| cursor.field(name)).into_iter().filter(Cursor::is_present).collect();
    let none_is_tcp = purpose == Purpose::Readiness;
    if actions.len() > 1 || actions.is_empty() && !none_is_tcp {
        cursor.error(E, "expected exactly one of httpGet, tcpSocket, exec or grpc");
    }
    let seconds = |name: &str| cursor.field(name).number::<u32>().unwrap_or(0);
    let length = |name: &str| Duration::from_secs(seconds(name).into());
    let (period, timeout) = (seconds("periodSeconds"), seconds("timeoutSeconds"));
    let (success, failure) = (seconds("successThreshold"), seconds("failureThreshold"));
    // Knative probes for readiness as often as is sensible, unless one of these is written.
    let eager = purpose == Purpose::Readiness && period == 0 && timeout == 0 && failure == 0;
    let or = |value: u32, default: u32| if value == 0 && !eager { default } else { value };
    if purpose != Purpose::Readiness && success > 1 {
        cursor.field("successThreshold").error(E, format!("must be 1, is {success}"));
    }
    let grace = cursor.field("terminationGracePeriodSeconds");
    if grace.is_present() && purpose == Purpose::Readiness {
        grace.error(E, "must not be set for readiness probes");
    }
    Probe {
        action: actions.first().map_or(ProbeAction::Tcp, |_| action(cursor)),
        elsewhere: actions.first().and_then(|action| elsewhere(action, container_port)),
        period: Duration::from_secs(or(period, PERIOD).into()),
        timeout: Duration::from_secs(timeout.max(1).into()),
        initial_delay: length("initialDelaySeconds"),
        success: success.max(1),
        failure: or(failure, FAILURE),
        grace: grace.number::<u32>().map(|grace| Duration::from_secs(grace.into())),
    }
}

fn action(cursor: &Cursor<'_>) -> ProbeAction {
    let (http, grpc, exec) = (cursor.field("httpGet"), cursor.field("grpc"), cursor.field("exec"));
    if http.is_present() {
        if http.field("scheme").text() == Some("HTTPS") {
            http.field("scheme").warn("SC007", "probing by HTTPS does not act: an instance is asked by HTTP");
        }
        let path = http.field("path").string().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
            http.field("path").error(E, format!("invalid path {path:?}"));
        }
        let headers = http.field("httpHeaders");
        let headers = headers.items().filter_map(header).collect();
        return ProbeAction::Http { path, headers };
    }
    if grpc.is_present() {
        return ProbeAction::Grpc { service: grpc.field("service").string().unwrap_or_default() };
    }
    if exec.is_present() {
        let command: Vec<String> =
            exec.field("command").strings().into_iter().map(|word| word.value).collect();
        if command.is_empty() {
            exec.error(E, "missing field(s): command");
        }
        return ProbeAction::Exec { command };
    }
    ProbeAction::Tcp
}

fn header(item: Cursor<'_>) -> Option<(String, String)> {
    let (name, value) = (item.field("name"), item.field("value"));
    let (name_text, value_text) = (name.string()?, value.string()?);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name_text.is_empty() || !name_text.bytes().all(token) {
        name.error(E, format!("invalid header name {name_text:?}"));
    }
    if value_text.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        value.error(E, format!("invalid header value {value_text:?}"));
    }
    Some((name_text, value_text))
}

/// Where a host is written that is not this one, that host is asked; else the port that serves, whatever port
/// is written, as Knative does, and that is said.
fn elsewhere(action: &Cursor<'_>, container_port: u16) -> Option<(String, u16)> {
    let port = action.field("port");
    let number = match port.node().map(|node| &node.value) {
        Some(Value::Number(text)) => text.parse::<u16>().ok(),
        _ => None,
    };
    let host = action.field("host").string().unwrap_or_default();
    if !matches!(host.as_str(), "" | "localhost" | "127.0.0.1" | "::1") {
        return Some((host, number.filter(|port| *port > 0).unwrap_or(container_port)));
    }
    if let Some(number) = number.filter(|port| *port != container_port && *port != 0) {
        port.warn("IST0133", format!("the container's port {container_port} is probed, not {number}"));
    }
    None
}

/// `resources` of a container.
pub(super) fn resources(cursor: &Cursor<'_>) -> At<Resources> {
    let (limits, requests) = (cursor.field("limits"), cursor.field("requests"));
    let millis = |cursor: Cursor<'_>| {
        let millis = units::quantity_millis(cursor.text()?).ok()?;
        u64::try_from(millis).ok().filter(|millis| *millis > 0)
    };
    let cpu = millis(limits.field("cpu"));
    let cpu_request = millis(requests.field("cpu"));
    if let (Some(limit), Some(request)) = (cpu, cpu_request)
        && request > limit
    {
        requests.field("cpu").error(E, "must be less than or equal to cpu limit");
    }
    let resources = Resources {
        memory: millis(limits.field("memory")).map(|millis| millis.div_ceil(1000)),
        cpu,
        cpu_request: cpu_request.or(cpu),
    };
    At::new(resources, cursor.key_at())
}
