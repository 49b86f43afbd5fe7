//! Ends what the proxy started when the proxy dies by any cause, `kill -9` included.
//!
//! A small process of the same executable. The proxy writes to it which process groups begin and end; when
//! the pipe breaks, because the proxy is gone, it kills every group that is left. It has a session of its
//! own, so that what ends the proxy's terminal or group does not end it first.
//!
//! A process that a function moves to a group of its own (`setsid`) is not followed.

use rustix::process::{Pid, Signal, getpid, kill_process_group};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

/// How often the end of a watchdog is looked for, and how often at most.
const PAUSE: Duration = Duration::from_millis(2);
const PAUSES: u32 = 100;

/// The proxy's side.
#[derive(Debug)]
pub(super) struct Watchdog {
    words: Vec<OsString>,
    child: Child,
    groups: BTreeSet<i32>,
}

impl Watchdog {
    /// Starts the process from the words of its command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(words: Vec<OsString>) -> io::Result<Watchdog> {
        let child = spawn(&words)?;
        Ok(Watchdog { words, child, groups: BTreeSet::new() })
    }

    /// A group began.
    pub fn began(&mut self, group: Pid) {
        let group = group.as_raw_pid();
        self.groups.insert(group);
        self.tell(format!("+{group}\n"));
    }

    /// A group ended.
    pub fn ended(&mut self, group: Pid) {
        let group = group.as_raw_pid();
        self.groups.remove(&group);
        self.tell(format!("-{group}\n"));
    }

    /// Has the child of `command` announce its own group before it runs anything. Were only the proxy to do
    /// so, it could die between the start and the word, and the child would be left. Then either
    /// [`Self::began`] or [`Self::failed`] is called.
    pub fn announced(&mut self, command: &mut Command) -> io::Result<()> {
        // An empty line means nothing, but starts another watchdog if this one has gone.
        self.tell("\n".into());
        let pipe = self.child.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let pipe = pipe.as_fd().try_clone_to_owned()?;
        let announce = move || {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(getpid().as_raw_pid()).as_bytes();
            let mut line = [b'\n'; 16];
            line[0] = b'?';
            line[1..=digits.len()].copy_from_slice(digits);
            rustix::io::write(&pipe, &line[..digits.len() + 2]).map(drop).map_err(io::Error::from)
        };
        // SAFETY: two system calls, which may be made between fork and exec; nothing is allocated.
        unsafe { command.pre_exec(announce) };
        Ok(())
    }

    /// What announced itself last does not run: its id may come to be another's.
    pub fn failed(&mut self) {
        self.tell("x\n".into());
    }

    fn tell(&mut self, line: String) {
        if self.write(line).is_ok() {
            return;
        }
        tracing::warn!("the watchdog process has gone; starting another");
        match spawn(&self.words) {
            Ok(child) => {
                let mut gone = std::mem::replace(&mut self.child, child);
                // It is a zombie, or about to be one.
                let _ = gone.kill();
                let _ = gone.wait();
                let all = self.groups.iter().map(|group| format!("+{group}\n")).collect();
                if let Err(error) = self.write(all) {
                    tracing::error!(%error, "the new watchdog does not listen; functions may outlive this process");
                }
            }
            Err(error) => {
                tracing::error!(%error, "no watchdog can be started; functions may outlive this process");
            }
        }
    }

    fn write(&mut self, text: String) -> io::Result<()> {
        let pipe = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        pipe.write_all(text.as_bytes())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        for _ in 0..PAUSES {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn spawn(words: &[OsString]) -> io::Result<Child> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| io::Error::other("the watchdog has no command"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    // SAFETY: `setsid` is one system call, which may be made between fork and exec.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from)) };
    command.spawn()
}

/// The watchdog process itself: `pilotlight watchdog`. Returns when the proxy is gone and nothing it
/// started is left.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    match runtime.and_then(|runtime| runtime.block_on(guard())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pilotlight watchdog: {error}; it is started by `pilotlight run` and of no use alone");
            ExitCode::from(2)
        }
    }
}

async fn guard() -> io::Result<()> {
    // Caught and forgotten: it must outlive whoever receives these with it.
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
    let _caught = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    let mut pipe = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut groups = Groups::default();
    let mut buffer = Vec::with_capacity(4096);
    while matches!(pipe.read_buf(&mut buffer).await, Ok(1..)) {
        groups.feed(&buffer);
        buffer.clear();
    }
    for group in groups.live.union(&groups.announced).filter_map(|group| Pid::from_raw(*group)) {
        // Gone already: as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}

/// What the proxy said so far.
#[derive(Debug, Default)]
struct Groups {
    live: BTreeSet<i32>,
    /// Said so themselves, and are not yet known to the proxy.
    announced: BTreeSet<i32>,
    line: Vec<u8>,
}

impl Groups {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                // No line of ours is longer; a stranger's does not grow without bound.
                if self.line.len() < 16 {
                    self.line.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let Some((sign, number)) = std::str::from_utf8(&line).ok().and_then(|l| l.split_at_checked(1))
            else {
                continue;
            };
            if sign == "x" {
                self.announced.clear();
                continue;
            }
            // 0 and 1 would mean this group and everything.
            let Some(group) = number.parse().ok().filter(|group: &i32| *group > 1) else { continue };
            match sign {
                "?" => drop(self.announced.insert(group)),
                "+" => {
                    self.announced.remove(&group);
                    self.live.insert(group);
                }
                "-" => drop(self.live.remove(&group)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_whatever_way_the_pipe_cuts_them() {
        let text = b"+10\n+11\n-10\n+1\n+0\n+x\n?\n\n+12\n+13";
        for size in 1..text.len() {
            let mut groups = Groups::default();
            text.chunks(size).for_each(|chunk| groups.feed(chunk));
            assert_eq!(groups.live, BTreeSet::from([11, 12]), "pieces of {size}");
        }
    }

    #[test]
    fn a_group_that_announced_itself_is_ended_unless_it_failed() {
        let check = |text: &str, announced: &[i32], live: &[i32]| {
            let mut groups = Groups::default();
            groups.feed(text.as_bytes());
            assert!(
                groups.announced.iter().eq(announced) && groups.live.iter().eq(live),
                "{text:?} {groups:?}"
            );
        };
        check("?10\n", &[10], &[]);
        check("?10\n+10\n", &[], &[10]);
        check("+9\n?10\nx\n", &[], &[9]);
        check("?10\n+10\n-10\n", &[], &[]);
        check("\n\n", &[], &[]);
    }
}
