//! What the scaler knows, as JSON for people (`/functions`).

use super::ended::Crash;
use super::fleet::Fleet;
use super::instance::{Instance, Phase};
use super::unit::Unit;
use crate::clock::{Instant, SystemTime};
use crate::record::Cause;
use proxy_config::model::Command;
use serde_json::{Value, json};

/// Every revision, in order of its key.
pub(super) fn functions(fleet: &Fleet, now: Instant) -> Value {
    json!({
        "instances": fleet.floor.live,
        "max_instances": fleet.floor.ceiling,
        "functions": fleet.each(now, |unit| function(unit, now)),
    })
}

fn function(unit: &Unit, now: Instant) -> Value {
    let revision = &unit.revision;
    let runs = match &revision.command {
        Command::Run(words) => json!({ "command": words }),
        Command::StandIn => json!({ "stand_in": true }),
        Command::Refused { reason, help } => json!({ "refused": reason, "help": help }),
    };
    json!({
        "revision": revision.key,
        "function": revision.service,
        "namespace": revision.namespace,
        "runs": runs,
        "concurrency": revision.concurrency,
        "min_scale": unit.terms.min,
        "max_scale": unit.terms.max,
        "instances": unit.instances.values().map(|one| instance(one, now)).collect::<Vec<_>>(),
        "waiting": unit.hold.waiting(),
        "oldest_wait_seconds": unit.hold.oldest().map(|since| seconds(now, since)),
        "held_ever": unit.hold.arrivals(),
        "held_bytes": unit.hold.bytes(),
        "refusals": unit.metrics.refusals().map(|(kind, n)| (kind.to_owned(), n.into())).collect::<serde_json::Map<_, _>>(),
        "expected_start_seconds": unit.learned.expected().map(|start| start.as_secs_f64()),
        "starts": unit.starts,
        "starts_by_cause": Cause::ALL.map(|cause| (cause.name().to_owned(), unit.metrics.started(cause).get().into()))
            .into_iter().collect::<serde_json::Map<_, _>>(),
        "cold_starts": unit.metrics.cold_starts.get(),
        "freezes": unit.metrics.freezes.get(),
        "thaws": unit.metrics.thaws.get(),
        "wasted_starts": unit.metrics.wasted.get(),
        "busy_seconds": unit.metrics.busy_seconds.get(),
        "idle_seconds": unit.metrics.idle_seconds.get(),
        "busy_gb_seconds": unit.metrics.busy_gb_seconds.get(),
        "idle_gb_seconds": unit.metrics.idle_gb_seconds.get(),
        "crashes": unit.crashes,
        "last_crash": unit.last_crash.as_ref().map(crash),
        "back_off_seconds": unit.backoff.until(now).map(|until| seconds(until, now)),
        "circuit": unit.backoff.shut(now).map_or("closed", |_| "open"),
        "put_off_seconds": unit.put_off.map(|until| seconds(until, now)),
        "starved": unit.starved,
        "removed": unit.removed.is_some(),
    })
}

fn instance(one: &Instance, now: Instant) -> Value {
    let (port, in_flight) = match &one.phase {
        Phase::Ready { endpoint, .. }
        | Phase::Unready { endpoint, .. }
        | Phase::Draining { endpoint, .. } => (Some(endpoint.address.port()), endpoint.active()),
        Phase::Probing(address) | Phase::Frozen { address, .. } => (Some(address.port()), 0),
        Phase::Starting | Phase::Stopping => (None, 0),
    };
    json!({
        "name": &*one.name,
        "pid": one.pid,
        "port": port,
        "state": one.phase.name(),
        "in_flight": in_flight,
        "age_seconds": seconds(now, one.since),
        "unused_seconds": seconds(now, one.used),
        "stderr": one.stderr.lines(),
    })
}

fn crash(crash: &Crash) -> Value {
    let at = crash.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    json!({
        "instance": &*crash.instance,
        "at_unix_seconds": at.as_secs(),
        "how": crash.how,
        "fault": crash.kind.name(),
        "exit_status": crash.code,
        "signal": crash.signal,
        "stderr": crash.stderr,
    })
}

fn seconds(later: Instant, earlier: Instant) -> f64 {
    (later.saturating_duration_since(earlier).as_secs_f64() * 1e3).round() / 1e3
}
