//! Watches the directories that hold certificates. It reads none: whoever holds them does, and says what is
//! different.

use super::watches::Watches;
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

/// The watching thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Certificates {
    bell: SyncSender<()>,
    stop: Arc<AtomicBool>,
}

impl Certificates {
    /// Calls `look` at start, after each change in one of `directories` (asked for again each time), and
    /// every few seconds.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn spawn<D, L>(directories: D, mut look: L) -> io::Result<Certificates>
    where
        D: Fn() -> Vec<PathBuf> + Send + 'static,
        L: FnMut() + Send + 'static,
    {
        let (bell, rung) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, mut watches) = (stop.clone(), Watches::new(bell.clone()));
        let run = move || {
            while !ended.load(Ordering::Acquire) {
                let there = |path: PathBuf| {
                    let found = std::fs::metadata(&path).ok()?;
                    Some((path, (found.dev(), found.ino())))
                };
                let listed: Vec<_> = directories().into_iter().filter_map(there).collect();
                watches.follow(&listed);
                look();
                match rung.recv_timeout(if watches.blind() { POLL_BLIND } else { POLL }) {
                    Ok(()) => std::thread::sleep(GAP),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("certificates".to_owned()).spawn(run)?;
        Ok(Certificates { bell, stop })
    }

    /// Looks at everything now.
    pub fn look_again(&self) {
        // A full channel means that a look is already due.
        let _ = self.bell.try_send(());
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.look_again();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_change_in_a_directory_is_looked_at_soon() {
        let folder = Folder::new();
        let (told, looks) = channel();
        let home = folder.path(".");
        let look = move || told.send(()).unwrap_or_default();
        let _watching = Certificates::spawn(move || vec![home.clone()], look).unwrap();
        let within = Duration::from_secs(10);
        looks.recv_timeout(within).unwrap();
        folder.write("tls.crt", "new");
        looks.recv_timeout(within).unwrap();
    }
}
