//! Ends what the proxy started when the proxy dies by any cause, `kill -9` included.
//!
//! A small process of the same executable. The proxy writes to it which process groups begin and end; when
//! the pipe breaks, because the proxy is gone, it kills every group that is left. It has a session of its
//! own, so that what ends the proxy's terminal or group does not end it first.
//!
//! A process that a function moves to a group of its own (`setsid`) is not followed.

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
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

    /// Where a child says `+` and its id before it runs anything: were only the proxy to do so, it could die
    /// between the start and the word, and the child would be left. [`Self::began`] follows, or where nothing
    /// came of it [`Self::ended`].
    ///
    /// # Errors
    /// There is no such place.
    pub fn listens(&self) -> io::Result<BorrowedFd<'_>> {
        self.child.stdin.as_ref().map(AsFd::as_fd).ok_or(io::ErrorKind::BrokenPipe.into())
    }

    /// Nobody listens any more: another process takes its place.
    pub fn again(&mut self) {
        // An empty line means nothing, and finds out.
        self.tell("\n".into());
    }

    /// A group began, and has said so.
    pub fn began(&mut self, group: Pid) {
        self.groups.insert(group.as_raw_pid());
    }

    /// A group ended.
    pub fn ended(&mut self, group: Pid) {
        let group = group.as_raw_pid();
        self.groups.remove(&group);
        self.tell(format!("-{group}\n"));
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
    for group in groups.live.iter().filter_map(|group| Pid::from_raw(*group)) {
        // Gone already: as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(())
}

/// What the proxy said so far.
#[derive(Debug, Default)]
struct Groups {
    live: BTreeSet<i32>,
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
            // 0 and 1 would mean this group and everything.
            let Some(group) = number.parse().ok().filter(|group: &i32| *group > 1) else { continue };
            match sign {
                "+" => drop(self.live.insert(group)),
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
}
