//! "Not sent": what the inbound side of a mesh says of a request that it refused before anything reached the
//! application, so that the caller may send it elsewhere whatever it is.
//!
//! The caller asks for it by a field in the request, and only where the connection proves that a proxy of the
//! mesh is at its other end; the same field in the answer says it. From anybody else it means nothing: the
//! fields of this name that come from clients and applications are removed with all others of the proxy's own.

use super::Connection;
use crate::fault::{Blame, Kind, Replay, Stage};
use crate::record::Direction;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

/// Asked for in a request, said in an answer.
pub(super) const UNSENT: HeaderName = HeaderName::from_static("x-pilotlight-unsent");
const YES: HeaderValue = HeaderValue::from_static("1");

/// How often one exchange goes elsewhere for it.
pub(super) const ELSEWHERE: u8 = 2;

/// Whether the caller of a request that has just come wants to be told: a caller with an identity, of a workload.
#[inline]
pub(super) fn wanted(connection: &Connection, headers: &HeaderMap) -> bool {
    connection.direction == Direction::Inbound
        && connection.principal().is_some()
        && headers.contains_key(UNSENT)
}

/// Whether a fault says that nothing of the request reached the application, and that another place might
/// take it. `attempts`: those begun, the one that failed included.
pub(super) fn may_be_said(kind: Kind, attempts: u8) -> bool {
    let row = kind.row();
    let before = matches!(row.stage, Stage::Admit | Stage::Park | Stage::Pick) && attempts == 0;
    row.blame != Blame::Downstream && (before || row.replay == Replay::Always && attempts <= 1)
}

/// Says it in an answer of ours.
pub(super) fn say(headers: &mut HeaderMap) {
    headers.insert(UNSENT, YES);
}

/// Asks for it, or does not: an earlier try may have been for another endpoint.
pub(super) fn ask(headers: &mut HeaderMap, mesh: bool) {
    if mesh {
        headers.insert(UNSENT, YES);
    } else {
        headers.remove(UNSENT);
    }
}

/// Whether an answer says it: an error to a request that asked, by a peer that may say so.
#[inline]
pub(super) fn is_said<B>(asked: bool, response: &Response<B>) -> bool {
    asked && response.headers().contains_key(UNSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_of_what_cannot_have_reached_the_application_and_of_nothing_else() {
        let rows = [
            (Kind::HoldFull, 0, true),
            (Kind::HoldAge, 0, true),
            (Kind::WaitTooLong, 0, true),
            (Kind::Overloaded, 0, true),
            (Kind::MemoryShort, 0, true),
            (Kind::NoHealthyUpstream, 0, true),
            (Kind::RequestOverflow, 0, true),
            (Kind::ConnectFailure, 1, true),
            (Kind::NotSent, 1, true),
            (Kind::StreamRefused, 1, true),
            // An earlier try may have reached it.
            (Kind::HoldFull, 1, false),
            (Kind::RequestOverflow, 1, false),
            (Kind::ConnectFailure, 2, false),
            // It may have it.
            (Kind::Disconnected, 1, false),
            (Kind::StreamReset, 1, false),
            (Kind::RouteTimeout, 1, false),
            (Kind::BadResponse, 1, false),
            // It would be refused anywhere.
            (Kind::Forbidden, 0, false),
            (Kind::NoRoute, 0, false),
            (Kind::BadRequest, 0, false),
            (Kind::TrustEnded, 0, false),
            (Kind::HealthCheckAtZero, 0, false),
        ];
        for (kind, attempts, said) in rows {
            assert_eq!(may_be_said(kind, attempts), said, "{kind:?} at attempt {attempts}");
        }
    }

    #[test]
    fn it_is_believed_of_a_peer_that_was_asked_alone() {
        let mut response = Response::new(());
        assert!(!is_said(true, &response));
        say(response.headers_mut());
        assert!(is_said(true, &response) && !is_said(false, &response));
        let mut headers = HeaderMap::new();
        ask(&mut headers, true);
        assert!(headers.contains_key(UNSENT));
        ask(&mut headers, false);
        assert!(headers.is_empty());
    }
}
