//! What a guard says about an exchange: who asks, with which token, and whether a policy lets it pass.
//!
//! Between the choice of a destination and everything that costs something: nothing is woken, held or connected
//! for a request that may not pass. Judging by policies allocates nothing; refusing does.

use super::Connection;
use super::closing::Closing;
use super::custom;
use super::denial;
use crate::auth::jwt::{Accepted, Jwt, Mistake};
use crate::auth::{Denied, Event, Facts, Guard, Identity};
use crate::clock;
use crate::fault::{Fault, Kind, Told};
use crate::http::{Authority, headers, target};
use crate::record::Direction;
use crate::snapshot::{Listener, Simulated};
use bytes::Bytes;
use http::header::{PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, request};
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Of the path in a realm.
const REALM_PATH: usize = 256;

/// Whose guard asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// The listener's: who asks is who connected.
    Door,
    /// That of what is behind it: who asks is who speaks to it.
    Destination,
}

/// Whether the exchange may pass `guard` on its way to `workload`.
///
/// # Errors
/// It may not; the fault says why.
pub(super) async fn pass(
    connection: &Connection,
    guard: &Guard,
    workload: SocketAddr,
    at: At,
    closing: &mut Closing,
) -> Result<(), Fault> {
    let verdict = judge(connection, guard, workload, at, closing).await;
    if let Err(fault) = &verdict {
        denial::of_guard(connection, at, closing, fault);
    }
    verdict
}

/// The verdict, in Istio's order: other providers, tokens, policies.
async fn judge(
    connection: &Connection,
    guard: &Guard,
    workload: SocketAddr,
    at: At,
    closing: &mut Closing,
) -> Result<(), Fault> {
    if let Some(denied) = guard.broken() {
        return Err(refused(denied));
    }
    let again = closing.opening.as_ref().is_some_and(|opening| opening.again);
    if guard.asks_others() && !again {
        Box::pin(consult(connection, guard, workload, at, closing)).await?;
    }
    let metrics = &connection.local.telemetry.metrics.auth;
    let audit = &connection.local.telemetry.audit;
    let accepted = match &guard.jwt {
        Some(jwt) => authenticate(connection, jwt, closing)?,
        None => None,
    };
    let principal = asking(connection, at, closing).principal();
    let facts = facts(connection, closing, workload, principal, accepted.as_ref())?;
    guard
        .authorize(&facts, |event| {
            if again {
                return;
            }
            let (counter, word, id) = match event {
                Event::Audited(id) => (&metrics.audited, "audited", id),
                Event::WouldDeny(id) => (&metrics.would_deny, "would_deny", id),
                Event::WouldAllow(id) => (&metrics.would_allow, "would_allow", id),
            };
            counter.inc();
            if let (Some(sink), false) = (audit.sink(), word == "would_allow") {
                let mut said = denial::said(connection, at, closing);
                said.insert("policy".to_owned(), (*id.policy).into());
                connection.local.audit.audit(sink, word, said);
            }
        })
        .map_err(refused)
}

/// Asks the providers whose policies match; tokens are not looked at yet.
async fn consult(
    connection: &Connection,
    guard: &Guard,
    workload: SocketAddr,
    at: At,
    closing: &mut Closing,
) -> Result<(), Fault> {
    let asked: SmallVec<[Arc<str>; 1]> = {
        let principal = asking(connection, at, closing).principal();
        let facts = facts(connection, closing, workload, principal, None)?;
        guard.providers(&facts).map(|(provider, _)| provider.clone()).collect()
    };
    for provider in &asked {
        custom::ask(connection, provider, closing).await?;
    }
    Ok(())
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
    let now = closing.opening.as_ref().map_or_else(clock::wall, |opening| opening.came);
    let now = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
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

/// Takes from a head what says which function of this process sends it. Nobody else is to see that.
pub(super) fn recognise(listener: &Listener, closing: &mut Closing) {
    let Simulated::Callers(callers) = &listener.simulated else { return };
    let fields = &mut closing.parts.headers;
    let Some(caller) = fields.get(PROXY_AUTHORIZATION).and_then(|value| callers.find(value.as_bytes()))
    else {
        return;
    };
    closing.caller = Some(caller.clone());
    fields.remove(PROXY_AUTHORIZATION);
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) enum Asking<'a> {
    /// Nobody that is known.
    Nobody,
    /// By a certificate.
    Proven(&'a str),
    /// Taken for it.
    Simulated(&'a str),
}

impl<'a> Asking<'a> {
    /// What it is known by.
    pub(super) fn principal(self) -> Option<&'a str> {
        match self {
            Asking::Nobody => None,
            Asking::Proven(principal) | Asking::Simulated(principal) => Some(principal),
        }
    }
}

/// Who the peer is: by its certificate, or taken for it. Behind a gateway the peer is the gateway, unless a member of
/// the mesh came to it: what a certificate from elsewhere says of itself is the gateway's own business.
pub(super) fn asking<'a>(connection: &'a Connection, at: At, closing: &'a Closing) -> Asking<'a> {
    let standing = &connection.standing;
    let behind = connection.direction == Direction::Gateway && at == At::Destination;
    if !behind || standing.is_member() {
        let proven = connection.principal().map_or(Asking::Nobody, Asking::Proven);
        if standing.secured().is_some() || connection.direction == Direction::Gateway {
            return proven;
        }
    }
    let listener = closing.snapshot.listeners.get(connection.listener).and_then(Option::as_ref);
    match listener.map(|listener| &listener.simulated) {
        None | Some(Simulated::Nobody) => Asking::Nobody,
        Some(Simulated::One(principal)) => Asking::Simulated(principal),
        Some(Simulated::Callers(_)) => closing.caller.as_deref().map_or(Asking::Nobody, Asking::Simulated),
    }
}

/// What policies look at.
fn facts<'a>(
    connection: &'a Connection,
    closing: &'a Closing,
    destination: SocketAddr,
    principal: Option<&'a str>,
    accepted: Option<&'a Accepted<'_>>,
) -> Result<Facts<'a>, Fault> {
    let parts = &closing.parts;
    let authority = Authority::of(parts).ok_or(Kind::BadRequest)?;
    let peer = principal.and_then(Identity::parse);
    Ok(Facts {
        peer,
        source: connection.remote.ip(),
        client: client(connection, peer.is_some(), closing),
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

/// Who the client is, where proxies in front are trusted to tell.
#[cold]
pub(super) fn told_of_client(connection: &Connection, closing: &mut Closing) {
    let told = headers::told_of(&closing.parts.headers, closing.forwarding.trusted_proxies);
    closing.record.downstream_remote = told.map_or(connection.remote, |ip| SocketAddr::new(ip, 0));
}

/// The client's address: at a sidecar, what a proxy of the mesh says of it; elsewhere, the peer's,
/// or whom trusted proxies tell of.
fn client(connection: &Connection, known: bool, closing: &Closing) -> IpAddr {
    let peer = closing.record.downstream_remote.ip();
    if connection.direction != Direction::Inbound || !known {
        return peer;
    }
    let last = closing.parts.headers.get_all(FORWARDED_FOR).iter().next_back();
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
