//! What never became an exchange: bytes that are no request, and connections that end for what came on them. Each is
//! logged and counted as an exchange is, by a record in which little stands; no route and no series has seen it.

use super::Connection;
use crate::clock;
use crate::fault::Fault;
use crate::record::{Protocol, Record};
use http::{HeaderMap, Method};

/// Puts on record that a client's connection ended, or was answered by the parser, for this fault.
#[cold]
pub fn unread(connection: &Connection, protocol: Protocol, fault: Fault) {
    let local = &connection.local;
    local.telemetry.metrics.fault(fault.kind);
    let snapshot = local.snapshot();
    let Some(log) = &snapshot.access_log else { return };
    // A dash is what logs write for what is not known, and is a token, too.
    let method = Method::from_bytes(b"-").unwrap_or(Method::GET);
    let (remote, address) = (connection.remote, connection.address);
    let mut record = Record::new(clock::now(), connection.direction, protocol, method, remote, address);
    record.captured = log.format().capture_request(&HeaderMap::new());
    record.fail(fault);
    local.log.log(log, &record);
}
