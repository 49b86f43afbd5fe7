//! What is wrong with the input, and where: one [`Problem`] for each finding, a [`Report`] for all of them.
//!
//! Every stage from text to model adds to it. A report never holds the values of Secrets or ConfigMaps.

use crate::model::ObjectRef;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// A position in a file, counted from 1; line 0 stands for the file as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it was written. Comparison looks at the value alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct At<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub at: Place,
}

impl<T> At<T> {
    /// `value`, written at `at`.
    pub fn new(value: T, at: Place) -> At<T> {
        At { value, at }
    }

    /// Another value at the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), at: self.at }
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &At<T>) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The object is not used.
    Error,
    /// It is used, but not quite as written, or hardly as meant.
    Warning,
    /// Worth knowing.
    Info,
}

impl Level {
    /// Lower case, as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub level: Level,
    /// Istio's code (`IST0101`) where there is one, else one of our own (`SC004`).
    pub code: &'static str,
    /// The object, where its kind and name are known.
    pub object: Option<ObjectRef>,
    /// Field within the object: `spec.http[0].route[1].weight`; may be empty.
    pub path: String,
    /// The file as it was named to us.
    pub file: PathBuf,
    /// Where in the file.
    pub at: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A finding about a file (or a document of it) as such.
    pub fn in_file(
        level: Level,
        code: &'static str,
        file: &Path,
        at: Place,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            level,
            code,
            object: None,
            path: String::new(),
            file: file.to_owned(),
            at,
            message: message.into(),
            help: None,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// `file:line:col: error[CODE] Kind ns/name: path: message`, and a `help:` line where there is help.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.at.line > 0 {
            write!(f, "{}:", self.at)?;
        }
        write!(f, " {}[{}]", self.level.as_str(), self.code)?;
        if let Some(object) = &self.object {
            write!(f, " {object}:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", OneLine(&self.message))?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", help.trim_end().replace('\n', "\n        "))?;
        }
        Ok(())
    }
}

/// Control characters escaped, so that no input can forge a line of a report.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// All findings, ordered by file and place, each told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Orders `problems` and drops repetitions.
    pub fn new(mut problems: Vec<Problem>) -> Report {
        problems.sort_by(|a, b| {
            let key = |p: &Problem| (p.at, p.level, p.code);
            a.file
                .cmp(&b.file)
                .then_with(|| key(a).cmp(&key(b)))
                .then_with(|| (&a.path, &a.message).cmp(&(&b.path, &b.message)))
                .then_with(|| a.object.cmp(&b.object))
        });
        problems.dedup();
        Report { problems }
    }

    /// The findings in order.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is an error among them.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.level == Level::Error)
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Errors and warnings; what is merely worth knowing is left to those who ask for all.
    pub fn shown(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|p| p.level != Level::Info)
    }

    /// Errors and warnings, one a line, help below it; empty when all is well.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for problem in self.shown() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{problem}");
        }
        out
    }

    /// A JSON array of objects with the fields of [`Problem`].
    pub fn json(&self) -> serde_json::Value {
        self.problems.iter().map(problem_json).collect()
    }
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    let object = problem.object.as_ref().map(|o| {
        serde_json::json!({
            "group": o.group, "kind": o.kind, "namespace": o.namespace, "name": o.name,
        })
    });
    serde_json::json!({
        "level": problem.level.as_str(),
        "code": problem.code,
        "object": object,
        "path": problem.path,
        "file": problem.file.to_string_lossy(),
        "line": problem.at.line,
        "column": problem.at.column,
        "message": problem.message,
        "help": problem.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, message: &str) -> Problem {
        let at = Place { line, column: 3 };
        Problem::in_file(Level::Error, "SC004", Path::new("a.yaml"), at, message)
    }

    #[test]
    fn a_problem_reads_file_place_level_code_object_path_message_and_help() {
        let mut p = problem(7, "unknown field \"rout\"").with_help("did you mean `route`?");
        p.path = "spec.http[0].rout".to_owned();
        p.object = Some(ObjectRef {
            group: "networking.istio.io".to_owned(),
            kind: "VirtualService".to_owned(),
            namespace: "default".to_owned(),
            name: "orders".to_owned(),
        });
        assert_eq!(
            p.to_string(),
            "a.yaml:7:3: error[SC004] VirtualService default/orders: spec.http[0].rout: \
             unknown field \"rout\"\n  help: did you mean `route`?"
        );
    }

    #[test]
    fn a_report_is_ordered_by_place_and_tells_each_problem_once() {
        let report = Report::new(vec![problem(9, "b"), problem(2, "a"), problem(9, "b")]);
        let lines: Vec<u32> = report.problems().iter().map(|p| p.at.line).collect();
        assert_eq!(lines, [2, 9]);
        assert!(report.has_errors());
        assert_eq!(report.json()[0]["line"], 2);
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        assert_eq!(problem(1, "x\ny").to_string(), "a.yaml:1:3: error[SC004] x\\ny");
    }
}
