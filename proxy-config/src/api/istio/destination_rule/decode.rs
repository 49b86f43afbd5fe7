//! A DestinationRule's tree to its struct, and the rules between its fields.

use super::{ConnectionPool, DestinationRule, OutlierDetection, PortPolicy, Subset, TrafficPolicy, tls};
use crate::api::Meta;
use crate::api::host::{self, Wildcard};
use crate::decode::Cursor;
use crate::model::Balance;
use crate::report::At;

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> Option<DestinationRule> {
    let spec = root.field("spec");
    let list = spec.field("subsets");
    let subsets: Vec<Subset> = list.items().filter_map(|item| subset(&item)).collect();
    for item in list.repeated("name") {
        let name = item.field("name");
        name.error("IST0106", format!("duplicate subset names: {}", name.text().unwrap_or_default()));
    }
    let traffic_policy = traffic_policy(&spec.field("trafficPolicy"));
    if spec.is_present() && traffic_policy.is_none() && subsets.is_empty() {
        spec.warn("IST0133", "neither trafficPolicy nor subsets: the rule does nothing");
    }
    Some(DestinationRule {
        meta,
        host: host::host(&spec.field("host"), Wildcard::Any)?,
        traffic_policy,
        subsets,
        export_to: spec.field("exportTo").strings(),
    })
}

fn subset(item: &Cursor<'_>) -> Option<Subset> {
    let name = item.field("name").text_at()?;
    let good = (1..=63).contains(&name.value.len())
        && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    if !good {
        item.field("name").error("IST0106", format!("subset name is invalid: {}", name.value));
    }
    let labels = item.field("labels").string_map();
    Some(Subset {
        name,
        labels: labels.into_iter().map(|(key, value)| (key.value, value.value)).collect(),
        traffic_policy: traffic_policy(&item.field("trafficPolicy")),
    })
}

fn traffic_policy(cursor: &Cursor<'_>) -> Option<TrafficPolicy> {
    if !cursor.is_object() {
        return None;
    }
    if cursor.node().is_some_and(|n| n.entries().is_empty()) {
        cursor.error("IST0106", "traffic policy must have at least one field");
    }
    let mut policy = blocks(cursor);
    let ports = cursor.field("portLevelSettings");
    policy.port_level = ports
        .items()
        .filter_map(|item| {
            let port = item.field("port").field("number").number_at()?;
            Some(PortPolicy { port, policy: blocks(&item) })
        })
        .collect();
    for (i, entry) in policy.port_level.iter().enumerate() {
        if policy.port_level[..i].iter().any(|p| p.port == entry.port) {
            let message = format!("port {} has more than one entry; the first wins", entry.port.value);
            ports.warn("IST0133", message);
        }
    }
    Some(policy)
}

fn blocks(cursor: &Cursor<'_>) -> TrafficPolicy {
    TrafficPolicy {
        at: cursor.at(),
        load_balancer: load_balancer(&cursor.field("loadBalancer")),
        connection_pool: connection_pool(&cursor.field("connectionPool")),
        outlier_detection: outlier_detection(&cursor.field("outlierDetection")),
        tls: tls::decode(&cursor.field("tls")),
        port_level: Vec::new(),
    }
}

fn load_balancer(cursor: &Cursor<'_>) -> Option<Balance> {
    if !cursor.is_object() {
        return None;
    }
    let simple = cursor.field("simple");
    if simple.is_present() && cursor.field("consistentHash").is_present() {
        cursor.error("IST0106", "only one of simple or consistentHash can be set");
    }
    let locality = cursor.field("localityLbSetting");
    if locality.field("distribute").is_present() && locality.field("failover").is_present() {
        locality.error("IST0106", "can not simultaneously specify 'distribute' and 'failover'");
    }
    for rule in locality.field("distribute").items() {
        let to = rule.field("to");
        let total: u64 = to.entries().filter_map(|(_, weight)| weight.number::<u32>()).map(u64::from).sum();
        if to.is_present() && total != 100 {
            to.error("IST0106", format!("total locality weight {total} != 100"));
        }
    }
    Some(match simple.text() {
        Some("LEAST_CONN") => {
            simple.warn_with_help("IST0002", "LEAST_CONN is deprecated", "write LEAST_REQUEST instead");
            Balance::LeastRequest
        }
        Some("PASSTHROUGH") => {
            simple.warn("SC007", "PASSTHROUGH balancing does not act yet: LEAST_REQUEST is used");
            Balance::LeastRequest
        }
        Some("ROUND_ROBIN") => Balance::RoundRobin,
        Some("RANDOM") => Balance::Random,
        _ => Balance::LeastRequest,
    })
}

fn connection_pool(cursor: &Cursor<'_>) -> Option<ConnectionPool> {
    if !cursor.is_object() {
        return None;
    }
    if cursor.node().is_some_and(|n| n.entries().is_empty()) {
        cursor.error("IST0106", "connection pool must have at least one field");
    }
    let (tcp, http) = (cursor.field("tcp"), cursor.field("http"));
    let connect = tcp.field("connectTimeout");
    Some(ConnectionPool {
        max_connections: limit(&tcp, "maxConnections"),
        connect_timeout: connect.duration().map(|d| At::new(d, connect.at())),
        max_connection_duration: tcp.field("maxConnectionDuration").duration(),
        http1_max_pending_requests: limit(&http, "http1MaxPendingRequests"),
        http2_max_requests: limit(&http, "http2MaxRequests"),
        max_requests_per_connection: limit(&http, "maxRequestsPerConnection"),
        max_retries: limit(&http, "maxRetries"),
        idle_timeout: http.field("idleTimeout").duration(),
        max_concurrent_streams: limit(&http, "maxConcurrentStreams"),
        h2_upgrade: match http.field("h2UpgradePolicy").text() {
            Some("UPGRADE") => Some(true),
            Some("DO_NOT_UPGRADE") => Some(false),
            _ => None,
        },
    })
}

/// A counter: 0 is "not set", negative is an error.
fn limit(block: &Cursor<'_>, name: &str) -> Option<u32> {
    let field = block.field(name);
    let value = field.number::<i64>()?;
    if value < 0 {
        field.error("IST0106", format!("{name} must be non-negative"));
    }
    u32::try_from(value).ok().filter(|v| *v > 0)
}

fn outlier_detection(cursor: &Cursor<'_>) -> Option<OutlierDetection> {
    if !cursor.is_object() {
        return None;
    }
    let split = cursor.field("splitExternalLocalOriginErrors").boolean().unwrap_or(false);
    let local = cursor.field("consecutiveLocalOriginFailures");
    if local.number::<u32>().is_some_and(|n| n > 0) && !split {
        local.error(
            "IST0106",
            "outlier detection consecutive local origin failures is specified, but split external local \
             origin errors is set to false",
        );
    }
    let percent = |name: &str| {
        let field = cursor.field(name);
        let value = field.number::<i64>()?;
        if !(0..=100).contains(&value) {
            field.error("IST0106", format!("percentage {value} is not in range 0..100"));
        }
        u32::try_from(value).ok().map(|v| At::new(v, field.at()))
    };
    Some(OutlierDetection {
        at: cursor.at(),
        consecutive_5xx_errors: cursor.field("consecutive5xxErrors").number(),
        consecutive_gateway_errors: cursor.field("consecutiveGatewayErrors").number(),
        interval: cursor.field("interval").duration(),
        base_ejection_time: cursor.field("baseEjectionTime").duration(),
        max_ejection_percent: percent("maxEjectionPercent"),
        min_health_percent: percent("minHealthPercent").map(|p| p.value),
    })
}
