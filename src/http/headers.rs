//! The request head on its way to the upstream: what belonged to the client's connection goes, what a proxy
//! owes the next reader comes.
//!
//! On the hottest path: guided by [`Seen`], in place, no copy of the map. Runs after routing and before the
//! route's own header changes; [`super::target`] then addresses the head to its destination.

use super::seen::{Seen, is_folded};
use super::upgrade::{self, tokens};
use bytes::{Bytes, BytesMut};
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use proxy_config::model::{ClientCert, Forwarding};
use smallvec::SmallVec;
use std::net::IpAddr;

/// `x-request-id`
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forwarded-for`
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-client-cert`
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-envoy-external-address`
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
/// `keep-alive`
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A client as the fields name it; made once for a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    address: HeaderValue,
}

impl Peer {
    /// From the address of the connection's other end.
    pub fn new(ip: IpAddr) -> Peer {
        let text = ip.to_canonical().to_string();
        // An address is digits, letters, dots and colons.
        let address = HeaderValue::from_maybe_shared(Bytes::from(text));
        Peer { address: address.unwrap_or(HeaderValue::from_static("unknown")) }
    }
}

/// Who forwards, and from whom.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// A gateway answers for who the client is; a sidecar passes on what it is told.
    pub gateway: bool,
    /// The client.
    pub peer: &'a Peer,
    /// Whether the client's connection is encrypted.
    pub secure: bool,
    /// What is said of the client's certificate, if it showed one.
    pub vouched: Option<&'a HeaderValue>,
    /// What is believed of who came before.
    pub forwarding: Forwarding,
    /// What [`super::upgrade::wanted`] found, when the upstream connection can be upgraded.
    pub upgrade: Option<&'a HeaderValue>,
}

/// Prepares the fields of a request for any upstream. `seen` is of these fields as they came; `ids` gives
/// the request id if there is none.
pub fn prepare(headers: &mut HeaderMap, seen: Seen, terms: &Terms<'_>, ids: &mut RequestIds) {
    strip(headers, seen);
    if seen.any(Seen::TE) {
        keep_trailers(headers);
    }
    if let Some(protocol) = terms.upgrade {
        upgrade::keep(headers, protocol);
    }
    if seen.any(Seen::EXPECT) {
        // Answered here: hyper says 100 when the body is first asked for.
        headers.remove(header::EXPECT);
    }
    client_cert(headers, seen, terms);
    if terms.gateway {
        sanitize(headers, seen);
        if terms.forwarding.trusted_proxies > 0 {
            external_address(headers, terms);
        }
        forwarded_for(headers, seen, terms.peer);
    } else if seen.any(Seen::OURS) {
        remove_where(headers, |name| name.starts_with("x-pilotlight-"));
    }
    let answers = terms.gateway && terms.forwarding.trusted_proxies == 0;
    if answers || !seen.any(Seen::FORWARDED_PROTO) {
        let scheme = if terms.secure { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !seen.any(Seen::REQUEST_ID) {
        headers.insert(REQUEST_ID, ids.next_id());
    }
}

/// Only a proxy that saw a certificate may vouch for it: what clients say of themselves goes, unless whoever set it up
/// says otherwise.
#[inline]
fn client_cert(headers: &mut HeaderMap, seen: Seen, terms: &Terms<'_>) {
    let said = seen.any(Seen::CLIENT_CERT);
    let Some(vouched) = terms.vouched else {
        if said && terms.forwarding.client_cert != ClientCert::AlwaysForwardOnly {
            headers.remove(CLIENT_CERT);
        }
        return;
    };
    match terms.forwarding.client_cert {
        ClientCert::ForwardOnly | ClientCert::AlwaysForwardOnly => {}
        ClientCert::Sanitize => drop(headers.remove(CLIENT_CERT)),
        ClientCert::AppendForward if said => append(headers, vouched),
        ClientCert::AppendForward | ClientCert::SanitizeSet => {
            headers.insert(CLIENT_CERT, vouched.clone());
        }
    }
}

/// All that was said, and one element more, in one field.
fn append(headers: &mut HeaderMap, vouched: &HeaderValue) {
    let all = headers.get_all(CLIENT_CERT).iter().filter(|value| !value.is_empty()).chain([vouched]);
    let all: Vec<&[u8]> = all.map(HeaderValue::as_bytes).collect();
    match HeaderValue::from_maybe_shared(Bytes::from(all.join(&b","[..]))) {
        Ok(value) => headers.insert(CLIENT_CERT, value),
        Err(_) => headers.remove(CLIENT_CERT),
    };
}

/// The client as proxies in front tell of it: the address that stands `proxies` from the end of X-Forwarded-For. With
/// fewer of them, or where none can be read, it is whoever connected.
#[cold]
pub fn told_of(headers: &HeaderMap, proxies: u32) -> Option<IpAddr> {
    let mut left = proxies.checked_sub(1)?;
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        for address in value.to_str().ok()?.rsplit(',') {
            match left.checked_sub(1) {
                Some(fewer) => left = fewer,
                None => return address.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical()),
            }
        }
    }
    None
}

/// Removes what belongs to one connection, and what `Connection` says does, save what no client may take
/// from the next reader. `te` and `upgrade` go too; who wants them puts them back.
pub(super) fn strip(headers: &mut HeaderMap, seen: Seen) {
    if seen.any(Seen::CONNECTION) {
        let options: SmallVec<[HeaderValue; 2]> = match headers.entry(header::CONNECTION) {
            Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
            Entry::Vacant(_) => SmallVec::new(),
        };
        for option in &options {
            tokens(option.as_bytes()).for_each(|name| nominated(headers, name));
        }
    }
    if seen.any(Seen::TRANSFER_ENCODING) {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if seen.any(Seen::UPGRADE) {
        headers.remove(header::UPGRADE);
    }
    if seen.any(Seen::HOP) {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, header::PROXY_AUTHORIZATION, HTTP2_SETTINGS] {
            headers.remove(name);
        }
    }
}

/// One connection option: the field of that name goes with the connection.
fn nominated(headers: &mut HeaderMap, name: &[u8]) {
    // The usual options name no field, or one that is dealt with anyway.
    for usual in ["keep-alive", "close", "upgrade", "te"] {
        if name.eq_ignore_ascii_case(usual.as_bytes()) {
            return;
        }
    }
    if let Ok(name) = HeaderName::from_bytes(name)
        && !is_protected(name.as_str())
    {
        headers.remove(name);
    }
}

/// Fields that every reader on the way relies on, so that no client can have a proxy drop them.
pub fn is_protected(name: &str) -> bool {
    const PREFIXES: [&str; 7] =
        ["x-forwarded-", "x-envoy-", "x-pilotlight-", "content-", "x-b3-", "grpc-", "sec-websocket-"];
    const NAMES: [&str; 14] = [
        "host",
        "cookie",
        "set-cookie",
        "authorization",
        "x-request-id",
        "x-real-ip",
        "forwarded",
        "via",
        "traceparent",
        "tracestate",
        "b3",
        "origin",
        "cache-control",
        "trailer",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// `te: trailers` is for every hop that can carry trailers, and so for this one; all other codings are not.
fn keep_trailers(headers: &mut HeaderMap) {
    let wants = headers.get_all(header::TE).iter().any(|value| {
        tokens(value.as_bytes()).any(|coding| {
            let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"trailers")
        })
    });
    if wants {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

/// What a client outside the mesh may not say: fields by which proxies talk to each other, and names that a
/// reader who takes `_` for `-` would mistake for them.
fn sanitize(headers: &mut HeaderMap, seen: Seen) {
    if seen.any(Seen::ENVOY.with(Seen::OURS).with(Seen::FOLDED)) {
        remove_where(headers, |name| {
            name.starts_with("x-envoy-") || name.starts_with("x-pilotlight-") || is_folded(name)
        });
    }
}

/// Removes every field whose name is picked. Rare; collects names, since a map cannot be walked and changed.
#[cold]
pub(super) fn remove_where(headers: &mut HeaderMap, pick: impl Fn(&str) -> bool) {
    let names: SmallVec<[HeaderName; 4]> =
        headers.keys().filter(|name| pick(name.as_str())).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
}

/// Appends the client to the list, which becomes one field if it was several.
fn forwarded_for(headers: &mut HeaderMap, seen: Seen, peer: &Peer) {
    if !seen.any(Seen::FORWARDED_FOR) {
        headers.insert(FORWARDED_FOR, peer.address.clone());
        return;
    }
    let mut list = Vec::with_capacity(128);
    for value in headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(value.as_bytes());
        list.push(b',');
    }
    list.extend_from_slice(peer.address.as_bytes());
    // Made of valid values and commas.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Who the client is, for readers that do not count proxies.
#[cold]
fn external_address(headers: &mut HeaderMap, terms: &Terms<'_>) {
    let told = told_of(headers, terms.forwarding.trusted_proxies);
    let address = told.map_or_else(|| terms.peer.clone(), Peer::new).address;
    headers.insert(EXTERNAL_ADDRESS, address);
}

/// Where the bytes of a UUID stand in its text, two digits each.
const UUID_PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The two digits of every byte.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// Makes request ids: version 4 UUIDs, many at once, because they are wanted one after the other and then
/// share one allocation.
#[derive(Debug)]
pub struct RequestIds {
    random: fastrand::Rng,
    ready: Bytes,
}

/// Ids made at once: what one that is still in use keeps in memory is 36 times this.
const IDS_AT_ONCE: usize = 32;
const ID_LENGTH: usize = 36;

impl RequestIds {
    /// From a source of randomness that need not be unpredictable.
    pub fn new(random: fastrand::Rng) -> RequestIds {
        RequestIds { random, ready: Bytes::new() }
    }

    /// The next one.
    #[inline]
    pub fn next_id(&mut self) -> HeaderValue {
        if self.ready.is_empty() {
            self.make();
        }
        let id = self.ready.split_to(ID_LENGTH);
        // SAFETY: it is made of hexadecimal digits and dashes.
        unsafe { HeaderValue::from_maybe_shared_unchecked(id) }
    }

    #[cold]
    fn make(&mut self) {
        let mut ids = BytesMut::with_capacity(IDS_AT_ONCE * ID_LENGTH);
        for _ in 0..IDS_AT_ONCE {
            let bits = self.random.u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
            let mut text = [b'-'; ID_LENGTH];
            for (byte, at) in bits.to_be_bytes().into_iter().zip(UUID_PLACES) {
                text[at..at + 2].copy_from_slice(&HEXADECIMAL[usize::from(byte)]);
            }
            ids.extend_from_slice(&text);
        }
        self.ready = ids.freeze();
    }
}

/// Several `cookie` fields become one: HTTP/2 splits them for compression, HTTP/1 readers expect one.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else { return };
    let mut all = Vec::with_capacity(first.len() + second.len() + 64);
    all.extend_from_slice(first.as_bytes());
    for value in std::iter::once(second).chain(values) {
        all.extend_from_slice(b"; ");
        all.extend_from_slice(value.as_bytes());
    }
    // Made of valid values.
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(all)) {
        headers.insert(header::COOKIE, value);
    }
}

/// Trailers carry results, not routing or framing: removes what would be believed if it stood in a head.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let banned = |name: &str| {
        name.starts_with("x-forwarded-")
            || name.starts_with("x-envoy-")
            || name.starts_with("x-pilotlight-")
            || is_folded(name)
            || [
                "host",
                "content-length",
                "content-encoding",
                "content-type",
                "transfer-encoding",
                "connection",
                "keep-alive",
                "proxy-connection",
                "te",
                "trailer",
                "upgrade",
                "authorization",
                "proxy-authorization",
                "cookie",
                "set-cookie",
                "expect",
            ]
            .contains(&name)
    };
    if trailers.keys().any(|name| banned(name.as_str())) {
        remove_where(trailers, banned);
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
