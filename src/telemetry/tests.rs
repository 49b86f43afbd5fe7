//! What a scrape shows of what was observed.

use super::*;
use crate::record::Flags;
use std::process::{Command, Stdio};

fn seen(code: u16) -> Observation {
    Observation {
        code,
        flags: Flags::NONE,
        grpc: false,
        grpc_status: None,
        duration: Duration::from_millis(7),
        request_bytes: 0,
        response_bytes: 300,
    }
}

fn labels() -> SeriesLabels {
    SeriesLabels {
        service: "hello.default.svc.cluster.local".into(),
        ..SeriesLabels::unknown(Reporter::Destination)
    }
}

/// The lines of `text` that begin with `name` and hold every one of `parts`, with what stands behind the last space.
fn values(text: &str, name: &str, parts: &[&str]) -> Vec<String> {
    let found = |line: &&str| line.starts_with(name) && parts.iter().all(|part| line.contains(part));
    text.lines().filter(found).filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
}

fn check(text: &str, name: &str, parts: &[&str], expected: &[&str]) {
    assert_eq!(values(text, name, parts), expected, "{name} {parts:?} in\n{text}");
}

#[test]
fn one_request_is_one_in_every_family_with_labels_in_istios_order() {
    let telemetry = Telemetry::new(2);
    let series = telemetry.series(labels());
    series.observe(1, &seen(200));
    let text = telemetry.encode();
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    let expected = "istio_requests_total{reporter=\"destination\",source_workload=\"unknown\",\
        source_canonical_service=\"unknown\",source_canonical_revision=\"latest\",\
        source_workload_namespace=\"unknown\",source_principal=\"unknown\",source_app=\"unknown\",\
        source_version=\"unknown\",source_cluster=\"unknown\",destination_workload=\"unknown\",\
        destination_workload_namespace=\"unknown\",destination_principal=\"unknown\",\
        destination_app=\"unknown\",destination_version=\"unknown\",\
        destination_service=\"hello.default.svc.cluster.local\",destination_canonical_service=\"unknown\",\
        destination_canonical_revision=\"latest\",destination_service_name=\"unknown\",\
        destination_service_namespace=\"unknown\",destination_cluster=\"unknown\",request_protocol=\"http\",\
        response_code=\"200\",grpc_response_status=\"\",response_flags=\"-\",\
        connection_security_policy=\"none\"} 1";
    assert_eq!(line, expected);
    for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        check(&text, &format!("{name}_count"), &[], &["1"]);
        check(&text, &format!("{name}_bucket"), &["le=\"+Inf\""], &["1"]);
    }
    check(&text, "istio_request_duration_milliseconds_sum", &[], &["7.0"]);
    check(&text, "istio_response_bytes_sum", &[], &["300.0"]);
}

#[test]
fn buckets_are_istios_and_their_bounds_belong_to_them() {
    let bounds =
        "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000 +Inf";
    let telemetry = Telemetry::new(1);
    let series = telemetry.series(labels());
    // (milliseconds and bytes, the smallest bound that counts it)
    let rows = [
        (0, "0.5"),
        (1, "1"),
        (5, "5"),
        (6, "10"),
        (1000, "1000"),
        (3_600_000, "3600000"),
        (3_600_001, "+Inf"),
    ];
    for (value, _) in rows {
        let duration = Duration::from_millis(value);
        series.observe(0, &Observation { duration, request_bytes: value, ..seen(200) });
    }
    let text = telemetry.encode();
    for name in ["istio_request_duration_milliseconds_bucket{", "istio_request_bytes_bucket{"] {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        let shown: Vec<&str> = lines.iter().map(|line| line.split('"').nth(1).unwrap()).collect();
        assert_eq!(shown.join(" "), bounds);
        for (nth, (value, bound)) in rows.iter().enumerate() {
            let (up_to, below) = ((nth + 1).to_string(), nth.to_string());
            let at = shown.iter().position(|shown| shown == bound).unwrap();
            assert!(lines[at].ends_with(&format!(" {up_to}")), "{value}: {}", lines[at]);
            if at > 0 {
                assert!(lines[at - 1].ends_with(&format!(" {below}")), "{value}: {}", lines[at - 1]);
            }
        }
    }
}

#[test]
fn status_flags_and_grpc_status_make_rows_of_their_own() {
    let telemetry = Telemetry::new(1);
    let series = telemetry.series(labels());
    series.observe(0, &seen(200));
    series.observe(0, &Observation { flags: Flags::UF | Flags::URX, ..seen(503) });
    series.observe(0, &Observation { flags: Flags::DC, ..seen(0) });
    for status in [Some(0), Some(14), None] {
        series.observe(0, &Observation { grpc: true, grpc_status: status, ..seen(200) });
    }
    let text = telemetry.encode();
    let rows: [&[&str]; 6] = [
        &["protocol=\"http\"", "code=\"200\"", "grpc_response_status=\"\"", "flags=\"-\""],
        &["protocol=\"http\"", "code=\"503\"", "flags=\"UF,URX\""],
        &["protocol=\"http\"", "code=\"0\"", "flags=\"DC\""],
        &["protocol=\"grpc\"", "grpc_response_status=\"0\""],
        &["protocol=\"grpc\"", "grpc_response_status=\"14\""],
        &["protocol=\"grpc\"", "grpc_response_status=\"\""],
    ];
    for parts in rows {
        check(&text, "istio_requests_total", parts, &["1"]);
    }
}

#[test]
fn a_peer_that_invents_statuses_makes_a_bounded_number_of_rows() {
    let telemetry = Telemetry::new(1);
    let series = telemetry.series(labels());
    for code in 100..1000 {
        series.observe(0, &seen(code));
    }
    let text = telemetry.encode();
    let rows = values(&text, "istio_requests_total", &[]);
    assert_eq!(rows.len(), 49);
    assert_eq!(rows.iter().map(|row| row.parse::<u64>().unwrap()).sum::<u64>(), 900);
    check(&text, "istio_requests_total", &["response_code=\"other\"", "response_flags=\"other\""], &["852"]);
}

#[test]
fn workers_that_count_at_once_lose_nothing() {
    const EACH: u64 = 20_000;
    let telemetry = Telemetry::new(4);
    let series = telemetry.series(labels());
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let series = &series;
            scope.spawn(move || {
                (0..EACH).for_each(|nth| series.observe(worker, &seen(200 + (nth % 8) as u16)));
            });
        }
    });
    let text = telemetry.encode();
    let expected = (4 * EACH / 8).to_string();
    check(&text, "istio_requests_total", &[], &[expected.as_str(); 8]);
}

#[test]
fn the_same_labels_are_the_same_series() {
    let telemetry = Telemetry::new(1);
    assert!(Arc::ptr_eq(&telemetry.series(labels()), &telemetry.series(labels())));
}

#[test]
fn a_series_that_nobody_holds_leaves_the_scrape_after_ten_minutes() {
    let telemetry = Telemetry::new(1);
    telemetry.series(labels()).observe(0, &seen(200));
    let now = clock::now();
    telemetry.sweep(now);
    assert_eq!(values(&telemetry.encode(), "istio_requests_total", &[]).len(), 1);
    telemetry.sweep(now + shelf::KEPT);
    assert_eq!(values(&telemetry.encode(), "istio_requests_total", &[]).len(), 0);
}

#[test]
fn functions_clusters_and_faults_are_counted_by_name() {
    let telemetry = Telemetry::new(1);
    let function = telemetry.function("default/hello-00001");
    function.cold_starts.inc();
    function.hold_seconds.observe(0.3);
    function.instances(State::Ready).set(2);
    telemetry.cluster("outbound|80||a").overflow(Limit::Pending).inc();
    telemetry.metrics.fault(crate::fault::Kind::HoldFull);
    telemetry.metrics.last_success.set(1.5);
    let text = telemetry.encode();
    let revision = "revision=\"default/hello-00001\"";
    check(&text, "pilotlight_cold_starts_total", &[revision], &["1"]);
    check(&text, "pilotlight_hold_seconds_sum", &[revision], &["0.3"]);
    check(&text, "pilotlight_instances{", &[revision, "state=\"ready\""], &["2"]);
    check(&text, "pilotlight_overflow_total", &["cluster=\"outbound|80||a\"", "limit=\"pending\""], &["1"]);
    check(&text, "pilotlight_faults_total", &["fault=\"HoldFull\""], &["1"]);
    check(&text, "pilotlight_config_last_success_timestamp_seconds", &[], &["1.5"]);
    check(&text, "pilotlight_build_info", &[env!("CARGO_PKG_VERSION")], &["1"]);
}

#[test]
fn a_label_that_tries_to_break_out_of_its_quotes_stays_inside() {
    let telemetry = Telemetry::new(1);
    let service = "a\"} 1\nevil_total{x=\"".into();
    telemetry.series(SeriesLabels { service, ..labels() }).observe(0, &seen(200));
    let text = telemetry.encode();
    assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
}

#[test]
fn nothing_is_told_twice_and_everything_has_help() {
    let telemetry = Telemetry::new(1);
    telemetry.series(labels()).observe(0, &seen(200));
    telemetry.function("default/a");
    telemetry.cluster("b");
    let text = telemetry.encode();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert!(names.iter().all(|line| line.split_once(' ').is_some_and(|(_, help)| !help.is_empty())));
    let all = names.len();
    names.sort_unstable();
    names.dedup_by_key(|line| line.split(' ').next());
    assert_eq!(names.len(), all);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(known(name) || family.is_some_and(known), "{name} has no type");
    }
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
}

/// Runs where Prometheus' own tool is installed; what it would say is mostly held by the test above.
#[test]
fn promtool_finds_nothing_but_the_unit_of_istios_own_histogram() {
    use std::io::Write;
    let telemetry = Telemetry::new(1);
    telemetry.series(labels()).observe(0, &seen(200));
    telemetry.function("default/a").hold_seconds.observe(1.0);
    telemetry.cluster("b");
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().unwrap().write_all(telemetry.encode().as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let unit = "istio_request_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"";
    assert_eq!(String::from_utf8_lossy(&said).trim(), unit);
}

#[test]
fn the_process_says_what_it_costs() {
    let telemetry = Telemetry::new(1);
    let text = telemetry.encode();
    let value = |name: &str| values(&text, &format!("{name} "), &[])[0].parse::<f64>().unwrap();
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
    assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
    assert!(value("process_threads") >= 1.0);
    assert!(value("process_start_time_seconds") > 1.6e9);
    assert!(value("process_cpu_seconds_total") >= 0.0);
}
