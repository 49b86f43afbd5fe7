//! The directories whose changes the system tells of.
//!
//! Where it does not (the limit of inotify instances or watches is reached, or the file system has no
//! events), this says so once and is blind from then on: the caller polls.

use super::tree::Id;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

/// Watches of directories, each without those below it.
pub struct Watches {
    /// `None`: blind.
    notifier: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Id>,
    failed: Arc<AtomicBool>,
    said: bool,
}

impl Watches {
    /// Rings `bell` at each event.
    pub fn new(bell: SyncSender<()>) -> Watches {
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let notifier = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let matters = match event {
                Ok(event) => tells_of_a_change(&event),
                Err(_) => {
                    flag.store(true, Ordering::Release);
                    true
                }
            };
            if matters {
                // A full channel means that a look is already due.
                let _ = bell.try_send(());
            }
        });
        let mut watches = Watches { notifier: None, watched: BTreeMap::new(), failed, said: false };
        match notifier {
            Ok(notifier) => watches.notifier = Some(notifier),
            Err(error) => watches.go_blind(&error.to_string()),
        }
        watches
    }

    /// Whether changes must be looked for without being told.
    pub fn blind(&self) -> bool {
        self.notifier.is_none() || self.failed.load(Ordering::Acquire)
    }

    /// Watches exactly these directories; true when there are new ones among them.
    pub fn follow(&mut self, directories: &[(PathBuf, Id)]) -> bool {
        let Some(notifier) = &mut self.notifier else { return false };
        let wanted: BTreeMap<&PathBuf, Id> = directories.iter().map(|(path, id)| (path, *id)).collect();
        self.watched.retain(|path, id| {
            let stays = wanted.get(path) == Some(id);
            if !stays {
                // It fails when the directory is gone, and its watch with it.
                let _ = notifier.unwatch(path);
            }
            stays
        });
        let mut new = false;
        let mut failure = None;
        for (path, id) in wanted {
            if self.watched.contains_key(path) {
                continue;
            }
            match notifier.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), id);
                    new = true;
                }
                // Gone since it was listed: the next look will tell.
                Err(_) if !path.exists() => new = true,
                Err(error) => failure = Some(error.to_string()),
            }
        }
        if let Some(reason) = failure {
            self.go_blind(&reason);
        }
        new
    }

    fn go_blind(&mut self, reason: &str) {
        self.failed.store(true, Ordering::Release);
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                reason,
                "changes of files are not announced by the system; looking every second instead"
            );
        }
    }
}

/// Reading is an event too, and would make each look cause the next.
fn tells_of_a_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
