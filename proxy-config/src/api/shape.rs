//! Shapes: which fields a kind has, of what type, and whether they act. One check for all kinds.
//!
//! The tables stand beside the kinds. What a field means, and rules between fields, are the decoders' part;
//! they may rely on nothing here but on not having to report what this reports.

use crate::decode::Findings;
use crate::document::{Node, Value};
use crate::report::{Level, Place};
use crate::units;

/// The type of a value.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// Not looked into.
    Any,
    /// A string. A bare number or boolean is taken as it is written, with a warning.
    Text,
    /// A string; a bare number or boolean is an error, as it is for `kubectl`.
    StrictText,
    /// A string or a whole number.
    TextOrInt,
    /// `true` or `false`.
    Bool,
    /// A whole number in a range, both ends included.
    Int(i64, i64),
    /// A number in a range.
    Float(f64, f64),
    /// At least 1 ms, in whole milliseconds.
    Duration,
    /// Any length of time, zero included.
    DurationOrZero,
    /// An amount as Kubernetes writes it.
    Quantity,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A mapping with keys of the user's choice.
    Map(&'static Shape),
    /// A mapping with these keys.
    Object(&'static [Field]),
}

/// A list of strings.
pub(crate) const TEXTS: Shape = Shape::List(&Shape::Text);
/// A mapping of strings, such as labels.
pub(crate) const LABELS: Shape = Shape::Map(&Shape::StrictText);
/// A non-negative 32-bit number.
pub(crate) const COUNT: Shape = Shape::Int(0, u32::MAX as i64);
/// A 32-bit number whose range the decoder checks.
pub(crate) const INT: Shape = Shape::Int(i32::MIN as i64, i32::MAX as i64);
/// A port.
pub(crate) const PORT: Shape = Shape::Int(1, 65535);

/// A key of an object.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) role: Role,
}

/// What becomes of a field.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// It acts.
    Acts,
    /// It acts and must be there.
    Required,
    /// It is known and does not act yet: this is what it would do.
    Inert(&'static str),
    /// It is accepted silently: it has no bearing on a proxy.
    Ignored,
    /// It acts still; this is to be written instead.
    Deprecated(&'static str),
    /// People write it here; this is where it belongs.
    Misplaced(&'static str),
    /// People write it and no kind has it; this is what does what they mean.
    Stray(&'static str),
}

impl Field {
    fn is_wanted(&self) -> bool {
        !matches!(self.role, Role::Misplaced(_) | Role::Stray(_))
    }
}

pub(crate) const fn acts(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, role: Role::Acts }
}

pub(crate) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, role: Role::Required }
}

pub(crate) const fn inert(name: &'static str, shape: Shape, what: &'static str) -> Field {
    Field { name, shape, role: Role::Inert(what) }
}

pub(crate) const fn ignored(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, role: Role::Ignored }
}

pub(crate) const fn deprecated(name: &'static str, shape: Shape, instead: &'static str) -> Field {
    Field { name, shape, role: Role::Deprecated(instead) }
}

pub(crate) const fn misplaced(name: &'static str, help: &'static str) -> Field {
    Field { name, shape: Shape::Any, role: Role::Misplaced(help) }
}

pub(crate) const fn stray(name: &'static str, help: &'static str) -> Field {
    Field { name, shape: Shape::Any, role: Role::Stray(help) }
}

/// Whether a value asks for nothing that is not so anyway: `false`, no session affinity, everybody.
fn asks_for_nothing(value: &Node) -> bool {
    match &value.value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "None",
        Value::Seq(items) => matches!(items.as_slice(), [only] if only.text() == Some("*")),
        _ => false,
    }
}

/// Checks a whole object against the fields of its kind.
///
/// `active` is false for kinds that do not act at all, so that their fields are not each warned about.
pub(crate) fn check(root: &Node, fields: &'static [Field], active: bool, findings: &Findings) {
    let mut checker = Checker { findings, active, above: Vec::new() };
    checker.object(root, "", fields);
}

struct Checker<'a> {
    findings: &'a Findings,
    active: bool,
    /// The objects around the one being checked, outermost first: path and fields.
    above: Vec<(String, &'static [Field])>,
}

impl Checker<'_> {
    fn error(&self, path: &str, at: Place, message: String, help: Option<String>) {
        self.findings.add_with_help(Level::Error, "IST0106", path, at, message, help);
    }

    fn object(&mut self, node: &Node, path: &str, fields: &'static [Field]) {
        for (key, value) in node.entries() {
            let below = join(path, &key.name);
            match fields.iter().find(|f| f.name == key.name) {
                Some(field) => {
                    self.above.push((path.to_owned(), fields));
                    self.field(field, value, key.at, &below);
                    self.above.pop();
                }
                None => {
                    let message = format!("unknown field {:?}", key.name);
                    let help =
                        self.home_of(&key.name, path, fields).or_else(|| suggestion(&key.name, fields));
                    self.findings.add_with_help(Level::Error, "SC004", &below, key.at, message, help);
                }
            }
        }
        for field in fields.iter().filter(|f| matches!(f.role, Role::Required)) {
            if node.get(field.name).is_none_or(|n| n.value == Value::Null) {
                self.error(&join(path, field.name), node.at, "Required value".to_owned(), None);
            }
        }
    }

    /// Where a field that is unknown here is known: in an object around this one, or just below it.
    fn home_of(&self, name: &str, path: &str, fields: &'static [Field]) -> Option<String> {
        let has = |fields: &'static [Field]| fields.iter().any(|f| f.name == name && f.is_wanted());
        if let Some((home, _)) =
            self.above.iter().rev().find(|(home, fields)| !home.is_empty() && has(fields))
        {
            return Some(format!("it belongs to `{home}`: check the indentation"));
        }
        let below = fields.iter().find(|field| match field.shape {
            Shape::Object(inner) => has(inner),
            _ => false,
        })?;
        Some(format!("it belongs to `{}`: check the indentation", join(path, below.name)))
    }

    fn field(&mut self, field: &'static Field, value: &Node, key_at: Place, path: &str) {
        match field.role {
            Role::Misplaced(help) | Role::Stray(help) => {
                let message = format!("unknown field {:?}", field.name);
                let code = if matches!(field.role, Role::Stray(_)) { "SC004" } else { "SC040" };
                let help = Some(help.to_owned());
                self.findings.add_with_help(Level::Error, code, path, key_at, message, help);
                return;
            }
            Role::Deprecated(instead) => {
                let message = format!("{:?} is deprecated", field.name);
                let help = Some(format!("write {instead} instead"));
                self.findings.add_with_help(Level::Warning, "IST0002", path, key_at, message, help);
            }
            Role::Inert(what) if self.active && !asks_for_nothing(value) => {
                let message = format!("{what}: read, but does not act yet");
                self.findings.add(Level::Warning, "SC007", path, key_at, message);
            }
            _ => {}
        }
        if value.value == Value::Null {
            // A required one is reported as missing.
            if !matches!(field.role, Role::Required) {
                self.null(&field.shape, key_at, path);
            }
            return;
        }
        let active = self.active;
        self.active &= !matches!(field.role, Role::Inert(_) | Role::Ignored);
        self.value(&field.shape, value, path);
        self.active = active;
    }

    /// Null stands for "not written" where a scalar or labels belong; elsewhere it is a lost value.
    fn null(&self, shape: &Shape, at: Place, path: &str) {
        let lost = match shape {
            Shape::List(_) | Shape::Object(_) => true,
            Shape::Map(inner) => !matches!(inner, Shape::Text | Shape::StrictText | Shape::Any),
            _ => false,
        };
        if lost {
            let help = "indent what belongs to it below it, or remove the key".to_owned();
            self.error(path, at, "cannot be null".to_owned(), Some(help));
        }
    }

    fn value(&mut self, shape: &Shape, node: &Node, path: &str) {
        match *shape {
            Shape::Any => {}
            Shape::Text => self.text(node, path, Level::Warning),
            Shape::StrictText => self.text(node, path, Level::Error),
            Shape::TextOrInt => {
                if !matches!(node.value, Value::String(_)) {
                    self.integer(node, path, i64::MIN, i64::MAX);
                }
            }
            Shape::Bool => {
                if !matches!(node.value, Value::Bool(_)) {
                    self.wrong(node, path, "a boolean");
                }
            }
            Shape::Int(min, max) => self.integer(node, path, min, max),
            Shape::Float(min, max) => self.float(node, path, min, max),
            Shape::Duration => self.measure(node, path, units::duration_in_millis),
            Shape::DurationOrZero => self.measure(node, path, units::duration),
            Shape::Quantity => self.measure(node, path, units::quantity_millis),
            Shape::Choice(words) => self.choice(node, path, words),
            Shape::List(inner) => self.list(inner, node, path),
            Shape::Map(inner) => self.map(inner, node, path),
            Shape::Object(fields) => match node.value {
                Value::Map(_) => self.object(node, path, fields),
                _ => self.wrong(node, path, "an object"),
            },
        }
    }

    fn wrong(&self, node: &Node, path: &str, want: &str) {
        let help = match (&node.value, want) {
            (Value::String(text), "a boolean") if text == "true" || text == "false" => {
                Some(format!("write {text} without quotes"))
            }
            (Value::String(text), "a boolean") if matches!(text.as_str(), "yes" | "no" | "on" | "off") => {
                Some("write true or false".to_owned())
            }
            (Value::String(text), "an integer") if text.parse::<i64>().is_ok() => {
                Some(format!("write {text} without quotes"))
            }
            (_, "a list") => Some("begin each element with `- `".to_owned()),
            _ => None,
        };
        self.error(path, node.at, format!("must be {want}, not {}", node.described()), help);
    }

    fn text(&self, node: &Node, path: &str, level: Level) {
        match &node.value {
            Value::String(_) => {}
            Value::Number(_) | Value::Bool(_) => {
                let text = node.text().unwrap_or_default();
                let message = format!("must be a string, not {}", node.described());
                let help = Some(format!("quote it: \"{text}\""));
                let code = if level == Level::Error { "IST0106" } else { "IST0133" };
                self.findings.add_with_help(level, code, path, node.at, message, help);
            }
            // Kubernetes takes a null label or annotation for an empty one.
            Value::Null => {}
            Value::Seq(_) | Value::Map(_) => self.wrong(node, path, "a string"),
        }
    }

    fn integer(&self, node: &Node, path: &str, min: i64, max: i64) {
        let Value::Number(text) = &node.value else {
            return self.wrong(node, path, "an integer");
        };
        let Ok(value) = text.parse::<i64>() else {
            return self.error(path, node.at, format!("must be an integer, not {text}"), None);
        };
        if (min, max) == (1, 65535) && units::port(value).is_err() {
            self.error(path, node.at, format!("port {value} must be in the range 1..65535"), None);
        } else if !(min..=max).contains(&value) {
            let message = if (min, max) == (i64::from(i32::MIN), i64::from(i32::MAX)) || min == max {
                format!("{value} does not fit")
            } else {
                format!("{value} must be in the range {min}..{max}")
            };
            self.error(path, node.at, message, None);
        }
    }

    fn float(&self, node: &Node, path: &str, min: f64, max: f64) {
        let Value::Number(text) = &node.value else {
            return self.wrong(node, path, "a number");
        };
        match text.parse::<f64>() {
            Ok(value) if (min..=max).contains(&value) => {}
            Ok(value) if (min, max) == (0.0, 100.0) => {
                let message = units::percent(value).err().unwrap_or_default();
                self.error(path, node.at, message, None);
            }
            _ => self.error(path, node.at, format!("{text} must be in the range {min}..{max}"), None),
        }
    }

    fn measure<T>(&self, node: &Node, path: &str, read: fn(&str) -> Result<T, String>) {
        match &node.value {
            Value::String(text) | Value::Number(text) => {
                if let Err(message) = read(text) {
                    let zero = units::duration(text).is_ok_and(|length| length.is_zero());
                    let help = zero.then(|| "leave it out for no limit".to_owned());
                    self.error(path, node.at, message, help);
                }
            }
            _ => self.wrong(node, path, "an amount with its unit"),
        }
    }

    fn choice(&self, node: &Node, path: &str, words: &[&str]) {
        let Some(text) = node.text() else { return self.wrong(node, path, "a string") };
        if words.contains(&text) {
            return;
        }
        let list: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
        let message = format!("Unsupported value: {text:?}: supported values: {}", list.join(", "));
        let help = nearest(text, words.iter().copied()).map(|w| format!("did you mean `{w}`?"));
        self.error(path, node.at, message, help);
    }

    fn list(&mut self, inner: &Shape, node: &Node, path: &str) {
        if !matches!(node.value, Value::Seq(_)) {
            return self.wrong(node, path, "a list");
        }
        for (i, item) in node.items().iter().enumerate() {
            let below = format!("{path}[{i}]");
            if item.value == Value::Null {
                self.error(&below, item.at, "cannot be null".to_owned(), None);
            } else {
                self.value(inner, item, &below);
            }
        }
    }

    fn map(&mut self, inner: &Shape, node: &Node, path: &str) {
        if !matches!(node.value, Value::Map(_)) {
            return self.wrong(node, path, "an object");
        }
        for (key, value) in node.entries() {
            let below = format!("{path}[{}]", key.name);
            if value.value == Value::Null {
                self.null(inner, key.at, &below);
            } else {
                self.value(inner, value, &below);
            }
        }
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn suggestion(name: &str, fields: &'static [Field]) -> Option<String> {
    if let Some(rest) = name.strip_prefix('-') {
        return Some(format!("an element of a list? write a space after its dash: `- {rest}`"));
    }
    let known = || fields.iter().filter(|f| f.is_wanted()).map(|f| f.name);
    if let Some(near) = nearest(name, known()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let mut names: Vec<&str> = known().collect();
    if names.is_empty() || names.len() > 14 {
        return None;
    }
    names.sort_unstable();
    Some(format!("known here: {}", names.join(", ")))
}

/// The word that `text` was probably meant to be.
pub(crate) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if text.len() > 64 {
        return None;
    }
    let plain = |s: &str| s.to_ascii_lowercase().replace(['_', '-'], "");
    let want = plain(text);
    let (distance, word) = words.map(|w| (edit_distance(&want, &plain(w)), w)).min_by_key(|(d, _)| *d)?;
    let close = if want.len() <= 4 { 1 } else { 2 };
    (distance <= close && distance < want.len()).then_some(word)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j - 1] + same).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_the_one_that_was_meant() {
        let check = |text: &str, want: Option<&str>| {
            let words = ["route", "retries", "redirect", "perTryTimeout", "match"];
            assert_eq!(nearest(text, words.into_iter()), want, "{text}");
        };
        check("retires", Some("retries"));
        check("rout", Some("route"));
        check("pertrytimeout", Some("perTryTimeout"));
        check("per_try_timeout", Some("perTryTimeout"));
        check("foo", None);
        check("", None);
    }
}
