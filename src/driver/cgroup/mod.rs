//! Control groups of version 2: limits of instances, and a hold on everything they start.
//!
//! Made ready once, by the first configuration that has a use for it, and never for others: a proxy that limits
//! nothing leaves no trace. Below the root (the group this process is in, or the one it was told of) stands one
//! group for this proxy, and in it one for each instance. Where the kernel wants a group without processes of its
//! own before it hands on a controller, this process moves into a leaf of that. It never touches a group that it
//! did not make, but for processes of its own and for what a proxy that was killed has left.

mod group;
#[cfg(test)]
mod tests;

pub(super) use group::{Group, Removed, Short};

use super::InstanceId;
use crate::clock::Duration;
use proxy_config::load::{Reason, Unmet};
use proxy_config::model::{Idle, Revision};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where version 2 is mounted, alone or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What a group of version 2 has, and what else has not.
const MARK: &str = "cgroup.controllers";
const SUBTREE: &str = "cgroup.subtree_control";
const MEMBERS: &str = "cgroup.procs";
/// Groups of proxies; a number follows.
const PREFIX: &str = "pilotlight.";
/// The leaf a proxy moves into.
const LEAF: &str = "proxy";
const HELP: &str = "give the proxy a control group (version 2) of its own, for instance by `systemd-run --user --scope \
                    -p Delegate=yes pilotlight run …`, or name one that it may write with --cgroup";
/// Between tries to remove a group whose processes are about to end, and how many there are.
const PAUSE: Duration = Duration::from_millis(2);
const TRIES: u32 = 50;
/// How far up the parents of a process are followed.
const GENERATIONS: u32 = 16;
/// Names that are tried for this proxy's group.
const NAMES: u32 = 8;

/// The control groups of this proxy's instances.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// The root; none: the group of this process.
    root: Option<PathBuf>,
    ready: OnceLock<Ready>,
}

#[derive(Debug)]
struct Ready {
    base: Option<Base>,
    unmet: Unmet,
}

/// This proxy's group.
#[derive(Debug)]
struct Base {
    path: PathBuf,
    controllers: Controllers,
    /// Locked while the proxy lives, so that others know.
    _lock: OwnedFd,
}

/// What the kernel enforces in the groups of instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Controllers {
    pub memory: bool,
    pub cpu: bool,
    pub pids: bool,
}

impl Controllers {
    fn listed(text: &str) -> Controllers {
        let has = |name: &str| text.split_whitespace().any(|word| word == name);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.memory, "memory"), (self.cpu, "cpu"), (self.pids, "pids")];
        all.into_iter().filter_map(|(is, name)| is.then_some(name))
    }
}

/// Whether instances of `revision` are better off in a group of their own.
pub fn wanted(revision: &Revision) -> bool {
    !revision.resources.is_empty() || matches!(revision.idle, Idle::Freeze { .. })
}

impl Cgroups {
    /// Those below `root`, or below the group of this process. Nothing is done yet.
    pub fn new(root: Option<PathBuf>) -> Cgroups {
        Cgroups { root, ready: OnceLock::new() }
    }

    /// Whether [`Self::prepare`] was called.
    pub fn is_prepared(&self) -> bool {
        self.ready.get().is_some()
    }

    /// What cannot be enforced; nothing is known to be so before [`Self::prepare`].
    pub fn unmet(&self) -> Unmet {
        self.ready.get().map(|ready| ready.unmet.clone()).unwrap_or_default()
    }

    /// Finds out what can be enforced, and makes this proxy's group. Once; takes some tens of milliseconds where
    /// this process has to move.
    pub fn prepare(&self) -> Unmet {
        self.ready.get_or_init(|| Ready::find(self.root.as_deref())).unmet.clone()
    }

    /// A group for an instance, with the limits of its revision; none where it has no use for one.
    pub(super) fn group(&self, id: InstanceId, revision: &Revision) -> io::Result<Option<Group>> {
        let Some(base) = self.ready.get().and_then(|ready| ready.base.as_ref()) else { return Ok(None) };
        let settings = group::settings(&revision.resources, base.controllers);
        if settings.is_empty() && !matches!(revision.idle, Idle::Freeze { .. }) {
            return Ok(None);
        }
        Group::make(base.path.join(id.to_string()), &settings).map(Some)
    }

    /// Ends what is left in the groups of instances, and removes them with this proxy's own, unless it is in that.
    pub fn remove(&self) {
        if let Some(base) = self.ready.get().and_then(|ready| ready.base.as_ref()) {
            clear(&base.path, Some(LEAF));
        }
    }
}

impl Ready {
    fn find(root: Option<&Path>) -> Ready {
        let none = |why: String| {
            let reason = Some(Reason { why, help: HELP.to_owned() });
            Ready { base: None, unmet: Unmet { memory: reason.clone(), cpu: reason } }
        };
        let Some(root) = root.map(Path::to_owned).or_else(own) else {
            return none("there are no control groups of version 2".to_owned());
        };
        let Ok(listed) = fs::read_to_string(root.join(MARK)) else {
            return none(format!("{} is no control group of version 2", root.display()));
        };
        remove_left(&root);
        let (path, lock) = match base(&root) {
            Ok(made) => made,
            Err(error) => {
                return none(format!("no control group can be made in {}: {error}", root.display()));
            }
        };
        let present = Controllers::listed(&listed);
        let outcome = hand_on(&root, &path, &present.names().collect::<Vec<_>>());
        let reason = |is: bool, name: &str| {
            let why = match &outcome {
                _ if !is => format!(
                    "{} has no `{name}` controller (its {MARK}: {})",
                    root.display(),
                    listed.split_whitespace().collect::<Vec<_>>().join(" ")
                ),
                Err(why) => why.clone(),
                Ok(()) => return None,
            };
            Some(Reason { why, help: HELP.to_owned() })
        };
        let unmet = Unmet { memory: reason(present.memory, "memory"), cpu: reason(present.cpu, "cpu") };
        let controllers = if outcome.is_ok() { present } else { Controllers::default() };
        let names = controllers.names().collect::<Vec<_>>();
        match names[..] {
            [] => tracing::info!(
                "limits of functions are not enforced, as those that have some warn; functions that are frozen get \
                 control groups in {}",
                path.display()
            ),
            _ => tracing::info!(
                controllers = names.join(" "),
                "functions with limits, or that are frozen, get control groups in {}",
                path.display()
            ),
        }
        Ready { base: Some(Base { path, controllers, _lock: lock }), unmet }
    }
}

/// The group of this process.
fn own() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = |mount: &str| Path::new(mount).join(path.trim_start_matches('/'));
    MOUNTS.map(below).into_iter().find(|group| group.join(MARK).is_file())
}

/// Makes a group for this proxy, and locks it.
fn base(root: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    for number in 0..NAMES {
        let more = if number == 0 { String::new() } else { format!(".{number}") };
        let path = root.join(format!("{PREFIX}{}{more}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // Another proxy that starts may have taken it for one that was left, and removed it.
        if let Some(lock) = locked(&path)
            && path.is_dir()
        {
            return Ok((path, lock));
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The lock of a proxy's group; none while that proxy lives.
fn locked(path: &Path) -> Option<OwnedFd> {
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(directory)
}

/// Has the kernel enforce `controllers` in the groups of instances.
///
/// # Errors
/// Why that is not to be had, in one clause. Nothing has moved then.
fn hand_on(root: &Path, base: &Path, controllers: &[&str]) -> Result<(), String> {
    let enabled = fs::read_to_string(root.join(SUBTREE)).unwrap_or_default();
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let missing: Vec<_> = controllers.iter().copied().filter(|name| !enabled.contains(name)).collect();
    let mut moved = Vec::new();
    let mut outcome = enable(root, &missing);
    if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
        outcome = move_in(root, base, &mut moved).and_then(|()| enable(root, &missing));
    }
    let Err(error) = outcome.and_then(|()| enable(base, controllers)) else { return Ok(()) };
    for process in &moved {
        // Where it was before; one that has ended needs nothing.
        let _ = fs::write(root.join(MEMBERS), process);
    }
    let _ = fs::remove_dir(base.join(LEAF));
    Err(match error.kind() {
        ErrorKind::ResourceBusy => {
            format!(
                "processes of others are in {}, too, so that its controllers cannot be handed on",
                root.display()
            )
        }
        _ => format!("controllers of {} cannot be handed on: {error}", root.display()),
    })
}

fn enable(group: &Path, controllers: &[&str]) -> io::Result<()> {
    if controllers.is_empty() {
        return Ok(());
    }
    let text: Vec<_> = controllers.iter().map(|name| format!("+{name}")).collect();
    fs::write(group.join(SUBTREE), text.join(" "))
}

/// Moves this process, and those it has started, out of the root.
fn move_in(root: &Path, base: &Path, moved: &mut Vec<String>) -> io::Result<()> {
    let leaf = base.join(LEAF);
    fs::create_dir(&leaf)?;
    let members = fs::read_to_string(root.join(MEMBERS))?;
    for process in members.lines().filter(|process| is_ours(process)) {
        match fs::write(leaf.join(MEMBERS), process) {
            Ok(()) => moved.push(process.to_owned()),
            // It has ended.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a process is this one, or one that it started.
fn is_ours(process: &str) -> bool {
    let own = std::process::id().to_string();
    let mut process = process.to_owned();
    for _ in 0..GENERATIONS {
        if process == own {
            return true;
        }
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name, in parentheses, may contain anything.
        let Some(parent) = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) else {
            break;
        };
        process = parent.to_owned();
    }
    false
}

/// Removes the groups of proxies that are gone, with what is still in them.
fn remove_left(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if !is_proxys(&entry.file_name().to_string_lossy()) || !entry.path().is_dir() {
            continue;
        }
        if let Some(_lock) = locked(&entry.path()) {
            let path = entry.path();
            let removed = clear(&path, None);
            tracing::info!(removed, "{} was left by a proxy that was killed", path.display());
        }
    }
}

/// Whether a group is called as proxies call theirs; not `pilotlight.service`, which is systemd's.
fn is_proxys(name: &str) -> bool {
    let number = name.strip_prefix(PREFIX).unwrap_or_default();
    number.starts_with(|first: char| first.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Ends and removes the groups in a proxy's group but `spared`, and that itself where nothing is left.
fn clear(base: &Path, spared: Option<&str>) -> bool {
    let inside = || fs::read_dir(base).into_iter().flatten().flatten();
    let groups: Vec<PathBuf> = inside()
        .filter(|entry| spared.is_none_or(|name| entry.file_name() != name))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    let mut left: Vec<&Path> = groups.iter().map(PathBuf::as_path).collect();
    for _ in 0..TRIES {
        left.retain(|path| group::remove(path) == Removed::NotYet);
        if left.is_empty() {
            break;
        }
        left.iter().for_each(|path| group::end(path));
        std::thread::sleep(PAUSE);
    }
    // Not where this process is in it.
    fs::remove_dir(base).is_ok()
}
