//! The texts of all files as last read, and which of them may be read now.
//!
//! A file is read when it has not changed for a while, so that a half-written one is never taken for its
//! new content; until then, and while it cannot be read, its last text stays. One that disappears stays as
//! long, because editors and deployments remove before they rename. Time is an argument.

use super::tree::{Listing, Stamp};
use crate::clock::{Duration, Instant, SystemTime};
use proxy_config::load::File;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file is read when it has not changed for this long.
pub const SETTLE: Duration = Duration::from_millis(100);
/// A larger file is refused.
pub const MAX_BYTES: u64 = 16 << 20;
/// So is what goes beyond this in all.
const MAX_TOTAL: u64 = 256 << 20;

#[derive(Debug)]
struct Held {
    /// As last listed; `None`: gone.
    stamp: Option<Stamp>,
    /// When it was first listed so.
    since: Instant,
    /// The stamp under which `text` was read.
    read: Option<Stamp>,
    text: Option<Result<Arc<str>, String>>,
}

/// All texts.
#[derive(Debug, Default)]
pub struct Shelf {
    held: BTreeMap<(usize, PathBuf), Held>,
    unreadable: Vec<(usize, PathBuf, String)>,
}

/// What one look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Some text is other than before.
    pub changed: bool,
    /// Some file is still changing: look again then.
    pub again_at: Option<Instant>,
}

impl Shelf {
    /// Takes a listing into account and reads what has settled.
    pub fn look(&mut self, listing: &Listing, now: Instant, wall: SystemTime) -> Look {
        let mut look = Look { changed: self.unreadable != listing.unreadable, again_at: None };
        self.unreadable.clone_from(&listing.unreadable);
        let mut total = 0;
        let mut listed = BTreeMap::new();
        for file in &listing.files {
            listed.insert((file.root, file.path.clone()), file.stamp);
            let held = self.held.entry((file.root, file.path.clone())).or_insert_with(|| Held {
                stamp: None,
                since: now,
                read: None,
                text: None,
            });
            if held.stamp != Some(file.stamp) {
                held.stamp = Some(file.stamp);
                held.since = now;
            }
            total += file.stamp.size.min(MAX_BYTES);
            if held.read == held.stamp {
                continue;
            }
            let settled_at = settled_at(held.since, &file.stamp, now, wall);
            if settled_at > now {
                look.again_at = Some(look.again_at.map_or(settled_at, |at| at.min(settled_at)));
            } else {
                held.take(&file.path, total, now, &mut look);
            }
        }
        self.forget(&listed, now, &mut look);
        look
    }

    /// Lets go of what has been gone for a while, except below a directory that cannot be listed.
    fn forget(&mut self, listed: &BTreeMap<(usize, PathBuf), Stamp>, now: Instant, look: &mut Look) {
        let unreadable = &self.unreadable;
        self.held.retain(|key, held| {
            if listed.contains_key(key) || unreadable.iter().any(|(_, path, _)| key.1.starts_with(path)) {
                return true;
            }
            if held.stamp.is_some() {
                (held.stamp, held.since) = (None, now);
            }
            let gone_at = held.since + SETTLE;
            if gone_at > now {
                look.again_at = Some(look.again_at.map_or(gone_at, |at| at.min(gone_at)));
                return true;
            }
            look.changed |= held.text.is_some();
            false
        });
    }

    /// Every file with its last text and the number of the path it was found under, in the order of those
    /// paths, then of names; files that were never read yet are left out, what cannot be listed comes as a
    /// file with the reason.
    pub fn files(&self) -> Vec<(usize, File)> {
        let readable = |path: &Path| !self.unreadable.iter().any(|(_, failed, _)| failed == path);
        let read = self.held.iter().filter_map(|((root, path), held)| {
            let text = held.text.as_ref().filter(|_| readable(path))?;
            Some((*root, File { path: path.clone(), text: text.clone() }))
        });
        let unreadable = self
            .unreadable
            .iter()
            .map(|(root, path, reason)| (*root, File { path: path.clone(), text: Err(reason.clone()) }));
        let mut files: Vec<(usize, File)> = read.chain(unreadable).collect();
        files.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
        files
    }

    /// Paths that are listed but were never read, because they never stopped changing.
    pub fn unsettled(&self) -> Vec<PathBuf> {
        let waiting = self.held.iter().filter(|(_, held)| held.text.is_none());
        waiting.map(|((_, path), _)| path.clone()).collect()
    }
}

impl Held {
    fn take(&mut self, path: &Path, total: u64, now: Instant, look: &mut Look) {
        let before = Stamp::at(path);
        let text = if total > MAX_TOTAL {
            Err(format!("all files together have more than {} MiB", MAX_TOTAL >> 20))
        } else {
            read(path)
        };
        if before != self.stamp || Stamp::at(path) != self.stamp {
            // It changed between the listing and now: what was read may be half of it.
            self.since = now;
            let at = now + SETTLE;
            look.again_at = Some(look.again_at.map_or(at, |again| again.min(at)));
            return;
        }
        self.read = self.stamp;
        if self.text.as_ref() != Some(&text) {
            self.text = Some(text);
            look.changed = true;
        }
    }
}

/// When the file may be read: it has been seen unchanged for [`SETTLE`], or its own times say that it has.
fn settled_at(since: Instant, stamp: &Stamp, now: Instant, wall: SystemTime) -> Instant {
    let (seconds, nanos) = stamp.last_touched();
    let touched = u64::try_from(seconds)
        .ok()
        .zip(u32::try_from(nanos).ok())
        .and_then(|(s, n)| SystemTime::UNIX_EPOCH.checked_add(Duration::new(s, n)));
    let by_itself = touched.and_then(|t| wall.duration_since(t).ok()).is_some_and(|age| age >= SETTLE);
    if by_itself { now } else { since + SETTLE }
}

/// The whole text of a file of at most [`MAX_BYTES`].
///
/// # Errors
/// In words for the operator: unreadable, too large, not UTF-8.
pub fn read(path: &Path) -> Result<Arc<str>, String> {
    let cannot = |error: std::io::Error| error.to_string();
    let file = fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {} MiB", MAX_BYTES >> 20));
    }
    String::from_utf8(bytes).map(Arc::from).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("not UTF-8: line {line}, byte {good} of the file")
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::super::tree;
    use super::*;

    struct Bench {
        folder: Folder,
        texts: Shelf,
        start: Instant,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: Folder::new(), texts: Shelf::default(), start: crate::clock::now() }
        }

        /// Looks at `ms` with a wall clock that makes every file look just written.
        fn look(&mut self, ms: u64) -> Look {
            let listing = tree::list(&[self.folder.path(".")]);
            self.texts.look(&listing, self.start + Duration::from_millis(ms), SystemTime::UNIX_EPOCH)
        }

        fn check(&mut self, ms: u64, changed: bool, again_ms: Option<u64>, files: &[(&str, Option<&str>)]) {
            let look = self.look(ms);
            let again_at = again_ms.map(|ms| self.start + Duration::from_millis(ms));
            assert_eq!(look, Look { changed, again_at }, "at {ms} ms");
            let found: Vec<(String, Option<String>)> = self
                .texts
                .files()
                .into_iter()
                .map(|(_, f)| (self.folder.name(&f.path), f.text.ok().map(|text| text.to_string())))
                .collect();
            let wanted: Vec<_> = files.iter().map(|(n, t)| ((*n).to_owned(), t.map(str::to_owned))).collect();
            assert_eq!(found, wanted, "at {ms} ms");
        }
    }

    #[test]
    fn a_file_is_read_once_it_has_not_changed_for_a_while() {
        let mut bench = Bench::new();
        bench.folder.write("a.yaml", "one");
        bench.check(0, false, Some(100), &[]);
        bench.check(99, false, Some(100), &[]);
        bench.check(100, true, None, &[("a.yaml", Some("one"))]);
        bench.check(200, false, None, &[("a.yaml", Some("one"))]);
    }

    #[test]
    fn a_file_that_keeps_changing_keeps_its_last_text() {
        let mut bench = Bench::new();
        bench.folder.write("a.yaml", "one");
        bench.look(0);
        bench.look(100);
        bench.folder.write("a.yaml", "half");
        bench.check(1000, false, Some(1100), &[("a.yaml", Some("one"))]);
        bench.folder.write("a.yaml", "whole text");
        bench.check(1090, false, Some(1190), &[("a.yaml", Some("one"))]);
        bench.check(1190, true, None, &[("a.yaml", Some("whole text"))]);
    }

    #[test]
    fn a_file_touched_but_not_changed_is_no_change() {
        let mut bench = Bench::new();
        bench.folder.write("a.yaml", "one");
        bench.look(0);
        bench.look(100);
        bench.folder.write("b.tmp", "one");
        std::fs::rename(bench.folder.path("b.tmp"), bench.folder.path("a.yaml")).unwrap();
        bench.look(200);
        bench.check(300, false, None, &[("a.yaml", Some("one"))]);
    }

    #[test]
    fn a_file_removed_for_a_moment_is_not_gone() {
        let mut bench = Bench::new();
        bench.folder.write("a.yaml", "one");
        bench.look(0);
        bench.look(100);
        std::fs::remove_file(bench.folder.path("a.yaml")).unwrap();
        bench.check(200, false, Some(300), &[("a.yaml", Some("one"))]);
        bench.check(300, true, None, &[]);
    }

    #[test]
    fn a_directory_that_cannot_be_listed_keeps_what_was_read_below_it() {
        let mut bench = Bench::new();
        bench.folder.write("sub/a.yaml", "one");
        bench.look(0);
        bench.look(100);
        let root = bench.folder.path(".");
        let listing =
            Listing { unreadable: vec![(0, root.join("sub"), "denied".to_owned())], ..Listing::default() };
        let later = bench.start + Duration::from_secs(60);
        let look = bench.texts.look(&listing, later, SystemTime::UNIX_EPOCH);
        assert_eq!(look, Look { changed: true, again_at: None });
        let files = bench.texts.files();
        assert_eq!(files.len(), 2);
        assert!(files[0].1.text.is_err() && files[1].1.text.is_ok());
    }

    #[test]
    fn a_file_whose_own_times_are_old_is_read_at_once() {
        let mut bench = Bench::new();
        bench.folder.write("a.yaml", "one");
        let listing = tree::list(&[bench.folder.path(".")]);
        let wall = crate::clock::wall() + Duration::from_secs(5);
        let look = bench.texts.look(&listing, bench.start, wall);
        assert_eq!(look, Look { changed: true, again_at: None });
    }

    #[test]
    fn what_is_no_text_or_too_large_is_a_reason_and_not_a_crash() {
        let folder = Folder::new();
        folder.write("a.yaml", "x");
        std::fs::write(folder.path("a.yaml"), b"a: 1\nb: \xff\n").unwrap();
        assert!(read(&folder.path("a.yaml")).unwrap_err().contains("line 2"));
        let file = std::fs::File::create(folder.path("big.yaml")).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&folder.path("big.yaml")).unwrap_err().contains("16 MiB"));
        assert!(read(&folder.path("none.yaml")).unwrap_err().contains("No such file"));
    }
}
