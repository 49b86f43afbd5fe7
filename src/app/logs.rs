//! Which access log the command line and the configuration ask for, opened once for as long as it stays the same.

use crate::cli::run::{AccessLog as LogFlag, RunArgs};
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::{AccessLog, Encoding, Format, Target};
use proxy_config::model;
use std::sync::Arc;

/// The access log as it was asked for last.
#[derive(Default)]
pub(super) struct Logged(Option<(model::AccessLog, Arc<AccessLog>)>);

impl Logged {
    /// `--access-log`, else MeshConfig, else text to standard output.
    pub(super) fn wanted(
        &mut self,
        args: &RunArgs,
        telemetry: &Telemetry,
        mesh: &model::Mesh,
    ) -> Option<Arc<AccessLog>> {
        let written = mesh.access_log.clone();
        let flag = |encoding| {
            // A format from MeshConfig still holds where it is of the encoding asked for.
            let format = written.clone().filter(|log| log.encoding == encoding).and_then(|log| log.format);
            model::AccessLog { file: "/dev/stdout".to_owned(), encoding, format }
        };
        let wanted = match args.serve.access_log {
            Some(LogFlag::Off) => return None,
            Some(LogFlag::Text) => flag(model::AccessLogEncoding::Text),
            Some(LogFlag::Json) => flag(model::AccessLogEncoding::Json),
            None => match written {
                Some(log) if log.file.is_empty() => return None,
                Some(log) => log,
                None => flag(model::AccessLogEncoding::Text),
            },
        };
        if let Some((of, log)) = &self.0
            && *of == wanted
        {
            return Some(log.clone());
        }
        let encoding = match wanted.encoding {
            model::AccessLogEncoding::Text => Encoding::Text,
            model::AccessLogEncoding::Json => Encoding::Json,
        };
        let format = Format::parse(encoding, wanted.format.as_deref()).unwrap_or_else(|error| {
            tracing::error!("accessLogFormat: {error}; Istio's format is used instead");
            if encoding == Encoding::Json { Format::istio_json() } else { Format::istio_text() }
        });
        match telemetry.access_log(Target::from(wanted.file.as_str()), format) {
            Ok(log) => {
                let log = Arc::new(log);
                self.0 = Some((wanted, log.clone()));
                Some(log)
            }
            Err(error) => {
                tracing::error!("accessLogFile {}: {error}; requests are not logged", wanted.file);
                None
            }
        }
    }
}
