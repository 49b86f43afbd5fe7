//! From a revision to the command that runs it: program, arguments, environment, directory.
//!
//! The environment is clean: a function sees what its YAML says and what the platform promises, not what
//! the person who started the proxy happened to have set.

use crate::auth::Passes;
use proxy_config::model::{Command as Words, Revision};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Taken over from the proxy's own environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LANG"];
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const NO_PROXY: &str = "localhost,127.0.0.1";

/// What is the same for all instances.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// What the program name `pilotlight` means.
    pub executable: PathBuf,
    /// Where functions reach each other by name; none: no proxy is announced to them.
    pub mesh: Option<SocketAddr>,
    /// What each revision says at the mesh to be known by; none: nobody is known there.
    pub passes: Option<Arc<Passes>>,
    /// Variables of the proxy that functions see too.
    pub inherited: Vec<(OsString, OsString)>,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// The system does not say which executable this is.
    pub fn here(mesh: Option<SocketAddr>) -> std::io::Result<Surroundings> {
        let taken = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        Ok(Surroundings { executable: executable()?, mesh, passes: None, inherited: taken.collect() })
    }

    fn path(&self) -> OsString {
        let found = self.inherited.iter().find(|(name, _)| name == "PATH");
        found.map_or_else(|| DEFAULT_PATH.into(), |(_, value)| value.clone())
    }
}

/// This executable. Where there is no /proc to ask, the path it was started by.
fn executable() -> std::io::Result<PathBuf> {
    std::env::current_exe().or_else(|error| {
        let started = std::env::args_os().next().map(PathBuf::from);
        started.filter(|path| path.is_absolute() && path.is_file()).ok_or(error)
    })
}

/// The command of an instance of `revision` that is to listen on `port`.
///
/// # Errors
/// Why it cannot be run, in one clause.
pub(super) fn command(revision: &Revision, port: u16, around: &Surroundings) -> Result<Command, String> {
    match &revision.command {
        Words::Run(words) => beside(revision, words, port, around),
        Words::StandIn => {
            let words = ["pilotlight", "echo", "--name", &revision.service].map(str::to_owned);
            beside(revision, &words, port, around)
        }
        Words::Refused { reason, .. } => Err(reason.clone()),
    }
}

/// Any other command with what an instance finds around it.
///
/// # Errors
/// Why it cannot be run, in one clause.
pub(super) fn beside(
    revision: &Revision,
    words: &[String],
    port: u16,
    around: &Surroundings,
) -> Result<Command, String> {
    let environment = environment(revision, port, around);
    let (first, rest) = words.split_first().ok_or("the command is empty")?;
    let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value);
    let mut command = Command::new(program(first, &revision.directory, path, around)?);
    command.args(rest).env_clear().envs(environment);
    if !revision.directory.as_os_str().is_empty() {
        command.current_dir(&revision.directory);
    }
    Ok(command)
}

/// Later entries win.
fn environment(revision: &Revision, port: u16, around: &Surroundings) -> Vec<(OsString, OsString)> {
    let mut all = vec![("PATH".into(), around.path())];
    all.extend(around.inherited.iter().cloned());
    all.extend(revision.env.iter().map(|(name, value)| (name.into(), value.into())));
    let mut own = |name: &str, value: String| all.push((name.into(), value.into()));
    own("PORT", port.to_string());
    own("K_SERVICE", revision.service.clone());
    own("K_CONFIGURATION", revision.service.clone());
    own("K_REVISION", revision.name.clone());
    if let Some(mesh) = around.mesh {
        let pass = around.passes.as_ref().map(|passes| passes.of(&revision.key) + "@").unwrap_or_default();
        for name in ["http_proxy", "HTTP_PROXY"] {
            own(name, format!("http://{pass}{mesh}"));
        }
        for name in ["no_proxy", "NO_PROXY"] {
            own(name, NO_PROXY.to_owned());
        }
    }
    all
}

/// The file that a program's name means. Found here, not by the child: a program that is not there is
/// then said by name, and the child can be spawned without copying this process.
fn program(
    name: &str,
    directory: &Path,
    path: Option<&OsString>,
    around: &Surroundings,
) -> Result<PathBuf, String> {
    if name == "pilotlight" {
        return Ok(around.executable.clone());
    }
    if name.contains('/') {
        let file = std::path::absolute(directory.join(name)).map_err(|error| error.to_string())?;
        return match file.metadata() {
            Err(error) => Err(format!("{}: {error}", file.display())),
            Ok(_) if is_program(&file) => Ok(file),
            Ok(_) => Err(format!("{} is not an executable file", file.display())),
        };
    }
    let path = path.cloned().unwrap_or_default();
    let found = std::env::split_paths(&path).map(|entry| entry.join(name)).find(|file| is_program(file));
    found.ok_or_else(|| format!("`{name}` is not in PATH ({})", path.to_string_lossy()))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::revision;

    fn around() -> Surroundings {
        Surroundings {
            executable: "/bin/pilot".into(),
            mesh: Some("127.0.0.1:15001".parse().unwrap()),
            passes: None,
            inherited: vec![("PATH".into(), "/bin:/usr/bin".into()), ("HOME".into(), "/home/u".into())],
        }
    }

    fn words(command: &Command) -> Vec<String> {
        let program = std::iter::once(command.get_program());
        program.chain(command.get_args()).map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_environment_is_clean_and_what_the_platform_promises_wins() {
        let mut revision = revision(&["sh"]);
        revision.env =
            [("COLOUR", "red"), ("PORT", "1"), ("HOME", "/")].map(|(k, v)| (k.into(), v.into())).to_vec();
        let command = command(&revision, 4321, &around()).unwrap();
        let all: Vec<_> = command
            .get_envs()
            .map(|(name, value)| {
                format!("{}={}", name.to_string_lossy(), value.unwrap_or_default().to_string_lossy())
            })
            .collect();
        let want = [
            "COLOUR=red",
            "HOME=/",
            "HTTP_PROXY=http://127.0.0.1:15001",
            "K_CONFIGURATION=hello",
            "K_REVISION=hello-00001",
            "K_SERVICE=hello",
            "NO_PROXY=localhost,127.0.0.1",
            "PATH=/bin:/usr/bin",
            "PORT=4321",
            "http_proxy=http://127.0.0.1:15001",
            "no_proxy=localhost,127.0.0.1",
        ];
        assert_eq!(all, want);
    }

    #[test]
    fn program_names_are_found_as_people_expect() {
        let run = |words: &[&str]| command(&revision(words), 1, &around());
        assert_eq!(words(&run(&["pilotlight", "echo"]).unwrap()), ["/bin/pilot", "echo"]);
        assert!(words(&run(&["sh", "-c", "x"]).unwrap())[0].ends_with("/sh"));
        let mut stand_in = revision(&[]);
        stand_in.command = Words::StandIn;
        let stand_in = command(&stand_in, 1, &around()).unwrap();
        assert_eq!(words(&stand_in), ["/bin/pilot", "echo", "--name", "hello"]);
    }

    #[test]
    fn what_cannot_be_run_is_said_by_name() {
        for (words, want) in [
            (&["no-such-program"][..], "`no-such-program` is not in PATH (/bin:/usr/bin)"),
            (&["./none"], "/none: No such file or directory (os error 2)"),
            (&["/etc"], "/etc is not an executable file"),
            (&[], "the command is empty"),
        ] {
            assert_eq!(command(&revision(words), 1, &around()).err().as_deref(), Some(want), "{words:?}");
        }
    }
}
