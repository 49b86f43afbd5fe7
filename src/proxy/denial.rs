//! What the audit stream says of those who are refused: by a guard, by a port's mode, or since their trust has ended.
//!
//! Only refusals come here; what is let in passes by. It never says a query, a token or a claim.

use super::closing::Closing;
use super::guard::{self, Asking, At};
use super::{Connection, Local};
use crate::fault::{Fault, Kind};
use crate::http::Authority;
use http::HeaderName;
use serde_json::{Map, Value};
use std::fmt;
use std::net::SocketAddr;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const EVENT: &str = "denied";

/// Tells of an exchange that a guard refuses.
#[cold]
pub(super) fn of_guard(connection: &Connection, at: At, closing: &Closing, fault: &Fault) {
    let Some(sink) = connection.local.telemetry.audit.sink() else { return };
    let mut said = said(connection, at, closing);
    say_why(&mut said, fault);
    connection.local.audit.audit(sink, EVENT, said);
}

/// Tells of an exchange that is refused for who connected and how, and not by a guard, which tells of its own.
#[cold]
pub(super) fn of_exchange(closing: &Closing, fault: &Fault) {
    if !is_of_connection(fault.kind) {
        return;
    }
    of_guard(closing.connection(), At::Door, closing, fault);
}

/// Tells of a tunnel that ends since its client would be refused now. Its head has gone up long ago.
#[cold]
pub(super) fn of_tunnel(closing: &Closing, fault: &Fault) {
    let connection = closing.connection();
    let Some(sink) = connection.local.telemetry.audit.sink() else { return };
    let mut said = said(connection, At::Door, closing);
    let record = &closing.record;
    let authority = record.authority.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.insert("method".to_owned(), record.method.as_str().into());
    said.insert("path".to_owned(), record.target.as_ref().map_or("", |target| target.path()).into());
    said.insert("authority".to_owned(), authority.into());
    say_why(&mut said, fault);
    said.insert("status".to_owned(), record.status.into());
    connection.local.audit.audit(sink, EVENT, said);
}

/// Tells of a client's connection of which no request was read; it came to the listener of this number.
#[cold]
pub fn of_client(local: &Local, client: SocketAddr, listener: usize, kind: Kind, why: &impl fmt::Display) {
    if !is_at_door(kind) && !is_of_connection(kind) {
        return;
    }
    let Some(sink) = local.telemetry.audit.sink() else { return };
    let mut said = Map::new();
    said.insert("source".to_owned(), client.to_string().into());
    let snapshot = local.snapshot();
    let name =
        snapshot.listeners.get(listener).and_then(Option::as_ref).map_or("", |listener| &listener.name);
    said.insert("listener".to_owned(), name.into());
    say_why(&mut said, &Fault::because(kind, why));
    local.audit.audit(sink, EVENT, said);
}

/// Refusals of requests and open connections for who connected and how.
const fn is_of_connection(kind: Kind) -> bool {
    matches!(kind, Kind::TrustEnded | Kind::PortRefused | Kind::Misdirected)
}

/// Refusals before any request.
const fn is_at_door(kind: Kind) -> bool {
    matches!(kind, Kind::PlaintextRefused | Kind::ForeignTls | Kind::PeerRefused)
}

fn say_why(said: &mut Map<String, Value>, fault: &Fault) {
    let row = fault.kind.row();
    let details = fault.told.as_ref().map(|told| &*told.details).filter(|details| !details.is_empty());
    said.insert("fault".to_owned(), fault.kind.name().into());
    said.insert("details".to_owned(), details.unwrap_or(row.details).into());
    let status = if fault.advice.status == 0 { row.status } else { fault.advice.status };
    said.insert("status".to_owned(), status.into());
    if let Some(reason) = &fault.reason {
        said.insert("reason".to_owned(), (**reason).into());
    }
}

/// What the audit stream says about an exchange: nothing that a token or a query could be in.
pub(super) fn said(connection: &Connection, at: At, closing: &Closing) -> Map<String, Value> {
    let parts = &closing.parts;
    let mut said = Map::new();
    let mut say = |name: &str, value: &str| drop(said.insert(name.to_owned(), value.into()));
    say("method", parts.method.as_str());
    say("path", parts.uri.path());
    say("authority", Authority::of(parts).map_or("", |authority| authority.text));
    say("source", &connection.remote.to_string());
    say("destination", closing.target.as_ref().map_or("", |target| &target.cluster));
    let asking = guard::asking(connection, at, closing);
    if let Some(principal) = asking.principal() {
        say("principal", principal);
    }
    if let Some(id) = parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()) {
        say("request_id", id);
    }
    if matches!(asking, Asking::Simulated(_)) {
        said.insert("simulated".to_owned(), true.into());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Stage;

    #[test]
    fn every_fault_that_refuses_for_who_asks_or_how_is_told_of_by_somebody() {
        let guards = [
            Kind::BadToken,
            Kind::WrongAudience,
            Kind::Forbidden,
            Kind::PolicyUnusable,
            Kind::BodyTooLarge,
            Kind::ProviderDenied,
            Kind::ProviderFailed,
        ];
        for kind in Kind::ALL {
            let row = kind.row();
            let refuses =
                row.stage == Stage::Auth || matches!(row.grpc, 7 | 16) || *kind == Kind::Misdirected;
            let tellers = [guards.contains(kind), is_of_connection(*kind), is_at_door(*kind)];
            let tellers = tellers.iter().filter(|tells| **tells).count();
            assert_eq!(tellers, usize::from(refuses), "{kind:?}");
        }
    }
}
