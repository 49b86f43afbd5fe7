//! What a guard says about an exchange: who asks, with which token, and whether a policy lets it pass.
//!
//! Between the choice of a destination and everything that costs something: nothing is woken, held or connected
//! for a request that may not pass. Judging by policies allocates nothing; refusing does.

use super::Connection;
use super::closing::Closing;
use crate::auth::jwt::{Accepted, Jwt, Mistake};
use crate::auth::{Denied, Event, Facts, Guard, Identity};
use crate::clock;
use crate::fault::{Fault, Kind, Told};
use crate::http::{Authority, target};
use crate::record::Direction;
use crate::snapshot::Snapshot;
use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderName, HeaderValue, request};
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Of the path in a realm.
const REALM_PATH: usize = 256;

/// Whether the exchange may pass `guard` on its way to `workload`.
///
/// # Errors
/// It may not; the fault says why.
pub(super) async fn pass(
    connection: &Connection,
    guard: &Guard,
    workload: SocketAddr,
    closing: &mut Closing,
) -> Result<(), Fault> {
    let metrics = &connection.local.telemetry.metrics.auth;
    let accepted = match &guard.jwt {
        Some(jwt) => authenticate(connection, jwt, closing)?,
        None => None,
    };
    let principal = principal(connection, &closing.snapshot);
    let facts = facts(connection, &closing.parts, workload, principal, accepted.as_ref())?;
    guard
        .authorize(&facts, |event| match event {
            Event::Audited(_) => drop(metrics.audited.inc()),
            Event::WouldDeny(_) => drop(metrics.would_deny.inc()),
            Event::WouldAllow(_) => drop(metrics.would_allow.inc()),
        })
        .map_err(refused)
}

/// Looks at the tokens, and passes on of them what is to be passed on.
fn authenticate<'j>(
    connection: &Connection,
    jwt: &'j Jwt,
    closing: &mut Closing,
) -> Result<Option<Accepted<'j>>, Fault> {
    let parts = &mut closing.parts;
    if jwt.passes_over(&parts.method, &parts.headers) {
        jwt.clean(&mut parts.headers);
        return Ok(None);
    }
    let metrics = &connection.local.telemetry.metrics.auth;
    let now = clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let found = {
        let mut tokens = connection.local.tokens.borrow_mut();
        let before = tokens.len();
        let found = jwt.verify(&parts.headers, parts.uri.query(), now, &mut tokens);
        if tokens.len() != before {
            metrics.tokens_kept.inc_by(tokens.len() as i64 - before as i64);
        }
        found
    };
    let accepted = found.map_err(|mistake| {
        metrics.tokens_refused.inc();
        unauthenticated(connection, parts, mistake)
    })?;
    // Only now: a token may have stood in a field that it fills itself.
    jwt.clean(&mut parts.headers);
    if let Some(accepted) = &accepted {
        let counter = if accepted.remembered { &metrics.tokens_remembered } else { &metrics.tokens_verified };
        counter.inc();
        let query = accepted.apply(&mut parts.headers, parts.uri.query());
        if let Some(query) = query {
            target::set_query(&mut parts.uri, &query)?;
        }
    }
    Ok(accepted)
}

/// Who the peer is: by its certificate, or taken for it.
fn principal<'a>(connection: &'a Connection, snapshot: &'a Snapshot) -> Option<&'a str> {
    match connection.standing.secured() {
        Some(secured) => secured.principal(),
        None => snapshot.listeners.get(connection.listener)?.as_ref()?.simulated.as_deref(),
    }
}

/// What policies look at.
fn facts<'a>(
    connection: &'a Connection,
    parts: &'a request::Parts,
    destination: SocketAddr,
    principal: Option<&'a str>,
    accepted: Option<&'a Accepted<'_>>,
) -> Result<Facts<'a>, Fault> {
    let authority = Authority::of(parts).ok_or(Kind::BadRequest)?;
    let peer = principal.and_then(Identity::parse);
    Ok(Facts {
        peer,
        source: connection.remote.ip(),
        client: client(connection, peer.is_some(), &parts.headers),
        method: parts.method.as_str(),
        path: parts.uri.path(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()),
        scheme: connection.scheme,
        host: authority.text,
        headers: &parts.headers,
        destination,
        sni: connection.standing.secured().and_then(|secured| secured.sni.as_deref()).unwrap_or_default(),
        claims: accepted.map(Accepted::claims),
    })
}

/// The client's address: at a sidecar, what a proxy of the mesh says of it; elsewhere, the peer's.
fn client(connection: &Connection, known: bool, headers: &HeaderMap) -> IpAddr {
    let peer = connection.remote.ip();
    if connection.direction != Direction::Inbound || !known {
        return peer;
    }
    let last = headers.get_all(FORWARDED_FOR).iter().next_back();
    let last = last.and_then(|list| list.to_str().ok()).and_then(|list| list.rsplit(',').next());
    last.and_then(|text| text.trim().parse().ok()).unwrap_or(peer)
}

#[cold]
fn refused(denied: Denied<'_>) -> Fault {
    match denied.broken {
        Some(why) => Fault::because(Kind::PolicyUnusable, why),
        None => {
            let details = denied.by.details.to_string().into();
            Fault::told(Kind::Forbidden, Told { details, ..Told::default() })
        }
    }
}

/// The answer to a token that does not count, in the words of Istio's proxy.
#[cold]
fn unauthenticated(connection: &Connection, parts: &request::Parts, mistake: Mistake) -> Fault {
    let text = mistake.text();
    let kind = if mistake.is_forbidden() { Kind::WrongAudience } else { Kind::BadToken };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::try_from(challenge(connection.scheme, parts)) {
        headers.insert(WWW_AUTHENTICATE, value);
    }
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_")).into();
    Fault::told(kind, Told { details, body: Some(Bytes::from_static(text.as_bytes())), headers })
}

/// The query is left out: the token may be in it.
fn challenge(scheme: &str, parts: &request::Parts) -> String {
    let host = Authority::of(parts).map_or("", |authority| authority.text);
    let path: String = parts.uri.path().chars().take(REALM_PATH).collect();
    let path = path.replace('\\', "%5C").replace('"', "%22");
    format!("Bearer realm=\"{scheme}://{host}{path}\", error=\"invalid_token\"")
}
