//! What the proxy tells: metrics and access log.
//!
//! Handles are resolved when a snapshot is compiled; an exchange then only adds to numbers of its own worker
//! and, when the access log is on, appends a line to its worker's buffer. Scrapes and writes happen
//! elsewhere. Nothing here looks at a socket or decides anything.

pub mod access_log;
mod audit;
mod auth;
mod exposition;
mod metrics;
mod plain;
mod process;
mod secure;
mod series;
mod shelf;
#[cfg(test)]
mod tests;

pub use access_log::Worker;
pub use audit::Audit;
pub use auth::AuthMetrics;
pub use exposition::CONTENT_TYPE;
pub use metrics::{ClusterMetrics, FunctionMetrics, Limit, Metrics, State};
pub use plain::Seldom;
pub use secure::{Secure, Side};
pub use series::{BOUNDS, Label, Observation, Peer, Reporter, Series, SeriesLabels};

use crate::clock::{self, Duration, Instant};
use access_log::{AccessLog, Epoch, Format, Sinks, Target};
use exposition::AllSeries;
use metrics::{Clusters, Functions};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use std::io;
use std::sync::Arc;

/// Metrics that are also held elsewhere.
#[derive(Debug)]
struct Shared<T>(Arc<T>);

/// All metrics and logs of the process.
#[derive(Debug)]
pub struct Telemetry {
    workers: usize,
    /// Metrics of the process as a whole.
    pub metrics: Metrics,
    /// What is counted about TLS.
    pub secure: Arc<Secure>,
    series: Arc<AllSeries>,
    functions: Arc<Functions>,
    clusters: Arc<Clusters>,
    registry: Registry,
    epoch: Epoch,
    sinks: Sinks,
    /// The audit stream.
    pub audit: Audit,
}

impl Telemetry {
    /// For a process of so many workers, numbered from 0.
    pub fn new(workers: usize) -> Arc<Telemetry> {
        let epoch = Epoch::start();
        let metrics = Metrics::default();
        let series = Arc::new(AllSeries::default());
        let functions = Arc::new(Functions::default());
        let clusters = Arc::new(Clusters::default());
        let secure: Arc<Secure> = Arc::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        registry.register_collector(Box::new(Shared(secure.clone())));
        registry.register_collector(Box::new(process::Process::new(epoch)));
        registry.register_collector(Box::new(series.clone()));
        registry.register_collector(Box::new(functions.clone()));
        registry.register_collector(Box::new(clusters.clone()));
        let sinks = Sinks::new(metrics.lines_dropped.clone());
        let audit = Audit::new(metrics.auth.audit_dropped.clone());
        Arc::new(Telemetry {
            workers,
            metrics,
            secure,
            series,
            functions,
            clusters,
            registry,
            epoch,
            sinks,
            audit,
        })
    }

    /// Istio's standard metrics for these labels. The same labels give the same series; one that nobody
    /// has held for ten minutes starts again from zero.
    pub fn series(&self, labels: SeriesLabels) -> Arc<Series> {
        self.series.get(labels, |labels| Series::new(labels, self.workers))
    }

    /// The same, if there is one.
    pub fn known_series(&self, labels: &SeriesLabels) -> Option<Arc<Series>> {
        self.series.find(labels)
    }

    /// The same for requests of a client with a certificate: `principal` is its SPIFFE identity. Of
    /// identities beyond a bound none is told apart.
    pub fn identified(&self, series: &Series, principal: Option<&str>) -> Arc<Series> {
        let mut labels = series.labels().clone();
        labels.security = "mutual_tls".into();
        if let Some(principal) = principal.filter(|principal| self.secure.knows(principal)) {
            labels.source.principal = format!("spiffe://{principal}").into();
            if let Some((_, namespace, _)) = crate::record::parts(principal) {
                labels.source.namespace = namespace.to_owned().into();
            }
        }
        self.series(labels)
    }

    /// The metrics of one revision, named `namespace/name`.
    pub fn function(&self, revision: impl Into<Arc<str>>) -> Arc<Seldom<FunctionMetrics>> {
        self.functions.get(revision.into(), |_| Seldom::default())
    }

    /// The metrics of one cluster.
    pub fn cluster(&self, name: impl Into<Arc<str>>) -> Arc<Seldom<ClusterMetrics>> {
        self.clusters.get(name.into(), |_| Seldom::default())
    }

    /// Everything as Prometheus text; see `CONTENT_TYPE`. Takes milliseconds: never call it on a worker.
    pub fn encode(&self) -> String {
        self.sweep(clock::now());
        let mut open = String::new();
        // Writing to a string cannot fail, and no collector here does.
        let _ = text::encode_registry(&mut open, &self.registry);
        exposition::plain(&open)
    }

    /// Forgets what no snapshot has held for ten minutes. Scrapes do it too; without scrapes it is to be
    /// called after each reload.
    pub fn sweep(&self, now: Instant) {
        self.series.sweep(now);
        self.functions.sweep(now);
        self.clusters.sweep(now);
    }

    /// An access log in this format to this target. Logs to one target share its writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn access_log(&self, target: Target, format: Format) -> io::Result<AccessLog> {
        Ok(AccessLog::new(format, self.sinks.open(target)?))
    }

    /// From now on the audit stream goes there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn audit_to(&self, target: Target) -> io::Result<()> {
        self.audit.open(target, &self.sinks)
    }

    /// The handle of worker `index`; to be made on its own thread.
    pub fn worker(self: &Arc<Self>, index: usize) -> Worker {
        Worker::new(index, self.epoch)
    }

    /// Waits until every access log line that was handed over is written, `within` at most. Workers hand
    /// over what they have left when they end.
    pub fn flush(&self, within: Duration) {
        self.audit.flush(clock::now() + within);
        self.sinks.flush(clock::now() + within);
    }
}
