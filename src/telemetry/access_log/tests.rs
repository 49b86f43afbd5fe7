//! Lines as people read them, and what becomes of them when nobody does.

use super::*;
use crate::clock::{self, Instant, SystemTime};
use crate::fault::{Fault, Kind};
use crate::record::{Direction, Flags, Protocol};
use crate::telemetry::Telemetry;
use http::{HeaderMap, HeaderValue, Method};
use std::io::Read;
use std::path::{Path, PathBuf};

const PATIENCE: Duration = Duration::from_secs(10);

fn epoch(now: Instant) -> Epoch {
    Epoch::new(now, SystemTime::UNIX_EPOCH + Duration::from_millis(1_136_214_245_678))
}

fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    let value = |value: &[u8]| HeaderValue::from_bytes(value).unwrap();
    pairs.iter().map(|(name, bytes)| (http::HeaderName::from_static(name), value(bytes))).collect()
}

/// A request that was answered as it should be.
fn answered(now: Instant, format: &Format) -> Record {
    let mut record = opened(now);
    record.target = Some("/hello?name=x".parse().unwrap());
    record.authority = Some(HeaderValue::from_static("hello.default.localhost:8080"));
    record.route = Some("default".into());
    record.cluster = Some("outbound|80||hello.default.svc.cluster.local".into());
    record.upstream_host = Some(([127, 0, 0, 1], 40001).into());
    record.upstream_local = Some(([127, 0, 0, 1], 50002).into());
    record.status = 200;
    record.bytes_received = 5;
    record.bytes_sent = 1234;
    record.duration = Duration::from_micros(12_900);
    record.service_time = Some(Duration::from_millis(11));
    record.captured = format.capture_request(&headers(&[
        ("user-agent", b"curl/8.0"),
        ("x-forwarded-for", b"10.0.0.1"),
        ("x-request-id", b"3c1f"),
    ]));
    record
}

/// A request of which nothing is known but where it came from.
fn opened(now: Instant) -> Record {
    let remote = ([192, 168, 1, 9], 60000).into();
    Record::new(now, Direction::Gateway, Protocol::Http11, Method::GET, remote, ([10, 0, 0, 2], 8080).into())
}

fn line(format: &Format, record: &Record) -> String {
    let mut out = Vec::new();
    format.write(record, epoch(record.started), &mut out);
    String::from_utf8(out).unwrap()
}

fn text(format: &str) -> Format {
    Format::parse(Encoding::Text, Some(format)).unwrap()
}

#[test]
fn istios_default_line_is_written_byte_for_byte() {
    let now = clock::now();
    let format = Format::istio_text();
    let mut refused = opened(now);
    refused.fail(Fault::because(Kind::ConnectFailure, "connection refused (os error 111)"));
    refused.flags |= Flags::URX;
    let mut v6 = answered(now, &format);
    v6.protocol = Protocol::Http2;
    v6.upstream_host = Some(("::1".parse::<std::net::IpAddr>().unwrap(), 81).into());
    let rows = [
        (
            answered(now, &format),
            "[2006-01-02T15:04:05.678Z] \"GET /hello?name=x HTTP/1.1\" 200 - via_upstream - \"-\" 5 1234 12 11 \
             \"10.0.0.1\" \"curl/8.0\" \"3c1f\" \"hello.default.localhost:8080\" \"127.0.0.1:40001\" \
             outbound|80||hello.default.svc.cluster.local 127.0.0.1:50002 10.0.0.2:8080 192.168.1.9:60000 - \
             default\n",
        ),
        (
            v6,
            "[2006-01-02T15:04:05.678Z] \"GET /hello?name=x HTTP/2\" 200 - via_upstream - \"-\" 5 1234 12 11 \
             \"10.0.0.1\" \"curl/8.0\" \"3c1f\" \"hello.default.localhost:8080\" \"[::1]:81\" \
             outbound|80||hello.default.svc.cluster.local 127.0.0.1:50002 10.0.0.2:8080 192.168.1.9:60000 - \
             default\n",
        ),
        (
            refused,
            "[2006-01-02T15:04:05.678Z] \"GET - HTTP/1.1\" 503 UF,URX \
             upstream_reset_before_response_started{connection_failure} - \
             \"connection refused (os error 111)\" 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\" - - 10.0.0.2:8080 \
             192.168.1.9:60000 - -\n",
        ),
    ];
    for (record, expected) in rows {
        assert_eq!(line(&format, &record), expected);
    }
}

#[test]
fn istios_json_has_numbers_for_numbers_and_null_for_nothing() {
    let now = clock::now();
    let format = Format::istio_json();
    let full = "{\"start_time\":\"2006-01-02T15:04:05.678Z\",\"route_name\":\"default\",\"method\":\"GET\",\
        \"path\":\"/hello?name=x\",\"protocol\":\"HTTP/1.1\",\"response_code\":200,\"response_flags\":\"-\",\
        \"response_code_details\":\"via_upstream\",\"connection_termination_details\":null,\
        \"bytes_received\":5,\"bytes_sent\":1234,\"duration\":12,\"upstream_service_time\":\"11\",\
        \"x_forwarded_for\":\"10.0.0.1\",\"user_agent\":\"curl/8.0\",\"request_id\":\"3c1f\",\
        \"authority\":\"hello.default.localhost:8080\",\"upstream_host\":\"127.0.0.1:40001\",\
        \"upstream_cluster\":\"outbound|80||hello.default.svc.cluster.local\",\
        \"upstream_local_address\":\"127.0.0.1:50002\",\"downstream_local_address\":\"10.0.0.2:8080\",\
        \"downstream_remote_address\":\"192.168.1.9:60000\",\"requested_server_name\":null,\
        \"upstream_transport_failure_reason\":null}\n";
    assert_eq!(line(&format, &answered(now, &format)), full);
    let empty: serde_json::Value = serde_json::from_str(&line(&format, &opened(now))).unwrap();
    for key in ["route_name", "path", "user_agent", "upstream_host", "upstream_service_time", "request_id"] {
        assert!(empty[key].is_null(), "{key}");
    }
    assert_eq!(empty["response_code"], 0);
}

#[test]
fn own_formats_may_use_every_operator() {
    let now = clock::now();
    let rows = [
        ("%RESPONSE_CODE% 100%% %REQ(:METHOD)%", "200 100% GET\n"),
        ("with its own end\n", "with its own end\n"),
        ("%START_TIME(%Y/%m/%d %H:%M)% %START_TIME(%s.%3f)%", "2006/01/02 15:04 1136214245.678\n"),
        ("%REQ(user-agent):4% %REQ(X-Absent?User-Agent)% %REQ(X-ABSENT):9%", "curl curl/8.0 -\n"),
        ("%REQ(:PATH):6% %REQ(HOST):5% %REQ(:SCHEME)%", "/hello hello -\n"),
        ("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME?X)% %RESP(:STATUS)% %RESP(SERVER)%", "11 200 test\n"),
        (
            "%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_ADDRESS%",
            "127.0.0.1:40001 40001 127.0.0.1:50002\n",
        ),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "192.168.1.9 8080\n"),
        (
            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %UPSTREAM_CLUSTER%",
            "192.168.1.9:60000 outbound|80||hello.default.svc.cluster.local\n",
        ),
        (
            "%UPSTREAM_REQUEST_ATTEMPT_COUNT% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            "2 UT,URX UpstreamRequestTimeout,UpstreamRetryLimitExceeded\n",
        ),
        (
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
            "Unavailable UNAVAILABLE 14 14\n",
        ),
        ("%DYNAMIC_METADATA(a:b):10% %DOWNSTREAM_TLS_VERSION% %TRAILER(x)%", "- - -\n"),
        ("%ENVIRONMENT(CARGO_PKG_NAME)% %ENVIRONMENT(NO_SUCH_VARIABLE)%", "pilotlight -\n"),
    ];
    for (format, expected) in rows {
        let compiled = text(format);
        let mut record = answered(now, &compiled);
        record.attempts = 2;
        record.flags = Flags::URX | Flags::UT;
        record.grpc_status = Some(14);
        compiled.capture_response(&mut record.captured, &headers(&[("server", b"test")]));
        assert_eq!(line(&compiled, &record), expected, "{format}");
    }
}

#[test]
fn own_json_keeps_types_nests_and_mixes() {
    let now = clock::now();
    let format = Format::parse(
        Encoding::Json,
        Some(
            r#"{"code":"%RESPONSE_CODE%","mixed":"a \"%REQ(USER-AGENT)%\" %REQ(X-NO)%","in":{"s":"%RESP(SERVER)%"},
                "fixed":"x","n":3,"none":"%REQ(X-NO)%","empty":"","\n":true}"#,
        ),
    );
    let format = format.unwrap();
    let mut record = answered(now, &format);
    record.captured = format.capture_request(&headers(&[("user-agent", b"q\"uote")]));
    format.capture_response(&mut record.captured, &headers(&[("server", b"t")]));
    let expected = concat!(
        r#"{"\u000a":true,"code":200,"empty":"","fixed":"x","in":{"s":"t"},"mixed":"a \"q\"uote\" -","n":3,"none":null}"#,
        "\n"
    );
    assert_eq!(line(&format, &record), expected.replace("q\"uote", "q\\\"uote"));
    assert!(
        serde_json::from_str::<serde_json::Value>(expected.replace("q\"uote", "q\\\"uote").trim()).is_ok()
    );
}

#[test]
fn a_format_that_means_nothing_is_refused_with_its_place() {
    let rows = [
        (Encoding::Text, "ok %FOO%", 3, "%FOO% is not an access log operator"),
        (Encoding::Text, "%START_TIME", 0, "%START_TIME has no closing %"),
        (Encoding::Text, "100% sure", 3, "a % begins an operator (a % itself is written %%)"),
        (Encoding::Text, "%REQ%", 0, "%REQ% needs a name: %REQ(X)%"),
        (Encoding::Text, "%REQ(a b)%", 0, "\"a b\" is not a header name"),
        (Encoding::Text, "%REQ(x", 0, "%REQ( has no closing parenthesis"),
        (Encoding::Text, "%REQ(x):%", 0, "%REQ: needs a length in bytes after the colon"),
        (Encoding::Text, "%PROTOCOL(x)%", 0, "%PROTOCOL% takes no parameter"),
        (Encoding::Text, "%DURATION:3%", 0, "%DURATION% takes no length"),
        (Encoding::Text, "%START_TIME(%Q)%", 0, "%START_TIME% does not know the time specifier \"%Q\""),
        (Encoding::Text, "%UPSTREAM_HOST_PORTS%", 0, "%UPSTREAM_HOST_PORTS% is not an access log operator"),
        (Encoding::Json, "[1]", 0, "not a JSON object"),
        (Encoding::Json, r#"{"a":{"b":"x%FOO%"}}"#, 1, "a: b: %FOO% is not an access log operator"),
        (Encoding::Json, r#"{"a":[]}"#, 0, "a: a list cannot be logged"),
    ];
    for (encoding, format, at, reason) in rows {
        let error = Format::parse(encoding, Some(format)).unwrap_err();
        assert_eq!((error.at, error.reason.as_str()), (at, reason), "{format}");
    }
    let error = Format::parse(Encoding::Json, Some("{")).unwrap_err();
    assert!(error.to_string().starts_with("access log format, byte 0: not JSON: "), "{error}");
}

#[test]
fn what_a_client_sends_can_neither_add_a_line_nor_end_a_field() {
    let now = clock::now();
    let agent = b"x\" 200 - \"\x9b2J\t\xff\\";
    for format in [Format::istio_text(), Format::istio_json()] {
        let mut record = answered(now, &format);
        // The proxy's own words may hold what no header may.
        record.reason = Some("one\ntwo\r\u{85}\x1b[2J".into());
        record.captured = format.capture_request(&headers(&[("user-agent", agent)]));
        let mut out = Vec::new();
        format.write(&record, epoch(now), &mut out);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
        assert!(line.contains(r#"x\" 200 - \""#), "{line}");
    }
}

#[test]
fn a_format_captures_each_header_once_and_an_absent_log_nothing() {
    let format = text("%REQ(A)% %REQ(a?B)% %RESP(C)% %RESP(A)%");
    let mut captured = format.capture_request(&headers(&[("b", b"2"), ("c", b"not this")]));
    format.capture_response(&mut captured, &headers(&[("c", b"3"), ("a", b"4")]));
    let mut record = opened(clock::now());
    assert!(record.captured.is_empty());
    record.captured = captured;
    assert_eq!(line(&format, &record), "- 2 3 4\n");
}

/// A directory of its own that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("pilotlight-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn log(telemetry: &Telemetry, path: &Path, format: &str) -> AccessLog {
    telemetry.access_log(Target::File(path.into()), text(format)).unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !done() {
        assert!(clock::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn lines_are_written_in_order_and_a_flush_waits_for_them() {
    let directory = Directory::new("order");
    let telemetry = Telemetry::new(1);
    let log = log(&telemetry, &directory.file(), "%BYTES_SENT%");
    let worker = telemetry.worker(0);
    let mut record = opened(clock::now());
    for nth in 0..10_000 {
        record.bytes_sent = nth;
        worker.log(&log, &record);
    }
    drop((worker, log));
    telemetry.flush(PATIENCE);
    let written = std::fs::read_to_string(directory.file()).unwrap();
    assert!(written.lines().map(|line| line.parse::<u64>().unwrap()).eq(0..10_000));
    assert_eq!(telemetry.metrics.lines_dropped.get(), 0);
}

#[test]
fn a_lonely_line_does_not_wait_for_company() {
    let directory = Directory::new("lonely");
    let telemetry = Telemetry::new(1);
    let log = log(&telemetry, &directory.file(), "lonely");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let worker = telemetry.worker(0);
        tokio::task::spawn_local(worker.clone().keep_flushing());
        for lines in 1..=2 {
            worker.log(&log, &opened(clock::now()));
            let deadline = clock::now() + PATIENCE;
            while std::fs::read_to_string(directory.file()).unwrap().lines().count() < lines {
                assert!(clock::now() < deadline);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let directory = Directory::new("rotated");
    let telemetry = Telemetry::new(1);
    let log = log(&telemetry, &directory.file(), "line");
    let worker = telemetry.worker(0);
    let write = || {
        worker.log(&log, &opened(clock::now()));
        worker.flush();
        telemetry.flush(PATIENCE);
    };
    write();
    std::fs::rename(directory.file(), directory.0.join("old")).unwrap();
    until("a new file", || {
        write();
        std::fs::read_to_string(directory.file()).is_ok_and(|text| text.starts_with("line\n"))
    });
    assert_eq!(telemetry.metrics.lines_dropped.get(), 0);
}

#[test]
fn a_full_disk_costs_lines_and_says_so() {
    let telemetry = Telemetry::new(1);
    let log = log(&telemetry, Path::new("/dev/full"), "line");
    let worker = telemetry.worker(0);
    for _ in 0..3 {
        worker.log(&log, &opened(clock::now()));
        worker.flush();
    }
    telemetry.flush(PATIENCE);
    assert_eq!(telemetry.metrics.lines_dropped.get(), 3);
    assert!(telemetry.encode().contains("pilotlight_access_log_dropped_lines_total 3\n"));
}

#[test]
fn a_reader_that_stops_costs_lines_and_no_time() {
    const LINES: u64 = 40_000;
    let directory = Directory::new("stopped");
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.file(), 0o600.into()).unwrap();
    let options = std::fs::OpenOptions::new().read(true).write(true).open(directory.file());
    let mut reader = options.unwrap();
    let telemetry = Telemetry::new(1);
    let log = log(&telemetry, &directory.file(), &"x".repeat(99));
    let worker = telemetry.worker(0);
    let record = opened(clock::now());
    (0..LINES).for_each(|_| worker.log(&log, &record));
    worker.flush();
    let before = clock::now();
    telemetry.flush(Duration::from_millis(20));
    assert!(clock::now() - before < PATIENCE / 2);
    let dropped = telemetry.metrics.lines_dropped.get();
    assert!(dropped > 0);
    let mut left = (LINES - dropped) as usize * 100;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let got = reader.read(&mut buffer).unwrap();
        assert!(got > 0 && got <= left);
        left -= got;
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let telemetry = Telemetry::new(1);
    let missing = Target::File("/nonexistent/log".into());
    assert!(telemetry.access_log(missing, Format::istio_text()).is_err());
}

#[test]
fn targets_are_named_as_in_mesh_config() {
    let rows = [
        ("/dev/stdout", Target::Stdout),
        ("/dev/stderr", Target::Stderr),
        ("/tmp/log", Target::File("/tmp/log".into())),
    ];
    for (path, target) in rows {
        assert_eq!(Target::from(path), target);
    }
}
