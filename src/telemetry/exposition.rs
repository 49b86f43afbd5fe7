//! What a scrape reads: Prometheus text, made off the workers.
//!
//! The registry's encoder writes OpenMetrics, which names a counter's family without `_total`; readers of
//! the older text format then miss its help. The text is turned into that older format, which every
//! version of Prometheus takes, with bucket bounds written as Envoy writes them.

use super::series::{BOUNDS, BUCKETS, Outcome, Peer, Series, SeriesLabels, Sum, Total};
use super::shelf::Shelf;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt::{self, Write};
use std::sync::Arc;

/// The content type of what `Telemetry::encode` gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes one metric of several labelled rows.
pub(super) fn family<L, M>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result
where
    L: EncodeLabelSet,
    M: std::ops::Deref<Target: EncodeMetric + TypedMetric>,
{
    let mut metric = encoder.encode_descriptor(name, help, None, <M::Target as TypedMetric>::TYPE)?;
    for (labels, row) in rows {
        row.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes one metric of one row without labels.
pub(super) fn single<M>(encoder: &mut DescriptorEncoder, name: &str, help: &str, metric: &M) -> fmt::Result
where
    M: EncodeMetric + TypedMetric,
{
    metric.encode(encoder.encode_descriptor(name, help, None, M::TYPE)?)
}

/// All of Istio's standard series.
pub(super) type AllSeries = Shelf<SeriesLabels, Series>;

impl Collector for AllSeries {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // One look at the counters, so that the four families of a series agree.
        let seen: Vec<(Arc<Series>, Vec<Total>)> =
            self.all().into_iter().map(|(_, series)| (series.clone(), series.totals())).collect();
        let rows = || seen.iter().flat_map(|(series, totals)| totals.iter().map(|total| (&**series, total)));
        let encoder = &mut encoder;
        let help = "Requests that were answered or given up";
        let mut metric = encoder.encode_descriptor("istio_requests", help, None, MetricType::Counter)?;
        for (series, total) in rows() {
            let labels = Labels::of(series, total.outcome);
            let count = total.duration.count();
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        let help = "How long requests took, in milliseconds";
        let durations = rows().map(|(series, total)| (series, total, &total.duration));
        histogram(encoder, "istio_request_duration_milliseconds", help, 1e6, durations)?;
        let requests = rows().map(|(series, total)| (series, total, &total.request));
        histogram(encoder, "istio_request_bytes", "Request sizes in bytes", 1.0, requests)?;
        let responses = rows().map(|(series, total)| (series, total, &total.response));
        histogram(encoder, "istio_response_bytes", "Response sizes in bytes", 1.0, responses)
    }
}

fn histogram<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    scale: f64,
    rows: impl Iterator<Item = (&'a Series, &'a Total, &'a Sum)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (series, total, sum) in rows {
        let labels = Labels::of(series, total.outcome);
        let mut buckets = [(f64::INFINITY, 0); BUCKETS];
        for (bucket, bound) in buckets.iter_mut().zip(BOUNDS) {
            bucket.0 = bound;
        }
        for (bucket, count) in buckets.iter_mut().zip(sum.buckets) {
            bucket.1 = count;
        }
        let mut row = metric.encode_family(&labels)?;
        row.encode_histogram::<NoLabelSet>(sum.sum as f64 / scale, sum.count(), &buckets, None)?;
    }
    Ok(())
}

/// Istio's labels in Istio's order.
struct Labels<'a> {
    fixed: &'a SeriesLabels,
    protocol: &'static str,
    code: String,
    grpc_status: String,
    flags: String,
}

impl<'a> Labels<'a> {
    fn of(series: &'a Series, outcome: Outcome) -> Labels<'a> {
        let fixed = series.labels();
        if outcome == Outcome::OTHER {
            let other = || "other".to_owned();
            return Labels { fixed, protocol: "other", code: other(), grpc_status: other(), flags: other() };
        }
        Labels {
            fixed,
            protocol: if outcome.grpc() { "grpc" } else { "http" },
            code: outcome.code().to_string(),
            grpc_status: outcome.grpc_status().map(|status| status.to_string()).unwrap_or_default(),
            flags: outcome.flags().to_string(),
        }
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let mut put = |name: &str, value: &str| (name, value).encode(encoder.encode_label());
        let SeriesLabels { reporter, source, destination, .. } = self.fixed;
        put("reporter", reporter.as_str())?;
        put("source_workload", &source.workload)?;
        put("source_canonical_service", &source.canonical_service)?;
        put("source_canonical_revision", &source.canonical_revision)?;
        put("source_workload_namespace", &source.namespace)?;
        put("source_principal", &source.principal)?;
        put("source_app", &source.app)?;
        put("source_version", &source.version)?;
        put("source_cluster", &source.cluster)?;
        let Peer { workload, namespace, principal, app, version, .. } = destination;
        put("destination_workload", workload)?;
        put("destination_workload_namespace", namespace)?;
        put("destination_principal", principal)?;
        put("destination_app", app)?;
        put("destination_version", version)?;
        put("destination_service", &self.fixed.service)?;
        put("destination_canonical_service", &destination.canonical_service)?;
        put("destination_canonical_revision", &destination.canonical_revision)?;
        put("destination_service_name", &self.fixed.service_name)?;
        put("destination_service_namespace", &self.fixed.service_namespace)?;
        put("destination_cluster", &destination.cluster)?;
        put("request_protocol", self.protocol)?;
        put("response_code", &self.code)?;
        put("grpc_response_status", &self.grpc_status)?;
        put("response_flags", &self.flags)?;
        put("connection_security_policy", &self.fixed.security)
    }
}

/// OpenMetrics text as Prometheus text 0.0.4.
pub(super) fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len() + 1024);
    let mut help = "";
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            head(&mut out, help, rest);
        } else if !line.starts_with('#') {
            sample(&mut out, line);
        }
    }
    out
}

/// The help and type of one metric. A counter's name gets its suffix here.
fn head(out: &mut String, help: &str, typed: &str) {
    let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
    let (_, help) = help.split_once(' ').unwrap_or_default();
    let suffix = if kind == "counter" { "_total" } else { "" };
    let _ = write!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
}

/// One sample; a bound of `1.0` becomes `1`. The encoder writes the bound first.
fn sample(out: &mut String, line: &str) {
    const BOUND: &str = "{le=\"";
    let short = line.find('{').filter(|at| line[*at..].starts_with(BOUND)).and_then(|at| {
        let from = at + BOUND.len();
        let to = from + line[from..].find('"')?;
        Some((line[..to].strip_suffix(".0")?, &line[to..]))
    });
    match short {
        Some((front, back)) => out.extend([front, back, "\n"]),
        None => out.extend([line, "\n"]),
    }
}
