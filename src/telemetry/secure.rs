//! Metrics of handshakes, certificates, and connections that pass through unopened.

use super::exposition::{family, single};
use crate::tls::{Refusal, Shown};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashSet;
use std::fmt;
use std::time::UNIX_EPOCH;

/// Identities of clients that are told apart in metrics; all beyond are counted as unknown.
const MAX_PRINCIPALS: usize = 256;

/// Which side began a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client with us.
    Downstream,
    /// We with a destination.
    Upstream,
}

impl Side {
    const NAMES: [&'static str; 2] = ["downstream", "upstream"];
}

/// What is counted about TLS.
#[derive(Debug, Default)]
pub struct Secure {
    done: [Counter; 2],
    failed: [[Counter; Refusal::ALL.len()]; 2],
    /// Handshakes with clients under way.
    pub under_way: Gauge,
    /// Connections in plaintext that were let in where mutual TLS may come too.
    pub plaintext: Counter,
    /// Connections passed on unopened, now.
    pub passing: Gauge,
    /// Connections ever passed on unopened.
    pub passed: Counter,
    /// Connections to be passed on for which no destination could be had.
    pub pass_failed: Counter,
    /// Bytes from clients passed on unopened.
    pub pass_received: Counter,
    /// Bytes to them.
    pub pass_sent: Counter,
    certificates: Mutex<Vec<Shown>>,
    principals: Mutex<HashSet<Box<str>>>,
}

impl Secure {
    /// A handshake was done.
    pub fn done(&self, side: Side) {
        self.done[side as usize].inc();
    }

    /// A handshake failed.
    pub fn failed(&self, side: Side, refusal: Refusal) {
        let at = Refusal::ALL.iter().position(|known| *known == refusal);
        if let Some(counter) = at.and_then(|at| self.failed[side as usize].get(at)) {
            counter.inc();
        }
    }

    /// The certificates of ours in use from now on.
    pub fn certificates(&self, shown: Vec<Shown>) {
        *self.certificates.lock() = shown;
    }

    /// Whether a client of this identity is counted under its name.
    pub(super) fn knows(&self, principal: &str) -> bool {
        let mut known = self.principals.lock();
        if known.contains(principal) {
            return true;
        }
        known.len() < MAX_PRINCIPALS && known.insert(principal.into())
    }
}

impl Collector for super::Shared<Secure> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let encoder = &mut encoder;
        let sides = || Side::NAMES.iter().enumerate();
        let rows = sides().map(|(at, side)| ([("side", *side)], &self.0.done[at]));
        family(encoder, "pilotlight_tls_handshakes", "TLS handshakes that were done, by side", rows)?;
        let rows = sides().flat_map(|(at, side)| {
            let reasons = Refusal::ALL.iter().zip(&self.0.failed[at]);
            reasons.map(|(reason, counter)| ([("side", *side), ("reason", reason.as_str())], counter))
        });
        let help = "TLS handshakes that failed, by side and reason";
        family(encoder, "pilotlight_tls_handshakes_failed", help, rows)?;
        let help = "TLS handshakes with clients under way";
        single(encoder, "pilotlight_tls_handshakes_under_way", help, &self.0.under_way)?;
        let help = "Connections in plaintext let in where mutual TLS may come too";
        single(encoder, "pilotlight_plaintext_connections", help, &self.0.plaintext)?;
        let help = "Connections passed on unopened, now";
        single(encoder, "pilotlight_passthrough_connections", help, &self.0.passing)?;
        for (name, help, counter) in [
            ("pilotlight_passthrough_connections_opened", "Connections passed on unopened", &self.0.passed),
            (
                "pilotlight_passthrough_connections_failed",
                "Connections to be passed on for which there was no destination",
                &self.0.pass_failed,
            ),
            ("pilotlight_passthrough_received_bytes", "Bytes of clients passed on", &self.0.pass_received),
            ("pilotlight_passthrough_sent_bytes", "Bytes passed on to clients", &self.0.pass_sent),
        ] {
            single(encoder, name, help, counter)?;
        }
        let shown = self.0.certificates.lock();
        let gauge = |value: i64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(value);
            gauge
        };
        let ends: Vec<_> = shown
            .iter()
            .filter_map(|shown| Some((&*shown.name, shown.not_after?.duration_since(UNIX_EPOCH).ok()?)))
            .map(|(name, at)| (name, gauge(at.as_secs() as i64)))
            .collect();
        let rows = ends.iter().map(|(name, gauge)| ([("certificate", *name)], gauge));
        let help = "When a certificate of this proxy expires";
        family(encoder, "pilotlight_certificate_expiry_timestamp_seconds", help, rows)?;
        let broken: Vec<_> =
            shown.iter().map(|shown| (&*shown.name, gauge(shown.problem.is_some().into()))).collect();
        let rows = broken.iter().map(|(name, gauge)| ([("certificate", *name)], gauge));
        let help = "1: what is in the files of a certificate cannot be used, and what was there before is";
        family(encoder, "pilotlight_certificate_broken", help, rows)
    }
}
