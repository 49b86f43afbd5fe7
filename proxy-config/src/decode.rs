//! A cursor over a document's tree that knows where it stands and collects every finding.
//!
//! Reading never fails and never stops: an absent or misshapen value reads as `None`. What shape a value
//! must have is checked once, by `api::shape`; here it is only read, so nothing is reported twice.

use crate::document::{Node, Value};
use crate::model::ObjectRef;
use crate::report::{At, Level, Place, Problem};
use crate::units;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The findings about one object while it is read.
#[derive(Debug)]
pub struct Findings {
    /// The object they are about.
    pub object: Option<ObjectRef>,
    /// The file it stands in.
    pub file: Arc<Path>,
    problems: RefCell<Vec<Problem>>,
    failed: Cell<bool>,
}

impl Findings {
    /// None yet.
    pub fn new(object: Option<ObjectRef>, file: Arc<Path>) -> Findings {
        Findings { object, file, problems: RefCell::new(Vec::new()), failed: Cell::new(false) }
    }

    /// Adds one.
    pub fn add(&self, level: Level, code: &'static str, path: &str, at: Place, message: String) {
        self.add_with_help(level, code, path, at, message, None);
    }

    /// Adds one with its remedy.
    pub fn add_with_help(
        &self,
        level: Level,
        code: &'static str,
        path: &str,
        at: Place,
        message: String,
        help: Option<String>,
    ) {
        if level == Level::Error {
            self.failed.set(true);
        }
        let (object, file) = (self.object.clone(), self.file.to_path_buf());
        let path = path.to_owned();
        self.problems.borrow_mut().push(Problem { level, code, object, path, file, at, message, help });
    }

    /// Whether an error is among them.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// All of them.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// A place in an object's tree: a value that is there or not, its path, and where to report.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    node: Option<&'a Node>,
    key_at: Place,
    path: String,
    findings: &'a Findings,
}

impl<'a> Cursor<'a> {
    /// At the root of a tree; `path` is empty or where the tree hangs in its object.
    pub fn new(node: &'a Node, path: &str, findings: &'a Findings) -> Cursor<'a> {
        Cursor { node: Some(node), key_at: node.at, path: path.to_owned(), findings }
    }

    /// A field of this mapping; absent when there is none, or null.
    pub fn field(&self, name: &str) -> Cursor<'a> {
        let found = self.node.and_then(|n| n.entry(name));
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let key_at = found.map_or(self.at(), |(key, _)| key.at);
        let node = found.map(|(_, node)| node).filter(|node| !matches!(node.value, Value::Null));
        Cursor { node, key_at, path, findings: self.findings }
    }

    /// The elements of this list.
    pub fn items(&self) -> impl Iterator<Item = Cursor<'a>> + use<'a> {
        let (path, findings) = (self.path.clone(), self.findings);
        let nodes = self.node.map_or(&[][..], Node::items);
        nodes.iter().enumerate().map(move |(i, node)| Cursor {
            node: Some(node),
            key_at: node.at,
            path: format!("{path}[{i}]"),
            findings,
        })
    }

    /// Keys and values of this mapping, in order.
    pub fn entries(&self) -> impl Iterator<Item = (At<&'a str>, Cursor<'a>)> + use<'a> {
        let (path, findings) = (self.path.clone(), self.findings);
        let entries = self.node.map_or(&[][..], Node::entries);
        entries.iter().map(move |(key, node)| {
            let path = format!("{path}[{}]", key.name);
            let cursor = Cursor { node: Some(node), key_at: key.at, path, findings };
            (At::new(key.name.as_str(), key.at), cursor)
        })
    }

    /// Whether a value stands here.
    pub fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// Whether a mapping stands here.
    pub fn is_object(&self) -> bool {
        matches!(self.node.map(|n| &n.value), Some(Value::Map(_)))
    }

    /// Elements of this list whose `field` reads as that of an earlier one.
    pub fn repeated(&self, field: &str) -> Vec<Cursor<'a>> {
        let mut seen = HashSet::new();
        let mut is_repeated =
            |item: &Cursor<'a>| item.field(field).text().is_some_and(|text| !seen.insert(text));
        self.items().filter(|item| is_repeated(item)).collect()
    }

    /// The value, or the cursor's nothing.
    pub fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// Where the value stands; where it is absent, where its mapping does.
    pub fn at(&self) -> Place {
        self.node.map_or(self.key_at, |node| node.at)
    }

    /// Where the key stands.
    pub fn key_at(&self) -> Place {
        self.key_at
    }

    /// `spec.http[0]`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Text of a scalar; numbers and booleans as they were written.
    pub fn text(&self) -> Option<&'a str> {
        self.node.and_then(Node::text)
    }

    /// Text with its place.
    pub fn text_at(&self) -> Option<At<String>> {
        self.text().map(|text| At::new(text.to_owned(), self.at()))
    }

    /// The same, owned.
    pub fn string(&self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self.node.map(|n| &n.value) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// A number that fits.
    pub fn number<T: FromStr>(&self) -> Option<T> {
        match self.node.map(|n| &n.value) {
            Some(Value::Number(text)) => text.parse().ok(),
            _ => None,
        }
    }

    /// A number with its place.
    pub fn number_at<T: FromStr>(&self) -> Option<At<T>> {
        self.number().map(|value| At::new(value, self.at()))
    }

    /// A length of time in Go's syntax.
    pub fn duration(&self) -> Option<Duration> {
        self.text().and_then(|text| units::duration(text).ok())
    }

    /// A list of strings with their places.
    pub fn strings(&self) -> Vec<At<String>> {
        self.items().filter_map(|item| item.text_at()).collect()
    }

    /// A mapping of strings.
    pub fn string_map(&self) -> Vec<(At<String>, At<String>)> {
        self.entries().filter_map(|(key, value)| Some((key.map(str::to_owned), value.text_at()?))).collect()
    }

    /// Reports an error here.
    pub fn error(&self, code: &'static str, message: impl Into<String>) {
        self.findings.add(Level::Error, code, &self.path, self.at(), message.into());
    }

    /// Reports an error here, with its remedy.
    pub fn error_with_help(&self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into());
        self.findings.add_with_help(Level::Error, code, &self.path, self.at(), message.into(), help);
    }

    /// Reports a warning here.
    pub fn warn(&self, code: &'static str, message: impl Into<String>) {
        self.findings.add(Level::Warning, code, &self.path, self.at(), message.into());
    }

    /// Reports a warning here, with its remedy.
    pub fn warn_with_help(&self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into());
        self.findings.add_with_help(Level::Warning, code, &self.path, self.at(), message.into(), help);
    }

    /// Reports something worth knowing here.
    pub fn note(&self, code: &'static str, message: impl Into<String>) {
        self.findings.add(Level::Info, code, &self.path, self.at(), message.into());
    }
}
