//! `pilotlight check`: loads and resolves without running anything, and prints every problem.
//!
//! Silent when all is well. Exit status: 0 no errors, 1 errors, 2 usage. It listens nowhere and starts
//! nothing.

use super::{Format, LoadArgs, LocalArgs};
use crate::control::reload::Paths;
use proxy_config::load::load;
use proxy_config::report::{Level, Problem, Report};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `pilotlight check`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Exit status: 0 no errors (warnings may be printed), 1 errors, 2 wrong usage. No output: all is well."
)]
pub struct CheckArgs {
    /// Files and directories with YAML or JSON; directories are read with all below them
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,

    /// How problems are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,

    /// How the YAML is read.
    #[command(flatten)]
    pub load: LoadArgs,

    /// What of functions would run on this host.
    #[command(flatten)]
    pub local: LocalArgs,
}

/// Status for a path that is not there, as for any wrong argument.
const USAGE: u8 = 2;

/// Prints the problems on standard output.
pub fn run(args: &CheckArgs) -> ExitCode {
    let paths = Paths { paths: args.paths.clone(), mesh_file: args.load.mesh_config.clone() };
    if let Some((path, error)) = paths.missing() {
        eprintln!("pilotlight check: {}: {error}", path.display());
        return ExitCode::from(USAGE);
    }
    let texts = paths.read();
    let report = load(&texts.files, &args.load.options(args.local.options(), texts.mesh_file), None).report;
    let mut out = io::stdout().lock();
    let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let rendered = render(&report, args.format, coloured);
    // Whoever closed the pipe has seen enough.
    let _ = out.write_all(rendered.as_bytes()).and_then(|()| out.flush());
    if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// In order of places. For people errors and warnings; for programs, which can choose, everything.
fn render(report: &Report, format: Format, coloured: bool) -> String {
    if format == Format::Json {
        return format!("{:#}\n", report.json());
    }
    let shown = report.problems().iter().filter(|problem| problem.level != Level::Info);
    let line = |problem: &Problem| {
        let line = problem.to_string();
        if coloured { paint(&line, problem.level) } else { line }
    };
    shown.map(|problem| line(problem) + "\n").collect()
}

/// The level in red or yellow; nothing else of a line is changed.
fn paint(line: &str, level: Level) -> String {
    let colour = match level {
        Level::Error => "31",
        Level::Warning => "33",
        Level::Info => "36",
    };
    let word = level.as_str();
    let painted = format!(" \x1b[1;{colour}m{word}\x1b[0m[");
    line.replacen(&format!(" {word}["), &painted, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_config::report::Place;
    use std::path::Path;

    fn report() -> Report {
        let problem = |level, line| {
            let at = Place { line, column: 1 };
            Problem::in_file(level, "SC001", Path::new("a.yaml"), at, "why").with_help("what to do")
        };
        Report::new(vec![problem(Level::Warning, 2), problem(Level::Error, 1), problem(Level::Info, 3)])
    }

    #[test]
    fn people_get_errors_and_warnings_and_programs_everything() {
        let text = render(&report(), Format::Text, false);
        assert_eq!(
            text,
            "a.yaml:1:1: error[SC001] why\n  help: what to do\na.yaml:2:1: warning[SC001] why\n  help: what to do\n"
        );
        let json: serde_json::Value = serde_json::from_str(&render(&report(), Format::Json, false)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 3);
    }

    #[test]
    fn well_is_silent_and_for_programs_an_empty_list() {
        assert_eq!(render(&Report::default(), Format::Text, true), "");
        assert_eq!(render(&Report::default(), Format::Json, true), "[]\n");
    }

    #[test]
    fn colour_marks_the_level_and_nothing_else() {
        let text = render(&report(), Format::Text, true);
        assert!(text.starts_with("a.yaml:1:1: \x1b[1;31merror\x1b[0m[SC001] why\n"), "{text:?}");
        assert_eq!(text.matches("\x1b[0m").count(), 2);
    }
}
