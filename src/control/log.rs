//! The proxy's own log: what it did and what it refused, one line each, on standard error.
//!
//! Not the access log, and never on the path of an exchange that goes well. The filter can be changed while
//! the process runs.

use std::io::IsTerminal;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the filter of the running process.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Installs the process-wide subscriber. `level` as in [`parse`].
    ///
    /// # Errors
    /// When `level` is no filter, or a subscriber is installed already.
    pub fn install(level: &str) -> Result<Log, String> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let stderr = std::io::stderr();
        let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let lines = fmt::layer()
            .compact()
            .with_target(true)
            .with_ansi(colour)
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .map_err(|error| format!("logging could not be set up: {error}"))?;
        Ok(Log { filter: handle })
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// When `level` is no filter; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = parse(level)?;
        self.filter.reload(filter).map_err(|error| error.to_string())
    }

    /// The filter in force, in the syntax of `tracing`.
    pub fn level(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// A bare level holds for this project's own events, and libraries stay at warnings; anything else is taken
/// as a filter in the syntax of `tracing` (`info,pilotlight::control=debug`).
///
/// # Errors
/// Names what is wrong with the filter.
pub fn parse(level: &str) -> Result<EnvFilter, String> {
    let level = level.trim();
    let spec = match level.to_ascii_lowercase().as_str() {
        word @ ("error" | "off") => word.to_owned(),
        word @ ("warn" | "info" | "debug" | "trace") => format!("warn,pilotlight={word},proxy_config={word}"),
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        _ if level.contains('=') || level.contains(',') => level.to_owned(),
        _ => return Err(format!("{level:?} is no level; one of error, warn, info, debug, trace, off")),
    };
    EnvFilter::builder().parse(&spec).map_err(|error| format!("{level:?} is no filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_speaks_for_this_project_and_keeps_libraries_quiet() {
        let rows = [
            ("info", Some("pilotlight=info")),
            ("DEBUG", Some("pilotlight=debug")),
            ("warning", Some("warn")),
            ("off", Some("off")),
            ("info,pilotlight::control=trace", Some("pilotlight::control=trace")),
            ("loud", None),
            ("", None),
            ("pilotlight=loud", None),
        ];
        for (text, wanted) in rows {
            match (parse(text), wanted) {
                (Ok(filter), Some(part)) => assert!(filter.to_string().contains(part), "{text}: {filter}"),
                (Err(_), None) => {}
                (got, _) => panic!("{text}: {:?}", got.map(|f| f.to_string())),
            }
        }
    }
}
