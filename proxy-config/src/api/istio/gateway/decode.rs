//! A Gateway's tree to its struct, and the rules between its fields.

use super::{Gateway, Server, ServerProtocol, TlsMode, tls};
use crate::api::Meta;
use crate::api::host::{self, Wildcard};
use crate::decode::Cursor;
use crate::report::At;
use std::collections::HashSet;

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> Gateway {
    let servers = root.field("spec").field("servers");
    if servers.is_present() && servers.items().next().is_none() {
        servers.error("IST0106", "gateway must have at least one server");
    }
    let read: Vec<Server> = servers.items().filter_map(|s| server(&s)).collect();
    let mut names = HashSet::new();
    for name in servers.items().map(|server| server.field("port").field("name")) {
        if let Some(text) = name.text().filter(|text| !names.insert(*text)) {
            let message = format!("port names in servers must be unique: duplicate name {text}");
            name.error("IST0106", message);
        }
    }
    let selector = root.field("spec").field("selector").string_map();
    let selector = selector.into_iter().map(|(key, value)| (key.value, value.value)).collect();
    Gateway { meta, selector, servers: read }
}

fn server(cursor: &Cursor<'_>) -> Option<Server> {
    let port = cursor.field("port");
    let protocol = protocol(&port.field("protocol"));
    let tls = protocol.as_ref().and_then(|protocol| tls::decode(cursor, protocol.value));
    if let (Some(protocol), Some(tls)) = (&protocol, &tls) {
        opened_tcp(&port.field("protocol"), protocol.value, tls.mode);
    }
    let target = port.field("targetPort");
    if target.is_present() {
        target.error("IST0106", "targetPort has no impact on Gateways");
    }
    let list = cursor.field("hosts");
    if list.is_present() && list.items().next().is_none() {
        list.error("IST0106", "server config must contain at least one host");
    }
    let count = list.items().count();
    let hosts: Vec<At<String>> = list.items().filter_map(|item| server_host(&item)).collect();
    if hosts.len() < count {
        return None;
    }
    Some(Server {
        at: cursor.at(),
        port: port.field("number").number_at()?,
        port_name: port.field("name").string()?,
        protocol: protocol?,
        hosts,
        tls,
        https_redirect: cursor.field("tls").field("httpsRedirect").boolean().unwrap_or(false),
    })
}

fn protocol(cursor: &Cursor<'_>) -> Option<At<ServerProtocol>> {
    let text = cursor.text()?;
    let protocol = match text.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => ServerProtocol::Http,
        "HTTPS" => ServerProtocol::Https,
        "TLS" => ServerProtocol::Tls,
        "TCP" | "MONGO" | "REDIS" | "MYSQL" => ServerProtocol::Tcp,
        _ => {
            let known = "HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO, REDIS, MYSQL";
            cursor.error("IST0106", format!("invalid protocol {text:?}, supported protocols are {known}"));
            return None;
        }
    };
    if protocol == ServerProtocol::Tcp {
        let message = format!("{} servers do not act yet: this one is not bound", text.to_uppercase());
        cursor.warn("SC007", message);
    }
    Some(At::new(protocol, cursor.at()))
}

/// What comes out of TLS on a port of that protocol is not HTTP.
fn opened_tcp(protocol: &Cursor<'_>, of: ServerProtocol, mode: TlsMode) {
    if of == ServerProtocol::Tls && !matches!(mode, TlsMode::Passthrough | TlsMode::AutoPassthrough) {
        protocol.warn_with_help(
            "SC007",
            "TCP inside TLS does not act yet: this server is not bound",
            "write `protocol: HTTPS` for HTTP, or `mode: PASSTHROUGH`",
        );
    }
}

/// `[namespace/]host`.
fn server_host(cursor: &Cursor<'_>) -> Option<At<String>> {
    let text = cursor.text_at()?.map(|t| t.to_ascii_lowercase());
    let (namespace, host) = text.value.split_once('/').unwrap_or(("*", &text.value));
    if !matches!(namespace, "*" | ".") && host::problem(namespace, Wildcard::No).is_some() {
        cursor.error("IST0106", format!("invalid namespace {namespace:?} before the host"));
        return None;
    }
    if let Some(message) = host::problem(host, Wildcard::Any) {
        cursor.error("IST0106", message);
        return None;
    }
    if !host.contains('.') && host != "*" {
        cursor.error_with_help(
            "IST0106",
            format!("short names (non FQDN) are not allowed: {host:?}"),
            "write the host that clients send, or `*`",
        );
        return None;
    }
    Some(text)
}
