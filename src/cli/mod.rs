//! The command line: words to typed arguments, nothing more.
//!
//! `main` parses here and calls the command. Flags of long-running commands can also be set as
//! `PILOTLIGHT_…` in the environment; a flag wins over the environment. This module never opens a socket.

pub mod certs;
pub mod check;
pub mod echo;
pub mod run;
pub mod sidecar;
pub mod simulate;
pub mod values;

pub use certs::CertsArgs;
pub use check::CheckArgs;
pub use echo::EchoArgs;
pub use run::RunArgs;
pub use sidecar::SidecarArgs;
pub use simulate::SimulateArgs;

use clap::{Args, Parser, Subcommand};
use proxy_config::load::{File, Options};
use std::path::PathBuf;
use values::Exec;

/// What `main` was asked to do.
#[derive(Parser, Debug)]
#[command(
    name = "pilotlight",
    version,
    about = "A proxy that runs Istio, Kubernetes and Knative YAML as it is, and wakes functions from zero",
    after_help = "Start with:  pilotlight run DIR        then  curl -H 'Host: NAME.default.localhost' localhost:8080\n\
                  Before it:   pilotlight check DIR      prints every problem with its place and remedy",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve the YAML under PATH: listen, route, start functions on demand, reload on change
    Run(Box<RunArgs>),
    /// Stand beside one workload: mutual TLS and policies in front of it, the mesh for what it calls
    Sidecar(Box<SidecarArgs>),
    /// Load the YAML under PATH without running anything, and print every problem in it
    Check(CheckArgs),
    /// Answer with what was received: a controllable upstream, test function and target for load
    Echo(EchoArgs),
    /// Replay a trace of invocations and compare what each scaling policy would have cost
    Simulate(Box<SimulateArgs>),
    /// Make a development certificate authority, and certificates of workloads and hosts
    Certs(CertsArgs),
    /// Ends the process groups of functions when the proxy that started it dies
    #[command(hide = true)]
    Watchdog,
}

/// How the YAML is to be read; the same for every command that reads it.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Namespace of objects that name none
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_NAMESPACE", default_value = "default",
          value_parser = values::label, hide_env_values = true)]
    pub namespace: String,

    /// MeshConfig: the ConfigMap `istio`, a Helm or IstioOperator fragment, or the bare fields
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_MESH_CONFIG", hide_env_values = true)]
    pub mesh_config: Option<PathBuf>,
}

/// What of functions runs on this host, and under which names.
#[derive(Args, Clone, Debug)]
pub struct LocalArgs {
    /// Domain of function hosts on gateways: NAME.NAMESPACE.DOMAIN
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_DOMAIN", default_value_t = LocalArgs::default().domain,
          value_parser = values::domain, hide_env_values = true)]
    pub domain: String,

    /// Run function NAME with this command on this host instead of its container image; repeatable
    /// (PILOTLIGHT_EXEC: one a line)
    ///
    /// Split as a shell would, but no shell runs it. The command must listen on $PORT.
    #[arg(
        long,
        value_name = "NAME='COMMAND'",
        env = "PILOTLIGHT_EXEC",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub exec: Vec<Exec>,

    /// Run every container `command` in the YAML on this host
    ///
    /// Those commands were written for a container: only use it with YAML you trust and whose programs
    /// are installed here.
    #[arg(long, env = "PILOTLIGHT_EXEC_ALL", value_parser = clap::builder::BoolishValueParser::new(),
          hide_env_values = true)]
    pub exec_all: bool,

    /// Let the built-in echo answer for functions that may not be run on this host
    #[arg(long, env = "PILOTLIGHT_STAND_IN", value_parser = clap::builder::BoolishValueParser::new(),
          hide_env_values = true)]
    pub stand_in: bool,
}

impl Default for LocalArgs {
    fn default() -> LocalArgs {
        LocalArgs { domain: Options::default().domain, exec: Vec::new(), exec_all: false, stand_in: false }
    }
}

impl LocalArgs {
    /// The same for `proxy_config::load`.
    pub fn options(&self) -> Options {
        Options {
            domain: self.domain.clone(),
            exec: self.exec.iter().map(|exec| (exec.name.clone(), exec.command.clone())).collect(),
            exec_all: self.exec_all,
            stand_in: self.stand_in,
            ..Options::default()
        }
    }
}

impl LoadArgs {
    /// The same for `proxy_config::load`, which also wants the text of the mesh file; `local` is what it is
    /// told of functions.
    pub fn options(&self, local: Options, mesh_file: Option<File>) -> Options {
        Options { namespace: self.namespace.clone(), mesh_file, ..local }
    }
}

/// How a listing is written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_arguments_print_help_and_are_a_usage_error() {
        let error = Cli::try_parse_from(["pilotlight"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
