//! What people write is read as meant, and what they get wrong is told in words that lead to the remedy.
//!
//! Each file in `accept/parse` and `reject/parse` has its expected report beside it (`x.report`; none where
//! nothing is to be told). With `UPDATE_REPORTS` set in the environment the reports are written anew.

use proxy_config::api::istio::RuleAction;
use proxy_config::api::{Object, Parsed, parse, parse_mesh_file};
use proxy_config::model::{Aggregation, RetryOn, StringMatch};
use proxy_config::report::{Level, Report};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).join("parse")
}

fn cases(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory(name))
        .expect("the directory of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e != "report"))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> (String, Parsed) {
    let text = fs::read_to_string(path).expect("a readable case");
    let name = Path::new(path.file_name().expect("a name"));
    let parsed = parse(name, &text, "default");
    (text, parsed)
}

/// Compares with the expected report, or writes it.
fn expect_report(path: &Path, parsed: &Parsed) {
    let report = Report::new(parsed.problems.clone());
    let mut text: String = report.problems().iter().map(|problem| format!("{problem}\n")).collect();
    for object in &parsed.bad {
        text.push_str(&format!("bad: {object}\n"));
    }
    let beside = path.with_extension("report");
    if std::env::var_os("UPDATE_REPORTS").is_some() {
        if text.is_empty() {
            let _ = fs::remove_file(&beside);
        } else {
            fs::write(&beside, &text).expect("a written report");
        }
        return;
    }
    let want = fs::read_to_string(&beside).unwrap_or_default();
    assert!(text == want, "{}: the report is\n{text}\nand should be\n{want}", path.display());
}

#[test]
fn good_objects_are_all_kept_and_only_what_does_not_act_is_told() {
    for path in cases("accept") {
        let (_, parsed) = read(&path);
        let errors = parsed.problems.iter().filter(|p| p.level == Level::Error);
        assert_eq!(errors.map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
        assert!(parsed.bad.is_empty() && !parsed.broken, "{}", path.display());
        expect_report(&path, &parsed);
    }
}

#[test]
fn bad_objects_are_named_with_place_reason_and_remedy() {
    for path in cases("reject") {
        let (_, parsed) = read(&path);
        assert!(parsed.problems.iter().any(|p| p.level == Level::Error), "{}", path.display());
        expect_report(&path, &parsed);
    }
}

#[test]
fn a_bad_document_spares_the_others_and_a_syntax_error_marks_the_file() {
    let (_, parsed) = read(&directory("reject").join("duplicate-keys.yaml"));
    let names: Vec<&str> = parsed.objects.iter().map(|o| o.meta().object.name.as_str()).collect();
    assert_eq!(names, ["fine", "in-list-fine"]);
    assert!(!parsed.broken);
    let (_, parsed) = read(&directory("reject").join("syntax.yaml"));
    assert!(parsed.broken);
    assert_eq!(parsed.objects.len(), 1);
}

#[test]
fn the_mesh_configuration_is_read_from_each_of_its_places() {
    let check = |text: &str| {
        let parsed = parse_mesh_file(Path::new("mesh.yaml"), text);
        let [Object::Mesh(mesh)] = parsed.objects.as_slice() else { panic!("{text}: {parsed:?}") };
        assert_eq!(mesh.access_log_file.as_ref().map(|f| f.value.as_str()), Some("/dev/stdout"), "{text}");
        assert_eq!(mesh.concurrency.map(|c| c.value), Some(2), "{text}");
    };
    check("accessLogFile: /dev/stdout\ndefaultConfig: {concurrency: 2}\n");
    check("meshConfig:\n  accessLogFile: /dev/stdout\n  defaultConfig: {concurrency: 2}\n");
    check(
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: a}\nspec:\n  \
         meshConfig: {accessLogFile: /dev/stdout, defaultConfig: {concurrency: 2}}\n",
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n    accessLogFile: \
         /dev/stdout\n    defaultConfig: {concurrency: 2}\n",
    );
    let none = parse_mesh_file(Path::new("mesh.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n");
    assert!(none.problems.iter().any(|p| p.level == Level::Error));
}

#[test]
fn a_rule_is_read_field_for_field() {
    let (_, parsed) = read(&directory("accept").join("routes.yaml"));
    let [Object::Gateway(gateway), Object::VirtualService(service), Object::DestinationRule(rule), entry] =
        parsed.objects.as_slice()
    else {
        panic!("{:?}", parsed.objects)
    };
    assert_eq!(gateway.servers[1].hosts[0].value, "shop/books.example.com");
    assert_eq!(service.hosts[1].value, "books");
    let canary = &service.http[0];
    let RuleAction::Route(destinations) = &canary.action else { panic!("{canary:?}") };
    assert_eq!(destinations[0].weight, 10);
    assert_eq!(destinations[0].port.map(|p| p.value), Some(8080));
    assert_eq!(destinations[0].headers.request.set, [("x-canary".to_owned(), "true".to_owned())]);
    let first = &canary.matches[0];
    assert_eq!(first.without_headers, [("x-bot".to_owned(), StringMatch::Present)]);
    assert!(first.headers.contains(&("x-debug".to_owned(), StringMatch::Present)));
    assert!(first.headers.contains(&("x-user".to_owned(), StringMatch::Exact("jason".to_owned()))));
    let retries = canary.retries.as_ref().expect("retries");
    let (on, codes) = &retries.retry_on.as_ref().expect("conditions").value;
    assert!(on.any(RetryOn::SERVER_ERROR) && on.any(RetryOn::CONNECT_FAILURE) && !on.any(RetryOn::RESET));
    assert_eq!((retries.attempts, codes.as_slice()), (3, [429].as_slice()));
    assert_eq!(canary.timeout.map(|t| t.value), Some(Duration::from_millis(1500)));
    assert_eq!(service.http[3].retries.as_ref().map(|r| r.attempts), Some(0));
    assert_eq!(service.http[0].retries.as_ref().map(|r| r.ignore_previous_hosts), Some(false));
    let pool = rule.traffic_policy.as_ref().and_then(|p| p.connection_pool.as_ref()).expect("a pool");
    assert_eq!((pool.max_connections, pool.max_requests_per_connection), (Some(100), None));
    let Object::ServiceEntry(entry) = entry else { panic!("{entry:?}") };
    assert_eq!(entry.endpoints[0].ports, [("http".to_owned(), 9000)]);
}

#[test]
fn a_function_is_read_field_for_field() {
    let (_, parsed) = read(&directory("accept").join("function.yaml"));
    let [Object::Function(function)] = parsed.objects.as_slice() else { panic!("{parsed:?}") };
    let template = &function.template;
    let command = template.local_command.as_ref().expect("a command");
    assert_eq!(command.value, ["python3", "-m", "http server", "a b"]);
    assert_eq!((template.scale.min, template.scale.max, template.scale.activation), (1, 20, 3));
    assert_eq!(template.scale.retention, Duration::from_secs(5));
    let holding = &template.holding;
    assert_eq!((holding.count, holding.bytes, holding.age), (100, 8 << 20, Duration::from_secs(30)));
    assert_eq!((holding.overflow_status, holding.server_timing, holding.half_close), (429, true, true));
    let scale = &template.scale;
    assert_eq!((scale.utilization, scale.panic_window, scale.panic_threshold), (0.8, 0.2, 1.5));
    assert_eq!((scale.burst_capacity, scale.aggregation), (-1.0, Aggregation::WeightedExponential));
    assert_eq!(scale.total(10), 10.0, "no more is aimed at than is let in");
    assert_eq!(template.container.env, [("GREETING".into(), "hi".into()), ("EMPTY".into(), String::new())]);
    assert!(template.container.h2c);
    assert_eq!(
        template.container.probes.readiness.as_ref().map(|probe| probe.period),
        Some(Duration::from_secs(2))
    );
    let (startup, liveness) =
        (template.container.probes.startup.as_ref(), template.container.probes.liveness.as_ref());
    let startup = startup.map(|probe| (probe.period.as_secs(), probe.failure, probe.timeout.as_secs()));
    assert_eq!(startup, Some((1, 60, 1)));
    let liveness = liveness.map(|probe| (probe.period.as_secs(), probe.failure, probe.grace));
    assert_eq!(liveness, Some((10, 3, Some(Duration::from_secs(4)))));
    let resources = template.container.resources.value;
    assert_eq!(
        (resources.memory, resources.cpu, resources.cpu_request),
        (Some(128 << 20), Some(500), Some(250))
    );
    assert_eq!(function.traffic[1].tag.as_ref().map(|t| t.value.as_str()), Some("canary"));
}

#[test]
fn secrets_are_never_repeated() {
    let (_, parsed) = read(&directory("accept").join("unknown-kinds.yaml"));
    assert!(!Report::new(parsed.problems.clone()).text().contains("hunter2"));
    assert!(!format!("{:?}", parsed.objects).contains("hunter2"));
}

/// A file's lines, some dropped, doubled, cut or indented anew: the mistakes of editing.
fn spoiled(text: &str, mut seed: u64) -> String {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut out = String::new();
    for line in text.lines() {
        let cut = line.char_indices().nth(next() as usize % 40).map_or(line.len(), |(i, _)| i);
        match next() % 24 {
            0 => continue,
            1 => out.push_str(&format!("{line}\n{line}")),
            2 => out.push_str(&line[..cut]),
            3 => out.push_str(line.trim_start()),
            4 => out.push_str(&format!("  {line}")),
            5 => out.push_str(&line.replace(": ", ": [")),
            6 => out.push_str(&line.replace(['1', '8'], "-")),
            7 => out.push_str(&line.replace("name", "nmae")),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[test]
fn no_slip_of_editing_makes_the_reader_panic() {
    for path in cases("accept").iter().chain(&cases("reject")) {
        let text = fs::read_to_string(path).unwrap();
        for seed in 0..40 {
            let parsed = parse(path, &spoiled(&text, seed), "default");
            let _ = parse_mesh_file(path, &spoiled(&text, seed + 1000));
            let _ = Report::new(parsed.problems).text();
        }
    }
}
