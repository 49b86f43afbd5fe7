//! `pilotlight run`: its arguments.

use super::values::{self, PortMap};
use super::{LoadArgs, LocalArgs};
use crate::autoscaler::Flavour;
use crate::control::scale::Pace;
use proxy_config::load::{File, Options, Sidecar};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Of a sidecar, while those who route to it hear that it goes.
const BESIDE_OTHERS: Duration = Duration::from_secs(5);

/// Arguments of `pilotlight run`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Every flag can also be set in the environment as shown; a flag wins.\n\
                        Stop with SIGTERM or Ctrl-C: requests in flight are finished first. A second one hurries.")]
pub struct RunArgs {
    /// How it serves.
    #[command(flatten)]
    pub serve: ServeArgs,

    /// What it serves besides one workload.
    #[command(flatten)]
    pub alone: AloneArgs,

    /// Whom it stands beside, where not for all: `pilotlight sidecar`.
    #[arg(skip)]
    pub sidecar: Option<Sidecar>,
}

/// How traffic is served, by whichever command.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct ServeArgs {
    /// Files and directories with YAML or JSON; directories are read with all below them
    #[arg(value_name = "PATH", default_value = ".", help_heading = None)]
    pub paths: Vec<PathBuf>,

    /// Where the admin API listens; keep it on this host
    #[arg(long, value_name = "ADDR", env = "PILOTLIGHT_ADMIN", default_value = "127.0.0.1:15000",
          value_parser = values::address, hide_env_values = true)]
    pub admin: SocketAddr,

    /// Where /stats/prometheus and /healthz/ready are served, read-only, for scrapers and probes; off
    /// unless given (both are on the admin API too)
    #[arg(long, value_name = "ADDR", env = "PILOTLIGHT_STATS", value_parser = values::address, hide_env_values = true)]
    pub stats: Option<SocketAddr>,

    /// The workload's own certificate for mutual TLS: a directory with cert-chain.pem, key.pem and
    /// root-cert.pem (or tls.crt, tls.key and ca.crt); read again when it changes
    #[arg(
        long,
        value_name = "DIR",
        env = "PILOTLIGHT_CERTS",
        help_heading = "Configuration",
        hide_env_values = true
    )]
    pub certs: Option<PathBuf>,

    /// How the YAML is read.
    #[command(flatten, next_help_heading = "Configuration")]
    pub load: LoadArgs,

    /// Refuse a configuration with errors instead of serving what is good in it
    #[arg(long, env = "PILOTLIGHT_STRICT", value_parser = clap::builder::BoolishValueParser::new(),
          help_heading = "Configuration", hide_env_values = true)]
    pub strict: bool,

    /// Requests that wait for functions, of all functions together, at most
    #[arg(
        long,
        value_name = "N",
        env = "PILOTLIGHT_MAX_HELD",
        default_value_t = 100_000,
        help_heading = "Process",
        hide_env_values = true
    )]
    pub max_held: u32,

    /// Bytes that such requests keep in memory meanwhile, at most, such as 256Mi
    #[arg(long, value_name = "BYTES", env = "PILOTLIGHT_MAX_HELD_BYTES", default_value = "256Mi",
          value_parser = values::bytes, help_heading = "Process", hide_env_values = true)]
    pub max_held_bytes: u64,

    /// A request body that looks like one message (HTTP/1, or with a length, and not gRPC's) and of which no byte
    /// comes for this long is answered with 408; 0s: never
    #[arg(long, value_name = "DURATION", env = "PILOTLIGHT_BODY_TIMEOUT", default_value = "60s",
          value_parser = values::duration, help_heading = "Process", hide_env_values = true)]
    pub body_timeout: Duration,

    /// A client that takes nothing of its answers for this long loses its connection; 0s: never
    #[arg(long, value_name = "DURATION", env = "PILOTLIGHT_ANSWER_TIMEOUT", default_value = "60s",
          value_parser = values::duration, help_heading = "Process", hide_env_values = true)]
    pub answer_timeout: Duration,

    /// From this part of the memory limit on, new requests from outside get 503 until it is 5 points less; 0: never
    #[arg(long, value_name = "PERCENT", env = "PILOTLIGHT_SHED_MEMORY", default_value_t = 90,
          value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Process", hide_env_values = true)]
    pub shed_memory: u8,

    /// The control group whose memory counts [default: the process's own]
    #[arg(
        long,
        value_name = "DIR",
        env = "PILOTLIGHT_CGROUP",
        help_heading = "Process",
        hide_env_values = true
    )]
    pub cgroup: Option<PathBuf>,

    /// Threads that carry traffic [default: MeshConfig's concurrency, else the CPU quota rounded up]
    #[arg(long, value_name = "N", env = "PILOTLIGHT_WORKERS",
          value_parser = clap::value_parser!(u16).range(1..=512), help_heading = "Process", hide_env_values = true)]
    pub workers: Option<u16>,

    /// error, warn, info, debug, trace, or a filter such as info,pilotlight::control=debug
    #[arg(long, value_name = "LEVEL", env = "PILOTLIGHT_LOG_LEVEL", default_value = "info",
          value_parser = values::log_level, help_heading = "Process", hide_env_values = true)]
    pub log_level: String,

    /// One line for each request on standard output [default: what MeshConfig says, else text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PILOTLIGHT_ACCESS_LOG",
        help_heading = "Process",
        hide_env_values = true
    )]
    pub access_log: Option<AccessLog>,

    /// Refusals, matches of AUDIT policies, reloads and admin changes, a JSON object a line: a file, stdout, or off
    #[arg(
        long,
        value_name = "FILE",
        env = "PILOTLIGHT_AUDIT_LOG",
        default_value = "off",
        help_heading = "Process",
        hide_env_values = true
    )]
    pub audit_log: String,

    /// After SIGTERM, keep accepting this long while /ready already fails [default: 0s; a sidecar 5s]
    #[arg(long, value_name = "DURATION", env = "PILOTLIGHT_DRAIN_DELAY",
          value_parser = values::duration, help_heading = "Process", hide_env_values = true)]
    pub drain_delay: Option<Duration>,

    /// After SIGTERM, exit within this time even if requests are still in flight
    #[arg(long, value_name = "DURATION", env = "PILOTLIGHT_DRAIN_TIMEOUT", default_value = "30s",
          value_parser = values::duration, help_heading = "Process", hide_env_values = true)]
    pub drain_timeout: Duration,
}

/// Gateways, and functions as local processes: what stands alone has, and a sidecar has not.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub struct AloneArgs {
    /// Where gateway servers listen
    #[arg(
        long,
        value_name = "IP",
        env = "PILOTLIGHT_BIND",
        default_value_t = AloneArgs::default().bind,
        hide_env_values = true
    )]
    pub bind: IpAddr,

    /// Port of the default gateway, which exists when the YAML has no Gateway; 0: any free one
    #[arg(
        long,
        value_name = "PORT",
        env = "PILOTLIGHT_HTTP_PORT",
        default_value_t = AloneArgs::default().http_port,
        hide_env_values = true
    )]
    pub http_port: u16,

    /// Listen on port TO for Gateway servers with port FROM; repeatable (PILOTLIGHT_PORT_MAP: with commas)
    ///
    /// Without it, 80 becomes 8080 and 443 becomes 8443 where ports below 1024 may not be bound.
    #[arg(
        long,
        value_name = "FROM:TO",
        env = "PILOTLIGHT_PORT_MAP",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub port_map: Vec<PortMap>,

    /// Where functions and local programs reach the mesh; also an HTTP proxy (http_proxy=…)
    #[arg(long, value_name = "ADDR", env = "PILOTLIGHT_MESH", default_value_t = AloneArgs::default().mesh,
          value_parser = values::address, hide_env_values = true)]
    pub mesh: SocketAddr,

    /// What of functions runs on this host.
    #[command(flatten, next_help_heading = "Functions")]
    pub local: LocalArgs,

    /// Instances of all functions together, at most
    #[arg(long, value_name = "N", env = "PILOTLIGHT_MAX_INSTANCES", default_value_t = AloneArgs::default().max_instances,
          value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Functions", hide_env_values = true)]
    pub max_instances: u32,

    /// Instances of all functions together that are started in a second, in the long run; 0: no limit
    #[arg(
        long,
        value_name = "N",
        env = "PILOTLIGHT_START_RATE",
        default_value_t = AloneArgs::default().start_rate,
        help_heading = "Functions",
        hide_env_values = true
    )]
    pub start_rate: u32,

    /// The same for each function's revision
    #[arg(
        long,
        value_name = "N",
        env = "PILOTLIGHT_FUNCTION_START_RATE",
        default_value_t = AloneArgs::default().function_start_rate,
        help_heading = "Functions",
        hide_env_values = true
    )]
    pub function_start_rate: u32,

    /// Instances of all functions together that may be starting at a time; 0: no limit
    #[arg(
        long,
        value_name = "N",
        env = "PILOTLIGHT_STARTING_AT_ONCE",
        default_value_t = AloneArgs::default().starting_at_once,
        help_heading = "Functions",
        hide_env_values = true
    )]
    pub starting_at_once: u32,

    /// Whose arithmetic decides how many instances a function has
    #[arg(
        long,
        value_name = "NAME",
        env = "PILOTLIGHT_AUTOSCALER",
        value_enum,
        default_value_t = AloneArgs::default().autoscaler,
        help_heading = "Functions",
        hide_env_values = true
    )]
    pub autoscaler: Autoscaler,
}

impl Default for AloneArgs {
    fn default() -> AloneArgs {
        AloneArgs {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            http_port: 8080,
            port_map: Vec::new(),
            mesh: SocketAddr::from((Ipv4Addr::LOCALHOST, 15001)),
            local: LocalArgs::default(),
            max_instances: 64,
            start_rate: 50,
            function_start_rate: 10,
            starting_at_once: 0,
            autoscaler: Autoscaler::Pilotlight,
        }
    }
}

impl RunArgs {
    /// How the YAML is to be read.
    pub fn options(&self, mesh_file: Option<File>) -> Options {
        let local = self.alone.local.options();
        Options { sidecar: self.sidecar.clone(), ..self.serve.load.options(local, mesh_file) }
    }

    /// How many instances may be started in a while, and at once.
    pub fn pace(&self) -> Pace {
        let alone = &self.alone;
        Pace {
            process: alone.start_rate.into(),
            function: alone.function_start_rate.into(),
            at_once: alone.starting_at_once,
        }
    }

    /// How long readiness fails before new work is turned away. In a pod others must hear of it first.
    pub fn drain_delay(&self) -> Duration {
        let usual = if self.sidecar.is_some() { BESIDE_OTHERS } else { Duration::ZERO };
        self.serve.drain_delay.unwrap_or(usual)
    }
}

/// `--autoscaler`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autoscaler {
    /// The whole queue counts at once, and what is starting counts as there
    Pilotlight,
    /// Knative's own (KPA), exactly: for comparison
    Knative,
}

impl From<Autoscaler> for Flavour {
    fn from(autoscaler: Autoscaler) -> Flavour {
        match autoscaler {
            Autoscaler::Pilotlight => Flavour::Pilotlight,
            Autoscaler::Knative => Flavour::Knative,
        }
    }
}

/// `--access-log`; where it is not given, MeshConfig decides.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None, whatever MeshConfig says
    Off,
    /// Istio's text format
    Text,
    /// Istio's JSON format
    Json,
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<super::RunArgs, String> {
        let words = shlex::split(line).unwrap();
        let words = ["pilotlight", "run"].into_iter().map(str::to_owned).chain(words);
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Run(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_everything_stays_on_this_host() {
        let args = parse("").unwrap();
        assert_eq!(args.serve.paths, [std::path::PathBuf::from(".")]);
        assert!(
            args.alone.bind.is_loopback()
                && args.serve.admin.ip().is_loopback()
                && args.alone.mesh.ip().is_loopback()
        );
        assert_eq!(
            (args.serve.admin.port(), args.alone.mesh.port(), args.alone.http_port),
            (15000, 15001, 8080)
        );
        assert_eq!((args.serve.stats, args.serve.access_log, args.serve.workers), (None, None, None));
        assert_eq!((args.drain_delay().as_secs(), args.serve.drain_timeout.as_secs()), (0, 30));
        assert_eq!(
            (args.serve.load.namespace.as_str(), args.alone.local.domain.as_str()),
            ("default", "localhost")
        );
        assert_eq!(
            (args.alone.max_instances, args.serve.max_held, args.serve.max_held_bytes),
            (64, 100_000, 256 << 20)
        );
        assert_eq!((args.alone.start_rate, args.alone.function_start_rate), (50, 10));
        assert_eq!(args.alone.autoscaler, super::Autoscaler::Pilotlight);
        assert!(!args.serve.strict && !args.alone.local.exec_all && !args.alone.local.stand_in);
    }

    #[test]
    fn repeatable_flags_gather() {
        let args =
            parse("a b --port-map 80:8080 --port-map 443:8443 --exec x='sh -c \"a, b\"' --exec y=z").unwrap();
        assert_eq!(args.serve.paths.len(), 2);
        assert_eq!(args.alone.port_map.len(), 2);
        assert_eq!(args.alone.local.exec[0].command, "sh -c \"a, b\"");
        assert_eq!(args.alone.local.exec[1].name, "y");
    }

    #[test]
    fn a_wrong_value_is_named_with_the_right_form() {
        let rows = [
            ("--admin :15000", "127.0.0.1:15000"),
            ("--drain-timeout 30", "30s"),
            ("--port-map 80", "FROM:TO"),
            ("--exec hello", "NAME='command'"),
            ("--workers 0", "1..=512"),
            ("--max-held-bytes lots", "256Mi"),
            ("--access-log xml", "possible values: off, text, json"),
            ("--log-level loud", "loud"),
            ("--adminn 1", "--admin"),
        ];
        for (line, wanted) in rows {
            let text = parse(line).unwrap_err();
            assert!(text.contains(wanted), "{line}: {text}");
        }
    }
}
