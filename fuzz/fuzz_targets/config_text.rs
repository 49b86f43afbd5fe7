//! Any text, as the whole input and as what a file turns into between two reloads.
//!
//! Loading is total: it never panics, says the same of the same text, keeps what was good, and whatever it lets
//! through compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pilotlight::route::{HeaderChange, Matcher, PathChange, Redirect, Side, Split};
use proxy_config::load::{File, Options, load};
use proxy_config::model::{Action, Config, Route, Tables};
use std::path::PathBuf;

const GOOD: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: kept, namespace: default}
spec:
  hosts: [kept.example]
  gateways: [default/front]
  http: [{directResponse: {status: 200}}]
";

fuzz_target!(|text: &str| {
    let options = Options { stand_in: true, ..Options::default() };
    let alone = load(&[file("a.yaml", text)], &options, None);
    compiles(&alone.config);
    let again = load(&[file("a.yaml", text)], &options, None);
    assert_eq!(alone.config, again.config, "the same text means the same");
    assert_eq!(alone.config, alone.kept.config(&options), "what is kept means the same");

    // A half-written file deletes nothing, and another file's good object does not suffer.
    let before = load(&[file("a.yaml", text), file("z.yaml", GOOD)], &options, None);
    let half = &text[..text.floor_char_boundary(text.len() / 2)];
    let after = load(&[file("a.yaml", half), file("z.yaml", GOOD)], &options, Some(&before.kept));
    compiles(&after.config);
    assert_eq!(after.config, after.kept.config(&options), "of two texts as well");
    let back = load(&[file("a.yaml", text), file("z.yaml", GOOD)], &options, Some(&after.kept));
    compiles(&back.config);
});

fn file(path: &str, text: &str) -> File {
    File { path: PathBuf::from(path), text: Ok(text.into()) }
}

/// What resolution lets through, a snapshot can be built from.
fn compiles(config: &Config) {
    for listener in &config.listeners {
        let tables: Vec<_> = match &listener.tables {
            Tables::One(table) => vec![table],
            Tables::ByPort(tables) => tables.values().collect(),
        };
        for host in tables.iter().flat_map(|table| &table.hosts) {
            host.routes.iter().for_each(route);
        }
    }
}

fn route(route: &Route) {
    Matcher::compile(&route.matches).expect("a match");
    match &route.action {
        Action::Redirect(redirect) => drop(Redirect::compile(redirect).expect("a redirect")),
        Action::Direct(direct) => {
            drop(HeaderChange::compile(&direct.headers, Side::Response).expect("headers"));
        }
        Action::Forward(forward) => {
            let weights: Vec<_> = forward.destinations.iter().map(|one| one.weight).collect();
            Split::compile(&weights).expect("a split");
            if let Some(path) = &forward.rewrite.path {
                PathChange::compile(path).expect("a rewrite");
            }
            for headers in forward.destinations.iter().map(|one| &one.headers).chain([&forward.headers]) {
                HeaderChange::compile(&headers.request, Side::Request).expect("request headers");
                HeaderChange::compile(&headers.response, Side::Response).expect("response headers");
            }
        }
    }
}
