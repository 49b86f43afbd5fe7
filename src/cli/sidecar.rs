//! `pilotlight sidecar`: its arguments. What serving needs is `run`'s; what it stands beside is said here.

use super::RunArgs;
use super::run::{AloneArgs, ServeArgs};
use super::values;
use proxy_config::load::Sidecar;
use proxy_config::model::Workload;
use std::net::SocketAddr;

/// Arguments of `pilotlight sidecar`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Every flag can also be set in the environment as shown; a flag wins.\n\
                        Gateways are not bound and functions not started.",
    next_help_heading = "Workload"
)]
pub struct SidecarArgs {
    /// The workload that this sidecar stands beside
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PILOTLIGHT_WORKLOAD", value_parser = workload,
          hide_env_values = true)]
    pub workload: (String, String),

    /// Its labels, by which policies select it
    #[arg(long, value_name = "KEY=VALUE,…", env = "PILOTLIGHT_LABELS", value_delimiter = ',',
          value_parser = label, hide_env_values = true)]
    pub labels: Vec<(String, String)>,

    /// Its service account
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_SERVICE_ACCOUNT", default_value = "default",
          value_parser = values::label, hide_env_values = true)]
    pub service_account: String,

    /// Where its program listens, once for each of its ports; the first is meant where the port of a
    /// request's authority says nothing else
    #[arg(long, value_name = "ADDR,…", env = "PILOTLIGHT_APP", value_delimiter = ',', required = true,
          value_parser = values::address, hide_env_values = true)]
    pub app: Vec<SocketAddr>,

    /// Where callers of the program come in, with mutual TLS or as PeerAuthentication allows
    #[arg(long, value_name = "ADDR", env = "PILOTLIGHT_INBOUND", default_value = "0.0.0.0:15006",
          value_parser = values::address, hide_env_values = true)]
    pub inbound: SocketAddr,

    /// Where the program reaches the mesh; also an HTTP proxy (http_proxy=…)
    #[arg(long, value_name = "ADDR", env = "PILOTLIGHT_OUTBOUND", default_value = "127.0.0.1:15001",
          value_parser = values::address, hide_env_values = true)]
    pub outbound: SocketAddr,

    /// How it serves.
    #[command(flatten)]
    pub serve: ServeArgs,
}

impl SidecarArgs {
    /// The same for the one who serves.
    pub fn into_run(self) -> RunArgs {
        let (namespace, name) = self.workload;
        let workload = Workload {
            namespace,
            name,
            service_account: self.service_account,
            labels: self.labels.into_iter().collect(),
        };
        let sidecar = Sidecar { workload, apps: self.app, inbound: self.inbound };
        let alone = AloneArgs { mesh: self.outbound, ..AloneArgs::default() };
        RunArgs { serve: self.serve, alone, sidecar: Some(sidecar) }
    }
}

fn workload(text: &str) -> Result<(String, String), String> {
    let (namespace, name) = text.split_once('/').ok_or("write NAMESPACE/NAME, for instance shop/till")?;
    Ok((values::label(namespace)?, values::label(name)?))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, for instance app=till")?;
    if key.trim().is_empty() {
        return Err("there is no key before '='".to_owned());
    }
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<super::RunArgs, String> {
        let words = ["pilotlight", "sidecar"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Sidecar(args) => Ok(args.into_run()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sidecar_knows_whom_it_stands_beside() {
        let line = "conf --workload shop/till --labels app=till,tier=front --service-account clerk --app \
                    127.0.0.1:8080,127.0.0.1:8081 --inbound 127.0.0.1:0 --outbound 127.0.0.1:1 --admin 127.0.0.1:2";
        let args = parse(line).unwrap();
        let own = args.sidecar.unwrap();
        assert_eq!((own.workload.namespace.as_str(), own.workload.name.as_str()), ("shop", "till"));
        assert_eq!((own.workload.labels.len(), own.workload.service_account.as_str()), (2, "clerk"));
        assert_eq!(
            (own.apps.len(), own.inbound.port(), args.alone.mesh.port(), args.serve.admin.port()),
            (2, 0, 1, 2)
        );
        assert_eq!(args.serve.paths, [std::path::PathBuf::from("conf")]);
    }

    #[test]
    fn what_a_sidecar_cannot_do_without_is_asked_for() {
        for (line, wanted) in [
            ("--app 127.0.0.1:1", "--workload"),
            ("--workload shop/till", "--app"),
            ("--workload till --app 127.0.0.1:1", "NAMESPACE/NAME"),
            ("--workload shop/till --app 8080", "127.0.0.1"),
            ("--workload shop/till --app 127.0.0.1:1 --labels app", "KEY=VALUE"),
        ] {
            let text = parse(line).unwrap_err();
            assert!(text.contains(wanted), "{line}: {text}");
        }
    }
}
