//! YAML (or JSON) text to documents: trees in which every key and value knows its place.
//!
//! The first stage. It knows no kinds and no schema. It bounds depth and size, refuses alias bombs and
//! duplicate keys, and goes on after a bad document at the next `---`. It never keeps text it was given.

use crate::report::{Level, Place, Problem};
use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, ScanError, StrInput};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 64;
/// Nodes of one file, aliases expanded.
const MAX_NODES: usize = 250_000;
/// Documents of one file.
const MAX_DOCUMENTS: usize = 4096;
/// After so many broken documents the rest of a file is not looked at.
const MAX_SYNTAX_ERRORS: usize = 20;
/// Bytes of one file.
pub const MAX_BYTES: usize = 16 << 20;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Place,
    /// What it is.
    pub value: Value,
}

/// What a node holds; scalars are typed by YAML's core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// As written, so that `1.10` keeps its zero.
    Number(String),
    /// Any other scalar, and every quoted one.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping in the order written; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where it stands.
    pub at: Place,
}

impl Node {
    /// The entry of that name, if this is a mapping that has it.
    pub fn entry(&self, name: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(key, node)| (key, node))
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// The entries of a mapping, else none.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list, else none.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            Value::Number(text) | Value::String(text) => Some(text),
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
        }
    }

    /// `a string`, `a list`…, for messages.
    pub fn described(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "an object",
        }
    }
}

/// One document that is more than comments.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its tree; of a duplicate key the first value.
    pub root: Node,
    /// What makes it unusable: a duplicate key, an alias bomb.
    pub faults: Vec<Problem>,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// In order.
    pub documents: Vec<Document>,
    /// Syntax errors; each ends its own document.
    pub problems: Vec<Problem>,
    /// Whether there was a syntax error, so that the file says less than was meant.
    pub broken: bool,
}

/// Reads all documents of a file. Empty ones are skipped.
pub fn read(file: &Path, text: &str) -> Documents {
    let mut out = Documents::default();
    if text.len() > MAX_BYTES {
        let message = format!("file of {} bytes; at most {MAX_BYTES} are read", text.len());
        out.problems.push(Problem::in_file(Level::Error, "SC003", file, Place::default(), message));
        out.broken = true;
        return out;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut budget = MAX_NODES;
    loop {
        let mut builder = Builder::new(file, &mut budget);
        match builder.document(&mut parser) {
            Ok(Some(root)) => {
                let faults = std::mem::take(&mut builder.faults);
                let empty = root.value == Value::Null;
                if !empty {
                    out.documents.push(Document { root, faults });
                }
            }
            Ok(None) => return out,
            Err(error) => {
                out.broken = true;
                out.problems.push(syntax_problem(file, text, &error));
                if out.problems.len() >= MAX_SYNTAX_ERRORS
                    || !matches!(parser.proceed_next_document(), Ok(true))
                {
                    return out;
                }
            }
        }
        if out.documents.len() >= MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents");
            out.problems.push(Problem::in_file(Level::Error, "SC003", file, Place::default(), message));
            out.broken = true;
            return out;
        }
    }
}

type Events<'t> = Parser<'t, StrInput<'t>>;

/// Composes one document from the parser's events.
struct Builder<'a> {
    file: &'a Path,
    budget: &'a mut usize,
    anchors: HashMap<usize, Anchored>,
    faults: Vec<Problem>,
    too_big: bool,
}

/// A value that aliases may repeat.
struct Anchored {
    node: Node,
    size: usize,
    depth: usize,
}

/// A collection that is not closed yet.
enum Open {
    Seq {
        at: Place,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        at: Place,
        anchor: usize,
        entries: Vec<(Key, Node)>,
        seen: HashMap<String, Place>,
        key: Option<Key>,
    },
}

impl<'a> Builder<'a> {
    fn new(file: &'a Path, budget: &'a mut usize) -> Builder<'a> {
        Builder { file, budget, anchors: HashMap::new(), faults: Vec::new(), too_big: false }
    }

    /// The next document; `None` at the end of the text.
    fn document(&mut self, parser: &mut Events<'_>) -> Result<Option<Node>, ScanError> {
        let mut stack: Vec<Open> = Vec::new();
        let mut root = None;
        while let Some(next) = parser.next_event() {
            let (event, span) = next?;
            let at = place(&span.start);
            let done = match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentEnd => {
                    return Ok(Some(root.unwrap_or(Node { at, value: Value::Null })));
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let tag = tag.as_ref().and_then(|t| t.core_suffix().map(str::to_owned));
                    let value = scalar(&text, style, tag.as_deref());
                    Some(self.finished(Node { at, value }, anchor))
                }
                Event::Alias(id) => Some(self.alias(id, at, stack.len())),
                Event::SequenceStart(_, anchor, _) => {
                    stack.push(Open::Seq { at, anchor, items: Vec::new() });
                    None
                }
                Event::MappingStart(_, anchor, _) => {
                    let (entries, seen) = (Vec::new(), HashMap::new());
                    stack.push(Open::Map { at, anchor, entries, seen, key: None });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => stack.pop().map(|open| match open {
                    Open::Seq { at, anchor, items } => {
                        self.finished(Node { at, value: Value::Seq(items) }, anchor)
                    }
                    Open::Map { at, anchor, entries, .. } => {
                        self.finished(Node { at, value: Value::Map(merged(entries)) }, anchor)
                    }
                }),
                _ => None,
            };
            if stack.len() > MAX_DEPTH {
                let message = format!("nested deeper than {MAX_DEPTH} levels");
                return Err(ScanError::new(span.start, message));
            }
            let Some(node) = done else { continue };
            match stack.last_mut() {
                None => root = Some(node),
                Some(Open::Seq { items, .. }) => items.push(node),
                Some(Open::Map { entries, seen, key, .. }) => match key.take() {
                    None => *key = Some(self.key(node)),
                    Some(name) => {
                        if let Some(first) = seen.get(&name.name) {
                            let first = *first;
                            self.duplicate(&name, first);
                        } else {
                            seen.insert(name.name.clone(), name.at);
                            entries.push((name, node));
                        }
                    }
                },
            }
        }
        Ok(None)
    }

    /// Counts a finished node and remembers it where it has an anchor.
    fn finished(&mut self, node: Node, anchor: usize) -> Node {
        self.spend(1, node.at);
        if anchor > 0 {
            let (size, depth) = measure(&node);
            self.spend(size, node.at);
            if !self.too_big {
                self.anchors.insert(anchor, Anchored { node: node.clone(), size, depth });
            }
        }
        node
    }

    fn alias(&mut self, id: usize, at: Place, level: usize) -> Node {
        let nothing = Node { at, value: Value::Null };
        let Some(Anchored { size, depth, .. }) = self.anchors.get(&id) else {
            if !self.too_big {
                self.refuse(at, "an alias inside the value it stands for".to_owned());
            }
            return nothing;
        };
        if level + depth > MAX_DEPTH {
            self.refuse(at, format!("nested deeper than {MAX_DEPTH} levels, aliases expanded"));
            return nothing;
        }
        self.spend(*size, at);
        match self.anchors.get(&id) {
            Some(anchored) if !self.too_big => Node { at, value: anchored.node.value.clone() },
            _ => nothing,
        }
    }

    fn refuse(&mut self, at: Place, message: String) {
        self.faults.push(Problem::in_file(Level::Error, "SC003", self.file, at, message));
    }

    fn spend(&mut self, nodes: usize, at: Place) {
        if self.too_big {
            return;
        }
        match self.budget.checked_sub(nodes) {
            Some(left) => *self.budget = left,
            None => {
                self.too_big = true;
                let message = format!("more than {MAX_NODES} values, aliases expanded");
                self.faults.push(
                    Problem::in_file(Level::Error, "SC003", self.file, at, message)
                        .with_help("split the file, or write out what its aliases repeat"),
                );
            }
        }
    }

    fn key(&mut self, node: Node) -> Key {
        let at = node.at;
        let name = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Seq(_) | Value::Map(_) => {
                let message = format!("{} cannot be a key", node.described());
                let help = "a `{{ … }}` template that was not rendered? quote it, or render it first";
                self.faults
                    .push(Problem::in_file(Level::Error, "SC003", self.file, at, message).with_help(help));
                String::new()
            }
            _ => node.text().unwrap_or_default().to_owned(),
        };
        Key { name, at }
    }

    fn duplicate(&mut self, key: &Key, first: Place) {
        let message = format!("duplicate key {:?}, first written at {first}", key.name);
        self.faults.push(
            Problem::in_file(Level::Error, "SC002", self.file, key.at, message)
                .with_help("keep one of them; if both are meant, the indentation may be lost"),
        );
    }
}

/// How many values a tree holds, and how deep it is. Its depth is bounded, so this may recurse.
fn measure(node: &Node) -> (usize, usize) {
    let below = |(size, depth): (usize, usize), node: &Node| {
        let (more, deeper) = measure(node);
        (size + more, depth.max(deeper))
    };
    let (size, depth) = match &node.value {
        Value::Seq(items) => items.iter().fold((0, 0), below),
        Value::Map(entries) => entries.iter().map(|(_, node)| node).fold((0, 0), below),
        _ => return (1, 0),
    };
    (size + 1, depth + 1)
}

/// Takes in what `<<` brings; entries written out win, earlier mappings win over later ones.
fn merged(entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    let is_merge = |(key, node): &(Key, Node)| {
        key.name == "<<" && !(node.entries().is_empty() && node.items().is_empty())
    };
    if !entries.iter().any(is_merge) {
        return entries;
    }
    let (merges, mut out): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_merge);
    let mut seen: HashSet<String> = out.iter().map(|(key, _)| key.name.clone()).collect();
    for (_, node) in merges {
        let sources = match node.value {
            Value::Seq(items) => items,
            _ => vec![node],
        };
        for (key, value) in sources.iter().flat_map(Node::entries) {
            if seen.insert(key.name.clone()) {
                out.push((key.clone(), value.clone()));
            }
        }
    }
    out
}

fn place(marker: &Marker) -> Place {
    let line = u32::try_from(marker.line()).unwrap_or(u32::MAX);
    let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
    Place { line, column }
}

/// YAML 1.2's core schema. `yes` and `on` stay strings.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Value {
    let owned = || text.to_owned();
    match tag {
        Some("str") => return Value::String(owned()),
        Some("int" | "float") if is_number(text) => return Value::Number(owned()),
        _ => {}
    }
    if style != ScalarStyle::Plain {
        return Value::String(owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(owned()),
        _ => Value::String(owned()),
    }
}

/// Decimal integers and floats; what else YAML calls a number (`0x1F`, `.inf`) no field here wants.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.ends_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().any(|c| c.is_ascii_digit())
        && text.parse::<f64>().is_ok()
}

/// A syntax error in words that lead to its remedy.
fn syntax_problem(file: &Path, text: &str, error: &ScanError) -> Problem {
    let at = place(error.marker());
    let line = text.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
    if let Some((column, marker)) = call_out(line) {
        let at = Place { line: at.line, column };
        let message = format!("unexpected text {marker:?} after quoted value");
        return Problem::in_file(Level::Error, "SC003", file, at, message)
            .with_help("a call-out marker copied from an article? remove it");
    }
    let message = format!("invalid YAML: {}", error.kind());
    let problem = Problem::in_file(Level::Error, "SC003", file, at, message);
    if line.contains('\t') {
        return problem.with_help("a tab in this line; YAML is indented with spaces");
    }
    let indented = |l: &str| l.starts_with([' ', '\t']) && !l.trim().is_empty();
    let is_object = ["kind:", "apiVersion:"].iter().any(|key| text.lines().any(|l| l.starts_with(key)));
    if is_object && !text.lines().any(indented) {
        return problem.with_help("no line is indented: the indentation seems to be lost");
    }
    let message = error.kind().to_string();
    let known = SYNTAX_HELP.iter().find(|(part, _)| message.contains(part));
    known.map_or(problem.clone(), |(_, help)| problem.with_help(*help))
}

/// What most often lies behind the scanner's words.
const SYNTAX_HELP: [(&str, &str); 8] = [
    (
        "mapping values are not allowed",
        "indent it as its neighbours are; a value that holds `: ` wants quotes, and a `:` a space after it",
    ),
    ("comment intercepting", "the next line is indented too far: what stands above it has a value already"),
    ("did not find expected key", "indent it as its neighbours are"),
    ("did not find expected '-'", "indent it as the other fields of its list element are"),
    ("simple key expected", "a key is followed by `:`; or the line is indented too little"),
    ("multiline quoted scalar", "a quote above is not closed"),
    ("did not find expected ',' or", "close the bracket above, or separate its entries by commas"),
    ("unexpected character", "a value that begins with this character wants quotes"),
];

/// `"true" (1)`: where the marker stands and what it reads.
fn call_out(line: &str) -> Option<(u32, &str)> {
    let line = line.trim_end();
    let open = line.rfind(" (")? + 1;
    let marker = &line[open..];
    let number = marker.strip_prefix('(')?.strip_suffix(')')?;
    let quoted = line[..open].trim_end().ends_with(['"', '\'']);
    if !quoted || number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let column = line[..open].chars().count() + 1;
    Some((u32::try_from(column).unwrap_or(u32::MAX), marker))
}

#[cfg(test)]
mod tests;
