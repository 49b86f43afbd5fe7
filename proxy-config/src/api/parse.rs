//! A file's text to its objects: one way for every kind, and every finding about each.

use super::kinds::{self, Found, Kind, KindRole};
use super::mesh::{self, MeshConfig};
use super::{Meta, Object, Parsed, istio, knative, shape};
use crate::decode::{Cursor, Findings};
use crate::document::{self, Document, Node, Value};
use crate::model::ObjectRef;
use crate::report::{At, Level, Place, Problem};
use std::path::Path;
use std::sync::Arc;

/// Reads a file of Kubernetes objects. `default_namespace` is that of objects which name none.
///
/// Never fails and never panics: what is wrong is in the result.
pub fn parse(path: &Path, text: &str, default_namespace: &str) -> Parsed {
    let read = document::read(path, text);
    let mut reader = Reader::new(path, text, default_namespace);
    reader.out.broken = read.broken;
    reader.out.problems.extend(read.problems);
    for document in &read.documents {
        reader.document(document);
    }
    if reader.out.broken {
        reader.out.suspects.extend(istio::security::lost(&reader.file, text, default_namespace));
    }
    reader.out
}

/// Reads a file that was named as the mesh configuration: a bare MeshConfig, a Helm or IstioOperator file
/// with `meshConfig`, or the ConfigMap `istio`. At most one object, an [`Object::Mesh`].
pub fn parse_mesh_file(path: &Path, text: &str) -> Parsed {
    let read = document::read(path, text);
    let mut reader = Reader::new(path, text, "istio-system");
    reader.out.broken = read.broken;
    reader.out.problems.extend(read.problems);
    for document in &read.documents {
        let root = &document.root;
        if root.get("kind").is_some() && root.get("apiVersion").is_some() {
            reader.document(document);
        } else {
            reader.out.problems.extend(document.faults.iter().cloned());
            reader.mesh(root.get("meshConfig").unwrap_or(root), root.at);
        }
    }
    let mut out = reader.out;
    out.objects.retain(|object| matches!(object, Object::Mesh(_)));
    if out.objects.is_empty() && out.bad.is_empty() && !out.broken {
        let message = "no MeshConfig in this file";
        let problem = Problem::in_file(Level::Error, "SC005", path, Place::default(), message);
        out.problems.push(problem.with_help("write its fields at the top, or below `meshConfig:`"));
    }
    out.objects.truncate(1);
    out
}

struct Reader<'a> {
    file: Arc<Path>,
    text: &'a str,
    default_namespace: &'a str,
    out: Parsed,
}

impl<'a> Reader<'a> {
    fn new(path: &Path, text: &'a str, default_namespace: &'a str) -> Reader<'a> {
        Reader { file: Arc::from(path), text, default_namespace, out: Parsed::default() }
    }

    fn document(&mut self, document: &Document) {
        let root = &document.root;
        let kind = root.get("kind").and_then(Node::text).unwrap_or_default();
        let is_list =
            kind.ends_with("List") && matches!(root.get("items").map(|n| &n.value), Some(Value::Seq(_)));
        if !is_list {
            return self.object(root, &document.faults);
        }
        let items = root.get("items").map_or(&[][..], Node::items);
        let mut faults = document.faults.as_slice();
        for (i, item) in items.iter().enumerate() {
            // Faults are in order of place, so each item has those up to the next item.
            let end = items.get(i + 1).map_or(Place { line: u32::MAX, column: 0 }, |next| next.at);
            let own = faults.iter().take_while(|fault| fault.at < end).count();
            self.object(item, &faults[..own]);
            faults = &faults[own..];
        }
        self.out.problems.extend(faults.iter().cloned());
    }

    fn problem(&mut self, level: Level, code: &'static str, at: Place, message: String, help: Option<&str>) {
        let mut problem = Problem::in_file(level, code, &self.file, at, message);
        problem.help = help.map(str::to_owned);
        self.out.problems.push(problem);
    }

    fn object(&mut self, root: &Node, faults: &[Problem]) {
        let text = |name: &str| root.get(name).and_then(Node::text);
        match (text("apiVersion"), text("kind")) {
            (Some(api_version), Some(kind)) => self.known(root, faults, api_version, kind),
            (None, None) => {
                self.out.problems.extend(faults.iter().cloned());
                let help = root
                    .get("meshConfig")
                    .map(|_| "a MeshConfig? pass the file with `--mesh-config`, which reads it");
                let message = "no apiVersion and kind: not a Kubernetes object, ignored".to_owned();
                self.problem(Level::Info, "SC006", root.at, message, help);
            }
            (missing, _) => {
                self.out.problems.extend(faults.iter().cloned());
                let name = if missing.is_none() { "apiVersion" } else { "kind" };
                self.problem(Level::Error, "IST0106", root.at, format!("{name}: Required value"), None);
            }
        }
    }

    fn known(&mut self, root: &Node, faults: &[Problem], api_version: &str, name: &str) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let at = root.get("kind").map_or(root.at, |n| n.at);
        match kinds::find(group, version, name) {
            Found::Kind(kind) => self.read(root, faults, kind, None),
            Found::Wrong(kind) => {
                let message = format!("no kind {name:?} in version {api_version:?}");
                let at = root.get("apiVersion").map_or(at, |n| n.at);
                self.read(root, faults, kind, Some((message, at)));
            }
            Found::MeshConfig => {
                self.out.problems.extend(faults.iter().cloned());
                let help = "put it under data.mesh of ConfigMap istio-system/istio, or pass it with \
                            `--mesh-config`";
                let message = "MeshConfig is not a Kubernetes resource".to_owned();
                self.problem(Level::Error, "SC005", at, message, Some(help));
            }
            Found::Unknown if !faults.is_empty() && lost_metadata(root) => {
                let at = root.entry("metadata").map_or(root.at, |(key, _)| key.at);
                let message = format!("kind {name}: {}", lost("metadata"));
                self.problem(Level::Error, "SC001", at, message, Some(INDENT));
            }
            Found::Misspelt(kind) => {
                self.out.problems.extend(faults.iter().cloned());
                let message = format!("there is no kind {name} of {api_version}: ignored");
                let help = format!("did you mean `{}`?", kind.name);
                // What was to be asked of callers must not be lost by a slip.
                let suspect = istio::security::suspect(&self.meta(root, kind), None, &[]);
                let level = if suspect.is_some() { Level::Error } else { Level::Warning };
                self.out.suspects.extend(suspect);
                self.problem(level, "SC006", at, message, Some(&help));
            }
            Found::Unknown => {
                self.out.problems.extend(faults.iter().cloned());
                let message = format!("kind {name} of {api_version} is not used: ignored");
                let help = (group == "serving.knative.dev")
                    .then_some("functions are read from `kind: Service` of serving.knative.dev/v1");
                self.problem(Level::Info, "SC006", at, message, help);
            }
        }
    }

    /// Reads an object of a known kind; `wrong` says what is amiss with its apiVersion.
    fn read(&mut self, root: &Node, faults: &[Problem], kind: &'static Kind, wrong: Option<(String, Place)>) {
        let meta = self.meta(root, kind);
        let findings = Findings::new(Some(meta.object.clone()), self.file.clone());
        for fault in faults {
            let (at, message) = (fault.at, fault.message.clone());
            findings.add_with_help(Level::Error, fault.code, "", at, message, fault.help.clone());
        }
        if let Some((message, at)) = wrong {
            let help = Some(format!("write apiVersion: {}", kind.api_version()));
            findings.add_with_help(Level::Error, "SC005", "apiVersion", at, message, help);
        }
        let (identity, name) = (meta.clone(), meta.object.clone());
        let object = if let Some(lost) = lost_indentation(root, kind) {
            // One clear error; whatever else is found would only follow from it.
            let findings = Findings::new(Some(meta.object), self.file.clone());
            findings.add_with_help(Level::Error, "SC001", "", lost.at, lost.value, Some(INDENT.to_owned()));
            self.out.problems.extend(findings.into_problems());
            self.out.bad.push(name);
            self.out.suspects.extend(istio::security::suspect(&identity, None, &[]));
            return;
        } else {
            self.typed(root, kind, meta, &findings)
        };
        let failed = findings.failed();
        let problems = findings.into_problems();
        match object {
            Some(object) if !failed => self.out.objects.push(object),
            object => {
                let written = matches!(root.get("spec").map(|n| &n.value), Some(Value::Map(_)));
                let selection = object.as_ref().filter(|_| written).and_then(Object::selection).cloned();
                self.out.suspects.extend(istio::security::suspect(&identity, selection, &problems));
                self.out.bad.push(name);
            }
        }
        self.out.problems.extend(problems);
    }

    fn typed(&self, root: &Node, kind: &'static Kind, meta: Meta, findings: &Findings) -> Option<Object> {
        check_names(root, findings);
        if let Some(fields) = kind.fields {
            shape::check(root, fields, matches!(kind.role, KindRole::Acts(_)), findings);
        }
        let cursor = Cursor::new(root, "", findings);
        let unused = |level, code, message: String| findings.add(level, code, "", meta.at, message);
        match kind.role {
            KindRole::Acts(read) => read(&cursor, meta),
            KindRole::Later(rules) => {
                rules(&cursor);
                if !findings.failed() {
                    unused(Level::Warning, "SC007", format!("{} is not enforced yet", kind.name));
                }
                Some(Object::Inert(meta))
            }
            KindRole::MayHoldMesh if kind.name == "ConfigMap" && knative::autoscaler::is(&meta) => {
                Some(Object::Autoscaler(Box::new(knative::autoscaler::decode(&cursor, meta))))
            }
            KindRole::MayHoldMesh => {
                let operator = root.get("spec").and_then(|spec| spec.get("meshConfig"));
                let mesh = match operator {
                    Some(node) if kind.name == "IstioOperator" => {
                        Some(mesh::decode(node, meta.clone(), findings))
                    }
                    _ if kind.name == "ConfigMap" && meta.object.name == "istio" => {
                        mesh::from_config_map(root, self.text, meta.clone(), findings)
                    }
                    _ => None,
                };
                if mesh.is_none() && !findings.failed() {
                    unused(Level::Info, "SC006", format!("this {} is not used: ignored", kind.name));
                }
                Some(mesh.map_or(Object::Inert(meta), Object::Mesh))
            }
        }
    }

    fn mesh(&mut self, node: &Node, at: Place) {
        let object = ObjectRef { kind: "MeshConfig".to_owned(), ..ObjectRef::default() };
        let meta = Meta { object: object.clone(), file: self.file.clone(), at, ..Meta::default() };
        let findings = Findings::new(None, self.file.clone());
        let mesh: MeshConfig = mesh::decode(node, meta, &findings);
        if findings.failed() {
            self.out.bad.push(object);
        } else {
            self.out.objects.push(Object::Mesh(mesh));
        }
        self.out.problems.extend(findings.into_problems());
    }

    fn meta(&self, root: &Node, kind: &'static Kind) -> Meta {
        let findings = Findings::new(None, self.file.clone());
        let cursor = Cursor::new(root, "", &findings);
        let metadata = cursor.field("metadata");
        // Where indentation is lost, they stand at the top.
        let of = |name: &str| metadata.field(name).text_at().or_else(|| cursor.field(name).text_at());
        let name = of("name").unwrap_or_default();
        let namespace = of("namespace").map(|n| n.value).filter(|n| !n.is_empty());
        let object = ObjectRef {
            group: kind.group.to_owned(),
            kind: kind.name.to_owned(),
            namespace: namespace.unwrap_or_else(|| self.default_namespace.to_owned()),
            name: name.value,
        };
        let strings = |name: &str| metadata.field(name).string_map().into_iter();
        Meta {
            object,
            file: self.file.clone(),
            at: root.at,
            name_at: name.at,
            labels: strings("labels").map(|(key, value)| (key.value, value.value)).collect(),
            annotations: strings("annotations").map(|(key, value)| (key.value, value)).collect(),
        }
    }
}

/// `metadata.name` must be there, and both names must be names.
fn check_names(root: &Node, findings: &Findings) {
    let cursor = Cursor::new(root, "", findings);
    let metadata = cursor.field("metadata");
    if !metadata.is_present() {
        // Kinds whose fields are checked have it reported there already.
        findings.add(Level::Error, "IST0106", "metadata", root.at, "Required value".to_owned());
        return;
    }
    let name = metadata.field("name");
    if !name.is_present() && !metadata.field("generateName").is_present() {
        name.error("IST0106", "Required value");
    }
    for field in [name, metadata.field("namespace")] {
        let Some(text) = field.text() else { continue };
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=253).contains(&text.len())
            && text.bytes().all(|b| inner(b) || b == b'-' || b == b'.')
            && text.bytes().next().is_some_and(inner)
            && text.bytes().last().is_some_and(inner);
        if !good {
            let message = format!("{text:?} is not a name: lower-case letters, digits, `-` and `.`");
            field.error("IST0106", message);
        }
    }
}

const INDENT: &str = "indent the fields of each object by two spaces below its key";

fn lost(what: &str) -> String {
    format!("indentation lost: `{what}` is empty and its fields stand at the top level")
}

fn is_empty(root: &Node, name: &str) -> bool {
    root.get(name).is_none_or(|n| n.value == Value::Null)
}

fn lost_metadata(root: &Node) -> bool {
    is_empty(root, "metadata") && (root.get("name").is_some() || root.get("labels").is_some())
}

/// Copied from a page that dropped its leading spaces: `spec` is empty, and its fields stand beside it.
fn lost_indentation(root: &Node, kind: &Kind) -> Option<At<String>> {
    let spec = kind.spec_fields();
    let at_top = |(key, _): &&(document::Key, Node)| spec.iter().any(|f| f.name == key.name);
    let what = if is_empty(root, "spec") && root.entries().iter().any(|entry| at_top(&entry)) {
        "spec"
    } else if lost_metadata(root) {
        "metadata"
    } else {
        return None;
    };
    Some(At::new(lost(what), root.entry(what).map_or(root.at, |(key, _)| key.at)))
}
