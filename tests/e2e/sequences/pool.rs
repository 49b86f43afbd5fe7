//! Objects that a configuration may have, each in several versions, and what may be wrong with them.

use crate::support::{Origin, Reply, Town, yaml};

/// One object, or some that come together: what they may say.
pub type Versions = Vec<String>;

/// Whoever is behind the configuration.
pub struct Cast {
    pub one: Origin,
    pub two: Origin,
    pub newer: Origin,
    town: Town,
}

/// Ports that Gateways of the pool have.
pub const PORTS: [u16; 3] = [7101, 7102, 7443];

/// Hosts that are asked, at gateways and within the mesh.
pub const HOSTS: [&str; 9] = [
    "v1.test",
    "v2.test",
    "fa.default.localhost",
    "fb.default.localhost",
    "canary-fb.default.localhost",
    "fa",
    "fb.default",
    "se.test",
    "svc.default",
];

impl Cast {
    pub fn new() -> Cast {
        let town = Town::of(&[]);
        town.issue(&["v1.test", "v2.test"], &[]);
        let origin = |name: &'static str| {
            Origin::h1().answer(move |seen| match seen.uri.path() {
                "/fail" => Reply::status(500),
                _ => Reply::text(name),
            })
        };
        let (one, two) = (origin("one"), origin("two"));
        Cast { one, two, newer: Origin::h2c().reply("newer"), town }
    }

    fn secret(&self, host: &str) -> String {
        let read = |name: &str| {
            let text = std::fs::read_to_string(self.town.file(&format!("hosts/{host}/{name}"))).unwrap();
            text.lines().map(|line| format!("    {line}\n")).collect::<String>()
        };
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: pair, namespace: default}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
            read("tls.crt"),
            read("tls.key")
        )
    }

    /// Everything there may be.
    pub fn objects(&self) -> Vec<Versions> {
        vec![
            first_function(),
            second_function(),
            self.entries(),
            self.services(),
            virtual_services("v1"),
            virtual_services("v2"),
            rules(),
            gateways(),
            vec![self.secret("v1.test"), self.secret("v2.test")],
            defaults(),
            mesh(),
            security("AuthorizationPolicy", "one", &ALLOWED),
            security("AuthorizationPolicy", "two", &DENIED),
            security(
                "PeerAuthentication",
                "default",
                &["{mtls: {mode: STRICT}}", "{mtls: {mode: PERMISSIVE}}"],
            ),
            security(
                "RequestAuthentication",
                "tokens",
                &["{jwtRules: [{issuer: i, jwks: '{\"keys\": []}'}]}"],
            ),
            telemetry(),
            never_good(),
        ]
    }

    fn entries(&self) -> Vec<String> {
        let (one, two) = (self.one.address(), self.two.address());
        let looked_up = yaml::service_entry("se.test", "HTTP", &[one])
            .replace("STATIC", "DNS")
            .replace("127.0.0.1", "localhost");
        vec![
            yaml::service_entry("se.test", "HTTP", &[one]),
            yaml::service_entry("se.test", "HTTP", &[two]),
            yaml::service_entry("se.test", "HTTP", &[]),
            yaml::service_entry("se.test", "HTTP2", &[self.newer.address()]),
            looked_up.replace("localhost", "nobody.invalid"),
            looked_up,
        ]
    }

    fn services(&self) -> Vec<String> {
        let with = |port: u16, name: &str| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: svc}}\nspec:\n  ports: [{{name: {name}, port: 80}}]\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc-1, labels: \
                 {{kubernetes.io/service-name: svc}}}}\naddressType: IPv4\nports: [{{name: {name}, port: {port}}}]\n\
                 endpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
            )
        };
        vec![with(self.one.address().port(), "http"), with(self.newer.address().port(), "http2")]
    }
}

const ALLOWED: [&str; 3] = [
    "{rules: [{to: [{operation: {paths: [/, /x]}}]}]}",
    "{selector: {matchLabels: {app: fa-00001}}}",
    "{rules: [{from: [{source: {namespaces: [default, istio-system]}}]}]}",
];
const DENIED: [&str; 3] = [
    "{action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]}",
    "{action: CUSTOM, provider: {name: nobody}, rules: [{to: [{operation: {paths: [/denied]}}]}]}",
    "{action: DENY, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}",
];

fn first_function() -> Vec<String> {
    let plain = |name: &str, annotations: &str, spec: &str| {
        let command = format!("[pilotlight, echo, --name, {name}]");
        let window = format!("autoscaling.knative.dev/window: 6s\n{annotations}");
        yaml::function_running("fa", &command, &window, spec)
    };
    let scaled = "autoscaling.knative.dev/min-scale: '2'\nautoscaling.knative.dev/max-scale: '3'";
    let frozen = "pilotlight.dev/idle: freeze\npilotlight.dev/freeze-for: 30s";
    let initial = "autoscaling.knative.dev/initial-scale: '2'\nautoscaling.knative.dev/activation-scale: '2'";
    let probed = |path: &str| {
        yaml::function("fa", "", "").replace(
            "command:",
            &format!("readinessProbe: {{httpGet: {{path: '{path}'}}}}\n        command:"),
        )
    };
    let local = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: fa}\nspec:\n  template:\n    metadata:\n      \
                 annotations: {pilotlight.dev/local-command: pilotlight echo --name local}\n    spec:\n      containers: \
                 [{image: x, command: [/app/server]}]\n---\n";
    vec![
        plain("a", "", ""),
        plain("b", "", "containerConcurrency: 1"),
        plain("a", scaled, "containerConcurrency: 5"),
        plain("a", scaled, ""),
        plain("b", frozen, ""),
        plain("a", initial, ""),
        yaml::function_running("fa", "[pilotlight, echo, --start-delay, 300ms]", scaled, ""),
        yaml::function_running("fa", "[pilotlight, no-such-word]", "", ""),
        yaml::function_running("fa", "[/app/server]", "", ""),
        probed("/healthz"),
        probed("/ready?delay=20ms"),
        plain("a", "pilotlight.dev/hold-count: '5'", "timeoutSeconds: 7"),
        local.to_owned(),
    ]
}

fn second_function() -> Vec<String> {
    let of = |revision: &str, traffic: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: fb}}\nspec:\n  template:\n    metadata: \
             {{name: fb-{revision}}}\n    spec:\n      containers: [{{image: x, command: [pilotlight, echo, --name, \
             {revision}]}}]\n{traffic}---\n"
        )
    };
    let all = |revision: &str| format!("  traffic: [{{revisionName: fb-{revision}, percent: 100}}]\n");
    let tagged = "  traffic: [{revisionName: fb-one, percent: 100}, {revisionName: fb-two, tag: canary}]\n";
    vec![
        of("one", ""),
        of("two", ""),
        of("one", "") + &of("two", ""),
        of("one", "") + &of("two", &all("one")),
        of("one", "") + &of("two", tagged),
        of("two", "") + &of("one", &all("two")),
        of("three", &all("three")),
    ]
}

fn virtual_services(name: &str) -> Vec<String> {
    let host = format!("{name}.test");
    let rules = [
        "- directResponse: {status: 201, body: {string: direct}}",
        "- route: [{destination: {host: se.test}}]",
        "- route: [{destination: {host: fa}}]\n  timeout: 9s",
        "- route: [{destination: {host: se.test, subset: some}}]",
        "- route: [{destination: {host: nowhere.test}}]",
        "- match: [{uri: {exact: /x}}]\n  redirect: {uri: /y}\n- name: rest\n  route: [{destination: {host: svc}}]",
        "- rewrite: {uri: /z}\n  headers: {response: {set: {x-a: b}}}\n  route: [{destination: {host: fb}}]\n  retries: {}",
    ];
    let mut all: Vec<_> = rules.iter().map(|rule| yaml::virtual_service(name, &host, rule)).collect();
    all.push(all[0].replace("gateways: [edge]", "gateways: [edge, mesh]"));
    all
}

fn rules() -> Vec<String> {
    let subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: se-test}\nspec:\n  \
                   host: se.test\n  subsets: [{name: some, labels: {no: body}}]\n---\n";
    vec![
        yaml::destination_rule("se.test", "connectionPool: {tcp: {maxConnections: 3}}"),
        yaml::destination_rule(
            "se.test",
            "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100, interval: 1s, baseEjectionTime: 1s}",
        ),
        yaml::destination_rule("se.test", "tls: {mode: SIMPLE}"),
        subsets.to_owned(),
    ]
}

fn gateways() -> Vec<String> {
    let plain = |port: u16, hosts: &str| {
        format!("  - {{port: {{number: {port}, name: p{port}, protocol: HTTP}}, hosts: [{hosts}]}}\n")
    };
    let https = "  - port: {number: 7443, name: https, protocol: HTTPS}\n    hosts: ['*']\n    tls: {mode: SIMPLE, \
                 credentialName: pair}\n";
    let redirects =
        "  - {port: {number: 7102, name: r, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}\n";
    let with = |servers: &[&str]| {
        let servers = servers.concat();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{istio: \
             ingressgateway}}\n  servers:\n{servers}---\n"
        )
    };
    let (one, two) = (plain(7101, "'*'"), plain(7102, "v1.test"));
    vec![
        with(&[&one]),
        with(&[&two]),
        with(&[&one, &two]),
        with(&[&one, https]),
        with(&[https, redirects]),
        with(&[redirects]),
    ]
}

fn defaults() -> Vec<String> {
    let with = |data: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-autoscaler, namespace: knative-serving}}\n\
             data: {{{data}}}\n---\n"
        )
    };
    vec![
        with("min-scale: '1'"),
        with("stable-window: 10s"),
        with("scale-to-zero-pod-retention-period: 1s, max-scale: '4'"),
    ]
}

fn mesh() -> Vec<String> {
    let with = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n    \
             {mesh}\n---\n"
        )
    };
    vec![
        with("outboundTrafficPolicy: {mode: ALLOW_ANY}"),
        with("trustDomain: town.test"),
        with("defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}"),
        with("pathNormalization: {normalization: NONE}"),
    ]
}

fn security(kind: &str, name: &str, specs: &[&str]) -> Vec<String> {
    let of = |spec: &&str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
        )
    };
    specs.iter().map(of).collect()
}

fn telemetry() -> Vec<String> {
    vec![
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t}\nspec: {accessLogging: [{disabled: true}]}\n---\n"
            .to_owned(),
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: p}\nspec: {concurrency: 1}\n---\n"
            .to_owned(),
    ]
}

/// An object with an error in every version: it has no last good one.
fn never_good() -> Vec<String> {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad}\nspec: {selector: \
                  {matchLabels: {app: fb-one}}, rulez: []}\n---\n";
    let route = yaml::virtual_service("bad", "v2.test", "- directResponze: {status: 200}");
    let dangling =
        yaml::virtual_service("bad", "v2.test", "- match: [{uri: {regex: '('}}]\n  redirect: {uri: /}");
    vec![policy.to_owned(), route, dangling]
}
