//! A VirtualService's tree to its struct, and the rules between its fields.

use super::{
    DirectResponse, HttpDestination, HttpMatch, HttpRule, Redirect, Rewrite, RuleAction, VirtualService, tls,
};
use crate::api::Meta;
use crate::api::host::{self, Wildcard};
use crate::api::istio::headers::{header_ops, is_name};
use crate::api::istio::matching::{self, Empty, string_match};
use crate::api::istio::wire;
use crate::decode::Cursor;
use crate::model::{RedirectPort, StringMatch};
use crate::report::At;
use std::collections::HashMap;

/// A direct response's body.
const MAX_BODY: usize = 1 << 20;

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> VirtualService {
    let spec = root.field("spec");
    let (hosts, gateways) = (spec.field("hosts"), spec.field("gateways"));
    let names = gateways.strings();
    let on_mesh = names.is_empty() || names.iter().any(|g| g.value == "mesh");
    let is_delegate = hosts.items().next().is_none();
    if is_delegate && !names.is_empty() {
        gateways.error("IST0106", "delegate virtual service must have no gateways specified");
    }
    if on_mesh {
        for host in hosts.items().filter(|h| h.text() == Some("*")) {
            let message = "wildcard host * is not allowed for virtual services bound to the mesh gateway";
            host.error_with_help("IST0106", message, "name the Gateway in `gateways`, or the hosts");
        }
    }
    let hosts_read = host::hosts(&hosts, Wildcard::Any);
    unique_hosts(&hosts, &hosts_read, &meta.object.namespace);
    let rules = spec.field("http");
    let other = ["tls", "tcp"].iter().any(|name| spec.field(name).items().next().is_some());
    if rules.items().next().is_none() && !other && spec.is_present() {
        spec.error("IST0106", "http, tcp or tls must be provided in virtual service");
    }
    let tls = spec.field("tls").items().filter_map(|rule| tls::decode(&rule, &hosts_read)).collect();
    VirtualService {
        meta,
        tls,
        hosts: hosts_read,
        gateways: names,
        http: rules.items().filter_map(|rule| http_rule(&rule)).collect(),
        export_to: spec.field("exportTo").strings(),
    }
}

fn unique_hosts(list: &Cursor<'_>, hosts: &[At<String>], namespace: &str) {
    let mut seen: HashMap<String, &str> = HashMap::new();
    for host in hosts {
        let full = match host.value.contains('.') || host.value == "*" {
            true => host.value.clone(),
            false => format!("{}.{namespace}.svc.cluster.local", host.value),
        };
        if let Some(first) = seen.insert(full, &host.value) {
            list.error("IST0106", format!("duplicate hosts in virtual service: {first} & {}", host.value));
        }
    }
}

fn http_rule(rule: &Cursor<'_>) -> Option<HttpRule> {
    let matches: Vec<HttpMatch> = rule.field("match").items().map(|m| http_match(&m)).collect();
    let rewrite = rewrite(&rule.field("rewrite"));
    let action = action(rule, &matches);
    Some(HttpRule {
        at: rule.at(),
        name: rule.field("name").string(),
        matches,
        action: action?,
        timeout: rule.field("timeout").duration().map(|d| At::new(d, rule.field("timeout").at())),
        retries: super::retries::decode(&rule.field("retries")),
        rewrite,
        headers: header_ops(&rule.field("headers")),
    })
}

fn action(rule: &Cursor<'_>, matches: &[HttpMatch]) -> Option<RuleAction> {
    let [route, redirect, direct, delegate] =
        ["route", "redirect", "directResponse", "delegate"].map(|name| rule.field(name));
    let routed = route.items().next().is_some();
    let conflict = |a: &str, b: &str| {
        rule.error("IST0106", format!("HTTP route cannot contain both {a} and {b}"));
    };
    let written = [
        (routed, "route"),
        (redirect.is_present(), "redirect"),
        (direct.is_present(), "direct_response"),
        (delegate.is_present(), "delegate"),
    ];
    let mut names = written.iter().filter(|(there, _)| *there).map(|(_, name)| *name);
    let first = names.next();
    if let (Some(a), Some(b)) = (first, names.next()) {
        conflict(a, b);
    }
    if redirect.is_present() || direct.is_present() {
        let kind = if redirect.is_present() { "redirect" } else { "direct_response" };
        for other in ["fault", "rewrite"].iter().filter(|name| rule.field(name).is_present()) {
            conflict(other, kind);
        }
    }
    match first {
        Some("route") => destinations(&route).map(RuleAction::Route),
        Some("redirect") => decode_redirect(&redirect, matches).map(RuleAction::Redirect),
        Some("direct_response") => direct_response(&direct).map(RuleAction::DirectResponse),
        Some(_) => Some(RuleAction::Delegate(delegate.key_at())),
        None => {
            rule.error_with_help(
                "IST0106",
                "HTTP route, redirect or direct_response is required",
                "say where its requests go: `route: [{destination: {host: …}}]`",
            );
            None
        }
    }
}

pub(super) fn destinations(route: &Cursor<'_>) -> Option<Vec<HttpDestination>> {
    let mut out = Vec::new();
    let mut before: Option<Cursor<'_>> = None;
    let count = route.items().count();
    for item in route.items() {
        if !item.field("destination").is_present() {
            missing_destination(&item, before.as_ref());
        } else if let Some(destination) = destination(&item) {
            out.push(destination);
        }
        before = Some(item);
    }
    if out.len() < count {
        return None;
    }
    let total: u64 = out.iter().map(|d| u64::from(d.weight)).sum();
    if count > 1 && total == 0 {
        route.error("IST0106", "total destination weight = 0");
        return None;
    }
    if total > u64::from(u32::MAX) {
        route.error("IST0106", format!("total destination weight {total} is too large"));
        return None;
    }
    Some(out)
}

/// `- weight: 90` on its own is the usual slip: the dash made an item of it.
fn missing_destination(item: &Cursor<'_>, before: Option<&Cursor<'_>>) {
    let path = item.field("destination");
    let orphan = item.node().is_some_and(|n| n.entries().iter().all(|(key, _)| key.name == "weight"));
    let above = before.filter(|b| b.field("destination").is_present() && !b.field("weight").is_present());
    match above {
        Some(above) if orphan => path.error_with_help(
            "SC010",
            "Required value",
            format!(
                "`weight` belongs to the destination above (line {}): remove the `-` and indent it as \
                 `destination` is",
                above.at().line
            ),
        ),
        _ => path.error("SC010", "Required value"),
    }
}

fn destination(item: &Cursor<'_>) -> Option<HttpDestination> {
    let destination = item.field("destination");
    let weight = item.field("weight").number::<i64>().unwrap_or(0);
    if weight < 0 {
        item.field("weight").error("IST0106", format!("weight {weight} < 0"));
    }
    let subset = destination.field("subset").text_at().filter(|s| !s.value.is_empty());
    let headers = header_ops(&item.field("headers"));
    Some(HttpDestination {
        at: item.at(),
        host: host::host(&destination.field("host"), Wildcard::No)?,
        subset,
        port: destination.field("port").field("number").number_at(),
        weight: u32::try_from(weight).ok()?,
        headers,
    })
}

/// Pseudo headers have conditions of their own; Istio ignores them among the headers.
const PSEUDO: [&str; 4] = ["uri", "scheme", "method", "authority"];

fn http_match(block: &Cursor<'_>) -> HttpMatch {
    let one = |name: &str| string_match(&block.field(name), Empty::Refused);
    let mut claims = None;
    let mut headers = |name: &str| -> Vec<(String, StringMatch)> {
        let mut out = Vec::new();
        for (key, value) in block.field(name).entries() {
            let name = key.value.to_ascii_lowercase();
            if name.starts_with("@request.auth.claims") {
                value.warn("SC007", "matching on claims does not act yet: the block matches nothing");
                claims = Some(key.at);
                continue;
            }
            let condition = string_match(&value, Empty::Present);
            if PSEUDO.contains(&name.as_str()) {
                value.warn("IST0133", format!("header {name:?} is ignored; use `{name}` of the match"));
            } else if wire::PSEUDO_HEADERS.contains(&name.as_str()) || is_name(&value, &name) {
                out.extend(condition.map(|c| (name, c)));
            }
        }
        out
    };
    let (with, without) = (headers("headers"), headers("withoutHeaders"));
    let query = block.field("queryParams");
    let query = query
        .entries()
        .filter_map(|(key, value)| Some((key.value.to_owned(), string_match(&value, Empty::Present)?)));
    let source = ["sourceLabels", "sourceNamespace"].map(|name| block.field(name));
    HttpMatch {
        at: block.at(),
        name: block.field("name").string(),
        uri: one("uri"),
        ignore_uri_case: block.field("ignoreUriCase").boolean().unwrap_or(false),
        scheme: one("scheme"),
        method: one("method"),
        authority: one("authority"),
        headers: with,
        without_headers: without,
        query: query.collect(),
        port: block.field("port").number_at(),
        gateways: block.field("gateways").strings(),
        source: source.iter().find(|c| c.is_present()).map(Cursor::key_at),
        claims,
    }
}

fn rewrite(cursor: &Cursor<'_>) -> Option<Rewrite> {
    if !cursor.is_object() {
        return None;
    }
    let regex = cursor.field("uriRegexRewrite");
    let uri_regex = regex.is_present().then(|| {
        let (pattern, with) = (regex.field("match"), wire::path(&regex.field("rewrite")));
        match (pattern.string(), with) {
            (Some(text), Some(with)) => {
                let groups = matching::anywhere(&pattern, &text)?.captures_len();
                if let Some(message) = wire::substitution_problem(&with, groups) {
                    regex.field("rewrite").error("IST0106", message);
                    return None;
                }
                Some((text, with))
            }
            _ => {
                regex.error("IST0106", "uriRegexRewrite needs both match and rewrite");
                None
            }
        }
    });
    let (uri, authority) = (wire::path(&cursor.field("uri")), wire::authority(&cursor.field("authority")));
    if uri.is_some() && uri_regex.is_some() {
        cursor.error("IST0106", "rewrite may only specify one of uri or uriRegexRewrite");
    }
    if !["uri", "uriRegexRewrite", "authority"].iter().any(|name| cursor.field(name).is_present()) {
        cursor.error("IST0106", "rewrite must specify at least one of URI, UriRegexRewrite, or authority");
    }
    Some(Rewrite { uri, uri_regex: uri_regex.flatten(), authority })
}

fn decode_redirect(cursor: &Cursor<'_>, matches: &[HttpMatch]) -> Option<Redirect> {
    if !cursor.is_object() {
        return None;
    }
    let path = |name: &str| wire::path(&cursor.field(name)).filter(|t| !t.is_empty());
    let scheme = cursor.field("scheme").string().map(|s| s.to_ascii_lowercase()).filter(|s| !s.is_empty());
    let derive = cursor.field("derivePort");
    let port = cursor.field("port").number::<u16>().map(RedirectPort::Number);
    let derived = derive.text().map(|text| match text {
        "FROM_REQUEST_PORT" => RedirectPort::FromRequest,
        _ => RedirectPort::FromProtocol,
    });
    let redirect = Redirect {
        uri: path("uri"),
        prefix_rewrite: path("prefixRewrite"),
        authority: wire::authority(&cursor.field("authority")).filter(|a| !a.is_empty()),
        port: port.or(derived),
        scheme,
        code: cursor.field("redirectCode").number::<u16>().filter(|c| *c != 0).unwrap_or(301),
    };
    let error = |name: &str, message: String| cursor.field(name).error("IST0106", message);
    let written = |name: &&str| cursor.field(name).text().is_some_and(|text| !text.is_empty());
    let parts = ["uri", "prefixRewrite", "authority", "scheme", "port", "derivePort"];
    if !parts.iter().any(written) {
        cursor.error("IST0106", "redirect must specify URI, authority, scheme, or port");
    }
    let Redirect { uri, prefix_rewrite, scheme, .. } = &redirect;
    if uri.is_some() && prefix_rewrite.is_some() {
        cursor.error("IST0106", "redirect may only specify one of uri or prefix_rewrite");
    }
    if port.is_some() && derived.is_some() {
        cursor.error("IST0106", "redirect may only specify one of port or derivePort");
    }
    let prefixes = matches.iter().all(|m| matches!(m.uri, Some(StringMatch::Prefix(_))));
    if prefix_rewrite.is_some() && (matches.is_empty() || !prefixes) {
        error("prefixRewrite", "prefixRewrite can only be used with a uri prefix in every match".to_owned());
    }
    if scheme.as_deref().is_some_and(|s| s != "http" && s != "https") {
        error("scheme", "redirect scheme must be http or https".to_owned());
    }
    if ![301, 302, 303, 307, 308].contains(&redirect.code)
        || cursor.field("redirectCode").number::<u32>().is_some_and(|c| c > 599)
    {
        let code = cursor.field("redirectCode").string().unwrap_or_default();
        error(
            "redirectCode",
            format!("redirect code {code} is not supported; use 301, 302, 303, 307 or 308"),
        );
    }
    Some(redirect)
}

fn direct_response(cursor: &Cursor<'_>) -> Option<DirectResponse> {
    let status = cursor.field("status").number::<u32>()?;
    if !(200..=599).contains(&status) {
        cursor.field("status").error("IST0106", format!("HTTP status {status} is not in range 200-599"));
        return None;
    }
    let body = cursor.field("body");
    let (text, bytes) = (body.field("string"), body.field("bytes"));
    let body = match (text.text(), bytes.text()) {
        (Some(_), Some(_)) => {
            body.error("IST0106", "only one of string or bytes can be set");
            return None;
        }
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(encoded)) => match crate::units::base64(encoded) {
            Ok(body) => body,
            Err(message) => {
                bytes.error("IST0106", message);
                return None;
            }
        },
        (None, None) => Vec::new(),
    };
    if body.len() > MAX_BODY {
        cursor
            .field("body")
            .error("IST0106", format!("response body is too large, at most {MAX_BODY} bytes"));
        return None;
    }
    Some(DirectResponse { status: u16::try_from(status).ok()?, body })
}
