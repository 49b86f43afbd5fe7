//! Watches the directories that hold certificates. It reads none: whoever holds them does, and says what is
//! different.

use super::watches::Watches;
use parking_lot::Mutex;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Without any event, everything is looked at again this often.
const POLL: Duration = Duration::from_secs(15);
/// The same where events cannot be had.
const POLL_BLIND: Duration = Duration::from_secs(1);
/// For the rest of a change to come, after its first event.
const GAP: Duration = Duration::from_millis(30);

/// Who holds the certificates.
pub trait Holder: Send + Sync + 'static {
    /// Whether there are any, in files or elsewhere: they may change, and they end.
    fn any(&self) -> bool;
    /// The directories whose files matter.
    fn directories(&self) -> Vec<PathBuf>;
    /// Looks at all of them.
    fn look(&self);
}

/// The watching thread: there from the first certificate on, until this is dropped.
#[derive(Debug)]
pub struct Certificates<H: Holder> {
    holder: Arc<H>,
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    bell: SyncSender<()>,
    stop: Arc<AtomicBool>,
}

impl<H: Holder> Certificates<H> {
    /// Looks at nothing until it is first asked to.
    pub fn new(holder: Arc<H>) -> Certificates<H> {
        Certificates { holder, thread: Mutex::default() }
    }

    /// Looks at everything now. From then on also after each change in one of the directories (asked for again
    /// each time), and every few seconds.
    pub fn look_again(&self) {
        let mut thread = self.thread.lock();
        if let Some(thread) = &*thread {
            thread.ring();
        } else if self.holder.any() {
            match Thread::spawn(self.holder.clone()) {
                Ok(started) => *thread = Some(started),
                Err(error) => tracing::error!(
                    "no thread to watch certificates: {error}; a renewed one is not noticed until the \
                     configuration is loaded again"
                ),
            }
        }
    }
}

impl Thread {
    fn spawn<H: Holder>(holder: Arc<H>) -> io::Result<Thread> {
        let (bell, rung) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, mut watches) = (stop.clone(), Watches::new(bell.clone()));
        let run = move || {
            while !ended.load(Ordering::Acquire) {
                let there = |path: PathBuf| {
                    let found = std::fs::metadata(&path).ok()?;
                    Some((path, (found.dev(), found.ino())))
                };
                let listed: Vec<_> = holder.directories().into_iter().filter_map(there).collect();
                watches.follow(&listed);
                holder.look();
                match rung.recv_timeout(if watches.blind() { POLL_BLIND } else { POLL }) {
                    Ok(()) => std::thread::sleep(GAP),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("certificates".to_owned()).spawn(run)?;
        Ok(Thread { bell, stop })
    }

    fn ring(&self) {
        // A full channel means that a look is already due.
        let _ = self.bell.try_send(());
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Held {
        any: AtomicBool,
        home: PathBuf,
        told: Sender<()>,
    }

    impl Holder for Held {
        fn any(&self) -> bool {
            self.any.load(Ordering::Relaxed)
        }

        fn directories(&self) -> Vec<PathBuf> {
            vec![self.home.clone()]
        }

        fn look(&self) {
            self.told.send(()).unwrap_or_default();
        }
    }

    #[test]
    fn a_change_in_a_directory_is_looked_at_soon_once_there_is_something_to_look_at() {
        let folder = Folder::new();
        let (told, looks) = channel();
        let held = Arc::new(Held { any: AtomicBool::new(false), home: folder.path("."), told });
        let watching = Certificates::new(held.clone());
        watching.look_again();
        assert!(watching.thread.lock().is_none());
        held.any.store(true, Ordering::Relaxed);
        watching.look_again();
        let within = Duration::from_secs(10);
        looks.recv_timeout(within).unwrap();
        folder.write("tls.crt", "new");
        looks.recv_timeout(within).unwrap();
    }
}
