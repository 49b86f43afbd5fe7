//! The process among others: its limits, its memory, and the signals it is told by.
//!
//! SIGPIPE needs nothing: Rust's start-up ignores it and restores it in children.

use crate::drain::{Ask, Drain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::io;
use std::sync::OnceLock;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// More open files than this are never asked for: some programs walk through all that they might have.
const MAX_FILES: u64 = 1 << 20;

static TRIM: OnceLock<fn()> = OnceLock::new();

/// How memory is given back; the program that chose the allocator knows. The first one holds.
pub fn on_trim(trim: fn()) {
    let _ = TRIM.set(trim);
}

/// Gives freed memory back to the system; to be called where much has been freed at once, and never on a
/// worker. Does nothing where the allocator does not need it.
pub fn trim() {
    if let Some(trim) = TRIM.get() {
        trim();
    }
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
    fn the_soft_limit_of_open_files_reaches_the_hard_one() {
        let raised = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current.unwrap_or(u64::MAX), raised);
        assert!(raised >= limit.maximum.unwrap_or(0).min(MAX_FILES));
    }
}
