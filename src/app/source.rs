//! What the admin API tells of the running process.

use super::engine::Engine;
use crate::control::admin::{Source, dump};
use crate::control::scale::Scaler;
use crate::telemetry::Telemetry;
use serde_json::{Value, json};
use std::sync::Arc;

/// The process, told.
pub(super) struct Told {
    pub(super) engine: Arc<Engine>,
    pub(super) scaler: Scaler,
    pub(super) telemetry: Arc<Telemetry>,
}

impl Source for Told {
    fn ready(&self) -> Result<(), String> {
        self.engine.ready()
    }

    fn metrics(&self) -> String {
        self.telemetry.encode()
    }

    fn config_dump(&self) -> Value {
        self.engine.look(dump::page)
    }

    fn clusters(&self) -> Value {
        let snapshot = self.engine.published().current();
        let mut clusters: Vec<_> = snapshot.destinations.values().collect();
        clusters.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
        let told = clusters.into_iter().map(|destination| {
            let cluster = &destination.cluster;
            let counts = cluster.gate.counts();
            let endpoints: Vec<Value> = cluster
                .members
                .endpoints()
                .iter()
                .map(|endpoint| {
                    json!({
                        "address": endpoint.address.to_string(),
                        "name": &*endpoint.name,
                        "weight": endpoint.weight,
                        "in_flight": endpoint.active(),
                        "limit": endpoint.limit(),
                        "healthy": !endpoint.health.is_ejected(),
                        "ejections": endpoint.health.ejections(),
                        "draining": endpoint.is_closed(),
                    })
                })
                .collect();
            json!({
                "name": &*cluster.name,
                "requests": counts.requests,
                "connections": counts.connections,
                "pending": counts.pending,
                "retries": counts.retries,
                "overflows": counts.overflows,
                "held": cluster.members.hold().map_or(0, |hold| hold.waiting()),
                "endpoints": endpoints,
            })
        });
        Value::Array(told.collect())
    }

    fn functions(&self) -> Value {
        self.scaler.functions()
    }

    fn acted(&self, page: &str) {
        let mut told = serde_json::Map::new();
        told.insert("page".to_owned(), page.into());
        self.telemetry.audit.tell("admin", told);
    }
}
