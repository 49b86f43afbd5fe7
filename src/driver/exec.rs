//! Commands that are run beside an instance, for probes.
//!
//! Each has a process group of its own, which the watchdog knows, and what it prints is thrown away. It is
//! killed when its time is over, or when nobody waits for it any more.

use super::Exec;
use super::cgroup::Group;
use super::launch::{self, Surroundings};
use super::process::{Shared, announced, end_of, ended, receiver};
use super::spawn::Process;
use crate::clock::Duration;
use parking_lot::Mutex;
use proxy_config::model::Revision;
use rustix::process::{Pid, Signal, kill_process_group};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// What runs commands with what an instance of `revision` on `port` finds around it, and within its limits.
pub(super) fn beside(
    revision: Arc<Revision>,
    port: u16,
    cgroup: Option<Arc<Group>>,
    around: Surroundings,
    shared: Arc<Mutex<Shared>>,
) -> Exec {
    Arc::new(move |words, limit| {
        let (revision, around, shared) = (revision.clone(), around.clone(), shared.clone());
        let cgroup = cgroup.clone();
        Box::pin(async move {
            match Running::start(&revision, &words, port, cgroup.as_deref(), &around, shared) {
                Ok(mut running) => running.succeeds(limit).await,
                Err(why) => {
                    tracing::debug!(revision = revision.key, why, "a probe's command cannot be run");
                    false
                }
            }
        })
    })
}

/// One that runs. Dropping it ends it.
struct Running {
    process: Process,
    /// None once it was waited for.
    group: Option<Pid>,
    printed: [Option<pipe::Receiver>; 2],
    shared: Arc<Mutex<Shared>>,
}

impl Running {
    fn start(
        revision: &Revision,
        words: &[String],
        port: u16,
        cgroup: Option<&Group>,
        around: &Surroundings,
        shared: Arc<Mutex<Shared>>,
    ) -> Result<Running, String> {
        let command = launch::beside(revision, words, port, around)?;
        let spawned = announced(shared.lock().watchdog.as_mut(), &command, cgroup);
        let spawned = spawned.map_err(|error| error.to_string())?;
        let printed = [receiver(spawned.stdout), receiver(spawned.stderr)];
        Ok(Running { group: Some(spawned.process.0), process: spawned.process, printed, shared })
    }

    async fn succeeds(&mut self, limit: Duration) -> bool {
        let pidfd = end_of(self.process.0);
        let [out, err] = self.printed.each_mut().map(swallow);
        let over = tokio::time::timeout(limit, async {
            tokio::select! {
                () = ended(&self.process, pidfd.as_ref()) => {}
                // Whoever holds the pipes open is read from, so that it does not wait for a reader.
                never = async { tokio::join!(out, err) } => match never.0 {},
            }
        });
        let over = over.await.is_ok();
        self.finish().is_some_and(|status| over && status == 0)
    }

    /// Ends it with all it started, and gives its exit status.
    fn finish(&mut self) -> Option<i32> {
        let group = self.group.take()?;
        // It is a zombie until it is waited for, so the number still means this group.
        let _ = kill_process_group(group, Signal::KILL);
        if let Some(watchdog) = &mut self.shared.lock().watchdog {
            watchdog.ended(group);
        }
        self.process.wait().ok()?.exit_status()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Reads what comes, and then waits for ever.
async fn swallow(pipe: &mut Option<pipe::Receiver>) -> Infallible {
    let mut buffer = [0; 1024];
    if let Some(pipe) = pipe {
        while matches!(pipe.read(&mut buffer).await, Ok(1..)) {}
    }
    std::future::pending().await
}
