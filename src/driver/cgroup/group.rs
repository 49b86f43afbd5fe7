//! The control group of one instance: its limits, its processes, and what became of them.

use super::{Controllers, MEMBERS};
use proxy_config::model::Resources;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Of which `cpu.max` says how much, in microseconds: Kubernetes' and the kernel's own.
const PERIOD: u64 = 100_000;
/// The kernel takes no less of it.
const LEAST: u64 = 1_000;
/// Processes and threads of one instance, at most.
const PROCESSES: u32 = 4096;

/// A group that exists as long as this does, and until it can be removed.
#[derive(Debug)]
pub(in crate::driver) struct Group {
    path: PathBuf,
    directory: OwnedFd,
}

/// Whose limit it was that the kernel killed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Short {
    /// The group's own.
    Own,
    /// Of a group above, or of the host.
    Above,
}

/// What became of an attempt to remove a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Removed {
    /// It is gone.
    Gone,
    /// Something in it has not ended yet.
    NotYet,
    /// It will not be.
    Never,
}

/// The files to be written for `resources`, of those that `controllers` have.
pub(super) fn settings(resources: &Resources, controllers: Controllers) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    if let Some(bytes) = resources.memory.filter(|_| controllers.memory) {
        all.push(("memory.max", bytes.to_string()));
        // A limit that is met by swapping is no limit, and half an instance is none.
        all.push(("memory.swap.max", "0".to_owned()));
        all.push(("memory.oom.group", "1".to_owned()));
    }
    if controllers.cpu {
        let share = |millis: u64| (millis.saturating_mul(PERIOD) / 1000).max(LEAST);
        all.extend(resources.cpu.map(|millis| ("cpu.max", format!("{} {PERIOD}", share(millis)))));
        all.extend(resources.cpu_request.map(|millis| ("cpu.weight", weight(millis).to_string())));
    }
    if controllers.pids && !all.is_empty() {
        all.push(("pids.max", PROCESSES.to_string()));
    }
    all
}

/// Kubernetes' way from a request to a weight (KEP-2254): 2 to 262144 shares become 1 to 10000.
fn weight(millis: u64) -> u64 {
    let shares = (millis.saturating_mul(1024) / 1000).clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

impl Group {
    /// Makes it and writes its settings.
    pub fn make(path: PathBuf, settings: &[(&'static str, String)]) -> io::Result<Group> {
        fs::create_dir(&path)?;
        let opened = open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let group = Group { directory: opened?, path };
        for (file, text) in settings {
            match fs::write(group.path.join(file), text) {
                // A kernel that accounts for no swap has no limit of it.
                Err(_) if *file == "memory.swap.max" => {}
                Err(error) => {
                    let why = format!("{file} of {}: {error}", group.path.display());
                    remove(&group.path);
                    return Err(io::Error::new(error.kind(), why));
                }
                Ok(()) => {}
            }
        }
        Ok(group)
    }

    /// What a process can be cloned into.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Where a process writes `0` to move here.
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        Ok(open(self.path.join(MEMBERS), flags, Mode::from(0o600))?)
    }

    /// Takes the processor from all that is in it; whether that can be done.
    pub fn freeze(&self) -> bool {
        fs::write(self.path.join("cgroup.freeze"), "1").is_ok()
    }

    /// Gives it back; makes no difference to what runs.
    pub fn thaw(&self) {
        if let Err(error) = fs::write(self.path.join("cgroup.freeze"), "0") {
            tracing::error!(%error, "{} cannot be thawed", self.path.display());
        }
    }

    /// Ends all that is in it.
    pub fn end(&self) {
        end(&self.path);
    }

    /// Whether the kernel killed something in it for want of memory, and by whose limit.
    pub fn killed_for_memory(&self) -> Option<Short> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let count = |name: &str| {
            let found = events.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        (count("oom_kill") > 0).then(|| if count("oom") > 0 { Short::Own } else { Short::Above })
    }

    /// Removes it, where nothing is left in it.
    pub fn remove(&self) -> Removed {
        remove(&self.path)
    }
}

/// Ends all that is in the group at `path`.
pub(super) fn end(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // A kernel before 5.14. What a process starts meanwhile is met at the next try to remove the group.
    let members = fs::read_to_string(path.join(MEMBERS)).unwrap_or_default();
    for process in members.lines().filter_map(|line| Pid::from_raw(line.parse().ok().filter(|id| *id > 1)?)) {
        // Gone already: as good.
        let _ = kill_process(process, Signal::KILL);
    }
}

/// Removes the group at `path`.
pub(super) fn remove(path: &Path) -> Removed {
    match fs::remove_dir(path) {
        Ok(()) => Removed::Gone,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Removed::Gone,
            ErrorKind::ResourceBusy => {
                // A function may have made groups of its own.
                let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
                inside.filter(|path| path.is_dir()).for_each(|path| {
                    let _ = remove(&path);
                });
                Removed::NotYet
            }
            _ => Removed::Never,
        },
    }
}
