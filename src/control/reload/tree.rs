//! Which files a set of paths stands for: the listing of directories, nothing read yet.
//!
//! Made for the way Kubernetes mounts ConfigMaps (visible links into a hidden `..data`, itself a link to a
//! hidden dated directory): hidden entries are left out, links are followed, and what is reached twice is
//! listed once. Everything is bounded, and what a bound leaves out is named.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories below a path, at most this deep.
const MAX_DEPTH: usize = 32;
/// Directories of a listing.
const MAX_DIRECTORIES: usize = 4_096;
/// Files of a listing.
const MAX_FILES: usize = 20_000;

/// Device and inode: the same file, by whatever path.
pub type Id = (u64, u64);

/// Tells whether a file may have changed since it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    id: Id,
    /// Bytes.
    pub size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            id: id(metadata),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of the file at `path` now; `None` when it is gone.
    pub fn at(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Seconds and nanoseconds of the wall clock at which content or inode last changed.
    pub fn last_touched(&self) -> (i64, i64) {
        self.modified.max(self.changed)
    }
}

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which of the paths it was found under, so that their order is kept.
    pub root: usize,
    /// As reached from that path.
    pub path: PathBuf,
    /// What it looked like.
    pub stamp: Stamp,
}

/// What the paths stand for at one moment.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In the order of the paths, then of names.
    pub files: Vec<Listed>,
    /// Directories whose change changes the listing, with their identity.
    pub directories: Vec<(PathBuf, Id)>,
    /// What could not be listed, and why: (root, path, reason).
    pub unreadable: Vec<(usize, PathBuf, String)>,
}

/// Lists all files under `paths`: a file stands for itself, a directory for every `.yaml`, `.yml` and
/// `.json` file below it that is not hidden.
pub fn list(paths: &[PathBuf]) -> Listing {
    let mut walk = Walk::default();
    for (root, path) in paths.iter().enumerate() {
        walk.root(root, path);
    }
    walk.listing
}

#[derive(Default)]
struct Walk {
    listing: Listing,
    seen: HashSet<Id>,
}

impl Walk {
    fn root(&mut self, root: usize, path: &Path) {
        // What is swapped may be a link on the way; one that is written with a slash behind it is one, too.
        let plain: PathBuf = path.components().collect();
        plain.ancestors().filter(|part| part.is_symlink()).for_each(|link| self.watch_around(link));
        let first = self.listing.files.len();
        match fs::metadata(path) {
            Err(error) => self.fail(root, path, &error),
            Ok(metadata) if metadata.is_dir() => self.directory(root, path, &metadata, 0),
            Ok(metadata) => {
                self.watch_around(path);
                self.file(root, path, &metadata);
            }
        }
        self.listing.files[first..].sort_by(|a, b| a.path.cmp(&b.path));
    }

    fn directory(&mut self, root: usize, path: &Path, metadata: &Metadata, depth: usize) {
        if !self.seen.insert(id(metadata)) {
            return;
        }
        if depth > MAX_DEPTH || self.listing.directories.len() >= MAX_DIRECTORIES {
            let reason =
                format!("more than {MAX_DEPTH} directories deep, or more than {MAX_DIRECTORIES} in all");
            self.listing.unreadable.push((root, path.to_owned(), reason));
            return;
        }
        self.listing.directories.push((path.to_owned(), id(metadata)));
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.fail(root, path, &error),
        };
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        for name in names {
            if !name.as_encoded_bytes().starts_with(b".") {
                self.entry(root, &path.join(name), depth);
            }
        }
    }

    fn entry(&mut self, root: usize, path: &Path, depth: usize) {
        let wanted = is_configuration(path);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(root, path, &metadata, depth + 1),
            Ok(metadata) if wanted => {
                if path.is_symlink() {
                    self.watch_around(path);
                }
                self.file(root, path, &metadata);
            }
            // A link to nowhere, or an entry that has just gone.
            Err(error) if wanted && path.is_symlink() => self.fail(root, path, &error),
            _ => {}
        }
    }

    fn file(&mut self, root: usize, path: &Path, metadata: &Metadata) {
        if !self.seen.insert(id(metadata)) {
            return;
        }
        let reason = if !metadata.is_file() {
            "not a file".to_owned()
        } else if self.listing.files.len() >= MAX_FILES {
            format!("more than {MAX_FILES} files")
        } else {
            self.listing.files.push(Listed { root, path: path.to_owned(), stamp: Stamp::of(metadata) });
            return;
        };
        self.listing.unreadable.push((root, path.to_owned(), reason));
    }

    /// The directory in which a file or a link (and, for a link, its target) is replaced.
    fn watch_around(&mut self, path: &Path) {
        let written = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        let target = fs::canonicalize(path).ok().and_then(|p| p.parent().map(Path::to_owned));
        for directory in written.map(Path::to_owned).into_iter().chain(target) {
            let known = self.listing.directories.iter().any(|(path, _)| *path == directory);
            if !known
                && self.listing.directories.len() < MAX_DIRECTORIES
                && let Ok(metadata) = fs::metadata(&directory)
            {
                self.listing.directories.push((directory, id(&metadata)));
            }
        }
    }

    fn fail(&mut self, root: usize, path: &Path, error: &io::Error) {
        self.listing.unreadable.push((root, path.to_owned(), error.to_string()));
    }
}

fn id(metadata: &Metadata) -> Id {
    (metadata.dev(), metadata.ino())
}

fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use std::os::unix::fs::symlink;

    fn check(folder: &Folder, paths: &[&str], wanted: &[&str]) -> Listing {
        let paths: Vec<PathBuf> = paths.iter().map(|p| folder.path(p)).collect();
        let listing = list(&paths);
        let found: Vec<String> = listing.files.iter().map(|f| folder.name(&f.path)).collect();
        assert_eq!(found, wanted);
        listing
    }

    #[test]
    fn a_directory_stands_for_its_configuration_files_in_order_of_their_paths() {
        let folder = Folder::new();
        for name in ["b.yml", "a/z.YAML", "a.yaml", "c.json", "notes.txt", ".hidden.yaml", ".git/x.yaml"] {
            folder.write(name, "");
        }
        check(&folder, &["."], &["a/z.YAML", "a.yaml", "b.yml", "c.json"]);
    }

    #[test]
    fn a_configmap_mount_is_read_once() {
        let folder = Folder::new();
        folder.write("..2024_01_01/a.yaml", "");
        symlink("..2024_01_01", folder.path("..data")).unwrap();
        symlink("..data/a.yaml", folder.path("a.yaml")).unwrap();
        let listing = check(&folder, &["."], &["a.yaml"]);
        let watched: Vec<_> = listing.directories.iter().map(|(p, _)| p.clone()).collect();
        assert!(watched.contains(&folder.path(".")), "{watched:?}");
    }

    #[test]
    fn what_is_named_twice_or_linked_in_a_circle_is_read_once_in_the_order_of_the_paths() {
        let folder = Folder::new();
        folder.write("dir/a.yaml", "");
        folder.write("dir/b.yaml", "");
        symlink("..", folder.path("dir/loop")).unwrap();
        check(&folder, &["dir/b.yaml", "dir"], &["dir/b.yaml", "dir/a.yaml"]);
    }

    #[test]
    fn a_named_file_is_read_whatever_its_extension() {
        let folder = Folder::new();
        folder.write("mesh", "");
        check(&folder, &["mesh"], &["mesh"]);
    }

    #[test]
    fn what_cannot_be_listed_is_named_and_does_not_hide_the_rest() {
        let folder = Folder::new();
        folder.write("a.yaml", "");
        symlink("nowhere", folder.path("dangling.yaml")).unwrap();
        let listing = check(&folder, &["missing", "."], &["a.yaml"]);
        let named: Vec<String> = listing.unreadable.iter().map(|(_, path, _)| folder.name(path)).collect();
        assert_eq!(named, ["missing", "dangling.yaml"]);
        assert!(listing.unreadable[0].2.contains("No such file"), "{:?}", listing.unreadable);
    }
}
