//! The admin API: what the process is doing, and the few things it can be told.
//!
//! A small HTTP/1.1 server on the control thread, never on a worker. It is meant for this host: a browser
//! that was lured into asking for it is turned away by the names it sends. Sizes, times and connections are
//! bounded. What it tells comes through [`Source`]; it knows nothing of the proxy itself.

pub mod dump;
mod guard;
mod server;

pub use server::{Face, bind, serve};

use super::log::Log;
use crate::drain::{Ask, Drain, Phase};
use crate::telemetry;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::sync::Arc;

/// Where the admin API learns what it tells.
pub trait Source: Send + Sync {
    /// Whether the first configuration serves and its listeners are bound.
    ///
    /// # Errors
    /// What is still missing, in words.
    fn ready(&self) -> Result<(), String>;
    /// All metrics as Prometheus text.
    fn metrics(&self) -> String;
    /// The running configuration and its last reload; [`dump::page`] makes it.
    fn config_dump(&self) -> Value;
    /// Clusters with their endpoints: health, exchanges in flight, connections.
    fn clusters(&self) -> Value;
    /// Functions with their instances and holds.
    fn functions(&self) -> Value;
    /// Somebody has this page change something.
    fn acted(&self, page: &str);
}

/// What the admin API acts on.
pub struct Admin {
    source: Arc<dyn Source>,
    drain: Arc<Drain>,
    log: Option<Log>,
}

/// An answer; all are short or at least finite.
type Answer = Response<Full<Bytes>>;

/// What a path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Index,
    Ready,
    Live,
    Metrics,
    ConfigDump,
    Clusters,
    Functions,
    Drain,
    Quit,
    Logging,
}

/// Path, page, whether it changes something (POST), whether the read-only face has it, what it is.
const PAGES: [(&str, Page, bool, bool, &str); 12] = [
    ("/", Page::Index, false, false, "this list"),
    ("/ready", Page::Ready, false, false, "200 when the configuration serves, else 503 with the reason"),
    ("/healthz/ready", Page::Ready, false, true, "the same"),
    ("/live", Page::Live, false, false, "200 while the process lives"),
    ("/metrics", Page::Metrics, false, false, "metrics as Prometheus text"),
    ("/stats/prometheus", Page::Metrics, false, true, "the same"),
    ("/config_dump", Page::ConfigDump, false, false, "the running configuration and its last reload"),
    ("/clusters", Page::Clusters, false, false, "destinations: endpoints, health, requests, connections"),
    ("/functions", Page::Functions, false, false, "functions: instances, requests held"),
    ("/drain", Page::Drain, true, false, "fail readiness, tell clients to leave, go on serving"),
    ("/quitquitquit", Page::Quit, true, false, "finish what is in flight and exit"),
    ("/logging", Page::Logging, true, false, "?level=debug changes the log; without it, tells the level"),
];

/// Whether a page takes more time than others can wait for who share its thread.
fn takes_long(path: &str) -> bool {
    PAGES.iter().any(|(known, page, ..)| *known == path && *page == Page::ConfigDump)
}

impl Admin {
    /// `log`: where there is none, `/logging` answers 501.
    pub fn new(source: Arc<dyn Source>, drain: Arc<Drain>, log: Option<Log>) -> Admin {
        Admin { source, drain, log }
    }

    /// Answers one request; the body of it is never read.
    fn answer<B>(&self, face: Face, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let found =
            PAGES.iter().find(|(known, _, _, open, _)| *known == path && (*open || face == Face::Admin));
        let Some((_, page, acts, _, _)) = found else {
            return text(StatusCode::NOT_FOUND, "no such page; / lists them\n");
        };
        let fits = match *request.method() {
            Method::GET | Method::HEAD => !acts,
            Method::POST => *acts,
            _ => false,
        };
        if !fits {
            let allow = HeaderValue::from_static(if *acts { "POST" } else { "GET, HEAD" });
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            answer.headers_mut().insert(ALLOW, allow);
            return answer;
        }
        if *acts {
            self.source.acted(request.uri().path_and_query().map_or(path, |target| target.as_str()));
        }
        self.page(*page, request.uri().query().unwrap_or_default())
    }

    fn page(&self, page: Page, query: &str) -> Answer {
        match page {
            Page::Index => text(StatusCode::OK, index()),
            Page::Ready => self.ready(),
            Page::Live => text(StatusCode::OK, "live\n"),
            Page::Metrics => whole(StatusCode::OK, telemetry::CONTENT_TYPE, self.source.metrics()),
            Page::ConfigDump => json(&self.source.config_dump()),
            Page::Clusters => json(&self.source.clusters()),
            Page::Functions => json(&self.source.functions()),
            Page::Drain => {
                self.drain.ask(Ask::Drain);
                text(StatusCode::OK, "draining\n")
            }
            Page::Quit => {
                self.drain.ask(Ask::Stop);
                text(StatusCode::OK, "stopping\n")
            }
            Page::Logging => self.logging(query),
        }
    }

    fn ready(&self) -> Answer {
        let phase = self.drain.phase();
        if phase != Phase::Running {
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("{phase}\n"));
        }
        match self.source.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    fn logging(&self, query: &str) -> Answer {
        let Some(log) = &self.log else {
            return text(StatusCode::NOT_IMPLEMENTED, "this process does not keep its own log\n");
        };
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("level="));
        if let Some(level) = wanted
            && let Err(reason) = log.set(&decoded(level))
        {
            return text(StatusCode::BAD_REQUEST, format!("{reason}\n"));
        }
        text(StatusCode::OK, format!("{}\n", log.level()))
    }
}

/// `%2C` and the like; what is no UTF-8 becomes a replacement character and is refused as a level.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn index() -> String {
    let line = |(path, _, acts, _, what): &(&str, Page, bool, bool, &str)| {
        format!("{:<5}{path:<20} {what}\n", if *acts { "POST" } else { "GET" })
    };
    format!("pilotlight {}\n\n", env!("CARGO_PKG_VERSION")) + &PAGES.iter().map(line).collect::<String>()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    whole(status, "text/plain; charset=utf-8", body)
}

fn json(value: &Value) -> Answer {
    whole(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests;
