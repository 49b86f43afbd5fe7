//! The running configuration as JSON, for `/config_dump`.
//!
//! Meant to be read by people and compared by tools: lengths of time as `15s`, "no limit" as null, names as
//! in the configuration. Values of environment variables and of headers that carry credentials are never
//! shown, and a body from the configuration only by its size.

use crate::control::reload::changes::Reload;
use proxy_config::model::{
    Action, Bind, Cluster, Command, Config, DirectResponse, Direction, Endpoints, Forward, HeaderOps,
    Holding, Idle, Limits, Listener, Match, MessageOps, Outlier, PathRewrite, Probe, ProbeAction, Protocol,
    Redirect, RedirectPort, Retry, RetryOn, Revision, Route, StringMatch, Table, Tables, VirtualHost,
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What stands for a value that is not shown.
const REDACTED: &str = "[redacted]";

/// The whole page: what serves, since when, and what the last reload came to.
pub fn page(generation: u64, config: &Config, last_reload: Option<&Reload>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation,
        "last_reload": last_reload.map(|reload| reload.json(config)),
        "configuration": configuration(config),
    })
}

/// A configuration.
pub fn configuration(config: &Config) -> Value {
    let mesh = &config.mesh;
    let access_log = mesh.access_log.as_ref().map(
        |log| json!({ "file": log.file, "encoding": format!("{:?}", log.encoding), "format": log.format }),
    );
    json!({
        "mesh": {
            "access_log": access_log,
            "concurrency": mesh.concurrency,
            "trust_domain": mesh.trust_domain,
            "outbound": format!("{:?}", mesh.outbound),
        },
        "listeners": config.listeners.iter().map(listener).collect::<Value>(),
        "clusters": config.clusters.iter().map(cluster).collect::<Value>(),
        "functions": config.revisions.iter().map(|of| revision(of)).collect::<Value>(),
    })
}

fn listener(listener: &Listener) -> Value {
    let direction = match listener.direction {
        Direction::Gateway => "gateway",
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    };
    let bind = match listener.bind {
        Bind::DefaultGateway => "default gateway".to_owned(),
        Bind::GatewayPort(port) => format!("gateway port {port}"),
        Bind::Mesh => "mesh".to_owned(),
        Bind::Address(address) => address.to_string(),
    };
    let hosts = |table: &Table| table.hosts.iter().map(virtual_host).collect::<Value>();
    let tables = match &listener.tables {
        Tables::One(table) => json!({ "*": hosts(table) }),
        Tables::ByPort(tables) => {
            Value::Object(tables.iter().map(|(port, table)| (port.to_string(), hosts(table))).collect())
        }
    };
    json!({
        "name": listener.name,
        "direction": direction,
        "bind": bind,
        "origins": listener.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "virtual_hosts_by_port": tables,
    })
}

fn virtual_host(host: &VirtualHost) -> Value {
    json!({
        "name": host.name,
        "domains": host.domains,
        "routes": host.routes.iter().map(route).collect::<Value>(),
    })
}

fn route(route: &Route) -> Value {
    let (kind, action) = match &route.action {
        Action::Forward(forward) => ("forward", forward_json(forward)),
        Action::Redirect(redirect) => ("redirect", redirect_json(redirect)),
        Action::Direct(direct) => ("direct_response", direct_json(direct)),
    };
    json!({
        "name": route.name,
        "origin": route.origin.to_string(),
        "match": match_json(&route.matches),
        kind: action,
    })
}

fn match_json(matches: &Match) -> Value {
    let mut out = Map::new();
    let single = [
        ("uri", &matches.uri),
        ("scheme", &matches.scheme),
        ("method", &matches.method),
        ("authority", &matches.authority),
    ];
    for (name, condition) in single {
        if let Some(condition) = condition {
            out.insert(name.to_owned(), string_match(condition));
        }
    }
    if matches.ignore_uri_case {
        out.insert("ignore_uri_case".to_owned(), Value::Bool(true));
    }
    let several = [
        ("headers", &matches.headers),
        ("without_headers", &matches.without_headers),
        ("query", &matches.query),
    ];
    for (name, conditions) in several {
        if !conditions.is_empty() {
            let pairs = conditions.iter().map(|(key, condition)| {
                let hidden =
                    name != "query" && carries_credentials(key) && *condition != StringMatch::Present;
                (key.clone(), if hidden { json!(REDACTED) } else { string_match(condition) })
            });
            out.insert(name.to_owned(), Value::Object(pairs.collect()));
        }
    }
    Value::Object(out)
}

fn string_match(condition: &StringMatch) -> Value {
    match condition {
        StringMatch::Exact(text) => json!({ "exact": text }),
        StringMatch::Prefix(text) => json!({ "prefix": text }),
        StringMatch::Regex(text) => json!({ "regex": text }),
        StringMatch::Present => json!("present"),
    }
}

fn forward_json(forward: &Forward) -> Value {
    let destinations: Value = forward
        .destinations
        .iter()
        .map(|d| json!({ "cluster": d.cluster, "weight": d.weight, "headers": headers(&d.headers) }))
        .collect();
    json!({
        "destinations": destinations,
        "timeout": forward.timeout.map(length),
        "retry": retry(&forward.retry),
        "rewrite": {
            "path": forward.rewrite.path.as_ref().map(path_rewrite),
            "authority": forward.rewrite.authority,
        },
        "headers": headers(&forward.headers),
    })
}

fn retry(retry: &Retry) -> Value {
    json!({
        "attempts": retry.attempts,
        "per_try_timeout": retry.per_try_timeout.map(length),
        "on": retry_conditions(retry.on),
        "codes": retry.codes,
        "backoff": length(retry.backoff),
        "avoid_tried": retry.avoid_tried,
    })
}

fn retry_conditions(on: RetryOn) -> Vec<&'static str> {
    const NAMES: [(RetryOn, &str); 14] = [
        (RetryOn::SERVER_ERROR, "5xx"),
        (RetryOn::GATEWAY_ERROR, "gateway-error"),
        (RetryOn::RESET, "reset"),
        (RetryOn::RESET_BEFORE_REQUEST, "reset-before-request"),
        (RetryOn::CONNECT_FAILURE, "connect-failure"),
        (RetryOn::RETRIABLE_4XX, "retriable-4xx"),
        (RetryOn::REFUSED_STREAM, "refused-stream"),
        (RetryOn::STATUS_CODES, "retriable-status-codes"),
        (RetryOn::RATE_LIMITED, "envoy-ratelimited"),
        (RetryOn::GRPC_CANCELLED, "cancelled"),
        (RetryOn::GRPC_DEADLINE_EXCEEDED, "deadline-exceeded"),
        (RetryOn::GRPC_INTERNAL, "internal"),
        (RetryOn::GRPC_RESOURCE_EXHAUSTED, "resource-exhausted"),
        (RetryOn::GRPC_UNAVAILABLE, "unavailable"),
    ];
    NAMES.iter().filter(|(condition, _)| on.any(*condition)).map(|(_, name)| *name).collect()
}

fn path_rewrite(rewrite: &PathRewrite) -> Value {
    match rewrite {
        PathRewrite::Prefix { from_len, with } => json!({ "prefix_length": from_len, "with": with }),
        PathRewrite::Full(path) => json!({ "full": path }),
        PathRewrite::Regex { pattern, with } => json!({ "regex": pattern, "with": with }),
    }
}

fn redirect_json(redirect: &Redirect) -> Value {
    let port = redirect.port.map(|port| match port {
        RedirectPort::Number(number) => json!(number),
        RedirectPort::FromProtocol => json!("FROM_PROTOCOL_DEFAULT"),
        RedirectPort::FromRequest => json!("FROM_REQUEST_PORT"),
    });
    json!({
        "code": redirect.code,
        "scheme": redirect.scheme,
        "authority": redirect.authority,
        "port": port,
        "path": redirect.path.as_ref().map(path_rewrite),
        "headers": message(&redirect.headers),
    })
}

fn direct_json(direct: &DirectResponse) -> Value {
    json!({ "status": direct.status, "body_bytes": direct.body.len(), "headers": message(&direct.headers) })
}

fn headers(ops: &HeaderOps) -> Value {
    json!({ "request": message(&ops.request), "response": message(&ops.response) })
}

fn message(ops: &MessageOps) -> Value {
    let pairs = |pairs: &[(String, String)]| -> Value {
        let shown = |value: &String, name| {
            if carries_credentials(name) { REDACTED.to_owned() } else { value.clone() }
        };
        pairs.iter().map(|(name, value)| json!([name, shown(value, name)])).collect()
    };
    if ops == &MessageOps::default() {
        return Value::Null;
    }
    json!({ "set": pairs(&ops.set), "add": pairs(&ops.add), "remove": ops.remove })
}

/// Whether values of this header are secrets more often than not.
fn carries_credentials(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "credential"];
    words.iter().any(|word| name.contains(word))
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoints = match &cluster.endpoints {
        Endpoints::Static(list) => {
            let list = list.iter().map(|e| json!({ "address": e.address.to_string(), "weight": e.weight }));
            json!({ "static": list.collect::<Value>() })
        }
        Endpoints::Dns(names) => {
            let names = names.iter().map(|n| json!({ "host": n.host, "port": n.port, "weight": n.weight }));
            json!({ "dns": names.collect::<Value>() })
        }
        Endpoints::Revision(key) => json!({ "revision": key }),
    };
    let identity = &cluster.identity;
    json!({
        "name": cluster.name,
        "protocol": protocol(cluster.protocol),
        "endpoints": endpoints,
        "identity": {
            "service": identity.service,
            "workload": identity.workload,
            "app": identity.app,
            "version": identity.version,
        },
        "balance": format!("{:?}", cluster.policy.balance),
        "limits": limits(&cluster.policy.limits),
        "concurrency": cluster.concurrency,
        "outlier": cluster.policy.outlier.as_ref().map(outlier),
    })
}

fn limits(limits: &Limits) -> Value {
    let bound = |count: u32| (count != u32::MAX).then_some(count);
    json!({
        "max_connections": bound(limits.max_connections),
        "connect_timeout": length(limits.connect_timeout),
        "max_connection_duration": limits.max_connection_duration.map(length),
        "max_pending": bound(limits.max_pending),
        "max_requests": bound(limits.max_requests),
        "max_requests_per_connection": limits.max_requests_per_connection,
        "max_retries": bound(limits.max_retries),
        "idle_timeout": limits.idle_timeout.map(length),
        "max_concurrent_streams": bound(limits.max_concurrent_streams),
    })
}

fn outlier(outlier: &Outlier) -> Value {
    json!({
        "consecutive_5xx": outlier.consecutive_5xx,
        "consecutive_gateway": outlier.consecutive_gateway,
        "interval": length(outlier.interval),
        "base_ejection": length(outlier.base_ejection),
        "max_ejection_percent": outlier.max_ejection_percent,
        "min_health_percent": outlier.min_health_percent,
    })
}

fn revision(revision: &Revision) -> Value {
    let scale = &revision.scale;
    json!({
        "key": revision.key,
        "service": revision.service,
        "namespace": revision.namespace,
        "name": revision.name,
        "labels": revision.labels,
        "concurrency": revision.concurrency,
        "timeout": length(revision.timeout),
        "scale": {
            "min": scale.min,
            "max": scale.max,
            "initial": scale.initial,
            "activation": scale.activation,
            "starting_at_once": scale.starting,
            "target": scale.total(revision.concurrency),
            "window": length(scale.window),
            "retention": length(scale.retention),
            "down_delay": length(scale.down_delay),
        },
        "holding": holding(&revision.holding),
        "idle": idle(revision.idle),
        "startup_probe": revision.probes.startup.as_ref().map(probe),
        "readiness_probe": revision.probes.readiness.as_ref().map(probe),
        "liveness_probe": revision.probes.liveness.as_ref().map(probe),
        "command": command(&revision.command),
        "env": revision.env.iter().map(|(name, _)| json!([name, REDACTED])).collect::<Value>(),
        "directory": revision.directory.to_string_lossy(),
        "protocol": protocol(revision.protocol),
        "reachable": revision.reachable,
    })
}

fn holding(holding: &Holding) -> Value {
    json!({
        "count": holding.count,
        "bytes": holding.bytes,
        "age": length(holding.age),
        "overflow_status": holding.overflow_status,
        "server_timing": holding.server_timing,
        "half_close": if holding.half_close { "keep" } else { "leave" },
    })
}

fn idle(idle: Idle) -> Value {
    match idle {
        Idle::Stop => json!("stop"),
        Idle::Freeze { most } => json!({ "freeze_for": length(most) }),
    }
}

fn probe(probe: &Probe) -> Value {
    let action = match &probe.action {
        ProbeAction::Tcp => json!("tcp"),
        ProbeAction::Http { path, headers } => {
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            json!({ "path": path, "headers": names })
        }
        ProbeAction::Grpc { service } => json!({ "grpc": service }),
        // Its arguments may be secret.
        ProbeAction::Exec { command } => json!({ "exec": command.first() }),
    };
    json!({
        "action": action,
        "elsewhere": probe.elsewhere,
        "period": length(probe.period),
        "timeout": length(probe.timeout),
        "initial_delay": length(probe.initial_delay),
        "success": probe.success,
        "failure": probe.failure,
    })
}

fn command(command: &Command) -> Value {
    match command {
        // Arguments may hold credentials; their number tells enough.
        Command::Run(words) => {
            json!({ "run": words.first(), "arguments": words.len().saturating_sub(1) })
        }
        Command::StandIn => json!("stand-in"),
        Command::Refused { reason, help } => json!({ "refused": reason, "help": help }),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::Http2 => "h2c",
    }
}

/// `15s`, `1.5s`, `25ms`.
fn length(length: Duration) -> String {
    if length.is_zero() { "0s".to_owned() } else { format!("{length:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_config::model::{Holding, ObjectRef, Scale};
    use std::collections::BTreeMap;

    fn secretive() -> Config {
        let ops = MessageOps {
            set: vec![
                ("authorization".to_owned(), "Bearer hush".to_owned()),
                ("x-team".to_owned(), "shown".to_owned()),
            ],
            ..MessageOps::default()
        };
        let direct = DirectResponse { status: 200, body: b"hush".to_vec(), headers: ops };
        let matches = Match {
            headers: vec![("x-api-key".to_owned(), StringMatch::Exact("hush".to_owned()))],
            ..Match::default()
        };
        let action = Action::Direct(direct);
        let route = Route { name: "r".to_owned(), matches, action, origin: ObjectRef::default() };
        let host = VirtualHost { name: "h".to_owned(), domains: vec!["*".to_owned()], routes: vec![route] };
        let revision = Revision {
            key: "default/a-1".to_owned(),
            service: "a".to_owned(),
            namespace: "default".to_owned(),
            name: "a-1".to_owned(),
            labels: BTreeMap::new(),
            service_account: "default".to_owned(),
            port: 8080,
            concurrency: 0,
            timeout: Duration::from_secs(300),
            scale: Scale::default(),
            holding: Holding::default(),
            idle: Idle::Stop,
            probes: Default::default(),
            resources: Default::default(),
            command: Command::Run(vec!["app".to_owned(), "--password=hush".to_owned()]),
            env: vec![("DB_PASSWORD".to_owned(), "hush".to_owned())],
            directory: "/tmp".into(),
            protocol: Protocol::Http1,
            reachable: true,
        };
        Config {
            listeners: vec![Listener {
                name: "mesh".to_owned(),
                direction: Direction::Outbound,
                bind: Bind::Mesh,
                tables: Tables::ByPort(BTreeMap::from([(80, Table { hosts: vec![host] })])),
                origins: Vec::new(),
                tls: proxy_config::model::ListenerTls::Plain,
                guard: None,
                forwarding: proxy_config::model::Forwarding::at(Direction::Outbound),
            }],
            revisions: vec![revision.into()],
            ..Config::default()
        }
    }

    #[test]
    fn the_page_shows_what_serves_and_no_secret() {
        let text = page(3, &secretive(), None).to_string();
        assert!(!text.contains("hush"), "{text}");
        for part in
            ["DB_PASSWORD", "shown", "x-api-key", "\"generation\":3", "\"timeout\":\"300s\"", "\"80\""]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn no_limit_is_null() {
        let shown = limits(&Limits { max_connections: 2, ..Limits::default() });
        assert_eq!(
            (shown["max_connections"].clone(), shown["max_requests"].clone()),
            (json!(2), Value::Null)
        );
        assert_eq!(shown["connect_timeout"], "10s");
    }

    #[test]
    fn retry_conditions_have_envoys_names() {
        let names = retry_conditions(RetryOn::istio_default());
        assert_eq!(
            names,
            ["connect-failure", "refused-stream", "retriable-status-codes", "cancelled", "unavailable"]
        );
    }
}
