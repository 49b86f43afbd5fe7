//! DestinationRules as written become rules with every default filled in.

use super::names;
use super::rules::{Blocks, Pool, Rule, Subset, Terms, Tls};
use super::security::{Credentials, Written, beside};
use crate::api::istio::{ConnectionPool, DestinationRule, OutlierDetection, TlsSettings, TrafficPolicy};
use crate::model::{ClientMode, ClientTls, Credential, Limits, Outlier, Pem};
use crate::report::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One rule. `credentials`: what its names of Secrets come to.
pub(crate) fn rule(
    written: &DestinationRule,
    credentials: &Credentials<'_>,
    problems: &mut Vec<Problem>,
) -> Rule {
    let namespace = &written.meta.object.namespace;
    let mut reader = Reader { rule: written, credentials, problems };
    let terms = written.traffic_policy.as_ref().map(|policy| reader.terms(policy));
    let subsets: Vec<Subset> = written
        .subsets
        .iter()
        .map(|subset| Subset {
            name: subset.name.value.clone(),
            labels: subset.labels.iter().cloned().collect(),
            terms: subset.traffic_policy.as_ref().map(|policy| reader.terms(policy)),
        })
        .collect();
    Rule {
        host: names::expand(&written.host.value, namespace),
        namespace: namespace.clone(),
        origin: written.meta.object.clone(),
        terms,
        subsets,
    }
}

struct Reader<'r, 'a> {
    rule: &'r DestinationRule,
    credentials: &'r Credentials<'a>,
    problems: &'r mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn terms(&mut self, written: &TrafficPolicy) -> Terms {
        let mut ports = BTreeMap::new();
        for own in &written.port_level {
            let blocks = self.blocks(&own.policy);
            ports.entry(own.port.value).or_insert(blocks);
        }
        Terms { blocks: self.blocks(written), ports }
    }

    fn blocks(&mut self, written: &TrafficPolicy) -> Blocks {
        Blocks {
            balance: written.load_balancer,
            pool: written.connection_pool.as_ref().map(pool),
            outlier: written.outlier_detection.as_ref().map(outlier),
            tls: written.tls.as_ref().map(|tls| self.tls(tls)),
        }
    }

    fn tls(&mut self, written: &TlsSettings) -> Tls {
        let Some(mode) = written.mode else { return Tls::Plain };
        let meta = &self.rule.meta;
        let file = |name: &String| Pem::File(beside(&meta.file, name));
        let mut credential = Credential {
            pair: written.files.as_ref().map(|(certificate, key)| (file(certificate), file(key))),
            roots: written.ca_file.as_ref().map(file),
            revoked: written.crl_file.as_ref().map(file),
            missing: None,
        };
        if let Some(name) = &written.credential {
            let place = Written { meta, path: written.path.clone() };
            let shows = mode == ClientMode::Mutual;
            self.credentials.client(name, shows, &mut credential, &place, self.problems);
        }
        let names = written.names.iter().map(|name| name.trim_start_matches("spiffe://").to_owned());
        Tls::Spoken(Arc::new(ClientTls {
            mode,
            credential,
            names: names.collect(),
            sni: written.sni.clone(),
            insecure: written.insecure,
        }))
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
