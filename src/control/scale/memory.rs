//! Memory in use by instances: of all processes of each one's group, not only of the first.
//!
//! One look at all processes of the system answers for every instance, and is taken seldom. Pages that
//! processes share count in each of them.

use crate::clock::{Duration, Instant};
use std::collections::HashMap;

/// A look is good for so long.
const FRESH: Duration = Duration::from_secs(1);

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Memory {
    looked: Option<Instant>,
    /// Bytes by process group.
    groups: HashMap<u32, u64>,
}

impl Memory {
    /// Bytes in use by the group that `leader` leads, or by `leader` alone where it leads none; none: it has
    /// ended, or is not of this host.
    pub fn of(&mut self, now: Instant, leader: u32) -> Option<u64> {
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= FRESH) {
            self.looked = Some(now);
            self.look();
        }
        self.groups.get(&leader).copied().or_else(|| process(leader).map(|(_, bytes)| bytes))
    }

    fn look(&mut self) {
        self.groups.clear();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            // One that has ended since is not counted.
            if let Some((group, bytes)) = process(pid) {
                *self.groups.entry(group).or_default() += bytes;
            }
        }
    }
}

/// The group of a process, and the bytes it has in memory.
fn process(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let pages: u64 = fields.nth(18)?.parse().ok()?;
    Some((group, pages * rustix::param::page_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn memory_of_a_process_is_found_and_that_of_nobody_is_not() {
        let mut memory = Memory::default();
        assert!(memory.of(clock::now(), std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(memory.of(clock::now(), u32::MAX), None);
    }

    #[test]
    fn the_children_of_the_first_process_count_too() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 100 & sleep 100 & echo; wait"]).process_group(0);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        // They are there, but what runs in them may not be in memory yet.
        let until = clock::now() + Duration::from_secs(60);
        let (alone, together) = loop {
            let alone = process(child.id()).unwrap().1;
            let together = Memory::default().of(clock::now(), child.id()).unwrap();
            if together > alone || clock::now() > until {
                break (alone, together);
            }
            std::thread::yield_now();
        };
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(together > alone, "{together} of the group, {alone} of the shell");
    }
}
