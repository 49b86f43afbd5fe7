//! The process among others: its limits, its memory, and the signals it is told by.
//!
//! SIGPIPE needs nothing: Rust's start-up ignores it and restores it in children.

use crate::drain::{Ask, Drain};
use rustix::mm::{Advice, madvise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// More open files than this are never asked for: some programs walk through all that they might have.
const MAX_FILES: u64 = 1 << 20;

static MEMORY: OnceLock<Memory> = OnceLock::new();

/// What the allocator can do beside its work; the program that chose it knows.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Gives freed memory back to the system.
    pub trim: fn(),
    /// From now on this thread's memory comes from a place that is for what is soon given back; returns where it came
    /// from before.
    pub aside: fn() -> u32,
    /// From now on it comes from there again; what is free in the other place goes back to the system.
    pub back: fn(u32),
}

/// Says what the allocator can do. The first one holds.
pub fn on_memory(memory: Memory) {
    let _ = MEMORY.set(memory);
}

/// Gives freed memory back to the system; to be called where much has been freed at once, and never on a
/// worker. Does nothing where the allocator does not need it.
pub fn trim() {
    if let Some(memory) = MEMORY.get() {
        (memory.trim)();
    }
}

/// Does `work` with memory from a place of its own, where most of it is given back soon: what stays would else lie
/// scattered among what goes, and hold its pages. Never on a worker.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    struct Back(Option<(fn(u32), u32)>);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Some((back, place)) = self.0 {
                back(place);
            }
        }
    }
    let _back = Back(MEMORY.get().map(|memory| (memory.back, (memory.aside)())));
    work()
}

/// Lets go of the program's own code: most of what has run by the end of the start never runs again, and counts
/// as resident all the same. What is needed comes back at its next use from the pages of the file, which the
/// system keeps; so to be called once. Does nothing where this process cannot be looked at.
pub fn forget_start() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(|line| code_of(line, &program)) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: this is code, mapped from a file and never written: whenever it is asked for, the same bytes
        // are there again. It may fail, and then all stays as it is.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
}

/// Where a line of /proc/PID/maps says that code of `program` is, and how long it is there.
fn code_of(line: &str, program: &Path) -> Option<(usize, usize)> {
    let mut words = line.splitn(6, ' ').map(str::trim);
    let (from, to) = words.next()?.split_once('-')?;
    let code = words.next()? == "r-xp";
    if !code || Path::new(words.nth(3)?) != program {
        return None;
    }
    let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).ok());
    Some((from?, to?.checked_sub(from?)?))
}

/// Raises the soft limit of open files to the hard one and returns it; each connection takes one.
///
/// # Errors
/// When the system refuses; the limit is as before.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MAX_FILES).min(MAX_FILES);
    match limit.current {
        Some(current) if current < wanted => {
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
            Ok(wanted)
        }
        current => Ok(current.unwrap_or(u64::MAX)),
    }
}

/// The signals this process is told by. From [`Signals::take`] on none of them ends it by itself.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them; one that comes before [`Signals::obey`] is not lost. To be called inside a runtime.
    ///
    /// # Errors
    /// When the signals cannot be had.
    pub fn take() -> io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Turns them into what they ask for, as long as it is awaited: SIGTERM and SIGINT stop (again: hurry),
    /// SIGHUP calls `look_again`.
    pub async fn obey(mut self, drain: &Drain, look_again: impl Fn()) -> Infallible {
        loop {
            tokio::select! {
                _ = self.term.recv() => drain.ask(Ask::Stop),
                _ = self.interrupt.recv() => drain.ask(Ask::Stop),
                _ = self.hangup.recv() => look_again(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_mapped_from_the_program_and_runs() {
        let program = Path::new("/usr/local bin/pilotlight");
        let check = |line: &str, wanted| assert_eq!(code_of(line, program), wanted, "{line}");
        check("1000-3000 r-xp 00001000 fd:00 12      /usr/local bin/pilotlight", Some((0x1000, 0x2000)));
        check("1000-3000 r--p 00001000 fd:00 12      /usr/local bin/pilotlight", None);
        check("1000-3000 rwxp 00001000 fd:00 12      /usr/local bin/pilotlight", None);
        check("1000-3000 r-xp 00001000 fd:00 12      /usr/lib/libc.so.6", None);
        check("1000-3000 r-xp 00000000 00:00 0 ", None);
        check("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]", None);
        check("", None);
    }

    /// KiB of this program's own code that are mapped.
    fn code_in_memory() -> u64 {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let (mut ours, mut sum) = (false, 0);
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            // A mapping begins with its addresses, what follows are names with a colon.
            match line.split_once(' ') {
                Some((name, rest)) if name == "Rss:" && ours => {
                    sum += rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                }
                Some((name, _)) if !name.ends_with(':') => ours = code_of(line, &program).is_some(),
                _ => {}
            }
        }
        sum
    }

    #[test]
    fn code_of_the_start_is_let_go_and_comes_back_where_it_is_needed() {
        let before = code_in_memory();
        forget_start();
        let after = code_in_memory();
        assert!(before > 0 && after > 0 && after < before, "{before} KiB before, {after} after");
    }

    #[test]
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        let raised = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current.unwrap_or(u64::MAX), raised);
        assert!(raised >= limit.maximum.unwrap_or(0).min(MAX_FILES));
    }
}
