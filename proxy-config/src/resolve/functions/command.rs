//! Which command, if any, starts a function on this host.
//!
//! A container's command was written for its image; it runs here only when somebody says so.

use crate::model::Command;
use std::collections::BTreeMap;

/// The program that means this same executable.
const OURSELVES: &str = "pilotlight";

/// What the YAML says.
pub(crate) struct Written<'a> {
    /// The function.
    pub service: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The revision.
    pub revision: &'a str,
    /// The words of the annotation `pilotlight.dev/local-command`.
    pub annotation: Option<&'a [String]>,
    /// The container's `command`.
    pub command: &'a [String],
    /// The container's `args`.
    pub args: &'a [String],
}

/// What the command line allows.
pub(crate) struct Allowed<'a> {
    /// By function, `namespace/function` or revision.
    pub exec: &'a BTreeMap<String, String>,
    /// Every container command.
    pub exec_all: bool,
    /// The built-in echo instead of nothing.
    pub stand_in: bool,
    /// The namespace in which a bare name is enough.
    pub namespace: &'a str,
}

/// Decides. The command line goes before the annotation, the narrower name before the wider.
pub(crate) fn decide(written: &Written<'_>, allowed: &Allowed<'_>) -> Command {
    let qualified = format!("{}/{}", written.namespace, written.service);
    for name in [written.revision, &qualified, written.service] {
        if let Some(line) = allowed.exec.get(name) {
            return from_flag(name, line, written, allowed);
        }
    }
    if let Some(words) = written.annotation.filter(|words| !words.is_empty()) {
        return Command::Run(words.to_vec());
    }
    let ours = written.command.first().is_some_and(|program| program == OURSELVES);
    if ours || (allowed.exec_all && !written.command.is_empty()) {
        return Command::Run(written.command.iter().chain(written.args).cloned().collect());
    }
    if allowed.stand_in {
        return Command::StandIn;
    }
    let reason = if written.command.is_empty() {
        "the function names an image and no command for this host"
    } else {
        "the container's command was written for its image and is not run on this host"
    };
    Command::Refused { reason: reason.to_owned(), help: help(written, allowed) }
}

fn from_flag(name: &str, line: &str, written: &Written<'_>, allowed: &Allowed<'_>) -> Command {
    let fault = match shlex::split(line) {
        Some(words) if !words.is_empty() => return Command::Run(words),
        Some(_) => "is empty",
        None => "has an unclosed quote",
    };
    Command::Refused { reason: format!("the command of --exec {name} {fault}"), help: help(written, allowed) }
}

/// The flags that would make it run.
fn help(written: &Written<'_>, allowed: &Allowed<'_>) -> String {
    let name = if written.namespace == allowed.namespace {
        written.service.to_owned()
    } else {
        format!("{}/{}", written.namespace, written.service)
    };
    let mut flags = format!("add --exec {name}='…' with the command that starts it");
    if !written.command.is_empty() {
        flags.push_str(", or --exec-all to run container commands as they are written");
    }
    flags.push_str(", or --stand-in for the built-in echo");
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        annotation: &'static [&'static str],
        command: &'static [&'static str],
        exec: &'static [(&'static str, &'static str)],
        exec_all: bool,
        stand_in: bool,
    }

    const NOTHING: Case = Case { annotation: &[], command: &[], exec: &[], exec_all: false, stand_in: false };

    fn decided(case: &Case) -> Command {
        let command: Vec<String> = case.command.iter().map(|word| (*word).to_owned()).collect();
        let annotation: Vec<String> = case.annotation.iter().map(|word| (*word).to_owned()).collect();
        let exec = case.exec.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let written = Written {
            service: "hello",
            namespace: "default",
            revision: "hello-00001",
            annotation: Some(&annotation),
            command: &command,
            args: &["--fast".to_owned()],
        };
        let allowed =
            Allowed { exec: &exec, exec_all: case.exec_all, stand_in: case.stand_in, namespace: "default" };
        decide(&written, &allowed)
    }

    fn run(words: &[&str]) -> Command {
        Command::Run(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_is_allowed_runs() {
        let cases = [
            (Case { annotation: &["node", "a.js"], ..NOTHING }, run(&["node", "a.js"])),
            (Case { command: &["pilotlight", "echo"], ..NOTHING }, run(&["pilotlight", "echo", "--fast"])),
            (Case { command: &["/srv"], exec_all: true, ..NOTHING }, run(&["/srv", "--fast"])),
            (
                Case { command: &["/srv"], exec: &[("hello", "python a.py")], ..NOTHING },
                run(&["python", "a.py"]),
            ),
            (Case { exec: &[("hello", "a"), ("default/hello", "b")], ..NOTHING }, run(&["b"])),
            (Case { exec: &[("hello", "a"), ("hello-00001", "c")], ..NOTHING }, run(&["c"])),
            (Case { annotation: &["a"], exec: &[("hello", "b")], ..NOTHING }, run(&["b"])),
            (Case { stand_in: true, command: &["/srv"], ..NOTHING }, Command::StandIn),
        ];
        for (case, expected) in cases {
            assert_eq!(decided(&case), expected);
        }
    }

    #[test]
    fn what_is_not_allowed_says_which_flag_to_add() {
        let refused = |case: &Case| match decided(case) {
            Command::Refused { reason, help } => format!("{reason}; {help}"),
            other => panic!("{other:?}"),
        };
        assert!(refused(&NOTHING).contains("--exec hello='…'"));
        assert!(!refused(&NOTHING).contains("--exec-all"));
        assert!(refused(&Case { command: &["/srv"], ..NOTHING }).contains("--exec-all"));
        assert!(refused(&Case { exec_all: true, ..NOTHING }).contains("names an image"));
        assert!(refused(&Case { exec: &[("hello", "echo 'a")], ..NOTHING }).contains("unclosed quote"));
        assert!(refused(&Case { exec: &[("hello", " ")], ..NOTHING }).contains("is empty"));
    }
}
