//! DestinationRules as written become rules with every default filled in.

use super::names;
use super::rules::{Blocks, Pool, Rule, Subset, Terms};
use crate::api::istio::{ConnectionPool, DestinationRule, OutlierDetection, TrafficPolicy};
use crate::model::{Limits, Outlier};
use std::time::Duration;

/// One rule.
pub(crate) fn rule(written: &DestinationRule) -> Rule {
    let namespace = &written.meta.object.namespace;
    let subsets = written.subsets.iter().map(|subset| Subset {
        name: subset.name.value.clone(),
        labels: subset.labels.iter().cloned().collect(),
        terms: subset.traffic_policy.as_ref().map(terms),
    });
    Rule {
        host: names::expand(&written.host.value, namespace),
        namespace: namespace.clone(),
        origin: written.meta.object.clone(),
        terms: written.traffic_policy.as_ref().map(terms),
        subsets: subsets.collect(),
    }
}

fn terms(written: &TrafficPolicy) -> Terms {
    let ports = written.port_level.iter().map(|own| (own.port.value, blocks(&own.policy)));
    Terms { blocks: blocks(written), ports: ports.collect() }
}

fn blocks(written: &TrafficPolicy) -> Blocks {
    Blocks {
        balance: written.load_balancer,
        pool: written.connection_pool.as_ref().map(pool),
        outlier: written.outlier_detection.as_ref().map(outlier),
    }
}

fn pool(written: &ConnectionPool) -> Pool {
    let default = Limits::default();
    let limits = Limits {
        max_connections: written.max_connections.unwrap_or(default.max_connections),
        connect_timeout: written
            .connect_timeout
            .as_ref()
            .map_or(default.connect_timeout, |timeout| timeout.value),
        max_connection_duration: written.max_connection_duration,
        max_pending: written.http1_max_pending_requests.unwrap_or(default.max_pending),
        max_requests: written.http2_max_requests.unwrap_or(default.max_requests),
        max_requests_per_connection: written.max_requests_per_connection,
        max_retries: written.max_retries.unwrap_or(default.max_retries),
        idle_timeout: written.idle_timeout,
        max_concurrent_streams: written.max_concurrent_streams.unwrap_or(default.max_concurrent_streams),
    };
    Pool { limits, upgrade: written.h2_upgrade == Some(true) }
}

/// Envoy's defaults where nothing is written.
fn outlier(written: &OutlierDetection) -> Outlier {
    Outlier {
        consecutive_5xx: Some(written.consecutive_5xx_errors.unwrap_or(5)).filter(|errors| *errors > 0),
        consecutive_gateway: written.consecutive_gateway_errors.filter(|errors| *errors > 0),
        interval: written.interval.unwrap_or(Duration::from_secs(10)),
        base_ejection: written.base_ejection_time.unwrap_or(Duration::from_secs(30)),
        max_ejection_percent: written.max_ejection_percent.as_ref().map_or(10, |percent| percent.value),
        min_health_percent: written.min_health_percent.unwrap_or(0),
    }
}
