//! What stays of a loaded configuration: the text it was made from.
//!
//! Objects and what they mean take many times the room of their text, and are wanted again only when the next text
//! comes or somebody asks what is served. They follow from the text alone, so they are made again then. Where the last
//! good version of an object is in use, its text is the one which that version was read from.

use super::{File, Options};
use crate::api::istio::Suspect;
use crate::api::mesh::MeshConfig;
use crate::api::{self, Object};
use crate::model::{Config, ObjectRef};
use crate::report::Place;
use crate::resolve::{self, Input};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An object, and the text it was read from.
#[derive(Clone)]
pub(super) struct Read {
    pub object: Arc<Object>,
    pub text: Arc<str>,
}

/// What one configuration was made from; it is made again of it, the same as it was.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    sources: Box<[Source]>,
    /// Objects that ask something of callers, have errors and were never good.
    pub(super) suspects: Vec<Suspect>,
    /// Why a sidecar must not serve.
    pub(super) lost: Vec<String>,
    pub(super) mesh_file: Option<Arc<MeshConfig>>,
}

/// A text of a file, and where the objects begin that are used of it, in order.
#[derive(Clone)]
struct Source {
    path: Arc<Path>,
    text: Arc<str>,
    used: Vec<Place>,
}

/// Without the text, which may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).field("used", &self.used).finish()
    }
}

impl Kept {
    /// `objects`: those in use.
    pub(super) fn new(
        objects: &[Read],
        suspects: Vec<Suspect>,
        lost: Vec<String>,
        mesh_file: Option<Arc<MeshConfig>>,
    ) -> Kept {
        // By where a text is: to compare texts for each object takes too long.
        let mut sources: BTreeMap<(&Path, *const u8), Source> = BTreeMap::new();
        for Read { object, text } in objects {
            let (path, at) = (&object.meta().file, object.meta().at);
            let fresh = || Source { path: path.clone(), text: text.clone(), used: Vec::new() };
            sources.entry((path, text.as_ptr())).or_insert_with(fresh).used.push(at);
        }
        let mut sources: Box<[Source]> = sources.into_values().collect();
        for source in &mut sources {
            source.used.sort_unstable();
            source.used.shrink_to_fit();
        }
        Kept { sources, suspects, lost, mesh_file }
    }

    /// The objects in use, in the order of their places.
    pub(super) fn objects(&self, namespace: &str) -> Vec<Read> {
        let read = |source: &Source| {
            let used = |object: &Object| source.used.binary_search(&object.meta().at).is_ok();
            let objects = api::parse(&source.path, &source.text, namespace).objects.into_iter().filter(used);
            let text = source.text.clone();
            objects
                .map(move |object| Read { object: Arc::new(object), text: text.clone() })
                .collect::<Vec<_>>()
        };
        let mut all: Vec<Read> = self.sources.iter().flat_map(read).collect();
        in_order(&mut all);
        all
    }

    /// The configuration, made again. `options` are those of the first time.
    pub fn config(&self, options: &Options) -> Config {
        let objects = self.objects(&options.namespace);
        let input = Input::new(objects.iter().map(|read| &*read.object), &self.suspects);
        // All of it has been said.
        let mut problems = Vec::new();
        let mut config = resolve::resolve(&input, self.mesh_file.as_deref(), options, &mut problems).config;
        self.close(&mut config);
        config
    }

    /// Refuses every request to a sidecar's workload, where what it may be asked to enforce cannot be known.
    pub(super) fn close(&self, config: &mut Config) {
        self.lost.iter().for_each(|reason| resolve::sidecar::close(config, reason));
    }

    /// From now on a text that is equal to that of one of `files` is the same one: nothing is kept twice.
    pub fn share(&mut self, files: &[File]) {
        for source in &mut self.sources {
            let same = |file: &&File| *file.path == *source.path;
            let texts = files.iter().filter(same).filter_map(|file| file.text.as_ref().ok());
            if let Some(text) = { texts }.find(|text| **text == source.text) {
                source.text = text.clone();
            }
        }
    }
}

/// In the order of files and places. Two texts of one file may have objects at the same place.
pub(super) fn in_order(objects: &mut [Read]) {
    fn place(read: &Read) -> (&Path, Place, &ObjectRef) {
        let meta = read.object.meta();
        (&meta.file, meta.at, &meta.object)
    }
    objects.sort_by(|a, b| place(a).cmp(&place(b)));
}
