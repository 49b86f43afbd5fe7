//! Where the exchanges of one target are counted: a series that is made by the first of them.
//!
//! Most functions idle, and a series with its labels and histograms takes kilobytes. Who is counted is known from
//! the configuration all the same, and shared with it. One that has counted before a reload is found again at once, so
//! that it is not forgotten meanwhile.

use crate::record::Direction;
use crate::telemetry::{Peer, Reporter, Series, SeriesLabels, Telemetry};
use proxy_config::model::Identity;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// Counts the exchanges of one target, as one side of them.
#[derive(Debug)]
pub struct Tally {
    reporter: Reporter,
    direction: Direction,
    to: Option<Arc<To>>,
    series: OnceLock<Arc<Series>>,
}

/// Who is counted: the texts of an identity, in one.
#[derive(Debug)]
pub(super) struct To {
    text: Box<str>,
    ends: [u32; TEXTS],
}

const TEXTS: usize = 8;

impl To {
    pub(super) fn new(to: &Identity) -> To {
        let (mut text, mut ends) = (String::new(), [0; TEXTS]);
        let all: [&str; TEXTS] = [
            &to.workload,
            &to.service_namespace,
            &to.app,
            &to.version,
            &to.canonical_service,
            &to.canonical_revision,
            &to.service,
            &to.service_name,
        ];
        for (one, end) in all.into_iter().zip(&mut ends) {
            text.push_str(one);
            *end = u32::try_from(text.len()).unwrap_or(u32::MAX);
        }
        To { text: text.into(), ends }
    }

    /// The texts, in the order in which they were put together.
    fn texts(&self) -> [Cow<'static, str>; TEXTS] {
        let mut from = 0;
        self.ends.map(|end| {
            let text = self.text.get(from..end as usize).unwrap_or_default();
            from = end as usize;
            known(text)
        })
    }
}

impl Tally {
    /// Of requests from a listener of that direction to `to`; none: to a cluster that does not exist.
    pub(super) fn new(
        telemetry: &Telemetry,
        reporter: Reporter,
        direction: Direction,
        to: Option<&Arc<To>>,
    ) -> Tally {
        let series = OnceLock::new();
        let tally = Tally { reporter, direction, to: to.cloned(), series };
        if let Some(known) = telemetry.known_series(&tally.labels()) {
            // Nobody else has seen it yet.
            let _ = tally.series.set(known);
        }
        tally
    }

    /// By a series that is there already.
    pub fn of(series: Arc<Series>) -> Tally {
        let (reporter, direction) = (series.labels().reporter, Direction::Outbound);
        Tally { reporter, direction, to: None, series: series.into() }
    }

    /// The series. Looked up by the first who asks, with a lock; ever after it is there.
    #[inline]
    pub fn series(&self, telemetry: &Telemetry) -> &Arc<Series> {
        self.series.get_or_init(|| telemetry.series(self.labels()))
    }

    fn labels(&self) -> SeriesLabels {
        let mut labels = SeriesLabels::unknown(self.reporter);
        if self.direction == Direction::Gateway {
            labels.source = gateway();
        }
        if let Some(to) = &self.to {
            let [workload, namespace, app, version, canonical_service, canonical_revision, service, name] =
                to.texts();
            labels.service_namespace = namespace.clone();
            (labels.service, labels.service_name) = (service, name);
            labels.destination = Peer {
                workload,
                namespace,
                app,
                version,
                canonical_service,
                canonical_revision,
                ..Peer::default()
            };
        }
        labels
    }
}

/// Where requests are counted that reach no cluster.
pub(super) fn nowhere(telemetry: &Telemetry, direction: Direction, name: &str) -> Arc<Series> {
    let reporter = if direction == Direction::Inbound { Reporter::Destination } else { Reporter::Source };
    let mut labels = SeriesLabels::unknown(reporter);
    if direction == Direction::Gateway {
        labels.source = gateway();
    }
    labels.service = name.to_owned().into();
    labels.service_name = name.to_owned().into();
    telemetry.series(labels)
}

fn known(text: &str) -> Cow<'static, str> {
    if text.is_empty() { "unknown".into() } else { text.to_owned().into() }
}

fn gateway() -> Peer {
    Peer {
        workload: "pilotlight-gateway".into(),
        app: "pilotlight-gateway".into(),
        canonical_service: "pilotlight-gateway".into(),
        ..Peer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Duration;
    use crate::telemetry::Observation;

    fn observe(tally: &Tally, telemetry: &Telemetry) {
        let seen = Observation {
            code: 200,
            flags: Default::default(),
            grpc: false,
            grpc_status: None,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        };
        tally.series(telemetry).observe(0, &seen);
    }

    #[test]
    fn a_series_begins_with_its_first_exchange_and_goes_on_in_the_next_snapshot() {
        let telemetry = Telemetry::new(1);
        let to = Arc::new(To::new(&Identity { service: "hello.default".into(), ..Identity::default() }));
        let make = |to| Tally::new(&telemetry, Reporter::Source, Direction::Gateway, Some(to));
        let first = make(&to);
        let says = |text: &str| telemetry.encode().lines().any(|line| line.contains(text));
        assert!(first.series.get().is_none() && telemetry.known_series(&first.labels()).is_none());
        observe(&first, &telemetry);
        let next = make(&to);
        assert!(next.series.get().is_some(), "it is held, and so not forgotten");
        drop(first);
        observe(&next, &telemetry);
        let labels = "source_workload=\"pilotlight-gateway\"";
        assert!(says(labels) && says("destination_service=\"hello.default\""), "{}", telemetry.encode());
        let lines = telemetry.encode();
        let count = lines.lines().find(|line| line.starts_with("istio_requests_total")).unwrap();
        assert!(count.ends_with(" 2"), "{count}");
    }
}
