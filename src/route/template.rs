//! Header values with Envoy's `%OPERATOR%` substitutions.
//!
//! Parsed when a snapshot is compiled; filled in when a head is changed. An operator that is not known is an
//! error then, never an empty value now. A fact that is not known yet gives no text, as in Envoy.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use proxy_config::model::HEADER_OPERATORS;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the operators tell of an exchange. Building it copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The peer of the downstream connection.
    pub downstream_remote: SocketAddr,
    /// Our end of the downstream connection.
    pub downstream_local: SocketAddr,
    /// The protocol of the downstream connection.
    pub protocol: Version,
    /// When the request came.
    pub started: SystemTime,
    /// This machine's name.
    pub hostname: &'a str,
    /// The request's method.
    pub method: &'a Method,
    /// The request's path and query.
    pub target: &'a str,
    /// The request's authority.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request's fields, for changes to a response (see [`super::HeaderChange::reads_request`]); changes
    /// to a request read the fields they change.
    pub request: Option<&'a HeaderMap>,
    /// The destination, once it is chosen.
    pub upstream_host: Option<SocketAddr>,
    /// The cluster, once it is chosen.
    pub upstream_cluster: Option<&'a str>,
    /// The response's status, once there is one.
    pub status: Option<u16>,
}

/// A compiled header value.
#[derive(Clone, Debug)]
pub(super) enum Template {
    /// No operators.
    Fixed(HeaderValue),
    /// Text and operators.
    Pieces(Box<[Piece]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<[u8]>),
    RemoteAddress,
    RemoteIp,
    RemotePort,
    LocalAddress,
    LocalIp,
    LocalPort,
    Hostname,
    Protocol,
    Request(Pick),
    Response(Pick),
    Status,
    Started,
    UpstreamCluster,
    UpstreamHost,
}

/// `(name?other):length`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    name: Name,
    other: Option<Name>,
    length: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Field(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
}

impl Template {
    /// Compiles a value.
    pub(super) fn compile(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            literal.extend_from_slice(&rest.as_bytes()[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push(b'%');
                rest = after;
                continue;
            }
            let end = operator_end(rest).ok_or_else(|| format!("`{text}`: a lone `%` is written `%%`"))?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
            }
            pieces.push(operator(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        literal.extend_from_slice(rest.as_bytes());
        let wrong = |_| format!("`{text}` holds bytes that a header value may not");
        let value = HeaderValue::from_bytes(&literal).map_err(wrong)?;
        if pieces.is_empty() {
            return Ok(Template::Fixed(value));
        }
        for piece in &pieces {
            if let Piece::Text(text) = piece {
                HeaderValue::from_bytes(text).map_err(wrong)?;
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        Ok(Template::Pieces(pieces.into()))
    }

    /// Whether a response's value needs the request's fields.
    pub(super) fn reads_request(&self) -> bool {
        match self {
            Template::Fixed(_) => false,
            Template::Pieces(pieces) => pieces.iter().any(|piece| match piece {
                Piece::Request(pick) => [Some(&pick.name), pick.other.as_ref()]
                    .iter()
                    .flatten()
                    .any(|name| matches!(name, Name::Field(_))),
                _ => false,
            }),
        }
    }

    /// The value; `None` when it comes out empty, which Envoy does not send. `request` and `response` are the
    /// fields as far as they are known.
    pub(super) fn fill(
        &self,
        request: Option<&HeaderMap>,
        response: Option<&HeaderMap>,
        facts: &Facts<'_>,
    ) -> Option<HeaderValue> {
        match self {
            Template::Fixed(value) => (!value.is_empty()).then(|| value.clone()),
            Template::Pieces(pieces) => {
                let mut out = Vec::with_capacity(64);
                for piece in pieces {
                    piece.write(request, response, facts, &mut out);
                }
                if out.is_empty() {
                    return None;
                }
                // Every piece comes from a valid value or is plain ASCII.
                HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok()
            }
        }
    }
}

/// The index of the `%` that ends an operator; one inside parentheses does not.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.bytes().position(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        byte == b'%' && depth <= 0
    })
}

fn operator(text: &str) -> Result<Piece, String> {
    let unknown = || format!("`%{text}%` is not known; known are {}", HEADER_OPERATORS.join(", "));
    let (name, argument) = match text.split_once('(') {
        Some((name, argument)) => (name, Some(argument)),
        None => (text, None),
    };
    match (name, argument) {
        ("REQ", Some(argument)) => pick(argument, true).map(Piece::Request).ok_or_else(unknown),
        ("RESP", Some(argument)) => pick(argument, false).map(Piece::Response).ok_or_else(unknown),
        (_, Some(_)) => Err(unknown()),
        ("DOWNSTREAM_REMOTE_ADDRESS", None) => Ok(Piece::RemoteAddress),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", None) => Ok(Piece::RemoteIp),
        ("DOWNSTREAM_REMOTE_PORT", None) => Ok(Piece::RemotePort),
        ("DOWNSTREAM_LOCAL_ADDRESS", None) => Ok(Piece::LocalAddress),
        ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", None) => Ok(Piece::LocalIp),
        ("DOWNSTREAM_LOCAL_PORT", None) => Ok(Piece::LocalPort),
        ("HOSTNAME", None) => Ok(Piece::Hostname),
        ("PROTOCOL", None) => Ok(Piece::Protocol),
        ("RESPONSE_CODE", None) => Ok(Piece::Status),
        ("START_TIME", None) => Ok(Piece::Started),
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", None) => Ok(Piece::UpstreamCluster),
        ("UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS", None) => Ok(Piece::UpstreamHost),
        _ => Err(unknown()),
    }
}

/// `name?other):length`, the opening parenthesis gone.
fn pick(text: &str, request: bool) -> Option<Pick> {
    let (names, length) = text.split_once(')')?;
    let length = match length.strip_prefix(':') {
        Some(digits) => digits.parse().ok()?,
        None if length.is_empty() => usize::MAX,
        None => return None,
    };
    let (name, other) = match names.split_once('?') {
        Some((name, other)) => (name, Some(self::name(other, request)?)),
        None => (names, None),
    };
    Some(Pick { name: self::name(name, request)?, other, length })
}

fn name(text: &str, request: bool) -> Option<Name> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        ":method" if request => Some(Name::Method),
        ":path" if request => Some(Name::Path),
        ":authority" if request => Some(Name::Authority),
        ":scheme" if request => Some(Name::Scheme),
        _ => match HeaderName::from_bytes(lower.as_bytes()).ok()? {
            HOST if request => Some(Name::Authority),
            name => Some(Name::Field(name)),
        },
    }
}

impl Piece {
    fn write(
        &self,
        request: Option<&HeaderMap>,
        response: Option<&HeaderMap>,
        facts: &Facts<'_>,
        out: &mut Vec<u8>,
    ) {
        // Writing to a Vec cannot fail.
        _ = match self {
            Piece::Text(text) => out.write_all(text),
            Piece::RemoteAddress => write!(out, "{}", plain(facts.downstream_remote)),
            Piece::RemoteIp => write!(out, "{}", plain(facts.downstream_remote).ip()),
            Piece::RemotePort => write!(out, "{}", facts.downstream_remote.port()),
            Piece::LocalAddress => write!(out, "{}", plain(facts.downstream_local)),
            Piece::LocalIp => write!(out, "{}", plain(facts.downstream_local).ip()),
            Piece::LocalPort => write!(out, "{}", facts.downstream_local.port()),
            Piece::Hostname => out.write_all(facts.hostname.as_bytes()),
            Piece::Protocol => out.write_all(protocol(facts.protocol).as_bytes()),
            Piece::Request(pick) => out.write_all(pick.text(request, facts)),
            Piece::Response(pick) => out.write_all(pick.text(response, facts)),
            Piece::Status => facts.status.map_or(Ok(()), |status| write!(out, "{status}")),
            Piece::Started => time(facts.started, out),
            Piece::UpstreamCluster => out.write_all(facts.upstream_cluster.unwrap_or_default().as_bytes()),
            Piece::UpstreamHost => facts.upstream_host.map_or(Ok(()), |host| write!(out, "{host}")),
        };
    }
}

impl Pick {
    fn text<'a>(&self, fields: Option<&'a HeaderMap>, facts: &Facts<'a>) -> &'a [u8] {
        let read = |name: &Name| -> Option<&'a [u8]> {
            match name {
                Name::Field(name) => fields?.get(name).map(HeaderValue::as_bytes),
                Name::Method => Some(facts.method.as_str().as_bytes()),
                Name::Path => Some(facts.target.as_bytes()),
                Name::Authority => Some(facts.authority.as_bytes()),
                Name::Scheme => Some(facts.scheme.as_bytes()),
            }
        };
        let text = read(&self.name).or_else(|| self.other.as_ref().and_then(read)).unwrap_or_default();
        &text[..text.len().min(self.length)]
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// `2018-04-03T23:22:09.123Z`; the calendar is Howard Hinnant's `civil_from_days`.
fn time(at: SystemTime, out: &mut Vec<u8>) -> std::io::Result<()> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// An IPv4 address in IPv6 clothes is shown plain.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
