//! YAML that tests have in common.

use std::net::SocketAddr;
use std::path::Path;

/// A ServiceEntry `host` on port 80 in front of `endpoints`; `protocol` is `HTTP`, `HTTP2` or `GRPC`.
pub fn service_entry(host: &str, protocol: &str, endpoints: &[SocketAddr]) -> String {
    let name = host.replace('.', "-");
    let lower = protocol.to_lowercase();
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [{host}]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: {lower}, protocol: {protocol}}}]\n  endpoints:{}\n",
        if endpoints.is_empty() { " []" } else { "" }
    );
    for endpoint in endpoints {
        text += &format!("  - {{address: {}, ports: {{{lower}: {}}}}}\n", endpoint.ip(), endpoint.port());
    }
    text + "---\n"
}

/// A VirtualService for `host` at the gateways; `http` is the list under `http:`, at no indentation.
pub fn virtual_service(name: &str, host: &str, http: &str) -> String {
    let rules: String = http.trim().lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: ['{host}']\n  gateways: [edge]\n  http:\n{rules}---\n"
    )
}

/// A DestinationRule for `host`; `policy` is what stands under `trafficPolicy:`, at no indentation.
pub fn destination_rule(host: &str, policy: &str) -> String {
    let name = host.replace('.', "-");
    let policy: String = policy.trim().lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec:\n  \
         host: {host}\n  trafficPolicy:\n{policy}---\n"
    )
}

/// Every host at the gateway to `upstream.test`, which is in front of `endpoints`.
pub fn all_to(protocol: &str, endpoints: &[SocketAddr]) -> String {
    all_to_with(protocol, endpoints, "")
}

/// The same with more said about the route: `timeout`, `retries`, `headers`.
pub fn all_to_with(protocol: &str, endpoints: &[SocketAddr], route: &str) -> String {
    let more: String = route.trim().lines().map(|line| format!("  {line}\n")).collect();
    let http = format!("- route:\n  - destination: {{host: upstream.test}}\n{more}");
    service_entry("upstream.test", protocol, endpoints) + &virtual_service("all", "*", &http)
}

/// A Knative Service `name` that runs `pilotlight echo`; `annotations` and `spec` are lines of the template's
/// annotations and spec, at no indentation.
pub fn function(name: &str, annotations: &str, spec: &str) -> String {
    function_running(name, "[pilotlight, echo]", annotations, spec)
}

/// The same with a command of its own, a YAML list in flow style.
pub fn function_running(name: &str, command: &str, annotations: &str, spec: &str) -> String {
    let annotations: String = annotations.trim().lines().map(|line| format!("        {line}\n")).collect();
    let annotations = match annotations.is_empty() {
        true => String::new(),
        false => format!("    metadata:\n      annotations:\n{annotations}"),
    };
    let spec: String = spec.trim().lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  template:\n\
         {annotations}    spec:\n{spec}      containers:\n      - image: example.com/{name}:1\n        \
         command: {command}\n---\n"
    )
}

/// Port numbers of the servers of every Gateway in the YAML files of a directory.
pub fn gateway_ports(directory: &Path) -> Vec<u16> {
    let mut ports: Vec<u16> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .flat_map(|text| {
            text.split("\n---")
                .filter(|part| part.contains("kind: Gateway"))
                .flat_map(numbers)
                .collect::<Vec<_>>()
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn numbers(document: &str) -> impl Iterator<Item = u16> {
    document.match_indices("number:").filter_map(|(at, key)| {
        let rest = document[at + key.len()..].trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    })
}
