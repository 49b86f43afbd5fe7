//! A Gateway's tree to its struct, and the rules between its fields.

use super::{Gateway, Server, ServerProtocol};
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
    if let Some(protocol) = protocol {
        tls(cursor, protocol.value);
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
    if protocol != ServerProtocol::Http {
        let message = format!("{} servers do not act yet: this one is not bound", text.to_uppercase());
        cursor.warn("SC007", message);
    }
    Some(At::new(protocol, cursor.at()))
}

fn tls(cursor: &Cursor<'_>, protocol: ServerProtocol) {
    let tls = cursor.field("tls");
    let encrypted = matches!(protocol, ServerProtocol::Https | ServerProtocol::Tls);
    if encrypted && !tls.is_present() {
        cursor.error("IST0106", "server must have TLS settings for HTTPS/TLS protocols");
    }
    if !tls.is_present() {
        return;
    }
    let redirect = tls.field("httpsRedirect").boolean().unwrap_or(false);
    let settings = tls.node().map_or(0, |n| n.entries().len());
    let only_redirect = settings == usize::from(tls.field("httpsRedirect").is_present());
    if !encrypted && !only_redirect {
        tls.error("IST0106", "server cannot have TLS settings for plain text HTTP ports");
    }
    if !encrypted {
        return;
    }
    if redirect {
        tls.field("httpsRedirect").error("IST0106", "only HTTP servers can redirect to HTTPS");
    }
    let mode = tls.field("mode").text().unwrap_or("PASSTHROUGH");
    let has = |name: &str| tls.field(name).is_present();
    let credentials =
        ["credentialName", "credentialNames", "tlsCertificates"].iter().filter(|name| has(name)).count();
    if credentials > 1 {
        tls.error("IST0106", "only one of credentialName, credentialNames or tlsCertificates can be set");
    }
    if matches!(mode, "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL") && credentials == 0 {
        for (name, what) in [("serverCertificate", "a server certificate"), ("privateKey", "a private key")] {
            if !has(name) {
                tls.error("IST0106", format!("{mode} TLS requires {what}"));
            }
        }
        if mode == "MUTUAL" && !has("caCertificates") {
            tls.error("IST0106", "MUTUAL TLS requires a client CA bundle");
        }
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
