//! Watches the files that hold the configuration and tells when their texts have changed.
//!
//! Start-up is the first change: there is one path. Any event below a watched directory makes everything be
//! looked at again, and texts are compared, because that is what survives the ways in which editors,
//! deployments and Kubernetes replace files; a slow poll catches what no event told. It runs on a thread of
//! its own, so that a large configuration delays no wake-up of a function. It never parses.

pub mod certificates;
pub mod changes;
mod shelf;
mod tree;
mod watches;

use crate::clock::{self, Duration, Instant};
use proxy_config::load::File;
use shelf::Shelf;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use watches::Watches;

/// Without any event, everything is looked at again this often.
const POLL: Duration = Duration::from_secs(30);
/// The same where events cannot be had, or something cannot be read.
const POLL_BLIND: Duration = Duration::from_secs(1);
/// Between two looks, however many events there are.
const GAP: Duration = Duration::from_millis(20);
/// A change is told after this long even if further files are still changing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Of threads that may parse text of any shape; only what is used of this is ever resident.
pub const STACK: usize = 8 << 20;

/// Where the configuration is.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// `--mesh-config`. If it is below `paths` too, it is not read a second time.
    pub mesh_file: Option<PathBuf>,
}

/// All texts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// In the order of the paths given, then of names.
    pub files: Vec<File>,
    /// `--mesh-config`.
    pub mesh_file: Option<File>,
}

impl Paths {
    /// Reads everything once, as it is now.
    pub fn read(&self) -> Texts {
        let listing = tree::list(&self.roots());
        let read = |file: tree::Listed| (file.root, File { text: shelf::read(&file.path), path: file.path });
        let failed = |(root, path, reason)| (root, File { path, text: Err(reason) });
        let files = listing.files.into_iter().map(read);
        let mut files: Vec<_> = files.chain(listing.unreadable.into_iter().map(failed)).collect();
        files.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
        self.split(files)
    }

    /// The first path that is not there, with the reason: a mistake on the command line.
    pub fn missing(&self) -> Option<(&Path, io::Error)> {
        let mut all = self.mesh_file.iter().chain(&self.paths);
        all.find_map(|path| std::fs::metadata(path).err().map(|error| (path.as_path(), error)))
    }

    /// The mesh file, where there is one, comes first.
    fn roots(&self) -> Vec<PathBuf> {
        self.mesh_file.iter().chain(&self.paths).cloned().collect()
    }

    fn split(&self, files: Vec<(usize, File)>) -> Texts {
        let mut texts = Texts::default();
        for (root, file) in files {
            if root == 0 && self.mesh_file.is_some() {
                texts.mesh_file = Some(file);
            } else {
                texts.files.push(file);
            }
        }
        texts
    }
}

/// The watching thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Watcher {
    bell: SyncSender<()>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    /// Watches `paths` and calls `on_change` with all texts: first when they have settled after start (with
    /// none, if there are none), then whenever a text has changed, files have come or gone.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn spawn<F>(paths: Paths, on_change: F) -> io::Result<Watcher>
    where
        F: FnMut(Texts) + Send + 'static,
    {
        let (bell, rung) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let watches = Watches::new(bell.clone());
        let watching = Watching {
            roots: paths.roots(),
            paths,
            shelf: Shelf::default(),
            watches,
            on_change,
            rung,
            stop: Arc::clone(&stop),
            told: false,
            changed_at: None,
        };
        let thread = std::thread::Builder::new().name("files".to_owned()).stack_size(STACK);
        thread.spawn(move || watching.run())?;
        Ok(Watcher { bell, stop })
    }

    /// Looks at everything now (SIGHUP); tells only if something changed.
    pub fn look_again(&self) {
        // A full channel means that a look is already due.
        let _ = self.bell.try_send(());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.look_again();
    }
}

/// What the thread holds.
struct Watching<F> {
    paths: Paths,
    roots: Vec<PathBuf>,
    shelf: Shelf,
    watches: Watches,
    on_change: F,
    rung: Receiver<()>,
    stop: Arc<AtomicBool>,
    /// Whether the first change has been told.
    told: bool,
    /// Since when a change waits to be told.
    changed_at: Option<Instant>,
}

impl<F: FnMut(Texts)> Watching<F> {
    fn run(mut self) {
        while !self.stop.load(Ordering::Acquire) {
            let now = clock::now();
            let wait = self.look(now).saturating_duration_since(clock::now());
            match self.rung.recv_timeout(wait) {
                Ok(()) => std::thread::sleep(GAP.saturating_sub(clock::now() - now)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks once and tells what is due; returns when to look again at the latest.
    fn look(&mut self, now: Instant) -> Instant {
        let mut listing = tree::list(&self.roots);
        // What appeared between the listing of a directory and its first watch gave no event.
        for _ in 0..3 {
            if !self.watches.follow(&listing.directories) {
                break;
            }
            listing = tree::list(&self.roots);
        }
        let look = self.shelf.look(&listing, now, clock::wall());
        if look.changed || !self.told {
            self.changed_at.get_or_insert(now);
        }
        if let Some(since) = self.changed_at
            && (look.again_at.is_none() || now >= since + PATIENCE)
        {
            self.tell();
        }
        let blind = self.watches.blind() || !listing.unreadable.is_empty();
        let poll = now + if blind { POLL_BLIND } else { POLL };
        look.again_at.map_or(poll, |at| at.min(poll))
    }

    fn tell(&mut self) {
        for path in self.shelf.unsettled() {
            tracing::warn!(file = %path.display(), "not read yet: it is still being written");
        }
        self.changed_at = None;
        self.told = true;
        let texts = self.paths.split(self.shelf.files());
        let on_change = &mut self.on_change;
        // Text from outside must not be able to end the reloads of a process that serves.
        if catch_unwind(AssertUnwindSafe(|| on_change(texts))).is_err() {
            tracing::error!("reload failed by a defect of this program; the configuration before it stays");
        }
        super::process::trim();
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A folder of its own for each test.

    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Removed when dropped.
    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("pilotlight-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        pub fn path(&self, name: &str) -> PathBuf {
            if name == "." { self.0.clone() } else { self.0.join(name) }
        }

        pub fn name(&self, path: &Path) -> String {
            path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned()
        }

        pub fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Folder;
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{Receiver, channel};

    /// Watches a folder; every change arrives as `name=text` words.
    struct Watched {
        folder: Folder,
        changes: Receiver<String>,
        _watcher: Watcher,
    }

    impl Watched {
        fn over(folder: Folder) -> Watched {
            let (told, changes) = channel();
            let root = folder.path(".");
            let paths = Paths { paths: vec![root.clone()], mesh_file: None };
            let watcher = Watcher::spawn(paths, move |texts| {
                let word = |file: &File| {
                    let name = file.path.strip_prefix(&root).unwrap().display().to_string();
                    format!("{name}={}", file.text.as_deref().unwrap_or("!"))
                };
                let words: Vec<String> = texts.files.iter().map(word).collect();
                let _ = told.send(words.join(" "));
            })
            .unwrap();
            Watched { folder, changes, _watcher: watcher }
        }

        /// Waits until the files are as wanted; intermediate states are allowed.
        fn until(&self, wanted: &str) {
            let deadline = clock::now() + Duration::from_secs(10);
            loop {
                let left = deadline.saturating_duration_since(clock::now());
                let got = self.changes.recv_timeout(left).unwrap_or_else(|_| panic!("never {wanted:?}"));
                if got == wanted {
                    return;
                }
            }
        }
    }

    #[test]
    fn start_up_is_the_first_change_even_without_files() {
        Watched::over(Folder::new()).until("");
    }

    #[test]
    fn files_that_come_change_and_go_are_told() {
        let folder = Folder::new();
        folder.write("a.yaml", "1");
        let watched = Watched::over(folder);
        watched.until("a.yaml=1");
        watched.folder.write("a.yaml", "2");
        watched.until("a.yaml=2");
        watched.folder.write("new/b.yaml", "3");
        watched.until("a.yaml=2 new/b.yaml=3");
        watched.folder.write("new/b.yaml", "4");
        watched.until("a.yaml=2 new/b.yaml=4");
        std::fs::remove_file(watched.folder.path("a.yaml")).unwrap();
        watched.until("new/b.yaml=4");
    }

    #[test]
    fn a_configmap_swap_is_one_change() {
        let folder = Folder::new();
        for (version, text) in [("..1", "1"), ("..2", "2")] {
            folder.write(&format!("{version}/a.yaml"), text);
            folder.write(&format!("{version}/b.yaml"), text);
        }
        symlink("..1", folder.path("..data")).unwrap();
        for name in ["a.yaml", "b.yaml"] {
            symlink(format!("..data/{name}"), folder.path(name)).unwrap();
        }
        let watched = Watched::over(folder);
        watched.until("a.yaml=1 b.yaml=1");
        symlink("..2", watched.folder.path("..data_tmp")).unwrap();
        std::fs::rename(watched.folder.path("..data_tmp"), watched.folder.path("..data")).unwrap();
        let next = watched.changes.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next, "a.yaml=2 b.yaml=2");
    }

    #[test]
    fn a_directory_that_is_reached_by_a_link_is_another_one_when_the_link_is_swapped() {
        for below in ["", "conf"] {
            let folder = Folder::new();
            for version in ["1", "2"] {
                folder.write(&format!("releases/{version}/{below}/a.yaml"), version);
            }
            std::fs::create_dir(folder.path("srv")).unwrap();
            let swap = |version: &str| {
                symlink(format!("../releases/{version}"), folder.path("srv/next")).unwrap();
                std::fs::rename(folder.path("srv/next"), folder.path("srv/current")).unwrap();
            };
            swap("1");
            let (told, changes) = channel();
            let paths = Paths { paths: vec![folder.path("srv/current").join(below)], ..Paths::default() };
            let _watcher = Watcher::spawn(paths, move |texts| {
                let _ = told.send(texts.files[0].text.clone().unwrap());
            })
            .unwrap();
            let next = || changes.recv_timeout(Duration::from_secs(10)).expect("nothing was told");
            assert_eq!(&*next(), "1");
            swap("2");
            assert_eq!(&*next(), "2");
        }
    }

    #[test]
    fn reading_gives_no_further_events() {
        let folder = Folder::new();
        folder.write("a.yaml", "1");
        let watched = Watched::over(folder);
        watched.until("a.yaml=1");
        for _ in 0..20 {
            std::fs::read(watched.folder.path("a.yaml")).unwrap();
        }
        watched.folder.write("a.yaml", "2");
        assert_eq!(watched.changes.recv_timeout(Duration::from_secs(10)).unwrap(), "a.yaml=2");
    }

    #[test]
    fn the_mesh_file_is_told_apart_and_not_read_twice() {
        let folder = Folder::new();
        folder.write("mesh.yaml", "m");
        folder.write("a.yaml", "1");
        let paths = Paths { paths: vec![folder.path(".")], mesh_file: Some(folder.path("mesh.yaml")) };
        let texts = paths.read();
        assert_eq!(&*texts.mesh_file.unwrap().text.unwrap(), "m");
        let names: Vec<String> = texts.files.iter().map(|f| folder.name(&f.path)).collect();
        assert_eq!(names, ["a.yaml"]);
        assert!(paths.missing().is_none());
        let wrong = Paths { mesh_file: Some(folder.path("none")), ..paths };
        assert_eq!(folder.name(wrong.missing().unwrap().0), "none");
    }

    #[test]
    fn a_reload_that_panics_does_not_end_the_watching() {
        let folder = Folder::new();
        folder.write("a.yaml", "1");
        let (told, changes) = channel();
        let paths = Paths { paths: vec![folder.path(".")], mesh_file: None };
        let _watcher = Watcher::spawn(paths, move |texts| {
            let text = texts.files[0].text.clone().unwrap();
            told.send(text.to_string()).unwrap();
            assert_ne!(&*text, "1", "the first one fails");
        })
        .unwrap();
        assert_eq!(changes.recv_timeout(Duration::from_secs(10)).unwrap(), "1");
        folder.write("a.yaml", "2");
        assert_eq!(changes.recv_timeout(Duration::from_secs(10)).unwrap(), "2");
    }
}
