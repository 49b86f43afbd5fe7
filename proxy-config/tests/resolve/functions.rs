//! Functions: histories, traffic, commands.

use crate::pieces::{HELLO, check, check_findings, cluster, gateway, rule, rules};
use crate::view::{findings, load_files, load_text, routes_at};
use proxy_config::load::{Options, Reason, Unmet};
use proxy_config::model::{Command, Protocol};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_function_kept_local_to_the_cluster_is_on_no_gateway() {
    let text = HELLO.replace(
        "{name: hello}",
        "{name: hello, labels: {networking.knative.dev/visibility: cluster-local}}",
    );
    check(&text, "gateway:default", &[]);
}

#[test]
fn the_documents_of_one_function_are_its_history() {
    let text = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: f}
spec: {template: {metadata: {name: f-v1}, spec: {containers: [{image: i}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: f}
spec:
  template: {metadata: {name: f-v2, labels: {version: v2}}, spec: {containers: [{image: j}]}}
  traffic:
  - {revisionName: f-v1, percent: 90}
  - {latestRevision: true, percent: 10, tag: next}
---
";
    check(
        text,
        "gateway:default",
        &[
            "f.default.localhost -> outbound|80||f-v1.default.svc.cluster.local=90 \
             outbound|80||f-v2.default.svc.cluster.local=10",
            "next-f.default.localhost -> outbound|80||f-v2.default.svc.cluster.local=1",
        ],
    );
    let loaded = load_text(text);
    let keys: Vec<&str> = loaded.config.revisions.iter().map(|revision| revision.key.as_str()).collect();
    assert_eq!(keys, ["default/f-v1", "default/f-v2"]);
    let half = text.to_owned()
        + &rules(
            "half",
            "{hosts: [x.com], gateways: [g], http: [{route: [{destination: {host: f}, weight: 50}, {destination: {host: \
             f-v1}, weight: 50}]}]}",
        )
        + &gateway("g", 80, "[x.com]");
    check(
        &half,
        "gateway:80 x.com",
        &[
            "-> outbound|80||f-v1.default.svc.cluster.local=4500 outbound|80||f-v2.default.svc.cluster.local=500 \
           outbound|80||f-v1.default.svc.cluster.local=5000",
        ],
    );
    let subset = text.to_owned()
        + &rule(
            "d",
            "{host: f, subsets: [{name: two, labels: {version: v2}}, {name: none, labels: {version: v9}}]}",
        )
        + &rules("v", "{hosts: [f], http: [{route: [{destination: {host: f, subset: two}}]}]}");
    check(
        &subset,
        "mesh:80 f.default.svc.cluster.local,f.default.svc,f.default,f",
        &["-> outbound|80||f-v2.default.svc.cluster.local=1"],
    );
    check_findings(&subset.replace("subset: two}", "subset: none}"), &["error SC042"]);
}

#[test]
fn a_history_that_contradicts_itself_says_how_to_name_revisions() {
    let unnamed = HELLO.to_owned() + HELLO;
    let loaded = load_text(&unnamed);
    let problem = loaded.report.problems().iter().find(|p| p.code == "SC019").unwrap();
    assert!(problem.message.contains("a.yaml:2"), "{problem}");
    assert!(problem.help.as_ref().unwrap().contains("spec.template.metadata.name: hello-00002"), "{problem}");
    assert_eq!(loaded.config.revisions.len(), 1);
    let named = HELLO.replace("template: {spec", "template: {metadata: {name: hello-a}, spec");
    assert!(findings(&load_text(&(named.clone() + &named))).is_empty());
    let other = named.replace("image: i", "image: j");
    check_findings(&(named + &other), &["error SC019 revision \"hello-a\" has another template"]);
}

#[test]
fn a_revision_that_does_not_exist_fails_only_its_share() {
    let text = HELLO.replace("spec: {template", "spec: {traffic: [{revisionName: hello-v1, percent: 90}, {latestRevision: true, percent: 10}], template");
    check_findings(&text, &["error SC041 Revision \"hello-v1\" referenced in traffic not found"]);
    assert_eq!(
        routes_at(&load_text(&text).config, "gateway:default hello.default.localhost"),
        [
            "-> outbound|80||hello-v1.default.svc.cluster.local=90 outbound|80||hello-00001.default.svc.cluster.local=10"
        ]
    );
}

#[test]
fn annotations_go_before_the_defaults_of_the_cluster_and_those_before_knatives() {
    let text = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: f}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/window: 90s
        autoscaling.knative.dev/maxScale: '3'
        pilotlight.dev/starting-at-once: '2'
    spec: {containers: [{image: i}]}
";
    let defaults = "
apiVersion: v1
kind: ConfigMap
metadata: {name: config-autoscaler, namespace: knative-serving}
data: {stable-window: 30s, enable-scale-to-zero: 'false', container-concurrency-target-default: '50', max-scale: '9'}
";
    let scale = |files: &[(&str, &str)]| {
        load_files(files, &Options::default(), None).config.revisions[0].scale.clone()
    };
    let alone = scale(&[("f.yaml", text)]);
    assert_eq!((alone.window, alone.min, alone.max, alone.total(0)), (Duration::from_secs(90), 0, 3, 100.0));
    let both = scale(&[("f.yaml", text), ("z.yaml", defaults)]);
    assert_eq!((both.window, both.min, both.max, both.total(0)), (Duration::from_secs(90), 1, 3, 50.0));
    assert_eq!((alone.starting, both.starting), (2, 2), "what no ConfigMap speaks of stays");
}

#[test]
fn what_a_template_says_is_what_a_revision_is() {
    let text = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: f, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: f-app}
      annotations: {autoscaling.knative.dev/max-scale: '3', autoscaling.knative.dev/window: 6s, pilotlight.dev/local-command: node 'my app.js'}
    spec:
      containerConcurrency: 4
      timeoutSeconds: 7
      containers: [{image: i, env: [{name: A, value: b}], ports: [{name: h2c, containerPort: 9000}]}]
";
    let loaded = load_files(&[("dir/f.yaml", text)], &Options::default(), None);
    assert_eq!(findings(&loaded), Vec::<String>::new());
    let revision = &loaded.config.revisions[0];
    assert_eq!(revision.key, "shop/f-00001");
    assert_eq!((revision.concurrency, revision.timeout), (4, Duration::from_secs(7)));
    assert_eq!((revision.scale.max, revision.scale.window), (3, Duration::from_secs(6)));
    assert_eq!(revision.command, Command::Run(vec!["node".to_owned(), "my app.js".to_owned()]));
    assert_eq!(revision.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(revision.protocol, Protocol::Http2);
    assert_eq!(revision.directory.to_str(), Some("dir"));
    assert_eq!(revision.labels["serving.knative.dev/revision"], "f-00001");
    assert!(revision.reachable);
    let cluster = cluster(&loaded, "outbound|80||f-00001.shop.svc.cluster.local");
    assert_eq!((cluster.protocol, cluster.identity.workload.as_str()), (Protocol::Http2, "f-00001"));
    assert_eq!(cluster.identity.app, "f-app");
}

#[test]
fn the_command_line_decides_what_may_run() {
    let command = |options: &Options| {
        load_files(&[("a.yaml", HELLO)], options, None).config.revisions[0].command.clone()
    };
    let refused = command(&Options::default());
    assert!(
        matches!(&refused, Command::Refused { help, .. } if help.contains("--exec hello='…'")),
        "{refused:?}"
    );
    assert_eq!(command(&Options { stand_in: true, ..Options::default() }), Command::StandIn);
    let exec = BTreeMap::from([("hello".to_owned(), "sh -c 'a b'".to_owned())]);
    let words = ["sh", "-c", "a b"].map(str::to_owned).to_vec();
    assert_eq!(command(&Options { exec, ..Options::default() }), Command::Run(words));
}

#[test]
fn limits_that_nothing_enforces_are_one_warning_for_each_reason_where_something_runs() {
    let check = |resources: &str, memory: Option<&str>, cpu: Option<&str>, want: &[&str]| {
        let text = HELLO.replace("[{image: i}]", &format!("[{{image: i, resources: {resources}}}]"));
        assert!(text.contains(resources), "{text}");
        let reason = |why: Option<&str>| Some(Reason { why: why?.to_owned(), help: "do that".to_owned() });
        let unmet = Unmet { memory: reason(memory), cpu: reason(cpu) };
        let mut options = Options { unmet, ..Options::default() };
        assert_eq!(findings(&load_files(&[("a.yaml", &text)], &options, None)), [""; 0], "nothing runs here");
        options.exec_all = true;
        options.exec.insert("hello".to_owned(), "true".to_owned());
        assert_eq!(findings(&load_files(&[("a.yaml", &text)], &options, None)), want, "{resources}");
    };
    let both = "{limits: {memory: 64Mi, cpu: 1500m}}";
    check(both, None, None, &[]);
    check(
        both,
        Some("no"),
        Some("no"),
        &["5:50 warning SC046 limits.memory 64Mi and limits.cpu 1500m not enforced on this host: no"],
    );
    check(both, Some("no"), None, &["5:50 warning SC046 limits.memory 64Mi not enforced on this host: no"]);
    check(
        both,
        Some("no"),
        Some("nor"),
        &[
            "5:50 warning SC046 limits.cpu 1500m not enforced on this host: nor",
            "5:50 warning SC046 limits.memory 64Mi not enforced on this host: no",
        ],
    );
    let asked = "{requests: {cpu: 1, memory: 1000}}";
    check(
        asked,
        Some("no"),
        Some("nor"),
        &["5:50 warning SC046 requests.cpu 1000m not enforced on this host: nor"],
    );
    check("{requests: {memory: 64Mi}}", Some("no"), Some("no"), &[]);
}
