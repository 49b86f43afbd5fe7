//! Instances as local processes.
//!
//! Each has a process group and a port of its own. It is spawned and minded on the control thread, its
//! port is watched by `ready`, its output goes through `output`, and `watchdog` ends it should the proxy
//! die. The end of its first process is the end of the instance: what is left of the group is killed, and
//! nothing stays a zombie.

use super::cgroup::{Cgroups, Group, Removed, Short};
use super::launch::{self, Surroundings};
use super::output::{Output, Stream, Tail};
use super::ready::Ready;
use super::spawn::{Process, Refused, Spawned};
use super::watchdog::Watchdog;
use super::{Driver, Event, Exec, Exit, How, InstanceId, Order, exec, freeze, port, spawn};
use crate::clock::{self, Duration};
use parking_lot::Mutex;
use proxy_config::model::Revision;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use tokio::io::{Interest, unix::AsyncFd};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

/// How long the last lines of an instance that ended are waited for.
const LAST_LINES: Duration = Duration::from_millis(5);
/// How long output that nobody waits for is still passed on after the end.
const ECHO: Duration = Duration::from_millis(200);
/// Between signals to a group that was killed and has not ended.
const AGAIN: Duration = Duration::from_secs(1);
/// Between looks for the end of a process where the kernel cannot tell of it.
const LOOK: Duration = Duration::from_millis(20);
/// Tries to remove a control group in which something is left.
const REMOVALS: u32 = 500;

/// What local processes are started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What they find around them.
    pub around: Surroundings,
    /// The command of the watchdog.
    pub watchdog: Vec<OsString>,
    /// Where they are limited.
    pub cgroups: Arc<Cgroups>,
}

impl Settings {
    /// Those of this process; functions reach each other through `mesh`.
    ///
    /// # Errors
    /// The system does not say which executable this is.
    pub fn here(mesh: Option<SocketAddr>) -> io::Result<Settings> {
        let around = Surroundings::here(mesh)?;
        let watchdog = vec![around.executable.clone().into(), "watchdog".into()];
        Ok(Settings { around, watchdog, cgroups: Arc::default() })
    }
}

/// Starts and stops local processes. Whoever calls it is on the control thread, or has entered its runtime.
#[derive(Debug)]
pub struct Processes {
    settings: Settings,
    /// At most three events an instance, and instances are bounded.
    events: UnboundedSender<Event>,
    /// None until the first instance.
    tools: Option<Tools>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Tools {
    ready: Arc<Ready>,
    output: Output,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    live: HashMap<InstanceId, Live>,
    ports: HashSet<u16>,
    pub(super) watchdog: Option<Watchdog>,
}

#[derive(Debug)]
struct Live {
    group: Pid,
    port: u16,
    revision: Arc<Revision>,
    cgroup: Option<Arc<Group>>,
    stop: UnboundedSender<Duration>,
}

impl Processes {
    /// A driver that tells what happens on `events`. Threads and the watchdog start with the first
    /// instance.
    pub fn new(settings: Settings, events: UnboundedSender<Event>) -> Processes {
        Processes { settings, events, tools: None, shared: Arc::default() }
    }

    fn tools(&mut self) -> io::Result<&Tools> {
        if self.tools.is_none() {
            let events = self.events.clone();
            // A receiver that is gone needs no events.
            let opened = move |instance, address, first| {
                let _ = events.send(Event::Listening { instance, address, first: Some(first) });
            };
            let tools = Tools { ready: Arc::new(Ready::new(opened)?), output: Output::start()? };
            self.shared.lock().watchdog = Some(Watchdog::start(self.settings.watchdog.clone())?);
            self.tools = Some(tools);
        }
        self.tools.as_ref().ok_or_else(|| io::Error::other("no tools"))
    }

    fn spawn(&mut self, order: &Order) -> Result<(), String> {
        let around = self.settings.around.clone();
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let cgroups = self.settings.cgroups.clone();
        let tools = self.tools().map_err(|error| format!("the driver cannot work: {error}"))?;
        let port =
            port::free(&shared.lock().ports).map_err(|error| format!("no port can be bound: {error}"))?;
        let command = launch::command(&order.revision, port, &around)?;
        let (stop, stops) = unbounded_channel();
        let cgroup = cgroups.group(order.id, &order.revision);
        let cgroup = cgroup.map_err(|error| format!("no control group for it: {error}"))?.map(Arc::new);
        let spawned = {
            let mut shared = shared.lock();
            let spawned =
                announced(shared.watchdog.as_mut(), &command, cgroup.as_deref()).map_err(|error| {
                    cgroup.as_deref().map(Group::remove);
                    let directory = order.revision.directory.display();
                    format!("{} in {directory}: {error}", command.get_program().display())
                })?;
            shared.ports.insert(port);
            let (group, revision, cgroup) = (spawned.process.0, order.revision.clone(), cgroup.clone());
            shared.live.insert(order.id, Live { group, port, revision, cgroup, stop });
            spawned
        };
        let group = spawned.process.0;
        let tail = Tail::default();
        let mut pumps = tokio::task::JoinSet::new();
        if let Some(pipe) = receiver(spawned.stdout) {
            pumps.spawn(tools.output.pump(pipe, Stream::Out, &order.name, None));
        }
        if let Some(pipe) = receiver(spawned.stderr) {
            pumps.spawn(tools.output.pump(pipe, Stream::Err, &order.name, Some(tail.clone())));
        }
        // A receiver that is gone needs no events, here and below.
        let pid = Some(group.as_raw_nonzero().get().unsigned_abs());
        let _ = events.send(Event::Started { instance: order.id, pid, stderr: tail.clone() });
        tools.ready.watch(order.id, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mind = Mind {
            id: order.id,
            group,
            port,
            child: spawned.process,
            cgroup,
            limit: order.revision.resources.memory,
            shared,
            events,
            ready: tools.ready.clone(),
            pumps,
            tail,
        };
        tokio::spawn(mind.run(stops));
        Ok(())
    }
}

impl Driver for Processes {
    fn start(&mut self, order: Order) {
        if let Err(why) = self.spawn(&order) {
            let exit = Exit { how: How::NotStarted(why), stderr: Vec::new(), port_taken: false };
            let _ = self.events.send(Event::Exited { instance: order.id, exit });
        }
    }

    fn stop(&mut self, instance: InstanceId, grace: Duration) {
        if let Some(live) = self.shared.lock().live.get(&instance) {
            // Its task has just seen the end of it: as good.
            let _ = live.stop.send(grace);
        }
    }

    fn exec(&self, instance: InstanceId) -> Option<Exec> {
        let shared = self.shared.lock();
        let live = shared.live.get(&instance)?;
        let (revision, cgroup) = (live.revision.clone(), live.cgroup.clone());
        Some(exec::beside(revision, live.port, cgroup, self.settings.around.clone(), self.shared.clone()))
    }

    fn freeze(&mut self, instance: InstanceId) {
        if let Some(live) = self.shared.lock().live.get(&instance) {
            freeze::freeze(live.group, live.cgroup.as_deref());
        }
    }

    fn thaw(&mut self, instance: InstanceId) {
        if let Some(live) = self.shared.lock().live.get(&instance) {
            freeze::thaw(live.group, live.cgroup.as_deref());
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for live in self.shared.lock().live.values() {
            kill(live.group, Signal::KILL);
            live.cgroup.iter().for_each(|cgroup| cgroup.end());
        }
    }
}

/// Starts a command, and has the watchdog know its group from before its program runs.
pub(super) fn announced(
    watchdog: Option<&mut Watchdog>,
    command: &Command,
    cgroup: Option<&Group>,
) -> io::Result<Spawned> {
    let watchdog = watchdog.ok_or_else(|| io::Error::other("there is no watchdog"))?;
    for last in [false, true] {
        match spawn::spawn(command, watchdog.listens()?, cgroup) {
            Ok(spawned) => {
                watchdog.began(spawned.process.0);
                return Ok(spawned);
            }
            Err(Refused { error, child }) => {
                if let Some(child) = child {
                    // Until it is waited for its id is nobody else's.
                    watchdog.ended(child.0);
                    child.wait()?;
                }
                if last || error.kind() != io::ErrorKind::BrokenPipe {
                    return Err(error);
                }
                watchdog.again();
            }
        }
    }
    Err(io::ErrorKind::BrokenPipe.into())
}

pub(super) fn receiver(pipe: OwnedFd) -> Option<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(pipe).ok()
}

/// A group that is gone already needs no signal.
fn kill(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// One instance, from spawn to end.
struct Mind {
    id: InstanceId,
    group: Pid,
    port: u16,
    child: Process,
    cgroup: Option<Arc<Group>>,
    /// Of memory, in bytes.
    limit: Option<u64>,
    shared: Arc<Mutex<Shared>>,
    events: UnboundedSender<Event>,
    ready: Arc<Ready>,
    pumps: tokio::task::JoinSet<()>,
    tail: Tail,
}

impl Mind {
    async fn run(self, mut stops: UnboundedReceiver<Duration>) {
        let pidfd = end_of(self.group);
        let mut kill_at: Option<Instant> = None;
        loop {
            let late = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended(&self.child, pidfd.as_ref()) => break,
                Some(grace) = stops.recv() => {
                    if kill_at.is_none() {
                        kill(self.group, Signal::TERM);
                        // One that is frozen would not hear it.
                        freeze::thaw(self.group, self.cgroup.as_deref());
                    }
                    let at = Instant::from_std(clock::now() + grace);
                    kill_at = Some(kill_at.map_or(at, |before| before.min(at)));
                }
                () = late => {
                    kill(self.group, Signal::KILL);
                    // What a signal cannot end at once (a wait for a disk) is signalled again.
                    kill_at = Some(Instant::from_std(clock::now() + AGAIN));
                }
            }
        }
        drop(pidfd);
        self.finish().await;
    }

    async fn finish(mut self) {
        self.ready.forget(self.id);
        // The first process is a zombie until it is waited for, so the number still means this group.
        kill(self.group, Signal::KILL);
        self.cgroup.iter().for_each(|cgroup| cgroup.end());
        {
            let mut shared = self.shared.lock();
            shared.live.remove(&self.id);
            if let Some(watchdog) = &mut shared.watchdog {
                watchdog.ended(self.group);
            }
        }
        let how = match self.child.wait() {
            Ok(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => How::Code(code),
                (None, signal) => How::Signal(signal.unwrap_or(0)),
            },
            Err(error) => How::NotStarted(error.to_string()),
        };
        let short = self.cgroup.as_ref().and_then(|cgroup| cgroup.killed_for_memory());
        let how = match short.filter(|_| how == How::Signal(Signal::KILL.as_raw())) {
            Some(Short::Own) => How::OutOfMemory(self.limit),
            Some(Short::Above) => How::OutOfMemory(None),
            None => how,
        };
        // Whoever else holds the pipes open left the group, and is not waited for; what requests wait for is
        // the word that it has ended.
        let over = tokio::time::timeout(LAST_LINES, drained(&mut self.pumps)).await.is_ok();
        let port_taken = !port::is_free(self.port);
        self.shared.lock().ports.remove(&self.port);
        let exit = Exit { how, stderr: self.tail.lines(), port_taken };
        let left = self.cgroup.take().filter(|cgroup| cgroup.remove() == Removed::NotYet);
        let _ = self.events.send(Event::Exited { instance: self.id, exit });
        if !over {
            // What comes after that is of no instance any more.
            let _ = tokio::time::timeout(ECHO, drained(&mut self.pumps)).await;
        }
        if let Some(cgroup) = left {
            remove(&cgroup).await;
        }
    }
}

/// Removes a group when the last process in it has ended.
async fn remove(cgroup: &Group) {
    for _ in 0..REMOVALS {
        cgroup.end();
        if cgroup.remove() != Removed::NotYet {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::warn!("processes of {cgroup:?} cannot be ended; it is tried again when the proxy ends");
}

async fn drained(pumps: &mut tokio::task::JoinSet<()>) {
    while pumps.join_next().await.is_some() {}
}

/// Something that becomes readable when the process ends; none where the kernel has no such thing.
pub(super) fn end_of(process: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(process, PidfdFlags::NONBLOCK).ok()?;
    // SAFETY: an `OwnedFd` is always the same descriptor, and open until it is dropped.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.ok()
}

/// Waits until the process has ended; it is not yet waited for in the system's sense.
pub(super) async fn ended(child: &Process, pidfd: Option<&AsyncFd<OwnedFd>>) {
    if let Some(pidfd) = pidfd
        && pidfd.readable().await.is_ok()
    {
        return;
    }
    while !child.has_ended() {
        tokio::time::sleep(LOOK).await;
    }
}
