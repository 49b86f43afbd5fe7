//! The way in: files become a configuration and a report.
//!
//! Loading is total and the same at start-up and on every reload. What cannot be read is set aside and its
//! last good version stays; nothing here opens a file.

mod kept;

pub use kept::Kept;

use crate::api::istio::Suspect;
use crate::api::mesh::MeshConfig;
use crate::api::{self, Object};
use crate::lint;
use crate::model::{Config, ObjectRef, Workload};
use crate::report::{Level, Place, Problem, Report};
use crate::resolve::{self, Input, functions};
use kept::Read;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One file of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As it is to be named in messages; files are taken in the order of their paths.
    pub path: PathBuf,
    /// Its text, or why it cannot be read.
    pub text: Result<Arc<str>, String>,
}

/// What the command line says about the input.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of objects that name none, and of the callers on the mesh listener.
    pub namespace: String,
    /// Of function hosts on gateways: `hello.default.<domain>`.
    pub domain: String,
    /// Commands to run, by function, `namespace/function` or revision: shell words, no shell.
    pub exec: BTreeMap<String, String>,
    /// Container commands run as they are written.
    pub exec_all: bool,
    /// A function without a command is answered by the built-in echo.
    pub stand_in: bool,
    /// A MeshConfig file; it goes before any found in the input.
    pub mesh_file: Option<File>,
    /// Errors refuse the whole. Not acted upon here: the caller asks the report.
    pub strict: bool,
    /// Stand beside one workload instead of for all of them.
    pub sidecar: Option<Sidecar>,
    /// What of `resources` cannot be enforced on this host.
    pub unmet: Unmet,
}

/// Limits of containers that nothing enforces on this host: each that is written is a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmet {
    /// Of memory.
    pub memory: Option<Reason>,
    /// Of processors.
    pub cpu: Option<Reason>,
}

/// Why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Why not, in one clause.
    pub why: String,
    /// What would change that.
    pub help: String,
}

/// A sidecar's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Whom it stands beside.
    pub workload: Workload,
    /// Where the program listens, one address for each of its ports; the first is meant where nothing says.
    pub apps: Vec<SocketAddr>,
    /// Where callers come in.
    pub inbound: SocketAddr,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            namespace: "default".to_owned(),
            domain: "localhost".to_owned(),
            exec: BTreeMap::new(),
            exec_all: false,
            stand_in: false,
            mesh_file: None,
            strict: false,
            sidecar: None,
            unmet: Unmet::default(),
        }
    }
}

/// What files come to.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What can be served.
    pub config: Config,
    /// Everything found on the way.
    pub report: Report,
    /// Objects that are not used as they stand in the files: their last good version is, or none.
    pub quarantined: Vec<ObjectRef>,
    /// Why a sidecar must not serve: what it may be asked to enforce cannot be known. Every request to its
    /// workload is refused meanwhile. Empty for others.
    pub blockers: Vec<String>,
    /// What to keep of all this: the last good version of each object is in it.
    pub kept: Kept,
}

/// Loads `files`. `previous` gives the last good versions of what cannot be read now; it is not needed.
pub fn load(files: &[File], options: &Options, previous: Option<&Kept>) -> Loaded {
    let mut reading = Reading { previous, namespace: &options.namespace, ..Reading::default() };
    let mut files: Vec<&File> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        reading.read(file, options);
    }
    let mesh_file = reading.mesh_file(options);
    let objects = reading.finish();
    let Reading { mut problems, quarantined, suspects, mut lost, .. } = reading;
    if options.sidecar.is_none() {
        lost.clear();
    } else if objects.is_empty() {
        lost.push("no configuration: no object could be read".to_owned());
    }
    let kept = Kept::new(&objects, suspects, lost, mesh_file);
    let input = Input::new(objects.iter().map(|read| &*read.object), &kept.suspects);
    let mut resolved = resolve::resolve(&input, kept.mesh_file.as_deref(), options, &mut problems);
    let root = resolved.config.mesh.root_namespace.clone();
    lint::check(&input, &resolved.registry, &root, &mut problems);
    let quarantined = quarantined.into_iter().collect();
    let mut blockers = Vec::new();
    if options.sidecar.is_some() {
        blockers = resolve::sidecar::blockers(&resolved.config);
        blockers.extend(kept.lost.iter().cloned());
        kept.close(&mut resolved.config);
    }
    Loaded { config: resolved.config, report: Report::new(problems), quarantined, blockers, kept }
}

/// What tells objects apart; the revision's name too, as the documents of one function are its history.
fn identity(object: &Object) -> (&ObjectRef, Option<&str>) {
    let revision = match object {
        Object::Function(function) => function.template.name.as_ref().map(|name| name.value.as_str()),
        _ => None,
    };
    (&object.meta().object, revision)
}

#[derive(Default)]
struct Reading<'a> {
    previous: Option<&'a Kept>,
    namespace: &'a str,
    /// What `previous` comes to, once somebody asks.
    last_good: OnceCell<Vec<Read>>,
    objects: Vec<Read>,
    bad: BTreeSet<ObjectRef>,
    problems: Vec<Problem>,
    quarantined: BTreeSet<ObjectRef>,
    suspects: Vec<Suspect>,
    /// Files of which nothing is known: they cannot be read, or not as YAML, and never could.
    lost: Vec<String>,
}

impl Reading<'_> {
    fn last_good(&self) -> &[Read] {
        let objects = |previous: &Kept| previous.objects(self.namespace);
        self.last_good.get_or_init(|| self.previous.map(objects).unwrap_or_default())
    }

    fn read(&mut self, file: &File, options: &Options) {
        let text = match &file.text {
            Ok(text) => text,
            Err(reason) => {
                self.unreadable(&file.path, reason);
                if !self.keep(&file.path) {
                    self.lost.push(format!("{} cannot be read", file.path.display()));
                }
                return;
            }
        };
        let parsed = api::parse(&file.path, text, &options.namespace);
        self.problems.extend(parsed.problems);
        let kept = parsed.broken && self.keep(&file.path);
        if parsed.broken && !kept {
            self.lost.push(format!("{} has syntax errors", file.path.display()));
        }
        if !kept {
            let read = |object| Read { object: Arc::new(object), text: text.clone() };
            self.objects.extend(parsed.objects.into_iter().map(read));
            self.bad.extend(parsed.bad);
        }
        self.suspects.extend(parsed.suspects);
    }

    /// Keeps what was last read from a file; false when nothing was.
    fn keep(&mut self, file: &Path) -> bool {
        let of_file = |read: &&Read| *read.object.meta().file == *file;
        let kept: Vec<Read> = self.last_good().iter().filter(of_file).cloned().collect();
        let any = !kept.is_empty();
        self.quarantined.extend(kept.iter().map(|read| read.object.meta().object.clone()));
        self.objects.extend(kept);
        any
    }

    fn mesh_file(&mut self, options: &Options) -> Option<Arc<MeshConfig>> {
        let file = options.mesh_file.as_ref()?;
        let last = self.previous.and_then(|previous| previous.mesh_file.clone());
        let text = match &file.text {
            Ok(text) => text,
            Err(reason) => {
                self.unreadable(&file.path, reason);
                return last;
            }
        };
        let parsed = api::parse_mesh_file(&file.path, text);
        self.problems.extend(parsed.problems);
        self.quarantined.extend(parsed.bad);
        match parsed.objects.into_iter().next() {
            Some(Object::Mesh(mesh)) if !parsed.broken => Some(Arc::new(mesh)),
            _ => last,
        }
    }

    fn unreadable(&mut self, path: &Path, reason: &str) {
        let message = format!("cannot be read: {reason}");
        self.problems.push(Problem::in_file(Level::Error, "SC014", path, Place::default(), message));
    }

    /// Puts the last good versions of bad objects in their places and refuses second ones.
    fn finish(&mut self) -> Vec<Read> {
        let bad = std::mem::take(&mut self.bad);
        let mut objects = std::mem::take(&mut self.objects);
        // Who has nothing bad needs nothing of before.
        let last_good = if bad.is_empty() { &[] } else { self.last_good() };
        for good in last_good.iter().filter(|good| bad.contains(&good.object.meta().object)) {
            if objects.iter().all(|read| identity(&read.object) != identity(&good.object)) {
                objects.push(good.clone());
            }
        }
        self.quarantined.extend(bad);
        kept::in_order(&mut objects);
        // Of what was good once, the last good version asks what it asked.
        let never_good =
            |suspect: &Suspect| objects.iter().all(|read| read.object.meta().object != suspect.meta.object);
        self.suspects.retain(never_good);
        self.refuse_repeated(objects)
    }

    fn refuse_repeated(&mut self, objects: Vec<Read>) -> Vec<Read> {
        let mut first: BTreeMap<(ObjectRef, Option<String>), Arc<Object>> = BTreeMap::new();
        let mut kept = Vec::with_capacity(objects.len());
        for read in objects {
            let object = &read.object;
            let (reference, revision) = identity(object);
            let key = (reference.clone(), revision.map(str::to_owned));
            match first.get(&key) {
                Some(earlier) if !may_repeat(object) && !same_revision(earlier, object) => {
                    self.problems.push(repeated(earlier, object));
                    self.quarantined.insert(key.0);
                    if let Some(selection) = object.selection().filter(|_| *earlier != *object) {
                        let (meta, selection) = (object.meta().clone(), Some(selection.clone()));
                        self.suspects.push(Suspect { meta, selection });
                    }
                }
                _ => {
                    first.entry(key).or_insert_with(|| object.clone());
                    kept.push(read);
                }
            }
        }
        kept
    }
}

/// Objects that do nothing here (a Namespace written in every file) may be written again.
fn may_repeat(object: &Object) -> bool {
    matches!(object, Object::Inert(meta) if !meta.object.group.ends_with("istio.io"))
}

/// Two documents of one function with the same named template: only other fields have changed.
fn same_revision(earlier: &Object, later: &Object) -> bool {
    let (Object::Function(a), Object::Function(b)) = (earlier, later) else { return false };
    let mut template = b.template.clone();
    (template.at, template.container.at) = (a.template.at, a.template.container.at);
    template.name.is_some() && template == a.template
}

fn repeated(earlier: &Object, later: &Object) -> Problem {
    let (first, meta) = (earlier.meta(), later.meta());
    let place = format!("{}:{}", first.file.display(), first.at);
    let Object::Function(function) = later else {
        let message = format!("this resource is also at {place}; that one is used");
        let help = "remove one of them, or give it another name";
        return meta.problem(Level::Error, "SC019", "metadata.name", meta.name_at, message).with_help(help);
    };
    match &function.template.name {
        Some(name) => {
            let message =
                format!("revision {:?} has another template at {place}; that one is used", name.value);
            let help = "a revision never changes: give this template a name of its own";
            let path = "spec.template.metadata.name";
            meta.problem(Level::Error, "SC019", path, name.at, message).with_help(help)
        }
        None => {
            let message = format!("this Knative Service is also at {place}, and neither names its revision");
            let name = functions::automatic_name(&meta.object.name, 2);
            let help = format!(
                "to keep both as revisions, name each: `spec.template.metadata.name: {name}`; else remove one"
            );
            meta.problem(Level::Error, "SC019", "spec.template", function.template.at, message)
                .with_help(help)
        }
    }
}
