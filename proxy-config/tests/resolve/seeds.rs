//! Documents of the kind that people copy from articles: they load, and what is odd about them is said.

use crate::view::{load_files, routes_at};
use proxy_config::load::Options;
use proxy_config::model::{Action, Balance, RetryOn};
use proxy_config::report::Level;
use std::collections::BTreeMap;
use std::time::Duration;

const PARCELS: &str = include_str!("documents/parcels.yaml");
const PARCELS_SERVICES: &str = include_str!("documents/parcels-services.yaml");
const KIOSK: &str = include_str!("documents/kiosk.yaml");
const LIBRARY: &str = include_str!("documents/library.yaml");

/// Codes of errors, and of warnings other than "does not act yet", by object.
fn codes(files: &[(&str, &str)]) -> Vec<String> {
    let loaded = load_files(files, &Options::default(), None);
    assert!(loaded.quarantined.is_empty(), "{}", loaded.report.text());
    let mut codes: Vec<String> = loaded
        .report
        .shown()
        .filter(|p| p.level == Level::Error || !matches!(p.code, "SC007" | "IST0002"))
        .map(|p| format!("{} {} {}", p.level.as_str(), p.code, p.object.as_ref().map_or("", |o| &o.name)))
        .collect();
    codes.sort();
    codes
}

#[test]
fn parcels_say_what_is_odd_about_them() {
    let expected = [
        "error IST0101 by-version",
        "error IST0101 by-version",
        "warning SC012 by-version",
        "warning SC012 label-canary",
        "warning SC012 tracker-colours",
        "warning SC012 try-again",
        "warning SC030 try-again",
        "warning SC032 depot-breaker",
        "warning SC032 tracker-terms",
        "warning SC034 customs-outside",
        "warning SC034 depot-breaker",
        "warning SC034 nearby",
        "warning SC034 tracker-terms",
    ];
    let got = codes(&[("parcels.yaml", PARCELS), ("services.yaml", PARCELS_SERVICES)]);
    let got: Vec<&str> = got.iter().map(String::as_str).filter(|line| !line.contains("IST0002")).collect();
    assert_eq!(got, expected);
}

#[test]
fn without_their_services_every_destination_of_parcels_is_missing() {
    let got = codes(&[("parcels.yaml", PARCELS)]);
    assert_eq!(got.iter().filter(|line| line.starts_with("error IST0101")).count(), 10, "{got:#?}");
}

#[test]
fn parcels_route_as_they_read() {
    let loaded = load_files(&[("p.yaml", PARCELS), ("s.yaml", PARCELS_SERVICES)], &Options::default(), None);
    let to = |name: &str| format!("outbound|80||{name}.parcels.svc.cluster.local");
    assert_eq!(
        routes_at(&loaded.config, "gateway:80 track.parcels.example.org"),
        [
            format!("plan==gold -> {}=1", to("gold-track")),
            format!("plan==silver -> {}=1", to("silver-track")),
            format!("-> {}=1", to("basic-track")),
        ]
    );
    assert_eq!(
        routes_at(&loaded.config, "mesh:80 tracker.parcels.example.org"),
        [format!("edition==v2 -> {}=1", to("tracker-v2")), format!("-> {}=1", to("tracker-v1"))]
    );
    assert_eq!(
        routes_at(&loaded.config, "mesh:80 labels.parcels.example.org"),
        [format!("-> {}=90 {}=10", to("label-maker-v1"), to("label-maker-v2"))]
    );
    let mesh = loaded.config.listeners.last().unwrap();
    let proxy_config::model::Tables::ByPort(tables) = &mesh.tables else { panic!("{mesh:?}") };
    let host = tables[&80].hosts.iter().find(|host| host.domains == ["customs.parcels.example.org"]).unwrap();
    let Action::Forward(forward) = &host.routes[0].action else { panic!("{host:?}") };
    assert_eq!(forward.timeout, Some(Duration::from_secs(5)));
    assert_eq!((forward.retry.attempts, forward.retry.per_try_timeout), (3, Some(Duration::from_secs(2))));
    assert!(forward.retry.on.any(RetryOn::CONNECT_FAILURE) && !forward.retry.on.any(RetryOn::RESET));
    let depot = loaded.config.clusters.iter().find(|cluster| cluster.name == to("depot")).unwrap();
    assert_eq!((depot.policy.limits.max_connections, depot.policy.limits.max_pending), (100, 1000));
    assert_eq!(depot.policy.limits.connect_timeout, Duration::from_millis(30));
    let outlier = depot.policy.outlier.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (Some(5), 20));
    let tracker = loaded.config.clusters.iter().find(|cluster| cluster.name == to("tracker")).unwrap();
    assert_eq!(tracker.policy.balance, Balance::LeastRequest);
}

#[test]
fn a_kiosk_loads_without_an_error() {
    let got = codes(&[("kiosk.yaml", KIOSK)]);
    assert!(got.iter().all(|line| !line.starts_with("error")), "{got:#?}");
}

#[test]
fn a_library_lacks_its_subsets_and_has_one_rule_too_many() {
    let got = codes(&[("library.yaml", LIBRARY)]);
    let count = got.iter().fold(BTreeMap::<&str, usize>::new(), |mut count, line| {
        *count.entry(line).or_default() += 1;
        count
    });
    for (line, times) in
        [("error IST0101 books-split", 2), ("warning SC013 books", 1), ("warning SC033 books-rule", 1)]
    {
        assert_eq!(count.get(line), Some(&times), "{got:#?}");
    }
    let loaded = load_files(&[("library.yaml", LIBRARY)], &Options::default(), None);
    assert_eq!(
        routes_at(&loaded.config, "gateway:80"),
        ["books.default.svc.cluster.local -> outbound|80||books.default.svc.cluster.local=1"]
    );
    let named = |name: &str| loaded.config.clusters.iter().find(|cluster| cluster.name == name);
    let books = named("outbound|80||books.default.svc.cluster.local").unwrap();
    assert_eq!(books.policy.outlier.unwrap().max_ejection_percent, 10);
    assert!(named("outbound|80|v1|books.default.svc.cluster.local").is_none());
}
