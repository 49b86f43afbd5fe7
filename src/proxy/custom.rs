//! Asking the provider of a CUSTOM policy whether an exchange may pass, through this worker's own connections.
//!
//! A provider that is a function is woken for it. What cannot be asked in time refuses, unless its configuration says
//! that it lets pass.

use super::Connection;
use super::closing::Closing;
use super::forward::take_body;
use crate::activator::Ask;
use crate::auth::Provider;
use crate::clock::{self, Duration};
use crate::cluster::{Slot, Taken};
use crate::fault::{Advice, Fault, Kind, Told};
use crate::http::{Authority, Seen, Wire, target};
use crate::snapshot::{Destination, Protocol, Snapshot};
use crate::upstream::{Aim, RequestBody, SendError};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};

/// Of a provider's answer.
const MOST_ANSWER: usize = 64 * 1024;
/// What one frame of a client's body can be above a bound.
const FRAME: usize = 128 * 1024;
/// For a client to send what the provider is to see of its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// A question in a function's queue, about.
const QUESTION: usize = 1024;

/// What a provider said.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// Whether the provider called `name` lets the exchange pass.
///
/// # Errors
/// It does not, or cannot be asked.
pub(super) async fn ask(connection: &Connection, name: &str, closing: &mut Closing) -> Result<(), Fault> {
    connection.local.telemetry.metrics.auth.asked.inc();
    let snapshot = closing.snapshot.clone();
    let Some(provider) = snapshot.providers.get(name) else {
        return Err(Fault::because(
            Kind::ProviderFailed,
            format_args!("MeshConfig has no extension provider {name}"),
        ));
    };
    let body = match provider.body {
        Some(terms) => body(connection, terms, closing).await?,
        None => (Bytes::new(), false),
    };
    let asking =
        tokio::time::timeout(provider.timeout, check(connection, &snapshot, provider, body, closing));
    let why = match asking.await {
        Ok(Ok(answer)) if answer.status == StatusCode::OK => {
            let besides = provider.allowed(&answer.headers, &mut closing.parts.headers);
            if !besides.is_empty() {
                closing.besides = Some(Box::new(besides));
            }
            return Ok(());
        }
        Ok(Ok(answer)) if !answer.status.is_server_error() => return Err(denied(provider, answer)),
        Ok(Ok(answer)) => format!("it answers {}", answer.status),
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {:?}", provider.timeout),
    };
    if provider.fail_open && provider.unusable.is_none() {
        tracing::debug!(provider = %provider.name, "{why}; the request passes, as failOpen says");
        return Ok(());
    }
    let advice = Advice { status: provider.status_on_error, ..Advice::default() };
    let reason = Some(format!("provider {}: {why}", provider.name).into());
    Err(Fault { reason, ..Fault::advised(Kind::ProviderFailed, advice) })
}

fn denied(provider: &Provider, answer: Answer) -> Fault {
    let headers = provider.denied(&answer.headers);
    let told = Told { body: Some(answer.body), headers, ..Told::default() };
    let advice = Advice { status: answer.status.as_u16(), ..Advice::default() };
    Fault { advice, ..Fault::told(Kind::ProviderDenied, told) }
}

/// As much of the client's body as the provider is to see, and whether that is not all. What was read is kept for
/// the destination.
async fn body(
    connection: &Connection,
    (most, partial): (usize, bool),
    closing: &mut Closing,
) -> Result<(Bytes, bool), Fault> {
    take_body(connection, closing);
    let Some(source) = &closing.source else { return Ok((Bytes::new(), false)) };
    source.borrow_mut().keep_up_to(most + FRAME);
    let mut reading = RequestBody::again(source);
    let mut all = BytesMut::new();
    let filling = async {
        while all.len() <= most {
            match reading.frame().await {
                None => return Ok(false),
                Some(Ok(frame)) => {
                    frame.into_data().into_iter().for_each(|bytes| all.extend_from_slice(&bytes))
                }
                Some(Err(_)) => return Err(Kind::RequestCut),
            }
        }
        Ok(true)
    };
    let more = tokio::time::timeout(PATIENCE, filling).await.map_err(|_| Kind::RequestStalled)??;
    if more && !partial || !source.borrow().replayable() {
        return Err(Kind::BodyTooLarge.into());
    }
    all.truncate(most);
    Ok((all.freeze(), more))
}

/// One question, once more on a fresh connection where a kept one had died.
async fn check(
    connection: &Connection,
    snapshot: &Snapshot,
    provider: &Provider,
    (body, partial): (Bytes, bool),
    closing: &Closing,
) -> Result<Answer, String> {
    if let Some(why) = &provider.unusable {
        return Err(why.to_string());
    }
    let destination = snapshot.destinations.get(&provider.cluster);
    let destination =
        destination.ok_or_else(|| format!("its cluster {} does not exist", provider.cluster))?;
    let mut fresh = false;
    loop {
        let host = Authority::of(&closing.parts).map_or("", |authority| authority.text);
        let question = provider.question(&closing.parts, host, (body.len(), partial))?;
        let (mut parts, ()) = question.into_parts();
        let wire = match destination.cluster.protocol {
            Protocol::Http1 => Wire::Http1,
            Protocol::Http2 => Wire::Http2 { secure: false },
        };
        let seen = Seen::of(&parts.headers);
        target::address(&mut parts, seen, wire, None, None).map_err(|kind| kind.row().details.to_owned())?;
        let sent = if body.is_empty() { RequestBody::Empty } else { RequestBody::Whole(Some(body.clone())) };
        let slot = slot(connection, destination, provider.timeout).await?;
        match send(connection, destination, &slot, &provider.host, Request::from_parts(parts, sent), fresh)
            .await
        {
            Ok(answer) => return Ok(answer),
            Err((_, true)) if !fresh => fresh = true,
            Err((why, _)) => return Err(why),
        }
    }
}

async fn slot(connection: &Connection, destination: &Destination, timeout: Duration) -> Result<Slot, String> {
    let cluster = &destination.cluster;
    let taken = {
        let mut rng = connection.local.rng.borrow_mut();
        cluster.members.take_or_wait(
            cluster.policy.balance,
            cluster.policy.outlier.as_ref(),
            &mut rng,
            &[],
            || {
                let now = clock::now();
                Ok(Ask { now, bytes: QUESTION, deadline: Some(now + timeout), inside: false })
            },
        )
    };
    let told = |kind: Kind| kind.row().details.to_owned();
    match taken {
        Ok(Taken::Slot(slot)) => Ok(slot),
        Ok(Taken::Wait(ticket)) => ticket.await.map_err(told),
        Err(kind) => Err(told(kind)),
    }
}

/// Sends it and reads the whole answer; an error with whether the connection may just have been a dead one.
async fn send(
    connection: &Connection,
    destination: &Destination,
    slot: &Slot,
    host: &str,
    question: Request<RequestBody>,
    fresh: bool,
) -> Result<Answer, (String, bool)> {
    let (cluster, pools) = (&destination.cluster, &connection.local.pools);
    let failed = |fault: Fault| (fault.to_string(), false);
    let _counted =
        cluster.gate.request(cluster.policy.limits.max_requests).map_err(|kind| failed(kind.into()))?;
    let to = Aim { cluster, endpoint: slot.endpoint(), host };
    let idle = if fresh { None } else { pools.idle(to, clock::now()) };
    let mut lease = match idle {
        Some(lease) => lease,
        None => pools.connect(to, fresh).await.map_err(failed)?,
    };
    let reused = lease.reused();
    if !lease.is_ready() {
        lease.ready().await.map_err(|fault| (fault.to_string(), reused))?;
    }
    let response =
        lease.send(question).await.map_err(|error| (SendError::from(error).fault.to_string(), reused))?;
    lease.head_came();
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MOST_ANSWER).collect().await;
    let body = body.map_err(|error| (format!("its answer: {error}"), false))?.to_bytes();
    pools.give_back(lease, cluster, clock::now(), None);
    Ok(Answer { status: head.status, headers: head.headers, body })
}
