//! How an instance is asked how it is, from the moment its port is open.
//!
//! One task for each instance that has more to be asked than whether its port is open; it ends with the
//! instance, or when the instance takes no more requests. Kubernetes' rules: the startup probe goes before the
//! others; readiness puts the instance among the members and takes it out; liveness has it replaced. One thing
//! is done otherwise: until the first good answer nobody waits for a period, as requests may wait for it.

use super::ask::ask;
use crate::clock::{self, Duration, Instant};
use crate::driver::{Exec, InstanceId};
use proxy_config::model::{Probe, Probes, Protocol};
use std::fmt;
use std::net::SocketAddr;

/// Between the first tries: at first, and at most where no period is written.
const EAGER: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// Between looks at what has been ready, where no period is written.
const PERIOD: Duration = Duration::from_secs(10);
/// The failures it takes then.
const FAILURES: u32 = 3;

/// What is to be asked of an instance.
#[derive(Clone)]
pub(super) struct Probing {
    pub instance: InstanceId,
    pub address: SocketAddr,
    /// When the instance was started.
    pub since: Instant,
    pub probes: Probes,
    pub protocol: Protocol,
    /// It has been ready before.
    pub resumed: bool,
    /// Runs commands beside it.
    pub exec: Option<Exec>,
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// What the probes say of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is ready, or ready again.
    Ready,
    /// It is not ready for now.
    Unready,
    /// The startup probe failed for good.
    NeverStarted,
    /// The liveness probe failed.
    Dead,
}

/// Whether there is anything to be asked of an instance once it is ready.
pub(super) fn lasts(probes: &Probes) -> bool {
    probes.readiness.is_some() || probes.liveness.is_some()
}

/// Asks until it is aborted, or nothing is left to be asked. `say` takes each change.
pub(super) async fn run(probing: &Probing, say: impl Fn(Word)) {
    let probes = &probing.probes;
    if !probing.resumed
        && let Some(startup) = &probes.startup
    {
        if !first(probing, startup).await {
            return say(Word::NeverStarted);
        }
        if probes.readiness.is_none() {
            say(Word::Ready);
        }
    } else if !probing.resumed && probes.readiness.is_none() {
        say(Word::Ready);
    }
    let readiness = async {
        let Some(readiness) = &probes.readiness else { return };
        if !probing.resumed {
            // With no limit of failures it ends only well.
            first(probing, &Probe { failure: 0, ..readiness.clone() }).await;
            say(Word::Ready);
        }
        watch(probing, readiness, &say).await;
    };
    let liveness = async {
        let Some(liveness) = &probes.liveness else { return };
        delay(probing, liveness).await;
        alive(probing, liveness).await;
        say(Word::Dead);
    };
    tokio::join!(readiness, liveness);
}

async fn delay(probing: &Probing, probe: &Probe) {
    let begin = probing.since + probe.initial_delay;
    let wait = begin.saturating_duration_since(clock::now());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Asks until there are enough good answers in a row, at short intervals that grow. Where failures are
/// counted they are counted in time: as long as so many periods last.
async fn first(probing: &Probing, probe: &Probe) -> bool {
    delay(probing, probe).await;
    let (begin, mut good) = (clock::now(), 0);
    let most = if probe.period.is_zero() { EAGER.1 } else { probe.period };
    loop {
        let passed = ask(probing, probe).await;
        good = if passed { good + 1 } else { 0 };
        if good >= probe.success {
            return true;
        }
        let took = clock::now().saturating_duration_since(begin);
        if probe.failure > 0 && !passed && took >= probe.period.saturating_mul(probe.failure) {
            return false;
        }
        // One more good answer is worth as much as it is later.
        let pause =
            if passed && !probe.period.is_zero() { probe.period } else { (took / 20).clamp(EAGER.0, most) };
        tokio::time::sleep(pause).await;
    }
}

/// Tells each change of an instance that is ready.
async fn watch(probing: &Probing, probe: &Probe, say: &impl Fn(Word)) {
    let period = if probe.period.is_zero() { PERIOD } else { probe.period };
    let failures = if probe.failure == 0 { FAILURES } else { probe.failure };
    let (mut ready, mut row) = (true, 0);
    loop {
        tokio::time::sleep(period).await;
        let passed = ask(probing, probe).await;
        row = if passed == ready { 0 } else { row + 1 };
        let enough = if ready { failures } else { probe.success };
        if row >= enough {
            (ready, row) = (!ready, 0);
            say(if ready { Word::Ready } else { Word::Unready });
        }
    }
}

/// Returns when the instance has failed so often in a row as it takes.
async fn alive(probing: &Probing, probe: &Probe) {
    let mut bad = 0;
    loop {
        bad = if ask(probing, probe).await { 0 } else { bad + 1 };
        if bad >= probe.failure.max(1) {
            return;
        }
        tokio::time::sleep(probe.period.max(EAGER.0)).await;
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
